// The few channels that hold most of what activations are: eight bits for a whole row have little left for
// the others, so that int8 products take these channels apart and multiply them as floats (Dettmers et al.
// 2022, LLM.int8(), https://arxiv.org/abs/2208.07339). One node of the lowered graph for each of their
// activations.
#pragma once

#include "base/tasks.h"
#include "onednn/rows.h"

#include <ggml.h>

enum { PD_OUTLIERS_MOST = 64 };

// How many of n channels are taken apart: each is worth a float product of one inner number.
static inline int64_t pd_outlier_count(int64_t n) {
    return n / 8 < PD_OUTLIERS_MOST ? n / 8 : PD_OUTLIERS_MOST;
}

// Bytes of what pd_outliers_find leaves: the channels, in ascending order, and behind them its sums.
size_t pd_outliers_bytes(const struct ggml_tensor *source);
static inline const int32_t *pd_outlier_channels(const void *data) {
    return data;
}
// Finds the pd_outlier_count channels of most energy in source's rows, all of whose batches are taken as one
// matrix; each row counts alike, however large its numbers are. The same whatever the number of threads.
// Called by each of nth threads; `tasks` are theirs. source: f32, its rows adjacent numbers; norm: what the
// rows go through before, or NULL; data: 64-byte aligned; room: for a row, the thread's own.
void pd_outliers_find(const struct ggml_tensor *source, const pd_rms_norm *norm, void *data, pd_tasks *tasks,
                      float *room, int nth);
