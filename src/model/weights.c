#include "model/weights.h"

#include "base/ggml_log.h"
#include "model/backend.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

// A lookup in one file: the first failure is kept, so that a list of lookups reads as a list.
typedef struct {
    const pd_gguf *file;
    ggml_backend_dev_t cpu; // which weight types can be multiplied is asked of it
    pd_status status;
    pd_error *err;
} loader;

typedef enum { REQUIRED, OPTIONAL } presence;

static struct ggml_tensor *find(loader *load, presence needed, const char *name) {
    if (load->status != PD_OK) return NULL;
    struct ggml_tensor *tensor = ggml_get_tensor(load->file->tensors, name);
    if (!tensor && needed == REQUIRED) {
        load->status = pd_fail(load->err, PD_ERR_FORMAT, "%s: tensor %s is missing", load->file->path, name);
    }
    return tensor;
}

static void check_shape(loader *load, const struct ggml_tensor *tensor, const int64_t ne[4]) {
    if (load->status != PD_OK) return;
    if (tensor->ne[0] == ne[0] && tensor->ne[1] == ne[1] && tensor->ne[2] == ne[2] && tensor->ne[3] == ne[3])
        return;
    load->status =
        pd_fail(load->err, PD_ERR_FORMAT,
                "%s: tensor %s: expected shape [%lld, %lld, %lld, %lld] by the hyper-parameters, found "
                "[%lld, %lld, %lld, %lld]",
                load->file->path, tensor->name, (long long)ne[0], (long long)ne[1], (long long)ne[2],
                (long long)ne[3], (long long)tensor->ne[0], (long long)tensor->ne[1],
                (long long)tensor->ne[2], (long long)tensor->ne[3]);
}

// Whether ggml multiplies this weight with f32 activations, and looks rows up in it. The backend also says
// yes to types that no kernel reads, such as i32 and q8_K, and crashes on them: those that do not become
// floats.
static bool can_multiply(ggml_backend_dev_t device, const struct ggml_tensor *weight) {
    if (weight->type != GGML_TYPE_F32 && !ggml_get_type_traits(weight->type)->to_float) return false;
    struct ggml_context *scratch = ggml_init((struct ggml_init_params){
        .mem_size = 8 * ggml_tensor_overhead(), .mem_buffer = NULL, .no_alloc = true});
    if (!scratch) return false;
    struct ggml_tensor *w = ggml_new_tensor_2d(scratch, weight->type, weight->ne[0], weight->ne[1]);
    struct ggml_tensor *x = ggml_new_tensor_2d(scratch, GGML_TYPE_F32, weight->ne[0], 1);
    const bool supported = ggml_backend_dev_supports_op(device, ggml_mul_mat(scratch, w, x));
    ggml_free(scratch);
    return supported;
}

// A vector that is added or multiplied element by element: f32.
static struct ggml_tensor *vector(loader *load, presence needed, int64_t n, const char *name) {
    struct ggml_tensor *tensor = find(load, needed, name);
    if (!tensor) return NULL;
    check_shape(load, tensor, (int64_t[4]){n, 1, 1, 1});
    if (load->status == PD_OK && tensor->type != GGML_TYPE_F32) {
        load->status = pd_fail(load->err, PD_ERR_UNSUPPORTED, "%s: tensor %s: expected type f32, found %s",
                               load->file->path, name, ggml_type_name(tensor->type));
    }
    return tensor;
}

// A matrix of any type ggml multiplies.
static struct ggml_tensor *matrix(loader *load, presence needed, int64_t n_in, int64_t n_out,
                                  const char *name) {
    struct ggml_tensor *tensor = find(load, needed, name);
    if (!tensor) return NULL;
    check_shape(load, tensor, (int64_t[4]){n_in, n_out, 1, 1});
    if (load->status == PD_OK && !can_multiply(load->cpu, tensor)) {
        load->status = pd_fail(load->err, PD_ERR_UNSUPPORTED, "%s: tensor %s: ggml cannot multiply type %s",
                               load->file->path, name, ggml_type_name(tensor->type));
    }
    return tensor;
}

// A formatted name, which as a returned value lives to the end of the full expression that it stands in.
typedef struct {
    char text[GGML_MAX_NAME];
} tensor_name;

__attribute__((format(printf, 1, 2))) static tensor_name named(const char *format, ...) {
    tensor_name name;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name.text, sizeof name.text, format, arguments);
    va_end(arguments);
    return name;
}

