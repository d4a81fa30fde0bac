#include "onednn/product.h"

#include "base/tasks.h"
#include "onednn/amx.h"
#include "onednn/finish.h"
#include "onednn/int16.h"

#include <stdlib.h>

// Rows of a task when each panel of weights is converted on the way: long, so that a conversion serves many.
enum { LONG_CHUNK_ROWS = 512, CHUNK_GRAIN = 16 };
// amx.h's kernels want so many that the sums and a slice of both factors fit the second-level cache, in
// blocks of 32.
enum { TALL_CHUNK_ROWS = 320, TALL_CHUNK_GRAIN = 32 };
// Bytes of a source that the caches hold from one panel to the next.
enum { LONG_SOURCE = 8 << 20 };
// A copy pays for itself with so many rows.
enum { ALIASING_BYTES = 2048, LEAST_COPIED_FOR = 64, COPIED_CHUNK_ROWS = 256 };
// Where a panel is so few weights that calling oneDNN counts beside multiplying.
enum { SMALL_PANEL = 1 << 17, SMALL_PANEL_CHUNK_ROWS = 256 };
// Numbers from row to row of a worker's tile: an odd number of lines, so that rows fall on all of a cache's
// sets.
enum { TILE_STRIDE = PD_PANEL_MOST };
// What a task costs beside its rows, in rows, and with outliers, whose weights it fetches one by one; and the
// per cent of time that another cut must save.
enum { TASK_ROWS = 4, OUTLIER_TASK_ROWS = 64, WORTHWHILE = 2 };

struct pd_product {
    pd_number_kind kind;
    const pd_packed *packed;
    pd_product_end end;
    bool outer;    // OUT_PROD: weights' rows run along the inner dimension
    bool converts; // weights go through worker->panel
    bool copies;   // as they are, for their rows lie too evenly; each task has a copy of its own
    bool tall;     // amx.h's kernels multiply
    bool finishes; // and hand their sums over block by block
    bool whole;    // a task is all chunks of a panel
    int64_t m, n, k, n_panels;
    int64_t chunk, n_chunks, tasks_per_batch, n_tasks;
    int64_t group, n_groups;
    int64_t n2, n3, broadcast2, broadcast3;       // batches, and how many of them share weights
    int64_t source_stride_m, source_stride_k;     // numbers
    int64_t weights_stride_k, weights_stride_n;   // numbers, of what a task multiplies
    size_t source_number, source_nb2, source_nb3; // bytes: one number, a step of each batch dimension
    bool has_activations;
    pd_activations activations;
    const pd_gemm *gemms[8];    // [last chunk + 2 · narrow panel + 4 · short group]
    int64_t n_outliers;         // int8
    const pd_gemm *outliers[4]; // [last chunk + 2 · narrow panel]: their part of the results
    size_t scratch_bytes;
    pd_tasks tasks;
};

