// Every lowered product against ggml's own, over many shapes, in the manner of ggml's test-backend-ops.
#include "base/random.h"
#include "model/backend.h"
#include "onednn/lowering.h"

#include <ggml-alloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // wants the above

enum { N_THREADS = 2 };

static pd_backend backend;
static atomic_bool cancel;

// ---- one case ----------------------------------------------------------------------------------------------

typedef enum { PLAIN, PADDED, PERMUTED, TRANSPOSED } view_kind;

typedef struct {
    enum ggml_op op; // MUL_MAT or OUT_PROD
    enum ggml_type type;
    int64_t m, n, k;
    int64_t batch2, batch3, share2, share3; // `share` batches of the source read the same weights
    view_kind weights_view, source_view;
    bool changing; // the weights are no constants
} product_case;

// Tolerances of the kind: relative to the norm of the result.
static const struct {
    pd_compute_type compute;
    bool eight_bits;
    const char *name;
    double tolerance;
} computes[] = {
    {PD_COMPUTE_F32, false, "f32", 1e-5},
    {PD_COMPUTE_BF16, false, "bf16", 1e-2},
    {PD_COMPUTE_INT8, false, "int8 as the CPU likes it", 3e-2},
    {PD_COMPUTE_INT8, true, "int8 in eight bits", 3e-2},
};
static const double INT16_TOLERANCE = 2e-3; // of int8, where the CPU likes sixteen bits

// A matrix of `type`, [a, b, c, d], that lies in memory as `view` says.
static struct ggml_tensor *matrix(struct ggml_context *ctx, enum ggml_type type, int64_t a, int64_t b,
                                  int64_t c, int64_t d, view_kind view) {
    switch (view) {
    case PADDED: { // rows with a gap behind them
        const int64_t gap = ggml_blck_size(type) > 1 ? ggml_blck_size(type) : 7;
        struct ggml_tensor *base = ggml_new_tensor_4d(ctx, type, a + gap, b, c, d);
        return ggml_view_4d(ctx, base, a, b, c, d, base->nb[1], base->nb[2], base->nb[3], 0);
    }
    case PERMUTED: // heads beside each other in a row, as attention has them
        return ggml_permute(ctx, ggml_new_tensor_4d(ctx, type, a, c, b, d), 0, 2, 1, 3);
    case TRANSPOSED:
        return ggml_transpose(ctx, ggml_new_tensor_4d(ctx, type, b, a, c, d));
    case PLAIN:
        break;
    }
    return ggml_new_tensor_4d(ctx, type, a, b, c, d);
}

static struct ggml_tensor *owner(struct ggml_tensor *tensor) {
    return tensor->view_src ? tensor->view_src : tensor;
}

static bool all_alike;           // numbers are all one instead
static int64_t outlier_channels; // of the source: so many channels are much larger than the others

// Random numbers, with now and then a large one, as activations have.
static void fill(struct ggml_tensor *tensor, uint64_t seed) {
    tensor = owner(tensor);
    const int64_t n = ggml_nelements(tensor);
    float *numbers = malloc((size_t)n * sizeof *numbers);
    assert_non_null(numbers);
    for (int64_t i = 0; i < n; i++)
        numbers[i] = (float)(2.0 * pd_random_uniform(&seed) - 1.0) * (i % 97 == 0 ? 3.0F : 1.0F);
    for (int64_t i = 0; all_alike && i < n; i++)
        numbers[i] = 1.0F;
    if (tensor->type == GGML_TYPE_F32) {
        ggml_backend_tensor_set(tensor, numbers, 0, ggml_nbytes(tensor));
    } else {
        void *quantised = malloc(ggml_nbytes(tensor));
        assert_non_null(quantised);
        float *importance = malloc((size_t)tensor->ne[0] * sizeof *importance); // some types want it
        assert_non_null(importance);
        for (int64_t i = 0; i < tensor->ne[0]; i++)
            importance[i] = 1.0F;
        ggml_quantize_chunk(tensor->type, numbers, quantised, 0, n / tensor->ne[0], tensor->ne[0],
                            importance);
        ggml_backend_tensor_set(tensor, quantised, 0, ggml_nbytes(tensor));
        free(importance);
        free(quantised);
    }
    free(numbers);
}

// Makes outlier_channels of a plain matrix fifty times as large as they are.
static void enlarge_channels(const struct ggml_tensor *source) {
    float *numbers = source->data;
    for (int64_t r = 0; outlier_channels > 0 && r < ggml_nrows(source); r++) {
        for (int64_t i = 0; i < outlier_channels; i++)
            numbers[r * source->ne[0] + (i * 37 + 5) % source->ne[0]] *= 50.0F;
    }
}

typedef struct {
    struct ggml_context *ctx;
    ggml_backend_buffer_t weights_buffer;
    ggml_gallocr_t allocator; // of everything else
    struct ggml_tensor *weights, *source, *result;
    struct ggml_cgraph *graph;
} problem;

