#include "report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LEARNED_PICTURES = 40000, FEW = 3 };

pd_status pd_tally_add(pd_tally *tally, const pd_question *question, pd_error *err) {
    if (tally->n == tally->capacity) {
        const size_t capacity = tally->capacity ? tally->capacity * 2 : 4096;
        pd_question *larger = realloc(tally->questions, capacity * sizeof *larger);
        if (!larger) return pd_fail_memory(err, capacity * sizeof *larger, "questions");
        tally->questions = larger;
        tally->capacity = capacity;
    }
    tally->questions[tally->n++] = *question;
    return PD_OK;
}

void pd_tally_free(pd_tally *tally) {
    free(tally->questions);
    *tally = (pd_tally){0};
}

// ---- the guesser ------------------------------------------------------------------------------------------

// By words, then answer; by kind, then answer. A kind's name belongs to one task.
static int compare_words(const void *a, const void *b) {
    const pd_question *x = a, *y = b;
    const int order = strcmp(x->question, y->question);
    return order ? order : strcmp(x->answer, y->answer);
}

static int compare_types(const void *a, const void *b) {
    const pd_question *x = a, *y = b;
    const int order = strcmp(x->type, y->type);
    return order ? order : strcmp(x->answer, y->answer);
}

typedef struct {
    const char *key, *answer; // the most frequent
    int64_t n;                // questions with this key
} guess;

typedef struct {
    guess *guesses; // by key
    size_t n;
} guesses;

static const char *key_of(const pd_question *question, bool by_words) {
    return by_words ? question->question : question->type;
}

// The most frequent answer to each key, out of sorted questions; of equals, the first.
static guesses find_guesses(const pd_question *questions, size_t n, bool by_words) {
    guesses found = {calloc(n ? n : 1, sizeof *found.guesses), 0};
    if (!found.guesses) return found;
    int64_t most = 0;
    for (size_t i = 0; i < n;) {
        size_t end = i;
        const char *key = key_of(&questions[i], by_words);
        while (end < n && strcmp(key_of(&questions[end], by_words), key) == 0 &&
               strcmp(questions[end].answer, questions[i].answer) == 0)
            end++;
        if (found.n == 0 || strcmp(found.guesses[found.n - 1].key, key) != 0) {
            found.guesses[found.n++] = (guess){key, "", 0};
            most = 0;
        }
        guess *g = &found.guesses[found.n - 1];
        const int64_t count = (int64_t)(end - i);
        if (count > most) {
            most = count;
            g->answer = questions[i].answer;
        }
        g->n += count;
        i = end;
    }
    return found;
}

