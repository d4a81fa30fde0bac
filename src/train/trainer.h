// Training, from the first step to the last: data, steps, optimiser, checkpoints. Arguments have LLaVA's
// names and meanings (llava/train/train.py and transformers' TrainingArguments).
#pragma once

#include "train/learning_rate.h"
#include "train/optimizer.h"
#include "train/parameters.h"
#include "train/ranks.h"

typedef struct pd_train_report pd_train_report;

typedef struct pd_train_params {
    // Model and data.
    const char *model_name_or_path; // the text GGUF
    const char *vision_tower;       // the mmproj GGUF; NULL: text alone
    const char *from_scratch;       // a geometry file: new weights in place of both; NULL: none
    const char *version;            // conversation template: "plain", "v1", …
    const char *data_path;
    const char *image_folder; // NULL: none
    pd_aspect_ratio image_aspect_ratio;
    int32_t model_max_length;
    bool legacy_tokenizer; // pd_label_params.legacy
    bool skip_bad_images, skip_bad_samples;

    // What is trained.
    bool tune_mm_mlp_adapter; // the projector alone
    bool freeze_backbone, freeze_mm_mlp_adapter, unfreeze_mm_vision_tower;
    bool lora_enable;
    int32_t lora_r;
    float lora_alpha, lora_dropout;
    pd_policy policy;

    // Optimisation.
    float learning_rate;
    float mm_projector_lr, mm_vision_tower_lr; // 0: learning_rate
    float weight_decay, adam_beta1, adam_beta2, adam_epsilon;
    float max_grad_norm; // 0: no clipping
    pd_rate_course lr_scheduler_type;
    double warmup_ratio, num_train_epochs;
    int64_t max_steps; // above 0: instead of num_train_epochs
    int32_t per_device_train_batch_size, gradient_accumulation_steps;
    bool group_by_modality_length;
    uint64_t seed;

    // The run.
    const char *output_dir;
    int32_t save_steps;       // 0: only at the end
    int32_t save_total_limit; // 0: all are kept
    enum ggml_type save_type;
    bool overwrite_output_dir; // an earlier run's checkpoints are removed; otherwise an error, unless resumed
    const char *resume_from_checkpoint; // a checkpoint's folder; NULL: from the start
    pd_compute_type compute;
    bool compute_strict;
    int32_t n_threads, dataloader_num_workers; // of a rank; 0: its share of the cores; a quarter of them
    pd_ranks *ranks;
    atomic_bool *cancel; // set: the step is left, a checkpoint of the last whole one is saved
    pd_log_callback log; // of this rank; NULL: silent
    void *log_user;
    void (*on_start)(const pd_train_report *report, void *user); // before the first step; NULL: not
    void (*on_step)(const pd_train_report *report, void *user);  // behind every step, on every rank
    void *user;
} pd_train_params;

// Where a run stands. Counts are of all ranks together.
struct pd_train_report {
    int64_t step, n_steps; // steps done, and in all
    double epoch;
    double loss;                            // of the step: mean over its labels; without labels 0
    double learning_rate;                   // of the decoder's group
    double gradient_norm;                   // before clipping
    int64_t n_labels, n_rows, n_image_rows; // of the step; rows before the first layer
    double image_rows_mean;                 // live image rows, mean over the layers
    // wait_ms of it for data, sync_ms for the other ranks and the sums over them
    double step_ms, wait_ms, sync_ms;
    // Since the start of this process.
    int64_t first_step;
    int64_t bad_images, bad_samples, truncated; // records, once on every rank that met them; samples
    int64_t mismatches;                         // samples without labels after a tokenization mismatch
    // Of the run.
    int64_t n_parameters, n_samples;
    const char *compute; // what computes the products
    size_t graph_bytes;  // the largest step's memory
};

// AdamW's settings of step `step` (from 0) of n_steps, whose gradients have this norm.
pd_adamw_params pd_train_adamw(const pd_train_params *params, int64_t step, int64_t n_warmup, int64_t n_steps,
                               double norm);

// LLaVA-1.5's settings of its second phase.
void pd_train_params_default(pd_train_params *params);

// Runs to the end, and saves a checkpoint and the weights there. PD_ERR_CANCELLED after *cancel of any rank,
// with a checkpoint saved. A loss that is not a number ends the run with PD_ERR_BACKEND; the last checkpoint
// stays. So does an epoch without a label to learn, with PD_ERR_FORMAT. What one rank fails with, all return.
pd_status pd_train(const pd_train_params *params, pd_error *err);
