#include "onednn/int16.h"

#include <string.h>

enum { STRIP_PAIR = 2 * PD_INT16_COLUMNS }; // numbers of a strip for two of k

static int64_t pairs_of(int64_t k) {
    return (k + 1) / 2;
}

size_t pd_int16_panel_bytes(int64_t k, int64_t columns) {
    const int64_t strips = (columns + PD_INT16_COLUMNS - 1) / PD_INT16_COLUMNS;
    return (size_t)(strips * pairs_of(k) * STRIP_PAIR) * sizeof(int16_t);
}

void pd_int16_set_column(int16_t *panel, int64_t k, int64_t column, const int16_t *numbers) {
    int16_t *to =
        panel + column / PD_INT16_COLUMNS * pairs_of(k) * STRIP_PAIR + column % PD_INT16_COLUMNS * 2;
    for (int64_t i = 0; i < pairs_of(k); i++) {
        to[i * STRIP_PAIR] = numbers ? numbers[2 * i] : 0;
        to[i * STRIP_PAIR + 1] = numbers && 2 * i + 1 < k ? numbers[2 * i + 1] : 0;
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

#define PD_AVX2 __attribute__((target("avx2")))

bool pd_int16_available(void) {
    return __builtin_cpu_supports("avx2");
}

// sums[r] += both products of a pair with 16 columns. The empty statement keeps the compiler from loading all
// rows' numbers first, for which there are no registers left.
#define ADD_ROW(r)                                                                                           \
    do {                                                                                                     \
        int32_t pair;                                                                                        \
        memcpy(&pair, rows[r] + 2 * i, sizeof pair);                                                         \
        __m256i both = _mm256_set1_epi32(pair);                                                              \
        const __m256i product = _mm256_madd_epi16(both, w_left);                                             \
        both = _mm256_madd_epi16(both, w_right);                                                             \
        left##r = _mm256_add_epi32(left##r, product);                                                        \
        right##r = _mm256_add_epi32(right##r, both);                                                         \
        __asm__("" : "+x"(left##r), "+x"(right##r));                                                         \
    } while (0)

#define STORE_ROW(r)                                                                                         \
    do {                                                                                                     \
        _mm256_store_si256((__m256i *)(void *)sums[r], left##r);                                             \
        _mm256_store_si256((__m256i *)(void *)(sums[r] + 8), right##r);                                      \
    } while (0)

// Exact sums over a group, in twelve registers: what a strip's weights and six rows make.
PD_AVX2 static void sum_group(const int16_t *const rows[PD_INT16_ROWS], const int16_t *weights,
                              int64_t n_pairs, int32_t sums[PD_INT16_ROWS][PD_INT16_COLUMNS]) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i left0 = zero, left1 = zero, left2 = zero, left3 = zero, left4 = zero, left5 = zero;
    __m256i right0 = zero, right1 = zero, right2 = zero, right3 = zero, right4 = zero, right5 = zero;
    for (int64_t i = 0; i < n_pairs; i++) {
        const __m256i *w = (const __m256i *)(const void *)(weights + i * STRIP_PAIR);
        const __m256i w_left = _mm256_load_si256(w), w_right = _mm256_load_si256(w + 1);
        ADD_ROW(0);
        ADD_ROW(1);
        ADD_ROW(2);
        ADD_ROW(3);
        ADD_ROW(4);
        ADD_ROW(5);
    }
    STORE_ROW(0);
    STORE_ROW(1);
    STORE_ROW(2);
    STORE_ROW(3);
    STORE_ROW(4);
    STORE_ROW(5);
}

PD_AVX2 static void scale_row(const int32_t sums[PD_INT16_COLUMNS], float scale,
                              const float scales[PD_INT16_COLUMNS], float to[PD_INT16_COLUMNS]) {
    for (int j = 0; j < PD_INT16_COLUMNS; j++)
        to[j] = (float)sums[j] * (scale * scales[j]);
}

// One group of one strip: six rows at a time, the last ones repeated where there are fewer.
PD_AVX2 static void multiply_strip(const pd_int16_product *p, int64_t group, int64_t first_column) {
    const int64_t first = group * PD_INT16_GROUP, n_groups = (p->k + PD_INT16_GROUP - 1) / PD_INT16_GROUP;
    const int64_t count = p->k - first < PD_INT16_GROUP ? p->k - first : PD_INT16_GROUP;
    const int64_t left = p->columns - first_column,
                  columns = left < PD_INT16_COLUMNS ? left : PD_INT16_COLUMNS;
    const int16_t *weights =
        p->panel + first_column / PD_INT16_COLUMNS * pairs_of(p->k) * STRIP_PAIR + first / 2 * STRIP_PAIR;
    float scales[PD_INT16_COLUMNS] = {0}, row[PD_INT16_COLUMNS];
    memcpy(scales, p->panel_scales + group * p->panel_scales_stride + first_column,
           (size_t)columns * sizeof *scales);
    _Alignas(32) int32_t sums[PD_INT16_ROWS][PD_INT16_COLUMNS];
    for (int64_t r = 0; r < p->rows; r += PD_INT16_ROWS) {
        const int16_t *rows[PD_INT16_ROWS];
        for (int64_t i = 0; i < PD_INT16_ROWS; i++)
            rows[i] = p->source + (r + i < p->rows ? r + i : p->rows - 1) * p->source_stride + first;
        sum_group(rows, weights, pairs_of(count), sums);
        for (int64_t i = 0; i < PD_INT16_ROWS && r + i < p->rows; i++) {
            float *to = p->destination + (r + i) * p->destination_stride + first_column;
            scale_row(sums[i], p->source_scales[(r + i) * n_groups + group], scales, row);
            if (group > 0) {
                for (int64_t j = 0; j < columns; j++)
                    to[j] += row[j];
            } else {
                memcpy(to, row, (size_t)columns * sizeof *to);
            }
        }
    }
}

// A group's weights of a strip stay in the first cache, its numbers of the rows in the second.
void pd_int16_multiply(const pd_int16_product *p) {
    for (int64_t group = 0; group * PD_INT16_GROUP < p->k; group++) {
        for (int64_t column = 0; column < p->columns; column += PD_INT16_COLUMNS)
            multiply_strip(p, group, column);
    }
}

#else

bool pd_int16_available(void) {
    return false;
}

void pd_int16_multiply(const pd_int16_product *p) {
    (void)p; // not available
}

#endif
