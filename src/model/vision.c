#include "model/vision.h"

#include "model/attention.h"

static struct ggml_tensor *linear(struct ggml_context *ctx, struct ggml_tensor *weight,
                                  struct ggml_tensor *bias, struct ggml_tensor *x) {
    return ggml_add(ctx, ggml_mul_mat(ctx, weight, x), bias);
}

static struct ggml_tensor *layer_norm(struct ggml_context *ctx, struct ggml_tensor *x,
                                      struct ggml_tensor *weight, struct ggml_tensor *bias, float epsilon) {
    return ggml_add(ctx, ggml_mul(ctx, ggml_norm(ctx, x, epsilon), weight), bias);
}

// ggml's own gelu and gelu_quick look their values up in a table of f16; these are as exact as f32 allows.
static struct ggml_tensor *gelu(struct ggml_context *ctx, struct ggml_tensor *x, bool exact) {
    if (exact) return ggml_gelu_erf(ctx, x);
    // x · sigmoid(1.702 x) = silu(1.702 x) / 1.702
    return ggml_scale(ctx, ggml_silu(ctx, ggml_scale(ctx, x, 1.702F)), 1.0F / 1.702F);
}

// Patches to rows: the convolution whose stride is its kernel's size. [n_embd, n_patches, n_tiles]
static struct ggml_tensor *embed_patches(struct ggml_context *ctx, const pd_vision_weights *w,
                                         struct ggml_tensor *pixels) {
    const int32_t patch = w->h.patch_size;
    struct ggml_tensor *kernel = w->patch_embedding; // [patch, patch, 3, n_embd]
    struct ggml_tensor *columns = ggml_im2col(ctx, kernel, pixels, patch, patch, 0, 0, 1, 1, true,
                                              GGML_TYPE_F32); // [3·patch², w, h, n_tiles]
    const int64_t n_patches = columns->ne[1] * columns->ne[2];
    columns = ggml_reshape_2d(ctx, columns, columns->ne[0], n_patches * columns->ne[3]);
    kernel = ggml_reshape_2d(ctx, kernel, kernel->ne[0] * kernel->ne[1] * kernel->ne[2], kernel->ne[3]);
    return ggml_reshape_3d(ctx, ggml_mul_mat(ctx, kernel, columns), kernel->ne[1], n_patches, pixels->ne[3]);
}

// [n_embd, n] → [head_dim, n_heads, n]
static struct ggml_tensor *heads(struct ggml_context *ctx, struct ggml_tensor *x, int64_t n_heads) {
    return ggml_reshape_3d(ctx, x, x->ne[0] / n_heads, n_heads, x->ne[1]);
}

static struct ggml_tensor *attend(struct ggml_context *ctx, struct ggml_tensor *q, struct ggml_tensor *k,
                                  struct ggml_tensor *v, bool flash, const pd_attender *attention) {
    if (attention) return attention->build(ctx, q, k, v, attention->user);
    return pd_attend(ctx, ggml_permute(ctx, q, 0, 2, 1, 3), ggml_permute(ctx, k, 0, 2, 1, 3),
                     ggml_permute(ctx, v, 0, 2, 1, 3), NULL, flash);
}

struct ggml_tensor *pd_vision_tower(struct ggml_context *ctx, const pd_vision_weights *w,
                                    struct ggml_tensor *pixels, bool flash, const pd_attender *attention) {
    const pd_vision_hyperparameters *h = &w->h;
    struct ggml_tensor *patches = embed_patches(ctx, w, pixels);
    const int64_t n_tiles = patches->ne[2];
    struct ggml_tensor *class_rows = ggml_repeat_4d(ctx, w->class_embedding, patches->ne[0], 1, n_tiles, 1);
    struct ggml_tensor *x = ggml_concat(ctx, class_rows, patches, 1); // [n_embd, 1 + n_patches, n_tiles]
    struct ggml_tensor *positions = w->position_embedding;
    if (positions->type != GGML_TYPE_F32) positions = ggml_cast(ctx, positions, GGML_TYPE_F32);
    x = ggml_add(ctx, x, positions);
    x = ggml_reshape_2d(ctx, x, x->ne[0], x->ne[1] * n_tiles);
    x = layer_norm(ctx, x, w->pre_norm, w->pre_norm_bias, h->epsilon);

    for (int32_t i = 0; i < h->n_layers_run; i++) {
        const pd_vision_layer *layer = &w->layers[i];
        struct ggml_tensor *normed = layer_norm(ctx, x, layer->ln1, layer->ln1_bias, h->epsilon);
        struct ggml_tensor *q = heads(ctx, linear(ctx, layer->q, layer->q_bias, normed), h->n_heads);
        struct ggml_tensor *k = heads(ctx, linear(ctx, layer->k, layer->k_bias, normed), h->n_heads);
        struct ggml_tensor *v = heads(ctx, linear(ctx, layer->v, layer->v_bias, normed), h->n_heads);
        x = ggml_add(ctx, x, linear(ctx, layer->o, layer->o_bias, attend(ctx, q, k, v, flash, attention)));
        normed = layer_norm(ctx, x, layer->ln2, layer->ln2_bias, h->epsilon);
        struct ggml_tensor *inner = gelu(ctx, linear(ctx, layer->up, layer->up_bias, normed), h->exact_gelu);
        x = ggml_add(ctx, x, linear(ctx, layer->down, layer->down_bias, inner));
    }
    return x;
}

struct ggml_tensor *pd_projector(struct ggml_context *ctx, const pd_vision_weights *w,
                                 struct ggml_tensor *features) {
    struct ggml_tensor *inner = ggml_gelu_erf(ctx, linear(ctx, w->mm0, w->mm0_bias, features));
    return linear(ctx, w->mm2, w->mm2_bias, inner);
}

size_t pd_vision_graph_size(const pd_vision_weights *w) {
    return 64 + 64 * (size_t)w->h.n_layers_run;
}