// The case's graph; the same seed gives the same numbers. as_f32: with the weights widened first.
static void make(problem *p, const product_case *c, bool as_f32) {
    const bool outer = c->op == GGML_OP_OUT_PROD;
    p->ctx = ggml_init((struct ggml_init_params){.mem_size = 1 << 20, .no_alloc = true});
    struct ggml_tensor *w = matrix(p->ctx, c->type, outer ? c->n : c->k, outer ? c->k : c->n,
                                   c->batch2 / c->share2, c->batch3 / c->share3, c->weights_view);
    p->weights_buffer = ggml_backend_alloc_ctx_tensors(p->ctx, backend.cpu);
    assert_non_null(p->weights_buffer);
    if (!c->changing) ggml_backend_buffer_set_usage(p->weights_buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    fill(w, 1);
    p->weights = w;
    p->source = matrix(p->ctx, GGML_TYPE_F32, outer ? c->m : c->k, outer ? c->k : c->m, c->batch2, c->batch3,
                       c->source_view);
    ggml_set_input(owner(p->source));
    ggml_set_output(owner(p->source)); // its memory stays its own: it is read twice
    if (as_f32 && c->type != GGML_TYPE_F32) w = ggml_cast(p->ctx, w, GGML_TYPE_F32);
    p->result = outer ? ggml_out_prod(p->ctx, w, p->source) : ggml_mul_mat(p->ctx, w, p->source);
    p->graph = ggml_new_graph(p->ctx);
    ggml_build_forward_expand(p->graph, p->result);
}

static void free_problem(problem *p) {
    ggml_gallocr_free(p->allocator);
    ggml_backend_buffer_free(p->weights_buffer);
    ggml_free(p->ctx);
}

// Computes `graph` and returns a copy of the result.
static float *compute_graph(problem *p, struct ggml_cgraph *graph) {
    if (!p->allocator) {
        p->allocator = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend.cpu));
        assert_true(ggml_gallocr_alloc_graph(p->allocator, graph));
        fill(p->source, 2);
        enlarge_channels(p->source);
    }
    memset(p->result->data, 0xff, ggml_nbytes(p->result));
    assert_int_equal(ggml_backend_graph_compute(backend.cpu, graph), GGML_STATUS_SUCCESS);
    float *result = malloc(ggml_nbytes(p->result));
    assert_non_null(result);
    memcpy(result, p->result->data, ggml_nbytes(p->result));
    return result;
}

static double relative_error(const float *a, const float *reference, int64_t n) {
    double difference = 0.0, norm = 0.0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)a[i] - reference[i]) * ((double)a[i] - reference[i]);
        norm += (double)reference[i] * reference[i];
    }
    return norm > 0.0 ? sqrt(difference / norm) : sqrt(difference);
}

static void describe(const product_case *c, char *text, size_t size) {
    static const char *const views[] = {"plain", "padded", "permuted", "transposed"};
    snprintf(text, size, "%s %s%s m %d n %d k %d batch %dx%d share %dx%d weights %s source %s",
             ggml_op_name(c->op), ggml_type_name(c->type), c->changing ? " changing" : "", (int)c->m,
             (int)c->n, (int)c->k, (int)c->batch2, (int)c->batch3, (int)c->share2, (int)c->share3,
             views[c->weights_view], views[c->source_view]);
}

static pd_lowering *create(size_t i) {
    const pd_lowering_params params = {.compute = computes[i].compute,
                                       .eight_bits = computes[i].eight_bits,
                                       .strict = true,
                                       .everything = true};
    pd_lowering *lowering;
    pd_error err;
    const pd_status status = pd_lowering_create(&params, &lowering, &err);
    if (status == PD_ERR_UNSUPPORTED) return NULL;
    if (status != PD_OK) print_error("%s\n", err.message);
    assert_int_equal(status, PD_OK);
    return lowering;
}

static const pd_lower_params *params(void) {
    static pd_lower_params p;
    p = (pd_lower_params){.cpu = backend.cpu, .n_threads = N_THREADS};
    return &p;
}

static void run_case(pd_lowering *lowering, const product_case *c, double tolerance) {
    char name[256];
    describe(c, name, sizeof name);
    problem plain = {0}, lowered = {0};
    make(&plain, c, true);
    float *reference = compute_graph(&plain, plain.graph);
    make(&lowered, c, false);
    pd_lowered *handle;
    pd_error err = {0};
    const pd_status status = pd_lower(lowering, lowered.graph, params(), &handle, &err);
    if (status != PD_OK) print_error("%s: %s\n", name, err.message);
    assert_int_equal(status, PD_OK);
    if (pd_lowered_count(handle) != 1) print_error("not lowered: %s\n", name);
    assert_int_equal(pd_lowered_count(handle), 1);
    float *result = compute_graph(&lowered, pd_lowered_graph(handle));
    assert_int_equal(pd_lowered_check(handle, &err), PD_OK);
    const double error = relative_error(result, reference, ggml_nelements(lowered.result));
    if (!(error <= tolerance)) print_error("%s: error %.3g, allowed %.3g\n", name, error, tolerance);
    assert_true(error <= tolerance);
    // Once more: nothing of the first run may be left.
    float *again = compute_graph(&lowered, pd_lowered_graph(handle));
    assert_memory_equal(again, result, ggml_nbytes(lowered.result));
    pd_lowered_free(handle);
    free(again);
    free(result);
    free(reference);
    free_problem(&lowered);
    free_problem(&plain);
}

// ---- the cases ---------------------------------------------------------------------------------------------

// int8 is made in sixteen bits where the CPU is better at that.
static double tolerance_of(const pd_lowering *lowering, size_t compute) {
    const bool int16 = strncmp(pd_lowering_description(lowering), "int16", 5) == 0;
    return int16 ? INT16_TOLERANCE : computes[compute].tolerance;
}

// Packed weights are found by where they lie, which one case may share with the next: each has a lowering of
// its own.
static void run_cases(const product_case *cases, size_t n) {
    for (size_t i = 0; i < sizeof computes / sizeof *computes; i++) {
        for (size_t j = 0; j < n; j++) {
            pd_lowering *lowering = create(i);
            if (!lowering) break; // not on this CPU: main says so
            run_case(lowering, &cases[j], tolerance_of(lowering, i));
            pd_lowering_free(lowering);
        }
    }
}

static product_case simple(enum ggml_type type, int64_t m, int64_t n, int64_t k) {
    return (product_case){GGML_OP_MUL_MAT, type, m, n, k, 1, 1, 1, 1, PLAIN, PLAIN, false};
}

