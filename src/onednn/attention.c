#include "onednn/attention.h"

#include "base/tasks.h"
#include "onednn/clones.h"
#include "onednn/rows.h"
#include "onednn/softmax.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_ROWS = 128, // query rows of a task, in two strips: at a causal mask's edge they see different keys
    ROW_MULTIPLE = 4, // strips are multiples of this
    F32_UNIT = 64,    // keys that the mask's summary does not divide
    F32_CHUNK = 4, // units of a product: scores, keys and values of 128 × 256 × 128 fit a cache of 512 KiB
    BF16_UNIT = 128,   // each packed for itself, so that a product has one
    MAX_PRODUCTS = 32, // 4 heights × 2 · F32_CHUNK widths
    PADDING = 16,      // numbers behind each row of scores: rows must not all fall on the same cache sets
    MAX_DIMENSION = 1 << 24,
};

// What the mask hides of a strip × unit.
enum { HIDES_ALL, HIDES_NOTHING, HIDES_SOME };

// Scores and shares of `rows` query rows and `keys` keys.
typedef struct pd_attention_product {
    int64_t rows, keys;
    const pd_gemm *scores; // [rows, head_dim] × [head_dim, keys]
    const pd_gemm *values; // += [rows, keys] × [keys, value_dim]
} pd_attention_product;

struct pd_attention_plan {
    pd_attention_shape shape;
    int64_t strip, block; // query rows
    int64_t n_strips, n_blocks;
    int64_t unit, n_units; // keys; the last unit may be shorter
    int64_t chunk;         // units
    int64_t scores_stride; // numbers
    pd_attention_product products[MAX_PRODUCTS];
    int n_products;
    size_t number_bytes; // of what is multiplied
    // Packed: [n_kv_heads][n_units] units of keys, the same of values, then the mask's summary
    // [n_strips][n_units].
    size_t key_unit, value_unit, values_at, summary_at, packed_bytes;
    // A worker's tile.
    size_t queries_at, scores_at, shares_at, results_at, maxima_at, sums_at, tile_bytes;
    size_t panel_bytes, scratch_bytes;
    pd_tasks packing, running;
};

