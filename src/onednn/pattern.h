// Finds what the lowering replaces as a whole: attention, as one node of ggml's or as the eager pattern.
#pragma once

#include "onednn/attention.h"

#include <ggml.h>

// softmax(scale · q kᵀ + mask) v. `result` is the node that takes its place.
typedef struct pd_attention_match {
    struct ggml_tensor *result;
    struct ggml_tensor *q, *k, *v, *mask; // [head_dim, n, heads], v as k; mask [n_kv, n_q] or NULL
    size_t out_row, out_head;             // bytes, in `result`
    float scale;
    struct ggml_tensor *inner[4]; // nodes that nothing else needs, computed no more
    int n_inner;
} pd_attention_match;

// Whether `node` is FLASH_ATTN_EXT, or the product of values and softmax that ends eager attention, in a form
// that pd_attention computes. `users` says how many nodes of the graph read a tensor.
bool pd_match_attention(struct ggml_tensor *node, int (*users)(const struct ggml_tensor *, const void *),
                        const void *context, pd_attention_match *match);
// The shape of a match, to be computed in `compute`.
pd_attention_shape pd_attention_match_shape(const pd_attention_match *match, dnnl_data_type_t compute);
