// The page of pdrop report: HTML with its style sheet and its pictures in it.
#include "base/file.h"
#include "cli/chart.h"
#include "cli/report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char style_sheet[] =
    ":root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#647084;--grid:#e6e9ee;"
    "--rule:#c9d0da;--c0:#2563eb;--c1:#e8590c;--c2:#0b8f6a;--c3:#9333ea;--c4:#d6336c;--c5:#0284a8;"
    "--c6:#a16207;--c7:#475569}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#11151c;--card:#191f29;--ink:#e6eaf1;--soft:#98a4b8;"
    "--grid:#28303d;--rule:#3d4758;--c0:#6ea8fe;--c1:#ff9d5c;--c2:#43d39e;--c3:#c08bfd;--c4:#f783ac;"
    "--c5:#3bc9db;--c6:#e0b64a;--c7:#a3b1c6}}\n"
    "*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);"
    "font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','DejaVu Sans',sans-serif}\n"
    "main{max-width:1180px;margin:0 auto;padding:28px 20px 48px}h1{font-size:24px;line-height:1.2;margin:0}\n"
    ".about{color:var(--soft);margin:4px 0 0}.legend{position:sticky;top:0;z-index:1;display:flex;"
    "flex-wrap:wrap;gap:4px 20px;background:var(--bg);padding:12px 0;margin:6px 0 4px}\n"
    ".legend span,td:first-child{font-weight:600}.legend i,td i{display:inline-block;width:18px;height:4px;"
    "border-radius:2px;margin-right:8px;vertical-align:middle}td i{margin-bottom:2px}\n"
    "figure,.table{background:var(--card);border:1px solid var(--grid);border-radius:10px;margin:0;"
    "padding:14px 16px}.table{overflow-x:auto;padding:6px 16px}\n"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;white-space:nowrap}\n"
    "th,td{text-align:right;padding:7px 0 7px 14px;border-bottom:1px solid var(--grid)}"
    "th{color:var(--soft);font-weight:500;font-size:13px}tr:last-child td{border-bottom:0}\n"
    "th:first-child,td:first-child{text-align:left;padding-left:0}\n"
    ".grid{display:grid;grid-template-columns:repeat(6,1fr);gap:16px;margin-top:16px}.w1{grid-column:span 6}"
    ".w2{grid-column:span 3}.w3{grid-column:span 2}"
    "@media(max-width:820px){.w2,.w3{grid-column:span 6}}\n"
    "figcaption{font-weight:600;margin-bottom:6px}figcaption small{font-weight:400;color:var(--soft);"
    "font-size:13px;margin-left:8px}\n"
    "svg{display:block;width:100%;height:auto}svg svg{overflow:hidden}svg "
    "text{fill:var(--soft);font-size:12px;"
    "font-variant-numeric:tabular-nums}\n"
    ".axis path{stroke:var(--grid);stroke-width:1}.axis .base{stroke:var(--rule)}\n"
    ".line,.raw{fill:none;stroke-linejoin:round;stroke-linecap:round}.line{stroke-width:2}"
    ".raw{stroke-width:1;opacity:.3}.band{stroke:none;opacity:.18}svg text.end{font-weight:600}\n"
    "p.note{color:var(--soft);font-size:13px;margin:18px 2px 0}\n";

// Text as it may stand in HTML.
static void put_escaped(FILE *out, const char *text) {
    for (; *text; text++) {
        switch (*text) {
        case '&':
            fputs("&amp;", out);
            break;
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        default:
            fputc(*text, out);
        }
    }
}

// ---- summary ----------------------------------------------------------------------------------------------

static void put_cell(FILE *out, const char *format, double value) {
    fputs("<td>", out);
    if (isfinite(value)) {
        fprintf(out, format, value);
    } else {
        fputs("–", out);
    }
    fputs("</td>", out);
}

static void put_names(FILE *out, const pd_report *report) {
    fputs("<div class=\"legend\">", out);
    for (size_t i = 0; i < report->n_runs; i++) {
        fprintf(out, "<span><i style=\"background:var(--c%zu)\"></i>", i);
        put_escaped(out, report->runs[i].name);
        fputs("</span>", out);
    }
    fputs("</div>\n", out);
}

