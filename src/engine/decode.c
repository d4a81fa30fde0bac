#include "engine/decode.h"

#include <stdlib.h>
#include <string.h>

// A step looks at a multiple of this many cached rows; those not written yet are masked.
enum { CACHE_BLOCK = 256 };

static int64_t looked_at(const pd_decode_job *job, int32_t stage, int32_t n_generated) {
    const pd_stage *s = &job->schedule->stages[stage];
    const int64_t capacity = job->cache->k[s->first_layer]->ne[1];
    const int64_t used = (int64_t)s->n_rows + n_generated + 1;
    const int64_t rounded = (used + CACHE_BLOCK - 1) / CACHE_BLOCK * CACHE_BLOCK;
    return rounded < capacity ? rounded : capacity;
}

void pd_decoder_step_free(pd_decoder_step *step) {
    if (step->scheduler) ggml_backend_sched_free(step->scheduler);
    pd_onerow_free(step->lowered);
    if (step->ctx) ggml_free(step->ctx);
    free(step->positions);
    free(step->rows);
    free(step->masks);
    free(step->mask_scratch);
    *step = (pd_decoder_step){0};
}

static struct ggml_tensor *input(struct ggml_context *ctx, enum ggml_type type, int64_t n) {
    struct ggml_tensor *tensor = ggml_new_tensor_1d(ctx, type, n);
    ggml_set_input(tensor);
    return tensor;
}

static pd_status build(const pd_decode_job *job, int32_t n_generated, pd_decoder_step *step, pd_error *err) {
    const pd_schedule *schedule = job->schedule;
    const size_t n_stages = (size_t)schedule->n_stages;
    const size_t size = 64 + 64 * (size_t)job->weights->h.n_layers + 8 * n_stages;
    const size_t bytes = size * ggml_tensor_overhead() + ggml_graph_overhead_custom(size, false);
    int64_t longest = 1;
    for (int32_t s = 0; s < schedule->n_stages; s++) {
        const int64_t n = looked_at(job, s, n_generated);
        if (n > longest) longest = n;
    }
    step->ctx = ggml_init((struct ggml_init_params){.mem_size = bytes, .mem_buffer = NULL, .no_alloc = true});
    step->positions = calloc(n_stages, sizeof *step->positions);
    step->rows = calloc(n_stages, sizeof *step->rows);
    step->masks = calloc(n_stages, sizeof *step->masks);
    step->mask_scratch = calloc((size_t)longest, sizeof *step->mask_scratch);
    if (!step->ctx || !step->positions || !step->rows || !step->masks || !step->mask_scratch) {
        return pd_fail_memory(err, bytes, "the decoding graph");
    }
    PD_TRY(pd_backend_scheduler(job->backend, size, &step->scheduler, err));
    step->graph = ggml_new_graph_custom(step->ctx, size, false);
    step->token = input(step->ctx, GGML_TYPE_I32, 1);
    struct ggml_tensor *residual = ggml_get_rows(step->ctx, job->weights->token_embedding, step->token);
    for (int32_t s = 0; s < schedule->n_stages; s++) {
        const pd_stage *stage = &schedule->stages[s];
        step->positions[s] = input(step->ctx, GGML_TYPE_I32, 1);
        step->rows[s] = input(step->ctx, GGML_TYPE_I64, 1);
        step->masks[s] = input(step->ctx, GGML_TYPE_F16, looked_at(job, s, n_generated));
        for (int32_t layer = stage->first_layer; layer < stage->end_layer; layer++) {
            const pd_layer_input in = {.rows = {.residual = residual},
                                       .positions = step->positions[s],
                                       .mask = step->masks[s],
                                       .flash = job->flash,
                                       .cache_k = job->cache->k[layer],
                                       .cache_v = job->cache->v[layer],
                                       .write_row = step->rows[s],
                                       .n_cached = step->masks[s]->ne[0]};
            residual = pd_decoder_layer_forward(step->ctx, step->graph, job->weights, layer, &in);
        }
    }
    step->logits = pd_decoder_logits(step->ctx, job->weights, residual);
    ggml_set_output(step->logits);
    ggml_build_forward_expand(step->graph, step->logits);
    if (job->own_kernels) {
        PD_TRY(pd_onerow_lower(step->graph, job->backend->n_threads, &step->lowered, err));
        step->graph = pd_onerow_graph(step->lowered);
    }
    return pd_backend_allocate(job->backend, &step->scheduler, step->graph, "decoding", err);
}

static bool still_fits(const pd_decode_job *job, int32_t n_generated, const pd_decoder_step *step) {
    if (!step->graph) return false;
    for (int32_t s = 0; s < job->schedule->n_stages; s++) {
        if (job->schedule->stages[s].n_rows + n_generated + 1 > step->masks[s]->ne[0]) return false;
    }
    return true;
}

static void set_inputs(const pd_decode_job *job, int32_t token, int32_t n_generated, pd_decoder_step *step) {
    const ggml_fp16_t seen = ggml_fp32_to_fp16(0.0F), hidden = ggml_fp32_to_fp16(-__builtin_inff());
    ggml_backend_tensor_set(step->token, &token, 0, sizeof token);
    for (int32_t s = 0; s < job->schedule->n_stages; s++) {
        const int64_t row = (int64_t)job->schedule->stages[s].n_rows + n_generated;
        // original positions count on from the whole prompt, which is what the first stage ran with
        const int32_t position = job->positions == PD_POSITIONS_COMPACT
                                     ? (int32_t)row
                                     : job->schedule->stages[0].n_rows + n_generated;
        const int64_t n = step->masks[s]->ne[0];
        for (int64_t i = 0; i < n; i++)
            step->mask_scratch[i] = i <= row ? seen : hidden;
        ggml_backend_tensor_set(step->positions[s], &position, 0, sizeof position);
        ggml_backend_tensor_set(step->rows[s], &row, 0, sizeof row);
        ggml_backend_tensor_set(step->masks[s], step->mask_scratch, 0,
                                (size_t)n * sizeof *step->mask_scratch);
    }
}

pd_status pd_decode(const pd_decode_job *job, int32_t token, int32_t n_generated, pd_decoder_step *step,
                    pd_error *err) {
    if (!still_fits(job, n_generated, step)) {
        pd_decoder_step_free(step);
        const pd_status status = build(job, n_generated, step, err);
        if (status != PD_OK) {
            pd_decoder_step_free(step);
            return status;
        }
    }
    set_inputs(job, token, n_generated, step);
    PD_TRY(pd_compute(job->backend, step->scheduler, step->graph, NULL, err));
    ggml_backend_tensor_get(step->logits, job->logits, 0, ggml_nbytes(step->logits));
    return PD_OK;
}
