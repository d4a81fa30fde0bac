// The kernels for one row: products against ggml's own and against exact sums, attention against the formula
// in f64, and a whole answer of a quantised model against ggml's.
#include "engine/session.h"
#include "model/backend.h"
#include "model/synth.h"
#include "onerow/attention.h"
#include "onerow/lower.h"
#include "onerow/products.h"

#include <math.h>
#include <pyramiddrop.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h> // wants the above

#include "checks.h" // wants cmocka

static uint64_t random_state = 88172645463325252U;

static float random_number(void) { // −1 … 1
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (float)((double)(random_state >> 11) / 4503599627370496.0 - 1.0);
}

// A graph's context and what computes it.
typedef struct fixture {
    struct ggml_context *ctx;
    struct ggml_cgraph *graph;
    ggml_backend_buffer_t inputs;
    pd_backend backend;
    atomic_bool cancel;
} fixture;

static void start(fixture *f, int32_t n_threads) {
    memset(f, 0, sizeof *f);
    f->ctx = ggml_init((struct ggml_init_params){
        .mem_size = 64 * ggml_tensor_overhead() + ggml_graph_overhead_custom(64, false), .no_alloc = true});
    assert_non_null(f->ctx);
    f->graph = ggml_new_graph_custom(f->ctx, 64, false);
    assert_int_equal(pd_backend_create(pd_device_cpu(), n_threads, &f->cancel, &f->backend, NULL), PD_OK);
}

static void allocate_inputs(fixture *f) {
    f->inputs = ggml_backend_alloc_ctx_tensors(f->ctx, f->backend.cpu);
    assert_non_null(f->inputs);
    ggml_backend_buffer_set_usage(f->inputs, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
}

static void end(fixture *f) {
    ggml_backend_buffer_free(f->inputs);
    pd_backend_free(&f->backend);
    ggml_free(f->ctx);
}

// Computes `result`, lowered or by ggml, twice: a node must be ready for its next run. Gives how many nodes
// were lowered.
static int32_t compute(fixture *f, struct ggml_tensor *result, bool lower, float *values) {
    ggml_set_output(result);
    ggml_build_forward_expand(f->graph, result);
    struct ggml_cgraph *graph = f->graph;
    pd_onerow *lowered = NULL;
    if (lower) {
        assert_int_equal(pd_onerow_lower(graph, f->backend.n_threads, &lowered, NULL), PD_OK);
        graph = pd_onerow_graph(lowered);
    }
    ggml_backend_sched_t scheduler;
    assert_int_equal(pd_backend_scheduler(&f->backend, 256, &scheduler, NULL), PD_OK);
    assert_int_equal(pd_backend_allocate(&f->backend, &scheduler, graph, "a test", NULL), PD_OK);
    for (int run = 0; run < 2; run++) {
        assert_int_equal(pd_compute(&f->backend, scheduler, graph, NULL, NULL), PD_OK);
        float *again = malloc(ggml_nbytes(result));
        assert_non_null(again);
        ggml_backend_tensor_get(result, again, 0, ggml_nbytes(result));
        if (run == 0) memcpy(values, again, ggml_nbytes(result));
        assert_memory_equal(values, again, ggml_nbytes(result));
        free(again);
    }
    ggml_backend_sched_free(scheduler);
    const int32_t count = lowered ? pd_onerow_count(lowered) : 0;
    pd_onerow_free(lowered);
    return count;
}

// ---- products ---------------------------------------------------------------------------------------------

typedef struct matrix {
    enum ggml_type type;
    int64_t n, n_rows;
    float *row; // [n]
    void *weights;
} matrix;

static matrix make_matrix(enum ggml_type type, int64_t n, int64_t n_rows) {
    matrix m = {.type = type, .n = n, .n_rows = n_rows};
    const size_t count = (size_t)(n * n_rows);
    float *numbers = malloc(count * sizeof *numbers);
    m.row = malloc((size_t)n * sizeof *m.row);
    m.weights = malloc(ggml_row_size(type, n) * (size_t)n_rows);
    assert_true(numbers && m.row && m.weights);
    for (size_t i = 0; i < count; i++)
        numbers[i] = random_number() * random_number();
    for (int64_t i = 0; i < n; i++)
        m.row[i] = random_number() * (i % 97 == 5 ? 20.0F : 1.0F);
    if (n > 256) memset(m.row + n - 256, 0, 256 * sizeof *m.row); // a block of nothing
    ggml_quantize_chunk(type, numbers, m.weights, 0, n_rows, n, NULL);
    free(numbers);
    return m;
}

static void free_matrix(matrix *m) {
    free(m->row);
    free(m->weights);
}

static int32_t multiply(const matrix *m, int32_t n_threads, bool lower, float *values) {
    fixture f;
    start(&f, n_threads);
    struct ggml_tensor *weights = ggml_new_tensor_2d(f.ctx, m->type, m->n, m->n_rows);
    struct ggml_tensor *row = ggml_new_tensor_1d(f.ctx, GGML_TYPE_F32, m->n);
    allocate_inputs(&f);
    ggml_backend_tensor_set(weights, m->weights, 0, ggml_nbytes(weights));
    ggml_backend_tensor_set(row, m->row, 0, ggml_nbytes(row));
    const int32_t count = compute(&f, ggml_mul_mat(f.ctx, weights, row), lower, values);
    end(&f);
    return count;
}

static void check_product(enum ggml_type type, int64_t n, int64_t n_rows) {
    matrix m = make_matrix(type, n, n_rows);
    const size_t bytes = (size_t)n_rows * sizeof(float);
    float *ours = malloc(bytes), *again = malloc(bytes), *ggml = malloc(bytes);
    assert_true(ours && again && ggml);
    assert_int_equal(multiply(&m, 1, false, ggml), 0);
    assert_int_equal(multiply(&m, 1, true, ours), 1);
    double largest = 0.0;
    for (int64_t i = 0; i < n_rows; i++)
        largest = fmax(largest, fabs((double)ggml[i]));
    for (int64_t i = 0; i < n_rows; i++)
        assert_true(fabs((double)ours[i] - (double)ggml[i]) <= 2e-6 * largest);
    for (int32_t n_threads = 2; n_threads <= 3; n_threads++) {
        assert_int_equal(multiply(&m, n_threads, true, again), 1);
        assert_memory_equal(ours, again, bytes);
    }
    free(ours);
    free(again);
    free(ggml);
    free_matrix(&m);
}

static void test_products(void **state) {
    (void)state;
    static const enum ggml_type types[] = {GGML_TYPE_Q4_K, GGML_TYPE_Q6_K};
    static const int64_t widths[] = {256, 768, 4096, 11008}, heights[] = {1, 2, 3, 4, 5, 7, 8, 31, 33, 130};
    if (!pd_onerow_available()) skip();
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
            for (size_t j = 0; j < sizeof heights / sizeof *heights; j++)
                check_product(types[t], widths[i], heights[j]);
        }
    }
}

