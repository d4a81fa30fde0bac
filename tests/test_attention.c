// Attention on oneDNN against the formula in f64, and against ggml's own kernels.
#include "model/attention.h"
#include "model/backend.h"
#include "onednn/attention.h"
#include "onednn/softmax.h"

#include <ggml-alloc.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // wants the above

#include "checks.h" // wants cmocka

enum { MAX_THREADS = 3 };

typedef enum mask_kind {
    NO_MASK,
    CAUSAL,    // row i sees keys up to i + n_kv - n_q
    SCATTERED, // each number hidden with probability 1/2; some rows and whole regions hidden too
    BIAS,      // something added everywhere
    ALL_ZERO,  // a mask that does nothing
    ALL_HIDDEN,
    PATCHWORK, // regions of 40 × 90 hidden, free or biased
} mask_kind;

typedef enum layout {
    PERMUTED,  // [dim, n_heads, n], as pd_attend's views
    BY_HEAD,   // [dim, n, n_heads]
    WITH_GAPS, // permuted, with unused numbers between heads and rows
} layout;

typedef struct attention_case {
    int64_t head_dim, value_dim, n_q, n_kv, n_heads, n_kv_heads;
    enum ggml_type key_type, value_type;
    mask_kind mask;
    enum ggml_type mask_type;
    layout layout;
    int n_threads;
    float spread; // of queries and keys
} attention_case;

// One tensor [dim, n, n_heads] of some type and layout.
typedef struct rows {
    enum ggml_type type;
    int64_t dim, n, n_heads;
    size_t row, head, bytes;
    char *data;
} rows;

static uint64_t random_state;

static void seed(uint64_t with) {
    random_state = with * 2654435761U + 88172645463325252U;
}

static double random_unit(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (double)(random_state >> 11) / 9007199254740992.0;
}

static rows make_rows(enum ggml_type type, int64_t dim, int64_t n, int64_t n_heads, layout how) {
    const size_t number = ggml_type_size(type), gap = how == WITH_GAPS ? 8 : 0;
    rows r = {.type = type, .dim = dim, .n = n, .n_heads = n_heads};
    const size_t width = (size_t)dim * number;
    r.row = how == BY_HEAD ? width : (width + gap) * (size_t)n_heads + gap;
    r.head = how == BY_HEAD ? width * (size_t)n : width + gap;
    r.bytes = (size_t)(n - 1) * r.row + (size_t)(n_heads - 1) * r.head + width; // nothing behind the last row
    r.data = malloc(r.bytes);
    assert_non_null(r.data);
    memset(r.data, 0xff, r.bytes); // NaN in the gaps
    return r;
}

static char *number_at(const rows *r, int64_t i, int64_t row, int64_t head) {
    return r->data + (size_t)row * r->row + (size_t)head * r->head + (size_t)i * ggml_type_size(r->type);
}

static double get(const rows *r, int64_t i, int64_t row, int64_t head) {
    const char *at = number_at(r, i, row, head);
    if (r->type == GGML_TYPE_F32) {
        float x;
        memcpy(&x, at, sizeof x);
        return (double)x;
    }
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    if (r->type == GGML_TYPE_F16) return (double)ggml_fp16_to_fp32(bits);
    return (double)ggml_bf16_to_fp32((ggml_bf16_t){bits});
}

static void set(const rows *r, int64_t i, int64_t row, int64_t head, float x) {
    char *at = number_at(r, i, row, head);
    if (r->type == GGML_TYPE_F32) {
        memcpy(at, &x, sizeof x);
        return;
    }
    const uint16_t bits = r->type == GGML_TYPE_F16 ? ggml_fp32_to_fp16(x) : ggml_fp32_to_bf16(x).bits;
    memcpy(at, &bits, sizeof bits);
}

static void fill(const rows *r, float spread) {
    for (int64_t head = 0; head < r->n_heads; head++) {
        for (int64_t row = 0; row < r->n; row++) {
            for (int64_t i = 0; i < r->dim; i++)
                set(r, i, row, head, (float)(2 * random_unit() - 1) * spread);
        }
    }
}

