#include "train/learning_rate.h"

#include <math.h>

double pd_rate_factor(pd_rate_course course, int64_t step, int64_t n_warmup, int64_t n_steps) {
    if (course == PD_RATE_CONSTANT) return 1.0;
    if (step < n_warmup) return (double)step / (double)n_warmup;
    if (course == PD_RATE_CONSTANT_WITH_WARMUP) return 1.0;
    const double rest = n_steps > n_warmup ? (double)(n_steps - n_warmup) : 1.0;
    const double done = fmin((double)(step - n_warmup) / rest, 1.0);
    return course == PD_RATE_LINEAR ? 1.0 - done : 0.5 * (1.0 + cos(acos(-1.0) * done));
}
