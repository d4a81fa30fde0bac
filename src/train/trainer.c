#include "train/trainer.h"

#include "base/file.h"
#include "base/random.h"
#include "engine/encode.h"
#include "train/checkpoint.h"
#include "train/layout.h"
#include "train/loader.h"
#include "train/output_folder.h"
#include "train/scratch.h"
#include "train/step.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void pd_train_params_default(pd_train_params *params) {
    *params = (pd_train_params){.version = "v1",
                                .image_aspect_ratio = PD_ASPECT_AUTO,
                                .model_max_length = 2048,
                                .legacy_tokenizer = true, // as pdrop run and llama.cpp tokenize
                                .lora_r = 128,
                                .lora_alpha = 256.0F,
                                .lora_dropout = 0.05F,
                                .learning_rate = 2e-5F,
                                .adam_beta1 = 0.9F,
                                .adam_beta2 = 0.999F,
                                .adam_epsilon = 1e-8F,
                                .max_grad_norm = 1.0F,
                                .lr_scheduler_type = PD_RATE_COSINE,
                                .warmup_ratio = 0.03,
                                .num_train_epochs = 1.0,
                                .per_device_train_batch_size = 16,
                                .gradient_accumulation_steps = 1,
                                .seed = 42,
                                .save_steps = 500,
                                .save_type = GGML_TYPE_F16};
}

typedef struct {
    const pd_train_params *params;
    char *scratch_model, *scratch_mmproj; // from_scratch: the new pair
    pd_backend backend;
    pd_weights weights;
    bool has_weights;
    pd_parameters parameters;
    pd_tokenizer *tokenizer;
    const pd_conversation *conversation; // not owned
    pd_preprocess_params preprocess;
    pd_dataset *dataset;
    pd_sampler sampler;
    pd_loader *loader;
    pd_lowering *lowering;
    pd_step *step;
    pd_optimizer *optimizer;
    int output_folder; // the first rank's hold on it; −1: none
    bool cleared;      // what overwrite_output_dir removes is gone
    pd_checkpoint_params checkpoint;
    pd_checkpoint_run run;
    pd_train_sample *samples;         // [share]: a step's, of this rank
    int32_t share;                    // most samples of a step that are this rank's
    int32_t *counts;                  // [accumulation]: of every micro-batch
    int64_t n_steps, n_warmup, saved; // saved: the newest checkpoint's step; −1: none of this process
    int64_t n_labels;                 // of all steps of this process
    double sync_ms;
    pd_train_report report;
} trainer;

__attribute__((format(printf, 3, 4))) static void say(const trainer *t, pd_log_level level,
                                                      const char *format, ...) {
    if (!t->params->log) return;
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    t->params->log(level, line, t->params->log_user);
}

static bool is_first(const trainer *t) {
    return pd_ranks_index(t->params->ranks) == 0;
}

// ---- set-up ------------------------------------------------------------------------------------------------

