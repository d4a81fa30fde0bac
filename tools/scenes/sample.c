#include "sample.h"

#include "chance.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <yyjson.h>

const char *const pd_kind_names[] = {"captions", "questions", "eval", "demo", NULL};
const char *const pd_split_names[] = {"train", "val", "test", NULL};

// What a stream of random numbers is for: each draws from its own.
enum {
    FOR_SCENE,
    FOR_QUESTIONS,
    FOR_TEXT_ONLY,
    FOR_DEMO,
    FOR_TASK,
    FOR_DESCRIPTION = FOR_TASK + PD_N_TASKS,
    FOR_TOLD
};

static uint64_t stream(const pd_sample_options *options, int purpose, int64_t index) {
    const uint64_t numbers[] = {options->seed, (uint64_t)options->split, (uint64_t)purpose, (uint64_t)index};
    return pd_stream(numbers, sizeof numbers / sizeof *numbers);
}

int64_t pd_n_samples(const pd_sample_options *options) {
    return options->kind == PD_KIND_EVAL ? options->count * options->n_tasks : options->count;
}

static void name_image(pd_sample *sample, int64_t number) {
    snprintf(sample->image, sizeof sample->image, "images/%03" PRId64 "/%06" PRId64 ".png", number / 1000,
             number);
}

// Whether the turns so far tell the answer. What is there has soon been named, what is not there never: yes
// and no are asked for only as long as both can be, or late questions would be answered no.
static bool is_told(const pd_sample *sample, const pd_question *question, bool held_out, uint64_t *random) {
    if (pd_told_before(sample->questions, sample->n_questions, question)) return true;
    if (question->task != PD_TASK_EXISTENCE) return false;
    const bool exists = strcmp(question->answer, "yes") == 0;
    const int opposite = pd_pick(random, 3) + (exists ? 3 : 0);
    pd_question other;
    return !pd_ask(&sample->scene, PD_TASK_EXISTENCE, opposite, held_out, random, &other) ||
           pd_told_before(sample->questions, sample->n_questions, &other);
}

static void add_weighed(pd_sample *sample, const int weights[PD_N_TASKS], int turns, bool told, bool held_out,
                        uint64_t *random) {
    enum { ATTEMPTS = 30 };
    for (int attempt = 0; attempt < ATTEMPTS && sample->n_questions < turns; attempt++) {
        pd_question *question = &sample->questions[sample->n_questions];
        if (pd_ask_any(&sample->scene, weights, held_out, random, question) &&
            !pd_asked_before(sample->questions, sample->n_questions, question) &&
            (told || !is_told(sample, question, held_out, random)))
            sample->n_questions++;
    }
}

