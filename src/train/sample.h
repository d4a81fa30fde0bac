// One training sample: a record's conversation as tokens and labels, and its pictures as tiles.
#pragma once

#include "image/preprocess.h"
#include "train/conversation_labels.h"

typedef struct pd_train_sample {
    int64_t index;    // in the data set
    int32_t n_tokens; // placeholders included
    int32_t *tokens;  // [n_tokens] PD_IMAGE_TOKEN where a picture stands; owned
    int32_t *labels;  // [n_tokens] PD_IGNORE_INDEX, or the token itself (not shifted); owned
    int32_t n_labels; // how many are not ignored; 0 only after a tokenization mismatch
    int32_t n_rows;   // as laid out: text tokens and all pictures' image tokens
    int32_t n_images;
    pd_tiles *images; // [n_images]; owned
} pd_train_sample;

void pd_train_sample_free(pd_train_sample *sample);

typedef struct pd_sample_params {
    const pd_dataset *dataset; // not owned
    const char *image_folder;  // before a picture's name, unless that is absolute; NULL: none. Not owned
    // How the model wants pictures, NULL for one that cannot see. Not owned.
    const pd_preprocess_params *preprocess;
    pd_label_params labels;
} pd_sample_params;

// What happened on the way to a sample.
typedef struct pd_sample_notes {
    bool truncated; // it was longer than model_max_length
    bool mismatch;  // pd_labelled.mismatch
    // On failure: the data are to blame and not the machine; and of the data, a picture.
    bool bad_record;
    bool bad_image;
} pd_sample_notes;

// Makes the sample of a record. Rows beyond model_max_length are cut off after the image tokens are laid in,
// as in LLaVA, but a picture is never cut in two: where it does not fit the text ends before it. That changes
// no label and no row before one. Errors name file and record: PD_ERR_CONTEXT where no label is left within
// model_max_length, PD_ERR_FORMAT where there is none at all; of pictures, what pd_image_load says.
pd_status pd_sample_make(const pd_sample_params *params, int32_t index, pd_train_sample *sample,
                         pd_sample_notes *notes, pd_error *err);
