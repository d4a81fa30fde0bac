// From a picture to image tokens: tiles → vision tower → projector → rows for the decoder.
#pragma once

#include "image/preprocess.h"
#include "model/backend.h"
#include "model/weights.h"
#include "onednn/lowering.h"

typedef struct pd_image_features {
    int32_t n_tokens;
    int32_t n_tiles;
    float *data; // [n_tokens][decoder n_embd], owned
} pd_image_features;

typedef struct pd_encode_job {
    const pd_backend *backend;
    ggml_backend_sched_t *scheduler; // made when NULL, reused, freed by the caller
    pd_lowering *lowering;           // NULL: the graph runs as it is
    const pd_vision_weights *weights;
    pd_aspect_ratio aspect_ratio;
    bool flash;
    pd_progress_callback progress;
    void *progress_user;
    // added to by every picture, in milliseconds
    double image_ms, pack_ms, vit_ms, projector_ms;
    size_t scratch_bytes; // of the lowered products, at their most
} pd_encode_job;

// The parameters under which pictures are cut for this tower.
pd_preprocess_params pd_encode_preprocess_params(const pd_vision_hyperparameters *h,
                                                 pd_aspect_ratio aspect_ratio);

// On success the caller frees features->data.
pd_status pd_encode_image(pd_encode_job *job, const pd_image *image, pd_image_features *features,
                          pd_error *err);