static int64_t min_of(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// ---- The plan ----

// Query rows of block b.
static int64_t block_rows(const pd_attention_plan *a, int64_t b) {
    return min_of(a->block, a->shape.n_q - b * a->block);
}

// Keys of n units from unit u on.
static int64_t unit_keys(const pd_attention_plan *a, int64_t u, int64_t n) {
    return min_of((u + n) * a->unit, a->shape.n_kv) - u * a->unit;
}

// Units of the next chunk of a run of n: as few chunks as can be, all about the same.
static int64_t next_chunk(const pd_attention_plan *a, int64_t n) {
    return divide_up(n, divide_up(n, a->chunk));
}

static const pd_attention_product *find_product(const pd_attention_plan *a, int64_t rows, int64_t keys) {
    for (int i = 0; i < a->n_products; i++) {
        if (a->products[i].rows == rows && a->products[i].keys == keys) return &a->products[i];
    }
    return NULL;
}

// The product that said how a unit of so many keys is packed.
static const pd_attention_product *find_packing(const pd_attention_plan *a, int64_t keys) {
    for (int i = 0; i < a->n_products; i++) {
        if (a->products[i].keys == keys) return &a->products[i];
    }
    return NULL;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static pd_status get_product(pd_gemm_cache *cache, const pd_gemm_shape *shape, const pd_gemm **product,
                             pd_error *err) {
    pd_error why;
    const pd_status status = pd_gemm_get(cache, shape, product, &why);
    return status == PD_OK ? PD_OK : pd_fail(err, status, "attention: %s", why.message);
}

static pd_status add_product(pd_attention_plan *a, pd_gemm_cache *cache, int64_t rows, int64_t keys,
                             pd_error *err) {
    if (rows <= 0 || keys <= 0 || find_product(a, rows, keys)) return PD_OK;
    const pd_attention_shape *s = &a->shape;
    const bool f32 = s->compute == dnnl_f32;
    const pd_attention_product *like = f32 ? NULL : find_packing(a, keys);
    // f32 keys and values stay rows: oneDNN takes any run of them, as fast as those it packs itself.
    const pd_gemm_shape scores = {.m = rows,
                                  .n = keys,
                                  .k = s->head_dim,
                                  .source_stride_m = s->head_dim,
                                  .source_stride_k = 1,
                                  .weights_stride_k = f32 ? 1 : 0,
                                  .weights_stride_n = f32 ? s->head_dim : 0,
                                  .packed_like = like ? like->scores : NULL,
                                  .destination_stride_m = a->scores_stride,
                                  .source = s->compute,
                                  .weights = s->compute,
                                  .destination = dnnl_f32};
    const pd_gemm_shape values = {.m = rows,
                                  .n = s->value_dim,
                                  .k = keys,
                                  .source_stride_m = a->scores_stride,
                                  .source_stride_k = 1,
                                  .weights_stride_k = f32 ? s->value_dim : 0,
                                  .weights_stride_n = f32 ? 1 : 0,
                                  .packed_like = like ? like->values : NULL,
                                  .destination_stride_m = s->value_dim,
                                  .source = s->compute,
                                  .weights = s->compute,
                                  .destination = dnnl_f32,
                                  .accumulate = true};
    pd_attention_product *product = &a->products[a->n_products++];
    *product = (pd_attention_product){.rows = rows, .keys = keys};
    PD_TRY(get_product(cache, &scores, &product->scores, err));
    PD_TRY(get_product(cache, &values, &product->values, err));
    a->scratch_bytes = larger(a->scratch_bytes, pd_gemm_scratch_bytes(product->scores));
    a->scratch_bytes = larger(a->scratch_bytes, pd_gemm_scratch_bytes(product->values));
    if (!f32) {
        a->key_unit = larger(a->key_unit, pd_whole_lines(pd_gemm_packed_bytes(product->scores)));
        a->value_unit = larger(a->value_unit, pd_whole_lines(pd_gemm_packed_bytes(product->values)));
    }
    return PD_OK;
}

// The products a block of `rows` rows can need. A mask may hide any units.
static pd_status add_products(pd_attention_plan *a, pd_gemm_cache *cache, int64_t rows, pd_error *err) {
    if (!a->shape.masked) {
        for (int64_t u = 0; u < a->n_units;) {
            const int64_t n = next_chunk(a, a->n_units - u);
            PD_TRY(add_product(a, cache, rows, unit_keys(a, u, n), err));
            u += n;
        }
        return PD_OK;
    }
    const int64_t heights[3] = {rows, min_of(rows, a->strip), rows - a->strip};
    for (int i = 0; i < 3; i++) {
        for (int64_t n = 1; n <= min_of(a->chunk, a->n_units); n++) {
            if (n < a->n_units) PD_TRY(add_product(a, cache, heights[i], unit_keys(a, 0, n), err));
            PD_TRY(add_product(a, cache, heights[i], unit_keys(a, a->n_units - n, n), err));
        }
    }
    return PD_OK;
}

static void plan_blocks(pd_attention_plan *a) {
    const pd_attention_shape *s = &a->shape;
    const bool f32 = s->compute == dnnl_f32;
    a->number_bytes = f32 ? sizeof(float) : sizeof(uint16_t);
    a->unit = f32 ? F32_UNIT : BF16_UNIT;
    a->chunk = f32 ? F32_CHUNK : 1;
    a->n_units = divide_up(s->n_kv, a->unit);
    a->scores_stride = a->unit * a->chunk + PADDING;
    const int64_t strips = 2 * divide_up(s->n_q, BLOCK_ROWS);
    a->strip = divide_up(divide_up(s->n_q, strips), ROW_MULTIPLE) * ROW_MULTIPLE;
    a->block = 2 * a->strip;
    a->n_strips = divide_up(s->n_q, a->strip);
    a->n_blocks = divide_up(s->n_q, a->block);
    a->key_unit = f32 ? pd_whole_lines((size_t)(a->unit * s->head_dim) * a->number_bytes) : 0;
    a->value_unit = f32 ? pd_whole_lines((size_t)(a->unit * s->value_dim) * a->number_bytes) : 0;
}

static void plan_tile(pd_attention_plan *a) {
    const pd_attention_shape *s = &a->shape;
    const size_t block = (size_t)a->block, scores = block * (size_t)a->scores_stride;
    a->queries_at = 0;
    a->scores_at = a->queries_at + pd_whole_lines(block * (size_t)s->head_dim * a->number_bytes);
    a->shares_at = a->scores_at + pd_whole_lines(scores * sizeof(float));
    a->results_at = a->shares_at + (s->compute == dnnl_f32 ? 0 : pd_whole_lines(scores * sizeof(uint16_t)));
    a->maxima_at = a->results_at + pd_whole_lines(block * (size_t)s->value_dim * sizeof(float));
    a->sums_at = a->maxima_at + pd_whole_lines(block * sizeof(float));
    a->tile_bytes = a->sums_at + pd_whole_lines(block * sizeof(float));
    // A unit in bf16 on its way to be packed, and one row of it in f32.
    const size_t widest = (size_t)(s->head_dim > s->value_dim ? s->head_dim : s->value_dim);
    a->panel_bytes = pd_whole_lines(widest * sizeof(float));
    if (s->compute != dnnl_f32) a->panel_bytes += pd_whole_lines((size_t)a->unit * widest * a->number_bytes);
}

static pd_status plan_packed(pd_attention_plan *a, pd_error *err) {
    const size_t units = (size_t)(a->shape.n_kv_heads * a->n_units);
    const size_t summary = a->shape.masked ? (size_t)(a->n_strips * a->n_units) : 0;
    if (__builtin_mul_overflow(units, a->key_unit, &a->values_at) ||
        __builtin_mul_overflow(units, a->value_unit, &a->summary_at) ||
        __builtin_add_overflow(a->summary_at, a->values_at, &a->summary_at) ||
        __builtin_add_overflow(a->summary_at, summary, &a->packed_bytes))
        return pd_fail(err, PD_ERR_ARGUMENT, "attention: %zu parts of keys are too many", units);
    return PD_OK;
}

static bool is_row_type(enum ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

static pd_status check_shape(const pd_attention_shape *s, pd_error *err) {
    const int64_t sizes[] = {s->head_dim, s->value_dim, s->n_q, s->n_kv, s->n_heads, s->n_kv_heads};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (sizes[i] < 1 || sizes[i] > MAX_DIMENSION)
            return pd_fail(err, PD_ERR_ARGUMENT, "attention: a size of %lld", (long long)sizes[i]);
    }
    if (s->n_heads % s->n_kv_heads != 0)
        return pd_fail(err, PD_ERR_ARGUMENT, "attention: %lld heads share %lld key heads",
                       (long long)s->n_heads, (long long)s->n_kv_heads);
    if (!is_row_type(s->key_type) || !is_row_type(s->value_type))
        return pd_fail(err, PD_ERR_UNSUPPORTED,
                       "attention: %lld keys of %s and values of %s, expected f32, f16 or bf16",
                       (long long)s->n_kv, ggml_type_name(s->key_type), ggml_type_name(s->value_type));
    if (s->masked && s->mask_type != GGML_TYPE_F32 && s->mask_type != GGML_TYPE_F16)
        return pd_fail(err, PD_ERR_UNSUPPORTED, "attention: a mask of %s, expected f32 or f16",
                       ggml_type_name(s->mask_type));
    if (s->compute != dnnl_f32 && s->compute != dnnl_bf16)
        return pd_fail(err, PD_ERR_UNSUPPORTED, "attention: products of neither f32 nor bf16");
    return PD_OK;
}

static pd_status attention_init(pd_attention_plan *a, pd_gemm_cache *cache, pd_error *err) {
    plan_blocks(a);
    PD_TRY(add_products(a, cache, block_rows(a, 0), err));
    PD_TRY(add_products(a, cache, block_rows(a, a->n_blocks - 1), err));
    plan_tile(a);
    return plan_packed(a, err);
}

pd_status pd_attention_create(pd_gemm_cache *cache, const pd_attention_shape *shape, pd_attention_plan **plan,
                              pd_error *err) {
    *plan = NULL;
    PD_TRY(check_shape(shape, err));
    pd_attention_plan *a = calloc(1, sizeof *a);
    if (!a) return pd_fail_memory(err, sizeof *a, "attention");
    a->shape = *shape;
    const pd_status status = attention_init(a, cache, err);
    if (status != PD_OK) {
        pd_attention_free(cache, a);
        return status;
    }
    *plan = a;
    return PD_OK;
}

void pd_attention_free(pd_gemm_cache *cache, pd_attention_plan *plan) {
    if (!plan) return;
    for (int i = 0; i < plan->n_products; i++) {
        pd_gemm_release(cache, plan->products[i].scores);
        pd_gemm_release(cache, plan->products[i].values);
    }
    free(plan);
}

size_t pd_attention_packed_bytes(const pd_attention_plan *plan) {
    return plan->packed_bytes;
}

void pd_attention_worker_bytes(const pd_attention_plan *plan, size_t *scratch, size_t *panel, size_t *tile) {
    *scratch = plan->scratch_bytes;
    *panel = plan->panel_bytes;
    *tile = plan->tile_bytes;
}

// ---- Numbers ----

PD_CLONES
static void scale_row(const float *restrict from, float *restrict to, float scale, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        to[i] = from[i] * scale;
}

PD_CLONES
static void add_f32_mask(float *restrict scores, const float *restrict mask, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        scores[i] += mask[i];
}

PD_CLONES
static void add_f16_mask(float *restrict scores, const uint16_t *restrict mask, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        scores[i] += pd_half_to_float(mask[i]);
}

// Gathers in *shown the bits by which mask values differ from -infinity, and in *added those by which they
// differ from 0.
PD_CLONES
static void see_f32_mask(const float *mask, int64_t n, uint32_t *shown, uint32_t *added) {
    uint32_t differs = 0, nonzero = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &mask[i], sizeof bits);
        differs |= bits ^ 0xff800000U;
        nonzero |= bits & 0x7fffffffU;
    }
    *shown |= differs;
    *added |= nonzero;
}

