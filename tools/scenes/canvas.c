#include "canvas.h"

#include "draw.h"

#include <spng.h>
#include <stdlib.h>
#include <string.h>

pd_status pd_canvas_create(int size, const pd_artwork *artwork, pd_canvas **canvas, pd_error *err) {
    *canvas = NULL;
    const size_t bytes = (size_t)size * (size_t)size * 3;
    pd_canvas *c = calloc(1, sizeof *c);
    if (!c) return pd_fail_memory(err, sizeof *c, "a canvas");
    c->size = size;
    c->artwork = artwork;
    c->rgb = malloc(bytes);
    c->surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, size, size);
    c->cairo = cairo_create(c->surface);
    if (!c->rgb || cairo_status(c->cairo) != CAIRO_STATUS_SUCCESS) {
        pd_canvas_free(c);
        return pd_fail_memory(err, bytes, "a canvas");
    }
    const double scale = (double)size / PD_SCENE_SIDE;
    cairo_scale(c->cairo, scale, scale);
    *canvas = c;
    return PD_OK;
}

void pd_canvas_free(pd_canvas *canvas) {
    if (!canvas) return;
    cairo_destroy(canvas->cairo);
    cairo_surface_destroy(canvas->surface);
    free(canvas->rgb);
    free(canvas);
}

static void read_pixels(pd_canvas *canvas) {
    cairo_surface_flush(canvas->surface);
    const unsigned char *data = cairo_image_surface_get_data(canvas->surface);
    const int stride = cairo_image_surface_get_stride(canvas->surface);
    uint8_t *to = canvas->rgb;
    for (int y = 0; y < canvas->size; y++) {
        for (int x = 0; x < canvas->size; x++, to += 3) {
            uint32_t pixel;
            memcpy(&pixel, data + (ptrdiff_t)y * stride + (ptrdiff_t)x * 4, sizeof pixel);
            to[0] = (uint8_t)(pixel >> 16);
            to[1] = (uint8_t)(pixel >> 8);
            to[2] = (uint8_t)pixel;
        }
    }
}

static pd_status encode(const pd_canvas *canvas, uint8_t **png, size_t *size, pd_error *err) {
    enum { COMPRESSION = 3 }; // flat colours: row filters and higher levels take long and gain little
    spng_ctx *context = spng_ctx_new(SPNG_CTX_ENCODER);
    if (!context) return pd_fail_memory(err, (size_t)canvas->size, "a PNG encoder");
    struct spng_ihdr header = {.width = (uint32_t)canvas->size,
                               .height = (uint32_t)canvas->size,
                               .bit_depth = 8,
                               .color_type = SPNG_COLOR_TYPE_TRUECOLOR};
    int failed = spng_set_option(context, SPNG_ENCODE_TO_BUFFER, 1);
    if (!failed) failed = spng_set_option(context, SPNG_IMG_COMPRESSION_LEVEL, COMPRESSION);
    if (!failed) failed = spng_set_option(context, SPNG_FILTER_CHOICE, SPNG_DISABLE_FILTERING);
    if (!failed) failed = spng_set_ihdr(context, &header);
    const size_t bytes = (size_t)canvas->size * (size_t)canvas->size * 3;
    if (!failed) failed = spng_encode_image(context, canvas->rgb, bytes, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
    if (!failed) *png = spng_get_png_buffer(context, size, &failed);
    spng_ctx_free(context);
    if (failed) return pd_fail(err, PD_ERR_MEMORY, "cannot encode a PNG: %s", spng_strerror(failed));
    return PD_OK;
}

pd_status pd_canvas_render(pd_canvas *canvas, const pd_scene *scene, uint8_t **png, size_t *size,
                           pd_error *err) {
    *png = NULL;
    *size = 0;
    pd_draw_background(canvas, &scene->background);
    if (scene->kind == PD_SCENE_DOCUMENT) pd_draw_document(canvas, &scene->document);
    if (scene->kind == PD_SCENE_CHART) pd_draw_chart(canvas, &scene->chart);
    for (int i = 0; i < scene->n_items; i++) {
        switch (scene->items[i].kind) {
        case PD_ITEM_SHAPE:
            pd_draw_shape(canvas, &scene->items[i]);
            break;
        case PD_ITEM_EMOJI:
            pd_draw_emoji(canvas, &scene->items[i]);
            break;
        case PD_ITEM_SIGN:
            pd_draw_sign(canvas, &scene->items[i]);
            break;
        }
    }
    if (cairo_status(canvas->cairo) != CAIRO_STATUS_SUCCESS)
        return pd_fail(err, PD_ERR_MEMORY, "cannot draw: %s",
                       cairo_status_to_string(cairo_status(canvas->cairo)));
    read_pixels(canvas);
    return encode(canvas, png, size, err);
}
