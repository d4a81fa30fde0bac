// How far one gets without looking: the blind baseline.
#pragma once

#include "sample.h"

#include <stdio.h>

// Questions and answers, counted. Zeroed: empty.
typedef struct pd_tally {
    pd_question *questions;
    size_t n, capacity;
} pd_tally;

pd_status pd_tally_add(pd_tally *tally, const pd_question *question, pd_error *err);
void pd_tally_free(pd_tally *tally);

enum { PD_SEEN, PD_HELD_OUT, PD_BOTH }; // questions about things that training sees; about others; all

typedef struct pd_blind_row {
    int64_t n;         // questions
    int64_t n_answers; // different ones
    double majority;   // share of the most frequent answer
    double blind; // share right of who knows the training split's questions and answers, and sees no picture
} pd_blind_row;

typedef struct pd_blind_table {
    pd_blind_row rows[PD_N_TASKS + 1][3]; // [PD_N_TASKS]: all tasks
    int64_t n_learned;                    // training questions that the blind guesser has read
} pd_blind_table;

// Answers every question of the tally without a picture. The guesser has read the training split of this
// seed: it gives the most frequent answer to the very words; where it has read them less than three times,
// to the kind of question.
pd_status pd_blind(const pd_tally *tally, const pd_sample_options *options, pd_blind_table *table,
                   pd_error *err);
void pd_blind_print(const pd_blind_table *table, FILE *out);
