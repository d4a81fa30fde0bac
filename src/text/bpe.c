#include "text/bpe.h"

#include "text/byte_alphabet.h"

#include <stdlib.h>
#include <string.h>

#define KEY_MERGES "tokenizer.ggml.merges"

static pd_status malformed(const pd_gguf *gguf, size_t index, const char *merge, const char *why,
                           pd_error *err) {
    return pd_fail(err, PD_ERR_FORMAT,
                   "%s: %s[%zu]: expected two tokens with one space between them, whose join is a token too; "
                   "found \"%.60s\", %s",
                   gguf->path, KEY_MERGES, index, merge, why);
}

// Every merge "left right" names two tokens and makes a third.
static pd_status load_merge(const pd_gguf *gguf, const pd_vocabulary *vocabulary, pd_bpe *bpe, size_t index,
                            const char *merge, char *joined, pd_error *err) {
    const char *space = strchr(merge, ' ');
    if (!space) return malformed(gguf, index, merge, "which has no space", err);
    const char *right = space + 1;
    const size_t left_size = (size_t)(space - merge);
    const size_t right_size = strlen(right);
    if (left_size == 0 || right_size == 0 || strchr(right, ' '))
        return malformed(gguf, index, merge, "which is not a pair", err);
    const int32_t left_id = pd_token_map_find(&vocabulary->ids, merge, left_size);
    const int32_t right_id = pd_token_map_find(&vocabulary->ids, right, right_size);
    if (left_id < 0 || right_id < 0 || left_size + right_size > vocabulary->longest_text)
        return malformed(gguf, index, merge, "which the vocabulary lacks", err);
    memcpy(joined, merge, left_size);
    memcpy(joined + left_size, right, right_size + 1);
    const int32_t id = pd_token_map_find(&vocabulary->ids, joined, left_size + right_size);
    if (id < 0) return malformed(gguf, index, merge, "which the vocabulary lacks joined", err);
    pd_merge_map_put(&bpe->merges, left_id, right_id, (uint32_t)index, id);
    return PD_OK;
}

static pd_status load_merges(const pd_gguf *gguf, const pd_vocabulary *vocabulary, pd_bpe *bpe,
                             pd_error *err) {
    int64_t key = -1;
    size_t n = 0;
    pd_status status = pd_gguf_get_strings(gguf, KEY_MERGES, true, &key, &n, err);
    if (status != PD_OK) return status;
    if (n > INT32_MAX) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: %s: expected at most %d merges, found %zu", gguf->path,
                       KEY_MERGES, INT32_MAX, n);
    }
    status = pd_merge_map_create(&bpe->merges, n, err);
    if (status != PD_OK) return status;
    char *joined = malloc((size_t)vocabulary->longest_text + 1);
    if (!joined) return pd_fail_memory(err, (size_t)vocabulary->longest_text + 1, "a merge");
    for (size_t i = 0; i < n && status == PD_OK; i++) {
        status = load_merge(gguf, vocabulary, bpe, i, pd_gguf_string_at(gguf, key, i), joined, err);
    }
    free(joined);
    return status;
}

pd_status pd_bpe_load(const pd_gguf *gguf, const pd_vocabulary *vocabulary, pd_bpe *bpe, pd_error *err) {
    *bpe = (pd_bpe){0};
    const char *name = "default";
    pd_status status = pd_gguf_get_string(gguf, "tokenizer.ggml.pre", false, &name, err);
    if (status == PD_OK) status = pd_pretokenizer_create(name, gguf->path, &bpe->pretokenizer, err);
    if (status == PD_OK) status = load_merges(gguf, vocabulary, bpe, err);
    if (status != PD_OK) pd_bpe_free(bpe);
    return status;
}

void pd_bpe_free(pd_bpe *bpe) {
    pd_merge_map_free(&bpe->merges);
    pd_pretokenizer_free(bpe->pretokenizer);
    *bpe = (pd_bpe){0};
}

static bool lookup(const void *opaque, const pd_symbol *left, const pd_symbol *right, uint32_t *rank,
                   int32_t *id) {
    const pd_merge_map *merges = opaque;
    if (left->id < 0 || right->id < 0) return false;
    const pd_merge_slot *merge = pd_merge_map_find(merges, left->id, right->id);
    if (!merge) return false;
    *rank = merge->rank;
    *id = merge->id;
    return true;
}

// The token that is this whole word, -1 for none. `spelling` has room for the longest text.
static int32_t find_word(const pd_vocabulary *vocabulary, const char *word, size_t size, char *spelling) {
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        char letter[2];
        const size_t letter_size = pd_byte_alphabet_spell((uint8_t)word[i], letter);
        if (n + letter_size > vocabulary->longest_text) return -1;
        memcpy(spelling + n, letter, letter_size);
        n += letter_size;
    }
    return pd_token_map_find(&vocabulary->ids, spelling, n);
}

static pd_status encode_word(const pd_bpe *bpe, const pd_vocabulary *vocabulary, const char *word,
                             size_t size, pd_merge_workspace *workspace, pd_token_list *tokens,
                             pd_error *err) {
    pd_status status = pd_merge_reserve(workspace, size, err);
    if (status != PD_OK) return status;
    for (size_t i = 0; i < size; i++) {
        pd_merge_append(workspace, (uint32_t)i, 1, vocabulary->byte_tokens[(uint8_t)word[i]]);
    }
    status = pd_merge_run(workspace, lookup, &bpe->merges, err);
    for (int32_t i = 0; i >= 0 && status == PD_OK; i = workspace->symbols[i].next) {
        const int32_t id = workspace->symbols[i].id >= 0 ? workspace->symbols[i].id : vocabulary->unknown;
        if (id >= 0) status = pd_token_list_append(tokens, id, err);
    }
    return status;
}

pd_status pd_bpe_encode(const pd_bpe *bpe, const pd_vocabulary *vocabulary, const char *text, size_t size,
                        pd_merge_workspace *workspace, pd_token_list *tokens, pd_error *err) {
    pd_word_list words = {0};
    char *spelling = malloc((size_t)vocabulary->longest_text + 1);
    pd_status status = spelling ? pd_pretokenizer_split(bpe->pretokenizer, text, size, &words, err)
                                : pd_fail_memory(err, (size_t)vocabulary->longest_text + 1, "a word");
    const bool whole_words = pd_pretokenizer_ignore_merges(bpe->pretokenizer);
    size_t start = 0;
    for (size_t i = 0; i < words.n && status == PD_OK; i++) {
        const char *word = text + start;
        const size_t word_size = words.ends[i] - start;
        const int32_t id = whole_words ? find_word(vocabulary, word, word_size, spelling) : -1;
        status = id >= 0 ? pd_token_list_append(tokens, id, err)
                         : encode_word(bpe, vocabulary, word, word_size, workspace, tokens, err);
        start = words.ends[i];
    }
    free(words.ends);
    free(spelling);
    return status;
}
