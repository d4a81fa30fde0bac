#include "train/gradient.h"

#include "train/attention.h"
#include "train/dropout.h"
#include "train/ops.h"

#include <stdlib.h>
#include <string.h>

// What is known of a tensor of the forward graph.
typedef struct {
    const struct ggml_tensor *tensor;
    struct ggml_tensor *gradient; // so far; NULL: none
    struct ggml_tensor *sum;      // of a parameter: where its gradient goes
    bool needed;                  // a parameter, or computed from one
} entry;

typedef struct {
    struct ggml_context *ctx;
    struct ggml_cgraph *graph;
    entry *entries; // open addressing, `capacity` a power of two
    size_t capacity;
    bool widens;
} pass;

static entry *find(pass *p, const struct ggml_tensor *tensor) {
    size_t at = ((uintptr_t)tensor >> 4) * 0x9e3779b97f4a7c15U >> 20;
    while (p->entries[at & (p->capacity - 1)].tensor && p->entries[at & (p->capacity - 1)].tensor != tensor)
        at++;
    entry *found = &p->entries[at & (p->capacity - 1)];
    found->tensor = tensor;
    return found;
}

static bool needed(pass *p, const struct ggml_tensor *tensor) {
    return tensor && find(p, tensor)->needed;
}

static void expand(pass *p, struct ggml_tensor *node) {
    ggml_build_forward_expand(p->graph, node);
}

static struct ggml_tensor *contiguous(pass *p, struct ggml_tensor *x) {
    return ggml_is_contiguous(x) ? x : ggml_cont(p->ctx, x);
}

// Adds `gradient`, of `tensor`'s shape, to what is known of the tensor's.
static void add(pass *p, struct ggml_tensor *tensor, struct ggml_tensor *gradient) {
    entry *e = find(p, tensor);
    if (!e->needed) return;
    if (e->sum) {
        e->sum = ggml_add_inplace(p->ctx, e->sum, ggml_reshape(p->ctx, contiguous(p, gradient), e->sum));
        expand(p, e->sum);
    } else {
        e->gradient = e->gradient ? ggml_add(p->ctx, e->gradient, gradient) : gradient;
    }
}

// Of a tensor that was repeated to the gradient's shape.
static void add_repeated(pass *p, struct ggml_tensor *tensor, struct ggml_tensor *gradient,
                         struct ggml_tensor *factor) {
    entry *e = find(p, tensor);
    if (!e->needed) return;
    const bool is_row = ggml_nelements(tensor) == gradient->ne[0] && tensor->ne[0] == gradient->ne[0];
    if (is_row && e->sum) {
        e->sum = pd_add_columns(p->ctx, e->sum, contiguous(p, gradient), factor);
        expand(p, e->sum);
        return;
    }
    if (factor) gradient = ggml_mul(p->ctx, gradient, factor);
    if (!ggml_are_same_shape(tensor, gradient)) gradient = ggml_repeat_back(p->ctx, gradient, tensor);
    add(p, tensor, gradient);
}

// ---- derivatives: `g` is the node's gradient, contiguous ---------------------------------------------------

static void back_mul_mat(pass *p, struct ggml_tensor *node, struct ggml_tensor *g) {
    struct ggml_tensor *w = node->src[0], *x = node->src[1]; // [k, n] and [k, m] → [n, m]
    if (needed(p, w)) add(p, w, ggml_out_prod(p->ctx, contiguous(p, x), g));
    if (!needed(p, x)) return;
    if (p->widens && (w->type == GGML_TYPE_F16 || w->type == GGML_TYPE_BF16))
        w = ggml_cast(p->ctx, w, GGML_TYPE_F32);
    add(p, x, ggml_out_prod(p->ctx, w, ggml_transpose(p->ctx, g)));
}

