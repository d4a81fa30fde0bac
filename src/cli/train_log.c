#include "cli/train_log.h"

#include "base/file.h"
#include "cli/cli.h"
#include "train/run_log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct pd_train_log {
    pd_train_log_params params;
    char *path;
    FILE *file;
    bool terminal, shown; // whether stderr is one; whether the live line stands there
    double mean_ms;       // of a step, smoothed
    double mean_loss;     // of the steps that had labels, smoothed
    bool any_loss;        // whether there was such a step
    pd_train_report last;
};

pd_status pd_train_log_create(const pd_train_log_params *params, pd_train_log **out, pd_error *err) {
    static const char name[] = "/log.jsonl";
    *out = NULL;
    pd_train_log *log = calloc(1, sizeof *log);
    if (!log) return pd_fail_memory(err, sizeof *log, "the log");
    log->params = *params;
    log->terminal = isatty(STDERR_FILENO) != 0;
    const size_t size = strlen(params->output_dir) + sizeof name;
    log->path = malloc(size);
    if (!log->path) {
        pd_train_log_free(log);
        return pd_fail_memory(err, size, "the log");
    }
    snprintf(log->path, size, "%s%s", params->output_dir, name);
    *out = log;
    return PD_OK;
}

static void clear_line(pd_train_log *log) {
    if (log->shown) fputs("\r\033[K", stderr);
    log->shown = false;
}

static bool is_first(const pd_train_log *log) {
    return log->params.rank == 0;
}

// What the data gave reason to, in one line at the end; nothing when there was nothing.
static void sum_up(const pd_train_log *log) {
    const pd_train_report *r = &log->last;
    if (r->bad_images + r->bad_samples + r->truncated + r->mismatches == 0) return;
    fprintf(stderr,
            "pdrop train: records left out for a picture: %lld, for their text: %lld; samples cut off: %lld, "
            "without labels: %lld\n",
            (long long)r->bad_images, (long long)r->bad_samples, (long long)r->truncated,
            (long long)r->mismatches);
}

void pd_train_log_free(pd_train_log *log) {
    if (!log) return;
    if (log->shown) fputc('\n', stderr);
    sum_up(log);
    if (log->file) fclose(log->file);
    free(log->path);
    free(log);
}

void pd_train_log_line(pd_log_level level, const char *line, void *user) {
    pd_train_log *log = user;
    if (level == PD_LOG_DEBUG) return;
    char rank[32] = "";
    if (!is_first(log)) snprintf(rank, sizeof rank, "rank %d: ", log->params.rank);
    clear_line(log);
    fprintf(stderr, "pdrop train: %s%s%s\n", level == PD_LOG_WARNING ? "warning: " : "", rank, line);
}

// ---- log.jsonl ---------------------------------------------------------------------------------------------

// Opens the log behind the lines up to `step`.
static pd_status open_at(pd_train_log *log, int64_t step, pd_error *err) {
    size_t kept = 0;
    if (step > 0 && access(log->path, F_OK) == 0) {
        pd_mapped_file file;
        PD_TRY(pd_mapped_file_open(log->path, &file, err));
        kept = pd_run_log_whole_lines((const char *)file.data, file.size, step);
        pd_mapped_file_close(&file);
    }
    log->file = fopen(log->path, step > 0 ? "ab" : "wb");
    if (log->file && (step == 0 || ftruncate(fileno(log->file), (off_t)kept) == 0)) return PD_OK;
    const int reason = errno;
    if (log->file) fclose(log->file);
    log->file = NULL;
    return pd_fail(err, PD_ERR_IO, "%s: cannot write: %s; there will be no log", log->path, strerror(reason));
}

void pd_train_log_start(const pd_train_report *r, void *user) {
    const pd_train_log *log = user;
    if (!is_first(log)) return;
    fprintf(stderr, "pdrop train: %lld samples, %.2f M parameters, %lld steps from %lld on; products in %s\n",
            (long long)r->n_samples, (double)r->n_parameters * 1e-6, (long long)r->n_steps,
            (long long)r->first_step, r->compute);
}

// The log that is there stays until a step has been done.
static void open_log(pd_train_log *log, int64_t first_step) {
    pd_error err;
    if (open_at(log, first_step, &err) != PD_OK) pd_train_log_line(PD_LOG_WARNING, err.message, log);
}

