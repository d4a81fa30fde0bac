#include "train/attention.h"

#include "base/tasks.h"
#include "onednn/clones.h"
#include "onednn/softmax.h"
#include "train/custom.h"
#include "train/lanes.h"

#include <math.h>
#include <stdlib.h>

// Sequences are copied into blocks of this many rows, the last one filled up with zeros, so that few shapes
// of products suffice for all lengths.
enum { BLOCK = 64 };

// The products of a block of queries with `n` blocks of keys.
typedef struct {
    const pd_small_product *scores;   // [BLOCK, n·BLOCK] = [BLOCK, head_dim] × [n·BLOCK, head_dim]ᵀ
    const pd_small_product *weighted; // [BLOCK, head_dim] = [BLOCK, n·BLOCK] × [n·BLOCK, head_dim]
    const pd_small_product *spread;   // [n·BLOCK, head_dim] += [BLOCK, n·BLOCK]ᵀ × [BLOCK, head_dim]
} block_products;

// One thread's copies of a sequence's head: [rows, head_dim] each, and blocks of scores [BLOCK, rows].
typedef struct {
    float *memory; // owned; all of the below
    float *q, *k, *v, *out, *d_out, *d_q, *d_k, *d_v;
    float *shares, *d_shares;
} scratch;

struct pd_packed_attention {
    pd_small_products *products;
    int32_t *starts; // [n + 1]
    int32_t n;
    bool causal;
    int32_t head_dim, n_heads, n_kv_heads, n_threads, most_blocks;
    block_products *blocks; // [most_blocks + 1], by the number of key blocks
    scratch *scratches;     // [n_threads]
    pd_tasks tasks;
};

static int32_t blocks_of(int32_t rows) {
    return (rows + BLOCK - 1) / BLOCK;
}

static pd_status get_products(pd_packed_attention *a, pd_error *err) {
    const int64_t d = a->head_dim;
    for (int32_t i = 1; i <= a->most_blocks; i++) {
        const int64_t keys = (int64_t)i * BLOCK;
        const pd_small_shape scores = {BLOCK, keys, d, d, 1, 1, d, keys, false};
        const pd_small_shape weighted = {BLOCK, d, keys, keys, 1, d, 1, d, false};
        const pd_small_shape spread = {keys, d, BLOCK, 1, keys, d, 1, d, true};
        PD_TRY(pd_small_product_get(a->products, &scores, &a->blocks[i].scores, err));
        PD_TRY(pd_small_product_get(a->products, &weighted, &a->blocks[i].weighted, err));
        PD_TRY(pd_small_product_get(a->products, &spread, &a->blocks[i].spread, err));
    }
    return PD_OK;
}

static pd_status get_scratch(pd_packed_attention *a, scratch *s, pd_error *err) {
    const size_t rows = (size_t)a->most_blocks * BLOCK, head = rows * (size_t)a->head_dim,
                 scores = rows * BLOCK;
    const size_t bytes = (8 * head + 2 * scores) * sizeof(float);
    s->memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!s->memory) return pd_fail_memory(err, bytes, "an attention's scratch");
    float *at = s->memory;
    float **const heads[] = {&s->q, &s->k, &s->v, &s->out, &s->d_out, &s->d_q, &s->d_k, &s->d_v};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++, at += head)
        *heads[i] = at;
    s->shares = at;
    s->d_shares = at + scores;
    return PD_OK;
}

