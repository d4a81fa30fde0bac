// The pair that a training from scratch begins with: scratch.gguf and scratch-mmproj.gguf of a run's output
// folder. New ones have other names until the run's first step is done, so that a run that cannot begin takes
// nothing from an earlier one.
#pragma once

#include "base/error.h"

// For the first rank: where `resumes` and the pair is there, it is checked to be of the geometry file and the
// seed (PD_ERR_ARGUMENT: another run's); otherwise a new one is written. The same seed gives the same
// weights.
pd_status pd_scratch_prepare(const char *geometry_path, const char *output_dir, uint64_t seed, bool resumes,
                             pd_error *err);
// Then for every rank: the paths of the pair that the first one prepared, malloc'd.
pd_status pd_scratch_paths(const char *output_dir, char **model, char **mmproj, pd_error *err);
// The new pair takes its names; without one nothing happens.
pd_status pd_scratch_keep(const char *output_dir, pd_error *err);
// The new pair goes; without one nothing happens.
void pd_scratch_discard(const char *output_dir);
