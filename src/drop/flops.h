// What a run costs, counted (docs/algorithm.md, section 7). Two figures: the field's convention, and all
// there is.
#pragma once

#include "drop/schedule.h"
#include "model/hyperparameters.h"

// The field's convention: multiply-accumulates of the image tokens in the decoder's layers,
// 4·n·d² + 2·n²·d + 3·n·d·m for a layer with n image tokens, hidden size d and FFN size m.
double pd_image_macs(const pd_decoder_hyperparameters *h, const pd_schedule *schedule);

// True FLOPs, 2 for a multiply-accumulate of a matrix product; norms and activations are left out, and
// attention counts all n_keys keys of a row, masked or not. A decoder layer over n_rows rows, whose output is
// computed for the last n_queries of them.
double pd_layer_flops(const pd_decoder_hyperparameters *h, int32_t n_rows, int32_t n_queries);
// Layers first … end − 1 of `h`'s decoder in prefill: its last layer is computed for the last row only.
double pd_layers_flops(const pd_decoder_hyperparameters *h, int32_t first, int32_t end, int32_t n_rows);
// Ranking n_rows rows of which n_kept live on: the query, its scores, and the keys of the rows that are
// dropped (the others' serve the next layer). FastV's keys all serve the layer that is run: n_kept = n_rows.
double pd_rank_flops(const pd_decoder_hyperparameters *h, int32_t n_rows, int32_t n_kept);
// The output head for one row.
double pd_output_flops(const pd_decoder_hyperparameters *h);
// One tile through the tower, and through a projector of inner size `hidden` into the decoder's n_embd.
double pd_vision_tower_flops(const pd_vision_hyperparameters *h);
double pd_projector_flops(const pd_vision_hyperparameters *h, int64_t hidden, int32_t n_embd);
// The decoder's prefill: layers, ranking where `policy` asks for it, output head.
double pd_prefill_flops(const pd_decoder_hyperparameters *h, const pd_policy *policy,
                        const pd_schedule *schedule);
// Ranking at the end of stage − 1: 0 where nothing is dropped or nobody is asked.
double pd_stage_rank_flops(const pd_decoder_hyperparameters *h, const pd_policy *policy,
                           const pd_schedule *schedule, int32_t stage);
