// Well-formed model files whose metadata or tensors are not what they must be: missing, of another type,
// length or range, contradicting each other. Each must be refused in one line that names the file, the field
// and what was expected.
#include "damaged_pair.h"

#include "base/gguf_file.h"

// ---- metadata ---------------------------------------------------------------------------------------------

typedef enum {
    END,
    REMOVE,
    U32,
    I32,
    U64,
    F32,
    F64,
    BOOL,
    STR,
    ARR_I32,
    ARR_U32,
    ARR_F32,
    ARR_F64,
    ARR_STR
} kind;

typedef struct {
    const char *key;
    kind kind;
    double number;    // the value, or that of all elements
    size_t n;         // of an array
    const char *text; // STR
} edit;

static void apply_edit(struct gguf_context *gguf, const edit *e) {
    enum { MAX_ELEMENTS = 400 };
    assert_true(e->n <= MAX_ELEMENTS);
    int32_t i32[MAX_ELEMENTS];
    uint32_t u32[MAX_ELEMENTS];
    float f32[MAX_ELEMENTS];
    double f64[MAX_ELEMENTS];
    const char *texts[MAX_ELEMENTS];
    for (size_t i = 0; i < e->n; i++) {
        i32[i] = (int32_t)e->number;
        u32[i] = (uint32_t)e->number;
        f32[i] = (float)e->number;
        f64[i] = e->number;
        texts[i] = "text";
    }
    gguf_remove_key(gguf, e->key);
    switch (e->kind) {
    case END:
    case REMOVE:
        break;
    case U32:
        gguf_set_val_u32(gguf, e->key, (uint32_t)e->number);
        break;
    case I32:
        gguf_set_val_i32(gguf, e->key, (int32_t)e->number);
        break;
    case U64:
        gguf_set_val_u64(gguf, e->key, (uint64_t)e->number);
        break;
    case F32:
        gguf_set_val_f32(gguf, e->key, (float)e->number);
        break;
    case F64:
        gguf_set_val_f64(gguf, e->key, e->number);
        break;
    case BOOL:
        gguf_set_val_bool(gguf, e->key, e->number != 0.0);
        break;
    case STR:
        gguf_set_val_str(gguf, e->key, e->text);
        break;
    case ARR_I32:
        gguf_set_arr_data(gguf, e->key, GGUF_TYPE_INT32, i32, e->n);
        break;
    case ARR_U32:
        gguf_set_arr_data(gguf, e->key, GGUF_TYPE_UINT32, u32, e->n);
        break;
    case ARR_F32:
        gguf_set_arr_data(gguf, e->key, GGUF_TYPE_FLOAT32, f32, e->n);
        break;
    case ARR_F64:
        gguf_set_arr_data(gguf, e->key, GGUF_TYPE_FLOAT64, f64, e->n);
        break;
    case ARR_STR:
        gguf_set_arr_str(gguf, e->key, texts, e->n);
        break;
    }
}

// One tensor made anew: missing, or of another type or shape, filled with one byte.
typedef struct {
    const char *name;
    bool missing;
    enum ggml_type type;
    int64_t ne[4];
    uint8_t byte;
} tensor_edit;

// Copies a golden file with the edits (ended by END) and, where it is not NULL, the tensor's.
static void write_edited(const char *good, const char *path, const edit *edits, const tensor_edit *tensor) {
    struct ggml_context *tensors;
    struct gguf_context *source = gguf_init_from_file(good, (struct gguf_init_params){.ctx = &tensors});
    assert_non_null(source);
    struct gguf_context *gguf = gguf_init_empty();
    gguf_set_kv(gguf, source);
    for (const edit *e = edits; e && e->kind != END; e++)
        apply_edit(gguf, e);
    struct ggml_context *scratch = ggml_init((struct ggml_init_params){.mem_size = 1 << 20});
    assert_non_null(scratch);
    for (int64_t i = 0; i < gguf_get_n_tensors(source); i++) {
        const char *name = gguf_get_tensor_name(source, i);
        struct ggml_tensor *t = ggml_get_tensor(tensors, name);
        if (tensor && strcmp(name, tensor->name) == 0) {
            if (tensor->missing) continue;
            t = ggml_new_tensor(scratch, tensor->type, 4, tensor->ne);
            ggml_set_name(t, name);
            memset(t->data, tensor->byte, ggml_nbytes(t));
        }
        gguf_add_tensor(gguf, t);
    }
    assert_true(gguf_write_to_file(gguf, path, false));
    ggml_free(scratch);
    gguf_free(gguf);
    gguf_free(source);
    ggml_free(tensors);
}

