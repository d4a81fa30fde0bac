#include "onednn/rope.h"

#include "onednn/clones.h"

#include <math.h>
#include <string.h>

bool pd_rope_match(const struct ggml_tensor *node, pd_rope *rope) {
    enum { N_DIMS = 1, MODE = 2, BASE = 5, SCALE, EXTRAPOLATION, MAGNITUDE }; // of ggml_rope_ext
    if (node->op != GGML_OP_ROPE) return false;
    const struct ggml_tensor *source = node->src[0], *factors = node->src[2];
    const int32_t mode = node->op_params[MODE];
    float floats[MAGNITUDE + 1 - BASE];
    memcpy(floats, node->op_params + BASE, sizeof floats);
    *rope = (pd_rope){.n_dims = node->op_params[N_DIMS],
                      .split = mode == GGML_ROPE_TYPE_NEOX,
                      .base = floats[0],
                      .scale = floats[SCALE - BASE],
                      .magnitude = floats[MAGNITUDE - BASE]};
    return (mode == GGML_ROPE_TYPE_NORMAL || mode == GGML_ROPE_TYPE_NEOX) &&
           floats[EXTRAPOLATION - BASE] == 0.0F && rope->n_dims > 0 && rope->n_dims % 2 == 0 &&
           rope->n_dims <= node->ne[0] && !node->view_src && node->type == GGML_TYPE_F32 &&
           source->type == GGML_TYPE_F32 && source->nb[0] == sizeof(float) && node->nb[0] == sizeof(float) &&
           node->src[1]->ne[0] == node->ne[2] &&
           (!factors || (factors->type == GGML_TYPE_F32 && factors->ne[0] >= rope->n_dims / 2));
}

// Cosines and sines of a position, [n_dims / 2] each.
static void find_angles(const pd_rope *rope, int32_t position, const float *factors, float *cosines,
                        float *sines) {
    const float step = powf(rope->base, -2.0F / (float)rope->n_dims);
    float angle = (float)position;
    for (int64_t i = 0; i < rope->n_dims / 2; i++) {
        const float scaled = rope->scale * (factors ? angle / factors[i] : angle);
        cosines[i] = cosf(scaled) * rope->magnitude;
        sines[i] = sinf(scaled) * rope->magnitude;
        angle *= step;
    }
}

PD_CLONES
static void turn_neighbours(const float *restrict from, const float *restrict cosines,
                            const float *restrict sines, float *restrict to, int64_t n_pairs) {
    for (int64_t i = 0; i < n_pairs; i++) {
        const float a = from[2 * i], b = from[2 * i + 1];
        to[2 * i] = a * cosines[i] - b * sines[i];
        to[2 * i + 1] = a * sines[i] + b * cosines[i];
    }
}

PD_CLONES
static void turn_halves(const float *restrict from, const float *restrict cosines,
                        const float *restrict sines, float *restrict to, int64_t n_pairs) {
    for (int64_t i = 0; i < n_pairs; i++) {
        const float a = from[i], b = from[n_pairs + i];
        to[i] = a * cosines[i] - b * sines[i];
        to[n_pairs + i] = a * sines[i] + b * cosines[i];
    }
}

void pd_rope_run(const pd_rope *rope, const struct ggml_tensor *source, const int32_t *positions,
                 const float *factors, struct ggml_tensor *destination, float *room, int ith, int nth) {
    const int64_t n_pairs = rope->n_dims / 2, n_rows = source->ne[2], all = n_rows * source->ne[3];
    const size_t rest = (size_t)(source->ne[0] - rope->n_dims) * sizeof(float);
    float *cosines = room, *sines = room + n_pairs;
    for (int64_t i = all * ith / nth; i < all * (ith + 1) / nth; i++) {
        const size_t row = (size_t)(i % n_rows), batch = (size_t)(i / n_rows);
        find_angles(rope, positions[row], factors, cosines, sines);
        for (size_t head = 0; head < (size_t)source->ne[1]; head++) {
            const float *from = (const float *)((const char *)source->data + head * source->nb[1] +
                                                row * source->nb[2] + batch * source->nb[3]);
            float *to = (float *)((char *)destination->data + head * destination->nb[1] +
                                  row * destination->nb[2] + batch * destination->nb[3]);
            if (rope->split) {
                turn_halves(from, cosines, sines, to, n_pairs);
            } else {
                turn_neighbours(from, cosines, sines, to, n_pairs);
            }
            if (rest > 0) memcpy(to + rope->n_dims, from + rope->n_dims, rest);
        }
    }
}