static void back_get_rows(pass *p, struct ggml_tensor *node, struct ggml_tensor *g) {
    struct ggml_tensor *x = node->src[0], *indices = node->src[1];
    entry *e = find(p, x);
    if (!e->needed) return;
    if (e->sum) {
        e->sum = pd_add_rows_at(p->ctx, e->sum, g, indices);
        expand(p, e->sum);
    } else {
        add(p, x, pd_scatter_rows(p->ctx, g, indices, x->ne[1]));
    }
}

// Parts of the gradient along the dimension of the concatenation.
static void back_concat(pass *p, struct ggml_tensor *node, struct ggml_tensor *g) {
    int32_t dim = 0; // ggml's only parameter of it
    memcpy(&dim, node->op_params, sizeof dim);
    size_t at = 0;
    for (int i = 0; i < 2; i++) {
        struct ggml_tensor *x = node->src[i];
        struct ggml_tensor *part =
            ggml_view_4d(p->ctx, g, x->ne[0], x->ne[1], x->ne[2], x->ne[3], g->nb[1], g->nb[2], g->nb[3], at);
        at += (size_t)x->ne[dim] * g->nb[dim];
        if (needed(p, x)) add(p, x, contiguous(p, part));
    }
}

static void back_rope(pass *p, struct ggml_tensor *node, struct ggml_tensor *g) {
    if (!needed(p, node->src[0])) return;
    struct ggml_tensor *back = ggml_dup_tensor(p->ctx, g); // a rotation's transpose turns the other way
    back->op = GGML_OP_ROPE_BACK;
    memcpy(back->op_params, node->op_params, sizeof node->op_params);
    back->src[0] = g;
    back->src[1] = node->src[1];
    back->src[2] = node->src[2];
    add(p, node->src[0], back);
}

static void back_swiglu(pass *p, struct ggml_tensor *node, struct ggml_tensor *g) {
    struct ggml_tensor *gate = node->src[0], *up = node->src[1];
    if (!needed(p, gate) && !needed(p, up)) return;
    struct ggml_tensor *both = pd_swiglu_back(p->ctx, g, gate, up); // [n_ff, rows, 2]
    add(p, gate, ggml_view_2d(p->ctx, both, both->ne[0], both->ne[1], both->nb[1], 0));
    add(p, up, ggml_view_2d(p->ctx, both, both->ne[0], both->ne[1], both->nb[1], both->nb[2]));
}

static void back_attention(pass *p, struct ggml_tensor *node, struct ggml_tensor *g) {
    struct ggml_tensor *parts[3];
    pd_packed_attend_back(p->ctx, node, g, parts);
    for (int i = 0; i < 3; i++)
        add(p, node->src[i], parts[i]);
}

static bool back_unary(pass *p, struct ggml_tensor *node, struct ggml_tensor *g) {
    struct ggml_tensor *x = node->src[0];
    switch (ggml_get_unary_op(node)) {
    case GGML_UNARY_OP_SILU:
        add(p, x, pd_silu_back(p->ctx, g, x));
        return true;
    case GGML_UNARY_OP_GELU_ERF:
        add(p, x, pd_gelu_erf_back(p->ctx, g, x));
        return true;
    default:
        return false;
    }
}

