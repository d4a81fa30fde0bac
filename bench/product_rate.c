// What oneDNN's own matrix product, and ours of sixteen-bit integers and on tiles, reach on this CPU, at a
// prefill's shape, on all threads: what a prefill's rate is held against (docs/SPEED.md).
//
//     product_rate [--threads N]
#include "base/random.h"
#include "model/backend.h"
#include "onednn/amx.h"
#include "onednn/gemm.h"
#include "onednn/int16.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum {
    ROWS = 640,
    SIDE = 4096,
    ROUNDS = 12,
    GROUPS = SIDE / PD_INT16_GROUP,
    PANEL = 256,
    CHUNK = 132,
    STRIDE = SIDE + 32
};

static void check(dnnl_status_t status) {
    if (status == dnnl_success) return;
    fprintf(stderr, "product_rate: oneDNN failed (%d)\n", (int)status);
    exit(1);
}

static void *contents(dnnl_memory_t memory) {
    void *data;
    check(dnnl_memory_get_data_handle(memory, &data));
    return data;
}

// Small ordinary numbers in every type: about ±0.01 in f32 and bf16. Their bits change from one to the next:
// what a tile's product may draw of power, and with it the clock, depends on that.
static void fill(void *memory, size_t bytes) {
    uint64_t seed = 1;
    uint32_t *words = memory;
    for (size_t i = 0; i < bytes / sizeof *words; i++)
        words[i] = 0x3c003c00U | ((uint32_t)(pd_random_uniform(&seed) * 0x1p32) & 0x80ff80ffU);
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *name, double *ms, const char *kernel) {
    qsort(ms, ROUNDS, sizeof *ms, by_size);
    const double work = 2.0 * ROWS * SIDE * SIDE * 1e-6;
    printf("%-5s best %.0f, median %.0f GFLOP/s (%s)\n", name, work / ms[0], work / ms[ROUNDS / 2], kernel);
}

static void measure(const char *name, dnnl_data_type_t source, dnnl_data_type_t weights,
                    dnnl_data_type_t destination) {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    check(dnnl_engine_create(&engine, dnnl_cpu, 0));
    check(dnnl_stream_create(&stream, engine, 0));
    const dnnl_dims_t s = {ROWS, SIDE}, w = {SIDE, SIDE};
    dnnl_memory_desc_t sd, wd, dd;
    check(dnnl_memory_desc_create_with_tag(&sd, 2, s, source, dnnl_ab));
    check(dnnl_memory_desc_create_with_tag(&wd, 2, w, weights, dnnl_format_tag_any));
    check(dnnl_memory_desc_create_with_tag(&dd, 2, s, destination, dnnl_ab));
    dnnl_primitive_desc_t pd;
    if (dnnl_matmul_primitive_desc_create(&pd, engine, sd, wd, NULL, dd, NULL) != dnnl_success) {
        printf("%-5s no kernel on this CPU\n", name);
        return;
    }
    dnnl_primitive_t primitive;
    check(dnnl_primitive_create(&primitive, pd));
    const_dnnl_memory_desc_t packed = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    dnnl_memory_t memory[3];
    check(dnnl_memory_create(&memory[0], sd, engine, DNNL_MEMORY_ALLOCATE));
    check(dnnl_memory_create(&memory[1], packed, engine, DNNL_MEMORY_ALLOCATE));
    check(dnnl_memory_create(&memory[2], dd, engine, DNNL_MEMORY_ALLOCATE));
    fill(contents(memory[0]), dnnl_memory_desc_get_size(sd));
    fill(contents(memory[1]), dnnl_memory_desc_get_size(packed));
    const dnnl_exec_arg_t arguments[3] = {
        {DNNL_ARG_SRC, memory[0]}, {DNNL_ARG_WEIGHTS, memory[1]}, {DNNL_ARG_DST, memory[2]}};
    double ms[ROUNDS];
    for (int i = -2; i < ROUNDS; i++) { // two to warm up
        const double start = pd_now_ms();
        check(dnnl_primitive_execute(primitive, stream, 3, arguments));
        check(dnnl_stream_wait(stream));
        if (i >= 0) ms[i] = pd_now_ms() - start;
    }
    const char *kernel;
    check(dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &kernel));
    report(name, ms, kernel);
    for (int i = 0; i < 3; i++)
        dnnl_memory_destroy(memory[i]);
    dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(pd);
    dnnl_memory_desc_destroy(sd);
    dnnl_memory_desc_destroy(wd);
    dnnl_memory_desc_destroy(dd);
    dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
}

// Times our own kernels: all panels of the weights, shared out among the threads.
static void time_panels(const char *name, void (*multiply)(const void *x, int64_t panel), const void *x,
                        const char *kernel) {
    double ms[ROUNDS];
    for (int i = -2; i < ROUNDS; i++) { // two to warm up
        const double start = pd_now_ms();
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic)
#endif
        for (int64_t panel = 0; panel < SIDE / PANEL; panel++)
            multiply(x, panel);
        if (i >= 0) ms[i] = pd_now_ms() - start;
    }
    report(name, ms, kernel);
}

