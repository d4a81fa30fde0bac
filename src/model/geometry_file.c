#include "model/geometry_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

enum { MAX_BYTES = 1 << 20, MAX_FIELDS = 64, MAX_NAME = 80 };

typedef enum {
    INTEGER, // int32_t in [low, high]
    REAL,    // float in [low, high]
    REALS,   // float[3], each in [low, high]
    BOOLEAN,
    ALWAYS_FALSE, // a switch that only stands at false
    NOTHING,      // what only null is supported of
    TEXT,         // const char *, in the document
    CHOICE,       // const char *, one of `choices`
    OBJECT,       // yyjson_val *
    LIST,         // yyjson_val *
    IGNORED,      // says nothing about the geometry
} field_type;

typedef struct {
    const char *name;
    field_type type;
    void *target; // NULL: only checked. Stays as it is where the field is absent or null
    double low, high;
    const char *const *choices; // NULL-terminated
    bool required;
} field;

typedef struct {
    const char *path;
    const char *prefix; // "vision_config." inside it
    pd_error *err;
} place;

// ---- one field --------------------------------------------------------------------------------------------

static const char *expected(const field *f, char *text, size_t size) {
    static const char *const plain[] = {
        [BOOLEAN] = "true or false",           [ALWAYS_FALSE] = "false", [NOTHING] = "null (not supported)",
        [TEXT] = "a string that is not empty", [OBJECT] = "an object",   [LIST] = "a list",
    };
    const char *number = f->type == INTEGER ? "an integer" : f->type == REAL ? "a number" : "3 numbers";
    if (f->type > REALS && f->type != CHOICE) return plain[f->type];
    if (f->type == CHOICE) {
        size_t used = 0;
        for (size_t i = 0; f->choices[i] && used < size; i++) {
            used += (size_t)snprintf(text + used, size - used, "%s\"%s\"", i ? " or " : "", f->choices[i]);
        }
    } else if (f->low == f->high) {
        snprintf(text, size, "%.10g", f->low);
    } else {
        snprintf(text, size, "%s from %.10g to %.10g", number, f->low, f->high);
    }
    return text;
}

static const char *found(yyjson_val *value, char *text, size_t size) {
    if (yyjson_is_num(value)) {
        snprintf(text, size, "%.10g", yyjson_get_num(value));
    } else if (yyjson_is_str(value)) {
        snprintf(text, size, "\"%.40s\"", yyjson_get_str(value));
    } else if (yyjson_is_arr(value)) {
        snprintf(text, size, "a list of %zu", yyjson_arr_size(value));
    } else {
        snprintf(text, size, "%s", yyjson_is_obj(value) ? "an object" : yyjson_get_type_desc(value));
    }
    return text;
}

static bool in_range(const field *f, yyjson_val *value) {
    return yyjson_is_num(value) && yyjson_get_num(value) >= f->low && yyjson_get_num(value) <= f->high;
}

static bool is_text(yyjson_val *value) {
    return yyjson_is_str(value) && yyjson_get_len(value) > 0 &&
           strlen(yyjson_get_str(value)) == yyjson_get_len(value);
}

static bool is_valid(const field *f, yyjson_val *value) {
    switch (f->type) {
    case INTEGER:
        return yyjson_is_int(value) && in_range(f, value);
    case REAL:
        return in_range(f, value);
    case REALS:
        for (size_t i = 0; i < 3; i++)
            if (!in_range(f, yyjson_arr_get(value, i))) return false;
        return yyjson_arr_size(value) == 3;
    case BOOLEAN:
        return yyjson_is_bool(value);
    case ALWAYS_FALSE:
        return yyjson_is_false(value);
    case NOTHING:
        return false;
    case TEXT:
        return is_text(value);
    case CHOICE:
        for (size_t i = 0; f->choices[i]; i++)
            if (yyjson_equals_str(value, f->choices[i])) return true;
        return false;
    case OBJECT:
        return yyjson_is_obj(value);
    case LIST:
        return yyjson_is_arr(value);
    case IGNORED:
        return true;
    }
    return false;
}