static pd_status check(const pd_train_params *p, pd_error *err) {
    if (!(p->model_name_or_path || p->from_scratch) || !p->data_path || !p->output_dir)
        return pd_fail(err, PD_ERR_ARGUMENT, "expected a model, data and an output folder to train");
    if (p->from_scratch && (p->model_name_or_path || p->vision_tower))
        return pd_fail(err, PD_ERR_ARGUMENT,
                       "from_scratch: expected neither model_name_or_path nor vision_tower with it");
    if ((p->tune_mm_mlp_adapter || p->unfreeze_mm_vision_tower) && !p->vision_tower && !p->from_scratch)
        return pd_fail(err, PD_ERR_ARGUMENT,
                       "tune_mm_mlp_adapter and unfreeze_mm_vision_tower: expected a vision tower");
    if (p->tune_mm_mlp_adapter && (p->lora_enable || p->unfreeze_mm_vision_tower || p->freeze_mm_mlp_adapter))
        return pd_fail(err, PD_ERR_ARGUMENT,
                       "tune_mm_mlp_adapter trains the projector alone (expected neither lora_enable, "
                       "unfreeze_mm_vision_tower nor freeze_mm_mlp_adapter with it)");
    if (!(p->learning_rate >= 0.0F) || !(p->max_grad_norm >= 0.0F) || !(p->weight_decay >= 0.0F))
        return pd_fail(err, PD_ERR_ARGUMENT,
                       "learning_rate, max_grad_norm and weight_decay: expected at least 0");
    if (!(p->lora_dropout >= 0.0F && p->lora_dropout < 1.0F))
        return pd_fail(err, PD_ERR_ARGUMENT, "lora_dropout: expected at least 0 and below 1, found %g",
                       (double)p->lora_dropout);
    if (!(p->warmup_ratio >= 0.0 && p->warmup_ratio <= 1.0))
        return pd_fail(err, PD_ERR_ARGUMENT, "warmup_ratio: expected 0 to 1, found %g", p->warmup_ratio);
    if (p->max_steps <= 0 && !(p->num_train_epochs > 0.0 && p->num_train_epochs < 1e6))
        return pd_fail(err, PD_ERR_ARGUMENT, "num_train_epochs: expected more than 0, found %g",
                       p->num_train_epochs);
    return pd_layout_check_policy(&p->policy, err);
}

static pd_trainable trainable(const pd_train_params *p) {
    pd_trainable wanted = {.seed = p->seed};
    if (p->tune_mm_mlp_adapter) {
        wanted.groups[PD_GROUP_PROJECTOR] = true;
        return wanted;
    }
    wanted.groups[PD_GROUP_DECODER] =
        !p->freeze_backbone || p->lora_enable; // LLaVA adds adapters to what is frozen
    wanted.groups[PD_GROUP_PROJECTOR] = !p->freeze_mm_mlp_adapter;
    wanted.groups[PD_GROUP_VISION] = p->unfreeze_mm_vision_tower;
    if (p->lora_enable) {
        wanted.lora_rank = p->lora_r;
        wanted.lora_alpha = p->lora_alpha;
        wanted.lora_dropout = p->lora_dropout;
    }
    return wanted;
}

// How many threads this rank computes with; 0: the backend's choice.
static int32_t threads(const trainer *t) {
    const int32_t idle = pd_ranks_idle_cores(t->params->ranks);
    if (t->params->n_threads > 0) return t->params->n_threads;
    if (idle > 0 && is_first(t))
        say(t, PD_LOG_WARNING, "cores left idle, bound to no rank: %d (see mpirun's --bind-to)", idle);
    return pd_ranks_threads(t->params->ranks);
}

// The trained pair is written beside the checkpoints, and those come and go: the run begins with neither,
// for --resume needs what it began with.
static pd_status expect_another(const char *input, const char *output_dir, const char *name, pd_error *err) {
    char *path = pd_path_join(output_dir, name);
    if (!path) return pd_fail_memory(err, strlen(output_dir), "a path");
    bool same = pd_same_file(input, path);
    free(path);
    if (!same) PD_TRY(pd_checkpoint_holds(output_dir, name, input, &same, err));
    return same ? pd_fail(err, PD_ERR_ARGUMENT,
                          "%s: the run begins with it and would write over it or remove it (expected another "
                          "output_dir, or a copy elsewhere)",
                          input)
                : PD_OK;
}

static pd_status find_weights(trainer *t, const char **model, const char **mmproj, pd_error *err) {
    const pd_train_params *p = t->params;
    if (p->from_scratch) {
        PD_TRY(pd_scratch_paths(p->output_dir, &t->scratch_model, &t->scratch_mmproj, err));
        *model = t->scratch_model;
        *mmproj = t->scratch_mmproj;
        return PD_OK;
    }
    *model = p->model_name_or_path;
    *mmproj = p->vision_tower;
    PD_TRY(expect_another(*model, p->output_dir, "model.gguf", err));
    return *mmproj ? expect_another(*mmproj, p->output_dir, "mmproj.gguf", err) : PD_OK;
}