PD_CLONES
static void see_f16_mask(const uint16_t *mask, int64_t n, uint32_t *shown, uint32_t *added) {
    uint16_t differs = 0, nonzero = 0;
    for (int64_t i = 0; i < n; i++) {
        differs |= mask[i] ^ 0xfc00U;
        nonzero |= mask[i] & 0x7fffU;
    }
    *shown |= differs;
    *added |= nonzero;
}

// ---- Packing ----

static const void *at(const void *base, size_t offset) {
    return (const char *)base + offset;
}

static void summarise_mask(const pd_attention_plan *a, const void *mask, int64_t strip,
                           unsigned char *summary) {
    const pd_attention_shape *s = &a->shape;
    const int64_t first = strip * a->strip, end = min_of(first + a->strip, s->n_q);
    for (int64_t u = 0; u < a->n_units; u++) {
        const int64_t keys = unit_keys(a, u, 1), key = u * a->unit;
        uint32_t shown = 0, added = 0;
        for (int64_t row = first; row < end; row++) {
            const void *from = at(mask, (size_t)row * s->mask_row);
            if (s->mask_type == GGML_TYPE_F32) {
                see_f32_mask((const float *)from + key, keys, &shown, &added);
            } else {
                see_f16_mask((const uint16_t *)from + key, keys, &shown, &added);
            }
        }
        summary[u] = shown == 0 ? HIDES_ALL : added == 0 ? HIDES_NOTHING : HIDES_SOME;
    }
}

