// Tasks 0, 1, 2, … that the threads of a graph node take in turn. Zeroed at first; the last thread to leave
// makes it ready for the next computation.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct pd_tasks {
    atomic_llong next;
    atomic_int left;
} pd_tasks;

static inline int64_t pd_tasks_take(pd_tasks *tasks) {
    return atomic_fetch_add_explicit(&tasks->next, 1, memory_order_relaxed);
}

// Each thread once, when what it took is beyond the last task. All have left before anyone comes again.
// Whether it is the last: all tasks are done.
static inline bool pd_tasks_leave(pd_tasks *tasks, int n_threads) {
    if (atomic_fetch_add(&tasks->left, 1) + 1 < n_threads) return false;
    atomic_store(&tasks->left, 0);
    atomic_store(&tasks->next, 0);
    return true;
}
