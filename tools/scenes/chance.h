// Draws from a stream of random numbers: the same everywhere for the same state.
#pragma once

#include "base/random.h"

#include <stdbool.h>
#include <stddef.h>

// The start of a stream that belongs to these numbers alone: what is drawn for picture 7 does not depend on
// whether pictures 0 … 6 were drawn.
static inline uint64_t pd_stream(const uint64_t *numbers, size_t n) {
    uint64_t state = 0x7363656e65730001U;
    for (size_t i = 0; i < n; i++) {
        state ^= numbers[i] * 0xd6e8feb86659fd93U;
        state = pd_random_next(&state);
    }
    return state;
}

// Uniform in 0 … n-1.
static inline int pd_pick(uint64_t *state, int n) {
    return (int)(((pd_random_next(state) >> 32) * (uint64_t)n) >> 32);
}

static inline bool pd_chance(uint64_t *state, double probability) {
    return pd_random_uniform(state) < probability;
}

static inline double pd_between(uint64_t *state, double low, double high) {
    return low + (high - low) * pd_random_uniform(state);
}

// An index below n, drawn with these weights, of which one is above 0 at least.
static inline int pd_pick_weighed(uint64_t *random, const int *weights, int n) {
    int sum = 0, index = 0;
    for (int i = 0; i < n; i++)
        sum += weights[i];
    for (int rest = pd_pick(random, sum); rest >= weights[index]; index++)
        rest -= weights[index];
    return index;
}

// Puts 0 … n-1 into order[], in random order.
static inline void pd_permutation(uint64_t *state, int *order, int n) {
    for (int i = 0; i < n; i++) {
        const int j = pd_pick(state, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}
