// scenes: renders pictures and writes what is asked about them, for training and measuring.
#include "choices.h"
#include "cli/cli.h"
#include "dataset.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yyjson.h>

static struct {
    const char *out, *tasks, *mix, *ask;
    int32_t kind, split, count, first, size, turns, most, threads;
    uint64_t seed;
    float text_only, describe, told, held_out;
    bool images, report, list_held_out, json;
} flags = {.split = -1,
           .count = -1,
           .size = 224,
           .turns = 4,
           .most = PD_MAX_OBJECTS,
           .held_out = -1,
           .images = true};

static const pd_option option_table[] = {
    {.type = PD_OPTION_HEADING, .help = "what to write"},
    {PD_OPTION_STRING, 'o', "--out", "DIR", "folder of the data set: DIR/SPLIT-KIND.json, DIR/images/",
     &flags.out, 0, 0, NULL},
    {PD_OPTION_CHOICE, 'k', "--kind", NULL,
     "captions (training, phase 1), questions (phase 2), eval (one question a picture, balanced), demo "
     "(pictures to show)",
     &flags.kind, 0, 0, pd_kind_names},
    {PD_OPTION_CHOICE, 0, "--split", NULL, "which split's pictures (default: train; eval and demo: test)",
     &flags.split, 0, 0, pd_split_names},
    {PD_OPTION_INT, 'n', "--count", "N",
     "records; with --kind eval of each task (default: 1000; eval: 100; demo: 8)", &flags.count, 1, 100000000,
     NULL},
    {PD_OPTION_INT, 0, "--first", "I", "index of the first record (default: 0)", &flags.first, 0, 1000000000,
     NULL},
    {PD_OPTION_UINT64, 0, "--seed", "N", "same seed, same bytes (default: 0)", &flags.seed, 0, 0, NULL},
    {PD_OPTION_INT, 0, "--size", "N", "pixels a side (default: 224)", &flags.size, 56, 2048, NULL},
    {PD_OPTION_INT, 0, "--turns", "N", "questions a picture, at most (default: 4)", &flags.turns, 1,
     PD_MAX_TURNS, NULL},
    {PD_OPTION_INT, 0, "--most", "N",
     "shapes, emoji, signs or letters in a training picture, at most (default: 6)", &flags.most, 1,
     PD_MAX_OBJECTS, NULL},
    {PD_OPTION_FLOAT, 0, "--text-only", "SHARE", "records without a picture (default: 0)", &flags.text_only,
     0, 1, NULL},
    {PD_OPTION_FLOAT, 0, "--describe", "SHARE",
     "pictures whose questions end with one for a description (default: 0)", &flags.describe, 0, 1, NULL},
    {PD_OPTION_FLOAT, 0, "--told", "SHARE",
     "conversations whose turns may tell each other's answers (default: 0)", &flags.told, 0, 1, NULL},
    {PD_OPTION_STRING, 0, "--ask", "LIST",
     "weights of tasks in conversations, such as existence=4,words=2 (default: 1 each)", &flags.ask, 0, 0,
     NULL},
    {PD_OPTION_FLOAT, 0, "--held-out", "SHARE",
     "records about what training never sees (default: 0.1; train: none)", &flags.held_out, 0, 1, NULL},
    {PD_OPTION_STRING, 0, "--mix", "LIST",
     "weights of scenes (default: objects=34,emoji=14,signs=24,document=14,chart=14; there are letters too)",
     &flags.mix, 0, 0, NULL},
    {PD_OPTION_STRING, 0, "--tasks", "LIST", "tasks of --kind eval, such as colors,words (default: all)",
     &flags.tasks, 0, 0, NULL},
    {PD_OPTION_OFF, 0, "--no-images", NULL, "only the JSON", &flags.images, 0, 0, NULL},
    {.type = PD_OPTION_HEADING, .help = "how"},
    {PD_OPTION_INT, 't', "--threads", "N", "threads that draw (default: one for each core)", &flags.threads,
     1, 512, NULL},
    {PD_OPTION_FLAG, 0, "--report", NULL,
     "print the blind baseline: how far one gets without pictures; works without --out", &flags.report, 0, 0,
     NULL},
    {PD_OPTION_FLAG, 0, "--list-held-out", NULL,
     "print what training never sees, a line each, and exit: pairs of colour and shape, words, numbers",
     &flags.list_held_out, 0, 0, NULL},
    {PD_OPTION_FLAG, 0, "--json", NULL, "print the summary as JSON", &flags.json, 0, 0, NULL},
    {.type = PD_OPTION_END},
};

