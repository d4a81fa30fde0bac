#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

pd_status pd_fail(pd_error *err, pd_status status, const char *format, ...) {
    if (err) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(err->message, sizeof err->message, format, arguments);
        va_end(arguments);
        err->status = status;
    }
    return status;
}

pd_status pd_fail_memory(pd_error *err, size_t size, const char *what) {
    return pd_fail(err, PD_ERR_MEMORY, "out of memory: %zu bytes for %s", size, what);
}