static float mask_value(const attention_case *c, int64_t row, int64_t key) {
    switch (c->mask) {
    case CAUSAL:
        return key <= row + c->n_kv - c->n_q ? 0.0F : -INFINITY;
    case SCATTERED:
        if (row % 7 == 3 || (row / 64 % 2 == 1 && key / 64 % 3 == 1)) return -INFINITY;
        return random_unit() < 0.5 ? -INFINITY : 0.0F;
    case BIAS:
        return (float)(4 * random_unit() - 2);
    case ALL_HIDDEN:
        return -INFINITY;
    case PATCHWORK: {
        const int64_t kind = (row / 40 * 3 + key / 90 * 5) % 4;
        return kind < 2 ? -INFINITY : kind == 2 ? 0.0F : 0.5F;
    }
    default:
        return 0.0F;
    }
}

// The mask as one "head" of n_q rows.
static rows make_mask(const attention_case *c) {
    rows mask = make_rows(c->mask_type, c->n_kv, c->n_q, 1, c->layout == WITH_GAPS ? WITH_GAPS : BY_HEAD);
    for (int64_t row = 0; row < c->n_q; row++) {
        for (int64_t key = 0; key < c->n_kv; key++)
            set(&mask, key, row, 0, mask_value(c, row, key));
    }
    return mask;
}

typedef struct inputs {
    rows q, k, v, mask, out;
    bool masked;
    float scale;
} inputs;

static inputs make_inputs(const attention_case *c) {
    inputs in = {.masked = c->mask != NO_MASK, .scale = 1.0F / sqrtf((float)c->head_dim)};
    in.q = make_rows(GGML_TYPE_F32, c->head_dim, c->n_q, c->n_heads, c->layout);
    in.k = make_rows(c->key_type, c->head_dim, c->n_kv, c->n_kv_heads, c->layout);
    in.v = make_rows(c->value_type, c->value_dim, c->n_kv, c->n_kv_heads, c->layout);
    in.out = make_rows(GGML_TYPE_F32, c->value_dim, c->n_q, c->n_heads, c->layout);
    fill(&in.q, c->spread);
    fill(&in.k, c->spread);
    fill(&in.v, 1.0F);
    if (in.masked) in.mask = make_mask(c);
    return in;
}

static void free_inputs(inputs *in) {
    free(in->q.data);
    free(in->k.data);
    free(in->v.data);
    free(in->out.data);
    free(in->mask.data);
}

// All of one head's numbers: [n, dim].
static double *head_numbers(const rows *r, int64_t head) {
    double *numbers = malloc((size_t)(r->n * r->dim) * sizeof *numbers);
    assert_non_null(numbers);
    for (int64_t row = 0; row < r->n; row++) {
        for (int64_t i = 0; i < r->dim; i++)
            numbers[row * r->dim + i] = get(r, i, row, head);
    }
    return numbers;
}

// out[d] = Σ_j e^(s_j - max) v_j[d] / Σ_j e^(s_j - max), s_j = scale · q·k_j + mask_j; 0 where all are
// hidden.
static void reference_row(const inputs *in, const double *q, const double *k, const double *v,
                          const double *mask, double *scores, double *out) {
    double most = -INFINITY, sum = 0;
    for (int64_t j = 0; j < in->k.n; j++) {
        double dot = 0;
        for (int64_t i = 0; i < in->k.dim; i++)
            dot += q[i] * k[j * in->k.dim + i];
        scores[j] = dot * (double)in->scale + (mask ? mask[j] : 0.0);
        if (scores[j] > most) most = scores[j];
    }
    for (int64_t i = 0; i < in->v.dim; i++)
        out[i] = 0;
    if (most == -(double)INFINITY) return;
    for (int64_t j = 0; j < in->k.n; j++) {
        const double share = exp(scores[j] - most);
        sum += share;
        for (int64_t i = 0; i < in->v.dim; i++)
            out[i] += share * v[j * in->v.dim + i];
    }
    for (int64_t i = 0; i < in->v.dim; i++)
        out[i] /= sum;
}

