// Checkpoints: folders "checkpoint-N" of a run's output folder, N optimiser steps, each written under another
// name and renamed when it is whole.
//
//     model.gguf, mmproj.gguf  the weights, for pdrop run and llama.cpp (export.h); a file that training
//                              does not change is left out
//     state.gguf               parameters, Adam's moments and the position, in f32: what resuming needs
#pragma once

#include "train/export.h"

// What must be the same for a run to continue as if it had not been interrupted.
typedef struct pd_checkpoint_run {
    int64_t step;    // optimiser steps done
    char order[256]; // what decides the order of samples, as text
    char course[64]; // what decides the learning rate's course, as text
    char base[24];   // the fingerprint of the model it began with (pd_parameters_base); "": not told
} pd_checkpoint_run;

typedef struct pd_checkpoint_params {
    const char *output_dir;
    const pd_weights *weights; // whose files are exported
    const pd_parameters *parameters;
    enum ggml_type type; // of exported matrices
} pd_checkpoint_params;

// PD_ERR_BACKEND, and nothing written, when a parameter is no longer a number.
pd_status pd_checkpoint_save(const pd_checkpoint_params *params, const pd_checkpoint_run *run, pd_error *err);
// The exported files alone, into the output folder itself: the end of a run.
pd_status pd_checkpoint_export(const pd_checkpoint_params *params, const char *folder, pd_error *err);

// The newest checkpoint of an output folder: its path, malloc'd; NULL when there is none.
pd_status pd_checkpoint_newest(const char *output_dir, char **path, pd_error *err);
// PD_ERR_ARGUMENT when there is one of a later step than `after`: for a run that begins there (−1: anew).
pd_status pd_checkpoint_expect_none(const char *output_dir, int64_t after, pd_error *err);
// Removes all checkpoints but the newest `keep`. One that cannot be removed loses its name, where it can.
pd_status pd_checkpoint_remove(const char *output_dir, int32_t keep, pd_error *err);
// Removes all checkpoints of later steps than `after`.
pd_status pd_checkpoint_remove_after(const char *output_dir, int64_t after, pd_error *err);
// Whether `path` is the output folder's own checkpoint of that step.
bool pd_checkpoint_is_own(const char *output_dir, int64_t step, const char *path);
// Whether `path` is the file `name` of one of the output folder's checkpoints.
pd_status pd_checkpoint_holds(const char *output_dir, const char *name, const char *path, bool *holds,
                              pd_error *err);
// Removes, as far as it can, what runs that were killed while they saved have left half-written.
pd_status pd_checkpoint_clean(const char *output_dir, pd_error *err);
// Fills the parameters and their moments, and *run. PD_ERR_FORMAT names the first parameter that is missing
// or of another shape: a checkpoint of another geometry, or of a run that trains something else.
pd_status pd_checkpoint_load(const char *path, const pd_parameters *parameters, pd_checkpoint_run *run,
                             pd_error *err);
