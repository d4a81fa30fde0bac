#include "train/ops.h"

#include "onednn/clones.h"
#include "onednn/softmax.h"
#include "train/custom.h"
#include "train/lanes.h"

#include <math.h>

// ISO C lets a · b + c be one instruction, gcc only when asked.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=fast")
#endif

static float *row_of(const struct ggml_tensor *t, int64_t row) {
    return (float *)((char *)t->data + (size_t)row * t->nb[1]);
}

// A node of the shape of `like`, over whose rows the threads share.
static struct ggml_tensor *like_node(struct ggml_context *ctx, const struct ggml_tensor *like,
                                     struct ggml_tensor **sources, int n, ggml_custom_op_t run, void *user) {
    return ggml_custom_4d(ctx, GGML_TYPE_F32, like->ne[0], like->ne[1], like->ne[2], like->ne[3], sources, n,
                          run, GGML_N_TASKS_MAX, user);
}

static inline float sum_of(const float *x, int64_t n) {
    float lanes[PD_LANES] = {0};
    int64_t i = 0;
    for (; i + PD_LANES <= n; i += PD_LANES) {
        for (int lane = 0; lane < PD_LANES; lane++)
            lanes[lane] += x[i + lane];
    }
    for (; i < n; i++)
        lanes[0] += x[i];
    return pd_add_lanes(lanes);
}

// Σ (x − a)(y − b)
static inline float sum_of_products(const float *x, float a, const float *y, float b, int64_t n) {
    float lanes[PD_LANES] = {0};
    int64_t i = 0;
    for (; i + PD_LANES <= n; i += PD_LANES) {
        for (int lane = 0; lane < PD_LANES; lane++)
            lanes[lane] += (x[i + lane] - a) * (y[i + lane] - b);
    }
    for (; i < n; i++)
        lanes[0] += (x[i] - a) * (y[i] - b);
    return pd_add_lanes(lanes);
}

// ---- norms -------------------------------------------------------------------------------------------------

PD_CLONES
static void norm_back_row(const float *gradient, const float *x, int64_t n, float epsilon, bool centred,
                          float *out) {
    const float count = (float)n, mean = centred ? sum_of(x, n) / count : 0.0F;
    const float inverse = 1.0F / sqrtf(sum_of_products(x, mean, x, mean, n) / count + epsilon);
    const float mean_g = centred ? sum_of(gradient, n) / count : 0.0F;
    const float along = sum_of_products(gradient, 0.0F, x, mean, n) / count * inverse * inverse;
    for (int64_t i = 0; i < n; i++)
        out[i] = (gradient[i] - mean_g - (x[i] - mean) * along) * inverse;
}

static void norm_back(struct ggml_tensor *out, int thread, int n_threads, const void *params, bool centred) {
    float epsilon = 0.0F; // first of the forward node's parameters
    memcpy(&epsilon, params, sizeof epsilon);
    int64_t first = 0, last = 0;
    pd_share(out->ne[1], thread, n_threads, &first, &last);
    for (int64_t r = first; r < last; r++)
        norm_back_row(row_of(out->src[0], r), row_of(out->src[1], r), out->ne[0], epsilon, centred,
                      row_of(out, r));
}

static void run_norm_back(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    norm_back(out, thread, n_threads, user, true);
}

static void run_rms_norm_back(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    norm_back(out, thread, n_threads, user, false);
}

struct ggml_tensor *pd_norm_back(struct ggml_context *ctx, struct ggml_tensor *gradient,
                                 const struct ggml_tensor *node) {
    struct ggml_tensor *sources[] = {gradient, node->src[0]};
    return like_node(ctx, gradient, sources, 2, run_norm_back, (void *)(uintptr_t)node->op_params);
}

struct ggml_tensor *pd_rms_norm_back(struct ggml_context *ctx, struct ggml_tensor *gradient,
                                     const struct ggml_tensor *node) {
    struct ggml_tensor *sources[] = {gradient, node->src[0]};
    return like_node(ctx, gradient, sources, 2, run_rms_norm_back, (void *)(uintptr_t)node->op_params);
}

// ---- activations -------------------------------------------------------------------------------------------

static void run_gelu_erf_back(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    (void)user;
    int64_t first = 0, last = 0;
    pd_share(ggml_nelements(out), thread, n_threads, &first, &last);
    const float *gradient = out->src[0]->data, *x = out->src[1]->data;
    float *d_x = out->data;
    for (int64_t i = first; i < last; i++) {
        const float cumulative = 0.5F * (1.0F + erff(x[i] * 0.70710678F)); // Φ(x)
        const float density = 0.39894228F * expf(-0.5F * x[i] * x[i]);     // φ(x)
        d_x[i] = gradient[i] * (cumulative + x[i] * density);
    }
}

