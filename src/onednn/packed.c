#include "onednn/packed.h"

#include "onednn/clones.h"
#include "onednn/int16.h"
#include "onednn/outliers.h"

#include <float.h>

#include <stdlib.h>
#include <string.h>

// Row counts of products differ; the layout is what oneDNN likes for a whole task.
static pd_status choose_layout(pd_gemm_cache *cache, const pd_packed *packed, int64_t columns, int64_t group,
                               const pd_gemm **like, pd_error *err) {
    pd_gemm_shape shape = {.m = PD_CHUNK_ROWS,
                           .n = columns,
                           .k = group,
                           .source_stride_m = packed->k,
                           .source_stride_k = 1,
                           .destination_stride_m = packed->n};
    pd_gemm_set_types(&shape, packed->kind);
    return pd_gemm_get(cache, &shape, like, err);
}

pd_status pd_packed_create(pd_gemm_cache *cache, const struct ggml_tensor *source, pd_number_kind kind,
                           int64_t group, pd_int8_range range, pd_packed **out, pd_error *err) {
    *out = NULL;
    pd_packed *packed = calloc(1, sizeof *packed);
    if (!packed) return pd_fail_memory(err, sizeof *packed, "packed weights");
    packed->source = source;
    packed->key = source->data;
    packed->type = source->type;
    packed->row_bytes = source->nb[1];
    packed->kind = kind;
    packed->range = range;
    packed->k = source->ne[0];
    packed->n = source->ne[1];
    packed->group = pd_number_is_integer(kind) && group > 0 && group < packed->k ? group : packed->k;
    packed->n_groups = (packed->k + packed->group - 1) / packed->group;
    packed->n_panels = pd_panel_count(packed->n);
    if (kind == PD_NUMBER_INT16) {
        const int64_t first = pd_panel_columns(packed->n, 0),
                      last = pd_panel_columns(packed->n, packed->n_panels - 1);
        packed->panel_bytes = pd_int16_panel_bytes(packed->k, first > last ? first : last);
        *out = packed;
        return PD_OK;
    }
    pd_status status = PD_OK;
    for (int i = 0; i < 4 && status == PD_OK; i++) {
        const int64_t panel = i & 1 ? packed->n_panels - 1 : 0, block = i & 2 ? packed->n_groups - 1 : 0;
        status = choose_layout(cache, packed, pd_panel_columns(packed->n, panel),
                               pd_packed_group(packed, block), &packed->like[i], err);
        if (status == PD_OK) {
            const size_t bytes = pd_whole_lines(pd_gemm_packed_bytes(packed->like[i]));
            if (bytes > packed->block_bytes) packed->block_bytes = bytes;
        }
    }
    if (status != PD_OK) {
        pd_packed_free(cache, packed);
        return status;
    }
    packed->panel_bytes = packed->block_bytes * (size_t)packed->n_groups;
    *out = packed;
    return PD_OK;
}

void pd_packed_free(pd_gemm_cache *cache, pd_packed *packed) {
    if (!packed) return;
    for (int i = 0; i < 4; i++)
        pd_gemm_release(cache, packed->like[i]);
    free(packed->data);
    free(packed->scales);
    free(packed->sums);
    free(packed->rests);
    free(packed->rest_scales);
    free(packed);
}

static size_t count_scales(const pd_packed *packed) {
    return pd_number_is_integer(packed->kind) ? (size_t)(packed->n_groups * packed->n) : 0;
}

static size_t count_sums(const pd_packed *packed) {
    return packed->kind == PD_NUMBER_INT8 ? count_scales(packed) : 0;
}

static bool has_rests(const pd_packed *packed) {
    return packed->kind == PD_NUMBER_INT8 && pd_outlier_count(packed->k) > 0;
}

// Of a panel.
static size_t rest_bytes(const pd_packed *packed) {
    return (size_t)packed->k * PD_HALF_PANEL;
}

size_t pd_packed_bytes(const pd_packed *packed) {
    const size_t rests =
        has_rests(packed) ? rest_bytes(packed) * (size_t)packed->n_panels + (size_t)packed->n * sizeof(float)
                          : 0;
    return packed->panel_bytes * (size_t)packed->n_panels + count_scales(packed) * sizeof(float) +
           count_sums(packed) * sizeof(int32_t) + rests;
}

pd_status pd_packed_allocate(pd_packed *packed, pd_error *err) {
    packed->data = pd_aligned_alloc(packed->panel_bytes * (size_t)packed->n_panels);
    const size_t n_scales = count_scales(packed), n_sums = count_sums(packed);
    if (n_scales > 0) packed->scales = malloc(n_scales * sizeof *packed->scales);
    if (n_sums > 0) packed->sums = malloc(n_sums * sizeof *packed->sums);
    if (has_rests(packed)) {
        packed->rests = pd_aligned_alloc(rest_bytes(packed) * (size_t)packed->n_panels);
        packed->rest_scales = malloc((size_t)packed->n * sizeof *packed->rest_scales);
    }
    if (packed->data && (n_scales == 0 || packed->scales) && (n_sums == 0 || packed->sums) &&
        (!has_rests(packed) || (packed->rests && packed->rest_scales)))
        return PD_OK;
    free(packed->data);
    free(packed->scales);
    free(packed->sums);
    free(packed->rests);
    free(packed->rest_scales);
    packed->data = packed->rests = NULL;
    packed->scales = packed->rest_scales = NULL;
    packed->sums = NULL;
    return pd_fail_memory(err, pd_packed_bytes(packed), "packed weights");
}

