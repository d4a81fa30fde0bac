// The public pd_session: one conversation's state over a model.
#pragma once

#include "engine/decode.h"
#include "engine/encode.h"
#include "engine/model.h"
#include "engine/sampler.h"
#include "text/conversation.h"

// An encoded picture, recognised by its content.
typedef struct pd_encoded {
    uint64_t hash;
    int32_t width, height;
    pd_image_features features;
    bool used; // by the prompt being prepared
} pd_encoded;

struct pd_session {
    pd_model *model;
    // settings
    pd_policy policy;
    bool flash;
    enum ggml_type cache_type;
    pd_aspect_ratio aspect_ratio;
    const pd_conversation *conversation;
    char *system; // owned, NULL: the conversation's own
    int32_t n_ctx, n_predict;
    bool ignore_eos;
    int32_t repeat_last_n;
    pd_progress_callback progress;
    void *progress_user;
    // machinery
    atomic_bool cancel;
    pd_backend backend;
    ggml_backend_sched_t vision_scheduler, prefill_scheduler;
    size_t prefill_scheduler_size;
    size_t lowered_bytes; // scratch of the largest lowered graph of the last prompt
    pd_sampler sampler;
    pd_encoded *encoded; // pictures of the last prompt
    size_t n_encoded;
    // the prompt
    bool prompted;
    const char *stop; // text that ends the answer; NULL: none
    pd_schedule schedule;
    int32_t *tokens; // prompt rows (PD_IMAGE_TOKEN at images), then the answer; capacity n_ctx
    int32_t n_prompt, n_generated;
    bool done;     // no token will be drawn any more
    bool finished; // and no text will be added either
    pd_kv_cache cache;
    pd_decoder_step step;
    float *logits;     // n_vocab
    bool logits_ready; // they follow the last token
    int32_t **kept;    // [n_stages][n_images]…: see pd_session_kept; one block of pointers, one of indices
    int32_t *kept_block;
    pd_detokenizer detokenizer;
    char *pending; // text drawn and not given yet: it may be the beginning of the stop string
    size_t n_pending, n_given, pending_capacity; // the first n_given bytes of it were the last piece
    char covered;                                // the byte its NUL stands on
    // figures
    double prompt_start_ms;
    pd_stage_stats *stage_stats;
    pd_stats stats;
};

// Forgets the prompt: schedule, cache, answer. Encoded pictures stay.
void pd_session_reset(pd_session *session);

// From tokens and pictures to logits; what pd_session_prompt and pd_session_prompt_tokens share.
pd_status pd_session_run_prompt(pd_session *session, const int32_t *tokens, size_t n_tokens,
                                pd_image *const *images, size_t n_images, pd_error *err);
// Makes session->logits those behind the last token.
pd_status pd_session_forward(pd_session *session, pd_error *err);
// Fills the figures of a prompt whose pictures make n_tiles tiles together, and those that change with every
// token.
void pd_session_count(pd_session *session, int32_t n_tiles);
void pd_session_count_kv(pd_session *session);