static int64_t ceiling(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// Chunks of a task.
static int64_t task_chunks(const pd_product *p) {
    return p->whole ? p->n_chunks : 1;
}

static void cut_into(pd_product *p, int64_t n, bool whole) {
    const int64_t grain = p->kind == PD_NUMBER_INT16 ? PD_INT16_ROWS
                          : p->tall                  ? TALL_CHUNK_GRAIN
                                                     : CHUNK_GRAIN;
    p->chunk = ceiling(ceiling(p->m, n), grain) * grain;
    if (p->chunk > p->m) p->chunk = p->m;
    p->n_chunks = ceiling(p->m, p->chunk);
    p->whole = whole;
    p->tasks_per_batch = p->n_panels * p->n_chunks / task_chunks(p);
    p->n_tasks = p->tasks_per_batch * p->n2 * p->n3;
}

// How long it takes, in rows of a panel, when all threads take as many tasks or one more.
static int64_t rows_in_turn(const pd_product *p, int32_t n_threads) {
    const int64_t beside = p->n_outliers > 0 ? OUTLIER_TASK_ROWS : TASK_ROWS;
    return ceiling(p->n_tasks, n_threads) * (task_chunks(p) * p->chunk + beside);
}

// Chunks of about `longest` rows, alike but for the last, in sizes that prompts of many lengths share, or
// that the int16 kernel fills. Of a product of few tasks the last ones leave threads idle: other sizes, up to
// half as long again, or half, may share out better. A converted panel serves all its chunks in one task; so
// may one whose outliers' weights are made.
static void cut_rows(pd_product *p, int64_t longest, int32_t n_threads) {
    const int64_t n = ceiling(p->m, longest);
    if (p->converts && !p->copies) {
        cut_into(p, n, true);
        return;
    }
    int64_t best = n;
    bool best_whole = false;
    cut_into(p, n, false);
    int64_t least = rows_in_turn(p, n_threads) * (100 - WORTHWHILE) / 100;
    for (int whole = 0; whole <= (p->n_outliers > 0); whole++) {
        for (int64_t other = ceiling(p->m, longest + longest / 2); other <= 2 * n; other++) {
            cut_into(p, other, whole);
            const int64_t rows = rows_in_turn(p, n_threads);
            if (rows >= least) continue;
            least = rows;
            best = other;
            best_whole = whole;
        }
    }
    cut_into(p, best, best_whole);
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

// Whether results stay with the thread until they are finished: in the cache.
static bool keeps_results(const pd_product *p) {
    return p->end == PD_PRODUCT_ADDS || p->end == PD_PRODUCT_GATES;
}

// Numbers from row to row of what a task multiplies to.
static int64_t result_stride(const pd_product *p, const struct ggml_tensor *node) {
    return keeps_results(p) || p->kind == PD_NUMBER_INT8 ? TILE_STRIDE
                                                         : (int64_t)(node->nb[1] / sizeof(float));
}

// Products of outliers with their weights are a part of the result.
static pd_status get_outlier_gemms(pd_gemm_cache *cache, pd_product *p, pd_error *err) {
    for (int i = 0; i < 4; i++) {
        const int64_t chunk = i & 1 ? p->n_chunks - 1 : 0, panel = i & 2 ? p->n_panels - 1 : 0;
        pd_gemm_shape shape = {.m = chunk_rows(p, chunk),
                               .n = pd_panel_columns(p->n, panel),
                               .k = p->n_outliers,
                               .source_stride_m = p->n_outliers,
                               .source_stride_k = 1,
                               .weights_stride_k = PD_PANEL_MOST,
                               .weights_stride_n = 1,
                               .destination_stride_m = TILE_STRIDE};
        pd_gemm_set_types(&shape, p->activations.outlier_kind);
        PD_TRY(get_gemm(cache, p, &shape, &p->outliers[i], err));
    }
    return PD_OK;
}

static pd_status get_gemms(pd_gemm_cache *cache, pd_product *p, const struct ggml_tensor *node,
                           pd_error *err) {
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
                               .destination_stride_m = result_stride(p, node),
                               .accumulate = p->end == PD_PRODUCT_ACCUMULATES};
        pd_gemm_set_types(&shape, p->kind);
        PD_TRY(get_gemm(cache, p, &shape, &p->gemms[i], err));
    }
    return p->n_outliers > 0 && !p->finishes ? get_outlier_gemms(cache, p, err) : PD_OK;
}

// Tiles can multiply outliers too, beside a block, where the whole inner dimension is one group.
static bool finishes_blocks(const pd_product *p) {
    if (!p->tall || p->n_groups > 1) return false;
    return p->n_outliers == 0 || (p->activations.outlier_kind == PD_NUMBER_BF16 &&
                                  pd_amx_multiplies(PD_NUMBER_BF16, p->n_outliers));
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
    p->finishes = finishes_blocks(p);
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
    for (int i = 0; i < 4; i++)
        pd_gemm_release(cache, p->outliers[i]);
    free(p);
}

const pd_activations *pd_product_activations(const pd_product *p) {
    return p->has_activations ? &p->activations : NULL;
}

// A converted panel in the product's numbers, behind a row of it in f32.
static int64_t panel_row(const pd_product *p) {
    return p->outer ? PD_PANEL_MOST : p->k;
}

// A worker's tile holds so many matrices of a chunk's results, numbers of four bytes, one after another:
// gates, which wait for what they are multiplied with, and what is not finished block by block.
enum { GATES = 0, MOST_MATRICES = 4 };

