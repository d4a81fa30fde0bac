// Bicubic resampling that equals Pillow's Image.resize(size, BICUBIC) on 8-bit RGB, bit for bit, as the
// models were trained with it: horizontally, then vertically. Newer versions go the other way round, which
// rounds differently, for some shapes: 12.2 for pictures over 100 times as high as wide that lose
// height, 13.0 for those that lose more than twice as many pixels of height as of width.
#pragma once

#include "base/error.h"

// A picture standing on a canvas of one colour, which is what is resampled. The canvas is never stored:
// squaring a panorama costs nothing. A picture alone is a canvas of its own size with left = top = 0.
typedef struct pd_canvas {
    int32_t width; // of the canvas, pixels
    int32_t height;
    uint8_t colour[3];
    const uint8_t *rgb; // [picture_height][picture_width][3], not owned; lies wholly on the canvas
    int32_t picture_width;
    int32_t picture_height;
    int32_t left; // where the picture stands on the canvas
    int32_t top;
} pd_canvas;

pd_canvas pd_canvas_of_image(const pd_image *image);

// What of a resampled canvas is wanted: the rectangle [left, left + width) x [top, top + height) of it as it
// would be at full_width x full_height. Sizes are at least 1, and the rectangle lies within.
typedef struct pd_resize_window {
    int32_t full_width;
    int32_t full_height;
    int32_t left;
    int32_t top;
    int32_t width;
    int32_t height;
} pd_resize_window;

// Resamples `window` of `canvas` into rows of window.width * 3 bytes, out_stride bytes apart.
// Only the window is computed, whatever the full size. PD_ERR_MEMORY when an allocation fails.
pd_status pd_resize_bicubic(const pd_canvas *canvas, const pd_resize_window *window, uint8_t *out,
                            size_t out_stride, pd_error *err);