// Every bit pattern of scales and weights, not only those that a quantiser makes: against sums in f64 of the
// weights as ggml reads them.
static void test_any_bits(void **state) {
    (void)state;
    static const enum ggml_type types[] = {GGML_TYPE_Q4_K, GGML_TYPE_Q6_K};
    if (!pd_onerow_available()) skip();
    enum { N = 512, ROWS = 37 };
    for (size_t t = 0; t < 2; t++) {
        matrix m = make_matrix(types[t], N, ROWS);
        const size_t row_bytes = ggml_row_size(types[t], N), block = row_bytes / 2;
        uint8_t *bytes = m.weights;
        for (size_t i = 0; i < row_bytes * ROWS; i++)
            bytes[i] = (uint8_t)(random_number() * 127.0F + 128.0F);
        for (size_t b = 0; b < 2 * (size_t)ROWS; b++) { // but finite scales
            const uint16_t scale = 0x2c01, minimum = 0xa803;
            memcpy(bytes + b * block + (types[t] == GGML_TYPE_Q4_K ? 0 : 208), &scale, 2);
            if (types[t] == GGML_TYPE_Q4_K) memcpy(bytes + b * block + 2, &minimum, 2);
        }
        for (int i = 0; i < N; i++) // eight bits hold these exactly
            m.row[i] = (float)(i * 37 % 255 - 127);
        m.row[0] = m.row[256] = 127.0F;
        float ours[ROWS], weights[N];
        assert_int_equal(multiply(&m, 2, true, ours), 1);
        for (size_t r = 0; r < ROWS; r++) {
            ggml_get_type_traits(types[t])->to_float(bytes + r * row_bytes, weights, N);
            double sum = 0.0, size = 0.0;
            for (int i = 0; i < N; i++) {
                sum += (double)weights[i] * (double)m.row[i];
                size += fabs((double)weights[i] * (double)m.row[i]);
            }
            assert_true(fabs(sum - (double)ours[r]) <= 1e-6 * size);
        }
        free_matrix(&m);
    }
}

