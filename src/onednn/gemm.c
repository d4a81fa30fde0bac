#include "onednn/gemm.h"

#include "base/memory.h"
#include "onednn/amx.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if DNNL_CPU_RUNTIME == DNNL_RUNTIME_OMP
#include <omp.h>
#endif

struct pd_gemm {
    pd_gemm_shape shape;
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t source, weights, destination, scratchpad;
    dnnl_engine_t engine;
    // oneDNN errs on a single column with a stride (seen with 3.7's kernels for AVX2 and AVX-512), and on a
    // single row of distant numbers (3.7's for bf16): it is given such without, in the scratch memory.
    bool is_column, is_row;
    bool tiles;       // amx.h's kernels in place of a primitive
    int64_t *columns; // where columns of packed eight-bit weights begin, [n]; NULL: others, or tiles
    uint64_t id;      // never given twice in a cache
    int64_t users;
    uint64_t last_used;
};

// Unused primitives beyond so many go, the oldest first: prompts of other lengths bring others.
enum { KEPT_ENTRIES = 512 };

struct pd_gemm_cache {
    dnnl_engine_t engine;
    pthread_mutex_t mutex;
    pd_gemm **entries;
    size_t n_entries, capacity;
    uint64_t clock;
};

static const char *type_name(dnnl_data_type_t source) {
    return source == dnnl_f32 ? "f32" : source == dnnl_bf16 ? "bf16" : "int8";
}

static pd_status fail(pd_error *err, dnnl_status_t status, const char *what) {
    const pd_status code = status == dnnl_out_of_memory   ? PD_ERR_MEMORY
                           : status == dnnl_unimplemented ? PD_ERR_UNSUPPORTED
                                                          : PD_ERR_BACKEND;
    return pd_fail(err, code, "oneDNN: %s: %s", what,
                   status == dnnl_out_of_memory   ? "out of memory"
                   : status == dnnl_unimplemented ? "no kernel for this CPU"
                                                  : "failed");
}

void *pd_aligned_alloc(size_t bytes) {
    const size_t huge = (size_t)2 << 20, alignment = bytes >= 4 * huge ? huge : 64;
    if (bytes > SIZE_MAX - alignment) return NULL;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    void *memory = aligned_alloc(alignment, rounded ? rounded : alignment);
    if (memory) pd_advise_huge_pages(memory, rounded);
    return memory;
}

void pd_gemm_set_types(pd_gemm_shape *shape, pd_number_kind kind) {
    shape->source = kind == PD_NUMBER_F32 ? dnnl_f32 : kind == PD_NUMBER_BF16 ? dnnl_bf16 : dnnl_u8;
    shape->weights = kind == PD_NUMBER_INT8 ? dnnl_s8 : shape->source;
    shape->destination = kind == PD_NUMBER_INT8 ? dnnl_s32 : dnnl_f32;
}

pd_status pd_gemm_cache_create(pd_gemm_cache **out, pd_error *err) {
    *out = NULL;
    pd_gemm_cache *cache = calloc(1, sizeof *cache);
    if (!cache) return pd_fail_memory(err, sizeof *cache, "oneDNN");
    const dnnl_status_t status = dnnl_engine_create(&cache->engine, dnnl_cpu, 0);
    if (status != dnnl_success) {
        free(cache);
        return fail(err, status, "the CPU engine");
    }
    pthread_mutex_init(&cache->mutex, NULL);
    *out = cache;
    return PD_OK;
}

static void gemm_free(pd_gemm *gemm) {
    if (!gemm) return;
    if (gemm->primitive) dnnl_primitive_destroy(gemm->primitive);
    if (gemm->source) dnnl_memory_desc_destroy(gemm->source);
    if (gemm->weights) dnnl_memory_desc_destroy(gemm->weights);
    if (gemm->destination) dnnl_memory_desc_destroy(gemm->destination);
    if (gemm->scratchpad) dnnl_memory_desc_destroy(gemm->scratchpad);
    free(gemm->columns);
    free(gemm);
}

void pd_gemm_cache_free(pd_gemm_cache *cache) {
    if (!cache) return;
    for (size_t i = 0; i < cache->n_entries; i++)
        gemm_free(cache->entries[i]);
    free(cache->entries);
    dnnl_engine_destroy(cache->engine);
    pthread_mutex_destroy(&cache->mutex);
    free(cache);
}

