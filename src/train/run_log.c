#include "train/run_log.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

// ---- points -----------------------------------------------------------------------------------------------

static void add_value(pd_run_value *value, double x) {
    if (!(fabs(x) <= 1e38)) return;
    value->low = value->n == 0 || x < value->low ? x : value->low;
    value->high = value->n == 0 || x > value->high ? x : value->high;
    value->n++;
    value->mean += (x - value->mean) / (double)value->n;
}

static void merge_values(pd_run_value *a, const pd_run_value *b) {
    if (b->n == 0) return;
    if (a->n == 0) {
        *a = *b;
        return;
    }
    a->low = fmin(a->low, b->low);
    a->high = fmax(a->high, b->high);
    const double n = (double)(a->n + b->n);
    a->mean = a->mean * ((double)a->n / n) + b->mean * ((double)b->n / n);
    a->n += b->n;
}

static void merge_pairs(pd_run_log *log) {
    const size_t n = log->n_points / 2;
    for (size_t i = 0; i < n; i++) {
        pd_run_point merged = log->points[2 * i];
        const pd_run_point *next = &log->points[2 * i + 1];
        merged.last_step = next->last_step;
        merged.n_steps += next->n_steps;
        merged.seconds = next->seconds;
        for (int k = 0; k < PD_RUN_N_CURVES; k++)
            merge_values(&merged.curves[k], &next->curves[k]);
        log->points[i] = merged;
    }
    log->n_points = n;
    log->stride *= 2;
}

// The point that the next line goes to.
static pd_run_point *point_for_line(pd_run_log *log, int64_t step) {
    if (log->n_points > 0 && log->points[log->n_points - 1].n_steps < log->stride)
        return &log->points[log->n_points - 1];
    if (log->n_points == PD_RUN_MOST_POINTS) merge_pairs(log);
    pd_run_point *point = &log->points[log->n_points++];
    *point = (pd_run_point){.first_step = step};
    return point;
}

// ---- a line -----------------------------------------------------------------------------------------------

// Sums that are of no use once the log is read.
typedef struct {
    const char *name;
    int64_t line;
    double image_rows, image_rows_mean;
} reading;

// The field's number; NaN where it is missing or null.
static pd_status read_number(const reading *r, yyjson_val *root, const char *field, double *number,
                             pd_error *err) {
    yyjson_val *value = yyjson_obj_get(root, field);
    *number = yyjson_is_num(value) ? yyjson_get_num(value) : NAN;
    if (!value || yyjson_is_null(value) || yyjson_is_num(value)) return PD_OK;
    return pd_fail(err, PD_ERR_FORMAT, "%s: line %lld: %s: expected a number, found %s", r->name,
                   (long long)r->line, field, yyjson_get_type_desc(value));
}

// The same of what cannot be negative.
static pd_status read_amount(const reading *r, yyjson_val *root, const char *field, double *number,
                             pd_error *err) {
    PD_TRY(read_number(r, root, field, number, err));
    if (!(*number < 0)) return PD_OK;
    return pd_fail(err, PD_ERR_FORMAT, "%s: line %lld: %s: expected a number of at least 0, found %g",
                   r->name, (long long)r->line, field, *number);
}

static bool is_step(yyjson_val *value) {
    return yyjson_is_uint(value) && yyjson_get_uint(value) <= (uint64_t)1 << 53;
}

static pd_status read_step(const reading *r, yyjson_val *root, const pd_run_log *log, int64_t *step,
                           pd_error *err) {
    yyjson_val *value = yyjson_obj_get(root, "step");
    if (!is_step(value))
        return pd_fail(err, PD_ERR_FORMAT, "%s: line %lld: step: expected a whole number, found %s", r->name,
                       (long long)r->line, value ? yyjson_get_type_desc(value) : "nothing");
    *step = (int64_t)yyjson_get_uint(value);
    if (log->n_steps > 0 && *step <= log->last_step)
        return pd_fail(err, PD_ERR_FORMAT, "%s: line %lld: step: expected one behind %lld, found %lld",
                       r->name, (long long)r->line, (long long)log->last_step, (long long)*step);
    return PD_OK;
}

// A sum is NaN until there is something to add.
static void add_to_sum(double *sum, double x) {
    if (x <= 1e38) *sum = isnan(*sum) ? x : *sum + x;
}

