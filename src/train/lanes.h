// Sums of floats in so many parts, for SIMD: compilers do not add floats in another order unasked.
#pragma once

enum { PD_LANES = 16 };

static inline float pd_add_lanes(const float *lanes) {
    float sum = 0.0F;
    for (int i = 0; i < PD_LANES; i++)
        sum += lanes[i];
    return sum;
}
