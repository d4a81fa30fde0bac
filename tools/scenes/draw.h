// Inside the canvas: what its files share. Coordinates are a scene's units.
#pragma once

#include "artwork.h"

struct pd_canvas {
    int size; // pixels
    const pd_artwork *artwork;
    cairo_surface_t *surface;
    cairo_t *cairo;
    uint8_t *rgb; // [size * size * 3]
};

// Letters of one font, of this height.
typedef struct pd_type {
    int font;
    bool bold;
    double cap_height;
} pd_type;

void pd_draw_background(struct pd_canvas *canvas, const pd_background *background);
void pd_draw_shape(struct pd_canvas *canvas, const pd_item *item);
void pd_draw_emoji(struct pd_canvas *canvas, const pd_item *item);
void pd_draw_sign(struct pd_canvas *canvas, const pd_item *item);
void pd_draw_document(struct pd_canvas *canvas, const pd_document *document);
void pd_draw_chart(struct pd_canvas *canvas, const pd_chart *chart);

// Letters and digits, in capitals.
double pd_text_width(const struct pd_canvas *canvas, const char *text, pd_type type);
// From `left` on, in the colour that is set; `middle` is half way up the capitals.
void pd_text_draw(struct pd_canvas *canvas, const char *text, pd_type type, double left, double middle);
// Sets the colour, times `light` towards black.
void pd_set_color(struct pd_canvas *canvas, int color, double light);
void pd_rounded_rectangle(cairo_t *cairo, double x, double y, double width, double height, double radius);
