#include "model/decoder.h"

#include "model/attention.h"

static struct ggml_tensor *rms_norm(struct ggml_context *ctx, const pd_decoder_weights *w,
                                    struct ggml_tensor *x, struct ggml_tensor *weight) {
    return ggml_mul(ctx, ggml_rms_norm(ctx, x, w->h.rms_epsilon), weight);
}

static struct ggml_tensor *product(struct ggml_context *ctx, const pd_decoder_weights *w,
                                   struct ggml_tensor *weight, struct ggml_tensor *x) {
    return w->product ? w->product(ctx, weight, x, w->product_user) : ggml_mul_mat(ctx, weight, x);
}

static struct ggml_tensor *linear(struct ggml_context *ctx, const pd_decoder_weights *w,
                                  struct ggml_tensor *weight, struct ggml_tensor *bias,
                                  struct ggml_tensor *x) {
    x = product(ctx, w, weight, x);
    return bias ? ggml_add(ctx, x, bias) : x;
}

void pd_decoder_keys(struct ggml_context *ctx, const pd_decoder_weights *w, int32_t index, pd_rows *rows) {
    const pd_decoder_layer *layer = &w->layers[index];
    if (!rows->normed) rows->normed = rms_norm(ctx, w, rows->residual, layer->attn_norm);
    if (!rows->keys) rows->keys = linear(ctx, w, layer->k, layer->k_bias, rows->normed);
}

struct ggml_tensor *pd_decoder_queries(struct ggml_context *ctx, const pd_decoder_weights *w, int32_t index,
                                       struct ggml_tensor *normed) {
    return linear(ctx, w, w->layers[index].q, w->layers[index].q_bias, normed);
}

struct ggml_tensor *pd_decoder_rope(struct ggml_context *ctx, const pd_decoder_weights *w,
                                    struct ggml_tensor *projected, int32_t n_heads,
                                    struct ggml_tensor *positions) {
    const pd_decoder_hyperparameters *h = &w->h;
    struct ggml_tensor *x = ggml_reshape_3d(ctx, projected, h->head_dim, n_heads, projected->ne[1]);
    const float extrapolation = h->rope_scaling == PD_ROPE_YARN ? 1.0F : 0.0F;
    return ggml_rope_ext(ctx, x, positions, w->rope_factors, h->rope_dim, h->rope_mode, h->rope_original_ctx,
                         h->rope_base, 1.0F / h->rope_factor, extrapolation, h->yarn_attention_factor,
                         h->yarn_beta_fast, h->yarn_beta_slow);
}

static struct ggml_tensor *last_row(struct ggml_context *ctx, struct ggml_tensor *x) {
    return ggml_view_2d(ctx, x, x->ne[0], 1, x->nb[1], (size_t)(x->ne[1] - 1) * x->nb[1]);
}

// [n_kv_heads * head_dim, rows] of the cache, as [head_dim, rows, n_kv_heads].
static struct ggml_tensor *cached_heads(struct ggml_context *ctx, const pd_decoder_weights *w,
                                        struct ggml_tensor *cache, int64_t rows) {
    const int64_t head_dim = w->h.head_dim;
    return ggml_view_3d(ctx, cache, head_dim, rows, w->h.n_kv_heads, cache->nb[1],
                        ggml_row_size(cache->type, head_dim), 0);
}

