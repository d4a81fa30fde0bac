// The packed weights of a model, made when a graph first needs them.
#pragma once

#include "onednn/choice.h"
#include "onednn/lowering.h"
#include "onednn/packed.h"

#include <pthread.h>

typedef struct pd_store {
    pthread_mutex_t mutex; // guards all below, and is held while a graph's weights are found and packed
    pd_packed **entries;
    size_t n_entries, capacity;
    // Read without the mutex too:
    atomic_size_t bytes; // of filled entries
    atomic_bool full;    // memory ran out: no more is packed
} pd_store;

pd_status pd_store_init(pd_store *store, pd_error *err);
void pd_store_free(pd_store *store, pd_gemm_cache *cache);

// The entry of a constant matrix [k, n], made (empty) if there is none; with the mutex held. `source` is not
// looked at after pd_store_fill.
pd_status pd_store_get(pd_store *store, pd_gemm_cache *cache, const struct ggml_tensor *source,
                       pd_number_kind kind, int64_t group, pd_int8_range range, pd_packed **packed,
                       pd_error *err);
// The filled entry of a matrix, or NULL; with the mutex held.
const pd_packed *pd_store_find(const pd_store *store, const struct ggml_tensor *source, pd_number_kind kind);
// Bytes the entries that are not filled will take.
size_t pd_store_wanted(const pd_store *store);
// Fills them, on the CPU backend's threads, with `workers` [n_threads]; with the mutex held. On failure they
// are removed.
pd_status pd_store_fill(pd_store *store, pd_gemm_cache *cache, const pd_lower_params *params,
                        pd_worker *workers, pd_error *err);
// Removes the entries that are not filled.
void pd_store_drop_empty(pd_store *store, pd_gemm_cache *cache);
