// Attention over rows packed from several sequences, forward and backward, as graph nodes: a row sees the
// rows of its own sequence, all of them or those up to itself.
//
// Per sequence and head, with scale 1/√head_dim:
//     S = scale · Q Kᵀ,  P = softmax(S),  O = P V
//     dV = Pᵀ dO,  dP = dO Vᵀ,  dS = P ∘ (dP − rowsum(P ∘ dP)),  dQ = scale · dS K,  dK = scale · dSᵀ Q
// in blocks of query rows; P is computed anew on the way back (Dao et al. 2022,
// https://arxiv.org/abs/2205.14135), so that nothing of size n² is ever stored.
#pragma once

#include "base/error.h"
#include "onednn/small_product.h"

#include <ggml.h>

typedef struct pd_sequences {
    int32_t n;
    const int32_t *starts; // [n + 1]: sequence i is rows starts[i] … starts[i + 1] − 1
    bool causal;
} pd_sequences;

// What an attention's nodes run with; must outlive the graph.
typedef struct pd_packed_attention pd_packed_attention;

// `sequences` is copied. One computation at a time.
pd_status pd_packed_attention_create(pd_small_products *products, const pd_sequences *sequences,
                                     int32_t head_dim, int32_t n_heads, int32_t n_kv_heads, int32_t n_threads,
                                     pd_packed_attention **attention, pd_error *err);
void pd_packed_attention_free(pd_packed_attention *attention);

// q [head_dim, n_heads, rows], k and v [head_dim, n_kv_heads, rows], contiguous → [head_dim * n_heads, rows].
struct ggml_tensor *pd_packed_attend(struct ggml_context *ctx, struct ggml_tensor *q, struct ggml_tensor *k,
                                     struct ggml_tensor *v, void *attention);

// The attention of a node that pd_packed_attend made, else NULL.
pd_packed_attention *pd_packed_attention_of(const struct ggml_tensor *node);
// The gradients of q, k and v, in their shapes, of such a node from its own, [head_dim * n_heads, rows].
void pd_packed_attend_back(struct ggml_context *ctx, const struct ggml_tensor *node,
                           struct ggml_tensor *gradient, struct ggml_tensor *q_k_v[3]);