static pd_status open_model(trainer *t, pd_error *err) {
    const pd_train_params *p = t->params;
    const char *model = NULL, *mmproj = NULL;
    PD_TRY(find_weights(t, &model, &mmproj, err));
    const int32_t n_threads = threads(t);
    PD_TRY(pd_backend_create(pd_device_cpu(), n_threads, p->cancel, &t->backend, err));
    PD_TRY(pd_weights_load(model, mmproj, pd_device_cpu(), &t->weights, err));
    t->has_weights = true;
    PD_TRY(pd_policy_check(&p->policy, t->weights.decoder.h.n_layers, err));
    PD_TRY(pd_tokenizer_create(&t->weights.text_file, &t->tokenizer, err));
    PD_TRY(pd_tokenizer_expect_rows(t->tokenizer, t->weights.decoder.h.n_vocab, model, err));
    const pd_trainable wanted = trainable(p);
    PD_TRY(pd_parameters_create(&wanted, &t->backend, &t->weights, &t->parameters, err));
    if (t->parameters.n == 0)
        return pd_fail(err, PD_ERR_ARGUMENT, "nothing is trained: everything is frozen");
    snprintf(t->run.base, sizeof t->run.base, "%016" PRIx64, pd_parameters_base(&t->parameters, &t->weights));
    const pd_lowering_params lowering = {.floats = true,
                                         .compute = p->compute,
                                         .strict = p->compute_strict,
                                         .mapped_bytes = pd_weights_mapped_bytes(&t->weights),
                                         .log = is_first(t) ? p->log : NULL,
                                         .log_user = p->log_user};
    PD_TRY(pd_lowering_create(&lowering, &t->lowering, err));
    const pd_step_params step = {.weights = &t->weights,
                                 .parameters = &t->parameters,
                                 .policy = &p->policy,
                                 .backend = &t->backend,
                                 .lowering = t->lowering};
    PD_TRY(pd_step_create(&step, &t->step, err));
    return pd_optimizer_create(&t->parameters, &t->backend, &t->optimizer, err);
}

static void plan(trainer *t) {
    const pd_train_params *p = t->params;
    const int64_t an_epoch = pd_sampler_steps_per_epoch(&t->sampler);
    t->n_steps = p->max_steps > 0 ? p->max_steps : (int64_t)ceil(p->num_train_epochs * (double)an_epoch);
    t->n_warmup = (int64_t)ceil(p->warmup_ratio * (double)t->n_steps);
    t->run.step = 0;
    snprintf(t->run.order, sizeof t->run.order, "seed %llu, %d samples, %d a step, grouped %d",
             (unsigned long long)p->seed, t->sampler.n_samples,
             t->sampler.batch_size * t->sampler.gradient_accumulation_steps * t->sampler.world_size,
             p->group_by_modality_length);
    snprintf(t->run.course, sizeof t->run.course, "%lld steps, warm-up %lld", (long long)t->n_steps,
             (long long)t->n_warmup);
    if (p->lora_enable) {
        const size_t used = strlen(t->run.order);
        snprintf(t->run.order + used, sizeof t->run.order - used, ", lora_alpha %g, lora_dropout %g",
                 (double)p->lora_alpha, (double)p->lora_dropout);
    }
}

static pd_status open_data(trainer *t, pd_error *err) {
    const pd_train_params *p = t->params;
    const int32_t batch = p->per_device_train_batch_size, accumulation = p->gradient_accumulation_steps;
    PD_TRY(pd_dataset_open(p->data_path, &t->dataset, err));
    t->sampler = (pd_sampler){.n_samples = pd_dataset_size(t->dataset),
                              .lengths = pd_dataset_lengths(t->dataset),
                              .group_by_modality_length = p->group_by_modality_length,
                              .seed = p->seed,
                              .batch_size = batch,
                              .gradient_accumulation_steps = accumulation,
                              .world_size = pd_ranks_count(p->ranks)};
    PD_TRY(pd_sampler_check(&t->sampler, err));
    const int64_t share = (int64_t)batch * accumulation; // no step has more samples than an epoch
    t->share = share < t->sampler.n_samples ? (int32_t)share : t->sampler.n_samples;
    t->samples = calloc((size_t)t->share, sizeof *t->samples);
    t->counts = calloc((size_t)accumulation, sizeof *t->counts);
    if (!t->samples || !t->counts)
        return pd_fail_memory(err, (size_t)t->share * sizeof *t->samples, "a step's samples");
    plan(t);
    return PD_OK;
}