static pd_status fill(pd_packed_attention *a, const pd_sequences *sequences, pd_error *err) {
    const size_t n = (size_t)sequences->n;
    a->starts = malloc((n + 1) * sizeof *a->starts);
    if (!a->starts) return pd_fail_memory(err, (n + 1) * sizeof *a->starts, "an attention");
    memcpy(a->starts, sequences->starts, (n + 1) * sizeof *a->starts);
    for (size_t i = 0; i < n; i++) {
        const int32_t blocks = blocks_of(a->starts[i + 1] - a->starts[i]);
        if (blocks > a->most_blocks) a->most_blocks = blocks;
    }
    a->blocks = calloc((size_t)a->most_blocks + 1, sizeof *a->blocks);
    a->scratches = calloc((size_t)a->n_threads, sizeof *a->scratches);
    if (!a->blocks || !a->scratches)
        return pd_fail_memory(err, ((size_t)a->most_blocks + 1) * sizeof *a->blocks, "an attention");
    PD_TRY(get_products(a, err));
    for (int32_t i = 0; i < a->n_threads; i++)
        PD_TRY(get_scratch(a, &a->scratches[i], err));
    return PD_OK;
}

pd_status pd_packed_attention_create(pd_small_products *products, const pd_sequences *sequences,
                                     int32_t head_dim, int32_t n_heads, int32_t n_kv_heads, int32_t n_threads,
                                     pd_packed_attention **out, pd_error *err) {
    *out = NULL;
    pd_packed_attention *a = calloc(1, sizeof *a);
    if (!a) return pd_fail_memory(err, sizeof *a, "an attention");
    *a = (pd_packed_attention){.products = products,
                               .n = sequences->n,
                               .causal = sequences->causal,
                               .head_dim = head_dim,
                               .n_heads = n_heads,
                               .n_kv_heads = n_kv_heads,
                               .n_threads = n_threads};
    const pd_status status = fill(a, sequences, err);
    if (status != PD_OK) {
        pd_packed_attention_free(a);
        return status;
    }
    *out = a;
    return PD_OK;
}

void pd_packed_attention_free(pd_packed_attention *a) {
    if (!a) return;
    for (int32_t i = 0; i < a->n_threads && a->scratches; i++)
        free(a->scratches[i].memory);
    free(a->scratches);
    free(a->blocks);
    free(a->starts);
    free(a);
}

// ---- one head of one sequence ------------------------------------------------------------------------------

// Rows of one head, [rows, stride] → [padded rows, head_dim], times `scale`; zeros behind them.
PD_CLONES
static void gather_head(const float *from, int64_t stride, int64_t rows, int64_t padded, int64_t head_dim,
                        float scale, float *to) {
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < head_dim; i++)
            to[r * head_dim + i] = scale * from[r * stride + i];
    }
    memset(to + rows * head_dim, 0, (size_t)((padded - rows) * head_dim) * sizeof(float));
}

// And back.
PD_CLONES
static void scatter_head(const float *from, int64_t head_dim, int64_t rows, float scale, float *to,
                         int64_t stride) {
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < head_dim; i++)
            to[r * stride + i] = scale * from[r * head_dim + i];
    }
}

// row[0 … seen) becomes its softmax, row[seen … n) zero. n is a multiple of PD_LANES.
PD_CLONES
static void softmax_row(float *row, int64_t seen, int64_t n) {
    const float most = pd_max_row(row, seen);
    for (int64_t i = 0; i < seen; i++)
        row[i] -= most;
    pd_exp_row(row, seen);
    memset(row + seen, 0, (size_t)(n - seen) * sizeof *row);
    float lanes[PD_LANES] = {0};
    for (int64_t i = 0; i < n; i += PD_LANES) {
        for (int lane = 0; lane < PD_LANES; lane++)
            lanes[lane] += row[i + lane];
    }
    const float factor = 1.0F / pd_add_lanes(lanes);
    for (int64_t i = 0; i < seen; i++)
        row[i] *= factor;
}

// d_row = row ∘ (d_row − Σ row ∘ d_row)
PD_CLONES
static void softmax_row_back(const float *row, float *d_row, int64_t n) {
    float lanes[PD_LANES] = {0};
    for (int64_t i = 0; i < n; i += PD_LANES) {
        for (int lane = 0; lane < PD_LANES; lane++)
            lanes[lane] += row[i + lane] * d_row[i + lane];
    }
    const float sum = pd_add_lanes(lanes);
    for (int64_t i = 0; i < n; i++)
        d_row[i] = row[i] * (d_row[i] - sum);
}

