// Opening what lies in tests/golden; a test that cannot read its golden file fails and says why. For tests of
// cmocka, whose header comes before.
#pragma once

#include "text/tokenizer.h"

#include <stdio.h>
#include <yyjson.h>

static inline yyjson_doc *read_json_file(const char *path) {
    yyjson_read_err error;
    yyjson_doc *doc = yyjson_read_file(path, 0, NULL, &error);
    if (!doc) fail_msg("%s: %s", path, error.msg);
    return doc;
}

// `name` within tests/golden.
static inline yyjson_doc *read_golden(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", PD_TEST_DATA, name);
    return read_json_file(path);
}

// The vocabulary of a GGUF file.
static inline pd_tokenizer *open_vocabulary(const char *path) {
    pd_gguf gguf;
    pd_error err;
    pd_tokenizer *tokenizer = NULL;
    if (pd_gguf_open(path, &gguf, &err) != PD_OK) fail_msg("%s", err.message);
    if (pd_tokenizer_create(&gguf, &tokenizer, &err) != PD_OK) fail_msg("%s", err.message);
    pd_gguf_close(&gguf);
    return tokenizer;
}

// "text/qwen2" and the like.
static inline pd_tokenizer *open_golden_vocabulary(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s.gguf", PD_TEST_DATA, name);
    return open_vocabulary(path);
}
