#include "train/sampler.h"

#include "base/random.h"

#include <stdlib.h>
#include <string.h>

// ---- sharing ----------------------------------------------------------------------------------------------

// Samples of a step, of all ranks.
static int64_t step_size(const pd_sampler *s) {
    return (int64_t)s->batch_size * s->gradient_accumulation_steps * s->world_size;
}

// Samples of a step, of one rank.
static int64_t share_size(const pd_sampler *s) {
    return (int64_t)s->batch_size * s->gradient_accumulation_steps;
}

pd_status pd_sampler_check(const pd_sampler *s, pd_error *err) {
    const struct {
        const char *name;
        int32_t value;
    } positive[] = {
        {"the number of samples", s->n_samples},
        {"per_device_train_batch_size", s->batch_size},
        {"gradient_accumulation_steps", s->gradient_accumulation_steps},
        {"the number of ranks", s->world_size},
    };
    for (size_t i = 0; i < sizeof positive / sizeof *positive; i++) {
        if (positive[i].value < 1)
            return pd_fail(err, PD_ERR_ARGUMENT, "%s: expected at least 1, found %d", positive[i].name,
                           positive[i].value);
    }
    int64_t step = 0;
    if (__builtin_mul_overflow(share_size(s), s->world_size, &step) || step > INT32_MAX) {
        return pd_fail(err, PD_ERR_ARGUMENT,
                       "a step of %d samples, %d times, on %d ranks: expected at most %d together",
                       s->batch_size, s->gradient_accumulation_steps, s->world_size, INT32_MAX);
    }
    if (s->group_by_modality_length && !s->lengths)
        return pd_fail(err, PD_ERR_ARGUMENT, "group_by_modality_length: expected the samples' lengths");
    if (pd_sampler_epoch_size(s, s->world_size - 1) < 1) {
        return pd_fail(
            err, PD_ERR_ARGUMENT,
            "%d samples do not give each of %d ranks one (%d at a time%s); expected more samples or "
            "a smaller batch",
            s->n_samples, s->world_size, s->batch_size, s->drop_last ? ", whole steps only" : "");
    }
    return PD_OK;
}

int64_t pd_sampler_steps_per_epoch(const pd_sampler *s) {
    const int64_t step = step_size(s);
    return s->drop_last ? s->n_samples / step : (s->n_samples + step - 1) / step;
}

// How many of the last, smaller step's samples are in its first `n_micro` micro-batches for the rank.
static int64_t rest_size(const pd_sampler *s, int32_t rank, int64_t n_micro) {
    const int64_t rest = s->drop_last ? 0 : s->n_samples % step_size(s);
    int64_t size = 0;
    for (int64_t m = 0; m < n_micro; m++) {
        const int64_t left = rest - (m * s->world_size + rank) * s->batch_size;
        if (left <= 0) break;
        size += left < s->batch_size ? left : s->batch_size;
    }
    return size;
}

int64_t pd_sampler_epoch_size(const pd_sampler *s, int32_t rank) {
    return s->n_samples / step_size(s) * share_size(s) + rest_size(s, rank, s->gradient_accumulation_steps);
}

int64_t pd_sampler_place(const pd_sampler *s, int32_t rank, int64_t k) {
    // In the last step too: where a micro-batch has a sample, those before it are full.
    const int64_t step = k / share_size(s);
    const int64_t micro = k % share_size(s) / s->batch_size;
    return step * step_size(s) + (micro * s->world_size + rank) * s->batch_size + k % s->batch_size;
}

void pd_sampler_batch(const pd_sampler *s, int32_t rank, int64_t step, int32_t micro, int64_t *position,
                      int32_t *count) {
    const int64_t steps = pd_sampler_steps_per_epoch(s);
    const int64_t epoch = step / steps;
    const int64_t in_epoch = step % steps;
    const bool last = in_epoch >= s->n_samples / step_size(s);
    const int64_t before = last ? rest_size(s, rank, micro) : (int64_t)micro * s->batch_size;
    *position = epoch * pd_sampler_epoch_size(s, rank) + in_epoch * share_size(s) + before;
    *count = last ? (int32_t)(rest_size(s, rank, (int64_t)micro + 1) - before) : s->batch_size;
}

// ---- the order --------------------------------------------------------------------------------------------

