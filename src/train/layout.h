// A batch laid out as packed rows: its samples one behind the other, nothing filled up. How many rows live in
// every stage, which of them ask in a ranking, and which predict a label is all known before the first layer
// runs, so that a training step is one static graph.
#pragma once

#include "drop/schedule.h"
#include "train/sample.h"

// Rows of a stage that ask: the ends of instructions (ALGORITHM.md, section 3), sample by sample.
typedef struct pd_asking_rows {
    int32_t n;
    int32_t *rows;   // [n], among all rows of the stage, ascending; owned
    int32_t *starts; // [n_samples + 1]: sample i's are rows[starts[i] … starts[i + 1] − 1]; owned
} pd_asking_rows;

typedef struct pd_layout_stage {
    int32_t n_rows;
    int32_t *starts;       // [n_samples + 1]: sample i's rows; owned
    int32_t *positions;    // [n_rows]: compact positions, 0 … in every sample; owned
    pd_asking_rows asking; // in the ranking behind this stage
    bool drops;            // whether rows are dropped behind it
} pd_layout_stage;

typedef struct pd_layout {
    const pd_train_sample *samples; // [n_samples]; not owned
    int32_t n_samples, n_stages;
    pd_schedule *schedules; // [n_samples]; without images where nothing is dropped: such a sample stays whole
    pd_layout_stage *stages;

    // The first stage's rows, gathered from text rows, then image features, then LLaVA-NeXT's newline.
    int32_t n_text, n_tiles, n_features;
    int32_t *text_tokens;   // [n_text]
    int32_t *feature_rows;  // [n_features], of the tower's output
    int32_t *sources;       // [rows of the first stage]
    const pd_tiles **tiles; // [n_pictures], in their order; not owned
    int32_t n_pictures;

    // The last stage's rows whose logits predict a label: the row before it among those that are left.
    int32_t n_labels;
    int32_t *label_rows, *labels; // [n_labels]
} pd_layout;

// PD_ERR_ARGUMENT for a scorer that training does not have (FastV's).
pd_status pd_layout_check_policy(const pd_policy *policy, pd_error *err);
// `samples` must live as long. The policy is checked.
pd_status pd_layout_create(const pd_policy *policy, int32_t n_layers, const pd_train_sample *samples,
                           int32_t n_samples, pd_layout *layout, pd_error *err);
void pd_layout_free(pd_layout *layout);

// Labels that the mean of a loss counts: those with a row before them.
int32_t pd_sample_n_labels(const pd_train_sample *sample);
