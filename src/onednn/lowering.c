#include "onednn/lowering.h"

#include "base/memory.h"
#include "base/rewrite.h"
#include "onednn/outliers.h"
#include "onednn/pattern.h"
#include "onednn/product.h"
#include "onednn/rope.h"
#include "onednn/store.h"

#include <ggml-cpu.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// What there may be no kernel for.
typedef enum lacking { LACKING_PACKED_PRODUCT, LACKING_PRODUCT, LACKING_ATTENTION, N_LACKING } lacking;

struct pd_lowering {
    pd_lowering_params params;
    pd_gemm_cache *cache;
    pd_choice choice;
    pd_store store;
    bool said[N_LACKING]; // guarded by the store's mutex
};

// What a custom node does.
typedef struct step {
    pd_lowered *lowered;
    pd_product *product, *up;          // up: the other one of a gated pair
    pd_tasks outliers;                 // finds them
    const pd_activations *activations; // converts them, for this product and others
    struct ggml_tensor *source;        // what activations and their outliers are of
    struct ggml_tensor *node;          // of these, or a gated pair
    pd_rms_norm norm;                  // what the source goes through first, if it has weights
    pd_attention_plan *attention;
    pd_rope rope;
} step;

struct pd_lowered {
    pd_lowering *lowering;
    struct ggml_context *ctx; // of the nodes added and the new graph
    struct ggml_cgraph *graph;
    pd_worker *workers; // [n_threads]
    int32_t n_threads;
    step *steps;
    size_t n_steps;
    bool *dead; // [nodes of the old graph]: no longer computed
    int32_t n_lowered;
    double pack_ms;
};

// A product is lowered when oneDNN's set-up is small against it; a few rows are what ggml's own kernels are
// for.
enum { LEAST_ROWS = 16, LEAST_QUANTISED_ROWS = 64, LEAST_MULTIPLICATIONS = 1 << 18 };

__attribute__((format(printf, 3, 4))) static void say(const pd_lowering *lowering, pd_log_level level,
                                                      const char *format, ...) {
    if (!lowering->params.log) return;
    char line[640];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    lowering->params.log(level, line, lowering->params.log_user);
}

// ---- one for each model ------------------------------------------------------------------------------------

static pd_status choose(pd_lowering *lowering, pd_error *err) {
    pd_error lack;
    const pd_status status = pd_choose(lowering->cache, lowering->params.compute, lowering->params.eight_bits,
                                       lowering->params.floats, &lowering->choice, &lack);
    if (status == PD_OK) return PD_OK;
    if (lowering->params.strict || status != PD_ERR_UNSUPPORTED)
        return pd_fail(err, status, "%s", lack.message);
    say(lowering, PD_LOG_WARNING, "%s; using %s", lack.message, lowering->choice.description);
    return PD_OK;
}

pd_status pd_lowering_create(const pd_lowering_params *params, pd_lowering **out, pd_error *err) {
    *out = NULL;
    if (params->compute == PD_COMPUTE_GGML) return PD_OK;
    pd_lowering *lowering = calloc(1, sizeof *lowering);
    if (!lowering) return pd_fail_memory(err, sizeof *lowering, "the lowering");
    lowering->params = *params;
    pd_status status = pd_store_init(&lowering->store, err);
    if (status != PD_OK) {
        free(lowering);
        return status;
    }
    status = pd_gemm_cache_create(&lowering->cache, err);
    if (status == PD_OK) status = choose(lowering, err);
    if (status != PD_OK) {
        pd_lowering_free(lowering);
        return status;
    }
    if (lowering->choice.useless) {
        pd_lowering_free(lowering);
        return PD_OK;
    }
    *out = lowering;
    return PD_OK;
}

void pd_lowering_free(pd_lowering *lowering) {
    if (!lowering) return;
    pd_store_free(&lowering->store, lowering->cache);
    pd_gemm_cache_free(lowering->cache);
    free(lowering);
}

const char *pd_lowering_description(const pd_lowering *lowering) {
    if (!lowering) return "ggml";
    if (!atomic_load(&lowering->store.full)) return lowering->choice.description;
    return atomic_load(&lowering->store.bytes) > 0 ? lowering->choice.partly_packed
                                                   : lowering->choice.unpacked;
}

size_t pd_lowering_packed_bytes(const pd_lowering *lowering) {
    if (!lowering) return 0;
    return atomic_load(&lowering->store.bytes);
}

// ---- which nodes -------------------------------------------------------------------------------------------