// Several rows, other types and weights of several planes stay with ggml.
static void test_left_alone(void **state) {
    (void)state;
    if (!pd_onerow_available()) skip();
    matrix q8 = make_matrix(GGML_TYPE_Q8_0, 256, 8);
    float values[64];
    assert_int_equal(multiply(&q8, 1, true, values), 0);
    free_matrix(&q8);
    fixture f;
    start(&f, 1);
    struct ggml_tensor *weights = ggml_new_tensor_2d(f.ctx, GGML_TYPE_Q4_K, 256, 8);
    struct ggml_tensor *rows = ggml_new_tensor_2d(f.ctx, GGML_TYPE_F32, 256, 2);
    allocate_inputs(&f);
    ggml_backend_buffer_clear(f.inputs, 0);
    assert_int_equal(compute(&f, ggml_mul_mat(f.ctx, weights, rows), true, values), 0);
    end(&f);
}

// ---- attention --------------------------------------------------------------------------------------------

typedef enum mask_kind { NO_MASK, PREFIX, HOLES, BIAS } mask_kind;

typedef struct attention_case {
    int64_t head_dim, n_heads, n_kv_heads, n_cached;
    mask_kind mask;
    float spread;
} attention_case;

typedef struct attention_input {
    float *q;
    ggml_fp16_t *k, *v, *mask;
} attention_input;

static void make_attention(const attention_case *c, attention_input *in) {
    const size_t width = (size_t)(c->n_kv_heads * c->head_dim), n = (size_t)c->n_cached;
    in->q = malloc((size_t)(c->n_heads * c->head_dim) * sizeof *in->q);
    in->k = malloc(width * n * sizeof *in->k);
    in->v = malloc(width * n * sizeof *in->v);
    in->mask = malloc(n * sizeof *in->mask);
    assert_true(in->q && in->k && in->v && in->mask);
    for (int64_t i = 0; i < c->n_heads * c->head_dim; i++)
        in->q[i] = random_number() * c->spread;
    for (size_t i = 0; i < width * n; i++) {
        in->k[i] = ggml_fp32_to_fp16(random_number() * c->spread);
        in->v[i] = ggml_fp32_to_fp16(random_number());
    }
    const size_t seen = n - n / 3;
    for (size_t i = 0; i < n; i++) {
        const bool hidden = (c->mask == PREFIX && i >= seen) ||
                            (c->mask == HOLES && i > 0 && (i % 3 == 1 || i / 70 % 2 == 1));
        in->mask[i] = ggml_fp32_to_fp16(hidden ? -INFINITY : c->mask == BIAS ? random_number() * 3.0F : 0.0F);
    }
}

static void free_attention(attention_input *in) {
    free(in->q);
    free(in->k);
    free(in->v);
    free(in->mask);
}

