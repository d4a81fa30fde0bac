// A training step, forward and backward, on pairs of geometries that no model has (made_pair.h): what loads
// must train or be refused, and its state must come back from a checkpoint.
#include "made_pair.h"

#include "engine/encode.h"
#include "train/checkpoint.h"
#include "train/step.h"

#include <sys/stat.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static atomic_bool cancel;
static char folder[64];

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    fill_numbers();
    snprintf(folder, sizeof folder, "/tmp/pd_fuzz_training_XXXXXX");
    CHECK(mkdtemp(folder));
    return 0;
}

typedef struct {
    pd_backend backend;
    pd_weights weights;
    pd_parameters parameters;
    pd_lowering *lowering;
    pd_step *step;
} trainee;

// Text, a picture where the model can see, and text to be learnt.
static pd_status make_sample(const pd_weights *weights, pd_aspect_ratio aspect, bool sees,
                             pd_train_sample *sample, pd_error *err) {
    static const uint8_t rgb[5 * 3 * 3] = {255, 0, 7, 0, 200};
    enum { MOST = 8 };
    *sample = (pd_train_sample){.n_images = sees};
    sample->tokens = calloc(MOST, sizeof *sample->tokens);
    sample->labels = calloc(MOST, sizeof *sample->labels);
    sample->images = calloc(1, sizeof *sample->images);
    CHECK(sample->tokens && sample->labels && sample->images);
    for (int32_t i = 0; i < MOST; i++) {
        const bool picture = sees && i == 1;
        sample->tokens[i] = picture ? PD_IMAGE_TOKEN : i % weights->decoder.h.n_vocab;
        sample->labels[i] = i < 4 ? PD_IGNORE_INDEX : sample->tokens[i];
    }
    sample->n_tokens = MOST;
    sample->n_labels = MOST - 4;
    sample->n_rows = MOST;
    if (!sees) return PD_OK;
    const pd_preprocess_params params = pd_encode_preprocess_params(&weights->vision.h, aspect);
    pd_image *image;
    CHECK(pd_image_from_rgb(rgb, 5, 3, &image, err) == PD_OK);
    const pd_status status = pd_preprocess(image, &params, &sample->images[0], err);
    pd_image_free(image);
    if (status == PD_OK) sample->n_rows += sample->images[0].layout.n_tokens - 1;
    return status;
}

static void save_and_load(const trainee *t) {
    pd_error err = {0};
    const pd_checkpoint_params params = {.output_dir = folder,
                                         .weights = &t->weights,
                                         .parameters = &t->parameters,
                                         .type = GGML_TYPE_F32,
                                         .keep = 1};
    const pd_checkpoint_run run = {.step = 3, .order = "any"};
    const pd_status status = pd_checkpoint_save(&params, &run, &err);
    if (status != PD_OK) { // weights that are no numbers
        check_failure(status, &err);
        return;
    }
    char path[96];
    pd_checkpoint_run found;
    snprintf(path, sizeof path, "%s/checkpoint-3", folder);
    CHECK(pd_checkpoint_load(path, &t->parameters, &found, &err) == PD_OK);
    CHECK(found.step == 3);
    CHECK(pd_checkpoint_remove(folder, 0, &err) == PD_OK);
}

static pd_status train(maker *m, const char *text, const char *mmproj, int32_t n_layers, pd_error *err) {
    trainee t = {0};
    pd_policy policy;
    pd_train_sample samples[2] = {0};
    pd_step_result result;
    const pd_trainable trainable = {.groups = {next(m) % 4 != 0, true, next(m) % 2},
                                    .lora_rank = next(m) % 4 == 0 ? 2 : 0,
                                    .lora_alpha = 1.0F,
                                    .lora_dropout = 0.25F};
    const pd_lowering_params lowering = {
        .compute = (pd_compute_type)(next(m) % 4), .everything = next(m) % 2, .floats = true};
    const pd_aspect_ratio aspect = (pd_aspect_ratio)(next(m) % 4);
    const bool saves = next(m) % 8 == 0;
    choose_policy(m, n_layers, &policy);
    PD_TRY(pd_weights_load(text, mmproj, pd_device_cpu(), &t.weights, err));
    pd_status status = pd_policy_check(&policy, t.weights.decoder.h.n_layers, err);
    if (status == PD_OK) status = pd_backend_create(pd_device_cpu(), 1, &cancel, &t.backend, err);
    if (status == PD_OK)
        status = pd_parameters_create(&trainable, &t.backend, &t.weights, &t.parameters, err);
    if (status == PD_OK) status = pd_lowering_create(&lowering, &t.lowering, err);
    const pd_step_params params = {.weights = &t.weights,
                                   .parameters = &t.parameters,
                                   .policy = &policy,
                                   .backend = &t.backend,
                                   .lowering = t.lowering};
    if (status == PD_OK) status = pd_step_create(&params, &t.step, err);
    const pd_vision_hyperparameters *h = &t.weights.vision.h;
    const bool sees =
        t.weights.has_vision && h->image_size <= 128 && pd_vision_n_patches(h) <= 1024 && h->n_pinpoints <= 4;
    for (int i = 0; i < 2 && status == PD_OK; i++)
        status = make_sample(&t.weights, aspect, sees && i == 0, &samples[i], err);
    if (status == PD_OK) status = pd_step_add_gradients(t.step, samples, 2, 0.125F, &result, err);
    if (status == PD_OK && saves) save_and_load(&t);
    for (int i = 0; i < 2; i++)
        pd_train_sample_free(&samples[i]);
    pd_step_free(t.step);
    pd_lowering_free(t.lowering);
    pd_parameters_free(&t.parameters);
    if (t.backend.cpu) pd_backend_free(&t.backend);
    pd_weights_free(&t.weights);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    maker m = {.data = data, .size = size};
    int32_t n_embd, n_layers;
    memory_file text = make_text(&m, &n_embd, &n_layers);
    memory_file mmproj = make_mmproj(&m, n_embd);
    pd_error err = {0};
    const pd_status status = train(&m, text.path, mmproj.path, n_layers, &err);
    if (status != PD_OK) check_failure(status, &err);
    fclose(mmproj.stream);
    fclose(text.stream);
    return 0;
}
