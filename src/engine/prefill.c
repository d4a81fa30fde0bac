#include "engine/prefill.h"

#include "drop/rank.h"
#include "drop/select.h"
#include "engine/lower.h"
#include "onerow/lower.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Everything that lives while one prefill graph does.
typedef struct {
    pd_prefill_job *job;
    struct ggml_context *ctx;
    struct ggml_cgraph *graph;
    pd_lowered *lowered;            // NULL: no lowering
    pd_onerow *onerow;              // NULL: not asked for
    pd_selection *selections;       // [n_stages], [0] unused
    struct ggml_tensor *tokens;     // i32 [n_rows]
    struct ggml_tensor *features;   // f32 [n_embd, all pictures' rows]; NULL: no picture
    struct ggml_tensor *image_rows; // i64: the rows that they are
    struct ggml_tensor *positions;  // i32 [n_rows] of the first stage
    struct ggml_tensor **masks;     // [n_stages]: f16 [n_rows, n_rows], shared by stages of equal size
    struct ggml_tensor **selected;  // [n_stages]: i32 [n_rows of the stage]; NULL where nothing is dropped
    struct ggml_tensor *logits;     // f32 [n_vocab, 1]
    pd_mark *marks;                 // a layer each; for a ranking two: its keys, and its gathered rows
    size_t n_marks;
} prefill;

// Rough but safe: tensors a layer and a ranking add to the context.
enum { TENSORS_PER_LAYER = 64, TENSORS_PER_STAGE = 48, TENSORS_EXTRA = 64 };

static size_t graph_size(const pd_prefill_job *job) {
    return TENSORS_EXTRA + TENSORS_PER_LAYER * (size_t)job->weights->h.n_layers +
           TENSORS_PER_STAGE * (size_t)job->schedule->n_stages;
}

static void prefill_free(prefill *p) {
    if (p->selections) {
        for (int32_t s = 0; s < p->job->schedule->n_stages; s++)
            pd_selection_free(&p->selections[s]);
    }
    free(p->selections);
    free(p->masks);
    free(p->selected);
    free(p->marks);
    pd_onerow_free(p->onerow);
    pd_lowered_free(p->lowered);
    if (p->ctx) ggml_free(p->ctx);
}

static pd_status prefill_init(prefill *p, pd_prefill_job *job, pd_error *err) {
    *p = (prefill){.job = job};
    const size_t n_stages = (size_t)job->schedule->n_stages;
    const size_t size = graph_size(job);
    const size_t bytes = size * ggml_tensor_overhead() + ggml_graph_overhead_custom(size, false);
    p->ctx = ggml_init((struct ggml_init_params){.mem_size = bytes, .mem_buffer = NULL, .no_alloc = true});
    p->selections = calloc(n_stages, sizeof *p->selections);
    p->masks = calloc(n_stages, sizeof *p->masks);
    p->selected = calloc(n_stages, sizeof *p->selected);
    p->marks = calloc((size_t)job->weights->h.n_layers + 2 * n_stages + 1, sizeof *p->marks);
    if (!p->ctx || !p->selections || !p->masks || !p->selected || !p->marks) {
        return pd_fail_memory(err, bytes, "the prefill graph");
    }
    p->graph = ggml_new_graph_custom(p->ctx, size, false);
    for (int32_t s = 1; s < job->schedule->n_stages; s++) {
        PD_TRY(pd_selection_create(job->schedule, s, &p->selections[s], err));
    }
    return PD_OK;
}

static struct ggml_tensor *input(struct ggml_tensor *tensor) {
    ggml_set_input(tensor);
    return tensor;
}

static void mark(prefill *p, const struct ggml_tensor *node) {
    p->marks[p->n_marks++].node = node;
}

static int32_t count_image_rows(const pd_prompt_rows *rows) {
    int32_t n = 0;
    for (int32_t i = 0; i < rows->n_images; i++)
        n += rows->images[i].count;
    return n;
}

