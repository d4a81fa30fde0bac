// A policy laid over a prompt: how many rows live in every stage, and where each image's tokens stand among
// them. All of it is known before the first layer runs, which is what makes prefill one static graph.
#pragma once

#include "base/error.h"

// The rows of one image among the live rows: start … start + count − 1.
typedef struct pd_span {
    int32_t start, count;
} pd_span;

typedef struct pd_stage {
    int32_t first_layer, end_layer; // layers first_layer … end_layer − 1
    int32_t n_rows;
    int32_t n_image_tokens;
    pd_span *images; // n_images of them
} pd_stage;

typedef struct pd_schedule {
    int32_t n_stages; // n_drops + 1
    int32_t n_images;
    pd_stage *stages;
} pd_schedule;

// What share of an image's `n` tokens stays at `ratio`: the double product, truncated.
int32_t pd_kept_tokens(int32_t n, double ratio);

// `images` are the spans in the prompt of n_rows rows, ascending and apart. Every image is cut on its own
// budget.
pd_status pd_schedule_create(const pd_policy *policy, int32_t n_layers, int32_t n_rows, const pd_span *images,
                             int32_t n_images, pd_schedule *schedule, pd_error *err);
void pd_schedule_free(pd_schedule *schedule);

// Whether anything is dropped between stage − 1 and stage.
bool pd_schedule_drops(const pd_schedule *schedule, int32_t stage);

// Whether the drop between stage − 1 and stage needs scores: something is dropped, somebody is asked, and any
// image keeps a part of its tokens (withdrawing all of them asks nobody).
bool pd_schedule_ranks(const pd_policy *policy, const pd_schedule *schedule, int32_t stage);