// Later checkpoints than the one that the run begins at are of another run, and would be taken for its own.
static pd_status expect_output(const trainer *t, pd_error *err) {
    const pd_train_params *p = t->params;
    if (!is_first(t) || p->overwrite_output_dir) return PD_OK;
    return pd_checkpoint_expect_none(p->output_dir, p->resume_from_checkpoint ? t->run.step : -1, err);
}

static pd_status resume(trainer *t, pd_error *err) {
    const pd_train_params *p = t->params;
    if (!p->resume_from_checkpoint) return PD_OK;
    pd_checkpoint_run run;
    PD_TRY(pd_checkpoint_load(p->resume_from_checkpoint, &t->parameters, &run, err));
    if (strcmp(run.order, t->run.order) != 0)
        return pd_fail(err, PD_ERR_ARGUMENT,
                       "%s: the checkpoint is of another run (%s); expected this one's (%s)",
                       p->resume_from_checkpoint, run.order, t->run.order);
    if (run.base[0] && strcmp(run.base, t->run.base) != 0)
        return pd_fail(
            err, PD_ERR_ARGUMENT,
            "%s: the checkpoint is of a run that began with another model (fingerprint %s); expected "
            "this one's (%s)",
            p->resume_from_checkpoint, run.base, t->run.base);
    if (run.step > t->n_steps)
        return pd_fail(err, PD_ERR_ARGUMENT, "%s: expected at most this run's %lld steps, found %lld done",
                       p->resume_from_checkpoint, (long long)t->n_steps, (long long)run.step);
    if (strcmp(run.course, t->run.course) != 0 && is_first(t))
        say(t, PD_LOG_WARNING, "%s was to have %s; this run has %s, and its learning rate's course",
            p->resume_from_checkpoint, run.course, t->run.course);
    t->run.step = run.step;
    if (pd_checkpoint_is_own(p->output_dir, run.step, p->resume_from_checkpoint)) t->saved = run.step;
    return expect_output(t, err);
}

// Rows of a sample: no more than the model has positions for.
static int32_t max_length(const trainer *t) {
    const int32_t wanted = t->params->model_max_length, most = t->weights.decoder.h.n_ctx_train;
    if (wanted <= most) return wanted;
    if (is_first(t))
        say(t, PD_LOG_INFO, "samples are cut off at the model's context of %d (model_max_length is %d)", most,
            wanted);
    return most;
}

// How the model wants pictures, and whether there are any for a run that trains on nothing else.
static pd_status check_pictures(trainer *t, pd_error *err) {
    const pd_train_params *p = t->params;
    bool found = !p->tune_mm_mlp_adapter;
    for (int32_t i = 0; i < t->sampler.n_samples && !found; i++)
        found = pd_dataset_length(t->dataset, i) > 0;
    if (!found)
        return pd_fail(err, PD_ERR_FORMAT, "%s: expected records with pictures, for tune_mm_mlp_adapter",
                       p->data_path);
    if (!t->weights.has_vision) return PD_OK;
    t->preprocess = pd_encode_preprocess_params(&t->weights.vision.h, p->image_aspect_ratio);
    if (p->image_aspect_ratio == PD_ASPECT_ANYRES && t->preprocess.n_pinpoints == 0)
        return pd_fail(err, PD_ERR_ARGUMENT,
                       "image_aspect_ratio anyres: expected an mmproj with clip.vision.image_grid_pinpoints");
    return PD_OK;
}

