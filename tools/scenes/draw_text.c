// Signs, documents and charts.
#include "draw.h"

#include <stdio.h>

// ---- signs ------------------------------------------------------------------------------------------------

static bool takes_dark_letters(int color) {
    return !pd_colors[color].dark;
}

void pd_draw_sign(struct pd_canvas *canvas, const pd_item *item) {
    cairo_t *cairo = canvas->cairo;
    pd_type type = {item->font, item->bold, item->cap_height};
    const double padding = type.cap_height * item->margin;
    double width = pd_text_width(canvas, item->text, type);
    if (width + 2 * padding > item->diameter) { // wide letters: smaller ones
        type.cap_height *= (item->diameter - 2 * padding) / width;
        width = pd_text_width(canvas, item->text, type);
    }
    double x = item->x;
    const double half = width / 2 + padding, margin = 3;
    if (x - half < margin) x = half + margin;
    if (x + half > PD_SCENE_SIDE - margin) x = PD_SCENE_SIDE - margin - half;
    cairo_save(cairo);
    cairo_translate(cairo, x, item->y);
    cairo_rotate(cairo, item->turn);
    if (item->board) {
        const double height = type.cap_height * 2.3;
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
    pd_text_draw(canvas, item->text, type, -width / 2, 0);
    cairo_restore(cairo);
}

// ---- documents --------------------------------------------------------------------------------------------

void pd_draw_document(struct pd_canvas *canvas, const pd_document *document) {
    static const char *const titles[] = {"receipt", "menu", "form", "ticket"};
    static const double papers[3][3] = {{1, 1, 1}, {1, 0.99, 0.94}, {0.96, 0.98, 1}};
    static const double margin = 10;
    cairo_t *cairo = canvas->cairo;
    const double pitch = document->pitch;
    pd_type type = {document->font, true, document->cap_height};
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
    const char *title = titles[document->kind];
    pd_text_draw(canvas, title, type, (left + right - pd_text_width(canvas, title, type)) / 2, y);
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
        type.bold = document->bold || line->field == PD_FIELD_TOTAL;
        pd_text_draw(canvas, line->label, type, left, y + 2);
        pd_text_draw(canvas, line->value, type, right - pd_text_width(canvas, line->value, type), y + 2);
    }
}

// ---- charts -----------------------------------------------------------------------------------------------

static const double chart_cap_height = 14;

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
    const pd_type type = {chart->font, true, chart_cap_height};
    char digits[PD_MAX_TEXT];
    for (int i = 0; i < chart->n_bars; i++) {
        const double middle = left + (i + 0.5) * step;
        const double height = (bottom - top) * chart->value[i] / 99;
        draw_bar(canvas, chart->color[i], middle - bar / 2, bottom - height, bar, height);
        cairo_set_source_rgb(canvas->cairo, 0.1, 0.1, 0.12);
        snprintf(digits, sizeof digits, "%d", chart->value[i]);
        pd_text_draw(canvas, digits, type, middle - pd_text_width(canvas, digits, type) / 2,
                     bottom - height - chart_cap_height / 2 - 5);
        if (chart->names == PD_BARS_BY_LETTER) {
            const char *label = chart->label[i];
            pd_text_draw(canvas, label, type, middle - pd_text_width(canvas, label, type) / 2,
                         bottom + chart_cap_height / 2 + 7);
        }
    }
    draw_axis(canvas->cairo, left - 2, bottom, right + 2, bottom);
}

static void draw_lying(struct pd_canvas *canvas, const pd_chart *chart) {
    const double top = 12, bottom = PD_SCENE_SIDE - 12;
    const double step = (bottom - top) / chart->n_bars;
    const double bar = step * 0.66 < 34 ? step * 0.66 : 34;
    const pd_type type = {chart->font, true, chart_cap_height};
    double label_width = 0;
    for (int i = 0; i < chart->n_bars; i++) {
        const double width = pd_text_width(canvas, chart->label[i], type);
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
        pd_text_draw(canvas, digits, type, left + length + 4, middle);
        pd_text_draw(canvas, chart->label[i], type, left - 6 - pd_text_width(canvas, chart->label[i], type),
                     middle);
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
