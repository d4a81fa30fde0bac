// Backgrounds, shapes, signs, documents and charts, in cairo's paths.
#include "draw.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

static double lighter(double value, double light) {
    return light <= 1 ? value * light : value + (1 - value) * (light - 1);
}

void pd_set_color(struct pd_canvas *canvas, int color, double light) {
    const pd_color *c = &pd_colors[color];
    cairo_set_source_rgb(canvas->cairo, lighter(c->red, light), lighter(c->green, light),
                         lighter(c->blue, light));
}

void pd_rounded_rectangle(cairo_t *cairo, double x, double y, double width, double height, double radius) {
    cairo_new_sub_path(cairo);
    cairo_arc(cairo, x + width - radius, y + radius, radius, -pi / 2, 0);
    cairo_arc(cairo, x + width - radius, y + height - radius, radius, 0, pi / 2);
    cairo_arc(cairo, x + radius, y + height - radius, radius, pi / 2, pi);
    cairo_arc(cairo, x + radius, y + radius, radius, pi, 3 * pi / 2);
    cairo_close_path(cairo);
}

// ---- background -------------------------------------------------------------------------------------------

static const double tints[PD_N_TINTS][3] = {
    {1.00, 1.00, 1.00}, {0.98, 0.96, 0.90}, {0.93, 0.93, 0.94}, {0.89, 0.94, 0.99},
    {0.90, 0.97, 0.91}, {0.97, 0.91, 0.93}, {0.86, 0.87, 0.90}, {0.94, 0.91, 0.98},
};

enum { PLAIN, PLAIN_TOO, GRADIENT, STRIPES, DOTS, CHECKS };

static void draw_texture(cairo_t *cairo, const pd_background *background) {
    enum { REACH = PD_SCENE_SIDE };
    const double pitch = background->pitch;
    cairo_save(cairo);
    cairo_translate(cairo, PD_SCENE_SIDE / 2.0, PD_SCENE_SIDE / 2.0);
    cairo_rotate(cairo, background->angle);
    cairo_set_source_rgba(cairo, 0, 0, 0, 0.045);
    const int n = (int)(REACH / pitch) + 1;
    for (int row = -n; row <= n; row++) {
        const double y = row * pitch + background->phase;
        if (background->texture == STRIPES) {
            cairo_rectangle(cairo, -REACH, y, 2 * REACH, pitch / 2);
            continue;
        }
        for (int column = -n; column <= n; column++) {
            const double x = column * pitch;
            if (background->texture == DOTS) {
                cairo_new_sub_path(cairo);
                cairo_arc(cairo, x, y, pitch / 6, 0, 2 * pi);
            } else if ((row + column) % 2 == 0) {
                cairo_rectangle(cairo, x, y, pitch, pitch);
            }
        }
    }
    cairo_fill(cairo);
    cairo_restore(cairo);
}

void pd_draw_background(struct pd_canvas *canvas, const pd_background *background) {
    cairo_t *cairo = canvas->cairo;
    const double *tint = tints[background->tint];
    cairo_set_source_rgb(cairo, tint[0], tint[1], tint[2]);
    cairo_paint(cairo);
    if (background->texture == GRADIENT) {
        const double x = cos(background->angle) * PD_SCENE_SIDE / 2,
                     y = sin(background->angle) * PD_SCENE_SIDE / 2;
        const double middle = PD_SCENE_SIDE / 2.0;
        cairo_pattern_t *gradient =
            cairo_pattern_create_linear(middle - x, middle - y, middle + x, middle + y);
        cairo_pattern_add_color_stop_rgba(gradient, 0, 0, 0, 0, 0.10);
        cairo_pattern_add_color_stop_rgba(gradient, 1, 1, 1, 1, 0.25);
        cairo_set_source(cairo, gradient);
        cairo_paint(cairo);
        cairo_pattern_destroy(gradient);
    } else if (background->texture > GRADIENT) {
        draw_texture(cairo, background);
    }
}

// ---- shapes -----------------------------------------------------------------------------------------------

