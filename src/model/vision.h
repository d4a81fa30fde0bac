// The vision tower (CLIP's ViT) and LLaVA's projector, as graphs.
#pragma once

#include "model/attention.h"
#include "model/weights.h"

// pixels: f32 [image_size, image_size, 3, n_tiles], normalised tiles, planar RGB.
// Returns the features of the feature layer: [n_embd, (1 + n_patches) * n_tiles]; of every tile the class
// token, then its patches row by row. attention: who attends; NULL: pd_attend, which sees one tile.
struct ggml_tensor *pd_vision_tower(struct ggml_context *ctx, const pd_vision_weights *weights,
                                    struct ggml_tensor *pixels, bool flash, const pd_attender *attention);

// mlp2x_gelu: [vision n_embd, n] → [decoder n_embd, n].
struct ggml_tensor *pd_projector(struct ggml_context *ctx, const pd_vision_weights *weights,
                                 struct ggml_tensor *features);

// An upper bound of the nodes and leaves of both graphs together.
size_t pd_vision_graph_size(const pd_vision_weights *weights);
