// What a conversation's earlier turns tell.
#include "questions.h"

#include <stdio.h>
#include <string.h>

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// Whether the text has this word, by itself.
static bool has_word(const char *text, const char *word, size_t length) {
    for (const char *p = text; (p = strstr(p, word)) != NULL; p++) {
        if ((p == text || !is_letter(p[-1])) && !is_letter(p[length])) return true;
    }
    return false;
}

static bool turn_mentions(const pd_question *turn, const char *word) {
    const size_t length = strlen(word);
    return has_word(turn->question, word, length) || has_word(turn->answer, word, length);
}

// The next word behind *rest that names a thing, of a question's key.
static bool next_thing(const char **rest, char thing[PD_MAX_QUESTION]) {
    static const char *const others[] = {"a",      "an",      "the",   "of",      "is",      "at",
                                         "in",     "left",    "right", "above",   "below",   "shape",
                                         "shapes", "objects", "bar",   "largest", "smallest"};
    for (;;) {
        *rest += strspn(*rest, " /");
        const size_t length = strcspn(*rest, " /");
        bool named = true;
        if (length == 0) return false;
        snprintf(thing, PD_MAX_QUESTION, "%.*s", (int)length, *rest);
        *rest += length;
        for (size_t i = 0; i < sizeof others / sizeof *others; i++)
            named = named && strcmp(thing, others[i]) != 0;
        if (named) return true;
    }
}

// Whether the turn gives the answer beside all that the question names.
static bool tells(const pd_question *turn, const pd_question *question) {
    const char *rest = strchr(question->key, '/'); // behind the type
    char thing[PD_MAX_QUESTION];
    if (!turn_mentions(turn, question->answer)) return false;
    while (next_thing(&rest, thing)) {
        if (!turn_mentions(turn, thing)) return false;
    }
    return true;
}

// Whether turns of these tasks have, together, named all that the question names, and it names something.
static bool all_named(const pd_question *turns, int n, const pd_question *question, unsigned tasks) {
    const char *rest = strchr(question->key, '/');
    char thing[PD_MAX_QUESTION];
    bool any = false;
    while (next_thing(&rest, thing)) {
        bool found = false;
        for (int i = 0; i < n && !found; i++)
            found = (tasks >> turns[i].task & 1U) != 0 && turn_mentions(&turns[i], thing);
        if (!found) return false;
        any = true;
    }
    return any;
}

static bool is_read(const pd_question *question) {
    return question->task == PD_TASK_WORDS || question->task == PD_TASK_NUMBERS ||
           question->task == PD_TASK_EMOJI;
}

// The tasks whose turns tell the answer, one of a few, once they have named all that the question names. 0:
// the answer itself must have been said.
static unsigned telling_tasks(const pd_question *question) {
    switch (question->task) {
    case PD_TASK_EXISTENCE:
    case PD_TASK_COUNTING:
        return ~0U;
    case PD_TASK_RELATIONS:
        return 1U << PD_TASK_RELATIONS | 1U << PD_TASK_POSITIONS;
    case PD_TASK_SIZES:
        return 1U << PD_TASK_SIZES;
    case PD_TASK_CHARTS:
        return strcmp(question->type, "comparison") == 0 ? 1U << PD_TASK_CHARTS : 0;
    default:
        return 0;
    }
}

bool pd_asked_before(const pd_question *turns, int n, const pd_question *question) {
    for (int i = 0; i < n; i++) {
        const pd_question *earlier = &turns[i];
        if (strcmp(earlier->key, question->key) == 0) return true;
        if (is_read(question) && is_read(earlier) && strcmp(earlier->answer, question->answer) == 0)
            return true;
    }
    return false;
}

bool pd_told_before(const pd_question *turns, int n, const pd_question *question) {
    const unsigned tasks = telling_tasks(question);
    const bool said = tasks == 0 && question->task != PD_TASK_CHARTS; // a bar's name is in all its questions
    for (int i = 0; i < n && said; i++) {
        if (tells(&turns[i], question)) return true;
    }
    return tasks != 0 && all_named(turns, n, question, tasks);
}