struct ggml_tensor *pd_gelu_erf_back(struct ggml_context *ctx, struct ggml_tensor *gradient,
                                     struct ggml_tensor *x) {
    struct ggml_tensor *sources[] = {gradient, x};
    return like_node(ctx, x, sources, 2, run_gelu_erf_back, NULL);
}

// σ(x) from e^−|x|, which does not overflow: e^−|x| or 1, by x's sign, over 1 + e^−|x|. A mask and not a
// choice: compilers would branch, and not use SIMD.
static inline float sigmoid_of(float x, float small) {
    int32_t sign, bits;
    const float one = 1.0F;
    int32_t of_one;
    memcpy(&sign, &x, sizeof sign);
    memcpy(&bits, &small, sizeof bits);
    memcpy(&of_one, &one, sizeof of_one);
    const int32_t negative = sign >> 31, above = (bits & negative) | (of_one & ~negative);
    float numerator;
    memcpy(&numerator, &above, sizeof numerator);
    return numerator / (1.0F + small);
}

// Exponentials are made in place, some at a time, so that they are still in the first-level cache when they
// are used.
enum { ACTIVATIONS = 1024 };

static inline int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline void minus_absolute(const float *x, float *out, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        out[i] = -fabsf(x[i]);
}

PD_CLONES
static void silu_back_some(const float *gradient, const float *x, float *d_x, int64_t n) {
    minus_absolute(x, d_x, n);
    pd_exp_row(d_x, n);
    for (int64_t i = 0; i < n; i++) {
        const float sigmoid = sigmoid_of(x[i], d_x[i]);
        d_x[i] = gradient[i] * sigmoid * (1.0F + x[i] * (1.0F - sigmoid));
    }
}

static void silu_back(const float *gradient, const float *x, float *d_x, int64_t n) {
    for (int64_t i = 0; i < n; i += ACTIVATIONS)
        silu_back_some(gradient + i, x + i, d_x + i, least(ACTIVATIONS, n - i));
}

static void run_silu_back(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    (void)user;
    int64_t first = 0, last = 0;
    pd_share(ggml_nelements(out), thread, n_threads, &first, &last);
    const float *gradient = out->src[0]->data, *x = out->src[1]->data;
    silu_back(gradient + first, x + first, (float *)out->data + first, last - first);
}

struct ggml_tensor *pd_silu_back(struct ggml_context *ctx, struct ggml_tensor *gradient,
                                 struct ggml_tensor *x) {
    struct ggml_tensor *sources[] = {gradient, x};
    return like_node(ctx, x, sources, 2, run_silu_back, NULL);
}

PD_CLONES
static void swiglu_back_some(const float *gradient, const float *gate, const float *up, float *d_gate,
                             float *d_up, int64_t n) {
    minus_absolute(gate, d_up, n);
    pd_exp_row(d_up, n);
    for (int64_t i = 0; i < n; i++) {
        const float sigmoid = sigmoid_of(gate[i], d_up[i]);
        d_gate[i] = gradient[i] * up[i] * sigmoid * (1.0F + gate[i] * (1.0F - sigmoid));
        d_up[i] = gradient[i] * gate[i] * sigmoid;
    }
}

static void swiglu_back(const float *gradient, const float *gate, const float *up, float *d_gate, float *d_up,
                        int64_t n) {
    for (int64_t i = 0; i < n; i += ACTIVATIONS)
        swiglu_back_some(gradient + i, gate + i, up + i, d_gate + i, d_up + i, least(ACTIVATIONS, n - i));
}

static void run_swiglu_back(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    (void)user;
    const int64_t n = ggml_nelements(out->src[0]);
    int64_t first = 0, last = 0;
    pd_share(n, thread, n_threads, &first, &last);
    const float *gradient = out->src[0]->data, *gate = out->src[1]->data, *up = out->src[2]->data;
    float *d_gate = out->data, *d_up = d_gate + n;
    swiglu_back(gradient + first, gate + first, up + first, d_gate + first, d_up + first, last - first);
}

struct ggml_tensor *pd_swiglu_back(struct ggml_context *ctx, struct ggml_tensor *gradient,
                                   struct ggml_tensor *gate, struct ggml_tensor *up) {
    struct ggml_tensor *sources[] = {gradient, gate, up};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, gate->ne[0], gate->ne[1], 2, 1, sources, 3, run_swiglu_back,
                          GGML_N_TASKS_MAX, NULL);
}

// ---- rows --------------------------------------------------------------------------------------------------

// Each thread has its columns of all rows: an index may come twice.
PD_CLONES
static void add_rows(const float *gradient, const int32_t *indices, int64_t n_rows, int64_t n, int64_t first,
                     int64_t last, float *sum) {
    for (int64_t r = 0; r < n_rows; r++) {
        const float *from = gradient + r * n;
        float *to = sum + (int64_t)indices[r] * n;
        for (int64_t i = first; i < last; i++)
            to[i] += from[i];
    }
}

