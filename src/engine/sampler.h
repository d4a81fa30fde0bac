// Drawing the next token: repeat penalty, top-k, top-p, temperature, in llama.cpp's order.
#pragma once

#include "base/error.h"

typedef struct pd_sampler_params {
    float temperature;    // 0: the highest logit, the lower id first among equals
    int32_t top_k;        // 0: all
    float top_p;          // 1: all
    float repeat_penalty; // 1: off; logits of recent tokens are divided by it, or multiplied where negative
    uint64_t seed;
} pd_sampler_params;

typedef struct pd_sampler {
    pd_sampler_params params;
    uint64_t state;
    int32_t n_vocab;
    struct pd_candidate *candidates; // n_vocab, owned
} pd_sampler;

pd_status pd_sampler_create(const pd_sampler_params *params, int32_t n_vocab, pd_sampler *sampler,
                            pd_error *err);
void pd_sampler_free(pd_sampler *sampler);
// Back to the seed.
void pd_sampler_reset(pd_sampler *sampler);
// logits: n_vocab of them or more. recent: the tokens the penalty looks at; ids that are none (a picture's
// rows) are passed over.
int32_t pd_sampler_draw(pd_sampler *sampler, const float *logits, const int32_t *recent, size_t n_recent);
