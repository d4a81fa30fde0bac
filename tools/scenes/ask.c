// Tasks, their targets, and who asks them.
#include "questions.h"

#include "chance.h"

#include <stdio.h>
#include <string.h>

const char *const pd_task_names[PD_N_TASKS + 1] = {"shapes",   "colors",    "sizes", "positions", "relations",
                                                   "counting", "existence", "words", "numbers",   "documents",
                                                   "charts",   "emoji",     NULL};

int pd_n_targets(pd_task task) {
    switch (task) {
    case PD_TASK_SHAPES:
        return PD_N_SHAPES;
    case PD_TASK_COLORS:
        return PD_N_COLORS;
    case PD_TASK_SIZES:
        return 3; // small, large, which is larger
    case PD_TASK_POSITIONS:
        return PD_N_CELLS;
    case PD_TASK_RELATIONS:
        return 6; // yes, no, left, right, above, below
    case PD_TASK_COUNTING:
        return PD_MAX_OBJECTS;
    case PD_TASK_EXISTENCE:
        return 6; // random, popular, adversarial; each yes and no
    case PD_TASK_WORDS:
        return 1;
    case PD_TASK_NUMBERS:
        return 3; // digits
    case PD_TASK_DOCUMENTS:
        return 8; // total, price, goods, name, number of a form, city, number of a ticket, kind
    case PD_TASK_CHARTS:
        return 6; // largest, smallest, value, larger: yes, no, number of bars
    case PD_TASK_EMOJI:
        return PD_N_EMOJI;
    case PD_N_TASKS:
        break;
    }
    return 0;
}

bool pd_task_has_held_out(pd_task task) {
    return task != PD_TASK_COUNTING && task != PD_TASK_EMOJI;
}

pd_scene_kind pd_scene_for_task(pd_task task, bool held_out, uint64_t *random) {
    switch (task) {
    case PD_TASK_COLORS:
        return pd_chance(random, 0.25) ? PD_SCENE_SIGNS : PD_SCENE_OBJECTS;
    case PD_TASK_POSITIONS:
    case PD_TASK_RELATIONS:
    case PD_TASK_COUNTING:
    case PD_TASK_EXISTENCE:
        return !held_out && pd_chance(random, 0.3) ? PD_SCENE_EMOJI : PD_SCENE_OBJECTS;
    case PD_TASK_WORDS:
    case PD_TASK_NUMBERS:
        return PD_SCENE_SIGNS;
    case PD_TASK_DOCUMENTS:
        return PD_SCENE_DOCUMENT;
    case PD_TASK_CHARTS:
        return PD_SCENE_CHART;
    case PD_TASK_EMOJI:
        return PD_SCENE_EMOJI;
    case PD_TASK_SHAPES:
    case PD_TASK_SIZES:
    case PD_N_TASKS:
        break;
    }
    return PD_SCENE_OBJECTS;
}

bool pd_ask(const pd_scene *scene, pd_task task, int target, bool held_out, uint64_t *random,
            pd_question *question) {
    *question = (pd_question){.task = task};
    switch (scene->kind) {
    case PD_SCENE_DOCUMENT:
        return task == PD_TASK_DOCUMENTS && pd_ask_document(scene, target, random, question);
    case PD_SCENE_CHART:
        return task == PD_TASK_CHARTS && pd_ask_chart(scene, target, random, question);
    case PD_SCENE_SIGNS:
        return pd_ask_signs(scene, task, target, random, question);
    case PD_SCENE_LETTERS:
        return pd_ask_letters(scene, task, target, random, question);
    case PD_SCENE_OBJECTS:
    case PD_SCENE_EMOJI:
        return pd_ask_objects(scene, task, target, held_out, random, question);
    case PD_N_SCENES:
        break;
    }
    return false;
}

// Small numbers are everywhere: most of them are passed over, so that no answer is much more frequent.
static bool passed_over(pd_task task, int target, uint64_t *random) {
    static const double shares[PD_MAX_OBJECTS] = {0.85, 0.5, 0.2, 0, 0, 0};
    return task == PD_TASK_COUNTING && pd_chance(random, shares[target]);
}

