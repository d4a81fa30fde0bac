#include "train/export.h"

#include "base/gguf_write.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const enum ggml_type types[] = {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0};

pd_status pd_export_type(const char *name, enum ggml_type *type, pd_error *err) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(name, ggml_type_name(types[i])) != 0) continue;
        *type = types[i];
        return PD_OK;
    }
    return pd_fail(err, PD_ERR_ARGUMENT,
                   "no type \"%.32s\" to save weights in (expected f32, f16, bf16 or q8_0)", name);
}

static bool changed(const struct ggml_tensor *t, const pd_parameters *parameters) {
    return pd_parameters_find(parameters, t->name) || pd_parameters_adapter(parameters, t->name);
}

bool pd_export_changes(const pd_gguf *file, const pd_parameters *parameters) {
    for (struct ggml_tensor *t = ggml_get_first_tensor(file->tensors); t;
         t = ggml_get_next_tensor(file->tensors, t)) {
        if (changed(t, parameters)) return true;
    }
    return false;
}

static enum ggml_type type_for(const struct ggml_tensor *t, enum ggml_type wanted) {
    if (ggml_n_dims(t) < 2 || wanted == GGML_TYPE_F32) return GGML_TYPE_F32;
    const bool plain = strncmp(t->name, "v.", 2) == 0 && strstr(t->name, "embd"); // no factors of a product
    return plain || t->ne[0] % ggml_blck_size(wanted) != 0 ? GGML_TYPE_F16 : wanted;
}

// Numbers beyond what a type can hold become infinities, which nobody can run.
static pd_status expect_range(const struct ggml_tensor *t, const float *numbers, pd_error *err) {
    static const float most_f16 = 65504.0F;
    const float most = t->type == GGML_TYPE_F16    ? most_f16
                       : t->type == GGML_TYPE_Q8_0 ? 127.0F * most_f16
                                                   : FLT_MAX;
    const int64_t n = ggml_nelements(t);
    for (int64_t i = 0; i < n; i++) {
        if (fabsf(numbers[i]) <= most) continue;
        return pd_fail(
            err, PD_ERR_BACKEND,
            "%s: expected numbers within ±%g, to be saved as %s, found %g (the last checkpoint stays)",
            t->name, (double)most, ggml_type_name(t->type), (double)numbers[i]);
    }
    return PD_OK;
}

typedef struct {
    const pd_gguf *from;
    const pd_parameters *parameters;
    float *numbers; // of the tensor being written, widened; owned
    void *bytes;    // and in its type; owned
} exporter;

static pd_status tensor_bytes(const struct ggml_tensor *t, const void **bytes, void *user, pd_error *err) {
    exporter *e = user;
    const pd_parameter *parameter = pd_parameters_find(e->parameters, t->name);
    const pd_adapter *adapter = pd_parameters_adapter(e->parameters, t->name);
    if (!parameter && !adapter) {
        *bytes = pd_gguf_tensor_data(e->from, t->name);
        return PD_OK;
    }
    const size_t n = (size_t)ggml_nelements(t);
    free(e->numbers);
    free(e->bytes);
    e->bytes = NULL;
    e->numbers = malloc(n * sizeof(float));
    if (!e->numbers) return pd_fail_memory(err, n * sizeof(float), "a weight to be saved");
    if (parameter) {
        memcpy(e->numbers, parameter->weight->data, n * sizeof(float));
    } else {
        PD_TRY(pd_weight_to_f32(adapter->weight, e->numbers, err));
        pd_adapter_merge(e->parameters, adapter, e->numbers);
    }
    PD_TRY(expect_range(t, e->numbers, err));
    *bytes = e->numbers;
    if (t->type == GGML_TYPE_F32) return PD_OK;
    e->bytes = malloc(ggml_nbytes(t));
    if (!e->bytes) return pd_fail_memory(err, ggml_nbytes(t), "a weight to be saved");
    ggml_quantize_chunk(t->type, e->numbers, e->bytes, 0, ggml_nrows(t), t->ne[0], NULL);
    *bytes = e->bytes;
    return PD_OK;
}

pd_status pd_export_model(const pd_gguf *from, const pd_parameters *parameters, enum ggml_type type,
                          const char *path, pd_error *err) {
    const size_t size = ((size_t)gguf_get_n_tensors(from->gguf) + 1) * ggml_tensor_overhead();
    struct ggml_context *tensors = ggml_init((struct ggml_init_params){.mem_size = size, .no_alloc = true});
    struct gguf_context *gguf = gguf_init_empty();
    if (!tensors || !gguf) {
        if (tensors) ggml_free(tensors);
        if (gguf) gguf_free(gguf);
        return pd_fail_memory(err, size, "saving weights");
    }
    gguf_set_kv(gguf, from->gguf);
    gguf_remove_key(gguf, "general.file_type"); // said of the weights as they were
    for (struct ggml_tensor *t = ggml_get_first_tensor(from->tensors); t;
         t = ggml_get_next_tensor(from->tensors, t)) {
        const enum ggml_type saved = changed(t, parameters) ? type_for(t, type) : t->type;
        ggml_set_name(ggml_new_tensor(tensors, saved, ggml_n_dims(t), t->ne), t->name);
    }
    exporter e = {.from = from, .parameters = parameters};
    const pd_status status = pd_gguf_write(path, gguf, tensors, tensor_bytes, &e, err);
    free(e.numbers);
    free(e.bytes);
    gguf_free(gguf);
    ggml_free(tensors);
    return status;
}
