// The blind baseline, out of what `scenes --report --json` printed: how far one gets without pictures.
#pragma once

#include "base/error.h"

enum { PD_BASELINE_MOST_TASKS = 64 };

typedef struct pd_baseline {
    uint64_t seed; // of the pictures
    struct {
        char task[48];
        double blind; // share of right answers
    } rows[PD_BASELINE_MOST_TASKS];
    size_t n;
} pd_baseline;

// PD_ERR_FORMAT names the file, and line and column of broken JSON, or the field and what was expected.
pd_status pd_baseline_read(const char *path, pd_baseline *baseline, pd_error *err);
// The same from memory; `name` stands in messages.
pd_status pd_baseline_parse(const char *bytes, size_t size, const char *name, pd_baseline *baseline,
                            pd_error *err);
// A task's share; below 0: not known.
double pd_baseline_of(const pd_baseline *baseline, const char *task);
