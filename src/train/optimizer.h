// AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101), as torch.optim.AdamW computes it,
// over the parameters' gradients, by ggml's threads.
#pragma once

#include "train/parameters.h"

typedef struct pd_optimizer pd_optimizer;

typedef struct pd_adamw_params {
    float beta1, beta2, epsilon;
    float weight_decay;
    float learning_rates[PD_GROUP_COUNT];
    float gradient_scale; // gradients are multiplied by this first: 1, or less where they are clipped
    int64_t step;         // from 1: bias correction
} pd_adamw_params;

pd_status pd_optimizer_create(const pd_parameters *parameters, const pd_backend *backend,
                              pd_optimizer **optimizer, pd_error *err);
void pd_optimizer_free(pd_optimizer *optimizer);

// The norm of all gradients together. The same for the same number of threads.
pd_status pd_optimizer_gradient_norm(pd_optimizer *optimizer, double *norm, pd_error *err);
// One step, whole even when it is cancelled; the gradients are zero afterwards.
//     w ← w (1 − lr λ);  m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²
//     w ← w − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
pd_status pd_optimizer_step(pd_optimizer *optimizer, const pd_adamw_params *params, pd_error *err);
