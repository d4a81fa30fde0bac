#include "model/hyperparameters.h"

#include <math.h>
#include <string.h>

// Metadata keys carry the architecture as a prefix: "llama.block_count".
static const char *key_of(char *buffer, size_t size, const char *prefix, const char *name) {
    snprintf(buffer, size, "%s.%s", prefix, name);
    return buffer;
}

// An integer that must be in [low, high]; absent and not required: *value stays.
static pd_status read_int(const pd_gguf *gguf, const char *prefix, const char *name, bool required,
                          int32_t low, int32_t high, int32_t *value, pd_error *err) {
    char key[128];
    key_of(key, sizeof key, prefix, name);
    uint32_t number = (uint32_t)*value;
    pd_status status = pd_gguf_get_u32(gguf, key, required, &number, err);
    if (status != PD_OK) return status;
    if (number < (uint32_t)low || number > (uint32_t)high) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: metadata key %s: expected %d to %d, found %u", gguf->path,
                       key, low, high, number);
    }
    *value = (int32_t)number;
    return PD_OK;
}

static pd_status read_float(const pd_gguf *gguf, const char *prefix, const char *name, bool required,
                            float low, float high, float *value, pd_error *err) {
    char key[128];
    key_of(key, sizeof key, prefix, name);
    pd_status status = pd_gguf_get_f32(gguf, key, required, value, err);
    if (status != PD_OK) return status;
    if (!(*value >= low && *value <= high)) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: metadata key %s: expected %g to %g, found %g", gguf->path,
                       key, (double)low, (double)high, (double)*value);
    }
    return PD_OK;
}

static pd_status read_rope(const pd_gguf *gguf, pd_decoder_hyperparameters *h, pd_error *err) {
    const char *prefix = h->architecture;
    h->rope_dim = h->head_dim;
    PD_TRY(read_int(gguf, prefix, "rope.dimension_count", false, 2, h->head_dim, &h->rope_dim, err));
    if (h->rope_dim % 2 != 0) {
        return pd_fail(err, PD_ERR_FORMAT,
                       "%s: metadata key %s.rope.dimension_count: expected an even number, found %d",
                       gguf->path, prefix, h->rope_dim);
    }
    h->rope_base = 10000.0F;
    PD_TRY(read_float(gguf, prefix, "rope.freq_base", false, 1.0F, 1e12F, &h->rope_base, err));
    h->rope_factor = 1.0F;
    PD_TRY(read_float(gguf, prefix, "rope.scale_linear", false, 1e-3F, 1e6F, &h->rope_factor, err));
    PD_TRY(read_float(gguf, prefix, "rope.scaling.factor", false, 0.0F, 1e6F, &h->rope_factor, err));
    if (h->rope_factor == 0.0F) h->rope_factor = 1.0F; // as llama.cpp reads a zero
    if (h->rope_factor < 1e-3F) {
        return pd_fail(err, PD_ERR_FORMAT,
                       "%s: metadata key %s.rope.scaling.factor: expected at least 0.001, found %g",
                       gguf->path, prefix, (double)h->rope_factor);
    }
    const char *scaling = h->rope_factor == 1.0F ? "none" : "linear";
    char key[128];
    PD_TRY(
        pd_gguf_get_string(gguf, key_of(key, sizeof key, prefix, "rope.scaling.type"), false, &scaling, err));
    if (strcmp(scaling, "none") == 0) {
        h->rope_scaling = PD_ROPE_NONE;
        h->rope_factor = 1.0F;
    } else if (strcmp(scaling, "linear") == 0) {
        h->rope_scaling = PD_ROPE_LINEAR;
    } else if (strcmp(scaling, "yarn") == 0) {
        h->rope_scaling = PD_ROPE_YARN;
    } else {
        return pd_fail(err, PD_ERR_UNSUPPORTED,
                       "%s: metadata key %s: expected none, linear or yarn, found \"%s\"", gguf->path, key,
                       scaling);
    }
    h->rope_original_ctx = h->n_ctx_train;
    PD_TRY(read_int(gguf, prefix, "rope.scaling.original_context_length", false, 1, INT32_MAX,
                    &h->rope_original_ctx, err));
    h->yarn_attention_factor = 1.0F;
    PD_TRY(read_float(gguf, prefix, "rope.scaling.attn_factor", false, 1e-3F, 1e3F, &h->yarn_attention_factor,
                      err));
    h->yarn_beta_fast = 32.0F;
    h->yarn_beta_slow = 1.0F;
    PD_TRY(
        read_float(gguf, prefix, "rope.scaling.yarn_beta_fast", false, 0.0F, 1e6F, &h->yarn_beta_fast, err));
    PD_TRY(
        read_float(gguf, prefix, "rope.scaling.yarn_beta_slow", false, 0.0F, 1e6F, &h->yarn_beta_slow, err));
    return PD_OK;
}

