// The session's life: settings, prompts, figures.
#include "engine/session.h"

#include <stdlib.h>
#include <string.h>

void pd_session_params_default(pd_session_params *params, size_t size) {
    const pd_session_params defaults = {
        .size = size, .n_predict = -1, .top_p = 1.0F, .repeat_penalty = 1.0F, .repeat_last_n = 64};
    memset(params, 0, size);
    memcpy(params, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

static pd_status check_range(const char *name, int64_t value, int64_t low, int64_t high, pd_error *err) {
    if (value >= low && value <= high) return PD_OK;
    return pd_fail(err, PD_ERR_ARGUMENT, "%s: expected %lld to %lld, found %lld", name, (long long)low,
                   (long long)high, (long long)value);
}

static pd_status check_params(const pd_session_params *params, pd_error *err) {
    if (params->size != sizeof *params) {
        return pd_fail(
            err, PD_ERR_ARGUMENT,
            "pd_session_params: expected a size of %zu (set by pd_session_params_default), found %zu",
            sizeof *params, params->size);
    }
    PD_TRY(check_range("attention", params->attention, PD_ATTENTION_SDPA, PD_ATTENTION_FLASH, err));
    PD_TRY(check_range("cache_type", params->cache_type, PD_CACHE_F16, PD_CACHE_BF16, err));
    PD_TRY(check_range("aspect_ratio", params->aspect_ratio, PD_ASPECT_AUTO, PD_ASPECT_SQUARE, err));
    PD_TRY(check_range("n_ctx", params->n_ctx, 0, 1 << 24, err));
    PD_TRY(check_range("n_predict", params->n_predict, -1, INT32_MAX, err));
    PD_TRY(check_range("n_threads", params->n_threads, 0, PD_MOST_THREADS, err));
    return check_range("repeat_last_n", params->repeat_last_n, 0, INT32_MAX, err);
}

static enum ggml_type ggml_type_of(pd_cache_type type) {
    switch (type) {
    case PD_CACHE_F32:
        return GGML_TYPE_F32;
    case PD_CACHE_BF16:
        return GGML_TYPE_BF16;
    case PD_CACHE_F16:
        break;
    }
    return GGML_TYPE_F16;
}

static pd_status configure(pd_session *session, const pd_session_params *params, pd_error *err) {
    const pd_decoder_hyperparameters *h = &session->model->weights.decoder.h;
    if (params->policy) {
        PD_TRY(pd_policy_check(params->policy, h->n_layers, err));
        session->policy = *params->policy;
    } else {
        pd_policy_default(&session->policy, h->n_layers);
    }
    session->flash = params->attention != PD_ATTENTION_EAGER; // sdpa: docs/SPEED.md has both kernels' times
    session->cache_type = ggml_type_of(params->cache_type);
    session->aspect_ratio = params->aspect_ratio;
    PD_TRY(pd_conversation_choose(&session->model->weights.text_file, params->conversation,
                                  &session->conversation, err));
    if (params->system && !(session->system = strdup(params->system))) {
        return pd_fail_memory(err, strlen(params->system), "the system prompt");
    }
    session->n_ctx = params->n_ctx > 0 ? params->n_ctx : h->n_ctx_train < 4096 ? h->n_ctx_train : 4096;
    if (session->n_ctx > h->n_ctx_train) {
        pd_model_log(session->model, PD_LOG_WARNING,
                     "a context of %d is longer than the %d the model was trained with", session->n_ctx,
                     h->n_ctx_train);
    }
    session->n_predict = params->n_predict;
    session->ignore_eos = params->ignore_eos;
    session->repeat_last_n = params->repeat_last_n;
    session->progress = params->progress;
    session->progress_user = params->progress_user;
    const pd_sampler_params sampling = {.temperature = params->temperature,
                                        .top_k = params->top_k,
                                        .top_p = params->top_p,
                                        .repeat_penalty = params->repeat_penalty,
                                        .seed = params->seed};
    // rows of the head beyond the tokens are padding and never drawn
    PD_TRY(pd_sampler_create(&sampling, pd_tokenizer_n_vocab(session->model->tokenizer), &session->sampler,
                             err));
    session->tokens = calloc((size_t)session->n_ctx, sizeof *session->tokens);
    session->logits = calloc((size_t)h->n_vocab, sizeof *session->logits);
    if (!session->tokens || !session->logits) {
        return pd_fail_memory(err, (size_t)session->n_ctx * sizeof *session->tokens, "the session");
    }
    return pd_backend_create(session->model->weights.device, params->n_threads, &session->cancel,
                             &session->backend, err);
}

pd_status pd_session_create(pd_model *model, const pd_session_params *params, pd_session **out,
                            pd_error *err) {
    *out = NULL;
    PD_TRY(check_params(params, err));
    pd_session *session = calloc(1, sizeof *session);
    if (!session) return pd_fail_memory(err, sizeof *session, "the session");
    session->model = model;
    const pd_status status = configure(session, params, err);
    if (status != PD_OK) {
        pd_session_free(session);
        return status;
    }
    *out = session;
    return PD_OK;
}

void pd_session_reset(pd_session *session) {
    pd_decoder_step_free(&session->step);
    pd_kv_cache_free(&session->cache);
    pd_schedule_free(&session->schedule);
    pd_detokenizer_free(&session->detokenizer);
    pd_detokenizer_start(&session->detokenizer, session->model->tokenizer);
    free(session->kept);
    free(session->kept_block);
    free(session->stage_stats);
    session->kept = NULL;
    session->kept_block = NULL;
    session->stage_stats = NULL;
    session->prompted = session->done = session->finished = session->logits_ready = false;
    session->n_prompt = session->n_generated = 0;
    session->n_pending = session->n_given = 0;
    session->stop = NULL;
    session->stats = (pd_stats){0};
    pd_sampler_reset(&session->sampler);
}

void pd_session_free(pd_session *session) {
    if (!session) return;
    pd_session_reset(session);
    pd_detokenizer_free(&session->detokenizer);
    for (size_t i = 0; i < session->n_encoded; i++)
        free(session->encoded[i].features.data);
    free(session->encoded);
    if (session->vision_scheduler) ggml_backend_sched_free(session->vision_scheduler);
    if (session->prefill_scheduler) ggml_backend_sched_free(session->prefill_scheduler);
    pd_backend_free(&session->backend);
    pd_sampler_free(&session->sampler);
    free(session->pending);
    free(session->logits);
    free(session->tokens);
    free(session->system);
    free(session);
}

void pd_session_cancel(pd_session *session) {
    atomic_store(&session->cancel, true);
}

// A cancellation counts once: whoever is told of it may go on.
static pd_status told(pd_session *session, pd_status status) {
    if (status == PD_ERR_CANCELLED) atomic_store(&session->cancel, false);
    return status;
}

pd_status pd_session_prompt_tokens(pd_session *session, const int32_t *tokens, size_t n_tokens,
                                   pd_image *const *images, size_t n_images, pd_error *err) {
    return told(session, pd_session_run_prompt(session, tokens, n_tokens, images, n_images, err));
}

// ---- messages ---------------------------------------------------------------------------------------------

static const char image_placeholder[] = "<image>";

static size_t count_placeholders(const char *text) {
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, image_placeholder)) != NULL; at++)
        count++;
    return count;
}