static pd_status open_loader(trainer *t, pd_error *err) {
    const pd_train_params *p = t->params;
    PD_TRY(check_pictures(t, err));
    int64_t position = 0;
    int32_t count = 0;
    pd_sampler_batch(&t->sampler, pd_ranks_index(p->ranks), t->run.step, 0, &position, &count);
    const int32_t workers =
        p->dataloader_num_workers > 0 ? p->dataloader_num_workers : 1 + t->backend.n_threads / 4;
    const pd_loader_params params = {.sample = {.dataset = t->dataset,
                                                .image_folder = p->image_folder,
                                                .preprocess = t->weights.has_vision ? &t->preprocess : NULL,
                                                .labels = {.tokenizer = t->tokenizer,
                                                           .conversation = t->conversation,
                                                           .legacy = p->legacy_tokenizer,
                                                           .model_max_length = max_length(t)}},
                                     .sampler = t->sampler,
                                     .rank = pd_ranks_index(p->ranks),
                                     .position = position,
                                     .n_threads =
                                         workers < PD_LOADER_MAX_THREADS ? workers : PD_LOADER_MAX_THREADS,
                                     .n_ahead = t->share < INT32_MAX / 2 ? 2 * t->share : t->share,
                                     .skip_bad_images = p->skip_bad_images,
                                     .skip_bad_samples = p->skip_bad_samples,
                                     .cancel = p->cancel,
                                     .log = p->log,
                                     .log_user = p->log_user};
    return pd_loader_create(&params, &t->loader, err);
}

// Behind the first step, when model and data have been found sound: what is to be overwritten goes, and new
// weights have their names.
static pd_status clear_output(trainer *t, pd_error *err) {
    const pd_train_params *p = t->params;
    pd_status status = PD_OK;
    if (t->cleared) return PD_OK;
    t->cleared = true;
    if (is_first(t) && p->overwrite_output_dir)
        status = pd_checkpoint_remove_after(p->output_dir,
                                            p->resume_from_checkpoint ? t->report.first_step : -1, err);
    if (status == PD_OK && is_first(t)) status = pd_scratch_keep(p->output_dir, err);
    return pd_ranks_agree(p->ranks, status, err);
}

static pd_status make_output(trainer *t, pd_error *err) {
    const pd_train_params *p = t->params;
    t->checkpoint = (pd_checkpoint_params){.output_dir = p->output_dir,
                                           .weights = &t->weights,
                                           .parameters = &t->parameters,
                                           .type = p->save_type};
    t->saved = -1;
    if (!is_first(t)) return PD_OK;
    PD_TRY(pd_output_folder_open(p->output_dir, &t->output_folder, err));
    PD_TRY(pd_checkpoint_clean(p->output_dir, err));
    return p->resume_from_checkpoint ? PD_OK : expect_output(t, err);
}

// What is in the way is found before anything is written.
static pd_status prepare(trainer *t, pd_error *err) {
    const pd_train_params *p = t->params;
    PD_TRY(check(p, err));
    PD_TRY(pd_conversation_find(p->version, &t->conversation, err));
    PD_TRY(make_output(t, err));
    PD_TRY(open_data(t, err));
    return p->from_scratch && is_first(t)
               ? pd_scratch_prepare(p->from_scratch, p->output_dir, p->seed, p->resume_from_checkpoint, err)
               : PD_OK;
}

static pd_status open_all(trainer *t, pd_error *err) {
    PD_TRY(open_model(t, err));
    PD_TRY(resume(t, err));
    return open_loader(t, err);
}

// Started with other arguments, or before other files, ranks would train something that is no one's run.
static pd_status compare_ranks(const trainer *t, pd_error *err) {
    char text[sizeof t->run.order + 128];
    snprintf(text, sizeof text, "%s, after step %lld, %lld parameters in %zu tensors of model %s",
             t->run.order, (long long)t->run.step, (long long)pd_parameters_count(&t->parameters),
             t->parameters.n, t->run.base);
    return pd_ranks_compare(t->params->ranks, "this rank's run", text, err);
}

