// Pictures: decoding, resampling and tiling against golden/image (made by golden/make_image.py); bad input.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> // wants the four above

#include "image/image.h"
#include "image/preprocess.h"
#include "image/resize.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN PD_TEST_DATA "/image/"

// ---- helpers

static uint32_t crc32_of(const void *data, size_t size) {
    static uint32_t table[256];
    if (table[1] == 0) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++) {
                value = value >> 1 ^ (value & 1 ? 0xedb88320U : 0);
            }
            table[i] = value;
        }
    }
    const uint8_t *bytes = data;
    uint32_t crc = ~0U;
    for (size_t i = 0; i < size; i++) {
        crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 255];
    }
    return ~crc;
}

// The picture that pattern() of make_image.py draws.
static pd_image *pattern(uint32_t seed, int32_t width, int32_t height) {
    uint8_t *rgb = malloc((size_t)width * (size_t)height * 3);
    assert_non_null(rgb);
    uint8_t *sample = rgb;
    for (uint32_t y = 0; y < (uint32_t)height; y++) {
        for (uint32_t x = 0; x < (uint32_t)width; x++) {
            for (uint32_t c = 0; c < 3; c++) {
                uint32_t noise = x * 374761393U + y * 668265263U + c * 2246822519U + seed * 3266489917U;
                noise ^= noise >> 13;
                noise *= 1274126177U;
                noise ^= noise >> 16;
                const uint32_t slope = (x * (3 + c) + y * (5 - c)) >> 2;
                const uint32_t block = (x >> 4 ^ y >> 4) & 3;
                *sample++ = (uint8_t)(block == 0   ? 255
                                      : block == 1 ? 0
                                      : block == 2 ? (slope & 127) + (noise & 63)
                                                   : noise & 255);
            }
        }
    }
    pd_image *image;
    assert_int_equal(pd_image_from_rgb(rgb, width, height, &image, NULL), PD_OK);
    free(rgb);
    return image;
}

// A file's bytes in a block of exactly their size, so that a read beyond is seen.
static uint8_t *read_golden(const char *name, size_t *size) {
    char path[512];
    snprintf(path, sizeof path, GOLDEN "%s", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*size);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *size, file), *size);
    fclose(file);
    return bytes;
}