// Key blocks that block `b` of `n` sees.
static int32_t seen_blocks(const pd_packed_attention *a, int32_t b, int32_t n) {
    return a->causal ? b + 1 : n;
}

// The shares of query block `b` of a sequence of `rows`, into s->shares.
static void block_shares(pd_packed_attention *a, scratch *s, int32_t thread, int32_t b, int32_t rows) {
    const int32_t seen = seen_blocks(a, b, blocks_of(rows));
    const int64_t keys = (int64_t)seen * BLOCK, first = (int64_t)b * BLOCK;
    pd_small_product_run(a->products, a->blocks[seen].scores, thread, s->q + first * a->head_dim, s->k,
                         s->shares);
    for (int64_t r = 0; r < BLOCK; r++) {
        if (first + r >= rows) { // no such query
            memset(s->shares + r * keys, 0, (size_t)keys * sizeof(float));
        } else {
            softmax_row(s->shares + r * keys, a->causal ? first + r + 1 : rows, keys);
        }
    }
}

static void forward(pd_packed_attention *a, scratch *s, int32_t thread, int32_t rows) {
    for (int32_t b = 0; b < blocks_of(rows); b++) {
        const block_products *p = &a->blocks[seen_blocks(a, b, blocks_of(rows))];
        block_shares(a, s, thread, b, rows);
        pd_small_product_run(a->products, p->weighted, thread, s->shares, s->v,
                             s->out + (int64_t)b * BLOCK * a->head_dim);
    }
}

// Adds to d_k and d_v; d_q lacks the scale, which q has had.
static void backward(pd_packed_attention *a, scratch *s, int32_t thread, int32_t rows) {
    for (int32_t b = 0; b < blocks_of(rows); b++) {
        const int32_t seen = seen_blocks(a, b, blocks_of(rows));
        const block_products *p = &a->blocks[seen];
        const int64_t keys = (int64_t)seen * BLOCK, first = (int64_t)b * BLOCK * a->head_dim;
        block_shares(a, s, thread, b, rows);
        pd_small_product_run(a->products, p->spread, thread, s->shares, s->d_out + first, s->d_v);
        pd_small_product_run(a->products, p->scores, thread, s->d_out + first, s->v, s->d_shares);
        for (int64_t r = 0; r < BLOCK; r++)
            softmax_row_back(s->shares + r * keys, s->d_shares + r * keys, keys);
        pd_small_product_run(a->products, p->weighted, thread, s->d_shares, s->k, s->d_q + first);
        pd_small_product_run(a->products, p->spread, thread, s->d_shares, s->q + first, s->d_k);
    }
}

// ---- nodes -------------------------------------------------------------------------------------------------

static void run_forward(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    pd_packed_attention *a = user;
    scratch *s = &a->scratches[thread];
    const float *q = out->src[0]->data, *k = out->src[1]->data, *v = out->src[2]->data;
    const int64_t d = a->head_dim, q_stride = d * a->n_heads, k_stride = d * a->n_kv_heads;
    const int32_t group = a->n_heads / a->n_kv_heads;
    const float scale = 1.0F / sqrtf((float)d);
    for (int64_t task; (task = pd_tasks_take(&a->tasks)) < a->n * a->n_kv_heads;) {
        const int64_t sequence = task / a->n_kv_heads, kv_head = task % a->n_kv_heads;
        const int64_t start = a->starts[sequence];
        const int32_t rows = a->starts[sequence + 1] - a->starts[sequence];
        const int64_t padded = (int64_t)blocks_of(rows) * BLOCK;
        gather_head(k + start * k_stride + kv_head * d, k_stride, rows, padded, d, 1.0F, s->k);
        gather_head(v + start * k_stride + kv_head * d, k_stride, rows, padded, d, 1.0F, s->v);
        for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
            const int64_t at = start * q_stride + head * d;
            gather_head(q + at, q_stride, rows, padded, d, scale, s->q);
            forward(a, s, thread, rows);
            scatter_head(s->out, d, rows, 1.0F, (float *)out->data + at, q_stride);
        }
    }
    pd_tasks_leave(&a->tasks, n_threads);
}