static void close_all(trainer *t) {
    pd_loader_free(t->loader);
    pd_optimizer_free(t->optimizer);
    pd_step_free(t->step);
    pd_lowering_free(t->lowering);
    if (t->has_weights) {
        pd_parameters_free(&t->parameters);
        pd_weights_free(&t->weights);
    }
    pd_tokenizer_free(t->tokenizer);
    pd_dataset_free(t->dataset);
    if (t->backend.cpu) pd_backend_free(&t->backend);
    if (t->output_folder >= 0) {
        pd_scratch_discard(t->params->output_dir);
        close(t->output_folder);
    }
    free(t->scratch_model);
    free(t->scratch_mmproj);
    free(t->samples);
    free(t->counts);
}

// ---- a step ------------------------------------------------------------------------------------------------

static bool cancelled(const trainer *t) {
    return t->params->cancel && atomic_load(t->params->cancel);
}

// pd_ranks_agree, timed: how long the others are waited for.
static pd_status agree(trainer *t, pd_status status, pd_error *err) {
    const double start = pd_now_ms();
    status = pd_ranks_agree(t->params->ranks, status, err);
    t->sync_ms += pd_now_ms() - start;
    return status;
}

static void free_samples(trainer *t, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        pd_train_sample_free(&t->samples[i]);
}

// All micro-batches of the step, one behind the other in t->samples: *n samples.
static pd_status load_samples(trainer *t, int32_t *n, pd_error *err) {
    *n = 0;
    for (int32_t m = 0; m < t->sampler.gradient_accumulation_steps; m++) {
        int64_t position = 0;
        pd_sampler_batch(&t->sampler, pd_ranks_index(t->params->ranks), t->run.step, m, &position,
                         &t->counts[m]);
        PD_TRY(pd_loader_next(t->loader, t->counts[m], t->samples + *n, err));
        *n += t->counts[m];
    }
    return PD_OK;
}

// Sums over the ranks: what a step's report is made of.
enum {
    SUM_LOSS,
    SUM_ROWS,
    SUM_IMAGE_ROWS,
    SUM_IMAGE_ROWS_MEAN,
    SUM_BAD_IMAGES,
    SUM_BAD_SAMPLES,
    SUM_TRUNCATED,
    SUM_MISMATCHES,
    SUMS
};

// What adapters drop in a micro-batch: other numbers in each of every rank's, the same after --resume.
static uint64_t draw_of(const trainer *t, int32_t micro_batch) {
    uint64_t state = t->params->seed;
    state = pd_random_next(&state) ^ (uint64_t)t->run.step;
    state = pd_random_next(&state) ^ (uint64_t)pd_ranks_index(t->params->ranks);
    state = pd_random_next(&state) ^ (uint64_t)micro_batch;
    return pd_random_next(&state);
}

static pd_status add_gradients(trainer *t, double n_labels, double *sums, pd_error *err) {
    const pd_train_sample *samples = t->samples;
    const float scale = n_labels > 0.0 ? (float)(1.0 / n_labels) : 0.0F;
    for (int32_t m = 0; m < t->sampler.gradient_accumulation_steps; m++) {
        pd_step_result result;
        if (t->counts[m] == 0) continue;
        t->parameters.draw = draw_of(t, m);
        PD_TRY(pd_step_add_gradients(t->step, samples, t->counts[m], scale, &result, err));
        samples += t->counts[m];
        sums[SUM_LOSS] += result.loss;
        sums[SUM_ROWS] += result.n_rows;
        sums[SUM_IMAGE_ROWS] += result.n_image_rows;
        sums[SUM_IMAGE_ROWS_MEAN] += result.image_rows_mean;
    }
    return PD_OK;
}

pd_adamw_params pd_train_adamw(const pd_train_params *p, int64_t step, int64_t n_warmup, int64_t n_steps,
                               double norm) {
    const double factor = pd_rate_factor(p->lr_scheduler_type, step, n_warmup, n_steps);
    const float projector = p->mm_projector_lr > 0.0F ? p->mm_projector_lr : p->learning_rate,
                tower = p->mm_vision_tower_lr > 0.0F ? p->mm_vision_tower_lr : p->learning_rate;
    const bool clips = p->max_grad_norm > 0.0F;
    return (pd_adamw_params){
        .beta1 = p->adam_beta1,
        .beta2 = p->adam_beta2,
        .epsilon = p->adam_epsilon,
        .weight_decay = p->weight_decay,
        .learning_rates = {(float)(factor * (double)p->learning_rate), (float)(factor * (double)projector),
                           (float)(factor * (double)tower)},
        .gradient_scale = clips ? (float)fmin(1.0, (double)p->max_grad_norm / (norm + 1e-6)) : 1.0F,
        .step = step + 1};
}

