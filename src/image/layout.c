// How many tiles and tokens a picture becomes. Arithmetic in double, operation by operation as Python does
// it, so that every truncation falls the same way.
#include "image/preprocess.h"

#include <math.h>

pd_aspect_ratio pd_preprocess_aspect_ratio(const pd_preprocess_params *params) {
    if (params->aspect_ratio != PD_ASPECT_AUTO) return params->aspect_ratio;
    return params->n_pinpoints > 0 ? PD_ASPECT_ANYRES : PD_ASPECT_PAD;
}

int32_t pd_select_best_resolution(const pd_preprocess_params *params, int32_t width, int32_t height) {
    const int64_t n_pixels = (int64_t)width * height;
    int64_t most_effective = 0;
    int64_t least_wasted = INT64_MAX;
    int32_t best = 0;
    for (int32_t i = 0; i < params->n_pinpoints; i++) {
        const int32_t *pinpoint = params->pinpoints[i];
        const double scale = fmin((double)pinpoint[0] / width, (double)pinpoint[1] / height);
        const int64_t scaled = (int64_t)(width * scale) * (int64_t)(height * scale);
        const int64_t effective = scaled < n_pixels ? scaled : n_pixels;
        const int64_t wasted = (int64_t)pinpoint[0] * pinpoint[1] - effective;
        if (effective > most_effective || (effective == most_effective && wasted < least_wasted)) {
            most_effective = effective;
            least_wasted = wasted;
            best = i;
        }
    }
    return best;
}

pd_feature_crop pd_spatial_unpad(int32_t map_rows, int32_t map_cols, int32_t width, int32_t height) {
    pd_feature_crop crop = {0, 0, map_rows, map_cols};
    if ((double)width / height > (double)map_cols / map_rows) {
        const int32_t rows = (int32_t)(height * ((double)map_cols / width));
        crop.top = (map_rows - rows) / 2;
        crop.rows = map_rows - 2 * crop.top;
    } else {
        const int32_t cols = (int32_t)(width * ((double)map_rows / height));
        crop.left = (map_cols - cols) / 2;
        crop.cols = map_cols - 2 * crop.left;
    }
    return crop;
}

static pd_status check_params(const pd_preprocess_params *params, pd_error *err) {
    if (params->image_size < 1 || params->image_size > PD_MAX_IMAGE_SIZE) {
        return pd_fail(err, PD_ERR_ARGUMENT, "clip.vision.image_size is %d: expected 1 to %d",
                       params->image_size, PD_MAX_IMAGE_SIZE);
    }
    if (params->patch_size < 1 || params->patch_size > params->image_size) {
        return pd_fail(err, PD_ERR_ARGUMENT, "clip.vision.patch_size is %d: expected 1 to the image size, %d",
                       params->patch_size, params->image_size);
    }
    for (int c = 0; c < 3; c++) {
        if (!(params->mean[c] >= 0 && params->mean[c] <= 1)) {
            return pd_fail(err, PD_ERR_ARGUMENT, "clip.vision.image_mean[%d] is %g: expected 0 to 1", c,
                           (double)params->mean[c]);
        }
        if (!(params->std[c] > 0 && isfinite(params->std[c]))) {
            return pd_fail(err, PD_ERR_ARGUMENT, "clip.vision.image_std[%d] is %g: expected more than 0", c,
                           (double)params->std[c]);
        }
    }
    return PD_OK;
}

static pd_status check_pinpoints(const pd_preprocess_params *params, pd_error *err) {
    const int32_t side = params->image_size;
    if (params->n_pinpoints < 1 || !params->pinpoints) {
        pd_fail(err, PD_ERR_ARGUMENT,
                "clip.vision.image_grid_pinpoints is empty: expected resolutions for anyres");
        return PD_ERR_ARGUMENT;
    }
    for (int32_t i = 0; i < params->n_pinpoints; i++) {
        const int32_t width = params->pinpoints[i][0];
        const int32_t height = params->pinpoints[i][1];
        if (width < 1 || height < 1 || width % side != 0 || height % side != 0) {
            return pd_fail(
                err, PD_ERR_UNSUPPORTED,
                "clip.vision.image_grid_pinpoints: resolution %d is %dx%d: expected multiples of %d", i,
                width, height, side);
        }
        if ((int64_t)(width / side) * (height / side) > PD_MAX_TILES - 1) {
            return pd_fail(
                err, PD_ERR_UNSUPPORTED,
                "clip.vision.image_grid_pinpoints: resolution %d is %dx%d, %dx%d tiles: expected at "
                "most %d with the base tile",
                i, width, height, width / side, height / side, PD_MAX_TILES);
        }
    }
    return PD_OK;
}

pd_status pd_tile_layout_of_size(const pd_preprocess_params *params, int32_t width, int32_t height,
                                 pd_tile_layout *layout, pd_error *err) {
    *layout = (pd_tile_layout){0};
    if (width < 1 || height < 1) {
        return pd_fail(err, PD_ERR_ARGUMENT, "a picture of %dx%d pixels: expected at least 1x1", width,
                       height);
    }
    pd_status status = check_params(params, err);
    if (status != PD_OK) return status;
    const pd_aspect_ratio aspect_ratio = pd_preprocess_aspect_ratio(params);
    if (aspect_ratio != PD_ASPECT_PAD && aspect_ratio != PD_ASPECT_SQUARE &&
        aspect_ratio != PD_ASPECT_ANYRES) {
        return pd_fail(err, PD_ERR_ARGUMENT, "aspect ratio %d: expected pad, square or anyres",
                       (int)aspect_ratio);
    }
    if (aspect_ratio == PD_ASPECT_ANYRES) {
        status = check_pinpoints(params, err);
        if (status != PD_OK) return status;
    }

    const int32_t side = params->image_size / params->patch_size;
    layout->n_tiles = 1;
    layout->tile_side = side;
    layout->n_tokens = side * side;
    if (aspect_ratio != PD_ASPECT_ANYRES) return PD_OK;
    const int32_t *resolution = params->pinpoints[pd_select_best_resolution(params, width, height)];
    layout->grid_width = resolution[0] / params->image_size;
    layout->grid_height = resolution[1] / params->image_size;
    layout->n_tiles += layout->grid_width * layout->grid_height;
    layout->crop = pd_spatial_unpad(layout->grid_height * side, layout->grid_width * side, width, height);
    layout->n_tokens += layout->crop.rows * (layout->crop.cols + 1);
    return PD_OK;
}
