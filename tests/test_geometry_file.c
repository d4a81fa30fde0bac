// Geometry files: what they say, how wrong ones are refused, and the pair that a training from scratch begins
// with: its shapes, its random numbers, and that it loads and runs.
#include "damaged_pair.h"

#include "model/synth.h"

static char json_path[300];                       // in the directory
static char vocabulary[512], bpe_vocabulary[512]; // golden files

#define MODEL                                                                                                \
    "\"hidden_size\": 64, \"intermediate_size\": 160, \"num_hidden_layers\": 3, \"num_attention_heads\": "   \
    "4,\n"                                                                                                   \
    "\"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000,\n"
#define VISION                                                                                               \
    "\"vision_config\": {\"image_size\": 56, \"patch_size\": 14, \"hidden_size\": 48, "                      \
    "\"intermediate_size\": 96,\n"                                                                           \
    "  \"num_hidden_layers\": 4, \"num_attention_heads\": 4, \"layer_norm_eps\": 1e-5,\n"                    \
    "  \"hidden_act\": \"quick_gelu\"},\n"
#define TOKENIZER "\"tokenizer\": \"%VOCABULARY%\""
static const char minimal[] = "{" MODEL VISION TOKENIZER "}\n";

// Puts `with` in place of the first `what` in `text`; the caller frees.
static char *replace(const char *text, const char *what, const char *with) {
    const char *at = strstr(text, what);
    if (!at) fail_msg("\"%s\" is not in the text", what);
    const size_t before = (size_t)(at - text), size = strlen(text) + strlen(with) + 1;
    char *result = malloc(size);
    assert_non_null(result);
    snprintf(result, size, "%.*s%s%s", (int)before, text, with, at + strlen(what));
    return result;
}

// Writes the text, its %VOCABULARY% replaced, and reads it.
static pd_status read_text(const char *text, pd_geometry_file *file, pd_error *err) {
    char *whole = strstr(text, "%VOCABULARY%") ? replace(text, "%VOCABULARY%", vocabulary) : strdup(text);
    assert_non_null(whole);
    write_blob(json_path, whole, strlen(whole));
    free(whole);
    *err = (pd_error){0};
    return pd_geometry_read(json_path, file, err);
}

static void read_good(const char *text, pd_geometry_file *file) {
    pd_error err;
    if (read_text(text, file, &err) != PD_OK) fail_msg("%s", err.message);
}

static void assert_bad_file(pd_status status, const pd_error *err, pd_status expected,
                            const pd_geometry_file *file, const char *part) {
    if (status != expected || !strstr(err->message, part)) {
        print_error("expected %s with \"%s\", found %s: %s\n", pd_status_name(expected), part,
                    pd_status_name(status), err->message);
    }
    assert_int_equal(status, expected);
    assert_one_line(err, expected);
    assert_non_null(strstr(err->message, part));
    const pd_geometry_file empty = {0};
    assert_memory_equal(file, &empty, sizeof empty); // nothing is left open
}

static void assert_bad_text(const char *text, pd_status expected, const char *part) {
    pd_geometry_file file;
    pd_error err;
    const pd_status status = read_text(text, &file, &err);
    assert_bad_file(status, &err, expected, &file, part);
    assert_ptr_equal(strstr(err.message, json_path), err.message);
}

// ---- what a file says -------------------------------------------------------------------------------------

static void test_minimal_file(void **state) {
    (void)state;
    pd_geometry_file file;
    read_good(minimal, &file);
    const pd_decoder_hyperparameters *h = &file.geometry.decoder;
    assert_string_equal(h->architecture, "llama");
    assert_int_equal(h->n_embd, 64);
    assert_int_equal(h->n_ff, 160);
    assert_int_equal(h->n_layers, 3);
    assert_int_equal(h->n_heads, 4);
    assert_int_equal(h->n_kv_heads, 4);
    assert_int_equal(h->head_dim, 16);
    assert_int_equal(h->rope_dim, 16);
    assert_int_equal(h->n_ctx_train, 512);
    assert_int_equal(h->n_vocab, 320);
    assert_false(h->tied_embeddings);
    assert_true(h->rms_epsilon == 1e-5F && h->rope_base == 10000.0F && h->rope_factor == 1.0F);
    const pd_vision_hyperparameters *v = &file.geometry.vision;
    assert_int_equal(v->image_size, 56);
    assert_int_equal(v->patch_size, 14);
    assert_int_equal(v->n_embd, 48);
    assert_int_equal(v->n_ff, 96);
    assert_int_equal(v->n_heads, 4);
    assert_int_equal(v->n_layers, 3); // of 4: hidden state -2 is the third's output
    assert_int_equal(v->n_layers_run, 3);
    assert_int_equal(v->n_pinpoints, 0);
    assert_false(v->exact_gelu || v->spatial_unpad || v->swapped_ffn);
    assert_true(v->epsilon == 1e-5F && v->mean[0] == 0.48145466F && v->std[2] == 0.27577711F);
    assert_int_equal(file.geometry.projector_hidden, 64);
    assert_string_equal(file.geometry.name, "geometry"); // of geometry.json
    assert_true(file.initializer.range == 0.02F && file.initializer.vision_range == 0.02F);
    assert_true(file.initializer.vision_factor == 1.0F);
    assert_int_equal(file.initializer.n_vision_layers, 4);
    pd_geometry_file_close(&file);
}

