// JPEG by libjpeg-turbo, with its defaults (accurate integer DCT, fancy upsampling), which are Pillow's too.
#include "image/image.h"

#include <setjmp.h>
#include <stdio.h> // jpeglib.h needs it
#include <string.h>

#include <jpeglib.h>

#include <jerror.h> // its codes depend on what jpeglib.h says of the library

// A progressive file can ask for any number of passes over the whole picture in a few bytes each.
#define MAX_SCANS 500

typedef struct {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf escape; // where a failure inside libjpeg goes
    const pd_encoded_image *encoded;
    pd_image *image;
    int32_t orientation;
    pd_status status;
    pd_error *err;
} jpeg_decoder;

static _Noreturn void fail(jpeg_decoder *decoder, pd_status status, const char *reason) {
    decoder->status = pd_fail(decoder->err, status, "%s: JPEG: %s", decoder->encoded->name, reason);
    longjmp(decoder->escape, 1);
}

static _Noreturn void on_error(j_common_ptr cinfo) {
    jpeg_decoder *decoder = cinfo->client_data;
    char reason[JMSG_LENGTH_MAX];
    cinfo->err->format_message(cinfo, reason);
    switch (cinfo->err->msg_code) {
    case JERR_IMAGE_TOO_BIG:
        decoder->status = pd_image_check_size(decoder->encoded, "JPEG", decoder->cinfo.image_width,
                                              decoder->cinfo.image_height, decoder->err);
        if (decoder->status != PD_OK) longjmp(decoder->escape, 1);
        fail(decoder, PD_ERR_UNSUPPORTED, reason);
    case JERR_OUT_OF_MEMORY:
        fail(decoder, PD_ERR_MEMORY, reason);
    case JERR_ARITH_NOTIMPL:
    case JERR_BAD_PRECISION:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_FRACT_SAMPLE_NOTIMPL:
    case JERR_NOTIMPL:
    case JERR_NOT_COMPILED:
    case JERR_SOF_UNSUPPORTED:
        fail(decoder, PD_ERR_UNSUPPORTED, reason);
    default:
        fail(decoder, PD_ERR_FORMAT, reason);
    }
}

// libjpeg reports damaged or missing picture data as a warning and fills the gap with grey. Here it is an
// error; remarks on headers and on stray bytes between markers are not.
static void on_message(j_common_ptr cinfo, int level) {
    if (level >= 0) return; // a trace
    switch (cinfo->err->msg_code) {
    case JWRN_JPEG_EOF:
        fail(cinfo->client_data, PD_ERR_FORMAT, "the file ends before the picture does");
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC: {
        char reason[JMSG_LENGTH_MAX];
        cinfo->err->format_message(cinfo, reason);
        fail(cinfo->client_data, PD_ERR_FORMAT, reason);
    }
    default:
        break;
    }
}

static void on_progress(j_common_ptr cinfo) {
    jpeg_decoder *decoder = cinfo->client_data;
    if (decoder->cinfo.input_scan_number > MAX_SCANS) {
        fail(decoder, PD_ERR_UNSUPPORTED, "too many scans");
    }
}

// Inverted CMYK, as every JPEG writer stores it, by the formula of Pillow: no colour profile is looked at.
static void cmyk_to_rgb(const uint8_t *cmyk, uint8_t *rgb, size_t n_pixels) {
    for (size_t i = 0; i < n_pixels; i++, cmyk += 4, rgb += 3) {
        uint32_t white = cmyk[3]; // 255 - K
        for (int c = 0; c < 3; c++) {
            uint32_t ink = (255U - cmyk[c]) * white + 128;
            rgb[c] = (uint8_t)(white - ((ink + (ink >> 8)) >> 8));
        }
    }
}

static void read_header(jpeg_decoder *decoder) {
    struct jpeg_decompress_struct *cinfo = &decoder->cinfo;
    jpeg_create_decompress(cinfo);
    cinfo->progress = &decoder->progress;
    jpeg_mem_src(cinfo, decoder->encoded->bytes, decoder->encoded->size);
    jpeg_save_markers(cinfo, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(cinfo, TRUE);
    for (jpeg_saved_marker_ptr marker = cinfo->marker_list; marker; marker = marker->next) {
        if (marker->data_length < 6 || memcmp(marker->data, "Exif\0\0", 6) != 0) continue;
        decoder->orientation = pd_exif_orientation(marker->data, marker->data_length);
        break;
    }
    switch (cinfo->jpeg_color_space) {
    case JCS_GRAYSCALE:
    case JCS_RGB:
    case JCS_YCbCr:
        cinfo->out_color_space = JCS_RGB;
        break;
    case JCS_CMYK:
    case JCS_YCCK:
        cinfo->out_color_space = JCS_CMYK;
        break;
    default: {
        char reason[64];
        snprintf(reason, sizeof reason, "%d colour components: expected 1, 3 or 4", cinfo->num_components);
        fail(decoder, PD_ERR_UNSUPPORTED, reason);
    }
    }
}

static void read_rows(jpeg_decoder *decoder) {
    struct jpeg_decompress_struct *cinfo = &decoder->cinfo;
    jpeg_start_decompress(cinfo);
    const size_t width = cinfo->output_width;
    const bool is_cmyk = cinfo->out_color_space == JCS_CMYK;
    JSAMPARRAY cmyk = NULL;
    if (is_cmyk) {
        cmyk = cinfo->mem->alloc_sarray((j_common_ptr)cinfo, JPOOL_IMAGE, cinfo->output_width * 4, 1);
    }
    while (cinfo->output_scanline < cinfo->output_height) {
        JSAMPROW row = decoder->image->rgb + (size_t)cinfo->output_scanline * width * 3;
        jpeg_read_scanlines(cinfo, is_cmyk ? cmyk : &row, 1);
        if (is_cmyk) cmyk_to_rgb(cmyk[0], row, width);
    }
    jpeg_finish_decompress(cinfo); // reads on to the end-of-image marker
}

// Nothing local changes between setjmp and longjmp: all state is in *decoder.
static void decode(jpeg_decoder *decoder) {
    if (setjmp(decoder->escape) != 0) return; // fail has set decoder->status
    read_header(decoder);
    decoder->status = pd_image_new(decoder->encoded, "JPEG", decoder->cinfo.image_width,
                                   decoder->cinfo.image_height, 3, &decoder->image, decoder->err);
    if (decoder->status == PD_OK) read_rows(decoder);
}

pd_status pd_jpeg_decode(const pd_encoded_image *encoded, pd_image **image, int32_t *orientation,
                         pd_error *err) {
    jpeg_decoder decoder = {.encoded = encoded, .orientation = 1, .err = err};
    decoder.cinfo.err = jpeg_std_error(&decoder.errors);
    decoder.errors.error_exit = on_error;
    decoder.errors.emit_message = on_message;
    decoder.progress.progress_monitor = on_progress;
    decoder.cinfo.client_data = &decoder;
    decode(&decoder);
    jpeg_destroy_decompress(&decoder.cinfo);
    if (decoder.status != PD_OK) {
        pd_image_free(decoder.image);
        decoder.image = NULL;
    }
    *image = decoder.image;
    *orientation = decoder.orientation;
    return decoder.status;
}
