// The weights that training changes: copied out of the model's files into f32, with their gradients and the
// optimiser's moments beside them. Everything else stays mapped, in whatever type it is stored.
#pragma once

#include "model/backend.h"
#include "model/weights.h"
#include "train/dropout.h"

typedef enum pd_parameter_group {
    PD_GROUP_DECODER,
    PD_GROUP_PROJECTOR,
    PD_GROUP_VISION,
    PD_GROUP_COUNT
} pd_parameter_group;

typedef struct pd_parameter {
    pd_parameter_group group;
    bool decays;                // has weight decay: all but norms and biases, as transformers' Trainer has it
    struct ggml_tensor *weight; // f32, named as in its file
    struct ggml_tensor *gradient, *m, *v; // f32, of its shape; m and v: Adam's moments
} pd_parameter;

// What is trained.
typedef struct pd_trainable {
    bool groups[PD_GROUP_COUNT];
    // LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685): with a rank above 0 the decoder's group is,
    // instead of its weights, adapters of all its layers' matrices: W x becomes W x + alpha / rank · B (A x).
    int32_t lora_rank;
    float lora_alpha;
    float lora_dropout; // of the x that A multiplies; each adapter drops others
    uint64_t seed;      // of A, uniform in ±1/√n_in as in PEFT; B is zero
} pd_trainable;

typedef struct pd_adapter {
    struct ggml_tensor *weight; // the frozen W [n_in, n_out]
    // parameters, "<weight>.lora_a" [n_in, rank] and "<weight>.lora_b" [rank, n_out]
    struct ggml_tensor *a, *b;
    pd_dropout dropout;
} pd_adapter;

typedef struct pd_parameters {
    pd_parameter *all; // owned
    size_t n;
    struct ggml_context *ctx;
    ggml_backend_buffer_t buffer;
    pd_adapter *adapters; // owned
    size_t n_adapters;
    float adapter_scale; // alpha / rank
    uint64_t draw;       // what the adapters drop; set before each computation
} pd_parameters;

// Makes parameters of the weights of the groups wanted and puts them into *weights in place of the mapped
// ones; with adapters, also the product that uses them. Both must stay where they are as long as graphs are
// built. Gradients and moments are zero.
pd_status pd_parameters_create(const pd_trainable *trainable, const pd_backend *backend, pd_weights *weights,
                               pd_parameters *parameters, pd_error *err);
void pd_parameters_free(pd_parameters *parameters);

// By the name of its weight; NULL: none.
pd_parameter *pd_parameters_find(const pd_parameters *parameters, const char *name);
// The adapter of a weight by its name; NULL: none.
const pd_adapter *pd_parameters_adapter(const pd_parameters *parameters, const char *weight_name);
// to [n_in, n_out] f32 += scale · B A.
void pd_adapter_merge(const pd_parameters *parameters, const pd_adapter *adapter, float *to);
// How many numbers they are.
int64_t pd_parameters_count(const pd_parameters *parameters);
// A fingerprint of the model that the parameters were made of: its files' metadata, names, shapes and types,
// and of the weights that training leaves as they are the first 4 KiB each.
uint64_t pd_parameters_base(const pd_parameters *parameters, const pd_weights *weights);
// The numbers of a weight in this process's memory, of any type that has a conversion, as f32 into to
// [ggml_nelements]. PD_ERR_UNSUPPORTED names another type.
pd_status pd_weight_to_f32(const struct ggml_tensor *weight, float *to, pd_error *err);
