#include "drop/rank.h"

#include <math.h>

struct ggml_tensor *pd_rank(struct ggml_context *ctx, const pd_decoder_weights *w, int32_t index,
                            pd_rows *rows, struct ggml_tensor *positions) {
    const pd_decoder_hyperparameters *h = &w->h;
    pd_decoder_keys(ctx, w, index, rows);
    const int64_t n = rows->normed->ne[1], group = h->n_heads / h->n_kv_heads;

    struct ggml_tensor *k = pd_decoder_rope(ctx, w, rows->keys, h->n_kv_heads, positions);
    // [head_dim, n, n_kv_heads], packed: ggml's Vulkan rounds a strided f32 matrix to f16 before it
    // multiplies
    k = ggml_cont(ctx, ggml_permute(ctx, k, 0, 2, 1, 3));

    struct ggml_tensor *asking = ggml_view_2d(ctx, rows->normed, rows->normed->ne[0], 1, rows->normed->nb[1],
                                              (size_t)(n - 1) * rows->normed->nb[1]);
    struct ggml_tensor *asking_position = ggml_view_1d(ctx, positions, 1, (size_t)(n - 1) * positions->nb[0]);
    struct ggml_tensor *q =
        pd_decoder_rope(ctx, w, pd_decoder_queries(ctx, w, index, asking), h->n_heads, asking_position);
    q = ggml_reshape_3d(ctx, q, h->head_dim, group, h->n_kv_heads); // the query heads that share a key head

    struct ggml_tensor *scores = ggml_mul_mat(ctx, k, q); // [n, group, n_kv_heads]
    ggml_prec_set_acc(scores, GGML_PREC_F32);
    // The last row sees all others: no mask.
    struct ggml_tensor *shares = ggml_soft_max_ext(ctx, scores, NULL, 1.0F / sqrtf((float)h->head_dim), 0.0F);
    shares = ggml_cont(ctx, ggml_transpose(ctx, ggml_reshape_2d(ctx, shares, n, h->n_heads))); // [n_heads, n]
    return ggml_reshape_1d(ctx, ggml_mean(ctx, shares), n);
}
