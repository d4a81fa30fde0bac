// Rank: how much the last instruction token attends to every live row (docs/algorithm.md, section 3).
#pragma once

#include "model/decoder.h"

// rows: the live rows at the input of layer `index`; rows->normed and rows->keys are filled, and the layer
// may use them again. positions: i32 [n], those the rows had in the stage that is ending. The asking token is
// the last row. Returns f32 [n]: the mean over query heads of its attention probabilities. Needs one query
// row, so it costs 2·n·d and never an n × n matrix.
struct ggml_tensor *pd_rank(struct ggml_context *ctx, const pd_decoder_weights *weights, int32_t index,
                            pd_rows *rows, struct ggml_tensor *positions);
