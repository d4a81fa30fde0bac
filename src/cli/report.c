// pdrop report: the curves of training runs, on a page and as figures.
#include "cli/report.h"

#include "cli/chart.h"
#include "cli/cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <yyjson.h>

static struct {
    pd_strings paths;
    const char *out;
    bool json, quiet;
} flags;

static const pd_option report_table[] = {
    {.type = PD_OPTION_HEADING, .help = "options"},
    {PD_OPTION_STRING, 'o', "--output", "FILE", "the page (default: report.html; with --json none)",
     &flags.out, 0, 0, NULL},
    {PD_OPTION_FLAG, 0, "--json", NULL, "the summary as one line of JSON", &flags.json, 0, 0, NULL},
    {PD_OPTION_FLAG, 'q', "--quiet", NULL, "no summary", &flags.quiet, 0, 0, NULL},
    {.type = PD_OPTION_END},
};

static const pd_option *const tables[] = {report_table, NULL};

static const pd_command command = {
    .name = "report",
    .usage = "pdrop report RUN... [-o FILE] [--json]",
    .about = "Lays the curves of training runs over each other, against steps and against time, on one HTML "
             "page\nthat needs nothing else. A run is the output folder of pdrop train, or a log.jsonl.",
    .tables = tables,
    .positional = &flags.paths,
};

// ---- reading ----------------------------------------------------------------------------------------------

// The log of a run that is named by its folder or its log.
static pd_status log_path(const char *path, char **log, pd_error *err) {
    struct stat info;
    const bool folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    const size_t size = strlen(path) + sizeof "/log.jsonl";
    *log = malloc(size);
    if (!*log) return pd_fail_memory(err, size, "a file name");
    const size_t length = strlen(path);
    const char *slash = length > 0 && path[length - 1] == '/' ? "" : "/";
    snprintf(*log, size, "%s%s%s", path, folder ? slash : "", folder ? "log.jsonl" : "");
    return PD_OK;
}

// The folder that a log lies in, or with `whole` the log's path.
static void name_run(pd_report_run *run, bool whole) {
    const char *path = run->path, *end = strrchr(path, '/');
    if (whole || !end || strcmp(end, "/log.jsonl") != 0) {
        snprintf(run->name, sizeof run->name, "%s", !whole && end && end[1] ? end + 1 : path);
    } else {
        while (end > path && end[-1] == '/')
            end--;
        const char *start = end;
        while (start > path && start[-1] != '/')
            start--;
        snprintf(run->name, sizeof run->name, "%.*s", (int)(end - start), start);
    }
    pd_make_printable(run->name);
}

static void name_runs(pd_report *report) {
    for (size_t i = 0; i < report->n_runs; i++)
        name_run(&report->runs[i], false);
    bool same = false;
    for (size_t i = 0; i < report->n_runs; i++) {
        same = same || report->runs[i].name[0] == '\0' || report->runs[i].name[0] == '.';
        for (size_t j = 0; j < i; j++)
            same = same || strcmp(report->runs[i].name, report->runs[j].name) == 0;
    }
    for (size_t i = 0; same && i < report->n_runs; i++)
        name_run(&report->runs[i], true);
}

static double ratio(double a, double b) {
    return a > 0 && b > 0 ? a / b : NAN;
}

static void summarize(pd_report *report) {
    int64_t longest = 0;
    for (size_t i = 0; i < report->n_runs; i++) {
        if (report->runs[i].log.n_steps > longest) longest = report->runs[i].log.n_steps;
    }
    report->sigma = fmax(2, 0.01 * (double)longest);
    const pd_run_log *first = &report->runs[0].log;
    for (size_t i = 0; i < report->n_runs; i++) {
        pd_report_run *run = &report->runs[i];
        double smoothed[PD_RUN_MOST_POINTS];
        pd_run_log_smooth(&run->log, PD_RUN_LOSS, report->sigma, smoothed);
        run->loss = NAN;
        for (size_t k = run->log.n_points; k-- > 0 && isnan(run->loss);)
            run->loss = smoothed[k];
        run->time_ratio = ratio(run->log.seconds, first->seconds);
        run->step_time_ratio =
            ratio(run->log.seconds / (double)run->log.n_steps, first->seconds / (double)first->n_steps);
    }
}

static pd_status read_runs(pd_report *report, pd_error *err) {
    for (size_t i = 0; i < flags.paths.count; i++) {
        pd_report_run *run = &report->runs[i];
        char *path;
        PD_TRY(log_path(flags.paths.values[i], &path, err));
        run->path = path;
        report->n_runs++;
        PD_TRY(pd_run_log_read(path, &run->log, err));
        if (run->log.cut_short)
            fprintf(stderr, "pdrop: %s: the last line is not whole; it is left out\n", path);
    }
    name_runs(report);
    summarize(report);
    return PD_OK;
}

// ---- output -----------------------------------------------------------------------------------------------

const char *pd_report_duration(char *buffer, size_t size, double seconds) {
    if (!(seconds <= 1e15)) {
        snprintf(buffer, size, "-");
    } else if (seconds < 99.95) {
        snprintf(buffer, size, "%.1f s", seconds);
    } else if (seconds < 5999.5) {
        const long long s = llround(seconds);
        snprintf(buffer, size, "%lld min %02lld s", s / 60, s % 60);
    } else {
        const long long minutes = llround(seconds / 60);
        snprintf(buffer, size, "%lld h %02lld min", minutes / 60, minutes % 60);
    }
    return buffer;
}

