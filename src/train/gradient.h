// The backward pass: reverse-mode differentiation of a graph of the model's own nodes, as more nodes of the
// same graph. ggml has such a pass; this one also knows what that one lacks (layer norm, exact GELU,
// concatenation, packed attention), sums parameters' gradients in place, and builds nothing for what needs no
// gradient.
#pragma once

#include "base/error.h"

#include <ggml.h>

// A tensor whose gradient is wanted, and where it is added: f32, of the same shape, contiguous.
typedef struct pd_gradient_target {
    struct ggml_tensor *parameter;
    struct ggml_tensor *sum;
} pd_gradient_target;

// `widens`: ggml's own kernels compute the graph, which cannot multiply f16 and bf16 weights this way round:
// they are converted first.
// Appends to `graph` what adds d loss / d parameter to every target's sum, given that d loss / d `output` is
// `gradient`; `output` must be in the graph. Targets that the output does not depend on stay as they are.
// PD_ERR_UNSUPPORTED names an operation that has no derivative here.
pd_status pd_gradient_build(struct ggml_context *ctx, struct ggml_cgraph *graph, struct ggml_tensor *output,
                            struct ggml_tensor *gradient, const pd_gradient_target *targets, size_t n_targets,
                            bool widens, pd_error *err);
