// What becomes of a product's sums on the way to their destination, while they are in a cache: eight bits are
// scaled to floats, and cheap neighbours of the product computed with them.
#pragma once

#include "onednn/rows.h"

// Each step where it is asked for, in this order.
typedef struct pd_finish {
    // Sums of eight-bit products mean row_scales[row · row_scales_stride] · column_scales[column] · (sum −
    // zero · column_sums[column]). NULL: the sums are floats.
    const float *row_scales, *column_scales;
    int64_t row_scales_stride;
    const int32_t *column_sums;
    int32_t zero;
    // value = silu(gate) · value, silu(x) = x / (1 + e^-x): SwiGLU (Shazeer 2020,
    // https://arxiv.org/abs/2002.05202).
    const float *gate;
    int64_t gate_stride;
    // value += addend. Rows of f32.
    const char *addend;
    size_t addend_row_bytes;
    pd_number_kind kind; // of the destination, f32 or bf16; of sums with an addend f32
    char *destination;
    size_t row_bytes;
} pd_finish;

// A part of the results: all rows and columns are counted as in pd_finish's pointers.
typedef struct pd_finish_part {
    int64_t row, column, rows, columns;
    const void *sums;  // s32, or f32 where there are no row_scales; not the destination
    const float *more; // of integers: what is added to them after they are scaled; NULL: nothing
    int64_t sums_stride, more_stride; // numbers
} pd_finish_part;

void pd_finish_run(const pd_finish *finish, const pd_finish_part *part);
