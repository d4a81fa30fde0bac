#include "model/kv_cache.h"

#include "base/ggml_log.h"
#include "base/memory.h"

#include <stdlib.h>

size_t pd_kv_row_bytes(const pd_decoder_hyperparameters *h, enum ggml_type type) {
    return 2 * ggml_row_size(type, (int64_t)h->n_kv_heads * h->head_dim);
}

pd_status pd_kv_cache_create(const pd_decoder_hyperparameters *h, enum ggml_type type,
                             const int32_t *capacity, ggml_backend_buffer_type_t buffer_type,
                             pd_kv_cache *cache, pd_error *err) {
    *cache = (pd_kv_cache){.n_layers = h->n_layers};
    const size_t n = (size_t)h->n_layers;
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += (size_t)capacity[i] * pd_kv_row_bytes(h, type);
    cache->k = calloc(2 * n, sizeof(struct ggml_tensor *));
    cache->context = ggml_init((struct ggml_init_params){
        .mem_size = 2 * n * ggml_tensor_overhead(), .mem_buffer = NULL, .no_alloc = true});
    if (!cache->k || !cache->context) {
        pd_kv_cache_free(cache);
        return pd_fail_memory(err, 2 * n * ggml_tensor_overhead(), "the KV cache's tensors");
    }
    cache->v = cache->k + n;
    const int64_t width = (int64_t)h->n_kv_heads * h->head_dim;
    for (size_t i = 0; i < n; i++) {
        cache->k[i] = ggml_new_tensor_2d(cache->context, type, width, capacity[i]);
        cache->v[i] = ggml_new_tensor_2d(cache->context, type, width, capacity[i]);
    }
    char line[PD_CAUGHT_LINE];
    pd_ggml_log_catch(line);
    cache->buffer = ggml_backend_alloc_ctx_tensors_from_buft(cache->context, buffer_type);
    pd_ggml_log_release();
    if (!cache->buffer) {
        pd_kv_cache_free(cache);
        return pd_fail_memory(err, bytes, "the KV cache");
    }
    if (ggml_backend_buffer_is_host(cache->buffer))
        pd_advise_huge_pages(ggml_backend_buffer_get_base(cache->buffer), pd_kv_cache_bytes(cache));
    ggml_backend_buffer_clear(cache->buffer, 0);
    return PD_OK;
}

void pd_kv_cache_free(pd_kv_cache *cache) {
    if (cache->buffer) ggml_backend_buffer_free(cache->buffer);
    if (cache->context) ggml_free(cache->context);
    free(cache->k);
    *cache = (pd_kv_cache){0};
}

// Copies the rows of `from` to the first rows of `to`.
static pd_status copy_rows(struct ggml_tensor *from, struct ggml_tensor *to, pd_error *err) {
    struct ggml_context *scratch = ggml_init((struct ggml_init_params){
        .mem_size = 2 * ggml_tensor_overhead(), .mem_buffer = NULL, .no_alloc = true});
    if (!scratch) return pd_fail_memory(err, 2 * ggml_tensor_overhead(), "a view of the KV cache");
    struct ggml_tensor *head = ggml_view_2d(scratch, to, from->ne[0], from->ne[1], to->nb[1], 0);
    const bool viewed = ggml_backend_view_init(head) == GGML_STATUS_SUCCESS;
    if (viewed) ggml_backend_tensor_copy(from, head);
    ggml_free(scratch);
    return viewed ? PD_OK : pd_fail(err, PD_ERR_BACKEND, "ggml cannot view the KV cache");
}

pd_status pd_kv_cache_grow(const pd_decoder_hyperparameters *h, int32_t extra, pd_kv_cache *cache,
                           pd_error *err) {
    const size_t n = (size_t)h->n_layers;
    int32_t *capacity = calloc(n, sizeof *capacity);
    if (!capacity) return pd_fail_memory(err, n * sizeof *capacity, "the KV cache's sizes");
    for (size_t i = 0; i < n; i++)
        capacity[i] = (int32_t)cache->k[i]->ne[1] + extra;
    pd_kv_cache larger;
    pd_status status = pd_kv_cache_create(h, cache->k[0]->type, capacity,
                                          ggml_backend_buffer_get_type(cache->buffer), &larger, err);
    free(capacity);
    if (status != PD_OK) return status;
    for (size_t i = 0; i < n && status == PD_OK; i++) {
        status = copy_rows(cache->k[i], larger.k[i], err);
        if (status == PD_OK) status = copy_rows(cache->v[i], larger.v[i], err);
    }
    if (status != PD_OK) {
        pd_kv_cache_free(&larger);
        return status;
    }
    pd_kv_cache_free(cache);
    *cache = larger;
    return PD_OK;
}

size_t pd_kv_cache_bytes(const pd_kv_cache *cache) {
    return cache->buffer ? ggml_backend_buffer_get_size(cache->buffer) : 0;
}