static const guess *look_up(const guesses *g, const char *key) {
    size_t low = 0, high = g->n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = strcmp(g->guesses[middle].key, key);
        if (order == 0) return &g->guesses[middle];
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

// Of "the A or the B" the guesser takes what is more often right: the first, or the second.
static int find_choice(const pd_tally *read) {
    int64_t n[3] = {0};
    for (size_t i = 0; i < read->n; i++)
        n[read->questions[i].choice]++;
    return n[2] > n[1] ? 2 : 1;
}

static pd_status read_training(const pd_sample_options *options, pd_tally *read, pd_error *err) {
    pd_sample_options training = *options;
    training.kind = PD_KIND_QUESTIONS;
    training.split = PD_SPLIT_TRAIN;
    training.first = 0;
    training.count = LEARNED_PICTURES;
    training.text_only = training.held_out = 0;
    training.turns = 4;
    training.most = PD_MAX_OBJECTS;
    for (int64_t i = 0; i < training.count; i++) {
        pd_sample sample;
        pd_sample_make(&training, i, &sample);
        for (int k = 0; k < sample.n_questions; k++)
            PD_TRY(pd_tally_add(read, &sample.questions[k], err));
    }
    return PD_OK;
}

// ---- the table --------------------------------------------------------------------------------------------

static int compare_answers(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool belongs(const pd_question *question, int task, int group) {
    return (task == PD_N_TASKS || (int)question->task == task) &&
           (group == PD_BOTH || question->held_out == (group == PD_HELD_OUT));
}

// Fills in a row but for `blind`. `answers` has room for the whole tally.
static void count_answers(const pd_tally *tally, int task, int group, const char **answers,
                          pd_blind_row *row) {
    size_t n = 0;
    for (size_t i = 0; i < tally->n; i++) {
        if (belongs(&tally->questions[i], task, group)) answers[n++] = tally->questions[i].answer;
    }
    qsort(answers, n, sizeof *answers, compare_answers);
    size_t most = 0;
    for (size_t i = 0; i < n;) {
        size_t end = i;
        while (end < n && strcmp(answers[end], answers[i]) == 0)
            end++;
        if (end - i > most) most = end - i;
        row->n_answers++;
        i = end;
    }
    row->n = (int64_t)n;
    row->majority = n ? (double)most / (double)n : 0;
}

static bool guess_right(const pd_question *question, const guesses *by_words, const guesses *by_type,
                        int choice) {
    if (question->choice) return question->choice == choice;
    const guess *g = look_up(by_words, question->question);
    if (!g || g->n < FEW) g = look_up(by_type, question->type);
    return g && strcmp(g->answer, question->answer) == 0;
}

static void fill_table(const pd_tally *tally, const guesses *by_words, const guesses *by_type, int choice,
                       const char **answers, pd_blind_table *table) {
    for (int task = 0; task <= PD_N_TASKS; task++) {
        for (int group = 0; group < 3; group++)
            count_answers(tally, task, group, answers, &table->rows[task][group]);
    }
    for (size_t i = 0; i < tally->n; i++) {
        const pd_question *question = &tally->questions[i];
        if (!guess_right(question, by_words, by_type, choice)) continue;
        for (int task = 0; task <= PD_N_TASKS; task++) {
            for (int group = 0; group < 3; group++) {
                pd_blind_row *row = &table->rows[task][group];
                if (belongs(question, task, group)) row->blind += 1.0 / (double)row->n;
            }
        }
    }
}

pd_status pd_blind(const pd_tally *tally, const pd_sample_options *options, pd_blind_table *table,
                   pd_error *err) {
    *table = (pd_blind_table){0};
    pd_tally read = {0};
    pd_status status = read_training(options, &read, err);
    table->n_learned = (int64_t)read.n;
    // Guesses point into the sorted questions: each order has its own copy.
    const size_t bytes = read.n * sizeof *read.questions;
    pd_question *sorted = status == PD_OK ? malloc(bytes ? bytes : 1) : NULL;
    const char **answers = calloc(tally->n ? tally->n : 1, sizeof *answers);
    guesses by_words = {0}, by_type = {0};
    if (sorted) {
        memcpy(sorted, read.questions, bytes);
        qsort(sorted, read.n, sizeof *sorted, compare_words);
        qsort(read.questions, read.n, sizeof *sorted, compare_types);
        by_words = find_guesses(sorted, read.n, true);
        by_type = find_guesses(read.questions, read.n, false);
    }
    if (status == PD_OK && (!by_words.guesses || !by_type.guesses || !answers))
        status = pd_fail_memory(err, bytes, "the blind baseline");
    if (status == PD_OK) fill_table(tally, &by_words, &by_type, find_choice(&read), answers, table);
    free(by_words.guesses);
    free(by_type.guesses);
    free((void *)answers);
    free(sorted);
    pd_tally_free(&read);
    return status;
}

void pd_blind_print(const pd_blind_table *table, FILE *out) {
    fprintf(out, "%-11s %9s %8s %9s %7s   held out: %6s %7s\n", "task", "questions", "answers", "majority",
            "blind", "n", "blind");
    for (int task = 0; task <= PD_N_TASKS; task++) {
        const pd_blind_row *all = &table->rows[task][PD_BOTH], *held_out = &table->rows[task][PD_HELD_OUT];
        if (all->n == 0) continue;
        fprintf(out, "%-11s %9" PRId64 " %8" PRId64 " %7.1f %% %5.1f %%",
                task < PD_N_TASKS ? pd_task_names[task] : "all", all->n, all->n_answers, all->majority * 100,
                all->blind * 100);
        if (held_out->n) {
            fprintf(out, "             %6" PRId64 " %5.1f %%\n", held_out->n, held_out->blind * 100);
        } else {
            fprintf(out, "             %6s\n", "-");
        }
    }
    fprintf(out,
            "majority: the most frequent answer's share; blind: right without pictures, knowing %" PRId64
            " questions and answers of training\n",
            table->n_learned);
}
