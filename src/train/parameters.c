#include "train/parameters.h"

#include "base/random.h"

#include <math.h>
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

pd_status pd_weight_to_f32(const struct ggml_tensor *weight, float *to, pd_error *err) {
    const struct ggml_type_traits *traits = ggml_get_type_traits(weight->type);
    if (weight->type == GGML_TYPE_F32) {
        memcpy(to, weight->data, ggml_nbytes(weight));
    } else if (traits->to_float) {
        traits->to_float(weight->data, to, ggml_nelements(weight));
    } else {
        return pd_fail(err, PD_ERR_UNSUPPORTED, "training: %s: no f32 from type %s", weight->name,
                       ggml_type_name(weight->type));
    }
    return PD_OK;
}

static struct ggml_tensor *new_named(struct ggml_context *ctx, const int64_t *shape, const char *name) {
    struct ggml_tensor *t = ggml_new_tensor(ctx, GGML_TYPE_F32, GGML_MAX_DIMS, shape);
    ggml_set_name(t, name);
    return t;
}

static pd_parameter *add_parameter(pd_parameters *parameters, pd_parameter_group group, const int64_t *shape,
                                   const char *name) {
    pd_parameter *p = &parameters->all[parameters->n++];
    *p = (pd_parameter){.group = group,
                        .decays = has_decay(name),
                        .weight = new_named(parameters->ctx, shape, name),
                        .gradient = new_named(parameters->ctx, shape, name),
                        .m = new_named(parameters->ctx, shape, name),
                        .v = new_named(parameters->ctx, shape, name)};
    return p;
}

static pd_status reserve(size_t n, pd_parameters *parameters, pd_error *err) {
    const size_t bytes = (4 * n + 1) * ggml_tensor_overhead();
    parameters->ctx = ggml_init((struct ggml_init_params){.mem_size = bytes, .no_alloc = true});
    parameters->all = calloc(n + 1, sizeof *parameters->all);
    parameters->adapters = calloc(n + 1, sizeof *parameters->adapters);
    if (!parameters->ctx || !parameters->all || !parameters->adapters)
        return pd_fail_memory(err, bytes, "the parameters");
    return PD_OK;
}

static pd_status allocate(const pd_backend *backend, pd_parameters *parameters, pd_error *err) {
    if (parameters->n == 0) return PD_OK;
    parameters->buffer = ggml_backend_alloc_ctx_tensors(parameters->ctx, backend->cpu);
    if (!parameters->buffer)
        return pd_fail_memory(err, 4 * sizeof(float) * (size_t)pd_parameters_count(parameters),
                              "weights, gradients and moments");
    ggml_backend_buffer_clear(parameters->buffer, 0);
    return PD_OK;
}

static pd_status make(const pd_trainable *trainable, const pd_backend *backend, const slot_list *list,
                      pd_parameters *parameters, pd_error *err) {
    const struct ggml_tensor **from = calloc(list->n + 1, sizeof(struct ggml_tensor *));
    if (!from) return pd_fail_memory(err, list->n * sizeof *from, "the parameters");
    const size_t n_before = parameters->n;
    for (size_t i = 0; i < list->n; i++) {
        const bool adapted = list->groups[i] == PD_GROUP_DECODER && trainable->lora_rank > 0;
        if (!trainable->groups[list->groups[i]] || adapted) continue;
        struct ggml_tensor *weight = *list->slots[i];
        from[parameters->n - n_before] = weight;
        *list->slots[i] = add_parameter(parameters, list->groups[i], weight->ne, weight->name)->weight;
    }
    pd_status status = allocate(backend, parameters, err);
    for (size_t i = n_before; i < parameters->n && status == PD_OK; i++)
        status = pd_weight_to_f32(from[i - n_before], parameters->all[i].weight->data, err);
    free(from);
    return status;
}

// ---- adapters ----------------------------------------------------------------------------------------------

static pd_status add_adapter(const pd_trainable *trainable, pd_parameters *parameters,
                             struct ggml_tensor *weight, pd_error *err) {
    const int32_t rank = trainable->lora_rank;
    char name[GGML_MAX_NAME];
    if (strlen(weight->name) + sizeof ".lora_a" > sizeof name)
        return pd_fail(err, PD_ERR_FORMAT, "%s: expected a shorter name, for its adapters", weight->name);
    pd_adapter *adapter = &parameters->adapters[parameters->n_adapters];
    adapter->weight = weight;
    adapter->dropout = (pd_dropout){
        .rate = trainable->lora_dropout, .mask = parameters->n_adapters++, .draw = &parameters->draw};
    snprintf(name, sizeof name, "%s.lora_a", weight->name);
    adapter->a =
        add_parameter(parameters, PD_GROUP_DECODER, (int64_t[]){weight->ne[0], rank, 1, 1}, name)->weight;
    snprintf(name, sizeof name, "%s.lora_b", weight->name);
    adapter->b =
        add_parameter(parameters, PD_GROUP_DECODER, (int64_t[]){rank, weight->ne[1], 1, 1}, name)->weight;
    return PD_OK;
}

static pd_status add_adapters(const pd_trainable *trainable, const pd_decoder_weights *w,
                              pd_parameters *parameters, pd_error *err) {
    parameters->adapter_scale = trainable->lora_alpha / (float)trainable->lora_rank;
    for (int32_t i = 0; i < w->h.n_layers; i++) {
        const pd_decoder_layer *l = &w->layers[i];
        struct ggml_tensor *const matrices[] = {l->q, l->k, l->v, l->o, l->gate, l->up, l->down};
        for (size_t j = 0; j < sizeof matrices / sizeof *matrices; j++)
            PD_TRY(add_adapter(trainable, parameters, matrices[j], err));
    }
    return PD_OK;
}