// The threads are ggml's, and each runs its own primitives: oneDNN must plan for one. The setting belongs to
// the calling thread.
static int plan_for_one_thread(void) {
#if DNNL_CPU_RUNTIME == DNNL_RUNTIME_OMP
    const int before = omp_get_max_threads();
    omp_set_num_threads(1);
    return before;
#else
    return 1;
#endif
}

static void plan_as_before(int threads) {
#if DNNL_CPU_RUNTIME == DNNL_RUNTIME_OMP
    omp_set_num_threads(threads);
#else
    (void)threads;
#endif
}

static dnnl_status_t make_attributes(bool accumulate, dnnl_primitive_attr_t *attributes) {
    dnnl_post_ops_t post = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(attributes);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(*attributes, dnnl_scratchpad_mode_user);
    if (status == dnnl_success && accumulate) {
        status = dnnl_post_ops_create(&post);
        if (status == dnnl_success) status = dnnl_post_ops_append_sum(post, 1.0F, 0, dnnl_data_type_undef);
        if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(*attributes, post);
    }
    if (post) dnnl_post_ops_destroy(post);
    return status;
}

static dnnl_status_t describe_matrices(pd_gemm *gemm) {
    const pd_gemm_shape *s = &gemm->shape;
    const dnnl_dims_t source = {s->m, s->k}, source_strides = {gemm->is_row ? s->k : s->source_stride_m,
                                                               gemm->is_row ? 1 : s->source_stride_k};
    const dnnl_dims_t weights = {s->k, s->n}, weights_strides = {s->weights_stride_k, s->weights_stride_n};
    const dnnl_dims_t destination = {s->m, s->n},
                      destination_strides = {gemm->is_column ? 1 : s->destination_stride_m, 1};
    dnnl_status_t status =
        dnnl_memory_desc_create_with_strides(&gemm->source, 2, source, s->source, source_strides);
    if (status != dnnl_success) return status;
    status = dnnl_memory_desc_create_with_strides(&gemm->destination, 2, destination, s->destination,
                                                  destination_strides);
    if (status != dnnl_success) return status;
    if (s->packed_like) return dnnl_memory_desc_clone(&gemm->weights, s->packed_like->weights);
    if (s->weights_stride_k == 0 && s->weights_stride_n == 0)
        return dnnl_memory_desc_create_with_tag(&gemm->weights, 2, weights, s->weights, dnnl_format_tag_any);
    return dnnl_memory_desc_create_with_strides(&gemm->weights, 2, weights, s->weights, weights_strides);
}

// Replaces *copy by what the primitive says it will use.
static dnnl_status_t learn(const_dnnl_primitive_desc_t description, dnnl_query_t what,
                           dnnl_memory_desc_t *copy) {
    if (*copy) dnnl_memory_desc_destroy(*copy);
    *copy = NULL;
    return dnnl_memory_desc_clone(copy, dnnl_primitive_desc_query_md(description, what, 0));
}

// Where number (i, j) of a matrix is in oneDNN's layout of blocks, the innermost of which are described from
// the outside in.
static dnnl_status_t locate(const_dnnl_memory_desc_t matrix, int64_t i, int64_t j, int64_t *offset) {
    dnnl_format_kind_t format;
    int n_blocks;
    const dnnl_dims_t *sizes, *dimensions, *strides;
    if (dnnl_memory_desc_query(matrix, dnnl_query_format_kind, &format) != dnnl_success ||
        format != dnnl_blocked ||
        dnnl_memory_desc_query(matrix, dnnl_query_inner_nblks_s32, &n_blocks) != dnnl_success ||
        dnnl_memory_desc_query(matrix, dnnl_query_inner_blks, &sizes) != dnnl_success ||
        dnnl_memory_desc_query(matrix, dnnl_query_inner_idxs, &dimensions) != dnnl_success ||
        dnnl_memory_desc_query(matrix, dnnl_query_strides, &strides) != dnnl_success)
        return dnnl_unimplemented;
    int64_t at[2] = {i, j}, inner = 1;
    *offset = 0;
    for (int b = n_blocks - 1; b >= 0; b--) {
        const int64_t size = (*sizes)[b], d = (*dimensions)[b];
        *offset += at[d] % size * inner;
        at[d] /= size;
        inner *= size;
    }
    *offset += at[0] * (*strides)[0] + at[1] * (*strides)[1];
    return dnnl_success;
}

static bool is_packed(const pd_gemm_shape *shape) {
    return !shape->packed_like && shape->weights_stride_k == 0 && shape->weights_stride_n == 0;
}