// What will soon be wanted of `n` rows of one head: they lie too far apart for the hardware to see a pattern.
static void fetch_ahead(const void *rows, size_t row_bytes, size_t bytes, int64_t row, int64_t n) {
    enum { LINE = 64, LINES_AHEAD = 16 }; // as many as the first-level cache waits for at once
    const int64_t ahead = row + 1 + (int64_t)(LINES_AHEAD * LINE / (bytes + LINE));
    for (size_t line = 0; ahead < n && line < bytes; line += LINE)
        __builtin_prefetch(at(rows, (size_t)ahead * row_bytes + line));
}

// `keys` rows of one head, of `width` numbers each.
static void convert_unit(const pd_attention_plan *a, pd_worker *worker, enum ggml_type type, const void *from,
                         size_t row_bytes, int64_t keys, int64_t width, void *to) {
    const pd_number_kind kind = a->shape.compute == dnnl_f32 ? PD_NUMBER_F32 : PD_NUMBER_BF16;
    const size_t bytes = ggml_row_size(type, width);
    for (int64_t row = 0; row < keys; row++) {
        fetch_ahead(from, row_bytes, bytes, row, keys);
        pd_rows_convert(type, at(from, (size_t)row * row_bytes), kind,
                        (char *)to + (size_t)(row * width) * a->number_bytes, worker->panel, width);
    }
}