static pd_status optimise(trainer *t, pd_error *err) {
    double norm = 0.0;
    PD_TRY(pd_optimizer_gradient_norm(t->optimizer, &norm, err));
    if (!isfinite(t->report.loss) || !isfinite(norm))
        return pd_fail(err, PD_ERR_BACKEND,
                       "step %lld: the loss is %g and its gradient's norm %g; expected numbers (the last "
                       "checkpoint stays)",
                       (long long)t->run.step + 1, t->report.loss, norm);
    const pd_adamw_params adamw = pd_train_adamw(t->params, t->run.step, t->n_warmup, t->n_steps, norm);
    PD_TRY(pd_optimizer_step(t->optimizer, &adamw, err));
    t->report.learning_rate = (double)adamw.learning_rates[PD_GROUP_DECODER];
    t->report.gradient_norm = norm;
    return PD_OK;
}

static pd_status compute_step(trainer *t, int32_t n, pd_error *err) {
    pd_ranks *ranks = t->params->ranks;
    const pd_loader_stats stats = pd_loader_get_stats(t->loader);
    double n_labels = 0.0, sums[SUMS] = {[SUM_BAD_IMAGES] = (double)stats.bad_images,
                                         [SUM_BAD_SAMPLES] = (double)stats.bad_samples,
                                         [SUM_TRUNCATED] = (double)stats.truncated,
                                         [SUM_MISMATCHES] = (double)stats.mismatches};
    for (int32_t i = 0; i < n; i++)
        n_labels += pd_sample_n_labels(&t->samples[i]);
    PD_TRY(pd_ranks_sum(ranks, &n_labels, 1, err));
    PD_TRY(agree(t, add_gradients(t, n_labels, sums, err), err));
    const double start = pd_now_ms();
    PD_TRY(pd_ranks_sum_gradients(ranks, &t->parameters, err));
    PD_TRY(pd_ranks_sum(ranks, sums, SUMS, err));
    t->sync_ms += pd_now_ms() - start;
    t->report.loss = n_labels > 0.0 ? sums[SUM_LOSS] / n_labels : 0.0;
    t->report.n_labels = (int64_t)n_labels;
    t->n_labels += t->report.n_labels;
    t->report.n_rows = (int64_t)sums[SUM_ROWS];
    t->report.n_image_rows = (int64_t)sums[SUM_IMAGE_ROWS];
    t->report.image_rows_mean = sums[SUM_IMAGE_ROWS_MEAN];
    t->report.bad_images = (int64_t)sums[SUM_BAD_IMAGES];
    t->report.bad_samples = (int64_t)sums[SUM_BAD_SAMPLES];
    t->report.truncated = (int64_t)sums[SUM_TRUNCATED];
    t->report.mismatches = (int64_t)sums[SUM_MISMATCHES];
    return agree(t, optimise(t, err), err);
}

static void finish_report(trainer *t, double start_ms, double loaded_ms) {
    pd_train_report *r = &t->report;
    r->step = t->run.step;
    r->epoch = (double)t->run.step / (double)pd_sampler_steps_per_epoch(&t->sampler);
    r->step_ms = pd_now_ms() - start_ms;
    r->wait_ms = loaded_ms - start_ms;
    r->sync_ms = t->sync_ms;
    r->graph_bytes = pd_step_bytes(t->step);
}

