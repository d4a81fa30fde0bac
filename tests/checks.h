// What tests check again and again. Include behind cmocka.
#pragma once

#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Whether it went well; says why it did not.
static inline bool check(pd_status status, const pd_error *err) {
    if (status != PD_OK) print_error("%s\n", err->message);
    return status == PD_OK;
}

// A failure of this kind, with one printable line about it that holds `part`.
static inline void assert_fails(pd_status status, pd_status expected, const pd_error *err, const char *part) {
    if (status != expected || !strstr(err->message, part))
        print_error("expected %s with \"%s\", found %s: %s\n", pd_status_name(expected), part,
                    pd_status_name(status), err->message);
    assert_int_equal(status, expected);
    assert_int_equal(err->status, expected);
    assert_non_null(strstr(err->message, part));
    for (const char *at = err->message; *at; at++)
        assert_true((unsigned char)*at >= ' ' && *at != 0x7f);
}

// Makes a folder "pd_test_NAME_XXXXXX" under TMPDIR: its path, and whether it is there.
static inline bool make_test_folder(char *path, size_t size, const char *name) {
    const char *parent = getenv("TMPDIR");
    return snprintf(path, size, "%s/pd_test_%s_XXXXXX", parent ? parent : "/tmp", name) < (int)size &&
           mkdtemp(path);
}

// The larger of two errors; NaN, which comparisons do not see, stays.
static inline double worse(double a, double b) {
    return isnan(a) || isnan(b) ? (double)NAN : a > b ? a : b;
}

// Unlike cmocka's assert_float_equal it fails for NaN.
#define assert_near(a, b, most) assert_true(fabs((double)(a) - (double)(b)) <= (double)(most))