// The message's text with a placeholder for every picture. *text is malloc'd.
static pd_status complete_text(const pd_message *message, size_t index, char **text, pd_error *err) {
    const size_t present = count_placeholders(message->text);
    if (present > message->n_images) {
        return pd_fail(err, PD_ERR_ARGUMENT, "message %zu has %zu <image> placeholders for %zu pictures",
                       index, present, message->n_images);
    }
    const size_t missing = message->n_images - present;
    const size_t text_size = strlen(message->text) + 1, size = missing * sizeof image_placeholder + text_size;
    *text = malloc(size);
    if (!*text) return pd_fail_memory(err, size, "a message");
    char *at = *text;
    for (size_t i = 0; i < missing; i++) {
        memcpy(at, "<image>\n", sizeof image_placeholder); // as long as the placeholder and its NUL
        at += sizeof image_placeholder;
    }
    memcpy(at, message->text, text_size);
    return PD_OK;
}

typedef struct {
    pd_role *roles;
    char **texts;
    pd_image **images;
    size_t n_images;
    char *prompt;
    int32_t *tokens;
    size_t n_tokens;
} rendering;

static pd_status render(pd_session *session, const pd_message *messages, size_t n, rendering *r,
                        pd_error *err) {
    size_t n_images = 0;
    for (size_t i = 0; i < n; i++)
        n_images += messages[i].n_images;
    r->roles = calloc(n, sizeof *r->roles);
    r->texts = calloc(n, sizeof *r->texts);
    r->images = calloc(n_images + 1, sizeof *r->images);
    if (!r->roles || !r->texts || !r->images)
        return pd_fail_memory(err, n * sizeof *r->texts, "the messages");
    for (size_t i = 0; i < n; i++) {
        if (!messages[i].text) return pd_fail(err, PD_ERR_ARGUMENT, "message %zu has no text", i);
        if (messages[i].n_images > 0 && !messages[i].images) {
            return pd_fail(err, PD_ERR_ARGUMENT, "message %zu has no list of its %zu pictures", i,
                           messages[i].n_images);
        }
        r->roles[i] = messages[i].role;
        PD_TRY(complete_text(&messages[i], i, &r->texts[i], err));
        for (size_t j = 0; j < messages[i].n_images; j++)
            r->images[r->n_images++] = messages[i].images[j];
    }
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): whoever owns *r frees what it holds
    PD_TRY(pd_conversation_render(session->conversation, session->system, r->roles,
                                  (const char *const *)r->texts, n, &r->prompt, err));
    const pd_tokenizer *tokenizer = session->model->tokenizer;
    return pd_tokenize_prompt(tokenizer, r->prompt, strlen(r->prompt), pd_tokenizer_add_bos(tokenizer), true,
                              &r->tokens, &r->n_tokens, err);
}

