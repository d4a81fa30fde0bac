#include "train/step.h"

#include "drop/select.h"
#include "model/vision.h"
#include "train/attention.h"
#include "train/drop_rows.h"
#include "train/gradient.h"
#include "train/ops.h"

#include <ggml-alloc.h>
#include <stdlib.h>
#include <string.h>

struct pd_step {
    pd_step_params params;
    pd_small_products *products;
    ggml_gallocr_t allocator;
    int32_t *selected[PD_MAX_DROPS + 1]; // the last batch's, by stage; owned
    int32_t n_selected[PD_MAX_DROPS + 1];
};

// One batch's graph.
typedef struct {
    const pd_step *step;
    pd_layout layout;
    struct ggml_context *ctx;
    struct ggml_cgraph *graph;
    pd_lowered *lowered;
    pd_packed_attention *tower_attention;
    pd_packed_attention *attentions[PD_MAX_DROPS + 1]; // by stage
    pd_row_drop drops[PD_MAX_DROPS + 1];               // by the stage behind
    pd_cross_entropy loss;
    // inputs
    struct ggml_tensor *pixels, *feature_rows, *text_tokens, *sources, *label_rows, *labels;
    struct ggml_tensor *positions[PD_MAX_DROPS + 1], *asking[PD_MAX_DROPS + 1];
    struct ggml_tensor *selected[PD_MAX_DROPS + 1];
} batch;

// Rough but safe: tensors that a layer and what stands before the layers add, forward and backward.
enum { TENSORS_PER_LAYER = 256, TENSORS_EXTRA = 1024 };

pd_status pd_step_create(const pd_step_params *params, pd_step **out, pd_error *err) {
    *out = NULL;
    pd_step *step = calloc(1, sizeof *step);
    if (!step) return pd_fail_memory(err, sizeof *step, "a training step");
    step->params = *params;
    step->allocator = ggml_gallocr_new(ggml_backend_get_default_buffer_type(params->backend->cpu));
    pd_status status = step->allocator ? PD_OK : pd_fail_memory(err, sizeof *step, "a training step");
    if (status == PD_OK) status = pd_small_products_create(params->backend->n_threads, &step->products, err);
    if (status != PD_OK) {
        pd_step_free(step);
        return status;
    }
    *out = step;
    return PD_OK;
}

void pd_step_free(pd_step *step) {
    if (!step) return;
    for (int32_t s = 0; s <= PD_MAX_DROPS; s++)
        free(step->selected[s]);
    if (step->allocator) ggml_gallocr_free(step->allocator);
    pd_small_products_free(step->products);
    free(step);
}

// ---- the graph ---------------------------------------------------------------------------------------------

static void batch_free(batch *b) {
    pd_lowered_free(b->lowered);
    if (b->ctx) ggml_free(b->ctx);
    pd_packed_attention_free(b->tower_attention);
    for (int32_t s = 0; s <= PD_MAX_DROPS; s++) {
        pd_packed_attention_free(b->attentions[s]);
        if (b->drops[s].layout) pd_row_drop_free(&b->drops[s]);
    }
    free(b->loss.losses);
    pd_layout_free(&b->layout);
}

static struct ggml_tensor *new_input(batch *b, int64_t n) {
    struct ggml_tensor *t = ggml_new_tensor_1d(b->ctx, GGML_TYPE_I32, n);
    ggml_set_input(t);
    return t;
}

static pd_status make_context(batch *b, pd_error *err) {
    const pd_weights *w = b->step->params.weights;
    const size_t n_layers =
        (size_t)w->decoder.h.n_layers + (w->has_vision ? (size_t)w->vision.h.n_layers_run : 0);
    const size_t size = TENSORS_PER_LAYER * n_layers + TENSORS_EXTRA;
    const size_t bytes = size * ggml_tensor_overhead() + ggml_graph_overhead_custom(size, false);
    b->ctx = ggml_init((struct ggml_init_params){.mem_size = bytes, .no_alloc = true});
    if (!b->ctx) return pd_fail_memory(err, bytes, "a training step's graph");
    b->graph = ggml_new_graph_custom(b->ctx, size, false);
    b->loss.losses = calloc((size_t)b->layout.n_labels + 1, sizeof(float));
    return b->loss.losses ? PD_OK : pd_fail_memory(err, (size_t)b->layout.n_labels, "losses");
}