static int32_t attend(const attention_case *c, const attention_input *in, int32_t n_threads, float *values) {
    fixture f;
    start(&f, n_threads);
    const int64_t width = c->n_kv_heads * c->head_dim;
    struct ggml_tensor *q = ggml_new_tensor_3d(f.ctx, GGML_TYPE_F32, c->head_dim, c->n_heads, 1);
    struct ggml_tensor *k = ggml_new_tensor_2d(f.ctx, GGML_TYPE_F16, width, c->n_cached);
    struct ggml_tensor *v = ggml_new_tensor_2d(f.ctx, GGML_TYPE_F16, width, c->n_cached);
    struct ggml_tensor *mask = ggml_new_tensor_2d(f.ctx, GGML_TYPE_F16, c->n_cached, 1);
    allocate_inputs(&f);
    ggml_backend_tensor_set(q, in->q, 0, ggml_nbytes(q));
    ggml_backend_tensor_set(k, in->k, 0, ggml_nbytes(k));
    ggml_backend_tensor_set(v, in->v, 0, ggml_nbytes(v));
    ggml_backend_tensor_set(mask, in->mask, 0, ggml_nbytes(mask));
    const size_t head = (size_t)c->head_dim * 2;
    struct ggml_tensor *keys =
        ggml_view_3d(f.ctx, k, c->head_dim, c->n_cached, c->n_kv_heads, k->nb[1], head, 0);
    struct ggml_tensor *content =
        ggml_view_3d(f.ctx, v, c->head_dim, c->n_cached, c->n_kv_heads, v->nb[1], head, 0);
    struct ggml_tensor *result =
        ggml_flash_attn_ext(f.ctx, ggml_permute(f.ctx, q, 0, 2, 1, 3), keys, content,
                            c->mask == NO_MASK ? NULL : mask, 1.0F / sqrtf((float)c->head_dim), 0.0F, 0.0F);
    const int32_t count = compute(&f, result, true, values);
    end(&f);
    return count;
}

static void formula(const attention_case *c, const attention_input *in, double *values) {
    const int64_t width = c->n_kv_heads * c->head_dim, group = c->n_heads / c->n_kv_heads;
    double *weights = malloc((size_t)c->n_cached * sizeof *weights);
    assert_non_null(weights);
    for (int64_t h = 0; h < c->n_heads; h++) {
        double largest = -INFINITY, sum = 0.0;
        for (int64_t row = 0; row < c->n_cached; row++) {
            double product = 0.0;
            for (int64_t d = 0; d < c->head_dim; d++) {
                product += (double)in->q[h * c->head_dim + d] *
                           (double)ggml_fp16_to_fp32(in->k[row * width + h / group * c->head_dim + d]);
            }
            weights[row] = product / sqrt((double)c->head_dim);
            if (c->mask != NO_MASK) weights[row] += (double)ggml_fp16_to_fp32(in->mask[row]);
            largest = fmax(largest, weights[row]);
        }
        memset(values + h * c->head_dim, 0, (size_t)c->head_dim * sizeof *values);
        for (int64_t row = 0; row < c->n_cached; row++) {
            const double weight = exp(weights[row] - largest);
            sum += weight;
            for (int64_t d = 0; d < c->head_dim; d++)
                values[h * c->head_dim + d] +=
                    weight * (double)ggml_fp16_to_fp32(in->v[row * width + h / group * c->head_dim + d]);
        }
        for (int64_t d = 0; d < c->head_dim; d++)
            values[h * c->head_dim + d] /= sum;
    }
    free(weights);
}

static void check_attention(const attention_case *c) {
    attention_input in;
    make_attention(c, &in);
    const size_t n = (size_t)(c->n_heads * c->head_dim);
    float *ours = malloc(n * sizeof *ours), *again = malloc(n * sizeof *again);
    double *expected = malloc(n * sizeof *expected);
    assert_true(ours && again && expected);
    formula(c, &in, expected);
    assert_int_equal(attend(c, &in, 1, ours), 1);
    for (size_t i = 0; i < n; i++)
        assert_true(fabs((double)ours[i] - expected[i]) <= 4e-6 * (1.0 + (double)c->spread));
    assert_int_equal(attend(c, &in, 3, again), 1);
    assert_memory_equal(ours, again, n * sizeof *ours);
    free(ours);
    free(again);
    free(expected);
    free_attention(&in);
}

static void test_attention(void **state) {
    (void)state;
    static const int64_t lengths[] = {1, 2, 7, 8, 64, 65, 300, 1023, 1024, 1300};
    static const int64_t heads[][3] = {{64, 4, 4}, {128, 8, 2},   {80, 40, 8},
                                       {8, 1, 1},  {128, 33, 33}, {16, 64, 2}};
    if (!pd_onerow_available()) skip();
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (size_t j = 0; j < sizeof heads / sizeof *heads; j++) {
            const mask_kind mask = (mask_kind)((i + j) % 4);
            check_attention(&(attention_case){heads[j][0], heads[j][1], heads[j][2], lengths[i], mask, 1.0F});
        }
    }
    // scores so far apart that most weights vanish
    check_attention(&(attention_case){64, 4, 4, 300, PREFIX, 30.0F});
}