static void put_summary(FILE *out, const pd_report *report) {
    const bool several = report->n_runs > 1;
    fputs("<div class=\"table\"><table><tr><th>run</th><th>steps</th><th>epochs</th><th>loss at the end</th>"
          "<th>time</th>",
          out);
    if (several) fputs("<th>ratio</th>", out);
    fputs("<th>time a step</th>", out);
    if (several) fputs("<th>ratio</th>", out);
    fputs("<th>waiting for data</th><th>tokens/s</th><th>image tokens</th></tr>\n", out);
    for (size_t i = 0; i < report->n_runs; i++) {
        const pd_report_run *run = &report->runs[i];
        const pd_run_log *log = &run->log;
        char text[24];
        fprintf(out, "<tr><td><i style=\"background:var(--c%zu)\"></i>", i);
        put_escaped(out, run->name);
        fprintf(out, "</td><td>%lld</td>", (long long)log->n_steps);
        put_cell(out, "%.2f", log->epoch);
        put_cell(out, "%.4g", run->loss);
        fprintf(out, "<td>%s</td>", pd_report_duration(text, sizeof text, log->seconds));
        if (several) put_cell(out, "%.3f", run->time_ratio);
        put_cell(out, "%.1f ms", 1e3 * log->seconds / (double)log->n_steps);
        if (several) put_cell(out, "%.3f", run->step_time_ratio);
        put_cell(out, "%.1f %%", log->seconds > 0 ? 100 * log->wait_seconds / log->seconds : NAN);
        put_cell(out, "%.0f", log->seconds > 0 ? log->n_rows / log->seconds : NAN);
        put_cell(out, "%.1f %%", 100 * log->image_kept);
        fputs("</tr>\n", out);
    }
    fputs("</table></div>\n", out);
}

// ---- pictures ---------------------------------------------------------------------------------------------

typedef struct {
    pd_run_curve curve;
    const char *title, *about;
    int parts; // the page's width is divided into as many
    bool from_zero, may_be_log, smooth, over_time;
    double percent;
} picture;

static const picture pictures[] = {
    {PD_RUN_LOSS, "Loss", "by steps", 1, false, true, true, false, 1},
    {PD_RUN_LOSS, "Loss", "by time", 1, false, true, true, true, 1},
    {PD_RUN_LEARNING_RATE, "Learning rate", "", 2, true, false, false, false, 1},
    {PD_RUN_GRADIENT_NORM, "Gradient norm", "before clipping", 2, true, true, true, false, 1},
    {PD_RUN_STEP_SECONDS, "Time of a step", "seconds", 3, true, true, true, false, 1},
    {PD_RUN_TOKENS_PER_SECOND, "Tokens a second", "text and image", 3, true, false, true, false, 1},
    {PD_RUN_IMAGE_KEPT, "Image tokens kept", "mean over the layers", 3, true, false, false, false, 100},
};

// A run's numbers for a picture; all arrays have PD_RUN_MOST_POINTS places.
typedef struct {
    double x[PD_RUN_MOST_POINTS], y[PD_RUN_MOST_POINTS], raw[PD_RUN_MOST_POINTS];
    double low[PD_RUN_MOST_POINTS], high[PD_RUN_MOST_POINTS];
} series;

static const struct {
    double seconds;
    const char *name;
} time_units[] = {{3600, "hours"}, {60, "minutes"}, {1, "seconds"}};

// The largest unit of which there are three.
static size_t choose_unit(const pd_report *report) {
    double longest = 0;
    for (size_t i = 0; i < report->n_runs; i++)
        longest = fmax(longest, report->runs[i].log.seconds);
    size_t unit = 0;
    while (unit < 2 && longest < 3 * time_units[unit].seconds)
        unit++;
    return unit;
}

static bool fill_line(const picture *p, const pd_report *report, size_t index, double unit, series *s,
                      pd_chart_line *line) {
    const pd_run_log *log = &report->runs[index].log;
    const bool timed = !isnan(log->seconds);
    const size_t n = timed || !p->over_time ? log->n_points : 0;
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        const pd_run_point *point = &log->points[i];
        const pd_run_value *value = &point->curves[p->curve];
        const bool there = value->n > 0;
        s->x[i] = p->over_time ? point->seconds / unit : (double)point->last_step;
        s->raw[i] = there ? value->mean : NAN;
        s->low[i] = there ? value->low : NAN;
        s->high[i] = there ? value->high : NAN;
        any = any || there;
    }
    if (p->smooth) {
        pd_run_log_smooth(log, p->curve, report->sigma, s->y);
    } else {
        memcpy(s->y, s->raw, sizeof s->y);
    }
    *line = (pd_chart_line){.style = (int)index, .n = n, .x = s->x, .y = s->y};
    if (p->smooth && log->stride > 1) {
        line->low = s->low;
        line->high = s->high;
    } else if (p->smooth) {
        line->raw = s->raw;
    }
    return any;
}

