// A product's activations in the numbers it multiplies: one node of the lowered graph, shared by all products
// that read the same rows (queries, keys and values; gate and up).
#pragma once

#include "onednn/rows.h"

// Row r of batch b starts at ((b · rows + r) · stride) numbers; integers' scales follow behind all rows,
// n_groups for each. int8 rows lack their outliers (onednn/outliers.h), which follow as floats.
typedef struct pd_activations {
    pd_number_kind kind; // bf16, int8 or int16: f32 products read the tensor itself
    bool transposed;     // the tensor's inner dimension is the strided one; kept so (bf16 only)
    int64_t rows, inner; // of one batch: rows and inner dimension as they lie in memory
    int64_t n_batches, stride, group, n_groups;
    pd_int8_range range;         // int8
    int64_t n_outliers;          // int8: of each row
    pd_number_kind outlier_kind; // f32 or bf16
} pd_activations;

// source: f32, one of its first two dimensions adjacent in memory (int8: the first). group, range: as in
// pd_packed. floating: what outliers are multiplied in.
void pd_activations_plan(const struct ggml_tensor *source, pd_number_kind kind, int64_t group,
                         pd_int8_range range, pd_number_kind floating, pd_activations *plan);
size_t pd_activations_bytes(const pd_activations *plan);
// Where batch b's scales are: [rows][n_groups].
const float *pd_activations_scales(const pd_activations *plan, const void *data, int64_t batch);
// Where batch b's outliers are: [rows][n_outliers].
const void *pd_activations_outliers(const pd_activations *plan, const void *data, int64_t batch);
// The outliers' channels, [n_outliers].
const int32_t *pd_activations_channels(const pd_activations *plan, const void *data);
// Converts thread ith's share of source's rows, of int8 without the outliers of these channels (others:
// NULL). norm: what rows go through first, whose inner dimension is then the adjacent one; NULL: nothing.
// row: room for one of them.
void pd_activations_fill(const pd_activations *plan, const struct ggml_tensor *source,
                         const pd_rms_norm *norm, const int32_t *channels, void *data, float *row, int ith,
                         int nth);
