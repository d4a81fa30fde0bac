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

// A row that is no whole number of steps is nothing for these kernels.
static void other_rows(void **state) {
    (void)state;
    assert_false(pd_amx_multiplies(PD_NUMBER_BF16, 48));
    assert_false(pd_amx_multiplies(PD_NUMBER_INT8, 96));
    assert_false(pd_amx_multiplies(PD_NUMBER_F32, 64));
    assert_false(pd_amx_multiplies(PD_NUMBER_INT16, 64));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(other_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