static int n_matrices(const pd_product *p) {
    if (p->finishes) return p->end == PD_PRODUCT_GATES ? GATES + 1 : 0;
    return p->kind == PD_NUMBER_INT8 ? MOST_MATRICES : keeps_results(p) ? GATES + 2 : 0;
}

static void *matrix(const pd_product *p, const pd_worker *worker, int i) {
    return (float *)worker->tile + i * p->chunk * TILE_STRIDE;
}

// What a worker's panel holds of outliers' weights: a row of them in f32, all as the product wants them
// ([n_outliers][PD_PANEL_MOST]), and for tiles packed.
static size_t outlier_rows_at(void) {
    return PD_PANEL_MOST * sizeof(float);
}

static size_t outlier_tiles_at(const pd_product *p) {
    return outlier_rows_at() +
           (size_t)(p->n_outliers * PD_PANEL_MOST) * pd_number_bytes(p->activations.outlier_kind);
}

static size_t outlier_weight_bytes(const pd_product *p) {
    if (p->n_outliers == 0) return 0;
    return pd_whole_lines(outlier_tiles_at(p)) +
           (p->finishes ? pd_amx_packed_bytes(PD_NUMBER_BF16, PD_PANEL_MOST, p->n_outliers) : 0);
}

void pd_product_worker_bytes(const pd_product *p, size_t *scratch, size_t *panel, size_t *tile) {
    *scratch = p->scratch_bytes;
    const size_t row = p->has_activations ? (size_t)p->activations.inner * sizeof(float) : 0;
    const size_t outliers = (p->end == PD_PRODUCT_GATES ? 2 : 1) * outlier_weight_bytes(p);
    *panel = p->converts ? (size_t)panel_row(p) * sizeof(float) +
                               (size_t)(p->k * PD_PANEL_MOST) * pd_number_bytes(p->kind)
             : row > outliers ? row
                              : outliers;
    *tile = (size_t)(n_matrices(p) * p->chunk * TILE_STRIDE) * sizeof(float);
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
    const char *source;      // of the chunk's first row
    const void *weights;     // of the panel; packed ones are found by their groups
    const void *activations; // of all batches; integers
    int slot;                // of outliers' weights: 1 for the second product of a task, else 0
    const void *outliers;    // their weights of the panel; NULL: not made yet
} task;

static int64_t first_row(const pd_product *p, const task *t) {
    return t->chunk * p->chunk;
}

// What run_task and run_gated_task ask of their results, and that eight bits are scaled first.
static pd_finish scaled(const pd_product *p, const task *t, const pd_finish *finish, int64_t g) {
    pd_finish all = *finish;
    const int64_t first = g * p->n + t->panel * PD_PANEL_COLUMNS;
    all.row_scales =
        pd_activations_scales(&p->activations, t->activations, t->batch) + first_row(p, t) * p->n_groups + g;
    all.row_scales_stride = p->n_groups;
    all.column_scales = p->packed->scales + first;
    all.column_sums = p->packed->sums + first;
    all.zero = p->packed->range.zero;
    return all;
}

static pd_finish_part whole_chunk(const pd_product *p, const task *t, const void *sums) {
    return (pd_finish_part){.rows = chunk_rows(p, t->chunk),
                            .columns = pd_panel_columns(p->n, t->panel),
                            .sums = sums,
                            .sums_stride = TILE_STRIDE};
}

// ---- outliers ----------------------------------------------------------------------------------------------

static const char *outliers_of(const pd_product *p, const task *t) {
    const pd_activations *a = &p->activations;
    return (const char *)pd_activations_outliers(a, t->activations, t->batch) +
           (size_t)(first_row(p, t) * p->n_outliers) * pd_number_bytes(a->outlier_kind);
}

