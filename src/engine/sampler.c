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

static const pd_candidate *find_best(const pd_candidate *candidates, int32_t n) {
    const pd_candidate *best = candidates;
    for (int32_t i = 1; i < n; i++) {
        if (candidates[i].logit > best->logit) best = &candidates[i];
    }
    return best;
}

static bool is_before(const pd_candidate *a, const pd_candidate *b) {
    return a->logit > b->logit || (a->logit == b->logit && a->token < b->token);
}

// Restores the heap, whose first is the best, after the one `at` a place has become worse.
static void sift_down(pd_candidate *heap, int32_t n, int32_t at) {
    const pd_candidate moved = heap[at];
    for (int32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && is_before(&heap[child + 1], &heap[child])) child++;
        if (!is_before(&heap[child], &moved)) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

// Moves the heap's best behind its end.
static void take_best(pd_candidate *heap, int32_t n) {
    const pd_candidate best = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = best;
    sift_down(heap, n - 1, 0);
}

static double share(const pd_candidate *candidate, float best, float temperature) {
    return exp(((double)candidate->logit - (double)best) / (double)temperature);
}

static double sum_shares(const pd_candidate *candidates, int32_t n, float best, float temperature) {
    double sum = 0.0;
    for (int32_t i = 0; i < n; i++)
        sum += share(&candidates[i], best, temperature);
    return sum;
}

// How many candidates top_k and top_p leave, at least one: they stand at the array's end, the best last. The
// few that are wanted come off a heap, for a sort of the whole vocabulary takes longer than a small model.
static int32_t cut(const pd_sampler_params *params, pd_candidate *candidates, int32_t n) {
    const bool some = params->top_k > 0 && params->top_k < n;
    if (!some && params->top_p >= 1.0F) return n;
    for (int32_t i = n / 2 - 1; i >= 0; i--)
        sift_down(candidates, n, i);
    const float best = candidates[0].logit;
    int32_t taken = 0, left = n;
    for (; some && taken < params->top_k; taken++)
        take_best(candidates, n - taken);
    if (some) left = taken;
    if (params->top_p >= 1.0F) return taken;
    const double wanted = (double)params->top_p * sum_shares(candidates + n - left, left, best, 1.0F);
    double sum = 0.0;
    for (int32_t i = 0; i < left; i++) {
        if (i == taken) take_best(candidates, n - taken++);
        sum += share(&candidates[n - 1 - i], best, 1.0F);
        if (sum >= wanted) return i + 1;
    }
    return left;
}

int32_t pd_sampler_draw(pd_sampler *sampler, const float *logits, const int32_t *recent, size_t n_recent) {
    const pd_sampler_params *params = &sampler->params;
    const int32_t n = sampler->n_vocab;
    pd_candidate *candidates = sampler->candidates;
    for (int32_t i = 0; i < n; i++)
        candidates[i] = (pd_candidate){logits[i], i};
    if (params->repeat_penalty != 1.0F) penalise(sampler, recent, n_recent);
    if (params->temperature == 0.0F) return find_best(candidates, n)->token;

    const int32_t n_left = cut(params, candidates, n);
    const pd_candidate *left = candidates + n - n_left;
    const float best = find_best(left, n_left)->logit;
    double rest = pd_random_uniform(&sampler->state) * sum_shares(left, n_left, best, params->temperature);
    for (int32_t i = 0; i < n_left; i++) {
        rest -= share(&left[i], best, params->temperature);
        if (rest < 0.0) return left[i].token;
    }
    return left[n_left - 1].token;
}
