// The vision tower (CLIP's ViT) and LLaVA's projector, as graphs.
#pragma once

#include "model/weights.h"

// pixels: f32 [image_size, image_size, 3], one normalised tile, planar RGB.
// Returns the features of the feature layer, without the class token: [n_embd, n_patches], row by row of the
// tile.
struct ggml_tensor *pd_vision_tower(struct ggml_context *ctx, const pd_vision_weights *weights,
                                    struct ggml_tensor *pixels, bool flash);

// mlp2x_gelu: [vision n_embd, n] → [decoder n_embd, n].
struct ggml_tensor *pd_projector(struct ggml_context *ctx, const pd_vision_weights *weights,
                                 struct ggml_tensor *features);

// An upper bound of the nodes and leaves of both graphs together.
size_t pd_vision_graph_size(const pd_vision_weights *weights);
