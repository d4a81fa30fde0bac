// Byte-level BPE (GPT-2; Radford et al., 2019): a text is cut into words, and the bytes of each word merge by
// rank.
#pragma once

#include "text/merge.h"
#include "text/pretokenizer.h"
#include "text/token_list.h"
#include "text/vocabulary.h"

typedef struct {
    pd_merge_map merges;
    pd_pretokenizer *pretokenizer;
} pd_bpe;

// Reads and checks tokenizer.ggml.merges and .pre. On failure nothing is left to free.
pd_status pd_bpe_load(const pd_gguf *gguf, const pd_vocabulary *vocabulary, pd_bpe *bpe, pd_error *err);
void pd_bpe_free(pd_bpe *bpe);
// Appends the tokens of text[0..size), any bytes, which hold no special tokens. A byte that has no token
// becomes the unknown token, or nothing where there is none either.
pd_status pd_bpe_encode(const pd_bpe *bpe, const pd_vocabulary *vocabulary, const char *text, size_t size,
                        pd_merge_workspace *workspace, pd_token_list *tokens, pd_error *err);