static bool is_constant(const struct ggml_tensor *tensor) {
    const struct ggml_tensor *owner = tensor->view_src ? tensor->view_src : tensor;
    return owner->op == GGML_OP_NONE && tensor->data && owner->buffer &&
           ggml_backend_buffer_get_usage(owner->buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
}

static bool has_adjacent(const struct ggml_tensor *tensor, int dimension) {
    return tensor->nb[dimension] == ggml_type_size(tensor->type);
}

static bool is_readable(enum ggml_type type) {
    return type == GGML_TYPE_F32 || ggml_get_type_traits(type)->to_float;
}

static bool is_product(const pd_lowering *lowering, const struct ggml_tensor *node) {
    if (node->op != GGML_OP_MUL_MAT && node->op != GGML_OP_OUT_PROD) return false;
    const struct ggml_tensor *weights = node->src[0], *source = node->src[1];
    const bool outer = node->op == GGML_OP_OUT_PROD;
    if (node->type != GGML_TYPE_F32 || source->type != GGML_TYPE_F32 || !is_readable(weights->type))
        return false;
    if (!has_adjacent(node, 0) || !has_adjacent(weights, 0)) return false;
    if (!has_adjacent(source, 0) && !(outer && has_adjacent(source, 1))) return false;
    const int64_t m = node->ne[1], n = node->ne[0], k = weights->ne[outer ? 1 : 0];
    if (lowering->params.everything) return m > 0 && n > 0 && k > 0;
    // ggml's own kernels round activations to the bits of the weights, and have no outer product of halves.
    if (lowering->params.floats && weights->type != GGML_TYPE_F32) return m > 0 && n > 0 && k > 0;
    if (ggml_is_quantized(weights->type) && m < LEAST_QUANTISED_ROWS) return false;
    return m >= LEAST_ROWS && n >= LEAST_ROWS && k >= LEAST_ROWS &&
           (double)m * (double)n * (double)k >= LEAST_MULTIPLICATIONS;
}

static bool is_packable(const struct ggml_tensor *node) {
    const struct ggml_tensor *weights = node->src[0];
    return node->op == GGML_OP_MUL_MAT && is_constant(weights) && weights->ne[2] == 1 && weights->ne[3] == 1;
}

// Eight bits cost most where many numbers become few: what goes back into the residual stream from the wide
// inner layer of an FFN, and the keys and values that several heads share. These are made in floats.
static bool narrows(const struct ggml_tensor *weights) {
    return weights->ne[1] < weights->ne[0];
}

static pd_number_kind kind_of(const pd_lowering *lowering, const struct ggml_tensor *node) {
    if (!is_packable(node)) return lowering->choice.changing;
    const bool quantised = ggml_is_quantized(node->src[0]->type);
    const pd_number_kind kind = quantised ? lowering->choice.quantised : lowering->choice.floating;
    if (kind == PD_NUMBER_INT8 && !lowering->params.everything && narrows(node->src[0]))
        return lowering->choice.changing;
    return kind;
}

// f32 products read f32 weights where they lie and convert others on the way: packed ones would take four
// bytes each, for a twentieth of the time (docs/SPEED.md).
static bool wants_packing(const struct ggml_tensor *node, pd_number_kind kind) {
    return is_packable(node) && kind != PD_NUMBER_F32;
}

// ---- packing -----------------------------------------------------------------------------------------------

// Bytes that may still be packed: what is available, less what the machine keeps for everything else. The
// kernel counts the pages of mapped files as available, but every decoded token and every step of a training
// read them again.
static size_t memory_left(const pd_lowering *lowering) {
    if (lowering->params.most_packed_bytes > 0) {
        const size_t most = lowering->params.most_packed_bytes, used = lowering->store.bytes;
        return most > used ? most - used : 0;
    }
    const size_t available = pd_memory_available(), least = (size_t)512 << 20;
    const size_t kept = available / 8 > least ? available / 8 : least, mapped = lowering->params.mapped_bytes;
    return available > kept && available - kept > mapped ? available - kept - mapped : 0;
}

// What a node that has no kernel comes to, with the store's mutex held. A model has many alike: one warning
// is for all of them.
static pd_status do_without(pd_lowering *lowering, lacking what, const pd_error *lack) {
    static const char *const instead[N_LACKING] = {
        [LACKING_PACKED_PRODUCT] =
            "weights of products that have no kernel are converted to floats as they are used",
        [LACKING_PRODUCT] = "products that have no kernel are left to ggml",
        [LACKING_ATTENTION] = "attention that has no kernel is left to ggml",
    };
    if (lowering->params.strict) return lack->status;
    if (!lowering->said[what]) say(lowering, PD_LOG_WARNING, "%s; %s", lack->message, instead[what]);
    lowering->said[what] = true;
    return PD_OK;
}

// All constant weights of the graph, packed; with the store's mutex held.
static pd_status pack(pd_lowering *lowering, struct ggml_cgraph *graph, const pd_lower_params *params,
                      pd_worker *workers, pd_error *err) {
    pd_store *store = &lowering->store;
    if (atomic_load(&store->full)) return PD_OK;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const struct ggml_tensor *node = ggml_graph_node(graph, i);
        if (!is_product(lowering, node)) continue;
        const pd_number_kind kind = kind_of(lowering, node);
        if (!wants_packing(node, kind)) continue;
        pd_packed *packed;
        pd_status status = pd_store_get(store, lowering->cache, node->src[0], kind, lowering->choice.group,
                                        lowering->choice.range, &packed, err);
        if (status == PD_ERR_UNSUPPORTED) status = do_without(lowering, LACKING_PACKED_PRODUCT, err);
        PD_TRY(status);
    }
    const size_t wanted = pd_store_wanted(store), left = memory_left(lowering);
    if (wanted == 0) return PD_OK;
    if (wanted > left) {
        return pd_fail(err, PD_ERR_MEMORY,
                       "compute %s: packed weights would take %zu MiB, and there is room for %zu MiB",
                       lowering->choice.description, wanted >> 20, left >> 20);
    }
    const size_t before = store->bytes;
    PD_TRY(pd_store_fill(store, lowering->cache, params, workers, err));
    say(lowering, PD_LOG_INFO, "packed %zu MiB of weights for %s", (store->bytes - before) >> 20,
        lowering->choice.description);
    return PD_OK;
}

