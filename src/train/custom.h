// Custom graph nodes: whose they are, and how their threads share tasks.
#pragma once

#include <ggml.h>
#include <stdatomic.h>
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

// Hands out tasks 0 … n − 1 to the threads of one node at a time. Zeroed at first; the last thread to leave
// makes it ready for the next computation.
typedef struct pd_task_counter {
    atomic_int next, left;
} pd_task_counter;

static inline int32_t pd_next_task(pd_task_counter *counter) {
    return atomic_fetch_add(&counter->next, 1);
}

static inline void pd_tasks_leave(pd_task_counter *counter, int n_threads) {
    if (atomic_fetch_add(&counter->left, 1) + 1 < n_threads) return;
    atomic_store(&counter->left, 0);
    atomic_store(&counter->next, 0);
}

// Items first … last − 1 of n are thread's share.
static inline void pd_share(int64_t n, int thread, int n_threads, int64_t *first, int64_t *last) {
    *first = n * thread / n_threads;
    *last = n * (thread + 1) / n_threads;
}