static dnnl_status_t learn_columns(pd_gemm *gemm) {
    const int64_t n = gemm->shape.n;
    gemm->columns = calloc((size_t)n, sizeof *gemm->columns);
    if (!gemm->columns) return dnnl_out_of_memory;
    dnnl_status_t status = dnnl_success;
    for (int64_t j = 0; j < n && status == dnnl_success; j++)
        status = locate(gemm->weights, 0, j, &gemm->columns[j]);
    return status;
}

// Plain loops are slower than ggml's kernels. What x86 has generated code for under the name "gemm:jit" is
// such a loop elsewhere.
static bool is_plain(const char *name) {
#if defined(__x86_64__)
    return strstr(name, "ref") != NULL;
#else
    return strstr(name, "ref") != NULL || strncmp(name, "gemm:jit", sizeof "gemm:jit" - 1) == 0;
#endif
}

static pd_number_kind kind_of(const pd_gemm_shape *shape) {
    return shape->source == dnnl_f32    ? PD_NUMBER_F32
           : shape->source == dnnl_bf16 ? PD_NUMBER_BF16
                                        : PD_NUMBER_INT8;
}

// Only packed weights have amx.h's layout.
static bool takes_tiles(const pd_gemm_shape *shape) {
    if (shape->packed_like) return shape->packed_like->tiles;
    return is_packed(shape) && shape->source_stride_k == 1 && pd_amx_multiplies(kind_of(shape), shape->k);
}

static dnnl_status_t gemm_init(pd_gemm *gemm) {
    gemm->tiles = takes_tiles(&gemm->shape);
    if (gemm->tiles) return dnnl_success;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t description = NULL;
    dnnl_status_t status = describe_matrices(gemm);
    if (status == dnnl_success) status = make_attributes(gemm->shape.accumulate, &attributes);
    const int threads = plan_for_one_thread();
    if (status == dnnl_success) {
        status = dnnl_matmul_primitive_desc_create(&description, gemm->engine, gemm->source, gemm->weights,
                                                   NULL, gemm->destination, attributes);
    }
    const char *name = NULL;
    if (status == dnnl_success)
        status = dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, &name);
    if (status == dnnl_success && is_plain(name)) status = dnnl_unimplemented;
    if (status == dnnl_success) status = learn(description, dnnl_query_weights_md, &gemm->weights);
    if (status == dnnl_success && is_packed(&gemm->shape) && gemm->shape.weights == dnnl_s8)
        status = learn_columns(gemm);
    if (status == dnnl_success) status = learn(description, dnnl_query_scratchpad_md, &gemm->scratchpad);
    if (status == dnnl_success) status = dnnl_primitive_create(&gemm->primitive, description);
    plan_as_before(threads);
    if (description) dnnl_primitive_desc_destroy(description);
    if (attributes) dnnl_primitive_attr_destroy(attributes);
    return status;
}

static bool same_shape(const pd_gemm_shape *a, const pd_gemm_shape *b) {
    return a->m == b->m && a->n == b->n && a->k == b->k && a->source_stride_m == b->source_stride_m &&
           a->source_stride_k == b->source_stride_k && a->weights_stride_k == b->weights_stride_k &&
           a->weights_stride_n == b->weights_stride_n && a->packed_like == b->packed_like &&
           a->destination_stride_m == b->destination_stride_m && a->source == b->source &&
           a->weights == b->weights && a->destination == b->destination && a->accumulate == b->accumulate;
}

// Users of an entry, which to them is immutable.
static void add_users(pd_gemm_cache *cache, const pd_gemm *gemm, int64_t users) {
    for (size_t i = 0; gemm && i < cache->n_entries; i++) {
        if (cache->entries[i] == gemm) cache->entries[i]->users += users;
    }
}

// Frees the unused primitive that has waited longest; false when all are in use.
static bool evict(pd_gemm_cache *cache) {
    size_t oldest = cache->n_entries;
    for (size_t i = 0; i < cache->n_entries; i++) {
        if (cache->entries[i]->users > 0) continue;
        if (oldest == cache->n_entries || cache->entries[i]->last_used < cache->entries[oldest]->last_used)
            oldest = i;
    }
    if (oldest == cache->n_entries) return false;
    add_users(cache, cache->entries[oldest]->shape.packed_like, -1);
    gemm_free(cache->entries[oldest]);
    cache->entries[oldest] = cache->entries[--cache->n_entries];
    return true;
}