static const char whole[] =
    "{\"_name_or_path\": \"we/my model\", \"architectures\": [\"LlavaLlamaForCausalLM\"], \"model_type\": "
    "\"llava\",\n"
    "\"hidden_size\": 60, \"intermediate_size\": 100, \"num_hidden_layers\": 2, \"num_attention_heads\": 8,\n"
    "\"num_key_value_heads\": 2, \"head_dim\": 10, \"max_position_embeddings\": 4096, \"rms_norm_eps\": "
    "1e-06,\n"
    "\"rope_theta\": 500000.0, \"tie_word_embeddings\": true, \"hidden_act\": \"silu\", \"rope_scaling\": "
    "null,\n"
    "\"attention_bias\": false, \"attention_dropout\": 0.0, \"bos_token_id\": 1, \"vocab_size\": 320,\n"
    "\"initializer_range\": 0.5, \"mm_hidden_size\": 48, \"mm_projector_hidden_size\": 72,\n"
    "\"mm_projector_type\": \"mlp2x_gelu\", \"mm_vision_select_layer\": 2, \"mm_vision_select_feature\": "
    "\"patch\",\n"
    "\"image_aspect_ratio\": \"anyres\", \"image_grid_pinpoints\": [[56, 112], [112, 56], [112, 112]],\n"
    "\"mm_patch_merge_type\": \"spatial_unpad\", \"mm_use_im_start_end\": false,\n"
    "\"vision_config\": {\"image_size\": 56, \"patch_size\": 14, \"hidden_size\": 48, \"intermediate_size\": "
    "96,\n"
    "  \"num_hidden_layers\": 4, \"num_attention_heads\": 4, \"layer_norm_eps\": 1e-6, \"hidden_act\": "
    "\"gelu\",\n"
    "  \"image_mean\": [0.5, 0.25, 0], \"image_std\": [1, 0.5, 0.25], \"num_channels\": 3, \"dropout\": 0,\n"
    "  \"initializer_range\": 0.25, \"initializer_factor\": 2.0, \"position_initializer_range\": 0.125, "
    "\"projection_dim\": 768}," TOKENIZER "}";

static void test_whole_file(void **state) {
    (void)state;
    pd_geometry_file file;
    read_good(whole, &file);
    const pd_decoder_hyperparameters *h = &file.geometry.decoder;
    assert_int_equal(h->n_kv_heads, 2);
    assert_int_equal(h->head_dim, 10);
    assert_int_equal(h->rope_dim, 10);
    assert_true(h->tied_embeddings && h->rope_base == 500000.0F);
    const pd_vision_hyperparameters *v = &file.geometry.vision;
    assert_int_equal(v->n_layers, 2);
    assert_int_equal(v->n_layers_run, 2);
    assert_int_equal(v->n_pinpoints, 3);
    assert_int_equal(v->pinpoints[0][0], 56); // width
    assert_int_equal(v->pinpoints[0][1], 112);
    assert_true(v->exact_gelu && v->spatial_unpad);
    assert_true(v->mean[1] == 0.25F && v->mean[2] == 0.0F && v->std[0] == 1.0F && v->std[2] == 0.25F);
    assert_int_equal(file.geometry.projector_hidden, 72);
    assert_string_equal(file.geometry.title, "we/my model");
    assert_string_equal(file.geometry.name, "my model");
    assert_true(file.initializer.range == 0.5F && file.initializer.vision_range == 0.25F);
    assert_true(file.initializer.vision_factor == 2.0F && file.initializer.position_range == 0.125F);
    pd_geometry_file_close(&file);
}

// A tokenizer's path is seen from the JSON file.
static void test_tokenizer_beside_the_file(void **state) {
    (void)state;
    const blob bytes = read_blob(vocabulary);
    write_blob(text_path, bytes.bytes, bytes.size);
    free(bytes.bytes);
    char *text = replace(minimal, "%VOCABULARY%", "text.gguf");
    pd_geometry_file file;
    read_good(text, &file);
    assert_string_equal(file.vocabulary.path, text_path);
    free(text);
    pd_geometry_file_close(&file);
}

