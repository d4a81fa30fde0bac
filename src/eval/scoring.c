#include "eval/scoring.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ASCII's, whatever the locale.
static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_punctuation(char c) {
    return c > ' ' && c < 0x7f && !is_digit(c) && !is_letter(c);
}

// Whether the punctuation at text[at] is part of a number.
static bool belongs_to_number(const char *text, size_t at) {
    const char before = at > 0 ? text[at - 1] : ' ';
    if (!is_digit(text[at + 1])) return false;
    return (text[at] == '.' && is_digit(before)) || (text[at] == '-' && is_space(before));
}

void pd_lay_bare(const char *text, char *bare) {
    size_t size = 0;
    for (size_t at = 0; text[at]; at++) {
        const char c = text[at];
        if (is_space(c)) {
            if (size > 0 && bare[size - 1] != ' ') bare[size++] = ' ';
        } else if (!is_punctuation(c) || belongs_to_number(text, at)) {
            bare[size++] = c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
        }
    }
    while (size > 0 && bare[size - 1] == ' ')
        size--;
    bare[size] = '\0';
}

pd_status pd_answer_is_right(const char *answer, const char *expected, bool *right, pd_error *err) {
    const size_t size = strlen(answer) + 1, expected_size = strlen(expected) + 1;
    char *bare = malloc(size + expected_size);
    if (!bare) return pd_fail_memory(err, size + expected_size, "an answer");
    pd_lay_bare(answer, bare);
    pd_lay_bare(expected, bare + size);
    *right = strcmp(bare, bare + size) == 0;
    free(bare);
    return PD_OK;
}

// E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
void pd_share_interval(int64_t right, int64_t n, double *low, double *high) {
    *low = 0;
    *high = 1;
    if (n <= 0) return;
    const double z = 1.959963984540054; // the normal distribution's 97.5 % quantile
    const double count = (double)n, share = (double)right / count;
    const double middle = (share + z * z / (2 * count)) / (1 + z * z / count);
    const double half =
        z / (1 + z * z / count) * sqrt(share * (1 - share) / count + z * z / (4 * count * count));
    *low = fmax(0, middle - half);
    *high = fmin(1, middle + half);
}

// ---- by task ----------------------------------------------------------------------------------------------

static pd_status find_row(pd_scores *scores, const char *task, size_t *row, pd_error *err) {
    for (*row = 1; *row < scores->n; ++*row) {
        if (strcmp(scores->rows[*row].task, task) == 0) return PD_OK;
    }
    if (scores->n + 2 > scores->capacity) { // the first task needs two
        const size_t capacity = 2 * scores->capacity + 16;
        pd_score *rows = realloc(scores->rows, capacity * sizeof *rows);
        if (!rows) return pd_fail_memory(err, capacity * sizeof *rows, "scores");
        scores->rows = rows;
        scores->capacity = capacity;
    }
    for (const char *name = scores->n == 0 ? "all" : task;; name = task) {
        char *copy = strdup(name);
        if (!copy) return pd_fail_memory(err, strlen(name), "scores");
        *row = scores->n;
        scores->rows[scores->n++] = (pd_score){.task = copy};
        if (name == task) return PD_OK;
    }
}

pd_status pd_scores_add(pd_scores *scores, const char *task, bool held_out, bool right, pd_error *err) {
    size_t row = 0;
    PD_TRY(find_row(scores, task, &row, err));
    pd_score *both[] = {&scores->rows[0], &scores->rows[row]};
    for (size_t i = 0; i < 2; i++) {
        both[i]->n++;
        both[i]->right += right;
        both[i]->n_held_out += held_out;
        both[i]->right_held_out += held_out && right;
    }
    return PD_OK;
}

void pd_scores_free(pd_scores *scores) {
    for (size_t i = 0; i < scores->n; i++)
        free(scores->rows[i].task);
    free(scores->rows);
    *scores = (pd_scores){0};
}
