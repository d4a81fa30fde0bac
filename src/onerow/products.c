#include "onerow/products.h"

#include "onerow/avx2.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { BLOCK = 256 }; // numbers in a block of activations, and in ggml's k-quants

#if PD_HAS_AVX2_KERNELS

// Two rows of weights are multiplied at once, one in each half of a register: so a block's products of
// sixteen weights can be added in sixteen bits before they meet their scale. Activations stand twice for
// that.
typedef struct {
    float scale[8];           // the same everywhere
    int8_t twice[2 * BLOCK];  // sixteen numbers, the same sixteen again, the next sixteen …
    int16_t sums_of_16[16];   // of the numbers
    int16_t sums_of_32[2][8]; // the same eight twice
} activation_block;
_Static_assert(sizeof(activation_block) == 608, "blocks lie 32-byte aligned one behind the other");

// ggml's blocks of 256 weights, as its files hold them.
typedef struct {
    uint16_t scale, minimum; // f16: weights are scale · scales[i] · q − minimum · minima[i]
    uint8_t scales[12];      // eight scales and eight minima of six bits
    uint8_t low_high[128];   // 32 low nibbles are one group, the high ones the next
} q4_k;
_Static_assert(sizeof(q4_k) == 144, "as in the file");

typedef struct {
    uint8_t low[128];  // four bits of each weight
    uint8_t high[64];  // two more
    int8_t scales[16]; // of groups of sixteen
    uint16_t scale;    // f16: weights are scale · scales[i] · (q − 32)
} q6_k;
_Static_assert(sizeof(q6_k) == 210, "as in the file");

static inline PD_AVX2 __m256i halves(const void *x, const void *y) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(x)), _mm_loadu_si128(y), 1);
}

// The f16 numbers at x and those behind them as [x, x + 1, x, x + 1 | y, y + 1, y, y + 1].
static inline PD_AVX2 __m256 two_scales(const void *x, const void *y) {
    int32_t bits_x, bits_y;
    memcpy(&bits_x, x, sizeof bits_x);
    memcpy(&bits_y, y, sizeof bits_y);
    return _mm256_cvtph_ps(_mm_blend_epi32(_mm_set1_epi32(bits_x), _mm_set1_epi32(bits_y), 12));
}

// The eight scales, then the eight minima, a byte each. The first four of each are the low six bits of a
// byte; of the others four bits are in the last four bytes, and two above those six.
static inline PD_AVX2 __m128i unpack_q4_k(const q4_k *block) {
    uint64_t bytes;
    uint32_t nibbles;
    memcpy(&bytes, block->scales, sizeof bytes);
    memcpy(&nibbles, block->scales + 8, sizeof nibbles);
    const uint64_t spread = ((uint64_t)(nibbles >> 4) << 32) | nibbles;
    const uint64_t first = bytes & 0x3f3f3f3f3f3f3f3fU;
    const uint64_t second = (spread & 0x0f0f0f0f0f0f0f0fU) | ((bytes >> 2) & 0x3030303030303030U);
    return _mm_unpacklo_epi32(_mm_cvtsi64_si128((long long)first), _mm_cvtsi64_si128((long long)second));
}

// What a pair of rows has come to; each half of a register belongs to one.
typedef struct {
    __m256 sum, minima;
} pair_sum;