static void test_select_layer(void **state) {
    (void)state;
    static const struct {
        const char *layer;
        int32_t run; // of 4; 0: refused
    } cases[] = {{"-1", 4}, {"-2", 3}, {"-4", 1}, {"-5", 0}, {"0", 0}, {"1", 1}, {"4", 4}, {"5", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char field[64];
        snprintf(field, sizeof field, "{\"mm_vision_select_layer\": %s,", cases[i].layer);
        char *text = replace(minimal, "{", field);
        if (cases[i].run > 0) {
            pd_geometry_file file;
            read_good(text, &file);
            assert_int_equal(file.geometry.vision.n_layers, cases[i].run);
            assert_int_equal(file.geometry.vision.n_layers_run, cases[i].run);
            pd_geometry_file_close(&file);
        } else {
            assert_bad_text(text, PD_ERR_FORMAT,
                            "mm_vision_select_layer: expected 1 to 4, or -4 to -1 from the end");
        }
        free(text);
    }
}

// ---- bad files --------------------------------------------------------------------------------------------

static void test_broken_json(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"", "the file is empty"},
        {"{\n  \"hidden_size\": 64,\n  \"rope_theta\" 1\n}", "line 3, column 16: "},
        {"{\"hidden_size\": 64", "line 1, column 19: "},
        {"{} {}", "line 1, column 4: "},
        {"{\"tokenizer\": \"\xff\"}", "line 1, column 16: "},
        {"{\n// a comment\n}", "line 2, column 1: "},
        {"[]", "expected an object"},
        {"7", "expected an object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_bad_text(cases[i].text, PD_ERR_FORMAT, cases[i].part);
}

static void test_files_that_are_none(void **state) {
    (void)state;
    pd_geometry_file file;
    pd_error err = {0};
    char nowhere[320];
    snprintf(nowhere, sizeof nowhere, "%s/nowhere.json", directory);
    assert_bad_file(pd_geometry_read(nowhere, &file, &err), &err, PD_ERR_IO, &file, nowhere);
    assert_bad_file(pd_geometry_read(directory, &file, &err), &err, PD_ERR_IO, &file, directory);
    const size_t size = (1 << 20) + 1;
    char *blanks = malloc(size);
    assert_non_null(blanks);
    memset(blanks, ' ', size);
    write_blob(json_path, blanks, size);
    free(blanks);
    assert_bad_file(pd_geometry_read(json_path, &file, &err), &err, PD_ERR_FORMAT, &file,
                    "at most 1048576 bytes");
}

// In `minimal`, `what` becomes `with`.
static const struct {
    const char *what, *with, *part;
} bad_fields[] = {
    // missing, misspelt, twice, null
    {"\"hidden_size\": 64, ", "", ": hidden_size is missing (expected an integer from 2 to 131072)"},
    {"\"intermediate_size\": 160, ", "", ": intermediate_size is missing"},
    {"\"num_hidden_layers\": 3, ", "", ": num_hidden_layers is missing"},
    {"\"num_attention_heads\": 4,", "", ": num_attention_heads is missing"},
    {"\"max_position_embeddings\": 512, ", "", ": max_position_embeddings is missing"},
    {"\"rms_norm_eps\": 1e-5, ", "", ": rms_norm_eps is missing (expected a number from 0 to 1)"},
    {"\"rope_theta\": 10000,", "", ": rope_theta is missing"},
    {VISION, "", ": vision_config is missing (expected an object)"},
    {",\n" TOKENIZER, "\n", ": tokenizer is missing (expected a string"},
    {"\"image_size\": 56, ", "", ": vision_config.image_size is missing"},
    {"\"patch_size\": 14, ", "", ": vision_config.patch_size is missing"},
    {"14, \"hidden_size\": 48,", "14,", ": vision_config.hidden_size is missing"},
    {"48, \"intermediate_size\": 96,", "48,", ": vision_config.intermediate_size is missing"},
    {"\"num_hidden_layers\": 4, ", "", ": vision_config.num_hidden_layers is missing"},
    {"4, \"num_attention_heads\": 4,", "4,", ": vision_config.num_attention_heads is missing"},
    {"\"layer_norm_eps\": 1e-5,", "", ": vision_config.layer_norm_eps is missing"},
    {",\n  \"hidden_act\": \"quick_gelu\"", "",
     ": vision_config.hidden_act is missing (expected \"quick_gelu\" or \"gelu\")"},
    {"hidden_size", "hiden_size", ": no field is called hiden_size"},
    {"patch_size", "patchsize", ": no field is called vision_config.patchsize"},
    {"{\"hidden_size\"", "{\"\\u001b[31m\": 1, \"hidden_size\"", ": no field is called ?[31m"},
    {"{\"hidden_size\"", "{\"hidden_size\": 64, \"hidden_size\"",
     ": hidden_size: expected once, found twice"},
    {"{\"hidden_size\"", "{\"use_cache\": 1, \"use_cache\": 1, \"hidden_size\"",
     ": use_cache: expected once"},
    {"\"hidden_size\": 64", "\"hidden_size\": null", ": hidden_size is missing"},
    // of another type
    {"\"hidden_size\": 64", "\"hidden_size\": \"64\"",
     ": hidden_size: expected an integer from 2 to 131072, found \"64\""},
    {"\"hidden_size\": 64", "\"hidden_size\": 64.5",
     ": hidden_size: expected an integer from 2 to 131072, found 64.5"},
    {"\"hidden_size\": 64", "\"hidden_size\": true",
     ": hidden_size: expected an integer from 2 to 131072, found true"},
    {"\"hidden_size\": 64", "\"hidden_size\": [1, 2]", "found a list of 2"},
    {"\"hidden_size\": 64", "\"hidden_size\": {}", "found an object"},
    {"\"rope_theta\": 10000", "\"rope_theta\": \"1e4\"", ": rope_theta: expected a number from 1 to "},
    {"\"rope_theta\"", "\"tie_word_embeddings\": 1, \"rope_theta\"",
     ": tie_word_embeddings: expected true or false, found 1"},
    {"\"vision_config\": {", "\"vision_config\": 3, \"_comment\": {",
     ": vision_config: expected an object, found 3"},
    {"\"%VOCABULARY%\"", "7", ": tokenizer: expected a string"},
    {"\"%VOCABULARY%\"", "\"\"", ": tokenizer: expected a string that is not empty"},
    {"%VOCABULARY%", "a\\u0000b", ": tokenizer: expected a string"},
    {"\"quick_gelu\"", "\"relu\"",
     ": vision_config.hidden_act: expected \"quick_gelu\" or \"gelu\", found \"relu\""},
    // out of bounds
    {"\"hidden_size\": 64", "\"hidden_size\": 1", ": hidden_size: expected"},
    {"\"hidden_size\": 64", "\"hidden_size\": 131073", ": hidden_size: expected"},
    {"\"hidden_size\": 64", "\"hidden_size\": -64", ": hidden_size: expected"},
    {"\"hidden_size\": 64", "\"hidden_size\": 18446744073709551615", ": hidden_size: expected"},
    {"\"intermediate_size\": 160", "\"intermediate_size\": 1048577", ": intermediate_size: expected"},
    {"\"num_hidden_layers\": 3", "\"num_hidden_layers\": 1025",
     ": num_hidden_layers: expected an integer from 1 to 1024"},
    {"\"num_attention_heads\": 4,", "\"num_attention_heads\": 0,", ": num_attention_heads: expected"},
    {"\"max_position_embeddings\": 512", "\"max_position_embeddings\": 2147483648",
     ": max_position_embeddings: expected"},
    {"\"rms_norm_eps\": 1e-5", "\"rms_norm_eps\": 1.5", ": rms_norm_eps: expected"},
    {"\"rms_norm_eps\": 1e-5", "\"rms_norm_eps\": -1e-5", ": rms_norm_eps: expected"},
    {"\"rope_theta\": 10000", "\"rope_theta\": 0.5", ": rope_theta: expected"},
    {"\"rope_theta\"", "\"initializer_range\": 0, \"rope_theta\"", ": initializer_range: expected"},
    {"\"rope_theta\"", "\"mm_projector_hidden_size\": 1048577, \"rope_theta\"",
     ": mm_projector_hidden_size: expected"},
    {"\"image_size\": 56", "\"image_size\": 4097", ": vision_config.image_size: expected"},
    {"\"patch_size\": 14", "\"patch_size\": 0", ": vision_config.patch_size: expected"},
    {"\"num_hidden_layers\": 4", "\"num_hidden_layers\": 1025",
     ": vision_config.num_hidden_layers: expected"},
    {"\"layer_norm_eps\"", "\"image_std\": [0.5, 0, 0.5], \"layer_norm_eps\"",
     ": vision_config.image_std: expected 3 numbers"},
    {"\"layer_norm_eps\"", "\"image_mean\": [0.5, 0.5], \"layer_norm_eps\"",
     ": vision_config.image_mean: expected 3 numbers"},
    {"\"layer_norm_eps\"", "\"image_mean\": [0.5, \"x\", 1], \"layer_norm_eps\"",
     ": vision_config.image_mean: expected 3 numbers"},
    // what is not supported
    {"\"rope_theta\"", "\"hidden_act\": \"gelu\", \"rope_theta\"",
     ": hidden_act: expected \"silu\", found \"gelu\""},
    {"\"rope_theta\"", "\"mm_projector_type\": \"linear\", \"rope_theta\"",
     ": mm_projector_type: expected \"mlp2x_gelu\""},
    {"\"rope_theta\"", "\"mm_vision_select_feature\": \"cls_patch\", \"rope_theta\"",
     ": mm_vision_select_feature: expected \"patch\""},
    {"\"rope_theta\"", "\"rope_scaling\": {}, \"rope_theta\"", ": rope_scaling: expected null"},
    {"\"rope_theta\"", "\"attention_bias\": true, \"rope_theta\"",
     ": attention_bias: expected false, found true"},
    {"\"rope_theta\"", "\"attention_dropout\": 0.1, \"rope_theta\"",
     ": attention_dropout: expected 0, found 0.1"},
    {"\"layer_norm_eps\"", "\"num_channels\": 1, \"layer_norm_eps\"",
     ": vision_config.num_channels: expected 3, found 1"},
    {"\"rope_theta\"", "\"image_aspect_ratio\": \"square\", \"rope_theta\"",
     ": image_aspect_ratio: expected \"pad\" or \"anyres\""},
    // fields against each other
    {"\"num_attention_heads\": 4,", "\"num_attention_heads\": 5,",
     ": num_attention_heads: expected a divisor of hidden_size 64"},
    {"\"num_attention_heads\": 4,", "\"num_attention_heads\": 64,",
     ": head_dim: expected an even number, found 1"},
    {"\"rope_theta\"", "\"head_dim\": 15, \"rope_theta\"", ": head_dim: expected an even number, found 15"},
    {"\"rope_theta\"", "\"num_key_value_heads\": 3, \"rope_theta\"",
     ": num_key_value_heads: expected a divisor of the 4 heads, found 3"},
    {"\"rope_theta\"", "\"num_key_value_heads\": 8, \"rope_theta\"",
     ": num_key_value_heads: expected a divisor of the 4 heads, found 8"},
    {"\"rope_theta\"", "\"mm_hidden_size\": 64, \"rope_theta\"",
     ": mm_hidden_size: expected vision_config's hidden_size 48, found 64"},
    {"\"rope_theta\"", "\"vocab_size\": 321, \"rope_theta\"", ": vocab_size: expected the 320 tokens of "},
    {"\"patch_size\": 14", "\"patch_size\": 15",
     ": vision_config.patch_size: expected a divisor of the image_size 56, found 15"},
    {"\"patch_size\": 14, \"hidden_size\": 48", "\"patch_size\": 14, \"hidden_size\": 50",
     ": vision_config.num_attention_heads: expected a divisor of the hidden_size 50"},
    {"\"rope_theta\"", "\"image_aspect_ratio\": \"anyres\", \"rope_theta\"",
     ": image_grid_pinpoints: expected 1 to 64 pairs"},
    {"\"rope_theta\"", "\"image_grid_pinpoints\": [[56, 56]], \"rope_theta\"",
     ": image_grid_pinpoints: expected image_aspect_ratio \"anyres\""},
    {"\"rope_theta\"", "\"image_aspect_ratio\": \"anyres\", \"image_grid_pinpoints\": [], \"rope_theta\"",
     ": image_grid_pinpoints: expected 1 to 64 pairs"},
    {"\"rope_theta\"",
     "\"image_aspect_ratio\": \"anyres\", \"image_grid_pinpoints\": [[56, 57]], \"rope_theta\"",
     ": image_grid_pinpoints[0]: expected [width, height]"},
    {"\"rope_theta\"",
     "\"image_aspect_ratio\": \"anyres\", \"image_grid_pinpoints\": [[56, 56], 56], \"rope_theta\"",
     ": image_grid_pinpoints[1]: expected"},
    {"\"rope_theta\"",
     "\"image_aspect_ratio\": \"anyres\", \"image_grid_pinpoints\": [[56, 56, 56]], \"rope_theta\"",
     ": image_grid_pinpoints[0]: expected"},
    {"\"rope_theta\"",
     "\"image_aspect_ratio\": \"anyres\", \"image_grid_pinpoints\": [[56, 3640]], \"rope_theta\"",
     ": image_grid_pinpoints[0]: expected"},
};

static void test_bad_fields(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_fields / sizeof *bad_fields; i++) {
        char *text = replace(minimal, bad_fields[i].what, bad_fields[i].with);
        assert_bad_text(text, PD_ERR_FORMAT, bad_fields[i].part);
        free(text);
    }
}