static pd_status make_attentions(batch *b, pd_error *err) {
    const pd_step_params *params = &b->step->params;
    const pd_decoder_hyperparameters *h = &params->weights->decoder.h;
    const int32_t n_threads = params->backend->n_threads;
    if (b->layout.n_tiles > 0) {
        const pd_vision_hyperparameters *v = &params->weights->vision.h;
        const int32_t rows = 1 + pd_vision_n_patches(v);
        int32_t *starts = calloc((size_t)b->layout.n_tiles + 1, sizeof *starts);
        if (!starts) return pd_fail_memory(err, (size_t)b->layout.n_tiles * sizeof *starts, "a batch");
        for (int32_t i = 0; i <= b->layout.n_tiles; i++)
            starts[i] = i * rows;
        const pd_sequences tiles = {.n = b->layout.n_tiles, .starts = starts};
        const pd_status status =
            pd_packed_attention_create(b->step->products, &tiles, v->n_embd / v->n_heads, v->n_heads,
                                       v->n_heads, n_threads, &b->tower_attention, err);
        free(starts);
        PD_TRY(status);
    }
    for (int32_t s = 0; s < b->layout.n_stages; s++) {
        const pd_sequences samples = {
            .n = b->layout.n_samples, .starts = b->layout.stages[s].starts, .causal = true};
        PD_TRY(pd_packed_attention_create(b->step->products, &samples, h->head_dim, h->n_heads, h->n_kv_heads,
                                          n_threads, &b->attentions[s], err));
        if (s > 0) PD_TRY(pd_row_drop_create(params->policy, &b->layout, h, s, n_threads, &b->drops[s], err));
    }
    return PD_OK;
}

// Image features in the order of the rows: [n_embd, n_features].
static struct ggml_tensor *embed_pictures(batch *b) {
    const pd_vision_weights *w = &b->step->params.weights->vision;
    const int64_t side = w->h.image_size;
    const pd_attender attender = {.build = pd_packed_attend, .user = b->tower_attention};
    b->pixels = ggml_new_tensor_4d(b->ctx, GGML_TYPE_F32, side, side, 3, b->layout.n_tiles);
    ggml_set_input(b->pixels);
    struct ggml_tensor *rows = pd_vision_tower(b->ctx, w, b->pixels, false, &attender);
    b->feature_rows = new_input(b, b->layout.n_features);
    return pd_projector(b->ctx, w, ggml_get_rows(b->ctx, rows, b->feature_rows));
}

// The first stage's rows: [n_embd, rows].
static struct ggml_tensor *embed(batch *b) {
    const pd_weights *w = b->step->params.weights;
    b->text_tokens = new_input(b, b->layout.n_text);
    struct ggml_tensor *x = ggml_get_rows(b->ctx, w->decoder.token_embedding, b->text_tokens);
    if (b->layout.n_features == 0) return x;
    x = ggml_concat(b->ctx, x, embed_pictures(b), 1);
    if (w->vision.image_newline) {
        struct ggml_tensor *newline = w->vision.image_newline;
        x = ggml_concat(b->ctx, x, ggml_reshape_2d(b->ctx, newline, newline->ne[0], 1), 1);
    }
    b->sources = new_input(b, b->layout.stages[0].n_rows);
    return ggml_get_rows(b->ctx, x, b->sources);
}

// The drop in front of stage `s`.
static void drop(batch *b, int32_t s, int32_t next_layer, struct ggml_tensor **x,
                 struct ggml_tensor **positions) {
    const pd_step_params *params = &b->step->params;
    const pd_layout_stage *before = &b->layout.stages[s - 1];
    if (!before->drops) return;
    const bool asks = params->policy->scorer == PD_SCORER_NEXT_LAYER && before->asking.n > 0;
    if (asks) b->asking[s] = new_input(b, before->asking.n);
    struct ggml_tensor *selected = pd_row_drop_select(b->ctx, &params->weights->decoder, next_layer,
                                                      &b->drops[s], *x, *positions, b->asking[s]);
    ggml_set_output(selected); // read behind the last layer
    b->selected[s] = selected;
    *x = ggml_get_rows(b->ctx, *x, selected);
    if (params->policy->positions == PD_POSITIONS_COMPACT) {
        *positions = b->positions[s] = new_input(b, b->layout.stages[s].n_rows);
    } else {
        *positions = pd_select_positions_node(b->ctx, *positions, selected);
    }
}