static void store(const field *f, yyjson_val *value) {
    if (!f->target) return;
    switch (f->type) {
    case INTEGER:
        *(int32_t *)f->target = (int32_t)yyjson_get_sint(value);
        break;
    case REAL:
        *(float *)f->target = (float)yyjson_get_num(value);
        break;
    case REALS:
        for (size_t i = 0; i < 3; i++)
            ((float *)f->target)[i] = (float)yyjson_get_num(yyjson_arr_get(value, i));
        break;
    case BOOLEAN:
        *(bool *)f->target = yyjson_get_bool(value);
        break;
    case TEXT:
    case CHOICE:
        *(const char **)f->target = yyjson_get_str(value);
        break;
    case OBJECT:
    case LIST:
        *(yyjson_val **)f->target = value;
        break;
    case ALWAYS_FALSE:
    case NOTHING:
    case IGNORED:
        break;
    }
}

// ---- an object --------------------------------------------------------------------------------------------

static pd_status read_fields(const place *at, yyjson_val *object, const field *fields, size_t n) {
    bool seen[MAX_FIELDS] = {false}, given[MAX_FIELDS] = {false};
    char wanted[160], there[64];
    size_t i, max;
    yyjson_val *key, *value;
    yyjson_obj_foreach(object, i, max, key, value) {
        size_t j = 0;
        while (j < n && !yyjson_equals_str(key, fields[j].name))
            j++;
        if (j == n) {
            return pd_fail(at->err, PD_ERR_FORMAT,
                           "%s: no field is called %s%.60s (docs/cli.md lists them under pdrop synth)",
                           at->path, at->prefix, yyjson_get_str(key));
        }
        if (seen[j]) {
            return pd_fail(at->err, PD_ERR_FORMAT, "%s: %s%s: expected once, found twice", at->path,
                           at->prefix, fields[j].name);
        }
        seen[j] = true;
        if (yyjson_is_null(value)) continue; // as config.json says what is not set
        if (!is_valid(&fields[j], value)) {
            return pd_fail(at->err, PD_ERR_FORMAT, "%s: %s%s: expected %s, found %s", at->path, at->prefix,
                           fields[j].name, expected(&fields[j], wanted, sizeof wanted),
                           found(value, there, sizeof there));
        }
        given[j] = true;
        store(&fields[j], value);
    }
    for (size_t j = 0; j < n; j++) {
        if (!fields[j].required || given[j]) continue;
        return pd_fail(at->err, PD_ERR_FORMAT, "%s: %s%s is missing (expected %s)", at->path, at->prefix,
                       fields[j].name, expected(&fields[j], wanted, sizeof wanted));
    }
    return PD_OK;
}

#define READ_FIELDS(at, object, fields) read_fields(at, object, fields, sizeof(fields) / sizeof *(fields))

// Everything that the top of the file says and the rest is made from.
typedef struct {
    int32_t select_layer, mm_hidden_size, vocab_size;
    const char *name, *aspect_ratio, *merge, *tokenizer;
    yyjson_val *vision, *pinpoints;
} top_level;

