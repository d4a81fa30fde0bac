// Rows of numbers on their way into a matrix product: f32, bf16, or eight bits with a scale.
#pragma once

#include <ggml.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// How a product multiplies. Sums are f32 (int8: exact s32 within a group).
typedef enum pd_number_kind { PD_NUMBER_F32, PD_NUMBER_BF16, PD_NUMBER_INT8 } pd_number_kind;

// Bytes of one number.
static inline size_t pd_number_bytes(pd_number_kind kind) {
    return kind == PD_NUMBER_F32 ? sizeof(float) : kind == PD_NUMBER_BF16 ? 2 : 1;
}

// What 8-bit activations are shifted by to be unsigned, which the CPU's instructions want of one factor.
enum { PD_ACTIVATION_ZERO = 128 };

// n numbers to bf16, rounded to the nearest, ties to even.
void pd_rows_to_bf16(const float *from, uint16_t *to, int64_t n);
// n numbers of an activation row in groups: to[i] = round(from[i] / scale) + PD_ACTIVATION_ZERO with
// scales[g] = max |group| / 127.
void pd_rows_to_u8(const float *from, uint8_t *to, float *scales, int64_t n, int64_t group);
// n weights in groups: to[i] = round(from[i] / scale), within ±most, with scales[g] = max |group| / most, and
// sums[g], the sum of the group's eight-bit numbers.
void pd_rows_to_s8(const float *from, int8_t *to, float *scales, int32_t *sums, int64_t n, int64_t group,
                   int32_t most);
// destination[j] (+)= activation_scale · weight_scales[j] · (products[j] − PD_ACTIVATION_ZERO · sums[j]):
// what exact products of eight-bit numbers mean, for n columns of a row; adds when `accumulate`.
void pd_rows_from_s32(const int32_t *products, float *destination, float activation_scale,
                      const float *weight_scales, const int32_t *sums, int64_t n, bool accumulate);
// n numbers of any ggml type to f32; a block type's n is whole blocks.
void pd_rows_to_f32(enum ggml_type type, const void *from, float *to, int64_t n);