// Their weights of the task's panel, made once in worker->panel.
static const void *outlier_weights(const pd_product *p, const pd_worker *worker, task *t) {
    if (t->outliers) return t->outliers;
    const int32_t *channels = pd_activations_channels(&p->activations, t->activations);
    const pd_number_kind kind = p->activations.outlier_kind;
    const int64_t columns = pd_panel_columns(p->n, t->panel);
    char *row = (char *)worker->panel + (size_t)t->slot * outlier_weight_bytes(p),
         *rows = row + outlier_rows_at();
    enum { AHEAD = 2 }; // rows; the first-level cache waits for no more lines at once
    for (int64_t i = 0; i < AHEAD && i < p->n_outliers; i++)
        pd_packed_fetch_row(p->packed, t->panel, channels[i]);
    for (int64_t i = 0; i < p->n_outliers; i++) {
        if (i + AHEAD < p->n_outliers) pd_packed_fetch_row(p->packed, t->panel, channels[i + AHEAD]);
        pd_packed_row(p->packed, t->panel, channels[i], (float *)row);
        pd_rows_convert(GGML_TYPE_F32, row, kind, rows + (size_t)(i * PD_PANEL_MOST) * pd_number_bytes(kind),
                        NULL, columns);
    }
    t->outliers = rows;
    if (p->finishes) {
        char *tiles = row + pd_whole_lines(outlier_tiles_at(p));
        pd_amx_pack(kind, columns, p->n_outliers, rows, PD_PANEL_MOST, 1, tiles);
        t->outliers = tiles;
    }
    return t->outliers;
}

// ---- a chunk of rows by a panel ----------------------------------------------------------------------------

// What becomes of a task's blocks.
typedef struct {
    const pd_product *product;
    const pd_worker *worker;
    task *task;
    pd_finish finish;
} block_user;

static void finish_block(const void *user, const pd_amx_block *block) {
    const block_user *u = user;
    pd_finish_run(&u->finish, &(pd_finish_part){.row = block->row,
                                                .column = block->column,
                                                .rows = block->rows,
                                                .columns = block->columns,
                                                .sums = block->sums,
                                                .sums_stride = PD_AMX_BLOCK,
                                                .more = block->more,
                                                .more_stride = PD_AMX_BLOCK});
}

static const void *blocks_outlier_weights(const void *user) {
    const block_user *u = user;
    return outlier_weights(u->product, u->worker, u->task);
}

static void run_blocks(const pd_product *p, const pd_worker *worker, task *t, const pd_finish *finish) {
    const bool integers = p->kind == PD_NUMBER_INT8;
    const pd_finish all = integers ? scaled(p, t, finish, 0) : *finish;
    const block_user user = {.product = p, .worker = worker, .task = t, .finish = all};
    const size_t number = pd_number_bytes(p->activations.outlier_kind);
    pd_amx_product product = {.kind = p->kind,
                              .rows = chunk_rows(p, t->chunk),
                              .columns = pd_panel_columns(p->n, t->panel),
                              .k = p->k,
                              .source = t->source,
                              .source_stride = (size_t)p->source_stride_m * p->source_number,
                              .weights = pd_packed_block(p->packed, t->panel, 0),
                              .sums = worker->scratch,
                              .finish = finish_block,
                              .user = &user,
                              .touched = {{all.destination, all.row_bytes, pd_number_bytes(all.kind)},
                                          {all.addend, all.addend_row_bytes, sizeof(float)}}};
    if (p->n_outliers > 0) {
        product.more_source = outliers_of(p, t);
        product.more_source_stride = (size_t)p->n_outliers * number;
        product.more_weights = blocks_outlier_weights;
        product.more_k = p->n_outliers;
    }
    pd_amx_multiply(&product);
}

