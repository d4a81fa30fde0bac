#include "onerow/lower.h"

#include "base/rewrite.h"
#include "base/tasks.h"
#include "onerow/attention.h"
#include "onerow/products.h"

#include <ggml-backend.h>
#include <stdlib.h>

// Rows of a product that a thread takes at a time: some microseconds of work.
enum { ROWS_AT_ONCE = 32 };

typedef struct {
    pd_onerow *lowered;
    pd_tasks tasks;
    pd_onerow_attention attention;
} step;

struct pd_onerow {
    struct ggml_context *ctx; // of the nodes added and the new graph
    struct ggml_cgraph *graph;
    step *steps;
    size_t n_steps;
    char *activations; // of each thread
    size_t activation_bytes;
    int32_t n_threads, n_lowered;
};

static bool is_product(const struct ggml_tensor *node) {
    if (node->op != GGML_OP_MUL_MAT) return false;
    const struct ggml_tensor *weights = node->src[0], *row = node->src[1];
    if (!pd_onerow_can_multiply(weights->type) || row->type != GGML_TYPE_F32) return false;
    return ggml_nrows(row) == 1 && ggml_is_contiguous(row) && ggml_is_contiguous(node) &&
           weights->ne[2] == 1 && weights->ne[3] == 1 && weights->nb[0] == ggml_type_size(weights->type);
}

static void run_product(struct ggml_tensor *node, int ith, int nth, void *user) {
    step *s = user;
    const struct ggml_tensor *weights = node->src[0];
    char *activations = s->lowered->activations + (size_t)ith * s->lowered->activation_bytes;
    const int64_t n_rows = weights->ne[1];
    int64_t first = pd_tasks_take(&s->tasks) * ROWS_AT_ONCE;
    // each thread converts for itself: that is shorter than to wait for another
    if (first < n_rows) pd_onerow_quantise(node->src[1]->data, activations, weights->ne[0]);
    while (first < n_rows) {
        const int64_t next = pd_tasks_take(&s->tasks) * ROWS_AT_ONCE;
        const int64_t end = first + ROWS_AT_ONCE < n_rows ? first + ROWS_AT_ONCE : n_rows;
        pd_onerow_multiply(weights->type, weights->data, weights->nb[1], activations, weights->ne[0], first,
                           end, next < n_rows ? next : first, node->data);
        first = next;
    }
    pd_tasks_leave(&s->tasks, nth);
}

static void run_attention(struct ggml_tensor *node, int ith, int nth, void *user) {
    (void)ith;
    step *s = user;
    const struct ggml_tensor *mask = node->src[3];
    for (int64_t task; (task = pd_tasks_take(&s->tasks)) < s->attention.n_chunks;)
        pd_onerow_attention_run(&s->attention, node->src[0]->data, node->src[1]->data, node->src[2]->data,
                                mask ? mask->data : NULL, task, node->data);
    pd_tasks_leave(&s->tasks, nth);
}

static void merge_attention(struct ggml_tensor *node, int ith, int nth, void *user) {
    const step *s = user;
    const int64_t n = s->attention.n_heads;
    pd_onerow_attention_merge(&s->attention, node->src[0]->data, n * ith / nth, n * (ith + 1) / nth,
                              node->data);
}

static void rewrite(pd_onerow *lowered, struct ggml_tensor *node, struct ggml_tensor **sources, int n_sources,
                    ggml_custom_op_t run, step *s) {
    pd_rewrite_node(lowered->ctx, node, sources, n_sources, run, s);
    lowered->n_lowered++;
}

static step *add_step(pd_onerow *lowered) {
    step *s = &lowered->steps[lowered->n_steps++];
    s->lowered = lowered;
    return s;
}

static void lower_node(pd_onerow *lowered, struct ggml_tensor *node) {
    pd_onerow_attention attention;
    if (is_product(node)) {
        struct ggml_tensor *sources[2] = {node->src[0], node->src[1]};
        const size_t bytes = pd_onerow_activation_bytes(sources[0]->ne[0]);
        if (bytes > lowered->activation_bytes) lowered->activation_bytes = bytes;
        rewrite(lowered, node, sources, 2, run_product, add_step(lowered));
    } else if (pd_onerow_attention_plan(node, &attention)) {
        step *s = add_step(lowered);
        s->attention = attention;
        struct ggml_tensor *sources[4] = {node->src[0], node->src[1], node->src[2], node->src[3]};
        struct ggml_tensor *parts = ggml_custom_4d(
            lowered->ctx, GGML_TYPE_F32, (int64_t)(pd_onerow_attention_bytes(&attention) / sizeof(float)), 1,
            1, 1, sources, sources[3] ? 4 : 3, run_attention, GGML_N_TASKS_MAX, s);
        rewrite(lowered, node, &parts, 1, merge_attention, s);
    }
}

static pd_status lower(pd_onerow *lowered, struct ggml_cgraph *graph, pd_error *err) {
    // A node rewritten has one template and at most one node added.
    const size_t n_nodes = (size_t)ggml_graph_n_nodes(graph), size = (size_t)ggml_graph_size(graph) + n_nodes;
    const size_t bytes = 2 * n_nodes * ggml_tensor_overhead() + ggml_graph_overhead_custom(size, false);
    lowered->ctx = ggml_init((struct ggml_init_params){.mem_size = bytes, .no_alloc = true});
    lowered->steps = calloc(n_nodes + 1, sizeof *lowered->steps);
    if (!lowered->ctx || !lowered->steps) return pd_fail_memory(err, bytes, "the decoding graph");
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++)
        lower_node(lowered, ggml_graph_node(graph, i));
    if (lowered->activation_bytes > 0) {
        const size_t all = (size_t)lowered->n_threads * lowered->activation_bytes;
        lowered->activations = aligned_alloc(64, all);
        if (!lowered->activations) return pd_fail_memory(err, all, "a row of activations");
    }
    lowered->graph = ggml_new_graph_custom(lowered->ctx, size, false);
    // the same nodes in the same order, with the added ones before those that read them
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++)
        ggml_build_forward_expand(lowered->graph, ggml_graph_node(graph, i));
    return PD_OK;
}

pd_status pd_onerow_lower(struct ggml_cgraph *graph, int32_t n_threads, pd_onerow **out, pd_error *err) {
    *out = NULL;
    pd_onerow *lowered = calloc(1, sizeof *lowered);
    if (!lowered) return pd_fail_memory(err, sizeof *lowered, "the decoding graph");
    lowered->n_threads = n_threads;
    const pd_status status = lower(lowered, graph, err);
    if (status != PD_OK) {
        pd_onerow_free(lowered);
        return status;
    }
    *out = lowered;
    return PD_OK;
}

struct ggml_cgraph *pd_onerow_graph(const pd_onerow *lowered) {
    return lowered->graph;
}

int32_t pd_onerow_count(const pd_onerow *lowered) {
    return lowered->n_lowered;
}

void pd_onerow_free(pd_onerow *lowered) {
    if (!lowered) return;
    if (lowered->ctx) ggml_free(lowered->ctx);
    free(lowered->activations);
    free(lowered->steps);
    free(lowered);
}