pd_status pd_decoder_hyperparameters_read(const pd_gguf *gguf, pd_decoder_hyperparameters *h, pd_error *err) {
    *h = (pd_decoder_hyperparameters){0};
    PD_TRY(pd_gguf_get_string(gguf, "general.architecture", true, &h->architecture, err));
    const char *prefix = h->architecture;
    if (strcmp(prefix, "llama") == 0) {
        h->rope_mode = GGML_ROPE_TYPE_NORMAL;
    } else if (strcmp(prefix, "qwen2") == 0) {
        h->rope_mode = GGML_ROPE_TYPE_NEOX;
    } else if (strcmp(prefix, "clip") == 0) {
        return pd_fail(err, PD_ERR_UNSUPPORTED,
                       "%s: this is an mmproj (vision) file; expected a text model (give it with --mmproj)",
                       gguf->path);
    } else {
        return pd_fail(err, PD_ERR_UNSUPPORTED,
                       "%s: general.architecture: expected llama or qwen2, found \"%s\"", gguf->path, prefix);
    }
    int32_t n_experts = 0;
    PD_TRY(read_int(gguf, prefix, "expert_count", false, 0, INT32_MAX, &n_experts, err));
    if (n_experts > 0) {
        return pd_fail(err, PD_ERR_UNSUPPORTED, "%s: mixture-of-experts models are not supported",
                       gguf->path);
    }
    PD_TRY(read_int(gguf, prefix, "block_count", true, 1, 1024, &h->n_layers, err));
    PD_TRY(read_int(gguf, prefix, "embedding_length", true, 2, 1 << 17, &h->n_embd, err));
    PD_TRY(read_int(gguf, prefix, "feed_forward_length", true, 1, 1 << 20, &h->n_ff, err));
    PD_TRY(read_int(gguf, prefix, "attention.head_count", true, 1, 4096, &h->n_heads, err));
    h->n_kv_heads = h->n_heads;
    PD_TRY(read_int(gguf, prefix, "attention.head_count_kv", false, 1, h->n_heads, &h->n_kv_heads, err));
    if (h->n_heads % h->n_kv_heads != 0) {
        return pd_fail(
            err, PD_ERR_FORMAT,
            "%s: metadata key %s.attention.head_count_kv: expected a divisor of the %d heads, found %d",
            gguf->path, prefix, h->n_heads, h->n_kv_heads);
    }
    h->head_dim = h->n_embd / h->n_heads;
    const bool head_dim_needed = h->n_embd % h->n_heads != 0;
    PD_TRY(read_int(gguf, prefix, "attention.key_length", head_dim_needed, 1, INT32_MAX, &h->head_dim, err));
    if (h->head_dim < 2 || h->head_dim > 4096 || h->head_dim % 2 != 0) {
        return pd_fail(
            err, PD_ERR_FORMAT,
            "%s: the size of a head (metadata key %s.attention.key_length, else embedding_length / "
            "attention.head_count): expected an even number from 2 to 4096, found %d",
            gguf->path, prefix, h->head_dim);
    }
    int32_t value_dim = h->head_dim;
    PD_TRY(read_int(gguf, prefix, "attention.value_length", false, 1, 4096, &value_dim, err));
    if (value_dim != h->head_dim) {
        return pd_fail(err, PD_ERR_UNSUPPORTED,
                       "%s: metadata key %s.attention.value_length: expected the key length %d, found %d",
                       gguf->path, prefix, h->head_dim, value_dim);
    }
    PD_TRY(read_int(gguf, prefix, "context_length", true, 1, INT32_MAX, &h->n_ctx_train, err));
    PD_TRY(
        read_float(gguf, prefix, "attention.layer_norm_rms_epsilon", true, 0.0F, 1.0F, &h->rms_epsilon, err));
    PD_TRY(read_rope(gguf, h, err));

    // The vocabulary's size is the embedding's number of rows, which must be the tokenizer's number of
    // tokens.
    const struct ggml_tensor *embedding = ggml_get_tensor(gguf->tensors, "token_embd.weight");
    if (!embedding) return pd_fail(err, PD_ERR_FORMAT, "%s: tensor token_embd.weight is missing", gguf->path);
    if (embedding->ne[1] < 1 || embedding->ne[1] > 1 << 24) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: tensor token_embd.weight: expected 1 to %d rows, found %lld",
                       gguf->path, 1 << 24, (long long)embedding->ne[1]);
    }
    h->n_vocab = (int32_t)embedding->ne[1];
    h->tied_embeddings = !ggml_get_tensor(gguf->tensors, "output.weight");
    return PD_OK;
}

