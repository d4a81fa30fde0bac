// A growing list of token ids.
#pragma once

#include "base/error.h"

typedef struct {
    int32_t *ids; // malloc'd
    size_t n;
    size_t capacity;
} pd_token_list;

pd_status pd_token_list_append(pd_token_list *list, int32_t id, pd_error *err);
