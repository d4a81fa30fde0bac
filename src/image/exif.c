// EXIF orientation: read from its block and applied, as Pillow's ImageOps.exif_transpose does. Where Pillow
// raises on a malformed block, the picture is taken as upright.
#include "image/image.h"

#include <stdlib.h>
#include <string.h>

#define TAG_ORIENTATION 0x0112
#define TYPE_SHORT      3
#define TYPE_LONG       4

typedef struct {
    const uint8_t *bytes;
    size_t size;
    bool big_endian;
} tiff_block;

// The caller has checked that `offset` + 2 (or 4) lies inside the block.
static uint32_t read_u16(const tiff_block *block, size_t offset) {
    const uint8_t *at = block->bytes + offset;
    return block->big_endian ? (uint32_t)at[0] << 8 | at[1] : (uint32_t)at[1] << 8 | at[0];
}

static uint32_t read_u32(const tiff_block *block, size_t offset) {
    uint32_t first = read_u16(block, offset);
    uint32_t second = read_u16(block, offset + 2);
    return block->big_endian ? first << 16 | second : second << 16 | first;
}

int32_t pd_exif_orientation(const uint8_t *bytes, size_t size) {
    // Some writers put the JPEG prefix into PNG and WebP, and a few put it twice.
    for (int i = 0; i < 2 && size >= 6 && memcmp(bytes, "Exif\0\0", 6) == 0; i++) {
        bytes += 6;
        size -= 6;
    }
    if (size < 8) return 1;
    tiff_block block = {bytes, size, false};
    if (memcmp(bytes, "MM\0*", 4) == 0) {
        block.big_endian = true;
    } else if (memcmp(bytes, "II*\0", 4) != 0) {
        return 1;
    }
    size_t offset = read_u32(&block, 4);
    if (offset > size - 2) return 1;
    uint32_t n_entries = read_u16(&block, offset);
    offset += 2;
    // An entry is 12 bytes: tag, type, count, and a value that lies left-justified in the last four.
    for (; n_entries > 0 && size - offset >= 12; n_entries--, offset += 12) {
        if (read_u16(&block, offset) != TAG_ORIENTATION) continue;
        uint32_t type = read_u16(&block, offset + 2);
        if ((type != TYPE_SHORT && type != TYPE_LONG) || read_u32(&block, offset + 4) != 1) return 1;
        uint32_t value = type == TYPE_SHORT ? read_u16(&block, offset + 8) : read_u32(&block, offset + 8);
        return value >= 1 && value <= 8 ? (int32_t)value : 1;
    }
    return 1;
}

pd_status pd_image_turn_upright(pd_image **image, int32_t orientation, pd_error *err) {
    if (orientation <= 1 || orientation > 8) return PD_OK;
    const pd_image *source = *image;
    const ptrdiff_t width = source->width;
    const ptrdiff_t height = source->height;
    const ptrdiff_t last_row = (height - 1) * width;
    // The pixel at (x, y) of the upright picture is pixel first + x * right + y * down of the stored one.
    const struct {
        ptrdiff_t first, right, down;
    } walks[9] = {
        [2] = {width - 1, -1, width},             // mirrored
        [3] = {last_row + width - 1, -1, -width}, // upside down
        [4] = {last_row, 1, -width},              // mirrored, upside down
        [5] = {0, width, 1},                      // transposed
        [6] = {last_row, -width, 1},              // to be turned clockwise
        [7] = {last_row + width - 1, -width, -1}, // transposed along the other diagonal
        [8] = {width - 1, width, -1},             // to be turned counterclockwise
    };
    pd_image *upright = malloc(sizeof *upright);
    size_t size = (size_t)width * (size_t)height * 3;
    uint8_t *rgb = malloc(size);
    if (!upright || !rgb) {
        free(upright);
        free(rgb);
        return pd_fail_memory(err, size, "an upright picture");
    }
    const bool swapped = orientation >= 5;
    *upright =
        (pd_image){swapped ? source->height : source->width, swapped ? source->width : source->height, rgb};
    for (int32_t y = 0; y < upright->height; y++) {
        ptrdiff_t from = walks[orientation].first + y * walks[orientation].down;
        for (int32_t x = 0; x < upright->width; x++, rgb += 3, from += walks[orientation].right) {
            memcpy(rgb, source->rgb + 3 * from, 3);
        }
    }
    pd_image_free(*image);
    *image = upright;
    return PD_OK;
}
