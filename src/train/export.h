// Trained weights as GGUF files that this program and llama.cpp load: the metadata and the untrained tensors
// of the files they came from, the trained ones in the type asked for, adapters merged.
#pragma once

#include "train/parameters.h"

// Matrices in `type` (f32, f16, bf16 or q8_0), where their rows fill its blocks; vectors, and of the tower
// the patch and position embeddings, in f32 or f16.
pd_status pd_export_model(const pd_gguf *from, const pd_parameters *parameters, enum ggml_type type,
                          const char *path, pd_error *err);
// "f32", "f16", "bf16" or "q8_0"; PD_ERR_ARGUMENT lists them.
pd_status pd_export_type(const char *name, enum ggml_type *type, pd_error *err);
// Whether training changes anything of this file.
bool pd_export_changes(const pd_gguf *file, const pd_parameters *parameters);
