// Graph nodes of the backward pass that ggml does not have, or has for one thread. CPU; f32, contiguous rows.
#pragma once

#include <ggml.h>

// d loss / d x of a node y = ggml_norm(x), a layer norm without weight and bias; gradient [n, rows].
//     d_x = (g − mean(g) − y · mean(g ∘ y)) / deviation
struct ggml_tensor *pd_norm_back(struct ggml_context *ctx, struct ggml_tensor *gradient,
                                 const struct ggml_tensor *node);
// The same of y = ggml_rms_norm(x), y = x / r: d_x = (g − y · mean(g ∘ y)) / r.
struct ggml_tensor *pd_rms_norm_back(struct ggml_context *ctx, struct ggml_tensor *gradient,
                                     const struct ggml_tensor *node);
// Of y = x Φ(x) (ggml_gelu_erf): d_x = g · (Φ(x) + x φ(x)).
struct ggml_tensor *pd_gelu_erf_back(struct ggml_context *ctx, struct ggml_tensor *gradient,
                                     struct ggml_tensor *x);
// Of y = silu(x) = x σ(x): d_x = g · σ(x) (1 + x (1 − σ(x))).
struct ggml_tensor *pd_silu_back(struct ggml_context *ctx, struct ggml_tensor *gradient,
                                 struct ggml_tensor *x);
// Of y = silu(gate) ∘ up: [n, rows] each → [n, rows, 2]: d_gate, then d_up.
struct ggml_tensor *pd_swiglu_back(struct ggml_context *ctx, struct ggml_tensor *gradient,
                                   struct ggml_tensor *gate, struct ggml_tensor *up);
// Of y = rows `indices` of x [n, n_rows]: each row of the gradient is added to its row of x; zero elsewhere.
struct ggml_tensor *pd_scatter_rows(struct ggml_context *ctx, struct ggml_tensor *gradient,
                                    struct ggml_tensor *indices, int64_t n_rows);

// Sums that grow, in place; each returns `sum`, written.
// sum [n, n_rows] += the rows of gradient [n, m], row i to row indices[i].
struct ggml_tensor *pd_add_rows_at(struct ggml_context *ctx, struct ggml_tensor *sum,
                                   struct ggml_tensor *gradient, struct ggml_tensor *indices);
// sum [n] += Σ over rows of gradient [n, rows], or of gradient ∘ x when x is not NULL.
struct ggml_tensor *pd_add_columns(struct ggml_context *ctx, struct ggml_tensor *sum,
                                   struct ggml_tensor *gradient, struct ggml_tensor *x);

// The cross-entropy of logits [n_vocab, n] against `labels` i32 [n]. The node overwrites the logits by their
// gradient, (softmax − one-hot) · scale, and puts −log softmax[label] of row i into losses[i].
typedef struct pd_cross_entropy {
    float scale;   // 1 / the number of labels that the loss is a mean over; set before computing
    float *losses; // [n]; not owned
} pd_cross_entropy;
struct ggml_tensor *pd_cross_entropy_node(struct ggml_context *ctx, struct ggml_tensor *logits,
                                          struct ggml_tensor *labels, pd_cross_entropy *loss);