static void shapes(void **state) {
    (void)state;
    static const int64_t sizes[][3] = {
        {1, 1, 1},       {1, 300, 64},   {2, 1, 5},       {7, 13, 1},      {33, 65, 129},
        {64, 256, 64},   {128, 512, 96}, {129, 257, 63},  {130, 256, 300}, {255, 31, 1000},
        {257, 768, 256}, {641, 100, 40}, {16, 300, 4097}, {300, 1, 7},     {3, 40, 5000},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        product_case cases[2];
        cases[0] = cases[1] = simple(GGML_TYPE_F32, sizes[i][0], sizes[i][1], sizes[i][2]);
        cases[1].type = GGML_TYPE_F16;
        run_cases(cases, 2);
    }
}

// Every number is as large as its scale allows, and every product has the same sign: sums are as large as
// they can be.
static void largest_sums(void **state) {
    (void)state;
    const product_case cases[] = {simple(GGML_TYPE_F32, 13, 40, 256), simple(GGML_TYPE_F32, 7, 300, 11008)};
    all_alike = true;
    run_cases(cases, sizeof cases / sizeof *cases);
    all_alike = false;
}

// Channels that the others would drown in, were they rounded together: the errors would be 0.034, 0.017 and
// 0.023 (the turn mixes no numbers of an odd row, and but eight at a time of 1,000), where the weights'
// rounding alone gives 0.008.
static void outliers(void **state) {
    (void)state;
    const product_case cases[] = {
        simple(GGML_TYPE_F32, 130, 530, 577),
        simple(GGML_TYPE_F16, 300, 300, 1000),
        {GGML_OP_MUL_MAT, GGML_TYPE_F32, 33, 300, 257, 3, 2, 3, 2, PLAIN, PLAIN, false},
    };
    outlier_channels = 8;
    for (size_t i = 0; i < sizeof computes / sizeof *computes; i++) {
        for (size_t j = 0; j < sizeof cases / sizeof *cases; j++) {
            pd_lowering *lowering = create(i);
            if (!lowering) break;
            const double tolerance = tolerance_of(lowering, i);
            run_case(lowering, &cases[j], tolerance < 1.5e-2 ? tolerance : 1.5e-2);
            pd_lowering_free(lowering);
        }
    }
    outlier_channels = 0;
}

// What is no number shows in its row, and in no other, whether its channel is an outlier's (the first is one)
// or not.
static void rows_that_are_no_numbers(void **state) {
    (void)state;
    const product_case c = simple(GGML_TYPE_F32, 64, 300, 256);
    for (size_t i = 0; i < sizeof computes / sizeof *computes; i++) {
        pd_lowering *lowering = create(i);
        if (!lowering) continue;
        problem p = {0};
        make(&p, &c, false);
        pd_lowered *handle;
        pd_error err;
        assert_int_equal(pd_lower(lowering, p.graph, params(), &handle, &err), PD_OK);
        free(compute_graph(&p, pd_lowered_graph(handle))); // fills the source
        float *source = p.source->data;
        for (int64_t r = 0; r < c.m; r++)
            source[r * c.k] *= 50.0F;
        source[3 * c.k] = NAN;
        source[9 * c.k + 100] = NAN;
        source[20 * c.k] = INFINITY;
        source[41 * c.k + 100] = -INFINITY;
        float *result = compute_graph(&p, pd_lowered_graph(handle));
        for (int64_t r = 0; r < c.m; r++) {
            const bool strange = r == 3 || r == 9 || r == 20 || r == 41;
            for (int64_t j = 0; j < c.n; j++)
                assert_true(isfinite(result[r * c.n + j]) == !strange);
        }
        free(result);
        pd_lowered_free(handle);
        free_problem(&p);
        pd_lowering_free(lowering);
    }
}

static void weight_types(void **state) {
    (void)state;
    for (int type = 0; type < GGML_TYPE_COUNT; type++) {
        const struct ggml_type_traits *traits = ggml_get_type_traits((enum ggml_type)type);
        const bool is_float = type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
        if (!is_float && !(traits->is_quantized && traits->to_float)) continue;
        if (type == GGML_TYPE_Q8_1 || type == GGML_TYPE_Q8_K) continue; // ggml's own scratch types
        if (traits->blck_size == 0 || !traits->type_name) continue;     // retired
        const product_case cases[] = {
            simple((enum ggml_type)type, 150, 265, 512),
            {GGML_OP_MUL_MAT, (enum ggml_type)type, 600, 37, 256, 1, 1, 1, 1, PLAIN, PADDED, true},
        };
        run_cases(cases, sizeof cases / sizeof *cases);
    }
}

static void views_and_batches(void **state) {
    (void)state;
    const product_case cases[] = {
        {GGML_OP_MUL_MAT, GGML_TYPE_F32, 40, 50, 60, 3, 2, 1, 1, PLAIN, PLAIN, true},
        {GGML_OP_MUL_MAT, GGML_TYPE_F32, 40, 50, 60, 8, 2, 4, 2, PLAIN, PLAIN, true},
        {GGML_OP_MUL_MAT, GGML_TYPE_F16, 77, 300, 64, 32, 1, 8, 1, PERMUTED, PERMUTED, true},
        {GGML_OP_MUL_MAT, GGML_TYPE_BF16, 77, 300, 64, 4, 1, 2, 1, PERMUTED, PERMUTED, true},
        {GGML_OP_MUL_MAT, GGML_TYPE_F32, 129, 129, 65, 6, 1, 3, 1, PERMUTED, PADDED, true},
        {GGML_OP_MUL_MAT, GGML_TYPE_F32, 33, 300, 65, 1, 1, 1, 1, PADDED, PADDED, false},
        {GGML_OP_MUL_MAT, GGML_TYPE_Q4_0, 33, 300, 64, 2, 1, 2, 1, PADDED, PADDED, false},
        {GGML_OP_MUL_MAT, GGML_TYPE_Q8_0, 33, 300, 64, 4, 1, 2, 1, PLAIN, PADDED, false},
    };
    run_cases(cases, sizeof cases / sizeof *cases);
}

