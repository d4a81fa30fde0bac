// What the first prefill of a new length costs on top: oneDNN's primitives are made for each shape of a
// product, and kept. The graphs of LLaVA-1.5's decoder over four stages of rows are lowered, each anew; CPU
// time counts, so that other work on the machine disturbs less.
//
//     first_prefill
//
// In f32, where lowering only looks at shapes, so that the weights need no memory. Integers of sixteen bits
// need no primitives for products.
#include "model/backend.h"
#include "model/decoder.h"
#include "model/geometry.h"
#include "onednn/lowering.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LAYERS = 8, STAGES = 4, ROUNDS = 5, TENSORS = 1024 };

typedef struct prompt {
    int64_t rows[STAGES];
} prompt;

static double cpu_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static void expect(pd_status status, const pd_error *err) {
    if (status == PD_OK) return;
    fprintf(stderr, "first_prefill: %s\n", err->message);
    exit(1);
}

static struct ggml_tensor *vector(struct ggml_context *ctx, int64_t n) {
    return ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n);
}

static struct ggml_tensor *matrix(struct ggml_context *ctx, int64_t n_in, int64_t n_out) {
    return ggml_new_tensor_2d(ctx, GGML_TYPE_Q4_K, n_in, n_out);
}

static pd_decoder_layer layer(struct ggml_context *ctx, const pd_decoder_hyperparameters *h) {
    const int64_t heads = (int64_t)h->n_heads * h->head_dim, kv_heads = (int64_t)h->n_kv_heads * h->head_dim;
    return (pd_decoder_layer){.attn_norm = vector(ctx, h->n_embd),
                              .q = matrix(ctx, h->n_embd, heads),
                              .k = matrix(ctx, h->n_embd, kv_heads),
                              .v = matrix(ctx, h->n_embd, kv_heads),
                              .o = matrix(ctx, heads, h->n_embd),
                              .ffn_norm = vector(ctx, h->n_embd),
                              .gate = matrix(ctx, h->n_embd, h->n_ff),
                              .up = matrix(ctx, h->n_embd, h->n_ff),
                              .down = matrix(ctx, h->n_ff, h->n_embd)};
}

// The layers of a prefill, each stage over its own rows.
static struct ggml_cgraph *build(struct ggml_context *ctx, const pd_decoder_hyperparameters *h,
                                 const prompt *p) {
    struct ggml_cgraph *graph = ggml_new_graph_custom(ctx, TENSORS, false);
    pd_decoder_layer layers[LAYERS];
    for (int i = 0; i < LAYERS; i++)
        layers[i] = layer(ctx, h);
    const pd_decoder_weights weights = {.h = *h, .layers = layers};
    for (int i = 0; i < LAYERS; i++) {
        const int64_t n = p->rows[i * STAGES / LAYERS];
        const pd_layer_input input = {
            .rows = {.residual = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, h->n_embd, n)},
            .positions = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n),
            .mask = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, n, n),
            .flash = true,
            .last_row_only = i + 1 == LAYERS};
        pd_decoder_layer_forward(ctx, graph, &weights, i, &input);
    }
    return graph;
}

// Milliseconds of lowering such a prefill.
static double lower(pd_lowering *lowering, const pd_backend *backend, const pd_decoder_hyperparameters *h,
                    const prompt *p, int32_t *n_lowered) {
    pd_error err;
    struct ggml_context *ctx = ggml_init((struct ggml_init_params){
        .mem_size = TENSORS * ggml_tensor_overhead() + ggml_graph_overhead_custom(TENSORS, false),
        .no_alloc = true});
    if (!ctx) expect(pd_fail_memory(&err, TENSORS * ggml_tensor_overhead(), "a graph"), &err);
    struct ggml_cgraph *graph = build(ctx, h, p);
    const pd_lower_params params = {.cpu = backend->cpu, .n_threads = backend->n_threads};
    pd_lowered *lowered;
    const double start = cpu_ms();
    expect(pd_lower(lowering, graph, &params, &lowered, &err), &err);
    const double ms = cpu_ms() - start;
    *n_lowered = pd_lowered_count(lowered);
    pd_lowered_free(lowered);
    ggml_free(ctx);
    return ms;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const pd_backend *backend, const pd_geometry *geometry, const prompt *p) {
    pd_error err;
    double first[ROUNDS], again[ROUNDS];
    int32_t n_lowered = 0;
    for (int i = 0; i < ROUNDS; i++) {
        const pd_lowering_params params = {.compute = PD_COMPUTE_F32, .strict = true};
        pd_lowering *lowering;
        expect(pd_lowering_create(&params, &lowering, &err), &err);
        first[i] = lower(lowering, backend, &geometry->decoder, p, &n_lowered);
        again[i] = lower(lowering, backend, &geometry->decoder, p, &n_lowered);
        pd_lowering_free(lowering);
    }
    qsort(first, ROUNDS, sizeof *first, by_size);
    qsort(again, ROUNDS, sizeof *again, by_size);
    printf("%s, %d layers over %lld, %lld, %lld, %lld rows, %d nodes lowered\n", geometry->name, LAYERS,
           (long long)p->rows[0], (long long)p->rows[1], (long long)p->rows[2], (long long)p->rows[3],
           n_lowered);
    printf("  a new length    median %6.2f, most %6.2f ms\n", first[ROUNDS / 2], first[ROUNDS - 1]);
    printf("  the same again  median %6.2f, most %6.2f ms\n", again[ROUNDS / 2], again[ROUNDS - 1]);
}

int main(void) {
    static const prompt prompts[] = {
        {{640, 352, 208, 136}},   // a picture of 576 and 64 tokens of text, halved three times
        {{2951, 1511, 791, 431}}, // five pictures and 71
    };
    pd_error err;
    atomic_bool cancel = false;
    pd_backend backend;
    const pd_geometry *geometry;
    expect(pd_backend_create(pd_device_cpu(), 1, &cancel, &backend, &err), &err);
    expect(pd_geometry_find("llava-1.5-7b", &geometry, &err), &err);
    // oneDNN has a cache of its own, which would serve all rounds but the first.
    dnnl_set_primitive_cache_capacity(0);
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++)
        measure(&backend, geometry, &prompts[i]);
    pd_backend_free(&backend);
    return 0;
}
