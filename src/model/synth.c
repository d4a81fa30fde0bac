#include "model/synth.h"

#include "base/file.h"
#include "base/random.h"

#include <gguf.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// Quantising billions of random numbers takes minutes, so large matrices are dealt from a pool of quantised
// chunks.
enum { CHUNK = 1 << 18, CHUNKS = 16, MAX_POOLS = 16 }; // elements; a multiple of every block size

typedef struct {
    enum ggml_type type;
    float deviation;
    uint8_t *bytes; // CHUNKS chunks of ggml_row_size(type, CHUNK), owned
} chunk_pool;

typedef struct {
    const pd_synth_params *params;
    struct gguf_context *gguf;
    struct ggml_context *tensors;
    uint64_t state;
    chunk_pool pools[MAX_POOLS];
    size_t n_pools;
    float *scratch; // CHUNK floats
    pd_file_writer writer;
    size_t written, total; // bytes of tensor data
} synth;

pd_synth_params pd_synth_from_scratch(const pd_geometry_file *file, uint64_t seed) {
    return (pd_synth_params){.geometry = &file->geometry,
                             .type = GGML_TYPE_F32,
                             .vision_type = GGML_TYPE_F32,
                             .seed = seed,
                             .initializer = &file->initializer,
                             .vocabulary = &file->vocabulary};
}

pd_status pd_synth_type(const char *name, enum ggml_type *type, pd_error *err) {
    char names[320] = "";
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const enum ggml_type candidate = (enum ggml_type)i;
        const char *candidate_name = ggml_type_name(candidate);
        const bool is_float =
            candidate == GGML_TYPE_F32 || candidate == GGML_TYPE_F16 || candidate == GGML_TYPE_BF16;
        if (!candidate_name || !(is_float || ggml_is_quantized(candidate)) ||
            ggml_quantize_requires_imatrix(candidate) || strncmp(candidate_name, "q8_1", 4) == 0 ||
            strcmp(candidate_name, "q8_K") == 0) {
            continue;
        }
        if (strcasecmp(name, candidate_name) == 0) {
            *type = candidate;
            return PD_OK;
        }
        const size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", candidate_name);
    }
    return pd_fail(err, PD_ERR_ARGUMENT, "no weight type \"%.32s\" (expected one of %s)", name, names);
}

// ---- random numbers ---------------------------------------------------------------------------------------

// Mean 0, the given deviation: the sum of four uniforms is normal enough for weights.
static void fill_random(synth *s, float *values, size_t n, float deviation) {
    const float scale = deviation * sqrtf(3.0F) / 65536.0F;
    for (size_t i = 0; i < n; i++) {
        const uint64_t bits = pd_random_next(&s->state);
        const int32_t sum =
            (int32_t)((bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48)) -
            2 * 65535;
        values[i] = (float)sum * scale;
    }
}

static pd_status find_pool(synth *s, enum ggml_type type, float deviation, const chunk_pool **found,
                           pd_error *err) {
    for (size_t i = 0; i < s->n_pools; i++) {
        *found = &s->pools[i];
        if ((*found)->type == type && (*found)->deviation == deviation) return PD_OK;
    }
    if (s->n_pools == MAX_POOLS) return pd_fail(err, PD_ERR_UNSUPPORTED, "too many kinds of matrices");
    chunk_pool *pool = &s->pools[s->n_pools];
    const size_t chunk_bytes = ggml_row_size(type, CHUNK);
    pool->bytes = malloc(CHUNKS * chunk_bytes);
    if (!pool->bytes) return pd_fail_memory(err, CHUNKS * chunk_bytes, "random weights");
    pool->type = type;
    pool->deviation = deviation;
    s->n_pools++;
    for (size_t i = 0; i < CHUNKS; i++) {
        fill_random(s, s->scratch, CHUNK, deviation);
        // no block spans 1024 elements, so this cut into rows suits every type
        ggml_quantize_chunk(type, s->scratch, pool->bytes + i * chunk_bytes, 0, CHUNK / 1024, 1024, NULL);
    }
    *found = pool;
    return PD_OK;
}

// ---- tensors ----------------------------------------------------------------------------------------------

