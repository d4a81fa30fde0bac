#include "text/vocabulary.h"

#include "text/byte_alphabet.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KEY_TOKENS     "tokenizer.ggml.tokens"
#define KEY_SCORES     "tokenizer.ggml.scores"
#define KEY_TOKEN_TYPE "tokenizer.ggml.token_type"

// Texts that end an answer whatever the metadata says: llama.cpp's list, for the families read here.
static const char *const end_of_generation_texts[] = {
    "</s>",
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
    "<eos>",
    "<|return|>",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
    "<｜end▁of▁sentence｜>",
};

// Metadata keys whose token ends an answer, besides eos_token_id.
static const char *const end_of_generation_keys[] = {
    "tokenizer.ggml.eot_token_id",     "tokenizer.ggml.eom_token_id",     "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id", "tokenizer.ggml.fim_sep_token_id",
};

void pd_vocabulary_free(pd_vocabulary *vocabulary) {
    free(vocabulary->tokens);
    free(vocabulary->texts);
    free(vocabulary->pieces);
    free(vocabulary->special);
    pd_token_map_free(&vocabulary->ids);
    *vocabulary = (pd_vocabulary){0};
}

static pd_status load_kind(const pd_gguf *gguf, pd_vocabulary *vocabulary, pd_error *err) {
    const char *model = NULL;
    const pd_status status = pd_gguf_get_string(gguf, "tokenizer.ggml.model", true, &model, err);
    if (status != PD_OK) return status;
    if (strcmp(model, "llama") == 0) {
        vocabulary->kind = PD_VOCABULARY_SPM;
    } else if (strcmp(model, "gpt2") == 0) {
        vocabulary->kind = PD_VOCABULARY_BPE;
    } else {
        return pd_fail(
            err, PD_ERR_UNSUPPORTED,
            "%s: tokenizer.ggml.model is \"%.60s\"; expected \"llama\" (SentencePiece) or \"gpt2\" "
            "(byte-level BPE)",
            gguf->path, model);
    }
    return PD_OK;
}

static pd_status load_texts(const pd_gguf *gguf, pd_vocabulary *vocabulary, pd_error *err) {
    int64_t key = -1;
    size_t n = 0;
    pd_status status = pd_gguf_get_strings(gguf, KEY_TOKENS, true, &key, &n, err);
    if (status != PD_OK) return status;
    if (n == 0 || n > INT32_MAX / 2) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: %s: expected 1 to %d tokens, found %zu", gguf->path,
                       KEY_TOKENS, INT32_MAX / 2, n);
    }
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        total += strlen(pd_gguf_string_at(gguf, key, i));
    }
    if (total > UINT32_MAX / 2) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: %s: expected at most %u bytes of text, found %zu", gguf->path,
                       KEY_TOKENS, UINT32_MAX / 2, total);
    }
    vocabulary->tokens = calloc(n, sizeof *vocabulary->tokens);
    if (!vocabulary->tokens) return pd_fail_memory(err, n * sizeof *vocabulary->tokens, "the vocabulary");
    vocabulary->n_tokens = (int32_t)n;
    vocabulary->texts = malloc(total + n); // with a NUL behind each
    vocabulary->pieces = malloc(total + 1);
    if (!vocabulary->texts || !vocabulary->pieces) return pd_fail_memory(err, total + n, "the token texts");
    status = pd_token_map_create(&vocabulary->ids, n, err);
    if (status != PD_OK) return status;
    char *text = vocabulary->texts;
    for (size_t i = 0; i < n; i++) {
        const char *source = pd_gguf_string_at(gguf, key, i);
        const uint32_t size = (uint32_t)strlen(source);
        memcpy(text, source, (size_t)size + 1);
        vocabulary->tokens[i].text = text;
        vocabulary->tokens[i].text_size = size;
        if (size > vocabulary->longest_text) vocabulary->longest_text = size;
        if (size > 0) pd_token_map_put(&vocabulary->ids, text, size, (int32_t)i);
        text += size + 1;
    }
    return PD_OK;
}

static pd_status check_length(const pd_gguf *gguf, const char *key, size_t found, int32_t expected,
                              pd_error *err) {
    if (found == (size_t)expected) return PD_OK;
    return pd_fail(err, PD_ERR_FORMAT, "%s: %s: expected %d elements, one for each of %s, found %zu",
                   gguf->path, key, expected, KEY_TOKENS, found);
}