static bool is_cancelled(const pd_lower_params *params) {
    return params->cancel && atomic_load_explicit(params->cancel, memory_order_relaxed);
}

// Takes the store's lock. Another session may be packing, which takes a while.
static pd_status lock_store(pd_lowering *lowering, const pd_lower_params *params, pd_error *err) {
    while (pthread_mutex_trylock(&lowering->store.mutex) != 0) {
        if (is_cancelled(params)) return pd_fail(err, PD_ERR_CANCELLED, "cancelled");
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return PD_OK;
}

static pd_status pack_or_fall_back(pd_lowering *lowering, struct ggml_cgraph *graph,
                                   const pd_lower_params *params, pd_worker *workers, pd_error *err) {
    pd_error lack = {0};
    pd_status status = pack(lowering, graph, params, workers, &lack);
    if (status != PD_OK) pd_store_drop_empty(&lowering->store, lowering->cache);
    // PD_COMPUTE_AUTO picks what there is room for.
    const bool must_pack = lowering->params.strict && lowering->params.compute != PD_COMPUTE_AUTO;
    if (status == PD_ERR_MEMORY && !must_pack) {
        atomic_store(&lowering->store.full, true);
        say(lowering, PD_LOG_WARNING, "%s; weights not packed so far are converted to %s as they are used",
            lack.message, pd_number_name(lowering->choice.changing));
        status = PD_OK;
    }
    return status == PD_OK ? PD_OK : pd_fail(err, status, "%s", lack.message);
}

// ---- rewriting ---------------------------------------------------------------------------------------------

// ggml aligns to less than a cache line: nodes of bytes have room for where one begins.
enum { LINE = 64 };

static void *line_of(const struct ggml_tensor *node) {
    return (void *)(((uintptr_t)node->data + LINE - 1) / LINE * LINE);
}

static const void *source_of(const step *s, const struct ggml_tensor *source) {
    return pd_product_activations(s->product) ? line_of(source) : source->data;
}

static void run_product(struct ggml_tensor *node, int ith, int nth, void *user) {
    const step *s = user;
    const pd_product_operands operands = {.weights = node->src[0],
                                          .source = source_of(s, node->src[1]),
                                          .addend = node->src[2],
                                          .destination = node};
    pd_product_run(s->product, &s->lowered->workers[ith], &operands, nth);
}

// node: [n, rows] in f32, or the activations of the product that reads it.
static void run_gated(struct ggml_tensor *node, int ith, int nth, void *user) {
    const step *s = user;
    pd_gated_operands operands = {.source = source_of(s, node->src[0]),
                                  .kind = PD_NUMBER_F32,
                                  .destination = node->data,
                                  .row_bytes = node->nb[1]};
    if (s->activations) {
        operands.kind = s->activations->kind;
        operands.destination = line_of(node);
        operands.row_bytes = (size_t)s->activations->stride * pd_number_bytes(operands.kind);
    }
    pd_product_run_gated(s->product, s->up, &s->lowered->workers[ith], &operands, nth);
}

static void run_outliers(struct ggml_tensor *node, int ith, int nth, void *user) {
    step *s = user;
    pd_outliers_find(node->src[0], s->norm.weights ? &s->norm : NULL, line_of(node), &s->outliers,
                     s->lowered->workers[ith].panel, nth);
}

static void run_activations(struct ggml_tensor *node, int ith, int nth, void *user) {
    const step *s = user;
    const int32_t *channels = node->src[1] ? pd_outlier_channels(line_of(node->src[1])) : NULL;
    pd_activations_fill(s->activations, node->src[0], s->norm.weights ? &s->norm : NULL, channels,
                        line_of(node), s->lowered->workers[ith].panel, ith, nth);
}

static void run_attention_pack(struct ggml_tensor *node, int ith, int nth, void *user) {
    const step *s = user;
    const struct ggml_tensor *mask = node->src[2];
    pd_attention_pack(s->attention, &s->lowered->workers[ith], node->src[0]->data, node->src[1]->data,
                      mask ? mask->data : NULL, line_of(node), nth);
}

static void run_attention(struct ggml_tensor *node, int ith, int nth, void *user) {
    const step *s = user;
    const struct ggml_tensor *mask = node->src[2];
    pd_attention_run(s->attention, &s->lowered->workers[ith], node->src[0]->data, line_of(node->src[1]),
                     mask ? mask->data : NULL, node->data, nth);
}

static void run_rope(struct ggml_tensor *node, int ith, int nth, void *user) {
    const step *s = user;
    pd_rope_run(&s->rope, node->src[0], node->src[1]->data, node->src[2] ? node->src[2]->data : NULL, node,
                s->lowered->workers[ith].panel, ith, nth);
}

static step *add_step(pd_lowered *lowered) {
    step *s = &lowered->steps[lowered->n_steps++];
    s->lowered = lowered;
    return s;
}

static pd_status reserve_workers(pd_lowered *lowered, size_t scratch, size_t panel, size_t tile,
                                 pd_error *err) {
    for (int32_t i = 0; i < lowered->n_threads; i++)
        PD_TRY(pd_worker_reserve(&lowered->workers[i], scratch, panel, tile, err));
    return PD_OK;
}

// A node of so many bytes.
static struct ggml_tensor *custom(pd_lowered *lowered, int64_t size, struct ggml_tensor **sources,
                                  int n_sources, ggml_custom_op_t run, step *s) {
    return ggml_custom_4d(lowered->ctx, GGML_TYPE_I8, size, 1, 1, 1, sources, n_sources, run,
                          GGML_N_TASKS_MAX, s);
}

static void rewrite(pd_lowered *lowered, struct ggml_tensor *node, struct ggml_tensor **sources,
                    int n_sources, ggml_custom_op_t run, step *s) {
    pd_rewrite_node(lowered->ctx, node, sources, n_sources, run, s);
    lowered->n_lowered++;
}

// The node of these activations, shared with the products before.
static struct ggml_tensor *activations_node(pd_lowered *lowered, struct ggml_tensor *source,
                                            const pd_activations *plan) {
    for (size_t i = lowered->n_steps; i-- > 0;) {
        const step *s = &lowered->steps[i];
        if (s->activations && s->source == source && s->activations->kind == plan->kind &&
            s->activations->group == plan->group)
            return s->node;
    }
    struct ggml_tensor *sources[2] = {source, NULL};
    if (plan->n_outliers > 0) {
        step *outliers = add_step(lowered);
        outliers->source = source;
        outliers->node = sources[1] =
            custom(lowered, (int64_t)pd_outliers_bytes(source) + LINE, &source, 1, run_outliers, outliers);
    }
    step *s = add_step(lowered);
    s->activations = plan;
    s->source = source;
    s->node = custom(lowered, (int64_t)pd_activations_bytes(plan) + LINE, sources, sources[1] ? 2 : 1,
                     run_activations, s);
    return s->node;
}

// The product that computes `node`; *product stays NULL where there is no kernel for it, and ggml may.
static pd_status create_product(pd_lowered *lowered, const struct ggml_tensor *node, pd_product_end end,
                                pd_product **product, pd_error *err) {
    pd_lowering *lowering = lowered->lowering;
    pd_number_kind kind = kind_of(lowering, node);
    const pd_packed *packed =
        wants_packing(node, kind) ? pd_store_find(&lowering->store, node->src[0], kind) : NULL;
    if (!packed && pd_number_is_integer(kind)) kind = lowering->choice.changing; // which needs no packing
    const pd_status status = pd_product_create(lowering->cache, node, kind, lowering->choice.changing, packed,
                                               end, lowered->n_threads, product, err);
    return status == PD_ERR_UNSUPPORTED ? do_without(lowering, LACKING_PRODUCT, err) : status;
}

// Takes the product over.
static pd_status add_product_step(pd_lowered *lowered, pd_product *product, step **added, pd_error *err) {
    step *s = *added = add_step(lowered);
    s->product = product;
    size_t scratch, panel, tile;
    pd_product_worker_bytes(product, &scratch, &panel, &tile);
    return reserve_workers(lowered, scratch, panel, tile, err);
}

static struct ggml_tensor *source_node(pd_lowered *lowered, const struct ggml_tensor *node,
                                       const pd_product *product) {
    const pd_activations *activations = pd_product_activations(product);
    return activations ? activations_node(lowered, node->src[1], activations) : node->src[1];
}

static bool is_in_place(const struct ggml_tensor *sum) {
    return sum->view_src && sum->data == sum->src[0]->data;
}

// `sum`: the node that adds the product to its src[0], and becomes the one that computes both; NULL: none.
static pd_status lower_product(pd_lowered *lowered, struct ggml_tensor *node, struct ggml_tensor *sum,
                               pd_error *err) {
    const pd_product_end end = !sum               ? PD_PRODUCT_WRITES
                               : is_in_place(sum) ? PD_PRODUCT_ACCUMULATES
                                                  : PD_PRODUCT_ADDS;
    pd_product *product;
    PD_TRY(create_product(lowered, node, end, &product, err));
    if (!product) return PD_OK;
    step *s;
    PD_TRY(add_product_step(lowered, product, &s, err));
    struct ggml_tensor *sources[3] = {node->src[0], source_node(lowered, node, product),
                                      sum ? sum->src[0] : NULL};
    rewrite(lowered, sum ? sum : node, sources, sum ? 3 : 2, run_product, s);
    return PD_OK;
}

static int count_users(const struct ggml_tensor *tensor, const void *context) {
    struct ggml_cgraph *graph = (struct ggml_cgraph *)(uintptr_t)context; // ggml's accessors take no const
    int users = 0;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const struct ggml_tensor *node = ggml_graph_node(graph, i);
        for (int j = 0; j < GGML_MAX_SRC; j++)
            users += node->src[j] == tensor;
    }
    return users + (tensor->flags & GGML_TENSOR_FLAG_OUTPUT ? 1 : 0);
}

