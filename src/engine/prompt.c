// From tokens and pictures to the logits behind the prompt: encode, lay out rows, schedule, prefill.
#include "engine/prefill.h"
#include "engine/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// How many rows a fresh cache has beyond the prompt, and how many it grows by, where the answer's length is
// open.
enum { ANSWER_BLOCK = 256 };

// 64 bits of a picture's content, eight bytes at a time (multiply and fold, as in wyhash).
static uint64_t hash_image(const pd_image *image) {
    const uint8_t *bytes = pd_image_rgb(image);
    size_t left = (size_t)pd_image_width(image) * (size_t)pd_image_height(image) * 3;
    uint64_t hash = 0x9e3779b97f4a7c15U ^ left;
    while (left > 0) {
        uint64_t word = 0;
        const size_t taken = left < 8 ? left : 8;
        memcpy(&word, bytes, taken);
        const unsigned __int128 product = (unsigned __int128)(hash ^ word) * 0xa0761d6478bd642fU;
        hash = (uint64_t)product ^ (uint64_t)(product >> 64) ^ (word << 1);
        bytes += taken;
        left -= taken;
    }
    return hash;
}

static pd_encoded *find_encoded(const pd_session *session, const pd_image *image, uint64_t hash) {
    for (size_t i = 0; i < session->n_encoded; i++) {
        pd_encoded *e = &session->encoded[i];
        if (e->hash == hash && e->width == pd_image_width(image) && e->height == pd_image_height(image))
            return e;
    }
    return NULL;
}

static void forget_unused(pd_session *session) {
    size_t kept = 0;
    for (size_t i = 0; i < session->n_encoded; i++) {
        if (session->encoded[i].used) {
            session->encoded[kept++] = session->encoded[i];
        } else {
            free(session->encoded[i].features.data);
        }
    }
    session->n_encoded = kept;
}

static pd_status encode_new(pd_session *session, pd_image *const *images, const uint64_t *hashes,
                            size_t n_images, size_t *order, pd_error *err) {
    pd_encode_job job = {.backend = &session->backend,
                         .scheduler = &session->vision_scheduler,
                         .lowering = session->model->lowering,
                         .weights = &session->model->weights.vision,
                         .aspect_ratio = session->aspect_ratio,
                         .flash = session->flash,
                         .progress = session->progress,
                         .progress_user = session->progress_user};
    for (size_t i = 0; i < n_images; i++) {
        pd_encoded *e = find_encoded(session, images[i], hashes[i]);
        if (!e) {
            e = &session->encoded[session->n_encoded];
            *e = (pd_encoded){
                .hash = hashes[i], .width = pd_image_width(images[i]), .height = pd_image_height(images[i])};
            PD_TRY(pd_encode_image(&job, images[i], &e->features, err));
            session->n_encoded++;
        }
        order[i] = (size_t)(e - session->encoded);
    }
    session->stats.image_ms = job.image_ms;
    session->stats.pack_ms = job.pack_ms;
    session->lowered_bytes = job.scratch_bytes;
    session->stats.vit_ms = job.vit_ms;
    session->stats.projector_ms = job.projector_ms;
    return PD_OK;
}

// Forgets pictures the prompt no longer has and encodes those that are new. order[i] is picture i's index
// among session->encoded.
static pd_status encode_images(pd_session *session, pd_image *const *images, size_t n_images, size_t *order,
                               pd_error *err) {
    uint64_t *hashes = calloc(n_images + 1, sizeof *hashes);
    if (!hashes) return pd_fail_memory(err, n_images * sizeof *hashes, "the list of pictures");
    for (size_t i = 0; i < session->n_encoded; i++)
        session->encoded[i].used = false;
    for (size_t i = 0; i < n_images; i++) {
        hashes[i] = hash_image(images[i]);
        pd_encoded *known = find_encoded(session, images[i], hashes[i]);
        if (known) known->used = true;
    }
    forget_unused(session);
    const size_t size = (session->n_encoded + n_images + 1) * sizeof *session->encoded;
    pd_encoded *grown = realloc(session->encoded, size);
    pd_status status = PD_OK;
    if (grown) {
        session->encoded = grown;
        status = encode_new(session, images, hashes, n_images, order, err);
    } else {
        status = pd_fail_memory(err, size, "the list of pictures");
    }
    free(hashes);
    return status;
}

