// A training step's forward and backward pass over one batch, as one static graph:
//
//     tiles → tower → projector ┐
//     text tokens → embeddings ─┴► rows → layers → rank, drop → layers → … → logits of the rows that predict
//     a label → cross-entropy → the same way back, gradients added to the parameters'
#pragma once

#include "onednn/lowering.h"
#include "train/layout.h"
#include "train/parameters.h"

typedef struct pd_step pd_step;

typedef struct pd_step_params {
    const pd_weights *weights; // with the parameters in place; must live as long, as must all of these
    const pd_parameters *parameters;
    const pd_policy *policy;
    const pd_backend *backend;
    pd_lowering *lowering; // NULL: ggml's kernels
} pd_step_params;

typedef struct pd_step_result {
    double loss; // sum over the labels of −log p
    int32_t n_labels;
    int32_t n_rows, n_image_rows; // before the first layer
    double image_rows_mean;       // live image rows, mean over the layers
} pd_step_result;

pd_status pd_step_create(const pd_step_params *params, pd_step **step, pd_error *err);
void pd_step_free(pd_step *step);

// Adds scale · d (sum of losses) / d parameter to the parameters' gradients; scale is 1 / the number of
// labels that the whole step's loss is a mean over. A batch without labels adds nothing. PD_ERR_CANCELLED
// leaves the gradients undefined.
pd_status pd_step_add_gradients(pd_step *step, const pd_train_sample *samples, int32_t n_samples, float scale,
                                pd_step_result *result, pd_error *err);
// Of the last batch: the rows of a stage that live behind the drop before it, among those of the stage before
// (i32 [n]); NULL when nothing was dropped there.
const int32_t *pd_step_selected(const pd_step *step, int32_t stage, int32_t *n);
// Bytes of the largest graph's memory so far.
size_t pd_step_bytes(const pd_step *step);
