#include "onerow/attention.h"

#include "onerow/avx2.h"
#include "onerow/products.h"

#include <math.h>
#include <string.h>

// A part is long against the sums that it leaves behind, and there are parts enough for every thread.
enum { CHUNK = 64, LONG_CHUNK = 128, LONG = 1024 };
enum { MOST_HEADS_AT_ONCE = 32 }; // their sums stay in the first cache

static bool is_cache(const struct ggml_tensor *t, int64_t head_dim) {
    return t->type == GGML_TYPE_F16 && t->ne[0] == head_dim && t->ne[3] == 1 && t->nb[0] == 2 &&
           t->nb[2] == (size_t)head_dim * 2;
}

bool pd_onerow_attention_plan(const struct ggml_tensor *node, pd_onerow_attention *plan) {
    if (node->op != GGML_OP_FLASH_ATTN_EXT || !pd_onerow_available()) return false;
    const struct ggml_tensor *q = node->src[0], *k = node->src[1], *v = node->src[2], *mask = node->src[3];
    float scale, max_bias, softcap;
    memcpy(&scale, &node->op_params[0], sizeof scale);
    memcpy(&max_bias, &node->op_params[1], sizeof max_bias);
    memcpy(&softcap, &node->op_params[2], sizeof softcap);
    if (max_bias != 0.0F || softcap != 0.0F || node->src[4]) return false;
    if (q->type != GGML_TYPE_F32 || q->nb[0] != sizeof(float) || q->ne[1] != 1 || q->ne[3] != 1) return false;
    if (q->ne[0] % 8 != 0 || !is_cache(k, q->ne[0]) || !is_cache(v, q->ne[0])) return false;
    if (v->ne[1] != k->ne[1] || v->ne[2] != k->ne[2] || q->ne[2] % k->ne[2] != 0) return false;
    if (q->ne[2] / k->ne[2] > MOST_HEADS_AT_ONCE) return false;
    if (mask && (mask->type != GGML_TYPE_F16 || mask->ne[0] != k->ne[1] || !ggml_is_contiguous(mask) ||
                 mask->ne[2] != 1 || mask->ne[3] != 1))
        return false;
    if (!ggml_is_contiguous(node) || node->type != GGML_TYPE_F32) return false;
    *plan = (pd_onerow_attention){.head_dim = q->ne[0],
                                  .n_heads = q->ne[2],
                                  .n_kv_heads = k->ne[2],
                                  .n_cached = k->ne[1],
                                  .chunk_rows = k->ne[1] < LONG ? CHUNK : LONG_CHUNK,
                                  .row_bytes = {k->nb[1], v->nb[1]},
                                  .query_bytes = q->nb[2],
                                  .scale = scale};
    plan->n_chunks = (plan->n_cached + plan->chunk_rows - 1) / plan->chunk_rows;
    return true;
}

// A part leaves for every head the largest score, the sum of the weights against it, and the weighted values.
static size_t part_floats(const pd_onerow_attention *plan) {
    return (size_t)(plan->n_heads * (plan->head_dim + 2));
}

size_t pd_onerow_attention_bytes(const pd_onerow_attention *plan) {
    return (size_t)plan->n_chunks * part_floats(plan) * sizeof(float);
}

#if PD_HAS_AVX2_KERNELS

// exp(x) for x ≤ 0; 0 below −87, where it leaves the normal numbers. With x = n·ln 2 + r, |r| ≤ ln 2 / 2, the
// series of exp(r) up to r^7 is exact to f32's precision. NaN stays NaN.
static inline PD_AVX2 __m256 exp_of_negative(__m256 x) {
    const __m256 lowest = _mm256_set1_ps(-87.0F);
    const __m256 vanishes = _mm256_cmp_ps(x, lowest, _CMP_LT_OQ);
    x = _mm256_max_ps(lowest, x);
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504F)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375F), x); // ln 2 in two parts
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4F), r);
    __m256 sum = _mm256_set1_ps(1.0F / 5040.0F);
    sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(1.0F / 720.0F));
    sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(1.0F / 120.0F));
    sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(1.0F / 24.0F));
    sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(1.0F / 6.0F));
    sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(0.5F));
    sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(1.0F));
    sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(1.0F));
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    sum = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sum), exponent));
    return _mm256_andnot_ps(vanishes, sum);
}

static inline PD_AVX2 __m256 load_f16(const char *from) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
}

