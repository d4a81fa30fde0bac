// Rows of numbers on their way into a matrix product: f32, bf16, or integers with a scale.
#pragma once

#include <ggml.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// How a product multiplies. Sums are f32 (integers: exact s32 within a group).
typedef enum pd_number_kind { PD_NUMBER_F32, PD_NUMBER_BF16, PD_NUMBER_INT8, PD_NUMBER_INT16 } pd_number_kind;

static inline bool pd_number_is_integer(pd_number_kind kind) {
    return kind == PD_NUMBER_INT8 || kind == PD_NUMBER_INT16;
}

static inline const char *pd_number_name(pd_number_kind kind) {
    switch (kind) {
    case PD_NUMBER_F32:
        return "f32";
    case PD_NUMBER_BF16:
        return "bf16";
    case PD_NUMBER_INT8:
        return "int8";
    case PD_NUMBER_INT16:
        break;
    }
    return "int16";
}

// Bytes of one number.
static inline size_t pd_number_bytes(pd_number_kind kind) {
    return kind == PD_NUMBER_F32 ? sizeof(float) : kind == PD_NUMBER_INT8 ? 1 : 2;
}

// How far eight-bit numbers go. Activations are stored with `zero` added, for the CPU's instructions want one
// factor unsigned.
typedef struct pd_int8_range {
    int32_t activation_most, zero, weight_most;
} pd_int8_range;
// saturating: the CPU adds two neighbouring products in sixteen bits (x86 without VNNI); the ranges are then
// such that they fit: 2 · 180 · 91 < 2^15.
static inline pd_int8_range pd_int8_range_for(bool saturating) {
    return saturating ? (pd_int8_range){90, 90, 91} : (pd_int8_range){127, 128, 127};
}

// Bytes rounded up to whole cache lines: what lies behind begins with one.
static inline size_t pd_whole_lines(size_t bytes) {
    enum { LINE = 64 };
    return (bytes + LINE - 1) / LINE * LINE;
}

// n numbers to bf16, rounded to the nearest, ties to even.
void pd_rows_to_bf16(const float *from, uint16_t *to, int64_t n);
// n numbers of an activation row in groups: to[i] = round(from[i] / scale) + zero with scales[g] = max
// |group| / activation_most.
void pd_rows_to_u8(const float *from, uint8_t *to, float *scales, int64_t n, int64_t group,
                   pd_int8_range range);
// n weights in groups: to[i] = round(from[i] / scale) with scales[g] = max |group| / weight_most, and
// sums[g], the sum of the group's eight-bit numbers.
void pd_rows_to_s8(const float *from, int8_t *to, float *scales, int32_t *sums, int64_t n, int64_t group,
                   pd_int8_range range);
// n numbers in groups to sixteen bits: to[i] = round(from[i] / scale) with scales[g] = max |group| / most.
void pd_rows_to_s16(const float *from, int16_t *to, float *scales, int64_t n, int64_t group, int32_t most);
// The sum of n numbers' squares.
float pd_rows_sum_squares(const float *from, int64_t n);
// RMSNorm (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467) of a row: to[i] = weights[i] · from[i]
// / √(mean of squares + epsilon).
typedef struct pd_rms_norm {
    const float *weights;
    float epsilon;
} pd_rms_norm;
void pd_rows_rms_norm(const float *from, pd_rms_norm norm, float *to, int64_t n);
// n numbers of any ggml type to f32; a block type's n is whole blocks.
void pd_rows_to_f32(enum ggml_type type, const void *from, float *to, int64_t n);
// The same to f32 or bf16. row: room for them in f32.
void pd_rows_convert(enum ggml_type type, const void *from, pd_number_kind kind, void *to, float *row,
                     int64_t n);

static inline float pd_half_to_float(uint16_t half) {
    const uint32_t magnitude = (uint32_t)(half & 0x7fffU) << 13, sign = (uint32_t)(half & 0x8000U) << 16;
    float value;
    memcpy(&value, &magnitude, sizeof value);
    value *= 0x1p112F; // the exponents' biases differ by 112; right for subnormal halves too
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits |= sign | ((half & 0x7c00U) == 0x7c00U ? 0x7f800000U : 0U); // infinity and NaN
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Rounded to the nearest, ties to even; NaN stays one, whose mantissa rounding could carry over.
static inline uint16_t pd_float_to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t rounded =
        (bits & 0x7fffffffU) > 0x7f800000U ? bits | 0x400000U : bits + 0x7fffU + ((bits >> 16) & 1U);
    return (uint16_t)(rounded >> 16);
}
