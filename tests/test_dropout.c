// Dropout: how much it leaves out, that draws, masks and rows differ, and its derivative.
#include "model/backend.h"
#include "train/dropout.h"
#include "train/gradient.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // wants the above

enum { COLUMNS = 203, ROWS = 97, COUNT = COLUMNS * ROWS, OUTPUTS = 3 };

static uint64_t draw;

static void compute(struct ggml_cgraph *graph, int n_threads) {
    static atomic_bool cancel;
    pd_backend backend;
    pd_error err;
    assert_int_equal(pd_backend_create(pd_device_cpu(), n_threads, &cancel, &backend, &err), PD_OK);
    assert_int_equal(ggml_backend_graph_compute(backend.cpu, graph), GGML_STATUS_SUCCESS);
    pd_backend_free(&backend);
}

// y: what dropout makes of ones.
static void drop_ones(pd_dropout dropout, int n_threads, float *y) {
    struct ggml_context *ctx = ggml_init((struct ggml_init_params){.mem_size = 1 << 20});
    struct ggml_tensor *x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, COLUMNS, ROWS);
    for (int i = 0; i < COUNT; i++)
        ((float *)x->data)[i] = 1.0F;
    struct ggml_tensor *out = pd_dropout_node(ctx, x, &dropout);
    struct ggml_cgraph *graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, out);
    compute(graph, n_threads);
    memcpy(y, out->data, COUNT * sizeof *y);
    ggml_free(ctx);
}

static double share_of_zeros(const float *y) {
    int zeros = 0;
    for (int i = 0; i < COUNT; i++)
        zeros += y[i] == 0.0F;
    return (double)zeros / COUNT;
}

static void leaves_out_its_share(void **state) {
    (void)state;
    static const float rates[] = {0.05F, 0.5F, 0.9F};
    float *y = malloc(COUNT * sizeof *y);
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        draw = 7;
        drop_ones((pd_dropout){.rate = rates[i], .draw = &draw}, 2, y);
        const double deviation = sqrt((double)rates[i] * (1.0 - (double)rates[i]) / COUNT);
        assert_true(fabs(share_of_zeros(y) - (double)rates[i]) < 5.0 * deviation);
        for (int j = 0; j < COUNT; j++)
            assert_true(y[j] == 0.0F || fabsf(y[j] * (1.0F - rates[i]) - 1.0F) < 1e-6F);
    }
    drop_ones((pd_dropout){.rate = 0.0F, .draw = &draw}, 1, y);
    assert_true(share_of_zeros(y) == 0.0);
    free(y);
}

// Half of the places of two independent masks at one half agree.
static bool are_independent(const float *a, const float *b, int n) {
    int same = 0;
    for (int i = 0; i < n; i++)
        same += (a[i] == 0.0F) == (b[i] == 0.0F);
    return fabs((double)same / n - 0.5) < 5.0 * 0.5 / sqrt((double)n);
}

static void other_draws_differ(void **state) {
    (void)state;
    float *y = malloc(COUNT * sizeof *y), *other = malloc(COUNT * sizeof *other);
    draw = 7;
    drop_ones((pd_dropout){.rate = 0.5F, .draw = &draw}, 1, y);
    drop_ones((pd_dropout){.rate = 0.5F, .draw = &draw}, 3, other);
    assert_memory_equal(y, other, COUNT * sizeof *y); // whatever the threads
    drop_ones((pd_dropout){.rate = 0.5F, .mask = 1, .draw = &draw}, 1, other);
    assert_true(are_independent(y, other, COUNT));
    draw = 8;
    drop_ones((pd_dropout){.rate = 0.5F, .draw = &draw}, 1, other);
    assert_true(are_independent(y, other, COUNT));
    for (int r = 1; r < ROWS; r++) // rows, of one mask
        assert_false(memcmp(y, y + r * COLUMNS, COLUMNS * sizeof *y) == 0);
    assert_true(are_independent(y, y + COLUMNS, COUNT - COLUMNS));
    free(other);
    free(y);
}

// y = W dropout(x), d_y = ones: d_x = dropout's mask ∘ (Wᵀ 1), d_W = 1 dropout(x)ᵀ.
static void is_its_own_derivative(void **state) {
    (void)state;
    pd_error err;
    pd_dropout dropout = {.rate = 0.25F, .mask = 3, .draw = &draw};
    draw = 42;
    struct ggml_context *ctx = ggml_init((struct ggml_init_params){.mem_size = 1 << 22});
    struct ggml_tensor *x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, COLUMNS, ROWS),
                       *d_x = ggml_dup_tensor(ctx, x);
    struct ggml_tensor *w = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, COLUMNS, OUTPUTS),
                       *d_w = ggml_dup_tensor(ctx, w);
    struct ggml_tensor *ones = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, OUTPUTS, ROWS);
    for (int i = 0; i < COUNT; i++)
        ((float *)x->data)[i] = sinf((float)i);
    for (int i = 0; i < COLUMNS * OUTPUTS; i++)
        ((float *)w->data)[i] = cosf((float)i);
    for (int i = 0; i < OUTPUTS * ROWS; i++)
        ((float *)ones->data)[i] = 1.0F;
    memset(d_x->data, 0, ggml_nbytes(d_x));
    memset(d_w->data, 0, ggml_nbytes(d_w));
    struct ggml_tensor *y = ggml_mul_mat(ctx, w, pd_dropout_node(ctx, x, &dropout));
    struct ggml_cgraph *graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, y);
    const pd_gradient_target targets[] = {{x, d_x}, {w, d_w}};
    assert_int_equal(pd_gradient_build(ctx, graph, y, ones, targets, 2, true, &err), PD_OK);
    compute(graph, 2);

    float *mask = malloc(COUNT * sizeof *mask);
    drop_ones(dropout, 1, mask);
    for (int i = 0; i < COLUMNS; i++) {
        double sum = 0.0, along = 0.0;
        for (int o = 0; o < OUTPUTS; o++)
            sum += (double)((const float *)w->data)[o * COLUMNS + i];
        for (int r = 0; r < ROWS; r++) {
            const int at = r * COLUMNS + i;
            along += (double)(mask[at] * ((const float *)x->data)[at]);
            assert_true(fabs((double)((const float *)d_x->data)[at] - (double)mask[at] * sum) < 1e-5);
        }
        for (int o = 0; o < OUTPUTS; o++)
            assert_true(fabs((double)((const float *)d_w->data)[o * COLUMNS + i] - along) < 1e-4);
    }
    free(mask);
    ggml_free(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaves_out_its_share),
        cmocka_unit_test(other_draws_differ),
        cmocka_unit_test(is_its_own_derivative),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
