// The order of samples, and how ranks share it: LLaVA's training with transformers' Trainer, without its
// state.
//
// An epoch is an order of all samples, a pure function of (seed, epoch). A step takes the next
//     batch_size * gradient_accumulation_steps * world_size
// of it: chunk m * world_size + r, of batch_size samples, is rank r's micro-batch m. The same samples make a
// step however many ranks share it, as long as the product stays. The last step of an epoch takes what is
// left (dataloader_drop_last is false in LLaVA), so that its micro-batches may be smaller or empty; with
// drop_last the rest of the order is left out. Nothing is repeated to fill a step, and none crosses an epoch.
// (Behind Trainer, accelerate fills the ranks' last batches with samples of the epoch's start.)
//
// A rank sees its samples as one sequence over all epochs. A position in it is all that must be kept to go
// on.
#pragma once

#include "base/error.h"

// Plain data; the functions below only read it, so threads may share it.
typedef struct pd_sampler {
    int32_t n_samples;
    // With group_by_modality_length: pd_dataset_lengths(), [n_samples], not owned; else it is not looked at.
    const int32_t *lengths;
    bool group_by_modality_length;
    bool drop_last;
    uint64_t seed;
    int32_t batch_size; // per_device_train_batch_size
    int32_t gradient_accumulation_steps;
    int32_t world_size;
} pd_sampler;

// Whether all numbers are in their ranges: PD_ERR_ARGUMENT for one that is not, and where a rank would never
// get a sample.
pd_status pd_sampler_check(const pd_sampler *sampler, pd_error *err);

// The order of an epoch: [n_samples] indices, a permutation.
//
// Uniformly shuffled; or, with group_by_modality_length, as LLaVA's get_modality_length_grouped_indices
// (llava/train/llava_trainer.py): shuffled within each modality, cut into megabatches of a step's size, each
// sorted by length and dealt out to its chunks so that they are about equally long; the megabatches of both
// modalities shuffled, and what is left of both behind them. A length of 0, where LLaVA stops, counts as
// text.
pd_status pd_sampler_order(const pd_sampler *sampler, int64_t epoch, int32_t *order, pd_error *err);

int64_t pd_sampler_steps_per_epoch(const pd_sampler *sampler);
// How many samples of an epoch are the rank's.
int64_t pd_sampler_epoch_size(const pd_sampler *sampler, int32_t rank);
// Where in the epoch's order the rank's k-th sample stands, k < pd_sampler_epoch_size().
int64_t pd_sampler_place(const pd_sampler *sampler, int32_t rank, int64_t k);
// Micro-batch `micro` (0 … gradient_accumulation_steps - 1) of a step, steps counted over all epochs: the
// position of its first sample in the rank's sequence, and how many it has, maybe none.
void pd_sampler_batch(const pd_sampler *sampler, int32_t rank, int64_t step, int32_t micro, int64_t *position,
                      int32_t *count);
