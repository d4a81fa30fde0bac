#include "onednn/small_product.h"

#include "onednn/gemm.h"

#include <stdlib.h>

struct pd_small_products {
    pd_gemm_cache *cache;
    pd_worker *workers; // [n_threads]
    int32_t n_threads;
    const pd_gemm **held; // released with this
    size_t n_held, capacity;
};

pd_status pd_small_products_create(int32_t n_threads, pd_small_products **out, pd_error *err) {
    *out = NULL;
    pd_small_products *products = calloc(1, sizeof *products);
    if (!products) return pd_fail_memory(err, sizeof *products, "small products");
    products->workers = calloc((size_t)n_threads, sizeof *products->workers);
    pd_status status = products->workers ? PD_OK
                                         : pd_fail_memory(err, (size_t)n_threads * sizeof *products->workers,
                                                          "small products");
    if (status == PD_OK) status = pd_gemm_cache_create(&products->cache, err);
    for (int32_t i = 0; i < n_threads && status == PD_OK; i++) {
        status = pd_worker_create(products->cache, &products->workers[i], err);
        if (status == PD_OK) products->n_threads = i + 1;
    }
    if (status != PD_OK) {
        pd_small_products_free(products);
        return status;
    }
    *out = products;
    return PD_OK;
}

void pd_small_products_free(pd_small_products *products) {
    if (!products) return;
    for (size_t i = 0; i < products->n_held; i++)
        pd_gemm_release(products->cache, products->held[i]);
    free(products->held);
    for (int32_t i = 0; i < products->n_threads; i++)
        pd_worker_free(&products->workers[i]);
    free(products->workers);
    pd_gemm_cache_free(products->cache);
    free(products);
}

pd_status pd_small_product_get(pd_small_products *products, const pd_small_shape *shape,
                               const pd_small_product **product, pd_error *err) {
    if (products->n_held == products->capacity) {
        const size_t capacity = products->capacity ? 2 * products->capacity : 64;
        const pd_gemm **grown = realloc(products->held, capacity * sizeof(pd_gemm *));
        if (!grown) return pd_fail_memory(err, capacity * sizeof(pd_gemm *), "small products");
        products->held = grown;
        products->capacity = capacity;
    }
    pd_gemm_shape gemm_shape = {.m = shape->m,
                                .n = shape->n,
                                .k = shape->k,
                                .source_stride_m = shape->a_stride_m,
                                .source_stride_k = shape->a_stride_k,
                                .weights_stride_k = shape->b_stride_k,
                                .weights_stride_n = shape->b_stride_n,
                                .destination_stride_m = shape->c_stride_m,
                                .accumulate = shape->accumulate};
    pd_gemm_set_types(&gemm_shape, PD_NUMBER_F32);
    const pd_gemm *gemm = NULL;
    PD_TRY(pd_gemm_get(products->cache, &gemm_shape, &gemm, err));
    *product = (const pd_small_product *)gemm;
    for (size_t i = 0; i < products->n_held; i++) {
        if (products->held[i] != gemm) continue;
        pd_gemm_release(products->cache, gemm); // once is enough
        return PD_OK;
    }
    products->held[products->n_held++] = gemm;
    for (int32_t i = 0; i < products->n_threads; i++)
        PD_TRY(pd_worker_reserve(&products->workers[i], pd_gemm_scratch_bytes(gemm), 0, 0, err));
    return PD_OK;
}

void pd_small_product_run(pd_small_products *products, const pd_small_product *product, int32_t thread,
                          const float *a, const float *b, float *c) {
    pd_gemm_run((const pd_gemm *)product, &products->workers[thread], a, b, c);
}

pd_status pd_small_products_check(const pd_small_products *products, pd_error *err) {
    for (int32_t i = 0; i < products->n_threads; i++) {
        if (products->workers[i].failed != dnnl_success)
            return pd_fail(err, PD_ERR_BACKEND, "oneDNN: a small product failed (status %d)",
                           (int)products->workers[i].failed);
    }
    return PD_OK;
}
