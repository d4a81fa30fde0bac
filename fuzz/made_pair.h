// GGUF pairs that are well formed, of geometries that no model has: the bytes choose heads, widths, types and
// settings, and the tensors follow them.
#pragma once

#include "pair.h"
#include "vocabulary.h"

#include <ggml.h>
#include <gguf.h>
#include <stdarg.h>

typedef struct {
    const uint8_t *data;
    size_t size;
    struct ggml_context *tensors;
    struct gguf_context *gguf;
    const char *architecture;
    enum ggml_type type; // of matrices
} maker;

// The next byte; 0 behind the end.
static inline uint8_t next(maker *m) {
    if (m->size == 0) return 0;
    m->size--;
    return *m->data++;
}

static inline int32_t among(maker *m, const int32_t *values, size_t n) {
    return values[next(m) % n];
}
#define AMONG(maker, ...)                                                                                    \
    among(maker, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

// ---- tensors ----------------------------------------------------------------------------------------------

// A type whose blocks fill rows of `width`; one choice in 32 is another than the file's.
static inline enum ggml_type type_for(maker *m, int64_t width) {
    enum ggml_type type = m->type;
    if (next(m) % 32 == 31) type = (enum ggml_type)(next(m) % GGML_TYPE_COUNT);
    const int64_t block = ggml_blck_size(type);
    return block > 0 && width % block == 0 ? type : GGML_TYPE_F32;
}

// Tensors of one kind share their content. Any bytes are blocks of a quantised type, of scales that may be
// infinite.
static float numbers[1 << 19];
static uint8_t blocks[sizeof numbers];

static inline void fill_numbers(void) {
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        numbers[i] = (float)((i * 37 + 11) % 64) / 32.0F - 1.0F;
}

__attribute__((format(printf, 4, 5))) static void add(maker *m, enum ggml_type type, const int64_t ne[4],
                                                      const char *format, ...) {
    char name[GGML_MAX_NAME];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    struct ggml_tensor *t = ggml_new_tensor(m->tensors, type, 4, ne);
    ggml_set_name(t, name);
    CHECK(ggml_nbytes(t) <= sizeof numbers);
    t->data = type == GGML_TYPE_F32 ? (void *)numbers : blocks;
    gguf_add_tensor(m->gguf, t);
}

#define MATRIX(maker, n_in, n_out, ...)                                                                      \
    add(maker, type_for(maker, n_in), (const int64_t[4]){n_in, n_out, 1, 1}, __VA_ARGS__)
#define VECTOR(maker, n, ...) add(maker, GGML_TYPE_F32, (const int64_t[4]){n, 1, 1, 1}, __VA_ARGS__)

static inline memory_file finish(maker *m, const char *name) {
    memory_file file = memory_file_open(name);
    CHECK(gguf_write_to_file_ptr(m->gguf, file.stream, false) && fflush(file.stream) == 0);
    gguf_free(m->gguf);
    ggml_free(m->tensors);
    return file;
}

static inline void start(maker *m, const char *architecture) {
    static const int32_t quantised[] = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16,
                                        GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q4_K};
    const uint8_t choice = next(m);
    m->type =
        choice < 128 ? (enum ggml_type)quantised[choice % 6] : (enum ggml_type)(choice % GGML_TYPE_COUNT);
    m->tensors =
        ggml_init((struct ggml_init_params){.mem_size = 128 * ggml_tensor_overhead(), .no_alloc = true});
    m->gguf = gguf_init_empty();
    memset(blocks, next(m), sizeof blocks);
    CHECK(m->tensors && m->gguf);
    gguf_set_val_str(m->gguf, "general.architecture", architecture);
    m->architecture = strcmp(architecture, "clip") == 0 ? "clip.vision" : architecture;
}

// ---- the two files ----------------------------------------------------------------------------------------

typedef struct {
    char text[96];
} key_text;

// "llama.block_count"
static inline key_text key(const maker *m, const char *name) {
    key_text key;
    snprintf(key.text, sizeof key.text, "%s.%s", m->architecture, name);
    return key;
}

static inline void set_int(maker *m, const char *name, int32_t value) {
    gguf_set_val_u32(m->gguf, key(m, name).text, (uint32_t)value);
}

// Sometimes a value, also one beyond what makes sense.
static inline void set_float(maker *m, const char *name) {
    static const float values[] = {0.0F, 1e-30F, 1e-5F, 0.5F, 1.0F, 2.0F, 1e4F, 1e30F};
    if (next(m) % 4 == 3) gguf_set_val_f32(m->gguf, key(m, name).text, values[next(m) % 8]);
}

