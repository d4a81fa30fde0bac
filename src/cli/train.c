// pdrop train: LLaVA's two phases, with the pyramid.
#include "base/file.h"
#include "cli/cli.h"
#include "cli/train_log.h"
#include "model/geometry_file.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

#include <stdlib.h>
#include <string.h>

static pd_train_params params;
static struct {
    const char *save_type, *resume_from_checkpoint;
    int32_t max_steps, course, image_aspect_ratio, compute;
    bool resume, quiet, json;
} flags = {.save_type = "f16"};

static const char *const courses[] = {"cosine", "linear", "constant", "constant_with_warmup", NULL};
static const char *const aspects[] = {"auto", "pad", "anyres", "square", NULL};
static const char *const computes[] = {"auto", "ggml", "f32", "bf16", NULL};
static const pd_compute_type compute_types[] = {PD_COMPUTE_AUTO, PD_COMPUTE_GGML, PD_COMPUTE_F32,
                                                PD_COMPUTE_BF16};

static const pd_option train_table[] = {
    {.type = PD_OPTION_HEADING, .help = "model"},
    {PD_OPTION_STRING, 'm', "--model_name_or_path", "FILE", "text model (GGUF)", &params.model_name_or_path,
     0, 0, NULL},
    {PD_OPTION_STRING, 0, "--vision_tower", "FILE",
     "vision tower and projector (mmproj GGUF); without it, text alone", &params.vision_tower, 0, 0, NULL},
    {PD_OPTION_STRING, 0, "--from_scratch", "FILE",
     "instead of both: new weights of a geometry in JSON (see pdrop synth)", &params.from_scratch, 0, 0,
     NULL},
    {PD_OPTION_STRING, 0, "--version", "NAME", "conversation template: plain, v1, … (default: v1)",
     &params.version, 0, 0, NULL},
    {.type = PD_OPTION_HEADING, .help = "data"},
    {PD_OPTION_STRING, 0, "--data_path", "FILE", "conversations in LLaVA's JSON, or a record a line",
     &params.data_path, 0, 0, NULL},
    {PD_OPTION_STRING, 0, "--image_folder", "DIR", "where the records' pictures are", &params.image_folder, 0,
     0, NULL},
    {PD_OPTION_CHOICE, 0, "--image_aspect_ratio", NULL,
     "how pictures become tiles (default: auto, as the model wants them)", &flags.image_aspect_ratio, 0, 0,
     aspects},
    {PD_OPTION_INT, 0, "--model_max_length", "N", "rows of a sample, image tokens included (default: 2048)",
     &params.model_max_length, 2, 1 << 20, NULL},
    {PD_OPTION_BOOL, 0, "--skip_bad_images", "[True]",
     "name and leave out records whose picture is missing or broken", &params.skip_bad_images, 0, 0, NULL},
    {PD_OPTION_BOOL, 0, "--skip_bad_samples", "[True]",
     "name and leave out records without an answer to learn", &params.skip_bad_samples, 0, 0, NULL},
    {PD_OPTION_INT, 0, "--dataloader_num_workers", "N",
     "threads that read ahead (default: 0, a quarter of the cores and one)", &params.dataloader_num_workers,
     0, 256, NULL},
    {.type = PD_OPTION_HEADING, .help = "what is trained (default: decoder and projector)"},
    {PD_OPTION_BOOL, 0, "--tune_mm_mlp_adapter", "[True]", "the projector alone: LLaVA's first phase",
     &params.tune_mm_mlp_adapter, 0, 0, NULL},
    {PD_OPTION_BOOL, 0, "--unfreeze_mm_vision_tower", "[True]", "the vision tower too",
     &params.unfreeze_mm_vision_tower, 0, 0, NULL},
    {PD_OPTION_BOOL, 0, "--freeze_mm_mlp_adapter", "[True]", "not the projector",
     &params.freeze_mm_mlp_adapter, 0, 0, NULL},
    {PD_OPTION_BOOL, 0, "--freeze_backbone", "[True]", "not the decoder", &params.freeze_backbone, 0, 0,
     NULL},
    {PD_OPTION_BOOL, 0, "--lora_enable", "[True]",
     "low-rank adapters instead of the decoder's matrices, merged when saved", &params.lora_enable, 0, 0,
     NULL},
    {PD_OPTION_INT, 0, "--lora_r", "N", "their rank (default: 128)", &params.lora_r, 1, 65536, NULL},
    {PD_OPTION_FLOAT, 0, "--lora_alpha", "X", "their scale times the rank (default: 256)", &params.lora_alpha,
     0, 1e6, NULL},
    {PD_OPTION_FLOAT, 0, "--lora_dropout", "X", "share of their input left out in a step (default: 0.05)",
     &params.lora_dropout, 0, 1, NULL},
    {.type = PD_OPTION_HEADING, .help = "optimisation"},
    {PD_OPTION_DOUBLE, 0, "--num_train_epochs", "X", "times through the data (default: 1)",
     &params.num_train_epochs, 0, 1e6, NULL},
    {PD_OPTION_INT, 0, "--max_steps", "N", "steps, instead of epochs (default: 0, epochs)", &flags.max_steps,
     0, INT32_MAX, NULL},
    {PD_OPTION_INT, 0, "--per_device_train_batch_size", "N", "samples computed together (default: 16)",
     &params.per_device_train_batch_size, 1, 65536, NULL},
    {PD_OPTION_INT, 0, "--gradient_accumulation_steps", "N", "of those to a step (default: 1)",
     &params.gradient_accumulation_steps, 1, 65536, NULL},
    {PD_OPTION_BOOL, 0, "--group_by_modality_length", "[True]", "batches of like samples",
     &params.group_by_modality_length, 0, 0, NULL},
    {PD_OPTION_FLOAT, 0, "--learning_rate", "X", "highest learning rate (default: 2e-5)",
     &params.learning_rate, 0, 1e3, NULL},
    {PD_OPTION_FLOAT, 0, "--mm_projector_lr", "X", "the projector's (default: 0, learning_rate)",
     &params.mm_projector_lr, 0, 1e3, NULL},
    {PD_OPTION_FLOAT, 0, "--mm_vision_tower_lr", "X", "the vision tower's (default: 0, learning_rate)",
     &params.mm_vision_tower_lr, 0, 1e3, NULL},
    {PD_OPTION_CHOICE, 0, "--lr_scheduler_type", NULL, "its course (default: cosine)", &flags.course, 0, 0,
     courses},
    {PD_OPTION_DOUBLE, 0, "--warmup_ratio", "X",
     "share of the steps in which it rises, but not with constant (default: 0.03)", &params.warmup_ratio, 0,
     1, NULL},
    {PD_OPTION_FLOAT, 0, "--weight_decay", "X", "AdamW's (default: 0)", &params.weight_decay, 0, 1e3, NULL},
    {PD_OPTION_FLOAT, 0, "--adam_beta1", "X", "(default: 0.9)", &params.adam_beta1, 0, 1, NULL},
    {PD_OPTION_FLOAT, 0, "--adam_beta2", "X", "(default: 0.999)", &params.adam_beta2, 0, 1, NULL},
    {PD_OPTION_FLOAT, 0, "--adam_epsilon", "X", "(default: 1e-8)", &params.adam_epsilon, 0, 1, NULL},
    {PD_OPTION_FLOAT, 0, "--max_grad_norm", "X", "gradients are clipped to this norm (default: 1; 0: not)",
     &params.max_grad_norm, 0, 1e9, NULL},
    {PD_OPTION_UINT64, 's', "--seed", "N", "of the order of samples and of new weights (default: 42)",
     &params.seed, 0, 0, NULL},
    {.type = PD_OPTION_HEADING, .help = "run"},
    {PD_OPTION_STRING, 'o', "--output_dir", "DIR", "checkpoints, log.jsonl and the trained pair",
     &params.output_dir, 0, 0, NULL},
    {PD_OPTION_BOOL, 0, "--overwrite_output_dir", "[True]",
     "begin anew where checkpoints are: they are removed", &params.overwrite_output_dir, 0, 0, NULL},
    {PD_OPTION_INT, 0, "--save_steps", "N", "steps between checkpoints (default: 500; 0: one at the end)",
     &params.save_steps, 0, INT32_MAX, NULL},
    {PD_OPTION_INT, 0, "--save_total_limit", "N", "newest checkpoints that are kept (default: 0, all)",
     &params.save_total_limit, 0, INT32_MAX, NULL},
    {PD_OPTION_STRING, 0, "--save_type", "TYPE", "of saved matrices: f32, f16, bf16, q8_0 (default: f16)",
     &flags.save_type, 0, 0, NULL},
    {PD_OPTION_FLAG, 0, "--resume", NULL,
     "go on from the newest checkpoint in the output folder, if there is one", &flags.resume, 0, 0, NULL},
    {PD_OPTION_STRING, 0, "--resume_from_checkpoint", "DIR", "go on from this one",
     &flags.resume_from_checkpoint, 0, 0, NULL},
    {PD_OPTION_INT, 't', "--threads", "N",
     "threads of a rank (default: 0, one for each core, or its share of them)", &params.n_threads, 0, 512,
     NULL},
    {PD_OPTION_CHOICE, 0, "--compute", NULL, "numbers of the products (default: auto, by what the CPU has)",
     &flags.compute, 0, 0, computes},
    {PD_OPTION_FLAG, 0, "--compute-strict", NULL, "stop where --compute cannot be had",
     &params.compute_strict, 0, 0, NULL},
    {PD_OPTION_FLAG, 0, "--json", NULL, "the log's lines on standard output", &flags.json, 0, 0, NULL},
    {PD_OPTION_FLAG, 'q', "--quiet", NULL, "no live line", &flags.quiet, 0, 0, NULL},
    {.type = PD_OPTION_END},
};