static pd_status bind_decoder(const pd_gguf *file, ggml_backend_dev_t cpu, pd_decoder_weights *w,
                              pd_error *err) {
    const pd_decoder_hyperparameters *h = &w->h;
    loader load = {file, cpu, PD_OK, err};
    w->token_embedding = matrix(&load, REQUIRED, h->n_embd, h->n_vocab, "token_embd.weight");
    w->output_norm = vector(&load, REQUIRED, h->n_embd, "output_norm.weight");
    w->output = matrix(&load, OPTIONAL, h->n_embd, h->n_vocab, "output.weight");
    if (!w->output) w->output = w->token_embedding;
    w->rope_factors = vector(&load, OPTIONAL, h->rope_dim / 2, "rope_freqs.weight");
    if (load.status != PD_OK) return load.status;
    w->layers = calloc((size_t)h->n_layers, sizeof *w->layers);
    if (!w->layers)
        return pd_fail_memory(err, (size_t)h->n_layers * sizeof *w->layers, "the decoder's layers");

    const int64_t d = h->n_embd, q = (int64_t)h->n_heads * h->head_dim,
                  kv = (int64_t)h->n_kv_heads * h->head_dim;
    const presence bias = strcmp(h->architecture, "qwen2") == 0 ? REQUIRED : OPTIONAL;
    for (int32_t i = 0; i < h->n_layers && load.status == PD_OK; i++) {
        pd_decoder_layer *layer = &w->layers[i];
        layer->attn_norm = vector(&load, REQUIRED, d, named("blk.%d.attn_norm.weight", i).text);
        layer->q = matrix(&load, REQUIRED, d, q, named("blk.%d.attn_q.weight", i).text);
        layer->q_bias = vector(&load, bias, q, named("blk.%d.attn_q.bias", i).text);
        layer->k = matrix(&load, REQUIRED, d, kv, named("blk.%d.attn_k.weight", i).text);
        layer->k_bias = vector(&load, bias, kv, named("blk.%d.attn_k.bias", i).text);
        layer->v = matrix(&load, REQUIRED, d, kv, named("blk.%d.attn_v.weight", i).text);
        layer->v_bias = vector(&load, bias, kv, named("blk.%d.attn_v.bias", i).text);
        layer->o = matrix(&load, REQUIRED, q, d, named("blk.%d.attn_output.weight", i).text);
        layer->o_bias = vector(&load, OPTIONAL, d, named("blk.%d.attn_output.bias", i).text);
        layer->ffn_norm = vector(&load, REQUIRED, d, named("blk.%d.ffn_norm.weight", i).text);
        layer->gate = matrix(&load, REQUIRED, d, h->n_ff, named("blk.%d.ffn_gate.weight", i).text);
        layer->up = matrix(&load, REQUIRED, d, h->n_ff, named("blk.%d.ffn_up.weight", i).text);
        layer->down = matrix(&load, REQUIRED, h->n_ff, d, named("blk.%d.ffn_down.weight", i).text);
    }
    return load.status;
}