static void test_unsupported(void **state) {
    (void)state;
    char *text =
        replace(minimal, "\"rope_theta\"", "\"mm_patch_merge_type\": \"spatial_unpad\", \"rope_theta\"");
    assert_bad_text(text, PD_ERR_UNSUPPORTED, ": mm_patch_merge_type: expected \"flat\"");
    free(text);
    text = replace(minimal, "\"image_size\": 56, \"patch_size\": 14",
                   "\"image_size\": 4096, \"patch_size\": 16");
    char *grid = replace(text, "\"rope_theta\"",
                         "\"image_aspect_ratio\": \"anyres\", \"image_grid_pinpoints\": "
                         "[[4096, 262144]], \"rope_theta\"");
    assert_bad_text(grid, PD_ERR_UNSUPPORTED,
                    ": image_grid_pinpoints[0]: expected at most 63 tiles and 67108864 pixels");
    free(grid);
    free(text);
}

static void test_bad_vocabulary(void **state) {
    (void)state;
    const struct {
        const char *name, *part;
        pd_status status;
    } cases[] = {
        {"nowhere.gguf", "nowhere.gguf: cannot open", PD_ERR_IO},
        {".", "", PD_ERR_IO},
        {"geometry.json", "geometry.json: not a GGUF file", PD_ERR_FORMAT},
        {good_mmproj, "mha-mmproj.gguf: metadata key tokenizer.ggml.model is missing", PD_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = replace(minimal, "%VOCABULARY%", cases[i].name);
        pd_geometry_file file;
        pd_error err;
        const pd_status status = read_text(text, &file, &err);
        assert_bad_file(status, &err, cases[i].status, &file, cases[i].part);
        free(text);
    }
}

// ---- the pair ---------------------------------------------------------------------------------------------

static void write_pair(const pd_geometry_file *file, uint64_t seed, pd_gguf *text, pd_gguf *mmproj) {
    const pd_synth_params params = pd_synth_from_scratch(file, seed);
    pd_error err;
    if (pd_synth_model(&params, text_path, &err) != PD_OK ||
        pd_synth_mmproj(&params, mmproj_path, &err) != PD_OK)
        fail_msg("%s", err.message);
    if (pd_gguf_open(text_path, text, &err) != PD_OK || pd_gguf_open(mmproj_path, mmproj, &err) != PD_OK)
        fail_msg("%s", err.message);
}

static void write_text(const char *json, uint64_t seed, pd_gguf *text, pd_gguf *mmproj) {
    pd_geometry_file file;
    read_good(json, &file);
    write_pair(&file, seed, text, mmproj);
    pd_geometry_file_close(&file);
}

static const float *values_of(const pd_gguf *gguf, const char *name, size_t *n) {
    const struct ggml_tensor *tensor = ggml_get_tensor(gguf->tensors, name);
    if (!tensor) fail_msg("%s: no tensor %s", gguf->path, name);
    assert_int_equal(tensor->type, GGML_TYPE_F32);
    *n = (size_t)ggml_nelements(tensor);
    return pd_gguf_tensor_data(gguf, name);
}

// The rules, once more, for `minimal`: 64 wide, 3 layers; a tower 48 wide, of 4 layers; a projector 256 wide.
typedef struct {
    const char *part; // of a name
    char kind;        // 'n'ormal, 'u'niform, or a constant
    double scale;     // standard deviation; bound; the constant
} rule;

static const rule text_rules[] = {
    {"norm.weight", '=', 1.0},
    {"attn_output.weight", 'n', 0.0081649658}, // 0.02 / sqrt(6)
    {"ffn_down.weight", 'n', 0.0081649658},
    {".weight", 'n', 0.02},
};
static const rule vision_rules[] = {
    {"mm.0.", 'u', 0.14433757}, // 1 / sqrt(48)
    {"mm.2.", 'u', 0.0625},     // 1 / sqrt(256)
    {"image_newline", 'n', 0.125},
    {"class_embd", 'n', 0.14433757},
    {"patch_embd.weight", 'n', 0.02},
    {"position_embd.weight", 'n', 0.02},
    {"attn_out.weight", 'n', 0.14433757},
    {"attn_", 0, 0.0},                    // weights and biases: below
    {"ffn_up.weight", 'n', 0.10206207},   // 1 / sqrt(2 · 48)
    {"ffn_down.weight", 'n', 0.05103104}, // 1 / sqrt(48 · 2 · 4)
    {".bias", '=', 0.0},
    {".weight", '=', 1.0},
};

static rule rule_of(const char *name, const rule *rules) {
    while (!strstr(name, rules->part))
        rules++;
    if (rules->kind != 0) return *rules;
    return strstr(name, ".bias") ? (rule){name, '=', 0.0} : (rule){name, 'n', 0.05103104};
}

typedef struct {
    // of z = x / deviation; inside: |z| < 1; pairs: z times the one before it
    double n, sum, square, fourth, inside, n_pairs, pairs;
    int n_tensors;
} moments;

static void check_tensor(const float *x, size_t n, const char *name, const rule *r, moments *all) {
    double sum = 0, square = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        const double z = (double)x[i] / r->scale;
        if (r->kind == '=' && (double)x[i] != r->scale)
            fail_msg("%s: expected %g, found %g", name, r->scale, (double)x[i]);
        if (r->kind == 'u' && fabs(z) > 1.0) fail_msg("%s: %g is out of bounds", name, (double)x[i]);
        if (r->kind == '=') continue;
        sum += z;
        square += z * z;
        largest = fabs(z) > largest ? fabs(z) : largest;
        if (r->kind != 'n') continue;
        all->sum += z;
        all->square += z * z;
        all->fourth += z * z * z * z;
        all->inside += fabs(z) < 1.0;
        if (i == 0) continue;
        all->n_pairs++;
        all->pairs += z * (double)x[i - 1] / r->scale;
    }
    if (r->kind == '=') return;
    all->n_tensors++;
    // Mean and variance of n draws lie this far from the distribution's own. Among about a hundred figures
    // one beyond 3 deviations is to be expected, none beyond 4.5.
    const double variance = r->kind == 'n' ? 1.0 : 1.0 / 3.0, fourth = r->kind == 'n' ? 3.0 : 1.0 / 5.0;
    const double count = (double)n, mean_error = fabs(sum / count) / sqrt(variance / count),
                 square_error =
                     fabs(square / count - variance) / sqrt((fourth - variance * variance) / count);
    if (mean_error > 4.5 || square_error > 4.5)
        fail_msg("%s: mean off by %.2f deviations, variance by %.2f", name, mean_error, square_error);
    if (r->kind == 'n') all->n += count;
    // (1 - 12/n)^n: once in 160,000 times nothing comes that near to the bound.
    if (r->kind == 'u' && largest < 1.0 - 12.0 / count)
        fail_msg("%s: nothing beyond %g of the bound", name, largest);
}

