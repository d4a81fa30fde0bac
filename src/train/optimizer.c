#include "train/optimizer.h"

#include "onednn/clones.h"
#include "train/custom.h"

#include <math.h>
#include <stdlib.h>

// Its two graphs are one node each, in which every thread takes its share of every parameter.
struct pd_optimizer {
    const pd_parameters *parameters;
    const pd_backend *backend;
    struct ggml_context *ctx;
    ggml_backend_buffer_t buffer;
    struct ggml_cgraph *norm_graph, *step_graph;
    double *squares; // [n_threads]: the sums over their shares
    pd_adamw_params params;
};

PD_CLONES
static double sum_of_squares(const float *x, int64_t n) {
    enum { LANES = 8 }; // for SIMD: compilers do not add floats in another order unasked
    double lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int lane = 0; lane < LANES; lane++)
            lanes[lane] += (double)x[i + lane] * (double)x[i + lane];
    }
    for (; i < n; i++)
        lanes[0] += (double)x[i] * (double)x[i];
    double sum = 0.0;
    for (int lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    return sum;
}

static void run_norm(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    (void)out;
    pd_optimizer *optimizer = user;
    double sum = 0.0;
    for (size_t i = 0; i < optimizer->parameters->n; i++) {
        const struct ggml_tensor *gradient = optimizer->parameters->all[i].gradient;
        int64_t first = 0, last = 0;
        pd_share(ggml_nelements(gradient), thread, n_threads, &first, &last);
        sum += sum_of_squares((const float *)gradient->data + first, last - first);
    }
    optimizer->squares[thread] = sum;
}

typedef struct {
    float scale, beta1, beta2, decay, rate, correction, epsilon;
} coefficients;

PD_CLONES
static void adamw(const coefficients *constants, float *w, float *g, float *m, float *v, int64_t n) {
    const coefficients c = *constants; // which nothing written here can change
    for (int64_t i = 0; i < n; i++) {
        const float gradient = g[i] * c.scale;
        m[i] = c.beta1 * m[i] + (1.0F - c.beta1) * gradient;
        v[i] = c.beta2 * v[i] + (1.0F - c.beta2) * gradient * gradient;
        w[i] = w[i] * c.decay - c.rate * m[i] / (sqrtf(v[i]) * c.correction + c.epsilon);
        g[i] = 0.0F;
    }
}

static void run_step(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    (void)out;
    const pd_optimizer *optimizer = user;
    const pd_adamw_params *params = &optimizer->params;
    const double t = (double)params->step;
    const double correction1 = 1.0 - pow((double)params->beta1, t),
                 correction2 = 1.0 - pow((double)params->beta2, t);
    for (size_t i = 0; i < optimizer->parameters->n; i++) {
        const pd_parameter *p = &optimizer->parameters->all[i];
        const float rate = params->learning_rates[p->group];
        const coefficients c = {.scale = params->gradient_scale,
                                .beta1 = params->beta1,
                                .beta2 = params->beta2,
                                .decay = p->decays ? 1.0F - rate * params->weight_decay : 1.0F,
                                .rate = (float)((double)rate / correction1),
                                .correction = (float)(1.0 / sqrt(correction2)),
                                .epsilon = params->epsilon};
        int64_t first = 0, last = 0;
        pd_share(ggml_nelements(p->weight), thread, n_threads, &first, &last);
        adamw(&c, (float *)p->weight->data + first, (float *)p->gradient->data + first,
              (float *)p->m->data + first, (float *)p->v->data + first, last - first);
    }
}

static struct ggml_cgraph *make_graph(pd_optimizer *optimizer, struct ggml_tensor *anchor,
                                      ggml_custom_op_t run) {
    struct ggml_cgraph *graph = ggml_new_graph_custom(optimizer->ctx, 8, false);
    ggml_build_forward_expand(
        graph, ggml_custom_inplace(optimizer->ctx, anchor, NULL, 0, run, GGML_N_TASKS_MAX, optimizer));
    return graph;
}

pd_status pd_optimizer_create(const pd_parameters *parameters, const pd_backend *backend, pd_optimizer **out,
                              pd_error *err) {
    *out = NULL;
    pd_optimizer *optimizer = calloc(1, sizeof *optimizer);
    if (!optimizer) return pd_fail_memory(err, sizeof *optimizer, "the optimiser");
    *optimizer = (pd_optimizer){.parameters = parameters, .backend = backend};
    const size_t bytes = 8 * ggml_tensor_overhead() + 2 * ggml_graph_overhead_custom(8, false);
    optimizer->ctx = ggml_init((struct ggml_init_params){.mem_size = bytes, .no_alloc = true});
    optimizer->squares = calloc((size_t)backend->n_threads, sizeof *optimizer->squares);
    if (optimizer->ctx && optimizer->squares) {
        struct ggml_tensor *anchor = ggml_new_tensor_1d(optimizer->ctx, GGML_TYPE_F32, 1);
        optimizer->norm_graph = make_graph(optimizer, anchor, run_norm);
        optimizer->step_graph = make_graph(optimizer, anchor, run_step);
        optimizer->buffer = ggml_backend_alloc_ctx_tensors(optimizer->ctx, backend->cpu);
    }
    if (!optimizer->buffer) {
        pd_optimizer_free(optimizer);
        return pd_fail_memory(err, bytes, "the optimiser");
    }
    *out = optimizer;
    return PD_OK;
}

void pd_optimizer_free(pd_optimizer *optimizer) {
    if (!optimizer) return;
    if (optimizer->buffer) ggml_backend_buffer_free(optimizer->buffer);
    if (optimizer->ctx) ggml_free(optimizer->ctx);
    free(optimizer->squares);
    free(optimizer);
}

static pd_status compute(const pd_optimizer *optimizer, struct ggml_cgraph *graph, pd_error *err) {
    const enum ggml_status status = ggml_backend_graph_compute(optimizer->backend->cpu, graph);
    // ggml looks at cancelling behind a node: the graph's only one is done by then, and half a step never is
    if (status != GGML_STATUS_SUCCESS && status != GGML_STATUS_ABORTED)
        return pd_fail(err, PD_ERR_BACKEND, "ggml: %s", ggml_status_to_string(status));
    return PD_OK;
}

pd_status pd_optimizer_gradient_norm(pd_optimizer *optimizer, double *norm, pd_error *err) {
    *norm = 0.0;
    const int32_t n_threads = optimizer->backend->n_threads;
    memset(optimizer->squares, 0, (size_t)n_threads * sizeof *optimizer->squares);
    PD_TRY(compute(optimizer, optimizer->norm_graph, err));
    double sum = 0.0;
    for (int32_t i = 0; i < n_threads; i++)
        sum += optimizer->squares[i];
    *norm = sqrt(sum);
    return PD_OK;
}

pd_status pd_optimizer_step(pd_optimizer *optimizer, const pd_adamw_params *params, pd_error *err) {
    optimizer->params = *params;
    return compute(optimizer, optimizer->step_graph, err);
}
