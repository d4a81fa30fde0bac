#include "artwork.h"

#include <pango/pangocairo.h>
#include <stdlib.h>
#include <string.h>

enum { FONT_SIZE = 256, EMOJI_FONT_SIZE = 109 }; // outlines scale; emoji are pictures of this size

static void set_font(PangoLayout *layout, const char *family, bool bold, double size) {
    PangoFontDescription *font = pango_font_description_new();
    pango_font_description_set_family_static(font, family);
    pango_font_description_set_weight(font, bold ? PANGO_WEIGHT_BOLD : PANGO_WEIGHT_NORMAL);
    pango_font_description_set_absolute_size(font, size * PANGO_SCALE);
    pango_layout_set_font_description(layout, font);
    pango_font_description_free(font);
}

// The same letters at every place and size: nothing is fitted to the pixel grid.
static PangoLayout *new_layout(PangoFontMap *fonts) {
    PangoContext *context = pango_font_map_create_context(fonts);
    cairo_font_options_t *options = cairo_font_options_create();
    cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
    cairo_font_options_set_hint_style(options, CAIRO_HINT_STYLE_NONE);
    cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);
    pango_cairo_context_set_font_options(context, options);
    cairo_font_options_destroy(options);
    PangoLayout *layout = pango_layout_new(context);
    g_object_unref(context);
    return layout;
}

static bool has_family(PangoFontFamily **families, int n, const char *name) {
    for (int i = 0; i < n; i++) {
        if (g_ascii_strcasecmp(pango_font_family_get_name(families[i]), name) == 0) return true;
    }
    return false;
}

static pd_status check_fonts(PangoLayout *layout, pd_error *err) {
    PangoFontFamily **families;
    int n;
    pango_context_list_families(pango_layout_get_context(layout), &families, &n);
    const pd_font *missing = has_family(families, n, pd_emoji_font.family) ? NULL : &pd_emoji_font;
    for (int i = 0; i < PD_N_FONTS && !missing; i++) {
        if (!has_family(families, n, pd_fonts[i].family)) missing = &pd_fonts[i];
    }
    g_free(families);
    if (!missing) return PD_OK;
    return pd_fail(err, PD_ERR_UNSUPPORTED, "font \"%s\" is not installed (Debian: %s; or: make tools)",
                   missing->family, missing->package);
}

// ---- letters ----------------------------------------------------------------------------------------------

static char letter_text(int letter) {
    return (char)(letter < 26 ? 'A' + letter : '0' + letter - 26);
}

static void set_letter(PangoLayout *layout, char letter) {
    pango_layout_set_text(layout, &letter, 1);
}

static pd_status take_letters(cairo_t *cairo, PangoLayout *layout, int font, bool bold, pd_artwork *artwork,
                              pd_error *err) {
    set_font(layout, pd_fonts[font].family, bold, FONT_SIZE);
    set_letter(layout, 'H');
    PangoRectangle ink;
    pango_layout_get_extents(layout, &ink, NULL);
    if (ink.height <= 0)
        return pd_fail(err, PD_ERR_UNSUPPORTED, "font \"%s\" has no letters", pd_fonts[font].family);
    const double scale = (double)PANGO_SCALE / ink.height;
    for (int i = 0; i < PD_N_LETTERS; i++) {
        pd_letter *letter = &artwork->letters[font][bold][i];
        set_letter(layout, letter_text(i));
        int width, height;
        pango_layout_get_size(layout, &width, &height);
        letter->advance = scale * width / PANGO_SCALE;
        cairo_save(cairo);
        cairo_scale(cairo, scale, scale);
        cairo_new_path(cairo);
        cairo_move_to(cairo, 0, -(double)pango_layout_get_baseline(layout) / PANGO_SCALE);
        pango_cairo_update_layout(cairo, layout);
        pango_cairo_layout_path(cairo, layout);
        cairo_restore(cairo);
        letter->path = cairo_copy_path(cairo);
        cairo_new_path(cairo);
        if (letter->path->status != CAIRO_STATUS_SUCCESS) return pd_fail_memory(err, FONT_SIZE, "a letter");
    }
    return PD_OK;
}

