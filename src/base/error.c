#include "base/error.h"

#include "base/utf8.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

// How many bytes the UTF-8 character at `text` has; 0 when there is none, or it is a control character. A
// character cut off by the NUL is none.
static size_t printable_length(const unsigned char *text) {
    enum { LONGEST = 4 };
    if (text[0] < 0x80) return text[0] >= ' ' && text[0] != 0x7f;
    size_t length;
    const bool whole = pd_utf8_look(text, LONGEST, &length) == length;
    const bool control = text[0] == 0xc2 && text[1] < 0xa0;
    return whole && !control ? length : 0;
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
