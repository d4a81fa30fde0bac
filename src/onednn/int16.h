// Products of sixteen-bit integers, for x86 without VNNI. Such CPUs multiply eight-bit numbers with an
// instruction that adds two products in sixteen bits, where two whole ones do not fit, and a second that
// widens; sixteen-bit numbers take the second alone (vpmaddwd), four instructions where eight bits take
// three, and their rounding is finer than bf16's. oneDNN has no such product.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PD_INT16_GROUP = 256, // inner numbers that share a scale
    // 256 products fit 32 bits: 2^8 · 8,191 · 1,023 < 2^31. Activations, which have outliers, get more.
    PD_INT16_ACTIVATION_MOST = 8191,
    PD_INT16_WEIGHT_MOST = 1023,
    PD_INT16_ROWS = 6,     // rows a kernel computes at once,
    PD_INT16_COLUMNS = 16, // and columns
};

// Whether this CPU has the instructions (AVX2).
bool pd_int16_available(void);

// A panel of weights: strips of PD_INT16_COLUMNS columns, each [pairs of k][columns][2], zeros where there is
// no column or number.
size_t pd_int16_panel_bytes(int64_t k, int64_t columns);
// Writes a column's k numbers; NULL: zeros.
void pd_int16_set_column(int16_t *panel, int64_t k, int64_t column, const int16_t *numbers);

// destination[rows, columns] = source[rows, k] × panel[k, columns], by scales.
typedef struct pd_int16_product {
    int64_t rows, columns, k;
    const int16_t *source; // its rows are readable, and zero, up to an even number
    int64_t source_stride;
    const float *source_scales; // [rows][groups]
    const int16_t *panel;       // 64-byte aligned
    const float *panel_scales;  // [groups][panel_scales_stride]
    int64_t panel_scales_stride;
    float *destination;
    int64_t destination_stride;
} pd_int16_product;

void pd_int16_multiply(const pd_int16_product *product);