// NaN, which JSON does not have, is null.
static void add_number(yyjson_mut_doc *doc, yyjson_mut_val *object, const char *name, double value) {
    if (isfinite(value)) {
        yyjson_mut_obj_add_real(doc, object, name, value);
    } else {
        yyjson_mut_obj_add_null(doc, object, name);
    }
}

static pd_status print_json(const pd_report *report, pd_error *err) {
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_val *runs = yyjson_mut_obj_add_arr(doc, root, "runs");
    for (size_t i = 0; i < report->n_runs; i++) {
        const pd_report_run *run = &report->runs[i];
        const pd_run_log *log = &run->log;
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, runs);
        yyjson_mut_obj_add_str(doc, o, "name", run->name);
        yyjson_mut_obj_add_int(doc, o, "steps", log->n_steps);
        yyjson_mut_obj_add_int(doc, o, "last_step", log->last_step);
        add_number(doc, o, "epochs", log->epoch);
        add_number(doc, o, "loss", run->loss);
        yyjson_mut_obj_add_int(doc, o, "bad_losses", log->n_bad_losses);
        yyjson_mut_obj_add_int(doc, o, "steps_without_labels", log->n_without_loss);
        add_number(doc, o, "seconds", log->seconds);
        add_number(doc, o, "wait_seconds", log->wait_seconds);
        add_number(doc, o, "step_ms", 1e3 * log->seconds / (double)log->n_steps);
        add_number(doc, o, "rows", log->n_rows);
        add_number(doc, o, "labels", log->n_labels);
        add_number(doc, o, "tokens_per_second", ratio(log->n_rows, log->seconds));
        add_number(doc, o, "image_kept", log->image_kept);
        add_number(doc, o, "time_ratio", run->time_ratio);
        add_number(doc, o, "step_time_ratio", run->step_time_ratio);
    }
    return pd_cli_print_json(doc, "the summary", err);
}

// A figure with its unit behind it, or "-".
static const char *figure(char *buffer, size_t size, const char *format, double value) {
    snprintf(buffer, size, isfinite(value) ? format : "-", value);
    return buffer;
}

static void print_table(const pd_report *report) {
    int width = 3;
    for (size_t i = 0; i < report->n_runs; i++)
        width = (int)fmax(width, fmin(40, (double)strlen(report->runs[i].name)));
    printf("%-*s %9s %7s %9s %14s %7s %10s %7s %10s %7s\n", width, "run", "steps", "epochs", "loss", "time",
           "ratio", "ms a step", "ratio", "tokens/s", "image");
    for (size_t i = 0; i < report->n_runs; i++) {
        const pd_report_run *run = &report->runs[i];
        const pd_run_log *log = &run->log;
        char text[9][24];
        printf("%-*s %9lld %7s %9s %14s %7s %10s %7s %10s %7s\n", width, run->name, (long long)log->n_steps,
               figure(text[0], sizeof *text, "%.2f", log->epoch),
               figure(text[1], sizeof *text, "%.4g", run->loss),
               pd_report_duration(text[2], sizeof *text, log->seconds),
               figure(text[3], sizeof *text, "%.3f", run->time_ratio),
               figure(text[4], sizeof *text, "%.1f", 1e3 * log->seconds / (double)log->n_steps),
               figure(text[5], sizeof *text, "%.3f", run->step_time_ratio),
               pd_chart_number(text[6], sizeof *text, ratio(log->n_rows, log->seconds)),
               figure(text[7], sizeof *text, "%.1f %%", 100 * log->image_kept));
        if (log->n_bad_losses > 0)
            printf("%-*s the loss of %lld of %lld steps is not a number\n", width, "",
                   (long long)log->n_bad_losses, (long long)log->n_steps);
        if (log->n_without_loss > 0)
            printf("%-*s %lld of %lld steps had no labels, so no loss\n", width, "",
                   (long long)log->n_without_loss, (long long)log->n_steps);
    }
}

int pd_cli_training_report(int argc, char **argv) {
    static pd_report report;
    int parsed_exit;
    if (!pd_cli_parse(&command, argc, argv, &parsed_exit)) return parsed_exit;
    pd_error err;
    pd_status status = PD_OK;
    if (flags.paths.count < 1 || flags.paths.count > PD_MOST_RUNS)
        status = pd_fail(&err, PD_ERR_ARGUMENT, "expected 1 to %d runs: folders of pdrop train, or logs",
                         PD_MOST_RUNS);
    if (status == PD_OK) status = read_runs(&report, &err);
    const char *out = flags.out ? flags.out : flags.json ? NULL : "report.html";
    for (size_t i = 0; status == PD_OK && i < report.n_runs; i++)
        status = pd_cli_expect_other("--output", out, report.runs[i].path, &err);
    if (status == PD_OK && out) status = pd_report_write_page(&report, out, &err);
    if (status == PD_OK && flags.json) {
        status = print_json(&report, &err);
    } else if (status == PD_OK && !flags.quiet) {
        print_table(&report);
        printf("%s\n", out);
    }
    for (size_t i = 0; i < report.n_runs; i++) {
        free((char *)report.runs[i].path);
        pd_run_log_free(&report.runs[i].log);
    }
    return status == PD_OK ? PD_EXIT_OK : pd_cli_report(status, &err);
}