// The bounds are those of model/hyperparameters.c.
static pd_status read_top(const place *at, yyjson_val *root, pd_geometry_file *file, top_level *top) {
    static const char *const activations[] = {"silu", NULL}, *const aspects[] = {"pad", "anyres", NULL},
                             *const merges[] = {"flat", "spatial_unpad", NULL},
                             *const projectors[] = {"mlp2x_gelu", NULL}, *const features[] = {"patch", NULL};
    pd_decoder_hyperparameters *h = &file->geometry.decoder;
    const field fields[] = {
        {"hidden_size", INTEGER, &h->n_embd, 2, 1 << 17, NULL, true},
        {"intermediate_size", INTEGER, &h->n_ff, 1, 1 << 20, NULL, true},
        {"num_hidden_layers", INTEGER, &h->n_layers, 1, 1024, NULL, true},
        {"num_attention_heads", INTEGER, &h->n_heads, 1, 4096, NULL, true},
        {"num_key_value_heads", INTEGER, &h->n_kv_heads, 1, 4096, NULL, false},
        {"head_dim", INTEGER, &h->head_dim, 2, 4096, NULL, false},
        {"max_position_embeddings", INTEGER, &h->n_ctx_train, 1, INT32_MAX, NULL, true},
        {"rms_norm_eps", REAL, &h->rms_epsilon, 0, 1, NULL, true},
        {"rope_theta", REAL, &h->rope_base, 1, 1e12, NULL, true},
        {"tie_word_embeddings", BOOLEAN, &h->tied_embeddings, 0, 0, NULL, false},
        {"initializer_range", REAL, &file->initializer.range, 1e-6, 1, NULL, false},
        {"vision_config", OBJECT, &top->vision, 0, 0, NULL, true},
        {"mm_vision_select_layer", INTEGER, &top->select_layer, -1024, 1024, NULL, false},
        {"mm_hidden_size", INTEGER, &top->mm_hidden_size, 1, 1 << 16, NULL, false},
        {"mm_projector_hidden_size", INTEGER, &file->geometry.projector_hidden, 1, 1 << 20, NULL, false},
        {"image_aspect_ratio", CHOICE, &top->aspect_ratio, 0, 0, aspects, false},
        {"image_grid_pinpoints", LIST, &top->pinpoints, 0, 0, NULL, false},
        {"mm_patch_merge_type", CHOICE, &top->merge, 0, 0, merges, false},
        {"tokenizer", TEXT, &top->tokenizer, 0, 0, NULL, true},
        {"vocab_size", INTEGER, &top->vocab_size, 1, 1 << 24, NULL, false},
        {"_name_or_path", TEXT, &top->name, 0, 0, NULL, false},
        // only one way of them is supported
        {"hidden_act", CHOICE, NULL, 0, 0, activations, false},
        {"mm_projector_type", CHOICE, NULL, 0, 0, projectors, false},
        {"mm_vision_select_feature", CHOICE, NULL, 0, 0, features, false},
        {"rope_scaling", NOTHING, NULL, 0, 0, NULL, false},
        {"attention_bias", ALWAYS_FALSE, NULL, 0, 0, NULL, false},
        {"mlp_bias", ALWAYS_FALSE, NULL, 0, 0, NULL, false},
        {"attention_dropout", REAL, NULL, 0, 0, NULL, false},
        {"mm_use_im_start_end", ALWAYS_FALSE, NULL, 0, 0, NULL, false},
        {"mm_use_im_patch_token", ALWAYS_FALSE, NULL, 0, 0, NULL, false},
        // the tokenizer says it, or nobody asks
        {"bos_token_id", IGNORED, NULL, 0, 0, NULL, false},
        {"eos_token_id", IGNORED, NULL, 0, 0, NULL, false},
        {"pad_token_id", IGNORED, NULL, 0, 0, NULL, false},
        {"architectures", IGNORED, NULL, 0, 0, NULL, false},
        {"model_type", IGNORED, NULL, 0, 0, NULL, false},
        {"dtype", IGNORED, NULL, 0, 0, NULL, false},
        {"torch_dtype", IGNORED, NULL, 0, 0, NULL, false},
        {"transformers_version", IGNORED, NULL, 0, 0, NULL, false},
        {"use_cache", IGNORED, NULL, 0, 0, NULL, false},
        {"pretraining_tp", IGNORED, NULL, 0, 0, NULL, false},
        {"_comment", IGNORED, NULL, 0, 0, NULL, false},
    };
    return READ_FIELDS(at, root, fields);
}

static pd_status read_vision(const place *at, yyjson_val *object, pd_geometry_file *file) {
    static const char *const activations[] = {"quick_gelu", "gelu", NULL};
    pd_vision_hyperparameters *h = &file->geometry.vision;
    const char *activation = NULL;
    const field fields[] = {
        {"image_size", INTEGER, &h->image_size, 1, 4096, NULL, true},
        {"patch_size", INTEGER, &h->patch_size, 1, 4096, NULL, true},
        {"hidden_size", INTEGER, &h->n_embd, 1, 1 << 16, NULL, true},
        {"intermediate_size", INTEGER, &h->n_ff, 1, 1 << 18, NULL, true},
        {"num_hidden_layers", INTEGER, &h->n_layers, 1, 1024, NULL, true},
        {"num_attention_heads", INTEGER, &h->n_heads, 1, 1024, NULL, true},
        {"layer_norm_eps", REAL, &h->epsilon, 0, 1, NULL, true},
        {"hidden_act", CHOICE, &activation, 0, 0, activations, true},
        {"image_mean", REALS, h->mean, 0, 1, NULL, false},
        {"image_std", REALS, h->std, (double)PD_LEAST_STD, (double)PD_MOST_STD, NULL, false},
        {"initializer_range", REAL, &file->initializer.vision_range, 1e-6, 1, NULL, false},
        {"position_initializer_range", REAL, &file->initializer.position_range, 1e-6, 1, NULL, false},
        {"initializer_factor", REAL, &file->initializer.vision_factor, 1e-3, 1000, NULL, false},
        {"num_channels", INTEGER, NULL, 3, 3, NULL, false},
        {"attention_dropout", REAL, NULL, 0, 0, NULL, false},
        {"dropout", REAL, NULL, 0, 0, NULL, false},
        {"projection_dim", IGNORED, NULL, 0, 0, NULL, false},
        {"architectures", IGNORED, NULL, 0, 0, NULL, false},
        {"model_type", IGNORED, NULL, 0, 0, NULL, false},
        {"dtype", IGNORED, NULL, 0, 0, NULL, false},
        {"torch_dtype", IGNORED, NULL, 0, 0, NULL, false},
        {"transformers_version", IGNORED, NULL, 0, 0, NULL, false},
        {"_comment", IGNORED, NULL, 0, 0, NULL, false},
    };
    PD_TRY(READ_FIELDS(at, object, fields));
    h->exact_gelu = strcmp(activation, "gelu") == 0;
    return PD_OK;
}