pd_status pd_session_prompt(pd_session *session, const pd_message *messages, size_t n_messages,
                            pd_error *err) {
    if (n_messages == 0 || messages[n_messages - 1].role != PD_ROLE_USER) {
        return pd_fail(err, PD_ERR_ARGUMENT, "a conversation must end with a user message");
    }
    rendering r = {0};
    pd_status status = render(session, messages, n_messages, &r, err);
    if (status == PD_OK) {
        status = pd_session_prompt_tokens(session, r.tokens, r.n_tokens, r.images, r.n_images, err);
    }
    if (status == PD_OK) session->stop = pd_conversation_stop(session->conversation);
    if (r.texts) {
        for (size_t i = 0; i < n_messages; i++)
            free(r.texts[i]);
    }
    free(r.roles);
    free(r.texts);
    free(r.images);
    free(r.prompt);
    free(r.tokens);
    return status;
}

// ---- the answer -------------------------------------------------------------------------------------------

static pd_status not_prompted(pd_error *err) {
    return pd_fail(err, PD_ERR_ARGUMENT, "the session has no prompt yet");
}

pd_status pd_session_logits(pd_session *session, const float **logits, size_t *count, pd_error *err) {
    *logits = NULL;
    *count = 0;
    if (!session->prompted) return not_prompted(err);
    PD_TRY(told(session, pd_session_forward(session, err)));
    *logits = session->logits;
    *count = (size_t)session->model->weights.decoder.h.n_vocab;
    return PD_OK;
}

pd_status pd_session_next_token(pd_session *session, int32_t *token, pd_error *err) {
    *token = -1;
    if (!session->prompted) return not_prompted(err);
    const int32_t n = session->n_prompt + session->n_generated;
    if (n >= session->n_ctx || session->n_generated == session->n_predict) session->done = true;
    if (session->done) return PD_DONE;
    PD_TRY(told(session, pd_session_forward(session, err)));
    const int32_t looked_at = session->repeat_last_n < n ? session->repeat_last_n : n;
    const int32_t drawn = pd_sampler_draw(&session->sampler, session->logits, session->tokens + n - looked_at,
                                          (size_t)looked_at);
    if (session->stats.first_token_ms == 0.0) {
        session->stats.first_token_ms = pd_now_ms() - session->prompt_start_ms;
    }
    if (!session->ignore_eos && pd_tokenizer_is_end_of_generation(session->model->tokenizer, drawn)) {
        session->done = true;
        return PD_DONE;
    }
    session->tokens[n] = drawn;
    session->n_generated++;
    session->logits_ready = false;
    pd_session_count_kv(session);
    *token = drawn;
    return PD_OK;
}

