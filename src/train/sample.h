// One sample of the data set, ready for a training step.
#pragma once

#include "image/preprocess.h"

enum { PD_IGNORE_INDEX = -100 };

typedef struct pd_train_sample {
    int64_t index;    // in the data set
    int32_t n_tokens; // placeholders included
    int32_t *tokens;  // PD_IMAGE_TOKEN where a picture stands
    int32_t *labels;  // PD_IGNORE_INDEX, or the token itself (not shifted)
    int32_t n_images;
    pd_tiles *images;
} pd_train_sample;
