// MUL_MAT and OUT_PROD nodes as oneDNN products: tasks of a panel of columns and a chunk of rows, shared out
// among ggml's threads.
#pragma once

#include "onednn/activations.h"
#include "onednn/packed.h"

// What a node computes, read off ggml's operands: destination[m, n] = Σ_k source[m, k] · weights[k, n], for
// each batch; `weights` of a batch may serve several of `source`.
typedef struct pd_product pd_product;

// node: MUL_MAT or OUT_PROD, not yet rewritten. packed: its weights; NULL: they are converted (or, in the
// product's own type, read) as they stand, which is all that changing ones allow; kind is then f32 or bf16.
// floating: f32 or bf16, for the outliers of int8. `accumulate` adds to the destination, for products of
// floats. It holds its primitives until freed. Tasks are cut for so many threads, but any number may compute
// them.
pd_status pd_product_create(pd_gemm_cache *cache, const struct ggml_tensor *node, pd_number_kind kind,
                            pd_number_kind floating, const pd_packed *packed, bool accumulate,
                            int32_t n_threads, pd_product **product, pd_error *err);
void pd_product_free(pd_gemm_cache *cache, pd_product *product);

// What the activations must be converted to; NULL: they are read as they are.
const pd_activations *pd_product_activations(const pd_product *product);
// What each worker must have.
void pd_product_worker_bytes(const pd_product *product, size_t *scratch, size_t *panel, size_t *tile);
// Bytes that its threads share while it runs, 64-byte aligned.
size_t pd_product_shared_bytes(const pd_product *product);
// Computes tasks until none is left, into destination; `source` is the data of the node's src[1], or what its
// activations became. Called by each of nth threads.
void pd_product_run(pd_product *product, pd_worker *worker, const struct ggml_tensor *weights,
                    const void *source, void *shared, struct ggml_tensor *destination, int nth);