// What ggml's backward pass is made of.
static void outer_products(void **state) {
    (void)state;
    const product_case cases[] = {
        {GGML_OP_OUT_PROD, GGML_TYPE_F32, 1, 1, 1, 1, 1, 1, 1, PLAIN, PLAIN, true},
        {GGML_OP_OUT_PROD, GGML_TYPE_F32, 70, 300, 33, 1, 1, 1, 1, PLAIN, PLAIN, true},
        {GGML_OP_OUT_PROD, GGML_TYPE_F32, 300, 70, 170, 1, 1, 1, 1, PLAIN, TRANSPOSED, true},
        {GGML_OP_OUT_PROD, GGML_TYPE_F32, 129, 257, 63, 4, 3, 2, 1, PLAIN, PLAIN, true},
        {GGML_OP_OUT_PROD, GGML_TYPE_F32, 65, 64, 63, 8, 1, 4, 1, PLAIN, TRANSPOSED, true},
        {GGML_OP_OUT_PROD, GGML_TYPE_F32, 600, 200, 100, 1, 1, 1, 1, PADDED, PADDED, true},
        {GGML_OP_OUT_PROD, GGML_TYPE_Q4_0, 100, 320, 40, 1, 1, 1, 1, PLAIN, PLAIN, false},
        {GGML_OP_OUT_PROD, GGML_TYPE_Q4_K, 100, 512, 40, 1, 1, 1, 1, PLAIN, TRANSPOSED, true},
    };
    run_cases(cases, sizeof cases / sizeof *cases);
}

// A gradient's sum: sum += outer product, in place, as the backward pass adds it.
static void run_sum(pd_lowering *lowering, int64_t m, int64_t n, int64_t k, bool reshaped,
                    bool read_elsewhere, double tolerance) {
    problem p = {0};
    p.ctx = ggml_init((struct ggml_init_params){.mem_size = 1 << 20, .no_alloc = true});
    struct ggml_tensor *sum = ggml_new_tensor_2d(p.ctx, GGML_TYPE_F32, n, m),
                       *w = ggml_new_tensor_2d(p.ctx, GGML_TYPE_F32, n, k),
                       *source = ggml_new_tensor_2d(p.ctx, GGML_TYPE_F32, m, k);
    p.weights_buffer = ggml_backend_alloc_ctx_tensors(p.ctx, backend.cpu);
    assert_non_null(p.weights_buffer);
    fill(sum, 1);
    fill(w, 2);
    fill(source, 3);
    const int64_t size = m * n;
    double *expected = malloc((size_t)size * sizeof *expected);
    float *rounded = malloc((size_t)size * sizeof *rounded);
    assert_true(expected && rounded);
    const float *sums = sum->data, *ws = w->data, *sources = source->data;
    for (int64_t i = 0; i < size; i++) {
        expected[i] = sums[i];
        for (int64_t j = 0; j < k; j++)
            expected[i] += 2.0 * (double)sources[j * m + i / n] * ws[j * n + i % n];
        rounded[i] = (float)expected[i];
    }
    p.graph = ggml_new_graph(p.ctx);
    struct ggml_tensor *total = sum, *copies[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) { // tied weights have two gradients
        struct ggml_tensor *product = ggml_out_prod(p.ctx, w, source);
        total = ggml_add_inplace(p.ctx, total, reshaped ? ggml_reshape(p.ctx, product, sum) : product);
        ggml_build_forward_expand(p.graph, total);
        copies[i] = read_elsewhere ? ggml_scale(p.ctx, product, 1.0F) : NULL;
        if (!copies[i]) continue;
        ggml_set_output(copies[i]);
        ggml_build_forward_expand(p.graph, copies[i]);
    }
    pd_lowered *handle;
    pd_error err;
    assert_int_equal(pd_lower(lowering, p.graph, params(), &handle, &err), PD_OK);
    assert_int_equal(pd_lowered_count(handle), 2);
    const int n_nodes = ggml_graph_n_nodes(pd_lowered_graph(handle));
    bool fused = true;
    for (int i = 0; i < n_nodes; i++)
        fused &= ggml_graph_node(pd_lowered_graph(handle), i)->op != GGML_OP_ADD;
    assert_true(fused == !read_elsewhere);
    p.allocator = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend.cpu));
    assert_true(ggml_gallocr_alloc_graph(p.allocator, pd_lowered_graph(handle)));
    assert_int_equal(ggml_backend_graph_compute(backend.cpu, pd_lowered_graph(handle)), GGML_STATUS_SUCCESS);
    assert_int_equal(pd_lowered_check(handle, &err), PD_OK);
    assert_true(relative_error(sum->data, rounded, size) <= tolerance);
    if (read_elsewhere) assert_memory_equal(copies[0]->data, copies[1]->data, ggml_nbytes(copies[0]));
    pd_lowered_free(handle);
    free(expected);
    free(rounded);
    free_problem(&p);
}

static void sums_take_products_in_place(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof computes / sizeof *computes; i++) {
        pd_lowering *lowering = create(i);
        if (!lowering) continue;
        const int64_t shapes_of[][3] = {{1, 1, 1}, {70, 300, 33}, {33, 1, 64}, {1, 70, 20}, {600, 1024, 130}};
        for (size_t j = 0; j < sizeof shapes_of / sizeof *shapes_of; j++) {
            const int64_t *s = shapes_of[j];
            const double tolerance = tolerance_of(lowering, i);
            run_sum(lowering, s[0], s[1], s[2], false, false, tolerance);
            run_sum(lowering, s[0], s[1], s[2], true, false, tolerance);
            run_sum(lowering, s[0], s[1], s[2], true, true, tolerance);
        }
        pd_lowering_free(lowering);
    }
}