// Tasks run through a unit's heads, which lie side by side in the rows of its keys.
static void pack_unit(const pd_attention_plan *a, pd_worker *worker, const void *k, const void *v,
                      char *packed, int64_t task) {
    const pd_attention_shape *s = &a->shape;
    const int64_t head = task % s->n_kv_heads, u = task / s->n_kv_heads, keys = unit_keys(a, u, 1);
    const int64_t index = head * a->n_units + u;
    const size_t first = (size_t)(u * a->unit);
    const void *from_k = at(k, (size_t)head * s->k_head + first * s->k_row);
    const void *from_v = at(v, (size_t)head * s->v_head + first * s->v_row);
    char *to_k = packed + (size_t)index * a->key_unit,
         *to_v = packed + a->values_at + (size_t)index * a->value_unit;
    if (s->compute == dnnl_f32) {
        convert_unit(a, worker, s->key_type, from_k, s->k_row, keys, s->head_dim, to_k);
        convert_unit(a, worker, s->value_type, from_v, s->v_row, keys, s->value_dim, to_v);
        return;
    }
    const pd_attention_product *packing = find_packing(a, keys);
    const size_t spare = (size_t)(s->head_dim > s->value_dim ? s->head_dim : s->value_dim) * sizeof(float);
    void *rows = (char *)worker->panel + pd_whole_lines(spare);
    convert_unit(a, worker, s->key_type, from_k, s->k_row, keys, s->head_dim, rows);
    pd_gemm_pack(packing->scores, worker, rows, 1, s->head_dim, to_k);
    convert_unit(a, worker, s->value_type, from_v, s->v_row, keys, s->value_dim, rows);
    pd_gemm_pack(packing->values, worker, rows, s->value_dim, 1, to_v);
}

void pd_attention_pack(pd_attention_plan *a, pd_worker *worker, const void *k, const void *v,
                       const void *mask, void *packed, int nth) {
    const int64_t n_strips = a->shape.masked ? a->n_strips : 0;
    const int64_t n_tasks = n_strips + a->shape.n_kv_heads * a->n_units;
    unsigned char *summary = (unsigned char *)packed + a->summary_at;
    for (int64_t task; (task = pd_tasks_take(&a->packing)) < n_tasks;) {
        if (task < n_strips) {
            summarise_mask(a, mask, task, summary + task * a->n_units);
        } else {
            pack_unit(a, worker, k, v, packed, task - n_strips);
        }
    }
    pd_tasks_leave(&a->packing, nth);
}