// Adds what the node's gradient is to its sources; false: no derivative is known here.
static bool back(pass *p, struct ggml_tensor *node, struct ggml_tensor *g) {
    struct ggml_tensor *x = node->src[0], *y = node->src[1];
    switch (node->op) {
    case GGML_OP_ADD:
        add(p, x, g);
        add_repeated(p, y, g, NULL);
        return true;
    case GGML_OP_MUL:
        if (needed(p, y)) add_repeated(p, y, g, x);
        if (needed(p, x)) add(p, x, ggml_mul(p->ctx, g, y));
        return true;
    case GGML_OP_SCALE: {
        float factor = 0.0F;
        memcpy(&factor, node->op_params, sizeof factor);
        add(p, x, ggml_scale(p->ctx, g, factor));
        return true;
    }
    case GGML_OP_RESHAPE:
        add(p, x, ggml_reshape(p->ctx, g, x));
        return true;
    case GGML_OP_REPEAT:
        add_repeated(p, x, g, NULL);
        return true;
    case GGML_OP_CONT:
        add(p, x, ggml_reshape(p->ctx, g, x));
        return true;
    case GGML_OP_NORM:
        add(p, x, pd_norm_back(p->ctx, g, node));
        return true;
    case GGML_OP_RMS_NORM:
        add(p, x, pd_rms_norm_back(p->ctx, g, node));
        return true;
    case GGML_OP_MUL_MAT:
        back_mul_mat(p, node, g);
        return true;
    case GGML_OP_GET_ROWS:
        back_get_rows(p, node, g);
        return true;
    case GGML_OP_CONCAT:
        back_concat(p, node, g);
        return true;
    case GGML_OP_ROPE:
        back_rope(p, node, g);
        return true;
    case GGML_OP_UNARY:
        return back_unary(p, node, g);
    case GGML_OP_GLU:
        if (ggml_get_glu_op(node) != GGML_GLU_OP_SWIGLU || !y) return false;
        back_swiglu(p, node, g);
        return true;
    case GGML_OP_CUSTOM:
        if (pd_dropout_of(node)) {
            if (needed(p, x)) add(p, x, pd_dropout_node(p->ctx, g, pd_dropout_of(node)));
            return true;
        }
        if (!pd_packed_attention_of(node)) return false;
        back_attention(p, node, g);
        return true;
    default:
        return false;
    }
}

// ---- the pass ----------------------------------------------------------------------------------------------

// What depends on a parameter. Integers carry no gradient: a selection's indices end it there.
static void mark_needed(pass *p, const pd_gradient_target *targets, size_t n_targets) {
    for (size_t i = 0; i < n_targets; i++) {
        entry *e = find(p, targets[i].parameter);
        e->needed = true;
        e->sum = targets[i].sum;
    }
    for (int i = 0; i < ggml_graph_n_nodes(p->graph); i++) {
        const struct ggml_tensor *node = ggml_graph_node(p->graph, i);
        // im2col reads of its kernel but the shape; pixels are nobody's parameter
        if (node->type != GGML_TYPE_F32 || node->op == GGML_OP_IM2COL) continue;
        bool any = find(p, node)->needed;
        for (int j = 0; j < GGML_MAX_SRC && !any; j++)
            any = needed(p, node->src[j]);
        find(p, node)->needed = any;
    }
}

pd_status pd_gradient_build(struct ggml_context *ctx, struct ggml_cgraph *graph, struct ggml_tensor *output,
                            struct ggml_tensor *gradient, const pd_gradient_target *targets, size_t n_targets,
                            bool widens, pd_error *err) {
    const int n_nodes = ggml_graph_n_nodes(graph);
    pass p = {.ctx = ctx, .graph = graph, .capacity = 1024, .widens = widens};
    while (p.capacity < 8 * ((size_t)n_nodes + n_targets)) // leaves too
        p.capacity *= 2;
    p.entries = calloc(p.capacity, sizeof *p.entries);
    struct ggml_tensor **forward = calloc((size_t)n_nodes + 1, sizeof(struct ggml_tensor *));
    if (!p.entries || !forward) {
        free(forward);
        free(p.entries);
        return pd_fail_memory(err, p.capacity * sizeof *p.entries, "the backward pass");
    }
    mark_needed(&p, targets, n_targets);
    for (int i = 0; i < n_nodes; i++)
        forward[i] = ggml_graph_node(graph, i);
    add(&p, output, gradient);
    const struct ggml_tensor *unsupported = NULL;
    for (int i = n_nodes; i-- > 0 && !unsupported;) {
        struct ggml_tensor *g = find(&p, forward[i])->gradient;
        if (!g) continue;
        g = contiguous(&p, g);
        expand(&p, g);
        if (!back(&p, forward[i], g)) unsupported = forward[i];
    }
    free(forward);
    free(p.entries);
    if (unsupported)
        return pd_fail(err, PD_ERR_UNSUPPORTED, "training: %s has no derivative here",
                       ggml_op_desc(unsupported));
    return PD_OK;
}