typedef struct {
    edit edits[4]; // up to the first END
    pd_status status;
    const char *part; // of the line
} metadata_case;

static void check_metadata(const char *good, bool is_text, const metadata_case *cases, size_t n) {
    const char *path = is_text ? text_path : mmproj_path;
    for (size_t i = 0; i < n; i++) {
        write_edited(good, path, cases[i].edits, NULL);
        assert_refused(is_text ? path : good_text, is_text ? NULL : path, cases[i].status, path,
                       cases[i].part);
    }
}
#define CHECK_METADATA(good, is_text, cases)                                                                 \
    check_metadata(good, is_text, cases, sizeof(cases) / sizeof *(cases))

static void test_missing_keys(void **state) {
    (void)state;
    static const char *const text_keys[] = {"general.architecture",
                                            "llama.block_count",
                                            "llama.context_length",
                                            "llama.embedding_length",
                                            "llama.feed_forward_length",
                                            "llama.attention.head_count",
                                            "llama.attention.layer_norm_rms_epsilon",
                                            "tokenizer.ggml.model",
                                            "tokenizer.ggml.tokens",
                                            "tokenizer.ggml.scores",
                                            "tokenizer.ggml.token_type"};
    static const char *const mmproj_keys[] = {"general.architecture",
                                              "clip.vision.image_size",
                                              "clip.vision.patch_size",
                                              "clip.vision.embedding_length",
                                              "clip.vision.feed_forward_length",
                                              "clip.vision.block_count",
                                              "clip.vision.attention.head_count",
                                              "clip.vision.attention.layer_norm_epsilon",
                                              "clip.vision.image_mean",
                                              "clip.vision.image_std"};
    for (size_t i = 0; i < sizeof text_keys / sizeof *text_keys; i++) {
        write_edited(good_text, text_path, (edit[]){{.key = text_keys[i], .kind = REMOVE}, {0}}, NULL);
        assert_refused(text_path, NULL, PD_ERR_FORMAT, text_path, text_keys[i]);
    }
    for (size_t i = 0; i < sizeof mmproj_keys / sizeof *mmproj_keys; i++) {
        write_edited(good_mmproj, mmproj_path, (edit[]){{.key = mmproj_keys[i], .kind = REMOVE}, {0}}, NULL);
        assert_refused(good_text, mmproj_path, PD_ERR_FORMAT, mmproj_path, mmproj_keys[i]);
    }
}

// Every key that is read, as a value of another type than it can have.
static void check_wrong_types(const char *good, bool is_text) {
    static const char *const not_read[] = {"general.file_type",          "general.description",
                                           "llama.vocab_size",           "tokenizer.ggml.pre",
                                           "clip.has_text_encoder",      "clip.has_llava_projector",
                                           "clip.vision.projection_dim", "tokenizer.ggml.add_eos_token"};
    const char *path = is_text ? text_path : mmproj_path;
    pd_gguf file;
    assert_int_equal(pd_gguf_open(good, &file, NULL), PD_OK);
    int n_checked = 0;
    for (int64_t i = 0; i < gguf_get_n_kv(file.gguf); i++) {
        const char *key = gguf_get_key(file.gguf, i);
        bool skip = !is_text && strcmp(key, "general.name") == 0; // only a text model's chooses a template
        for (size_t j = 0; j < sizeof not_read / sizeof *not_read; j++)
            skip = skip || strcmp(key, not_read[j]) == 0;
        if (skip) continue;
        const edit wrong[] = {{.key = key, .kind = ARR_U32, .number = 1, .n = 3},
                              {.key = key, .kind = ARR_STR, .n = 2},
                              {.key = key, .kind = BOOL, .number = 1},
                              {.key = key, .kind = STR, .text = "text"},
                              {.key = key, .kind = F64, .number = 0.5}};
        for (size_t j = 0; j < sizeof wrong / sizeof *wrong; j++) {
            const enum gguf_type type = gguf_get_kv_type(file.gguf, i);
            const bool strings =
                type == GGUF_TYPE_ARRAY && gguf_get_arr_type(file.gguf, i) == GGUF_TYPE_STRING;
            if ((wrong[j].kind == BOOL && type == GGUF_TYPE_BOOL) || (wrong[j].kind == ARR_STR && strings) ||
                (wrong[j].kind == STR && type == GGUF_TYPE_STRING) ||
                (wrong[j].kind == F64 && type == GGUF_TYPE_FLOAT32)) {
                continue;
            }
            write_edited(good, path, (edit[]){wrong[j], {0}}, NULL);
            assert_refused(is_text ? path : good_text, is_text ? NULL : path, PD_ERR_FORMAT, path, key);
            n_checked++;
        }
    }
    assert_true(n_checked > 40);
    pd_gguf_close(&file);
}

