// Writes a data set: pictures by several threads, the JSON in order, whole or not at all.
#pragma once

#include "report.h"
#include "sample.h"

typedef struct pd_dataset_options {
    pd_sample_options samples;
    const char *out; // folder; NULL: nothing is written
    int size;        // pixels a side
    int threads;
    bool images; // draw them; else only the JSON is written
    bool progress;
} pd_dataset_options;

typedef struct pd_dataset_summary {
    char json[4096]; // path of the JSON; "" without --out
    int64_t n_records, n_images, n_questions;
    uint64_t image_bytes;
    double seconds;
} pd_dataset_summary;

// PD_ERR_CANCELLED where *stop becomes true. `tally`, which may be NULL, is given every question.
pd_status pd_dataset_write(const pd_dataset_options *options, const volatile bool *stop, pd_tally *tally,
                           pd_dataset_summary *summary, pd_error *err);