static FILE *open_table(const char *name) {
    char path[512];
    snprintf(path, sizeof path, GOLDEN "%s", name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    return file;
}

// The next line that is not a comment; its fields are read with text_field and number_field.
static char *next_line(FILE *table, char line[512]) {
    while (fgets(line, 512, table)) {
        if (line[0] != '#') return line;
    }
    return NULL;
}

static const char *text_field(char **line) {
    const char *field = strsep(line, " \n");
    assert_non_null(field);
    return field;
}

static uint32_t hex_field(char **line) {
    char *end;
    const unsigned long value = strtoul(text_field(line), &end, 16);
    assert_int_equal(*end, 0);
    return (uint32_t)value;
}

static int32_t number_field(char **line) {
    char *end;
    const long value = strtol(text_field(line), &end, 10);
    assert_int_equal(*end, 0);
    return (int32_t)value;
}

// One line, which names the file and holds `part`.
static void assert_refused(pd_status status, const pd_error *err, pd_status expected, const char *name,
                           const char *part) {
    if (status != expected || !strstr(err->message, part)) {
        print_error("%s: status %d: %s; expected %d, \"%s\"\n", name, (int)status, err->message,
                    (int)expected, part);
    }
    assert_int_equal(status, expected);
    assert_int_equal(err->status, expected);
    assert_non_null(strstr(err->message, name));
    assert_non_null(strstr(err->message, part));
    assert_null(strchr(err->message, '\n'));
}

static void assert_decode_refused(const uint8_t *bytes, size_t size, pd_status expected, const char *part) {
    pd_error err = {0};
    pd_image *image = (pd_image *)&err;
    uint8_t *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    if (size) memcpy(copy, bytes, size);
    const pd_status status = pd_image_decode(copy, size, "the name", &image, &err);
    free(copy);
    assert_null(image);
    assert_refused(status, &err, expected, "the name", part);
}

// ---- decoding

static void decodes_as_pillow(void **state) {
    (void)state;
    FILE *table = open_table("decode.txt");
    char line[512];
    int n_files = 0;
    while (next_line(table, line)) {
        char *fields = line;
        const char *name = text_field(&fields);
        const int32_t width = number_field(&fields);
        const int32_t height = number_field(&fields);
        const uint32_t hash = hex_field(&fields);
        char path[512];
        snprintf(path, sizeof path, GOLDEN "%s", name);
        pd_image *image;
        pd_error err;
        if (pd_image_load(path, &image, &err) != PD_OK) fail_msg("%s", err.message);
        assert_int_equal(pd_image_width(image), width);
        assert_int_equal(pd_image_height(image), height);
        const uint32_t got = crc32_of(pd_image_rgb(image), (size_t)width * (size_t)height * 3);
        if (got != hash) fail_msg("%s: other pixels", name);
        pd_image_free(image);
        n_files++;
    }
    fclose(table);
    assert_true(n_files >= 60);
}

static void loads_by_content_not_by_name(void **state) {
    (void)state;
    size_t size;
    uint8_t *bytes = read_golden("png_rgb_8.png", &size);
    pd_image *image;
    assert_int_equal(pd_image_decode(bytes, size, "photo.jpg", &image, NULL), PD_OK);
    assert_int_equal(pd_image_width(image), 13);
    assert_int_equal(pd_image_height(image), 11);
    pd_image_free(image);
    assert_int_equal(pd_image_decode(bytes, size, NULL, &image, NULL), PD_OK);
    pd_image_free(image);
    free(bytes);
}

static void composites_to_nearest(void **state) {
    (void)state;
    for (uint32_t value = 0; value < 256; value++) {
        for (uint32_t alpha = 0; alpha < 256; alpha++) {
            const double exact = (value * alpha + 255.0 * (255 - alpha)) / 255.0;
            assert_int_equal(pd_over_white(value, alpha), (int)floor(exact + 0.5));
        }
    }
}

static void keeps_a_copy_of_rgb(void **state) {
    (void)state;
    uint8_t rgb[2 * 3 * 3];
    for (size_t i = 0; i < sizeof rgb; i++) {
        rgb[i] = (uint8_t)(i * 7);
    }
    pd_image *image;
    assert_int_equal(pd_image_from_rgb(rgb, 2, 3, &image, NULL), PD_OK);
    assert_int_equal(pd_image_width(image), 2);
    assert_int_equal(pd_image_height(image), 3);
    assert_ptr_not_equal(pd_image_rgb(image), rgb);
    assert_memory_equal(pd_image_rgb(image), rgb, sizeof rgb);
    pd_image_free(image);
    pd_image_free(NULL);

    pd_error err;
    assert_refused(pd_image_from_rgb(rgb, 0, 3, &image, &err), &err, PD_ERR_ARGUMENT, "picture", "0x3");
    assert_null(image);
    assert_refused(pd_image_from_rgb(rgb, 2, -1, &image, &err), &err, PD_ERR_ARGUMENT, "picture", "2x-1");
    assert_refused(pd_image_from_rgb(NULL, 2, 3, &image, &err), &err, PD_ERR_ARGUMENT, "picture", "NULL");
    assert_refused(pd_image_from_rgb(rgb, 65501, 1, &image, &err), &err, PD_ERR_UNSUPPORTED, "picture",
                   "65501x1");
    assert_null(image);
}

// ---- bad input

static void assert_load_refused(const char *path, pd_status expected, const char *part) {
    pd_error err = {0};
    pd_image *image = (pd_image *)&err;
    const pd_status status = pd_image_load(path, &image, &err);
    assert_null(image);
    assert_refused(status, &err, expected, path, part);
}

static void refuses_what_is_no_picture(void **state) {
    (void)state;
    assert_load_refused(GOLDEN "missing.jpg", PD_ERR_IO, "No such file");
    assert_load_refused(PD_TEST_DATA, PD_ERR_IO, "not a regular file");
    assert_load_refused(GOLDEN "bad_empty.jpg", PD_ERR_FORMAT, "empty");
    assert_load_refused(GOLDEN "bad_text.png", PD_ERR_FORMAT, "expected JPEG, PNG or WebP");
    assert_load_refused(GOLDEN "bad_gif.jpg", PD_ERR_UNSUPPORTED, "GIF");
    assert_load_refused(GOLDEN "bad_animated.webp", PD_ERR_UNSUPPORTED, "animated");
    pd_error err;
    pd_image *image;
    assert_refused(pd_image_decode(NULL, 10, "nothing", &image, &err), &err, PD_ERR_FORMAT, "nothing",
                   "empty");
    static const uint8_t jpeg[] = {0xff, 0xd8, 0xff, 0xe0, 0, 0, 0, 0};
    for (size_t size = 1; size <= sizeof jpeg; size++) {
        assert_decode_refused(jpeg, size, PD_ERR_FORMAT, size < 3 ? "not a picture" : "JPEG: ");
    }
    // Only the container's mark.
    assert_decode_refused((const uint8_t *)"RIFF\x04\0\0\0WEBP", 12, PD_ERR_FORMAT, "WebP: ");
    assert_decode_refused((const uint8_t *)"RIFX\x04\0\0\0WEBP", 12, PD_ERR_FORMAT, "RIFF");
    assert_decode_refused((const uint8_t *)"\x89PNG\r\n\x1a\n", 8, PD_ERR_FORMAT, "PNG: ");
}

static void put_be(uint8_t *at, uint32_t value, int n_bytes) {
    for (int i = n_bytes - 1; i >= 0; i--, value >>= 8) {
        at[i] = (uint8_t)value;
    }
}

// The frame header of a JPEG file: ff c0, length, precision, height, width, components.
static uint8_t *find_frame(uint8_t *bytes, size_t size) {
    for (size_t i = 0; i + 10 < size; i++) {
        if (bytes[i] == 0xff && bytes[i + 1] == 0xc0) return bytes + i;
    }
    fail_msg("no frame header");
    return NULL;
}

static void refuses_sizes_by_header(void **state) {
    (void)state;
    static const struct {
        uint32_t width, height;
        pd_status status;
        const char *part;
    } sizes[] = {
        {50000, 50000, PD_ERR_UNSUPPORTED, "50000x50000 pixels: at most 65500 a side and 268435456 in all"},
        {65501, 1, PD_ERR_UNSUPPORTED, "65501x1 pixels: at most 65500 a side"},
        {1, 65535, PD_ERR_UNSUPPORTED, "1x65535 pixels: at most 65500 a side"},
        {16385, 16384, PD_ERR_UNSUPPORTED, "16385x16384 pixels"},
        {0, 5, PD_ERR_FORMAT, ""},
        {5, 0, PD_ERR_FORMAT, ""},
        {0, 0, PD_ERR_FORMAT, ""},
    };
    size_t jpeg_size;
    size_t png_size;
    size_t webp_size;
    uint8_t *jpeg = read_golden("jpeg_444.jpg", &jpeg_size);
    uint8_t *png = read_golden("png_rgb_8.png", &png_size);
    uint8_t *webp = read_golden("webp_exif.webp", &webp_size);
    assert_memory_equal(webp + 12, "VP8X", 4);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const uint32_t width = sizes[i].width;
        const uint32_t height = sizes[i].height;
        put_be(find_frame(jpeg, jpeg_size) + 5, height, 2);
        put_be(find_frame(jpeg, jpeg_size) + 7, width, 2);
        assert_decode_refused(jpeg, jpeg_size, sizes[i].status, sizes[i].part);
        put_be(png + 16, width, 4);
        put_be(png + 20, height, 4);
        assert_decode_refused(png, png_size, sizes[i].status, sizes[i].part);
        if (width == 0 || height == 0) continue; // which the canvas of a WebP file cannot say
        const uint8_t canvas[6] = {(uint8_t)(width - 1),         (uint8_t)((width - 1) >> 8),
                                   (uint8_t)((width - 1) >> 16), (uint8_t)(height - 1),
                                   (uint8_t)((height - 1) >> 8), (uint8_t)((height - 1) >> 16)};
        memcpy(webp + 24, canvas, sizeof canvas);
        assert_decode_refused(webp, webp_size, sizes[i].status, sizes[i].part);
    }
    // A size within the limits without the data for it.
    put_be(png + 16, 16384, 4);
    put_be(png + 20, 16384, 4);
    assert_decode_refused(png, png_size, PD_ERR_FORMAT, "PNG: ");
    free(jpeg);
    free(png);
    free(webp);
}