// The four sums of a, b, c and d.
static inline PD_AVX2 __m128 four_sums(__m256 a, __m256 b, __m256 c, __m256 d) {
    const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}

// Four rows of the part: those beyond its end are its last one again.
static inline void four_rows(const char *rows, size_t row_bytes, int64_t row, int64_t n,
                             const char *four[4]) {
    for (int64_t i = 0; i < 4; i++)
        four[i] = rows + (size_t)(row + i < n ? row + i : n - 1) * row_bytes;
}

// scores[h][row] of n rows of keys, four at a time, for all heads.
static PD_AVX2 void score(const pd_onerow_attention *plan, const float *queries, const char *keys, int64_t n,
                          float (*scores)[LONG_CHUNK]) {
    const int64_t group = plan->n_heads / plan->n_kv_heads, head_dim = plan->head_dim;
    const __m128 scale = _mm_set1_ps(plan->scale);
    for (int64_t row = 0; row < n; row += 4) {
        const char *four[4];
        four_rows(keys, plan->row_bytes[0], row, n, four);
        for (int64_t h = 0; h < plan->n_heads; h++) {
            const float *q = (const float *)((const char *)queries + (size_t)h * plan->query_bytes);
            const size_t offset = (size_t)(h / group * head_dim) * 2;
            __m256 sums[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                              _mm256_setzero_ps()};
            for (int64_t d = 0; d < head_dim; d += 8) {
                const __m256 numbers = _mm256_loadu_ps(q + d);
                const size_t at = offset + (size_t)d * 2;
                for (int i = 0; i < 4; i++)
                    sums[i] = _mm256_fmadd_ps(numbers, load_f16(four[i] + at), sums[i]);
            }
            const __m128 products = _mm_mul_ps(four_sums(sums[0], sums[1], sums[2], sums[3]), scale);
            _mm_storeu_ps(&scores[h][row], products);
        }
    }
}

// Turns a head's scores into weights against the largest, *most, and gives their sum. n is a multiple of 8.
static PD_AVX2 float weigh(float *scores, int64_t n, float *most) {
    __m256 largest = _mm256_loadu_ps(scores);
    for (int64_t i = 8; i < n; i += 8)
        largest = _mm256_max_ps(largest, _mm256_loadu_ps(scores + i));
    float lanes[8];
    _mm256_storeu_ps(lanes, largest);
    *most = lanes[0];
    for (int i = 1; i < 8; i++)
        *most = fmaxf(*most, lanes[i]);
    if (*most == -INFINITY) {
        memset(scores, 0, (size_t)n * sizeof *scores);
        return 0.0F;
    }
    const __m256 shift = _mm256_set1_ps(*most);
    __m256 sum = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i += 8) {
        const __m256 weight = exp_of_negative(_mm256_sub_ps(_mm256_loadu_ps(scores + i), shift));
        _mm256_storeu_ps(scores + i, weight);
        sum = _mm256_add_ps(sum, weight);
    }
    _mm256_storeu_ps(lanes, sum);
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

// sums[h] += weights[h][row] · values[row] over n rows, four at a time; weights beyond are 0.
static PD_AVX2 void add_values(const pd_onerow_attention *plan, float (*weights)[LONG_CHUNK],
                               const char *values, int64_t n, float *sums) {
    const int64_t group = plan->n_heads / plan->n_kv_heads, head_dim = plan->head_dim;
    for (int64_t row = 0; row < n; row += 4) {
        const char *four[4];
        four_rows(values, plan->row_bytes[1], row, n, four);
        for (int64_t h = 0; h < plan->n_heads; h++) {
            float *sum = sums + h * head_dim;
            const size_t offset = (size_t)(h / group * head_dim) * 2;
            const __m256 w0 = _mm256_set1_ps(weights[h][row]), w1 = _mm256_set1_ps(weights[h][row + 1]),
                         w2 = _mm256_set1_ps(weights[h][row + 2]), w3 = _mm256_set1_ps(weights[h][row + 3]);
            for (int64_t d = 0; d < head_dim; d += 8) {
                const size_t at = offset + (size_t)d * 2;
                __m256 left = _mm256_fmadd_ps(w0, load_f16(four[0] + at), _mm256_loadu_ps(sum + d));
                __m256 right = _mm256_mul_ps(w1, load_f16(four[1] + at));
                left = _mm256_fmadd_ps(w2, load_f16(four[2] + at), left);
                right = _mm256_fmadd_ps(w3, load_f16(four[3] + at), right);
                _mm256_storeu_ps(sum + d, _mm256_add_ps(left, right));
            }
        }
    }
}

