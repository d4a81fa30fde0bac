// Separable resampling in fixed point, horizontally and then vertically, rounding to 8 bits in between, with
// the coefficients and roundings of Pillow (src/libImaging/Resample.c). Where Pillow skips a pass that
// changes nothing, the pass here has one coefficient of exactly 1 and changes nothing either.
#include "image/resize.h"

#include "image/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Coefficients have this many fractional bits: of 32, 8 are for the sample and 2 for sign and overshoot.
#define PRECISION_BITS (32 - 8 - 2)
#define HALF           ((int32_t)1 << (PRECISION_BITS - 1))

#define BICUBIC_SUPPORT 2.0 // source pixels on either side when enlarging

// Keys' cubic convolution kernel with a = -0.5.
static double bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

// For each output pixel of a window along one axis, which source pixels it is made of.
typedef struct {
    int32_t *first;        // [n]
    int32_t *count;        // [n]
    int32_t *coefficients; // [n][stride], fixed point
    size_t stride;
} resampling_kernel;

static void kernel_free(resampling_kernel *kernel) {
    free(kernel->first);
    free(kernel->count);
    free(kernel->coefficients);
}

// Kernels for output pixels start … start + n - 1 when `source_size` pixels become `full_size`.
static pd_status kernel_new(int32_t source_size, int32_t full_size, int32_t start, int32_t n,
                            resampling_kernel *kernel, pd_error *err) {
    const double scale = (double)source_size / full_size;
    const double filter_scale = scale < 1.0 ? 1.0 : scale;
    const double support = BICUBIC_SUPPORT * filter_scale;
    const double inverse = 1.0 / filter_scale;
    const size_t stride = (size_t)ceil(support) * 2 + 1;
    const size_t size = (size_t)n * stride * sizeof(int32_t);
    *kernel = (resampling_kernel){
        .first = calloc((size_t)n, sizeof(int32_t)),
        .count = calloc((size_t)n, sizeof(int32_t)),
        .coefficients = calloc(1, size),
        .stride = stride,
    };
    double *weights = malloc(stride * sizeof *weights);
    if (!kernel->first || !kernel->count || !kernel->coefficients || !weights) {
        free(weights);
        kernel_free(kernel);
        pd_fail_memory(err, size, "resampling coefficients");
        return PD_ERR_MEMORY;
    }
    for (int32_t i = 0; i < n; i++) {
        const double centre = (start + i + 0.5) * scale;
        int32_t first = (int32_t)(centre - support + 0.5);
        if (first < 0) first = 0;
        int32_t end = (int32_t)(centre + support + 0.5);
        if (end > source_size) end = source_size;
        const int32_t count = end - first;
        double sum = 0.0;
        for (int32_t x = 0; x < count; x++) {
            weights[x] = bicubic((x + first - centre + 0.5) * inverse);
            sum += weights[x];
        }
        int32_t *coefficients = kernel->coefficients + (size_t)i * stride;
        for (int32_t x = 0; x < count; x++) {
            const double share = (sum != 0.0 ? weights[x] / sum : weights[x]) * (1 << PRECISION_BITS);
            coefficients[x] = (int32_t)(share < 0 ? share - 0.5 : share + 0.5);
        }
        kernel->first[i] = first;
        kernel->count[i] = count;
    }
    free(weights);
    return PD_OK;
}

