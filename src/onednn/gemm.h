// Matrix products by oneDNN, the CPU kernels PyTorch itself uses: one primitive for each shape, made once and
// run by one thread at a time on its own part of a larger product. Only files of this room include oneDNN.
#pragma once

#include "base/error.h"
#include "onednn/rows.h"

#include <oneapi/dnnl/dnnl.h>

// destination[m, n] = source[m, k] × weights[k, n]. Strides count elements. oneDNN wants rows or columns of
// each matrix adjacent: one of a matrix's two strides is 1.
typedef struct pd_gemm pd_gemm;
typedef struct pd_gemm_shape {
    int64_t m, n, k;
    int64_t source_stride_m, source_stride_k;
    int64_t weights_stride_k, weights_stride_n; // both 0: packed
    const pd_gemm *packed_like; // packed as for this one, which must stay; NULL: as oneDNN likes best
    int64_t destination_stride_m;
    dnnl_data_type_t source, weights, destination; // f32 f32 f32, bf16 bf16 f32 or u8 s8 s32
    bool accumulate;                               // destination += instead of =
} pd_gemm_shape;

// The three types of a product in such numbers.
void pd_gemm_set_types(pd_gemm_shape *shape, pd_number_kind kind);

// oneDNN's engine and the primitives made so far. Thread-safe; one for each model.
typedef struct pd_gemm_cache pd_gemm_cache;

pd_status pd_gemm_cache_create(pd_gemm_cache **cache, pd_error *err);
void pd_gemm_cache_free(pd_gemm_cache *cache);

// One shape's primitive: immutable, owned by the cache, held until released. PD_ERR_UNSUPPORTED: this CPU has
// no kernel for the types (oneDNN's plain loops do not count as one).
pd_status pd_gemm_get(pd_gemm_cache *cache, const pd_gemm_shape *shape, const pd_gemm **gemm, pd_error *err);
void pd_gemm_release(pd_gemm_cache *cache, const pd_gemm *gemm);
// Bytes a worker's scratch memory must have for it.
size_t pd_gemm_scratch_bytes(const pd_gemm *gemm);
// Bytes of packed weights of this shape.
size_t pd_gemm_packed_bytes(const pd_gemm *gemm);

// oneDNN's handles of a primitive's matrices: source, weights, destination, scratch memory. Making them takes
// as long as a small product, so that a worker keeps those of the last primitives.
typedef struct pd_gemm_handles {
    uint64_t id; // of the primitive; 0: none
    dnnl_memory_t memory[4];
} pd_gemm_handles;

enum { PD_KEPT_HANDLES = 64 };

// What one thread runs primitives with.
typedef struct pd_worker {
    dnnl_stream_t stream;
    pd_gemm_handles *handles; // [PD_KEPT_HANDLES], by id
    void *scratch;            // for oneDNN
    void *panel;              // for the weights of one task, converted on the way
    void *tile;               // for a task's result before its epilogue
    size_t scratch_bytes, panel_bytes, tile_bytes;
    dnnl_status_t failed;
} pd_worker;

pd_status pd_worker_create(const pd_gemm_cache *cache, pd_worker *worker, pd_error *err);
// Makes its memories at least this large; their content is lost.
pd_status pd_worker_reserve(pd_worker *worker, size_t scratch_bytes, size_t panel_bytes, size_t tile_bytes,
                            pd_error *err);
void pd_worker_free(pd_worker *worker);

// Whether amx.h's kernels run it, which like tall tasks.
bool pd_gemm_has_tiles(const pd_gemm *gemm);
// Runs on this thread alone. A failure is kept in worker->failed and the destination is undefined.
void pd_gemm_run(const pd_gemm *gemm, pd_worker *worker, const void *source, const void *weights,
                 void *destination);
// Packs weights [k, n], given with strides (of the type the shape names), into memory of
// pd_gemm_packed_bytes.
void pd_gemm_pack(const pd_gemm *gemm, pd_worker *worker, const void *weights, int64_t stride_k,
                  int64_t stride_n, void *packed);

// Row i of packed weights of eight bits [k, n]: to[n].
void pd_gemm_packed_row(const pd_gemm *gemm, const void *packed, int64_t i, int8_t *to);
// Has the caches fetch what that will read.
void pd_gemm_fetch_packed_row(const pd_gemm *gemm, const void *packed, int64_t i);

// Memory that SIMD loads and huge pages like: 64-byte aligned; NULL when there is none. Freed with free.
void *pd_aligned_alloc(size_t bytes);
