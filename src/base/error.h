// Errors: every fallible function returns a pd_status and, on failure, one readable line in *err.
#pragma once

#include <pyramiddrop.h>

// Writes the message into *err (which may be NULL) and returns `status`, so that a caller can write
//     return pd_fail(err, PD_ERR_FORMAT, "%s: expected %s", path, what);
// The line names the file, the field and what was expected; no trailing newline or full stop.
__attribute__((format(printf, 3, 4))) pd_status pd_fail(pd_error *err, pd_status status, const char *format,
                                                        ...);

// Puts "?" in place of all that is not printable UTF-8: names in a file may hold line ends, a terminal's
// escapes, bytes that are no text. pd_fail does it to its line.
void pd_make_printable(char *text);

// The one line for a failed allocation of `size` bytes for `what`.
pd_status pd_fail_memory(pd_error *err, size_t size, const char *what);

// A call's value is the status it was given: in plain sight, so that static analysis sees that it is no
// PD_OK.
static inline pd_status pd_given_status(pd_status status) {
    return status;
}
#define pd_fail(err, status, ...) (pd_fail((err), (status), __VA_ARGS__), pd_given_status(status))
#define pd_fail_memory(err, size, what)                                                                      \
    (pd_fail_memory((err), (size), (what)), pd_given_status(PD_ERR_MEMORY))

// Returns from the calling function when `expression` is not PD_OK. For functions that own nothing at that
// point.
#define PD_TRY(expression)                                                                                   \
    do {                                                                                                     \
        const pd_status pd_try_status = (expression);                                                        \
        if (pd_try_status != PD_OK) return pd_try_status;                                                    \
    } while (0)