static pd_status get_locked(pd_gemm_cache *cache, const pd_gemm_shape *shape, const pd_gemm **out,
                            pd_error *err) {
    cache->clock++;
    for (size_t i = 0; i < cache->n_entries; i++) {
        pd_gemm *gemm = cache->entries[i];
        if (!same_shape(&gemm->shape, shape)) continue;
        gemm->users++;
        gemm->last_used = cache->clock;
        *out = gemm;
        return PD_OK;
    }
    while (cache->n_entries >= KEPT_ENTRIES && evict(cache)) {
    }
    if (cache->n_entries == cache->capacity) {
        const size_t capacity = cache->capacity ? 2 * cache->capacity : 64;
        pd_gemm **grown = realloc(cache->entries, capacity * sizeof(pd_gemm *));
        if (!grown) return pd_fail_memory(err, capacity * sizeof(pd_gemm *), "oneDNN primitives");
        cache->entries = grown;
        cache->capacity = capacity;
    }
    pd_gemm *gemm = calloc(1, sizeof *gemm);
    if (!gemm) return pd_fail_memory(err, sizeof *gemm, "a oneDNN primitive");
    *gemm = (pd_gemm){.shape = *shape,
                      .engine = cache->engine,
                      .is_column = shape->n == 1 && shape->destination_stride_m != 1,
                      .is_row = shape->m == 1 && shape->source_stride_k != 1,
                      .id = cache->clock,
                      .users = 1,
                      .last_used = cache->clock};
    const dnnl_status_t status = gemm_init(gemm);
    if (status != dnnl_success) {
        gemm_free(gemm);
        char what[128];
        snprintf(what, sizeof what, "a product of %lld × %lld by %lld × %lld numbers in %s",
                 (long long)shape->m, (long long)shape->k, (long long)shape->k, (long long)shape->n,
                 type_name(shape->source));
        return fail(err, status, what);
    }
    add_users(cache, shape->packed_like, 1); // its layout is known by its address
    cache->entries[cache->n_entries++] = gemm;
    *out = gemm;
    return PD_OK;
}

pd_status pd_gemm_get(pd_gemm_cache *cache, const pd_gemm_shape *shape, const pd_gemm **gemm, pd_error *err) {
    *gemm = NULL;
    pthread_mutex_lock(&cache->mutex);
    const pd_status status = get_locked(cache, shape, gemm, err);
    pthread_mutex_unlock(&cache->mutex);
    return status;
}

void pd_gemm_release(pd_gemm_cache *cache, const pd_gemm *gemm) {
    if (!gemm) return;
    pthread_mutex_lock(&cache->mutex);
    add_users(cache, gemm, -1);
    pthread_mutex_unlock(&cache->mutex);
}

// Where the column without a stride is in a worker's scratch memory, and the row.
static size_t column_at(const pd_gemm *gemm) {
    return pd_whole_lines(dnnl_memory_desc_get_size(gemm->scratchpad));
}

static size_t row_at(const pd_gemm *gemm) {
    return column_at(gemm) + (gemm->is_column ? pd_whole_lines((size_t)gemm->shape.m * sizeof(float)) : 0);
}

size_t pd_gemm_scratch_bytes(const pd_gemm *gemm) {
    if (gemm->tiles) return pd_amx_sums_bytes(gemm->shape.m, gemm->shape.n);
    return row_at(gemm) +
           (gemm->is_row ? (size_t)gemm->shape.k * dnnl_data_type_size(gemm->shape.source) : 0);
}

bool pd_gemm_has_tiles(const pd_gemm *gemm) {
    return gemm->tiles;
}

size_t pd_gemm_packed_bytes(const pd_gemm *gemm) {
    if (gemm->tiles) return pd_amx_packed_bytes(kind_of(&gemm->shape), gemm->shape.n, gemm->shape.k);
    return dnnl_memory_desc_get_size(gemm->weights);
}

// oneDNN takes no const data; what it is given as an input it only reads.
static dnnl_status_t wrap(dnnl_memory_t *memory, const_dnnl_memory_desc_t description, dnnl_engine_t engine,
                          const void *data) {
    return dnnl_memory_create(memory, description, engine, (void *)(uintptr_t)data);
}

static void free_handles(pd_gemm_handles *handles) {
    for (int i = 0; i < 4; i++) {
        if (handles->memory[i]) dnnl_memory_destroy(handles->memory[i]);
    }
    *handles = (pd_gemm_handles){0};
}