static pd_status put(synth *s, const void *bytes, size_t size, pd_error *err) {
    PD_TRY(pd_file_write(&s->writer, bytes, size, err));
    s->written += size;
    if (s->params->go_on &&
        !s->params->go_on("writing", (double)s->written / (double)s->total, s->params->user)) {
        return pd_fail(err, PD_ERR_CANCELLED, "cancelled");
    }
    return PD_OK;
}

static bool ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

// Floats in rows of the tensor's type. n is a whole number of its blocks: rows are, and so is CHUNK.
static pd_status put_floats(synth *s, enum ggml_type type, const float *values, size_t n, pd_error *err) {
    const size_t bytes = ggml_row_size(type, (int64_t)n);
    void *quantised = malloc(bytes);
    if (!quantised) return pd_fail_memory(err, bytes, "random weights");
    ggml_quantize_chunk(type, values, quantised, 0, 1, (int64_t)n, NULL);
    const pd_status status = put(s, quantised, bytes, err);
    free(quantised);
    return status;
}

static int32_t n_decoder_layers(const pd_synth_params *params) {
    return params->n_layers > 0 ? params->n_layers : params->geometry->decoder.n_layers;
}

static pd_status put_initial_tensor(synth *s, const struct ggml_tensor *t, pd_error *err) {
    pd_initial_values values = pd_initial_values_of(t->name, s->params->initializer, s->params->geometry,
                                                    n_decoder_layers(s->params), s->params->seed);
    for (size_t left = (size_t)ggml_nelements(t); left > 0;) {
        const size_t n = left < CHUNK ? left : CHUNK;
        pd_initial_values_next(&values, s->scratch, n);
        PD_TRY(put_floats(s, t->type, s->scratch, n, err));
        left -= n;
    }
    return PD_OK;
}

// Norms are 1, everything else is random: matrices with deviation 1/√n_in, which keeps activations near 1.
static pd_status put_tensor(synth *s, const struct ggml_tensor *t, pd_error *err) {
    const bool is_norm = strstr(t->name, "norm.weight") || strstr(t->name, "ln.weight") ||
                         strstr(t->name, "ln1.weight") || strstr(t->name, "ln2.weight");
    const int64_t n_in = t->ne[1] == 1         ? 2500
                         : ggml_n_dims(t) == 4 ? t->ne[0] * t->ne[1] * t->ne[2]
                                               : t->ne[0];
    const float deviation = ends_with(t->name, "token_embd.weight") ? 1.0F : 1.0F / sqrtf((float)n_in);
    size_t left = (size_t)ggml_nelements(t);
    const bool dealt = left > 4 * (size_t)CHUNK;
    while (left > 0) {
        const size_t n = left < CHUNK ? left : CHUNK, bytes = ggml_row_size(t->type, (int64_t)n);
        if (is_norm) {
            for (size_t i = 0; i < n; i++)
                s->scratch[i] = 1.0F;
            PD_TRY(put(s, s->scratch, bytes, err));
        } else if (dealt) {
            const chunk_pool *pool = NULL;
            PD_TRY(find_pool(s, t->type, deviation, &pool, err));
            PD_TRY(put(s, pool->bytes + pd_random_next(&s->state) % CHUNKS * ggml_row_size(t->type, CHUNK),
                       bytes, err));
        } else {
            fill_random(s, s->scratch, n, deviation);
            PD_TRY(put_floats(s, t->type, s->scratch, n, err));
        }
        left -= n;
    }
    return PD_OK;
}

static void add_tensor(synth *s, enum ggml_type type, int n_dims, const int64_t *ne, const char *name) {
    if (ne[0] % ggml_blck_size(type) != 0) type = ne[0] % 32 == 0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
    struct ggml_tensor *tensor = ggml_new_tensor(s->tensors, type, n_dims, ne);
    ggml_set_name(tensor, name);
    gguf_add_tensor(s->gguf, tensor);
}

__attribute__((format(printf, 4, 5))) static void add_matrix(synth *s, int64_t n_in, int64_t n_out,
                                                             const char *format, ...) {
    char name[GGML_MAX_NAME];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    const bool vision = strncmp(name, "v.", 2) == 0 || strncmp(name, "mm.", 3) == 0;
    add_tensor(s, vision ? s->params->vision_type : s->params->type, 2, (int64_t[2]){n_in, n_out}, name);
}