static void start_adapters(const pd_parameters *parameters, uint64_t seed) {
    for (size_t i = 0; i < parameters->n_adapters; i++) {
        struct ggml_tensor *a = parameters->adapters[i].a;
        const float bound = 1.0F / sqrtf((float)a->ne[0]);
        float *values = a->data;
        for (int64_t j = 0; j < ggml_nelements(a); j++)
            values[j] = (float)(2.0 * pd_random_uniform(&seed) - 1.0) * bound;
    }
}

static struct ggml_tensor *adapted_product(struct ggml_context *ctx, struct ggml_tensor *weight,
                                           struct ggml_tensor *x, void *user) {
    pd_parameters *parameters = user;
    struct ggml_tensor *y = ggml_mul_mat(ctx, weight, x);
    for (size_t i = 0; i < parameters->n_adapters; i++) {
        pd_adapter *adapter = &parameters->adapters[i];
        if (adapter->weight != weight) continue;
        if (adapter->dropout.rate > 0.0F) x = pd_dropout_node(ctx, x, &adapter->dropout);
        struct ggml_tensor *low = ggml_mul_mat(ctx, adapter->a, x); // [rank, rows]
        return ggml_add(ctx, y,
                        ggml_scale(ctx, ggml_mul_mat(ctx, adapter->b, low), parameters->adapter_scale));
    }
    return y;
}

const pd_adapter *pd_parameters_adapter(const pd_parameters *parameters, const char *weight_name) {
    for (size_t i = 0; i < parameters->n_adapters; i++) {
        if (strcmp(parameters->adapters[i].weight->name, weight_name) == 0) return &parameters->adapters[i];
    }
    return NULL;
}

void pd_adapter_merge(const pd_parameters *parameters, const pd_adapter *adapter, float *to) {
    const float *a = adapter->a->data, *b = adapter->b->data;
    const int64_t n_in = adapter->a->ne[0], rank = adapter->a->ne[1], n_out = adapter->b->ne[1];
    for (int64_t o = 0; o < n_out; o++) {
        for (int64_t r = 0; r < rank; r++) {
            const float factor = parameters->adapter_scale * b[o * rank + r];
            for (int64_t i = 0; i < n_in; i++)
                to[o * n_in + i] += factor * a[r * n_in + i];
        }
    }
}

// ------------------------------------------------------------------------------------------------------------

pd_status pd_parameters_create(const pd_trainable *trainable, const pd_backend *backend, pd_weights *weights,
                               pd_parameters *parameters, pd_error *err) {
    *parameters = (pd_parameters){0};
    slot_list *list = calloc(1, sizeof *list);
    if (!list) return pd_fail_memory(err, sizeof *list, "the parameters");
    pd_decoder_weights *decoder = &weights->decoder;
    const bool tied = decoder->output == decoder->token_embedding;
    const bool adapted = trainable->groups[PD_GROUP_DECODER] && trainable->lora_rank > 0;
    list_decoder(list, decoder);
    if (weights->has_vision) list_vision(list, &weights->vision);
    pd_status status = list->n == MAX_SLOTS
                           ? pd_fail(err, PD_ERR_UNSUPPORTED, "training: more than %d weights", MAX_SLOTS - 1)
                           : reserve(2 * list->n, parameters, err);
    if (status == PD_OK && adapted) status = add_adapters(trainable, decoder, parameters, err);
    if (status == PD_OK) status = make(trainable, backend, list, parameters, err);
    if (status == PD_OK && adapted) {
        start_adapters(parameters, trainable->seed);
        decoder->product = adapted_product;
        decoder->product_user = parameters;
    }
    if (tied) decoder->output = decoder->token_embedding;
    free(list);
    // most of what was read is copied now, and not wanted a second time
    pd_mapped_file_forget(&weights->text_file.file);
    pd_mapped_file_forget(&weights->vision_file.file);
    if (status != PD_OK) pd_parameters_free(parameters);
    return status;
}

void pd_parameters_free(pd_parameters *parameters) {
    if (parameters->buffer) ggml_backend_buffer_free(parameters->buffer);
    if (parameters->ctx) ggml_free(parameters->ctx);
    free(parameters->all);
    free(parameters->adapters);
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

// FNV-1a.
static uint64_t fingerprint(uint64_t before, const void *bytes, size_t n) {
    const uint8_t *p = bytes;
    for (size_t i = 0; i < n; i++)
        before = (before ^ p[i]) * 0x100000001b3U;
    return before;
}

static uint64_t fingerprint_file(uint64_t before, const pd_parameters *parameters, const pd_gguf *file) {
    enum { ENOUGH = 4096 };
    before = fingerprint(before, file->file.data, gguf_get_data_offset(file->gguf));
    for (struct ggml_tensor *t = ggml_get_first_tensor(file->tensors); t;
         t = ggml_get_next_tensor(file->tensors, t)) {
        const size_t n = ggml_nbytes(t);
        if (!pd_parameters_find(parameters, t->name))
            before = fingerprint(before, pd_gguf_tensor_data(file, t->name), n < ENOUGH ? n : ENOUGH);
    }
    return before;
}

uint64_t pd_parameters_base(const pd_parameters *parameters, const pd_weights *weights) {
    const uint64_t base = fingerprint_file(0xcbf29ce484222325U, parameters, &weights->text_file);
    return weights->has_vision ? fingerprint_file(base, parameters, &weights->vision_file) : base;
}
