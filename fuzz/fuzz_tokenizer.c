// Any bytes as text: through every vocabulary of tests/golden/text and back, and as a conversation.
// What must hold: byte-level BPE gives back the very bytes; SentencePiece with byte tokens does, but for
// spaces; the detokenizer gives UTF-8, and of UTF-8 the same; a prompt has one image token for each
// "<image>".
#include "check.h"

#include "base/utf8.h"
#include "text/conversation.h"
#include "vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    bool byte_level;
    bool keeps_bytes;
} vocabularies[] = {
    {"text/spm", false, true},    {"text/spm_bare", false, false}, {"text/gpt2", true, true},
    {"text/smollm", true, true},  {"text/qwen2", true, true},      {"text/llama3", true, true},
    {"text/default", true, true},
};
#define N_VOCABULARIES (sizeof vocabularies / sizeof *vocabularies)

static pd_tokenizer *tokenizers[N_VOCABULARIES];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    for (size_t i = 0; i < N_VOCABULARIES; i++)
        tokenizers[i] = open_golden_vocabulary(vocabularies[i].name);
    return 0;
}

// U+2581 and the space are one character to SentencePiece.
static size_t unify_spaces(char *bytes, size_t size) {
    size_t n = 0;
    for (size_t i = 0; i < size;) {
        if (size - i >= 3 && memcmp(bytes + i, "\xE2\x96\x81", 3) == 0) {
            bytes[n++] = ' ';
            i += 3;
        } else {
            bytes[n++] = bytes[i++];
        }
    }
    return n;
}

static void check_bytes(size_t vocabulary, const int32_t *tokens, size_t n, const char *text, size_t size) {
    const bool byte_level = vocabularies[vocabulary].byte_level;
    char *joined = malloc(size + 2);
    char *expected = malloc(size + 2);
    CHECK(joined && expected);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const char *piece;
        size_t piece_size;
        CHECK(pd_tokenizer_piece(tokenizers[vocabulary], tokens[i], true, &piece, &piece_size, NULL) ==
              PD_OK);
        CHECK(piece_size <= size + 1 - at);
        memcpy(joined + at, piece, piece_size);
        at += piece_size;
    }
    size_t n_expected = 0;
    if (!byte_level && size > 0) expected[n_expected++] = ' ';
    memcpy(expected + n_expected, text, size);
    n_expected += size;
    if (!byte_level) {
        at = unify_spaces(joined, at);
        n_expected = unify_spaces(expected, n_expected);
    }
    CHECK(at == n_expected);
    CHECK(memcmp(joined, expected, at) == 0);
    free(joined);
    free(expected);
}

static bool is_utf8(const char *text, size_t size) {
    for (size_t i = 0; i < size;) {
        size_t length = 0;
        const size_t good = pd_utf8_look((const uint8_t *)text + i, size - i, &length);
        if (length == 0 || good != length) return false;
        i += length;
    }
    return true;
}

// Streams the tokens; `exact`: the text must be that of the tokens' bytes.
static void check_stream(size_t vocabulary, const int32_t *tokens, size_t n, const char *text, size_t size,
                         bool exact) {
    pd_detokenizer detokenizer;
    pd_detokenizer_start(&detokenizer, tokenizers[vocabulary]);
    size_t at = 0;
    for (size_t i = 0; i <= n; i++) {
        const char *piece;
        size_t piece_size;
        const pd_status status = i < n
                                     ? pd_detokenizer_add(&detokenizer, tokens[i], &piece, &piece_size, NULL)
                                     : pd_detokenizer_finish(&detokenizer, &piece, &piece_size, NULL);
        CHECK(status == PD_OK);
        CHECK(is_utf8(piece, piece_size));
        CHECK(piece[piece_size] == '\0');
        if (exact) CHECK(piece_size <= size - at && memcmp(text + at, piece, piece_size) == 0);
        at += piece_size;
    }
    if (exact) CHECK(at == size);
    pd_detokenizer_free(&detokenizer);
}

static size_t count_images(const char *text, size_t size) {
    size_t n = 0;
    for (size_t i = 0; i + 7 <= size; i++) {
        n += memcmp(text + i, "<image>", 7) == 0;
    }
    return n;
}

static void try_vocabulary(size_t vocabulary, const char *text, size_t size) {
    const pd_tokenizer *tokenizer = tokenizers[vocabulary];
    int32_t *tokens;
    size_t n;
    for (int special = 0; special < 2; special++) {
        CHECK(pd_tokenizer_encode(tokenizer, text, size, false, special, &tokens, &n, NULL) == PD_OK);
        for (size_t i = 0; i < n; i++) {
            CHECK(tokens[i] >= 0 && tokens[i] < pd_tokenizer_n_vocab(tokenizer));
        }
        const bool byte_level = vocabularies[vocabulary].byte_level;
        // SentencePiece puts a space behind every special token too, which only plain text is free of.
        if (byte_level || (!special && vocabularies[vocabulary].keeps_bytes))
            check_bytes(vocabulary, tokens, n, text, size);
        check_stream(vocabulary, tokens, n, text, size, byte_level && !special && is_utf8(text, size));
        free(tokens);
    }
    CHECK(pd_tokenize_prompt(tokenizer, text, size, true, true, &tokens, &n, NULL) == PD_OK);
    size_t images = 0;
    for (size_t i = 0; i < n; i++) {
        images += tokens[i] == PD_IMAGE_TOKEN;
    }
    CHECK(images == count_images(text, size));
    free(tokens);
}

// The first byte chooses the template, the second whether there is a system prompt; messages end at 0x1E or
// at the end, and their first byte tells who speaks.
static void try_conversation(const uint8_t *data, size_t size) {
    enum { MAX_MESSAGES = 16 };
    if (size < 2) return;
    const pd_conversation *conversation = pd_conversation_at(data[0] % pd_conversation_count());
    const bool with_system = data[1] & 1;
    char *copy = malloc(size);
    CHECK(copy);
    memcpy(copy, data + 1, size - 1);
    copy[size - 1] = '\0';
    pd_role roles[MAX_MESSAGES];
    const char *texts[MAX_MESSAGES];
    size_t n = 0;
    for (char *at = copy + 1; n < MAX_MESSAGES && *at;) {
        roles[n] = *at == 's' ? PD_ROLE_SYSTEM : *at == 'a' ? PD_ROLE_ASSISTANT : PD_ROLE_USER;
        texts[n++] = at + 1;
        char *end = strchr(at + 1, 0x1E);
        if (!end) break;
        *end = '\0';
        at = end + 1;
    }
    char *prompt = NULL;
    pd_error err = {0};
    const pd_status status =
        pd_conversation_render(conversation, with_system ? copy : NULL, roles, texts, n, &prompt, &err);
    CHECK(status == PD_OK || status == PD_ERR_ARGUMENT);
    CHECK((status == PD_OK) == (prompt != NULL));
    CHECK((status == PD_OK) == (err.message[0] == '\0'));
    free(prompt);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    // A copy that ends where the text ends, so that reading past it is caught.
    char *text = malloc(size ? size : 1);
    CHECK(text);
    memcpy(text, data, size);
    for (size_t i = 0; i < N_VOCABULARIES; i++) {
        try_vocabulary(i, text, size);
    }
    free(text);
    try_conversation(data, size);
    return 0;
}