static void test_wrong_types(void **state) {
    (void)state;
    check_wrong_types(good_text, true);
    check_wrong_types(good_mmproj, false);
}

static void test_text_metadata(void **state) {
    (void)state;
    static const metadata_case cases[] = {
        {{{"general.architecture", STR, 0, 0, "mamba"}},
         PD_ERR_UNSUPPORTED,
         "expected llama or qwen2, found"},
        {{{"general.architecture", STR, 0, 0, "lla\nma\x1b[2J"}}, PD_ERR_UNSUPPORTED, "found \"lla?ma?[2J\""},
        {{{"general.architecture", STR, 0, 0, "\xff\xe2\x96llama\xc3\xa9"}},
         PD_ERR_UNSUPPORTED,
         "\"???llama\xc3\xa9\""},
        {{{"llama.block_count", U32, 0, 0, NULL}},
         PD_ERR_FORMAT,
         "llama.block_count: expected 1 to 1024, found 0"},
        {{{"llama.block_count", U32, 7, 0, NULL}}, PD_ERR_FORMAT, "tensor blk.6.attn_norm.weight is missing"},
        {{{"llama.block_count", U32, 4294967295.0, 0, NULL}},
         PD_ERR_FORMAT,
         "expected 1 to 1024, found 4294967295"},
        {{{"llama.block_count", I32, -1, 0, NULL}}, PD_ERR_FORMAT, "expected an integer in 0..4294967295"},
        {{{"llama.block_count", U64, 1e19, 0, NULL}}, PD_ERR_FORMAT, "expected an integer in 0..4294967295"},
        {{{"llama.embedding_length", U32, 65, 0, NULL}}, PD_ERR_FORMAT, "attention.key_length is missing"},
        {{{"llama.embedding_length", U32, 128, 0, NULL}}, PD_ERR_FORMAT, "expected shape [128, 320, 1, 1]"},
        {{{"llama.feed_forward_length", U32, 127, 0, NULL}},
         PD_ERR_FORMAT,
         "ffn_gate.weight: expected shape [64, 127,"},
        {{{"llama.attention.head_count", U32, 0, 0, NULL}}, PD_ERR_FORMAT, "expected 1 to 4096, found 0"},
        {{{"llama.attention.head_count", U32, 4097, 0, NULL}},
         PD_ERR_FORMAT,
         "expected 1 to 4096, found 4097"},
        {{{"llama.attention.head_count_kv", U32, 3, 0, NULL}},
         PD_ERR_FORMAT,
         "expected a divisor of the 4 heads"},
        {{{"llama.attention.head_count_kv", U32, 8, 0, NULL}}, PD_ERR_FORMAT, "expected 1 to 4, found 8"},
        {{{"llama.attention.head_count_kv", U32, 2, 0, NULL}},
         PD_ERR_FORMAT,
         "attn_k.weight: expected shape [64, 32,"},
        {{{"llama.attention.key_length", U32, 1, 0, NULL}}, PD_ERR_FORMAT, "from 2 to 4096, found 1"},
        {{{"llama.attention.key_length", U32, 15, 0, NULL}},
         PD_ERR_FORMAT,
         "expected an even number from 2 to 4096, found 15"},
        {{{"llama.attention.head_count", U32, 64, 0, NULL}}, PD_ERR_FORMAT, "from 2 to 4096, found 1"},
        {{{"llama.attention.value_length", U32, 8, 0, NULL}},
         PD_ERR_UNSUPPORTED,
         "expected the key length 16, found 8"},
        {{{"llama.attention.layer_norm_rms_epsilon", F32, -1, 0, NULL}},
         PD_ERR_FORMAT,
         "expected 0 to 1, found -1"},
        {{{"llama.attention.layer_norm_rms_epsilon", F32, (double)NAN, 0, NULL}},
         PD_ERR_FORMAT,
         "expected a finite"},
        {{{"llama.attention.layer_norm_rms_epsilon", F64, 1e300, 0, NULL}},
         PD_ERR_FORMAT,
         "expected a finite"},
        {{{"llama.rope.dimension_count", U32, 15, 0, NULL}}, PD_ERR_FORMAT, "expected an even number"},
        {{{"llama.rope.dimension_count", U32, 18, 0, NULL}}, PD_ERR_FORMAT, "expected 2 to 16, found 18"},
        {{{"llama.rope.freq_base", F32, 0, 0, NULL}}, PD_ERR_FORMAT, "llama.rope.freq_base: expected 1 to"},
        {{{"llama.rope.scaling.type", STR, 0, 0, "longrope"}},
         PD_ERR_UNSUPPORTED,
         "expected none, linear or yarn"},
        {{{"llama.rope.scaling.factor", F32, -4, 0, NULL}},
         PD_ERR_FORMAT,
         "llama.rope.scaling.factor: expected 0 to"},
        {{{"llama.rope.scaling.factor", F32, 1e-30, 0, NULL}},
         PD_ERR_FORMAT,
         "expected at least 0.001, found 1e-30"},
        {{{"llama.context_length", U32, 0, 0, NULL}}, PD_ERR_FORMAT, "llama.context_length: expected 1 to"},
        {{{"llama.context_length", U32, 4e9, 0, NULL}}, PD_ERR_FORMAT, "llama.context_length: expected 1 to"},
        {{{"llama.expert_count", U32, 8, 0, NULL}}, PD_ERR_UNSUPPORTED, "mixture-of-experts"},
        {{{"tokenizer.ggml.model", STR, 0, 0, "t5"}}, PD_ERR_UNSUPPORTED, "tokenizer.ggml.model"},
        {{{"tokenizer.ggml.tokens", ARR_STR, 0, 0, NULL}}, PD_ERR_FORMAT, "expected 1 to"},
        {{{"tokenizer.ggml.tokens", ARR_STR, 0, 319, NULL}}, PD_ERR_FORMAT, "expected 319 elements"},
        {{{"tokenizer.ggml.tokens", ARR_STR, 0, 321, NULL},
          {"tokenizer.ggml.scores", ARR_F32, 0, 321, NULL},
          {"tokenizer.ggml.token_type", ARR_I32, 1, 321, NULL}},
         PD_ERR_FORMAT,
         "expected at most the embedding's 320 rows, found 321"},
        {{{"tokenizer.ggml.scores", ARR_F32, 0, 319, NULL}}, PD_ERR_FORMAT, "scores: expected 320 elements"},
        {{{"tokenizer.ggml.scores", ARR_F32, 0, 0, NULL}}, PD_ERR_FORMAT, "scores: expected 320 elements"},
        {{{"tokenizer.ggml.scores", ARR_F64, 0, 320, NULL}}, PD_ERR_FORMAT, "expected an array of f32"},
        {{{"tokenizer.ggml.scores", ARR_F32, (double)NAN, 320, NULL}},
         PD_ERR_FORMAT,
         "expected a finite number"},
        {{{"tokenizer.ggml.token_type", ARR_I32, 1, 80, NULL}},
         PD_ERR_FORMAT,
         "token_type: expected 320 elements"},
        {{{"tokenizer.ggml.token_type", ARR_U32, 1, 320, NULL}}, PD_ERR_FORMAT, "expected an array of i32"},
        {{{"tokenizer.ggml.token_type", ARR_I32, 99, 320, NULL}},
         PD_ERR_FORMAT,
         "expected a type in 0..6, found 99"},
        {{{"tokenizer.ggml.token_type", ARR_I32, -1, 320, NULL}},
         PD_ERR_FORMAT,
         "expected a type in 0..6, found -1"},
        {{{"tokenizer.ggml.token_type", ARR_I32, 6, 320, NULL}}, PD_ERR_FORMAT, "expected a byte token"},
        {{{"tokenizer.ggml.bos_token_id", U32, 320, 0, NULL}},
         PD_ERR_FORMAT,
         "expected a token id in 0..319, found 320"},
        {{{"tokenizer.ggml.eos_token_id", U32, 4e9, 0, NULL}},
         PD_ERR_FORMAT,
         "expected a token id in 0..319"},
        {{{"tokenizer.ggml.eot_token_id", U32, 1000, 0, NULL}},
         PD_ERR_FORMAT,
         "expected a token id in 0..319"},
    };
    CHECK_METADATA(good_text, true, cases);
}

