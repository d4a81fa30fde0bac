// Attention of one row of queries over a cache of f16 keys and values: the softmax in f32, each part of the
// cache read once, in the order in which it lies.
#pragma once

#include <ggml.h>
#include <stdbool.h>

// The parts of the cache are worked on by themselves and put together afterwards, in an order that does not
// depend on the number of threads.
typedef struct pd_onerow_attention {
    int64_t head_dim, n_heads, n_kv_heads;
    int64_t n_cached;   // rows
    int64_t chunk_rows; // rows of a part
    int64_t n_chunks;
    size_t row_bytes[2]; // from a row of keys and of values to the next
    size_t query_bytes;  // from a head's query to the next
    float scale;
} pd_onerow_attention;

// Whether `node` is a FLASH_ATTN_EXT that the kernels of this room compute; fills *plan.
bool pd_onerow_attention_plan(const struct ggml_tensor *node, pd_onerow_attention *plan);
// Bytes of what the parts have come to.
size_t pd_onerow_attention_bytes(const pd_onerow_attention *plan);
// Part `chunk` of the cache; mask: f16 [n_cached], or NULL.
void pd_onerow_attention_run(const pd_onerow_attention *plan, const float *queries, const void *keys,
                             const void *values, const ggml_fp16_t *mask, int64_t chunk, float *partial);
// Puts the parts together for heads first … end − 1: destination [head_dim, n_heads].
void pd_onerow_attention_merge(const pd_onerow_attention *plan, const float *partial, int64_t first,
                               int64_t end, float *destination);
