// The learning rate's course, as transformers' get_scheduler has it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

typedef enum pd_rate_course {
    PD_RATE_COSINE,
    PD_RATE_LINEAR,
    PD_RATE_CONSTANT,
    PD_RATE_CONSTANT_WITH_WARMUP
} pd_rate_course;

// The factor of the base rate in step `step`, from 0, of n_steps:
//     step / n_warmup while step < n_warmup; then (1 + cos(π p)) / 2, 1 − p, or 1, p = the share of the rest
//     that is done.
// PD_RATE_CONSTANT has no warm-up.
double pd_rate_factor(pd_rate_course course, int64_t step, int64_t n_warmup, int64_t n_steps);