static uint8_t round_and_clip(int32_t sum) {
    const int32_t value = sum >> PRECISION_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

// What the canvas beside the picture gives to each of n output pixels of a row, of which the picture covers
// source pixels left … right - 1: three sums a pixel, rounding included.
static void sum_beside(const pd_canvas *canvas, const resampling_kernel *kernel, int32_t n, int32_t left,
                       int32_t right, int32_t *sums) {
    for (int32_t i = 0; i < n; i++, sums += 3) {
        const int32_t *coefficients = kernel->coefficients + (size_t)i * kernel->stride;
        int32_t beside = 0;
        for (int32_t x = 0; x < kernel->count[i]; x++) {
            const int32_t source = kernel->first[i] + x;
            if (source < left || source >= right) beside += coefficients[x];
        }
        for (int c = 0; c < 3; c++) {
            sums[c] = HALF + canvas->colour[c] * beside;
        }
    }
}

// One row of the picture, which stands at left … right - 1 of its row of the canvas, to n pixels.
static void resample_row(const resampling_kernel *kernel, int32_t n, const uint8_t *picture, int32_t left,
                         int32_t right, const int32_t *beside, uint8_t *out) {
    for (int32_t i = 0; i < n; i++, out += 3, beside += 3) {
        const int32_t first = kernel->first[i];
        const int32_t start = first > left ? first : left;
        const int32_t end = first + kernel->count[i] < right ? first + kernel->count[i] : right;
        const int32_t *coefficients = kernel->coefficients + (size_t)i * kernel->stride;
        int32_t red = beside[0];
        int32_t green = beside[1];
        int32_t blue = beside[2];
        for (int32_t x = start; x < end; x++) {
            const int32_t coefficient = coefficients[x - first];
            const uint8_t *pixel = picture + 3 * (ptrdiff_t)(x - left);
            red += pixel[0] * coefficient;
            green += pixel[1] * coefficient;
            blue += pixel[2] * coefficient;
        }
        out[0] = round_and_clip(red);
        out[1] = round_and_clip(green);
        out[2] = round_and_clip(blue);
    }
}

// Rows `first` … `end` - 1 of the canvas, resampled horizontally into `out`, which has rows of n pixels.
// `sums` has room for 3 * n.
static void resample_rows(const pd_canvas *canvas, const resampling_kernel *kernel, int32_t n, int32_t first,
                          int32_t end, int32_t *sums, uint8_t *out) {
    const size_t row_size = (size_t)n * 3;
    const int32_t top = canvas->top;
    const int32_t bottom = canvas->top + canvas->picture_height;
    const int32_t left = canvas->left;
    const int32_t right = canvas->left + canvas->picture_width;
    // Above and below the picture all rows are alike.
    const uint8_t *empty = NULL;
    sum_beside(canvas, kernel, n, 0, 0, sums);
    for (int32_t y = first; y < end; y++) {
        uint8_t *row = out + (size_t)(y - first) * row_size;
        if (y >= top && y < bottom) continue;
        if (empty) {
            memcpy(row, empty, row_size);
        } else {
            resample_row(kernel, n, canvas->rgb, 0, 0, sums, row);
            empty = row;
        }
    }
    sum_beside(canvas, kernel, n, left, right, sums);
    for (int32_t y = first > top ? first : top; y < end && y < bottom; y++) {
        const uint8_t *picture = canvas->rgb + (size_t)(y - top) * (size_t)canvas->picture_width * 3;
        resample_row(kernel, n, picture, left, right, sums, out + (size_t)(y - first) * row_size);
    }
}

// Rows of `row_size` samples each, combined into one for output row `i`. `sums` has room for a row.
static void resample_column(const resampling_kernel *kernel, int32_t i, const uint8_t *rows, size_t row_size,
                            int32_t *sums, uint8_t *out) {
    for (size_t x = 0; x < row_size; x++) {
        sums[x] = HALF;
    }
    const int32_t *coefficients = kernel->coefficients + (size_t)i * kernel->stride;
    for (int32_t y = 0; y < kernel->count[i]; y++, rows += row_size) {
        const int32_t coefficient = coefficients[y];
        for (size_t x = 0; x < row_size; x++) {
            sums[x] += rows[x] * coefficient;
        }
    }
    for (size_t x = 0; x < row_size; x++) {
        out[x] = round_and_clip(sums[x]);
    }
}

pd_canvas pd_canvas_of_image(const pd_image *image) {
    return (pd_canvas){
        .width = image->width,
        .height = image->height,
        .rgb = image->rgb,
        .picture_width = image->width,
        .picture_height = image->height,
    };
}

pd_status pd_resize_bicubic(const pd_canvas *canvas, const pd_resize_window *window, uint8_t *out,
                            size_t out_stride, pd_error *err) {
    resampling_kernel across;
    resampling_kernel down;
    pd_status status =
        kernel_new(canvas->width, window->full_width, window->left, window->width, &across, err);
    if (status != PD_OK) return status;
    status = kernel_new(canvas->height, window->full_height, window->top, window->height, &down, err);
    if (status != PD_OK) {
        kernel_free(&across);
        return status;
    }
    // The canvas rows that the window is made of: first and end never decrease from one output row to the
    // next.
    const int32_t first = down.first[0];
    const int32_t end = down.first[window->height - 1] + down.count[window->height - 1];
    const size_t row_size = (size_t)window->width * 3;
    const size_t size = row_size * (size_t)(end - first);
    uint8_t *rows = malloc(size);
    int32_t *sums = malloc(row_size * sizeof *sums);
    if (rows && sums) {
        resample_rows(canvas, &across, window->width, first, end, sums, rows);
        for (int32_t i = 0; i < window->height; i++) {
            resample_column(&down, i, rows + (size_t)(down.first[i] - first) * row_size, row_size, sums,
                            out + (size_t)i * out_stride);
        }
    } else {
        status = pd_fail_memory(err, size, "resampling a picture");
    }
    free(rows);
    free(sums);
    kernel_free(&across);
    kernel_free(&down);
    return status;
}
