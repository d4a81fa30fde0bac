// Custom graph nodes: whose they are, and how their threads share rows.
#pragma once

#include <ggml.h>
#include <string.h>

// ggml keeps a custom node's function first in its parameters.
static inline ggml_custom_op_t pd_custom_function(const struct ggml_tensor *node) {
    ggml_custom_op_t function = NULL;
    if (node->op == GGML_OP_CUSTOM) memcpy(&function, node->op_params, sizeof function);
    return function;
}

// And its user data behind it and the number of tasks.
static inline void *pd_custom_user(const struct ggml_tensor *node) {
    struct {
        ggml_custom_op_t function;
        int n_tasks;
        void *user;
    } params;
    memcpy(&params, node->op_params, sizeof params);
    return params.user;
}

// Items first … last − 1 of n are thread's share.
static inline void pd_share(int64_t n, int thread, int n_threads, int64_t *first, int64_t *last) {
    *first = n * thread / n_threads;
    *last = n * (thread + 1) / n_threads;
}