// Text rows from the embedding table, with the images' features laid over theirs.
static struct ggml_tensor *embed(prefill *p) {
    const pd_prompt_rows *rows = p->job->rows;
    const int32_t n_image_rows = count_image_rows(rows);
    p->tokens = input(ggml_new_tensor_1d(p->ctx, GGML_TYPE_I32, rows->n_rows));
    struct ggml_tensor *x = ggml_get_rows(p->ctx, p->job->weights->token_embedding, p->tokens);
    if (n_image_rows == 0) return x;
    p->features = input(ggml_new_tensor_2d(p->ctx, GGML_TYPE_F32, x->ne[0], n_image_rows));
    p->image_rows = input(ggml_new_tensor_1d(p->ctx, GGML_TYPE_I64, n_image_rows));
    return ggml_set_rows(p->ctx, x, p->features, p->image_rows); // [n_embd, n_rows]
}

static pd_status set_features(prefill *p, pd_error *err) {
    const pd_prompt_rows *rows = p->job->rows;
    if (!p->features) return PD_OK;
    int64_t *numbers = malloc(ggml_nbytes(p->image_rows)), *next = numbers;
    if (!numbers) return pd_fail_memory(err, ggml_nbytes(p->image_rows), "the pictures' rows");
    for (int32_t i = 0; i < rows->n_images; i++) {
        const pd_span *image = &rows->images[i];
        ggml_backend_tensor_set(p->features, rows->features[i], (size_t)(next - numbers) * p->features->nb[1],
                                (size_t)image->count * p->features->nb[1]);
        for (int64_t row = image->start; row < image->start + image->count; row++)
            *next++ = row;
    }
    ggml_backend_tensor_set(p->image_rows, numbers, 0, ggml_nbytes(p->image_rows));
    free(numbers);
    return PD_OK;
}

static void add_masks(prefill *p) {
    const pd_schedule *schedule = p->job->schedule;
    for (int32_t s = 0; s < schedule->n_stages; s++) {
        const int32_t n = schedule->stages[s].n_rows;
        const bool same = s > 0 && schedule->stages[s - 1].n_rows == n;
        p->masks[s] = same ? p->masks[s - 1] : input(ggml_new_tensor_2d(p->ctx, GGML_TYPE_F16, n, n));
    }
}

static struct ggml_tensor *gather(prefill *p, struct ggml_tensor *x, struct ggml_tensor *selected) {
    return x ? ggml_get_rows(p->ctx, x, selected) : NULL;
}

// The drop between stage − 1 and `stage`: rows and positions of the one become those of the other.
// `scores`: what FastV's scorer found a layer earlier, else NULL.
static void drop(prefill *p, int32_t stage, struct ggml_tensor *scores, pd_rows *rows,
                 struct ggml_tensor **positions) {
    const pd_prefill_job *job = p->job;
    const int32_t n = job->schedule->stages[stage].n_rows;
    if (pd_schedule_ranks(job->policy, job->schedule, stage)) {
        if (!scores) {
            pd_decoder_keys(p->ctx, job->weights, job->schedule->stages[stage].first_layer, rows);
            ggml_build_forward_expand(p->graph, rows->keys);
            mark(p, rows->keys);
            scores =
                pd_rank(p->ctx, job->weights, job->schedule->stages[stage].first_layer, rows, *positions);
        }
        p->selected[stage] = pd_select_node(p->ctx, &p->selections[stage], scores);
    } else {
        p->selected[stage] = input(ggml_new_tensor_1d(p->ctx, GGML_TYPE_I32, n));
    }
    struct ggml_tensor *selected = p->selected[stage];
    ggml_set_output(selected); // read behind the last layer: its memory must not be used again
    rows->residual = gather(p, rows->residual, selected);
    rows->normed = gather(p, rows->normed, selected);
    rows->keys = gather(p, rows->keys, selected);
    if (job->policy->positions == PD_POSITIONS_COMPACT) {
        *positions = ggml_view_1d(p->ctx, p->positions, n, 0); // 0 … n − 1
    } else {
        *positions = pd_select_positions_node(p->ctx, *positions, selected);
        ggml_build_forward_expand(p->graph, *positions);
    }
    if (rows->keys) ggml_build_forward_expand(p->graph, rows->keys);
    if (rows->normed) ggml_build_forward_expand(p->graph, rows->normed);
    ggml_build_forward_expand(p->graph, rows->residual);
    mark(p, rows->residual);
}