// ---- what fields say together -----------------------------------------------------------------------------

static pd_status fit_decoder(const place *at, pd_decoder_hyperparameters *h) {
    h->architecture = "llama";
    h->rope_mode = GGML_ROPE_TYPE_NORMAL;
    h->rope_factor = 1.0F;
    h->rope_original_ctx = h->n_ctx_train;
    if (h->n_kv_heads == 0) h->n_kv_heads = h->n_heads;
    if (h->n_heads % h->n_kv_heads != 0) {
        return pd_fail(at->err, PD_ERR_FORMAT,
                       "%s: num_key_value_heads: expected a divisor of the %d heads, found %d", at->path,
                       h->n_heads, h->n_kv_heads);
    }
    if (h->head_dim == 0) {
        h->head_dim = h->n_embd / h->n_heads;
        if (h->n_embd % h->n_heads != 0) {
            return pd_fail(
                at->err, PD_ERR_FORMAT,
                "%s: num_attention_heads: expected a divisor of hidden_size %d, or a head_dim, found %d",
                at->path, h->n_embd, h->n_heads);
        }
    }
    if (h->head_dim % 2 != 0) {
        return pd_fail(at->err, PD_ERR_FORMAT, "%s: head_dim: expected an even number, found %d", at->path,
                       h->head_dim);
    }
    h->rope_dim = h->head_dim;
    return PD_OK;
}

static pd_status fit_vision(const place *at, const top_level *top, pd_geometry_file *file) {
    pd_vision_hyperparameters *h = &file->geometry.vision;
    if (h->image_size % h->patch_size != 0) {
        return pd_fail(at->err, PD_ERR_FORMAT,
                       "%s: vision_config.patch_size: expected a divisor of the image_size %d, found %d",
                       at->path, h->image_size, h->patch_size);
    }
    if (h->n_embd % h->n_heads != 0) {
        return pd_fail(
            at->err, PD_ERR_FORMAT,
            "%s: vision_config.num_attention_heads: expected a divisor of the hidden_size %d, found %d",
            at->path, h->n_embd, h->n_heads);
    }
    if (top->mm_hidden_size > 0 && top->mm_hidden_size != h->n_embd) {
        return pd_fail(at->err, PD_ERR_FORMAT,
                       "%s: mm_hidden_size: expected vision_config's hidden_size %d, found %d", at->path,
                       h->n_embd, top->mm_hidden_size);
    }
    // Hidden state 0 is the first layer's input; negative ones count from the last layer's output, -1.
    const int32_t layer = top->select_layer < 0 ? top->select_layer + h->n_layers + 1 : top->select_layer;
    if (layer < 1 || layer > h->n_layers) {
        return pd_fail(at->err, PD_ERR_FORMAT,
                       "%s: mm_vision_select_layer: expected 1 to %d, or -%d to -1 from the end, found %d",
                       at->path, h->n_layers, h->n_layers, top->select_layer);
    }
    file->initializer.n_vision_layers = h->n_layers;
    h->n_layers = layer;
    h->n_layers_run = layer;
    return PD_OK;
}