static void refuses_kinds_of_jpeg(void **state) {
    (void)state;
    size_t size;
    uint8_t *bytes = read_golden("jpeg_444.jpg", &size);
    uint8_t *frame = find_frame(bytes, size);
    frame[4] = 12; // bits a sample
    assert_decode_refused(bytes, size, PD_ERR_UNSUPPORTED, "precision 12");
    frame[4] = 8;
    frame[1] = 0xc3; // lossless
    assert_decode_refused(bytes, size, PD_ERR_UNSUPPORTED, "SOF");
    frame[1] = 0xc0;
    // Two components: the frame loses its last one, and the scan too.
    frame[3] = 8 + 3 * 2;
    frame[9] = 2;
    memmove(frame + 16, frame + 19, size - (size_t)(frame + 19 - bytes));
    size -= 3;
    for (size_t i = 0; i + 12 < size; i++) {
        if (bytes[i] != 0xff || bytes[i + 1] != 0xda) continue;
        bytes[i + 3] = 6 + 2 * 2;
        bytes[i + 4] = 2;
        memmove(bytes + i + 9, bytes + i + 11, size - i - 11);
        size -= 2;
        break;
    }
    assert_decode_refused(bytes, size, PD_ERR_UNSUPPORTED, "2 colour components");
    free(bytes);
}

