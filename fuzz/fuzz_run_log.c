// Any bytes as a training log: what is accepted holds together, whatever its length, and so does what a run
// that goes on behind some step keeps.
#include "check.h"

#include "train/run_log.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_log(const pd_run_log *log) {
    CHECK(log->n_points >= 1 && log->n_points <= PD_RUN_MOST_POINTS);
    CHECK(log->n_bad_losses >= 0 && log->n_without_loss >= 0);
    CHECK(log->n_bad_losses + log->n_without_loss <= log->n_steps);
    const double sums[] = {log->seconds, log->wait_seconds, log->n_rows, log->n_labels};
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        CHECK(isnan(sums[i]) || (isfinite(sums[i]) && sums[i] >= 0));
    int64_t steps = 0, last = -1;
    double seconds = 0;
    for (size_t i = 0; i < log->n_points; i++) {
        const pd_run_point *point = &log->points[i];
        CHECK(point->first_step > last && point->last_step >= point->first_step);
        CHECK(point->n_steps >= 1 && point->n_steps <= log->stride);
        CHECK(point->seconds >= seconds);
        for (int k = 0; k < PD_RUN_N_CURVES; k++) {
            const pd_run_value *value = &point->curves[k];
            CHECK(value->n >= 0 && value->n <= point->n_steps);
            const double slack = 1e-9 * (fabs(value->low) + fabs(value->high));
            CHECK(value->n == 0 || (value->mean >= value->low - slack && value->mean <= value->high + slack));
        }
        steps += point->n_steps;
        last = point->last_step;
        seconds = point->seconds;
    }
    CHECK(steps == log->n_steps && last == log->last_step);
    CHECK(seconds == (isnan(log->seconds) ? 0 : log->seconds));
    double smoothed[PD_RUN_MOST_POINTS];
    pd_run_log_smooth(log, PD_RUN_LOSS, 2, smoothed);
    for (size_t i = 0; i < log->n_points; i++)
        CHECK(!isinf(smoothed[i]) && (log->points[i].curves[PD_RUN_LOSS].n == 0 || !isnan(smoothed[i])));
}

// What is kept for a step is all that is kept of it, and no more than is kept for a later step.
static void check_whole_lines(const char *text, size_t size) {
    static const int64_t steps[] = {-1, 0, 1, 7, INT64_MAX};
    size_t before = 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        const size_t kept = pd_run_log_whole_lines(text, size, steps[i]);
        CHECK(kept <= size && kept >= before);
        CHECK(kept == 0 || text[kept - 1] == '\n');
        CHECK(pd_run_log_whole_lines(text, kept, steps[i]) == kept);
        before = kept;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check_whole_lines((const char *)data, size);
    if (size == 0) return 0; // fmemopen wants a byte
    FILE *stream = fmemopen((void *)(uintptr_t)data, size, "rb");
    CHECK(stream);
    pd_run_log log;
    pd_error err = {0};
    if (pd_run_log_read_stream(stream, "log.jsonl", &log, &err) == PD_OK) {
        check_log(&log);
        if (!log.cut_short && data[size - 1] == '\n')
            CHECK(pd_run_log_whole_lines((const char *)data, size, log.last_step) == size);
    } else {
        CHECK(err.status == PD_ERR_FORMAT && err.message[0] != '\0' && !strchr(err.message, '\n'));
        CHECK(!log.points);
    }
    pd_run_log_free(&log);
    fclose(stream);
    return 0;
}