static void check_file(const pd_gguf *gguf, const rule *rules, moments *all) {
    for (struct ggml_tensor *t = ggml_get_first_tensor(gguf->tensors); t;
         t = ggml_get_next_tensor(gguf->tensors, t)) {
        size_t n;
        const float *x = values_of(gguf, t->name, &n);
        const rule r = rule_of(t->name, rules);
        check_tensor(x, n, t->name, &r, all);
    }
}

static void assert_within_3_sigma(const char *what, double value, double expected, double sigma) {
    if (fabs(value - expected) > 3.0 * sigma)
        fail_msg("%s: expected %g, found %g, %.2f deviations off", what, expected, value,
                 fabs(value - expected) / sigma);
}

static void test_statistics(void **state) {
    (void)state;
    pd_gguf text, mmproj;
    char *json = replace(minimal, "{",
                         "{\"image_aspect_ratio\": \"anyres\", \"image_grid_pinpoints\": [[56, 112]],"
                         "\"mm_projector_hidden_size\": 256,");
    write_text(json, 20, &text, &mmproj);
    free(json);
    moments all = {0};
    check_file(&text, text_rules, &all);
    check_file(&mmproj, vision_rules, &all);
    assert_int_equal(all.n_tensors, 2 + 3 * 7 + 3 + 3 * 6 + 4 + 1);
    assert_true(all.n > 2.5e5);
    // moments of the normal distribution: 1, 3, and 68.27 % inside one deviation
    assert_within_3_sigma("mean", all.sum / all.n, 0.0, 1.0 / sqrt(all.n));
    assert_within_3_sigma("variance", all.square / all.n, 1.0, sqrt(2.0 / all.n));
    assert_within_3_sigma("fourth moment", all.fourth / all.n, 3.0, sqrt(96.0 / all.n));
    assert_within_3_sigma("neighbours", all.pairs / all.n_pairs, 0.0, 1.0 / sqrt(all.n_pairs));
    assert_within_3_sigma("inside", all.inside / all.n, 0.68268949, sqrt(0.68268949 * 0.31731051 / all.n));
    pd_gguf_close(&text);
    pd_gguf_close(&mmproj);
}