static pd_status bind_vision(const pd_gguf *file, ggml_backend_dev_t cpu, int32_t decoder_n_embd,
                             pd_vision_weights *w, pd_error *err) {
    const pd_vision_hyperparameters *h = &w->h;
    loader load = {file, cpu, PD_OK, err};
    const int64_t d = h->n_embd;
    w->class_embedding = vector(&load, REQUIRED, d, "v.class_embd");
    w->patch_embedding = find(&load, REQUIRED, "v.patch_embd.weight");
    if (w->patch_embedding) {
        check_shape(&load, w->patch_embedding, (int64_t[4]){h->patch_size, h->patch_size, 3, d});
        const enum ggml_type type = w->patch_embedding->type;
        if (load.status == PD_OK && type != GGML_TYPE_F32 && type != GGML_TYPE_F16 &&
            type != GGML_TYPE_BF16) {
            load.status = pd_fail(err, PD_ERR_UNSUPPORTED,
                                  "%s: tensor v.patch_embd.weight: expected type f32, f16 or bf16, found %s",
                                  file->path, ggml_type_name(type));
        }
    }
    w->position_embedding = matrix(&load, REQUIRED, d, 1 + pd_vision_n_patches(h), "v.position_embd.weight");
    w->pre_norm = vector(&load, REQUIRED, d, "v.pre_ln.weight");
    w->pre_norm_bias = vector(&load, REQUIRED, d, "v.pre_ln.bias");
    const struct ggml_tensor *mm0 = find(&load, REQUIRED, "mm.0.weight");
    if (load.status != PD_OK) return load.status;
    const int64_t hidden = mm0->ne[1];
    if (hidden < 1 || hidden > 1 << 20) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: tensor mm.0.weight: expected 1 to %d rows, found %lld",
                       file->path, 1 << 20, (long long)hidden);
    }
    w->mm0 = matrix(&load, REQUIRED, d, hidden, "mm.0.weight");
    w->mm0_bias = vector(&load, REQUIRED, hidden, "mm.0.bias");
    w->mm2 = find(&load, REQUIRED, "mm.2.weight");
    if (load.status == PD_OK && w->mm2->ne[1] != decoder_n_embd) {
        return pd_fail(
            err, PD_ERR_FORMAT,
            "%s: made for a text model of hidden size %lld; this one has %d (expected a matching pair)",
            file->path, (long long)w->mm2->ne[1], decoder_n_embd);
    }
    w->mm2 = matrix(&load, REQUIRED, hidden, decoder_n_embd, "mm.2.weight");
    w->mm2_bias = vector(&load, REQUIRED, decoder_n_embd, "mm.2.bias");
    w->image_newline = vector(&load, h->n_pinpoints > 0 && h->spatial_unpad ? REQUIRED : OPTIONAL,
                              decoder_n_embd, "model.image_newline");
    if (load.status != PD_OK) return load.status;
    w->layers = calloc((size_t)h->n_layers_run + 1, sizeof *w->layers);
    if (!w->layers)
        return pd_fail_memory(err, (size_t)h->n_layers_run * sizeof *w->layers, "the ViT's layers");

    const char *up = h->swapped_ffn ? "ffn_down" : "ffn_up", *down = h->swapped_ffn ? "ffn_up" : "ffn_down";
    for (int32_t i = 0; i < h->n_layers_run && load.status == PD_OK; i++) {
        pd_vision_layer *layer = &w->layers[i];
        layer->ln1 = vector(&load, REQUIRED, d, named("v.blk.%d.ln1.weight", i).text);
        layer->ln1_bias = vector(&load, REQUIRED, d, named("v.blk.%d.ln1.bias", i).text);
        layer->q = matrix(&load, REQUIRED, d, d, named("v.blk.%d.attn_q.weight", i).text);
        layer->q_bias = vector(&load, REQUIRED, d, named("v.blk.%d.attn_q.bias", i).text);
        layer->k = matrix(&load, REQUIRED, d, d, named("v.blk.%d.attn_k.weight", i).text);
        layer->k_bias = vector(&load, REQUIRED, d, named("v.blk.%d.attn_k.bias", i).text);
        layer->v = matrix(&load, REQUIRED, d, d, named("v.blk.%d.attn_v.weight", i).text);
        layer->v_bias = vector(&load, REQUIRED, d, named("v.blk.%d.attn_v.bias", i).text);
        layer->o = matrix(&load, REQUIRED, d, d, named("v.blk.%d.attn_out.weight", i).text);
        layer->o_bias = vector(&load, REQUIRED, d, named("v.blk.%d.attn_out.bias", i).text);
        layer->ln2 = vector(&load, REQUIRED, d, named("v.blk.%d.ln2.weight", i).text);
        layer->ln2_bias = vector(&load, REQUIRED, d, named("v.blk.%d.ln2.bias", i).text);
        layer->up = matrix(&load, REQUIRED, d, h->n_ff, named("v.blk.%d.%s.weight", i, up).text);
        layer->up_bias = vector(&load, REQUIRED, h->n_ff, named("v.blk.%d.%s.bias", i, up).text);
        layer->down = matrix(&load, REQUIRED, h->n_ff, d, named("v.blk.%d.%s.weight", i, down).text);
        layer->down_bias = vector(&load, REQUIRED, d, named("v.blk.%d.%s.bias", i, down).text);
    }
    return load.status;
}

static bool supports_get_rows(ggml_backend_dev_t device, const struct ggml_tensor *table) {
    struct ggml_context *scratch = ggml_init((struct ggml_init_params){
        .mem_size = 8 * ggml_tensor_overhead(), .mem_buffer = NULL, .no_alloc = true});
    if (!scratch) return false;
    struct ggml_tensor *t = ggml_new_tensor_2d(scratch, table->type, table->ne[0], table->ne[1]);
    struct ggml_tensor *rows = ggml_new_tensor_1d(scratch, GGML_TYPE_I32, 1);
    const bool supported = ggml_backend_dev_supports_op(device, ggml_get_rows(scratch, t, rows));
    ggml_free(scratch);
    return supported;
}

