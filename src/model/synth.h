// GGUF pairs of a geometry: with random weights, for benchmarks and tests, or with those that a training from
// scratch begins with. Files that this library and llama.cpp load like any other.
#pragma once

#include "model/geometry_file.h"

#include <ggml.h>

typedef struct pd_synth_params {
    const pd_geometry *geometry;
    int32_t n_layers;           // of the decoder; 0: the geometry's own
    enum ggml_type type;        // of the decoder's matrices
    enum ggml_type vision_type; // of the tower's and projector's matrices
    uint64_t seed;
    const pd_initializer *initializer; // weights for a training from scratch; NULL: random ones
    const pd_gguf *vocabulary;         // whose tokenizer.* metadata are taken; NULL: a vocabulary is made up
    // Called now and then; false stops the writing with PD_ERR_CANCELLED. NULL: not.
    bool (*go_on)(const char *what, double progress, void *user);
    void *user;
} pd_synth_params;

// Metadata of weights that a training from scratch begins with: their seed, as text.
#define PD_INITIAL_SEED_KEY "pdrop.initial_seed"

// The pair that a training from scratch begins with: all f32. The file must stay open while it is written.
pd_synth_params pd_synth_from_scratch(const pd_geometry_file *file, uint64_t seed);

// "q4_K", "f16", …, by ggml's names, whatever the case. Only types that can be made without calibration data.
pd_status pd_synth_type(const char *name, enum ggml_type *type, pd_error *err);

// Both write under a temporary name and rename. Matrices whose rows do not fill the type's blocks become
// q8_0, or f16. With tied embeddings there is no output.weight.
pd_status pd_synth_model(const pd_synth_params *params, const char *path, pd_error *err);
pd_status pd_synth_mmproj(const pd_synth_params *params, const char *path, pd_error *err);
// Whether a file has the metadata and tensors, if not the weights, of that which would be written: of the
// decoder's or, with `mmproj`, of the tower's and projector's.
pd_status pd_synth_would_be(const pd_synth_params *params, bool mmproj, const char *path, bool *same,
                            pd_error *err);
