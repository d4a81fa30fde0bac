#include "model/attention.h"

#include <math.h>

struct ggml_tensor *pd_attend(struct ggml_context *ctx, struct ggml_tensor *q, struct ggml_tensor *k,
                              struct ggml_tensor *v, struct ggml_tensor *mask, bool flash) {
    const int64_t head_dim = q->ne[0], n_q = q->ne[1], n_heads = q->ne[2];
    const float scale = 1.0F / sqrtf((float)head_dim);
    if (flash) {
        struct ggml_tensor *out = ggml_flash_attn_ext(ctx, q, k, v, mask, scale, 0.0F, 0.0F);
        ggml_prec_set_acc(out, GGML_PREC_F32);                     // [head_dim, n_heads, n_q]
        return ggml_reshape_2d(ctx, out, head_dim * n_heads, n_q); // [head_dim * n_heads, n_q]
    }
    // ggml's Vulkan rounds a strided f32 matrix to f16 before it multiplies.
    if (k->type == GGML_TYPE_F32) k = ggml_cont(ctx, k);
    q = ggml_cont(ctx, q);
    struct ggml_tensor *scores = ggml_mul_mat(ctx, k, q); // [n_kv, n_q, n_heads]
    ggml_prec_set_acc(scores, GGML_PREC_F32);
    struct ggml_tensor *shares = ggml_soft_max_ext(ctx, scores, mask, scale, 0.0F);
    struct ggml_tensor *values = ggml_cont(ctx, ggml_transpose(ctx, v)); // [n_kv, head_dim, n_kv_heads]
    struct ggml_tensor *out = ggml_mul_mat(ctx, values, shares);         // [head_dim, n_q, n_heads]
    return ggml_cont_2d(ctx, ggml_permute(ctx, out, 0, 2, 1, 3), head_dim * n_heads, n_q);
}