__attribute__((format(printf, 3, 4))) static void add_vector(synth *s, int64_t n, const char *format, ...) {
    char name[GGML_MAX_NAME];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    add_tensor(s, GGML_TYPE_F32, 1, &n, name);
}

// ---- files ------------------------------------------------------------------------------------------------

static void synth_free(synth *s) {
    pd_file_writer_discard(&s->writer);
    for (size_t i = 0; i < s->n_pools; i++)
        free(s->pools[i].bytes);
    free(s->scratch);
    if (s->gguf) gguf_free(s->gguf);
    if (s->tensors) ggml_free(s->tensors);
}

static pd_status synth_init(synth *s, const pd_synth_params *params, size_t n_tensors, pd_error *err) {
    *s = (synth){.params = params, .state = params->seed};
    const size_t bytes = n_tensors * ggml_tensor_overhead();
    s->tensors =
        ggml_init((struct ggml_init_params){.mem_size = bytes, .mem_buffer = NULL, .no_alloc = true});
    s->gguf = gguf_init_empty();
    s->scratch = malloc(CHUNK * sizeof *s->scratch);
    if (!s->tensors || !s->gguf || !s->scratch) return pd_fail_memory(err, bytes, "a synthetic model");
    return PD_OK;
}

static pd_status write_file(synth *s, const char *path, pd_error *err) {
    static const uint8_t zeros[64] = {0};
    const size_t header = gguf_get_meta_size(s->gguf), alignment = gguf_get_alignment(s->gguf);
    for (struct ggml_tensor *t = ggml_get_first_tensor(s->tensors); t;
         t = ggml_get_next_tensor(s->tensors, t)) {
        s->total += GGML_PAD(ggml_nbytes(t), alignment);
    }
    PD_TRY(pd_file_writer_open(path, &s->writer, err));
    PD_TRY(pd_file_writer_reserve(&s->writer, header + s->total, err));
    void *bytes = malloc(header);
    if (!bytes) return pd_fail_memory(err, header, "a GGUF header");
    gguf_get_meta_data(s->gguf, bytes);
    const pd_status status = pd_file_write(&s->writer, bytes, header, err);
    free(bytes);
    PD_TRY(status);
    for (struct ggml_tensor *t = ggml_get_first_tensor(s->tensors); t;
         t = ggml_get_next_tensor(s->tensors, t)) {
        PD_TRY(s->params->initializer ? put_initial_tensor(s, t, err) : put_tensor(s, t, err));
        PD_TRY(put(s, zeros, GGML_PAD(ggml_nbytes(t), alignment) - ggml_nbytes(t), err));
    }
    return pd_file_writer_commit(&s->writer, err);
}

