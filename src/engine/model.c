#include "engine/model.h"

#include "engine/encode.h"
#include "model/backend.h"
#include "onerow/products.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void pd_model_log(const pd_model *model, pd_log_level level, const char *format, ...) {
    if (!model->log) return;
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    model->log(level, line, model->log_user);
}

void pd_model_params_default(pd_model_params *params, size_t size) {
    const pd_model_params defaults = {.size = size};
    memset(params, 0, size);
    memcpy(params, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

// The most common type among a file's matrices, by bytes.
static enum ggml_type main_type(const pd_gguf *file) {
    size_t bytes[GGML_TYPE_COUNT] = {0};
    enum ggml_type best = GGML_TYPE_F32;
    for (struct ggml_tensor *t = ggml_get_first_tensor(file->tensors); t;
         t = ggml_get_next_tensor(file->tensors, t)) {
        bytes[t->type] += ggml_nbytes(t);
        if (bytes[t->type] > bytes[best]) best = t->type;
    }
    return best;
}

static double count_parameters(const pd_gguf *file) {
    double count = 0.0;
    for (struct ggml_tensor *t = ggml_get_first_tensor(file->tensors); t;
         t = ggml_get_next_tensor(file->tensors, t)) {
        count += (double)ggml_nelements(t);
    }
    return count;
}

static void describe(pd_model *model) {
    const pd_weights *w = &model->weights;
    const pd_decoder_hyperparameters *h = &w->decoder.h;
    const double millions = count_parameters(&w->text_file) / 1e6;
    int used =
        snprintf(model->description, sizeof model->description, "%s, %.2f %s parameters, %d layers, %s",
                 h->architecture, millions < 1000 ? millions : millions / 1000, millions < 1000 ? "M" : "B",
                 h->n_layers, ggml_type_name(main_type(&w->text_file)));
    if (w->has_vision && used > 0 && (size_t)used < sizeof model->description) {
        snprintf(model->description + used, sizeof model->description - (size_t)used,
                 "; vision %d px / %d, %d layers, %s", w->vision.h.image_size, w->vision.h.patch_size,
                 w->vision.h.n_layers_run, ggml_type_name(main_type(&w->vision_file)));
    }
}

static pd_status check_compute(const pd_model_params *params, pd_error *err) {
    if (params->compute <= PD_COMPUTE_INT8) return PD_OK;
    return pd_fail(err, PD_ERR_ARGUMENT, "compute: expected a pd_compute_type, found %d",
                   (int)params->compute);
}

static pd_status load(const pd_model_params *params, pd_model *model, pd_error *err) {
    ggml_backend_dev_t device;
    PD_TRY(check_compute(params, err));
    PD_TRY(pd_device_find(params->device, &device, err));
    PD_TRY(pd_weights_load(params->model_path, params->mmproj_path, device, &model->weights, err));
    PD_TRY(pd_tokenizer_create(&model->weights.text_file, &model->tokenizer, err));
    PD_TRY(pd_tokenizer_expect_rows(model->tokenizer, model->weights.decoder.h.n_vocab, params->model_path,
                                    err));
    describe(model);
    if (device != pd_device_cpu()) return PD_OK;
    model->own_decode_kernels = params->compute != PD_COMPUTE_GGML && pd_onerow_available();
    const pd_lowering_params lowering = {.compute = params->compute,
                                         .strict = params->compute_strict,
                                         .mapped_bytes = pd_weights_mapped_bytes(&model->weights),
                                         .log = params->log,
                                         .log_user = params->log_user};
    return pd_lowering_create(&lowering, &model->lowering, err);
}

pd_status pd_model_load(const pd_model_params *params, pd_model **out, pd_error *err) {
    *out = NULL;
    if (params->size != sizeof *params) {
        return pd_fail(err, PD_ERR_ARGUMENT,
                       "pd_model_params: expected a size of %zu (set by "
                       "pd_model_params_default), found %zu",
                       sizeof *params, params->size);
    }
    if (!params->model_path) return pd_fail(err, PD_ERR_ARGUMENT, "model_path: expected a GGUF file's path");
    pd_model *model = calloc(1, sizeof *model);
    if (!model) return pd_fail_memory(err, sizeof *model, "the model");
    model->log = params->log;
    model->log_user = params->log_user;
    const pd_status status = load(params, model, err);
    if (status != PD_OK) {
        pd_model_free(model);
        return status;
    }
    pd_model_log(model, PD_LOG_INFO, "%s: %s; compute %s; decoding with %s", params->model_path,
                 model->description, pd_lowering_description(model->lowering),
                 model->own_decode_kernels ? "kernels for one row (avx2)" : "ggml's kernels");
    *out = model;
    return PD_OK;
}

void pd_model_free(pd_model *model) {
    if (!model) return;
    pd_tokenizer_free(model->tokenizer);
    pd_lowering_free(model->lowering);
    pd_weights_free(&model->weights);
    free(model);
}

int32_t pd_model_n_layers(const pd_model *model) {
    return model->weights.decoder.h.n_layers;
}

int32_t pd_model_n_vocab(const pd_model *model) {
    return model->weights.decoder.h.n_vocab;
}

int32_t pd_model_n_ctx_train(const pd_model *model) {
    return model->weights.decoder.h.n_ctx_train;
}

bool pd_model_has_vision(const pd_model *model) {
    return model->weights.has_vision;
}

int32_t pd_model_n_image_tokens(const pd_model *model, int32_t width, int32_t height) {
    if (!model->weights.has_vision) return 0;
    const pd_preprocess_params params = pd_encode_preprocess_params(&model->weights.vision.h, PD_ASPECT_AUTO);
    pd_tile_layout layout;
    return pd_tile_layout_of_size(&params, width, height, &layout, NULL) == PD_OK ? layout.n_tokens : 0;
}

const char *pd_model_description(const pd_model *model) {
    return model->description;
}

pd_status pd_model_tokenize(const pd_model *model, const char *text, bool add_bos, bool special,
                            int32_t *tokens, size_t capacity, size_t *count, pd_error *err) {
    int32_t *all;
    *count = 0;
    PD_TRY(pd_tokenize_prompt(model->tokenizer, text, strlen(text), add_bos, special, &all, count, err));
    const size_t copied = *count < capacity ? *count : capacity;
    if (copied) memcpy(tokens, all, copied * sizeof *tokens);
    free(all);
    return PD_OK;
}

pd_status pd_model_token_piece(const pd_model *model, int32_t token, const char **bytes, size_t *size,
                               pd_error *err) {
    return pd_tokenizer_piece(model->tokenizer, token, true, bytes, size, err);
}