// Tensors of one size share nothing: their correlation is that of independent draws.
static void test_streams_differ(void **state) {
    (void)state;
    static const char *const names[] = {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.1.attn_q.weight",
                                        "blk.2.attn_v.weight", "blk.2.attn_output.weight"};
    pd_gguf text, mmproj;
    write_text(minimal, 0, &text, &mmproj);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        for (size_t j = 0; j < i; j++) {
            size_t n, m;
            const float *x = values_of(&text, names[i], &n), *y = values_of(&text, names[j], &m);
            assert_int_equal(n, m);
            double product = 0, square_x = 0, square_y = 0;
            for (size_t k = 0; k < n; k++) {
                product += (double)x[k] * (double)y[k];
                square_x += (double)x[k] * (double)x[k];
                square_y += (double)y[k] * (double)y[k];
            }
            assert_within_3_sigma(names[i], product / sqrt(square_x * square_y), 0.0, 1.0 / sqrt((double)n));
        }
    }
    pd_gguf_close(&text);
    pd_gguf_close(&mmproj);
}

static void assert_same_tensor(const pd_gguf *a, const pd_gguf *b, const char *name, bool same) {
    size_t n, m;
    const float *x = values_of(a, name, &n), *y = values_of(b, name, &m);
    const size_t least = n < m ? n : m;
    assert_int_equal(memcmp(x, y, least * sizeof *x) == 0, same);
}

