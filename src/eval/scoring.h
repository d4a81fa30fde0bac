// Whether an answer is right, and what share of answers is.
//
// An answer is right when it equals the expected one after both are laid bare: ASCII letters in lower case,
// ASCII punctuation left out, one space for white space between words and none at the ends. A point between
// two digits and a minus sign before a number stay; "1,000" is "1000".
#pragma once

#include "base/error.h"

// `bare` has room for strlen(text) + 1 bytes.
void pd_lay_bare(const char *text, char *bare);
// PD_ERR_MEMORY is the only failure.
pd_status pd_answer_is_right(const char *answer, const char *expected, bool *right, pd_error *err);

// Wilson's 95 % interval of a share: `right` out of n answers. n = 0: from 0 to 1.
void pd_share_interval(int64_t right, int64_t n, double *low, double *high);

typedef struct pd_score {
    char *task;                         // owned
    int64_t n, right;                   // questions whose answer is known
    int64_t n_held_out, right_held_out; // of them those about what training never saw
} pd_score;

// By task, in the order of their first questions; [0] is all of them. Zeroed: empty.
typedef struct pd_scores {
    pd_score *rows;
    size_t n, capacity;
} pd_scores;

pd_status pd_scores_add(pd_scores *scores, const char *task, bool held_out, bool right, pd_error *err);
void pd_scores_free(pd_scores *scores);
