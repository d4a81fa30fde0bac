#include "onednn/pattern.h"

#include <string.h>

// A float among a node's parameters, which ggml stores one behind the other.
static float parameter(const struct ggml_tensor *node, int index) {
    float value;
    memcpy(&value, (const char *)node->op_params + (size_t)index * sizeof value, sizeof value);
    return value;
}

static bool is_one_matrix(const struct ggml_tensor *mask) {
    return !mask || (mask->ne[2] == 1 && mask->ne[3] == 1);
}

static bool match_flash(struct ggml_tensor *node, pd_attention_match *match) {
    enum { SCALE, MAX_BIAS, SOFTCAP }; // of ggml_flash_attn_ext
    const bool plain = parameter(node, MAX_BIAS) == 0.0F && parameter(node, SOFTCAP) == 0.0F && !node->src[4];
    if (!plain || node->ne[3] != 1 || !is_one_matrix(node->src[3])) return false;
    *match = (pd_attention_match){.result = node, // [head_dim, n_heads, n_q]
                                  .q = node->src[0],
                                  .k = node->src[1],
                                  .v = node->src[2],
                                  .mask = node->src[3],
                                  .out_row = node->nb[2],
                                  .out_head = node->nb[1],
                                  .scale = parameter(node, SCALE)};
    return true;
}

// out = mul_mat(cont(transpose(v)), soft_max_ext(mul_mat(k, q), mask, scale)), as pd_attend writes it.
static bool match_eager(struct ggml_tensor *node, int (*users)(const struct ggml_tensor *, const void *),
                        const void *context, pd_attention_match *match) {
    enum { SCALE, MAX_BIAS }; // of ggml_soft_max_ext
    struct ggml_tensor *values = node->src[0], *shares = node->src[1];
    if (node->op != GGML_OP_MUL_MAT || shares->op != GGML_OP_SOFT_MAX || values->op != GGML_OP_CONT)
        return false;
    struct ggml_tensor *transposed = values->src[0], *scores = shares->src[0];
    if (transposed->op != GGML_OP_TRANSPOSE || scores->op != GGML_OP_MUL_MAT) return false;
    if (parameter(shares, MAX_BIAS) != 0.0F || shares->src[2] || !is_one_matrix(shares->src[1])) return false;
    if (users(scores, context) != 1 || users(shares, context) != 1 || users(values, context) != 1)
        return false;
    if (node->ne[3] != 1 || transposed->src[0]->nb[0] != ggml_type_size(transposed->src[0]->type))
        return false;
    *match = (pd_attention_match){.result = node, // [head_dim, n_q, n_heads]
                                  .q = scores->src[1],
                                  .k = scores->src[0],
                                  .v = transposed->src[0],
                                  .mask = shares->src[1],
                                  .out_row = node->nb[1],
                                  .out_head = node->nb[2],
                                  .scale = parameter(shares, SCALE),
                                  .inner = {scores, shares, values},
                                  .n_inner = 3};
    return true;
}

bool pd_match_attention(struct ggml_tensor *node, int (*users)(const struct ggml_tensor *, const void *),
                        const void *context, pd_attention_match *match) {
    const bool found = node->op == GGML_OP_FLASH_ATTN_EXT ? match_flash(node, match)
                                                          : match_eager(node, users, context, match);
    return found && match->k->ne[1] == match->v->ne[1] && match->k->ne[2] == match->v->ne[2] &&
           node->type == GGML_TYPE_F32 && match->q->type == GGML_TYPE_F32 &&
           match->q->nb[0] == sizeof(float) && match->k->nb[0] == ggml_type_size(match->k->type) &&
           match->v->nb[0] == ggml_type_size(match->v->type);
}

pd_attention_shape pd_attention_match_shape(const pd_attention_match *match, dnnl_data_type_t compute) {
    const struct ggml_tensor *q = match->q, *k = match->k, *v = match->v, *mask = match->mask;
    return (pd_attention_shape){.head_dim = q->ne[0],
                                .value_dim = v->ne[0],
                                .n_q = q->ne[1],
                                .n_kv = k->ne[1],
                                .n_heads = q->ne[2],
                                .n_kv_heads = k->ne[2],
                                .scale = match->scale,
                                .key_type = k->type,
                                .value_type = v->type,
                                .q_row = q->nb[1],
                                .q_head = q->nb[2],
                                .k_row = k->nb[1],
                                .k_head = k->nb[2],
                                .v_row = v->nb[1],
                                .v_head = v->nb[2],
                                .out_row = match->out_row,
                                .out_head = match->out_head,
                                .masked = mask != NULL,
                                .mask_type = mask ? mask->type : GGML_TYPE_F16,
                                .mask_row = mask ? mask->nb[1] : 0,
                                .compute = compute};
}
