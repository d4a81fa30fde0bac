#include "image/image.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

pd_status pd_image_check_size(const pd_encoded_image *encoded, const char *format, uint64_t width,
                              uint64_t height, pd_error *err) {
    if (width == 0 || height == 0) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: %s of %" PRIu64 "x%" PRIu64 " pixels: expected at least 1x1",
                       encoded->name, format, width, height);
    }
    if (width > PD_IMAGE_MAX_SIDE || height > PD_IMAGE_MAX_SIDE || width * height > encoded->max_pixels) {
        return pd_fail(err, PD_ERR_UNSUPPORTED,
                       "%s: %s of %" PRIu64 "x%" PRIu64 " pixels: at most %d a side and %" PRIu64
                       " in all are supported",
                       encoded->name, format, width, height, PD_IMAGE_MAX_SIDE, encoded->max_pixels);
    }
    return PD_OK;
}

pd_status pd_image_new(const pd_encoded_image *encoded, const char *format, uint64_t width, uint64_t height,
                       size_t bytes_per_pixel, pd_image **image, pd_error *err) {
    *image = NULL;
    pd_status status = pd_image_check_size(encoded, format, width, height, err);
    if (status != PD_OK) return status;
    size_t size = (size_t)(width * height) * bytes_per_pixel; // at most 2^30
    pd_image *created = malloc(sizeof *created);
    uint8_t *rgb = malloc(size);
    if (!created || !rgb) {
        free(created);
        free(rgb);
        pd_fail_memory(err, size, "a picture");
        return PD_ERR_MEMORY;
    }
    *created = (pd_image){(int32_t)width, (int32_t)height, rgb};
    *image = created;
    return PD_OK;
}

void pd_rgba_over_white(const uint8_t *rgba, uint8_t *rgb, size_t n_pixels) {
    for (size_t i = 0; i < n_pixels; i++, rgba += 4, rgb += 3) {
        uint32_t alpha = rgba[3];
        rgb[0] = pd_over_white(rgba[0], alpha);
        rgb[1] = pd_over_white(rgba[1], alpha);
        rgb[2] = pd_over_white(rgba[2], alpha);
    }
}

pd_status pd_image_from_rgb(const uint8_t *rgb, int32_t width, int32_t height, pd_image **image,
                            pd_error *err) {
    *image = NULL;
    if (!rgb || width < 1 || height < 1) {
        return pd_fail(err, PD_ERR_ARGUMENT, "a picture of %dx%d pixels%s: expected at least 1x1", width,
                       height, rgb ? "" : " at NULL");
    }
    const pd_encoded_image described = {NULL, 0, "a picture", PD_IMAGE_MAX_PIXELS};
    pd_status status = pd_image_new(&described, "RGB", (uint64_t)width, (uint64_t)height, 3, image, err);
    if (status != PD_OK) return status;
    memcpy((*image)->rgb, rgb, (size_t)width * (size_t)height * 3);
    return PD_OK;
}

int32_t pd_image_width(const pd_image *image) {
    return image->width;
}

int32_t pd_image_height(const pd_image *image) {
    return image->height;
}

const uint8_t *pd_image_rgb(const pd_image *image) {
    return image->rgb;
}

void pd_image_free(pd_image *image) {
    if (!image) return;
    free(image->rgb);
    free(image);
}
