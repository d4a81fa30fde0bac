#include "onednn/product.h"

#include "base/tasks.h"
#include "onednn/int16.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

// Rows of a task when each panel of weights is converted on the way: long, so that a conversion serves many.
enum { LONG_CHUNK_ROWS = 512, CHUNK_GRAIN = 16 };
// amx.h's kernels want so many that the sums and a slice of both factors fit the second-level cache, in
// blocks of 32.
enum { TALL_CHUNK_ROWS = 320, TALL_CHUNK_GRAIN = 32 };
// A copy pays for itself with so many rows.
enum { ALIASING_BYTES = 2048, LEAST_COPIED_FOR = 64, COPIED_CHUNK_ROWS = 256 };
// Where a panel is so few weights that calling oneDNN counts beside multiplying.
enum { SMALL_PANEL = 1 << 17, SMALL_PANEL_CHUNK_ROWS = 256 };
// Numbers from row to row of a worker's tile: an odd number of lines, so that rows fall on all of a cache's
// sets.
enum { TILE_STRIDE = PD_PANEL_MOST };
// What a task costs beside its rows, in rows; and the per cent of time that another cut must save.
enum { TASK_ROWS = 4, WORTHWHILE = 2 };

struct pd_product {
    pd_number_kind kind;
    const pd_packed *packed;
    pd_product_end end;
    bool outer;    // OUT_PROD: weights' rows run along the inner dimension
    bool converts; // weights go through worker->panel
    bool copies;   // as they are, for their rows lie too evenly; each task has a copy of its own
    bool tall;     // amx.h's kernels multiply
    int64_t m, n, k, n_panels;
    int64_t chunk, n_chunks, tasks_per_batch, n_tasks;
    int64_t group, n_groups;
    int64_t n2, n3, broadcast2, broadcast3;       // batches, and how many of them share weights
    int64_t source_stride_m, source_stride_k;     // numbers
    int64_t weights_stride_k, weights_stride_n;   // numbers, of what a task multiplies
    size_t source_number, source_nb2, source_nb3; // bytes: one number, a step of each batch dimension
    bool has_activations;
    pd_activations activations;
    const pd_gemm *gemms[8]; // [last chunk + 2 · narrow panel + 4 · short group]
    // int8: the outliers' rows of a panel's weights, which the first of its tasks makes, and their products.
    int64_t n_outliers;
    const pd_gemm *units[4];    // [narrow panel + 2 · short group]
    const pd_gemm *outliers[4]; // [last chunk + 2 · narrow panel]
    atomic_bool *ready;         // [n_panels]
    size_t scratch_bytes;
    pd_tasks tasks;
};