static inline PD_AVX2 void q4_k_block(const q4_k *x, const q4_k *y, const activation_block *a,
                                      pair_sum *total) {
    const __m256 scales = _mm256_mul_ps(two_scales(&x->scale, &y->scale), _mm256_load_ps(a->scale));
    const __m128i bytes_x = unpack_q4_k(x), bytes_y = unpack_q4_k(y);
    const __m256i group_scales = _mm256_cvtepu8_epi16(_mm_unpacklo_epi64(bytes_x, bytes_y));
    const __m256i minima = _mm256_cvtepu8_epi16(_mm_unpackhi_epi64(bytes_x, bytes_y));
    const __m256i sums = _mm256_load_si256((const __m256i *)a->sums_of_32);
    total->minima = _mm256_fmadd_ps(_mm256_movehdup_ps(scales),
                                    _mm256_cvtepi32_ps(_mm256_madd_epi16(minima, sums)), total->minima);
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i even = _mm256_setzero_si256(), odd = even;
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) { // two groups of 32
        const __m256i *numbers = (const __m256i *)(a->twice + 128 * j);
        const __m256i q0 = halves(x->low_high + 32 * j, y->low_high + 32 * j);
        const __m256i q1 = halves(x->low_high + 32 * j + 16, y->low_high + 32 * j + 16);
        const __m256i low = _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_and_si256(q0, nibble), numbers[0]),
                                             _mm256_maddubs_epi16(_mm256_and_si256(q1, nibble), numbers[1]));
        const __m256i high = _mm256_add_epi16(
            _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(q0, 4), nibble), numbers[2]),
            _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(q1, 4), nibble), numbers[3]));
        const __m256i of_low = _mm256_set1_epi16((short)(0x100 * (4 * j + 1) + 4 * j));
        const __m256i of_high = _mm256_set1_epi16((short)(0x100 * (4 * j + 3) + 4 * j + 2));
        even = _mm256_add_epi32(even, _mm256_madd_epi16(_mm256_shuffle_epi8(group_scales, of_low), low));
        odd = _mm256_add_epi32(odd, _mm256_madd_epi16(_mm256_shuffle_epi8(group_scales, of_high), high));
    }
    total->sum = _mm256_fmadd_ps(_mm256_moveldup_ps(scales), _mm256_cvtepi32_ps(_mm256_add_epi32(even, odd)),
                                 total->sum);
}

static inline PD_AVX2 void q6_k_block(const q6_k *x, const q6_k *y, const activation_block *a,
                                      pair_sum *total) {
    // The scale is a block's last number: read with the one before it, which lies in the block.
    const __m256 scales = _mm256_mul_ps(_mm256_movehdup_ps(two_scales(x->scales + 14, y->scales + 14)),
                                        _mm256_load_ps(a->scale));
    const __m256i scales_x = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)x->scales));
    const __m256i scales_y = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)y->scales));
    const __m256i sums = _mm256_load_si256((const __m256i *)a->sums_of_16);
    const __m256i offset_x = _mm256_madd_epi16(scales_x, sums), offset_y = _mm256_madd_epi16(scales_y, sums);
    const __m256i offset = _mm256_add_epi32(_mm256_permute2x128_si256(offset_x, offset_y, 0x20),
                                            _mm256_permute2x128_si256(offset_x, offset_y, 0x31));
    const __m256i nibble = _mm256_set1_epi8(15), bits = _mm256_set1_epi8(0x30);
    __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) { // 128 weights with eight scales
        const __m256i group_scales = half == 0 ? _mm256_permute2x128_si256(scales_x, scales_y, 0x20)
                                               : _mm256_permute2x128_si256(scales_x, scales_y, 0x31);
#pragma GCC unroll 2
        for (int part = 0; part < 2; part++) { // groups part, 2 + part, 4 + part and 6 + part of them
            const int low_at = 64 * half + 16 * part, high_at = 32 * half + 16 * part;
            const __m256i *numbers = (const __m256i *)(a->twice + 256 * half + 32 * part);
            const __m256i low0 = halves(x->low + low_at, y->low + low_at);
            const __m256i low1 = halves(x->low + low_at + 32, y->low + low_at + 32);
            const __m256i high = halves(x->high + high_at, y->high + high_at);
            const __m256i q[4] = {
                _mm256_or_si256(_mm256_and_si256(low0, nibble),
                                _mm256_and_si256(_mm256_slli_epi16(high, 4), bits)),
                _mm256_or_si256(_mm256_and_si256(low1, nibble),
                                _mm256_and_si256(_mm256_slli_epi16(high, 2), bits)),
                _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(low0, 4), nibble),
                                _mm256_and_si256(high, bits)),
                _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(low1, 4), nibble),
                                _mm256_and_si256(_mm256_srli_epi16(high, 2), bits)),
            };
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                const int group = 2 * i + part;
                const __m256i of_group = _mm256_set1_epi16((short)(0x100 * (2 * group + 1) + 2 * group));
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_shuffle_epi8(group_scales, of_group),
                                                              _mm256_maddubs_epi16(q[i], numbers[2 * i])));
            }
        }
    }
    sum = _mm256_sub_epi32(sum, _mm256_slli_epi32(offset, 5));
    total->sum = _mm256_fmadd_ps(scales, _mm256_cvtepi32_ps(sum), total->sum);
}

