// The vocabulary of a GGUF file: token texts, types, ranks, and the special tokens found inside text.
#pragma once

#include "base/gguf_file.h"
#include "text/token_map.h"

// tokenizer.ggml.model: which of the two families of tokenizers this is.
typedef enum {
    PD_VOCABULARY_SPM, // "llama": SentencePiece BPE; a space is written U+2581
    PD_VOCABULARY_BPE, // "gpt2": byte-level BPE; a byte is written as a letter (text/byte_alphabet.h)
} pd_vocabulary_kind;

// tokenizer.ggml.token_type, numbered as SentencePiece numbers its pieces.
typedef enum {
    PD_TOKEN_UNDEFINED = 0,
    PD_TOKEN_NORMAL = 1,
    PD_TOKEN_UNKNOWN = 2,
    PD_TOKEN_CONTROL = 3,      // "<s>": means something, stands for no text
    PD_TOKEN_USER_DEFINED = 4, // always one token, wherever it stands in a text
    PD_TOKEN_UNUSED = 5,
    PD_TOKEN_BYTE = 6, // "<0x0A>": one byte, for what has no token
} pd_token_type;

typedef struct {
    const char *text;  // as the file spells it, NUL-terminated
    const char *piece; // the bytes it stands for; of control and unknown tokens, their text
    uint32_t text_size;
    uint32_t piece_size;
    uint32_t rank; // SPM: order of merging, from the score; lower merges first
    uint8_t type;  // pd_token_type
    bool end_of_generation;
} pd_token;

typedef struct {
    pd_vocabulary_kind kind;
    pd_token *tokens; // [n_tokens]
    int32_t n_tokens;
    char *texts;  // what tokens[].text points into
    char *pieces; // what tokens[].piece points into
    pd_token_map ids;
    uint32_t longest_text;
    int32_t *special; // [n_special] ids of control, unknown and user-defined tokens, by text
    int32_t
        first_special[257];   // those whose text starts with byte b: [first_special[b], first_special[b + 1])
    int32_t byte_tokens[256]; // the token of each byte, -1 where there is none
    int32_t bos;              // -1: none
    int32_t eos;
    int32_t unknown;
} pd_vocabulary;

// Reads and checks everything but the merges. On failure nothing is left to free.
pd_status pd_vocabulary_load(const pd_gguf *gguf, pd_vocabulary *vocabulary, pd_error *err);
void pd_vocabulary_free(pd_vocabulary *vocabulary);
// The longest special token that text[0..size) starts with, -1 for none. Control and unknown tokens count
// only when `parse_special`; user-defined ones always do.
int32_t pd_vocabulary_match_special(const pd_vocabulary *vocabulary, const char *text, size_t size,
                                    bool parse_special);
