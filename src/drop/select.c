#include "drop/select.h"

#include "base/random.h"

#include <math.h>
#include <stdlib.h>

pd_status pd_selection_create(const pd_schedule *schedule, int32_t stage, pd_selection *selection,
                              pd_error *err) {
    *selection = (pd_selection){.before = &schedule->stages[stage - 1],
                                .after = &schedule->stages[stage],
                                .n_images = schedule->n_images};
    const size_t n = (size_t)selection->before->n_rows;
    selection->order = calloc(n + 1, sizeof *selection->order);
    return selection->order ? PD_OK : pd_fail_memory(err, n * sizeof *selection->order, "selecting rows");
}

void pd_selection_free(pd_selection *selection) {
    free(selection->order);
    *selection = (pd_selection){0};
}

static int ascending(const void *a, const void *b) {
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

// Best first: the higher score, not-a-number behind all others, then the lower index.
static int by_score(const void *a, const void *b, void *user) {
    const float *scores = user;
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    const float x = scores[i], y = scores[j];
    if (isnan(x) != isnan(y)) return isnan(x) ? 1 : -1;
    if (x > y) return -1;
    if (x < y) return 1;
    return (i > j) - (i < j);
}

// Lays down text rows as they are and, for every image, the `after` count of rows that `choose` puts first.
typedef void (*chooser)(int32_t *candidates, int32_t count, int32_t kept, void *user);

static void select_rows(const pd_selection *selection, chooser choose, void *user, int32_t *rows) {
    int32_t row = 0, written = 0;
    for (int32_t image = 0; image < selection->n_images; image++) {
        const pd_span from = selection->before->images[image];
        const int32_t kept = selection->after->images[image].count;
        while (row < from.start)
            rows[written++] = row++;
        int32_t *candidates = selection->order;
        for (int32_t i = 0; i < from.count; i++)
            candidates[i] = from.start + i;
        if (kept < from.count) choose(candidates, from.count, kept, user);
        for (int32_t i = 0; i < kept; i++)
            rows[written + i] = candidates[i];
        qsort(rows + written, (size_t)kept, sizeof *rows, ascending);
        written += kept;
        row = from.start + from.count;
    }
    while (row < selection->before->n_rows)
        rows[written++] = row++;
}

static void choose_by_score(int32_t *candidates, int32_t count, int32_t kept, void *user) {
    (void)kept;
    qsort_r(candidates, (size_t)count, sizeof *candidates, by_score, user);
}

void pd_select(const pd_selection *selection, const float *scores, int32_t *rows) {
    select_rows(selection, choose_by_score, (void *)(uintptr_t)scores, rows);
}

static void run_select(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    (void)n_threads;
    if (thread == 0) pd_select(user, out->src[0]->data, out->data);
}

struct ggml_tensor *pd_select_node(struct ggml_context *ctx, pd_selection *selection,
                                   struct ggml_tensor *scores) {
    return ggml_custom_4d(ctx, GGML_TYPE_I32, selection->after->n_rows, 1, 1, 1, &scores, 1, run_select, 1,
                          selection);
}

static void run_select_positions(struct ggml_tensor *out, int thread, int n_threads, void *user) {
    (void)n_threads;
    (void)user;
    if (thread != 0) return;
    const int32_t *positions = out->src[0]->data, *rows = out->src[1]->data;
    int32_t *selected = out->data;
    for (int64_t i = 0; i < out->ne[0]; i++)
        selected[i] = positions[rows[i]];
}

struct ggml_tensor *pd_select_positions_node(struct ggml_context *ctx, struct ggml_tensor *positions,
                                             struct ggml_tensor *rows) {
    struct ggml_tensor *sources[2] = {positions, rows};
    return ggml_custom_4d(ctx, GGML_TYPE_I32, rows->ne[0], 1, 1, 1, sources, 2, run_select_positions, 1,
                          NULL);
}

// The middles of `kept` equal parts of the span.
static void choose_evenly(int32_t *candidates, int32_t count, int32_t kept, void *user) {
    (void)user;
    const int32_t first = candidates[0];
    for (int64_t i = 0; i < kept; i++)
        candidates[i] = first + (int32_t)((2 * i + 1) * count / (2 * (int64_t)kept));
}

void pd_select_uniform(const pd_selection *selection, int32_t *rows) {
    select_rows(selection, choose_evenly, NULL, rows);
}

// The first `kept` of a Fisher-Yates shuffle. The modulo's bias is below count / 2^64.
static void choose_randomly(int32_t *candidates, int32_t count, int32_t kept, void *user) {
    for (int32_t i = 0; i < kept; i++) {
        const int32_t j = i + (int32_t)(pd_random_next(user) % (uint64_t)(count - i));
        const int32_t candidate = candidates[i];
        candidates[i] = candidates[j];
        candidates[j] = candidate;
    }
}

void pd_select_random(const pd_selection *selection, uint64_t seed, int32_t *rows) {
    uint64_t state = seed ^ ((uint64_t)selection->after->first_layer << 32);
    select_rows(selection, choose_randomly, &state, rows);
}
