#include "engine/encode.h"

#include "engine/lower.h"
#include "model/vision.h"

#include <stdlib.h>
#include <string.h>

_Static_assert((int)PD_MAX_GRID_TILES == PD_MAX_TILES - 1, "one tile is the whole picture");

pd_preprocess_params pd_encode_preprocess_params(const pd_vision_hyperparameters *h,
                                                 pd_aspect_ratio aspect_ratio) {
    pd_preprocess_params params = {.image_size = h->image_size,
                                   .patch_size = h->patch_size,
                                   .n_pinpoints = h->n_pinpoints,
                                   .pinpoints = h->pinpoints,
                                   .aspect_ratio = aspect_ratio};
    memcpy(params.mean, h->mean, sizeof params.mean);
    memcpy(params.std, h->std, sizeof params.std);
    return params;
}

// One tile at a time: the graph is built and allocated once and run for each.
typedef struct {
    struct ggml_context *ctx;
    struct ggml_cgraph *graph;
    pd_lowered *lowered;        // NULL: `graph` is computed itself
    struct ggml_tensor *pixels; // f32 [image_size, image_size, 3]
    struct ggml_tensor *tower;  // f32 [vision n_embd, n_patches]
    struct ggml_tensor *tokens; // f32 [decoder n_embd, n_patches]
} tile_graph;

// From here on g->graph is what is computed.
static pd_status lower(pd_encode_job *job, tile_graph *g, pd_error *err) {
    PD_TRY(pd_engine_lower(job->lowering, job->backend, job->progress, job->progress_user, &g->graph,
                           &g->lowered, err));
    if (!g->lowered) return PD_OK;
    if (pd_lowered_bytes(g->lowered) > job->scratch_bytes) job->scratch_bytes = pd_lowered_bytes(g->lowered);
    job->pack_ms += pd_lowered_pack_ms(g->lowered);
    return PD_OK;
}

static pd_status build(pd_encode_job *job, tile_graph *g, pd_error *err) {
    const size_t size = pd_vision_graph_size(job->weights);
    const size_t bytes = size * ggml_tensor_overhead() + ggml_graph_overhead_custom(size, false);
    g->ctx = ggml_init((struct ggml_init_params){.mem_size = bytes, .mem_buffer = NULL, .no_alloc = true});
    if (!g->ctx) return pd_fail_memory(err, bytes, "the vision graph");
    const int64_t side = job->weights->h.image_size;
    g->graph = ggml_new_graph_custom(g->ctx, size, false);
    g->pixels = ggml_new_tensor_3d(g->ctx, GGML_TYPE_F32, side, side, 3);
    ggml_set_input(g->pixels);
    struct ggml_tensor *rows = pd_vision_tower(g->ctx, job->weights, g->pixels, job->flash, NULL);
    // without the class token
    g->tower =
        ggml_cont(g->ctx, ggml_view_2d(g->ctx, rows, rows->ne[0], rows->ne[1] - 1, rows->nb[1], rows->nb[1]));
    g->tokens = pd_projector(g->ctx, job->weights, g->tower);
    ggml_set_output(g->tokens);
    ggml_build_forward_expand(g->graph, g->tokens);
    PD_TRY(lower(job, g, err));
    if (!*job->scheduler) PD_TRY(pd_backend_scheduler(job->backend, 2 * size, job->scheduler, err));
    return pd_backend_allocate(job->backend, job->scheduler, g->graph, "the vision tower", err);
}