static inline void add_rope(maker *m, int32_t head_dim) {
    if (next(m) % 4 == 3) set_int(m, "rope.dimension_count", next(m) % (head_dim + 2));
    if (next(m) % 8 == 7) VECTOR(m, head_dim / 2 > 0 ? head_dim / 2 : 1, "rope_freqs.weight");
    const uint8_t scaling = next(m) % 8;
    if (scaling > 5)
        gguf_set_val_str(m->gguf, key(m, "rope.scaling.type").text, scaling == 6 ? "linear" : "yarn");
    set_float(m, "rope.freq_base");
    set_float(m, "rope.scaling.factor");
    set_float(m, "rope.scaling.attn_factor");
    set_float(m, "rope.scaling.yarn_beta_fast");
    set_float(m, "rope.scaling.yarn_beta_slow");
    if (next(m) % 8 == 7) set_int(m, "rope.scaling.original_context_length", next(m));
}

static inline memory_file make_text(maker *m, int32_t *n_embd, int32_t *n_layers) {
    const bool qwen2 = next(m) % 4 == 3;
    start(m, qwen2 ? "qwen2" : "llama");
    *n_layers = 1 + next(m) % 3;
    int32_t heads = AMONG(m, 1, 2, 3, 4, 5, 7, 8, 16);
    const int32_t groups = AMONG(m, 1, 1, 2, 3, 4);
    const int32_t head_dim = AMONG(m, 2, 1, 3, 4, 6, 8, 10, 16, 20, 31, 32, 33, 40, 48, 64, 72, 80, 96, 100,
                                   112, 128, 192, 256, 258, 512);
    if (heads * head_dim > 512) heads = 1; // what is large is slow
    const int32_t kv_heads = heads % groups == 0 ? heads / groups : heads;
    *n_embd = next(m) % 4 ? heads * head_dim : AMONG(m, 1, 2, 3, 5, 32, 64, 256);
    const int32_t n_ff = AMONG(m, 1, 2, 3, 16, 31, 32, 33, 64, 256, 512);
    const int32_t d = *n_embd, q = heads * head_dim, kv = kv_heads * head_dim;
    struct gguf_context *g = m->gguf;
    set_int(m, "block_count", *n_layers);
    set_int(m, "embedding_length", d);
    set_int(m, "feed_forward_length", n_ff);
    set_int(m, "attention.head_count", heads);
    set_int(m, "attention.head_count_kv", kv_heads);
    set_int(m, "attention.key_length", head_dim);
    set_int(m, "attention.value_length", head_dim);
    set_int(m, "context_length", 1 << (next(m) % 31));
    gguf_set_val_f32(g, key(m, "attention.layer_norm_rms_epsilon").text, 1e-5F);
    set_float(m, "attention.layer_norm_rms_epsilon");
    add_tiny_vocabulary(g);
    add_rope(m, head_dim);
    MATRIX(m, d, N_TOKENS + next(m) % 2, "token_embd.weight");
    VECTOR(m, d, "output_norm.weight");
    if (next(m) % 2) MATRIX(m, d, N_TOKENS, "output.weight");
    for (int32_t i = 0; i < *n_layers; i++) {
        VECTOR(m, d, "blk.%d.attn_norm.weight", i);
        MATRIX(m, d, q, "blk.%d.attn_q.weight", i);
        MATRIX(m, d, kv, "blk.%d.attn_k.weight", i);
        MATRIX(m, d, kv, "blk.%d.attn_v.weight", i);
        MATRIX(m, q, d, "blk.%d.attn_output.weight", i);
        if (qwen2 || next(m) % 8 == 7) {
            VECTOR(m, q, "blk.%d.attn_q.bias", i);
            VECTOR(m, kv, "blk.%d.attn_k.bias", i);
            VECTOR(m, kv, "blk.%d.attn_v.bias", i);
        }
        VECTOR(m, d, "blk.%d.ffn_norm.weight", i);
        MATRIX(m, d, n_ff, "blk.%d.ffn_gate.weight", i);
        MATRIX(m, d, n_ff, "blk.%d.ffn_up.weight", i);
        MATRIX(m, n_ff, d, "blk.%d.ffn_down.weight", i);
    }
    return finish(m, "text");
}

