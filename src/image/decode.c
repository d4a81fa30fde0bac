// Which codec a picture is for, told by its first bytes.
#include "base/file.h"
#include "image/image.h"

#include <string.h>

typedef pd_status (*decode_function)(const pd_encoded_image *encoded, pd_image **image, int32_t *orientation,
                                     pd_error *err);

typedef struct {
    const char *format;
    size_t offset; // where the magic bytes stand
    size_t length;
    const char *magic;
    decode_function decode; // NULL: known by name only
} picture_format;

static const picture_format formats[] = {
    {"JPEG", 0, 3, "\xff\xd8\xff", pd_jpeg_decode},
    {"PNG", 0, 8, "\x89PNG\r\n\x1a\n", pd_png_decode},
    {"WebP", 8, 4, "WEBP", pd_webp_decode},
    {"GIF", 0, 4, "GIF8", NULL},
    {"BMP", 0, 2, "BM", NULL},
    {"TIFF", 0, 4, "II*\0", NULL},
    {"TIFF", 0, 4, "MM\0*", NULL},
    {"AVIF", 4, 8, "ftypavif", NULL},
    {"HEIC", 4, 8, "ftypheic", NULL},
};

static const picture_format *format_of(const pd_encoded_image *encoded) {
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        const picture_format *format = &formats[i];
        if (encoded->size >= format->offset + format->length &&
            memcmp(encoded->bytes + format->offset, format->magic, format->length) == 0) {
            return format;
        }
    }
    return NULL;
}

pd_status pd_image_decode_encoded(const pd_encoded_image *encoded, pd_image **image, pd_error *err) {
    *image = NULL;
    if (encoded->size == 0) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: empty: expected a JPEG, PNG or WebP picture", encoded->name);
    }
    const picture_format *format = format_of(encoded);
    if (!format) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: not a picture: expected JPEG, PNG or WebP", encoded->name);
    }
    if (!format->decode) {
        return pd_fail(err, PD_ERR_UNSUPPORTED, "%s: a %s picture: expected JPEG, PNG or WebP", encoded->name,
                       format->format);
    }
    int32_t orientation = 1;
    pd_status status = format->decode(encoded, image, &orientation, err);
    if (status == PD_OK) status = pd_image_turn_upright(image, orientation, err);
    if (status != PD_OK) {
        pd_image_free(*image);
        *image = NULL;
    }
    return status;
}

pd_status pd_image_decode(const uint8_t *bytes, size_t size, const char *name, pd_image **image,
                          pd_error *err) {
    const pd_encoded_image encoded = {bytes, bytes ? size : 0, name ? name : "a picture",
                                      PD_IMAGE_MAX_PIXELS};
    return pd_image_decode_encoded(&encoded, image, err);
}

pd_status pd_image_load(const char *path, pd_image **image, pd_error *err) {
    *image = NULL;
    pd_mapped_file file;
    pd_status status = pd_mapped_file_open(path, &file, err);
    if (status != PD_OK) return status;
    status = pd_image_decode(file.data, file.size, path, image, err);
    pd_mapped_file_close(&file);
    return status;
}
