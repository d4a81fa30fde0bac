#include "engine/sampler.h"

#include "base/random.h"

#include <math.h>
#include <stdlib.h>

typedef struct pd_candidate {
    float logit;
    int32_t token;
} pd_candidate;

pd_status pd_sampler_create(const pd_sampler_params *params, int32_t n_vocab, pd_sampler *sampler,
                            pd_error *err) {
    *sampler = (pd_sampler){.params = *params, .state = params->seed, .n_vocab = n_vocab};
    if (!(params->temperature >= 0.0F) || isinf(params->temperature)) {
        return pd_fail(err, PD_ERR_ARGUMENT, "temperature: expected 0 or more, found %g",
                       (double)params->temperature);
    }
    if (params->top_k < 0) {
        return pd_fail(err, PD_ERR_ARGUMENT, "top_k: expected 0 or more, found %d", params->top_k);
    }
    if (!(params->top_p > 0.0F && params->top_p <= 1.0F)) {
        return pd_fail(err, PD_ERR_ARGUMENT, "top_p: expected a number in (0, 1], found %g",
                       (double)params->top_p);
    }
    if (!(params->repeat_penalty > 0.0F) || isinf(params->repeat_penalty)) {
        return pd_fail(err, PD_ERR_ARGUMENT, "repeat_penalty: expected a positive number, found %g",
                       (double)params->repeat_penalty);
    }
    const size_t n = (size_t)n_vocab;
    sampler->candidates = calloc(n, sizeof *sampler->candidates);
    return sampler->candidates ? PD_OK : pd_fail_memory(err, n * sizeof *sampler->candidates, "the sampler");
}

void pd_sampler_free(pd_sampler *sampler) {
    free(sampler->candidates);
    *sampler = (pd_sampler){0};
}

void pd_sampler_reset(pd_sampler *sampler) {
    sampler->state = sampler->params.seed;
}

static int best_first(const void *a, const void *b) {
    const pd_candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

// Each recent token once, however often it stands there (Keskar et al. 2019, CTRL).
static void penalise(pd_sampler *sampler, const int32_t *recent, size_t n_recent) {
    const float penalty = sampler->params.repeat_penalty;
    for (size_t i = 0; i < n_recent; i++) {
        bool seen = recent[i] < 0 || recent[i] >= sampler->n_vocab;
        for (size_t j = 0; j < i && !seen; j++)
            seen = recent[j] == recent[i];
        if (seen) continue;
        float *logit = &sampler->candidates[recent[i]].logit;
        *logit = *logit > 0.0F ? *logit / penalty : *logit * penalty;
    }
}

static int32_t argmax(const pd_candidate *candidates, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) {
        if (candidates[i].logit > candidates[best].logit) best = i;
    }
    return candidates[best].token;
}

// How many of the sorted candidates make up top_p of the probability; at least one.
static int32_t cut_top_p(const pd_candidate *candidates, int32_t n, float top_p) {
    if (top_p >= 1.0F) return n;
    double total = 0.0, sum = 0.0;
    for (int32_t i = 0; i < n; i++)
        total += exp((double)candidates[i].logit - (double)candidates[0].logit);
    for (int32_t i = 0; i < n; i++) {
        sum += exp((double)candidates[i].logit - (double)candidates[0].logit) / total;
        if (sum >= (double)top_p) return i + 1;
    }
    return n;
}

int32_t pd_sampler_draw(pd_sampler *sampler, const float *logits, const int32_t *recent, size_t n_recent) {
    const pd_sampler_params *params = &sampler->params;
    pd_candidate *candidates = sampler->candidates;
    for (int32_t i = 0; i < sampler->n_vocab; i++)
        candidates[i] = (pd_candidate){logits[i], i};
    if (params->repeat_penalty != 1.0F) penalise(sampler, recent, n_recent);
    if (params->temperature == 0.0F) return argmax(candidates, sampler->n_vocab);

    qsort(candidates, (size_t)sampler->n_vocab, sizeof *candidates, best_first);
    int32_t n = sampler->n_vocab;
    if (params->top_k > 0 && params->top_k < n) n = params->top_k;
    n = cut_top_p(candidates, n, params->top_p);
    double total = 0.0;
    for (int32_t i = 0; i < n; i++) {
        total +=
            exp(((double)candidates[i].logit - (double)candidates[0].logit) / (double)params->temperature);
    }
    double left = pd_random_uniform(&sampler->state) * total;
    for (int32_t i = 0; i < n; i++) {
        left -=
            exp(((double)candidates[i].logit - (double)candidates[0].logit) / (double)params->temperature);
        if (left < 0.0) return candidates[i].token;
    }
    return candidates[n - 1].token;
}