// Logits of the rows that predict a label: [n_vocab, n_labels].
static struct ggml_tensor *forward(batch *b) {
    const pd_decoder_weights *w = &b->step->params.weights->decoder;
    const pd_policy *policy = b->step->params.policy;
    struct ggml_tensor *x = embed(b);
    struct ggml_tensor *positions = b->positions[0] = new_input(b, b->layout.stages[0].n_rows);
    b->label_rows = new_input(b, b->layout.n_labels);
    for (int32_t s = 0; s < b->layout.n_stages; s++) {
        const int32_t first = s == 0 ? 0 : policy->layer_list[s - 1],
                      end = s + 1 < b->layout.n_stages ? policy->layer_list[s] : w->h.n_layers;
        if (s > 0) drop(b, s, first, &x, &positions);
        const pd_attender attender = {.build = pd_packed_attend, .user = b->attentions[s]};
        for (int32_t layer = first; layer < end; layer++) {
            // nothing reads the last layer's other rows
            const pd_layer_input in = {.rows = {.residual = x},
                                       .positions = positions,
                                       .attention = &attender,
                                       .result_rows = layer + 1 == w->h.n_layers ? b->label_rows : NULL};
            x = pd_decoder_layer_forward(b->ctx, b->graph, w, layer, &in);
        }
    }
    return pd_decoder_logits(b->ctx, w, x);
}

static pd_status build(batch *b, pd_error *err) {
    const pd_parameters *parameters = b->step->params.parameters;
    struct ggml_tensor *logits = forward(b);
    ggml_build_forward_expand(b->graph, logits);
    b->labels = new_input(b, b->layout.n_labels);
    struct ggml_tensor *gradient = pd_cross_entropy_node(b->ctx, logits, b->labels, &b->loss);
    ggml_build_forward_expand(b->graph, gradient); // the losses are wanted also where no parameter is reached
    pd_gradient_target *targets = calloc(parameters->n + 1, sizeof *targets);
    if (!targets) return pd_fail_memory(err, parameters->n * sizeof *targets, "the backward pass");
    for (size_t i = 0; i < parameters->n; i++)
        targets[i] = (pd_gradient_target){parameters->all[i].weight, parameters->all[i].gradient};
    const pd_status status = pd_gradient_build(b->ctx, b->graph, logits, gradient, targets, parameters->n,
                                               b->step->params.lowering == NULL, err);
    free(targets);
    return status;
}

// ---- computing ---------------------------------------------------------------------------------------------

static void set(struct ggml_tensor *t, const void *data) {
    // an input that nothing reads has no memory
    if (t && t->buffer) ggml_backend_tensor_set(t, data, 0, ggml_nbytes(t));
}

static void set_inputs(batch *b) {
    const pd_layout *layout = &b->layout;
    set(b->text_tokens, layout->text_tokens);
    set(b->feature_rows, layout->feature_rows);
    set(b->sources, layout->sources);
    set(b->label_rows, layout->label_rows);
    set(b->labels, layout->labels);
    for (int32_t s = 0; s < layout->n_stages; s++) {
        set(b->positions[s], layout->stages[s].positions);
        if (s > 0) set(b->asking[s], layout->stages[s - 1].asking.rows);
    }
    size_t at = 0;
    for (int32_t i = 0; i < layout->n_pictures && b->pixels; i++) {
        const size_t bytes = (size_t)layout->tiles[i]->layout.n_tiles * b->pixels->nb[3];
        ggml_backend_tensor_set(b->pixels, layout->tiles[i]->data, at, bytes);
        at += bytes;
    }
}