static pd_status append_pending(pd_session *session, const char *text, size_t size, pd_error *err) {
    if (session->n_pending + size + 1 > session->pending_capacity) {
        const size_t capacity = 2 * (session->n_pending + size + 1);
        char *grown = realloc(session->pending, capacity);
        if (!grown) return pd_fail_memory(err, capacity, "the answer's text");
        session->pending = grown;
        session->pending_capacity = capacity;
    }
    memcpy(session->pending + session->n_pending, text, size);
    session->n_pending += size;
    session->pending[session->n_pending] = '\0';
    return PD_OK;
}

// How many bytes at the end of `text` are the beginning of `stop`.
static size_t begun_stop(const char *text, size_t size, const char *stop) {
    const size_t stop_size = strlen(stop);
    for (size_t n = size < stop_size ? size : stop_size; n > 0; n--) {
        if (memcmp(text + size - n, stop, n) == 0) return n;
    }
    return 0;
}

// The next piece: pending text up to the stop string, or up to what may become one. It lies at the start of
// `pending` until the next call, with a NUL in place of the byte behind it, which waits in `covered`.
static const char *take_piece(pd_session *session) {
    if (session->n_pending == 0) return "";
    size_t given = session->n_pending;
    if (session->stop && session->stop[0]) {
        const char *stop = strstr(session->pending, session->stop);
        if (stop) {
            session->done = true;
            session->n_pending = given = (size_t)(stop - session->pending);
        } else if (!session->done) {
            given -= begun_stop(session->pending, given, session->stop);
        }
    }
    session->n_given = given;
    if (given == 0) return ""; // and nothing is covered
    session->covered = session->pending[given];
    session->pending[given] = '\0';
    return session->pending;
}

// Forgets the last piece.
static void drop_piece(pd_session *session) {
    if (session->n_given == 0) return;
    session->pending[session->n_given] = session->covered;
    session->n_pending -= session->n_given;
    memmove(session->pending, session->pending + session->n_given, session->n_pending + 1);
    session->n_given = 0;
}

pd_status pd_session_next(pd_session *session, const char **piece, pd_error *err) {
    *piece = "";
    if (!session->prompted) return not_prompted(err);
    drop_piece(session);
    if (session->done && session->finished) return PD_DONE;
    int32_t token;
    pd_status status = pd_session_next_token(session, &token, err);
    const char *text;
    size_t size;
    if (status == PD_OK) {
        status = pd_detokenizer_add(&session->detokenizer, token, &text, &size, err);
    } else if (status == PD_DONE) {
        session->finished = true;
        status = pd_detokenizer_finish(&session->detokenizer, &text, &size, err);
    }
    if (status == PD_OK) status = append_pending(session, text, size, err);
    if (status != PD_OK) return status;
    *piece = take_piece(session);
    if (session->done) session->finished = true;
    return session->finished && session->n_given == 0 ? PD_DONE : PD_OK;
}

const char *pd_session_conversation(const pd_session *session) {
    return pd_conversation_name(session->conversation);
}

const pd_stats *pd_session_stats(const pd_session *session) {
    return &session->stats;
}

pd_status pd_session_kept(const pd_session *session, int32_t image, int32_t stage, const int32_t **tokens,
                          size_t *count, pd_error *err) {
    *tokens = NULL;
    *count = 0;
    if (!session->prompted) return not_prompted(err);
    if (image < 0 || image >= session->schedule.n_images || stage < 0 ||
        stage >= session->schedule.n_stages) {
        return pd_fail(err, PD_ERR_ARGUMENT,
                       "no picture %d in stage %d: the prompt has %d pictures and %d stages", image, stage,
                       session->schedule.n_images, session->schedule.n_stages);
    }
    *tokens = session->kept[(size_t)stage * (size_t)session->schedule.n_images + (size_t)image];
    *count = (size_t)session->schedule.stages[stage].images[image].count;
    return PD_OK;
}

const char *pd_session_compute(const pd_session *session) {
    return pd_lowering_description(session->model->lowering);
}
