#include "text/tokenizer.h"

#include "text/bpe.h"
#include "text/spm.h"
#include "text/vocabulary.h"

#include <stdlib.h>
#include <string.h>

struct pd_tokenizer {
    pd_vocabulary vocabulary;
    pd_bpe bpe; // PD_VOCABULARY_BPE
    bool add_bos;
    bool add_space_prefix;
};

pd_status pd_tokenizer_create(const pd_gguf *gguf, pd_tokenizer **out, pd_error *err) {
    *out = NULL;
    pd_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer) return pd_fail_memory(err, sizeof *tokenizer, "a tokenizer");
    const pd_vocabulary *vocabulary = &tokenizer->vocabulary;
    pd_status status = pd_vocabulary_load(gguf, &tokenizer->vocabulary, err);
    if (status == PD_OK && vocabulary->kind == PD_VOCABULARY_SPM) {
        tokenizer->add_bos = true;
        tokenizer->add_space_prefix = true;
        status = pd_spm_check(gguf, vocabulary, err);
        if (status == PD_OK)
            status = pd_gguf_get_bool(gguf, "tokenizer.ggml.add_space_prefix", false,
                                      &tokenizer->add_space_prefix, err);
    } else if (status == PD_OK) {
        status = pd_bpe_load(gguf, vocabulary, &tokenizer->bpe, err);
        if (status == PD_OK) tokenizer->add_bos = pd_pretokenizer_add_bos(tokenizer->bpe.pretokenizer);
    }
    if (status == PD_OK)
        status = pd_gguf_get_bool(gguf, "tokenizer.ggml.add_bos_token", false, &tokenizer->add_bos, err);
    if (status != PD_OK) {
        pd_tokenizer_free(tokenizer);
        return status;
    }
    if (vocabulary->bos < 0) tokenizer->add_bos = false;
    *out = tokenizer;
    return PD_OK;
}

void pd_tokenizer_free(pd_tokenizer *tokenizer) {
    if (!tokenizer) return;
    pd_bpe_free(&tokenizer->bpe);
    pd_vocabulary_free(&tokenizer->vocabulary);
    free(tokenizer);
}

static pd_status append_plain(const pd_tokenizer *tokenizer, const char *text, size_t size, bool at_start,
                              pd_merge_workspace *workspace, pd_token_list *tokens, pd_error *err) {
    if (size == 0) return PD_OK;
    if (tokenizer->vocabulary.kind == PD_VOCABULARY_BPE)
        return pd_bpe_encode(&tokenizer->bpe, &tokenizer->vocabulary, text, size, workspace, tokens, err);
    const bool space_prefix = tokenizer->add_space_prefix && at_start;
    return pd_spm_encode(&tokenizer->vocabulary, text, size, space_prefix, workspace, tokens, err);
}

// Appends the tokens of text[0..size), special ones included.
static pd_status append_text(const pd_tokenizer *tokenizer, unsigned flags, const char *text, size_t size,
                             pd_merge_workspace *workspace, pd_token_list *tokens, pd_error *err) {
    const bool parse_special = flags & PD_TOKENIZE_SPECIAL;
    size_t plain = 0; // where the text since the last special token starts
    bool space_prefix = true;
    for (size_t i = 0; i < size;) {
        const int32_t id =
            pd_vocabulary_match_special(&tokenizer->vocabulary, text + i, size - i, parse_special);
        if (id < 0) {
            i++;
            continue;
        }
        pd_status status =
            append_plain(tokenizer, text + plain, i - plain, space_prefix, workspace, tokens, err);
        if (status == PD_OK) status = pd_token_list_append(tokens, id, err);
        if (status != PD_OK) return status;
        i += tokenizer->vocabulary.tokens[id].text_size;
        plain = i;
        space_prefix = !(flags & PD_TOKENIZE_NOT_LEGACY);
    }
    return append_plain(tokenizer, text + plain, size - plain, space_prefix, workspace, tokens, err);
}

// The start of the next "<image>" at or behind `from`; `size` when there is none.
static size_t find_image(const char *text, size_t size, size_t from) {
    static const char image[] = "<image>";
    const char *found = memmem(text + from, size - from, image, sizeof image - 1);
    return found ? (size_t)(found - text) : size;
}