static pd_status keep_selected(pd_step *step, const batch *b, pd_error *err) {
    for (int32_t s = 0; s <= PD_MAX_DROPS; s++) {
        free(step->selected[s]);
        step->selected[s] = NULL;
        step->n_selected[s] = 0;
        if (!b->selected[s]) continue;
        const size_t bytes = ggml_nbytes(b->selected[s]);
        step->selected[s] = malloc(bytes);
        if (!step->selected[s]) return pd_fail_memory(err, bytes, "the selected rows");
        memcpy(step->selected[s], b->selected[s]->data, bytes);
        step->n_selected[s] = (int32_t)b->selected[s]->ne[0];
    }
    return PD_OK;
}

static pd_status lower(batch *b, pd_error *err) {
    const pd_step_params *params = &b->step->params;
    if (!params->lowering) return PD_OK;
    const pd_lower_params lower = {.cpu = params->backend->cpu,
                                   .n_threads = params->backend->n_threads,
                                   .cancel = params->backend->cancel};
    PD_TRY(pd_lower(params->lowering, b->graph, &lower, &b->lowered, err));
    b->graph = pd_lowered_graph(b->lowered);
    return PD_OK;
}

static pd_status compute(pd_step *step, batch *b, pd_error *err) {
    PD_TRY(lower(b, err));
    if (!ggml_gallocr_alloc_graph(step->allocator, b->graph))
        return pd_fail(err, PD_ERR_MEMORY,
                       "out of memory for a training step of %d rows (a smaller batch takes less)",
                       b->layout.stages[0].n_rows);
    pd_graph_advise_huge_pages(b->graph);
    set_inputs(b);
    const enum ggml_status status = ggml_backend_graph_compute(step->params.backend->cpu, b->graph);
    if (status == GGML_STATUS_ABORTED) return pd_fail(err, PD_ERR_CANCELLED, "cancelled");
    if (status != GGML_STATUS_SUCCESS)
        return pd_fail(err, PD_ERR_BACKEND, "ggml: %s", ggml_status_to_string(status));
    if (b->lowered) PD_TRY(pd_lowered_check(b->lowered, err));
    return pd_small_products_check(step->products, err);
}

static void report(const batch *b, pd_step_result *result) {
    const pd_layout *layout = &b->layout;
    const int32_t n_layers = b->step->params.weights->decoder.h.n_layers;
    *result = (pd_step_result){.n_labels = layout->n_labels, .n_rows = layout->stages[0].n_rows};
    for (int32_t i = 0; i < layout->n_labels; i++)
        result->loss += (double)b->loss.losses[i];
    result->n_image_rows = result->n_rows - layout->n_text;
    for (int32_t s = 0; s < layout->n_stages; s++) {
        const pd_stage *stage = &layout->schedules[0].stages[s];
        result->image_rows_mean += (double)(layout->stages[s].n_rows - layout->n_text) *
                                   (stage->end_layer - stage->first_layer) / n_layers;
    }
}

pd_status pd_step_add_gradients(pd_step *step, const pd_train_sample *samples, int32_t n_samples, float scale,
                                pd_step_result *result, pd_error *err) {
    *result = (pd_step_result){0};
    batch b = {.step = step, .loss = {.scale = scale}};
    const pd_step_params *params = &step->params;
    PD_TRY(pd_layout_create(params->policy, params->weights->decoder.h.n_layers, samples, n_samples,
                            &b.layout, err));
    pd_status status = make_context(&b, err);
    if (status == PD_OK && b.layout.n_labels > 0) {
        status = make_attentions(&b, err);
        if (status == PD_OK) status = build(&b, err);
        if (status == PD_OK) status = compute(step, &b, err);
        if (status == PD_OK) status = keep_selected(step, &b, err);
    }
    if (status == PD_OK) report(&b, result);
    batch_free(&b);
    return status;
}

const int32_t *pd_step_selected(const pd_step *step, int32_t stage, int32_t *n) {
    *n = step->n_selected[stage];
    return step->selected[stage];
}

size_t pd_step_bytes(const pd_step *step) {
    return ggml_gallocr_get_buffer_size(step->allocator, 0);
}
