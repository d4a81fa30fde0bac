#include "onednn/finish.h"

#include "onednn/clones.h"
#include "onednn/softmax.h"

// ISO C lets a · b + c be one instruction, gcc only when asked.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=fast")
#endif

// Values between two steps: as many rows of a part as fit. BLOCK columns are a tile kernel's (onednn/amx.h),
// for which loops of a known length are made.
enum { MOST_VALUES = 4096, BLOCK = 32 };

// ---- integers to floats ------------------------------------------------------------------------------------

typedef struct {
    const int32_t *sums;
    const float *more;
    const float *row_scales;
    int64_t sums_stride, more_stride, row_scales_stride, rows;
} integers;

PD_CLONED_PART void scale_columns(const integers *from, const float *restrict column_scales,
                                  const int32_t *restrict column_sums, int32_t zero, float *restrict to,
                                  int64_t to_stride, int64_t columns) {
    for (int64_t r = 0; r < from->rows; r++) {
        const float row_scale = from->row_scales[r * from->row_scales_stride];
        const int32_t *restrict sums = from->sums + r * from->sums_stride;
        const float *restrict more = from->more ? from->more + r * from->more_stride : NULL;
        for (int64_t j = 0; j < columns; j++) {
            const float value = (float)(sums[j] - zero * column_sums[j]) * (row_scale * column_scales[j]);
            to[r * to_stride + j] = more ? value + more[j] : value;
        }
    }
}

PD_CLONES
static void scale(const integers *from, const float *column_scales, const int32_t *column_sums, int32_t zero,
                  float *to, int64_t to_stride, int64_t columns) {
    if (columns == BLOCK) {
        scale_columns(from, column_scales, column_sums, zero, to, to_stride, BLOCK);
    } else {
        scale_columns(from, column_scales, column_sums, zero, to, to_stride, columns);
    }
}

// ---- floats ------------------------------------------------------------------------------------------------

typedef struct {
    const float *numbers;
    int64_t stride, rows;
} floats;

// Below -87, e^-x is all but infinite; NaN stays.
PD_CLONED_PART void negate_columns(floats gate, float *restrict to, int64_t columns) {
    for (int64_t r = 0; r < gate.rows; r++) {
        for (int64_t j = 0; j < columns; j++) {
            const float x = gate.numbers[r * gate.stride + j];
            to[r * columns + j] = x < -87.0F ? 87.0F : -x;
        }
    }
}

PD_CLONES
static void negate(floats gate, float *to, int64_t columns) {
    if (columns == BLOCK) {
        negate_columns(gate, to, BLOCK);
    } else {
        negate_columns(gate, to, columns);
    }
}

// 1 / x for x from 1 to 2^126, at a quarter of a division's time. The bits of a float are about its
// logarithm: negated and moved they are those of its reciprocal within 5.1 %, which each of Newton's steps
// squares.
PD_CLONED_PART float reciprocal(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = 0x7ef127ea - bits;
    float y;
    memcpy(&y, &bits, sizeof y);
    y *= 2.0F - x * y;
    y *= 2.0F - x * y;
    y *= 2.0F - x * y;
    return y;
}

// exponentials, [rows][columns], become the gated values.
PD_CLONED_PART void gate_columns(floats gate, floats values, float *restrict exponentials, int64_t columns) {
    for (int64_t r = 0; r < gate.rows; r++) {
        const float *restrict x = gate.numbers + r * gate.stride;
        const float *restrict value = values.numbers + r * values.stride;
        float *restrict to = exponentials + r * columns;
        for (int64_t j = 0; j < columns; j++)
            to[j] = value[j] * (x[j] * reciprocal(1.0F + to[j]));
    }
}

PD_CLONES
static void gate_values(floats gate, floats values, float *exponentials, int64_t columns) {
    if (columns == BLOCK) {
        gate_columns(gate, values, exponentials, BLOCK);
    } else {
        gate_columns(gate, values, exponentials, columns);
    }
}

