// What a training run says: a live line on the terminal, and log.jsonl in its output folder, one line a step.
#pragma once

#include "train/trainer.h"

typedef struct pd_train_log pd_train_log;

typedef struct pd_train_log_params {
    const char *output_dir;
    int32_t rank; // the first says what there is to say, the others only what their data give reason to
    bool live;    // the live line, where stderr is a terminal
    bool json;    // the log's lines on standard output too
} pd_train_log_params;

pd_status pd_train_log_create(const pd_train_log_params *params, pd_train_log **log, pd_error *err);
void pd_train_log_free(pd_train_log *log);

// The trainer's callbacks; `user` is the log. At the start lines of steps behind the checkpoint that the run
// goes on from are taken out of log.jsonl, so that it reads as one uninterrupted run's.
void pd_train_log_start(const pd_train_report *report, void *user);
void pd_train_log_step(const pd_train_report *report, void *user);
void pd_train_log_line(pd_log_level level, const char *line, void *user);