static const pd_option *const tables[] = {train_table, pd_schedule_option_table, NULL};

static const pd_command command = {
    .name = "train",
    .usage =
        "pdrop train -m MODEL [--vision_tower MMPROJ] --data_path JSON [--image_folder DIR] -o DIR "
        "[options]\n"
        "       pdrop train --from_scratch GEOMETRY --data_path JSON --image_folder DIR -o DIR [options]",
    .about =
        "Trains a model on LLaVA's conversations, under LLaVA's argument names, with the pyramid or "
        "without.\n"
        "The GGUF files that it begins with stay as they are. Under mpirun every rank takes its share of\n"
        "each step.",
    .tables = tables,
};

static pd_status n_layers_of_geometry(int32_t *n_layers, pd_error *err) {
    pd_geometry_file file;
    PD_TRY(pd_geometry_read(params.from_scratch, &file, err));
    *n_layers = file.geometry.decoder.n_layers;
    pd_geometry_file_close(&file);
    return PD_OK;
}

static pd_status n_layers_of_model(int32_t *n_layers, pd_error *err) {
    pd_gguf gguf;
    pd_decoder_hyperparameters h;
    PD_TRY(pd_gguf_open(params.model_name_or_path, &gguf, err));
    const pd_status status = pd_decoder_hyperparameters_read(&gguf, &h, err);
    pd_gguf_close(&gguf);
    *n_layers = h.n_layers;
    return status;
}

