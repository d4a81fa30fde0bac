// What a decoded token reads, and how fast: products of q4_K weights with one row, and attention of one row
// over an f16 cache, by ggml's kernels, by its repacked ones where it has them (llama.cpp's way), and by
// ours, in turn, on one thread. CPU time counts, so that other work on the machine disturbs less.
#include "base/ggml_log.h"
#include "model/backend.h"
#include "onerow/lower.h"
#include "onerow/products.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LAYERS = 8, ROUNDS = 15, WIDTH = 4096, HEAD_DIM = 128, N_HEADS = WIDTH / HEAD_DIM };

typedef enum { GGML, REPACKED, OURS, N_WAYS } way;
static const char *const names[N_WAYS] = {"ggml", "ggml, repacked", "ours"};

static double cpu_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

typedef struct {
    struct ggml_context *weights, *ctx; // weights' buffer depends on the way
    struct ggml_cgraph *graph;
    ggml_backend_buffer_t buffers[2];
    ggml_backend_sched_t scheduler;
    pd_onerow *lowered;
    double best_ms;
} contestant;

static ggml_backend_buffer_type_t repacked_type(void) {
    ggml_backend_dev_t cpu = pd_device_cpu();
    ggml_backend_dev_get_extra_bufts_t get =
        (ggml_backend_dev_get_extra_bufts_t)ggml_backend_reg_get_proc_address(
            ggml_backend_dev_backend_reg(cpu), "ggml_backend_dev_get_extra_bufts");
    ggml_backend_buffer_type_t *types = get ? get(cpu) : NULL;
    for (; types && *types; types++) {
        if (strcmp(ggml_backend_buft_name(*types), "CPU_REPACK") == 0) return *types;
    }
    return NULL;
}

static struct ggml_context *context(void) {
    return ggml_init((struct ggml_init_params){
        .mem_size = 256 * ggml_tensor_overhead() + ggml_graph_overhead_custom(256, false), .no_alloc = true});
}

// Nodes from `ctx` on: LAYERS products of n_in × n_out.
static bool build_products(contestant *c, const pd_backend *backend, way how, const void *quantised,
                           int64_t n_in, int64_t n_out) {
    ggml_backend_buffer_type_t type =
        how == REPACKED ? repacked_type() : ggml_backend_get_default_buffer_type(backend->cpu);
    if (!type) return false;
    struct ggml_tensor *row = ggml_new_tensor_1d(c->ctx, GGML_TYPE_F32, n_in), *weights[LAYERS];
    for (int i = 0; i < LAYERS; i++)
        weights[i] = ggml_new_tensor_2d(c->weights, GGML_TYPE_Q4_K, n_in, n_out);
    c->buffers[0] = ggml_backend_alloc_ctx_tensors_from_buft(c->weights, type);
    c->buffers[1] = ggml_backend_alloc_ctx_tensors(c->ctx, backend->cpu);
    if (!c->buffers[0] || !c->buffers[1]) return false;
    ggml_backend_buffer_set_usage(c->buffers[0], GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    float *numbers = malloc((size_t)n_in * sizeof *numbers);
    for (int64_t i = 0; numbers && i < n_in; i++)
        numbers[i] = sinf((float)i);
    if (numbers) ggml_backend_tensor_set(row, numbers, 0, ggml_nbytes(row));
    free(numbers);
    for (int i = 0; i < LAYERS; i++) {
        char line[PD_CAUGHT_LINE];
        pd_ggml_log_catch(line); // it tells of every matrix it repacks
        ggml_backend_tensor_set(weights[i], quantised, 0, ggml_nbytes(weights[i]));
        pd_ggml_log_release();
        struct ggml_tensor *product = ggml_mul_mat(c->ctx, weights[i], row);
        ggml_set_output(product);
        ggml_build_forward_expand(c->graph, product);
    }
    return true;
}

static bool build_attention(contestant *c, const pd_backend *backend, way how, int64_t n_cached) {
    if (how == REPACKED) return false;
    struct ggml_tensor *q = ggml_new_tensor_3d(c->weights, GGML_TYPE_F32, HEAD_DIM, N_HEADS, 1);
    struct ggml_tensor *mask = ggml_new_tensor_2d(c->weights, GGML_TYPE_F16, n_cached, 1);
    struct ggml_tensor *cache[2 * LAYERS];
    for (int i = 0; i < 2 * LAYERS; i++)
        cache[i] = ggml_new_tensor_2d(c->weights, GGML_TYPE_F16, WIDTH, n_cached);
    c->buffers[0] = ggml_backend_alloc_ctx_tensors(c->weights, backend->cpu);
    if (!c->buffers[0]) return false;
    ggml_backend_buffer_clear(c->buffers[0], 0x21); // small numbers
    ggml_backend_tensor_memset(mask, 0, 0, ggml_nbytes(mask));
    const size_t head = HEAD_DIM * 2, row = WIDTH * 2;
    for (int i = 0; i < LAYERS; i++) {
        struct ggml_tensor *k = ggml_view_3d(c->ctx, cache[2 * i], HEAD_DIM, n_cached, N_HEADS, row, head, 0);
        struct ggml_tensor *v =
            ggml_view_3d(c->ctx, cache[2 * i + 1], HEAD_DIM, n_cached, N_HEADS, row, head, 0);
        struct ggml_tensor *result = ggml_flash_attn_ext(c->ctx, ggml_permute(c->ctx, q, 0, 2, 1, 3), k, v,
                                                         mask, 1.0F / sqrtf(HEAD_DIM), 0.0F, 0.0F);
        ggml_set_output(result);
        ggml_build_forward_expand(c->graph, result);
    }
    return true;
}

static bool finish(contestant *c, const pd_backend *backend, way how) {
    if (how == OURS) {
        if (pd_onerow_lower(c->graph, 1, &c->lowered, NULL) != PD_OK) return false;
        c->graph = pd_onerow_graph(c->lowered);
    }
    return pd_backend_scheduler(backend, 1024, &c->scheduler, NULL) == PD_OK &&
           pd_backend_allocate(backend, &c->scheduler, c->graph, "a benchmark", NULL) == PD_OK;
}

static void close_contestant(contestant *c) {
    if (c->scheduler) ggml_backend_sched_free(c->scheduler);
    pd_onerow_free(c->lowered);
    for (int i = 0; i < 2; i++) {
        if (c->buffers[i]) ggml_backend_buffer_free(c->buffers[i]);
    }
    if (c->ctx) ggml_free(c->ctx);
    if (c->weights) ggml_free(c->weights);
    *c = (contestant){0};
}

// n_out 0: attention over n rows of cache, else a product of n × n_out.
static int compare(const pd_backend *backend, const void *quantised, int64_t n, int64_t n_out) {
    contestant all[N_WAYS] = {0};
    bool there[N_WAYS];
    for (int how = 0; how < N_WAYS; how++) {
        contestant *c = &all[how];
        c->best_ms = INFINITY;
        c->weights = context();
        c->ctx = context();
        if (!c->weights || !c->ctx) return 1;
        c->graph = ggml_new_graph_custom(c->ctx, 256, false);
        there[how] = (n_out ? build_products(c, backend, (way)how, quantised, n, n_out)
                            : build_attention(c, backend, (way)how, n)) &&
                     finish(c, backend, (way)how);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int how = 0; how < N_WAYS; how++) {
            if (!there[how]) continue;
            const double start = cpu_ms();
            if (pd_compute(backend, all[how].scheduler, all[how].graph, NULL, NULL) != PD_OK) return 1;
            const double ms = (cpu_ms() - start) / LAYERS;
            if (ms < all[how].best_ms) all[how].best_ms = ms;
        }
    }
    const double bytes =
        n_out ? (double)ggml_row_size(GGML_TYPE_Q4_K, n) * (double)n_out : 2.0 * 2.0 * WIDTH * (double)n;
    if (n_out) {
        printf("q4_K product %lld x %lld\n", (long long)n, (long long)n_out);
    } else {
        printf("attention, %d heads of %d, %lld rows of f16 cache\n", N_HEADS, HEAD_DIM, (long long)n);
    }
    for (int how = 0; how < N_WAYS; how++) {
        if (there[how]) {
            printf("  %-16s %8.2f ms  %5.1f GB/s\n", names[how], all[how].best_ms,
                   bytes / all[how].best_ms * 1e-6);
        }
        close_contestant(&all[how]);
    }
    return 0;
}

