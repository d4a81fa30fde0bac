// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, the same everywhere. Not for secrets.
#pragma once

#include <stdint.h>

// The next 64 random bits; *state is the seed at first.
static inline uint64_t pd_random_next(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

// Uniform in [0, 1), 53 bits of it.
static inline double pd_random_uniform(uint64_t *state) {
    return (double)(pd_random_next(state) >> 11) * 0x1p-53;
}
