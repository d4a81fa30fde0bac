// One training step, forward and backward, of a small decoder: ggml's own kernels, the same graph lowered,
// and the trainer's step, in turn.
//
//     train_step [--check] [--repeats N] [--threads N]
//
// --check: a tiny decoder, and the gradients are compared with ggml's.
#include "base/random.h"
#include "model/backend.h"
#include "model/synth.h"
#include "onednn/lowering.h"
#include "train/step.h"

#include <ggml-alloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    int64_t n_embd, n_layers, n_heads, n_ff, n_tokens, n_samples, n_vocab;
} geometry;

static const geometry timed = {256, 12, 8, 688, 170, 16, 2048}; // ten million parameters
static const geometry tiny = {64, 2, 4, 176, 37, 3, 96};

enum { MAX_PARAMETERS = 160, GRAPH_SIZE = 8192 };

typedef struct {
    const geometry *g;
    struct ggml_context *fixed, *ctx; // parameters and inputs; the graph
    ggml_backend_buffer_t buffer;
    struct ggml_tensor *parameters[MAX_PARAMETERS]; // named as in a GGUF file
    int n_parameters;
    struct ggml_tensor *tokens, *positions, *mask, *labels, *loss;
    struct ggml_cgraph *graph;
} step;

static void fail(const char *what) {
    fprintf(stderr, "train_step: %s\n", what);
    exit(1);
}

static void check_status(pd_status status, const pd_error *err) {
    if (status != PD_OK) fail(err->message);
}

static struct ggml_tensor *parameter(step *s, const char *name, int64_t n, int64_t rows) {
    struct ggml_tensor *t = ggml_new_tensor_2d(s->fixed, GGML_TYPE_F32, n, rows);
    ggml_set_name(t, name);
    ggml_set_param(t);
    s->parameters[s->n_parameters++] = t;
    return t;
}

static struct ggml_tensor *norm(step *s, struct ggml_tensor *x, struct ggml_tensor *weight) {
    return ggml_mul(s->ctx, ggml_rms_norm(s->ctx, x, 1e-5F), weight);
}

// [n_embd, rows] → [head_dim, n_tokens, n_heads, n_samples]
static struct ggml_tensor *heads(step *s, struct ggml_tensor *x, bool rotate) {
    const geometry *g = s->g;
    const int64_t head_dim = g->n_embd / g->n_heads;
    x = ggml_reshape_4d(s->ctx, x, head_dim, g->n_heads, g->n_tokens, g->n_samples);
    if (rotate)
        x = ggml_rope_ext(s->ctx, x, s->positions, NULL, (int)head_dim, 0, 0, 1e4F, 1.0F, 0.0F, 1.0F, 0.0F,
                          0.0F);
    return ggml_permute(s->ctx, x, 0, 2, 1, 3);
}

static struct ggml_tensor *attend(step *s, struct ggml_tensor *normed, struct ggml_tensor *const *w) {
    const geometry *g = s->g;
    struct ggml_context *ctx = s->ctx;
    struct ggml_tensor *q = ggml_cont(ctx, heads(s, ggml_mul_mat(ctx, w[0], normed), true));
    struct ggml_tensor *k = ggml_cont(ctx, heads(s, ggml_mul_mat(ctx, w[1], normed), true));
    struct ggml_tensor *v = heads(s, ggml_mul_mat(ctx, w[2], normed), false);
    struct ggml_tensor *scores = ggml_mul_mat(ctx, k, q); // [n_tokens, n_tokens, n_heads, n_samples]
    const float scale = 1.0F / sqrtf((float)(g->n_embd / g->n_heads));
    struct ggml_tensor *shares = ggml_soft_max_ext(ctx, scores, s->mask, scale, 0.0F);
    struct ggml_tensor *out = ggml_mul_mat(ctx, ggml_cont(ctx, ggml_transpose(ctx, v)), shares);
    out = ggml_cont_2d(ctx, ggml_permute(ctx, out, 0, 2, 1, 3), g->n_embd, g->n_tokens * g->n_samples);
    return ggml_mul_mat(ctx, w[3], out);
}

