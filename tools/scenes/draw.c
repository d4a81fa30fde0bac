// Backgrounds, shapes, emoji, and what all drawings share.
#include "draw.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

void pd_set_color(struct pd_canvas *canvas, int color, double light) {
    const pd_color *c = &pd_colors[color];
    cairo_set_source_rgb(canvas->cairo, c->red * light, c->green * light, c->blue * light);
}

void pd_rounded_rectangle(cairo_t *cairo, double x, double y, double width, double height, double radius) {
    cairo_new_sub_path(cairo);
    cairo_arc(cairo, x + width - radius, y + radius, radius, -pi / 2, 0);
    cairo_arc(cairo, x + width - radius, y + height - radius, radius, 0, pi / 2);
    cairo_arc(cairo, x + radius, y + height - radius, radius, pi / 2, pi);
    cairo_arc(cairo, x + radius, y + radius, radius, pi, 3 * pi / 2);
    cairo_close_path(cairo);
}

// ---- text -------------------------------------------------------------------------------------------------

double pd_text_width(const struct pd_canvas *canvas, const char *text, pd_type type) {
    double width = 0;
    for (; *text; text++) {
        const pd_letter *letter = pd_artwork_letter(canvas->artwork, type.font, type.bold, *text);
        if (letter) width += letter->advance * type.cap_height;
    }
    return width;
}

void pd_text_draw(struct pd_canvas *canvas, const char *text, pd_type type, double left, double middle) {
    cairo_t *cairo = canvas->cairo;
    cairo_save(cairo);
    cairo_translate(cairo, left, middle + type.cap_height / 2);
    cairo_scale(cairo, type.cap_height, type.cap_height);
    cairo_new_path(cairo);
    for (; *text; text++) {
        const pd_letter *letter = pd_artwork_letter(canvas->artwork, type.font, type.bold, *text);
        if (!letter) continue;
        cairo_append_path(cairo, letter->path);
        cairo_translate(cairo, letter->advance, 0);
    }
    cairo_fill(cairo);
    cairo_restore(cairo);
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

// ---- emoji ------------------------------------------------------------------------------------------------

void pd_draw_emoji(struct pd_canvas *canvas, const pd_item *item) {
    const double *box = canvas->artwork->emoji_box[item->emoji];
    const double scale = item->diameter / (box[2] > box[3] ? box[2] : box[3]);
    // Only read, whatever the type says; a surface of its own, for surfaces are not for several threads.
    cairo_surface_t *picture =
        cairo_image_surface_create_for_data(canvas->artwork->emoji[item->emoji], CAIRO_FORMAT_ARGB32,
                                            PD_EMOJI_SIDE, PD_EMOJI_SIDE, PD_EMOJI_SIDE * 4);
    cairo_t *cairo = canvas->cairo;
    cairo_save(cairo);
    cairo_translate(cairo, item->x, item->y);
    cairo_rotate(cairo, item->turn);
    cairo_scale(cairo, scale, scale);
    cairo_set_source_surface(cairo, picture, -box[0] - box[2] / 2, -box[1] - box[3] / 2);
    cairo_pattern_set_filter(cairo_get_source(cairo), CAIRO_FILTER_GOOD);
    cairo_paint(cairo);
    cairo_restore(cairo);
    cairo_surface_destroy(picture);
}
