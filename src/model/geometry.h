// Named geometries: the shapes of published models, and tiny ones for tests.
#pragma once

#include "model/hyperparameters.h"

typedef struct pd_geometry {
    const char *name;
    const char *title;
    pd_decoder_hyperparameters decoder;
    pd_vision_hyperparameters vision;
    int32_t projector_hidden; // inner size of mlp2x_gelu
} pd_geometry;

size_t pd_geometry_count(void);
const pd_geometry *pd_geometry_at(size_t index);
// PD_ERR_ARGUMENT lists the names.
pd_status pd_geometry_find(const char *name, const pd_geometry **geometry, pd_error *err);
// The most image tokens one picture can have: the tokens of the base tile and, with anyres, of its largest
// grid without newlines, as the field counts them (LLaVA-NeXT: 2,880).
int32_t pd_geometry_n_image_tokens(const pd_geometry *geometry);