// |out - reference| / |reference|; |out| where the reference is all 0.
static double difference(const inputs *in) {
    double *scores = malloc((size_t)in->k.n * sizeof *scores);
    double *expected = malloc((size_t)in->v.dim * sizeof *expected);
    double *mask = in->masked ? head_numbers(&in->mask, 0) : NULL;
    assert_non_null(scores);
    assert_non_null(expected);
    double off = 0, norm = 0;
    for (int64_t head = 0; head < in->q.n_heads; head++) {
        const int64_t kv_head = head / (in->q.n_heads / in->k.n_heads);
        double *q = head_numbers(&in->q, head), *found = head_numbers(&in->out, head);
        double *k = head_numbers(&in->k, kv_head), *v = head_numbers(&in->v, kv_head);
        for (int64_t row = 0; row < in->q.n; row++) {
            reference_row(in, q + row * in->q.dim, k, v, mask ? mask + row * in->k.n : NULL, scores,
                          expected);
            for (int64_t i = 0; i < in->v.dim; i++) {
                const double error = found[row * in->v.dim + i] - expected[i];
                off += error * error;
                norm += expected[i] * expected[i];
            }
        }
        free(q);
        free(found);
        free(k);
        free(v);
    }
    free(mask);
    free(scores);
    free(expected);
    return norm > 0 ? sqrt(off / norm) : sqrt(off);
}

// A team of threads that attends.
typedef struct team {
    pd_attention_plan *plan;
    pd_worker workers[MAX_THREADS];
    int n_threads, repeats;
    pthread_barrier_t barrier;
    const inputs *in;
    void *packed;
} team;

typedef struct member {
    team *team;
    int ith;
} member;

static void *attend(void *user) {
    const member *m = user;
    team *t = m->team;
    const inputs *in = t->in;
    for (int i = 0; i < t->repeats; i++) {
        pd_attention_pack(t->plan, &t->workers[m->ith], in->k.data, in->v.data, in->mask.data, t->packed,
                          t->n_threads);
        pthread_barrier_wait(&t->barrier);
        pd_attention_run(t->plan, &t->workers[m->ith], (const float *)(const void *)in->q.data, t->packed,
                         in->mask.data, (float *)(void *)in->out.data, t->n_threads);
        pthread_barrier_wait(&t->barrier);
    }
    return NULL;
}

static pd_attention_shape shape_of(const inputs *in, dnnl_data_type_t compute) {
    return (pd_attention_shape){.head_dim = in->q.dim,
                                .value_dim = in->v.dim,
                                .n_q = in->q.n,
                                .n_kv = in->k.n,
                                .n_heads = in->q.n_heads,
                                .n_kv_heads = in->k.n_heads,
                                .scale = in->scale,
                                .key_type = in->k.type,
                                .value_type = in->v.type,
                                .q_row = in->q.row,
                                .q_head = in->q.head,
                                .k_row = in->k.row,
                                .k_head = in->k.head,
                                .v_row = in->v.row,
                                .v_head = in->v.head,
                                .out_row = in->out.row,
                                .out_head = in->out.head,
                                .masked = in->masked,
                                .mask_type = in->mask.type,
                                .mask_row = in->mask.row,
                                .compute = compute};
}

// PD_ERR_UNSUPPORTED where this CPU has no kernel for `compute`; every other failure fails the test.
static pd_status attend_as_team(pd_gemm_cache *cache, const inputs *in, dnnl_data_type_t compute,
                                int n_threads, int repeats) {
    pd_error err = {0};
    team t = {.n_threads = n_threads, .repeats = repeats, .in = in};
    const pd_attention_shape shape = shape_of(in, compute);
    const pd_status status = pd_attention_create(cache, &shape, &t.plan, &err);
    if (status == PD_ERR_UNSUPPORTED) return status;
    if (status != PD_OK) fail_msg("%s", err.message);
    size_t scratch, panel, tile;
    pd_attention_worker_bytes(t.plan, &scratch, &panel, &tile);
    t.packed = pd_aligned_alloc(pd_attention_packed_bytes(t.plan));
    assert_non_null(t.packed);
    memset(t.packed, 0xff, pd_attention_packed_bytes(t.plan));
    assert_int_equal(pthread_barrier_init(&t.barrier, NULL, (unsigned)n_threads), 0);
    member members[MAX_THREADS];
    pthread_t threads[MAX_THREADS];
    for (int i = 0; i < n_threads; i++) {
        members[i] = (member){&t, i};
        assert_int_equal(pd_worker_create(cache, &t.workers[i], &err), PD_OK);
        assert_int_equal(pd_worker_reserve(&t.workers[i], scratch, panel, tile, &err), PD_OK);
        memset(t.workers[i].tile, 0xff, tile); // nothing may hang on what was there: NaN
    }
    for (int i = 1; i < n_threads; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, attend, &members[i]), 0);
    attend(&members[0]);
    for (int i = 1; i < n_threads; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < n_threads; i++) {
        assert_int_equal(t.workers[i].failed, dnnl_success);
        pd_worker_free(&t.workers[i]);
    }
    pthread_barrier_destroy(&t.barrier);
    free(t.packed);
    pd_attention_free(cache, t.plan);
    return PD_OK;
}