static pd_status check_prompt(const pd_session *session, const int32_t *tokens, size_t n_tokens,
                              pd_image *const *images, size_t n_images, pd_error *err) {
    const int32_t n_vocab = session->model->weights.decoder.h.n_vocab;
    size_t placeholders = 0;
    if (n_tokens == 0) return pd_fail(err, PD_ERR_ARGUMENT, "the prompt is empty");
    for (size_t i = 0; i < n_tokens; i++) {
        if (tokens[i] == PD_IMAGE_TOKEN) {
            placeholders++;
        } else if (tokens[i] < 0 || tokens[i] >= n_vocab) {
            return pd_fail(err, PD_ERR_ARGUMENT, "prompt token %zu: expected an id in 0..%d, found %d", i,
                           n_vocab - 1, tokens[i]);
        }
    }
    if (placeholders != n_images) {
        return pd_fail(err, PD_ERR_ARGUMENT, "the prompt has %zu picture placeholders for %zu pictures",
                       placeholders, n_images);
    }
    for (size_t i = 0; i < n_images; i++) {
        if (!images[i]) return pd_fail(err, PD_ERR_ARGUMENT, "picture %zu of the prompt is NULL", i);
    }
    if (n_images > 0 && !session->model->weights.has_vision) {
        return pd_fail(err, PD_ERR_ARGUMENT,
                       "the prompt has a picture, but the model was loaded without an mmproj");
    }
    return PD_OK;
}

// Whether the prompt fits the context, before any picture is encoded.
static pd_status check_length(const pd_session *session, size_t n_tokens, pd_image *const *images,
                              size_t n_images, pd_error *err) {
    const pd_preprocess_params params =
        pd_encode_preprocess_params(&session->model->weights.vision.h, session->aspect_ratio);
    size_t n_rows = n_tokens;
    if (n_images > 0 && session->aspect_ratio == PD_ASPECT_ANYRES && params.n_pinpoints == 0)
        return pd_fail(err, PD_ERR_ARGUMENT,
                       "image_aspect_ratio anyres: %s has no clip.vision.image_grid_pinpoints (expected a "
                       "LLaVA-NeXT mmproj)",
                       session->model->weights.vision_file.path);
    for (size_t i = 0; i < n_images; i++) {
        pd_tile_layout layout;
        PD_TRY(pd_tile_layout_of_size(&params, pd_image_width(images[i]), pd_image_height(images[i]), &layout,
                                      err));
        n_rows += (size_t)layout.n_tokens - 1; // its placeholder is counted
    }
    if (n_rows < (size_t)session->n_ctx) return PD_OK;
    return pd_fail(err, PD_ERR_CONTEXT,
                   "the prompt is too long: %zu tokens, pictures included, leave no room for an answer in a "
                   "context of %d (-c sets it)",
                   n_rows, session->n_ctx);
}

// The rows of the prompt: session->tokens and n_prompt, and each picture's span.
static void lay_out(pd_session *session, const int32_t *tokens, size_t n_tokens, const size_t *order,
                    pd_span *spans) {
    int32_t row = 0;
    size_t image = 0;
    for (size_t i = 0; i < n_tokens; i++) {
        if (tokens[i] != PD_IMAGE_TOKEN) {
            session->tokens[row++] = tokens[i];
            continue;
        }
        const int32_t count = session->encoded[order[image]].features.n_tokens;
        spans[image++] = (pd_span){row, count};
        for (int32_t t = 0; t < count; t++)
            session->tokens[row++] = PD_IMAGE_TOKEN;
    }
    session->n_prompt = row;
}

static pd_status create_cache(pd_session *session, pd_error *err) {
    const pd_decoder_hyperparameters *h = &session->model->weights.decoder.h;
    const int32_t room = session->n_ctx - session->n_prompt;
    int32_t answer =
        session->n_predict >= 0 && session->n_predict < ANSWER_BLOCK ? session->n_predict : ANSWER_BLOCK;
    if (answer > room) answer = room;
    int32_t *capacity = calloc((size_t)h->n_layers, sizeof *capacity);
    if (!capacity) return pd_fail_memory(err, (size_t)h->n_layers * sizeof *capacity, "the KV cache's sizes");
    for (int32_t s = 0; s < session->schedule.n_stages; s++) {
        const pd_stage *stage = &session->schedule.stages[s];
        for (int32_t i = stage->first_layer; i < stage->end_layer; i++)
            capacity[i] = stage->n_rows + answer;
    }
    size_t n_rows = 0;
    for (int32_t i = 0; i < h->n_layers; i++)
        n_rows += (size_t)capacity[i];
    pd_status status =
        pd_device_check_memory(ggml_backend_get_device(session->backend.device),
                               n_rows * pd_kv_row_bytes(h, session->cache_type), "the KV cache", err);
    if (status == PD_OK) {
        status = pd_kv_cache_create(h, session->cache_type, capacity,
                                    ggml_backend_get_default_buffer_type(session->backend.device),
                                    &session->cache, err);
    }
    free(capacity);
    return status;
}

