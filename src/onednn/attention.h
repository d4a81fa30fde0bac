// Attention at prefill: softmax(scale · Q Kᵀ + mask) V, a block of query rows at a time, so that the scores
// stay in a core's cache (Dao et al. 2022, https://arxiv.org/abs/2205.14135). Products are oneDNN's, all
// between them is f32.
#pragma once

#include "onednn/gemm.h"

#include <ggml.h>

// Strides are bytes. A row's head_dim or value_dim numbers, and a mask row's n_kv, are adjacent.
typedef struct pd_attention_shape {
    int64_t head_dim, value_dim, n_q, n_kv;
    int64_t n_heads, n_kv_heads; // query head h reads key head h / (n_heads / n_kv_heads)
    float scale;
    enum ggml_type key_type, value_type; // f32, f16 or bf16; queries and output are f32
    size_t q_row, q_head, k_row, k_head, v_row, v_head, out_row, out_head;
    bool masked;
    enum ggml_type mask_type; // f16 or f32: [n_kv, n_q], one for all heads, added to the scaled scores
    size_t mask_row;
    dnnl_data_type_t compute; // f32 or bf16: what is multiplied
} pd_attention_shape;

// One shape's products and how its work is cut up. Run by one team of threads at a time.
typedef struct pd_attention_plan pd_attention_plan;

// PD_ERR_UNSUPPORTED: not such types, or no kernel for them on this CPU; PD_ERR_ARGUMENT: no such shape.
pd_status pd_attention_create(pd_gemm_cache *cache, const pd_attention_shape *shape, pd_attention_plan **plan,
                              pd_error *err);
void pd_attention_free(pd_gemm_cache *cache, pd_attention_plan *plan);
// Bytes of what pd_attention_pack fills: keys and values as the products want them, and which parts of the
// mask hide all, nothing or some. To be 64-byte aligned.
size_t pd_attention_packed_bytes(const pd_attention_plan *plan);
// What each thread's worker must have reserved.
void pd_attention_worker_bytes(const pd_attention_plan *plan, size_t *scratch, size_t *panel, size_t *tile);

// Both are called by each of nth threads, with its own worker; they share the work as they go. All threads
// leave one before any enters the next: the caller has a barrier there. Failures: worker->failed.
void pd_attention_pack(pd_attention_plan *plan, pd_worker *worker, const void *k, const void *v,
                       const void *mask, void *packed, int nth);
// A row whose keys are all masked is 0, as ggml's flash attention has it.
void pd_attention_run(pd_attention_plan *plan, pd_worker *worker, const float *q, const void *packed,
                      const void *mask, float *out, int nth);