// Group by group, the results so far in one of two matrices.
static void run_groups(const pd_product *p, pd_worker *worker, task *t, const pd_finish *finish) {
    enum { SUMS = GATES + 1, RESULTS };
    const int last_chunk = t->chunk == p->n_chunks - 1, last_panel = t->panel == p->n_panels - 1;
    float *now = NULL, *next = matrix(p, worker, RESULTS);
    if (p->n_outliers > 0) {
        now = matrix(p, worker, RESULTS + 1);
        pd_gemm_run(p->outliers[last_chunk + 2 * last_panel], worker, outliers_of(p, t),
                    outlier_weights(p, worker, t), now);
    }
    for (int64_t g = 0; g < p->n_groups; g++) {
        const int last_group = g == p->n_groups - 1;
        pd_gemm_run(p->gemms[last_chunk + 2 * last_panel + 4 * last_group], worker, t->source + g * p->group,
                    pd_packed_block(p->packed, t->panel, g), matrix(p, worker, SUMS));
        pd_finish_part part = whole_chunk(p, t, matrix(p, worker, SUMS));
        part.more = now;
        part.more_stride = TILE_STRIDE;
        const pd_finish so_far = {
            .kind = PD_NUMBER_F32, .destination = (char *)next, .row_bytes = TILE_STRIDE * sizeof(float)};
        const pd_finish all = scaled(p, t, last_group ? finish : &so_far, g);
        pd_finish_run(&all, &part);
        float *const before = now ? now : matrix(p, worker, RESULTS + 1);
        now = next;
        next = before;
    }
}

static void run_int16(const pd_product *p, const task *t, float *results, int64_t stride) {
    pd_int16_multiply(&(pd_int16_product){
        .rows = chunk_rows(p, t->chunk),
        .columns = pd_panel_columns(p->n, t->panel),
        .k = p->k,
        .source = (const int16_t *)t->source,
        .source_stride = p->source_stride_m,
        .source_scales =
            pd_activations_scales(&p->activations, t->activations, t->batch) + first_row(p, t) * p->n_groups,
        .panel = (const int16_t *)pd_packed_block(p->packed, t->panel, 0),
        .panel_scales = p->packed->scales + t->panel * PD_PANEL_COLUMNS,
        .panel_scales_stride = p->n,
        .destination = results,
        .destination_stride = stride});
}

// Products whose results are floats, straight to their destination where nothing is to be done with them.
static void run_floats(const pd_product *p, pd_worker *worker, const task *t, const pd_finish *finish) {
    const bool as_is = !finish->gate && !finish->addend && finish->kind == PD_NUMBER_F32;
    float *results = as_is ? (float *)finish->destination : matrix(p, worker, GATES + 1);
    if (p->packed && p->kind == PD_NUMBER_INT16) {
        run_int16(p, t, results, as_is ? (int64_t)(finish->row_bytes / sizeof *results) : TILE_STRIDE);
    } else {
        const int last_chunk = t->chunk == p->n_chunks - 1, last_panel = t->panel == p->n_panels - 1;
        const void *weights = p->packed ? pd_packed_block(p->packed, t->panel, 0) : t->weights;
        pd_gemm_run(p->gemms[last_chunk + 2 * last_panel], worker, t->source, weights, results);
    }
    const pd_finish_part part = whole_chunk(p, t, results);
    if (!as_is) pd_finish_run(finish, &part);
}

// `finish` counts rows and columns from the chunk's and the panel's first on.
static void run_chunk(const pd_product *p, pd_worker *worker, task *t, const pd_finish *finish) {
    if (p->packed && p->finishes && (keeps_results(p) || p->kind == PD_NUMBER_INT8)) {
        run_blocks(p, worker, t, finish);
    } else if (p->packed && p->kind == PD_NUMBER_INT8) {
        run_groups(p, worker, t, finish);
    } else {
        run_floats(p, worker, t, finish);
    }
}

// Where column `panel` · PD_PANEL_COLUMNS of a row of a batch is.
static char *part_of(const struct ggml_tensor *tensor, int64_t i2, int64_t i3, int64_t row, int64_t panel) {
    return (char *)tensor->data + (size_t)i3 * tensor->nb[3] + (size_t)i2 * tensor->nb[2] +
           (size_t)row * tensor->nb[1] + (size_t)(panel * PD_PANEL_COLUMNS) * sizeof(float);
}

// Task `index` of a batch: its panel, and its chunks first … end. Neighbours share a panel, or, where the
// source is so long that it would outgrow the caches from one panel to the next, a chunk.
static int64_t find_panel(const pd_product *p, int64_t index, int64_t *first, int64_t *end) {
    const int64_t tasks = p->n_chunks / task_chunks(p);
    const bool chunk_by_chunk =
        p->tall && (size_t)(p->m * p->source_stride_m) * p->source_number > LONG_SOURCE;
    *first = chunk_by_chunk ? index / p->n_panels : index % tasks;
    *end = p->whole ? p->n_chunks : *first + 1;
    return chunk_by_chunk ? index % p->n_panels : index / tasks;
}