static const attention_case cases[] = {
    // Sizes: one of everything, odd ones, those around strips, blocks, units and chunks.
    {1, 1, 1, 1, 1, 1, GGML_TYPE_F32, GGML_TYPE_F32, NO_MASK, GGML_TYPE_F16, BY_HEAD, 1, 1},
    {64, 64, 1, 300, 4, 4, GGML_TYPE_F32, GGML_TYPE_F32, NO_MASK, GGML_TYPE_F16, PERMUTED, 2, 1},
    {64, 64, 300, 1, 4, 4, GGML_TYPE_F32, GGML_TYPE_F32, NO_MASK, GGML_TYPE_F16, PERMUTED, 2, 1},
    {40, 40, 3, 5, 2, 1, GGML_TYPE_F32, GGML_TYPE_F32, CAUSAL, GGML_TYPE_F32, PERMUTED, 3, 1},
    {80, 80, 129, 129, 3, 3, GGML_TYPE_F32, GGML_TYPE_F32, CAUSAL, GGML_TYPE_F16, PERMUTED, 2, 1},
    {64, 64, 128, 256, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, CAUSAL, GGML_TYPE_F16, BY_HEAD, 2, 1},
    {128, 128, 257, 257, 4, 4, GGML_TYPE_F32, GGML_TYPE_F32, CAUSAL, GGML_TYPE_F16, PERMUTED, 2, 1},
    {128, 128, 640, 640, 2, 2, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, GGML_TYPE_F16, PERMUTED, 2, 1},
    {64, 64, 577, 577, 3, 3, GGML_TYPE_F32, GGML_TYPE_F32, NO_MASK, GGML_TYPE_F16, PERMUTED, 3, 1},
    {7, 13, 65, 333, 3, 1, GGML_TYPE_F32, GGML_TYPE_F32, BIAS, GGML_TYPE_F32, WITH_GAPS, 2, 1},
    {128, 64, 100, 511, 2, 2, GGML_TYPE_F16, GGML_TYPE_F32, NO_MASK, GGML_TYPE_F16, WITH_GAPS, 2, 1},
    // More keys than queries (a prompt in parts), and fewer.
    {64, 64, 100, 700, 2, 2, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, GGML_TYPE_F16, PERMUTED, 2, 1},
    {64, 64, 300, 170, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, CAUSAL, GGML_TYPE_F32, PERMUTED, 2, 1},
    // Heads that share keys.
    {64, 64, 150, 150, 8, 2, GGML_TYPE_F32, GGML_TYPE_F32, CAUSAL, GGML_TYPE_F16, PERMUTED, 2, 1},
    {32, 32, 70, 70, 32, 4, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, GGML_TYPE_F16, PERMUTED, 3, 1},
    {32, 32, 70, 90, 6, 1, GGML_TYPE_BF16, GGML_TYPE_F16, NO_MASK, GGML_TYPE_F16, PERMUTED, 2, 1},
    // Caches.
    {80, 80, 133, 133, 2, 2, GGML_TYPE_BF16, GGML_TYPE_BF16, CAUSAL, GGML_TYPE_F16, PERMUTED, 2, 1},
    {40, 40, 133, 133, 2, 2, GGML_TYPE_F16, GGML_TYPE_BF16, CAUSAL, GGML_TYPE_F32, WITH_GAPS, 2, 1},
    // Masks.
    {64, 64, 300, 500, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, SCATTERED, GGML_TYPE_F16, PERMUTED, 2, 1},
    {64, 64, 300, 500, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, SCATTERED, GGML_TYPE_F32, WITH_GAPS, 2, 1},
    {64, 64, 190, 333, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, BIAS, GGML_TYPE_F16, PERMUTED, 2, 1},
    {64, 64, 190, 333, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, BIAS, GGML_TYPE_F32, PERMUTED, 2, 1},
    {64, 64, 190, 333, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, ALL_ZERO, GGML_TYPE_F16, PERMUTED, 2, 1},
    {64, 64, 190, 333, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, ALL_HIDDEN, GGML_TYPE_F16, PERMUTED, 2, 1},
    {64, 64, 190, 333, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, ALL_HIDDEN, GGML_TYPE_F32, PERMUTED, 2, 1},
    {64, 64, 400, 900, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, PATCHWORK, GGML_TYPE_F16, PERMUTED, 2, 1},
    {48, 80, 411, 707, 2, 1, GGML_TYPE_F16, GGML_TYPE_F16, PATCHWORK, GGML_TYPE_F32, WITH_GAPS, 3, 1},
    // Peaked shares.
    {64, 64, 200, 400, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, CAUSAL, GGML_TYPE_F16, PERMUTED, 2, 4},
};