static inline PD_AVX2 void store_pair(const pair_sum *total, float *x, float *y) {
    __m256 sum = _mm256_sub_ps(total->sum, total->minima);
    sum = _mm256_hadd_ps(sum, sum);
    sum = _mm256_hadd_ps(sum, sum);
    *y = _mm_cvtss_f32(_mm256_extractf128_ps(sum, 1));
    *x = _mm256_cvtss_f32(sum);
}

// Four rows at a time; what will be read next is asked for on the way, for the CPU's own prefetching stops at
// pages, and is not used to four streams that end soon. Rows beyond the end are the last one again.
#define MULTIPLY(name, block_type, multiply_block)                                                           \
    static PD_AVX2 void name(const char *weights, size_t row_bytes, const activation_block *a,               \
                             int64_t n_blocks, int64_t first, int64_t end, int64_t next_first,               \
                             float *destination) {                                                           \
        for (int64_t row = first; row < end; row += 4) {                                                     \
            const block_type *rows[4];                                                                       \
            const char *next[4];                                                                             \
            const int64_t next_row = row + 4 < end ? row + 4 : next_first;                                   \
            for (int64_t i = 0; i < 4; i++) {                                                                \
                const int64_t at = row + i < end ? row + i : end - 1;                                        \
                rows[i] = (const block_type *)(weights + (size_t)at * row_bytes);                            \
                next[i] = weights + (size_t)next_row * row_bytes + (size_t)i * row_bytes;                    \
            }                                                                                                \
            pair_sum totals[2];                                                                              \
            for (int i = 0; i < 2; i++)                                                                      \
                totals[i] = (pair_sum){_mm256_setzero_ps(), _mm256_setzero_ps()};                            \
            for (int64_t b = 0; b < n_blocks; b++) {                                                         \
                for (int i = 0; i < 4; i++) {                                                                \
                    const char *line = next[i] + (size_t)b * sizeof(block_type);                             \
                    _mm_prefetch(line, _MM_HINT_T0);                                                         \
                    _mm_prefetch(line + 64, _MM_HINT_T0);                                                    \
                    _mm_prefetch(line + 128, _MM_HINT_T0);                                                   \
                }                                                                                            \
                multiply_block(rows[0] + b, rows[1] + b, a + b, &totals[0]);                                 \
                multiply_block(rows[2] + b, rows[3] + b, a + b, &totals[1]);                                 \
            }                                                                                                \
            float sums[4];                                                                                   \
            store_pair(&totals[0], &sums[0], &sums[1]);                                                      \
            store_pair(&totals[1], &sums[2], &sums[3]);                                                      \
            const size_t n_rows = (size_t)(end - row < 4 ? end - row : 4);                                   \
            memcpy(destination + row, sums, n_rows * sizeof *sums);                                          \
        }                                                                                                    \
    }

MULTIPLY(multiply_q4_k, q4_k, q4_k_block)
MULTIPLY(multiply_q6_k, q6_k, q6_k_block)

