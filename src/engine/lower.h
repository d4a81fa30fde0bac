// Lowering a graph the engine has composed.
#pragma once

#include "model/backend.h"
#include "onednn/lowering.h"

// With a lowering (NULL: nothing happens) *graph becomes the graph to compute, and *lowered its owner, freed
// by the caller. progress: of packing weights.
static inline pd_status pd_engine_lower(pd_lowering *lowering, const pd_backend *backend,
                                        pd_progress_callback progress, void *progress_user,
                                        struct ggml_cgraph **graph, pd_lowered **lowered, pd_error *err) {
    if (!lowering) return PD_OK;
    const pd_lower_params params = {.cpu = backend->cpu,
                                    .n_threads = backend->n_threads,
                                    .cancel = backend->cancel,
                                    .progress = progress,
                                    .progress_user = progress_user};
    PD_TRY(pd_lower(lowering, *graph, &params, lowered, err));
    *graph = pd_lowered_graph(*lowered);
    return PD_OK;
}