bool pd_ask_any(const pd_scene *scene, const int weights[PD_N_TASKS], bool held_out, uint64_t *random,
                pd_question *question) {
    static const struct {
        int n;
        pd_task tasks[7];
    } asked[PD_N_SCENES] = {
        [PD_SCENE_OBJECTS] = {7,
                              {PD_TASK_SHAPES, PD_TASK_COLORS, PD_TASK_SIZES, PD_TASK_POSITIONS,
                               PD_TASK_RELATIONS, PD_TASK_COUNTING, PD_TASK_EXISTENCE}},
        [PD_SCENE_EMOJI] = {7,
                            {PD_TASK_EMOJI, PD_TASK_EMOJI, PD_TASK_EMOJI, PD_TASK_POSITIONS,
                             PD_TASK_RELATIONS, PD_TASK_COUNTING, PD_TASK_EXISTENCE}},
        [PD_SCENE_SIGNS] = {6,
                            {PD_TASK_WORDS, PD_TASK_WORDS, PD_TASK_NUMBERS, PD_TASK_NUMBERS, PD_TASK_COLORS,
                             PD_TASK_POSITIONS}},
        [PD_SCENE_DOCUMENT] = {1, {PD_TASK_DOCUMENTS}},
        [PD_SCENE_CHART] = {1, {PD_TASK_CHARTS}},
        [PD_SCENE_LETTERS] = {2, {PD_TASK_WORDS, PD_TASK_NUMBERS}},
    };
    const pd_task *tasks = asked[scene->kind].tasks;
    int shares[7] = {0}, sum = 0;
    for (int i = 0; i < asked[scene->kind].n; i++)
        sum += shares[i] = weights[tasks[i]];
    if (sum == 0) return false;
    const pd_task task = tasks[pd_pick_weighed(random, shares, asked[scene->kind].n)];
    int targets[PD_N_EMOJI]; // no task has more
    const int n_targets = pd_n_targets(task);
    pd_permutation(random, targets, n_targets);
    for (int i = 0; i < n_targets; i++) {
        if (!passed_over(task, targets[i], random) &&
            pd_ask(scene, task, targets[i], held_out, random, question))
            return true;
    }
    return false;
}

void pd_word_question(pd_question *question, const char *type, const char *const *formats, int n,
                      const char *first, const char *second, uint64_t *random) {
    const char *const words[] = {first ? first : "", second ? second : ""};
    size_t used = 0, word = 0;
    for (const char *p = formats[pd_pick(random, n)]; *p;) {
        const bool gap = p[0] == '%' && p[1] == 's' && word < 2;
        const char *text = gap ? words[word++] : p;
        const size_t size = gap ? strlen(text) : 1;
        if (used + size >= sizeof question->question) break;
        memcpy(question->question + used, text, size);
        used += size;
        p += gap ? 2 : 1;
    }
    question->question[used] = '\0';
    question->type = type;
    snprintf(question->key, sizeof question->key, "%s/%s/%s", type, words[0], words[1]);
}

void pd_word_answer(pd_question *question, const char *answer) {
    snprintf(question->answer, sizeof question->answer, "%s", answer);
}

void pd_ask_text_only(uint64_t *random, char question[PD_MAX_QUESTION], char answer[PD_MAX_ANSWER]) {
    const int a = pd_draw_number(0, 99, false, random);
    int b;
    do {
        b = pd_draw_number(0, 99, false, random);
    } while (b == a);
    const int small_a = pd_pick(random, 10), small_b = pd_pick(random, 10);
    switch (pd_pick(random, 4)) {
    case 0: {
        const char *word = pd_word(pd_draw_word((pd_word_class)pd_pick(random, 4), false, random));
        snprintf(question, PD_MAX_QUESTION, "Repeat the word %s.", word);
        snprintf(answer, PD_MAX_ANSWER, "%s", word);
        break;
    }
    case 1:
        snprintf(question, PD_MAX_QUESTION, "Which is larger, %d or %d?", a, b);
        snprintf(answer, PD_MAX_ANSWER, "%d", a > b ? a : b);
        break;
    case 2:
        if (!pd_number_held_out(small_a + small_b)) {
            snprintf(question, PD_MAX_QUESTION, "What is %d plus %d?", small_a, small_b);
            snprintf(answer, PD_MAX_ANSWER, "%d", small_a + small_b);
            break;
        }
        // fall through
    default:
        snprintf(question, PD_MAX_QUESTION, "Repeat the number %d.", a);
        snprintf(answer, PD_MAX_ANSWER, "%d", a);
    }
}
