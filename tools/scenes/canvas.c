#include "canvas.h"

#include "draw.h"

#include <ctype.h>
#include <math.h>
#include <spng.h>
#include <stdlib.h>
#include <string.h>

enum { EMOJI_SIDE = 160, EMOJI_FONT_SIZE = 109 }; // the strike of Noto Color Emoji

// ---- text -------------------------------------------------------------------------------------------------

static void set_font(PangoLayout *layout, const char *family, bool bold, double size) {
    PangoFontDescription *font = pango_font_description_new();
    pango_font_description_set_family_static(font, family);
    pango_font_description_set_weight(font, bold ? PANGO_WEIGHT_BOLD : PANGO_WEIGHT_NORMAL);
    pango_font_description_set_absolute_size(font, size * PANGO_SCALE);
    pango_layout_set_font_description(layout, font);
    pango_font_description_free(font);
}

double pd_text_set(struct pd_canvas *canvas, const char *text, int font, bool bold, double cap_height) {
    char capitals[32];
    size_t n = 0;
    for (; text[n] && n < sizeof capitals - 1; n++)
        capitals[n] = (char)toupper((unsigned char)text[n]);
    capitals[n] = '\0';
    set_font(canvas->layout, pd_fonts[font].family, bold, cap_height * canvas->em_per_cap[font][bold]);
    pango_layout_set_text(canvas->layout, capitals, (int)n);
    int width, height;
    pango_layout_get_size(canvas->layout, &width, &height);
    return (double)width / PANGO_SCALE;
}

void pd_text_draw(struct pd_canvas *canvas, double left, double middle, double cap_height) {
    const double baseline = (double)pango_layout_get_baseline(canvas->layout) / PANGO_SCALE;
    cairo_move_to(canvas->cairo, left, middle + cap_height / 2 - baseline);
    pango_cairo_show_layout(canvas->cairo, canvas->layout);
}

static void measure_font(pd_canvas *canvas, int font, bool bold) {
    enum { SIZE = 200 };
    set_font(canvas->layout, pd_fonts[font].family, bold, SIZE);
    pango_layout_set_text(canvas->layout, "H", 1);
    PangoRectangle ink;
    pango_layout_get_extents(canvas->layout, &ink, NULL);
    canvas->em_per_cap[font][bold] = ink.height > 0 ? (double)SIZE * PANGO_SCALE / ink.height : 1.4;
}

static bool has_family(PangoFontFamily **families, int n, const char *name) {
    for (int i = 0; i < n; i++) {
        if (g_ascii_strcasecmp(pango_font_family_get_name(families[i]), name) == 0) return true;
    }
    return false;
}

static pd_status check_fonts(pd_canvas *canvas, pd_error *err) {
    PangoFontFamily **families;
    int n;
    pango_context_list_families(pango_layout_get_context(canvas->layout), &families, &n);
    const pd_font *missing = has_family(families, n, pd_emoji_font.family) ? NULL : &pd_emoji_font;
    for (int i = 0; i < PD_N_FONTS && !missing; i++) {
        if (!has_family(families, n, pd_fonts[i].family)) missing = &pd_fonts[i];
    }
    g_free(families);
    if (!missing) return PD_OK;
    return pd_fail(err, PD_ERR_UNSUPPORTED, "font \"%s\" is not installed (Debian: %s; or: make tools)",
                   missing->family, missing->package);
}

// ---- emoji ------------------------------------------------------------------------------------------------

// The box of all pixels that are not transparent.
static void find_ink(cairo_surface_t *surface, double box[4]) {
    cairo_surface_flush(surface);
    const unsigned char *data = cairo_image_surface_get_data(surface);
    const int stride = cairo_image_surface_get_stride(surface);
    int left = EMOJI_SIDE, top = EMOJI_SIDE, right = -1, bottom = -1;
    for (int y = 0; y < EMOJI_SIDE; y++) {
        for (int x = 0; x < EMOJI_SIDE; x++) {
            uint32_t pixel;
            memcpy(&pixel, data + (ptrdiff_t)y * stride + (ptrdiff_t)x * 4, sizeof pixel);
            if (pixel >> 24 < 16) continue;
            if (x < left) left = x;
            if (x > right) right = x;
            if (y < top) top = y;
            if (y > bottom) bottom = y;
        }
    }
    box[0] = left;
    box[1] = top;
    box[2] = right - left + 1;
    box[3] = bottom - top + 1;
}

