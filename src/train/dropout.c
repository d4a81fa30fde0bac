#include "train/dropout.h"

#include "base/random.h"
#include "train/custom.h"

// Each draws sixteen bits.
enum { DRAWS = 4, DRAW_BITS = 16 };

static void run_dropout(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    const pd_dropout *dropout = user;
    const uint64_t least = (uint64_t)((double)dropout->rate * (1 << DRAW_BITS) + 0.5);
    const float factor = 1.0F / (1.0F - dropout->rate);
    const int64_t n = out->ne[0];
    uint64_t graph = *dropout->draw ^ (dropout->mask << 32);
    const uint64_t drawn = pd_random_next(&graph);
    int64_t first = 0, last = 0;
    pd_share(ggml_nrows(out), thread, n_threads, &first, &last);
    for (int64_t r = first; r < last; r++) {
        const float *x = (const float *)out->src[0]->data + r * n;
        float *y = (float *)out->data + r * n;
        uint64_t row = drawn + (uint64_t)r, state = pd_random_next(&row), bits = 0;
        for (int64_t i = 0; i < n; i++) {
            if (i % DRAWS == 0) bits = pd_random_next(&state);
            y[i] = (bits & ((1 << DRAW_BITS) - 1)) < least ? 0.0F : x[i] * factor;
            bits >>= DRAW_BITS;
        }
    }
}

struct ggml_tensor *pd_dropout_node(struct ggml_context *ctx, struct ggml_tensor *x, pd_dropout *dropout) {
    return ggml_custom_4d(ctx, GGML_TYPE_F32, x->ne[0], x->ne[1], x->ne[2], x->ne[3], &x, 1, run_dropout,
                          GGML_N_TASKS_MAX, dropout);
}

pd_dropout *pd_dropout_of(const struct ggml_tensor *node) {
    return pd_custom_function(node) == run_dropout ? pd_custom_user(node) : NULL;
}