static pd_status train_step(trainer *t, pd_error *err) {
    const double start = pd_now_ms();
    int32_t n = 0;
    t->sync_ms = 0.0;
    pd_status status = load_samples(t, &n, err);
    const double loaded = pd_now_ms();
    if (status == PD_OK && cancelled(t)) status = pd_fail(err, PD_ERR_CANCELLED, "cancelled");
    status = agree(t, status, err);
    if (status == PD_OK) status = compute_step(t, n, err);
    free_samples(t, n);
    PD_TRY(status);
    t->run.step++;
    finish_report(t, start, loaded);
    if (t->params->on_step) t->params->on_step(&t->report, t->params->user);
    return PD_OK;
}

// ---- the run -----------------------------------------------------------------------------------------------

// A checkpoint that cannot be removed, for somebody reads it, is no reason to stop.
static void remove_old(const trainer *t) {
    pd_error err;
    const int32_t keep = t->params->save_total_limit;
    if (keep > 0 && pd_checkpoint_remove(t->params->output_dir, keep, &err) != PD_OK)
        say(t, PD_LOG_WARNING, "%s", err.message);
}

static pd_status save(trainer *t, pd_error *err) {
    pd_status status = PD_OK;
    if (is_first(t) && t->saved != t->run.step) {
        status = pd_checkpoint_save(&t->checkpoint, &t->run, err);
        if (status == PD_OK) {
            say(t, PD_LOG_INFO, "saved %s/checkpoint-%lld", t->params->output_dir, (long long)t->run.step);
            remove_old(t);
        }
    }
    t->saved = t->run.step;
    return pd_ranks_agree(t->params->ranks, status, err);
}

static pd_status finish(trainer *t, pd_error *err) {
    PD_TRY(save(t, err));
    return pd_ranks_agree(
        t->params->ranks,
        is_first(t) ? pd_checkpoint_export(&t->checkpoint, t->params->output_dir, err) : PD_OK, err);
}

// After a cancelled step the parameters are the last whole step's.
static pd_status stop(trainer *t, pd_error *err) {
    if (t->run.step > t->report.first_step) PD_TRY(save(t, err));
    return pd_fail(err, PD_ERR_CANCELLED, "stopped after step %lld of %lld", (long long)t->run.step,
                   (long long)t->n_steps);
}

// A run that learns nothing, for the template is not the data's or no record has an answer, is none.
static pd_status expect_labels(const trainer *t, pd_error *err) {
    const int64_t steps = t->run.step - t->report.first_step;
    if (t->n_labels > 0 || steps == 0) return PD_OK;
    if (t->run.step < t->n_steps && steps < pd_sampler_steps_per_epoch(&t->sampler)) return PD_OK;
    return pd_fail(err, PD_ERR_FORMAT,
                   "%s: expected answers to learn under the template %s, found none in %lld steps",
                   t->params->data_path, t->params->version, (long long)steps);
}

static pd_status run(trainer *t, pd_error *err) {
    const int32_t save_steps = t->params->save_steps;
    t->report = (pd_train_report){.step = t->run.step,
                                  .first_step = t->run.step,
                                  .n_steps = t->n_steps,
                                  .n_parameters = pd_parameters_count(&t->parameters),
                                  .n_samples = t->sampler.n_samples,
                                  .compute = pd_lowering_description(t->lowering)};
    if (t->params->on_start) t->params->on_start(&t->report, t->params->user);
    while (t->run.step < t->n_steps) {
        const pd_status status = train_step(t, err);
        if (status == PD_ERR_CANCELLED) return stop(t, err);
        PD_TRY(status);
        PD_TRY(expect_labels(t, err));
        PD_TRY(clear_output(t, err));
        if (save_steps > 0 && t->run.step % save_steps == 0) PD_TRY(save(t, err));
    }
    PD_TRY(clear_output(t, err));
    return finish(t, err);
}

pd_status pd_train(const pd_train_params *params, pd_error *err) {
    trainer t = {.params = params, .output_folder = -1};
    pd_status status = pd_ranks_agree(params->ranks, prepare(&t, err), err);
    if (status == PD_OK) status = pd_ranks_agree(params->ranks, open_all(&t, err), err);
    if (status == PD_OK) status = pd_ranks_agree(params->ranks, compare_ranks(&t, err), err);
    if (status == PD_OK) status = run(&t, err);
    close_all(&t);
    return status;
}