static pd_status add_buffer(pd_weights *weights, ggml_backend_buffer_t buffer, const char *path,
                            pd_error *err) {
    if (!buffer) {
        return pd_fail(err, PD_ERR_MEMORY, "%s: device %s has no room for the weights", path,
                       ggml_backend_dev_name(weights->device));
    }
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    weights->buffers[weights->n_buffers++] = buffer;
    return PD_OK;
}

// Points a file's tensors at their bytes: in the mapping for the CPU, in a copy for another device.
static pd_status place(pd_weights *weights, const pd_gguf *file, pd_error *err) {
    if (file->file.size == 0) return PD_OK;
    ggml_backend_buffer_t mapped =
        ggml_backend_cpu_buffer_from_ptr((void *)(uintptr_t)file->file.data, file->file.size);
    PD_TRY(add_buffer(weights, mapped, file->path, err));
    const bool on_cpu = weights->device == pd_device_cpu();
    for (struct ggml_tensor *t = ggml_get_first_tensor(file->tensors); t;
         t = ggml_get_next_tensor(file->tensors, t)) {
        // A table that the device cannot look up in stays with the CPU, which then feeds it rows.
        const bool keep = on_cpu || (t == weights->decoder.token_embedding && t != weights->decoder.output &&
                                     !supports_get_rows(weights->device, t));
        void *data = (void *)(uintptr_t)pd_gguf_tensor_data(file, t->name);
        if (keep && ggml_backend_tensor_alloc(mapped, t, data) != GGML_STATUS_SUCCESS) {
            return pd_fail(err, PD_ERR_BACKEND, "%s: tensor %s: ggml cannot use it in place", file->path,
                           t->name);
        }
    }
    if (on_cpu) return PD_OK;
    char line[PD_CAUGHT_LINE];
    pd_ggml_log_catch(line);
    ggml_backend_buffer_t copied = ggml_backend_alloc_ctx_tensors_from_buft(
        file->tensors, ggml_backend_dev_buffer_type(weights->device));
    pd_ggml_log_release();
    PD_TRY(add_buffer(weights, copied, file->path, err));
    for (struct ggml_tensor *t = ggml_get_first_tensor(file->tensors); t;
         t = ggml_get_next_tensor(file->tensors, t)) {
        if (t->buffer != mapped)
            ggml_backend_tensor_set(t, pd_gguf_tensor_data(file, t->name), 0, ggml_nbytes(t));
    }
    return PD_OK;
}

static pd_status load_pair(const char *model_path, const char *mmproj_path, pd_weights *weights,
                           pd_error *err) {
    ggml_backend_dev_t cpu = pd_device_cpu();
    PD_TRY(pd_gguf_open(model_path, &weights->text_file, err));
    PD_TRY(pd_decoder_hyperparameters_read(&weights->text_file, &weights->decoder.h, err));
    PD_TRY(bind_decoder(&weights->text_file, cpu, &weights->decoder, err));
    if (mmproj_path) {
        PD_TRY(pd_gguf_open(mmproj_path, &weights->vision_file, err));
        PD_TRY(pd_vision_hyperparameters_read(&weights->vision_file, &weights->vision.h, err));
        PD_TRY(bind_vision(&weights->vision_file, cpu, weights->decoder.h.n_embd, &weights->vision, err));
        weights->has_vision = true;
    }
    PD_TRY(place(weights, &weights->text_file, err));
    return place(weights, &weights->vision_file, err);
}

pd_status pd_weights_load(const char *model_path, const char *mmproj_path, ggml_backend_dev_t device,
                          pd_weights *weights, pd_error *err) {
    *weights = (pd_weights){.device = device};
    const pd_status status = load_pair(model_path, mmproj_path, weights, err);
    if (status != PD_OK) pd_weights_free(weights);
    return status;
}

void pd_weights_free(pd_weights *weights) {
    for (int32_t i = 0; i < weights->n_buffers; i++)
        ggml_backend_buffer_free(weights->buffers[i]);
    free(weights->decoder.layers);
    free(weights->vision.layers);
    pd_gguf_close(&weights->text_file);
    pd_gguf_close(&weights->vision_file);
    *weights = (pd_weights){0};
}

size_t pd_weights_mapped_bytes(const pd_weights *weights) {
    return weights->text_file.file.size + weights->vision_file.file.size;
}
