// The tiles' kernels against plain loops: every number of rows of a block, of columns of a strip, and of
// steps of a slice.
#include "base/random.h"
#include "onednn/amx.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // wants the above

enum { GAP = 3 }; // numbers behind each row of a result, which must stay as they are

typedef struct {
    pd_number_kind kind;
    int64_t rows, columns, k;
    bool accumulate, rows_together; // of the weights before they are packed
} product_case;

static float bf16_to_float(uint16_t number) {
    const uint32_t bits = (uint32_t)number << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Number i of a matrix, as the plain loops multiply it.
static double number_at(const void *numbers, int64_t i, pd_number_kind kind, bool is_signed) {
    if (kind == PD_NUMBER_BF16) return (double)bf16_to_float(((const uint16_t *)numbers)[i]);
    return is_signed ? ((const int8_t *)numbers)[i] : ((const uint8_t *)numbers)[i];
}

// Any bits for eight bits; for bf16 numbers of magnitudes from 1/4 to 1.
static void *random_numbers(pd_number_kind kind, int64_t n, uint64_t *seed) {
    uint16_t *numbers = aligned_alloc(64, (size_t)(n * 2 + 63) / 64 * 64);
    assert_non_null(numbers);
    for (int64_t i = 0; i < n; i++) {
        const uint16_t bits = (uint16_t)(pd_random_uniform(seed) * 65536.0);
        if (kind == PD_NUMBER_BF16) {
            numbers[i] = (uint16_t)(0x3e80U + (bits & 0x80ffU));
        } else {
            ((uint8_t *)numbers)[i] = (uint8_t)bits;
        }
    }
    return numbers;
}

static void run_case(const product_case *c) {
    uint64_t seed = 1;
    const int64_t stride = c->columns + GAP, size = c->rows * stride;
    const size_t number = pd_number_bytes(c->kind);
    const bool bf16 = c->kind == PD_NUMBER_BF16;
    void *source = random_numbers(c->kind, c->rows * c->k, &seed),
         *weights = random_numbers(c->kind, c->k * c->columns, &seed);
    const int64_t stride_k = c->rows_together ? c->columns : 1, stride_n = c->rows_together ? 1 : c->k;
    void *packed = aligned_alloc(64, pd_amx_packed_bytes(c->kind, c->columns, c->k)),
         *sums = aligned_alloc(64, pd_amx_sums_bytes(c->rows, c->columns));
    float *result = malloc((size_t)size * sizeof *result);
    assert_true(packed && sums && result);
    for (int64_t i = 0; i < size; i++) {
        const int32_t whole = (int32_t)i;
        if (bf16) {
            result[i] = (float)i;
        } else {
            memcpy(&result[i], &whole, sizeof whole);
        }
    }
    pd_amx_pack(c->kind, c->columns, c->k, weights, stride_k, stride_n, packed);
    pd_amx_multiply(&(pd_amx_product){.kind = c->kind,
                                      .rows = c->rows,
                                      .columns = c->columns,
                                      .k = c->k,
                                      .source = source,
                                      .source_stride = (size_t)c->k * number,
                                      .weights = packed,
                                      .destination = result,
                                      .destination_stride = (size_t)stride * sizeof *result,
                                      .accumulate = c->accumulate,
                                      .sums = sums});
    for (int64_t i = 0; i < size; i++) {
        const int64_t row = i / stride, column = i % stride;
        const bool is_gap = column >= c->columns;
        double expected = is_gap || c->accumulate ? (double)i : 0.0, magnitude = expected;
        for (int64_t j = 0; !is_gap && j < c->k; j++) {
            const double product = number_at(source, row * c->k + j, c->kind, false) *
                                   number_at(weights, j * stride_k + column * stride_n, c->kind, true);
            expected += product;
            magnitude += fabs(product);
        }
        int32_t whole;
        memcpy(&whole, &result[i], sizeof whole);
        const double found = bf16 ? (double)result[i] : whole;
        assert_true(fabs(found - expected) <= (bf16 && !is_gap ? 1e-6 * magnitude : 0.0));
    }
    free(result);
    free(sums);
    free(packed);
    free(weights);
    free(source);
}

static void sizes(void **state) {
    (void)state;
    if (!pd_amx_multiplies(PD_NUMBER_BF16, 64)) {
        print_message("skipped: no tiles on this CPU\n");
        skip();
    }
    for (int i = 0; i < 2; i++) {
        const pd_number_kind kind = i ? PD_NUMBER_INT8 : PD_NUMBER_BF16;
        const int64_t step = 64 / (int64_t)pd_number_bytes(kind);
        for (int64_t rows = 1; rows <= 70; rows++)
            run_case(&(product_case){kind, rows, 40, 3 * step, rows % 2 == 0, false});
        for (int64_t columns = 1; columns <= 70; columns++)
            run_case(&(product_case){kind, 35, columns, 2 * step, columns % 2 == 0, !i && columns % 3 == 0});
        for (int64_t steps = 1; steps <= 34; steps++)
            run_case(&(product_case){kind, 50, 50, steps * step, steps % 2 == 0, !i && steps % 3 == 0});
        run_case(&(product_case){kind, 321, 272, 40 * step, false, false});
    }
}

// ---- blocks that are handed over ---------------------------------------------------------------------------

// A product of eight bits, and beside it one of bf16.
typedef struct {
    int64_t rows, columns, k, more_k;
    uint8_t *source;
    int8_t *weights; // column by column
    uint16_t *more_source, *more_weights;
    void *more_packed;
    int *seen;         // [rows][columns]: how often
    int weights_asked; // for
} handed_over;

static const void *give_weights(const void *user) {
    handed_over *h = (handed_over *)(uintptr_t)user; // the kernels take no other
    h->weights_asked++;
    return h->more_packed;
}

static void check_block(const void *user, const pd_amx_block *block) {
    const handed_over *h = user;
    assert_true(block->rows > 0 && block->rows <= PD_AMX_BLOCK && block->columns <= PD_AMX_BLOCK);
    for (int64_t r = 0; r < block->rows; r++) {
        for (int64_t c = 0; c < block->columns; c++) {
            const int64_t row = block->row + r, column = block->column + c;
            int32_t sum = 0;
            for (int64_t i = 0; i < h->k; i++)
                sum += h->source[row * h->k + i] * h->weights[column * h->k + i];
            assert_int_equal(((const int32_t *)block->sums)[r * PD_AMX_BLOCK + c], sum);
            double more = 0.0, magnitude = 0.0;
            for (int64_t i = 0; i < h->more_k; i++) {
                const double product = (double)bf16_to_float(h->more_source[row * h->more_k + i]) *
                                       (double)bf16_to_float(h->more_weights[i * h->columns + column]);
                more += product;
                magnitude += fabs(product);
            }
            assert_true(fabs((double)block->more[r * PD_AMX_BLOCK + c] - more) <= 1e-6 * magnitude);
            h->seen[row * h->columns + column]++;
        }
    }
}

static void hand_over(int64_t rows, int64_t columns, int64_t k) {
    uint64_t seed = 1;
    handed_over h = {.rows = rows, .columns = columns, .k = k, .more_k = 64};
    h.source = random_numbers(PD_NUMBER_INT8, rows * k, &seed);
    h.weights = random_numbers(PD_NUMBER_INT8, columns * k, &seed);
    h.more_source = random_numbers(PD_NUMBER_BF16, rows * h.more_k, &seed);
    h.more_weights = random_numbers(PD_NUMBER_BF16, columns * h.more_k, &seed);
    h.more_packed = aligned_alloc(64, pd_amx_packed_bytes(PD_NUMBER_BF16, columns, h.more_k));
    h.seen = calloc((size_t)(rows * columns), sizeof *h.seen);
    void *packed = aligned_alloc(64, pd_amx_packed_bytes(PD_NUMBER_INT8, columns, k)),
         *sums = aligned_alloc(64, pd_amx_sums_bytes(rows, columns));
    int8_t *numbers = malloc((size_t)columns);
    assert_true(h.more_packed && h.seen && packed && sums && numbers);
    pd_amx_pack(PD_NUMBER_INT8, columns, k, h.weights, 1, k, packed);
    pd_amx_pack(PD_NUMBER_BF16, columns, h.more_k, h.more_weights, columns, 1, h.more_packed);
    pd_amx_multiply(&(pd_amx_product){.kind = PD_NUMBER_INT8,
                                      .rows = rows,
                                      .columns = columns,
                                      .k = k,
                                      .source = h.source,
                                      .source_stride = (size_t)k,
                                      .weights = packed,
                                      .sums = sums,
                                      .finish = check_block,
                                      .user = &h,
                                      .more_source = h.more_source,
                                      .more_source_stride = (size_t)h.more_k * sizeof *h.more_source,
                                      .more_weights = give_weights,
                                      .more_k = h.more_k});
    assert_int_equal(h.weights_asked, 1);
    for (int64_t i = 0; i < rows * columns; i++)
        assert_int_equal(h.seen[i], 1);
    for (int64_t i = 0; i < k; i++) {
        pd_amx_packed_row(columns, k, packed, i, numbers);
        for (int64_t column = 0; column < columns; column++)
            assert_int_equal(numbers[column], h.weights[column * k + i]);
    }
    free(numbers);
    free(sums);
    free(packed);
    free(h.seen);
    free(h.more_packed);
    free(h.more_weights);
    free(h.more_source);
    free(h.weights);
    free(h.source);
}

static void blocks_are_handed_over(void **state) {
    (void)state;
    if (!pd_amx_multiplies(PD_NUMBER_INT8, 64)) {
        print_message("skipped: no tiles on this CPU\n");
        skip();
    }
    for (int64_t rows = 1; rows <= 70; rows += 3)
        hand_over(rows, 40, 192);
    for (int64_t columns = 1; columns <= 70; columns += 3)
        hand_over(35, columns, 64);
    hand_over(50, 50, (int64_t)34 * 64);
}

// A row that is no whole number of steps is nothing for these kernels.
static void other_rows(void **state) {
    (void)state;
    assert_false(pd_amx_multiplies(PD_NUMBER_BF16, 48));
    assert_false(pd_amx_multiplies(PD_NUMBER_INT8, 96));
    assert_false(pd_amx_multiplies(PD_NUMBER_F32, 64));
    assert_false(pd_amx_multiplies(PD_NUMBER_INT16, 64));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(blocks_are_handed_over),
                                       cmocka_unit_test(other_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
