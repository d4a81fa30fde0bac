// Pre-tokenization of byte-level BPE: regular expressions cut a text into words, and merges stay inside a
// word.
#pragma once

#include "base/error.h"

typedef struct pd_pretokenizer pd_pretokenizer;

// `name` is tokenizer.ggml.pre; `path` stands in messages. Names are llama.cpp's, several for one expression.
// PD_ERR_UNSUPPORTED, with the names known, for another one.
pd_status pd_pretokenizer_create(const char *name, const char *path, pd_pretokenizer **pretokenizer,
                                 pd_error *err);
void pd_pretokenizer_free(pd_pretokenizer *pretokenizer);
// Whether a word that is a token is taken as it is, unmerged (LLaMA-3), and whether a text starts with the
// BOS token where the file does not say.
bool pd_pretokenizer_ignore_merges(const pd_pretokenizer *pretokenizer);
bool pd_pretokenizer_add_bos(const pd_pretokenizer *pretokenizer);

// Words lie end to end: word i is [ends[i - 1], ends[i]), the first one starts at 0. Zero before the first
// use.
typedef struct {
    size_t *ends; // malloc'd
    size_t n;
    size_t capacity;
} pd_word_list;

// Replaces *words by the words of text[0..size). A byte that belongs to no well-formed character counts as a
// character that is neither letter, number nor space, as U+FFFD does.
pd_status pd_pretokenizer_split(const pd_pretokenizer *pretokenizer, const char *text, size_t size,
                                pd_word_list *words, pd_error *err);