static void polygon(cairo_t *cairo, int n, double radius, double inner) {
    for (int i = 0; i < n; i++) {
        const double r = inner > 0 && i % 2 == 1 ? inner : radius;
        const double angle = -pi / 2 + 2 * pi * i / n;
        cairo_line_to(cairo, r * cos(angle), r * sin(angle));
    }
    cairo_close_path(cairo);
}

// The outline of a shape that fills the circle of radius 1 about the origin.
static void outline(cairo_t *cairo, pd_shape shape) {
    switch (shape) {
    case PD_CIRCLE:
        cairo_arc(cairo, 0, 0, 0.95, 0, 2 * pi);
        cairo_close_path(cairo);
        break;
    case PD_SQUARE:
        cairo_rectangle(cairo, -0.85, -0.85, 1.7, 1.7);
        break;
    case PD_TRIANGLE:
        cairo_translate(cairo, 0, 0.18);
        polygon(cairo, 3, 1.12, 0);
        break;
    case PD_STAR:
        cairo_translate(cairo, 0, 0.05);
        polygon(cairo, 10, 1.08, 0.47);
        break;
    case PD_HEART:
        cairo_move_to(cairo, 0, 0.95);
        cairo_curve_to(cairo, -0.55, 0.5, -1.05, 0.15, -1, -0.35);
        cairo_curve_to(cairo, -0.95, -0.95, -0.2, -1.05, 0, -0.45);
        cairo_curve_to(cairo, 0.2, -1.05, 0.95, -0.95, 1, -0.35);
        cairo_curve_to(cairo, 1.05, 0.15, 0.55, 0.5, 0, 0.95);
        cairo_close_path(cairo);
        break;
    case PD_CROSS:
        for (int i = 0; i < 4; i++) {
            cairo_line_to(cairo, -0.3, -0.95);
            cairo_line_to(cairo, 0.3, -0.95);
            cairo_line_to(cairo, 0.3, -0.3);
            cairo_rotate(cairo, pi / 2);
        }
        cairo_close_path(cairo);
        break;
    case PD_MOON: // what a circle leaves of another
        cairo_translate(cairo, 0.2, 0);
        cairo_arc(cairo, 0, 0, 1, 0.2436 * pi, 1.7564 * pi);
        cairo_arc_negative(cairo, 0.62, 0, 0.70, 1.5462 * pi, 0.4538 * pi);
        cairo_close_path(cairo);
        break;
    case PD_RING:
        cairo_arc(cairo, 0, 0, 0.97, 0, 2 * pi);
        cairo_close_path(cairo);
        cairo_new_sub_path(cairo);
        cairo_arc_negative(cairo, 0, 0, 0.5, 2 * pi, 0);
        cairo_close_path(cairo);
        break;
    }
}

void pd_draw_shape(struct pd_canvas *canvas, const pd_item *item) {
    cairo_t *cairo = canvas->cairo;
    const double radius = item->diameter / 2;
    cairo_save(cairo);
    cairo_translate(cairo, item->x, item->y);
    cairo_scale(cairo, radius, radius);
    cairo_rotate(cairo, item->turn);
    cairo_new_path(cairo);
    outline(cairo, (pd_shape)item->shape);
    pd_set_color(canvas, item->color, 1);
    cairo_fill_preserve(cairo);
    pd_set_color(canvas, item->color, 0.72);
    cairo_set_line_width(cairo, 1.6 / radius);
    cairo_set_line_join(cairo, CAIRO_LINE_JOIN_ROUND);
    cairo_stroke(cairo);
    cairo_restore(cairo);
}

// ---- signs ------------------------------------------------------------------------------------------------

static bool takes_dark_letters(int color) {
    return !pd_colors[color].dark;
}

