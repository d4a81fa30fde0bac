// Decoding: one row through every layer, over caches of a different length in every stage.
#pragma once

#include "drop/schedule.h"
#include "model/backend.h"
#include "model/decoder.h"
#include "onerow/lower.h"

// The graph of one step is built once and run for many tokens: only its inputs change, until a cache outgrows
// the rows it looks at.
typedef struct pd_decoder_step {
    struct ggml_context *ctx;
    struct ggml_cgraph *graph;
    pd_onerow *lowered; // NULL: the graph runs as it was built
    ggml_backend_sched_t scheduler;
    struct ggml_tensor *token;      // i32 [1]
    struct ggml_tensor **positions; // [n_stages]: i32 [1]
    struct ggml_tensor **rows;      // [n_stages]: i64 [1], where the stage's caches are written
    struct ggml_tensor **masks;     // [n_stages]: f16 [n_cached, 1]
    struct ggml_tensor *logits;     // f32 [n_vocab]
    ggml_fp16_t *mask_scratch;      // longest n_cached
} pd_decoder_step;

typedef struct pd_decode_job {
    const pd_backend *backend;
    const pd_decoder_weights *weights;
    const pd_schedule *schedule;
    pd_positions positions;
    pd_kv_cache *cache;
    bool flash;
    bool own_kernels; // on the CPU: those for one row, where there are any
    float *logits;    // n_vocab, written by pd_decode
} pd_decode_job;

// Runs `token` as the n_generated-th token after the prompt (0 the first) and writes the logits behind it.
// The cache must have room for it in every layer; `step` is zeroed before the first call, and
// pd_decoder_step_free'd whenever the schedule or the cache changes.
pd_status pd_decode(const pd_decode_job *job, int32_t token, int32_t n_generated, pd_decoder_step *step,
                    pd_error *err);
void pd_decoder_step_free(pd_decoder_step *step);
