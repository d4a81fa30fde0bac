// The runs of a training report, and their page.
#pragma once

#include "train/run_log.h"

enum { PD_MOST_RUNS = 8 };

typedef struct pd_report_run {
    const char *path; // of its log
    char name[128];   // the folder's, made printable
    pd_run_log log;
    double loss;                        // smoothed, at the end; NaN: none
    double time_ratio, step_time_ratio; // to the first run; NaN: not known
} pd_report_run;

typedef struct pd_report {
    pd_report_run runs[PD_MOST_RUNS];
    size_t n_runs;
    double sigma; // of the smoothing, in steps
} pd_report;

// A page without scripts that needs no network. PD_ERR_IO where it cannot be written.
pd_status pd_report_write_page(const pd_report *report, const char *path, pd_error *err);

// "4 h 07 min", "12 min 05 s", "8.3 s"; "-" for NaN. Buffer of at least 24 bytes, returned.
const char *pd_report_duration(char *buffer, size_t size, double seconds);