static inline void add_vision_layer(maker *m, int32_t i, int32_t d, int32_t n_ff) {
    static const char *const square[] = {"attn_q", "attn_k", "attn_v", "attn_out"};
    for (int j = 1; j <= 2; j++) {
        VECTOR(m, d, "v.blk.%d.ln%d.weight", i, j);
        VECTOR(m, d, "v.blk.%d.ln%d.bias", i, j);
    }
    for (size_t j = 0; j < 4; j++) {
        MATRIX(m, d, d, "v.blk.%d.%s.weight", i, square[j]);
        VECTOR(m, d, "v.blk.%d.%s.bias", i, square[j]);
    }
    MATRIX(m, d, n_ff, "v.blk.%d.ffn_up.weight", i);
    VECTOR(m, n_ff, "v.blk.%d.ffn_up.bias", i);
    MATRIX(m, n_ff, d, "v.blk.%d.ffn_down.weight", i);
    VECTOR(m, d, "v.blk.%d.ffn_down.bias", i);
}

static inline memory_file make_mmproj(maker *m, int32_t n_embd) {
    start(m, "clip");
    struct gguf_context *g = m->gguf;
    const int32_t patch = AMONG(m, 1, 2, 3, 5, 14, 16), side = AMONG(m, 1, 2, 3, 4, 7),
                  heads = AMONG(m, 1, 2, 3, 4);
    const int32_t d = heads * AMONG(m, 1, 2, 3, 8, 16, 31, 32, 64, 80, 128), n_layers = 1 + next(m) % 3;
    const int32_t n_ff = AMONG(m, 1, 2, 31, 32, 256), hidden = AMONG(m, 1, 3, 32, 64, 256),
                  image = patch * side;
    set_int(m, "image_size", image);
    set_int(m, "patch_size", patch);
    set_int(m, "embedding_length", d);
    set_int(m, "feed_forward_length", n_ff);
    set_int(m, "block_count", n_layers);
    set_int(m, "attention.head_count", heads);
    gguf_set_val_f32(g, "clip.vision.attention.layer_norm_epsilon", 1e-5F);
    set_float(m, "attention.layer_norm_epsilon");
    gguf_set_val_bool(g, "clip.use_gelu", next(m) % 2);
    const float mean[3] = {0.5F, 0.5F, 0.5F}, std[3] = {0.25F, 1e-30F, 1e30F};
    gguf_set_arr_data(g, "clip.vision.image_mean", GGUF_TYPE_FLOAT32, mean, 3);
    gguf_set_arr_data(g, "clip.vision.image_std", GGUF_TYPE_FLOAT32, std, 3);
    if (next(m) % 2) {
        const int32_t layer = (int8_t)(next(m) % 8) - 4;
        gguf_set_arr_data(g, "clip.vision.feature_layer", GGUF_TYPE_INT32, &layer, 1);
    }
    if (next(m) % 2) {
        const int32_t pinpoints[4] = {image, 2 * image, image * (1 + next(m) % 4), image * (1 + next(m) % 4)};
        gguf_set_arr_data(g, "clip.vision.image_grid_pinpoints", GGUF_TYPE_INT32, pinpoints, 4);
        gguf_set_val_str(g, "clip.vision.mm_patch_merge_type", "spatial_unpad");
        VECTOR(m, n_embd, "model.image_newline");
    }
    VECTOR(m, d, "v.class_embd");
    const int32_t kernel_types[] = {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_I32};
    add(m, (enum ggml_type)among(m, kernel_types, 4), (const int64_t[4]){patch, patch, 3, d},
        "v.patch_embd.weight");
    MATRIX(m, d, 1 + side * side, "v.position_embd.weight");
    VECTOR(m, d, "v.pre_ln.weight");
    VECTOR(m, d, "v.pre_ln.bias");
    for (int32_t i = 0; i < n_layers; i++)
        add_vision_layer(m, i, d, n_ff);
    MATRIX(m, d, hidden, "mm.0.weight");
    VECTOR(m, hidden, "mm.0.bias");
    MATRIX(m, hidden, n_embd, "mm.2.weight");
    VECTOR(m, n_embd, "mm.2.bias");
    return finish(m, "mmproj");
}

static inline void choose_policy(maker *m, int32_t n_layers, pd_policy *policy) {
    pd_policy_none(policy);
    policy->scorer = (pd_scorer)(next(m) % 4);
    policy->positions = (pd_positions)(next(m) % 2);
    double ratio = 1.0;
    for (int32_t layer = 1; layer < n_layers; layer++) {
        ratio *= (double)(next(m) % 5) / 4.0;
        policy->layer_list[policy->n_drops] = layer;
        policy->image_token_ratio_list[policy->n_drops++] = ratio;
    }
}