static void refuses_every_cut(void **state) {
    (void)state;
    FILE *table = open_table("decode.txt");
    char line[512];
    while (next_line(table, line)) {
        char *fields = line;
        const char *name = text_field(&fields);
        size_t size;
        uint8_t *bytes = read_golden(name, &size);
        for (size_t cut = 0; cut < size; cut++) {
            uint8_t *part = malloc(cut ? cut : 1);
            assert_non_null(part);
            memcpy(part, bytes, cut);
            pd_image *image;
            pd_error err;
            const pd_status status = pd_image_decode(part, cut, name, &image, &err);
            if (status == PD_OK) fail_msg("%s: decoded from %zu of %zu bytes", name, cut, size);
            assert_refused(status, &err, PD_ERR_FORMAT, name, "");
            assert_null(image);
            free(part);
        }
        free(bytes);
    }
    fclose(table);
}

static void says_that_a_file_is_cut(void **state) {
    (void)state;
    static const char *const names[] = {"jpeg_420.jpg",   "jpeg_progressive.jpg",     "jpeg_cmyk.jpg",
                                        "png_rgb_8.png",  "png_rgb_8_interlaced.png", "webp_lossless.webp",
                                        "webp_lossy.webp"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t size;
        uint8_t *bytes = read_golden(names[i], &size);
        assert_decode_refused(bytes, size / 2, PD_ERR_FORMAT, "the file ends before the picture does");
        free(bytes);
    }
}

// Damaged files may decode or not, but do no harm.
static void survives_damage(void **state) {
    (void)state;
    FILE *table = open_table("decode.txt");
    char line[512];
    uint32_t random = 2463534242U;
    while (next_line(table, line)) {
        char *fields = line;
        const char *name = text_field(&fields);
        size_t size;
        uint8_t *bytes = read_golden(name, &size);
        uint8_t *damaged = malloc(size);
        assert_non_null(damaged);
        for (int round = 0; round < 60; round++) {
            memcpy(damaged, bytes, size);
            for (int n = 0; n <= round % 4; n++) {
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                damaged[random % size] ^= (uint8_t)(1U << (random >> 20 & 7));
            }
            const pd_encoded_image encoded = {damaged, size, name, 1 << 20};
            pd_image *image;
            pd_error err = {0};
            const pd_status status = pd_image_decode_encoded(&encoded, &image, &err);
            if (status != PD_OK) assert_refused(status, &err, status, name, "");
            assert_true((status == PD_OK) == (image != NULL));
            pd_image_free(image);
        }
        free(damaged);
        free(bytes);
    }
    fclose(table);
}

// ---- EXIF

static void reads_orientation(void **state) {
    (void)state;
    uint8_t block[] = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 0x01, 3,
                       0,   1,   0,  0, 0, 6, 0, 0, 0, 0, 0,    0,    0};
    const size_t size = sizeof block;
    assert_int_equal(pd_exif_orientation(block, size), 6);
    for (size_t cut = 0; cut < 22; cut++) {
        uint8_t *part = malloc(cut ? cut : 1);
        assert_non_null(part);
        memcpy(part, block, cut);
        assert_int_equal(pd_exif_orientation(part, cut), 1);
        free(part);
    }
    block[18] = 9; // no such orientation
    assert_int_equal(pd_exif_orientation(block, size), 1);
    block[18] = 0;
    assert_int_equal(pd_exif_orientation(block, size), 1);
    block[18] = 8;
    block[12] = 4; // a LONG
    assert_int_equal(pd_exif_orientation(block, size), 8);
    block[12] = 2; // text
    assert_int_equal(pd_exif_orientation(block, size), 1);
    block[12] = 3;
    block[14] = 2; // two of them
    assert_int_equal(pd_exif_orientation(block, size), 1);
    block[14] = 1;
    block[7] = 0xff; // a directory far outside
    assert_int_equal(pd_exif_orientation(block, size), 1);
    block[7] = 0;
    block[8] = 0xff; // more entries than there is room for
    block[10] = 0x13;
    assert_int_equal(pd_exif_orientation(block, size), 1);
}