// Room for results: kept rows of every stage, then, image by image, their original indices.
static pd_status allocate_kept(pd_session *session, pd_error *err) {
    const size_t n_stages = (size_t)session->schedule.n_stages, n_images = (size_t)session->schedule.n_images;
    size_t n = 0;
    for (size_t s = 0; s < n_stages; s++)
        n += (size_t)session->schedule.stages[s].n_image_tokens;
    session->kept = calloc(n_stages * n_images + 1, sizeof *session->kept);
    session->kept_block = calloc(n + 1, sizeof *session->kept_block);
    session->stage_stats = calloc(n_stages, sizeof *session->stage_stats);
    if (!session->kept || !session->kept_block || !session->stage_stats) {
        return pd_fail_memory(err, n * sizeof *session->kept_block, "the kept tokens");
    }
    int32_t *at = session->kept_block;
    for (size_t s = 0; s < n_stages; s++) {
        for (size_t i = 0; i < n_images; i++) {
            session->kept[s * n_images + i] = at;
            at += session->schedule.stages[s].images[i].count;
        }
    }
    return PD_OK;
}

// rows[s]: stage s's live rows as rows of stage s − 1. Follows every picture's tokens back to their first
// index.
static void trace_kept(pd_session *session, int32_t *const *rows) {
    const size_t n_images = (size_t)session->schedule.n_images;
    for (size_t i = 0; i < n_images; i++) {
        for (int32_t t = 0; t < session->schedule.stages[0].images[i].count; t++)
            session->kept[i][t] = t;
    }
    for (int32_t s = 1; s < session->schedule.n_stages; s++) {
        for (size_t i = 0; i < n_images; i++) {
            const pd_span before = session->schedule.stages[s - 1].images[i],
                          after = session->schedule.stages[s].images[i];
            const int32_t *parent = session->kept[(size_t)(s - 1) * n_images + i];
            int32_t *kept = session->kept[(size_t)s * n_images + i];
            for (int32_t t = 0; t < after.count; t++)
                kept[t] = parent[rows[s][after.start + t] - before.start];
        }
    }
}

static pd_status run_prefill(pd_session *session, const pd_span *spans, const float *const *features,
                             pd_error *err) {
    const size_t n_stages = (size_t)session->schedule.n_stages;
    size_t n_rows = 0;
    for (size_t s = 0; s < n_stages; s++)
        n_rows += (size_t)session->schedule.stages[s].n_rows;
    int32_t **rows = calloc(n_stages, sizeof *rows);
    int32_t *rows_block = calloc(n_rows + 1, sizeof *rows_block);
    double *times = calloc(2 * n_stages, sizeof *times);
    pd_status status = PD_OK;
    if (!rows || !rows_block || !times) {
        status = pd_fail_memory(err, n_rows * sizeof *rows_block, "the kept rows");
    } else {
        int32_t *at = rows_block;
        for (size_t s = 0; s < n_stages; s++) {
            rows[s] = at;
            at += session->schedule.stages[s].n_rows;
        }
        const pd_prompt_rows prompt = {.n_rows = session->n_prompt,
                                       .tokens = session->tokens,
                                       .n_images = session->schedule.n_images,
                                       .images = spans,
                                       .features = features};
        pd_prefill_job job = {.backend = &session->backend,
                              .scheduler = &session->prefill_scheduler,
                              .scheduler_size = &session->prefill_scheduler_size,
                              .lowering = session->model->lowering,
                              .own_kernels = session->model->own_decode_kernels,
                              .weights = &session->model->weights.decoder,
                              .policy = &session->policy,
                              .schedule = &session->schedule,
                              .rows = &prompt,
                              .cache = &session->cache,
                              .flash = session->flash,
                              .progress = session->progress,
                              .progress_user = session->progress_user,
                              .logits = session->logits,
                              .kept = rows,
                              .times = {.layers_ms = times, .rank_ms = times + n_stages}};
        const double start = pd_now_ms();
        status = pd_prefill(&job, err);
        session->stats.prefill_ms = pd_now_ms() - start - job.pack_ms;
        session->stats.pack_ms += job.pack_ms;
        if (job.scratch_bytes > session->lowered_bytes) session->lowered_bytes = job.scratch_bytes;
        if (status == PD_OK) {
            trace_kept(session, rows);
            for (size_t s = 0; s < n_stages; s++) {
                session->stage_stats[s].layers_ms = job.times.layers_ms[s];
                // the ranking stands with the stage that it ends
                session->stage_stats[s].rank_ms = s + 1 < n_stages ? job.times.rank_ms[s + 1] : 0.0;
                session->stats.rank_ms += session->stage_stats[s].rank_ms;
            }
        }
    }
    free(times);
    free(rows_block);
    free(rows);
    return status;
}

