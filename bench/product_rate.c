// What oneDNN's own matrix product reaches on this CPU, at a prefill's shape, on all threads: what a
// prefill's rate is held against (docs/SPEED.md).
//
//     product_rate [--threads N]
#include "model/backend.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 640, SIDE = 4096, ROUNDS = 12 };

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

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
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
    // Small ordinary numbers in every type: 0x3c.. is about 0.01 in f32 and bf16, and 60 in eight bits.
    memset(contents(memory[0]), 0x3c, dnnl_memory_desc_get_size(sd));
    memset(contents(memory[1]), 0x3c, dnnl_memory_desc_get_size(packed));
    const dnnl_exec_arg_t arguments[3] = {
        {DNNL_ARG_SRC, memory[0]}, {DNNL_ARG_WEIGHTS, memory[1]}, {DNNL_ARG_DST, memory[2]}};
    double ms[ROUNDS];
    for (int i = -2; i < ROUNDS; i++) { // two to warm up
        const double start = pd_now_ms();
        check(dnnl_primitive_execute(primitive, stream, 3, arguments));
        check(dnnl_stream_wait(stream));
        if (i >= 0) ms[i] = pd_now_ms() - start;
    }
    qsort(ms, ROUNDS, sizeof *ms, by_size);
    const double work = 2.0 * ROWS * SIDE * SIDE * 1e-6;
    const char *kernel;
    check(dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &kernel));
    printf("%-5s best %.0f, median %.0f GFLOP/s (%s)\n", name, work / ms[0], work / ms[ROUNDS / 2], kernel);
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
    omp_set_num_threads(threads);
    measure("f32", dnnl_f32, dnnl_f32, dnnl_f32);
    measure("bf16", dnnl_bf16, dnnl_bf16, dnnl_f32);
    measure("int8", dnnl_u8, dnnl_s8, dnnl_s32);
    return 0;
}