// ---- a whole answer ---------------------------------------------------------------------------------------

enum { N_STEPS = 12, N_VOCAB = 2048 };

typedef struct answer {
    int32_t tokens[N_STEPS];
    float logits[N_STEPS][N_VOCAB]; // behind each token
} answer;

static void run_answer(const char *model_path, pd_compute_type compute_type, pd_attention attention,
                       answer *a) {
    pd_model_params model_params;
    pd_model_params_default(&model_params, sizeof model_params);
    model_params.model_path = model_path;
    model_params.compute = compute_type;
    pd_error err = {0};
    pd_model *model;
    if (pd_model_load(&model_params, &model, &err) != PD_OK) fail_msg("%s", err.message);
    pd_session_params params;
    pd_session_params_default(&params, sizeof params);
    params.n_threads = 2;
    params.attention = attention;
    params.ignore_eos = true;
    pd_session *session;
    if (pd_session_create(model, &params, &session, &err) != PD_OK) fail_msg("%s", err.message);
    int32_t tokens[40];
    for (int i = 0; i < 40; i++)
        tokens[i] = 300 + 7 * i;
    assert_int_equal(pd_session_prompt_tokens(session, tokens, 40, NULL, 0, &err), PD_OK);
    for (int step = 0; step < N_STEPS; step++) {
        const float *logits;
        size_t count;
        assert_int_equal(pd_session_next_token(session, &a->tokens[step], &err), PD_OK);
        assert_int_equal(pd_session_logits(session, &logits, &count, &err), PD_OK);
        assert_int_equal(count, N_VOCAB);
        memcpy(a->logits[step], logits, sizeof a->logits[step]);
    }
    const bool own_kernels = compute_type != PD_COMPUTE_GGML;
    assert_true(own_kernels == (session->step.lowered && pd_onerow_count(session->step.lowered) > 0));
    pd_session_free(session);
    pd_model_free(model);
}

// How far b is from a, against a's size, over the first n steps.
static double distance(const answer *a, const answer *b, int n) {
    double error = 0.0, size = 0.0;
    for (int step = 0; step < n; step++) {
        for (int i = 0; i < N_VOCAB; i++) {
            error += pow((double)a->logits[step][i] - (double)b->logits[step][i], 2.0);
            size += pow((double)a->logits[step][i], 2.0);
        }
    }
    return sqrt(error / size);
}

// Activations of eight bits make any two ways to compute differ: a number near the middle of two steps goes
// to the one or the other. Ours may differ from ggml's eager attention as ggml's own two kinds do from each
// other.
static void test_answer(void **state) {
    (void)state;
    if (!pd_onerow_available()) skip();
    char directory[256], model[300];
    assert_true(make_test_folder(directory, sizeof directory, "onerow"));
    snprintf(model, sizeof model, "%s/m.gguf", directory);
    pd_synth_params params = {.type = GGML_TYPE_Q4_K, .vision_type = GGML_TYPE_F16, .seed = 3};
    assert_int_equal(pd_geometry_find("tiny-gqa", &params.geometry, NULL), PD_OK);
    assert_int_equal(pd_synth_model(&params, model, NULL), PD_OK);
    answer *eager = calloc(3, sizeof *eager), *flash = eager + 1, *ours = eager + 2;
    assert_non_null(eager);
    run_answer(model, PD_COMPUTE_GGML, PD_ATTENTION_EAGER, eager);
    run_answer(model, PD_COMPUTE_GGML, PD_ATTENTION_FLASH, flash);
    run_answer(model, PD_COMPUTE_F32, PD_ATTENTION_FLASH, ours);
    int same = 0;
    while (same < N_STEPS && eager->tokens[same] == flash->tokens[same] &&
           eager->tokens[same] == ours->tokens[same])
        same++;
    assert_true(same >= 4);
    const double own = distance(eager, ours, same), usual = distance(eager, flash, same);
    print_message("             %d tokens; logits off by %.1e of their size, ggml's kinds by %.1e\n", same,
                  own, usual);
    assert_true(own < 1.5 * usual);
    free(eager);
    unlink(model);
    rmdir(directory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),  cmocka_unit_test(test_any_bits), cmocka_unit_test(test_left_alone),
        cmocka_unit_test(test_attention), cmocka_unit_test(test_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