static void make_parameters(step *s, struct ggml_tensor **embedding, struct ggml_tensor *w[][9],
                            struct ggml_tensor **output_norm, struct ggml_tensor **output) {
    const geometry *g = s->g;
    const struct {
        const char *name;
        int64_t n, rows;
    } of_a_layer[9] = {{"attn_q", g->n_embd, g->n_embd}, {"attn_k", g->n_embd, g->n_embd},
                       {"attn_v", g->n_embd, g->n_embd}, {"attn_output", g->n_embd, g->n_embd},
                       {"attn_norm", g->n_embd, 1},      {"ffn_norm", g->n_embd, 1},
                       {"ffn_gate", g->n_embd, g->n_ff}, {"ffn_up", g->n_embd, g->n_ff},
                       {"ffn_down", g->n_ff, g->n_embd}};
    *embedding = parameter(s, "token_embd.weight", g->n_embd, g->n_vocab);
    for (int i = 0; i < (int)g->n_layers; i++) {
        for (int j = 0; j < 9; j++) {
            char name[GGML_MAX_NAME];
            snprintf(name, sizeof name, "blk.%d.%s.weight", i, of_a_layer[j].name);
            w[i][j] = parameter(s, name, of_a_layer[j].n, of_a_layer[j].rows);
        }
    }
    *output_norm = parameter(s, "output_norm.weight", g->n_embd, 1);
    *output = parameter(s, "output.weight", g->n_embd, g->n_vocab);
}

// Token t of a sample's n_tokens + 1: each but the last is read, each but the first predicted.
static int32_t token_at(const geometry *g, int64_t sample, int64_t t) {
    uint64_t state = (uint64_t)(sample * (g->n_tokens + 1) + t);
    return (int32_t)(pd_random_next(&state) % (uint64_t)g->n_vocab);
}

static void set_inputs(step *s, uint64_t seed) {
    const geometry *g = s->g;
    for (int i = 0; i < s->n_parameters; i++) {
        struct ggml_tensor *p = s->parameters[i];
        float *numbers = p->data;
        for (int64_t j = 0; j < ggml_nelements(p); j++)
            numbers[j] = p->ne[1] == 1 ? 1.0F : (float)(pd_random_uniform(&seed) - 0.5) * 0.1F;
    }
    int32_t *tokens = s->tokens->data, *positions = s->positions->data;
    memset(s->labels->data, 0, ggml_nbytes(s->labels));
    for (int64_t i = 0; i < g->n_tokens * g->n_samples; i++) {
        const int64_t sample = i / g->n_tokens, t = i % g->n_tokens;
        tokens[i] = token_at(g, sample, t);
        float *label = (float *)s->labels->data + i * g->n_vocab;
        label[token_at(g, sample, t + 1)] = 1.0F;
    }
    float *mask = s->mask->data;
    for (int64_t i = 0; i < g->n_tokens; i++) {
        positions[i] = (int32_t)i;
        for (int64_t j = 0; j < g->n_tokens; j++)
            mask[i * g->n_tokens + j] = j <= i ? 0.0F : -INFINITY;
    }
}

static void build(step *s, const geometry *g, const pd_backend *backend) {
    *s = (step){.g = g};
    s->fixed = ggml_init(
        (struct ggml_init_params){.mem_size = 2 * MAX_PARAMETERS * ggml_tensor_overhead(), .no_alloc = true});
    s->ctx = ggml_init((struct ggml_init_params){.mem_size = GRAPH_SIZE * ggml_tensor_overhead() +
                                                             2 * ggml_graph_overhead_custom(GRAPH_SIZE, true),
                                                 .no_alloc = true});
    const int64_t rows = g->n_tokens * g->n_samples;
    struct ggml_tensor *embedding, *w[16][9], *output_norm, *output;
    make_parameters(s, &embedding, w, &output_norm, &output);
    s->tokens = ggml_new_tensor_1d(s->fixed, GGML_TYPE_I32, rows);
    s->positions = ggml_new_tensor_1d(s->fixed, GGML_TYPE_I32, g->n_tokens);
    s->mask = ggml_new_tensor_2d(s->fixed, GGML_TYPE_F32, g->n_tokens, g->n_tokens);
    s->labels = ggml_new_tensor_2d(s->fixed, GGML_TYPE_F32, g->n_vocab, rows);
    s->buffer = ggml_backend_alloc_ctx_tensors(s->fixed, backend->cpu);
    if (!s->buffer) fail("out of memory");
    set_inputs(s, 1);

    struct ggml_context *ctx = s->ctx;
    struct ggml_tensor *x = ggml_get_rows(ctx, embedding, s->tokens);
    for (int64_t i = 0; i < g->n_layers; i++) {
        x = ggml_add(ctx, x, attend(s, norm(s, x, w[i][4]), w[i]));
        struct ggml_tensor *normed = norm(s, x, w[i][5]);
        struct ggml_tensor *inner =
            ggml_swiglu_split(ctx, ggml_mul_mat(ctx, w[i][6], normed), ggml_mul_mat(ctx, w[i][7], normed));
        x = ggml_add(ctx, x, ggml_mul_mat(ctx, w[i][8], inner));
    }
    struct ggml_tensor *logits = ggml_mul_mat(ctx, output, norm(s, x, output_norm));
    s->loss = ggml_cross_entropy_loss(ctx, logits, s->labels);
    ggml_set_loss(s->loss);
    ggml_set_output(s->loss);
    s->graph = ggml_new_graph_custom(ctx, GRAPH_SIZE, true);
    ggml_build_forward_expand(s->graph, s->loss);
    ggml_build_backward_expand(ctx, s->graph, NULL);
    for (int i = 0; i < s->n_parameters; i++)
        ggml_set_output(ggml_graph_get_grad(s->graph, s->parameters[i]));
}