static void run_scatter_rows(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    (void)user;
    const struct ggml_tensor *gradient = out->src[0], *indices = out->src[1];
    int64_t first = 0, last = 0;
    pd_share(out->ne[0], thread, n_threads, &first, &last);
    for (int64_t r = 0; r < out->ne[1]; r++)
        memset(row_of(out, r) + first, 0, (size_t)(last - first) * sizeof(float));
    add_rows(gradient->data, indices->data, gradient->ne[1], out->ne[0], first, last, out->data);
}

struct ggml_tensor *pd_scatter_rows(struct ggml_context *ctx, struct ggml_tensor *gradient,
                                    struct ggml_tensor *indices, int64_t n_rows) {
    struct ggml_tensor *sources[] = {gradient, indices};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, gradient->ne[0], n_rows, 1, 1, sources, 2, run_scatter_rows,
                          GGML_N_TASKS_MAX, NULL);
}

// ---- sums in place: src[0] is the sum ----------------------------------------------------------------------

static void run_add_rows_at(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    (void)user;
    const struct ggml_tensor *gradient = out->src[1], *indices = out->src[2];
    int64_t first = 0, last = 0;
    pd_share(out->ne[0], thread, n_threads, &first, &last);
    add_rows(gradient->data, indices->data, gradient->ne[1], out->ne[0], first, last, out->data);
}

struct ggml_tensor *pd_add_rows_at(struct ggml_context *ctx, struct ggml_tensor *sum,
                                   struct ggml_tensor *gradient, struct ggml_tensor *indices) {
    struct ggml_tensor *sources[] = {gradient, indices};
    return ggml_custom_inplace(ctx, sum, sources, 2, run_add_rows_at, GGML_N_TASKS_MAX, NULL);
}

PD_CLONES
static void add_columns(const float *gradient, const float *x, int64_t rows, int64_t stride, int64_t n,
                        float *sum) {
    for (int64_t r = 0; r < rows; r++) {
        const float *g = gradient + r * stride;
        if (x) {
            for (int64_t i = 0; i < n; i++)
                sum[i] += g[i] * x[r * stride + i];
        } else {
            for (int64_t i = 0; i < n; i++)
                sum[i] += g[i];
        }
    }
}

static void run_add_columns(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    (void)user;
    const struct ggml_tensor *gradient = out->src[1], *x = out->src[2];
    int64_t first = 0, last = 0;
    const int64_t n = gradient->ne[0];
    pd_share(n, thread, n_threads, &first, &last);
    add_columns((const float *)gradient->data + first, x ? (const float *)x->data + first : NULL,
                ggml_nrows(gradient), n, last - first, (float *)out->data + first);
}

struct ggml_tensor *pd_add_columns(struct ggml_context *ctx, struct ggml_tensor *sum,
                                   struct ggml_tensor *gradient, struct ggml_tensor *x) {
    struct ggml_tensor *sources[] = {gradient, x};
    return ggml_custom_inplace(ctx, sum, sources, x ? 2 : 1, run_add_columns, GGML_N_TASKS_MAX, NULL);
}

// ---- loss --------------------------------------------------------------------------------------------------

// row: logits → softmax; −log softmax[label].
PD_CLONES
static float cross_entropy_row(float *row, int64_t n, int32_t label) {
    const float most = pd_max_row(row, n);
    for (int64_t i = 0; i < n; i++)
        row[i] -= most;
    const float of_label = row[label];
    pd_exp_row(row, n);
    const float sum = sum_of(row, n), inverse = 1.0F / sum;
    for (int64_t i = 0; i < n; i++)
        row[i] *= inverse;
    return logf(sum) - of_label;
}

static void run_cross_entropy(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    const pd_cross_entropy *loss = user;
    const int32_t *labels = out->src[1]->data;
    const int64_t n = out->ne[0];
    int64_t first = 0, last = 0;
    pd_share(out->ne[1], thread, n_threads, &first, &last);
    for (int64_t r = first; r < last; r++) {
        float *row = row_of(out, r);
        loss->losses[r] = cross_entropy_row(row, n, labels[r]);
        row[labels[r]] -= 1.0F;
        for (int64_t i = 0; i < n; i++)
            row[i] *= loss->scale;
    }
}

struct ggml_tensor *pd_cross_entropy_node(struct ggml_context *ctx, struct ggml_tensor *logits,
                                          struct ggml_tensor *labels, pd_cross_entropy *loss) {
    struct ggml_tensor *sources[] = {labels};
    return ggml_custom_inplace(ctx, logits, sources, 1, run_cross_entropy, GGML_N_TASKS_MAX, loss);
}