void pd_draw_sign(struct pd_canvas *canvas, const pd_item *item) {
    cairo_t *cairo = canvas->cairo;
    double cap = item->cap_height;
    const double padding = cap * 0.8;
    double width = pd_text_set(canvas, item->text, item->font, item->bold, cap);
    if (width + 2 * padding > item->diameter) { // wide letters: smaller ones
        cap *= (item->diameter - 2 * padding) / width;
        width = pd_text_set(canvas, item->text, item->font, item->bold, cap);
    }
    double x = item->x;
    const double half = width / 2 + padding, margin = 3;
    if (x - half < margin) x = half + margin;
    if (x + half > PD_SCENE_SIDE - margin) x = PD_SCENE_SIDE - margin - half;
    cairo_save(cairo);
    cairo_translate(cairo, x, item->y);
    cairo_rotate(cairo, item->turn);
    if (item->board) {
        const double height = cap * 2.3;
        pd_rounded_rectangle(cairo, -half, -height / 2, 2 * half, height, item->round ? height * 0.3 : 2);
        pd_set_color(canvas, item->color, 1);
        cairo_fill(cairo);
        const bool dark = takes_dark_letters(item->color);
        const double ink = dark ? 0.08 : 1;
        cairo_set_source_rgb(cairo, ink, ink, ink);
        if (item->frame) {
            const double inset = 2.5;
            pd_rounded_rectangle(cairo, -half + inset, -height / 2 + inset, 2 * (half - inset),
                                 height - 2 * inset, item->round ? height * 0.24 : 1);
            cairo_set_line_width(cairo, 1.2);
            cairo_stroke(cairo);
        }
    } else {
        pd_set_color(canvas, item->color, 1);
    }
    pd_text_draw(canvas, -width / 2, 0, cap);
    cairo_restore(cairo);
}

// ---- documents --------------------------------------------------------------------------------------------

void pd_draw_document(struct pd_canvas *canvas, const pd_document *document) {
    static const char *const titles[] = {"receipt", "menu", "form", "ticket"};
    static const double papers[3][3] = {{1, 1, 1}, {1, 0.99, 0.94}, {0.96, 0.98, 1}};
    static const double margin = 10;
    cairo_t *cairo = canvas->cairo;
    const double pitch = document->pitch, cap = document->cap_height;
    const double height = pd_document_height(document);
    cairo_rectangle(cairo, document->left + 2, document->top + 3, document->width, height);
    cairo_set_source_rgba(cairo, 0, 0, 0, 0.18);
    cairo_fill(cairo);
    const double *paper = papers[document->paper];
    cairo_rectangle(cairo, document->left, document->top, document->width, height);
    cairo_set_source_rgb(cairo, paper[0], paper[1], paper[2]);
    cairo_fill_preserve(cairo);
    cairo_set_source_rgba(cairo, 0, 0, 0, 0.25);
    cairo_set_line_width(cairo, 1);
    cairo_stroke(cairo);

    const double left = document->left + margin, right = document->left + document->width - margin;
    double y = document->top + 10 + pitch / 2;
    cairo_set_source_rgb(cairo, 0.1, 0.1, 0.12);
    double width = pd_text_set(canvas, titles[document->kind], document->font, true, cap);
    pd_text_draw(canvas, (left + right - width) / 2, y, cap);
    for (int i = 0; i < document->n_lines; i++) {
        const pd_line *line = &document->lines[i];
        y += pitch;
        if (i == 0 || line->field == PD_FIELD_TOTAL) {
            if (i > 0) y += PD_RULE_SPACE;
            cairo_move_to(cairo, left, y - pitch / 2);
            cairo_line_to(cairo, right, y - pitch / 2);
            cairo_set_line_width(cairo, 1.2);
            cairo_stroke(cairo);
        }
        const bool bold = document->bold || line->field == PD_FIELD_TOTAL;
        pd_text_set(canvas, line->label, document->font, bold, cap);
        pd_text_draw(canvas, left, y + 2, cap);
        width = pd_text_set(canvas, line->value, document->font, bold, cap);
        pd_text_draw(canvas, right - width, y + 2, cap);
    }
}

// ---- charts -----------------------------------------------------------------------------------------------

enum { CHART_CAP = 14 };

static void draw_bar(struct pd_canvas *canvas, int color, double x, double y, double width, double height) {
    cairo_rectangle(canvas->cairo, x, y, width, height);
    pd_set_color(canvas, color, 1);
    cairo_fill_preserve(canvas->cairo);
    pd_set_color(canvas, color, 0.72);
    cairo_set_line_width(canvas->cairo, 1.2);
    cairo_stroke(canvas->cairo);
}