static void build(prefill *p) {
    const pd_prefill_job *job = p->job;
    const pd_schedule *schedule = job->schedule;
    pd_rows rows = {.residual = embed(p)};
    p->positions = input(ggml_new_tensor_1d(p->ctx, GGML_TYPE_I32, job->rows->n_rows));
    struct ggml_tensor *positions = p->positions;
    add_masks(p);
    for (int32_t s = 0; s < schedule->n_stages; s++) {
        const pd_stage *stage = &schedule->stages[s];
        struct ggml_tensor *scores = NULL;
        for (int32_t layer = stage->first_layer; layer < stage->end_layer; layer++) {
            const bool asked_here = layer + 1 == stage->end_layer && s + 1 < schedule->n_stages &&
                                    job->policy->scorer == PD_SCORER_PREVIOUS_LAYER &&
                                    pd_schedule_ranks(job->policy, schedule, s + 1);
            if (asked_here) scores = pd_rank(p->ctx, job->weights, layer, &rows, positions);
            const pd_layer_input in = {.rows = rows,
                                       .positions = positions,
                                       .mask = p->masks[s],
                                       .flash = job->flash,
                                       .last_row_only = layer + 1 == job->weights->h.n_layers,
                                       .cache_k = job->cache->k[layer],
                                       .cache_v = job->cache->v[layer]};
            rows =
                (pd_rows){.residual = pd_decoder_layer_forward(p->ctx, p->graph, job->weights, layer, &in)};
            mark(p, rows.residual);
        }
        if (s + 1 < schedule->n_stages && pd_schedule_drops(schedule, s + 1)) {
            drop(p, s + 1, scores, &rows, &positions);
        }
    }
    p->logits = pd_decoder_logits(p->ctx, job->weights, rows.residual);
    ggml_set_output(p->logits);
    ggml_build_forward_expand(p->graph, p->logits);
    mark(p, p->logits);
}

// Row i sees i + 1 numbers: n seen ones and n hidden, from n − 1 − i on.
static pd_status set_mask(struct ggml_tensor *mask, pd_error *err) {
    const size_t n = (size_t)mask->ne[0], bytes = n * sizeof(ggml_fp16_t);
    ggml_fp16_t *rows = malloc(2 * bytes);
    if (!rows) return pd_fail_memory(err, 2 * bytes, "the causal mask");
    const ggml_fp16_t seen = ggml_fp32_to_fp16(0.0F), hidden = ggml_fp32_to_fp16(-__builtin_inff());
    for (size_t i = 0; i < n; i++) {
        rows[i] = seen;
        rows[n + i] = hidden;
    }
    for (size_t i = 0; i < n; i++)
        ggml_backend_tensor_set(mask, rows + n - 1 - i, i * bytes, bytes);
    free(rows);
    return PD_OK;
}

static pd_status set_inputs(prefill *p, pd_error *err) {
    const pd_prefill_job *job = p->job;
    const pd_prompt_rows *rows = job->rows;
    const size_t n = (size_t)rows->n_rows;
    PD_TRY(set_features(p, err));
    int32_t *numbers = malloc(n * sizeof *numbers);
    if (!numbers) return pd_fail_memory(err, n * sizeof *numbers, "the prompt's rows");
    for (size_t i = 0; i < n; i++)
        numbers[i] = rows->tokens[i] < 0 ? 0 : rows->tokens[i]; // a picture's features will lie over these
    ggml_backend_tensor_set(p->tokens, numbers, 0, n * sizeof *numbers);
    for (size_t i = 0; i < n; i++)
        numbers[i] = (int32_t)i;
    ggml_backend_tensor_set(p->positions, numbers, 0, n * sizeof *numbers);
    for (int32_t s = 1; s < job->schedule->n_stages; s++) {
        if (!p->selected[s] || pd_schedule_ranks(job->policy, job->schedule, s)) continue;
        if (job->policy->scorer == PD_SCORER_RANDOM) {
            pd_select_random(&p->selections[s], job->policy->seed, numbers);
        } else {
            pd_select_uniform(&p->selections[s], numbers);
        }
        ggml_backend_tensor_set(p->selected[s], numbers, 0, ggml_nbytes(p->selected[s]));
    }
    free(numbers);
    for (int32_t s = 0; s < job->schedule->n_stages; s++) {
        // a mask that no layer read has no memory: a last layer of one stage needs none
        const bool shared = s > 0 && p->masks[s] == p->masks[s - 1];
        if (!shared && p->masks[s]->buffer) PD_TRY(set_mask(p->masks[s], err));
    }
    return PD_OK;
}