// A SentencePiece-style vocabulary of n tokens that covers all text: control tokens, the 256 bytes, printable
// characters, then letter combinations, with and without a space before them.
static pd_status add_vocabulary(synth *s, int32_t n, pd_error *err) {
    enum { TOKEN_SIZE = 16 };
    char(*texts)[TOKEN_SIZE] = calloc((size_t)n, sizeof *texts);
    const char **pointers = calloc((size_t)n, sizeof *pointers);
    float *scores = calloc((size_t)n, sizeof *scores);
    int32_t *types = calloc((size_t)n, sizeof *types);
    pd_status status = PD_OK;
    if (!texts || !pointers || !scores || !types) {
        status = pd_fail_memory(err, (size_t)n * sizeof *texts, "a vocabulary");
        n = 0;
    }
    static const char *const controls[] = {"<unk>", "<s>", "</s>"};
    for (int32_t i = 0; i < n; i++) {
        pointers[i] = texts[i];
        scores[i] = i < 259 ? 0.0F : (float)(259 - i);
        types[i] = i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1; // unknown, control, byte, normal
        int32_t rest = i - 259;
        if (i < 3) {
            snprintf(texts[i], TOKEN_SIZE, "%s", controls[i]);
        } else if (i < 259) {
            snprintf(texts[i], TOKEN_SIZE, "<0x%02X>", (unsigned)(i - 3));
        } else if (rest == 0) {
            snprintf(texts[i], TOKEN_SIZE, "\xe2\x96\x81"); // U+2581, the space
        } else if (rest < 95) {
            snprintf(texts[i], TOKEN_SIZE, "%c", ' ' + rest); // '!' … '~'
        } else {
            rest -= 95;
            const char *space = rest % 2 ? "" : "\xe2\x96\x81";
            rest /= 2;
            char letters[8];
            int length = 0;
            for (rest += 26; rest >= 0 && length < 6; rest = rest / 26 - 1)
                letters[length++] = (char)('a' + rest % 26);
            letters[length] = '\0';
            snprintf(texts[i], TOKEN_SIZE, "%s%s", space, letters);
        }
    }
    if (status == PD_OK) {
        gguf_set_val_str(s->gguf, "tokenizer.ggml.model", "llama");
        gguf_set_arr_str(s->gguf, "tokenizer.ggml.tokens", pointers, (size_t)n);
        gguf_set_arr_data(s->gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores, (size_t)n);
        gguf_set_arr_data(s->gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types, (size_t)n);
        gguf_set_val_u32(s->gguf, "tokenizer.ggml.bos_token_id", 1);
        gguf_set_val_u32(s->gguf, "tokenizer.ggml.eos_token_id", 2);
        gguf_set_val_u32(s->gguf, "tokenizer.ggml.unknown_token_id", 0);
        gguf_set_val_bool(s->gguf, "tokenizer.ggml.add_bos_token", true);
        gguf_set_val_bool(s->gguf, "tokenizer.ggml.add_eos_token", false);
    }
    free(types);
    free(scores);
    free(pointers);
    free(texts);
    return status;
}

// All of the other file's tokenizer.* metadata.
static pd_status copy_vocabulary(synth *s, const pd_gguf *vocabulary, pd_error *err) {
    struct gguf_context *copy = gguf_init_empty();
    if (!copy) return pd_fail_memory(err, vocabulary->file.size, "a vocabulary");
    gguf_set_kv(copy, vocabulary->gguf);
    for (int64_t i = gguf_get_n_kv(copy) - 1; i >= 0; i--) {
        const char *key = gguf_get_key(copy, i);
        if (strncmp(key, "tokenizer.", strlen("tokenizer.")) != 0) gguf_remove_key(copy, key);
    }
    gguf_set_kv(s->gguf, copy);
    gguf_free(copy);
    return PD_OK;
}

static void add_decoder(synth *s, const pd_decoder_hyperparameters *h, int32_t n_layers) {
    struct gguf_context *g = s->gguf;
    gguf_set_val_u32(g, "llama.block_count", (uint32_t)n_layers);
    gguf_set_val_u32(g, "llama.context_length", (uint32_t)h->n_ctx_train);
    gguf_set_val_u32(g, "llama.embedding_length", (uint32_t)h->n_embd);
    gguf_set_val_u32(g, "llama.feed_forward_length", (uint32_t)h->n_ff);
    gguf_set_val_u32(g, "llama.attention.head_count", (uint32_t)h->n_heads);
    gguf_set_val_u32(g, "llama.attention.head_count_kv", (uint32_t)h->n_kv_heads);
    if (h->head_dim * h->n_heads != h->n_embd) {
        gguf_set_val_u32(g, "llama.attention.key_length", (uint32_t)h->head_dim);
        gguf_set_val_u32(g, "llama.attention.value_length", (uint32_t)h->head_dim);
    }
    gguf_set_val_f32(g, "llama.attention.layer_norm_rms_epsilon", h->rms_epsilon);
    gguf_set_val_u32(g, "llama.rope.dimension_count", (uint32_t)h->rope_dim);
    gguf_set_val_f32(g, "llama.rope.freq_base", h->rope_base);
    gguf_set_val_u32(g, "llama.vocab_size", (uint32_t)h->n_vocab);
    const int64_t d = h->n_embd, q = (int64_t)h->n_heads * h->head_dim,
                  kv = (int64_t)h->n_kv_heads * h->head_dim;
    add_matrix(s, d, h->n_vocab, "token_embd.weight");
    add_vector(s, d, "output_norm.weight");
    if (!h->tied_embeddings) add_matrix(s, d, h->n_vocab, "output.weight");
    for (int32_t i = 0; i < n_layers; i++) {
        add_vector(s, d, "blk.%d.attn_norm.weight", i);
        add_matrix(s, d, q, "blk.%d.attn_q.weight", i);
        add_matrix(s, d, kv, "blk.%d.attn_k.weight", i);
        add_matrix(s, d, kv, "blk.%d.attn_v.weight", i);
        add_matrix(s, q, d, "blk.%d.attn_output.weight", i);
        add_vector(s, d, "blk.%d.ffn_norm.weight", i);
        add_matrix(s, d, h->n_ff, "blk.%d.ffn_gate.weight", i);
        add_matrix(s, d, h->n_ff, "blk.%d.ffn_up.weight", i);
        add_matrix(s, h->n_ff, d, "blk.%d.ffn_down.weight", i);
    }
}

