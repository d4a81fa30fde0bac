// Any bytes as a picture: decoded, and cut into tiles in every way.
#include "image/image.h"
#include "image/preprocess.h"

#include <stdlib.h>

// Enough to meet every path, and few enough to be quick.
#define MAX_PIXELS ((uint64_t)1 << 16)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const int32_t pinpoints[][2] = {{16, 32}, {32, 16}, {32, 32}, {48, 16}, {16, 48}};
    static const pd_aspect_ratio aspect_ratios[] = {PD_ASPECT_PAD, PD_ASPECT_SQUARE, PD_ASPECT_ANYRES};
    const pd_encoded_image encoded = {data, size, "fuzz", MAX_PIXELS};
    pd_image *image;
    pd_error err;
    if (pd_image_decode_encoded(&encoded, &image, &err) != PD_OK) {
        if (image) abort();
        return 0;
    }
    for (size_t i = 0; i < sizeof aspect_ratios / sizeof aspect_ratios[0]; i++) {
        const pd_preprocess_params params = {
            .image_size = 16,
            .patch_size = 4,
            .mean = {0.5F, 0.4F, 0.3F},
            .std = {0.2F, 0.3F, 0.4F},
            .n_pinpoints = sizeof pinpoints / sizeof pinpoints[0],
            .pinpoints = pinpoints,
            .aspect_ratio = aspect_ratios[i],
        };
        pd_tiles tiles;
        if (pd_preprocess(image, &params, &tiles, &err) != PD_OK) abort(); // every picture has its tiles
        const pd_feature_crop crop = tiles.layout.crop;
        if (crop.top < 0 || crop.left < 0 || crop.rows < 0 || crop.cols < 0) abort();
        if (crop.top + crop.rows > tiles.layout.grid_height * 4) abort();
        if (crop.left + crop.cols > tiles.layout.grid_width * 4) abort();
        pd_tiles_free(&tiles);
    }
    pd_image_free(image);
    return 0;
}
