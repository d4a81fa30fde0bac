// Errors in tests: NaN is worse than any, which comparisons alone, and cmocka's assert_float_equal, do not
// see.
#pragma once

#include <math.h>

// The larger of two; NaN stays.
static inline double worse(double a, double b) {
    return isnan(a) || isnan(b) ? (double)NAN : a > b ? a : b;
}

#define assert_near(a, b, most) assert_true(fabs((double)(a) - (double)(b)) <= (double)(most))