static const pd_option *const tables[] = {option_table, NULL};
static const pd_command command = {
    .name = NULL,
    .program = "scenes",
    .usage = "scenes --out DIR [options]",
    .about =
        "Renders pictures of shapes, emoji, signs, documents and charts, and writes captions, or questions\n"
        "with answers, about them: LLaVA's conversation JSON for training, one question a record for\n"
        "measuring. Splits never share a picture; what is held out never occurs in training.",
    .tables = tables,
};

static volatile bool stop;

static void on_signal(int signal_number) {
    (void)signal_number;
    stop = true;
}

// ---- options ----------------------------------------------------------------------------------------------

static pd_status parse_tasks(const char *list, pd_sample_options *samples, pd_error *err) {
    int chosen[PD_N_TASKS];
    for (int i = 0; i < PD_N_TASKS; i++)
        chosen[i] = i;
    samples->n_tasks = list ? pd_read_choices(list, pd_task_names, chosen) : PD_N_TASKS;
    if (samples->n_tasks == 0)
        return pd_fail(err, PD_ERR_ARGUMENT, "--tasks: expected different tasks (%s, %s, …), found \"%s\"",
                       pd_task_names[0], pd_task_names[1], list);
    for (int i = 0; i < samples->n_tasks; i++)
        samples->tasks[i] = (pd_task)chosen[i];
    return PD_OK;
}

static pd_status parse_ask(const char *list, pd_sample_options *samples, pd_error *err) {
    for (int i = 0; i < PD_N_TASKS; i++)
        samples->weights[i] = 1;
    if (!list || pd_read_weights(list, pd_task_names, 0, samples->weights)) return PD_OK;
    return pd_fail(err, PD_ERR_ARGUMENT,
                   "--ask: expected tasks with weights from 0 to 10000 (%s=1,%s=1,…), found \"%s\"",
                   pd_task_names[0], pd_task_names[1], list);
}

static pd_status parse_mix(const char *list, pd_sample_options *samples, pd_error *err) {
    static const int usual[PD_N_SCENES] = {34, 14, 24, 14, 14, 0};
    memcpy(samples->mix, usual, sizeof usual);
    if (!list) return PD_OK;
    memset(samples->mix, 0, sizeof samples->mix);
    if (pd_read_weights(list, pd_scene_names, 1, samples->mix)) return PD_OK;
    return pd_fail(
        err, PD_ERR_ARGUMENT,
        "--mix: expected objects=N,emoji=N,signs=N,document=N,chart=N,letters=N, some of them, each "
        "N from 1 to 10000, found \"%s\"",
        list);
}

