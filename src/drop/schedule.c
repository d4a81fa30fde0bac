#include "drop/schedule.h"

#include <stdlib.h>

int32_t pd_kept_tokens(int32_t n, double ratio) {
    return (int32_t)(n * ratio);
}

pd_status pd_schedule_create(const pd_policy *policy, int32_t n_layers, int32_t n_rows, const pd_span *images,
                             int32_t n_images, pd_schedule *schedule, pd_error *err) {
    const size_t n_stages = (size_t)policy->n_drops + 1, n_spans = n_stages * (size_t)n_images;
    *schedule = (pd_schedule){.n_stages = (int32_t)n_stages, .n_images = n_images};
    schedule->stages = calloc(n_stages, sizeof *schedule->stages);
    pd_span *spans = calloc(n_spans + 1, sizeof *spans); // one block, owned through the first stage
    if (!schedule->stages || !spans) {
        free(spans);
        pd_schedule_free(schedule);
        return pd_fail_memory(err, n_stages * sizeof(pd_stage) + n_spans * sizeof(pd_span), "the schedule");
    }
    for (size_t s = 0; s < n_stages; s++) {
        pd_stage *stage = &schedule->stages[s];
        stage->first_layer = s == 0 ? 0 : policy->layer_list[s - 1];
        stage->end_layer = s + 1 == n_stages ? n_layers : policy->layer_list[s];
        stage->images = spans + s * (size_t)n_images;
        stage->n_rows = n_rows;
        int32_t dropped_before = 0; // of the images before this one
        for (int32_t i = 0; i < n_images; i++) {
            const int32_t kept = s == 0
                                     ? images[i].count
                                     : pd_kept_tokens(images[i].count, policy->image_token_ratio_list[s - 1]);
            stage->images[i] = (pd_span){images[i].start - dropped_before, kept};
            dropped_before += images[i].count - kept;
            stage->n_image_tokens += kept;
        }
        stage->n_rows -= dropped_before;
        if (stage->n_rows < 1) {
            pd_schedule_free(schedule);
            return pd_fail(
                err, PD_ERR_ARGUMENT,
                "the policy drops the whole prompt after layer %d (expected text beside the pictures)",
                policy->layer_list[s - 1]);
        }
    }
    return PD_OK;
}

void pd_schedule_free(pd_schedule *schedule) {
    if (schedule->stages) free(schedule->stages[0].images);
    free(schedule->stages);
    *schedule = (pd_schedule){0};
}

bool pd_schedule_drops(const pd_schedule *schedule, int32_t stage) {
    return schedule->stages[stage].n_rows != schedule->stages[stage - 1].n_rows;
}

bool pd_schedule_ranks(const pd_policy *policy, const pd_schedule *schedule, int32_t stage) {
    const bool asks = policy->scorer == PD_SCORER_NEXT_LAYER || policy->scorer == PD_SCORER_PREVIOUS_LAYER;
    if (!asks || !pd_schedule_drops(schedule, stage)) return false;
    for (int32_t i = 0; i < schedule->n_images; i++) {
        const int32_t kept = schedule->stages[stage].images[i].count;
        if (kept > 0 && kept < schedule->stages[stage - 1].images[i].count) return true;
    }
    return false;
}
