// Inside the canvas: what its files share. Coordinates are a scene's units.
#pragma once

#include "scene.h"

#include <pango/pangocairo.h>

struct pd_canvas {
    int size; // pixels
    cairo_surface_t *surface;
    cairo_t *cairo;
    PangoLayout *layout;
    double em_per_cap[PD_N_FONTS][2];   // font size over the height of its capitals; [1]: bold
    cairo_surface_t *emoji[PD_N_EMOJI]; // at the font's own size
    double emoji_box[PD_N_EMOJI][4];    // its ink: x, y, width, height
    uint8_t *rgb;                       // [size * size * 3]
};

void pd_draw_background(struct pd_canvas *canvas, const pd_background *background);
void pd_draw_shape(struct pd_canvas *canvas, const pd_item *item);
void pd_draw_sign(struct pd_canvas *canvas, const pd_item *item);
void pd_draw_document(struct pd_canvas *canvas, const pd_document *document);
void pd_draw_chart(struct pd_canvas *canvas, const pd_chart *chart);

// Sets the text, in capitals, and returns its width when its capitals are this high.
double pd_text_set(struct pd_canvas *canvas, const char *text, int font, bool bold, double cap_height);
// Draws the text that was set: its left end, and the middle of its capitals' height.
void pd_text_draw(struct pd_canvas *canvas, double left, double middle, double cap_height);
// Sets the colour, times `light` towards black (< 1) or white (> 1).
void pd_set_color(struct pd_canvas *canvas, int color, double light);
void pd_rounded_rectangle(cairo_t *cairo, double x, double y, double width, double height, double radius);