// ---- Running ----

// A block of query rows of one head on its way.
typedef struct pd_attention_task {
    const pd_attention_plan *a;
    pd_worker *worker;
    const char *keys, *values;    // of its head, packed
    const void *mask;             // of its first row; NULL: none
    const unsigned char *summary; // of its first strip; NULL: none
    int64_t rows;
    char *queries;
    float *scores, *results, *maxima, *sums;
    uint16_t *shares; // NULL: in place of the scores
} pd_attention_task;

static unsigned char hides(const pd_attention_task *t, int64_t strip, int64_t u) {
    return t->summary ? t->summary[strip * t->a->n_units + u] : HIDES_NOTHING;
}

// Which strips see unit u: bit 0 the first, bit 1 the second.
static unsigned seen_by(const pd_attention_task *t, int64_t u) {
    const bool first = hides(t, 0, u) != HIDES_ALL;
    const bool second = t->rows > t->a->strip ? hides(t, 1, u) != HIDES_ALL : first;
    return (first ? 1U : 0U) | (second ? 2U : 0U);
}

// The mask of units [u, u + n) for rows [first, end), where there is something to add.
static void add_mask(const pd_attention_task *t, int64_t first, int64_t end, int64_t u, int64_t n) {
    const pd_attention_plan *a = t->a;
    for (int64_t i = 0; i < n; i++) {
        const int64_t keys = unit_keys(a, u + i, 1), key = (u + i) * a->unit;
        for (int64_t row = first; row < end; row++) {
            if (hides(t, row / a->strip, u + i) == HIDES_NOTHING) continue;
            float *scores = t->scores + row * a->scores_stride + i * a->unit;
            const void *mask = at(t->mask, (size_t)row * a->shape.mask_row);
            if (a->shape.mask_type == GGML_TYPE_F32) {
                add_f32_mask(scores, (const float *)mask + key, keys);
            } else {
                add_f16_mask(scores, (const uint16_t *)mask + key, keys);
            }
        }
    }
}

// Rows [first, end) look at units [u, u + n).
static void attend_chunk(const pd_attention_task *t, int64_t first, int64_t end, int64_t u, int64_t n) {
    const pd_attention_plan *a = t->a;
    const int64_t keys = unit_keys(a, u, n), width = a->shape.value_dim;
    const pd_attention_product *product = find_product(a, end - first, keys);
    float *scores = t->scores + first * a->scores_stride;
    uint16_t *shares = t->shares ? t->shares + first * a->scores_stride : NULL;
    pd_gemm_run(product->scores, t->worker,
                t->queries + (size_t)(first * a->shape.head_dim) * a->number_bytes,
                t->keys + (size_t)u * a->key_unit, scores);
    if (t->mask) add_mask(t, first, end, u, n);
    pd_softmax_add(&(pd_softmax_chunk){.rows = end - first,
                                       .keys = keys,
                                       .stride = a->scores_stride,
                                       .scores = scores,
                                       .halves = shares,
                                       .maxima = t->maxima + first,
                                       .sums = t->sums + first,
                                       .results = t->results + first * width,
                                       .width = width});
    pd_gemm_run(product->values, t->worker, shares ? (const void *)shares : scores,
                t->values + (size_t)u * a->value_unit, t->results + first * width);
}

// All units, in runs that the same strips see.
static void attend_all(const pd_attention_task *t) {
    const pd_attention_plan *a = t->a;
    for (int64_t u = 0; u < a->n_units;) {
        const unsigned seen = seen_by(t, u);
        int64_t run = 1;
        while (u + run < a->n_units && seen_by(t, u + run) == seen)
            run++;
        const int64_t first = seen & 1U ? 0 : a->strip, end = seen & 2U ? t->rows : a->strip;
        for (const int64_t stop = u + run; u < stop;) {
            const int64_t n = next_chunk(a, stop - u);
            if (seen != 0) attend_chunk(t, first, end, u, n);
            u += n;
        }
    }
}