// Writes k and v [head_dim, n_kv_heads, n] where `in` says, and replaces them by what the rows attend to:
// [head_dim, n_kv, n_kv_heads].
static void store_and_view(struct ggml_context *ctx, struct ggml_cgraph *graph, const pd_decoder_weights *w,
                           const pd_layer_input *in, struct ggml_tensor **k, struct ggml_tensor **v) {
    const int64_t width = (int64_t)w->h.n_kv_heads * w->h.head_dim, n = (*k)->ne[2];
    if (in->write_row) {
        struct ggml_tensor *cache_k =
            ggml_set_rows(ctx, in->cache_k, ggml_reshape_2d(ctx, *k, width, n), in->write_row);
        struct ggml_tensor *cache_v =
            ggml_set_rows(ctx, in->cache_v, ggml_reshape_2d(ctx, *v, width, n), in->write_row);
        *k = cached_heads(ctx, w, cache_k, in->n_cached);
        *v = cached_heads(ctx, w, cache_v, in->n_cached);
        return;
    }
    if (in->cache_k) {
        struct ggml_tensor *rows_k = ggml_view_2d(ctx, in->cache_k, width, n, in->cache_k->nb[1], 0);
        struct ggml_tensor *rows_v = ggml_view_2d(ctx, in->cache_v, width, n, in->cache_v->nb[1], 0);
        ggml_build_forward_expand(graph, ggml_cpy(ctx, ggml_reshape_2d(ctx, *k, width, n), rows_k));
        ggml_build_forward_expand(graph, ggml_cpy(ctx, ggml_reshape_2d(ctx, *v, width, n), rows_v));
    }
    *k = ggml_permute(ctx, *k, 0, 2, 1, 3);
    *v = ggml_permute(ctx, *v, 0, 2, 1, 3);
}

struct ggml_tensor *pd_decoder_layer_forward(struct ggml_context *ctx, struct ggml_cgraph *graph,
                                             const pd_decoder_weights *w, int32_t index,
                                             const pd_layer_input *in) {
    const pd_decoder_hyperparameters *h = &w->h;
    const pd_decoder_layer *layer = &w->layers[index];
    pd_rows rows = in->rows;
    pd_decoder_keys(ctx, w, index, &rows);
    struct ggml_tensor *k = pd_decoder_rope(ctx, w, rows.keys, h->n_kv_heads, in->positions);
    struct ggml_tensor *v = linear(ctx, w, layer->v, layer->v_bias, rows.normed);
    v = ggml_reshape_3d(ctx, v, h->head_dim, h->n_kv_heads, v->ne[1]); // [head_dim, n_kv_heads, n]
    if (!in->attention) store_and_view(ctx, graph, w, in, &k, &v);

    struct ggml_tensor *residual = rows.residual, *normed = rows.normed, *positions = in->positions,
                       *mask = in->mask;
    if (in->last_row_only) {
        residual = last_row(ctx, residual);
        normed = last_row(ctx, normed);
        positions = ggml_view_1d(ctx, positions, 1, (size_t)(positions->ne[0] - 1) * positions->nb[0]);
        mask = NULL; // the last row sees all
    }
    struct ggml_tensor *q = pd_decoder_queries(ctx, w, index, normed);
    q = pd_decoder_rope(ctx, w, q, h->n_heads, positions); // [head_dim, n_heads, n]
    struct ggml_tensor *attended =
        in->attention ? in->attention->build(ctx, q, k, v, in->attention->user)
                      : pd_attend(ctx, ggml_permute(ctx, q, 0, 2, 1, 3), k, v, mask, in->flash);
    if (in->result_rows) {
        attended = ggml_get_rows(ctx, attended, in->result_rows);
        residual = ggml_get_rows(ctx, residual, in->result_rows);
    }
    residual = ggml_add(ctx, residual, linear(ctx, w, layer->o, layer->o_bias, attended)); // [n_embd, n]

    normed = rms_norm(ctx, w, residual, layer->ffn_norm);
    struct ggml_tensor *gate = product(ctx, w, layer->gate, normed);
    struct ggml_tensor *up = product(ctx, w, layer->up, normed);
    struct ggml_tensor *inner = ggml_swiglu_split(ctx, gate, up); // silu(gate) · up: [n_ff, n]
    residual = ggml_add(ctx, residual, product(ctx, w, layer->down, inner));
    ggml_build_forward_expand(graph, residual);
    return residual;
}

struct ggml_tensor *pd_decoder_logits(struct ggml_context *ctx, const pd_decoder_weights *w,
                                      struct ggml_tensor *residual) {
    return ggml_mul_mat(ctx, w->output, rms_norm(ctx, w, residual, w->output_norm));
}
