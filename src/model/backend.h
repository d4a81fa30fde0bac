// Devices and computing: one pd_backend per session runs graphs on the model's device, with the CPU beside it
// for what the device cannot do.
#pragma once

#include "base/error.h"

#include <ggml-backend.h>
#include <stdatomic.h>

// Loads ggml's backends once per process and finds device `name` (NULL: the CPU). PD_ERR_ARGUMENT lists the
// names.
pd_status pd_device_find(const char *name, ggml_backend_dev_t *device, pd_error *err);
enum { PD_MOST_THREADS = 512 };

// The CPU device; NULL when ggml has no CPU backend installed.
ggml_backend_dev_t pd_device_cpu(void);

typedef struct pd_backend {
    ggml_backend_t device;
    ggml_backend_t cpu; // the same as device on the CPU
    int32_t n_threads;  // of cpu
    atomic_bool *cancel;
} pd_backend;

// n_threads 0: one for each core this process may use. *cancel is polled between layers and, on the CPU,
// between graph nodes.
pd_status pd_backend_create(ggml_backend_dev_t device, int32_t n_threads, atomic_bool *cancel,
                            pd_backend *backend, pd_error *err);
void pd_backend_free(pd_backend *backend);

// A scheduler for graphs of at most `graph_size` nodes; freed with ggml_backend_sched_free.
pd_status pd_backend_scheduler(const pd_backend *backend, size_t graph_size, ggml_backend_sched_t *scheduler,
                               pd_error *err);
// PD_ERR_MEMORY when `device` has less memory than `bytes` in all, which for the CPU an allocation need not
// notice before it is used. `what` stands in the message.
pd_status pd_device_check_memory(ggml_backend_dev_t device, size_t bytes, const char *what, pd_error *err);
// pd_advise_huge_pages for what an allocated graph computes in the CPU's memory.
void pd_graph_advise_huge_pages(struct ggml_cgraph *graph);
// Gives a graph's tensors memory, after a look at how much that is. A scheduler that cannot get it is freed
// and set to NULL.
pd_status pd_backend_allocate(const pd_backend *backend, ggml_backend_sched_t *scheduler,
                              struct ggml_cgraph *graph, const char *what, pd_error *err);
// Scratch bytes a scheduler holds on all its devices.
size_t pd_scheduler_bytes(const pd_backend *backend, ggml_backend_sched_t scheduler);

// A node of a graph after which the clock is read. Marks stand in the graph's order.
typedef struct pd_mark {
    const struct ggml_tensor *node;
    double ms; // filled by pd_compute: since the mark before it, or since the start
} pd_mark;

typedef struct pd_compute_options {
    pd_mark *marks;
    size_t n_marks;
    pd_progress_callback progress; // called at every mark; NULL: not
    void *progress_user;
    const char *what; // progress's first argument
    double progress_from, progress_to;
} pd_compute_options;

// Computes an allocated graph. PD_ERR_CANCELLED when *cancel became true; PD_ERR_BACKEND when ggml failed.
pd_status pd_compute(const pd_backend *backend, ggml_backend_sched_t scheduler, struct ggml_cgraph *graph,
                     const pd_compute_options *options, pd_error *err);

// Milliseconds of a clock that never goes backwards.
double pd_now_ms(void);