// The floor: how fast one thread reads memory.
static void read_memory(void) {
    const size_t n = (size_t)64 << 20; // 512 MiB
    uint64_t *numbers = malloc(n * sizeof *numbers);
    if (!numbers) return;
    for (size_t i = 0; i < n; i++)
        numbers[i] = i;
    double best = INFINITY;
    volatile uint64_t sink;
    for (int round = 0; round < 5; round++) {
        const double start = cpu_ms();
        uint64_t sum = 0;
        for (size_t i = 0; i < n; i++)
            sum ^= numbers[i];
        sink = sum;
        const double ms = cpu_ms() - start;
        if (ms < best) best = ms;
    }
    (void)sink;
    printf("memory read\n  %-16s %8s     %5.1f GB/s\n", "one thread", "", (double)n * 8.0 / best * 1e-6);
    free(numbers);
}

int main(void) {
    if (!pd_onerow_available()) printf("no kernels of ours for this CPU: \"ours\" is ggml's\n");
    atomic_bool cancel = false;
    pd_backend backend;
    if (pd_backend_create(pd_device_cpu(), 1, &cancel, &backend, NULL) != PD_OK) return 1;
    const int64_t n_in = WIDTH, n_ff = 11008;
    const size_t count = (size_t)(n_in * n_ff);
    float *numbers = malloc(count * sizeof *numbers);
    void *quantised = malloc(ggml_row_size(GGML_TYPE_Q4_K, n_in) * (size_t)n_ff);
    if (!numbers || !quantised) return 1;
    for (size_t i = 0; i < count; i++)
        numbers[i] = (float)((i * 2654435761U) >> 8 & 0xffff) / 32768.0F - 1.0F;
    ggml_quantize_chunk(GGML_TYPE_Q4_K, numbers, quantised, 0, n_ff, n_in, NULL);
    free(numbers);
    read_memory();
    int failed = compare(&backend, quantised, n_in, n_in) || compare(&backend, quantised, n_in, n_ff) ||
                 compare(&backend, quantised, n_ff, n_in) || compare(&backend, NULL, 640, 0) ||
                 compare(&backend, NULL, 2944, 0);
    free(quantised);
    pd_backend_free(&backend);
    return failed;
}