// Every orientation against its definition: where the first row and column of the stored picture go.
static void turns_upright(void **state) {
    (void)state;
    enum { WIDTH = 3, HEIGHT = 2 };
    for (int32_t orientation = 1; orientation <= 8; orientation++) {
        uint8_t rgb[WIDTH * HEIGHT * 3];
        for (size_t i = 0; i < sizeof rgb; i++) {
            rgb[i] = (uint8_t)i;
        }
        pd_image *image;
        assert_int_equal(pd_image_from_rgb(rgb, WIDTH, HEIGHT, &image, NULL), PD_OK);
        assert_int_equal(pd_image_turn_upright(&image, orientation, NULL), PD_OK);
        const bool swapped = orientation >= 5;
        assert_int_equal(image->width, swapped ? HEIGHT : WIDTH);
        assert_int_equal(image->height, swapped ? WIDTH : HEIGHT);
        for (int row = 0; row < HEIGHT; row++) {
            for (int column = 0; column < WIDTH; column++) {
                // Row 0 is the top in 1 and 2, the bottom in 3 and 4, the left in 5 and 8, the right in 6
                // and 7. Column 0 is the left in 1 and 4, the right in 2 and 3, the top in 5 and 6, the
                // bottom in 7 and 8.
                const int far_row = HEIGHT - 1 - row;
                const int far_column = WIDTH - 1 - column;
                const int x = swapped ? (orientation == 6 || orientation == 7 ? far_row : row)
                                      : (orientation == 2 || orientation == 3 ? far_column : column);
                const int y =
                    swapped ? (orientation >= 7 ? far_column : column) : (orientation >= 3 ? far_row : row);
                assert_memory_equal(image->rgb + 3 * (y * image->width + x), rgb + 3 * (row * WIDTH + column),
                                    3);
            }
        }
        pd_image_free(image);
    }
}

// ---- resampling

static uint8_t *resize(const pd_canvas *canvas, const pd_resize_window *window) {
    const size_t stride = (size_t)window->width * 3;
    uint8_t *rgb = malloc(stride * (size_t)window->height);
    assert_non_null(rgb);
    assert_int_equal(pd_resize_bicubic(canvas, window, rgb, stride, NULL), PD_OK);
    return rgb;
}

static void resizes_as_pillow(void **state) {
    (void)state;
    FILE *table = open_table("resize.txt");
    char line[512];
    int n_cases = 0;
    while (next_line(table, line)) {
        char *fields = line;
        const uint32_t seed = (uint32_t)number_field(&fields);
        const int32_t width = number_field(&fields);
        const int32_t height = number_field(&fields);
        const int32_t new_width = number_field(&fields);
        const int32_t new_height = number_field(&fields);
        const uint32_t hash = hex_field(&fields);
        pd_image *image = pattern(seed, width, height);
        const pd_canvas canvas = pd_canvas_of_image(image);
        const pd_resize_window window = {new_width, new_height, 0, 0, new_width, new_height};
        uint8_t *rgb = resize(&canvas, &window);
        if (crc32_of(rgb, (size_t)new_width * (size_t)new_height * 3) != hash) {
            fail_msg("%dx%d to %dx%d: other pixels", width, height, new_width, new_height);
        }
        free(rgb);
        pd_image_free(image);
        n_cases++;
    }
    fclose(table);
    assert_true(n_cases >= 20);
}

// A window of a canvas that is never stored is the same part of the stored canvas resampled whole.
static void resizes_windows_of_canvases(void **state) {
    (void)state;
    enum { SIDE = 90, WIDTH = 61, HEIGHT = 23, LEFT = 17, TOP = 41 };
    pd_image *picture = pattern(5, WIDTH, HEIGHT);
    pd_canvas canvas = pd_canvas_of_image(picture);
    canvas.width = SIDE;
    canvas.height = SIDE;
    canvas.left = LEFT;
    canvas.top = TOP;
    memcpy(canvas.colour, "\x7a\x74\x68", 3);
    uint8_t *stored = malloc((size_t)SIDE * SIDE * 3);
    assert_non_null(stored);
    for (int y = 0; y < SIDE; y++) {
        for (int x = 0; x < SIDE; x++) {
            const bool inside = x >= LEFT && x < LEFT + WIDTH && y >= TOP && y < TOP + HEIGHT;
            memcpy(stored + 3 * (y * SIDE + x),
                   inside ? picture->rgb + 3 * ((y - TOP) * WIDTH + x - LEFT) : canvas.colour, 3);
        }
    }
    pd_image *whole;
    assert_int_equal(pd_image_from_rgb(stored, SIDE, SIDE, &whole, NULL), PD_OK);
    free(stored);
    const pd_canvas plain = pd_canvas_of_image(whole);
    static const int32_t sizes[][2] = {{90, 90}, {31, 47}, {200, 133}, {7, 301}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const int32_t width = sizes[i][0];
        const int32_t height = sizes[i][1];
        const pd_resize_window all = {width, height, 0, 0, width, height};
        const pd_resize_window part = {width, height, width / 3, height / 4, width / 2, height / 2};
        uint8_t *expected = resize(&plain, &all);
        uint8_t *got_all = resize(&canvas, &all);
        uint8_t *got_part = resize(&canvas, &part);
        assert_memory_equal(got_all, expected, (size_t)width * (size_t)height * 3);
        for (int32_t y = 0; y < part.height; y++) {
            assert_memory_equal(got_part + 3 * y * part.width,
                                expected + 3 * ((part.top + y) * width + part.left), (size_t)part.width * 3);
        }
        free(expected);
        free(got_all);
        free(got_part);
    }
    pd_image_free(whole);
    pd_image_free(picture);
}

