// A line chart as inline SVG: axes, grid, lines, bands. Colours come from the page's style sheet, by class.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct pd_chart_line {
    int style;                // class "s0", "s1", …: the colour
    size_t n;                 // points
    const double *x;          // ascending
    const double *y;          // NaN: the line is interrupted
    const double *low, *high; // a band behind the line; NULL: none
    const double *raw;        // a faint line behind it; NULL: none
} pd_chart_line;

typedef struct pd_chart {
    const char *title;   // for readers that see no picture
    const char *x_label; // "step", "minutes"
    int width, height;   // in the picture's own units, about pixels
    bool from_zero;      // the axis begins at 0
    bool may_be_log;     // logarithmic where values are positive and differ by more than a factor of 12
    double percent;      // 100: values are shares, labels per cent; else 1
    const pd_chart_line *lines;
    size_t n_lines;
} pd_chart;

// Few values that lie far off the others (a loss that spikes) do not stretch the axis: they leave the
// picture.
void pd_chart_write(FILE *out, const pd_chart *chart);

// A number as it stands at an axis: "0", "2e-05", "0.25", "340", "12.5k", "3M", "-" for none; buffer of at
// least 24 bytes, returned.
const char *pd_chart_number(char *buffer, size_t size, double x);