static void test_bpe_metadata(void **state) {
    (void)state;
    static const metadata_case cases[] = {
        {{{"tokenizer.ggml.merges", ARR_I32, 1, 50, NULL}},
         PD_ERR_FORMAT,
         "tokenizer.ggml.merges: expected an array of"},
        {{{"tokenizer.ggml.merges", STR, 0, 0, "a b"}},
         PD_ERR_FORMAT,
         "tokenizer.ggml.merges: expected an array of"},
        {{{"tokenizer.ggml.merges", ARR_STR, 0, 3, NULL}}, PD_ERR_FORMAT, "tokenizer.ggml.merges"},
        {{{"tokenizer.ggml.token_type", ARR_I32, 1, 319, NULL}}, PD_ERR_FORMAT, "expected 320 elements"},
    };
    char qwen2[512];
    snprintf(qwen2, sizeof qwen2, "%s/parity/qwen2.gguf", PD_TEST_DATA);
    CHECK_METADATA(qwen2, true, cases);
}

static void test_mmproj_metadata(void **state) {
    (void)state;
    static const metadata_case cases[] = {
        {{{"clip.has_vision_encoder", BOOL, 0, 0, NULL}}, PD_ERR_UNSUPPORTED, "holds no vision encoder"},
        {{{"clip.projector_type", STR, 0, 0, "resampler"}},
         PD_ERR_UNSUPPORTED,
         "expected mlp, found \"resampler\""},
        {{{"clip.use_silu", BOOL, 1, 0, NULL}}, PD_ERR_UNSUPPORTED, "clip.use_silu"},
        {{{"clip.vision.image_size", U32, 0, 0, NULL}},
         PD_ERR_FORMAT,
         "clip.vision.image_size: expected 1 to 4096"},
        {{{"clip.vision.image_size", U32, 70000, 0, NULL}},
         PD_ERR_FORMAT,
         "clip.vision.image_size: expected 1 to 4096"},
        {{{"clip.vision.image_size", U32, 57, 0, NULL}},
         PD_ERR_FORMAT,
         "expected a divisor of the image size 57"},
        {{{"clip.vision.image_size", U32, 70, 0, NULL}},
         PD_ERR_FORMAT,
         "position_embd.weight: expected shape [32, 26,"},
        {{{"clip.vision.patch_size", U32, 0, 0, NULL}},
         PD_ERR_FORMAT,
         "clip.vision.patch_size: expected 1 to 56"},
        {{{"clip.vision.patch_size", U32, 1, 0, NULL}},
         PD_ERR_FORMAT,
         "patch_embd.weight: expected shape [1, 1, 3,"},
        {{{"clip.vision.embedding_length", U32, 64, 0, NULL}}, PD_ERR_FORMAT, "expected shape [64, 1, 1, 1]"},
        {{{"clip.vision.feed_forward_length", U32, 65, 0, NULL}},
         PD_ERR_FORMAT,
         "ffn_up.weight: expected shape [32, 65,"},
        {{{"clip.vision.block_count", U32, 3, 0, NULL}, {"clip.vision.feature_layer", ARR_I32, 3, 1, NULL}},
         PD_ERR_FORMAT,
         "tensor v.blk.2.ln1.weight is missing"},
        {{{"clip.vision.attention.head_count", U32, 3, 0, NULL}},
         PD_ERR_FORMAT,
         "expected a divisor of the embedding"},
        {{{"clip.vision.attention.layer_norm_epsilon", F32, 2, 0, NULL}},
         PD_ERR_FORMAT,
         "expected 0 to 1, found 2"},
        {{{"clip.vision.feature_layer", ARR_I32, 0, 1, NULL}},
         PD_ERR_FORMAT,
         "feature_layer: expected a layer in 1..2"},
        {{{"clip.vision.feature_layer", ARR_I32, 3, 1, NULL}},
         PD_ERR_FORMAT,
         "feature_layer: expected a layer in 1..2"},
        {{{"clip.vision.feature_layer", ARR_I32, -3, 1, NULL}},
         PD_ERR_FORMAT,
         "feature_layer: expected a layer in 1..2"},
        {{{"clip.vision.feature_layer", ARR_I32, 1, 4, NULL}},
         PD_ERR_UNSUPPORTED,
         "expected one layer, found 4"},
        {{{"clip.vision.image_mean", ARR_F32, 0.5, 2, NULL}},
         PD_ERR_FORMAT,
         "image_mean: expected 3 numbers, found 2"},
        {{{"clip.vision.image_mean", ARR_F32, (double)NAN, 3, NULL}},
         PD_ERR_FORMAT,
         "image_mean: expected numbers from 0 to 1, found nan"},
        {{{"clip.vision.image_mean", ARR_F32, -0.5, 3, NULL}},
         PD_ERR_FORMAT,
         "image_mean: expected numbers from 0 to 1, found -0.5"},
        {{{"clip.vision.image_mean", ARR_F64, 0.5, 3, NULL}},
         PD_ERR_FORMAT,
         "image_mean: expected an array of f32"},
        {{{"clip.vision.image_std", ARR_F32, 0, 3, NULL}},
         PD_ERR_FORMAT,
         "image_std: expected numbers from 1e-06 to 1000, found 0"},
        {{{"clip.vision.image_std", ARR_F32, 1, 4, NULL}},
         PD_ERR_FORMAT,
         "image_std: expected 3 numbers, found 4"},
        {{{"clip.vision.image_grid_pinpoints", ARR_I32, 56, 3, NULL}},
         PD_ERR_FORMAT,
         "pairs, found 3 numbers"},
        {{{"clip.vision.image_grid_pinpoints", ARR_I32, 56, 130, NULL}},
         PD_ERR_FORMAT,
         "expected at most 64 pairs"},
        {{{"clip.vision.image_grid_pinpoints", ARR_I32, 57, 2, NULL}},
         PD_ERR_FORMAT,
         "expected multiples of the image size"},
        {{{"clip.vision.image_grid_pinpoints", ARR_I32, -56, 2, NULL}},
         PD_ERR_FORMAT,
         "expected multiples of the image size"},
        {{{"clip.vision.image_grid_pinpoints", ARR_U32, 56, 2, NULL}},
         PD_ERR_FORMAT,
         "expected an array of i32"},
        {{{"clip.vision.image_grid_pinpoints", ARR_I32, 56, 2, NULL}},
         PD_ERR_UNSUPPORTED,
         "expected spatial_unpad"},
        {{{"clip.vision.image_size", U32, 4096, 0, NULL},
          {"clip.vision.patch_size", U32, 2048, 0, NULL},
          {"clip.vision.image_grid_pinpoints", ARR_I32, 65536, 2, NULL}},
         PD_ERR_UNSUPPORTED,
         "expected grids of at most"},
        {{{"clip.vision.image_grid_pinpoints", ARR_I32, 448, 2, NULL}},
         PD_ERR_UNSUPPORTED,
         "expected grids of at most 63 tiles and 67108864 pixels, found 448 x 448"},
    };
    CHECK_METADATA(good_mmproj, false, cases);
}