static void load_queries(const pd_attention_task *t, const void *q) {
    const pd_attention_shape *s = &t->a->shape;
    for (int64_t row = 0; row < t->rows; row++) {
        fetch_ahead(q, s->q_row, (size_t)s->head_dim * sizeof(float), row, t->rows);
        const float *from = at(q, (size_t)row * s->q_row);
        char *to = t->queries + (size_t)(row * s->head_dim) * t->a->number_bytes;
        if (s->compute == dnnl_f32) {
            scale_row(from, (float *)(void *)to, s->scale, s->head_dim);
        } else {
            scale_row(from, t->worker->panel, s->scale, s->head_dim);
            pd_rows_to_bf16(t->worker->panel, (uint16_t *)(void *)to, s->head_dim);
        }
    }
}

static void attend_block(const pd_attention_plan *a, pd_worker *worker, int64_t head, int64_t block,
                         const float *q, const char *packed, const void *mask, float *out) {
    const pd_attention_shape *s = &a->shape;
    const size_t kv_units = (size_t)(head / (s->n_heads / s->n_kv_heads) * a->n_units);
    const size_t first = (size_t)(block * a->block);
    char *tile = worker->tile;
    const pd_attention_task t = {
        .a = a,
        .worker = worker,
        .keys = packed + kv_units * a->key_unit,
        .values = packed + a->values_at + kv_units * a->value_unit,
        .mask = s->masked ? at(mask, first * s->mask_row) : NULL,
        .summary = s->masked ? (const unsigned char *)packed + a->summary_at + 2 * block * a->n_units : NULL,
        .rows = block_rows(a, block),
        .queries = tile + a->queries_at,
        .scores = (float *)(void *)(tile + a->scores_at),
        .results = (float *)(void *)(tile + a->results_at),
        .maxima = (float *)(void *)(tile + a->maxima_at),
        .sums = (float *)(void *)(tile + a->sums_at),
        .shares = s->compute == dnnl_f32 ? NULL : (uint16_t *)(void *)(tile + a->shares_at)};
    load_queries(&t, at(q, (size_t)head * s->q_head + first * s->q_row));
    memset(t.results, 0, (size_t)(t.rows * s->value_dim) * sizeof *t.results);
    for (int64_t row = 0; row < t.rows; row++) {
        t.maxima[row] = -INFINITY;
        t.sums[row] = 0.0F;
    }
    attend_all(&t);
    char *rows = (char *)out + (size_t)head * s->out_head + first * s->out_row;
    for (int64_t row = 0; row < t.rows; row++) {
        fetch_ahead(rows, s->out_row, (size_t)s->value_dim * sizeof(float), row, t.rows);
        char *to = rows + (size_t)row * s->out_row;
        const float inverse = t.sums[row] == 0.0F ? 0.0F : 1.0F / t.sums[row];
        scale_row(t.results + row * s->value_dim, (float *)(void *)to, inverse, s->value_dim);
    }
}

void pd_attention_run(pd_attention_plan *a, pd_worker *worker, const float *q, const void *packed,
                      const void *mask, float *out, int nth) {
    const int64_t n_heads = a->shape.n_heads, n_tasks = a->n_blocks * n_heads;
    // Under a causal mask the last rows see most keys. The largest tasks go first, so that all threads end
    // together.
    for (int64_t task; (task = pd_tasks_take(&a->running)) < n_tasks;)
        attend_block(a, worker, task % n_heads, a->n_blocks - 1 - task / n_heads, q, packed, mask, out);
    pd_tasks_leave(&a->running, nth);
}