typedef struct {
    step step;
    pd_lowering *lowering;
    pd_lowered *lowered;
    struct ggml_cgraph *computed;
    ggml_gallocr_t allocator;
    double best_ms;
    const char *name;
} contestant;

static bool prepare(contestant *c, const geometry *g, const pd_backend *backend, pd_compute_type compute) {
    pd_error err;
    const pd_lowering_params params = {.compute = compute, .strict = true, .everything = g == &tiny};
    if (pd_lowering_create(&params, &c->lowering, &err) != PD_OK) {
        printf("%-8s %s\n", c->name, err.message);
        return false;
    }
    build(&c->step, g, backend);
    c->computed = c->step.graph;
    if (c->lowering) {
        const pd_lower_params lower = {.cpu = backend->cpu, .n_threads = backend->n_threads};
        if (pd_lower(c->lowering, c->step.graph, &lower, &c->lowered, &err) != PD_OK) fail(err.message);
        c->computed = pd_lowered_graph(c->lowered);
    }
    c->allocator = ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend->cpu));
    if (!ggml_gallocr_alloc_graph(c->allocator, c->computed)) fail("out of memory");
    return true;
}

static void run(contestant *c, const pd_backend *backend) {
    pd_error err;
    ggml_graph_reset(c->step.graph); // gradients to 0, the loss's to 1
    const double start = pd_now_ms();
    if (ggml_backend_graph_compute(backend->cpu, c->computed) != GGML_STATUS_SUCCESS) fail("ggml failed");
    const double ms = pd_now_ms() - start;
    if (c->lowered && pd_lowered_check(c->lowered, &err) != PD_OK) fail(err.message);
    if (c->best_ms == 0.0 || ms < c->best_ms) c->best_ms = ms;
}

static void release(contestant *c) {
    pd_lowered_free(c->lowered);
    pd_lowering_free(c->lowering);
    ggml_gallocr_free(c->allocator);
    ggml_backend_buffer_free(c->step.buffer);
    ggml_free(c->step.ctx);
    ggml_free(c->step.fixed);
}

// ---- the trainer -------------------------------------------------------------------------------------------

enum { MAX_SAMPLES = 16 };

typedef struct {
    pd_weights weights;
    pd_parameters parameters;
    pd_policy policy;
    pd_lowering *lowering;
    pd_step *step;
    pd_train_sample samples[MAX_SAMPLES];
    double best_ms, loss;
} trainer;

