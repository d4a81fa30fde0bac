// Vocabularies of tests/golden for the fuzz targets that read text.
#pragma once

#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// "text/qwen2" and the like; found from where the sources are.
static inline pd_tokenizer *open_golden_vocabulary(const char *name) {
    const char *slash = strrchr(__FILE__, '/');
    const int directory = slash ? (int)(slash - __FILE__) + 1 : 0;
    char path[1024];
    snprintf(path, sizeof path, "%.*s../tests/golden/%s.gguf", directory, __FILE__, name);
    pd_gguf gguf;
    pd_error err;
    pd_tokenizer *tokenizer = NULL;
    if (pd_gguf_open(path, &gguf, &err) != PD_OK || pd_tokenizer_create(&gguf, &tokenizer, &err) != PD_OK) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    pd_gguf_close(&gguf);
    return tokenizer;
}
