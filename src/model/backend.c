#include "model/backend.h"

#include "base/ggml_log.h"
#include "base/memory.h"

#include <ggml-alloc.h>
#include <ggml-cpu.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

static pthread_once_t load_once = PTHREAD_ONCE_INIT;

static void load_backends(void) {
    char line[PD_CAUGHT_LINE];
    pd_ggml_log_catch(line);
    ggml_backend_load_all();
    pd_ggml_log_release();
}

pd_status pd_device_find(const char *name, ggml_backend_dev_t *device, pd_error *err) {
    pthread_once(&load_once, load_backends);
    *device = NULL;
    char names[256] = "";
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t candidate = ggml_backend_dev_get(i);
        const char *candidate_name = ggml_backend_dev_name(candidate);
        const bool is_cpu = ggml_backend_dev_type(candidate) == GGML_BACKEND_DEVICE_TYPE_CPU;
        if (name ? strcasecmp(name, candidate_name) == 0 : is_cpu) {
            *device = candidate;
            return PD_OK;
        }
        const size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", candidate_name);
    }
    if (!name) return pd_fail(err, PD_ERR_BACKEND, "ggml has no CPU backend installed");
    return pd_fail(err, PD_ERR_ARGUMENT, "no device named %s (devices here: %s)", name, names);
}

ggml_backend_dev_t pd_device_cpu(void) {
    pthread_once(&load_once, load_backends);
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

static bool cancelled(void *user) {
    return atomic_load_explicit((atomic_bool *)user, memory_order_relaxed);
}

static int32_t count_cores(void) {
    cpu_set_t allowed;
    const long count = sched_getaffinity(0, sizeof allowed, &allowed) == 0
                           ? CPU_COUNT(&allowed)
                           : sysconf(_SC_NPROCESSORS_ONLN); // more CPUs than the set has room for
    return count < 1 ? 1 : count < PD_MOST_THREADS ? (int32_t)count : PD_MOST_THREADS;
}

pd_status pd_backend_create(ggml_backend_dev_t device, int32_t n_threads, atomic_bool *cancel,
                            pd_backend *backend, pd_error *err) {
    *backend = (pd_backend){.cancel = cancel};
    ggml_backend_dev_t cpu_device = pd_device_cpu();
    if (!cpu_device) return pd_fail(err, PD_ERR_BACKEND, "ggml has no CPU backend installed");
    backend->cpu = ggml_backend_dev_init(cpu_device, NULL);
    backend->device = device == cpu_device ? backend->cpu : ggml_backend_dev_init(device, NULL);
    if (!backend->cpu || !backend->device) {
        pd_backend_free(backend);
        return pd_fail(err, PD_ERR_BACKEND, "ggml cannot start device %s", ggml_backend_dev_name(device));
    }
    ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(cpu_device);
    // The CPU backend is a plug-in: its own functions are found by name.
    ggml_backend_set_n_threads_t set_n_threads =
        (ggml_backend_set_n_threads_t)ggml_backend_reg_get_proc_address(registry,
                                                                        "ggml_backend_set_n_threads");
    ggml_backend_set_abort_callback_t set_abort_callback =
        (ggml_backend_set_abort_callback_t)ggml_backend_reg_get_proc_address(
            registry, "ggml_backend_set_abort_callback");
    backend->n_threads = n_threads > 0 ? n_threads : count_cores();
    if (set_n_threads) set_n_threads(backend->cpu, backend->n_threads);
    if (set_abort_callback) set_abort_callback(backend->cpu, cancelled, cancel);
    return PD_OK;
}

void pd_backend_free(pd_backend *backend) {
    if (backend->device && backend->device != backend->cpu) ggml_backend_free(backend->device);
    if (backend->cpu) ggml_backend_free(backend->cpu);
    *backend = (pd_backend){0};
}

pd_status pd_backend_scheduler(const pd_backend *backend, size_t graph_size, ggml_backend_sched_t *scheduler,
                               pd_error *err) {
    ggml_backend_t backends[2] = {backend->device, backend->cpu}; // ggml wants the CPU last
    const int count = backend->device == backend->cpu ? 1 : 2;
    *scheduler = ggml_backend_sched_new(backends, NULL, count, graph_size, false, true);
    if (!*scheduler) return pd_fail(err, PD_ERR_BACKEND, "ggml cannot make a scheduler");
    return PD_OK;
}

pd_status pd_device_check_memory(ggml_backend_dev_t device, size_t bytes, const char *what, pd_error *err) {
    size_t available, total;
    ggml_backend_dev_memory(device, &available, &total);
    if (total == 0 || bytes <= total) return PD_OK; // 0: the device does not say
    return pd_fail(err, PD_ERR_MEMORY, "out of memory: %zu bytes for %s; device %s has %zu", bytes, what,
                   ggml_backend_dev_name(device), total);
}

void pd_graph_advise_huge_pages(struct ggml_cgraph *graph) {
    ggml_backend_buffer_t advised = NULL;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        ggml_backend_buffer_t buffer = ggml_graph_node(graph, i)->buffer;
        if (!buffer || buffer == advised || !ggml_backend_buffer_is_host(buffer)) continue;
        pd_advise_huge_pages(ggml_backend_buffer_get_base(buffer), ggml_backend_buffer_get_size(buffer));
        advised = buffer;
    }
}