static void put_picture(FILE *out, const pd_report *report, const picture *p, series *numbers) {
    static const int widths[] = {0, 1108, 530, 338}; // about the pixels there are
    pd_chart_line lines[PD_MOST_RUNS];
    const size_t unit = choose_unit(report);
    bool any = false;
    for (size_t i = 0; i < report->n_runs; i++)
        any = fill_line(p, report, i, time_units[unit].seconds, &numbers[i], &lines[i]) || any;
    if (!any) return;
    const pd_chart chart = {.title = p->title,
                            .x_label = p->over_time ? time_units[unit].name : "steps",
                            .width = widths[p->parts],
                            .height = p->parts == 1 ? 320 : 230,
                            .from_zero = p->from_zero,
                            .may_be_log = p->may_be_log,
                            .percent = p->percent,
                            .lines = lines,
                            .n_lines = report->n_runs};
    fprintf(out, "<figure class=\"w%d\"><figcaption>%s<small>%s</small></figcaption>\n", p->parts, p->title,
            p->about);
    pd_chart_write(out, &chart);
    fputs("</figure>\n", out);
}

static void put_missing_losses(FILE *out, const pd_report_run *run) {
    const long long n = (long long)run->log.n_steps;
    if (run->log.n_bad_losses > 0) {
        put_escaped(out, run->name);
        fprintf(out, ": the loss of %lld of %lld steps is not a number. ", (long long)run->log.n_bad_losses,
                n);
    }
    if (run->log.n_without_loss > 0) {
        put_escaped(out, run->name);
        fprintf(out, ": %lld of %lld steps had no labels, so no loss. ", (long long)run->log.n_without_loss,
                n);
    }
}

static void put_page(FILE *out, const pd_report *report, series *numbers) {
    int64_t stride = 1;
    for (size_t i = 0; i < report->n_runs; i++) {
        if (report->runs[i].log.stride > stride) stride = report->runs[i].log.stride;
    }
    fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>Training: ",
          out);
    for (size_t i = 0; i < report->n_runs; i++) {
        if (i) fputs(", ", out);
        put_escaped(out, report->runs[i].name);
    }
    fprintf(out, "</title>\n<style>\n%s", style_sheet);
    for (size_t i = 0; i < report->n_runs; i++) {
        fprintf(out, ".line.s%zu,.raw.s%zu{stroke:var(--c%zu)}.band.s%zu,svg text.s%zu{fill:var(--c%zu)}\n",
                i, i, i, i, i, i);
    }
    fputs("</style></head>\n<body><main><h1>Training</h1>", out);
    fprintf(out, "<p class=\"about\">pdrop %s</p>\n", pd_version());
    put_names(out, report);
    put_summary(out, report);
    fputs("<div class=\"grid\">\n", out);
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++)
        put_picture(out, report, &pictures[i], numbers);
    fprintf(out,
            "</div>\n<p class=\"note\">Bold lines are smoothed: a Gaussian of %.4g steps about every point, "
            "so the loss at the end is the mean of about the last %.4g steps. ",
            report->sigma, report->sigma);
    if (stride > 1) {
        fprintf(out, "Behind them the range from the lowest to the highest of every %lld steps. ",
                (long long)stride);
    } else {
        fputs("Faint behind them: every step. ", out);
    }
    for (size_t i = 0; i < report->n_runs; i++)
        put_missing_losses(out, &report->runs[i]);
    fputs("Time is the sum of the steps' times; saving checkpoints is not in it. Ratios are to the "
          "first run. A number at the right edge "
          "is its line's last.</p>\n</main></body></html>\n",
          out);
}

pd_status pd_report_write_page(const pd_report *report, const char *path, pd_error *err) {
    pd_file_writer writer;
    series *numbers = malloc(PD_MOST_RUNS * sizeof *numbers);
    if (!numbers) return pd_fail_memory(err, PD_MOST_RUNS * sizeof *numbers, path);
    pd_status status = pd_file_writer_open(path, &writer, err);
    if (status == PD_OK) {
        put_page(writer.stream, report, numbers);
        if (ferror(writer.stream)) {
            status = pd_fail(err, PD_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
            pd_file_writer_discard(&writer);
        } else {
            status = pd_file_writer_commit(&writer, err);
        }
    }
    free(numbers);
    return status;
}
