// The weights that training changes: copied out of the model's files into f32, with their gradients and the
// optimiser's moments beside them. Everything else stays mapped, in whatever type it is stored.
#pragma once

#include "model/backend.h"
#include "model/weights.h"

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

typedef struct pd_parameters {
    pd_parameter *all; // owned
    size_t n;
    struct ggml_context *ctx;
    ggml_backend_buffer_t buffer;
} pd_parameters;

// What is trained. LoRA's adapters are parameters of the decoder's group instead of its weights.
typedef struct pd_trainable {
    bool groups[PD_GROUP_COUNT];
} pd_trainable;

// Makes parameters of the weights of the groups wanted and puts them into *weights in place of the mapped
// ones, which must live as long. Gradients and moments are zero.
pd_status pd_parameters_create(const pd_trainable *trainable, const pd_backend *backend, pd_weights *weights,
                               pd_parameters *parameters, pd_error *err);
void pd_parameters_free(pd_parameters *parameters);

// By the name of its weight; NULL: none.
pd_parameter *pd_parameters_find(const pd_parameters *parameters, const char *name);
// How many numbers they are.
int64_t pd_parameters_count(const pd_parameters *parameters);
