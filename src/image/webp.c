// WebP by libwebp; the RIFF container around it by hand, for the canvas size and the EXIF chunk.
// https://developers.google.com/speed/webp/docs/riff_container
#include "image/image.h"

#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>

#define RIFF_HEADER  12 // "RIFF", size, "WEBP"
#define CHUNK_HEADER 8  // name, size
#define VP8X_SIZE    10 // flags, three reserved bytes, canvas width - 1 and height - 1 in three bytes each
#define VP8X_EXIF    0x08

static uint32_t read_u24(const uint8_t *bytes) {
    return (uint32_t)bytes[2] << 16 | (uint32_t)bytes[1] << 8 | bytes[0];
}

static uint32_t read_u32(const uint8_t *bytes) {
    return (uint32_t)bytes[3] << 24 | read_u24(bytes);
}

static pd_status fail(const pd_encoded_image *encoded, VP8StatusCode code, pd_error *err) {
    switch (code) {
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA:
        return pd_fail(err, PD_ERR_FORMAT, "%s: WebP: the file ends before the picture does", encoded->name);
    case VP8_STATUS_OUT_OF_MEMORY:
        return pd_fail(err, PD_ERR_MEMORY, "%s: WebP: out of memory", encoded->name);
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return pd_fail(err, PD_ERR_UNSUPPORTED, "%s: WebP: a feature libwebp does not decode", encoded->name);
    default:
        return pd_fail(err, PD_ERR_FORMAT, "%s: WebP: damaged data", encoded->name);
    }
}

// What an extended file (VP8X) says before and after its picture. Any other file has neither.
static pd_status read_container(const pd_encoded_image *encoded, int32_t *orientation, pd_error *err) {
    const uint8_t *bytes = encoded->bytes;
    const size_t size = encoded->size;
    if (memcmp(bytes, "RIFF", 4) != 0) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: WebP: no RIFF header", encoded->name);
    }
    const uint64_t riff_size = (uint64_t)read_u32(bytes + 4) + CHUNK_HEADER;
    if (riff_size > size) return fail(encoded, VP8_STATUS_NOT_ENOUGH_DATA, err);
    if (size < RIFF_HEADER + CHUNK_HEADER + VP8X_SIZE || memcmp(bytes + RIFF_HEADER, "VP8X", 4) != 0)
        return PD_OK;

    const uint8_t *canvas = bytes + RIFF_HEADER + CHUNK_HEADER;
    pd_status status = pd_image_check_size(encoded, "WebP", (uint64_t)read_u24(canvas + 4) + 1,
                                           (uint64_t)read_u24(canvas + 7) + 1, err);
    if (status != PD_OK || !(canvas[0] & VP8X_EXIF)) return status;
    uint64_t offset = RIFF_HEADER;
    while (offset + CHUNK_HEADER <= riff_size) {
        const uint8_t *chunk = bytes + offset;
        const uint32_t length = read_u32(chunk + 4);
        offset += CHUNK_HEADER;
        if (length > riff_size - offset) break;
        if (memcmp(chunk, "EXIF", 4) == 0) {
            *orientation = pd_exif_orientation(chunk + CHUNK_HEADER, length);
            break;
        }
        offset += (uint64_t)length + (length & 1); // chunks are padded to even sizes
    }
    return PD_OK;
}

pd_status pd_webp_decode(const pd_encoded_image *encoded, pd_image **image, int32_t *orientation,
                         pd_error *err) {
    *image = NULL;
    pd_status status = read_container(encoded, orientation, err);
    if (status != PD_OK) return status;
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config)) {
        return pd_fail(err, PD_ERR_UNSUPPORTED, "%s: WebP: libwebp is older than its header", encoded->name);
    }
    VP8StatusCode code = WebPGetFeatures(encoded->bytes, encoded->size, &config.input);
    if (code != VP8_STATUS_OK) return fail(encoded, code, err);
    if (config.input.has_animation) {
        return pd_fail(err, PD_ERR_UNSUPPORTED, "%s: WebP: animated: expected a still picture",
                       encoded->name);
    }

    const bool has_alpha = config.input.has_alpha != 0;
    const size_t bytes_per_pixel = has_alpha ? 4 : 3;
    status = pd_image_new(encoded, "WebP", (uint64_t)config.input.width, (uint64_t)config.input.height,
                          bytes_per_pixel, image, err);
    if (status != PD_OK) return status;
    const size_t n_pixels = (size_t)config.input.width * (size_t)config.input.height;
    config.output.colorspace = has_alpha ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = (*image)->rgb;
    config.output.u.RGBA.stride = config.input.width * (int)bytes_per_pixel;
    config.output.u.RGBA.size = n_pixels * bytes_per_pixel;
    code = WebPDecode(encoded->bytes, encoded->size, &config);
    WebPFreeDecBuffer(&config.output);
    if (code != VP8_STATUS_OK) {
        pd_image_free(*image);
        *image = NULL;
        return fail(encoded, code, err);
    }
    if (has_alpha) {
        pd_rgba_over_white((*image)->rgb, (*image)->rgb, n_pixels);
        uint8_t *shrunk = realloc((*image)->rgb, n_pixels * 3);
        if (shrunk) (*image)->rgb = shrunk;
    }
    return PD_OK;
}