// ---- tiles

static const int32_t next_pinpoints[][2] = {{336, 672}, {672, 336}, {672, 672}, {1008, 336}, {336, 1008}};
static const int32_t small_pinpoints[][2] = {{112, 112}, {112, 224}, {224, 112}, {224, 224},
                                             {448, 112}, {112, 448}, {336, 224}};

static pd_preprocess_params params_of(const char *pinpoints, int32_t image_size, int32_t patch_size,
                                      const char *statistics) {
    pd_preprocess_params params = {.image_size = image_size, .patch_size = patch_size};
    static const float clip[2][3] = {{0.48145466F, 0.4578275F, 0.40821073F},
                                     {0.26862954F, 0.26130258F, 0.27577711F}};
    for (int c = 0; c < 3; c++) {
        params.mean[c] = strcmp(statistics, "clip") == 0 ? clip[0][c] : 0.5F;
        params.std[c] = strcmp(statistics, "clip") == 0 ? clip[1][c] : 0.5F;
    }
    const bool next = strcmp(pinpoints, "next") == 0;
    params.pinpoints = next ? next_pinpoints : small_pinpoints;
    params.n_pinpoints = next ? 5 : 7;
    return params;
}

static void preprocesses_as_llava(void **state) {
    (void)state;
    FILE *table = open_table("preprocess.txt");
    char line[512];
    int n_cases = 0;
    while (next_line(table, line)) {
        char *fields = line;
        const char *mode = text_field(&fields);
        const int32_t width = number_field(&fields);
        const int32_t height = number_field(&fields);
        const int32_t image_size = number_field(&fields);
        const int32_t patch_size = number_field(&fields);
        const char *statistics = text_field(&fields);
        const char *pinpoints = text_field(&fields);
        const uint32_t seed = (uint32_t)number_field(&fields);
        const int32_t n_tiles = number_field(&fields);
        const uint32_t hash = hex_field(&fields);
        pd_preprocess_params params = params_of(pinpoints, image_size, patch_size, statistics);
        params.aspect_ratio = strcmp(mode, "pad") == 0      ? PD_ASPECT_PAD
                              : strcmp(mode, "square") == 0 ? PD_ASPECT_SQUARE
                                                            : PD_ASPECT_ANYRES;
        pd_image *image = pattern(seed, width, height);
        pd_tiles tiles;
        assert_int_equal(pd_preprocess(image, &params, &tiles, NULL), PD_OK);
        assert_int_equal(tiles.layout.n_tiles, n_tiles);
        assert_int_equal(tiles.layout.n_tiles, 1 + tiles.layout.grid_width * tiles.layout.grid_height);
        assert_int_equal(tiles.image_size, image_size);
        assert_int_equal(tiles.width, width);
        assert_int_equal(tiles.height, height);
        for (int i = 0; i < 3; i++) {
            const int32_t index = number_field(&fields);
            const uint32_t bits = hex_field(&fields);
            uint32_t got;
            memcpy(&got, &tiles.data[index], sizeof got);
            if (got != bits) {
                fail_msg("%s of %dx%d: value %d is %a", mode, width, height, index,
                         (double)tiles.data[index]);
            }
        }
        const size_t n_values = (size_t)n_tiles * 3 * (size_t)image_size * (size_t)image_size;
        if (crc32_of(tiles.data, n_values * sizeof(float)) != hash) {
            fail_msg("%s of %dx%d: other values", mode, width, height);
        }
        pd_tiles_free(&tiles);
        assert_null(tiles.data);
        pd_image_free(image);
        n_cases++;
    }
    fclose(table);
    assert_true(n_cases >= 50);
}