// Where the scene has nothing of the tasks that weigh something, anything is asked.
static void add_questions(const pd_sample_options *options, pd_sample *sample, bool told, bool held_out,
                          uint64_t *random) {
    static const int even[PD_N_TASKS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    add_weighed(sample, options->weights, options->turns, told, held_out, random);
    if (sample->n_questions == 0) add_weighed(sample, even, options->turns, told, held_out, random);
}

// ---- pictures to train on ---------------------------------------------------------------------------------

static void make_text_only(const pd_sample_options *options, pd_sample *sample, uint64_t *random) {
    sample->n_questions = options->turns > 2 ? 2 : options->turns;
    for (int i = 0; i < sample->n_questions; i++) {
        pd_question *question = &sample->questions[i];
        *question = (pd_question){.task = PD_N_TASKS, .type = "text only"};
        pd_ask_text_only(random, question->question, question->answer);
    }
}

// A description ends the conversation, for it gives every later answer away; it comes after any number of
// questions, so that it is asked for without any of them, too.
static void add_description(const pd_sample_options *options, int64_t number, pd_sample *sample) {
    uint64_t random = stream(options, FOR_DESCRIPTION, number);
    if (!pd_chance(&random, options->describe)) return;
    sample->n_questions = pd_pick(&random, sample->n_questions + 1);
    sample->describe = pd_describe_wordings[pd_pick(&random, PD_N_DESCRIBE_WORDINGS)];
    pd_caption(&sample->scene, sample->caption);
}

// Captions and questions of one seed are about the same pictures.
static void make_training(const pd_sample_options *options, int64_t index, pd_sample *sample) {
    const int64_t number = options->first + index;
    uint64_t text_only = stream(options, FOR_TEXT_ONLY, number);
    snprintf(sample->id, sizeof sample->id, "%s-%06" PRId64, pd_split_names[options->split], number);
    if (pd_chance(&text_only, options->text_only)) {
        make_text_only(options, sample, &text_only);
        return;
    }
    uint64_t random = stream(options, FOR_SCENE, number);
    const bool held_out = pd_chance(&random, options->held_out);
    pd_scene_compose(&sample->scene, (pd_scene_kind)pd_pick_weighed(&random, options->mix, PD_N_SCENES),
                     options->most, held_out, &random);
    name_image(sample, number);
    if (options->kind == PD_KIND_CAPTIONS) {
        pd_caption(&sample->scene, sample->caption);
        return;
    }
    random = stream(options, FOR_TOLD, number);
    const bool told = pd_chance(&random, options->told);
    random = stream(options, FOR_QUESTIONS, number);
    add_questions(options, sample, told, held_out, &random);
    add_description(options, number, sample);
}

// ---- one question a picture -------------------------------------------------------------------------------

// Scenes are drawn until one gives the question that is wanted. Some targets have nothing held out: the
// next one then takes their turn.
static void make_eval(const pd_sample_options *options, int64_t index, pd_sample *sample) {
    enum { ATTEMPTS = 3000 };
    const pd_task task = options->tasks[index / options->count];
    const int64_t number = options->first + index % options->count;
    uint64_t random = stream(options, FOR_TASK + (int)task, number);
    const bool held_out = pd_chance(&random, options->held_out) && pd_task_has_held_out(task);
    int target = (int)(number % pd_n_targets(task));
    pd_scene_kind kind = pd_scene_for_task(task, held_out, &random);
    pd_question *question = &sample->questions[0];
    for (int attempt = 1;; attempt++) {
        pd_scene_compose(&sample->scene, kind, PD_MAX_OBJECTS, held_out, &random);
        if (pd_ask(&sample->scene, task, target, held_out, &random, question) &&
            question->held_out == held_out)
            break;
        if (attempt % ATTEMPTS == 0) {
            kind = pd_scene_for_task(task, held_out, &random);
            target = (target + 1) % pd_n_targets(task);
        }
    }
    sample->n_questions = 1;
    snprintf(sample->id, sizeof sample->id, "%s-%s-%06" PRId64, pd_split_names[options->split],
             pd_task_names[task], number);
    name_image(sample, index);
}

// ---- pictures to show -------------------------------------------------------------------------------------

static bool fit_to_show(const pd_scene *scene, int demo) {
    int n_emoji = 0;
    for (int i = 0; i < scene->n_items; i++)
        n_emoji += scene->items[i].kind == PD_ITEM_EMOJI;
    switch (demo) {
    case 0:
        return scene->n_items >= 4 && n_emoji == 0;
    case 1:
        return scene->n_items >= 5 && n_emoji > 0;
    case 2:
        return scene->n_items >= 4;
    case 3:
        return scene->n_items >= 4;
    case 4:
        return scene->document.kind == PD_RECEIPT && scene->document.n_lines >= 4;
    case 5:
        return scene->document.kind == PD_TICKET;
    case 6:
        return scene->chart.names == PD_BARS_BY_COLOR && scene->chart.n_bars >= 4;
    default:
        return scene->chart.names == PD_BARS_BY_WORD && scene->chart.n_bars >= 4;
    }
}

static void make_demo(const pd_sample_options *options, int64_t index, pd_sample *sample) {
    static const struct {
        const char *name;
        pd_scene_kind kind;
    } demos[PD_N_DEMOS] = {
        {"shapes", PD_SCENE_OBJECTS}, {"objects", PD_SCENE_OBJECTS},  {"emoji", PD_SCENE_EMOJI},
        {"signs", PD_SCENE_SIGNS},    {"receipt", PD_SCENE_DOCUMENT}, {"ticket", PD_SCENE_DOCUMENT},
        {"columns", PD_SCENE_CHART},  {"bars", PD_SCENE_CHART},
    };
    const int64_t number = options->first + index;
    const int demo = (int)(number % PD_N_DEMOS);
    uint64_t random = stream(options, FOR_DEMO, number);
    do {
        pd_scene_compose(&sample->scene, demos[demo].kind, PD_MAX_OBJECTS, false, &random);
    } while (!fit_to_show(&sample->scene, demo));
    add_questions(options, sample, false, false, &random);
    snprintf(sample->id, sizeof sample->id, "%s-%" PRId64, demos[demo].name, number / PD_N_DEMOS + 1);
    snprintf(sample->image, sizeof sample->image, "%s.png", sample->id);
}

void pd_sample_make(const pd_sample_options *options, int64_t index, pd_sample *sample) {
    *sample = (pd_sample){0};
    switch (options->kind) {
    case PD_KIND_CAPTIONS:
    case PD_KIND_QUESTIONS:
        make_training(options, index, sample);
        break;
    case PD_KIND_EVAL:
        make_eval(options, index, sample);
        break;
    case PD_KIND_DEMO:
        make_demo(options, index, sample);
        break;
    }
}

// ---- JSON -------------------------------------------------------------------------------------------------

static void add_turn(yyjson_mut_doc *json, yyjson_mut_val *turns, const char *who, const char *text) {
    yyjson_mut_val *turn = yyjson_mut_arr_add_obj(json, turns);
    yyjson_mut_obj_add_str(json, turn, "from", who);
    yyjson_mut_obj_add_strcpy(json, turn, "value", text);
}

static void add_exchange(yyjson_mut_doc *json, yyjson_mut_val *turns, bool image, const char *question,
                         const char *answer) {
    char text[PD_MAX_QUESTION + 16];
    snprintf(text, sizeof text, "%s%s", image ? "<image>\n" : "", question);
    add_turn(json, turns, "human", text);
    add_turn(json, turns, "gpt", answer);
}

static void add_conversation(yyjson_mut_doc *json, yyjson_mut_val *record, const pd_sample *sample,
                             pd_kind kind) {
    yyjson_mut_val *turns = yyjson_mut_obj_add_arr(json, record, "conversations");
    if (kind == PD_KIND_CAPTIONS && sample->image[0]) {
        add_turn(json, turns, "human", "<image>");
        add_turn(json, turns, "gpt", sample->caption);
        return;
    }
    const bool image = sample->image[0] != '\0';
    for (int i = 0; i < sample->n_questions; i++)
        add_exchange(json, turns, image && i == 0, sample->questions[i].question,
                     sample->questions[i].answer);
    if (sample->describe)
        add_exchange(json, turns, image && sample->n_questions == 0, sample->describe, sample->caption);
}

char *pd_sample_json(const pd_sample *sample, pd_kind kind) {
    yyjson_mut_doc *json = yyjson_mut_doc_new(NULL);
    if (!json) return NULL;
    yyjson_mut_val *record = yyjson_mut_obj(json);
    yyjson_mut_doc_set_root(json, record);
    yyjson_mut_obj_add_str(json, record, "id", sample->id);
    if (sample->image[0]) yyjson_mut_obj_add_str(json, record, "image", sample->image);
    if (kind == PD_KIND_EVAL) {
        const pd_question *question = &sample->questions[0];
        yyjson_mut_obj_add_str(json, record, "task", pd_task_names[question->task]);
        yyjson_mut_obj_add_str(json, record, "type", question->type);
        yyjson_mut_obj_add_bool(json, record, "held_out", question->held_out);
        yyjson_mut_obj_add_str(json, record, "question", question->question);
        yyjson_mut_obj_add_str(json, record, "answer", question->answer);
    } else {
        add_conversation(json, record, sample, kind);
    }
    char *text = yyjson_mut_write(json, 0, NULL);
    yyjson_mut_doc_free(json);
    return text;
}
