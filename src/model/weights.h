// The weights of a GGUF pair: mapped from the files, every name, shape and type checked against the
// hyper-parameters, and placed where a device can use them.
#pragma once

#include "model/hyperparameters.h"

#include <ggml-backend.h>

// Shapes are ggml's: ne[0] first. Optional tensors are NULL when the file has none.
typedef struct pd_decoder_layer {
    struct ggml_tensor *attn_norm;  // [n_embd]
    struct ggml_tensor *q, *q_bias; // [n_embd, n_heads * head_dim], [n_heads * head_dim]
    struct ggml_tensor *k, *k_bias; // [n_embd, n_kv_heads * head_dim]
    struct ggml_tensor *v, *v_bias;
    struct ggml_tensor *o, *o_bias; // [n_heads * head_dim, n_embd]
    struct ggml_tensor *ffn_norm;   // [n_embd]
    struct ggml_tensor *gate, *up;  // [n_embd, n_ff]
    struct ggml_tensor *down;       // [n_ff, n_embd]
} pd_decoder_layer;

typedef struct pd_decoder_weights {
    pd_decoder_hyperparameters h;
    struct ggml_tensor *token_embedding; // [n_embd, n_vocab]
    struct ggml_tensor *output_norm;     // [n_embd]
    struct ggml_tensor *output;          // [n_embd, n_vocab]; the embedding itself where they are tied
    struct ggml_tensor *rope_factors;    // [rope_dim / 2] or NULL: LLaMA-3's frequency factors
    pd_decoder_layer *layers;            // h.n_layers, owned
    // Instead of ggml_mul_mat(weight, x) in the layers, such as a product with low-rank adapters; or NULL.
    struct ggml_tensor *(*product)(struct ggml_context *ctx, struct ggml_tensor *weight,
                                   struct ggml_tensor *x, void *user);
    void *product_user;
} pd_decoder_weights;

typedef struct pd_vision_layer {
    struct ggml_tensor *ln1, *ln1_bias;
    struct ggml_tensor *q, *q_bias, *k, *k_bias, *v, *v_bias, *o, *o_bias; // [n_embd, n_embd], [n_embd]
    struct ggml_tensor *ln2, *ln2_bias;
    struct ggml_tensor *up, *up_bias;     // [n_embd, n_ff]
    struct ggml_tensor *down, *down_bias; // [n_ff, n_embd]
} pd_vision_layer;

typedef struct pd_vision_weights {
    pd_vision_hyperparameters h;
    struct ggml_tensor *class_embedding;    // [n_embd]
    struct ggml_tensor *patch_embedding;    // [patch, patch, 3, n_embd]
    struct ggml_tensor *position_embedding; // [n_embd, 1 + patches], the class token's first
    struct ggml_tensor *pre_norm, *pre_norm_bias;
    pd_vision_layer *layers;            // h.n_layers_run, owned
    struct ggml_tensor *mm0, *mm0_bias; // projector: [n_embd, hidden], [hidden]
    struct ggml_tensor *mm2, *mm2_bias; // [hidden, decoder's n_embd]
    struct ggml_tensor *image_newline;  // [decoder's n_embd]; NULL without anyres
} pd_vision_weights;

typedef struct pd_weights {
    pd_gguf text_file, vision_file;
    bool has_vision;
    pd_decoder_weights decoder;
    pd_vision_weights vision;
    ggml_backend_dev_t device;
    ggml_backend_buffer_t buffers[4];
    int32_t n_buffers;
} pd_weights;

// mmproj_path NULL: text only. On the CPU the tensors point into the mapped files; another device gets a
// copy.
pd_status pd_weights_load(const char *model_path, const char *mmproj_path, ggml_backend_dev_t device,
                          pd_weights *weights, pd_error *err);
void pd_weights_free(pd_weights *weights);
// Bytes of the mapped files.
size_t pd_weights_mapped_bytes(const pd_weights *weights);