// ---- tensors ----------------------------------------------------------------------------------------------

typedef struct {
    tensor_edit tensor;
    pd_status status;
    const char *part;
} tensor_case;

static void check_tensors(const char *good, bool is_text, const tensor_case *cases, size_t n) {
    const char *path = is_text ? text_path : mmproj_path;
    for (size_t i = 0; i < n; i++) {
        write_edited(good, path, NULL, &cases[i].tensor);
        assert_refused(is_text ? path : good_text, is_text ? NULL : path, cases[i].status, path,
                       cases[i].part);
    }
}

static void test_tensors(void **state) {
    (void)state;
    static const tensor_case text[] = {
        {{"token_embd.weight", .missing = true}, PD_ERR_FORMAT, "tensor token_embd.weight is missing"},
        {{"output_norm.weight", .missing = true}, PD_ERR_FORMAT, "tensor output_norm.weight is missing"},
        {{"blk.5.ffn_down.weight", .missing = true},
         PD_ERR_FORMAT,
         "tensor blk.5.ffn_down.weight is missing"},
        {{"token_embd.weight", .type = GGML_TYPE_F32, .ne = {64, 320, 2, 1}},
         PD_ERR_FORMAT,
         "found [64, 320, 2, 1]"},
        {{"token_embd.weight", .type = GGML_TYPE_I32, .ne = {64, 320, 1, 1}},
         PD_ERR_UNSUPPORTED,
         "ggml cannot multiply type i32"},
        {{"token_embd.weight", .type = GGML_TYPE_F64, .ne = {64, 320, 1, 1}},
         PD_ERR_UNSUPPORTED,
         "ggml cannot multiply type f64"},
        {{"blk.0.attn_q.weight", .type = GGML_TYPE_I8, .ne = {64, 64, 1, 1}},
         PD_ERR_UNSUPPORTED,
         "tensor blk.0.attn_q.weight: ggml cannot multiply type i8"},
        {{"blk.0.attn_q.weight", .type = GGML_TYPE_Q8_1, .ne = {64, 64, 1, 1}},
         PD_ERR_UNSUPPORTED,
         "ggml cannot multiply type q8_1"},
        {{"blk.0.attn_q.weight", .type = GGML_TYPE_F32, .ne = {64, 65, 1, 1}},
         PD_ERR_FORMAT,
         "found [64, 65, 1, 1]"},
        {{"blk.2.attn_norm.weight", .type = GGML_TYPE_F16, .ne = {64, 1, 1, 1}},
         PD_ERR_UNSUPPORTED,
         "tensor blk.2.attn_norm.weight: expected type f32, found f16"},
        {{"blk.2.attn_norm.weight", .type = GGML_TYPE_Q8_0, .ne = {64, 1, 1, 1}},
         PD_ERR_UNSUPPORTED,
         "found q8_0"},
        {{"blk.2.attn_norm.weight", .type = GGML_TYPE_F32, .ne = {1, 64, 1, 1}},
         PD_ERR_FORMAT,
         "found [1, 64, 1, 1]"},
        // bytes of 0xff are floats that are not numbers
        {{"blk.3.ffn_up.weight", .type = GGML_TYPE_F32, .ne = {64, 128, 1, 1}, .byte = 0xff},
         PD_ERR_BACKEND,
         "the logits are not numbers"},
    };
    static const tensor_case vision[] = {
        {{"v.class_embd", .missing = true}, PD_ERR_FORMAT, "tensor v.class_embd is missing"},
        {{"mm.2.bias", .missing = true}, PD_ERR_FORMAT, "tensor mm.2.bias is missing"},
        {{"mm.2.weight", .type = GGML_TYPE_F32, .ne = {64, 96, 1, 1}},
         PD_ERR_FORMAT,
         "made for a text model of hidden size 96; this one has 64"},
        {{"mm.2.weight", .type = GGML_TYPE_F32, .ne = {32, 64, 1, 1}},
         PD_ERR_FORMAT,
         "expected shape [64, 64, 1, 1]"},
        {{"mm.0.weight", .type = GGML_TYPE_F32, .ne = {32, 60, 1, 1}},
         PD_ERR_FORMAT,
         "tensor mm.0.bias: expected"},
        {{"v.patch_embd.weight", .type = GGML_TYPE_I16, .ne = {14, 14, 3, 32}},
         PD_ERR_UNSUPPORTED,
         "v.patch_embd.weight: expected type f32, f16 or bf16, found i16"},
        {{"v.position_embd.weight", .type = GGML_TYPE_F32, .ne = {32, 16, 1, 1}},
         PD_ERR_FORMAT,
         "found [32, 16, 1, 1]"},
        {{"v.position_embd.weight", .type = GGML_TYPE_I32, .ne = {32, 17, 1, 1}},
         PD_ERR_UNSUPPORTED,
         "type i32"},
        {{"v.blk.1.ffn_up.bias", .type = GGML_TYPE_BF16, .ne = {64, 1, 1, 1}},
         PD_ERR_UNSUPPORTED,
         "found bf16"},
    };
    check_tensors(good_text, true, text, sizeof text / sizeof *text);
    check_tensors(good_mmproj, false, vision, sizeof vision / sizeof *vision);
}