const pd_letter *pd_artwork_letter(const pd_artwork *artwork, int font, bool bold, char character) {
    int letter = -1;
    if (character >= 'a' && character <= 'z') letter = character - 'a';
    if (character >= 'A' && character <= 'Z') letter = character - 'A';
    if (character >= '0' && character <= '9') letter = character - '0' + 26;
    return letter < 0 ? NULL : &artwork->letters[font][bold][letter];
}

// ---- emoji ------------------------------------------------------------------------------------------------

static void find_ink(const uint8_t *pixels, double box[4]) {
    int left = PD_EMOJI_SIDE, top = PD_EMOJI_SIDE, right = -1, bottom = -1;
    for (int y = 0; y < PD_EMOJI_SIDE; y++) {
        for (int x = 0; x < PD_EMOJI_SIDE; x++) {
            uint32_t pixel;
            memcpy(&pixel, pixels + ((size_t)y * PD_EMOJI_SIDE + (size_t)x) * 4, sizeof pixel);
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

static pd_status take_emoji(PangoLayout *layout, int emoji, pd_artwork *artwork, pd_error *err) {
    const size_t bytes = (size_t)PD_EMOJI_SIDE * PD_EMOJI_SIDE * 4;
    uint8_t *pixels = calloc(1, bytes);
    artwork->emoji[emoji] = pixels;
    if (!pixels) return pd_fail_memory(err, bytes, "an emoji");
    cairo_surface_t *surface = cairo_image_surface_create_for_data(pixels, CAIRO_FORMAT_ARGB32, PD_EMOJI_SIDE,
                                                                   PD_EMOJI_SIDE, PD_EMOJI_SIDE * 4);
    cairo_t *cairo = cairo_create(surface);
    pango_layout_set_text(layout, pd_emoji_list[emoji].text, -1);
    cairo_move_to(cairo, 8, 8);
    pango_cairo_show_layout(cairo, layout);
    const bool unknown = pango_layout_get_unknown_glyphs_count(layout) > 0;
    const bool failed = cairo_status(cairo) != CAIRO_STATUS_SUCCESS;
    cairo_destroy(cairo);
    cairo_surface_destroy(surface);
    if (failed) return pd_fail_memory(err, bytes, "an emoji");
    find_ink(pixels, artwork->emoji_box[emoji]);
    if (unknown || artwork->emoji_box[emoji][2] <= 0)
        return pd_fail(err, PD_ERR_UNSUPPORTED, "font \"%s\" has no picture of \"%s\"", pd_emoji_font.family,
                       pd_emoji_list[emoji].one);
    return PD_OK;
}

// ---- all of it --------------------------------------------------------------------------------------------

pd_status pd_artwork_create(pd_artwork **artwork, pd_error *err) {
    *artwork = NULL;
    pd_artwork *a = calloc(1, sizeof *a);
    if (!a) return pd_fail_memory(err, sizeof *a, "letters");
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_A8, 1, 1);
    cairo_t *cairo = cairo_create(surface);
    PangoFontMap *fonts = pango_cairo_font_map_new();
    PangoLayout *layout = new_layout(fonts);
    pd_status status = check_fonts(layout, err);
    for (int font = 0; status == PD_OK && font < PD_N_FONTS; font++) {
        status = take_letters(cairo, layout, font, false, a, err);
        if (status == PD_OK) status = take_letters(cairo, layout, font, true, a, err);
    }
    set_font(layout, pd_emoji_font.family, false, EMOJI_FONT_SIZE);
    for (int emoji = 0; status == PD_OK && emoji < PD_N_EMOJI; emoji++) {
        status = take_emoji(layout, emoji, a, err);
    }
    g_object_unref(layout);
    g_object_unref(fonts);
    cairo_destroy(cairo);
    cairo_surface_destroy(surface);
    if (status != PD_OK) {
        pd_artwork_free(a);
        return status;
    }
    *artwork = a;
    return PD_OK;
}

void pd_artwork_free(pd_artwork *artwork) {
    if (!artwork) return;
    for (int font = 0; font < PD_N_FONTS; font++) {
        for (int i = 0; i < 2 * PD_N_LETTERS; i++) {
            cairo_path_t *path = artwork->letters[font][i / PD_N_LETTERS][i % PD_N_LETTERS].path;
            if (path) cairo_path_destroy(path);
        }
    }
    for (int i = 0; i < PD_N_EMOJI; i++)
        free(artwork->emoji[i]);
    free(artwork);
}