bool pd_onerow_available(void) {
    // F16C is older than AVX2: every CPU with this has that, and not every compiler can ask for it.
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool pd_onerow_can_multiply(enum ggml_type type) {
    return pd_onerow_available() && (type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q6_K);
}

size_t pd_onerow_activation_bytes(int64_t n) {
    return ((size_t)n / BLOCK * sizeof(activation_block) + 63) / 64 * 64;
}

// Eight numbers at `from`, scaled and rounded to the nearest.
static inline PD_AVX2 __m256i rounded(const float *from, __m256 inverse) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from), inverse));
}

static PD_AVX2 void quantise_block(const float *from, activation_block *to) {
    __m256 highest = _mm256_loadu_ps(from), lowest = highest;
    for (int i = 8; i < BLOCK; i += 8) {
        highest = _mm256_max_ps(highest, _mm256_loadu_ps(from + i));
        lowest = _mm256_min_ps(lowest, _mm256_loadu_ps(from + i));
    }
    float high[8], low[8];
    _mm256_storeu_ps(high, highest);
    _mm256_storeu_ps(low, lowest);
    for (int i = 1; i < 8; i++) {
        high[0] = fmaxf(high[0], high[i]);
        low[0] = fminf(low[0], low[i]);
    }
    // The number of the largest magnitude becomes −127, as in ggml.
    const float largest = high[0] > -low[0] ? high[0] : low[0];
    const float inverse = largest == 0.0F ? 0.0F : -127.0F / largest;
    const __m256 factor = _mm256_set1_ps(inverse);
    _mm256_storeu_ps(to->scale, _mm256_set1_ps(largest == 0.0F ? 0.0F : 1.0F / inverse));
    for (int group = 0; group < 16; group++) {
        const __m256i a = rounded(from + 16 * group, factor), b = rounded(from + 16 * group + 8, factor);
        // in each half: the pack's order is a's first four, b's first four | a's last four, b's last four
        const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
        const __m256i bytes = _mm256_packs_epi16(words, words); // eight bytes twice in each half
        const __m128i numbers =
            _mm_unpacklo_epi64(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
        _mm256_storeu_si256((__m256i *)(to->twice + 32 * group), _mm256_broadcastsi128_si256(numbers));
        int sum = 0;
        for (int i = 0; i < 16; i++)
            sum += to->twice[32 * group + i];
        to->sums_of_16[group] = (int16_t)sum;
    }
    for (int i = 0; i < 16; i++)
        to->sums_of_32[i / 8][i % 8] =
            (int16_t)(to->sums_of_16[2 * (i % 8)] + to->sums_of_16[2 * (i % 8) + 1]);
}

void pd_onerow_quantise(const float *from, void *activations, int64_t n) {
    activation_block *blocks = activations;
    for (int64_t b = 0; b < n / BLOCK; b++)
        quantise_block(from + b * BLOCK, &blocks[b]);
}

void pd_onerow_multiply(enum ggml_type type, const void *weights, size_t row_bytes, const void *activations,
                        int64_t n, int64_t first, int64_t end, int64_t next_first, float *destination) {
    if (type == GGML_TYPE_Q4_K) {
        multiply_q4_k(weights, row_bytes, activations, n / BLOCK, first, end, next_first, destination);
    } else {
        multiply_q6_k(weights, row_bytes, activations, n / BLOCK, first, end, next_first, destination);
    }
}

#else

bool pd_onerow_available(void) {
    return false;
}

bool pd_onerow_can_multiply(enum ggml_type type) {
    (void)type;
    return false;
}

size_t pd_onerow_activation_bytes(int64_t n) {
    (void)n;
    return 0;
}

void pd_onerow_quantise(const float *from, void *activations, int64_t n) {
    (void)from, (void)activations, (void)n;
}

void pd_onerow_multiply(enum ggml_type type, const void *weights, size_t row_bytes, const void *activations,
                        int64_t n, int64_t first, int64_t end, int64_t next_first, float *destination) {
    (void)type, (void)weights, (void)row_bytes, (void)activations, (void)n, (void)first, (void)end;
    (void)next_first, (void)destination;
}

#endif