// `count` heads from `first` on, all of whole groups; n rows are seen.
static PD_AVX2 void run_heads(const pd_onerow_attention *whole, int64_t first, int64_t count,
                              const float *queries, const char *keys, const char *values,
                              const ggml_fp16_t *mask, int64_t n, float *part) {
    float scores[MOST_HEADS_AT_ONCE][LONG_CHUNK];
    const int64_t group = whole->n_heads / whole->n_kv_heads, padded = (n + 7) / 8 * 8;
    pd_onerow_attention plan = *whole;
    plan.n_heads = count;
    plan.n_kv_heads = count / group;
    const size_t offset = (size_t)(first / group * plan.head_dim) * 2;
    score(&plan, (const float *)((const char *)queries + (size_t)first * plan.query_bytes), keys + offset, n,
          scores);
    float *most = part + first, *sum = part + whole->n_heads + first,
          *weighted = part + 2 * whole->n_heads + first * plan.head_dim;
    for (int64_t h = 0; h < count; h++) {
        for (int64_t i = 0; mask && i < n; i++)
            scores[h][i] += ggml_fp16_to_fp32(mask[i]);
        for (int64_t i = n; i < padded; i++)
            scores[h][i] = -INFINITY;
        sum[h] = weigh(scores[h], padded, &most[h]);
    }
    memset(weighted, 0, (size_t)(count * plan.head_dim) * sizeof *weighted);
    add_values(&plan, scores, values + offset, n, weighted);
}

void pd_onerow_attention_run(const pd_onerow_attention *plan, const float *queries, const void *keys,
                             const void *values, const ggml_fp16_t *mask, int64_t chunk, float *partial) {
    float *part = partial + (size_t)chunk * part_floats(plan);
    const int64_t first = chunk * plan->chunk_rows, left = plan->n_cached - first;
    int64_t n = left < plan->chunk_rows ? left : plan->chunk_rows;
    bool added = false; // whether the mask does more than hide the end
    if (mask) {
        const ggml_fp16_t minus_infinity = 0xfc00;
        while (n > 0 && mask[first + n - 1] == minus_infinity)
            n--;
        for (int64_t i = 0; i < n; i++)
            added = added || mask[first + i] != 0;
    }
    if (n == 0) {
        for (int64_t h = 0; h < plan->n_heads; h++)
            part[h] = -INFINITY;
        return;
    }
    const int64_t group = plan->n_heads / plan->n_kv_heads,
                  at_once = group < MOST_HEADS_AT_ONCE ? MOST_HEADS_AT_ONCE / group * group : group;
    for (int64_t h = 0; h < plan->n_heads; h += at_once) {
        const int64_t count = plan->n_heads - h < at_once ? plan->n_heads - h : at_once;
        run_heads(plan, h, count, queries, (const char *)keys + (size_t)first * plan->row_bytes[0],
                  (const char *)values + (size_t)first * plan->row_bytes[1], added ? mask + first : NULL, n,
                  part);
    }
}

#else

void pd_onerow_attention_run(const pd_onerow_attention *plan, const float *queries, const void *keys,
                             const void *values, const ggml_fp16_t *mask, int64_t chunk, float *partial) {
    (void)plan, (void)queries, (void)keys, (void)values, (void)mask, (void)chunk, (void)partial;
}

#endif

void pd_onerow_attention_merge(const pd_onerow_attention *plan, const float *partial, int64_t first,
                               int64_t end, float *destination) {
    const size_t size = part_floats(plan);
    for (int64_t h = first; h < end; h++) {
        float most = -INFINITY, sum = 0.0F;
        for (int64_t c = 0; c < plan->n_chunks; c++)
            most = fmaxf(most, partial[(size_t)c * size + (size_t)h]);
        float *to = destination + h * plan->head_dim;
        memset(to, 0, (size_t)plan->head_dim * sizeof *to);
        for (int64_t c = 0; c < plan->n_chunks; c++) {
            const float *part = partial + (size_t)c * size;
            if (part[h] == -INFINITY) continue;
            const float weight = expf(part[h] - most);
            sum += weight * part[plan->n_heads + h];
            const float *from = part + 2 * plan->n_heads + h * plan->head_dim;
            for (int64_t d = 0; d < plan->head_dim; d++)
                to[d] += weight * from[d];
        }
        for (int64_t d = 0; d < plan->head_dim; d++)
            to[d] /= sum;
    }
}
