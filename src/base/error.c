#include "base/error.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

// How many bytes the UTF-8 character at `text` has; 0 when there is none
// (https://www.unicode.org/versions/latest, table 3-7) or it is a control character. A character cut off by
// the NUL is none.
static size_t printable_length(const unsigned char *text) {
    const unsigned char first = text[0];
    if (first < 0x80) return first >= ' ' && first != 0x7f;
    const size_t length = first >= 0xc2 && first <= 0xdf   ? 2
                          : (first & 0xf0) == 0xe0         ? 3
                          : first >= 0xf0 && first <= 0xf4 ? 4
                                                           : 0;
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80) return 0;
    }
    const unsigned char second = length > 1 ? text[1] : 0;
    const int overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
    const int too_high = (first == 0xed && second > 0x9f) || (first == 0xf4 && second > 0x8f);
    const int control = first == 0xc2 && second < 0xa0;
    return overlong || too_high || control ? 0 : length;
}

void pd_make_printable(char *text) {
    for (unsigned char *at = (unsigned char *)text; *at;) {
        const size_t length = printable_length(at);
        if (length == 0) *at = '?';
        at += length ? length : 1;
    }
}

pd_status(pd_fail)(pd_error *err, pd_status status, const char *format, ...) {
    if (err) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(err->message, sizeof err->message, format, arguments);
        va_end(arguments);
        pd_make_printable(err->message);
        err->status = status;
    }
    return status;
}

pd_status(pd_fail_memory)(pd_error *err, size_t size, const char *what) {
    return pd_fail(err, PD_ERR_MEMORY, "out of memory: %zu bytes for %s", size, what);
}
