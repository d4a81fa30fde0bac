// Products that one thread computes alone inside a larger task, such as the blocks of an attention: by
// oneDNN, or by plain loops in a build without it. f32.
#pragma once

#include "base/error.h"

// c[m, n] = a[m, k] × b[k, n], or += with `accumulate`. Strides count floats; one of a matrix's two is 1.
typedef struct pd_small_shape {
    int64_t m, n, k;
    int64_t a_stride_m, a_stride_k;
    int64_t b_stride_k, b_stride_n;
    int64_t c_stride_m;
    bool accumulate;
} pd_small_shape;

typedef struct pd_small_products pd_small_products; // what all threads share
typedef struct pd_small_product pd_small_product;   // one shape, ready to run

pd_status pd_small_products_create(int32_t n_threads, pd_small_products **products, pd_error *err);
void pd_small_products_free(pd_small_products *products);

// The product of a shape; owned by `products`. Not while any thread runs one.
pd_status pd_small_product_get(pd_small_products *products, const pd_small_shape *shape,
                               const pd_small_product **product, pd_error *err);
// On thread 0 … n_threads − 1.
void pd_small_product_run(pd_small_products *products, const pd_small_product *product, int32_t thread,
                          const float *a, const float *b, float *c);
// Whether all runs so far succeeded.
pd_status pd_small_products_check(const pd_small_products *products, pd_error *err);
