// Text → token ids → text, with the vocabulary of a GGUF file.
//
//     pd_tokenizer *tokenizer;
//     pd_tokenizer_create(&gguf, &tokenizer, &err);
//     int32_t *tokens;
//     size_t n;
//     pd_tokenize_prompt(tokenizer, prompt, strlen(prompt), pd_tokenizer_add_bos(tokenizer), true, &tokens,
//     &n, &err); free(tokens);
//
// Two families: SentencePiece BPE (LLaMA, Vicuna, Mistral) and byte-level BPE (GPT-2 and on). Neither
// normalises Unicode, as llama.cpp does not; text must come composed as the model was trained (NFC, for
// Qwen2). A tokenizer is read-only once it is created: any number of threads may use it.
#pragma once

#include "base/gguf_file.h"

typedef struct pd_tokenizer pd_tokenizer;

// Reads tokenizer.ggml.*; `gguf` may be closed afterwards. PD_ERR_FORMAT when the metadata contradicts
// itself, PD_ERR_UNSUPPORTED for another model or pre-tokenizer.
pd_status pd_tokenizer_create(const pd_gguf *gguf, pd_tokenizer **tokenizer, pd_error *err);
void pd_tokenizer_free(pd_tokenizer *tokenizer);

// Token ids of text[0..size), any bytes; *tokens is malloc'd, the caller frees it, and it is NULL on failure.
// `add_bos` puts the BOS token first, if there is one. With `parse_special`, text such as "</s>" becomes its
// control token, the longest one that stands there; user-defined tokens always do.
// SentencePiece: with add_space_prefix, text at the start and behind a special token is taken as if a space
// stood before it, and every byte outside well-formed UTF-8 becomes its byte token. Byte-level BPE keeps
// every byte.
pd_status pd_tokenizer_encode(const pd_tokenizer *tokenizer, const char *text, size_t size, bool add_bos,
                              bool parse_special, int32_t **tokens, size_t *n, pd_error *err);

// The same for a prompt with pictures, as LLaVA's tokenizer_image_token has it: cut at every "<image>", each
// part is tokenized on its own (with its own space prefix), and PD_IMAGE_TOKEN stands between the parts.
pd_status pd_tokenize_prompt(const pd_tokenizer *tokenizer, const char *prompt, size_t size, bool add_bos,
                             bool parse_special, int32_t **tokens, size_t *n, pd_error *err);

// Both of the above, and transformers' newer LLaMA tokenizers.
typedef enum {
    PD_TOKENIZE_BOS = 1,     // the BOS token first, if there is one
    PD_TOKENIZE_SPECIAL = 2, // "</s>" becomes its control token
    PD_TOKENIZE_IMAGES = 4,  // "<image>" becomes PD_IMAGE_TOKEN
    // As LlamaTokenizer does with "legacy": false: the space that SentencePiece puts before a text stands at
    // the start of the text, and of every part between pictures, but not behind special tokens.
    PD_TOKENIZE_NOT_LEGACY = 8,
} pd_tokenize_flags;
pd_status pd_tokenize_as(const pd_tokenizer *tokenizer, unsigned flags, const char *text, size_t size,
                         int32_t **tokens, size_t *n, pd_error *err);

// The bytes of one token, owned by the tokenizer, not NUL-terminated and not necessarily whole UTF-8. Control
// and unknown tokens have none, or their text with `special`. PD_ERR_ARGUMENT for an id outside the
// vocabulary.
pd_status pd_tokenizer_piece(const pd_tokenizer *tokenizer, int32_t token, bool special, const char **bytes,
                             size_t *size, pd_error *err);
// The id of the token whose text, as the file spells it, is this; -1 for none.
int32_t pd_tokenizer_find(const pd_tokenizer *tokenizer, const char *text);

int32_t pd_tokenizer_n_vocab(const pd_tokenizer *tokenizer);
// PD_ERR_FORMAT, naming the file, where an embedding of so many rows has none for some token.
pd_status pd_tokenizer_expect_rows(const pd_tokenizer *tokenizer, int32_t n_rows, const char *path,
                                   pd_error *err);
int32_t pd_tokenizer_bos(const pd_tokenizer *tokenizer); // -1: none
int32_t pd_tokenizer_eos(const pd_tokenizer *tokenizer); // -1: none
// Whether an answer ends with this token: EOS, and what llama.cpp ends at besides ("<|im_end|>",
// "<|eot_id|>", …).
bool pd_tokenizer_is_end_of_generation(const pd_tokenizer *tokenizer, int32_t token);
// What the model was trained with: a BOS token before every text, a space before every text.
bool pd_tokenizer_add_bos(const pd_tokenizer *tokenizer);
bool pd_tokenizer_add_space_prefix(const pd_tokenizer *tokenizer);

// Token ids → text, one token at a time, in whole UTF-8 characters: the bytes of a character wait until all
// of them are there. Each broken character becomes one U+FFFD as soon as it is known to be broken. The space
// that add_space_prefix put before a text is taken away again. Plain data: zeroed, it is a closed one.
typedef struct {
    const pd_tokenizer *tokenizer; // not owned
    char *text;                    // what the last call gave, NUL-terminated
    size_t size;
    size_t capacity;
    uint8_t waiting[4]; // first bytes of a character
    size_t n_waiting;
    bool at_start;
} pd_detokenizer;

// The start of a text. Nothing is allocated yet; the tokenizer must live as long.
void pd_detokenizer_start(pd_detokenizer *detokenizer, const pd_tokenizer *tokenizer);
// Adds a token. *text, NUL-terminated, and *size are what is new, maybe nothing (""), until the next call.
pd_status pd_detokenizer_add(pd_detokenizer *detokenizer, int32_t token, const char **text, size_t *size,
                             pd_error *err);
// The end of a text: what waits becomes U+FFFD. The next add starts a new text.
pd_status pd_detokenizer_finish(pd_detokenizer *detokenizer, const char **text, size_t *size, pd_error *err);
void pd_detokenizer_free(pd_detokenizer *detokenizer);
