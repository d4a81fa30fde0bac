// Prefill as one static graph: layers → rank → select → gather → layers … → logits.
#pragma once

#include "drop/schedule.h"
#include "model/backend.h"
#include "model/decoder.h"
#include "onednn/lowering.h"

// The prompt's rows: a token id for every row, and for every image the features that take the place of its
// span.
typedef struct pd_prompt_rows {
    int32_t n_rows;
    const int32_t *tokens; // n_rows ids; those inside an image's span do not matter
    int32_t n_images;
    const pd_span *images;        // ascending and apart
    const float *const *features; // per image: count * n_embd floats
} pd_prompt_rows;

typedef struct pd_prefill_times {
    double *layers_ms; // [n_stages]
    double *rank_ms;   // [n_stages]: of the ranking at the end of stage i − 1; [0] is 0
    double output_ms;
} pd_prefill_times;

typedef struct pd_prefill_job {
    const pd_backend *backend;
    ggml_backend_sched_t *scheduler; // made when NULL or too small, reused, freed by the caller
    size_t *scheduler_size;
    pd_lowering *lowering; // NULL: the graph runs as it is
    bool own_kernels;      // src/onerow/, for what only the last row goes through
    const pd_decoder_weights *weights;
    const pd_policy *policy;
    const pd_schedule *schedule;
    const pd_prompt_rows *rows;
    pd_kv_cache *cache;
    bool flash;
    pd_progress_callback progress;
    void *progress_user;
    // results
    float *logits;  // n_vocab
    int32_t **kept; // [n_stages]: kept[s] = s's live rows as rows of stage s − 1 (kept[0] unused);
                    // n_rows of stage s entries each
    pd_prefill_times times;
    double pack_ms;       // packing weights that no graph before has used
    size_t scratch_bytes; // of the lowered products
} pd_prefill_job;

pd_status pd_prefill(pd_prefill_job *job, pd_error *err);
