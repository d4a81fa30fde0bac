#include <pyramiddrop.h>

const char *pd_version(void) {
    return PD_VERSION;
}

const char *pd_status_name(pd_status status) {
    switch (status) {
    case PD_OK:
        return "ok";
    case PD_DONE:
        return "done";
    case PD_ERR_ARGUMENT:
        return "bad argument";
    case PD_ERR_IO:
        return "input or output failed";
    case PD_ERR_FORMAT:
        return "bad format";
    case PD_ERR_UNSUPPORTED:
        return "unsupported";
    case PD_ERR_MEMORY:
        return "out of memory";
    case PD_ERR_BACKEND:
        return "backend failed";
    case PD_ERR_CONTEXT:
        return "context too small";
    case PD_ERR_CANCELLED:
        return "cancelled";
    }
    return "unknown";
}
