#include "train/parameters.h"

#include <stdlib.h>
#include <string.h>

// ---- every weight of a model -------------------------------------------------------------------------------

typedef struct {
    struct ggml_tensor **slots[4096]; // where the model points at them
    pd_parameter_group groups[4096];
    size_t n;
} slot_list;

enum { MAX_SLOTS = sizeof((slot_list *)0)->slots / sizeof *((slot_list *)0)->slots };

static void add_slots(slot_list *list, pd_parameter_group group, struct ggml_tensor ***slots, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!*slots[i] || list->n == MAX_SLOTS) continue;
        list->slots[list->n] = slots[i];
        list->groups[list->n++] = group;
    }
}

#define ADD(list, group, ...)                                                                                \
    do {                                                                                                     \
        struct ggml_tensor **slots[] = {__VA_ARGS__};                                                        \
        add_slots((list), (group), slots, sizeof slots / sizeof *slots);                                     \
    } while (0)

static void list_decoder(slot_list *list, pd_decoder_weights *w) {
    ADD(list, PD_GROUP_DECODER, &w->token_embedding, &w->output_norm);
    if (w->output != w->token_embedding) ADD(list, PD_GROUP_DECODER, &w->output);
    for (int32_t i = 0; i < w->h.n_layers; i++) {
        pd_decoder_layer *l = &w->layers[i];
        ADD(list, PD_GROUP_DECODER, &l->attn_norm, &l->q, &l->q_bias, &l->k, &l->k_bias, &l->v, &l->v_bias,
            &l->o, &l->o_bias, &l->ffn_norm, &l->gate, &l->up, &l->down);
    }
}

static void list_vision(slot_list *list, pd_vision_weights *w) {
    ADD(list, PD_GROUP_PROJECTOR, &w->mm0, &w->mm0_bias, &w->mm2, &w->mm2_bias);
    ADD(list, PD_GROUP_DECODER, &w->image_newline); // as LLaVA has it: a parameter of the language model
    ADD(list, PD_GROUP_VISION, &w->class_embedding, &w->patch_embedding, &w->position_embedding, &w->pre_norm,
        &w->pre_norm_bias);
    for (int32_t i = 0; i < w->h.n_layers_run; i++) {
        pd_vision_layer *l = &w->layers[i];
        ADD(list, PD_GROUP_VISION, &l->ln1, &l->ln1_bias, &l->q, &l->q_bias, &l->k, &l->k_bias, &l->v,
            &l->v_bias, &l->o, &l->o_bias, &l->ln2, &l->ln2_bias, &l->up, &l->up_bias, &l->down,
            &l->down_bias);
    }
}

// ---- parameters --------------------------------------------------------------------------------------------

static bool ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool has_decay(const char *name) {
    return !strstr(name, "norm") && !strstr(name, "ln1") && !strstr(name, "ln2") && !strstr(name, "pre_ln") &&
           !ends_with(name, ".bias");
}

static pd_status copy_weight(const struct ggml_tensor *from, struct ggml_tensor *to, pd_error *err) {
    const struct ggml_type_traits *traits = ggml_get_type_traits(from->type);
    if (from->type == GGML_TYPE_F32) {
        ggml_backend_tensor_set(to, from->data, 0, ggml_nbytes(to));
        return PD_OK;
    }
    if (!traits->to_float)
        return pd_fail(err, PD_ERR_UNSUPPORTED, "training: %s: no f32 from type %s", from->name,
                       ggml_type_name(from->type));
    traits->to_float(from->data, to->data, ggml_nelements(to));
    return PD_OK;
}

static struct ggml_tensor *new_like(struct ggml_context *ctx, const struct ggml_tensor *like) {
    struct ggml_tensor *t = ggml_new_tensor(ctx, GGML_TYPE_F32, GGML_MAX_DIMS, like->ne);
    ggml_set_name(t, like->name);
    return t;
}

static pd_status make(const pd_trainable *trainable, const pd_backend *backend, slot_list *list,
                      pd_parameters *parameters, pd_error *err) {
    const size_t bytes = (4 * list->n + 1) * ggml_tensor_overhead();
    parameters->ctx = ggml_init((struct ggml_init_params){.mem_size = bytes, .no_alloc = true});
    parameters->all = calloc(list->n + 1, sizeof *parameters->all);
    const struct ggml_tensor **from = calloc(list->n + 1, sizeof(struct ggml_tensor *));
    if (!parameters->ctx || !parameters->all || !from) {
        free(from);
        return pd_fail_memory(err, bytes, "the parameters");
    }
    size_t n = 0;
    for (size_t i = 0; i < list->n; i++) {
        if (!trainable->groups[list->groups[i]]) continue;
        from[n] = *list->slots[i];
        pd_parameter *p = &parameters->all[n++];
        *p = (pd_parameter){.group = list->groups[i],
                            .decays = has_decay((*list->slots[i])->name),
                            .weight = new_like(parameters->ctx, *list->slots[i]),
                            .gradient = new_like(parameters->ctx, *list->slots[i]),
                            .m = new_like(parameters->ctx, *list->slots[i]),
                            .v = new_like(parameters->ctx, *list->slots[i])};
        *list->slots[i] = p->weight;
    }
    parameters->n = n;
    pd_status status = PD_OK;
    if (n > 0) parameters->buffer = ggml_backend_alloc_ctx_tensors(parameters->ctx, backend->cpu);
    if (n > 0 && !parameters->buffer)
        status = pd_fail_memory(err, 4 * sizeof(float) * (size_t)pd_parameters_count(parameters),
                                "weights, gradients and moments");
    if (status == PD_OK && n > 0) ggml_backend_buffer_clear(parameters->buffer, 0);
    for (size_t i = 0; i < n && status == PD_OK; i++)
        status = copy_weight(from[i], parameters->all[i].weight, err);
    free(from);
    return status;
}

pd_status pd_parameters_create(const pd_trainable *trainable, const pd_backend *backend, pd_weights *weights,
                               pd_parameters *parameters, pd_error *err) {
    *parameters = (pd_parameters){0};
    slot_list *list = calloc(1, sizeof *list);
    if (!list) return pd_fail_memory(err, sizeof *list, "the parameters");
    pd_decoder_weights *decoder = &weights->decoder;
    const bool tied = decoder->output == decoder->token_embedding;
    list_decoder(list, decoder);
    if (weights->has_vision) list_vision(list, &weights->vision);
    pd_status status = list->n == MAX_SLOTS
                           ? pd_fail(err, PD_ERR_UNSUPPORTED, "training: more than %d weights", MAX_SLOTS - 1)
                           : make(trainable, backend, list, parameters, err);
    if (tied) decoder->output = decoder->token_embedding;
    free(list);
    if (status != PD_OK) pd_parameters_free(parameters);
    return status;
}

void pd_parameters_free(pd_parameters *parameters) {
    if (parameters->buffer) ggml_backend_buffer_free(parameters->buffer);
    if (parameters->ctx) ggml_free(parameters->ctx);
    free(parameters->all);
    *parameters = (pd_parameters){0};
}

pd_parameter *pd_parameters_find(const pd_parameters *parameters, const char *name) {
    for (size_t i = 0; i < parameters->n; i++) {
        if (strcmp(parameters->all[i].weight->name, name) == 0) return &parameters->all[i];
    }
    return NULL;
}

int64_t pd_parameters_count(const pd_parameters *parameters) {
    int64_t count = 0;
    for (size_t i = 0; i < parameters->n; i++)
        count += ggml_nelements(parameters->all[i].weight);
    return count;
}