static void test_seeds(void **state) {
    (void)state;
    pd_gguf text, mmproj;
    write_text(minimal, 7, &text, &mmproj);
    const blob first = read_blob(text_path), first_mmproj = read_blob(mmproj_path);
    pd_gguf again, again_mmproj;
    write_text(minimal, 7, &again, &again_mmproj);
    const blob second = read_blob(text_path), second_mmproj = read_blob(mmproj_path);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.bytes, second.bytes, first.size);
    assert_int_equal(first_mmproj.size, second_mmproj.size);
    assert_memory_equal(first_mmproj.bytes, second_mmproj.bytes, first_mmproj.size);
    free(first.bytes);
    free(first_mmproj.bytes);
    free(second.bytes);
    free(second_mmproj.bytes);
    pd_gguf_close(&again);
    pd_gguf_close(&again_mmproj);

    write_text(minimal, 8, &again, &again_mmproj);
    assert_same_tensor(&text, &again, "blk.1.attn_q.weight", false);
    assert_same_tensor(&mmproj, &again_mmproj, "mm.0.weight", false);
    pd_gguf_close(&again);
    pd_gguf_close(&again_mmproj);

    // Another model around a tensor does not change it; residual projections know the number of layers.
    char *json = replace(minimal, "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 5");
    char *tied = replace(json, "{", "{\"tie_word_embeddings\": true, \"mm_vision_select_layer\": -1,");
    write_text(tied, 7, &again, &again_mmproj);
    assert_same_tensor(&text, &again, "token_embd.weight", true);
    assert_same_tensor(&text, &again, "blk.1.attn_q.weight", true);
    assert_same_tensor(&text, &again, "blk.1.ffn_down.weight", false);
    assert_same_tensor(&mmproj, &again_mmproj, "v.blk.2.attn_q.weight", true);
    assert_same_tensor(&mmproj, &again_mmproj, "mm.2.weight", true);
    free(tied);
    free(json);
    pd_gguf_close(&again);
    pd_gguf_close(&again_mmproj);
    pd_gguf_close(&text);
    pd_gguf_close(&mmproj);
}

static size_t count_tensors(const pd_gguf *gguf, const char *part) {
    size_t n = 0;
    for (struct ggml_tensor *t = ggml_get_first_tensor(gguf->tensors); t;
         t = ggml_get_next_tensor(gguf->tensors, t))
        n += strstr(t->name, part) != NULL;
    return n;
}

// The file's own tokenizer metadata, all of it and unchanged, and nothing else of the vocabulary's file.
static void assert_vocabulary_copied(const pd_gguf *made, const char *path) {
    pd_gguf source;
    assert_int_equal(pd_gguf_open(path, &source, NULL), PD_OK);
    int64_t n = 0;
    for (int64_t i = 0; i < gguf_get_n_kv(source.gguf); i++) {
        const char *key = gguf_get_key(source.gguf, i);
        if (strncmp(key, "tokenizer.", 10) != 0) continue;
        n++;
        const int64_t j = gguf_find_key(made->gguf, key);
        assert_true(j >= 0);
        const enum gguf_type type = gguf_get_kv_type(source.gguf, i);
        assert_int_equal(gguf_get_kv_type(made->gguf, j), type);
        if (type != GGUF_TYPE_ARRAY) continue;
        assert_int_equal(gguf_get_arr_n(source.gguf, i), gguf_get_arr_n(made->gguf, j));
        if (gguf_get_arr_type(source.gguf, i) != GGUF_TYPE_STRING) continue;
        for (size_t k = 0; k < gguf_get_arr_n(source.gguf, i); k++)
            assert_string_equal(gguf_get_arr_str(source.gguf, i, k), gguf_get_arr_str(made->gguf, j, k));
    }
    assert_true(n > 5);
    for (int64_t i = 0; i < gguf_get_n_kv(made->gguf); i++)
        n -= strncmp(gguf_get_key(made->gguf, i), "tokenizer.", 10) == 0;
    assert_int_equal(n, 0);
    pd_gguf_close(&source);
}