// out: d_q, d_k, d_v one behind the other.
static void run_backward(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    pd_packed_attention *a = user;
    scratch *s = &a->scratches[thread];
    const float *q = out->src[0]->data, *k = out->src[1]->data, *v = out->src[2]->data,
                *d_out = out->src[3]->data;
    float *d_q = out->data, *d_k = d_q + ggml_nelements(out->src[0]),
          *d_v = d_k + ggml_nelements(out->src[1]);
    const int64_t d = a->head_dim, q_stride = d * a->n_heads, k_stride = d * a->n_kv_heads;
    const int32_t group = a->n_heads / a->n_kv_heads;
    const float scale = 1.0F / sqrtf((float)d);
    for (int64_t task; (task = pd_tasks_take(&a->tasks)) < a->n * a->n_kv_heads;) {
        const int64_t sequence = task / a->n_kv_heads, kv_head = task % a->n_kv_heads;
        const int64_t start = a->starts[sequence], k_at = start * k_stride + kv_head * d;
        const int32_t rows = a->starts[sequence + 1] - a->starts[sequence];
        const int64_t padded = (int64_t)blocks_of(rows) * BLOCK;
        gather_head(k + k_at, k_stride, rows, padded, d, 1.0F, s->k);
        gather_head(v + k_at, k_stride, rows, padded, d, 1.0F, s->v);
        memset(s->d_k, 0, (size_t)(padded * d) * sizeof(float));
        memset(s->d_v, 0, (size_t)(padded * d) * sizeof(float));
        for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
            const int64_t at = start * q_stride + head * d;
            gather_head(q + at, q_stride, rows, padded, d, scale, s->q);
            gather_head(d_out + at, q_stride, rows, padded, d, 1.0F, s->d_out);
            backward(a, s, thread, rows);
            scatter_head(s->d_q, d, rows, scale, d_q + at, q_stride);
        }
        scatter_head(s->d_k, d, rows, 1.0F, d_k + k_at, k_stride);
        scatter_head(s->d_v, d, rows, 1.0F, d_v + k_at, k_stride);
    }
    pd_tasks_leave(&a->tasks, n_threads);
}

struct ggml_tensor *pd_packed_attend(struct ggml_context *ctx, struct ggml_tensor *q, struct ggml_tensor *k,
                                     struct ggml_tensor *v, void *attention) {
    struct ggml_tensor *sources[] = {q, k, v};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, q->ne[0] * q->ne[1], q->ne[2], 1, 1, sources, 3, run_forward,
                          GGML_N_TASKS_MAX, attention);
}

pd_packed_attention *pd_packed_attention_of(const struct ggml_tensor *node) {
    return pd_custom_function(node) == run_forward ? pd_custom_user(node) : NULL;
}

void pd_packed_attend_back(struct ggml_context *ctx, const struct ggml_tensor *node,
                           struct ggml_tensor *gradient, struct ggml_tensor *q_k_v[3]) {
    struct ggml_tensor *sources[] = {node->src[0], node->src[1], node->src[2], gradient};
    int64_t n = 0;
    for (int i = 0; i < 3; i++)
        n += ggml_nelements(sources[i]);
    struct ggml_tensor *all = ggml_custom_4d(ctx, GGML_TYPE_F32, n, 1, 1, 1, sources, 4, run_backward,
                                             GGML_N_TASKS_MAX, pd_packed_attention_of(node));
    size_t at = 0;
    for (int i = 0; i < 3; i++) {
        const struct ggml_tensor *x = sources[i];
        q_k_v[i] = ggml_view_3d(ctx, all, x->ne[0], x->ne[1], x->ne[2], x->nb[1], x->nb[2], at);
        at += ggml_nbytes(x);
    }
}
