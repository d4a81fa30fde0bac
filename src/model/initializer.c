#include "model/initializer.h"

#include "base/random.h"

#include <math.h>
#include <string.h>

pd_initializer pd_initializer_default(const pd_geometry *geometry) {
    return (pd_initializer){.range = 0.02F,
                            .vision_range = 0.02F,
                            .vision_factor = 1.0F,
                            .n_vision_layers = geometry->vision.n_layers};
}

static bool ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool starts_with(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

static void set_vision(const char *name, const pd_initializer *initializer, double n_embd,
                       pd_initial_values *values) {
    const double factor = (double)initializer->vision_factor,
                 range = (double)initializer->vision_range * factor,
                 positions = initializer->position_range > 0.0F ? (double)initializer->position_range * factor
                                                                : range,
                 width = factor / sqrt(n_embd), residual = width / sqrt(2.0 * initializer->n_vision_layers);
    const struct {
        const char *end;
        double deviation;
    } rules[] = {
        {"class_embd", width},
        {"patch_embd.weight", range},
        {"position_embd.weight", positions},
        {"attn_q.weight", residual},
        {"attn_k.weight", residual},
        {"attn_v.weight", residual},
        {"attn_out.weight", width},
        {"ffn_up.weight", width / sqrt(2.0)}, // fc1
        {"ffn_down.weight", residual},        // fc2
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (!ends_with(name, rules[i].end)) continue;
        values->distribution = PD_NORMAL;
        values->scale = (float)rules[i].deviation;
        return;
    }
    values->scale = ends_with(name, ".weight") ? 1.0F : 0.0F; // the norms
}

static void set_projector(const char *name, const pd_geometry *geometry, pd_initial_values *values) {
    const int32_t n_in = starts_with(name, "mm.0.") ? geometry->vision.n_embd : geometry->projector_hidden;
    values->distribution = PD_UNIFORM;
    values->scale = (float)(1.0 / sqrt(n_in));
}

static void set_decoder(const char *name, const pd_initializer *initializer, int32_t n_layers,
                        pd_initial_values *values) {
    if (ends_with(name, "norm.weight")) {
        values->scale = 1.0F;
    } else if (ends_with(name, ".weight")) {
        const bool residual = ends_with(name, "attn_output.weight") || ends_with(name, "ffn_down.weight");
        values->distribution = PD_NORMAL;
        values->scale = (float)((double)initializer->range / (residual ? sqrt(2.0 * n_layers) : 1.0));
    }
}

// The seed's first random number, and the name by FNV-1a (Fowler, Noll, Vo).
static uint64_t start_of_stream(const char *name, uint64_t seed) {
    uint64_t hash = 0xcbf29ce484222325U;
    for (const char *c = name; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3U;
    return pd_random_next(&seed) ^ hash;
}

pd_initial_values pd_initial_values_of(const char *tensor_name, const pd_initializer *initializer,
                                       const pd_geometry *geometry, int32_t n_layers, uint64_t seed) {
    pd_initial_values values = {.distribution = PD_CONSTANT, .state = start_of_stream(tensor_name, seed)};
    if (strcmp(tensor_name, "model.image_newline") == 0) {
        values.distribution = PD_NORMAL;
        values.scale = (float)(1.0 / sqrt(geometry->decoder.n_embd));
    } else if (starts_with(tensor_name, "mm.")) {
        set_projector(tensor_name, geometry, &values);
    } else if (starts_with(tensor_name, "v.")) {
        set_vision(tensor_name, initializer, geometry->vision.n_embd, &values);
    } else {
        set_decoder(tensor_name, initializer, n_layers, &values);
    }
    return values;
}

// N(0, 1) by the polar method (Marsaglia, Bray 1964).
static double next_normal(pd_initial_values *values) {
    if (values->has_spare) {
        values->has_spare = false;
        return values->spare;
    }
    double x, y, square;
    do {
        x = 2.0 * pd_random_uniform(&values->state) - 1.0;
        y = 2.0 * pd_random_uniform(&values->state) - 1.0;
        square = x * x + y * y;
    } while (square >= 1.0 || square == 0.0);
    const double scale = sqrt(-2.0 * log(square) / square);
    values->spare = y * scale;
    values->has_spare = true;
    return x * scale;
}

void pd_initial_values_next(pd_initial_values *values, float *out, size_t n) {
    const double scale = (double)values->scale;
    for (size_t i = 0; i < n; i++) {
        switch (values->distribution) {
        case PD_CONSTANT:
            out[i] = values->scale;
            break;
        case PD_NORMAL:
            out[i] = (float)(scale * next_normal(values));
            break;
        case PD_UNIFORM:
            out[i] = (float)(scale * (2.0 * pd_random_uniform(&values->state) - 1.0));
            break;
        }
    }
}