// What a user gets loads, and answers noise: over all tilings, tied and not, with heads of any width.
static void test_pairs_run(void **state) {
    (void)state;
    char *tied = replace(minimal, "{", "{\"tie_word_embeddings\": true, \"num_key_value_heads\": 2,");
    char *bpe = replace(minimal, "%VOCABULARY%", bpe_vocabulary);
    const struct {
        const char *json, *vocabulary;
        size_t n_outputs, n_vision_layers, n_newlines;
    } cases[] = {{minimal, vocabulary, 1, 3, 0},
                 {tied, vocabulary, 0, 3, 0},
                 {whole, vocabulary, 0, 2, 1},
                 {bpe, bpe_vocabulary, 1, 3, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pd_gguf text, mmproj;
        write_text(cases[i].json, i, &text, &mmproj);
        assert_int_equal(gguf_find_key(text.gguf, "general.name") >= 0, 1);
        // "output.weight" is also the end of "attn_output.weight"
        assert_int_equal(ggml_get_tensor(text.tensors, "output.weight") != NULL, cases[i].n_outputs);
        assert_int_equal(count_tensors(&mmproj, "attn_q.weight"), cases[i].n_vision_layers);
        assert_int_equal(count_tensors(&mmproj, "image_newline"), cases[i].n_newlines);
        assert_vocabulary_copied(&text, cases[i].vocabulary);
        // What the loader reads is what the file said.
        pd_geometry_file file;
        read_good(cases[i].json, &file);
        pd_decoder_hyperparameters h;
        pd_vision_hyperparameters v;
        assert_int_equal(pd_decoder_hyperparameters_read(&text, &h, NULL), PD_OK);
        assert_int_equal(pd_vision_hyperparameters_read(&mmproj, &v, NULL), PD_OK);
        const pd_decoder_hyperparameters *g = &file.geometry.decoder;
        assert_true(h.n_embd == g->n_embd && h.n_ff == g->n_ff && h.n_layers == g->n_layers);
        assert_true(h.n_heads == g->n_heads && h.n_kv_heads == g->n_kv_heads && h.head_dim == g->head_dim);
        assert_true(h.n_vocab == g->n_vocab && h.n_ctx_train == g->n_ctx_train && h.rope_dim == g->rope_dim);
        assert_true(h.rms_epsilon == g->rms_epsilon && h.rope_base == g->rope_base);
        assert_int_equal(h.tied_embeddings, g->tied_embeddings);
        assert_memory_equal(&v, &file.geometry.vision, sizeof v);
        pd_geometry_file_close(&file);
        pd_gguf_close(&text);
        pd_gguf_close(&mmproj);
        pd_error err;
        if (load_and_run(text_path, mmproj_path, &err) != PD_OK) fail_msg("%s", err.message);
    }
    free(bpe);
    free(tied);
}

// The project's own geometry, once it has its vocabulary.
static void test_pocket(void **state) {
    (void)state;
    const blob json = read_blob(PD_TEST_DATA "/../../models/pocket/geometry.json");
    json.bytes[json.size] = '\0';
    char *text = replace((const char *)json.bytes, "vocabulary.gguf", vocabulary);
    free(json.bytes);
    pd_geometry_file file;
    read_good(text, &file);
    assert_string_equal(file.geometry.title, "pocket");
    assert_int_equal(file.geometry.decoder.n_layers, 12);
    assert_int_equal(pd_geometry_n_image_tokens(&file.geometry), 144);
    assert_int_equal(file.geometry.vision.n_layers, 5);
    pd_geometry_file_close(&file);
    free(text);
}

static int set_up_files(void **state) {
    if (set_up(state) != 0) return -1;
    snprintf(json_path, sizeof json_path, "%s/geometry.json", directory);
    snprintf(vocabulary, sizeof vocabulary, "%s", good_text);
    snprintf(bpe_vocabulary, sizeof bpe_vocabulary, "%s/text/qwen2.gguf", PD_TEST_DATA);
    return 0;
}

static int tear_down_files(void **state) {
    remove(json_path);
    return tear_down(state);
}

static float deviation_of(const char *tensor_name, const pd_initializer *initializer) {
    const pd_geometry geometry = {.vision = {.n_embd = 48, .n_layers = 4}};
    return pd_initial_values_of(tensor_name, initializer, &geometry, 3, 1).scale;
}

static void test_range_of_positions(void **state) {
    (void)state;
    pd_initializer initializer = {.vision_range = 0.02F, .vision_factor = 2.0F, .n_vision_layers = 4};
    assert_near(deviation_of("v.position_embd.weight", &initializer), 0.04, 1e-8);
    initializer.position_range = 0.3F;
    assert_near(deviation_of("v.position_embd.weight", &initializer), 0.6, 1e-7);
    assert_near(deviation_of("v.patch_embd.weight", &initializer), 0.04, 1e-8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_minimal_file),
        cmocka_unit_test(test_whole_file),
        cmocka_unit_test(test_tokenizer_beside_the_file),
        cmocka_unit_test(test_select_layer),
        cmocka_unit_test(test_broken_json),
        cmocka_unit_test(test_files_that_are_none),
        cmocka_unit_test(test_bad_fields),
        cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_bad_vocabulary),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_range_of_positions),
        cmocka_unit_test(test_streams_differ),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_pairs_run),
        cmocka_unit_test(test_pocket),
    };
    return cmocka_run_group_tests(tests, set_up_files, tear_down_files);
}
