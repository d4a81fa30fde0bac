#include "train/drop_rows.h"

#include "onednn/clones.h"
#include "onednn/softmax.h"
#include "train/custom.h"

#include <math.h>
#include <stdlib.h>

pd_status pd_row_drop_create(const pd_policy *policy, const pd_layout *layout,
                             const pd_decoder_hyperparameters *h, int32_t stage, int32_t n_threads,
                             pd_row_drop *drop, pd_error *err) {
    *drop = (pd_row_drop){.policy = policy,
                          .layout = layout,
                          .stage = stage,
                          .head_dim = h->head_dim,
                          .n_heads = h->n_heads,
                          .n_kv_heads = h->n_kv_heads};
    const pd_layout_stage *before = &layout->stages[stage - 1];
    for (int32_t i = 0; i < layout->n_samples; i++) {
        const int32_t n = before->starts[i + 1] - before->starts[i];
        if (n > drop->longest) drop->longest = n;
    }
    const size_t n_rows = (size_t)before->n_rows, shares = (size_t)n_threads * (size_t)drop->longest;
    drop->selections = calloc((size_t)layout->n_samples + 1, sizeof *drop->selections);
    drop->scores = calloc(n_rows, sizeof *drop->scores);
    drop->shares = calloc(shares, sizeof *drop->shares);
    if (!drop->selections || !drop->scores || !drop->shares)
        return pd_fail_memory(err, (n_rows + shares) * sizeof(float), "a ranking");
    for (int32_t i = 0; i < layout->n_samples; i++)
        PD_TRY(pd_selection_create(&layout->schedules[i], stage, &drop->selections[i], err));
    return PD_OK;
}

void pd_row_drop_free(pd_row_drop *drop) {
    for (int32_t i = 0; drop->selections && i < drop->layout->n_samples; i++)
        pd_selection_free(&drop->selections[i]);
    free(drop->selections);
    free(drop->scores);
    free(drop->shares);
    *drop = (pd_row_drop){0};
}

// scores[i] += softmax over rows 0 … n − 1 of q · k_i · scale. k: rows `stride` floats apart.
PD_CLONES
static void add_shares(const float *q, const float *k, int64_t stride, int64_t n, int64_t head_dim,
                       float scale, float *shares, float *scores) {
    float most = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        float product = 0.0F;
        for (int64_t j = 0; j < head_dim; j++)
            product += q[j] * k[i * stride + j];
        shares[i] = product * scale;
        most = shares[i] > most ? shares[i] : most;
    }
    for (int64_t i = 0; i < n; i++)
        shares[i] -= most;
    pd_exp_row(shares, n);
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)shares[i];
    const float factor = (float)(1.0 / sum);
    for (int64_t i = 0; i < n; i++)
        scores[i] += shares[i] * factor;
}

// The sum over asking rows and heads: the mean's divisors change no order.
static void score_sample(const pd_row_drop *drop, int32_t sample, const float *q, const float *k,
                         float *shares) {
    const pd_layout_stage *stage = &drop->layout->stages[drop->stage - 1];
    const int32_t start = stage->starts[sample], group = drop->n_heads / drop->n_kv_heads;
    const int64_t d = drop->head_dim, k_stride = d * drop->n_kv_heads, q_stride = d * drop->n_heads;
    memset(drop->scores + start, 0, (size_t)(stage->starts[sample + 1] - start) * sizeof(float));
    for (int32_t a = stage->asking.starts[sample]; a < stage->asking.starts[sample + 1]; a++) {
        const int64_t seen = stage->asking.rows[a] - start + 1; // the causal mask
        for (int32_t head = 0; head < drop->n_heads; head++)
            add_shares(q + a * q_stride + head * d, k + start * k_stride + head / group * d, k_stride, seen,
                       d, 1.0F / sqrtf((float)d), shares, drop->scores + start);
    }
}

static void select_sample(const pd_row_drop *drop, int32_t sample, int32_t *rows) {
    const pd_selection *selection = &drop->selections[sample];
    const pd_layout *layout = drop->layout;
    const int32_t start = layout->stages[drop->stage - 1].starts[sample],
                  *starts = layout->stages[drop->stage].starts;
    rows += starts[sample];
    if (drop->policy->scorer == PD_SCORER_RANDOM) {
        // another draw for every sample, the same in every epoch
        pd_select_random(selection, drop->policy->seed + (uint64_t)layout->samples[sample].index, rows);
    } else if (drop->policy->scorer == PD_SCORER_UNIFORM) {
        pd_select_uniform(selection, rows);
    } else {
        pd_select(selection, drop->scores + start, rows);
    }
    for (int32_t i = 0; i < starts[sample + 1] - starts[sample]; i++)
        rows[i] += start;
}

// src: queries of the asking rows [head_dim, n_heads, n], keys [head_dim, n_kv_heads, rows]; or none.
static void run_select(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    const pd_row_drop *drop = user;
    for (int32_t i = thread; i < drop->layout->n_samples; i += n_threads) {
        if (out->src[0])
            score_sample(drop, i, out->src[0]->data, out->src[1]->data,
                         drop->shares + (size_t)thread * (size_t)drop->longest);
        select_sample(drop, i, out->data);
    }
}

struct ggml_tensor *pd_row_drop_select(struct ggml_context *ctx, const pd_decoder_weights *w, int32_t index,
                                       pd_row_drop *drop, struct ggml_tensor *residual,
                                       struct ggml_tensor *positions, struct ggml_tensor *asking) {
    const int64_t n = drop->layout->stages[drop->stage].n_rows;
    struct ggml_tensor *sources[2] = {NULL, NULL};
    if (asking) {
        pd_rows rows = {.residual = residual};
        pd_decoder_keys(ctx, w, index, &rows);
        struct ggml_tensor *normed = ggml_get_rows(ctx, rows.normed, asking);
        sources[0] = pd_decoder_rope(ctx, w, pd_decoder_queries(ctx, w, index, normed), w->h.n_heads,
                                     pd_select_positions_node(ctx, positions, asking));
        sources[1] = pd_decoder_rope(ctx, w, rows.keys, w->h.n_kv_heads, positions);
    }
    return ggml_custom_4d(ctx, GGML_TYPE_I32, n, 1, 1, 1, sources, asking ? 2 : 0, run_select,
                          GGML_N_TASKS_MAX, drop);
}