static void check_cases(dnnl_data_type_t compute, double tolerance) {
    pd_error err = {0};
    pd_gemm_cache *cache;
    assert_int_equal(pd_gemm_cache_create(&cache, &err), PD_OK);
    double worst = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        // Scores of ±100 in bf16 are off by 1 and more: that is not for a fixed tolerance.
        if (compute == dnnl_bf16 && cases[i].spread > 1) continue;
        seed(i);
        inputs in = make_inputs(&cases[i]);
        const pd_status status = attend_as_team(cache, &in, compute, cases[i].n_threads, 2);
        if (status == PD_ERR_UNSUPPORTED) {
            free_inputs(&in);
            pd_gemm_cache_free(cache);
            print_message("this CPU has no kernel for these products: not tested\n");
            skip();
        }
        const double off = difference(&in);
        free_inputs(&in);
        if (!(off <= tolerance)) fail_msg("case %zu: off by %g", i, off);
        if (off > worst) worst = off;
    }
    print_message("relative error at most %.2g\n", worst);
    pd_gemm_cache_free(cache);
}

static void test_f32(void **state) {
    (void)state;
    check_cases(dnnl_f32, 1e-5);
}

static void test_bf16(void **state) {
    (void)state;
    check_cases(dnnl_bf16, 1e-2);
}

// Scores of ±10⁴ that f32 holds exactly, whole numbers apart: of each row a few keys matter, and which is
// exact.
static void test_huge_scores(void **state) {
    (void)state;
    pd_error err = {0};
    pd_gemm_cache *cache;
    assert_int_equal(pd_gemm_cache_create(&cache, &err), PD_OK);
    seed(1);
    const attention_case c = {
        64, 64, 200, 600, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, CAUSAL, GGML_TYPE_F16, PERMUTED, 2, 1};
    inputs in = make_inputs(&c);
    in.scale = 1.0F;
    for (int64_t head = 0; head < 2; head++) {
        for (int64_t i = 0; i < 64; i++) {
            for (int64_t row = 0; row < c.n_q; row++)
                set(&in.q, i, row, head, (float)(int)(40 * random_unit() - 20));
            for (int64_t row = 0; row < c.n_kv; row++)
                set(&in.k, i, row, head, (float)(int)(40 * random_unit() - 20));
        }
    }
    assert_int_equal(attend_as_team(cache, &in, dnnl_f32, 2, 1), PD_OK);
    const double off = difference(&in);
    if (!(off <= 1e-5)) fail_msg("off by %g", off);
    free_inputs(&in);
    pd_gemm_cache_free(cache);
}

