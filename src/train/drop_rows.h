// The drop between two stages of a packed batch: who is asked in training, and what stays.
#pragma once

#include "drop/select.h"
#include "model/decoder.h"
#include "train/layout.h"

// One boundary of a batch. Must outlive the graph.
typedef struct pd_row_drop {
    const pd_policy *policy;
    const pd_layout *layout;
    int32_t stage; // the one behind the boundary
    int32_t head_dim, n_heads, n_kv_heads;
    pd_selection *selections; // [n_samples], owned
    float *scores;            // [rows before], owned: scratch
    float *shares;            // [n_threads * longest sample], owned: scratch
    int32_t longest;
} pd_row_drop;

pd_status pd_row_drop_create(const pd_policy *policy, const pd_layout *layout,
                             const pd_decoder_hyperparameters *h, int32_t stage, int32_t n_threads,
                             pd_row_drop *drop, pd_error *err);
void pd_row_drop_free(pd_row_drop *drop);

// residual [n_embd, rows before], positions i32 [rows before] → i32 [rows behind], ascending: the rows that
// live on, by the mean over the asking rows and heads of their attention in layer `index`, the next to run.
// Nothing of this is differentiated.
struct ggml_tensor *pd_row_drop_select(struct ggml_context *ctx, const pd_decoder_weights *weights,
                                       int32_t index, pd_row_drop *drop, struct ggml_tensor *residual,
                                       struct ggml_tensor *positions, struct ggml_tensor *asking);
