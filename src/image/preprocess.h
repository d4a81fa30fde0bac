// From a picture to the tiles that CLIP sees, exactly as the models were trained: LLaVA's mm_utils.py and
// llava_arch.py on top of transformers' CLIPImageProcessor (its Pillow and NumPy version).
#pragma once

#include "base/error.h"

// The most tiles of one picture, the base tile among them.
#define PD_MAX_TILES 64
// The largest image_size, pixels.
#define PD_MAX_IMAGE_SIZE 4096

typedef struct pd_preprocess_params {
    int32_t image_size; // side of a tile, pixels: clip.vision.image_size
    int32_t patch_size; // side of a ViT patch, pixels: clip.vision.patch_size
    float mean[3];      // of R, G, B in [0, 1]: clip.vision.image_mean
    float std[3];       // clip.vision.image_std
    int32_t n_pinpoints;
    // (width, height) pairs in pixels, each a multiple of image_size, in the model's order, which decides
    // ties: clip.vision.image_grid_pinpoints, as in LLaVA's config.json. (transformers' LlavaNext reads the
    // same list as (height, width).) Not owned.
    const int32_t (*pinpoints)[2];
    // AUTO is ANYRES with pinpoints, and PAD without.
    //   PAD     LLaVA-1.5: squared with the mean colour (expand2square), resized to image_size x image_size
    //   SQUARE  CLIP: shortest side resized to image_size, centre cropped
    //   ANYRES  LLaVA-NeXT (process_anyres_image): a base tile of the whole picture, then the picture scaled
    //   into
    //           the best pinpoint resolution, centred on black, cut into tiles
    pd_aspect_ratio aspect_ratio;
} pd_preprocess_params;

// A rectangle of a feature map, in tokens. rows or cols may be 0 for extreme shapes, as in LLaVA.
typedef struct pd_feature_crop {
    int32_t top;
    int32_t left;
    int32_t rows;
    int32_t cols;
} pd_feature_crop;

// What a picture of a given size becomes.
typedef struct pd_tile_layout {
    int32_t n_tiles;    // 1, or 1 + grid_width * grid_height
    int32_t grid_width; // tiles across and down; 0 when there is only the base tile
    int32_t grid_height;
    int32_t tile_side; // tokens along a tile's side: image_size / patch_size
    // Of the (grid_height * tile_side) x (grid_width * tile_side) feature map the part that stays; zeros when
    // there is only the base tile.
    pd_feature_crop crop;
    // tile_side^2 of the base tile, and crop.rows rows of crop.cols tokens with one newline token behind
    // each.
    int32_t n_tokens;
} pd_tile_layout;

// For a picture of width x height, without looking at it. PD_ERR_ARGUMENT or PD_ERR_UNSUPPORTED for
// parameters out of range: an empty size, a pinpoint that is not a multiple of image_size, more than
// PD_MAX_TILES tiles.
pd_status pd_tile_layout_of_size(const pd_preprocess_params *params, int32_t width, int32_t height,
                                 pd_tile_layout *layout, pd_error *err);

// The part of a map_rows x map_cols feature map that belongs to a picture of width x height and not to its
// padding: LLaVA's unpad_image. transformers' rounds the scaled side to 7 decimals before truncating it,
// which differs in about 1 of 100,000 sizes (836x352 in 72x24 tokens: LLaVA keeps 24x56, transformers 24x58);
// this follows LLaVA.
pd_feature_crop pd_spatial_unpad(int32_t map_rows, int32_t map_cols, int32_t width, int32_t height);

typedef struct pd_tiles {
    pd_tile_layout layout;
    int32_t image_size;
    int32_t width; // of the picture, pixels
    int32_t height;
    float *
        data; // [n_tiles][3][image_size][image_size]: base tile first, then row by row; R, G, B planes; owned
} pd_tiles;

// On success the caller frees *tiles with pd_tiles_free; on failure there is nothing to free.
// Values equal the reference's float32 values bit for bit.
pd_status pd_preprocess(const pd_image *image, const pd_preprocess_params *params, pd_tiles *tiles,
                        pd_error *err);
void pd_tiles_free(pd_tiles *tiles);

// Between layout.c and preprocess.c
// ------------------------------------------------------------------------------

// The aspect ratio with AUTO resolved.
pd_aspect_ratio pd_preprocess_aspect_ratio(const pd_preprocess_params *params);
// The index of the pinpoint for a picture of width x height: LLaVA's select_best_resolution.
// There is at least one.
int32_t pd_select_best_resolution(const pd_preprocess_params *params, int32_t width, int32_t height);
