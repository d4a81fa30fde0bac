// Scaled dot-product attention, shared by the vision tower and the decoder.
#pragma once

#include <ggml.h>
#include <stdbool.h>

// q [head_dim, n_q, n_heads], k and v [head_dim, n_kv, n_kv_heads], any strides with packed rows; n_heads is
// a multiple of n_kv_heads. mask: f16 [n_kv, n_q], added to the scaled scores, or NULL. flash: ggml's fused
// kernel; else explicit scores and a softmax in f32. Returns [head_dim * n_heads, n_q].
struct ggml_tensor *pd_attend(struct ggml_context *ctx, struct ggml_tensor *q, struct ggml_tensor *k,
                              struct ggml_tensor *v, struct ggml_tensor *mask, bool flash);

// Who attends instead: to rows packed from several sequences, say.
// build: q [head_dim, n_heads, n], k and v [head_dim, n_kv_heads, n] → [head_dim * n_heads, n].
typedef struct pd_attender {
    struct ggml_tensor *(*build)(struct ggml_context *ctx, struct ggml_tensor *q, struct ggml_tensor *k,
                                 struct ggml_tensor *v, void *user);
    void *user;
} pd_attender;