static pd_status run_tile(pd_encode_job *job, const tile_graph *g, const pd_tiles *tiles, int32_t tile,
                          float *tokens, pd_error *err) {
    const size_t pixels_size = ggml_nbytes(g->pixels);
    const float *pixels = tiles->data + (size_t)tile * (pixels_size / sizeof(float));
    ggml_backend_tensor_set(g->pixels, pixels, 0, pixels_size);
    pd_mark marks[2] = {{.node = g->tower}, {.node = g->tokens}};
    const double n_tiles = tiles->layout.n_tiles;
    const pd_compute_options options = {.marks = marks,
                                        .n_marks = 2,
                                        .progress = job->progress,
                                        .progress_user = job->progress_user,
                                        .what = "image",
                                        .progress_from = tile / n_tiles,
                                        .progress_to = (tile + 1) / n_tiles};
    PD_TRY(pd_compute(job->backend, *job->scheduler, g->graph, &options, err));
    if (g->lowered) PD_TRY(pd_lowered_check(g->lowered, err));
    job->vit_ms += marks[0].ms;
    job->projector_ms += marks[1].ms;
    ggml_backend_tensor_get(g->tokens, tokens, 0, ggml_nbytes(g->tokens));
    return PD_OK;
}

// LLaVA-NeXT's order: the base tile's tokens, then the unpadded rows of the big map the other tiles form,
// with one newline token behind each row. `tiles` [n_tiles][side²][n_embd].
static void assemble(const pd_tile_layout *layout, const float *tiles, const float *newline, size_t n_embd,
                     float *out) {
    const size_t row = n_embd * sizeof(float);
    const int32_t side = layout->tile_side;
    memcpy(out, tiles, (size_t)(side * side) * row);
    out += (size_t)(side * side) * n_embd;
    if (layout->grid_width == 0) return;
    const pd_feature_crop *crop = &layout->crop;
    for (int32_t y = crop->top; y < crop->top + crop->rows; y++) {
        for (int32_t x = crop->left; x < crop->left + crop->cols; x++) {
            const int32_t tile = 1 + (y / side) * layout->grid_width + x / side;
            const size_t token =
                (size_t)tile * (size_t)(side * side) + (size_t)((y % side) * side + x % side);
            memcpy(out, tiles + token * n_embd, row);
            out += n_embd;
        }
        memcpy(out, newline, row);
        out += n_embd;
    }
}

static pd_status encode_tiles(pd_encode_job *job, const pd_tiles *tiles, pd_image_features *features,
                              pd_error *err) {
    const pd_tile_layout *layout = &tiles->layout;
    const size_t n_embd = (size_t)job->weights->mm2->ne[1];
    const size_t tile_floats = (size_t)layout->tile_side * (size_t)layout->tile_side * n_embd;
    float *tokens = calloc((size_t)layout->n_tiles, tile_floats * sizeof(float));
    float *newline = calloc(n_embd, sizeof(float));
    features->data = calloc((size_t)layout->n_tokens, n_embd * sizeof(float));
    tile_graph g = {0};
    pd_status status = PD_OK;
    if (!tokens || !newline || !features->data) {
        status = pd_fail_memory(err, (size_t)layout->n_tokens * n_embd * sizeof(float), "image tokens");
    }
    if (status == PD_OK) status = build(job, &g, err);
    for (int32_t i = 0; i < layout->n_tiles && status == PD_OK; i++) {
        status = run_tile(job, &g, tiles, i, tokens + (size_t)i * tile_floats, err);
    }
    if (status == PD_OK) {
        if (job->weights->image_newline) {
            ggml_backend_tensor_get(job->weights->image_newline, newline, 0, n_embd * sizeof(float));
        }
        assemble(layout, tokens, newline, n_embd, features->data);
        features->n_tokens = layout->n_tokens;
        features->n_tiles = layout->n_tiles;
    } else {
        free(features->data);
        features->data = NULL;
    }
    pd_lowered_free(g.lowered);
    if (g.ctx) ggml_free(g.ctx);
    free(newline);
    free(tokens);
    return status;
}

pd_status pd_encode_image(pd_encode_job *job, const pd_image *image, pd_image_features *features,
                          pd_error *err) {
    *features = (pd_image_features){0};
    const pd_preprocess_params params = pd_encode_preprocess_params(&job->weights->h, job->aspect_ratio);
    pd_tiles tiles;
    const double start = pd_now_ms();
    PD_TRY(pd_preprocess(image, &params, &tiles, err));
    job->image_ms += pd_now_ms() - start;
    const pd_status status = encode_tiles(job, &tiles, features, err);
    pd_tiles_free(&tiles);
    return status;
}