// SentencePiece needs types (bytes are told from letters by them) and scores; byte-level BPE can do without.
static pd_status load_types(const pd_gguf *gguf, pd_vocabulary *vocabulary, pd_error *err) {
    const void *values = NULL;
    size_t n = 0;
    const bool required = vocabulary->kind == PD_VOCABULARY_SPM;
    pd_status status = pd_gguf_get_array(gguf, KEY_TOKEN_TYPE, required, GGUF_TYPE_INT32, &values, &n, err);
    if (status != PD_OK) return status;
    if (!required && gguf_find_key(gguf->gguf, KEY_TOKEN_TYPE) < 0) {
        for (int32_t i = 0; i < vocabulary->n_tokens; i++) {
            vocabulary->tokens[i].type = PD_TOKEN_NORMAL;
        }
        return PD_OK;
    }
    status = check_length(gguf, KEY_TOKEN_TYPE, n, vocabulary->n_tokens, err);
    if (status != PD_OK) return status;
    const int32_t *types = values;
    for (int32_t i = 0; i < vocabulary->n_tokens; i++) {
        if (types[i] < PD_TOKEN_UNDEFINED || types[i] > PD_TOKEN_BYTE) {
            return pd_fail(err, PD_ERR_FORMAT, "%s: %s[%d]: expected a type in 0..6, found %d", gguf->path,
                           KEY_TOKEN_TYPE, i, types[i]);
        }
        vocabulary->tokens[i].type = (uint8_t)types[i];
    }
    return PD_OK;
}

// Orders floats as unsigned integers do, the highest score first.
static uint32_t rank_of_score(float score) {
    const float positive_zero = score + 0.0F; // -0 and 0 are the same score
    uint32_t bits;
    memcpy(&bits, &positive_zero, sizeof bits);
    const uint32_t ascending = bits & 0x80000000U ? ~bits : bits | 0x80000000U;
    return ~ascending;
}

static pd_status load_scores(const pd_gguf *gguf, pd_vocabulary *vocabulary, pd_error *err) {
    const void *values = NULL;
    size_t n = 0;
    const bool required = vocabulary->kind == PD_VOCABULARY_SPM;
    if (!required && gguf_find_key(gguf->gguf, KEY_SCORES) < 0) return PD_OK;
    pd_status status = pd_gguf_get_array(gguf, KEY_SCORES, required, GGUF_TYPE_FLOAT32, &values, &n, err);
    if (status != PD_OK) return status;
    status = check_length(gguf, KEY_SCORES, n, vocabulary->n_tokens, err);
    if (status != PD_OK) return status;
    const float *scores = values;
    for (int32_t i = 0; i < vocabulary->n_tokens; i++) {
        if (!isfinite(scores[i])) {
            return pd_fail(err, PD_ERR_FORMAT, "%s: %s[%d]: expected a finite number", gguf->path, KEY_SCORES,
                           i);
        }
        vocabulary->tokens[i].rank = rank_of_score(scores[i]);
    }
    return PD_OK;
}

// *id becomes the token that metadata names under `key`, and stays as it was when there is no such key.
static pd_status load_id(const pd_gguf *gguf, const pd_vocabulary *vocabulary, const char *key, int32_t *id,
                         pd_error *err) {
    if (gguf_find_key(gguf->gguf, key) < 0) return PD_OK;
    uint32_t value = 0;
    const pd_status status = pd_gguf_get_u32(gguf, key, true, &value, err);
    if (status != PD_OK) return status;
    if (value >= (uint32_t)vocabulary->n_tokens) {
        return pd_fail(err, PD_ERR_FORMAT, "%s: %s: expected a token id in 0..%d, found %u", gguf->path, key,
                       vocabulary->n_tokens - 1, value);
    }
    *id = (int32_t)value;
    return PD_OK;
}

static pd_status load_ids(const pd_gguf *gguf, pd_vocabulary *vocabulary, pd_error *err) {
    vocabulary->bos = vocabulary->eos = vocabulary->unknown = -1;
    if (vocabulary->kind == PD_VOCABULARY_SPM && vocabulary->n_tokens > 2) {
        // What SentencePiece's trainer gives them unless told otherwise.
        if (vocabulary->tokens[0].type == PD_TOKEN_UNKNOWN) vocabulary->unknown = 0;
        if (vocabulary->tokens[1].type == PD_TOKEN_CONTROL) vocabulary->bos = 1;
        if (vocabulary->tokens[2].type == PD_TOKEN_CONTROL) vocabulary->eos = 2;
    }
    pd_status status = load_id(gguf, vocabulary, "tokenizer.ggml.bos_token_id", &vocabulary->bos, err);
    if (status == PD_OK)
        status = load_id(gguf, vocabulary, "tokenizer.ggml.eos_token_id", &vocabulary->eos, err);
    if (status == PD_OK)
        status = load_id(gguf, vocabulary, "tokenizer.ggml.unknown_token_id", &vocabulary->unknown, err);
    return status;
}

