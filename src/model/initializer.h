// What weights a training from scratch begins with, tensor by tensor.
//
// Decoder: transformers' LlamaPreTrainedModel: matrices and embeddings N(0, initializer_range), norms 1,
// biases 0; and GPT-2's rule (Radford et al. 2019, section 2.3): the matrices that write into the residual
// stream, attn_output and ffn_down, divided by sqrt(2 n_layers). Vision tower: transformers'
// CLIPPreTrainedModel._init_weights; positions may have a range of their own, for beside embedded patches the
// usual one is next to nothing. Projector: PyTorch's nn.Linear, U(-1/sqrt(n_in), 1/sqrt(n_in)), biases too;
// image_newline as LLaVA makes it, N(0, 1/sqrt(n_embd)).
#pragma once

#include "model/geometry.h"

#include <ggml.h>

// The words of config.json; the vision tower's are those of its vision_config.
typedef struct pd_initializer {
    float range; // initializer_range
    float vision_range;
    float position_range;    // position_initializer_range; 0: as vision_range
    float vision_factor;     // initializer_factor
    int32_t n_vision_layers; // num_hidden_layers, those behind the feature layer too
} pd_initializer;

// transformers' defaults: ranges 0.02, factor 1.
pd_initializer pd_initializer_default(const pd_geometry *geometry);

typedef enum pd_distribution { PD_CONSTANT, PD_NORMAL, PD_UNIFORM } pd_distribution;

// A tensor's elements one after the other, in the order of memory. They depend on the seed and on the
// tensor's name alone, not on what other tensors there are.
typedef struct pd_initial_values {
    pd_distribution distribution;
    float scale;    // the constant; the standard deviation; the bound on either side of 0
    uint64_t state; // of the random numbers
    double spare;   // normal numbers come in pairs
    bool has_spare;
} pd_initial_values;

// n_layers: the decoder's.
pd_initial_values pd_initial_values_of(const char *tensor_name, const pd_initializer *initializer,
                                       const pd_geometry *geometry, int32_t n_layers, uint64_t seed);
// The next n elements.
void pd_initial_values_next(pd_initial_values *values, float *out, size_t n);
