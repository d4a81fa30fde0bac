#include "onednn/rows.h"

#include "onednn/clones.h"

#include <float.h>
#include <math.h>
#include <string.h>

PD_CLONES
static void to_bf16(const float *restrict from, uint16_t *restrict to, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        to[i] = pd_float_to_bf16(from[i]);
}

void pd_rows_to_bf16(const float *from, uint16_t *to, int64_t n) {
    to_bf16(from, to, n);
}

// The largest magnitude, as the bits of a float: those of non-negative floats are ordered like integers, with
// infinity and NaN on top.
PD_CLONES
static int32_t largest_bits(const float *from, int64_t n) {
    int32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, &from[i], sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    return most;
}

// Adding and taking away 1.5 · 2²³ rounds to the nearest integer, ties to even, in the numbers' own lanes.
static const float rounder = 12582912.0F;

PD_CLONES
static void round_to_u8(const float *restrict from, uint8_t *restrict to, float inverse, int32_t zero,
                        int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const float rounded = from[i] * inverse + rounder;
        int32_t bits;
        memcpy(&bits, &rounded, sizeof bits);
        to[i] = (uint8_t)(bits + zero);
    }
}

PD_CLONES
static int32_t round_to_s8(const float *restrict from, int8_t *restrict to, float inverse, int64_t n) {
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const float rounded = from[i] * inverse + rounder;
        int32_t bits;
        memcpy(&bits, &rounded, sizeof bits);
        const int8_t value = (int8_t)(uint8_t)bits;
        to[i] = value;
        sum += value;
    }
    return sum;
}

PD_CLONES
static void round_to_s16(const float *restrict from, int16_t *restrict to, float inverse, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const float rounded = from[i] * inverse + rounder;
        int32_t bits;
        memcpy(&bits, &rounded, sizeof bits);
        to[i] = (int16_t)(uint16_t)bits;
    }
}

// What a group's numbers are multiplied by, and the scale that undoes it. A group that holds an infinity or
// NaN has NaN for a scale: the product must show it.
static float choose_scale(const float *from, int64_t n, int32_t limit, float *scale) {
    const int32_t bits = largest_bits(from, n);
    float most;
    memcpy(&most, &bits, sizeof most);
    if (!(most <= FLT_MAX)) {
        *scale = NAN;
        return 0.0F;
    }
    *scale = most / (float)limit;
    const float inverse = (float)limit / most;
    return inverse <= FLT_MAX ? inverse : 0.0F; // zeros, or as good as
}

void pd_rows_to_u8(const float *from, uint8_t *to, float *scales, int64_t n, int64_t group,
                   pd_int8_range range) {
    for (int64_t start = 0; start < n; start += group) {
        const int64_t count = n - start < group ? n - start : group;
        const float inverse =
            choose_scale(from + start, count, range.activation_most, &scales[start / group]);
        if (inverse == 0.0F) {
            memset(to + start, range.zero, (size_t)count);
        } else {
            round_to_u8(from + start, to + start, inverse, range.zero, count);
        }
    }
}

void pd_rows_to_s8(const float *from, int8_t *to, float *scales, int32_t *sums, int64_t n, int64_t group,
                   pd_int8_range range) {
    for (int64_t start = 0; start < n; start += group) {
        const int64_t count = n - start < group ? n - start : group, g = start / group;
        const float inverse = choose_scale(from + start, count, range.weight_most, &scales[g]);
        if (inverse == 0.0F) {
            memset(to + start, 0, (size_t)count);
            sums[g] = 0;
        } else {
            sums[g] = round_to_s8(from + start, to + start, inverse, count);
        }
    }
}

void pd_rows_to_s16(const float *from, int16_t *to, float *scales, int64_t n, int64_t group, int32_t most) {
    for (int64_t start = 0; start < n; start += group) {
        const int64_t count = n - start < group ? n - start : group;
        const float inverse = choose_scale(from + start, count, most, &scales[start / group]);
        round_to_s16(from + start, to + start, inverse, count);
    }
}

enum { LANES = 64 }; // of SIMD, for floats are not added in another order unasked

PD_CLONES
static float sum_squares(const float *from, int64_t n) {
    float lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int lane = 0; lane < LANES; lane++)
            lanes[lane] += from[i + lane] * from[i + lane];
    }
    float sum = 0.0F;
    for (; i < n; i++)
        sum += from[i] * from[i];
    for (int lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    return sum;
}

float pd_rows_sum_squares(const float *from, int64_t n) {
    return sum_squares(from, n);
}

PD_CLONES
static void weigh(const float *restrict from, const float *restrict weights, float factor, float *restrict to,
                  int64_t n) {
    for (int64_t i = 0; i < n; i++)
        to[i] = from[i] * factor * weights[i];
}

void pd_rows_rms_norm(const float *from, pd_rms_norm norm, float *to, int64_t n) {
    weigh(from, norm.weights, 1.0F / sqrtf(sum_squares(from, n) / (float)n + norm.epsilon), to, n);
}

PD_CLONES
static void halves_to_f32(const uint16_t *restrict from, float *restrict to, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        to[i] = pd_half_to_float(from[i]);
}

PD_CLONES
static void halves_to_bf16(const uint16_t *restrict from, uint16_t *restrict to, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        to[i] = pd_float_to_bf16(pd_half_to_float(from[i]));
}

PD_CLONES
static void bf16_to_f32(const uint16_t *restrict from, float *restrict to, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(&to[i], &bits, sizeof bits);
    }
}

void pd_rows_to_f32(enum ggml_type type, const void *from, float *to, int64_t n) {
    if (type == GGML_TYPE_F32) {
        memcpy(to, from, (size_t)n * sizeof *to);
    } else if (type == GGML_TYPE_F16) {
        halves_to_f32(from, to, n);
    } else if (type == GGML_TYPE_BF16) {
        bf16_to_f32(from, to, n);
    } else {
        ggml_get_type_traits(type)->to_float(from, to, n);
    }
}

void pd_rows_convert(enum ggml_type type, const void *from, pd_number_kind kind, void *to, float *row,
                     int64_t n) {
    if (kind == PD_NUMBER_F32) {
        pd_rows_to_f32(type, from, to, n);
    } else if (type == GGML_TYPE_BF16) {
        memcpy(to, from, (size_t)n * sizeof(uint16_t));
    } else if (type == GGML_TYPE_F32) {
        to_bf16(from, to, n);
    } else if (type == GGML_TYPE_F16) {
        halves_to_bf16(from, to, n);
    } else {
        pd_rows_to_f32(type, from, row, n);
        to_bf16(row, to, n);
    }
}
