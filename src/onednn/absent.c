// Built without oneDNN: nothing is lowered, and small products are plain loops.
#include "onednn/clones.h"
#include "onednn/lowering.h"
#include "onednn/small_product.h"

#include <stdlib.h>

pd_status pd_lowering_create(const pd_lowering_params *params, pd_lowering **lowering, pd_error *err) {
    *lowering = NULL;
    if (params->compute == PD_COMPUTE_GGML || params->compute == PD_COMPUTE_AUTO) return PD_OK;
    if (params->strict) return pd_fail(err, PD_ERR_UNSUPPORTED, "compute: this build has no oneDNN");
    if (params->log)
        params->log(PD_LOG_WARNING, "compute: this build has no oneDNN; using ggml's kernels",
                    params->log_user);
    return PD_OK;
}

void pd_lowering_free(pd_lowering *lowering) {
    (void)lowering;
}

const char *pd_lowering_description(const pd_lowering *lowering) {
    (void)lowering;
    return "ggml";
}

size_t pd_lowering_packed_bytes(const pd_lowering *lowering) {
    (void)lowering;
    return 0;
}

pd_status pd_lower(pd_lowering *lowering, struct ggml_cgraph *graph, const pd_lower_params *params,
                   pd_lowered **lowered, pd_error *err) {
    (void)lowering;
    (void)graph;
    (void)params;
    *lowered = NULL;
    return pd_fail(err, PD_ERR_UNSUPPORTED, "this build has no oneDNN");
}

struct ggml_cgraph *pd_lowered_graph(const pd_lowered *lowered) {
    (void)lowered;
    return NULL;
}

int32_t pd_lowered_count(const pd_lowered *lowered) {
    (void)lowered;
    return 0;
}

pd_status pd_lowered_check(const pd_lowered *lowered, pd_error *err) {
    (void)lowered;
    (void)err;
    return PD_OK;
}

double pd_lowered_pack_ms(const pd_lowered *lowered) {
    (void)lowered;
    return 0.0;
}

size_t pd_lowered_bytes(const pd_lowered *lowered) {
    (void)lowered;
    return 0;
}

void pd_lowered_free(pd_lowered *lowered) {
    (void)lowered;
}

struct pd_small_product {
    pd_small_shape shape;
};

struct pd_small_products {
    pd_small_product **made;
    size_t n_made, capacity;
};

pd_status pd_small_products_create(int32_t n_threads, pd_small_products **products, pd_error *err) {
    (void)n_threads;
    *products = calloc(1, sizeof **products);
    return *products ? PD_OK : pd_fail_memory(err, sizeof **products, "small products");
}

void pd_small_products_free(pd_small_products *products) {
    if (!products) return;
    for (size_t i = 0; i < products->n_made; i++)
        free(products->made[i]);
    free(products->made);
    free(products);
}

static bool are_alike(const pd_small_shape *a, const pd_small_shape *b) {
    return a->m == b->m && a->n == b->n && a->k == b->k && a->a_stride_m == b->a_stride_m &&
           a->a_stride_k == b->a_stride_k && a->b_stride_k == b->b_stride_k &&
           a->b_stride_n == b->b_stride_n && a->c_stride_m == b->c_stride_m && a->accumulate == b->accumulate;
}

pd_status pd_small_product_get(pd_small_products *products, const pd_small_shape *shape,
                               const pd_small_product **product, pd_error *err) {
    for (size_t i = 0; i < products->n_made; i++) {
        *product = products->made[i];
        if (are_alike(&products->made[i]->shape, shape)) return PD_OK;
    }
    if (products->n_made == products->capacity) {
        const size_t capacity = products->capacity ? 2 * products->capacity : 64;
        pd_small_product **grown = realloc(products->made, capacity * sizeof(pd_small_product *));
        if (!grown) return pd_fail_memory(err, capacity * sizeof(pd_small_product *), "small products");
        products->made = grown;
        products->capacity = capacity;
    }
    pd_small_product *made = malloc(sizeof *made);
    if (!made) return pd_fail_memory(err, sizeof *made, "small products");
    made->shape = *shape;
    products->made[products->n_made++] = made;
    *product = made;
    return PD_OK;
}

PD_CLONES
static void multiply(const pd_small_shape *s, const float *a, const float *b, float *c) {
    for (int64_t m = 0; m < s->m; m++) {
        float *row = c + m * s->c_stride_m;
        for (int64_t n = 0; n < s->n && !s->accumulate; n++)
            row[n] = 0.0F;
        for (int64_t k = 0; k < s->k; k++) {
            const float factor = a[m * s->a_stride_m + k * s->a_stride_k];
            const float *other = b + k * s->b_stride_k;
            for (int64_t n = 0; n < s->n; n++)
                row[n] += factor * other[n * s->b_stride_n];
        }
    }
}

void pd_small_product_run(pd_small_products *products, const pd_small_product *product, int32_t thread,
                          const float *a, const float *b, float *c) {
    (void)products;
    (void)thread;
    multiply(&product->shape, a, b, c);
}

pd_status pd_small_products_check(const pd_small_products *products, pd_error *err) {
    (void)products;
    (void)err;
    return PD_OK;
}