static pd_status set_options(pd_dataset_options *options, pd_error *err) {
    pd_sample_options *s = &options->samples;
    s->kind = (pd_kind)flags.kind;
    const bool training = s->kind <= PD_KIND_QUESTIONS;
    s->split = flags.split >= 0 ? (pd_split)flags.split : training ? PD_SPLIT_TRAIN : PD_SPLIT_TEST;
    s->seed = flags.seed;
    s->first = flags.first;
    s->count = flags.count > 0 ? flags.count : s->kind == PD_KIND_EVAL ? 100 : training ? 1000 : PD_N_DEMOS;
    s->turns = flags.turns;
    s->most = flags.most;
    s->text_only = (double)flags.text_only;
    s->describe = (double)flags.describe;
    s->told = (double)flags.told;
    s->held_out = flags.held_out >= 0                                     ? (double)flags.held_out
                  : s->split == PD_SPLIT_TRAIN || s->kind == PD_KIND_DEMO ? 0
                                                                          : 0.1;
    if (s->split == PD_SPLIT_TRAIN && s->held_out > 0)
        return pd_fail(err, PD_ERR_ARGUMENT,
                       "--held-out: training never sees what is held out; expected --split val or test");
    if (s->text_only > 0 && s->kind != PD_KIND_QUESTIONS)
        return pd_fail(err, PD_ERR_ARGUMENT, "--text-only: expected --kind questions");
    if (s->describe > 0 && s->kind != PD_KIND_QUESTIONS)
        return pd_fail(err, PD_ERR_ARGUMENT, "--describe: expected --kind questions");
    if (s->told > 0 && s->kind != PD_KIND_QUESTIONS)
        return pd_fail(err, PD_ERR_ARGUMENT, "--told: expected --kind questions");
    if (flags.ask && s->kind != PD_KIND_QUESTIONS)
        return pd_fail(err, PD_ERR_ARGUMENT, "--ask: expected --kind questions");
    if (s->most < PD_MAX_OBJECTS && !training)
        return pd_fail(err, PD_ERR_ARGUMENT, "--most: expected --kind captions or questions");
    if (flags.tasks && s->kind != PD_KIND_EVAL)
        return pd_fail(err, PD_ERR_ARGUMENT, "--tasks: expected --kind eval (for training, see --mix)");
    if (!flags.out && !flags.report) return pd_fail(err, PD_ERR_ARGUMENT, "no folder: give one with --out");
    PD_TRY(parse_tasks(flags.tasks, s, err));
    PD_TRY(parse_ask(flags.ask, s, err));
    PD_TRY(parse_mix(flags.mix, s, err));
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    options->out = flags.out;
    options->size = flags.size;
    options->threads = flags.threads > 0 ? flags.threads : cores > 0 && cores < 512 ? (int)cores : 1;
    options->images = flags.images;
    options->progress = isatty(STDERR_FILENO) != 0;
    return PD_OK;
}

// ---- output -----------------------------------------------------------------------------------------------

static void add_row(yyjson_mut_doc *json, yyjson_mut_val *rows, int task, int group,
                    const pd_blind_row *row) {
    static const char *const groups[] = {"seen", "held out", "all"};
    if (row->n == 0) return;
    yyjson_mut_val *value = yyjson_mut_arr_add_obj(json, rows);
    yyjson_mut_obj_add_str(json, value, "task", task < PD_N_TASKS ? pd_task_names[task] : "all");
    yyjson_mut_obj_add_str(json, value, "group", groups[group]);
    yyjson_mut_obj_add_int(json, value, "n", row->n);
    yyjson_mut_obj_add_int(json, value, "answers", row->n_answers);
    yyjson_mut_obj_add_real(json, value, "majority", row->majority);
    yyjson_mut_obj_add_real(json, value, "blind", row->blind);
}

static bool print_json(const pd_dataset_options *options, const pd_dataset_summary *summary,
                       const pd_blind_table *table) {
    yyjson_mut_doc *json = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(json);
    if (!json || !root) return false;
    const pd_sample_options *s = &options->samples;
    yyjson_mut_doc_set_root(json, root);
    yyjson_mut_obj_add_str(json, root, "kind", pd_kind_names[s->kind]);
    yyjson_mut_obj_add_str(json, root, "split", pd_split_names[s->split]);
    yyjson_mut_obj_add_uint(json, root, "seed", s->seed);
    if (options->out) {
        yyjson_mut_obj_add_str(json, root, "out", options->out);
        yyjson_mut_obj_add_str(json, root, "json", summary->json);
    }
    yyjson_mut_obj_add_int(json, root, "records", summary->n_records);
    yyjson_mut_obj_add_int(json, root, "images", summary->n_images);
    yyjson_mut_obj_add_uint(json, root, "image_bytes", summary->image_bytes);
    yyjson_mut_obj_add_int(json, root, "questions", summary->n_questions);
    yyjson_mut_obj_add_real(json, root, "seconds", summary->seconds);
    if (table) {
        yyjson_mut_val *rows = yyjson_mut_obj_add_arr(json, root, "rows");
        for (int task = 0; task <= PD_N_TASKS; task++) {
            for (int group = 0; group < 3; group++)
                add_row(json, rows, task, group, &table->rows[task][group]);
        }
    }
    char *text =
        yyjson_mut_write(json, YYJSON_WRITE_PRETTY_TWO_SPACES | YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL);
    yyjson_mut_doc_free(json);
    if (!text) return false;
    puts(text);
    free(text);
    return true;
}

