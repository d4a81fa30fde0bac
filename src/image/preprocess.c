#include "image/preprocess.h"

#include "image/image.h"
#include "image/resize.h"

#include <math.h>
#include <stdlib.h>

// The value of every 8-bit sample: sample / 255 in double rounded to float, then (value - mean) / std in
// float, as NumPy computes rescale and normalize.
typedef struct {
    float value[3][256];
} normalization;

static void normalization_init(normalization *table, const pd_preprocess_params *params) {
    for (int c = 0; c < 3; c++) {
        for (int sample = 0; sample < 256; sample++) {
            const float rescaled = (float)(sample * (1.0 / 255.0));
            table->value[c][sample] = (rescaled - params->mean[c]) / params->std[c];
        }
    }
}

// One tile: side x side pixels of `rgb`, whose rows are `stride` bytes apart, to three planes.
static void normalize_tile(const normalization *table, const uint8_t *rgb, size_t stride, int32_t side,
                           float *planes) {
    const size_t plane = (size_t)side * (size_t)side;
    for (int32_t y = 0; y < side; y++, rgb += stride) {
        for (int32_t x = 0; x < side; x++, planes++) {
            planes[0] = table->value[0][rgb[3 * x]];
            planes[plane] = table->value[1][rgb[3 * x + 1]];
            planes[2 * plane] = table->value[2][rgb[3 * x + 2]];
        }
    }
}

// LLaVA's expand2square: the picture in the middle of a square of the mean colour, int(mean * 255).
static pd_canvas expand_to_square(const pd_image *image, const float mean[3]) {
    pd_canvas canvas = pd_canvas_of_image(image);
    const int32_t side = image->width > image->height ? image->width : image->height;
    canvas.width = side;
    canvas.height = side;
    canvas.left = (side - image->width) / 2;
    canvas.top = (side - image->height) / 2;
    for (int c = 0; c < 3; c++) {
        canvas.colour[c] = (uint8_t)((double)mean[c] * 255);
    }
    return canvas;
}

// CLIPImageProcessor's resize of the shortest edge and centre crop, together.
static pd_resize_window shortest_edge_window(const pd_canvas *canvas, int32_t side) {
    pd_resize_window window = {side, side, 0, 0, side, side};
    if (canvas->width <= canvas->height) {
        window.full_height = (int32_t)((double)((int64_t)side * canvas->height) / canvas->width);
        window.top = (window.full_height - side) / 2;
    } else {
        window.full_width = (int32_t)((double)((int64_t)side * canvas->width) / canvas->height);
        window.left = (window.full_width - side) / 2;
    }
    return window;
}

// LLaVA's resize_and_pad_image: as large as fits into the resolution, centred; this is the picture's
// rectangle.
static pd_resize_window fit_resolution(const pd_image *image, const int32_t resolution[2], int32_t *left,
                                       int32_t *top) {
    const double scale_w = (double)resolution[0] / image->width;
    const double scale_h = (double)resolution[1] / image->height;
    int32_t width = resolution[0];
    int32_t height = resolution[1];
    if (scale_w < scale_h) {
        height = (int32_t)fmin(ceil(image->height * scale_w), height);
    } else {
        width = (int32_t)fmin(ceil(image->width * scale_h), width);
    }
    *left = (resolution[0] - width) / 2;
    *top = (resolution[1] - height) / 2;
    return (pd_resize_window){width, height, 0, 0, width, height};
}

// Resamples and normalises one tile.
static pd_status make_tile(const pd_canvas *canvas, const pd_resize_window *window,
                           const normalization *table, float *planes, pd_error *err) {
    const size_t stride = (size_t)window->width * 3;
    const size_t size = stride * (size_t)window->height;
    uint8_t *rgb = malloc(size);
    if (!rgb) return pd_fail_memory(err, size, "a tile");
    pd_status status = pd_resize_bicubic(canvas, window, rgb, stride, err);
    if (status == PD_OK) normalize_tile(table, rgb, stride, window->width, planes);
    free(rgb);
    return status;
}

// The tiles behind the base tile.
static pd_status make_grid(const pd_image *image, const pd_preprocess_params *params,
                           const pd_tile_layout *layout, const normalization *table, float *planes,
                           pd_error *err) {
    const int32_t side = params->image_size;
    const int32_t *resolution =
        params->pinpoints[pd_select_best_resolution(params, image->width, image->height)];
    const size_t stride = (size_t)resolution[0] * 3;
    uint8_t *padded = calloc((size_t)resolution[1], stride); // black
    if (!padded) return pd_fail_memory(err, (size_t)resolution[1] * stride, "a padded picture");
    int32_t left;
    int32_t top;
    const pd_canvas canvas = pd_canvas_of_image(image);
    const pd_resize_window window = fit_resolution(image, resolution, &left, &top);
    pd_status status =
        pd_resize_bicubic(&canvas, &window, padded + (size_t)top * stride + (size_t)left * 3, stride, err);
    if (status == PD_OK) {
        for (int32_t tile = 0; tile < layout->n_tiles - 1; tile++) {
            const int32_t row = tile / layout->grid_width;
            const int32_t column = tile % layout->grid_width;
            const uint8_t *corner = padded + ((size_t)row * stride + (size_t)column * 3) * (size_t)side;
            normalize_tile(table, corner, stride, side, planes);
            planes += 3 * (size_t)side * (size_t)side;
        }
    }
    free(padded);
    return status;
}

pd_status pd_preprocess(const pd_image *image, const pd_preprocess_params *params, pd_tiles *tiles,
                        pd_error *err) {
    *tiles = (pd_tiles){0};
    pd_tile_layout layout;
    pd_status status = pd_tile_layout_of_size(params, image->width, image->height, &layout, err);
    if (status != PD_OK) return status;
    const int32_t side = params->image_size;
    const size_t tile_values = 3 * (size_t)side * (size_t)side; // at most 3 * 2^24
    const size_t size = (size_t)layout.n_tiles * tile_values * sizeof(float);
    float *data = malloc(size);
    normalization *table = malloc(sizeof *table);
    if (!data || !table) {
        free(data);
        free(table);
        return pd_fail_memory(err, size, "tiles");
    }
    normalization_init(table, params);

    pd_canvas canvas = pd_canvas_of_image(image);
    pd_resize_window window = {side, side, 0, 0, side, side};
    const pd_aspect_ratio aspect_ratio = pd_preprocess_aspect_ratio(params);
    if (aspect_ratio == PD_ASPECT_PAD) canvas = expand_to_square(image, params->mean);
    if (aspect_ratio == PD_ASPECT_SQUARE) window = shortest_edge_window(&canvas, side);
    status = make_tile(&canvas, &window, table, data, err);
    if (status == PD_OK && aspect_ratio == PD_ASPECT_ANYRES) {
        status = make_grid(image, params, &layout, table, data + tile_values, err);
    }
    free(table);
    if (status != PD_OK) {
        free(data);
        return status;
    }
    *tiles = (pd_tiles){layout, side, image->width, image->height, data};
    return PD_OK;
}

void pd_tiles_free(pd_tiles *tiles) {
    free(tiles->data);
    *tiles = (pd_tiles){0};
}
