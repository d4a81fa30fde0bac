// Vocabularies for the fuzz targets: those of tests/golden, and one of a few tokens.
#pragma once

#include "text/tokenizer.h"

#include <gguf.h>
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

enum { N_TOKENS = 16 };

// A SentencePiece vocabulary of N_TOKENS tokens, without bytes.
static inline void add_tiny_vocabulary(struct gguf_context *gguf) {
    const char *texts[N_TOKENS] = {
        "<unk>", "<s>", "</s>", "\xe2\x96\x81", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"};
    float scores[N_TOKENS];
    int32_t types[N_TOKENS];
    for (int i = 0; i < N_TOKENS; i++) {
        scores[i] = (float)-i;
        types[i] = i == 0 ? 2 : i < 3 ? 3 : 1;
    }
    gguf_set_val_str(gguf, "tokenizer.ggml.model", "llama");
    gguf_set_arr_str(gguf, "tokenizer.ggml.tokens", texts, N_TOKENS);
    gguf_set_arr_data(gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores, N_TOKENS);
    gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types, N_TOKENS);
}