// ---- an FFN ------------------------------------------------------------------------------------------------

// x + down(silu(gate(norm(x))) · up(norm(x))), whose inner steps may be read by something else too.
typedef struct {
    int64_t rows, width, inner;
    bool reads[3]; // the norm, the gated pair, the last product
} ffn_case;

typedef struct {
    problem p;
    struct ggml_tensor *read[3];
} ffn_problem;

static void make_ffn(ffn_problem *f, const ffn_case *c, bool as_f32) {
    problem *p = &f->p;
    p->ctx = ggml_init((struct ggml_init_params){.mem_size = 1 << 20, .no_alloc = true});
    struct ggml_tensor *w[3] = {ggml_new_tensor_2d(p->ctx, GGML_TYPE_Q8_0, c->width, c->inner),
                                ggml_new_tensor_2d(p->ctx, GGML_TYPE_Q8_0, c->width, c->inner),
                                ggml_new_tensor_2d(p->ctx, GGML_TYPE_Q8_0, c->inner, c->width)};
    struct ggml_tensor *norm = ggml_new_tensor_1d(p->ctx, GGML_TYPE_F32, c->width);
    p->weights_buffer = ggml_backend_alloc_ctx_tensors(p->ctx, backend.cpu);
    assert_non_null(p->weights_buffer);
    ggml_backend_buffer_set_usage(p->weights_buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    fill(norm, 7);
    for (int i = 0; i < 3; i++) {
        fill(w[i], 3 + (uint64_t)i);
        if (as_f32) w[i] = ggml_cast(p->ctx, w[i], GGML_TYPE_F32);
    }
    p->source = ggml_new_tensor_2d(p->ctx, GGML_TYPE_F32, c->width, c->rows);
    ggml_set_input(p->source);
    ggml_set_output(p->source);
    struct ggml_tensor *normed = ggml_mul(p->ctx, ggml_rms_norm(p->ctx, p->source, 1e-5F), norm);
    struct ggml_tensor *gate = ggml_mul_mat(p->ctx, w[0], normed), *up = ggml_mul_mat(p->ctx, w[1], normed);
    struct ggml_tensor *inner = ggml_swiglu_split(p->ctx, gate, up);
    struct ggml_tensor *down = ggml_mul_mat(p->ctx, w[2], inner);
    p->result = ggml_add(p->ctx, p->source, down);
    p->graph = ggml_new_graph(p->ctx);
    ggml_build_forward_expand(p->graph, p->result);
    struct ggml_tensor *const steps[3] = {normed, inner, down};
    for (int i = 0; i < 3; i++) {
        if (!c->reads[i]) continue;
        f->read[i] = ggml_scale(p->ctx, steps[i], 1.0F);
        ggml_set_output(f->read[i]);
        ggml_build_forward_expand(p->graph, f->read[i]);
    }
}

static int count_nodes(struct ggml_cgraph *graph, enum ggml_op op) {
    int n = 0;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++)
        n += ggml_graph_node(graph, i)->op == op;
    return n;
}

static void run_ffn(pd_lowering *lowering, const ffn_case *c, double tolerance) {
    ffn_problem plain = {0}, lowered = {0};
    make_ffn(&plain, c, true);
    float *reference = compute_graph(&plain.p, plain.p.graph);
    make_ffn(&lowered, c, false);
    pd_lowered *handle;
    pd_error err = {0};
    assert_int_equal(pd_lower(lowering, lowered.p.graph, params(), &handle, &err), PD_OK);
    struct ggml_cgraph *graph = pd_lowered_graph(handle);
    // f32 products read the norm itself, and their weights are not packed.
    const bool f32 = strncmp(pd_lowering_description(lowering), "f32", 3) == 0;
    assert_int_equal(count_nodes(graph, GGML_OP_MUL_MAT), 0);
    assert_int_equal(count_nodes(graph, GGML_OP_RMS_NORM), f32 || c->reads[0] ? 1 : 0);
    assert_int_equal(count_nodes(graph, GGML_OP_GLU), f32 ? 1 : 0);
    assert_int_equal(count_nodes(graph, GGML_OP_ADD), c->reads[2] ? 1 : 0);
    for (int run = 0; run < 2; run++) { // nothing of the first run may be left
        float *result = compute_graph(&lowered.p, graph);
        assert_int_equal(pd_lowered_check(handle, &err), PD_OK);
        const double error = relative_error(result, reference, ggml_nelements(lowered.p.result));
        if (!(error <= tolerance)) {
            print_error("%s: FFN of %d rows, %d, %d: error %.3g, allowed %.3g\n",
                        pd_lowering_description(lowering), (int)c->rows, (int)c->width, (int)c->inner, error,
                        tolerance);
        }
        assert_true(error <= tolerance);
        for (int i = 0; i < 3; i++) {
            if (!c->reads[i]) continue;
            assert_true(relative_error(lowered.read[i]->data, plain.read[i]->data,
                                       ggml_nelements(plain.read[i])) <= tolerance);
        }
        free(result);
    }
    pd_lowered_free(handle);
    free(reference);
    free_problem(&lowered.p);
    free_problem(&plain.p);
}