pd_status pd_backend_allocate(const pd_backend *backend, ggml_backend_sched_t *scheduler,
                              struct ggml_cgraph *graph, const char *what, pd_error *err) {
    ggml_gallocr_t planner = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend->device));
    if (!planner) return pd_fail(err, PD_ERR_MEMORY, "out of memory for %s", what);
    size_t bytes = 0;
    ggml_gallocr_reserve_n_size(planner, graph, NULL, NULL, &bytes);
    ggml_gallocr_free(planner);
    PD_TRY(pd_device_check_memory(ggml_backend_get_device(backend->device), bytes, what, err));
    char line[PD_CAUGHT_LINE];
    pd_ggml_log_catch(line);
    ggml_backend_sched_reset(*scheduler);
    const bool allocated = ggml_backend_sched_alloc_graph(*scheduler, graph);
    pd_ggml_log_release();
    if (allocated) {
        pd_graph_advise_huge_pages(graph);
        return PD_OK;
    }
    ggml_backend_sched_free(*scheduler); // ggml's would crash at its next graph
    *scheduler = NULL;
    return pd_fail_memory(err, bytes, what);
}

size_t pd_scheduler_bytes(const pd_backend *backend, ggml_backend_sched_t scheduler) {
    size_t bytes = ggml_backend_sched_get_buffer_size(scheduler, backend->cpu);
    if (backend->device != backend->cpu)
        bytes += ggml_backend_sched_get_buffer_size(scheduler, backend->device);
    return bytes;
}

double pd_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

typedef struct {
    const pd_compute_options *options;
    size_t next; // mark
    double last_ms;
    atomic_bool *cancel;
} mark_clock;

static bool at_node(struct ggml_tensor *node, bool ask, void *user) {
    mark_clock *clock = user;
    const pd_compute_options *options = clock->options;
    const bool is_mark = clock->next < options->n_marks && options->marks[clock->next].node == node;
    if (ask) return is_mark;
    if (is_mark) {
        const double now = pd_now_ms();
        options->marks[clock->next].ms = now - clock->last_ms;
        clock->last_ms = now;
        clock->next++;
        if (options->progress) {
            const double done = (double)clock->next / (double)options->n_marks;
            options->progress(options->what,
                              options->progress_from + done * (options->progress_to - options->progress_from),
                              options->progress_user);
        }
    }
    return !cancelled(clock->cancel);
}

pd_status pd_compute(const pd_backend *backend, ggml_backend_sched_t scheduler, struct ggml_cgraph *graph,
                     const pd_compute_options *options, pd_error *err) {
    static const pd_compute_options no_options = {0};
    mark_clock clock = {options ? options : &no_options, 0, pd_now_ms(), backend->cancel};
    ggml_backend_sched_set_eval_callback(scheduler, clock.options->n_marks ? at_node : NULL, &clock);
    const enum ggml_status status = ggml_backend_sched_graph_compute(scheduler, graph);
    ggml_backend_sched_set_eval_callback(scheduler, NULL, NULL);
    if (cancelled(backend->cancel)) return pd_fail(err, PD_ERR_CANCELLED, "cancelled");
    if (status == GGML_STATUS_ALLOC_FAILED)
        return pd_fail(err, PD_ERR_MEMORY, "out of memory while computing");
    if (status != GGML_STATUS_SUCCESS) {
        return pd_fail(err, PD_ERR_BACKEND, "ggml failed to compute a graph (%s)",
                       ggml_status_to_string(status));
    }
    return PD_OK;
}