// Uniform in [0, n), from the high half of a product; of n below 2^31 none is preferred by more than 2^-33.
static uint32_t random_below(uint64_t *state, uint32_t n) {
    return (uint32_t)(((unsigned __int128)pd_random_next(state) * n) >> 64);
}

// 0 … n - 1, shuffled (Fisher and Yates).
static void permute(int32_t *order, int32_t n, uint64_t *state) {
    for (int32_t i = 0; i < n; i++)
        order[i] = i;
    for (int32_t i = n - 1; i > 0; i--) {
        const int32_t j = (int32_t)random_below(state, (uint32_t)i + 1);
        const int32_t moved = order[i];
        order[i] = order[j];
        order[j] = moved;
    }
}

// A sample on its way into its megabatch.
typedef struct {
    int64_t length;
    int32_t sample;
    int32_t place; // keeps the sorting stable
} sorted_sample;

// Longest first, equals as they stood.
static int longest_first(const void *left, const void *right) {
    const sorted_sample *a = left;
    const sorted_sample *b = right;
    if (a->length != b->length) return a->length > b->length ? -1 : 1;
    return (a->place > b->place) - (a->place < b->place);
}

static int ascending(const void *left, const void *right) {
    const int32_t a = *(const int32_t *)left;
    const int32_t b = *(const int32_t *)right;
    return (a > b) - (a < b);
}

// Memory for one megabatch.
typedef struct {
    sorted_sample *sorted; // [step_size]
    int64_t *lengths;      // [n_chunks] sum of a chunk's lengths
    int32_t *counts;       // [n_chunks]
    int32_t *out;          // [step_size]
} megabatch;

// LLaVA's split_to_even_chunks: samples[0..n), longest first, are dealt out to n_chunks chunks, each to the
// shortest one that is not full. A megabatch that does not split evenly goes round by round instead.
static void deal(megabatch *m, int32_t *samples, int32_t n, int32_t n_chunks) {
    int32_t filled = 0;
    if (n % n_chunks != 0) {
        for (int32_t chunk = 0; chunk < n_chunks; chunk++) {
            for (int32_t i = chunk; i < n; i += n_chunks)
                samples[filled++] = m->sorted[i].sample;
        }
        return;
    }
    const int32_t full = n / n_chunks;
    memset(m->lengths, 0, (size_t)n_chunks * sizeof *m->lengths);
    memset(m->counts, 0, (size_t)n_chunks * sizeof *m->counts);
    for (int32_t i = 0; i < n; i++) {
        int32_t shortest = -1;
        for (int32_t chunk = 0; chunk < n_chunks; chunk++) {
            if (m->counts[chunk] < full && (shortest < 0 || m->lengths[chunk] < m->lengths[shortest]))
                shortest = chunk;
        }
        m->out[shortest * full + m->counts[shortest]++] = m->sorted[i].sample;
        m->lengths[shortest] += m->sorted[i].length;
    }
    memcpy(samples, m->out, (size_t)n * sizeof *samples);
}

// LLaVA's get_length_grouped_indices over the samples chosen[0..n) (NULL: all): order[0..n) is filled. Its
// lengths are signed when there is one modality, and positive where it was told the modality.
static void group_by_length(const pd_sampler *s, const int32_t *chosen, int32_t n, bool positive,
                            uint64_t *state, megabatch *m, int32_t *order) {
    const int32_t size = (int32_t)step_size(s);
    permute(order, n, state);
    for (int32_t start = 0; start < n;) {
        const int32_t count = n - start < size ? n - start : size;
        for (int32_t i = 0; i < count; i++) {
            const int32_t sample = chosen ? chosen[order[start + i]] : order[start + i];
            const int64_t length = s->lengths[sample];
            m->sorted[i] = (sorted_sample){positive && length < 0 ? -length : length, sample, i};
        }
        qsort(m->sorted, (size_t)count, sizeof *m->sorted, longest_first);
        deal(m, order + start, count, s->world_size * s->gradient_accumulation_steps);
        start += count;
    }
}

