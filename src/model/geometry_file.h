// A geometry in a JSON file, in the words of LLaVA's and transformers' config.json: what a model is made of
// before it has weights. docs/cli.md (pdrop synth) lists the fields.
#pragma once

#include "model/initializer.h"

typedef struct pd_geometry_file {
    // decoder.n_vocab is the vocabulary's. vision.n_layers are the layers that run: those behind the feature
    // layer take no part and are left out of the model.
    pd_geometry geometry;
    pd_initializer initializer;
    pd_gguf vocabulary; // the GGUF that "tokenizer" names
    char *title;        // owned
} pd_geometry_file;

// PD_ERR_FORMAT names file, line and column where the JSON is broken, else file, field and what was expected.
// What the file does not say is as transformers has it; what this library does not know is refused.
pd_status pd_geometry_read(const char *path, pd_geometry_file *file, pd_error *err);
void pd_geometry_file_close(pd_geometry_file *file);
