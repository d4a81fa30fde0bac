// Select: from one score a row to the sorted indices of the rows that live on.
#pragma once

#include "drop/schedule.h"

#include <ggml.h>

// One drop, from the rows of `before` to the rows of `after`.
typedef struct pd_selection {
    const pd_stage *before, *after;
    int32_t n_images;
    int32_t *order; // scratch: before->n_rows entries, owned
} pd_selection;

pd_status pd_selection_create(const pd_schedule *schedule, int32_t stage, pd_selection *selection,
                              pd_error *err);
void pd_selection_free(pd_selection *selection);

// scores [before->n_rows] → rows [after->n_rows], ascending: all text, and of each image the count with the
// highest scores, the lower index first among equals. A score that is not a number comes last.
void pd_select(const pd_selection *selection, const float *scores, int32_t *rows);

// The same as a graph node: scores f32 [before->n_rows] → i32 [after->n_rows]. The selection must outlive the
// graph.
struct ggml_tensor *pd_select_node(struct ggml_context *ctx, pd_selection *selection,
                                   struct ggml_tensor *scores);

// The positions of the selected rows, as a graph node: positions i32 [n], rows i32 [m] → i32 [m].
// ggml_get_rows moves i32 as if it were f32, and a GPU may flush small integers, which are denormal floats,
// to zero.
struct ggml_tensor *pd_select_positions_node(struct ggml_context *ctx, struct ggml_tensor *positions,
                                             struct ggml_tensor *rows);

// The baselines, which ask nobody: rows evenly spaced, or drawn at random from `seed` and the stage, out of
// each image's live tokens.
void pd_select_uniform(const pd_selection *selection, int32_t *rows);
void pd_select_random(const pd_selection *selection, uint64_t seed, int32_t *rows);