// Three numbers from `low` to `high`.
static pd_status read_pixel_statistics(const pd_gguf *gguf, const char *key, float *values, float low,
                                       float high, pd_error *err) {
    const void *data;
    size_t count;
    PD_TRY(pd_gguf_get_array(gguf, key, true, GGUF_TYPE_FLOAT32, &data, &count, err));
    if (count != 3) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: metadata key %s: expected 3 numbers, found %zu", gguf->path,
                       key, count);
    }
    memcpy(values, data, 3 * sizeof(float));
    for (int i = 0; i < 3; i++) {
        if (!(values[i] >= low && values[i] <= high)) {
            return pd_fail(err, PD_ERR_FORMAT,
                           "%s: metadata key %s: expected numbers from %g to %g, found %g", gguf->path, key,
                           (double)low, (double)high, (double)values[i]);
        }
    }
    return PD_OK;
}

static pd_status read_pinpoints(const pd_gguf *gguf, pd_vision_hyperparameters *h, pd_error *err) {
    static const char *const key = "clip.vision.image_grid_pinpoints";
    const void *data;
    size_t count;
    PD_TRY(pd_gguf_get_array(gguf, key, false, GGUF_TYPE_INT32, &data, &count, err));
    if (count % 2 != 0 || count / 2 > PD_MAX_PINPOINTS) {
        return pd_fail(err, PD_ERR_FORMAT,
                       "%s: metadata key %s: expected at most %d pairs, found %zu numbers", gguf->path, key,
                       PD_MAX_PINPOINTS, count);
    }
    const int32_t *numbers = data;
    for (size_t i = 0; i < count; i++) {
        // whole tiles, as the grid is cut from them
        if (numbers[i] < h->image_size || numbers[i] > 64 * h->image_size ||
            numbers[i] % h->image_size != 0) {
            return pd_fail(
                err, PD_ERR_FORMAT,
                "%s: metadata key %s: expected multiples of the image size %d up to 64 of it, found %d",
                gguf->path, key, h->image_size, numbers[i]);
        }
        h->pinpoints[i / 2][i % 2] = numbers[i];
        // tiles are held as floats, all at once
        if (i % 2 == 1 && !pd_vision_grid_fits(h, h->pinpoints[i / 2])) {
            return pd_fail(
                err, PD_ERR_UNSUPPORTED,
                "%s: metadata key %s: expected grids of at most %d tiles and %d pixels, found %d x %d",
                gguf->path, key, PD_MAX_GRID_TILES, PD_MAX_GRID_PIXELS, numbers[i - 1], numbers[i]);
        }
    }
    h->n_pinpoints = (int32_t)(count / 2);
    return PD_OK;
}

// Files made by LLaVA's first converter call CLIP's fc1 "ffn_down" and fc2 "ffn_up". The shapes tell which is
// which, unless n_ff = n_embd, where the names are believed.
static bool has_swapped_ffn(const pd_gguf *gguf, const pd_vision_hyperparameters *h) {
    const struct ggml_tensor *down = ggml_get_tensor(gguf->tensors, "v.blk.0.ffn_down.weight");
    return down && h->n_ff != h->n_embd && down->ne[0] == h->n_embd && down->ne[1] == h->n_ff;
}

// Which layer's output is the feature. LLaVA takes the last but one (feature layer −2). A file without
// clip.vision.feature_layer holds all of CLIP's layers, of which the last is not run, except that LLaVA's
// first converter left that one out and did not count it.
static pd_status read_feature_layer(const pd_gguf *gguf, pd_vision_hyperparameters *h, pd_error *err) {
    static const char *const key = "clip.vision.feature_layer";
    h->swapped_ffn = has_swapped_ffn(gguf, h);
    h->n_layers_run = h->swapped_ffn ? h->n_layers : h->n_layers - 1;
    const void *data;
    size_t count;
    PD_TRY(pd_gguf_get_array(gguf, key, false, GGUF_TYPE_INT32, &data, &count, err));
    if (count > 1) {
        return pd_fail(err, PD_ERR_UNSUPPORTED, "%s: metadata key %s: expected one layer, found %zu",
                       gguf->path, key, count);
    }
    if (count == 1) {
        int32_t layer;
        memcpy(&layer, data, sizeof layer);
        if (layer < 0) layer += h->n_layers + 1; // counted from the end, where the input is number 0
        if (layer < 1 || layer > h->n_layers) {
            return pd_fail(err, PD_ERR_FORMAT, "%s: metadata key %s: expected a layer in 1..%d, found %d",
                           gguf->path, key, h->n_layers, layer);
        }
        h->n_layers_run = layer;
    }
    return PD_OK;
}

