#include "text/token_list.h"

#include <stdlib.h>

pd_status pd_token_list_append(pd_token_list *list, int32_t id, pd_error *err) {
    if (list->n == list->capacity) {
        const size_t capacity = list->capacity + list->capacity / 2 + 64;
        int32_t *ids = realloc(list->ids, capacity * sizeof *ids);
        if (!ids) return pd_fail_memory(err, capacity * sizeof *ids, "the tokens of a text");
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->n++] = id;
    return PD_OK;
}