// A decoder of this geometry, through a file that is gone once it is mapped.
static void load_decoder(trainer *t, const geometry *g) {
    pd_geometry shape = {.name = "step", .title = "A benchmark's decoder", .projector_hidden = 16};
    shape.decoder = (pd_decoder_hyperparameters){.architecture = "llama",
                                                 .n_layers = (int32_t)g->n_layers,
                                                 .n_embd = (int32_t)g->n_embd,
                                                 .n_ff = (int32_t)g->n_ff,
                                                 .n_heads = (int32_t)g->n_heads,
                                                 .n_kv_heads = (int32_t)g->n_heads,
                                                 .head_dim = (int32_t)(g->n_embd / g->n_heads),
                                                 .n_vocab = (int32_t)g->n_vocab,
                                                 .n_ctx_train = 4096,
                                                 .rms_epsilon = 1e-5F,
                                                 .rope_mode = GGML_ROPE_TYPE_NORMAL,
                                                 .rope_dim = (int32_t)(g->n_embd / g->n_heads),
                                                 .rope_base = 1e4F,
                                                 .rope_factor = 1.0F};
    const pd_synth_params params = {.geometry = &shape, .type = GGML_TYPE_F32};
    const char *parent = getenv("TMPDIR");
    char path[256];
    snprintf(path, sizeof path, "%.200s/train_step_XXXXXX", parent ? parent : "/tmp");
    const int descriptor = mkstemp(path);
    if (descriptor < 0) fail("cannot make a temporary file");
    close(descriptor);
    pd_error err;
    pd_status status = pd_synth_model(&params, path, &err);
    if (status == PD_OK) status = pd_weights_load(path, NULL, pd_device_cpu(), &t->weights, &err);
    unlink(path);
    check_status(status, &err);
}

// The same decoder, numbers and samples as the contestant's. False: this CPU cannot compute so.
static bool open_trainer(trainer *t, const contestant *ggml, const pd_backend *backend,
                         pd_compute_type compute) {
    const geometry *g = ggml->step.g;
    pd_error err;
    const pd_lowering_params lowering = {.compute = compute, .floats = true, .strict = true};
    const pd_status status = pd_lowering_create(&lowering, &t->lowering, &err);
    if (status == PD_ERR_UNSUPPORTED) return false;
    check_status(status, &err);
    load_decoder(t, g);
    const pd_trainable wanted = {.groups = {[PD_GROUP_DECODER] = true}};
    check_status(pd_parameters_create(&wanted, backend, &t->weights, &t->parameters, &err), &err);
    for (int i = 0; i < ggml->step.n_parameters; i++) {
        const struct ggml_tensor *from = ggml->step.parameters[i];
        pd_parameter *to = pd_parameters_find(&t->parameters, from->name);
        if (!to || ggml_nbytes(to->weight) != ggml_nbytes(from)) fail(from->name);
        memcpy(to->weight->data, from->data, ggml_nbytes(from));
    }
    pd_policy_none(&t->policy);
    const pd_step_params params = {.weights = &t->weights,
                                   .parameters = &t->parameters,
                                   .policy = &t->policy,
                                   .backend = backend,
                                   .lowering = t->lowering};
    check_status(pd_step_create(&params, &t->step, &err), &err);
    for (int64_t i = 0; i < g->n_samples; i++) {
        pd_train_sample *sample = &t->samples[i];
        sample->n_tokens = sample->n_rows = (int32_t)g->n_tokens + 1;
        sample->n_labels = (int32_t)g->n_tokens;
        sample->tokens = calloc((size_t)sample->n_tokens, sizeof *sample->tokens);
        sample->labels = calloc((size_t)sample->n_tokens, sizeof *sample->labels);
        if (!sample->tokens || !sample->labels) fail("out of memory");
        for (int32_t j = 0; j < sample->n_tokens; j++) {
            sample->tokens[j] = token_at(g, i, j);
            sample->labels[j] = j == 0 ? PD_IGNORE_INDEX : sample->tokens[j];
        }
    }
    return true;
}

static void run_trainer(trainer *t, const geometry *g) {
    pd_error err;
    pd_step_result result;
    for (size_t i = 0; i < t->parameters.n; i++)
        memset(t->parameters.all[i].gradient->data, 0, ggml_nbytes(t->parameters.all[i].gradient));
    const float n_labels = (float)(g->n_samples * g->n_tokens);
    const double start = pd_now_ms();
    check_status(
        pd_step_add_gradients(t->step, t->samples, (int32_t)g->n_samples, 1.0F / n_labels, &result, &err),
        &err);
    const double ms = pd_now_ms() - start;
    if (t->best_ms == 0.0 || ms < t->best_ms) t->best_ms = ms;
    t->loss = result.loss / (double)n_labels;
}

static void close_trainer(trainer *t) {
    for (int i = 0; i < MAX_SAMPLES; i++)
        pd_train_sample_free(&t->samples[i]);
    pd_step_free(t->step);
    pd_lowering_free(t->lowering);
    pd_parameters_free(&t->parameters);
    pd_weights_free(&t->weights);
}

// ---- comparing ---------------------------------------------------------------------------------------------

