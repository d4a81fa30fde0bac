// A weight matrix in the numbers and the layout its products want: converted once for each model, in panels
// of columns that are tasks of a product, and shared by all sessions.
#pragma once

#include "onednn/gemm.h"
#include "onednn/rows.h"

#include <stdatomic.h>

enum {
    PD_PANEL_COLUMNS = 256, // a panel of 4,096 × 256 eight-bit weights is a mebibyte: the second-level cache
    PD_PANEL_LEAST = 16,    // narrower rests go with the panel before
    PD_PANEL_MOST = PD_PANEL_COLUMNS + PD_PANEL_LEAST,
    PD_HALF_PANEL = PD_PANEL_MOST / 2,
    PD_CHUNK_ROWS = 128,     // activation rows of a task
    PD_INT8_GROUP = 1 << 15, // sums of so many products of eight bits fit 32: 2^15 · 255 · 127 < 2^31
};

// How n columns are cut: panels of PD_PANEL_COLUMNS but for the last.
static inline int64_t pd_panel_count(int64_t n) {
    return n < PD_PANEL_MOST ? 1 : (n - PD_PANEL_LEAST) / PD_PANEL_COLUMNS + 1;
}
static inline int64_t pd_panel_columns(int64_t n, int64_t panel) {
    const int64_t left = n - panel * PD_PANEL_COLUMNS;
    return left < PD_PANEL_MOST ? left : PD_PANEL_COLUMNS;
}

// Blocks of a panel: columns × groups of the inner dimension, which are one, except for int8 with finer
// groups.
typedef struct pd_packed {
    const struct ggml_tensor *source; // [k, n]; while packing
    const void *key;                  // its data, type and row: what it is known by
    enum ggml_type type;
    size_t row_bytes;
    pd_number_kind kind;    // bf16, int8 or int16
    pd_int8_range range;    // int8
    int64_t k, n;           // inner dimension, columns
    int64_t group;          // inner numbers that share a scale; k but for integers
    int64_t n_groups;       // of them, the last maybe smaller
    int64_t n_panels;       // pd_panel_count(n)
    const pd_gemm *like[4]; // layout of a block: [last panel + 2 · last group]; int16: none
    size_t block_bytes, panel_bytes;
    unsigned char *data; // [n_panels][n_groups] blocks; int16: [n_panels], as int16.h has them
    float *scales;       // integers: [n_groups][n]
    int32_t *sums;       // int8: [n_groups][n]; else NULL
    // int8 whose activations have outliers: what the eight bits leave of the weights, in four bits with a
    // scale a column. Outliers' weights are made whole with it. Else NULL.
    unsigned char *rests; // [n_panels][k][PD_HALF_PANEL]: columns j and j + PD_HALF_PANEL a byte, eight added
    float *rest_scales;   // [n]
    bool ready;
    atomic_int next_panel; // while packing
} pd_packed;

// Prepares an empty one and says in packed->… how large it will be. group: 0 for whole rows.
// PD_ERR_UNSUPPORTED as pd_gemm_get.
pd_status pd_packed_create(pd_gemm_cache *cache, const struct ggml_tensor *source, pd_number_kind kind,
                           int64_t group, pd_int8_range range, pd_packed **packed, pd_error *err);
void pd_packed_free(pd_gemm_cache *cache, pd_packed *packed);
// All its memory once it is filled.
size_t pd_packed_bytes(const pd_packed *packed);
pd_status pd_packed_allocate(pd_packed *packed, pd_error *err);
// Bytes a packing worker must have for panel.
size_t pd_packed_worker_bytes(const pd_packed *packed);
// Fills panels until none is left; called by each thread of a team with its own worker.
void pd_packed_fill(pd_packed *packed, pd_worker *worker);

// Layout of block (panel, group), and its memory.
const pd_gemm *pd_packed_like(const pd_packed *packed, int64_t panel, int64_t group);
static inline const void *pd_packed_block(const pd_packed *packed, int64_t panel, int64_t group) {
    return packed->data + (size_t)panel * packed->panel_bytes + (size_t)group * packed->block_bytes;
}
// to[j] = weights[channel, j] for the columns of a panel of int8, with what is left of them.
void pd_packed_row(const pd_packed *packed, int64_t panel, int64_t channel, float *to);
// Has the caches fetch what that will read: its lines lie far apart.
void pd_packed_fetch_row(const pd_packed *packed, int64_t panel, int64_t channel);
static inline int64_t pd_packed_group(const pd_packed *packed, int64_t group) {
    const int64_t left = packed->k - group * packed->group;
    return left < packed->group ? left : packed->group;
}