// The primitive's handles, without data.
static dnnl_status_t find_handles(const pd_gemm *gemm, const pd_worker *worker, pd_gemm_handles **found) {
    pd_gemm_handles *handles = *found = &worker->handles[gemm->id % PD_KEPT_HANDLES];
    if (handles->id == gemm->id) return dnnl_success;
    free_handles(handles);
    const const_dnnl_memory_desc_t descriptions[4] = {gemm->source, gemm->weights, gemm->destination,
                                                      gemm->scratchpad};
    dnnl_status_t status = dnnl_success;
    for (int i = 0; i < 4 && status == dnnl_success; i++)
        status = wrap(&handles->memory[i], descriptions[i], gemm->engine, DNNL_MEMORY_NONE);
    if (status == dnnl_success) handles->id = gemm->id;
    return status;
}

static void run(const pd_gemm *gemm, pd_worker *worker, const void *source, const void *weights,
                void *destination) {
    static const int roles[4] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
    const void *const data[4] = {source, weights, destination, worker->scratch};
    dnnl_exec_arg_t arguments[4];
    pd_gemm_handles *handles = NULL;
    dnnl_status_t status = find_handles(gemm, worker, &handles);
    for (int i = 0; i < 4 && status == dnnl_success; i++) {
        arguments[i] = (dnnl_exec_arg_t){.arg = roles[i], .memory = handles->memory[i]};
        // oneDNN takes no const data; what it is given as an input it only reads
        status = dnnl_memory_set_data_handle(handles->memory[i], (void *)(uintptr_t)data[i]);
    }
    const int threads = plan_for_one_thread(); // some kernels ask again
    if (status == dnnl_success)
        status = dnnl_primitive_execute(gemm->primitive, worker->stream, 4, arguments);
    if (status == dnnl_success) status = dnnl_stream_wait(worker->stream);
    plan_as_before(threads);
    if (status != dnnl_success) worker->failed = status;
}

static void run_tiles(const pd_gemm *gemm, const pd_worker *worker, const void *source, const void *weights,
                      void *destination) {
    const pd_gemm_shape *s = &gemm->shape;
    pd_amx_multiply(&(pd_amx_product){
        .kind = kind_of(s),
        .rows = s->m,
        .columns = s->n,
        .k = s->k,
        .source = source,
        .source_stride = (size_t)s->source_stride_m * dnnl_data_type_size(s->source),
        .weights = weights,
        .destination = destination,
        .destination_stride = (size_t)s->destination_stride_m * sizeof(float),
        .accumulate = s->accumulate,
        .sums = worker->scratch,
    });
}

// `n` numbers of `number` bytes each.
static void copy_numbers(const char *from, size_t from_stride, char *to, size_t to_stride, size_t number,
                         int64_t n) {
    for (size_t i = 0; i < (size_t)n; i++)
        memcpy(to + i * to_stride, from + i * from_stride, number);
}

void pd_gemm_run(const pd_gemm *gemm, pd_worker *worker, const void *source, const void *weights,
                 void *destination) {
    const pd_gemm_shape *s = &gemm->shape;
    if (gemm->tiles) {
        run_tiles(gemm, worker, source, weights, destination);
        return;
    }
    if (gemm->is_row) {
        const size_t number = dnnl_data_type_size(s->source);
        char *row = (char *)worker->scratch + row_at(gemm);
        copy_numbers(source, (size_t)s->source_stride_k * number, row, number, number, s->k);
        source = row;
    }
    if (!gemm->is_column) {
        run(gemm, worker, source, weights, destination);
        return;
    }
    // Both kinds of results, f32 and s32, are numbers of four bytes.
    const size_t number = sizeof(float), stride = (size_t)s->destination_stride_m * number;
    char *column = (char *)worker->scratch + column_at(gemm);
    if (s->accumulate) copy_numbers(destination, stride, column, number, number, s->m);
    run(gemm, worker, source, weights, column);
    copy_numbers(column, number, destination, stride, number, s->m);
}