// A row in f32, another for what is left of it, and a column's scales and sums.
static size_t column_bytes(const pd_packed *packed) {
    return (size_t)packed->k * 2 * sizeof(float) +
           (size_t)packed->n_groups * (sizeof(float) + sizeof(int32_t));
}

// Behind them the panel's columns in the packed kind, plain (of int16 one), and what is left of them.
size_t pd_packed_worker_bytes(const pd_packed *packed) {
    const size_t columns = packed->kind == PD_NUMBER_INT16 ? 1 : PD_PANEL_MOST;
    const size_t left = has_rests(packed) ? 1 : 0; // a byte each
    return column_bytes(packed) + (size_t)packed->k * columns * (pd_number_bytes(packed->kind) + left);
}

const pd_gemm *pd_packed_like(const pd_packed *packed, int64_t panel, int64_t group) {
    return packed->like[(panel == packed->n_panels - 1) + 2 * (group == packed->n_groups - 1)];
}

// ---- what is left ------------------------------------------------------------------------------------------

enum { REST_MOST = 7, REST_ZERO = 8 }; // four bits

// Makes it the rest and returns its largest magnitude, whose bits are ordered like integers; that of NaN is
// one.
PD_CLONES
static float largest_rest(float *restrict rest, const float *restrict rounded, int64_t k) {
    int32_t most = 0;
    for (int64_t i = 0; i < k; i++) {
        rest[i] -= rounded[i];
        int32_t bits;
        memcpy(&bits, &rest[i], sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    float magnitude;
    memcpy(&magnitude, &most, sizeof magnitude);
    return magnitude;
}

// Adding and taking away 1.5 · 2²³ rounds to the nearest integer, whose bits are then the lowest.
PD_CLONES
static void round_rest(const float *restrict rest, unsigned char *restrict to, float inverse, int64_t k) {
    const float rounder = 12582912.0F;
    for (int64_t i = 0; i < k; i++) {
        const float rounded = rest[i] * inverse + rounder;
        uint32_t bits;
        memcpy(&bits, &rounded, sizeof bits);
        to[i] = (unsigned char)((bits + REST_ZERO) & 15U);
    }
}

// rest: the column itself; row: room; to: [k].
static void keep_rest(pd_packed *packed, int64_t column, const int8_t *numbers, const float *scales,
                      float *row, float *rest, unsigned char *to) {
    for (int64_t g = 0; g < packed->n_groups; g++) {
        const int64_t first = g * packed->group, end = first + pd_packed_group(packed, g);
        for (int64_t i = first; i < end; i++)
            row[i] = (float)numbers[i] * scales[g];
    }
    const float most = largest_rest(rest, row, packed->k), inverse = (float)REST_MOST / most;
    packed->rest_scales[column] = most / (float)REST_MOST;
    round_rest(rest, to, inverse <= FLT_MAX ? inverse : 0.0F, packed->k);
}

// A panel's rests, from [columns][k] bytes of four bits.
static void fill_rests(pd_packed *packed, int64_t panel, const unsigned char *from) {
    const int64_t k = packed->k, columns = pd_panel_columns(packed->n, panel);
    unsigned char *to = packed->rests + rest_bytes(packed) * (size_t)panel;
    enum { ROWS = 64 }; // of so many the columns' lines stay in the cache
    for (int64_t first = 0; first < k; first += ROWS) {
        const int64_t end = first + ROWS < k ? first + ROWS : k;
        for (int64_t j = 0; j < columns && j < PD_HALF_PANEL; j++) {
            const unsigned char *low = from + j * k,
                                *high = j + PD_HALF_PANEL < columns ? low + PD_HALF_PANEL * k : low;
            for (int64_t i = first; i < end; i++)
                to[i * PD_HALF_PANEL + j] = (unsigned char)(low[i] | high[i] << 4);
        }
    }
}

PD_CLONES
static void add_rests(const unsigned char *restrict rests, int shift, const float *restrict scales,
                      float *restrict to, int64_t n) {
    for (int64_t j = 0; j < n; j++)
        to[j] += (float)((int)(rests[j] >> shift & 15) - REST_ZERO) * scales[j];
}

PD_CLONES
static void scale_s8(const int8_t *restrict numbers, const float *restrict scales, float *restrict to,
                     int64_t n) {
    for (int64_t j = 0; j < n; j++)
        to[j] = (float)numbers[j] * scales[j];
}

static const unsigned char *rests_of(const pd_packed *packed, int64_t panel, int64_t channel) {
    return packed->rests + rest_bytes(packed) * (size_t)panel + (size_t)(channel * PD_HALF_PANEL);
}

void pd_packed_row(const pd_packed *packed, int64_t panel, int64_t channel, float *to) {
    const int64_t columns = pd_panel_columns(packed->n, panel), first = panel * PD_PANEL_COLUMNS;
    const int64_t g = channel / packed->group;
    int8_t numbers[PD_PANEL_MOST];
    pd_gemm_packed_row(pd_packed_like(packed, panel, g), pd_packed_block(packed, panel, g),
                       channel % packed->group, numbers);
    scale_s8(numbers, packed->scales + g * packed->n + first, to, columns);
    if (!packed->rests) return;
    const unsigned char *rests = rests_of(packed, panel, channel);
    const float *scales = packed->rest_scales + first;
    const int64_t low = columns < PD_HALF_PANEL ? columns : PD_HALF_PANEL;
    add_rests(rests, 0, scales, to, low);
    add_rests(rests, 4, scales + low, to + low, columns - low);
}

void pd_packed_fetch_row(const pd_packed *packed, int64_t panel, int64_t channel) {
    enum { LINE = 64 };
    const int64_t g = channel / packed->group;
    pd_gemm_fetch_packed_row(pd_packed_like(packed, panel, g), pd_packed_block(packed, panel, g),
                             channel % packed->group);
    for (int64_t i = 0; packed->rests && i < PD_HALF_PANEL; i += LINE)
        __builtin_prefetch(rests_of(packed, panel, channel) + i);
}

// ---- packing -----------------------------------------------------------------------------------------------

// A column's weights as plain numbers of the packed kind; its scales and sums go where products look for
// them.
static void round_column(pd_packed *packed, const pd_worker *worker, int64_t column, void *numbers,
                         unsigned char *left) {
    const struct ggml_tensor *source = packed->source;
    const int64_t k = packed->k, n_groups = packed->n_groups;
    float *row = worker->panel, *rest = row + k, *scales = rest + k;
    int32_t *sums = (int32_t *)(scales + n_groups);
    pd_rows_to_f32(source->type, (const char *)source->data + (size_t)column * source->nb[1], row, k);
    if (packed->kind == PD_NUMBER_BF16) {
        pd_rows_to_bf16(row, numbers, k);
        return;
    }
    if (packed->kind == PD_NUMBER_INT16) {
        pd_rows_to_s16(row, numbers, scales, k, packed->group, PD_INT16_WEIGHT_MOST);
    } else {
        if (packed->rests) memcpy(rest, row, (size_t)k * sizeof *rest);
        pd_rows_to_s8(row, numbers, scales, sums, k, packed->group, packed->range);
        if (packed->rests) keep_rest(packed, column, numbers, scales, row, rest, left);
    }
    for (int64_t g = 0; g < n_groups; g++) {
        packed->scales[g * packed->n + column] = scales[g];
        if (packed->sums) packed->sums[g * packed->n + column] = sums[g];
    }
}

// A panel in int16.h's layout.
static void fill_int16_panel(pd_packed *packed, const pd_worker *worker, int64_t panel) {
    const int64_t columns = pd_panel_columns(packed->n, panel), first = panel * PD_PANEL_COLUMNS;
    int16_t *numbers = (int16_t *)((char *)worker->panel + column_bytes(packed));
    int16_t *to = (int16_t *)(packed->data + (size_t)panel * packed->panel_bytes);
    for (int64_t j = 0; j < columns; j++) {
        round_column(packed, worker, first + j, numbers, NULL);
        pd_int16_set_column(to, packed->k, j, numbers);
    }
    for (int64_t j = columns; j % PD_INT16_COLUMNS != 0; j++)
        pd_int16_set_column(to, packed->k, j, NULL);
}

static void fill_panel(pd_packed *packed, pd_worker *worker, int64_t panel) {
    const int64_t k = packed->k, columns = pd_panel_columns(packed->n, panel);
    unsigned char *plain = (unsigned char *)worker->panel + column_bytes(packed);
    const size_t number = pd_number_bytes(packed->kind);
    unsigned char *left = plain + (size_t)(k * PD_PANEL_MOST) * number; // [columns][k], if any
    for (int64_t j = 0; j < columns; j++) {
        round_column(packed, worker, panel * PD_PANEL_COLUMNS + j, plain + (size_t)(j * k) * number,
                     left + j * k);
    }
    if (packed->rests) fill_rests(packed, panel, left);
    for (int64_t g = 0; g < packed->n_groups; g++) {
        unsigned char *block =
            packed->data + (size_t)panel * packed->panel_bytes + (size_t)g * packed->block_bytes;
        pd_gemm_pack(pd_packed_like(packed, panel, g), worker, plain + (size_t)(g * packed->group) * number,
                     1, k, block);
    }
}

void pd_packed_fill(pd_packed *packed, pd_worker *worker) {
    for (;;) {
        const int64_t panel = atomic_fetch_add(&packed->next_panel, 1);
        if (panel >= packed->n_panels) return;
        if (packed->kind == PD_NUMBER_INT16) {
            fill_int16_panel(packed, worker, panel);
        } else {
            fill_panel(packed, worker, panel);
        }
    }
}
