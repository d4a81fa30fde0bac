// Dropout (Srivastava et al. 2014): y = x with each number zero with probability `rate`, the others divided
// by 1 − rate. Which are zero is a function of the draw, the mask's number, the row and the column, so that
// the backward pass makes them again instead of keeping them, and threads do not matter.
#pragma once

#include <ggml.h>
#include <stdint.h>

typedef struct pd_dropout {
    float rate;           // at least 0, below 1
    uint64_t mask;        // its number among the masks of a graph
    const uint64_t *draw; // changed between computations; not owned
} pd_dropout;

// x: f32, contiguous. `dropout` must live as long as the node.
struct ggml_tensor *pd_dropout_node(struct ggml_context *ctx, struct ggml_tensor *x, pd_dropout *dropout);
// The dropout of such a node, whose derivative is itself; NULL: another node.
pd_dropout *pd_dropout_of(const struct ggml_tensor *node);