// What has been taken over by another node is computed no more.
static void mark_dead(pd_lowered *lowered, struct ggml_cgraph *graph, const struct ggml_tensor *node) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        if (ggml_graph_node(graph, i) == node) lowered->dead[i] = true;
    }
}

static pd_status lower_attention(pd_lowered *lowered, struct ggml_cgraph *graph,
                                 const pd_attention_match *match, pd_error *err) {
    pd_lowering *lowering = lowered->lowering;
    // Eager attention is f32 whatever the rest is: it is what one compares with.
    const bool bf16 = lowering->choice.changing == PD_NUMBER_BF16 && match->n_inner == 0;
    const pd_attention_shape shape = pd_attention_match_shape(match, bf16 ? dnnl_bf16 : dnnl_f32);
    pd_attention_plan *plan;
    const pd_status status = pd_attention_create(lowering->cache, &shape, &plan, err);
    if (status == PD_ERR_UNSUPPORTED) return do_without(lowering, LACKING_ATTENTION, err);
    PD_TRY(status);
    step *s = add_step(lowered);
    s->attention = plan;
    size_t scratch, panel, tile;
    pd_attention_worker_bytes(plan, &scratch, &panel, &tile);
    PD_TRY(reserve_workers(lowered, scratch, panel, tile, err));
    struct ggml_tensor *packed_sources[3] = {match->k, match->v, match->mask};
    struct ggml_tensor *packed = custom(lowered, (int64_t)pd_attention_packed_bytes(plan) + LINE,
                                        packed_sources, match->mask ? 3 : 2, run_attention_pack, s);
    struct ggml_tensor *sources[3] = {match->q, packed, match->mask};
    rewrite(lowered, match->result, sources, match->mask ? 3 : 2, run_attention, s);
    for (int i = 0; i < match->n_inner; i++)
        mark_dead(lowered, graph, match->inner[i]);
    return PD_OK;
}