static pd_status draw_emoji_once(pd_canvas *canvas, int emoji, pd_error *err) {
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_ARGB32, EMOJI_SIDE, EMOJI_SIDE);
    canvas->emoji[emoji] = surface;
    cairo_t *cairo = cairo_create(surface);
    PangoLayout *layout = pango_cairo_create_layout(cairo);
    set_font(layout, pd_emoji_font.family, false, EMOJI_FONT_SIZE);
    pango_layout_set_text(layout, pd_emoji_list[emoji].text, -1);
    cairo_move_to(cairo, 8, 8);
    pango_cairo_show_layout(cairo, layout);
    const bool unknown = pango_layout_get_unknown_glyphs_count(layout) > 0;
    g_object_unref(layout);
    const bool failed = cairo_status(cairo) != CAIRO_STATUS_SUCCESS;
    cairo_destroy(cairo);
    if (failed) return pd_fail_memory(err, (size_t)EMOJI_SIDE * EMOJI_SIDE * 4, "an emoji");
    find_ink(surface, canvas->emoji_box[emoji]);
    if (unknown || canvas->emoji_box[emoji][2] <= 0)
        return pd_fail(err, PD_ERR_UNSUPPORTED, "font \"%s\" has no picture of \"%s\"", pd_emoji_font.family,
                       pd_emoji_list[emoji].one);
    return PD_OK;
}

static void draw_emoji(pd_canvas *canvas, const pd_item *item) {
    const double *box = canvas->emoji_box[item->emoji];
    const double scale = item->diameter / (box[2] > box[3] ? box[2] : box[3]);
    cairo_t *cairo = canvas->cairo;
    cairo_save(cairo);
    cairo_translate(cairo, item->x, item->y);
    cairo_rotate(cairo, item->turn);
    cairo_scale(cairo, scale, scale);
    cairo_set_source_surface(cairo, canvas->emoji[item->emoji], -box[0] - box[2] / 2, -box[1] - box[3] / 2);
    cairo_pattern_set_filter(cairo_get_source(cairo), CAIRO_FILTER_GOOD);
    cairo_paint(cairo);
    cairo_restore(cairo);
}

// ---- the canvas -------------------------------------------------------------------------------------------

pd_status pd_canvas_create(int size, pd_canvas **canvas, pd_error *err) {
    *canvas = NULL;
    const size_t bytes = (size_t)size * (size_t)size * 3;
    pd_canvas *c = calloc(1, sizeof *c);
    if (!c) return pd_fail_memory(err, sizeof *c, "a canvas");
    c->size = size;
    c->rgb = malloc(bytes);
    c->surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, size, size);
    c->cairo = cairo_create(c->surface);
    if (!c->rgb || cairo_status(c->cairo) != CAIRO_STATUS_SUCCESS) {
        pd_canvas_free(c);
        return pd_fail_memory(err, bytes, "a canvas");
    }
    // The same letters at every place and size: nothing is fitted to the pixel grid.
    c->layout = pango_cairo_create_layout(c->cairo);
    cairo_font_options_t *options = cairo_font_options_create();
    cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
    cairo_font_options_set_hint_style(options, CAIRO_HINT_STYLE_NONE);
    cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);
    pango_cairo_context_set_font_options(pango_layout_get_context(c->layout), options);
    pango_cairo_context_set_resolution(pango_layout_get_context(c->layout), 96);
    cairo_font_options_destroy(options);
    const double scale = (double)size / PD_SCENE_SIDE;
    cairo_scale(c->cairo, scale, scale);
    pango_cairo_update_layout(c->cairo, c->layout);
    pd_status status = check_fonts(c, err);
    for (int font = 0; status == PD_OK && font < PD_N_FONTS; font++) {
        measure_font(c, font, false);
        measure_font(c, font, true);
    }
    for (int emoji = 0; status == PD_OK && emoji < PD_N_EMOJI; emoji++)
        status = draw_emoji_once(c, emoji, err);
    if (status != PD_OK) {
        pd_canvas_free(c);
        return status;
    }
    *canvas = c;
    return PD_OK;
}

void pd_canvas_free(pd_canvas *canvas) {
    if (!canvas) return;
    if (canvas->layout) g_object_unref(canvas->layout);
    for (int i = 0; i < PD_N_EMOJI; i++) {
        if (canvas->emoji[i]) cairo_surface_destroy(canvas->emoji[i]);
    }
    if (canvas->cairo) cairo_destroy(canvas->cairo);
    if (canvas->surface) cairo_surface_destroy(canvas->surface);
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
            draw_emoji(canvas, &scene->items[i]);
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