// A matrix in every type that ggml knows: it runs or is refused.
static void test_all_types(void **state) {
    (void)state;
    int n_run = 0, n_refused = 0;
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const enum ggml_type type = (enum ggml_type)i;
        if (ggml_blck_size(type) == 0 || 64 % ggml_blck_size(type) != 0) continue; // rows of 64
        static const struct {
            const char *name;
            int64_t n_rows;
        } matrices[] = {{"token_embd.weight", 320}, {"blk.1.attn_k.weight", 64}, {"output.weight", 320}};
        for (size_t j = 0; j < 3; j++) {
            const tensor_edit retyped = {
                .name = matrices[j].name, .type = type, .ne = {64, matrices[j].n_rows, 1, 1}};
            write_edited(good_text, text_path, NULL, &retyped);
            pd_error err;
            const pd_status status = load_and_run(text_path, good_mmproj, &err);
            assert_true(status == PD_OK || status == PD_ERR_UNSUPPORTED);
            n_run += status == PD_OK;
            n_refused += status != PD_OK;
        }
    }
    assert_true(n_run >= 3 * 8); // f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0
    assert_true(n_refused >= 3 * 4);
}

// Numbers are read in place, so tensors must be aligned whatever the file calls its alignment.
static void test_alignment(void **state) {
    (void)state;
    static const char *const names[4] = {"a", "ab", "abc", "abcd"};
    int n_run = 0;
    for (int i = 0; i < 4; i++) {
        const edit edits[] = {
            {"general.alignment", U32, 1, 0, NULL}, {"general.name", STR, 0, 0, names[i]}, {.kind = END}};
        write_edited(good_text, text_path, edits, NULL);
        pd_error err;
        const pd_status status = load_and_run(text_path, good_mmproj, &err);
        n_run += status == PD_OK;
        if (status == PD_OK) continue;
        assert_int_equal(status, PD_ERR_FORMAT);
        assert_non_null(strstr(err.message, "expected an offset that is a multiple of 4"));
    }
    assert_int_equal(n_run, 1);
    static const struct {
        uint32_t alignment;
        const char *part;
    } cases[] = {{0, "not a power of 2"}, {3, "not a power of 2"}, {1U << 31, "damaged or truncated"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_edited(good_text, text_path, (edit[]){{"general.alignment", U32, 64, 0, NULL}, {.kind = END}},
                     NULL);
        blob b = read_blob(text_path);
        memcpy(b.bytes + behind(&b, "general.alignment") + 4, &cases[i].alignment, 4);
        write_blob(text_path, b.bytes, b.size);
        assert_refused(text_path, NULL, PD_ERR_FORMAT, text_path, cases[i].part);
        free(b.bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_keys),    cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_text_metadata),   cmocka_unit_test(test_bpe_metadata),
        cmocka_unit_test(test_mmproj_metadata), cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_all_types),       cmocka_unit_test(test_alignment),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