static pd_status rewrite_attentions(pd_lowered *lowered, struct ggml_cgraph *graph, pd_error *err) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        pd_attention_match match;
        if (!pd_match_attention(ggml_graph_node(graph, i), count_users, graph, &match)) continue;
        if (match.q->ne[1] >= LEAST_ROWS || lowered->lowering->params.everything)
            PD_TRY(lower_attention(lowered, graph, &match, err));
    }
    return PD_OK;
}

// The product that an addition adds, if nothing else reads it: to a sum in place, as the backward pass writes
// it, or to the residual stream.
static struct ggml_tensor *added_product(const pd_lowering *lowering, struct ggml_cgraph *graph,
                                         const struct ggml_tensor *node) {
    if (node->op != GGML_OP_ADD || node->type != GGML_TYPE_F32 || node->src[0]->type != GGML_TYPE_F32)
        return NULL;
    struct ggml_tensor *added = node->src[1];
    const bool in_place = is_in_place(node);
    const struct ggml_tensor *reshaped = in_place && added->op == GGML_OP_RESHAPE ? added : NULL;
    if (reshaped) added = reshaped->src[0];
    if (added->op != (in_place ? GGML_OP_OUT_PROD : GGML_OP_MUL_MAT) || !is_product(lowering, added))
        return NULL;
    if (!ggml_are_same_shape(added, node) || !ggml_is_contiguous(node)) return NULL;
    if (!ggml_are_same_shape(node->src[0], node) || !has_adjacent(node->src[0], 0)) return NULL;
    if (count_users(added, graph) != 1 || (reshaped && count_users(reshaped, graph) != 1)) return NULL;
    return added;
}