static void ffn_steps_are_fused(void **state) {
    (void)state;
    static const ffn_case cases[] = {
        {1, 32, 64, {false, false, false}},     {64, 96, 288, {false, false, false}},
        {100, 256, 544, {false, false, false}}, {350, 512, 1376, {false, false, false}},
        {70, 128, 320, {true, false, false}},   {70, 128, 320, {false, true, false}},
        {70, 128, 320, {false, false, true}},   {70, 128, 320, {true, true, true}},
    };
    for (size_t i = 0; i < sizeof computes / sizeof *computes; i++) {
        for (size_t j = 0; j < sizeof cases / sizeof *cases; j++) {
            pd_lowering *lowering = create(i);
            if (!lowering) break;
            // Each of the two products in a row may be off by as much.
            run_ffn(lowering, &cases[j], 2 * tolerance_of(lowering, i));
            pd_lowering_free(lowering);
        }
    }
}

// ---- rotary position embedding -----------------------------------------------------------------------------

typedef struct {
    int64_t head_dim, n_dims, n_heads, n_rows;
    int mode;
    bool factors, padded; // heads lie apart, as in a projection of more than them
    float extrapolation;  // YaRN, which is ggml's
} rope_case;

static void make_rope(problem *p, const rope_case *c) {
    p->ctx = ggml_init((struct ggml_init_params){.mem_size = 1 << 20, .no_alloc = true});
    struct ggml_tensor *positions = ggml_new_tensor_1d(p->ctx, GGML_TYPE_I32, c->n_rows);
    struct ggml_tensor *factors = ggml_new_tensor_1d(p->ctx, GGML_TYPE_F32, c->n_dims / 2);
    p->weights_buffer = ggml_backend_alloc_ctx_tensors(p->ctx, backend.cpu);
    assert_non_null(p->weights_buffer);
    for (int64_t i = 0; i < c->n_rows; i++)
        ((int32_t *)positions->data)[i] = (int32_t)(i * 7 % 4096);
    for (int64_t i = 0; i < c->n_dims / 2; i++)
        ((float *)factors->data)[i] = 1.0F + (float)i / 8.0F;
    const view_kind view = c->padded ? PADDED : PLAIN;
    p->source = matrix(p->ctx, GGML_TYPE_F32, c->head_dim, c->n_heads, c->n_rows, 1, view);
    ggml_set_input(owner(p->source));
    ggml_set_output(owner(p->source));
    p->result = ggml_rope_ext(p->ctx, p->source, positions, c->factors ? factors : NULL, (int)c->n_dims,
                              c->mode, 4096, 10000.0F, 0.5F, c->extrapolation, 1.1F, 32.0F, 1.0F);
    p->graph = ggml_new_graph(p->ctx);
    ggml_build_forward_expand(p->graph, p->result);
}

static void run_rope(pd_lowering *lowering, const rope_case *c) {
    problem plain = {0}, lowered = {0};
    make_rope(&plain, c);
    float *reference = compute_graph(&plain, plain.graph);
    make_rope(&lowered, c);
    pd_lowered *handle;
    pd_error err = {0};
    assert_int_equal(pd_lower(lowering, lowered.graph, params(), &handle, &err), PD_OK);
    assert_int_equal(pd_lowered_count(handle), c->extrapolation > 0.0F ? 0 : 1);
    float *result = compute_graph(&lowered, pd_lowered_graph(handle));
    assert_true(relative_error(result, reference, ggml_nelements(lowered.result)) <= 1e-6);
    pd_lowered_free(handle);
    free(result);
    free(reference);
    free_problem(&lowered);
    free_problem(&plain);
}

static void ropes(void **state) {
    (void)state;
    static const rope_case cases[] = {
        {128, 128, 4, 50, GGML_ROPE_TYPE_NORMAL, false, false, 0.0F},
        {128, 128, 4, 50, GGML_ROPE_TYPE_NEOX, false, false, 0.0F},
        {96, 64, 3, 17, GGML_ROPE_TYPE_NORMAL, true, true, 0.0F},
        {96, 64, 3, 17, GGML_ROPE_TYPE_NEOX, true, true, 0.0F},
        {10, 6, 1, 1, GGML_ROPE_TYPE_NEOX, false, false, 0.0F},
        {6, 2, 5, 3, GGML_ROPE_TYPE_NORMAL, false, true, 0.0F},
        {64, 64, 2, 20, GGML_ROPE_TYPE_NORMAL, false, false, 1.0F},
    };
    pd_lowering *lowering = create(0);
    assert_non_null(lowering);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        run_rope(lowering, &cases[i]);
    pd_lowering_free(lowering);
}

// ---- memory ------------------------------------------------------------------------------------------------

static void note_line(pd_log_level level, const char *line, void *user) {
    if (level == PD_LOG_WARNING) snprintf(user, 512, "%s", line);
}

typedef struct {
    pd_status status;
    pd_error err;
    int32_t lowered;                    // nodes; -1 after an error
    double error;                       // of the result
    char warning[512], description[96]; // after it
} outcome;

// Computes a product whose packed weights have no room, twice: as two prompts of a session. There are to be
// no more than 1,000 bytes of them, or the mapped files take all there is.
static outcome lower_without_room(pd_compute_type compute, enum ggml_type weights, bool strict, bool mapped) {
    outcome o = {.lowered = -1};
    const product_case c = simple(weights, 64, 300, 256);
    const pd_lowering_params lowering_params = {.compute = compute,
                                                .strict = strict,
                                                .most_packed_bytes = mapped ? 0 : 1000,
                                                .mapped_bytes = mapped ? SIZE_MAX : 0,
                                                .log = note_line,
                                                .log_user = o.warning};
    pd_lowering *lowering;
    assert_int_equal(pd_lowering_create(&lowering_params, &lowering, &o.err), PD_OK);
    problem plain = {0};
    make(&plain, &c, true);
    float *reference = compute_graph(&plain, plain.graph);
    for (int round = 0; round < 2; round++) {
        problem p = {0};
        make(&p, &c, false);
        pd_lowered *handle;
        o.status = pd_lower(lowering, p.graph, params(), &handle, &o.err);
        if (handle) {
            const int32_t lowered = pd_lowered_count(handle);
            assert_true(round == 0 || lowered == o.lowered);
            o.lowered = lowered;
            float *result = compute_graph(&p, pd_lowered_graph(handle));
            assert_int_equal(pd_lowered_check(handle, &o.err), PD_OK);
            o.error = relative_error(result, reference, ggml_nelements(p.result));
            free(result);
        }
        assert_true(pd_lowering_packed_bytes(lowering) == 0);
        pd_lowered_free(handle);
        free_problem(&p);
    }
    snprintf(o.description, sizeof o.description, "%s", pd_lowering_description(lowering));
    free(reference);
    free_problem(&plain);
    pd_lowering_free(lowering);
    return o;
}