// Damaged weights, or sums beyond f16 in the cache, end in infinities; no token can be drawn from those.
static pd_status check_logits(const pd_session *session, pd_error *err) {
    for (int32_t i = 0; i < session->model->weights.decoder.h.n_vocab; i++) {
        if (isfinite(session->logits[i])) continue;
        return pd_fail(err, PD_ERR_BACKEND,
                       "%s: the logits are not numbers (expected finite ones): is the file damaged?",
                       session->model->weights.text_file.path);
    }
    return PD_OK;
}

static pd_status run_encoded(pd_session *session, const int32_t *tokens, size_t n_tokens, const size_t *order,
                             pd_span *spans, const float **features, size_t n_images, pd_error *err) {
    lay_out(session, tokens, n_tokens, order, spans);
    for (size_t i = 0; i < n_images; i++)
        features[i] = session->encoded[order[i]].features.data;
    PD_TRY(pd_schedule_create(&session->policy, session->model->weights.decoder.h.n_layers, session->n_prompt,
                              spans, (int32_t)n_images, &session->schedule, err));
    PD_TRY(allocate_kept(session, err));
    PD_TRY(create_cache(session, err));
    PD_TRY(run_prefill(session, spans, features, err));
    PD_TRY(check_logits(session, err));
    int32_t n_tiles = 0;
    for (size_t i = 0; i < n_images; i++)
        n_tiles += session->encoded[order[i]].features.n_tiles;
    pd_session_count(session, n_tiles);
    session->prompted = true;
    session->logits_ready = true;
    return PD_OK;
}

pd_status pd_session_run_prompt(pd_session *session, const int32_t *tokens, size_t n_tokens,
                                pd_image *const *images, size_t n_images, pd_error *err) {
    pd_session_reset(session);
    session->prompt_start_ms = pd_now_ms();
    PD_TRY(check_prompt(session, tokens, n_tokens, images, n_images, err));
    PD_TRY(check_length(session, n_tokens, images, n_images, err));
    size_t *order = calloc(n_images + 1, sizeof *order);
    pd_span *spans = calloc(n_images + 1, sizeof *spans);
    const float **features = calloc(n_images + 1, sizeof *features);
    pd_status status = PD_OK;
    if (!order || !spans || !features) {
        status = pd_fail_memory(err, n_images * sizeof *spans, "the pictures' places");
    } else {
        status = encode_images(session, images, n_images, order, err);
        // The tower's scratch memory goes before the decoder takes its own: a picture is encoded once. Mesa's
        // software Vulkan crashes at the next graph of a device whose scheduler was freed: there it stays.
        if (session->vision_scheduler && session->backend.device == session->backend.cpu) {
            ggml_backend_sched_free(session->vision_scheduler);
            session->vision_scheduler = NULL;
        }
        if (status == PD_OK) {
            status = run_encoded(session, tokens, n_tokens, order, spans, features, n_images, err);
        }
    }
    free(features);
    free(spans);
    free(order);
    if (status != PD_OK) pd_session_reset(session);
    return status;
}

pd_status pd_session_forward(pd_session *session, pd_error *err) {
    if (session->logits_ready) return PD_OK;
    // The answer's last token is the one to run; it is row n_generated − 1 behind the prompt.
    const int32_t n_before = session->n_generated - 1;
    const pd_stage *first = &session->schedule.stages[0];
    const int32_t capacity = (int32_t)session->cache.k[0]->ne[1];
    if (first->n_rows + n_before + 1 > capacity) {
        const int32_t room = session->n_ctx - capacity;
        pd_decoder_step_free(&session->step);
        PD_TRY(pd_kv_cache_grow(&session->model->weights.decoder.h, room < ANSWER_BLOCK ? room : ANSWER_BLOCK,
                                &session->cache, err));
    }
    const pd_decode_job job = {.backend = &session->backend,
                               .weights = &session->model->weights.decoder,
                               .schedule = &session->schedule,
                               .positions = session->policy.positions,
                               .cache = &session->cache,
                               .flash = session->flash,
                               .own_kernels = session->model->own_decode_kernels,
                               .logits = session->logits};
    const double start = pd_now_ms();
    const int32_t token = session->tokens[session->n_prompt + n_before];
    PD_TRY(pd_decode(&job, token, n_before, &session->step, err));
    PD_TRY(check_logits(session, err));
    session->stats.decode_ms += pd_now_ms() - start;
    session->stats.n_decoded++;
    session->logits_ready = true;
    pd_session_count_kv(session);
    return PD_OK;
}
