// Built without oneDNN: nothing is lowered.
#include "onednn/lowering.h"

pd_status pd_lowering_create(const pd_lowering_params *params, pd_lowering **lowering, pd_error *err) {
    *lowering = NULL;
    if (params->compute == PD_COMPUTE_GGML || params->compute == PD_COMPUTE_AUTO) return PD_OK;
    if (params->strict) return pd_fail(err, PD_ERR_UNSUPPORTED, "compute: this build has no oneDNN");
    if (params->log)
        params->log(PD_LOG_WARNING, "compute: this build has no oneDNN; using ggml's kernels",
                    params->log_user);
    return PD_OK;
}

void pd_lowering_free(pd_lowering *lowering) {
    (void)lowering;
}

const char *pd_lowering_description(const pd_lowering *lowering) {
    (void)lowering;
    return "ggml";
}

size_t pd_lowering_packed_bytes(const pd_lowering *lowering) {
    (void)lowering;
    return 0;
}

pd_status pd_lower(pd_lowering *lowering, struct ggml_cgraph *graph, const pd_lower_params *params,
                   pd_lowered **lowered, pd_error *err) {
    (void)lowering;
    (void)graph;
    (void)params;
    *lowered = NULL;
    return pd_fail(err, PD_ERR_UNSUPPORTED, "this build has no oneDNN");
}

struct ggml_cgraph *pd_lowered_graph(const pd_lowered *lowered) {
    (void)lowered;
    return NULL;
}

int32_t pd_lowered_count(const pd_lowered *lowered) {
    (void)lowered;
    return 0;
}

pd_status pd_lowered_check(const pd_lowered *lowered, pd_error *err) {
    (void)lowered;
    (void)err;
    return PD_OK;
}

double pd_lowered_pack_ms(const pd_lowered *lowered) {
    (void)lowered;
    return 0.0;
}

size_t pd_lowered_bytes(const pd_lowered *lowered) {
    (void)lowered;
    return 0;
}

void pd_lowered_free(pd_lowered *lowered) {
    (void)lowered;
}
