// The decoder (LLaMA, Qwen2) as graphs. It builds layers over the rows it is given and does not know that
// rows are ever dropped.
#pragma once

#include "model/attention.h"
#include "model/kv_cache.h"

// The live rows at a layer's input. `normed` and `keys` are what the layer would compute first; who has
// computed them already hands them over, else they are NULL.
typedef struct pd_rows {
    struct ggml_tensor *residual; // [n_embd, n]
    struct ggml_tensor *normed;   // [n_embd, n]: the layer's input norm of `residual`
    struct ggml_tensor *keys;     // [n_kv_heads * head_dim, n]: its key projection, before RoPE
} pd_rows;

typedef struct pd_layer_input {
    pd_rows rows;
    struct ggml_tensor *positions; // i32 [n]
    struct ggml_tensor *mask;      // f16 [n_kv, n], causal; NULL: every row sees all
    bool flash;
    const pd_attender
        *attention;     // instead of pd_attend with `mask` and `flash`, and without a cache; or NULL
    bool last_row_only; // compute the output of the last row alone: [n_embd, 1]
    struct ggml_tensor *result_rows; // i32 [m]: compute the output of these rows alone; NULL: of all
    // Where keys and values go: both NULL: nowhere. write_row NULL: rows 0 … n−1 of the cache are written,
    // and the rows attend to each other. Else row write_row (i64 [1]) is written, and the rows attend to the
    // first n_cached rows of the cache.
    struct ggml_tensor *cache_k, *cache_v; // [n_kv_heads * head_dim, capacity]
    struct ggml_tensor *write_row;
    int64_t n_cached;
} pd_layer_input;

// Fills rows->normed and rows->keys for layer `index`.
void pd_decoder_keys(struct ggml_context *ctx, const pd_decoder_weights *weights, int32_t index,
                     pd_rows *rows);
// Queries of layer `index`, before RoPE, from its normed rows: [n_heads * head_dim, n].
struct ggml_tensor *pd_decoder_queries(struct ggml_context *ctx, const pd_decoder_weights *weights,
                                       int32_t index, struct ggml_tensor *normed);
// Rotary embedding of projections [n_heads * head_dim, n] → [head_dim, n_heads, n]; positions i32 [n].
struct ggml_tensor *pd_decoder_rope(struct ggml_context *ctx, const pd_decoder_weights *weights,
                                    struct ggml_tensor *projected, int32_t n_heads,
                                    struct ggml_tensor *positions);
// One decoder layer. Returns its residual stream and has it, and the cache's writes, expanded in `graph`.
struct ggml_tensor *pd_decoder_layer_forward(struct ggml_context *ctx, struct ggml_cgraph *graph,
                                             const pd_decoder_weights *weights, int32_t index,
                                             const pd_layer_input *input);
// Output norm and head: [n_embd, n] → logits [n_vocab, n].
struct ggml_tensor *pd_decoder_logits(struct ggml_context *ctx, const pd_decoder_weights *weights,
                                      struct ggml_tensor *residual);
