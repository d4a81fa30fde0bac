#include "onednn/softmax.h"

#include "onednn/clones.h"
#include "onednn/rows.h"

#include <math.h>
#include <string.h>

// ISO C lets a · b + c be one instruction, gcc only when asked.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=fast")
#endif

static inline int32_t bits_of(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_of(int32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// Floats as integers in the same order; its own inverse. Compilers keep integer maxima in SIMD lanes without
// being told that no float is NaN.
static inline int32_t ordered(int32_t bits) {
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

// e^x = 2^n · e^f, n the integer nearest to x / ln 2 (Cody and Waite). The polynomial's relative error over
// |f| ≤ ln 2 / 2 is the least that degree 6 has (Remez): 1.9e-9.
PD_CLONED_PART float exp_of(float x) {
    const float rounder = 12582912.0F + 127.0F; // 1.5 · 2²³: adding it leaves n, biased, in the low bits
    const float shifted = x * 0x1.715476p+0F + rounder;
    const float n = shifted - rounder;
    const float f = (x - n * 0x1.62e4p-1F) - n * 0x1.7f7d1cp-20F; // ln 2: its first 15 bits times n is exact
    float power = 0x1.6ab928p-10F;
    power = power * f + 0x1.126d64p-7F;
    power = power * f + 0x1.55589cp-5F;
    power = power * f + 0x1.55540ap-3F;
    power = power * f + 0x1.fffffap-2F;
    power = power * f + 1.0F;
    power = power * f + 1.0F;
    const float scaled = power * float_of((int32_t)((uint32_t)bits_of(shifted) << 23));
    // A mask and not a choice: compilers would compute only where the choice is for it, and not in SIMD.
    const uint32_t kept = 0U - (uint32_t) !(x < -86.5F);
    return float_of((int32_t)((uint32_t)bits_of(scaled) & kept));
}

PD_CLONES
static void exp_row(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        x[i] = exp_of(x[i]);
}

void pd_exp_row(float *x, int64_t n) {
    exp_row(x, n);
}

PD_CLONED_PART float row_maximum(const float *row, int64_t n, float least) {
    int32_t most = ordered(bits_of(least));
    for (int64_t i = 0; i < n; i++) {
        const int32_t score = ordered(bits_of(row[i]));
        most = score > most ? score : most;
    }
    return float_of(ordered(most));
}

PD_CLONES
static float max_row(const float *x, int64_t n) {
    return row_maximum(x, n, x[0]);
}

float pd_max_row(const float *x, int64_t n) {
    return max_row(x, n);
}

// row = e^(row - maximum); the sum. The lanes are SIMD's, for floats are not added in another order unasked.
PD_CLONED_PART float row_shares(float *row, int64_t n, float maximum) {
    float lanes[PD_SOFTMAX_STEP] = {0};
    for (int64_t i = 0; i < n; i += PD_SOFTMAX_STEP) {
        for (int lane = 0; lane < PD_SOFTMAX_STEP; lane++) {
            const float share = exp_of(row[i + lane] - maximum);
            row[i + lane] = share;
            lanes[lane] += share;
        }
    }
    float sum = 0.0F;
    for (int lane = 0; lane < PD_SOFTMAX_STEP; lane++)
        sum += lanes[lane];
    return sum;
}

// The same into `halves`, by way of numbers that stay in the first-level cache: a loop that made both would
// not be one of SIMD.
PD_CLONED_PART float row_halves(const float *restrict row, uint16_t *restrict halves, int64_t n,
                                float maximum) {
    enum { AT_ONCE = 128 };
    float shares[AT_ONCE], sum = 0.0F;
    for (int64_t i = 0; i < n; i += AT_ONCE) {
        const int64_t count = n - i < AT_ONCE ? n - i : AT_ONCE;
        memcpy(shares, row + i, (size_t)count * sizeof *shares);
        sum += row_shares(shares, count, maximum);
        for (int64_t j = 0; j < count; j++)
            halves[i + j] = pd_float_to_bf16(shares[j]);
    }
    return sum;
}

PD_CLONED_PART void row_scale(float *row, int64_t n, float factor) {
    for (int64_t i = 0; i < n; i++)
        row[i] *= factor;
}

PD_CLONES
static void softmax_add(const pd_softmax_chunk *chunk) {
    const int64_t n = (chunk->keys + PD_SOFTMAX_STEP - 1) / PD_SOFTMAX_STEP * PD_SOFTMAX_STEP;
    for (int64_t r = 0; r < chunk->rows; r++) {
        float *row = chunk->scores + r * chunk->stride;
        for (int64_t i = chunk->keys; i < n; i++)
            row[i] = -INFINITY;
        const float before = chunk->maxima[r], maximum = row_maximum(row, n, before);
        const float from = maximum == -INFINITY ? 0.0F : maximum;
        const float sum = chunk->halves ? row_halves(row, chunk->halves + r * chunk->stride, n, from)
                                        : row_shares(row, n, from);
        if (before != maximum && before != -INFINITY) {
            const float factor = exp_of(before - maximum);
            chunk->sums[r] *= factor;
            row_scale(chunk->results + r * chunk->width, chunk->width, factor);
        }
        chunk->sums[r] += sum;
        chunk->maxima[r] = maximum;
    }
}

void pd_softmax_add(const pd_softmax_chunk *chunk) {
    softmax_add(chunk);
}