// Products are added as they are made: no pass over both, and no memory for them.
static pd_status rewrite_sums(pd_lowered *lowered, struct ggml_cgraph *graph, pd_error *err) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        struct ggml_tensor *node = ggml_graph_node(graph, i);
        struct ggml_tensor *product = added_product(lowered->lowering, graph, node);
        if (!product) continue;
        const struct ggml_tensor *between = node->src[1];
        PD_TRY(lower_product(lowered, product, node, err));
        if (node->op == GGML_OP_ADD) continue; // left to ggml
        mark_dead(lowered, graph, product);
        mark_dead(lowered, graph, between);
    }
    return PD_OK;
}

// ---- gated pairs -------------------------------------------------------------------------------------------

static bool is_packed(const pd_lowering *lowering, const struct ggml_tensor *node) {
    const pd_number_kind kind = kind_of(lowering, node);
    return wants_packing(node, kind) && pd_store_find(&lowering->store, node->src[0], kind);
}

// silu(gate) · up of two products that nothing else reads, of the same source by alike weights.
static bool is_gated_pair(const pd_lowering *lowering, struct ggml_cgraph *graph,
                          const struct ggml_tensor *node) {
    enum { SWAPPED = 1 }; // of ggml_glu
    const struct ggml_tensor *gate = node->src[0], *up = node->src[1];
    if (node->op != GGML_OP_GLU || ggml_get_glu_op(node) != GGML_GLU_OP_SWIGLU || !up) return false;
    if (node->op_params[SWAPPED] != 0 || !ggml_is_contiguous(node)) return false;
    if (gate->op != GGML_OP_MUL_MAT || up->op != GGML_OP_MUL_MAT || gate->src[1] != up->src[1]) return false;
    if (!is_product(lowering, gate) || !is_product(lowering, up)) return false;
    if (!is_packed(lowering, gate) || !is_packed(lowering, up)) return false;
    if (gate->ne[2] != 1 || gate->ne[3] != 1 || kind_of(lowering, gate) != kind_of(lowering, up))
        return false;
    return ggml_are_same_shape(gate->src[0], up->src[0]) && count_users(gate, graph) == 1 &&
           count_users(up, graph) == 1;
}

static pd_status lower_gated_pair(pd_lowered *lowered, struct ggml_tensor *node, pd_error *err) {
    pd_product *products[2] = {NULL};
    step *steps[2] = {NULL};
    for (int i = 0; i < 2; i++) {
        PD_TRY(create_product(lowered, node->src[i], PD_PRODUCT_GATES, &products[i], err));
        if (!products[i]) return PD_OK;
        PD_TRY(add_product_step(lowered, products[i], &steps[i], err));
    }
    steps[0]->up = products[1];
    steps[0]->node = node;
    struct ggml_tensor *sources[3] = {source_node(lowered, node->src[0], products[0]), node->src[0]->src[0],
                                      node->src[1]->src[0]};
    rewrite(lowered, node, sources, 3, run_gated, steps[0]);
    return PD_OK;
}

static pd_status rewrite_gated_pairs(pd_lowered *lowered, struct ggml_cgraph *graph, pd_error *err) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        struct ggml_tensor *node = ggml_graph_node(graph, i);
        if (!is_gated_pair(lowered->lowering, graph, node)) continue;
        const struct ggml_tensor *gate = node->src[0], *up = node->src[1];
        PD_TRY(lower_gated_pair(lowered, node, err));
        if (node->op == GGML_OP_GLU) continue; // left to rewrite_products
        mark_dead(lowered, graph, gate);
        mark_dead(lowered, graph, up);
    }
    return PD_OK;
}

static pd_status rewrite_products(pd_lowered *lowered, struct ggml_cgraph *graph, pd_error *err) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        struct ggml_tensor *node = ggml_graph_node(graph, i);
        if (!lowered->dead[i] && is_product(lowered->lowering, node))
            PD_TRY(lower_product(lowered, node, NULL, err));
    }
    return PD_OK;
}