PD_CLONED_PART void add_columns(floats a, floats b, char *restrict to, size_t row_bytes, int64_t columns) {
    for (int64_t r = 0; r < a.rows; r++) {
        const float *restrict x = a.numbers + r * a.stride, *restrict y = b.numbers + r * b.stride;
        float *restrict sums = (float *)(to + (size_t)r * row_bytes);
        for (int64_t j = 0; j < columns; j++)
            sums[j] = x[j] + y[j];
    }
}

PD_CLONES
static void add(floats a, floats b, char *to, size_t row_bytes, int64_t columns) {
    if (columns == BLOCK) {
        add_columns(a, b, to, row_bytes, BLOCK);
    } else {
        add_columns(a, b, to, row_bytes, columns);
    }
}

PD_CLONES
static void to_bf16(floats from, char *restrict to, size_t row_bytes, int64_t columns) {
    for (int64_t r = 0; r < from.rows; r++) {
        const float *restrict x = from.numbers + r * from.stride;
        uint16_t *restrict halves = (uint16_t *)(to + (size_t)r * row_bytes);
        for (int64_t j = 0; j < columns; j++)
            halves[j] = pd_float_to_bf16(x[j]);
    }
}

static void copy(floats from, char *to, size_t row_bytes, int64_t columns) {
    for (int64_t r = 0; r < from.rows; r++)
        memcpy(to + (size_t)r * row_bytes, from.numbers + r * from.stride,
               (size_t)columns * sizeof *from.numbers);
}

// ---- all of it ---------------------------------------------------------------------------------------------

// A part whose values fit.
static void run_rows(const pd_finish *f, const pd_finish_part *p) {
    float values[MOST_VALUES], exponentials[MOST_VALUES];
    const int64_t rows = p->rows, columns = p->columns;
    const size_t number = pd_number_bytes(f->kind);
    char *to = f->destination + (size_t)p->row * f->row_bytes + (size_t)p->column * number;
    floats now = {p->sums, p->sums_stride, rows};
    if (f->row_scales) {
        const bool last = !f->gate && !f->addend && f->kind == PD_NUMBER_F32;
        const integers from = {.sums = p->sums,
                               .more = p->more,
                               .row_scales = f->row_scales + p->row * f->row_scales_stride,
                               .sums_stride = p->sums_stride,
                               .more_stride = p->more_stride,
                               .row_scales_stride = f->row_scales_stride,
                               .rows = rows};
        scale(&from, f->column_scales + p->column, f->column_sums + p->column, f->zero,
              last ? (float *)to : values, last ? (int64_t)(f->row_bytes / sizeof *values) : columns,
              columns);
        if (last) return;
        now = (floats){values, columns, rows};
    }
    if (f->gate) {
        const floats gate = {f->gate + p->row * f->gate_stride + p->column, f->gate_stride, rows};
        negate(gate, exponentials, columns);
        pd_exp_row(exponentials, rows * columns);
        gate_values(gate, now, exponentials, columns);
        now = (floats){exponentials, columns, rows};
    }
    if (f->addend) {
        const char *addend = f->addend + (size_t)p->row * f->addend_row_bytes;
        const floats other = {(const float *)addend + p->column,
                              (int64_t)(f->addend_row_bytes / sizeof(float)), rows};
        add(other, now, to, f->row_bytes, columns);
    } else if (f->kind == PD_NUMBER_BF16) {
        to_bf16(now, to, f->row_bytes, columns);
    } else {
        copy(now, to, f->row_bytes, columns);
    }
}

void pd_finish_run(const pd_finish *finish, const pd_finish_part *part) {
    const int64_t most = MOST_VALUES / part->columns;
    pd_finish_part rows = *part;
    for (int64_t first = 0; first < part->rows; first += most) {
        rows.row = part->row + first;
        rows.rows = part->rows - first < most ? part->rows - first : most;
        rows.sums = (const int32_t *)part->sums + first * part->sums_stride; // or as wide f32
        rows.more = part->more ? part->more + first * part->more_stride : NULL;
        run_rows(finish, &rows);
    }
}