static void expect_no_room(bool mapped) {
    // What is asked for by name, strictly: an error that says how much.
    outcome o = lower_without_room(PD_COMPUTE_INT8, GGML_TYPE_F16, true, mapped);
    assert_int_equal(o.status, PD_ERR_MEMORY);
    assert_non_null(strstr(o.err.message, "packed weights would take"));
    assert_string_equal(o.warning, "");
    assert_int_equal(strncmp(o.description, "int", 3), 0);
    // Else a warning, and floats take the integers' place: f32, or bf16 where it is fast.
    o = lower_without_room(PD_COMPUTE_INT8, GGML_TYPE_F16, false, mapped);
    assert_int_equal(o.status, PD_OK);
    assert_int_equal(o.lowered, 1);
    assert_non_null(strstr(o.warning, "packed weights would take"));
    const bool f32 = strstr(o.warning, "converted to f32 as they are used") != NULL;
    assert_true(f32 || strstr(o.warning, "converted to bf16 as they are used"));
    assert_int_equal(strncmp(o.description, f32 ? "f32 (" : "bf16 (", f32 ? 5 : 6), 0);
    assert_true(o.error <= (f32 ? 1e-5 : 1e-2));
    // What picks for itself picks by memory too, however strict.
    for (int strict = 0; strict < 2; strict++) {
        o = lower_without_room(PD_COMPUTE_AUTO, GGML_TYPE_Q8_0, strict, mapped);
        assert_int_equal(o.status, PD_OK);
        assert_int_equal(o.lowered, 1);
        assert_int_equal(strncmp(o.description, f32 ? "f32 (" : "bf16 (", f32 ? 5 : 6), 0);
        assert_true(o.error <= (f32 ? 1e-5 : 1e-2));
    }
    // f32 packs nothing.
    o = lower_without_room(PD_COMPUTE_F32, GGML_TYPE_F16, true, mapped);
    assert_int_equal(o.status, PD_OK);
    assert_int_equal(o.lowered, 1);
    assert_true(o.error <= 1e-5);
    assert_string_equal(o.warning, "");
}

static void no_room_for_packed_weights(void **state) {
    (void)state;
    expect_no_room(false);
}

static void no_room_beside_mapped_files(void **state) {
    (void)state;
    expect_no_room(true);
}

// The linker brings packing's calls of pd_aligned_alloc here (--wrap).
void *__real_pd_aligned_alloc(size_t bytes);
void *__wrap_pd_aligned_alloc(size_t bytes);
static bool out_of_memory;

void *__wrap_pd_aligned_alloc(size_t bytes) {
    return out_of_memory ? NULL : __real_pd_aligned_alloc(bytes);
}

// Lowers and computes a product of weights that are kept in *p.
static pd_status lower_another(pd_lowering *lowering, problem *p, double tolerance, pd_error *err) {
    const product_case c = simple(GGML_TYPE_F16, 64, 300, 256);
    problem plain = {0};
    make(&plain, &c, true);
    make(p, &c, false);
    pd_lowered *handle;
    const pd_status status = pd_lower(lowering, p->graph, params(), &handle, err);
    if (status == PD_OK) {
        assert_int_equal(pd_lowered_count(handle), 1);
        float *reference = compute_graph(&plain, plain.graph),
              *result = compute_graph(p, pd_lowered_graph(handle));
        assert_int_equal(pd_lowered_check(handle, err), PD_OK);
        assert_true(relative_error(result, reference, ggml_nelements(p->result)) <= tolerance);
        free(reference);
        free(result);
    }
    pd_lowered_free(handle);
    free_problem(&plain);
    return status;
}

// An allocation fails although there seemed to be room, with some weights packed already.
static void packing_runs_out_of_memory(void **state) {
    (void)state;
    for (int strict = 0; strict < 2; strict++) {
        char warning[512] = "";
        const pd_lowering_params lowering_params = {.compute = PD_COMPUTE_INT8,
                                                    .strict = strict,
                                                    .most_packed_bytes = 1 << 30,
                                                    .log = note_line,
                                                    .log_user = warning};
        pd_lowering *lowering;
        pd_error err = {0};
        assert_int_equal(pd_lowering_create(&lowering_params, &lowering, &err), PD_OK);
        problem problems[3] = {0};
        assert_int_equal(lower_another(lowering, &problems[0], 3e-2, &err), PD_OK);
        const size_t packed = pd_lowering_packed_bytes(lowering);
        assert_true(packed > 0);
        assert_null(strstr(pd_lowering_description(lowering), "for packed weights"));
        out_of_memory = true;
        const pd_status status = lower_another(lowering, &problems[1], 1e-2, &err);
        out_of_memory = false;
        assert_int_equal(status, strict ? PD_ERR_MEMORY : PD_OK);
        assert_int_equal(pd_lowering_packed_bytes(lowering), packed);
        const char *said = strict ? err.message : warning;
        assert_non_null(strstr(said, "packed weights"));
        assert_true(strict == (strstr(pd_lowering_description(lowering), "for packed weights") == NULL));
        // The lowering goes on: what is packed stays in use, and only a strict one packs more.
        warning[0] = '\0';
        assert_int_equal(lower_another(lowering, &problems[2], 3e-2, &err), PD_OK);
        assert_true(strict == (pd_lowering_packed_bytes(lowering) > packed));
        assert_string_equal(warning, "");
        for (int i = 0; i < 3; i++)
            free_problem(&problems[i]);
        pd_lowering_free(lowering);
    }
}

