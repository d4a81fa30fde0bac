#include "onednn/int16.h"

#include <string.h>

enum {
    STRIP_PAIR = 2 * PD_INT16_COLUMNS, // numbers of a strip for two of k
    GROUPS_AT_ONCE = 4
};

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

// results[r] += sums · the row's scale · the columns' scales
#define SCALE_ROW(r)                                                                                         \
    do {                                                                                                     \
        const __m256 scale = _mm256_set1_ps(row_scales[r]);                                                  \
        float *to = results[r];                                                                              \
        _mm256_store_ps(to, _mm256_add_ps(_mm256_load_ps(to), _mm256_mul_ps(_mm256_cvtepi32_ps(left##r),     \
                                                                            _mm256_mul_ps(scale, s_left)))); \
        _mm256_store_ps(                                                                                     \
            to + 8, _mm256_add_ps(_mm256_load_ps(to + 8), _mm256_mul_ps(_mm256_cvtepi32_ps(right##r),        \
                                                                        _mm256_mul_ps(scale, s_right))));    \
    } while (0)

// Adds what six rows make of a group's weights of a strip: exact sums, in twelve registers, then scaled.
PD_AVX2 static void add_group(const int16_t *const rows[PD_INT16_ROWS], const int16_t *weights,
                              int64_t n_pairs, const float row_scales[PD_INT16_ROWS],
                              const float scales[PD_INT16_COLUMNS],
                              float results[PD_INT16_ROWS][PD_INT16_COLUMNS]) {
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
    const __m256 s_left = _mm256_load_ps(scales), s_right = _mm256_load_ps(scales + 8);
    SCALE_ROW(0);
    SCALE_ROW(1);
    SCALE_ROW(2);
    SCALE_ROW(3);
    SCALE_ROW(4);
    SCALE_ROW(5);
}

PD_AVX2 static void add_row(const float *restrict row, float *restrict to, int64_t n) {
    if (n == PD_INT16_COLUMNS) {
        for (int j = 0; j < PD_INT16_COLUMNS; j++)
            to[j] += row[j];
    } else {
        for (int64_t j = 0; j < n; j++)
            to[j] += row[j];
    }
}

// Some groups of one strip: six rows at a time, the last ones repeated where there are fewer.
PD_AVX2 static void multiply_strip(const pd_int16_product *p, int64_t first_group, int64_t end_group,
                                   int64_t first_column) {
    const int64_t n_groups = (p->k + PD_INT16_GROUP - 1) / PD_INT16_GROUP;
    const int64_t left = p->columns - first_column,
                  columns = left < PD_INT16_COLUMNS ? left : PD_INT16_COLUMNS;
    const int16_t *strip = p->panel + first_column / PD_INT16_COLUMNS * pairs_of(p->k) * STRIP_PAIR;
    _Alignas(32) float scales[GROUPS_AT_ONCE][PD_INT16_COLUMNS] = {{0}};
    for (int64_t g = first_group; g < end_group; g++)
        memcpy(scales[g - first_group], p->panel_scales + g * p->panel_scales_stride + first_column,
               (size_t)columns * sizeof **scales);
    for (int64_t r = 0; r < p->rows; r += PD_INT16_ROWS) {
        _Alignas(32) float results[PD_INT16_ROWS][PD_INT16_COLUMNS] = {{0}};
        for (int64_t g = first_group; g < end_group; g++) {
            const int64_t first = g * PD_INT16_GROUP;
            const int64_t count = p->k - first < PD_INT16_GROUP ? p->k - first : PD_INT16_GROUP;
            const int16_t *rows[PD_INT16_ROWS];
            float row_scales[PD_INT16_ROWS];
            for (int64_t i = 0; i < PD_INT16_ROWS; i++) {
                const int64_t row = r + i < p->rows ? r + i : p->rows - 1;
                rows[i] = p->source + row * p->source_stride + first;
                row_scales[i] = p->source_scales[row * n_groups + g];
            }
            add_group(rows, strip + first / 2 * STRIP_PAIR, pairs_of(count), row_scales,
                      scales[g - first_group], results);
        }
        for (int64_t i = 0; i < PD_INT16_ROWS && r + i < p->rows; i++) {
            float *to = p->destination + (r + i) * p->destination_stride + first_column;
            if (first_group == 0) {
                memcpy(to, results[i], (size_t)columns * sizeof *to);
            } else {
                add_row(results[i], to, columns);
            }
        }
    }
}

// The weights of some groups of a strip stay in the first cache, the rows' numbers in the second.
void pd_int16_multiply(const pd_int16_product *p) {
    const int64_t n_groups = (p->k + PD_INT16_GROUP - 1) / PD_INT16_GROUP;
    for (int64_t group = 0; group < n_groups; group += GROUPS_AT_ONCE) {
        const int64_t end = group + GROUPS_AT_ONCE < n_groups ? group + GROUPS_AT_ONCE : n_groups;
        for (int64_t column = 0; column < p->columns; column += PD_INT16_COLUMNS)
            multiply_strip(p, group, end, column);
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