static pd_status rewrite_ropes(pd_lowered *lowered, struct ggml_cgraph *graph, pd_error *err) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        struct ggml_tensor *node = ggml_graph_node(graph, i);
        pd_rope rope;
        if (!pd_rope_match(node, &rope)) continue;
        if (node->ne[2] < LEAST_ROWS && !lowered->lowering->params.everything) continue;
        PD_TRY(reserve_workers(lowered, 0, (size_t)rope.n_dims * sizeof(float), 0, err));
        step *s = add_step(lowered);
        s->rope = rope;
        struct ggml_tensor *sources[3] = {node->src[0], node->src[1], node->src[2]};
        rewrite(lowered, node, sources, sources[2] ? 3 : 2, run_rope, s);
    }
    return PD_OK;
}

// ---- what makes activations --------------------------------------------------------------------------------

// Whether nothing reads it but the nodes that make activations of it.
static bool is_for_activations(const pd_lowered *lowered, struct ggml_cgraph *graph,
                               const struct ggml_tensor *tensor) {
    if (tensor->flags & GGML_TENSOR_FLAG_OUTPUT) return false;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        if (lowered->dead[i]) continue;
        const struct ggml_tensor *node = ggml_graph_node(graph, i);
        for (int j = 0; j < GGML_MAX_SRC; j++) {
            if (node->src[j] == tensor) return false;
        }
    }
    return true;
}

// A gated pair whose only reader multiplies bf16 writes that, in the place of the node that would convert it.
static void fuse_gated_pair(pd_lowered *lowered, struct ggml_cgraph *graph, step *gated,
                            struct ggml_tensor *inner) {
    step *reader = NULL;
    for (size_t i = 0; i < lowered->n_steps; i++) {
        if (lowered->steps[i].source != inner) continue;
        if (reader) return;
        reader = &lowered->steps[i];
    }
    if (!reader || !reader->activations || reader->activations->kind != PD_NUMBER_BF16) return;
    if (reader->activations->transposed || !is_for_activations(lowered, graph, inner)) return;
    gated->activations = reader->activations;
    pd_rewrite_node(lowered->ctx, reader->node, inner->src, 3, run_gated, gated);
    mark_dead(lowered, graph, inner);
}

// weights · RMSNorm(x), whose rows are as x's are.
static bool is_weighted_norm(const struct ggml_tensor *node) {
    if (node->op != GGML_OP_MUL || node->src[0]->op != GGML_OP_RMS_NORM) return false;
    const struct ggml_tensor *x = node->src[0]->src[0], *weights = node->src[1];
    return x->type == GGML_TYPE_F32 && has_adjacent(x, 0) && ggml_are_same_shape(x, node) &&
           weights->type == GGML_TYPE_F32 && weights->op == GGML_OP_NONE && weights->data &&
           weights->ne[0] == x->ne[0] && ggml_nelements(weights) == x->ne[0];
}

// A norm that only activations are made of is computed as they are.
static void fuse_norm(pd_lowered *lowered, struct ggml_cgraph *graph, struct ggml_tensor *node) {
    const struct ggml_tensor *norm = node->src[0];
    if (!is_for_activations(lowered, graph, node) || count_users(norm, graph) != 1) return;
    bool used = false;
    for (size_t i = 0; i < lowered->n_steps; i++) {
        step *s = &lowered->steps[i];
        if (s->source != node) continue;
        if (s->activations && s->activations->transposed) return;
        used = true;
        s->norm.weights = node->src[1]->data;
        memcpy(&s->norm.epsilon, norm->op_params, sizeof s->norm.epsilon);
        s->node->src[0] = norm->src[0];
    }
    if (!used) return;
    mark_dead(lowered, graph, norm);
    mark_dead(lowered, graph, node);
}

static void fuse_activations(pd_lowered *lowered, struct ggml_cgraph *graph) {
    for (size_t i = 0; i < lowered->n_steps; i++) {
        step *s = &lowered->steps[i];
        if (s->up) fuse_gated_pair(lowered, graph, s, s->node);
    }
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        struct ggml_tensor *node = ggml_graph_node(graph, i);
        if (is_weighted_norm(node)) fuse_norm(lowered, graph, node);
    }
}

// The same nodes in the same order, with the added ones before those that read them.
static void rebuild(pd_lowered *lowered, struct ggml_cgraph *graph) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        if (!lowered->dead[i]) ggml_build_forward_expand(lowered->graph, ggml_graph_node(graph, i));
    }
}

