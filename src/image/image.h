// What the codecs share: a picture's memory, its limits, and the functions decode.c chooses from.
#pragma once

#include "base/error.h"

// The limits of a picture, checked on its header before memory is taken.
#define PD_IMAGE_MAX_SIDE   65500
#define PD_IMAGE_MAX_PIXELS ((uint64_t)1 << 28)

struct pd_image {
    int32_t width;
    int32_t height;
    uint8_t *rgb; // [height][width][3], owned
};

// An encoded picture, as it lies in a file. Nothing here is owned.
typedef struct pd_encoded_image {
    const uint8_t *bytes;
    size_t size;
    const char *name;    // stands in messages
    uint64_t max_pixels; // PD_IMAGE_MAX_PIXELS or less
} pd_encoded_image;

// Whether a picture of this size may be decoded: PD_ERR_FORMAT for an empty one, PD_ERR_UNSUPPORTED beyond
// the limits. `format` is the name of the file format.
pd_status pd_image_check_size(const pd_encoded_image *encoded, const char *format, uint64_t width,
                              uint64_t height, pd_error *err);
// Checks the size and allocates width * height * bytes_per_pixel bytes, uninitialised. A codec that asks for
// four bytes a pixel packs them to three itself.
pd_status pd_image_new(const pd_encoded_image *encoded, const char *format, uint64_t width, uint64_t height,
                       size_t bytes_per_pixel, pd_image **image, pd_error *err);

// `value` of opacity `alpha` over white: (value * alpha + 255 * (255 - alpha)) / 255, rounded to nearest, as
// Pillow's paste with a mask rounds.
static inline uint8_t pd_over_white(uint32_t value, uint32_t alpha) {
    uint32_t sum = value * alpha + 255 * (255 - alpha) + 128;
    return (uint8_t)((sum + (sum >> 8)) >> 8);
}
// RGBA, not premultiplied, to RGB over white. `rgb` may be the beginning of `rgba`.
void pd_rgba_over_white(const uint8_t *rgba, uint8_t *rgb, size_t n_pixels);

// The codecs. *orientation is the EXIF orientation, 1 … 8, which they read but do not apply. A file that ends
// before its last pixel is an error, PD_ERR_FORMAT.
pd_status pd_jpeg_decode(const pd_encoded_image *encoded, pd_image **image, int32_t *orientation,
                         pd_error *err);
pd_status pd_png_decode(const pd_encoded_image *encoded, pd_image **image, int32_t *orientation,
                        pd_error *err);
pd_status pd_webp_decode(const pd_encoded_image *encoded, pd_image **image, int32_t *orientation,
                         pd_error *err);

// The orientation, 1 … 8, that an Exif block says; 1 when it says none or cannot be read. The block is a TIFF
// header and its directories, with or without "Exif\0\0" before it. (CIPA DC-008, tag 0x0112.)
int32_t pd_exif_orientation(const uint8_t *bytes, size_t size);
// Turns *image upright, replacing it. On failure *image is left as it was.
pd_status pd_image_turn_upright(pd_image **image, int32_t orientation, pd_error *err);

// pd_image_decode with a limit of its own.
pd_status pd_image_decode_encoded(const pd_encoded_image *encoded, pd_image **image, pd_error *err);