static pd_status add_line(reading *r, yyjson_val *root, pd_run_log *log, pd_error *err) {
    if (!yyjson_is_obj(root))
        return pd_fail(err, PD_ERR_FORMAT, "%s: line %lld: expected an object, found %s", r->name,
                       (long long)r->line, yyjson_get_type_desc(root));
    int64_t step = 0;
    double x[PD_RUN_N_CURVES], epoch, labels, rows, image_rows, image_rows_mean, step_ms, wait_ms;
    PD_TRY(read_step(r, root, log, &step, err));
    if (!yyjson_obj_get(root, "loss"))
        return pd_fail(err, PD_ERR_FORMAT, "%s: line %lld: loss: expected a number, found nothing", r->name,
                       (long long)r->line);
    PD_TRY(read_number(r, root, "loss", &x[PD_RUN_LOSS], err));
    PD_TRY(read_amount(r, root, "epoch", &epoch, err));
    PD_TRY(read_amount(r, root, "learning_rate", &x[PD_RUN_LEARNING_RATE], err));
    PD_TRY(read_amount(r, root, "grad_norm", &x[PD_RUN_GRADIENT_NORM], err));
    PD_TRY(read_amount(r, root, "labels", &labels, err));
    PD_TRY(read_amount(r, root, "rows", &rows, err));
    PD_TRY(read_amount(r, root, "image_rows", &image_rows, err));
    PD_TRY(read_amount(r, root, "image_rows_mean", &image_rows_mean, err));
    PD_TRY(read_amount(r, root, "step_ms", &step_ms, err));
    PD_TRY(read_amount(r, root, "wait_ms", &wait_ms, err));
    PD_TRY(read_amount(r, root, "tokens_per_second", &x[PD_RUN_TOKENS_PER_SECOND], err));
    x[PD_RUN_STEP_SECONDS] = 1e-3 * step_ms;
    x[PD_RUN_IMAGE_KEPT] = image_rows > 0 ? image_rows_mean / image_rows : NAN;

    pd_run_point *point = point_for_line(log, step);
    point->last_step = step;
    point->n_steps++;
    for (int k = 0; k < PD_RUN_N_CURVES; k++)
        add_value(&point->curves[k], x[k]);
    if (log->n_steps == 0) log->first_step = step;
    log->n_steps++;
    log->last_step = step;
    log->epoch = epoch;
    add_to_sum(&log->seconds, 1e-3 * step_ms);
    add_to_sum(&log->wait_seconds, 1e-3 * wait_ms);
    add_to_sum(&log->n_rows, rows);
    add_to_sum(&log->n_labels, labels);
    if (image_rows <= 1e38 && image_rows_mean <= 1e38) {
        r->image_rows += image_rows;
        r->image_rows_mean += image_rows_mean;
    }
    const bool has_loss = !yyjson_is_null(yyjson_obj_get(root, "loss"));
    log->n_bad_losses += has_loss && !isfinite(x[PD_RUN_LOSS]);
    log->n_without_loss += !has_loss;
    point->seconds = isnan(log->seconds) ? 0 : log->seconds;
    return PD_OK;
}

static bool is_blank(const char *line, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return false;
    }
    return true;
}

static pd_status read_line(reading *r, char *line, size_t size, bool ended, pd_run_log *log, pd_error *err) {
    r->line++;
    if (is_blank(line, size)) return PD_OK;
    yyjson_read_err why;
    // a loss may be nan or inf, which JSON proper cannot say
    yyjson_doc *doc = yyjson_read_opts(line, size, YYJSON_READ_ALLOW_INF_AND_NAN, NULL, &why);
    if (!doc && why.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION) return pd_fail_memory(err, size, r->name);
    if (!doc && !ended) {
        log->cut_short = true;
        return PD_OK;
    }
    if (!doc)
        return pd_fail(err, PD_ERR_FORMAT, "%s: line %lld, column %zu: broken JSON: %s", r->name,
                       (long long)r->line, why.pos + 1, why.msg);
    const pd_status status = add_line(r, yyjson_doc_get_root(doc), log, err);
    yyjson_doc_free(doc);
    return status;
}

// ---- the file ---------------------------------------------------------------------------------------------