static void write_line(pd_train_log *log, const pd_train_report *r) {
    char line[640], loss[32] = "null"; // there is none without labels
    if (r->n_labels > 0) snprintf(loss, sizeof loss, "%.9g", r->loss);
    snprintf(line, sizeof line,
             "{\"step\":%lld,\"epoch\":%.6g,\"loss\":%s,\"learning_rate\":%.9g,\"grad_norm\":%.9g,"
             "\"labels\":%lld,"
             "\"rows\":%lld,\"image_rows\":%lld,\"image_rows_mean\":%.6g,\"step_ms\":%.1f,\"wait_ms\":%.1f,"
             "\"sync_ms\":%.1f,\"tokens_per_second\":%.1f}\n",
             (long long)r->step, r->epoch, loss, r->learning_rate, r->gradient_norm, (long long)r->n_labels,
             (long long)r->n_rows, (long long)r->n_image_rows, r->image_rows_mean, r->step_ms, r->wait_ms,
             r->sync_ms, 1e3 * (double)r->n_rows / r->step_ms);
    if (log->file && (fputs(line, log->file) == EOF || fflush(log->file) != 0)) {
        pd_error err;
        pd_fail(&err, PD_ERR_IO, "%s: cannot write: %s; it ends here", log->path, strerror(errno));
        pd_train_log_line(PD_LOG_WARNING, err.message, log);
        fclose(log->file);
        log->file = NULL;
    }
    if (log->params.json) {
        fputs(line, stdout);
        fflush(stdout);
    }
}

// ---- the live line -----------------------------------------------------------------------------------------

static const char *duration(char *buffer, size_t size, double seconds) {
    const long long s = (long long)(seconds + 0.5);
    if (s >= 3600) {
        snprintf(buffer, size, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    } else {
        snprintf(buffer, size, "%lld:%02lld", s / 60, s % 60);
    }
    return buffer;
}

// A line of the terminal, less the last column; 0: as long as it likes.
static size_t columns(const pd_train_log *log) {
    struct winsize window;
    if (!log->terminal || ioctl(STDERR_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_col < 2) return 0;
    return window.ws_col - 1U;
}

static void show(pd_train_log *log, const pd_train_report *r) {
    char left[32], loss[32] = "-", line[256];
    if (log->any_loss) snprintf(loss, sizeof loss, "%.4f", log->mean_loss);
    clear_line(log);
    const double kept = r->n_image_rows > 0 ? 100.0 * r->image_rows_mean / (double)r->n_image_rows : 100.0;
    // what is wanted most stands first, for narrow terminals
    snprintf(line, sizeof line,
             "step %lld/%lld  loss %s  ETA %s  lr %.2e  norm %.2f  %.0f tokens/s  image %.0f %%  %.0f ms",
             (long long)r->step, (long long)r->n_steps, loss,
             duration(left, sizeof left, log->mean_ms * 1e-3 * (double)(r->n_steps - r->step)),
             r->learning_rate, r->gradient_norm, 1e3 * (double)r->n_rows / r->step_ms, kept, r->step_ms);
    const size_t most = columns(log);
    if (most > 0 && most < sizeof line) line[most] = '\0';
    fputs(line, stderr);
    log->shown = log->terminal;
    if (!log->terminal) fputc('\n', stderr);
    fflush(stderr);
}

void pd_train_log_step(const pd_train_report *r, void *user) {
    pd_train_log *log = user;
    if (!is_first(log)) return;
    const bool first = r->step == r->first_step + 1;
    log->mean_ms = first ? r->step_ms : 0.95 * log->mean_ms + 0.05 * r->step_ms;
    if (first) open_log(log, r->first_step);
    if (r->n_labels > 0) {
        log->mean_loss = !log->any_loss ? r->loss : 0.95 * log->mean_loss + 0.05 * r->loss;
        log->any_loss = true;
    }
    write_line(log, r);
    // without a terminal a line now and then, for those who read it later
    const bool due = log->terminal || r->step == r->n_steps || r->step % 50 == 0 || first;
    if (log->params.live && due) show(log, r);
    log->last = *r;
}