// LLaVA's get_modality_length_grouped_indices of samples of both kinds: `image` and `text` are their samples
// by modality, [n_image] and [n_text], in ascending order.
static pd_status group_by_modality(const pd_sampler *s, const int32_t *image, int32_t n_image,
                                   const int32_t *text, int32_t n_text, uint64_t *state, megabatch *m,
                                   int32_t *order, pd_error *err) {
    const int32_t size = (int32_t)step_size(s);
    // All but the last, whole or not, are shuffled.
    const int32_t n_image_whole = (n_image - 1) / size;
    const int32_t n_text_whole = (n_text - 1) / size;
    const int32_t n_whole = n_image_whole + n_text_whole;
    const size_t bytes = ((size_t)n_image + (size_t)n_text + (size_t)n_whole) * sizeof(int32_t);
    int32_t *grouped = malloc(bytes);
    if (!grouped) return pd_fail_memory(err, bytes, "an epoch's order");
    int32_t *grouped_text = grouped + n_image;
    int32_t *shuffled = grouped_text + n_text;
    group_by_length(s, image, n_image, true, state, m, grouped);
    group_by_length(s, text, n_text, true, state, m, grouped_text);
    permute(shuffled, n_whole, state);
    int32_t *out = order;
    for (int32_t i = 0; i < n_whole; i++, out += size) {
        const int32_t *from = shuffled[i] < n_image_whole
                                  ? grouped + (ptrdiff_t)shuffled[i] * size
                                  : grouped_text + (ptrdiff_t)(shuffled[i] - n_image_whole) * size;
        memcpy(out, from, (size_t)size * sizeof *out);
    }
    const int32_t image_rest = n_image - n_image_whole * size;
    const int32_t text_rest = n_text - n_text_whole * size;
    memcpy(out, grouped + (ptrdiff_t)n_image_whole * size, (size_t)image_rest * sizeof *out);
    memcpy(out + image_rest, grouped_text + (ptrdiff_t)n_text_whole * size, (size_t)text_rest * sizeof *out);
    qsort(out, (size_t)image_rest + (size_t)text_rest, sizeof *out, ascending);
    free(grouped);
    return PD_OK;
}

static pd_status order_grouped(const pd_sampler *s, uint64_t *state, megabatch *m, int32_t *order,
                               pd_error *err) {
    const size_t n = (size_t)s->n_samples;
    int32_t *samples = malloc(n * sizeof *samples); // those with pictures, and from the end the others
    if (!samples) return pd_fail_memory(err, n * sizeof *samples, "an epoch's order");
    int32_t n_image = 0;
    for (int32_t i = 0; i < s->n_samples; i++) {
        if (s->lengths[i] > 0) samples[n_image++] = i;
    }
    int32_t *text = samples + n_image;
    int32_t n_text = 0;
    for (int32_t i = 0; i < s->n_samples; i++) {
        if (s->lengths[i] <= 0) text[n_text++] = i;
    }
    pd_status status = PD_OK;
    if (n_image == 0 || n_text == 0) {
        group_by_length(s, NULL, s->n_samples, false, state, m, order);
    } else {
        status = group_by_modality(s, samples, n_image, text, n_text, state, m, order, err);
    }
    free(samples);
    return status;
}

// The seed of an epoch: the generator's epoch-th number. SplitMix64's state counts up by a constant.
static uint64_t seed_of_epoch(uint64_t seed, int64_t epoch) {
    uint64_t state = seed + (uint64_t)epoch * 0x9e3779b97f4a7c15U;
    return pd_random_next(&state);
}

pd_status pd_sampler_order(const pd_sampler *s, int64_t epoch, int32_t *order, pd_error *err) {
    uint64_t state = seed_of_epoch(s->seed, epoch);
    if (!s->group_by_modality_length) {
        permute(order, s->n_samples, &state);
        return PD_OK;
    }
    const size_t n_chunks = (size_t)s->world_size * (size_t)s->gradient_accumulation_steps;
    const size_t size = (size_t)step_size(s);
    megabatch m = {.sorted = malloc(size * sizeof *m.sorted),
                   .lengths = malloc(n_chunks * sizeof *m.lengths),
                   .counts = malloc(n_chunks * sizeof *m.counts),
                   .out = malloc(size * sizeof *m.out)};
    const pd_status status = m.sorted && m.lengths && m.counts && m.out
                                 ? order_grouped(s, &state, &m, order, err)
                                 : pd_fail_memory(err, size * sizeof *m.sorted, "a megabatch");
    free(m.sorted);
    free(m.lengths);
    free(m.counts);
    free(m.out);
    return status;
}