static void set_name(synth *s, const char *architecture) {
    char name[128];
    snprintf(name, sizeof name, "%s%s", s->params->geometry->title,
             s->params->initializer ? "" : ", random weights");
    gguf_set_val_str(s->gguf, "general.architecture", architecture);
    gguf_set_val_str(s->gguf, "general.name", name);
    if (s->params->initializer) {
        char seed[24];
        snprintf(seed, sizeof seed, "%" PRIu64, s->params->seed);
        gguf_set_val_str(s->gguf, PD_INITIAL_SEED_KEY, seed);
    }
}

static pd_status describe_model(synth *s, const pd_synth_params *params, pd_error *err) {
    const pd_geometry *geometry = params->geometry;
    const int32_t n_layers = n_decoder_layers(params);
    PD_TRY(synth_init(s, params, 3 + 9 * (size_t)n_layers, err));
    set_name(s, "llama");
    add_decoder(s, &geometry->decoder, n_layers);
    return params->vocabulary ? copy_vocabulary(s, params->vocabulary, err)
                              : add_vocabulary(s, geometry->decoder.n_vocab, err);
}

static void add_vision(synth *s, const pd_vision_hyperparameters *h, int64_t hidden, int64_t n_embd) {
    struct gguf_context *g = s->gguf;
    gguf_set_val_bool(g, "clip.has_text_encoder", false);
    gguf_set_val_bool(g, "clip.has_vision_encoder", true);
    gguf_set_val_bool(g, "clip.has_llava_projector", true);
    gguf_set_val_str(g, "clip.projector_type", "mlp");
    gguf_set_val_bool(g, "clip.use_gelu", h->exact_gelu);
    gguf_set_val_u32(g, "clip.vision.image_size", (uint32_t)h->image_size);
    gguf_set_val_u32(g, "clip.vision.patch_size", (uint32_t)h->patch_size);
    gguf_set_val_u32(g, "clip.vision.embedding_length", (uint32_t)h->n_embd);
    gguf_set_val_u32(g, "clip.vision.feed_forward_length", (uint32_t)h->n_ff);
    gguf_set_val_u32(g, "clip.vision.block_count", (uint32_t)h->n_layers);
    gguf_set_val_u32(g, "clip.vision.projection_dim", (uint32_t)n_embd);
    gguf_set_val_u32(g, "clip.vision.attention.head_count", (uint32_t)h->n_heads);
    gguf_set_val_f32(g, "clip.vision.attention.layer_norm_epsilon", h->epsilon);
    gguf_set_arr_data(g, "clip.vision.image_mean", GGUF_TYPE_FLOAT32, h->mean, 3);
    gguf_set_arr_data(g, "clip.vision.image_std", GGUF_TYPE_FLOAT32, h->std, 3);
    gguf_set_arr_data(g, "clip.vision.feature_layer", GGUF_TYPE_INT32, &h->n_layers_run, 1);
    if (h->n_pinpoints > 0) {
        gguf_set_arr_data(g, "clip.vision.image_grid_pinpoints", GGUF_TYPE_INT32, h->pinpoints,
                          2 * (size_t)h->n_pinpoints);
        gguf_set_val_str(g, "clip.vision.image_aspect_ratio", "anyres");
        gguf_set_val_str(g, "clip.vision.mm_patch_merge_type", "spatial_unpad");
        add_vector(s, n_embd, "model.image_newline");
    }
    const int64_t d = h->n_embd, side = h->image_size / h->patch_size;
    add_vector(s, d, "v.class_embd");
    const enum ggml_type kernel_type =
        s->params->vision_type == GGML_TYPE_F32 ? GGML_TYPE_F32 : GGML_TYPE_F16;
    struct ggml_tensor *kernel =
        ggml_new_tensor_4d(s->tensors, kernel_type, h->patch_size, h->patch_size, 3, d);
    ggml_set_name(kernel, "v.patch_embd.weight");
    gguf_add_tensor(g, kernel);
    add_matrix(s, d, 1 + side * side, "v.position_embd.weight");
    add_vector(s, d, "v.pre_ln.weight");
    add_vector(s, d, "v.pre_ln.bias");
    static const char *const square[] = {"attn_q", "attn_k", "attn_v", "attn_out"};
    for (int32_t i = 0; i < h->n_layers; i++) {
        for (int j = 1; j <= 2; j++) {
            add_vector(s, d, "v.blk.%d.ln%d.weight", i, j);
            add_vector(s, d, "v.blk.%d.ln%d.bias", i, j);
        }
        for (size_t j = 0; j < 4; j++) {
            add_matrix(s, d, d, "v.blk.%d.%s.weight", i, square[j]);
            add_vector(s, d, "v.blk.%d.%s.bias", i, square[j]);
        }
        add_matrix(s, d, h->n_ff, "v.blk.%d.ffn_up.weight", i);
        add_vector(s, h->n_ff, "v.blk.%d.ffn_up.bias", i);
        add_matrix(s, h->n_ff, d, "v.blk.%d.ffn_down.weight", i);
        add_vector(s, d, "v.blk.%d.ffn_down.bias", i);
    }
    add_matrix(s, d, hidden, "mm.0.weight");
    add_vector(s, hidden, "mm.0.bias");
    add_matrix(s, hidden, n_embd, "mm.2.weight");
    add_vector(s, n_embd, "mm.2.bias");
}

