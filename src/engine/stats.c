// What a session counts: FLOPs and bytes, of the schedule and of the same prompt run dense.
#include "drop/flops.h"
#include "engine/session.h"

#include <stdlib.h>

void pd_session_count(pd_session *session, int32_t n_tiles) {
    const pd_weights *w = &session->model->weights;
    const pd_decoder_hyperparameters *h = &w->decoder.h;
    const pd_schedule *schedule = &session->schedule;
    pd_stats *stats = &session->stats;
    const int32_t dense_rows = schedule->stages[0].n_rows, dense_images = schedule->stages[0].n_image_tokens;
    stats->n_stages = schedule->n_stages;
    stats->n_images = schedule->n_images;
    stats->n_prompt_tokens = session->n_prompt;
    stats->n_image_tokens = dense_images;
    stats->stages = session->stage_stats;
    double vision = 0.0;
    if (n_tiles > 0) {
        vision = n_tiles * (pd_vision_tower_flops(&w->vision.h) +
                            pd_projector_flops(&w->vision.h, w->vision.mm0->ne[1], h->n_embd));
    }
    stats->prefill_flops = vision + pd_prefill_flops(h, &session->policy, schedule);
    stats->prefill_flops_dense = vision + pd_output_flops(h) + pd_layers_flops(h, 0, h->n_layers, dense_rows);
    stats->image_tmacs = pd_image_macs(h, schedule) * 1e-12;
    pd_stage all = {.first_layer = 0, .end_layer = h->n_layers, .n_image_tokens = dense_images};
    const pd_schedule dense = {.n_stages = 1, .stages = &all};
    stats->image_tmacs_dense = pd_image_macs(h, &dense) * 1e-12;
    for (int32_t s = 0; s < schedule->n_stages; s++) {
        const pd_stage *stage = &schedule->stages[s];
        pd_stage_stats *out = &session->stage_stats[s];
        out->first_layer = stage->first_layer;
        out->n_layers = stage->end_layer - stage->first_layer;
        out->n_rows = stage->n_rows;
        out->n_image_tokens = stage->n_image_tokens;
        out->flops = pd_layers_flops(h, stage->first_layer, stage->end_layer, stage->n_rows);
        if (s + 1 < schedule->n_stages)
            out->flops += pd_stage_rank_flops(h, &session->policy, schedule, s + 1);
        out->flops_dense = pd_layers_flops(h, stage->first_layer, stage->end_layer, dense_rows);
    }
    pd_session_count_kv(session);
}

void pd_session_count_kv(pd_session *session) {
    const pd_schedule *schedule = &session->schedule;
    const uint64_t row = pd_kv_row_bytes(&session->model->weights.decoder.h, session->cache_type);
    // the last token drawn has no row until it is run
    const int32_t extra = session->n_generated - (session->n_generated > 0 && !session->logits_ready ? 1 : 0);
    pd_stats *stats = &session->stats;
    stats->n_generated = session->n_generated;
    stats->kv_bytes = stats->kv_bytes_dense = 0;
    for (int32_t s = 0; s < schedule->n_stages; s++) {
        pd_stage_stats *out = &session->stage_stats[s];
        const uint64_t n_layers = (uint64_t)out->n_layers;
        out->kv_bytes = row * n_layers * (uint64_t)(schedule->stages[s].n_rows + extra);
        out->kv_bytes_dense = row * n_layers * (uint64_t)(schedule->stages[0].n_rows + extra);
        stats->kv_bytes += out->kv_bytes;
        stats->kv_bytes_dense += out->kv_bytes_dense;
    }
    stats->kv_bytes_reserved = pd_kv_cache_bytes(&session->cache);
    size_t compute = session->lowered_bytes;
    if (session->vision_scheduler)
        compute += pd_scheduler_bytes(&session->backend, session->vision_scheduler);
    if (session->prefill_scheduler)
        compute += pd_scheduler_bytes(&session->backend, session->prefill_scheduler);
    if (session->step.scheduler) compute += pd_scheduler_bytes(&session->backend, session->step.scheduler);
    stats->compute_bytes = compute;
    stats->packed_bytes = pd_lowering_packed_bytes(session->model->lowering);
}
