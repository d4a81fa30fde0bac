// Reading a training run's log.jsonl: a JSON object a line, a line a step.
//
//     {"step":1,"epoch":0.01,"loss":8.12,"learning_rate":2e-05,"grad_norm":13.4,"labels":105,"rows":3068,
//      "image_rows":1152,"image_rows_mean":540,"step_ms":947.4,"wait_ms":39.5,"tokens_per_second":280.2}
//
// "step" and "loss" must be there; other fields may be missing. A log may be of any length: it is read line
// by line, and steps in a row are laid together so that there are never more than PD_RUN_MOST_POINTS points.
#pragma once

#include "base/error.h"

#include <stdio.h>

enum { PD_RUN_MOST_POINTS = 1000, PD_RUN_LONGEST_LINE = 65535 };

typedef enum pd_run_curve {
    PD_RUN_LOSS,
    PD_RUN_LEARNING_RATE,
    PD_RUN_GRADIENT_NORM,
    PD_RUN_TOKENS_PER_SECOND, // rows a second
    PD_RUN_STEP_SECONDS,
    PD_RUN_IMAGE_KEPT, // live image rows, mean over the layers, of those before the first layer: 0 … 1
    PD_RUN_N_CURVES,
} pd_run_curve;

// Of one curve over a point's steps. Values that are missing, not a number, or beyond ±1e38 are left out.
typedef struct pd_run_value {
    int64_t n; // 0: no value
    double mean, low, high;
} pd_run_value;

// n_steps lines in a row.
typedef struct pd_run_point {
    int64_t first_step, last_step, n_steps;
    double seconds; // from the first line's start to the last line's end; 0 where the log does not say
    pd_run_value curves[PD_RUN_N_CURVES];
} pd_run_point;

typedef struct pd_run_log {
    pd_run_point *points; // owned
    size_t n_points;
    int64_t n_steps, first_step, last_step; // n_steps: lines
    int64_t stride;                         // lines to a point, but for the last
    double epoch;                           // behind the last line; NaN: not said
    double seconds, wait_seconds;           // all steps; of it waiting for data; NaN: not said
    double n_rows, n_labels;                // of all steps; NaN: not said
    double image_kept;                      // of all image rows; NaN: there were none
    int64_t n_bad_losses;                   // lines whose loss is NaN or infinite
    int64_t n_without_loss;                 // lines whose loss is null: of steps without labels
    bool cut_short;                         // the last line has no end and is not whole: it was left out
} pd_run_log;

// PD_ERR_FORMAT names `path`, line, and field or column. On failure *log is empty.
pd_status pd_run_log_read(const char *path, pd_run_log *log, pd_error *err);
// The same from an open stream; `name` stands in messages.
pd_status pd_run_log_read_stream(FILE *stream, const char *name, pd_run_log *log, pd_error *err);
// How many bytes at the log's beginning are whole lines of steps that follow on each other, up to `step`:
// what a run that goes on behind it keeps. Empty lines between them count.
size_t pd_run_log_whole_lines(const char *text, size_t size, int64_t step);
void pd_run_log_free(pd_run_log *log);

// smoothed[n_points]: the curve's means, weighted with a Gaussian of `sigma` steps about every point; NaN
// where none of the points within four sigma has a value.
void pd_run_log_smooth(const pd_run_log *log, pd_run_curve curve, double sigma, double *smoothed);