// Between the rows of the output lies what is not attention's: it stays.
static void test_gaps_stay(void **state) {
    (void)state;
    pd_error err = {0};
    pd_gemm_cache *cache;
    assert_int_equal(pd_gemm_cache_create(&cache, &err), PD_OK);
    const attention_case c = {
        40, 24, 70, 70, 3, 1, GGML_TYPE_F32, GGML_TYPE_F32, CAUSAL, GGML_TYPE_F16, WITH_GAPS, 2, 1};
    inputs in = make_inputs(&c);
    assert_int_equal(attend_as_team(cache, &in, dnnl_f32, 2, 1), PD_OK);
    size_t gaps = 0;
    for (int64_t row = 0; row < c.n_q; row++) {
        for (int64_t head = 0; head < c.n_heads; head++) {
            const bool last = row == c.n_q - 1 && head == c.n_heads - 1;
            const char *gap = number_at(&in.out, c.value_dim, row, head);
            for (size_t i = 0; !last && i < 8; i++, gaps++)
                assert_int_equal((unsigned char)gap[i], 0xff);
        }
    }
    assert_int_equal(gaps, 8 * (c.n_q * c.n_heads - 1));
    free_inputs(&in);
    pd_gemm_cache_free(cache);
}

typedef struct session {
    pd_gemm_cache *cache;
    inputs in;
} session;

static void *run_session(void *user) {
    session *s = user;
    assert_int_equal(attend_as_team(s->cache, &s->in, dnnl_f32, 2, 6), PD_OK);
    return NULL;
}

// Two sessions of one model: their plans share the cache's primitives.
static void test_sessions_at_once(void **state) {
    (void)state;
    pd_error err = {0};
    pd_gemm_cache *cache;
    assert_int_equal(pd_gemm_cache_create(&cache, &err), PD_OK);
    session sessions[2];
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        seed((uint64_t)i + 40);
        const attention_case c = {
            64, 64, 200 + i, 300, 4, 2, GGML_TYPE_F32, GGML_TYPE_F32, CAUSAL, GGML_TYPE_F16, PERMUTED, 2, 1};
        sessions[i] = (session){cache, make_inputs(&c)};
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_session, &sessions[i]), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        const double off = difference(&sessions[i].in);
        if (!(off <= 1e-5)) fail_msg("session %d: off by %g", i, off);
        free_inputs(&sessions[i].in);
    }
    pd_gemm_cache_free(cache);
}

// ---- Against ggml ----

static struct ggml_tensor *ggml_rows(struct ggml_context *ctx, const rows *r) {
    struct ggml_tensor *t = ggml_new_tensor_3d(ctx, r->type, r->dim, r->n_heads, r->n);
    return ggml_permute(ctx, t, 0, 2, 1, 3); // [dim, n, n_heads]
}

// pd_attend of the same numbers; the result lies as in->out does.
static void attend_with_ggml(const inputs *in, bool flash, float *result) {
    pd_error err = {0};
    atomic_bool cancel = false;
    pd_backend backend;
    // One thread: ThreadSanitizer does not know how OpenMP's wait for each other.
    assert_int_equal(pd_backend_create(pd_device_cpu(), 1, &cancel, &backend, &err), PD_OK);
    struct ggml_context *ctx = ggml_init((struct ggml_init_params){
        .mem_size = 64 * ggml_tensor_overhead() + ggml_graph_overhead(), .no_alloc = true});
    assert_non_null(ctx);
    struct ggml_tensor *q = ggml_rows(ctx, &in->q), *k = ggml_rows(ctx, &in->k), *v = ggml_rows(ctx, &in->v);
    struct ggml_tensor *mask =
        in->masked ? ggml_new_tensor_2d(ctx, in->mask.type, in->mask.dim, in->mask.n) : NULL;
    struct ggml_cgraph *graph = ggml_new_graph(ctx);
    struct ggml_tensor *out = pd_attend(ctx, q, k, v, mask, flash);
    ggml_build_forward_expand(graph, out);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(ctx, backend.cpu);
    assert_non_null(buffer);
    ggml_backend_tensor_set(q->view_src, in->q.data, 0, in->q.bytes);
    ggml_backend_tensor_set(k->view_src, in->k.data, 0, in->k.bytes);
    ggml_backend_tensor_set(v->view_src, in->v.data, 0, in->v.bytes);
    if (mask) ggml_backend_tensor_set(mask, in->mask.data, 0, in->mask.bytes);
    assert_int_equal(ggml_backend_graph_compute(backend.cpu, graph), GGML_STATUS_SUCCESS);
    ggml_backend_tensor_get(out, result, 0, in->out.bytes);
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
    pd_backend_free(&backend);
}