static pd_status read_pinpoint(const place *at, yyjson_val *pair, size_t index,
                               pd_vision_hyperparameters *h) {
    for (size_t j = 0; j < 2; j++) {
        yyjson_val *value = yyjson_arr_get(pair, j);
        const int64_t side = yyjson_is_int(value) ? yyjson_get_sint(value) : 0;
        if (yyjson_arr_size(pair) != 2 || side < h->image_size || side > 64 * (int64_t)h->image_size ||
            side % h->image_size != 0) {
            return pd_fail(
                at->err, PD_ERR_FORMAT,
                "%s: image_grid_pinpoints[%zu]: expected [width, height], multiples of the image_size %d "
                "up to 64 of it",
                at->path, index, h->image_size);
        }
        h->pinpoints[index][j] = (int32_t)side;
    }
    if (!pd_vision_grid_fits(h, h->pinpoints[index])) {
        return pd_fail(
            at->err, PD_ERR_UNSUPPORTED,
            "%s: image_grid_pinpoints[%zu]: expected at most %d tiles and %d pixels, found %d x %d", at->path,
            index, PD_MAX_GRID_TILES, PD_MAX_GRID_PIXELS, h->pinpoints[index][0], h->pinpoints[index][1]);
    }
    return PD_OK;
}

static pd_status read_tiles(const place *at, const top_level *top, pd_vision_hyperparameters *h) {
    const bool anyres = strcmp(top->aspect_ratio, "anyres") == 0;
    const char *merge = anyres ? "spatial_unpad" : "flat";
    if (top->merge && strcmp(top->merge, merge) != 0) {
        return pd_fail(
            at->err, PD_ERR_UNSUPPORTED,
            "%s: mm_patch_merge_type: expected \"%s\" beside image_aspect_ratio \"%s\", found \"%s\"",
            at->path, merge, top->aspect_ratio, top->merge);
    }
    h->spatial_unpad = anyres;
    if (!anyres && top->pinpoints) {
        return pd_fail(
            at->err, PD_ERR_FORMAT,
            "%s: image_grid_pinpoints: expected image_aspect_ratio \"anyres\" beside it, found \"%s\"",
            at->path, top->aspect_ratio);
    }
    if (!anyres) return PD_OK;
    const size_t n = yyjson_arr_size(top->pinpoints);
    if (n < 1 || n > PD_MAX_PINPOINTS) {
        return pd_fail(
            at->err, PD_ERR_FORMAT,
            "%s: image_grid_pinpoints: expected 1 to %d pairs beside image_aspect_ratio \"anyres\", found "
            "%zu",
            at->path, PD_MAX_PINPOINTS, n);
    }
    for (size_t i = 0; i < n; i++)
        PD_TRY(read_pinpoint(at, yyjson_arr_get(top->pinpoints, i), i, h));
    h->n_pinpoints = (int32_t)n;
    return PD_OK;
}

// ---- the vocabulary ---------------------------------------------------------------------------------------

static pd_status open_vocabulary(const place *at, const char *name, pd_gguf *vocabulary) {
    const char *slash = name[0] == '/' ? NULL : strrchr(at->path, '/');
    const size_t folder = slash ? (size_t)(slash - at->path) + 1 : 0, size = folder + strlen(name) + 1;
    char *path = malloc(size);
    if (!path) return pd_fail_memory(at->err, size, "a file name");
    memcpy(path, at->path, folder);
    memcpy(path + folder, name, size - folder);
    const pd_status status = pd_gguf_open(path, vocabulary, at->err);
    free(path);
    return status;
}

static pd_status read_vocabulary(const place *at, const top_level *top, pd_geometry_file *file) {
    PD_TRY(open_vocabulary(at, top->tokenizer, &file->vocabulary));
    static const char *const key = "tokenizer.ggml.tokens";
    const char *kind;
    PD_TRY(pd_gguf_get_string(&file->vocabulary, "tokenizer.ggml.model", true, &kind, at->err));
    int64_t id;
    size_t n;
    PD_TRY(pd_gguf_get_strings(&file->vocabulary, key, true, &id, &n, at->err));
    if (n < 1 || n > 1 << 24) {
        return pd_fail(at->err, PD_ERR_FORMAT, "%s: metadata key %s: expected 1 to %d tokens, found %zu",
                       file->vocabulary.path, key, 1 << 24, n);
    }
    if (top->vocab_size > 0 && (size_t)top->vocab_size != n) {
        return pd_fail(at->err, PD_ERR_FORMAT, "%s: vocab_size: expected the %zu tokens of %s, found %d",
                       at->path, n, file->vocabulary.path, top->vocab_size);
    }
    file->geometry.decoder.n_vocab = (int32_t)n;
    return PD_OK;
}