static pd_status lowered_init(pd_lowered *lowered, pd_lowering *lowering, struct ggml_cgraph *graph,
                              const pd_lower_params *params, pd_error *err) {
    lowered->lowering = lowering;
    lowered->n_threads = params->n_threads;
    // A node lowered has at most two templates, and two nodes added.
    const size_t n_nodes = (size_t)ggml_graph_n_nodes(graph),
                 size = (size_t)ggml_graph_size(graph) + 2 * n_nodes;
    const size_t bytes = 4 * n_nodes * ggml_tensor_overhead() + ggml_graph_overhead_custom(size, false);
    lowered->ctx = ggml_init((struct ggml_init_params){.mem_size = bytes, .no_alloc = true});
    lowered->steps = calloc(3 * n_nodes + 1, sizeof *lowered->steps);
    lowered->dead = calloc(n_nodes + 1, sizeof *lowered->dead);
    lowered->workers = calloc((size_t)params->n_threads, sizeof *lowered->workers);
    if (!lowered->ctx || !lowered->steps || !lowered->dead || !lowered->workers)
        return pd_fail_memory(err, bytes, "a lowered graph");
    lowered->graph = ggml_new_graph_custom(lowered->ctx, size, false);
    for (int32_t i = 0; i < params->n_threads; i++)
        PD_TRY(pd_worker_create(lowering->cache, &lowered->workers[i], err));
    return PD_OK;
}

pd_status pd_lower(pd_lowering *lowering, struct ggml_cgraph *graph, const pd_lower_params *params,
                   pd_lowered **out, pd_error *err) {
    pd_error unheard; // a node's is looked at before anyone hears of it
    if (!err) err = &unheard;
    *out = NULL;
    pd_lowered *lowered = calloc(1, sizeof *lowered);
    if (!lowered) return pd_fail_memory(err, sizeof *lowered, "a lowered graph");
    pd_status status = lowered_init(lowered, lowering, graph, params, err);
    const int64_t start = ggml_time_us();
    if (status == PD_OK) status = lock_store(lowering, params, err);
    if (status == PD_OK) {
        status = pack_or_fall_back(lowering, graph, params, lowered->workers, err);
        lowered->pack_ms = (double)(ggml_time_us() - start) * 1e-3;
        if (status == PD_OK) status = rewrite_attentions(lowered, graph, err);
        if (status == PD_OK) status = rewrite_ropes(lowered, graph, err);
        if (status == PD_OK) status = rewrite_sums(lowered, graph, err);
        if (status == PD_OK) status = rewrite_gated_pairs(lowered, graph, err);
        if (status == PD_OK) status = rewrite_products(lowered, graph, err); // they look into the store
        if (status == PD_OK) fuse_activations(lowered, graph);
        pthread_mutex_unlock(&lowering->store.mutex);
    }
    if (status != PD_OK) {
        pd_lowered_free(lowered);
        return status;
    }
    rebuild(lowered, graph);
    *out = lowered;
    return PD_OK;
}

struct ggml_cgraph *pd_lowered_graph(const pd_lowered *lowered) {
    return lowered->graph;
}

int32_t pd_lowered_count(const pd_lowered *lowered) {
    return lowered->n_lowered;
}

pd_status pd_lowered_check(const pd_lowered *lowered, pd_error *err) {
    for (int32_t i = 0; i < lowered->n_threads; i++) {
        const dnnl_status_t failed = lowered->workers[i].failed;
        if (failed == dnnl_out_of_memory) return pd_fail(err, PD_ERR_MEMORY, "out of memory in oneDNN");
        if (failed != dnnl_success) return pd_fail(err, PD_ERR_BACKEND, "oneDNN failed (%d)", (int)failed);
    }
    return PD_OK;
}

double pd_lowered_pack_ms(const pd_lowered *lowered) {
    return lowered->pack_ms;
}

size_t pd_lowered_bytes(const pd_lowered *lowered) {
    size_t bytes = 0;
    for (int32_t i = 0; lowered && i < lowered->n_threads; i++) {
        const pd_worker *w = &lowered->workers[i];
        bytes += w->scratch_bytes + w->panel_bytes + w->tile_bytes;
    }
    return bytes;
}

void pd_lowered_free(pd_lowered *lowered) {
    if (!lowered) return;
    for (size_t i = 0; i < lowered->n_steps; i++) {
        pd_product_free(lowered->lowering->cache, lowered->steps[i].product);
        pd_attention_free(lowered->lowering->cache, lowered->steps[i].attention);
    }
    for (int32_t i = 0; lowered->workers && i < lowered->n_threads; i++)
        pd_worker_free(&lowered->workers[i]);
    free(lowered->workers);
    free(lowered->steps);
    free(lowered->dead);
    if (lowered->ctx) ggml_free(lowered->ctx);
    free(lowered);
}