pd_status pd_vision_hyperparameters_read(const pd_gguf *gguf, pd_vision_hyperparameters *h, pd_error *err) {
    *h = (pd_vision_hyperparameters){0};
    const char *architecture;
    PD_TRY(pd_gguf_get_string(gguf, "general.architecture", true, &architecture, err));
    if (strcmp(architecture, "clip") != 0) {
        return pd_fail(err, PD_ERR_UNSUPPORTED,
                       "%s: general.architecture: expected clip (an mmproj file), found \"%s\"", gguf->path,
                       architecture);
    }
    bool has_vision = true;
    PD_TRY(pd_gguf_get_bool(gguf, "clip.has_vision_encoder", false, &has_vision, err));
    if (!has_vision) return pd_fail(err, PD_ERR_UNSUPPORTED, "%s: holds no vision encoder", gguf->path);
    const char *projector = "mlp";
    PD_TRY(pd_gguf_get_string(gguf, "clip.projector_type", false, &projector, err));
    PD_TRY(pd_gguf_get_string(gguf, "clip.vision.projector_type", false, &projector, err));
    if (strcmp(projector, "mlp") != 0) {
        return pd_fail(err, PD_ERR_UNSUPPORTED, "%s: clip.projector_type: expected mlp, found \"%s\"",
                       gguf->path, projector);
    }
    static const char *const prefix = "clip.vision";
    PD_TRY(read_int(gguf, prefix, "image_size", true, 1, 4096, &h->image_size, err));
    PD_TRY(read_int(gguf, prefix, "patch_size", true, 1, h->image_size, &h->patch_size, err));
    if (h->image_size % h->patch_size != 0) {
        return pd_fail(
            err, PD_ERR_FORMAT,
            "%s: metadata key clip.vision.patch_size: expected a divisor of the image size %d, found %d",
            gguf->path, h->image_size, h->patch_size);
    }
    PD_TRY(read_int(gguf, prefix, "embedding_length", true, 1, 1 << 16, &h->n_embd, err));
    PD_TRY(read_int(gguf, prefix, "feed_forward_length", true, 1, 1 << 18, &h->n_ff, err));
    PD_TRY(read_int(gguf, prefix, "block_count", true, 1, 1024, &h->n_layers, err));
    PD_TRY(read_int(gguf, prefix, "attention.head_count", true, 1, 1024, &h->n_heads, err));
    if (h->n_embd % h->n_heads != 0) {
        return pd_fail(
            err, PD_ERR_FORMAT,
            "%s: metadata key clip.vision.attention.head_count: expected a divisor of the embedding "
            "length %d, found %d",
            gguf->path, h->n_embd, h->n_heads);
    }
    PD_TRY(read_float(gguf, prefix, "attention.layer_norm_epsilon", true, 0.0F, 1.0F, &h->epsilon, err));
    PD_TRY(read_feature_layer(gguf, h, err));
    bool use_gelu = false;
    PD_TRY(pd_gguf_get_bool(gguf, "clip.use_gelu", false, &use_gelu, err));
    bool use_silu = false;
    PD_TRY(pd_gguf_get_bool(gguf, "clip.use_silu", false, &use_silu, err));
    if (use_silu) return pd_fail(err, PD_ERR_UNSUPPORTED, "%s: clip.use_silu is not supported", gguf->path);
    h->exact_gelu = use_gelu;
    PD_TRY(read_pixel_statistics(gguf, "clip.vision.image_mean", h->mean, 0.0F, 1.0F, err));
    PD_TRY(read_pixel_statistics(gguf, "clip.vision.image_std", h->std, PD_LEAST_STD, PD_MOST_STD, err));
    PD_TRY(read_pinpoints(gguf, h, err));
    const char *merge = "flat";
    PD_TRY(pd_gguf_get_string(gguf, "clip.vision.mm_patch_merge_type", false, &merge, err));
    h->spatial_unpad = strcmp(merge, "spatial_unpad") == 0;
    if (h->n_pinpoints > 0 && !h->spatial_unpad) {
        return pd_fail(
            err, PD_ERR_UNSUPPORTED,
            "%s: clip.vision.mm_patch_merge_type: expected spatial_unpad beside image_grid_pinpoints, "
            "found \"%s\"",
            gguf->path, merge);
    }
    return PD_OK;
}

bool pd_vision_grid_fits(const pd_vision_hyperparameters *h, const int32_t pinpoint[2]) {
    const int64_t side = h->image_size, width = pinpoint[0], height = pinpoint[1];
    return (width / side) * (height / side) <= PD_MAX_GRID_TILES && width * height <= PD_MAX_GRID_PIXELS;
}

int32_t pd_vision_n_patches(const pd_vision_hyperparameters *h) {
    const int32_t side = h->image_size / h->patch_size;
    return side * side;
}