void pd_gemm_pack(const pd_gemm *gemm, pd_worker *worker, const void *weights, int64_t stride_k,
                  int64_t stride_n, void *packed) {
    if (gemm->tiles) {
        pd_amx_pack(kind_of(&gemm->shape), gemm->shape.n, gemm->shape.k, weights, stride_k, stride_n, packed);
        return;
    }
    const dnnl_dims_t dims = {gemm->shape.k, gemm->shape.n}, strides = {stride_k, stride_n};
    dnnl_memory_desc_t plain = NULL;
    dnnl_primitive_desc_t description = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_exec_arg_t arguments[2] = {{.arg = DNNL_ARG_FROM}, {.arg = DNNL_ARG_TO}};
    const int threads = plan_for_one_thread();
    dnnl_status_t status =
        dnnl_memory_desc_create_with_strides(&plain, 2, dims, gemm->shape.weights, strides);
    if (status == dnnl_success)
        status = dnnl_reorder_primitive_desc_create(&description, plain, gemm->engine, gemm->weights,
                                                    gemm->engine, NULL);
    if (status == dnnl_success) status = dnnl_primitive_create(&primitive, description);
    if (status == dnnl_success) status = wrap(&arguments[0].memory, plain, gemm->engine, weights);
    if (status == dnnl_success) status = wrap(&arguments[1].memory, gemm->weights, gemm->engine, packed);
    if (status == dnnl_success) status = dnnl_primitive_execute(primitive, worker->stream, 2, arguments);
    if (status == dnnl_success) status = dnnl_stream_wait(worker->stream);
    plan_as_before(threads);
    for (int i = 0; i < 2; i++) {
        if (arguments[i].memory) dnnl_memory_destroy(arguments[i].memory);
    }
    if (primitive) dnnl_primitive_destroy(primitive);
    if (description) dnnl_primitive_desc_destroy(description);
    if (plain) dnnl_memory_desc_destroy(plain);
    if (status != dnnl_success) worker->failed = status;
}

// What oneDNN's columns are counted from: a number's place is its row's and its column's together. locate has
// not failed for the columns, and does not for a row.
static const int8_t *find_packed_row(const pd_gemm *gemm, const void *packed, int64_t i) {
    int64_t row = 0;
    locate(gemm->weights, i, 0, &row);
    return (const int8_t *)packed + row;
}

void pd_gemm_packed_row(const pd_gemm *gemm, const void *packed, int64_t i, int8_t *to) {
    if (gemm->tiles) {
        pd_amx_packed_row(gemm->shape.n, gemm->shape.k, packed, i, to);
        return;
    }
    const int8_t *row = find_packed_row(gemm, packed, i);
    for (int64_t j = 0; j < gemm->shape.n; j++)
        to[j] = row[gemm->columns[j]];
}

void pd_gemm_fetch_packed_row(const pd_gemm *gemm, const void *packed, int64_t i) {
    if (gemm->tiles) {
        pd_amx_fetch_packed_row(gemm->shape.n, gemm->shape.k, packed, i);
        return;
    }
    enum { NEIGHBOURS = 16 }; // columns, of a line
    const int8_t *row = find_packed_row(gemm, packed, i);
    for (int64_t j = 0; j < gemm->shape.n; j += NEIGHBOURS)
        __builtin_prefetch(row + gemm->columns[j]);
}

pd_status pd_worker_create(const pd_gemm_cache *cache, pd_worker *worker, pd_error *err) {
    *worker = (pd_worker){0};
    worker->handles = calloc(PD_KEPT_HANDLES, sizeof *worker->handles);
    if (!worker->handles) return pd_fail_memory(err, PD_KEPT_HANDLES * sizeof *worker->handles, "oneDNN");
    const dnnl_status_t status = dnnl_stream_create(&worker->stream, cache->engine, 0);
    if (status == dnnl_success) return PD_OK;
    pd_worker_free(worker);
    return fail(err, status, "a stream");
}

static pd_status grow(void **memory, size_t *capacity, size_t bytes, pd_error *err) {
    if (bytes <= *capacity) return PD_OK;
    free(*memory);
    *capacity = 0;
    *memory = pd_aligned_alloc(bytes);
    if (!*memory) return pd_fail_memory(err, bytes, "a thread's scratch");
    *capacity = bytes;
    return PD_OK;
}

pd_status pd_worker_reserve(pd_worker *worker, size_t scratch_bytes, size_t panel_bytes, size_t tile_bytes,
                            pd_error *err) {
    PD_TRY(grow(&worker->scratch, &worker->scratch_bytes, scratch_bytes, err));
    PD_TRY(grow(&worker->panel, &worker->panel_bytes, panel_bytes, err));
    return grow(&worker->tile, &worker->tile_bytes, tile_bytes, err);
}

void pd_worker_free(pd_worker *worker) {
    for (int i = 0; worker->handles && i < PD_KEPT_HANDLES; i++)
        free_handles(&worker->handles[i]);
    free(worker->handles);
    if (worker->stream) dnnl_stream_destroy(worker->stream);
    free(worker->scratch);
    free(worker->panel);
    free(worker->tile);
    *worker = (pd_worker){0};
}
