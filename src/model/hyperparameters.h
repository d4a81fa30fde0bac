// What a GGUF pair says of its model, read and bounded before anything is built from it.
#pragma once

#include "base/gguf_file.h"

typedef enum pd_rope_scaling { PD_ROPE_NONE, PD_ROPE_LINEAR, PD_ROPE_YARN } pd_rope_scaling;

// The decoder: architectures `llama` and `qwen2`.
typedef struct pd_decoder_hyperparameters {
    const char *architecture;
    int32_t n_layers;
    int32_t n_embd; // hidden size
    int32_t n_ff;   // FFN's inner size
    int32_t n_heads;
    int32_t n_kv_heads; // divides n_heads
    int32_t head_dim;   // of queries, keys and values
    int32_t n_vocab;
    int32_t n_ctx_train;
    bool tied_embeddings; // the embedding is the output matrix too
    float rms_epsilon;
    int32_t rope_mode; // ggml's GGML_ROPE_TYPE_NORMAL (llama) or GGML_ROPE_TYPE_NEOX (qwen2)
    int32_t rope_dim;
    float rope_base;
    pd_rope_scaling rope_scaling;
    float rope_factor;           // how far the context was stretched
    int32_t rope_original_ctx;   // YaRN
    float yarn_attention_factor; // YaRN: multiplies the magnitude ggml gives
    float yarn_beta_fast, yarn_beta_slow;
} pd_decoder_hyperparameters;

pd_status pd_decoder_hyperparameters_read(const pd_gguf *gguf, pd_decoder_hyperparameters *h, pd_error *err);

enum { PD_MAX_PINPOINTS = 64, PD_MAX_GRID_TILES = 63, PD_MAX_GRID_PIXELS = 1 << 26 };
#define PD_LEAST_STD 1e-6F
#define PD_MOST_STD  1e3F

// The vision tower (CLIP ViT) and the projector (mlp2x_gelu).
typedef struct pd_vision_hyperparameters {
    int32_t image_size; // pixels a side, a multiple of patch_size
    int32_t patch_size;
    int32_t n_embd;
    int32_t n_ff;
    int32_t n_heads;
    int32_t n_layers;     // in the file
    int32_t n_layers_run; // up to the feature layer
    bool swapped_ffn;     // LLaVA's first converter: fc1 is called ffn_down and fc2 ffn_up
    float epsilon;
    bool exact_gelu; // else quick GELU: x · sigmoid(1.702 x)
    float mean[3], std[3];
    int32_t n_pinpoints;                    // 0: no anyres
    int32_t pinpoints[PD_MAX_PINPOINTS][2]; // width, height in pixels
    bool spatial_unpad;
} pd_vision_hyperparameters;

pd_status pd_vision_hyperparameters_read(const pd_gguf *gguf, pd_vision_hyperparameters *h, pd_error *err);

// Whether a grid of this width and height has few enough tiles and pixels.
bool pd_vision_grid_fits(const pd_vision_hyperparameters *h, const int32_t pinpoint[2]);
// How many patches a tile has.
int32_t pd_vision_n_patches(const pd_vision_hyperparameters *h);