static void lays_out_as_llava(void **state) {
    (void)state;
    FILE *table = open_table("layout.txt");
    char line[512];
    int n_cases = 0;
    while (next_line(table, line)) {
        char *fields = line;
        pd_tile_layout expected = {0};
        const char *pinpoints = text_field(&fields);
        const int32_t width = number_field(&fields);
        const int32_t height = number_field(&fields);
        expected.grid_width = number_field(&fields);
        expected.grid_height = number_field(&fields);
        expected.crop.top = number_field(&fields);
        expected.crop.left = number_field(&fields);
        expected.crop.rows = number_field(&fields);
        expected.crop.cols = number_field(&fields);
        expected.n_tokens = number_field(&fields);
        const int32_t image_size = strcmp(pinpoints, "next") == 0 ? 336 : 112;
        pd_preprocess_params params = params_of(pinpoints, image_size, 14, "clip");
        expected.n_tiles = 1 + expected.grid_width * expected.grid_height;
        expected.tile_side = image_size / 14;
        pd_tile_layout layout; // AUTO: anyres, as there are pinpoints
        assert_int_equal(pd_tile_layout_of_size(&params, width, height, &layout, NULL), PD_OK);
        assert_memory_equal(&layout, &expected, sizeof layout);
        n_cases++;
    }
    fclose(table);
    assert_true(n_cases >= 500);
}

static void lays_out_single_tiles(void **state) {
    (void)state;
    pd_preprocess_params params = params_of("next", 336, 14, "clip");
    pd_tile_layout layout;
    params.aspect_ratio = PD_ASPECT_PAD;
    assert_int_equal(pd_tile_layout_of_size(&params, 640, 480, &layout, NULL), PD_OK);
    const pd_tile_layout expected = {.n_tiles = 1, .tile_side = 24, .n_tokens = 576};
    assert_memory_equal(&layout, &expected, sizeof layout);
    params.aspect_ratio = PD_ASPECT_SQUARE;
    assert_int_equal(pd_tile_layout_of_size(&params, 1, 65500, &layout, NULL), PD_OK);
    assert_memory_equal(&layout, &expected, sizeof layout);
    // AUTO without pinpoints is pad.
    params.aspect_ratio = PD_ASPECT_AUTO;
    params.n_pinpoints = 0;
    assert_int_equal(pd_tile_layout_of_size(&params, 640, 480, &layout, NULL), PD_OK);
    assert_memory_equal(&layout, &expected, sizeof layout);
    // A patch size that leaves a rest: SigLIP's 384 / 14.
    params.image_size = 384;
    assert_int_equal(pd_tile_layout_of_size(&params, 640, 480, &layout, NULL), PD_OK);
    assert_int_equal(layout.n_tokens, 27 * 27);
}

// Shapes whose squared or resized form would take gigabytes.
static void preprocesses_extreme_shapes(void **state) {
    (void)state;
    static const int32_t sizes[][2] = {{65500, 1}, {1, 65500}, {65500, 2}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const int32_t width = sizes[i][0];
        const int32_t height = sizes[i][1];
        uint8_t *rgb = malloc((size_t)width * (size_t)height * 3);
        assert_non_null(rgb);
        memset(rgb, 200, (size_t)width * (size_t)height * 3);
        pd_image *image;
        assert_int_equal(pd_image_from_rgb(rgb, width, height, &image, NULL), PD_OK);
        free(rgb);
        pd_preprocess_params params = params_of("next", 336, 14, "halves");
        pd_tiles tiles;
        // The crop of an even surface is even.
        params.aspect_ratio = PD_ASPECT_SQUARE;
        assert_int_equal(pd_preprocess(image, &params, &tiles, NULL), PD_OK);
        const float even = ((float)(200 * (1.0 / 255.0)) - 0.5F) / 0.5F;
        for (size_t value = 0; value < 3 * 336 * 336; value++) {
            assert_true(tiles.data[value] == even);
        }
        pd_tiles_free(&tiles);
        // A line so thin vanishes in the mean colour, int(0.5 * 255), or leaves a trace in the middle.
        params.aspect_ratio = PD_ASPECT_PAD;
        assert_int_equal(pd_preprocess(image, &params, &tiles, NULL), PD_OK);
        const float mean = ((float)(127 * (1.0 / 255.0)) - 0.5F) / 0.5F;
        assert_true(tiles.data[0] == mean);
        assert_true(fabsf(tiles.data[168 * 336 + 168] - mean) < 2.0F / 127);
        pd_tiles_free(&tiles);
        params.aspect_ratio = PD_ASPECT_ANYRES;
        assert_int_equal(pd_preprocess(image, &params, &tiles, NULL), PD_OK);
        assert_true(tiles.data[0] == even);
        assert_true(tiles.data[(size_t)3 * 336 * 336] == -1.0F); // black padding
        pd_tiles_free(&tiles);
        pd_image_free(image);
    }
}