pd_status pd_tokenize_as(const pd_tokenizer *tokenizer, unsigned flags, const char *text, size_t size,
                         int32_t **tokens, size_t *n, pd_error *err) {
    *tokens = NULL;
    *n = 0;
    if (size > PD_MERGE_MAX_BYTES) {
        return pd_fail(err, PD_ERR_ARGUMENT, "a text to tokenize has %zu bytes; expected at most %zu", size,
                       PD_MERGE_MAX_BYTES);
    }
    pd_merge_workspace workspace = {0};
    pd_token_list list = {0};
    pd_status status = PD_OK;
    if ((flags & PD_TOKENIZE_BOS) && tokenizer->vocabulary.bos >= 0)
        status = pd_token_list_append(&list, tokenizer->vocabulary.bos, err);
    for (size_t start = 0; status == PD_OK;) {
        const size_t end = (flags & PD_TOKENIZE_IMAGES) ? find_image(text, size, start) : size;
        status = append_text(tokenizer, flags, text + start, end - start, &workspace, &list, err);
        if (status != PD_OK || end == size) break;
        status = pd_token_list_append(&list, PD_IMAGE_TOKEN, err);
        start = end + strlen("<image>");
    }
    pd_merge_workspace_free(&workspace);
    if (status != PD_OK) {
        free(list.ids);
        return status;
    }
    if (!list.ids) list.ids = malloc(sizeof *list.ids); // so that NULL means failure
    if (!list.ids) return pd_fail_memory(err, sizeof *list.ids, "the tokens of a text");
    *tokens = list.ids;
    *n = list.n;
    return PD_OK;
}

static unsigned flags_of(bool add_bos, bool parse_special) {
    return (add_bos ? (unsigned)PD_TOKENIZE_BOS : 0) | (parse_special ? (unsigned)PD_TOKENIZE_SPECIAL : 0);
}

pd_status pd_tokenizer_encode(const pd_tokenizer *tokenizer, const char *text, size_t size, bool add_bos,
                              bool parse_special, int32_t **tokens, size_t *n, pd_error *err) {
    return pd_tokenize_as(tokenizer, flags_of(add_bos, parse_special), text, size, tokens, n, err);
}

pd_status pd_tokenize_prompt(const pd_tokenizer *tokenizer, const char *prompt, size_t size, bool add_bos,
                             bool parse_special, int32_t **tokens, size_t *n, pd_error *err) {
    return pd_tokenize_as(tokenizer, flags_of(add_bos, parse_special) | PD_TOKENIZE_IMAGES, prompt, size,
                          tokens, n, err);
}

static bool has_token(const pd_tokenizer *tokenizer, int32_t token) {
    return token >= 0 && token < tokenizer->vocabulary.n_tokens;
}

pd_status pd_tokenizer_piece(const pd_tokenizer *tokenizer, int32_t id, bool special, const char **bytes,
                             size_t *size, pd_error *err) {
    *bytes = "";
    *size = 0;
    if (!has_token(tokenizer, id)) {
        return pd_fail(err, PD_ERR_ARGUMENT, "token %d is outside the vocabulary (expected 0..%d)", id,
                       tokenizer->vocabulary.n_tokens - 1);
    }
    const pd_token *token = &tokenizer->vocabulary.tokens[id];
    if (!special && (token->type == PD_TOKEN_CONTROL || token->type == PD_TOKEN_UNKNOWN)) return PD_OK;
    *bytes = token->piece;
    *size = token->piece_size;
    return PD_OK;
}

int32_t pd_tokenizer_find(const pd_tokenizer *tokenizer, const char *text) {
    return pd_token_map_find(&tokenizer->vocabulary.ids, text, strlen(text));
}

int32_t pd_tokenizer_n_vocab(const pd_tokenizer *tokenizer) {
    return tokenizer->vocabulary.n_tokens;
}

pd_status pd_tokenizer_expect_rows(const pd_tokenizer *tokenizer, int32_t n_rows, const char *path,
                                   pd_error *err) {
    const int32_t n_tokens = pd_tokenizer_n_vocab(tokenizer);
    if (n_tokens <= n_rows) return PD_OK; // rows beyond the tokens are padding, which some files have
    return pd_fail(err, PD_ERR_FORMAT,
                   "%s: tokenizer.ggml.tokens: expected at most the embedding's %d rows, found %d tokens",
                   path, n_rows, n_tokens);
}

int32_t pd_tokenizer_bos(const pd_tokenizer *tokenizer) {
    return tokenizer->vocabulary.bos;
}

int32_t pd_tokenizer_eos(const pd_tokenizer *tokenizer) {
    return tokenizer->vocabulary.eos;
}

bool pd_tokenizer_is_end_of_generation(const pd_tokenizer *tokenizer, int32_t token) {
    return has_token(tokenizer, token) && tokenizer->vocabulary.tokens[token].end_of_generation;
}

bool pd_tokenizer_add_bos(const pd_tokenizer *tokenizer) {
    return tokenizer->add_bos;
}

bool pd_tokenizer_add_space_prefix(const pd_tokenizer *tokenizer) {
    return tokenizer->add_space_prefix;
}