// The policy is for a model of so many layers, before the trainer opens it.
static pd_status read_policy(pd_error *err) {
    int32_t n_layers = 0;
    PD_TRY(params.from_scratch ? n_layers_of_geometry(&n_layers, err) : n_layers_of_model(&n_layers, err));
    return pd_cli_policy(n_layers, &params.policy, err);
}

static pd_status find_checkpoint(char **path, pd_error *err) {
    *path = NULL;
    params.resume_from_checkpoint = flags.resume_from_checkpoint;
    if (flags.resume && !flags.resume_from_checkpoint) {
        PD_TRY(pd_checkpoint_newest(params.output_dir, path, err));
        params.resume_from_checkpoint = *path;
    }
    return PD_OK;
}

static pd_status expect_given(const char *name, const char *value, pd_error *err) {
    return value ? PD_OK : pd_fail(err, PD_ERR_ARGUMENT, "%s is missing (see pdrop train --help)", name);
}

// The log is cut off where the run begins, whatever it holds.
static pd_status expect_data_kept(pd_error *err) {
    char *log = pd_path_join(params.output_dir, "log.jsonl");
    if (!log) return pd_fail_memory(err, strlen(params.output_dir), "a path");
    const pd_status status = pd_cli_expect_other("the log of --output_dir", log, params.data_path, err);
    free(log);
    return status;
}

static pd_status prepare(char **checkpoint, pd_train_log **log, pd_error *err) {
    PD_TRY(expect_given("--output_dir", params.output_dir, err));
    PD_TRY(expect_given("--data_path", params.data_path, err));
    PD_TRY(expect_data_kept(err));
    PD_TRY(pd_export_type(flags.save_type, &params.save_type, err));
    PD_TRY(pd_ranks_agree(params.ranks, find_checkpoint(checkpoint, err), err));
    if (!params.from_scratch) PD_TRY(expect_given("--model_name_or_path", params.model_name_or_path, err));
    params.image_aspect_ratio = (pd_aspect_ratio)flags.image_aspect_ratio;
    params.lr_scheduler_type = (pd_rate_course)flags.course;
    params.max_steps = flags.max_steps;
    params.compute = compute_types[flags.compute];
    PD_TRY(read_policy(err));
    const pd_train_log_params log_params = {.output_dir = params.output_dir,
                                            .rank = pd_ranks_index(params.ranks),
                                            .live = !flags.quiet,
                                            .json = flags.json};
    return pd_train_log_create(&log_params, log, err);
}

int pd_cli_train(int argc, char **argv) {
    static atomic_bool cancel;
    int exit_code = PD_EXIT_OK;
    pd_error err;
    pd_train_params_default(&params);
    if (!pd_cli_parse(&command, argc, argv, &exit_code)) return exit_code;
    char *checkpoint = NULL;
    pd_train_log *log = NULL;
    pd_cli_silence_ggml();
    pd_status status = pd_ranks_join(&params.ranks, &err);
    if (status == PD_OK) status = pd_ranks_agree(params.ranks, prepare(&checkpoint, &log, &err), &err);
    if (status == PD_OK) {
        pd_cli_cancel_on_signals(&cancel);
        params.cancel = &cancel;
        params.log = pd_train_log_line;
        params.on_start = pd_train_log_start;
        params.on_step = pd_train_log_step;
        params.log_user = params.user = log;
        status = pd_train(&params, &err);
    }
    pd_train_log_free(log);
    free(checkpoint);
    if (status != PD_OK) {
        const bool speaks = !params.ranks || pd_ranks_speaks(params.ranks);
        exit_code = speaks ? pd_cli_report(status, &err) : pd_cli_exit_code(status);
    }
    pd_ranks_leave(params.ranks, status);
    return exit_code;
}
