#include "onednn/activations.h"

#include "onednn/int16.h"
#include "onednn/outliers.h"

#include <string.h>

// Rows start where vector loads like them to.
enum { ALIGNMENT = 64 };

void pd_activations_plan(const struct ggml_tensor *source, pd_number_kind kind, int64_t group,
                         pd_int8_range range, pd_number_kind floating, pd_activations *plan) {
    *plan = (pd_activations){.kind = kind, .transposed = source->nb[0] != sizeof(float), .range = range};
    plan->inner = source->ne[plan->transposed ? 1 : 0];
    plan->rows = source->ne[plan->transposed ? 0 : 1];
    plan->n_batches = source->ne[2] * source->ne[3];
    const int64_t aligned = ALIGNMENT / (int64_t)pd_number_bytes(kind);
    plan->stride = (plan->inner + aligned - 1) / aligned * aligned;
    // Kernels read rows side by side, which must not all fall into the same lines of a cache.
    if (plan->stride / aligned % 2 == 0) plan->stride += aligned;
    plan->group = group > 0 && group < plan->inner ? group : plan->inner;
    plan->n_groups = pd_number_is_integer(kind) ? (plan->inner + plan->group - 1) / plan->group : 0;
    plan->n_outliers = kind == PD_NUMBER_INT8 ? pd_outlier_count(plan->inner) : 0;
    plan->outlier_kind = floating;
}

// What lies behind one another: rows, scales, outliers, their channels, each from the start of a line on.
static size_t scales_at(const pd_activations *plan) {
    return (size_t)(plan->n_batches * plan->rows * plan->stride) * pd_number_bytes(plan->kind);
}

static size_t outliers_at(const pd_activations *plan) {
    const size_t n_scales = (size_t)(plan->n_batches * plan->rows * plan->n_groups);
    return scales_at(plan) + pd_whole_lines(n_scales * sizeof(float));
}

// Of the outliers of so many rows.
static size_t outlier_bytes(const pd_activations *plan, int64_t rows) {
    return (size_t)(rows * plan->n_outliers) * pd_number_bytes(plan->outlier_kind);
}

static size_t channels_at(const pd_activations *plan) {
    return outliers_at(plan) + pd_whole_lines(outlier_bytes(plan, plan->n_batches * plan->rows));
}

size_t pd_activations_bytes(const pd_activations *plan) {
    return channels_at(plan) + (size_t)plan->n_outliers * sizeof(int32_t);
}

const float *pd_activations_scales(const pd_activations *plan, const void *data, int64_t batch) {
    return (const float *)((const char *)data + scales_at(plan)) + batch * plan->rows * plan->n_groups;
}

const void *pd_activations_outliers(const pd_activations *plan, const void *data, int64_t batch) {
    return (const char *)data + outliers_at(plan) + outlier_bytes(plan, batch * plan->rows);
}

const int32_t *pd_activations_channels(const pd_activations *plan, const void *data) {
    return (const int32_t *)((const char *)data + channels_at(plan));
}

// Moves a row's outliers away.
static void take_outliers(const pd_activations *plan, const int32_t *channels, float *row, void *to) {
    float values[PD_OUTLIERS_MOST];
    for (int64_t i = 0; i < plan->n_outliers; i++) {
        values[i] = row[channels[i]];
        row[channels[i]] = 0.0F;
    }
    pd_rows_convert(GGML_TYPE_F32, values, plan->outlier_kind, to, NULL, plan->n_outliers);
}

void pd_activations_fill(const pd_activations *plan, const struct ggml_tensor *source,
                         const pd_rms_norm *norm, const int32_t *channels, void *data, float *row, int ith,
                         int nth) {
    const int64_t n = plan->n_batches * plan->rows;
    const size_t row_bytes = source->nb[plan->transposed ? 0 : 1];
    float *scales = (float *)((char *)data + scales_at(plan));
    if (ith == 0 && plan->n_outliers > 0)
        memcpy((char *)data + channels_at(plan), channels, (size_t)plan->n_outliers * sizeof *channels);
    for (int64_t i = n * ith / nth; i < n * (ith + 1) / nth; i++) {
        const int64_t batch = i / plan->rows;
        const float *from =
            (const float *)((const char *)source->data + (size_t)(batch / source->ne[2]) * source->nb[3] +
                            (size_t)(batch % source->ne[2]) * source->nb[2] +
                            (size_t)(i % plan->rows) * row_bytes);
        if (norm) {
            pd_rows_rms_norm(from, *norm, row, plan->inner);
            from = row;
        }
        if (plan->kind == PD_NUMBER_BF16) {
            pd_rows_to_bf16(from, (uint16_t *)data + i * plan->stride, plan->inner);
        } else if (plan->kind == PD_NUMBER_INT16) {
            int16_t *to = (int16_t *)data + i * plan->stride;
            pd_rows_to_s16(from, to, scales + i * plan->n_groups, plan->inner, plan->group,
                           PD_INT16_ACTIVATION_MOST);
            memset(to + plan->inner, 0, (size_t)(plan->stride - plan->inner) * sizeof *to);
        } else {
            if (!norm) memcpy(row, from, (size_t)plan->inner * sizeof *row);
            take_outliers(plan, channels, row, (char *)data + outliers_at(plan) + outlier_bytes(plan, i));
            pd_rows_to_u8(row, (uint8_t *)data + i * plan->stride, scales + i * plan->n_groups, plan->inner,
                          plan->group, plan->range);
        }
    }
}