// ---- no kernel ---------------------------------------------------------------------------------------------

typedef struct {
    int count;
    char last[512];
} warnings;

static void count_warnings(pd_log_level level, const char *line, void *user) {
    warnings *w = user;
    if (level != PD_LOG_WARNING) return;
    w->count++;
    snprintf(w->last, sizeof w->last, "%s", line);
}

static struct ggml_tensor *attention_of_quantised_keys(struct ggml_context *ctx, int64_t n_rows) {
    struct ggml_tensor *q = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 64, n_rows, 2),
                       *k = ggml_new_tensor_3d(ctx, GGML_TYPE_Q8_0, 64, 80, 2),
                       *v = ggml_new_tensor_3d(ctx, GGML_TYPE_Q8_0, 64, 80, 2);
    return ggml_flash_attn_ext(ctx, q, k, v, NULL, 0.125F, 0.0F, 0.0F);
}

// More tasks than are counted, of tensors that have no memory.
static struct ggml_tensor *product_of_too_many(struct ggml_context *ctx, int64_t n_rows) {
    const int64_t n_batches = (int64_t)1 << 16;
    return ggml_mul_mat(ctx, ggml_new_tensor_4d(ctx, GGML_TYPE_F32, 64, 64, n_batches, n_batches),
                        ggml_new_tensor_4d(ctx, GGML_TYPE_F32, 64, n_rows, n_batches, n_batches));
}

// Lowers a graph of two such nodes, twice.
static pd_status lower_unsupported(struct ggml_tensor *make_node(struct ggml_context *, int64_t),
                                   int64_t n_rows, bool strict, warnings *said, pd_error *err) {
    *said = (warnings){0};
    const pd_lowering_params lowering_params = {
        .compute = PD_COMPUTE_F32, .strict = strict, .log = count_warnings, .log_user = said};
    pd_lowering *lowering;
    assert_int_equal(pd_lowering_create(&lowering_params, &lowering, err), PD_OK);
    pd_status status = PD_OK;
    for (int round = 0; round < 2; round++) {
        struct ggml_context *ctx =
            ggml_init((struct ggml_init_params){.mem_size = 1 << 20, .no_alloc = true});
        struct ggml_cgraph *graph = ggml_new_graph(ctx);
        for (int i = 0; i < 2; i++)
            ggml_build_forward_expand(graph, make_node(ctx, n_rows));
        pd_lowered *handle;
        status = pd_lower(lowering, graph, params(), &handle, err);
        if (handle) assert_int_equal(pd_lowered_count(handle), 0);
        pd_lowered_free(handle);
        ggml_free(ctx);
    }
    pd_lowering_free(lowering);
    return status;
}

static void check_unsupported(struct ggml_tensor *make_node(struct ggml_context *, int64_t),
                              const char *expected) {
    warnings said;
    pd_error err = {0};
    assert_int_equal(lower_unsupported(make_node, 64, true, &said, &err), PD_ERR_UNSUPPORTED);
    assert_string_equal(err.message, expected);
    assert_int_equal(said.count, 0);
    assert_int_equal(lower_unsupported(make_node, 64, false, &said, &err), PD_OK);
    assert_int_equal(said.count, 1); // for all of them
    assert_int_equal(strncmp(said.last, expected, strlen(expected)), 0);
    assert_non_null(strstr(said.last, "left to ggml"));
    // Small ones are left to ggml on purpose.
    assert_int_equal(lower_unsupported(make_node, 3, true, &said, &err), PD_OK);
    assert_int_equal(lower_unsupported(make_node, 3, false, &said, &err), PD_OK);
    assert_int_equal(said.count, 0);
}

static void no_kernel(void **state) {
    (void)state;
    check_unsupported(attention_of_quantised_keys,
                      "attention: 80 keys of q8_0 and values of q8_0, expected f32, f16 or bf16");
    check_unsupported(product_of_too_many, "4294967296 products of 64 × 64 by 64 × 64 numbers: too many");
}

static int start(void **state) {
    (void)state;
    atomic_store(&cancel, false);
    if (pd_backend_create(pd_device_cpu(), N_THREADS, &cancel, &backend, NULL) != PD_OK) return -1;
    for (size_t i = 0; i < sizeof computes / sizeof *computes; i++) {
        pd_lowering *lowering = create(i);
        if (!lowering) print_message("%s: skipped, not on this CPU\n", computes[i].name);
        pd_lowering_free(lowering);
    }
    return 0;
}

static int stop(void **state) {
    (void)state;
    pd_backend_free(&backend);
    return 0;
}

int main(void) {
    if (getenv("PD_TEST_ONLY")) cmocka_set_test_filter(getenv("PD_TEST_ONLY")); // "shapes", …
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes),
        cmocka_unit_test(largest_sums),
        cmocka_unit_test(outliers),
        cmocka_unit_test(rows_that_are_no_numbers),
        cmocka_unit_test(weight_types),
        cmocka_unit_test(views_and_batches),
        cmocka_unit_test(outer_products),
        cmocka_unit_test(sums_take_products_in_place),
        cmocka_unit_test(ffn_steps_are_fused),
        cmocka_unit_test(ropes),
        cmocka_unit_test(no_room_for_packed_weights),
        cmocka_unit_test(no_room_beside_mapped_files),
        cmocka_unit_test(packing_runs_out_of_memory),
        cmocka_unit_test(no_kernel),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
