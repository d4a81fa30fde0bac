// Keys and values of the decoder's layers. Every layer holds as many rows as its stage has live ones, and
// room for the answer.
#pragma once

#include "model/weights.h"

typedef struct pd_kv_cache {
    int32_t n_layers;
    struct ggml_context *context;
    ggml_backend_buffer_t buffer;
    struct ggml_tensor **k, **v; // [n_kv_heads * head_dim, capacity of the layer], n_layers each
} pd_kv_cache;

// capacity: rows of each of the n_layers layers. The memory is zeroed: rows not written yet are masked, and a
// masked row must be finite.
pd_status pd_kv_cache_create(const pd_decoder_hyperparameters *h, enum ggml_type type,
                             const int32_t *capacity, ggml_backend_buffer_type_t buffer_type,
                             pd_kv_cache *cache, pd_error *err);
void pd_kv_cache_free(pd_kv_cache *cache);
// Makes every layer `extra` rows larger; what it holds stays.
pd_status pd_kv_cache_grow(const pd_decoder_hyperparameters *h, int32_t extra, pd_kv_cache *cache,
                           pd_error *err);
// Bytes allocated.
size_t pd_kv_cache_bytes(const pd_kv_cache *cache);
// Bytes of one row's keys and values in one layer.
size_t pd_kv_row_bytes(const pd_decoder_hyperparameters *h, enum ggml_type type);