static void compare_with_ggml(const attention_case *c, bool flash, double tolerance) {
    pd_error err = {0};
    pd_gemm_cache *cache;
    assert_int_equal(pd_gemm_cache_create(&cache, &err), PD_OK);
    inputs in = make_inputs(c);
    assert_int_equal(attend_as_team(cache, &in, dnnl_f32, 2, 1), PD_OK);
    const size_t n = in.out.bytes / sizeof(float);
    float *theirs = malloc(in.out.bytes);
    assert_non_null(theirs);
    attend_with_ggml(&in, flash, theirs);
    const float *ours = (const float *)(const void *)in.out.data;
    double off = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        off += ((double)ours[i] - (double)theirs[i]) * ((double)ours[i] - (double)theirs[i]);
        norm += (double)theirs[i] * (double)theirs[i];
    }
    const double relative = norm > 0 ? sqrt(off / norm) : sqrt(off);
    print_message("%s: %.2g\n", flash ? "flash" : "eager", relative);
    if (!(relative <= tolerance)) fail_msg("off by %g", relative);
    free(theirs);
    free_inputs(&in);
    pd_gemm_cache_free(cache);
}

static void test_against_ggml(void **state) {
    (void)state;
    seed(7);
    const attention_case causal = {128,           128,    150,           150,      8, 2, GGML_TYPE_F32,
                                   GGML_TYPE_F32, CAUSAL, GGML_TYPE_F16, PERMUTED, 2, 1};
    const attention_case vision = {
        64, 64, 577, 577, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, NO_MASK, GGML_TYPE_F16, PERMUTED, 2, 1};
    const attention_case bias = {
        40, 40, 70, 90, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, BIAS, GGML_TYPE_F16, PERMUTED, 2, 1};
    const attention_case hidden = {
        64, 64, 40, 40, 2, 2, GGML_TYPE_F32, GGML_TYPE_F32, ALL_HIDDEN, GGML_TYPE_F16, PERMUTED, 2, 1};
    const attention_case halves = {
        64, 64, 150, 150, 4, 4, GGML_TYPE_F16, GGML_TYPE_F16, CAUSAL, GGML_TYPE_F16, PERMUTED, 2, 1};
    const attention_case *const exact[] = {&causal, &vision, &bias};
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++) {
        compare_with_ggml(exact[i], false, 1e-5);
        compare_with_ggml(exact[i], true, 1e-5);
    }
    compare_with_ggml(&hidden, true, 0.0);
    compare_with_ggml(&halves, true, 2e-3); // ggml rounds queries, shares or sums to f16 here
}

// ---- Parts ----

static void test_exp(void **state) {
    (void)state;
    double worst = 0;
    float x[PD_SOFTMAX_STEP], at[PD_SOFTMAX_STEP];
    for (float from = -86.5F; from < 88.0F; from += 0.0005F) {
        for (int i = 0; i < PD_SOFTMAX_STEP; i++)
            x[i] = at[i] = from + (float)i * 3e-5F;
        pd_exp_row(x, PD_SOFTMAX_STEP);
        for (int i = 0; i < PD_SOFTMAX_STEP; i++) {
            const double off = fabs((double)x[i] / exp((double)at[i]) - 1.0);
            worst = worse(worst, off);
        }
    }
    print_message("exp's relative error at most %.2g\n", worst);
    assert_true(worst <= 2e-7);
    float special[] = {-INFINITY, -1e30F, -100.0F, -87.0F, 0.0F, -0.0F, -1e-30F, NAN, -NAN, NAN};
    memset(&special[9], 0xff, sizeof special[9]); // a NaN of which all bits are set
    pd_exp_row(special, 10);
    for (int i = 0; i < 4; i++)
        assert_true(special[i] == 0.0F && !signbit(special[i]));
    for (int i = 4; i < 7; i++)
        assert_true(special[i] == 1.0F);
    for (int i = 7; i < 10; i++)
        assert_true(isnan(special[i]));
}

