#include "cli/chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEFT = 52, RIGHT = 56, TOP = 10, BOTTOM = 36, MOST_TICKS = 16, LABEL_HEIGHT = 13 };

typedef struct {
    double low, high; // of the data's own numbers
    bool logarithmic;
    double ticks[MOST_TICKS];
    int n_ticks;
} axis;

// ---- numbers ----------------------------------------------------------------------------------------------

const char *pd_chart_number(char *buffer, size_t size, double x) {
    static const struct {
        double unit;
        const char *name;
    } units[] = {{1e9, "G"}, {1e6, "M"}, {1e4, "k"}};
    const double magnitude = fabs(x);
    if (!isfinite(x)) {
        snprintf(buffer, size, "-");
        return buffer;
    }
    if (magnitude > 0 && (magnitude < 1e-3 || magnitude >= 1e13)) {
        snprintf(buffer, size, "%.2g", x);
        return buffer;
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (magnitude < units[i].unit) continue;
        const double unit = units[i].unit == 1e4 ? 1e3 : units[i].unit;
        snprintf(buffer, size, "%.3g%s", x / unit, units[i].name);
        return buffer;
    }
    snprintf(buffer, size, magnitude >= 100 ? "%.0f" : "%.3g", x);
    return buffer;
}

// ---- axes -------------------------------------------------------------------------------------------------

