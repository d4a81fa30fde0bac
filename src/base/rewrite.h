// A graph's nodes taken over by functions of our own, before it is allocated.
#pragma once

#include <ggml.h>

// Makes `node` a custom one with these sources, computed by `run` on all threads; its type, shape, place and
// name stay. One tensor without data is made in ctx on the way.
void pd_rewrite_node(struct ggml_context *ctx, struct ggml_tensor *node, struct ggml_tensor **sources,
                     int n_sources, ggml_custom_op_t run, void *user);