static void draw_panel(cairo_t *cairo) {
    pd_rounded_rectangle(cairo, 5, 5, PD_SCENE_SIDE - 10, PD_SCENE_SIDE - 10, 5);
    cairo_set_source_rgb(cairo, 1, 1, 1);
    cairo_fill_preserve(cairo);
    cairo_set_source_rgba(cairo, 0, 0, 0, 0.2);
    cairo_set_line_width(cairo, 1);
    cairo_stroke(cairo);
}

static void draw_axis(cairo_t *cairo, double x0, double y0, double x1, double y1) {
    cairo_move_to(cairo, x0, y0);
    cairo_line_to(cairo, x1, y1);
    cairo_set_source_rgb(cairo, 0.25, 0.25, 0.28);
    cairo_set_line_width(cairo, 1.6);
    cairo_stroke(cairo);
}

static void draw_standing(struct pd_canvas *canvas, const pd_chart *chart) {
    const double left = 14, right = PD_SCENE_SIDE - 14, top = 36;
    const double bottom = chart->names == PD_BARS_BY_LETTER ? 190 : 208;
    const double step = (right - left) / chart->n_bars;
    const double bar = step * 0.72 < 40 ? step * 0.72 : 40;
    char digits[PD_MAX_TEXT];
    for (int i = 0; i < chart->n_bars; i++) {
        const double middle = left + (i + 0.5) * step;
        const double height = (bottom - top) * chart->value[i] / 99;
        draw_bar(canvas, chart->color[i], middle - bar / 2, bottom - height, bar, height);
        cairo_set_source_rgb(canvas->cairo, 0.1, 0.1, 0.12);
        snprintf(digits, sizeof digits, "%d", chart->value[i]);
        double width = pd_text_set(canvas, digits, chart->font, true, CHART_CAP);
        pd_text_draw(canvas, middle - width / 2, bottom - height - CHART_CAP * 0.5 - 5, CHART_CAP);
        if (chart->names == PD_BARS_BY_LETTER) {
            width = pd_text_set(canvas, chart->label[i], chart->font, true, CHART_CAP);
            pd_text_draw(canvas, middle - width / 2, bottom + CHART_CAP * 0.5 + 7, CHART_CAP);
        }
    }
    draw_axis(canvas->cairo, left - 2, bottom, right + 2, bottom);
}

static void draw_lying(struct pd_canvas *canvas, const pd_chart *chart) {
    const double top = 12, bottom = PD_SCENE_SIDE - 12;
    const double step = (bottom - top) / chart->n_bars;
    const double bar = step * 0.66 < 34 ? step * 0.66 : 34;
    double label_width = 0;
    for (int i = 0; i < chart->n_bars; i++) {
        const double width = pd_text_set(canvas, chart->label[i], chart->font, true, CHART_CAP);
        if (width > label_width) label_width = width;
    }
    char digits[PD_MAX_TEXT];
    const double left = 12 + label_width + 6, right = PD_SCENE_SIDE - 12 - 32;
    for (int i = 0; i < chart->n_bars; i++) {
        const double middle = top + (i + 0.5) * step;
        const double length = (right - left) * chart->value[i] / 99;
        draw_bar(canvas, chart->color[i], left, middle - bar / 2, length, bar);
        cairo_set_source_rgb(canvas->cairo, 0.1, 0.1, 0.12);
        snprintf(digits, sizeof digits, "%d", chart->value[i]);
        pd_text_set(canvas, digits, chart->font, true, CHART_CAP);
        pd_text_draw(canvas, left + length + 4, middle, CHART_CAP);
        const double width = pd_text_set(canvas, chart->label[i], chart->font, true, CHART_CAP);
        pd_text_draw(canvas, left - 6 - width, middle, CHART_CAP);
    }
    draw_axis(canvas->cairo, left, top, left, bottom);
}

void pd_draw_chart(struct pd_canvas *canvas, const pd_chart *chart) {
    draw_panel(canvas->cairo);
    if (chart->names == PD_BARS_BY_WORD) {
        draw_lying(canvas, chart);
    } else {
        draw_standing(canvas, chart);
    }
}