// Round numbers, at most `most` of them, that lie on the axis.
static void choose_ticks(axis *a, int most) {
    a->n_ticks = 0;
    if (a->logarithmic) {
        const int first = (int)floor(log10(a->low)), last = (int)ceil(log10(a->high));
        static const double steps[] = {1, 2, 5};
        // few decades: 1, 2, 5 in each; many: every so many decades
        const int per_decade = a->high <= 300 * a->low ? 3 : 1, stride = (last - first) / most + 1;
        for (int decade = first; decade <= last; decade += stride) {
            for (int i = 0; i < per_decade && a->n_ticks < MOST_TICKS; i++) {
                const double tick = steps[i] * pow(10, decade);
                if (tick >= a->low * 0.9999 && tick <= a->high * 1.0001) a->ticks[a->n_ticks++] = tick;
            }
        }
        return;
    }
    const double rough = (a->high - a->low) / most, power = pow(10, floor(log10(rough)));
    const double step = power * (rough <= power ? 1 : rough <= 2 * power ? 2 : rough <= 5 * power ? 5 : 10);
    const double first = ceil(a->low / step - 1e-9);
    while (a->n_ticks < MOST_TICKS) {
        const double tick = (first + a->n_ticks) * step + 0.0; // no -0
        if (tick > a->high + 1e-9 * step) break;
        a->ticks[a->n_ticks++] = tick;
    }
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Takes all of the finite values into `low` and `high`, but for those beyond the share `spared` at each end.
static void stretch(axis *a, const double *values, size_t n, double spared) {
    double *sorted = malloc((n ? n : 1) * sizeof *sorted);
    size_t kept = 0;
    for (size_t i = 0; sorted && values && i < n; i++) {
        if (isfinite(values[i])) sorted[kept++] = values[i];
    }
    if (kept > 0) {
        qsort(sorted, kept, sizeof *sorted, compare);
        const size_t skipped = (size_t)(spared * (double)kept);
        a->low = fmin(a->low, sorted[skipped]);
        a->high = fmax(a->high, sorted[kept - 1 - skipped]);
    }
    free(sorted);
}

static axis y_axis(const pd_chart *chart) {
    axis a = {.low = INFINITY, .high = -INFINITY};
    for (size_t i = 0; i < chart->n_lines; i++) {
        const pd_chart_line *line = &chart->lines[i];
        stretch(&a, line->y, line->n, 0.005);
        stretch(&a, line->raw, line->n, 0.01);
        stretch(&a, line->low, line->low ? line->n : 0, 0.02);
        stretch(&a, line->high, line->high ? line->n : 0, 0.02);
    }
    if (!(a.low <= a.high)) a.low = a.high = 0;
    a.logarithmic = chart->may_be_log && a.low > 0 && a.high > 12 * a.low;
    if (a.logarithmic) {
        a.low /= 1.1;
        a.high *= 1.1;
    } else {
        if (chart->from_zero) a.low = fmin(a.low, 0);
        const double room = a.high > a.low ? 0.06 * (a.high - a.low) : a.high != 0 ? fabs(a.high) * 0.5 : 1;
        a.high += room;
        if (!chart->from_zero || a.low < 0) a.low -= room;
    }
    choose_ticks(&a, chart->height / 48);
    return a;
}

static axis x_axis(const pd_chart *chart) {
    axis a = {.low = INFINITY, .high = -INFINITY};
    for (size_t i = 0; i < chart->n_lines; i++)
        stretch(&a, chart->lines[i].x, chart->lines[i].n, 0);
    if (!(a.low <= a.high)) a.low = a.high = 0;
    if (a.low > 0 && a.low < 0.1 * a.high) a.low = 0;
    if (a.high == a.low) a.high = a.low + 1;
    choose_ticks(&a, chart->width / 75);
    return a;
}

// Where a value lies between the axis's ends: 0 … 1, beyond them less or more.
static double place(const axis *a, double value) {
    if (!a->logarithmic) return (value - a->low) / (a->high - a->low);
    return value > 0 ? log(value / a->low) / log(a->high / a->low) : -1;
}

// ---- drawing ----------------------------------------------------------------------------------------------

typedef struct {
    FILE *out;
    const pd_chart *chart;
    axis x, y;
} drawing;

static double x_of(const drawing *d, double x) {
    return LEFT + place(&d->x, x) * (d->chart->width - LEFT - RIGHT);
}

// Values far off end a little outside of the picture, which is clipped.
static double y_of(const drawing *d, double y) {
    const double at = fmax(-0.2, fmin(1.2, place(&d->y, y)));
    return TOP + (1 - at) * (d->chart->height - TOP - BOTTOM);
}

static void draw_axes(const drawing *d) {
    char text[24];
    const int right = d->chart->width - RIGHT, bottom = d->chart->height - BOTTOM;
    fprintf(d->out, "<g class=\"axis\">");
    for (int i = 0; i < d->y.n_ticks; i++) {
        const double y = y_of(d, d->y.ticks[i]);
        pd_chart_number(text, sizeof text, d->y.ticks[i] * d->chart->percent);
        fprintf(d->out, "<path d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s%s</text>",
                LEFT, y, right, LEFT - 8, y + 4, text, d->chart->percent > 1 ? " %" : "");
    }
    for (int i = 0; i < d->x.n_ticks; i++) {
        const double x = x_of(d, d->x.ticks[i]);
        pd_chart_number(text, sizeof text, d->x.ticks[i]);
        fprintf(d->out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>", x, bottom + 17, text);
    }
    fprintf(d->out, "<path class=\"base\" d=\"M%d %dH%d\"/>", LEFT, bottom, right);
    fprintf(d->out, "<text class=\"label\" x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text></g>\n", right,
            bottom + 32, d->chart->x_label);
}

static void draw_line(const drawing *d, const pd_chart_line *line, const double *y, const char *kind) {
    fprintf(d->out, "<path class=\"%s s%d\" d=\"", kind, line->style);
    bool drawing_on = false;
    for (size_t i = 0; i < line->n; i++) {
        if (!isfinite(y[i])) {
            drawing_on = false;
            continue;
        }
        // a lone point between gaps is a dot: a line of no length with round ends
        const bool alone = !drawing_on && (i + 1 == line->n || !isfinite(y[i + 1]));
        fprintf(d->out, "%c%.1f %.1f%s", drawing_on ? 'L' : 'M', x_of(d, line->x[i]), y_of(d, y[i]),
                alone ? "h0" : "");
        drawing_on = true;
    }
    fputs("\"/>\n", d->out);
}

// The area between low and high; gaps in it are few, and the band goes straight across them.
static void draw_band(const drawing *d, const pd_chart_line *line) {
    fprintf(d->out, "<path class=\"band s%d\" d=\"", line->style);
    char command = 'M';
    for (size_t i = 0; i < line->n; i++) {
        if (!isfinite(line->low[i])) continue;
        fprintf(d->out, "%c%.1f %.1f", command, x_of(d, line->x[i]), y_of(d, line->low[i]));
        command = 'L';
    }
    for (size_t i = line->n; i-- > 0;) {
        if (!isfinite(line->high[i])) continue;
        fprintf(d->out, "%c%.1f %.1f", command, x_of(d, line->x[i]), y_of(d, line->high[i]));
        command = 'L';
    }
    fputs("\"/>\n", d->out);
}

// ---- the values at the right end --------------------------------------------------------------------------

typedef struct {
    double y, value;
    int style;
} end_label;

static int compare_labels(const void *a, const void *b) {
    return compare(&((const end_label *)a)->y, &((const end_label *)b)->y);
}

// The last value of every line beside its end, pushed apart where they would lie on each other.
static void draw_last_values(const drawing *d) {
    if (d->chart->n_lines == 0) return;
    end_label *labels = calloc(d->chart->n_lines, sizeof *labels);
    size_t n = 0;
    for (size_t i = 0; labels && i < d->chart->n_lines; i++) {
        const pd_chart_line *line = &d->chart->lines[i];
        size_t last = line->n;
        while (last > 0 && !isfinite(line->y[last - 1]))
            last--;
        if (last == 0) continue;
        const double y = fmax(TOP, fmin(d->chart->height - BOTTOM, y_of(d, line->y[last - 1])));
        labels[n++] = (end_label){y, line->y[last - 1], line->style};
    }
    if (n > 0) qsort(labels, n, sizeof *labels, compare_labels);
    for (size_t i = 1; i < n; i++)
        labels[i].y = fmax(labels[i].y, labels[i - 1].y + LABEL_HEIGHT);
    const double bottom = d->chart->height - BOTTOM;
    for (size_t i = n; i-- > 0;)
        labels[i].y = fmin(labels[i].y, bottom - LABEL_HEIGHT * (double)(n - 1 - i));
    for (size_t i = 0; i < n; i++) {
        char text[24];
        fprintf(d->out, "<text class=\"end s%d\" x=\"%d\" y=\"%.1f\">%s%s</text>", labels[i].style,
                d->chart->width - RIGHT + 5, labels[i].y + 4,
                pd_chart_number(text, sizeof text, labels[i].value * d->chart->percent),
                d->chart->percent > 1 ? " %" : "");
    }
    fputc('\n', d->out);
    free(labels);
}

void pd_chart_write(FILE *out, const pd_chart *chart) {
    const drawing d = {out, chart, x_axis(chart), y_axis(chart)};
    // a view of its own clips what leaves the axes
    const int width = chart->width - LEFT - RIGHT, height = chart->height - TOP - BOTTOM;
    fprintf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n", chart->width, chart->height,
            chart->title);
    draw_axes(&d);
    fprintf(out, "<svg x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" viewBox=\"%d %d %d %d\">\n", LEFT,
            TOP - 3, width + 3, height + 6, LEFT, TOP - 3, width + 3, height + 6);
    for (size_t i = 0; i < chart->n_lines; i++) {
        const pd_chart_line *line = &chart->lines[i];
        if (line->low && line->high) draw_band(&d, line);
        if (line->raw) draw_line(&d, line, line->raw, "raw");
    }
    for (size_t i = 0; i < chart->n_lines; i++)
        draw_line(&d, &chart->lines[i], chart->lines[i].y, "line");
    fputs("</svg>\n", out);
    draw_last_values(&d);
    fputs("</svg>\n", out);
}