// A chunk of -infinity before, between and behind others changes nothing; NaN shows.
static void test_softmax_of_infinities(void **state) {
    (void)state;
    enum { KEYS = 5, ROOM = PD_SOFTMAX_STEP, ROWS = 2 };
    float maxima[ROWS] = {-INFINITY, -INFINITY}, sums[ROWS] = {0}, results[ROWS] = {0};
    float scores[ROWS * ROOM];
    pd_softmax_chunk chunk = {.rows = ROWS,
                              .keys = KEYS,
                              .stride = ROOM,
                              .scores = scores,
                              .maxima = maxima,
                              .sums = sums,
                              .results = results,
                              .width = 1};
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < ROWS * ROOM; i++)
            scores[i] = round == 1 && i < KEYS ? (float)i : i % ROOM < KEYS ? -INFINITY : NAN;
        pd_softmax_add(&chunk);
        if (round == 1) results[0] = 1;
        for (int i = 0; i < ROWS * ROOM; i++) {
            const float expected = round == 1 && i < KEYS ? expf((float)(i - KEYS + 1)) : 0.0F;
            assert_true(fabsf(scores[i] - expected) <= 1e-6F);
        }
        assert_true(maxima[1] == -INFINITY && sums[1] == 0.0F && results[1] == 0.0F);
    }
    assert_true(maxima[0] == KEYS - 1 && results[0] == 1.0F);
    assert_true(fabsf(sums[0] - 1.571317F) <= 1e-5F); // 1 + e^-1 + … + e^-4
    for (int i = 0; i < ROWS * ROOM; i++)
        scores[i] = NAN;
    pd_softmax_add(&chunk);
    assert_true(isnan(sums[0]));
}

static void test_refusals(void **state) {
    (void)state;
    pd_error err = {0};
    pd_gemm_cache *cache;
    assert_int_equal(pd_gemm_cache_create(&cache, &err), PD_OK);
    const attention_case c = cases[0];
    inputs in = make_inputs(&c);
    const pd_attention_shape good = shape_of(&in, dnnl_f32);
    pd_attention_plan *plan;
    pd_attention_shape shape = good;
    shape.n_kv = 0;
    assert_int_equal(pd_attention_create(cache, &shape, &plan, &err), PD_ERR_ARGUMENT);
    assert_null(plan);
    shape = good;
    shape.n_q = INT64_MAX;
    assert_int_equal(pd_attention_create(cache, &shape, &plan, &err), PD_ERR_ARGUMENT);
    shape = good;
    shape.n_heads = 3;
    shape.n_kv_heads = 2;
    assert_int_equal(pd_attention_create(cache, &shape, &plan, &err), PD_ERR_ARGUMENT);
    assert_string_equal(err.message, "attention: 3 heads share 2 key heads");
    shape = good;
    shape.key_type = GGML_TYPE_Q8_0;
    assert_int_equal(pd_attention_create(cache, &shape, &plan, &err), PD_ERR_UNSUPPORTED);
    shape = good;
    shape.masked = true;
    shape.mask_type = GGML_TYPE_BF16;
    assert_int_equal(pd_attention_create(cache, &shape, &plan, &err), PD_ERR_UNSUPPORTED);
    shape = good;
    shape.compute = dnnl_s8;
    assert_int_equal(pd_attention_create(cache, &shape, &plan, &err), PD_ERR_UNSUPPORTED);
    assert_null(plan);
    pd_attention_free(cache, NULL);
    free_inputs(&in);
    pd_gemm_cache_free(cache);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_softmax_of_infinities),
        cmocka_unit_test(test_f32),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_huge_scores),
        cmocka_unit_test(test_gaps_stay),
        cmocka_unit_test(test_sessions_at_once),
        cmocka_unit_test(test_against_ggml),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