// ---- the file ---------------------------------------------------------------------------------------------

// "pocket" of "models/pocket.json", where the file gives no name.
static pd_status set_name(const place *at, const top_level *top, pd_geometry_file *file) {
    char title[MAX_NAME + 1];
    if (top->name) {
        snprintf(title, sizeof title, "%s", top->name);
    } else {
        const char *slash = strrchr(at->path, '/');
        snprintf(title, sizeof title, "%s", slash ? slash + 1 : at->path);
        char *dot = strrchr(title, '.');
        if (dot && dot > title) *dot = '\0';
    }
    pd_make_printable(title);
    file->title = strdup(title);
    if (!file->title) return pd_fail_memory(at->err, sizeof title, "a geometry's name");
    file->geometry.title = file->title;
    // as files are called: "llava-v1.5-7b" of "liuhaotian/llava-v1.5-7b"
    const char *slash = strrchr(file->title, '/');
    file->geometry.name = slash && slash[1] ? slash + 1 : slash ? "model" : file->title;
    return PD_OK;
}

static pd_status read_document(const place *at, yyjson_val *root, pd_geometry_file *file) {
    if (!yyjson_is_obj(root)) {
        return pd_fail(at->err, PD_ERR_FORMAT, "%s: expected an object, {…}, found %s", at->path,
                       yyjson_get_type_desc(root));
    }
    // CLIP's mean and deviation of pixels, and transformers' defaults
    file->geometry.vision = (pd_vision_hyperparameters){.mean = {0.48145466F, 0.4578275F, 0.40821073F},
                                                        .std = {0.26862954F, 0.26130258F, 0.27577711F}};
    file->initializer = pd_initializer_default(&file->geometry);
    top_level top = {.select_layer = -2, .aspect_ratio = "pad"};
    PD_TRY(read_top(at, root, file, &top));
    const place inside = {at->path, "vision_config.", at->err};
    PD_TRY(read_vision(&inside, top.vision, file));
    if (file->geometry.projector_hidden == 0) file->geometry.projector_hidden = file->geometry.decoder.n_embd;
    PD_TRY(fit_decoder(at, &file->geometry.decoder));
    PD_TRY(fit_vision(at, &top, file));
    PD_TRY(read_tiles(at, &top, &file->geometry.vision));
    PD_TRY(set_name(at, &top, file));
    return read_vocabulary(at, &top, file);
}

static pd_status parse(const char *path, const pd_mapped_file *json, yyjson_doc **document, pd_error *err) {
    if (json->size == 0) return pd_fail(err, PD_ERR_FORMAT, "%s: the file is empty", path);
    if (json->size > MAX_BYTES) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: expected a geometry of at most %d bytes, found %zu bytes",
                       path, MAX_BYTES, json->size);
    }
    yyjson_read_err error;
    // Without YYJSON_READ_INSITU the bytes are only read.
    char *text = (char *)(uintptr_t)json->data;
    *document = yyjson_read_opts(text, json->size, 0, NULL, &error);
    if (*document) return PD_OK;
    if (error.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
        return pd_fail_memory(err, json->size, "a geometry");
    size_t line = 1, column = 1, character;
    yyjson_locate_pos(text, json->size, error.pos, &line, &column, &character);
    return pd_fail(err, PD_ERR_FORMAT, "%s: line %zu, column %zu: %s", path, line, column, error.msg);
}

pd_status pd_geometry_read(const char *path, pd_geometry_file *file, pd_error *err) {
    *file = (pd_geometry_file){0};
    pd_mapped_file json;
    PD_TRY(pd_mapped_file_open(path, &json, err));
    yyjson_doc *document = NULL;
    pd_status status = parse(path, &json, &document, err);
    if (status == PD_OK) {
        const place at = {path, "", err};
        status = read_document(&at, yyjson_doc_get_root(document), file);
        yyjson_doc_free(document);
    }
    pd_mapped_file_close(&json);
    if (status != PD_OK) pd_geometry_file_close(file);
    return status;
}

void pd_geometry_file_close(pd_geometry_file *file) {
    if (file->vocabulary.path) pd_gguf_close(&file->vocabulary);
    free(file->title);
    *file = (pd_geometry_file){0};
}
