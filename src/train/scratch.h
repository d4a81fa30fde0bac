// The pair that a training from scratch begins with, in a run's output folder.
#pragma once

#include "base/error.h"

// Whether the pair is there. PD_ERR_ARGUMENT when it is of another seed, and not what this run began with.
pd_status pd_scratch_find(const char *output_dir, uint64_t seed, bool *found, pd_error *err);
// Writes scratch.gguf and scratch-mmproj.gguf of the geometry file into `output_dir`, which is made if need
// be; *model and *mmproj are their paths, malloc'd. The same seed gives the same weights. With `write` false
// the files are taken as they are: another rank writes them, or a run goes on.
pd_status pd_scratch_pair(const char *geometry_path, const char *output_dir, uint64_t seed, bool write,
                          char **model, char **mmproj, pd_error *err);