typedef struct {
    int16_t *source, *weights; // [ROWS][STRIDE], [SIDE / PANEL] panels
    float *source_scales, *weights_scales, *destination;
} int16_matrices;

// A panel's products, in chunks of rows as a prefill's tasks are.
static void multiply_int16_panel(const void *matrices, int64_t panel) {
    const int16_matrices *x = matrices;
    for (int64_t row = 0; row < ROWS; row += CHUNK) {
        pd_int16_multiply(&(pd_int16_product){.rows = ROWS - row < CHUNK ? ROWS - row : CHUNK,
                                              .columns = PANEL,
                                              .k = SIDE,
                                              .source = x->source + row * STRIDE,
                                              .source_stride = STRIDE,
                                              .source_scales = x->source_scales + row * GROUPS,
                                              .panel = x->weights + panel * PANEL * SIDE,
                                              .panel_scales = x->weights_scales + panel * PANEL,
                                              .panel_scales_stride = SIDE,
                                              .destination = x->destination + row * SIDE + panel * PANEL,
                                              .destination_stride = SIDE});
    }
}

static void *numbers(size_t bytes) {
    void *memory = pd_aligned_alloc(bytes);
    if (!memory) {
        fputs("product_rate: out of memory\n", stderr);
        exit(1);
    }
    return memset(memory, 1, bytes);
}

static float *scales(size_t n) {
    float *all = numbers(n * sizeof *all);
    for (size_t i = 0; i < n; i++)
        all[i] = 1.0F; // smaller ones could underflow, which some CPUs are slow at
    return all;
}

static void measure_int16(void) {
    if (!pd_int16_available()) {
        puts("int16 no kernel on this CPU");
        return;
    }
    const size_t source = (size_t)ROWS * STRIDE, weights = (size_t)SIDE * SIDE;
    const int16_matrices x = {numbers(source * sizeof(int16_t)), numbers(weights * sizeof(int16_t)),
                              scales((size_t)ROWS * GROUPS), scales((size_t)GROUPS * SIDE),
                              numbers(source * sizeof(float))};
    time_panels("int16", multiply_int16_panel, &x, "ours: vpmaddwd");
    free(x.source);
    free(x.weights);
    free(x.source_scales);
    free(x.weights_scales);
    free(x.destination);
}

// One panel's; the others follow at a distance.
static void multiply_tiles_panel(const void *first, int64_t panel) {
    pd_amx_product product = *(const pd_amx_product *)first;
    const size_t at = (size_t)panel;
    product.weights = (const char *)product.weights + at * pd_amx_packed_bytes(product.kind, PANEL, SIDE);
    product.destination = (char *)product.destination + at * PANEL * sizeof(float);
    product.sums = (char *)product.sums + at * pd_amx_sums_bytes(ROWS, PANEL);
    pd_amx_multiply(&product);
}

static void measure_tiles(const char *name, pd_number_kind kind) {
    if (!pd_amx_multiplies(kind, SIDE)) return;
    const size_t stride = SIDE * pd_number_bytes(kind) + 64;
    const size_t source_bytes = ROWS * stride, weights_bytes = pd_amx_packed_bytes(kind, SIDE, SIDE);
    void *source = numbers(source_bytes), *weights = numbers(weights_bytes),
         *destination = numbers((size_t)ROWS * SIDE * sizeof(float)),
         *sums = numbers(pd_amx_sums_bytes(ROWS, SIDE));
    fill(source, source_bytes);
    fill(weights, weights_bytes);
    const pd_amx_product first = {.kind = kind,
                                  .rows = ROWS,
                                  .columns = PANEL,
                                  .k = SIDE,
                                  .source = source,
                                  .source_stride = stride,
                                  .weights = weights,
                                  .destination = destination,
                                  .destination_stride = SIDE * sizeof(float),
                                  .sums = sums};
    time_panels(name, multiply_tiles_panel, &first, "ours: tiles");
    free(source);
    free(weights);
    free(destination);
    free(sums);
}

int main(int argc, char **argv) {
    int threads = 2;
    if (argc == 3 && strcmp(argv[1], "--threads") == 0) {
        threads = atoi(argv[2]);
    } else if (argc != 1) {
        fputs("usage: product_rate [--threads N]\n", stderr);
        return 2;
    }
    if (threads < 1) {
        fputs("product_rate: --threads: expected at least 1\n", stderr);
        return 2;
    }
#ifdef _OPENMP
    omp_set_num_threads(threads);
#else
    printf("without OpenMP: one thread, not %d\n", threads);
#endif
    measure("f32", dnnl_f32, dnnl_f32, dnnl_f32);
    measure("bf16", dnnl_bf16, dnnl_bf16, dnnl_f32);
    measure_tiles("bf16", PD_NUMBER_BF16);
    measure("int8", dnnl_u8, dnnl_s8, dnnl_s32);
    measure_tiles("int8", PD_NUMBER_INT8);
    measure_int16();
    return 0;
}
