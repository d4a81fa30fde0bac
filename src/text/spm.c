#include "text/spm.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

// U+2581 LOWER ONE EIGHTH BLOCK, SentencePiece's space.
static const char escaped_space[] = {'\xE2', '\x96', '\x81'};

pd_status pd_spm_check(const pd_gguf *gguf, const pd_vocabulary *vocabulary, pd_error *err) {
    if (vocabulary->unknown >= 0) return PD_OK;
    for (int byte = 0; byte < 256; byte++) {
        if (vocabulary->byte_tokens[byte] < 0) {
            return pd_fail(err, PD_ERR_FORMAT,
                           "%s: tokenizer.ggml.tokens: expected an unknown token or all 256 byte tokens; "
                           "<0x%02X> is missing",
                           gguf->path, (unsigned)byte);
        }
    }
    return PD_OK;
}

typedef struct {
    const pd_vocabulary *vocabulary;
    const char *text;
} spm_context;

// The token with this text, if text may become it: "<s>" spelt out in a prompt is no control token.
static int32_t find_piece(const spm_context *context, uint32_t start, uint32_t size) {
    if (size > context->vocabulary->longest_text) return -1;
    const int32_t id = pd_token_map_find(&context->vocabulary->ids, context->text + start, size);
    if (id < 0) return -1;
    const uint8_t type = context->vocabulary->tokens[id].type;
    const bool reserved = type == PD_TOKEN_CONTROL || type == PD_TOKEN_UNKNOWN || type == PD_TOKEN_BYTE;
    return reserved ? -1 : id;
}

static bool lookup(const void *opaque, const pd_symbol *left, const pd_symbol *right, uint32_t *rank,
                   int32_t *id) {
    const spm_context *context = opaque;
    *id = find_piece(context, left->start, left->size + right->size);
    if (*id < 0) return false;
    *rank = context->vocabulary->tokens[*id].rank;
    return true;
}

// How many bytes the character at `bytes` has; a byte outside well-formed characters stands alone. (llama.cpp
// takes as many bytes as the first one announces, and so turns a space behind a cut-off character into
// U+2581.)
static uint32_t character_size(const char *bytes, size_t size) {
    size_t length = 0;
    const size_t good = pd_utf8_look((const uint8_t *)bytes, size, &length);
    return length > 0 && good == length ? (uint32_t)length : 1;
}

static pd_status append_symbols(const spm_context *context, const pd_merge_workspace *workspace,
                                pd_token_list *tokens, pd_error *err) {
    const pd_vocabulary *vocabulary = context->vocabulary;
    pd_status status = PD_OK;
    bool after_unknown = false;
    for (int32_t i = 0; i >= 0 && status == PD_OK; i = workspace->symbols[i].next) {
        const pd_symbol *symbol = &workspace->symbols[i];
        if (symbol->id >= 0) {
            after_unknown = false;
            status = pd_token_list_append(tokens, symbol->id, err);
            continue;
        }
        for (uint32_t k = 0; k < symbol->size && status == PD_OK; k++) {
            const int32_t byte_token = vocabulary->byte_tokens[(uint8_t)context->text[symbol->start + k]];
            if (byte_token < 0 && after_unknown) continue;
            after_unknown = byte_token < 0;
            status = pd_token_list_append(tokens, after_unknown ? vocabulary->unknown : byte_token, err);
        }
    }
    return status;
}

pd_status pd_spm_encode(const pd_vocabulary *vocabulary, const char *text, size_t size, bool space_prefix,
                        pd_merge_workspace *workspace, pd_token_list *tokens, pd_error *err) {
    const size_t capacity = 3 * size + 3;
    char *escaped = malloc(capacity);
    if (!escaped) return pd_fail_memory(err, capacity, "a text to tokenize");
    size_t n = 0;
    if (space_prefix) {
        memcpy(escaped, escaped_space, 3);
        n = 3;
    }
    for (size_t i = 0; i < size; i++) {
        if (text[i] == ' ') {
            memcpy(escaped + n, escaped_space, 3);
            n += 3;
        } else {
            escaped[n++] = text[i];
        }
    }
    const spm_context context = {vocabulary, escaped};
    pd_status status = pd_merge_reserve(workspace, size + 1, err);
    for (size_t start = 0; start < n && status == PD_OK;) {
        const uint32_t symbol = character_size(escaped + start, n - start);
        pd_merge_append(workspace, (uint32_t)start, symbol, find_piece(&context, (uint32_t)start, symbol));
        start += symbol;
    }
    if (status == PD_OK) status = pd_merge_run(workspace, lookup, &context, err);
    if (status == PD_OK && workspace->n_symbols > 0)
        status = append_symbols(&context, workspace, tokens, err);
    free(escaped);
    return status;
}
