// Softmax of rows of scores whose keys come in chunks: the running maximum and sum of each row, and what has
// been summed so far scaled to them (Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867).
#pragma once

#include <stdint.h>

// Scores are worked on in whole steps: each row has room for its keys rounded up to this.
enum { PD_SOFTMAX_STEP = 16 };

// x = e^x for x ≤ 88: relative error below 2e-7 down to x = -86.5, and 0 below that. NaN stays.
void pd_exp_row(float *x, int64_t n);
// The largest of n ≥ 1 numbers, none of them NaN.
float pd_max_row(const float *x, int64_t n);

// One chunk: scores [rows, keys], with `stride` numbers from row to row.
typedef struct pd_softmax_chunk {
    int64_t rows, keys, stride;
    float *scores;    // become the shares before division, e^(score - maximum); room behind a row's keys: 0
    uint16_t *halves; // the shares in bf16, laid out alike; NULL: not wanted
    float *maxima;    // [rows], of the chunks so far; before the first -infinity
    float *sums;      // [rows], of the shares so far; before the first 0
    float *results;   // [rows, width], of the chunks so far: scaled to the new maximum
    int64_t width;
} pd_softmax_chunk;

// A row whose scores have all been -infinity keeps maximum, sum and shares at that and 0.
void pd_softmax_add(const pd_softmax_chunk *chunk);
