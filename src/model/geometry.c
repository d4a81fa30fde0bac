#include "model/geometry.h"

#include <string.h>

// Sources: the config.json of liuhaotian/llava-v1.5-7b, llava-v1.5-13b, llava-v1.6-vicuna-7b,
// llava-v1.6-vicuna-13b and llava-v1.6-mistral-7b, and of openai/clip-vit-large-patch14-336.
#define LLAMA(layers, embd, ff, heads, kv_heads, vocab, context, base)                                       \
    {                                                                                                        \
        .architecture = "llama", .n_layers = (layers), .n_embd = (embd), .n_ff = (ff), .n_heads = (heads),   \
        .n_kv_heads = (kv_heads), .head_dim = (embd) / (heads), .n_vocab = (vocab),                          \
        .n_ctx_train = (context), .rms_epsilon = 1e-5F, .rope_mode = GGML_ROPE_TYPE_NORMAL,                  \
        .rope_dim = (embd) / (heads), .rope_base = (base), .rope_factor = 1.0F                               \
    }

#define CLIP(image, embd, ff, heads, layers)                                                                 \
    .image_size = (image), .patch_size = 14, .n_embd = (embd), .n_ff = (ff), .n_heads = (heads),             \
    .n_layers = (layers), .n_layers_run = (layers)-1, .epsilon = 1e-5F,                                      \
    .mean = {0.48145466F, 0.4578275F, 0.40821073F}, .std = {0.26862954F, 0.26130258F, 0.27577711F}

#define ANYRES(side)                                                                                         \
    .n_pinpoints = 5,                                                                                        \
    .pinpoints = {{(side), 2 * (side)},                                                                      \
                  {2 * (side), (side)},                                                                      \
                  {2 * (side), 2 * (side)},                                                                  \
                  {3 * (side), (side)},                                                                      \
                  {(side), 3 * (side)}},                                                                     \
    .spatial_unpad = true

static const pd_geometry geometries[] = {
    {"llava-1.5-7b",
     "LLaVA-1.5 7B",
     LLAMA(32, 4096, 11008, 32, 32, 32000, 4096, 1e4F),
     {CLIP(336, 1024, 4096, 16, 24)},
     4096},
    {"llava-1.5-13b",
     "LLaVA-1.5 13B",
     LLAMA(40, 5120, 13824, 40, 40, 32000, 4096, 1e4F),
     {CLIP(336, 1024, 4096, 16, 24)},
     5120},
    {"llava-next-7b",
     "LLaVA-NeXT 7B (Vicuna)",
     LLAMA(32, 4096, 11008, 32, 32, 32000, 4096, 1e4F),
     {CLIP(336, 1024, 4096, 16, 24), ANYRES(336)},
     4096},
    {"llava-next-13b",
     "LLaVA-NeXT 13B (Vicuna)",
     LLAMA(40, 5120, 13824, 40, 40, 32000, 4096, 1e4F),
     {CLIP(336, 1024, 4096, 16, 24), ANYRES(336)},
     5120},
    {"llava-next-mistral-7b",
     "LLaVA-NeXT 7B (Mistral)",
     LLAMA(32, 4096, 14336, 32, 8, 32000, 32768, 1e6F),
     {CLIP(336, 1024, 4096, 16, 24), ANYRES(336)},
     4096},
    {"tiny", "tiny LLaVA", LLAMA(8, 256, 704, 4, 4, 2048, 2048, 1e4F), {CLIP(168, 128, 512, 4, 4)}, 256},
    {"tiny-gqa",
     "tiny LLaVA with grouped queries",
     LLAMA(8, 256, 704, 4, 2, 2048, 2048, 1e4F),
     {CLIP(168, 128, 512, 4, 4)},
     256},
    {"tiny-next",
     "tiny LLaVA-NeXT",
     LLAMA(8, 256, 704, 4, 4, 2048, 4096, 1e4F),
     {CLIP(168, 128, 512, 4, 4), ANYRES(168)},
     256},
};

size_t pd_geometry_count(void) {
    return sizeof geometries / sizeof *geometries;
}

const pd_geometry *pd_geometry_at(size_t index) {
    return &geometries[index];
}

pd_status pd_geometry_find(const char *name, const pd_geometry **geometry, pd_error *err) {
    char names[256] = "";
    for (size_t i = 0; i < pd_geometry_count(); i++) {
        if (strcmp(geometries[i].name, name) == 0) {
            *geometry = &geometries[i];
            return PD_OK;
        }
        const size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", geometries[i].name);
    }
    *geometry = NULL;
    return pd_fail(err, PD_ERR_ARGUMENT, "no geometry \"%.64s\" (expected one of %s)", name, names);
}

int32_t pd_geometry_n_image_tokens(const pd_geometry *geometry) {
    const pd_vision_hyperparameters *h = &geometry->vision;
    int64_t tiles = 0;
    for (int32_t i = 0; i < h->n_pinpoints; i++) {
        const int32_t grid = (h->pinpoints[i][0] / h->image_size) * (h->pinpoints[i][1] / h->image_size);
        if (grid > tiles) tiles = grid;
    }
    const int64_t n_tokens = (1 + tiles) * pd_vision_n_patches(h);
    return n_tokens < INT32_MAX ? (int32_t)n_tokens : INT32_MAX;
}