static void refuses_parameters(void **state) {
    (void)state;
    pd_image *image = pattern(1, 20, 10);
    const pd_preprocess_params good = params_of("next", 336, 14, "clip");
    pd_preprocess_params params = good;
    pd_tiles tiles;
    pd_error err;
#define REFUSED(status, field, part)                                                                         \
    do {                                                                                                     \
        assert_refused(pd_preprocess(image, &params, &tiles, &err), &err, status, field, part);              \
        assert_null(tiles.data);                                                                             \
        params = good;                                                                                       \
    } while (0)
    params.image_size = 0;
    REFUSED(PD_ERR_ARGUMENT, "clip.vision.image_size", "is 0");
    params.image_size = 1 << 20;
    REFUSED(PD_ERR_ARGUMENT, "clip.vision.image_size", "is 1048576");
    params.patch_size = 0;
    REFUSED(PD_ERR_ARGUMENT, "clip.vision.patch_size", "is 0");
    params.patch_size = 337;
    REFUSED(PD_ERR_ARGUMENT, "clip.vision.patch_size", "is 337");
    params.std[1] = 0;
    REFUSED(PD_ERR_ARGUMENT, "clip.vision.image_std[1]", "is 0");
    params.std[2] = NAN;
    REFUSED(PD_ERR_ARGUMENT, "clip.vision.image_std[2]", "nan");
    params.mean[0] = 1.5F;
    REFUSED(PD_ERR_ARGUMENT, "clip.vision.image_mean[0]", "is 1.5");
    params.mean[0] = NAN;
    REFUSED(PD_ERR_ARGUMENT, "clip.vision.image_mean[0]", "nan");
    params.aspect_ratio = (pd_aspect_ratio)7;
    REFUSED(PD_ERR_ARGUMENT, "aspect ratio", "7");
    params.aspect_ratio = PD_ASPECT_ANYRES;
    params.n_pinpoints = 0;
    REFUSED(PD_ERR_ARGUMENT, "clip.vision.image_grid_pinpoints", "empty");
    static const int32_t odd[][2] = {{336, 672}, {672, 337}};
    params.pinpoints = odd;
    params.n_pinpoints = 2;
    REFUSED(PD_ERR_UNSUPPORTED, "clip.vision.image_grid_pinpoints", "resolution 1 is 672x337");
    static const int32_t negative[][2] = {{-336, 672}};
    params.pinpoints = negative;
    params.n_pinpoints = 1;
    REFUSED(PD_ERR_UNSUPPORTED, "clip.vision.image_grid_pinpoints", "resolution 0 is -336x672");
    static const int32_t large[][2] = {{336 * 8, 336 * 8}};
    params.pinpoints = large;
    params.n_pinpoints = 1;
    REFUSED(PD_ERR_UNSUPPORTED, "clip.vision.image_grid_pinpoints", "at most 64");
    static const int32_t huge[][2] = {{336 * 6000000, 336 * 6000000}};
    params.pinpoints = huge;
    params.n_pinpoints = 1;
    REFUSED(PD_ERR_UNSUPPORTED, "clip.vision.image_grid_pinpoints", "at most 64");
#undef REFUSED
    pd_tile_layout layout;
    assert_refused(pd_tile_layout_of_size(&good, 0, 10, &layout, &err), &err, PD_ERR_ARGUMENT, "picture",
                   "0x10");
    assert_refused(pd_tile_layout_of_size(&good, 10, -1, &layout, &err), &err, PD_ERR_ARGUMENT, "picture",
                   "10x-1");
    pd_image_free(image);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_as_pillow),          cmocka_unit_test(loads_by_content_not_by_name),
        cmocka_unit_test(composites_to_nearest),      cmocka_unit_test(keeps_a_copy_of_rgb),
        cmocka_unit_test(refuses_what_is_no_picture), cmocka_unit_test(refuses_sizes_by_header),
        cmocka_unit_test(refuses_kinds_of_jpeg),      cmocka_unit_test(refuses_every_cut),
        cmocka_unit_test(says_that_a_file_is_cut),    cmocka_unit_test(survives_damage),
        cmocka_unit_test(reads_orientation),          cmocka_unit_test(turns_upright),
        cmocka_unit_test(resizes_as_pillow),          cmocka_unit_test(resizes_windows_of_canvases),
        cmocka_unit_test(preprocesses_as_llava),      cmocka_unit_test(lays_out_as_llava),
        cmocka_unit_test(lays_out_single_tiles),      cmocka_unit_test(preprocesses_extreme_shapes),
        cmocka_unit_test(refuses_parameters),
    };
    return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