static void print_summary(const pd_dataset_options *options, const pd_dataset_summary *summary) {
    if (!options->out) return;
    printf("%s: %" PRId64 " records, %" PRId64 " questions", summary->json, summary->n_records,
           summary->n_questions);
    if (options->images)
        printf(", %" PRId64 " pictures (%.1f MB)", summary->n_images, (double)summary->image_bytes * 1e-6);
    printf(", %.1f s\n", summary->seconds);
}

static void list_held_out(void) {
    for (int color = 0; color < PD_N_COLORS; color++) {
        for (int shape = 0; shape < PD_N_SHAPES; shape++) {
            if (pd_pair_held_out(color, shape))
                printf("%s %s\n", pd_colors[color].name, pd_shapes[shape].one);
        }
    }
    for (int word = 0; word < pd_n_words(); word++) {
        if (pd_word_held_out(word)) puts(pd_word(word));
    }
    for (int number = 0; number < 1000; number++) {
        if (pd_number_held_out(number)) printf("%d\n", number);
    }
}

static pd_status run(pd_error *err) {
    pd_dataset_options options = {0};
    pd_dataset_summary summary;
    pd_tally tally = {0};
    pd_blind_table table;
    if (flags.list_held_out) {
        list_held_out();
        return PD_OK;
    }
    PD_TRY(set_options(&options, err));
    pd_status status = pd_dataset_write(&options, &stop, flags.report ? &tally : NULL, &summary, err);
    if (status == PD_OK && flags.report) status = pd_blind(&tally, &options.samples, &table, err);
    pd_tally_free(&tally);
    if (status != PD_OK) return status;
    if (flags.json) {
        if (!print_json(&options, &summary, flags.report ? &table : NULL))
            return pd_fail_memory(err, sizeof table, "the summary");
        return PD_OK;
    }
    print_summary(&options, &summary);
    if (flags.report) pd_blind_print(&table, stdout);
    return PD_OK;
}

static void handle_signals(void) {
    const struct sigaction action = {.sa_handler = on_signal};
    struct sigaction hangup; // under nohup it stays ignored
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
        sigaction(SIGHUP, &action, NULL);
    signal(SIGXFSZ, SIG_IGN); // a file that may not grow is a write that fails
    signal(SIGPIPE, SIG_IGN); // and so is a pipe that nobody reads
}

int main(int argc, char **argv) {
    const pd_parsed parsed = pd_options_parse(&command, argc, argv);
    if (parsed != PD_PARSED_OK) return parsed == PD_PARSED_HELP ? PD_EXIT_OK : PD_EXIT_USAGE;
    handle_signals();
    pd_error err;
    const pd_status status = run(&err);
    if (status == PD_ERR_CANCELLED) {
        fputs("scenes: stopped; no JSON was written\n", stderr);
        return PD_EXIT_INTERRUPTED;
    }
    if (status != PD_OK) {
        fprintf(stderr, "scenes: %s\n", err.message);
        return status == PD_ERR_ARGUMENT ? PD_EXIT_USAGE : PD_EXIT_ERROR;
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("scenes: cannot write to standard output\n", stderr);
        return PD_EXIT_ERROR;
    }
    return PD_EXIT_OK;
}
