// Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864) as ggml's ROPE node has it, in
// SIMD. Positions that YaRN stretches, and several positions a row, are left to ggml.
#pragma once

#include <ggml.h>
#include <stdbool.h>

// A node's parameters, read before it is rewritten.
typedef struct pd_rope {
    int64_t n_dims; // of a head; the others stay
    bool split;     // pairs are the halves' numbers, not neighbours
    float base, scale, magnitude;
} pd_rope;

// Whether `node` is such a ROPE of f32; *rope is then what it does.
bool pd_rope_match(const struct ggml_tensor *node, pd_rope *rope);
// Thread ith's share of the rows. source: [head_dim, n_heads, n_rows, batches]; positions: [n_rows];
// factors: what frequencies are divided by, [n_dims / 2], or NULL; room: n_dims numbers.
void pd_rope_run(const pd_rope *rope, const struct ggml_tensor *source, const int32_t *positions,
                 const float *factors, struct ggml_tensor *destination, float *room, int ith, int nth);