// From here on p->graph is what is computed.
static pd_status lower(prefill *p, pd_error *err) {
    pd_prefill_job *job = p->job;
    PD_TRY(pd_engine_lower(job->lowering, job->backend, job->progress, job->progress_user, &p->graph,
                           &p->lowered, err));
    if (p->lowered) {
        job->scratch_bytes = pd_lowered_bytes(p->lowered);
        job->pack_ms = pd_lowered_pack_ms(p->lowered);
    }
    if (!job->own_kernels) return PD_OK;
    PD_TRY(pd_onerow_lower(p->graph, job->backend->n_threads, &p->onerow, err));
    p->graph = pd_onerow_graph(p->onerow);
    return PD_OK;
}

static pd_status allocate(prefill *p, pd_error *err) {
    pd_prefill_job *job = p->job;
    const size_t size = (size_t)ggml_graph_size(p->graph);
    if (*job->scheduler && *job->scheduler_size < size) {
        ggml_backend_sched_free(*job->scheduler);
        *job->scheduler = NULL;
    }
    if (!*job->scheduler) {
        PD_TRY(pd_backend_scheduler(job->backend, size, job->scheduler, err));
        *job->scheduler_size = size;
    }
    char what[48];
    snprintf(what, sizeof what, "a prefill of %d rows", job->rows->n_rows);
    return pd_backend_allocate(job->backend, job->scheduler, p->graph, what, err);
}

// Marks come in the graph's order: the layers of a stage, then its ranking's. The keys of the rows that live
// on are the next layer's work, so only the dropped rows' share of the key projection is the ranking's.
static void collect_times(const prefill *p) {
    pd_prefill_job *job = p->job;
    const pd_schedule *schedule = job->schedule;
    size_t m = 0;
    double carried = 0.0;
    for (int32_t s = 0; s < schedule->n_stages; s++) {
        const pd_stage *stage = &schedule->stages[s];
        double layers_ms = carried, rank_ms = 0.0;
        carried = 0.0;
        for (int32_t layer = stage->first_layer; layer < stage->end_layer; layer++)
            layers_ms += p->marks[m++].ms;
        if (s + 1 < schedule->n_stages && pd_schedule_drops(schedule, s + 1)) {
            const bool keys_marked = job->policy->scorer == PD_SCORER_NEXT_LAYER &&
                                     pd_schedule_ranks(job->policy, schedule, s + 1);
            if (keys_marked) {
                const double kept = (double)schedule->stages[s + 1].n_rows / stage->n_rows;
                carried = p->marks[m].ms * kept;
                rank_ms += p->marks[m++].ms * (1.0 - kept);
            }
            rank_ms += p->marks[m++].ms;
        }
        job->times.layers_ms[s] = layers_ms;
        if (s + 1 < schedule->n_stages) job->times.rank_ms[s + 1] = rank_ms;
    }
    job->times.output_ms = p->marks[m].ms;
}

static void collect_results(const prefill *p) {
    pd_prefill_job *job = p->job;
    ggml_backend_tensor_get(p->logits, job->logits, 0, ggml_nbytes(p->logits));
    for (int32_t s = 1; s < job->schedule->n_stages; s++) {
        if (p->selected[s]) {
            ggml_backend_tensor_get(p->selected[s], job->kept[s], 0, ggml_nbytes(p->selected[s]));
        } else {
            for (int32_t i = 0; i < job->schedule->stages[s].n_rows; i++)
                job->kept[s][i] = i;
        }
    }
    collect_times(p);
}

pd_status pd_prefill(pd_prefill_job *job, pd_error *err) {
    prefill p;
    pd_status status = prefill_init(&p, job, err);
    if (status == PD_OK) {
        build(&p);
        status = lower(&p, err);
    }
    if (status == PD_OK) status = allocate(&p, err);
    if (status == PD_OK) status = set_inputs(&p, err);
    if (status == PD_OK) {
        const pd_compute_options options = {.marks = p.marks,
                                            .n_marks = p.n_marks,
                                            .progress = job->progress,
                                            .progress_user = job->progress_user,
                                            .what = "prefill",
                                            .progress_to = 1.0};
        status = pd_compute(job->backend, *job->scheduler, p.graph, &options, err);
    }
    if (status == PD_OK && p.lowered) status = pd_lowered_check(p.lowered, err);
    if (status == PD_OK) collect_results(&p);
    prefill_free(&p);
    return status;
}
