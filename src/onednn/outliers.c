#include "onednn/outliers.h"

#include "onednn/clones.h"

#include <float.h>
#include <string.h>

// The channels are a trait of the model more than of the rows: some hundred rows, evenly spaced, tell them.
enum { ENOUGH_ROWS = 128, BLOCK_ROWS = 16 };

typedef struct {
    int64_t n, n_rows, step; // channels; rows that are looked at, every step-th
    int64_t n_blocks;
} search;

static search plan(const struct ggml_tensor *source) {
    const int64_t all = source->ne[1] * source->ne[2] * source->ne[3];
    search s = {.n = source->ne[0], .step = all < ENOUGH_ROWS ? 1 : all / ENOUGH_ROWS};
    s.n_rows = (all + s.step - 1) / s.step;
    s.n_blocks = (s.n_rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    return s;
}

// The sums of blocks, [n_blocks][n], behind the channels.
static float *block_scores(void *data) {
    return (float *)((int32_t *)data + PD_OUTLIERS_MOST);
}

size_t pd_outliers_bytes(const struct ggml_tensor *source) {
    const search s = plan(source);
    return PD_OUTLIERS_MOST * sizeof(int32_t) + (size_t)(s.n_blocks * s.n) * sizeof(float);
}

// Adds each channel's share of the row's energy. A row that has none to speak of, or infinities, says
// nothing.
PD_CLONES
static void add_shares(const float *restrict row, float *restrict scores, int64_t n) {
    const float energy = pd_rows_sum_squares(row, n);
    if (!(energy >= FLT_MIN && energy <= FLT_MAX)) return;
    const float inverse = 1.0F / energy;
    for (int64_t i = 0; i < n; i++)
        scores[i] += row[i] * row[i] * inverse;
}

PD_CLONES
static void add_scores(const float *restrict from, float *restrict to, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}

static void score_block(const search *s, const struct ggml_tensor *source, const pd_rms_norm *norm,
                        int64_t block, float *room, float *scores) {
    memset(scores, 0, (size_t)s->n * sizeof *scores);
    const int64_t end = (block + 1) * BLOCK_ROWS < s->n_rows ? (block + 1) * BLOCK_ROWS : s->n_rows;
    for (int64_t i = block * BLOCK_ROWS; i < end; i++) {
        const int64_t row = i * s->step, batch = row / source->ne[1];
        const char *at = (const char *)source->data + (size_t)(batch / source->ne[2]) * source->nb[3] +
                         (size_t)(batch % source->ne[2]) * source->nb[2] +
                         (size_t)(row % source->ne[1]) * source->nb[1];
        if (norm) pd_rows_rms_norm((const float *)at, *norm, room, s->n);
        add_shares(norm ? room : (const float *)at, scores, s->n);
    }
}

// The `count` highest scores' channels; of equal ones the first.
static void pick(const float *scores, int64_t n, int64_t count, int32_t *channels) {
    int32_t best[PD_OUTLIERS_MOST] = {0}; // highest first
    int64_t n_best = 0;
    for (int64_t i = 0; i < n; i++) {
        if (n_best == count && !(scores[i] > scores[best[count - 1]])) continue;
        int64_t at = n_best < count ? n_best++ : count - 1;
        for (; at > 0 && scores[i] > scores[best[at - 1]]; at--)
            best[at] = best[at - 1];
        best[at] = (int32_t)i;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t at = i;
        for (; at > 0 && best[i] < channels[at - 1]; at--)
            channels[at] = channels[at - 1];
        channels[at] = best[i];
    }
}

void pd_outliers_find(const struct ggml_tensor *source, const pd_rms_norm *norm, void *data, pd_tasks *tasks,
                      float *room, int nth) {
    const search s = plan(source);
    float *scores = block_scores(data);
    for (int64_t block; (block = pd_tasks_take(tasks)) < s.n_blocks;)
        score_block(&s, source, norm, block, room, scores + block * s.n);
    if (!pd_tasks_leave(tasks, nth)) return;
    for (int64_t block = 1; block < s.n_blocks; block++)
        add_scores(scores + block * s.n, scores, s.n);
    pick(scores, s.n, pd_outlier_count(s.n), data);
}