// All lines, through a buffer that holds the longest of them.
static pd_status read_lines(FILE *stream, char *buffer, reading *r, pd_run_log *log, pd_error *err) {
    size_t held = 0;
    for (bool at_end = false; !at_end;) {
        const size_t wanted = PD_RUN_LONGEST_LINE + 1 - held;
        const size_t got = fread(buffer + held, 1, wanted, stream);
        if (ferror(stream)) return pd_fail(err, PD_ERR_IO, "%s: cannot read: %s", r->name, strerror(errno));
        at_end = got < wanted;
        held += got;
        size_t start = 0;
        for (char *end; (end = memchr(buffer + start, '\n', held - start));) {
            PD_TRY(read_line(r, buffer + start, (size_t)(end - buffer) - start, true, log, err));
            start = (size_t)(end - buffer) + 1;
        }
        if (start == 0 && !at_end)
            return pd_fail(err, PD_ERR_FORMAT, "%s: line %lld: longer than %d bytes", r->name,
                           (long long)r->line + 1, PD_RUN_LONGEST_LINE);
        if (at_end && held > start) PD_TRY(read_line(r, buffer + start, held - start, false, log, err));
        memmove(buffer, buffer + start, held - start);
        held -= start;
    }
    if (log->n_steps == 0)
        return pd_fail(err, PD_ERR_FORMAT, "%s: expected a line a step, found none", r->name);
    return PD_OK;
}

pd_status pd_run_log_read_stream(FILE *stream, const char *name, pd_run_log *log, pd_error *err) {
    reading r = {.name = name};
    *log = (pd_run_log){
        .stride = 1, .epoch = NAN, .seconds = NAN, .wait_seconds = NAN, .n_rows = NAN, .n_labels = NAN};
    const size_t size = PD_RUN_MOST_POINTS * sizeof *log->points;
    log->points = malloc(size);
    char *buffer = malloc(PD_RUN_LONGEST_LINE + 1);
    if (!log->points || !buffer) {
        free(buffer);
        pd_run_log_free(log);
        return pd_fail_memory(err, size, name);
    }
    const pd_status status = read_lines(stream, buffer, &r, log, err);
    free(buffer);
    if (status != PD_OK) {
        pd_run_log_free(log);
        return status;
    }
    log->image_kept = r.image_rows > 0 ? r.image_rows_mean / r.image_rows : NAN;
    return PD_OK;
}

pd_status pd_run_log_read(const char *path, pd_run_log *log, pd_error *err) {
    *log = (pd_run_log){0};
    FILE *stream = fopen(path, "rb");
    if (!stream) return pd_fail(err, PD_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    const pd_status status = pd_run_log_read_stream(stream, path, log, err);
    fclose(stream);
    return status;
}

// The step of a line; -1: it has none.
static int64_t step_of(const char *line, size_t size) {
    // without YYJSON_READ_INSITU the bytes are only read
    yyjson_doc *doc =
        yyjson_read_opts((char *)(uintptr_t)line, size, YYJSON_READ_ALLOW_INF_AND_NAN, NULL, NULL);
    yyjson_val *value = yyjson_obj_get(yyjson_doc_get_root(doc), "step");
    const int64_t step = is_step(value) ? (int64_t)yyjson_get_uint(value) : -1;
    yyjson_doc_free(doc);
    return step;
}

size_t pd_run_log_whole_lines(const char *text, size_t size, int64_t step) {
    size_t kept = 0;
    int64_t last = -1;
    for (const char *end; kept < size && (end = memchr(text + kept, '\n', size - kept));) {
        const size_t length = (size_t)(end - text) - kept;
        if (!is_blank(text + kept, length)) {
            const int64_t found = step_of(text + kept, length);
            if (found <= last || found > step) break;
            last = found;
        }
        kept += length + 1;
    }
    return kept;
}

void pd_run_log_free(pd_run_log *log) {
    free(log->points);
    *log = (pd_run_log){0};
}

// ---- smoothing --------------------------------------------------------------------------------------------

static double middle(const pd_run_point *point) {
    return 0.5 * ((double)point->first_step + (double)point->last_step);
}

void pd_run_log_smooth(const pd_run_log *log, pd_run_curve curve, double sigma, double *smoothed) {
    size_t first = 0;
    for (size_t i = 0; i < log->n_points; i++) {
        const double at = middle(&log->points[i]);
        while (middle(&log->points[first]) < at - 4 * sigma)
            first++;
        double sum = 0, weights = 0;
        for (size_t j = first; j < log->n_points && middle(&log->points[j]) <= at + 4 * sigma; j++) {
            const pd_run_value *value = &log->points[j].curves[curve];
            if (value->n == 0) continue;
            const double distance = (middle(&log->points[j]) - at) / sigma;
            const double weight = (double)value->n * exp(-0.5 * distance * distance);
            sum += weight * value->mean;
            weights += weight;
        }
        smoothed[i] = weights > 0 ? sum / weights : NAN;
    }
}
