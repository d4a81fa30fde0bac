// Any bytes as a geometry file. One that is accepted holds what the rest of the library relies on; where it
// is small, the pair that a training from scratch begins with must load, and run.
#include "pair.h"
#include "vocabulary.h"

#include "model/synth.h"

#include <math.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VOCABULARY = 200 }; // the vocabulary's descriptor, which seeds name as their tokenizer

static char directory[64], text_path[96], mmproj_path[96];

static void make_vocabulary(void) {
    struct gguf_context *gguf = gguf_init_empty();
    CHECK(gguf);
    add_tiny_vocabulary(gguf);
    const memory_file file = memory_file_open("vocabulary");
    CHECK(gguf_write_to_file_ptr(gguf, file.stream, false) && fflush(file.stream) == 0);
    CHECK(dup2(fileno(file.stream), VOCABULARY) == VOCABULARY);
    fclose(file.stream);
    gguf_free(gguf);
}

static void clean_up(void) {
    remove(text_path);
    remove(mmproj_path);
    rmdir(directory);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    make_vocabulary();
    // in memory, where there is such a place: a pair is flushed to the disk
    snprintf(directory, sizeof directory, "%s/fuzz_geometry_XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : P_tmpdir);
    CHECK(mkdtemp(directory));
    snprintf(text_path, sizeof text_path, "%s/text.gguf", directory);
    snprintf(mmproj_path, sizeof mmproj_path, "%s/mmproj.gguf", directory);
    return atexit(clean_up);
}

static void check_decoder(const pd_decoder_hyperparameters *h) {
    CHECK(h->n_embd >= 2 && h->n_embd <= 1 << 17 && h->n_ff >= 1 && h->n_ff <= 1 << 20);
    CHECK(h->n_layers >= 1 && h->n_layers <= 1024 && h->n_ctx_train >= 1);
    CHECK(h->n_heads >= 1 && h->n_heads <= 4096 && h->n_kv_heads >= 1 && h->n_heads % h->n_kv_heads == 0);
    CHECK(h->head_dim >= 2 && h->head_dim <= 4096 && h->head_dim % 2 == 0 && h->rope_dim == h->head_dim);
    CHECK(h->rms_epsilon >= 0.0F && h->rms_epsilon <= 1.0F);
    CHECK(h->rope_base >= 1.0F && h->rope_base <= 1e12F);
    CHECK(h->n_vocab >= 1);
}

static void check_vision(const pd_vision_hyperparameters *h, int32_t n_layers) {
    CHECK(h->image_size >= 1 && h->image_size <= 4096 && h->patch_size >= 1);
    CHECK(h->image_size % h->patch_size == 0);
    CHECK(h->n_embd >= 1 && h->n_embd <= 1 << 16 && h->n_heads >= 1 && h->n_embd % h->n_heads == 0);
    CHECK(h->n_ff >= 1 && h->n_ff <= 1 << 18);
    CHECK(h->n_layers >= 1 && h->n_layers <= n_layers && n_layers <= 1024 && h->n_layers_run == h->n_layers);
    CHECK(h->epsilon >= 0.0F && h->epsilon <= 1.0F);
    for (int i = 0; i < 3; i++)
        CHECK(isfinite(h->mean[i]) && isfinite(h->std[i]) && h->std[i] > 0.0F);
    CHECK(h->n_pinpoints >= 0 && h->n_pinpoints <= PD_MAX_PINPOINTS &&
          h->spatial_unpad == (h->n_pinpoints > 0));
    for (int32_t i = 0; i < h->n_pinpoints; i++) {
        for (int j = 0; j < 2; j++)
            CHECK(h->pinpoints[i][j] >= h->image_size && h->pinpoints[i][j] % h->image_size == 0);
        CHECK((int64_t)h->pinpoints[i][0] * h->pinpoints[i][1] <= PD_MAX_GRID_PIXELS);
    }
}

// About a million parameters and the work of a moment.
static bool is_small(const pd_geometry *g) {
    const pd_decoder_hyperparameters *h = &g->decoder;
    const pd_vision_hyperparameters *v = &g->vision;
    return h->n_embd <= 256 && h->n_ff <= 256 && h->n_layers <= 4 && h->n_heads * h->head_dim <= 256 &&
           h->n_vocab <= N_TOKENS && v->n_embd <= 256 && v->n_ff <= 256 && v->n_layers <= 4 &&
           v->image_size <= 64 && g->projector_hidden <= 256 && pd_vision_n_patches(v) <= 256 &&
           pd_geometry_n_image_tokens(g) <= 1024;
}

static void check_pair(const pd_geometry_file *file) {
    const pd_synth_params params = pd_synth_from_scratch(file, 1);
    pd_error err = {0};
    CHECK(pd_synth_model(&params, text_path, &err) == PD_OK);
    CHECK(pd_synth_mmproj(&params, mmproj_path, &err) == PD_OK);
    pd_gguf text, mmproj;
    pd_decoder_hyperparameters h;
    pd_vision_hyperparameters v;
    CHECK(pd_gguf_open(text_path, &text, &err) == PD_OK && pd_gguf_open(mmproj_path, &mmproj, &err) == PD_OK);
    CHECK(pd_decoder_hyperparameters_read(&text, &h, &err) == PD_OK);
    CHECK(pd_vision_hyperparameters_read(&mmproj, &v, &err) == PD_OK);
    CHECK(h.n_embd == file->geometry.decoder.n_embd && h.head_dim == file->geometry.decoder.head_dim);
    CHECK(h.tied_embeddings == file->geometry.decoder.tied_embeddings);
    CHECK(memcmp(&v, &file->geometry.vision, sizeof v) == 0);
    pd_gguf_close(&text);
    pd_gguf_close(&mmproj);

    pd_model_params mp;
    pd_model_params_default(&mp, sizeof mp);
    mp.model_path = text_path;
    mp.mmproj_path = mmproj_path;
    pd_model *model;
    CHECK(pd_model_load(&mp, &model, &err) == PD_OK);
    pd_session_params sp;
    pd_session_params_default(&sp, sizeof sp);
    sp.n_threads = 1;
    run_session(model, &sp);
    pd_model_free(model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    memory_file json = memory_file_open("geometry");
    CHECK(fwrite(data, 1, size, json.stream) == size && fflush(json.stream) == 0);
    pd_geometry_file file;
    pd_error err = {0};
    const pd_status status = pd_geometry_read(json.path, &file, &err);
    fclose(json.stream);
    if (status != PD_OK) {
        check_failure(status, &err);
        CHECK(!file.title && !file.vocabulary.path);
        return 0;
    }
    check_decoder(&file.geometry.decoder);
    check_vision(&file.geometry.vision, file.initializer.n_vision_layers);
    CHECK(strlen(file.geometry.name) > 0 && !strchr(file.geometry.name, '/'));
    CHECK(file.geometry.projector_hidden >= 1 && file.geometry.projector_hidden <= 1 << 20);
    if (is_small(&file.geometry)) check_pair(&file);
    pd_geometry_file_close(&file);
    return 0;
}