static int64_t ceiling(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// Tasks of a panel: a converted one serves all its chunks in one.
static int64_t chunk_tasks(const pd_product *p) {
    return p->converts && !p->copies ? 1 : p->n_chunks;
}

static void cut_into(pd_product *p, int64_t n) {
    const int64_t grain = p->kind == PD_NUMBER_INT16 ? PD_INT16_ROWS
                          : p->tall                  ? TALL_CHUNK_GRAIN
                                                     : CHUNK_GRAIN;
    p->chunk = ceiling(ceiling(p->m, n), grain) * grain;
    if (p->chunk > p->m) p->chunk = p->m;
    p->n_chunks = ceiling(p->m, p->chunk);
    p->tasks_per_batch = p->n_panels * chunk_tasks(p);
    p->n_tasks = p->tasks_per_batch * p->n2 * p->n3 + (p->n_outliers > 0 ? p->n_panels : 0);
}

// How long it takes, in rows of a panel, when all threads take as many tasks or one more.
static int64_t rows_in_turn(const pd_product *p, int32_t n_threads) {
    return ceiling(p->n_tasks, n_threads) * (p->chunk + TASK_ROWS);
}

// Chunks of about `longest` rows, alike but for the last, in sizes that prompts of many lengths share, or
// that the int16 kernel fills. Of a product of few tasks the last ones leave threads idle: other sizes, up to
// half as long again, or half, may share out better.
static void cut_rows(pd_product *p, int64_t longest, int32_t n_threads) {
    const int64_t n = ceiling(p->m, longest);
    int64_t best = n;
    cut_into(p, n);
    if (p->converts && !p->copies) return;
    int64_t least = rows_in_turn(p, n_threads) * (100 - WORTHWHILE) / 100;
    for (int64_t other = ceiling(p->m, longest + longest / 2); other <= 2 * n; other++) {
        cut_into(p, other);
        const int64_t rows = rows_in_turn(p, n_threads);
        if (rows >= least) continue;
        least = rows;
        best = other;
    }
    cut_into(p, best);
}

static int64_t chunk_rows(const pd_product *p, int64_t chunk) {
    const int64_t left = p->m - chunk * p->chunk;
    return left < p->chunk ? left : p->chunk;
}

static void read_geometry(pd_product *p, const struct ggml_tensor *node) {
    const struct ggml_tensor *weights = node->src[0];
    p->outer = node->op == GGML_OP_OUT_PROD;
    p->n = node->ne[0];
    p->m = node->ne[1];
    p->k = weights->ne[p->outer ? 1 : 0];
    p->n2 = node->ne[2];
    p->n3 = node->ne[3];
    p->broadcast2 = p->n2 / weights->ne[2];
    p->broadcast3 = p->n3 / weights->ne[3];
    p->n_panels = pd_panel_count(p->n);
    p->group = p->packed ? p->packed->group : p->k;
    p->n_groups = p->packed ? p->packed->n_groups : 1;
}

// How a task finds its source: as it is, or as the activations' node leaves it.
static void plan_source(pd_product *p, const struct ggml_tensor *source, pd_number_kind floating) {
    int64_t stride[2] = {(int64_t)(source->nb[0] / sizeof(float)), (int64_t)(source->nb[1] / sizeof(float))};
    p->source_number = sizeof(float);
    p->source_nb2 = source->nb[2];
    p->source_nb3 = source->nb[3];
    p->has_activations = p->kind != PD_NUMBER_F32;
    if (p->has_activations) {
        pd_activations *a = &p->activations;
        const pd_int8_range range = p->packed ? p->packed->range : (pd_int8_range){0};
        pd_activations_plan(source, p->kind, p->packed ? p->packed->group : 0, range, floating, a);
        p->n_outliers = a->n_outliers;
        p->source_number = pd_number_bytes(p->kind);
        p->source_nb2 = (size_t)(a->rows * a->stride) * p->source_number;
        p->source_nb3 = p->source_nb2 * (size_t)source->ne[2];
        stride[a->transposed ? 1 : 0] = 1;
        stride[a->transposed ? 0 : 1] = a->stride;
    }
    p->source_stride_m = stride[p->outer ? 0 : 1];
    p->source_stride_k = stride[p->outer ? 1 : 0];
}

static void plan_weights(pd_product *p, const struct ggml_tensor *weights) {
    const enum ggml_type own = p->kind == PD_NUMBER_F32 ? GGML_TYPE_F32 : GGML_TYPE_BF16;
    // Rows some kibibytes apart fall into few sets of the first-level cache, and oneDNN's kernels for narrow
    // products read them in place, at half their rate.
    p->copies = !p->packed && weights->type == own && p->outer && p->m >= LEAST_COPIED_FOR &&
                weights->nb[1] % ALIASING_BYTES == 0;
    p->converts = !p->packed && (weights->type != own || p->copies);
    if (p->packed) return;
    const int64_t number = (int64_t)ggml_type_size(weights->type);
    if (p->converts) {
        p->weights_stride_k = p->outer ? PD_PANEL_MOST : 1;
        p->weights_stride_n = p->outer ? 1 : p->k;
    } else {
        const int64_t stride[2] = {(int64_t)weights->nb[0] / number, (int64_t)weights->nb[1] / number};
        p->weights_stride_k = stride[p->outer ? 1 : 0];
        p->weights_stride_n = stride[p->outer ? 0 : 1];
    }
}

static pd_status get_gemm(pd_gemm_cache *cache, pd_product *p, const pd_gemm_shape *shape,
                          const pd_gemm **gemm, pd_error *err) {
    PD_TRY(pd_gemm_get(cache, shape, gemm, err));
    const size_t bytes = pd_gemm_scratch_bytes(*gemm);
    if (bytes > p->scratch_bytes) p->scratch_bytes = bytes;
    return PD_OK;
}

// Whether results stay with the thread until its task ends: what is done with them then finds them in the
// cache.
static bool keeps_results(const pd_product *p) {
    return p->end == PD_PRODUCT_ADDS || p->end == PD_PRODUCT_GATES;
}

// Numbers from row to row of a task's results.
static int64_t result_stride(const pd_product *p, const struct ggml_tensor *node) {
    return keeps_results(p) ? TILE_STRIDE : (int64_t)(node->nb[1] / sizeof(float));
}

// Products with units are rows of weights; products of outliers with these are a part of the result.
static pd_status get_outlier_gemms(pd_gemm_cache *cache, pd_product *p, const struct ggml_tensor *node,
                                   pd_error *err) {
    for (int i = 0; i < 4; i++) {
        const int64_t panel = i & 1 ? p->n_panels - 1 : 0, group = i & 2 ? p->n_groups - 1 : 0;
        pd_gemm_shape shape = {.m = p->n_outliers,
                               .n = pd_panel_columns(p->n, panel),
                               .k = pd_packed_group(p->packed, group),
                               .source_stride_m = p->activations.stride,
                               .source_stride_k = 1,
                               .packed_like = pd_packed_like(p->packed, panel, group),
                               .destination_stride_m = TILE_STRIDE};
        pd_gemm_set_types(&shape, PD_NUMBER_INT8);
        PD_TRY(get_gemm(cache, p, &shape, &p->units[i], err));
    }
    for (int i = 0; i < 4; i++) {
        const int64_t chunk = i & 1 ? p->n_chunks - 1 : 0, panel = i & 2 ? p->n_panels - 1 : 0;
        pd_gemm_shape shape = {.m = chunk_rows(p, chunk),
                               .n = pd_panel_columns(p->n, panel),
                               .k = p->n_outliers,
                               .source_stride_m = p->n_outliers,
                               .source_stride_k = 1,
                               .weights_stride_k = pd_panel_columns(p->n, panel),
                               .weights_stride_n = 1,
                               .destination_stride_m = result_stride(p, node)};
        pd_gemm_set_types(&shape, p->activations.outlier_kind);
        PD_TRY(get_gemm(cache, p, &shape, &p->outliers[i], err));
    }
    return PD_OK;
}

static pd_status get_gemms(pd_gemm_cache *cache, pd_product *p, const struct ggml_tensor *node,
                           pd_error *err) {
    const bool int8 = p->kind == PD_NUMBER_INT8;
    if (p->kind == PD_NUMBER_INT16) return PD_OK; // has a kernel of its own
    for (int i = 0; i < 8; i++) {
        const int64_t chunk = i & 1 ? p->n_chunks - 1 : 0, panel = i & 2 ? p->n_panels - 1 : 0,
                      group = i & 4 ? p->n_groups - 1 : 0;
        pd_gemm_shape shape = {.m = chunk_rows(p, chunk),
                               .n = pd_panel_columns(p->n, panel),
                               .k = p->packed ? pd_packed_group(p->packed, group) : p->k,
                               .source_stride_m = p->source_stride_m,
                               .source_stride_k = p->source_stride_k,
                               .weights_stride_k = p->weights_stride_k,
                               .weights_stride_n = p->weights_stride_n,
                               .packed_like = p->packed ? pd_packed_like(p->packed, panel, group) : NULL,
                               .destination_stride_m = int8 ? TILE_STRIDE : result_stride(p, node),
                               .accumulate = p->end == PD_PRODUCT_ACCUMULATES};
        pd_gemm_set_types(&shape, p->kind);
        PD_TRY(get_gemm(cache, p, &shape, &p->gemms[i], err));
    }
    if (p->n_outliers == 0) return PD_OK;
    p->ready = calloc((size_t)p->n_panels, sizeof *p->ready);
    if (!p->ready) return pd_fail_memory(err, (size_t)p->n_panels * sizeof *p->ready, "a lowered product");
    return get_outlier_gemms(cache, p, node, err);
}

pd_status pd_product_create(pd_gemm_cache *cache, const struct ggml_tensor *node, pd_number_kind kind,
                            pd_number_kind floating, const pd_packed *packed, pd_product_end end,
                            int32_t n_threads, pd_product **out, pd_error *err) {
    *out = NULL;
    pd_product *p = calloc(1, sizeof *p);
    if (!p) return pd_fail_memory(err, sizeof *p, "a lowered product");
    p->kind = kind;
    p->packed = packed;
    p->end = end;
    read_geometry(p, node);
    plan_source(p, node->src[1], floating);
    plan_weights(p, node->src[0]);
    p->tall = p->packed && p->packed->like[0] && pd_gemm_has_tiles(p->packed->like[0]);
    int64_t longest = p->copies     ? COPIED_CHUNK_ROWS
                      : p->converts ? LONG_CHUNK_ROWS
                      : p->tall     ? TALL_CHUNK_ROWS
                                    : PD_CHUNK_ROWS;
    if (!p->outer && pd_panel_columns(p->n, 0) * p->k <= SMALL_PANEL && longest < SMALL_PANEL_CHUNK_ROWS)
        longest = SMALL_PANEL_CHUNK_ROWS;
    cut_rows(p, longest, n_threads);
    const pd_status status = p->n_tasks > INT32_MAX / 2
                                 ? pd_fail(err, PD_ERR_UNSUPPORTED,
                                           "%lld products of %lld × %lld by %lld × %lld numbers: too many",
                                           (long long)(p->n2 * p->n3), (long long)p->m, (long long)p->k,
                                           (long long)p->k, (long long)p->n)
                                 : get_gemms(cache, p, node, err);
    if (status != PD_OK) {
        pd_product_free(cache, p);
        return status;
    }
    *out = p;
    return PD_OK;
}

void pd_product_free(pd_gemm_cache *cache, pd_product *p) {
    if (!p) return;
    for (int i = 0; i < 8; i++)
        pd_gemm_release(cache, p->gemms[i]);
    for (int i = 0; i < 4; i++) {
        pd_gemm_release(cache, p->units[i]);
        pd_gemm_release(cache, p->outliers[i]);
    }
    free(p->ready);
    free(p);
}

const pd_activations *pd_product_activations(const pd_product *p) {
    return p->has_activations ? &p->activations : NULL;
}

// A converted panel in the product's numbers, behind a row of it in f32.
static int64_t panel_row(const pd_product *p) {
    return p->outer ? PD_PANEL_MOST : p->k;
}

// A worker's tile: int8's products before they are scaled, then results that are kept (of gates two).
static size_t results_at(const pd_product *p) {
    const int64_t rows = p->chunk > p->n_outliers ? p->chunk : p->n_outliers;
    return p->kind == PD_NUMBER_INT8 ? (size_t)(rows * TILE_STRIDE) * sizeof(int32_t) : 0;
}

static size_t result_bytes(const pd_product *p) {
    return (size_t)(p->chunk * TILE_STRIDE) * sizeof(float);
}

void pd_product_worker_bytes(const pd_product *p, size_t *scratch, size_t *panel, size_t *tile) {
    *scratch = p->scratch_bytes;
    size_t row = p->has_activations ? (size_t)p->activations.inner * sizeof(float) : 0;
    const size_t outlier_rows = (size_t)(p->n_outliers * PD_PANEL_MOST) * sizeof(float); // of a panel
    if (row < outlier_rows) row = outlier_rows;
    *panel = p->converts ? (size_t)panel_row(p) * sizeof(float) +
                               (size_t)(p->k * PD_PANEL_MOST) * pd_number_bytes(p->kind)
                         : row;
    *tile = results_at(p) + (p->end == PD_PRODUCT_GATES  ? 2 * result_bytes(p)
                             : p->end == PD_PRODUCT_ADDS ? result_bytes(p)
                                                         : 0);
}

size_t pd_product_shared_bytes(const pd_product *p) {
    return pd_whole_lines((size_t)(p->n_outliers * p->n) * pd_number_bytes(p->activations.outlier_kind));
}

// A panel's outlier weights in what the threads share: [n_outliers, columns].
static void *outlier_weights(const pd_product *p, void *shared, int64_t panel) {
    const size_t first = (size_t)(panel * PD_PANEL_COLUMNS * p->n_outliers);
    return (char *)shared + first * pd_number_bytes(p->activations.outlier_kind);
}

// Columns of `weights` (one batch of them) as a plain matrix in worker->panel.
static const void *convert_panel(const pd_product *p, pd_worker *worker, const struct ggml_tensor *weights,
                                 const char *data, int64_t panel) {
    float *row = worker->panel;
    char *plain = (char *)(row + panel_row(p));
    const size_t number = pd_number_bytes(p->kind);
    const int64_t first = panel * PD_PANEL_COLUMNS, columns = pd_panel_columns(p->n, panel);
    if (p->outer) {
        const size_t offset = ggml_row_size(weights->type, first);
        for (int64_t i = 0; i < p->k; i++) {
            pd_rows_convert(weights->type, data + (size_t)i * weights->nb[1] + offset, p->kind,
                            plain + (size_t)(i * PD_PANEL_MOST) * number, row, columns);
        }
    } else {
        for (int64_t j = 0; j < columns; j++) {
            pd_rows_convert(weights->type, data + (size_t)(first + j) * weights->nb[1], p->kind,
                            plain + (size_t)(j * p->k) * number, row, p->k);
        }
    }
    return plain;
}

typedef struct {
    int64_t batch, panel, chunk;
    const char *source;  // of the chunk's first row
    const void *weights; // of the panel; packed ones are found by their groups
    char *destination;   // of the chunk and panel; a worker's tile where results are kept
    size_t row_bytes;    // of the destination
} task;

static void make_outlier_weights(const pd_product *p, pd_worker *worker, int64_t panel,
                                 const void *activations, void *shared) {
    const int64_t columns = pd_panel_columns(p->n, panel), first = panel * PD_PANEL_COLUMNS;
    const uint8_t *units = pd_activations_units(&p->activations, activations);
    const float scale = pd_rows_turn_scale(p->k);
    float *rows = worker->panel; // [n_outliers, columns]
    for (int64_t g = 0; g < p->n_groups; g++) {
        const pd_gemm *gemm = p->units[(panel == p->n_panels - 1) + 2 * (g == p->n_groups - 1)];
        pd_gemm_run(gemm, worker, units + g * p->group, pd_packed_block(p->packed, panel, g), worker->tile);
        const int32_t *products = worker->tile;
        for (int64_t r = 0; r < p->n_outliers; r++) {
            pd_rows_from_s32(products + r * TILE_STRIDE, rows + r * columns, scale,
                             p->packed->scales + g * p->n + first, p->packed->sums + g * p->n + first,
                             p->packed->range.zero, columns, g > 0);
        }
    }
    const int32_t *channels = pd_activations_channels(&p->activations, activations);
    for (int64_t r = 0; r < p->n_outliers; r++)
        pd_packed_add_rest(p->packed, panel, channels[r], rows + r * columns);
    pd_rows_convert(GGML_TYPE_F32, rows, p->activations.outlier_kind, outlier_weights(p, shared, panel), NULL,
                    p->n_outliers * columns);
    atomic_store_explicit(&p->ready[panel], true, memory_order_release);
}

// The outliers' part of the result, which the rest is added to. Their weights are there or in the making, for
// the task that makes them was taken before; the integers' product takes longer.
static void run_outliers(const pd_product *p, pd_worker *worker, const task *t, const void *activations,
                         void *shared) {
    while (!atomic_load_explicit(&p->ready[t->panel], memory_order_acquire))
        sched_yield();
    const int64_t first = t->chunk * p->chunk * p->n_outliers;
    const char *outliers = pd_activations_outliers(&p->activations, activations, t->batch);
    const pd_gemm *gemm = p->outliers[(t->chunk == p->n_chunks - 1) + 2 * (t->panel == p->n_panels - 1)];
    pd_gemm_run(gemm, worker, outliers + (size_t)first * pd_number_bytes(p->activations.outlier_kind),
                outlier_weights(p, shared, t->panel), t->destination);
}

static void run_int8(const pd_product *p, pd_worker *worker, const task *t, const void *activations,
                     void *shared) {
    const int64_t rows = chunk_rows(p, t->chunk), first_row = t->chunk * p->chunk;
    const int64_t columns = pd_panel_columns(p->n, t->panel), first = t->panel * PD_PANEL_COLUMNS;
    const float *scales =
        pd_activations_scales(&p->activations, activations, t->batch) + first_row * p->n_groups;
    const int last_chunk = t->chunk == p->n_chunks - 1, last_panel = t->panel == p->n_panels - 1;
    for (int64_t g = 0; g < p->n_groups; g++) {
        const int last_group = g == p->n_groups - 1;
        pd_gemm_run(p->gemms[last_chunk + 2 * last_panel + 4 * last_group], worker, t->source + g * p->group,
                    pd_packed_block(p->packed, t->panel, g), worker->tile);
        if (g == 0 && p->n_outliers > 0) run_outliers(p, worker, t, activations, shared);
        const int32_t *products = worker->tile; // [rows, columns]
        for (int64_t r = 0; r < rows; r++) {
            pd_rows_from_s32(products + r * TILE_STRIDE, (float *)(t->destination + (size_t)r * t->row_bytes),
                             scales[r * p->n_groups + g], p->packed->scales + g * p->n + first,
                             p->packed->sums + g * p->n + first, p->packed->range.zero, columns,
                             g > 0 || p->n_outliers > 0);
        }
    }
}

static void run_int16(const pd_product *p, const task *t, const void *activations) {
    const int64_t first_row = t->chunk * p->chunk, first = t->panel * PD_PANEL_COLUMNS;
    pd_int16_multiply(
        &(pd_int16_product){.rows = chunk_rows(p, t->chunk),
                            .columns = pd_panel_columns(p->n, t->panel),
                            .k = p->k,
                            .source = (const int16_t *)t->source,
                            .source_stride = p->source_stride_m,
                            .source_scales = pd_activations_scales(&p->activations, activations, t->batch) +
                                             first_row * p->n_groups,
                            .panel = (const int16_t *)pd_packed_block(p->packed, t->panel, 0),
                            .panel_scales = p->packed->scales + first,
                            .panel_scales_stride = p->n,
                            .destination = (float *)t->destination,
                            .destination_stride = (int64_t)(t->row_bytes / sizeof(float))});
}

static void run_chunk(const pd_product *p, pd_worker *worker, const task *t, const void *source,
                      void *shared) {
    if (p->packed && p->kind == PD_NUMBER_INT8) {
        run_int8(p, worker, t, source, shared);
        return;
    }
    if (p->packed && p->kind == PD_NUMBER_INT16) {
        run_int16(p, t, source);
        return;
    }
    const int last_chunk = t->chunk == p->n_chunks - 1, last_panel = t->panel == p->n_panels - 1;
    const void *weights = p->packed ? pd_packed_block(p->packed, t->panel, 0) : t->weights;
    pd_gemm_run(p->gemms[last_chunk + 2 * last_panel], worker, t->source, weights, t->destination);
}

// Whether task `index` makes the outlier weights of a panel, as the one before the panel's first chunk does:
// it leaves the panel in its thread's cache. Else *index becomes what the task is among the others.
static bool makes_outlier_weights(const pd_product *p, int64_t *index, int64_t *panel) {
    if (p->n_outliers == 0) return false;
    const int64_t turn = p->n_chunks + 1;
    *panel = *index / turn;
    if (*panel < p->n_panels && *index % turn == 0) return true;
    *index -= *panel < p->n_panels ? *panel + 1 : p->n_panels;
    return false;
}

// The results of a chunk, in the worker's tile, and `addend` become the destination's part.
static void add_chunk(const pd_product *p, const task *t, const char *addend, size_t addend_row, char *to,
                      size_t to_row) {
    const int64_t columns = pd_panel_columns(p->n, t->panel);
    for (size_t r = 0; r < (size_t)chunk_rows(p, t->chunk); r++)
        pd_rows_add((const float *)(addend + r * addend_row),
                    (const float *)(t->destination + r * t->row_bytes), (float *)(to + r * to_row), columns);
}

// Where column `panel` · PD_PANEL_COLUMNS of a row of a batch is.
static char *part_of(const struct ggml_tensor *tensor, int64_t i2, int64_t i3, int64_t row, int64_t panel) {
    return (char *)tensor->data + (size_t)i3 * tensor->nb[3] + (size_t)i2 * tensor->nb[2] +
           (size_t)row * tensor->nb[1] + (size_t)(panel * PD_PANEL_COLUMNS) * sizeof(float);
}

static void run_task(const pd_product *p, pd_worker *worker, int64_t index, const pd_product_operands *o) {
    int64_t made;
    if (makes_outlier_weights(p, &index, &made)) {
        make_outlier_weights(p, worker, made, o->source, o->shared);
        return;
    }
    const int64_t batch = index / p->tasks_per_batch, i2 = batch % p->n2, i3 = batch / p->n2;
    const int64_t within = index % p->tasks_per_batch, n_chunks = chunk_tasks(p);
    task t = {.batch = batch, .panel = within / n_chunks};
    const struct ggml_tensor *weights = o->weights;
    const char *matrix = (const char *)weights->data + (size_t)(i2 / p->broadcast2) * weights->nb[2] +
                         (size_t)(i3 / p->broadcast3) * weights->nb[3];
    if (p->converts) {
        t.weights = convert_panel(p, worker, weights, matrix, t.panel);
    } else if (!p->packed) {
        const size_t column = weights->nb[p->outer ? 0 : 1];
        t.weights = matrix + (size_t)(t.panel * PD_PANEL_COLUMNS) * column;
    }
    const bool all = n_chunks < p->n_chunks;
    const int64_t from = all ? 0 : within % n_chunks, to = all ? p->n_chunks : from + 1;
    for (t.chunk = from; t.chunk < to; t.chunk++) {
        const int64_t row = t.chunk * p->chunk;
        t.source = (const char *)o->source + (size_t)i3 * p->source_nb3 + (size_t)i2 * p->source_nb2 +
                   (size_t)(row * p->source_stride_m) * p->source_number;
        char *destination = part_of(o->destination, i2, i3, row, t.panel);
        const bool adds = p->end == PD_PRODUCT_ADDS;
        t.destination = adds ? (char *)worker->tile + results_at(p) : destination;
        t.row_bytes = adds ? TILE_STRIDE * sizeof(float) : o->destination->nb[1];
        run_chunk(p, worker, &t, o->source, o->shared);
        if (adds)
            add_chunk(p, &t, part_of(o->addend, i2, i3, row, t.panel), o->addend->nb[1], destination,
                      o->destination->nb[1]);
    }
}

// The last thread to leave makes the product ready for its next run.
static void leave(pd_product *p, int nth) {
    if (!pd_tasks_leave(&p->tasks, nth) || p->n_outliers == 0) return;
    for (int64_t panel = 0; panel < p->n_panels; panel++)
        atomic_store_explicit(&p->ready[panel], false, memory_order_relaxed);
}

void pd_product_run(pd_product *p, pd_worker *worker, const pd_product_operands *operands, int nth) {
    for (int64_t index; (index = pd_tasks_take(&p->tasks)) < p->n_tasks;)
        run_task(p, worker, index, operands);
    leave(p, nth);
}

// A panel of each product for one chunk of rows.
static void run_gated_task(pd_product *const products[2], pd_worker *worker, int64_t index,
                           const pd_gated_operands *o) {
    const pd_product *gate = products[0];
    void *const shared[2] = {o->shared, (char *)o->shared + pd_product_shared_bytes(gate)};
    int64_t made;
    if (makes_outlier_weights(gate, &index, &made)) {
        for (int i = 0; i < 2; i++)
            make_outlier_weights(products[i], worker, made, o->source, shared[i]);
        return;
    }
    task t = {.panel = index / gate->n_chunks,
              .chunk = index % gate->n_chunks,
              .row_bytes = TILE_STRIDE * sizeof(float)};
    const int64_t row = t.chunk * gate->chunk;
    t.source = (const char *)o->source + (size_t)(row * gate->source_stride_m) * gate->source_number;
    float *results[2];
    for (size_t i = 0; i < 2; i++) {
        t.destination = (char *)worker->tile + results_at(gate) + i * result_bytes(gate);
        results[i] = (float *)t.destination;
        run_chunk(products[i], worker, &t, o->source, shared[i]);
    }
    const int64_t columns = pd_panel_columns(gate->n, t.panel);
    char *to = (char *)o->destination + (size_t)row * o->row_bytes +
               (size_t)(t.panel * PD_PANEL_COLUMNS) * pd_number_bytes(o->kind);
    for (int64_t r = 0; r < chunk_rows(gate, t.chunk); r++) {
        float *up = results[1] + r * TILE_STRIDE;
        pd_rows_gate(results[0] + r * TILE_STRIDE, up, columns);
        pd_rows_convert(GGML_TYPE_F32, up, o->kind, to + (size_t)r * o->row_bytes, NULL, columns);
    }
}

void pd_product_run_gated(pd_product *gate, pd_product *up, pd_worker *worker,
                          const pd_gated_operands *operands, int nth) {
    pd_product *const products[2] = {gate, up};
    for (int64_t index; (index = pd_tasks_take(&gate->tasks)) < gate->n_tasks;)
        run_gated_task(products, worker, index, operands);
    // Its outlier weights are the other's business too, and done when all have left.
    leave(up, nth);
    leave(gate, nth);
}
