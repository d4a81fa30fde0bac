// PNG by libspng. Samples of 16 bits lose their low byte, as in Pillow; for 16-bit grey, which Pillow clips
// at 255 when it converts to RGB, this is the reading that keeps the picture. Samples of 1, 2 and 4 bits are
// scaled to 0 … 255. Gamma and colour profiles are not looked at.
#include "image/image.h"

#include <stdlib.h>
#include <string.h>

#include <spng.h>

// Compressed text and profiles, which libspng keeps though nobody reads them here, may take this much.
#define MAX_CHUNK  ((size_t)16 << 20)
#define MAX_CHUNKS ((size_t)64 << 20)

#define IHDR_END 24 // signature, chunk length, "IHDR", width and height

static uint32_t read_u32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

// Where libspng reads. Its own reader of a buffer does not notice that the last four bytes are missing.
typedef struct {
    const pd_encoded_image *encoded;
    size_t offset;
    bool ended; // more was asked for than there is
} png_reader;

static int read_bytes(spng_ctx *context, void *user, void *destination, size_t length) {
    (void)context;
    png_reader *reader = user;
    if (length > reader->encoded->size - reader->offset) {
        reader->ended = true;
        return SPNG_IO_EOF;
    }
    memcpy(destination, reader->encoded->bytes + reader->offset, length);
    reader->offset += length;
    return 0;
}

static pd_status fail(const png_reader *reader, int code, pd_error *err) {
    const char *name = reader->encoded->name;
    if (reader->ended || code == SPNG_EIDAT_TOO_SHORT) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: PNG: the file ends before the picture does", name);
    }
    switch (code) {
    case SPNG_EMEM:
        return pd_fail(err, PD_ERR_MEMORY, "%s: PNG: out of memory", name);
    case SPNG_ECHUNK_LIMITS:
        return pd_fail(err, PD_ERR_UNSUPPORTED, "%s: PNG: text or profile of more than %zu bytes", name,
                       MAX_CHUNK);
    default:
        return pd_fail(err, PD_ERR_FORMAT, "%s: PNG: %s", name, spng_strerror(code));
    }
}

// Rows come as libspng has them; of an interlaced picture (Adam7) seven times, each time with more of their
// pixels. `rgba` has room for one row.
static int decode_rows(spng_ctx *context, pd_image *image, bool interlaced, uint8_t *rgba) {
    static const struct {
        uint8_t first, step;
    } columns[7] = {{0, 8}, {4, 8}, {0, 4}, {2, 4}, {0, 2}, {1, 2}, {0, 1}};
    const size_t width = (size_t)image->width;
    int code =
        spng_decode_image(context, NULL, 0, SPNG_FMT_RGBA8, SPNG_DECODE_TRNS | SPNG_DECODE_PROGRESSIVE);
    while (code == SPNG_OK) {
        struct spng_row_info info;
        code = spng_get_row_info(context, &info);
        if (code != SPNG_OK) break;
        code = spng_decode_row(context, rgba, width * 4);
        if (code != SPNG_OK && code != SPNG_EOI) break;
        uint8_t *row = image->rgb + (size_t)info.row_num * width * 3;
        if (!interlaced) {
            pd_rgba_over_white(rgba, row, width);
            continue;
        }
        for (size_t x = columns[info.pass].first; x < width; x += columns[info.pass].step) {
            pd_rgba_over_white(rgba + 4 * x, row + 3 * x, 1);
        }
    }
    return code == SPNG_EOI ? SPNG_OK : code;
}

static pd_status decode(spng_ctx *context, const pd_encoded_image *encoded, pd_image **image,
                        int32_t *orientation, pd_error *err) {
    struct spng_ihdr header;
    png_reader reader = {.encoded = encoded};
    spng_set_chunk_limits(context, MAX_CHUNK, MAX_CHUNKS);
    int code = spng_set_png_stream(context, read_bytes, &reader);
    if (code == SPNG_OK) code = spng_get_ihdr(context, &header);
    if (code != SPNG_OK) return fail(&reader, code, err);

    pd_status status = pd_image_new(encoded, "PNG", header.width, header.height, 3, image, err);
    if (status != PD_OK) return status;
    uint8_t *rgba = malloc((size_t)header.width * 4);
    if (!rgba) return pd_fail_memory(err, (size_t)header.width * 4, "a row of a picture");
    code = decode_rows(context, *image, header.interlace_method != SPNG_INTERLACE_NONE, rgba);
    free(rgba);
    // To the end chunk: the file is whole, and an eXIf chunk may stand behind the picture.
    if (code == SPNG_OK) code = spng_decode_chunks(context);
    if (code != SPNG_OK || reader.ended) return fail(&reader, code, err);

    struct spng_exif exif;
    if (spng_get_exif(context, &exif) == SPNG_OK) {
        *orientation = pd_exif_orientation((const uint8_t *)exif.data, exif.length);
    }
    return PD_OK;
}

pd_status pd_png_decode(const pd_encoded_image *encoded, pd_image **image, int32_t *orientation,
                        pd_error *err) {
    *image = NULL;
    // libspng refuses an empty picture too, but its line does not say the size.
    if (encoded->size >= IHDR_END && memcmp(encoded->bytes + 12, "IHDR", 4) == 0) {
        pd_status status = pd_image_check_size(encoded, "PNG", read_u32(encoded->bytes + 16),
                                               read_u32(encoded->bytes + 20), err);
        if (status != PD_OK) return status;
    }
    spng_ctx *context = spng_ctx_new(0);
    if (!context) return pd_fail(err, PD_ERR_MEMORY, "%s: PNG: out of memory", encoded->name);
    pd_status status = decode(context, encoded, image, orientation, err);
    spng_ctx_free(context);
    if (status != PD_OK) {
        pd_image_free(*image);
        *image = NULL;
    }
    return status;
}