// Of ggml's gradients with a contestant's or the trainer's, relative to the norm of all of a parameter's
// gradient; the worst of all parameters.
static double worst_difference(const contestant *a, const contestant *b, const trainer *t) {
    double worst = 0.0;
    for (int i = 0; i < a->step.n_parameters; i++) {
        const struct ggml_tensor *parameter = a->step.parameters[i];
        const struct ggml_tensor *x = ggml_graph_get_grad(a->step.graph, parameter),
                                 *y = b ? ggml_graph_get_grad(b->step.graph, b->step.parameters[i])
                                        : pd_parameters_find(&t->parameters, parameter->name)->gradient;
        const float *p = x->data, *q = y->data;
        double difference = 0.0, size = 0.0;
        for (int64_t j = 0; j < ggml_nelements(x); j++) {
            difference += ((double)p[j] - q[j]) * ((double)p[j] - q[j]);
            size += (double)p[j] * p[j];
        }
        const double relative = sqrt(difference / size);
        if (isnan(relative)) return relative;
        if (relative > worst) worst = relative;
    }
    return worst;
}

int main(int argc, char **argv) {
    bool check = false;
    int repeats = 3, threads = 2;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--check") == 0) {
            check = true;
        } else if (strcmp(argv[i], "--repeats") == 0 && i + 1 < argc) {
            repeats = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            threads = atoi(argv[++i]);
        } else {
            fputs("usage: train_step [--check] [--repeats N] [--threads N]\n", stderr);
            return 2;
        }
    }
    static atomic_bool cancel;
    pd_backend backend;
    pd_error err;
    if (threads < 1 || repeats < 1) fail("--threads and --repeats: expected at least 1");
    if (pd_backend_create(pd_device_cpu(), threads, &cancel, &backend, &err) != PD_OK) fail(err.message);
    const geometry *g = check ? &tiny : &timed;
    static const struct {
        pd_compute_type compute;
        double tolerance;
    } kinds[] = {{PD_COMPUTE_GGML, 0.0}, {PD_COMPUTE_F32, 1e-5}, {PD_COMPUTE_BF16, 3e-2}};
    contestant contestants[3] = {{.name = "ggml"}, {.name = "f32"}, {.name = "bf16"}};
    bool there[3], trains[3] = {false};
    static trainer trainers[3]; // of f32 and bf16
    for (int i = 0; i < 3; i++) {
        there[i] = prepare(&contestants[i], g, &backend, kinds[i].compute);
        if (i > 0) trains[i] = open_trainer(&trainers[i], &contestants[0], &backend, kinds[i].compute);
    }
    for (int round = 0; round < (check ? 1 : repeats); round++) {
        for (int i = 0; i < 3; i++) {
            if (there[i]) run(&contestants[i], &backend);
            if (trains[i]) run_trainer(&trainers[i], g);
        }
    }
    bool good = true;
    for (int i = 0; i < 3; i++) {
        if (!there[i]) continue;
        const float loss = *(const float *)contestants[i].step.loss->data;
        printf("%-8s loss %.5f, step %.1f ms", contestants[i].name, (double)loss, contestants[i].best_ms);
        if (i > 0) {
            const double difference = worst_difference(&contestants[0], &contestants[i], NULL);
            printf(", %.2f times faster; %d nodes lowered; worst gradient off by %.2g",
                   contestants[0].best_ms / contestants[i].best_ms, pd_lowered_count(contestants[i].lowered),
                   difference);
            if (!(difference <= kinds[i].tolerance) || pd_lowered_count(contestants[i].lowered) == 0)
                good = false;
        }
        putchar('\n');
    }
    for (int i = 1; i < 3; i++) {
        const trainer *t = &trainers[i];
        if (!trains[i]) continue;
        const double difference = worst_difference(&contestants[0], NULL, t);
        if (!(difference <= kinds[i].tolerance)) good = false;
        printf("trainer  loss %.5f, step %.1f ms, %.2f times faster (%s); worst gradient off by %.2g\n",
               t->loss, t->best_ms, contestants[0].best_ms / t->best_ms, pd_lowering_description(t->lowering),
               difference);
    }
    for (int i = 0; i < 3; i++) {
        if (trains[i]) close_trainer(&trainers[i]);
        if (there[i]) release(&contestants[i]);
    }
    pd_backend_free(&backend);
    if (check && !good) fail("gradients differ");
    return 0;
}
