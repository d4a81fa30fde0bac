// MUL_MAT and OUT_PROD nodes as oneDNN products: tasks of a panel of columns and a chunk of rows, shared out
// among ggml's threads.
#pragma once

#include "onednn/activations.h"
#include "onednn/packed.h"

// What a node computes, read off ggml's operands: destination[m, n] = Σ_k source[m, k] · weights[k, n], for
// each batch; `weights` of a batch may serve several of `source`.
typedef struct pd_product pd_product;

// What becomes of the results.
typedef enum pd_product_end {
    PD_PRODUCT_WRITES,      // they are the destination
    PD_PRODUCT_ACCUMULATES, // they are added to what is there, as they are summed; products of floats only
    PD_PRODUCT_ADDS,        // they and an addend are the destination
    PD_PRODUCT_GATES,       // half of a gated pair: pd_product_run_gated
} pd_product_end;

// node: MUL_MAT or OUT_PROD, not yet rewritten. packed: its weights; NULL: they are converted (or, in the
// product's own type, read) as they stand, which is all that changing ones allow; kind is then f32 or bf16.
// floating: f32 or bf16, for the outliers of int8. PD_PRODUCT_GATES wants packed weights and one batch. It
// holds its primitives until freed. Tasks are cut for so many threads, but any number may compute them.
pd_status pd_product_create(pd_gemm_cache *cache, const struct ggml_tensor *node, pd_number_kind kind,
                            pd_number_kind floating, const pd_packed *packed, pd_product_end end,
                            int32_t n_threads, pd_product **product, pd_error *err);
void pd_product_free(pd_gemm_cache *cache, pd_product *product);

// What the activations must be converted to; NULL: they are read as they are.
const pd_activations *pd_product_activations(const pd_product *product);
// What each worker must have.
void pd_product_worker_bytes(const pd_product *product, size_t *scratch, size_t *panel, size_t *tile);

typedef struct pd_product_operands {
    const struct ggml_tensor *weights;
    const void *source;               // data of the node's src[1], or what its activations became
    const struct ggml_tensor *addend; // PD_PRODUCT_ADDS: of the destination's shape, rows adjacent numbers
    struct ggml_tensor *destination;
} pd_product_operands;

// Computes tasks until none is left. Called by each of nth threads.
void pd_product_run(pd_product *product, pd_worker *worker, const pd_product_operands *operands, int nth);

typedef struct pd_gated_operands {
    const void *source;  // as above, of both
    pd_number_kind kind; // of the destination: f32 or bf16
    void *destination;   // rows of results, row_bytes apart
    size_t row_bytes;
} pd_gated_operands;

// silu(gate) · up (SwiGLU, Shazeer 2020, https://arxiv.org/abs/2002.05202) of two products of the same
// source by packed weights of one shape and kind: what goes into it never leaves the cache. Otherwise as
// pd_product_run.
void pd_product_run_gated(pd_product *gate, pd_product *up, pd_worker *worker,
                          const pd_gated_operands *operands, int nth);
