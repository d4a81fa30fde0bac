#include "drop/flops.h"

double pd_image_macs(const pd_decoder_hyperparameters *h, const pd_schedule *schedule) {
    double macs = 0.0;
    for (int32_t s = 0; s < schedule->n_stages; s++) {
        const pd_stage *stage = &schedule->stages[s];
        const double n = stage->n_image_tokens, d = h->n_embd, m = h->n_ff;
        macs += (stage->end_layer - stage->first_layer) * (4 * n * d * d + 2 * n * n * d + 3 * n * d * m);
    }
    return macs;
}

double pd_layer_flops(const pd_decoder_hyperparameters *h, int32_t n_rows, int32_t n_queries) {
    const double n = n_rows, nq = n_queries, d = h->n_embd, m = h->n_ff;
    const double q = (double)h->n_heads * h->head_dim, kv = (double)h->n_kv_heads * h->head_dim;
    const double projections = 2 * nq * d * q + 2 * (2 * n * d * kv) + 2 * nq * q * d;
    const double attention = 2 * (2 * nq * n * q);
    const double ffn = 3 * (2 * nq * d * m);
    return projections + attention + ffn;
}

double pd_layers_flops(const pd_decoder_hyperparameters *h, int32_t first, int32_t end, int32_t n_rows) {
    double flops = 0.0;
    for (int32_t i = first; i < end; i++)
        flops += pd_layer_flops(h, n_rows, i == h->n_layers - 1 ? 1 : n_rows);
    return flops;
}

double pd_rank_flops(const pd_decoder_hyperparameters *h, int32_t n_rows, int32_t n_kept) {
    const double d = h->n_embd;
    const double q = (double)h->n_heads * h->head_dim, kv = (double)h->n_kv_heads * h->head_dim;
    return 2 * d * q + 2 * (double)n_rows * q + 2 * (double)(n_rows - n_kept) * d * kv;
}

double pd_output_flops(const pd_decoder_hyperparameters *h) {
    return 2.0 * h->n_embd * h->n_vocab;
}

double pd_vision_tower_flops(const pd_vision_hyperparameters *h) {
    const double patches = pd_vision_n_patches(h), n = 1 + patches, d = h->n_embd, m = h->n_ff;
    const double embedding = 2 * patches * 3 * h->patch_size * h->patch_size * d;
    return embedding + h->n_layers_run * (4 * (2 * n * d * d) + 2 * (2 * n * n * d) + 2 * (2 * n * d * m));
}

double pd_projector_flops(const pd_vision_hyperparameters *h, int64_t hidden, int32_t n_embd) {
    const double n = pd_vision_n_patches(h), inner = (double)hidden;
    return 2 * n * h->n_embd * inner + 2 * n * inner * n_embd;
}

double pd_stage_rank_flops(const pd_decoder_hyperparameters *h, const pd_policy *policy,
                           const pd_schedule *schedule, int32_t stage) {
    if (!pd_schedule_ranks(policy, schedule, stage)) return 0.0;
    const int32_t before = schedule->stages[stage - 1].n_rows, after = schedule->stages[stage].n_rows;
    return pd_rank_flops(h, before, policy->scorer == PD_SCORER_PREVIOUS_LAYER ? before : after);
}

double pd_prefill_flops(const pd_decoder_hyperparameters *h, const pd_policy *policy,
                        const pd_schedule *schedule) {
    double flops = pd_output_flops(h);
    for (int32_t s = 0; s < schedule->n_stages; s++) {
        const pd_stage *stage = &schedule->stages[s];
        flops += pd_layers_flops(h, stage->first_layer, stage->end_layer, stage->n_rows);
        if (s > 0) flops += pd_stage_rank_flops(h, policy, schedule, s);
    }
    return flops;
}
