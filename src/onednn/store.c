#include "onednn/store.h"

#include <stdlib.h>
#include <string.h>

pd_status pd_store_init(pd_store *store, pd_error *err) {
    *store = (pd_store){0};
    if (pthread_mutex_init(&store->mutex, NULL) != 0)
        return pd_fail(err, PD_ERR_MEMORY, "out of memory for a lock");
    return PD_OK;
}

void pd_store_free(pd_store *store, pd_gemm_cache *cache) {
    for (size_t i = 0; i < store->n_entries; i++)
        pd_packed_free(cache, store->entries[i]);
    free(store->entries);
    pthread_mutex_destroy(&store->mutex);
}

static bool is_entry_of(const pd_packed *entry, const struct ggml_tensor *source, pd_number_kind kind) {
    return entry->key == source->data && entry->type == source->type && entry->row_bytes == source->nb[1] &&
           entry->kind == kind && entry->k == source->ne[0] && entry->n == source->ne[1];
}

const pd_packed *pd_store_find(const pd_store *store, const struct ggml_tensor *source, pd_number_kind kind) {
    for (size_t i = 0; i < store->n_entries; i++) {
        if (is_entry_of(store->entries[i], source, kind))
            return store->entries[i]->ready ? store->entries[i] : NULL;
    }
    return NULL;
}

pd_status pd_store_get(pd_store *store, pd_gemm_cache *cache, const struct ggml_tensor *source,
                       pd_number_kind kind, int64_t group, pd_int8_range range, pd_packed **packed,
                       pd_error *err) {
    for (size_t i = 0; i < store->n_entries; i++) {
        if (!is_entry_of(store->entries[i], source, kind)) continue;
        *packed = store->entries[i];
        return PD_OK;
    }
    *packed = NULL;
    if (store->n_entries == store->capacity) {
        const size_t capacity = store->capacity ? 2 * store->capacity : 64;
        pd_packed **grown = realloc(store->entries, capacity * sizeof(pd_packed *));
        if (!grown) return pd_fail_memory(err, capacity * sizeof(pd_packed *), "packed weights");
        store->entries = grown;
        store->capacity = capacity;
    }
    PD_TRY(pd_packed_create(cache, source, kind, group, range, packed, err));
    store->entries[store->n_entries++] = *packed;
    return PD_OK;
}

size_t pd_store_wanted(const pd_store *store) {
    size_t bytes = 0;
    for (size_t i = 0; i < store->n_entries; i++) {
        if (!store->entries[i]->ready) bytes += pd_packed_bytes(store->entries[i]);
    }
    return bytes;
}

void pd_store_drop_empty(pd_store *store, pd_gemm_cache *cache) {
    size_t kept = 0;
    for (size_t i = 0; i < store->n_entries; i++) {
        if (store->entries[i]->ready) {
            store->entries[kept++] = store->entries[i];
        } else {
            pd_packed_free(cache, store->entries[i]);
        }
    }
    store->n_entries = kept;
}

typedef struct {
    pd_packed *packed;
    pd_worker *workers;
} fill_job;

static void fill(struct ggml_tensor *node, int ith, int nth, void *user) {
    (void)node;
    (void)nth;
    const fill_job *job = user;
    pd_packed_fill(job->packed, &job->workers[ith]);
}

// One matrix on all threads, as a graph of one node.
static pd_status fill_entry(pd_packed *packed, const pd_lower_params *params, pd_worker *workers,
                            pd_error *err) {
    PD_TRY(pd_packed_allocate(packed, err));
    for (int32_t i = 0; i < params->n_threads; i++)
        PD_TRY(pd_worker_reserve(&workers[i], 0, pd_packed_worker_bytes(packed), 0, err));
    _Alignas(16) char memory[4096]; // as ggml wants it
    struct ggml_context *ctx = ggml_init(
        (struct ggml_init_params){.mem_size = sizeof memory, .mem_buffer = memory, .no_alloc = true});
    if (!ctx) return pd_fail_memory(err, sizeof memory, "packed weights");
    fill_job job = {packed, workers};
    struct ggml_cgraph *graph = ggml_new_graph_custom(ctx, 1, false);
    ggml_build_forward_expand(
        graph, ggml_custom_4d(ctx, GGML_TYPE_I8, 1, 1, 1, 1, NULL, 0, fill, GGML_N_TASKS_MAX, &job));
    const enum ggml_status status = ggml_backend_graph_compute(params->cpu, graph);
    ggml_free(ctx);
    if (params->cancel && atomic_load_explicit(params->cancel, memory_order_relaxed))
        return pd_fail(err, PD_ERR_CANCELLED, "cancelled");
    dnnl_status_t failed = dnnl_success;
    for (int32_t i = 0; i < params->n_threads; i++) { // the workers go on, maybe without packed weights
        if (workers[i].failed != dnnl_success) failed = workers[i].failed;
        workers[i].failed = dnnl_success;
    }
    if (failed == dnnl_out_of_memory) return pd_fail_memory(err, packed->panel_bytes, "packing weights");
    if (failed != dnnl_success) return pd_fail(err, PD_ERR_BACKEND, "oneDNN: packing weights failed");
    if (status != GGML_STATUS_SUCCESS) return pd_fail(err, PD_ERR_BACKEND, "ggml failed to pack weights");
    packed->ready = true;
    return PD_OK;
}

pd_status pd_store_fill(pd_store *store, pd_gemm_cache *cache, const pd_lower_params *params,
                        pd_worker *workers, pd_error *err) {
    const double wanted = (double)pd_store_wanted(store);
    double done = 0.0;
    pd_status status = PD_OK;
    for (size_t i = 0; i < store->n_entries && status == PD_OK; i++) {
        pd_packed *packed = store->entries[i];
        if (packed->ready) continue;
        status = fill_entry(packed, params, workers, err);
        if (status != PD_OK) break;
        atomic_fetch_add(&store->bytes, pd_packed_bytes(packed));
        done += (double)pd_packed_bytes(packed);
        if (params->progress) params->progress("packing", done / wanted, params->progress_user);
    }
    pd_store_drop_empty(store, cache);
    return status;
}