static void run_task(const pd_product *p, pd_worker *worker, int64_t index, const pd_product_operands *o) {
    const int64_t batch = index / p->tasks_per_batch, i2 = batch % p->n2, i3 = batch / p->n2;
    int64_t first, end;
    task t = {.batch = batch, .activations = o->source};
    t.panel = find_panel(p, index % p->tasks_per_batch, &first, &end);
    const struct ggml_tensor *weights = o->weights;
    const char *numbers = (const char *)weights->data + (size_t)(i2 / p->broadcast2) * weights->nb[2] +
                          (size_t)(i3 / p->broadcast3) * weights->nb[3];
    if (p->converts) {
        t.weights = convert_panel(p, worker, weights, numbers, t.panel);
    } else if (!p->packed) {
        const size_t column = weights->nb[p->outer ? 0 : 1];
        t.weights = numbers + (size_t)(t.panel * PD_PANEL_COLUMNS) * column;
    }
    for (t.chunk = first; t.chunk < end; t.chunk++) {
        const int64_t row = first_row(p, &t);
        t.source = (const char *)o->source + (size_t)i3 * p->source_nb3 + (size_t)i2 * p->source_nb2 +
                   (size_t)(row * p->source_stride_m) * p->source_number;
        pd_finish finish = {.kind = PD_NUMBER_F32,
                            .destination = part_of(o->destination, i2, i3, row, t.panel),
                            .row_bytes = o->destination->nb[1]};
        if (p->end == PD_PRODUCT_ADDS) {
            finish.addend = part_of(o->addend, i2, i3, row, t.panel);
            finish.addend_row_bytes = o->addend->nb[1];
        }
        run_chunk(p, worker, &t, &finish);
    }
}

void pd_product_run(pd_product *p, pd_worker *worker, const pd_product_operands *operands, int nth) {
    for (int64_t index; (index = pd_tasks_take(&p->tasks)) < p->n_tasks;)
        run_task(p, worker, index, operands);
    pd_tasks_leave(&p->tasks, nth);
}

// A panel of each product for one chunk of rows, or all.
static void run_gated_task(pd_product *const products[2], pd_worker *worker, int64_t index,
                           const pd_gated_operands *o) {
    const pd_product *gate = products[0];
    int64_t first, end;
    const int64_t panel = find_panel(gate, index, &first, &end);
    task t[2];
    for (int i = 0; i < 2; i++)
        t[i] = (task){.panel = panel, .activations = o->source, .slot = i};
    float *gates = matrix(gate, worker, GATES);
    const size_t column = (size_t)(panel * PD_PANEL_COLUMNS) * pd_number_bytes(o->kind);
    for (int64_t chunk = first; chunk < end; chunk++) {
        t[0].chunk = t[1].chunk = chunk;
        const int64_t row = first_row(gate, t);
        t[0].source = t[1].source =
            (const char *)o->source + (size_t)(row * gate->source_stride_m) * gate->source_number;
        const pd_finish as_gates = {
            .kind = PD_NUMBER_F32, .destination = (char *)gates, .row_bytes = TILE_STRIDE * sizeof *gates};
        run_chunk(gate, worker, &t[0], &as_gates);
        const pd_finish gated = {.gate = gates,
                                 .gate_stride = TILE_STRIDE,
                                 .kind = o->kind,
                                 .destination = (char *)o->destination + (size_t)row * o->row_bytes + column,
                                 .row_bytes = o->row_bytes};
        run_chunk(products[1], worker, &t[1], &gated);
    }
}

void pd_product_run_gated(pd_product *gate, pd_product *up, pd_worker *worker,
                          const pd_gated_operands *operands, int nth) {
    pd_product *const products[2] = {gate, up};
    for (int64_t index; (index = pd_tasks_take(&gate->tasks)) < gate->n_tasks;)
        run_gated_task(products, worker, index, operands);
    pd_tasks_leave(&gate->tasks, nth);
}