static pd_status describe_mmproj(synth *s, const pd_synth_params *params, pd_error *err) {
    const pd_geometry *geometry = params->geometry;
    PD_TRY(synth_init(s, params, 16 + 16 * (size_t)geometry->vision.n_layers, err));
    set_name(s, "clip");
    add_vision(s, &geometry->vision, geometry->projector_hidden, geometry->decoder.n_embd);
    return PD_OK;
}

// ------------------------------------------------------------------------------------------------------------

// To be freed whatever is returned.
static pd_status describe(synth *s, const pd_synth_params *params, bool mmproj, pd_error *err) {
    return mmproj ? describe_mmproj(s, params, err) : describe_model(s, params, err);
}

static pd_status synth_file(const pd_synth_params *params, bool mmproj, const char *path, pd_error *err) {
    synth s;
    pd_status status = describe(&s, params, mmproj, err);
    if (status == PD_OK) status = write_file(&s, path, err);
    synth_free(&s);
    return status;
}

pd_status pd_synth_model(const pd_synth_params *params, const char *path, pd_error *err) {
    return synth_file(params, false, path, err);
}

pd_status pd_synth_mmproj(const pd_synth_params *params, const char *path, pd_error *err) {
    return synth_file(params, true, path, err);
}

static pd_status compare_header(const synth *s, const char *path, bool *same, pd_error *err) {
    pd_mapped_file file;
    PD_TRY(pd_mapped_file_open(path, &file, err));
    const size_t size = gguf_get_meta_size(s->gguf);
    void *header = malloc(size);
    pd_status status = header ? PD_OK : pd_fail_memory(err, size, "a GGUF header");
    if (status == PD_OK) {
        gguf_get_meta_data(s->gguf, header);
        *same = file.size >= size && memcmp(file.data, header, size) == 0;
    }
    free(header);
    pd_mapped_file_close(&file);
    return status;
}

pd_status pd_synth_would_be(const pd_synth_params *params, bool mmproj, const char *path, bool *same,
                            pd_error *err) {
    synth s;
    *same = false;
    pd_status status = describe(&s, params, mmproj, err);
    if (status == PD_OK) status = compare_header(&s, path, same, err);
    synth_free(&s);
    return status;
}