static pd_status mark_end_of_generation(const pd_gguf *gguf, pd_vocabulary *vocabulary, pd_error *err) {
    const size_t n_texts = sizeof end_of_generation_texts / sizeof *end_of_generation_texts;
    for (size_t i = 0; i < n_texts; i++) {
        const char *text = end_of_generation_texts[i];
        const int32_t id = pd_token_map_find(&vocabulary->ids, text, strlen(text));
        if (id < 0) continue;
        // Some files call them normal, and would print them.
        vocabulary->tokens[id].type = PD_TOKEN_CONTROL;
        vocabulary->tokens[id].end_of_generation = true;
    }
    const size_t n_keys = sizeof end_of_generation_keys / sizeof *end_of_generation_keys;
    for (size_t i = 0; i < n_keys; i++) {
        int32_t id = -1;
        const pd_status status = load_id(gguf, vocabulary, end_of_generation_keys[i], &id, err);
        if (status != PD_OK) return status;
        if (id >= 0) vocabulary->tokens[id].end_of_generation = true;
    }
    if (vocabulary->eos >= 0) vocabulary->tokens[vocabulary->eos].end_of_generation = true;
    return PD_OK;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

// "<0x0A>" → 10; -1 for any other text.
static int byte_of_text(const pd_token *token) {
    const char *text = token->text;
    if (token->text_size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    const int high = hex_digit(text[3]);
    const int low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

// U+2581 LOWER ONE EIGHTH BLOCK, SentencePiece's space.
static size_t unescape_spaces(const char *text, size_t size, char *piece) {
    size_t n = 0;
    for (size_t i = 0; i < size;) {
        if (size - i >= 3 && memcmp(text + i, "\xE2\x96\x81", 3) == 0) {
            piece[n++] = ' ';
            i += 3;
        } else {
            piece[n++] = text[i++];
        }
    }
    return n;
}

// A piece is never longer than its text, so all of them fit where all the texts do.
static pd_status decode_pieces(const pd_gguf *gguf, pd_vocabulary *vocabulary, pd_error *err) {
    char *piece = vocabulary->pieces;
    for (int32_t i = 0; i < 256; i++) {
        vocabulary->byte_tokens[i] = -1;
    }
    for (int32_t i = 0; i < vocabulary->n_tokens; i++) {
        pd_token *token = &vocabulary->tokens[i];
        size_t n = token->text_size;
        const bool verbatim = token->type == PD_TOKEN_CONTROL || token->type == PD_TOKEN_UNKNOWN ||
                              token->type == PD_TOKEN_USER_DEFINED;
        if (token->type == PD_TOKEN_BYTE) {
            const int byte = byte_of_text(token);
            if (byte < 0) {
                return pd_fail(err, PD_ERR_FORMAT,
                               "%s: %s[%d]: expected a byte token such as \"<0x0A>\", found \"%.*s\"",
                               gguf->path, KEY_TOKENS, i, token->text_size < 40 ? (int)token->text_size : 40,
                               token->text);
            }
            piece[0] = (char)byte;
            n = 1;
            if (vocabulary->byte_tokens[byte] < 0) vocabulary->byte_tokens[byte] = i;
        } else if (verbatim) {
            memcpy(piece, token->text, n);
        } else if (vocabulary->kind == PD_VOCABULARY_SPM) {
            n = unescape_spaces(token->text, token->text_size, piece);
        } else if (!pd_byte_alphabet_read(token->text, token->text_size, piece, &n)) {
            n = token->text_size;
            memcpy(piece, token->text, n);
        }
        token->piece = piece;
        token->piece_size = (uint32_t)n;
        piece += n;
    }
    if (vocabulary->kind == PD_VOCABULARY_BPE) {
        for (int32_t byte = 0; byte < 256; byte++) {
            char letter[2];
            const size_t size = pd_byte_alphabet_spell((uint8_t)byte, letter);
            vocabulary->byte_tokens[byte] = pd_token_map_find(&vocabulary->ids, letter, size);
        }
    }
    return PD_OK;
}

static int compare_texts(const pd_token *a, const pd_token *b) {
    const uint32_t common = a->text_size < b->text_size ? a->text_size : b->text_size;
    const int order = memcmp(a->text, b->text, common);
    if (order != 0) return order;
    if (a->text_size != b->text_size) return a->text_size < b->text_size ? -1 : 1;
    return a > b ? -1 : a < b; // of equal texts the lowest id comes last, where a match ends up
}

static void sift_down(const pd_token *tokens, int32_t *ids, int32_t root, int32_t n) {
    const int32_t id = ids[root];
    for (;;) {
        int32_t child = 2 * root + 1;
        if (child >= n) break;
        if (child + 1 < n && compare_texts(&tokens[ids[child]], &tokens[ids[child + 1]]) < 0) child++;
        if (compare_texts(&tokens[ids[child]], &tokens[id]) <= 0) break;
        ids[root] = ids[child];
        root = child;
    }
    ids[root] = id;
}

// Heapsort: qsort would need the tokens in a global variable to compare ids.
static void sort_by_text(const pd_token *tokens, int32_t *ids, int32_t n) {
    for (int32_t root = n / 2 - 1; root >= 0; root--) {
        sift_down(tokens, ids, root, n);
    }
    for (int32_t end = n - 1; end > 0; end--) {
        const int32_t largest = ids[0];
        ids[0] = ids[end];
        ids[end] = largest;
        sift_down(tokens, ids, 0, end);
    }
}

static bool is_special(const pd_token *token) {
    return token->text_size > 0 && (token->type == PD_TOKEN_CONTROL || token->type == PD_TOKEN_UNKNOWN ||
                                    token->type == PD_TOKEN_USER_DEFINED);
}

static pd_status collect_special(pd_vocabulary *vocabulary, pd_error *err) {
    int32_t n = 0;
    for (int32_t i = 0; i < vocabulary->n_tokens; i++) {
        n += is_special(&vocabulary->tokens[i]);
    }
    const size_t bytes = ((size_t)n + 1) * sizeof *vocabulary->special;
    vocabulary->special = malloc(bytes);
    if (!vocabulary->special) return pd_fail_memory(err, bytes, "the special tokens");
    n = 0;
    for (int32_t i = 0; i < vocabulary->n_tokens; i++) {
        if (is_special(&vocabulary->tokens[i])) vocabulary->special[n++] = i;
    }
    sort_by_text(vocabulary->tokens, vocabulary->special, n);
    int32_t next = 0;
    for (int32_t byte = 0; byte < 256; byte++) {
        vocabulary->first_special[byte] = next;
        while (next < n && (uint8_t)vocabulary->tokens[vocabulary->special[next]].text[0] == byte) {
            next++;
        }
    }
    vocabulary->first_special[256] = n;
    return PD_OK;
}

pd_status pd_vocabulary_load(const pd_gguf *gguf, pd_vocabulary *vocabulary, pd_error *err) {
    *vocabulary = (pd_vocabulary){0};
    pd_status status = load_kind(gguf, vocabulary, err);
    if (status == PD_OK) status = load_texts(gguf, vocabulary, err);
    if (status == PD_OK) status = load_types(gguf, vocabulary, err);
    if (status == PD_OK) status = load_scores(gguf, vocabulary, err);
    if (status == PD_OK) status = load_ids(gguf, vocabulary, err);
    if (status == PD_OK) status = mark_end_of_generation(gguf, vocabulary, err);
    if (status == PD_OK) status = decode_pieces(gguf, vocabulary, err);
    if (status == PD_OK) status = collect_special(vocabulary, err);
    if (status != PD_OK) pd_vocabulary_free(vocabulary);
    return status;
}

// First of special[low..high) whose text, at byte `depth`, is at least `byte`. All of them agree before
// `depth`, and none but the first may end there.
static int32_t narrow(const pd_vocabulary *vocabulary, int32_t low, int32_t high, uint32_t depth, int byte) {
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        const pd_token *token = &vocabulary->tokens[vocabulary->special[middle]];
        const int found = token->text_size > depth ? (uint8_t)token->text[depth] : -1;
        if (found < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

int32_t pd_vocabulary_match_special(const pd_vocabulary *vocabulary, const char *text, size_t size,
                                    bool parse_special) {
    if (size == 0) return -1;
    int32_t low = vocabulary->first_special[(uint8_t)text[0]];
    int32_t high = vocabulary->first_special[(uint8_t)text[0] + 1];
    int32_t longest = -1;
    // Texts are sorted, so those that share the first `depth` bytes with `text` stand together.
    for (uint32_t depth = 1; low < high; depth++) {
        while (low < high && vocabulary->tokens[vocabulary->special[low]].text_size == depth) {
            const int32_t id = vocabulary->special[low++];
            if (parse_special || vocabulary->tokens[id].type == PD_TOKEN_USER_DEFINED) longest = id;
        }
        if (depth >= size) break;
        const uint8_t byte = (uint8_t)text[depth];
        const int32_t end = narrow(vocabulary, low, high, depth, byte + 1);
        low = narrow(vocabulary, low, end, depth, byte);
        high = end;
    }
    return longest;
}
