// The room src/text against what the reference tokenizers and LLaVA's own code say (golden/make_text.py), and
// against metadata that contradicts itself.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "golden_files.h"
#include "text/conversation.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

static const char *const vocabularies[] = {"spm", "spm_bare", "gpt2", "smollm", "qwen2", "llama3", "default"};
static const char *const byte_level[] = {"gpt2", "smollm", "qwen2", "llama3", "default"};
#define COUNT(array) (sizeof(array) / sizeof *(array))

// ---- golden files -----------------------------------------------------------------------------------------

static pd_tokenizer *open_tokenizer(const char *name) {
    char path[128];
    snprintf(path, sizeof path, "text/%s", name);
    return open_golden_vocabulary(path);
}

typedef struct {
    char *bytes; // malloc'd
    size_t size;
    const char *text; // the same as UTF-8, broken characters replaced
    size_t text_size;
    bool valid;
} sample;

static yyjson_doc *read_samples(sample **samples, size_t *n) {
    yyjson_doc *doc = read_golden("text/strings.json");
    yyjson_val *root = yyjson_doc_get_root(doc);
    *n = yyjson_arr_size(root);
    assert_true(*n > 300);
    *samples = calloc(*n + 1, sizeof **samples);
    size_t i;
    size_t max;
    yyjson_val *value;
    yyjson_arr_foreach(root, i, max, value) {
        sample *s = &(*samples)[i];
        yyjson_val *text = yyjson_obj_get(value, "text");
        const char *hex = yyjson_get_str(yyjson_obj_get(value, "hex"));
        s->text = yyjson_get_str(text);
        s->text_size = yyjson_get_len(text);
        s->valid = !hex;
        s->size = hex ? strlen(hex) / 2 : s->text_size;
        s->bytes = malloc(s->size + 1);
        if (!hex) memcpy(s->bytes, s->text, s->size);
        for (size_t k = 0; hex && k < s->size; k++) {
            const char digits[] = {hex[2 * k], hex[2 * k + 1], '\0'};
            s->bytes[k] = (char)strtoul(digits, NULL, 16);
        }
    }
    return doc;
}

static void free_samples(yyjson_doc *doc, sample *samples, size_t n) {
    for (size_t i = 0; i < n; i++) {
        free(samples[i].bytes);
    }
    free(samples);
    yyjson_doc_free(doc);
}

static void expect_ids(const char *what, size_t index, yyjson_val *expected, const int32_t *tokens,
                       size_t n) {
    bool same = yyjson_arr_size(expected) == n;
    size_t i;
    size_t max;
    yyjson_val *id;
    yyjson_arr_foreach(expected, i, max, id) {
        same = same && yyjson_get_sint(id) == tokens[i];
    }
    if (same) return;
    print_error("%s, string %zu: found", what, index);
    for (size_t k = 0; k < n; k++) {
        print_error(" %d", tokens[k]);
    }
    char *json = yyjson_val_write(expected, 0, NULL);
    print_error("; expected %s\n", json);
    free(json);
    fail();
}

static void encode(const pd_tokenizer *tokenizer, const char *text, size_t size, bool special,
                   int32_t **tokens, size_t *n) {
    pd_error err;
    if (pd_tokenizer_encode(tokenizer, text, size, false, special, tokens, n, &err) != PD_OK)
        fail_msg("%s", err.message);
}

// The bytes of the tokens, malloc'd.
static char *join_pieces(const pd_tokenizer *tokenizer, const int32_t *tokens, size_t n, size_t *size) {
    char *bytes = NULL;
    *size = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) bytes = malloc(*size + 1);
        *size = 0;
        for (size_t i = 0; i < n; i++) {
            const char *piece;
            size_t piece_size;
            assert_int_equal(pd_tokenizer_piece(tokenizer, tokens[i], true, &piece, &piece_size, NULL),
                             PD_OK);
            if (pass == 1) memcpy(bytes + *size, piece, piece_size);
            *size += piece_size;
        }
    }
    return bytes;
}

// The text that the detokenizer streams for the tokens, malloc'd; every piece of it is whole characters.
static char *detokenize(const pd_tokenizer *tokenizer, const int32_t *tokens, size_t n, size_t *size) {
    pd_detokenizer detokenizer;
    pd_detokenizer_start(&detokenizer, tokenizer);
    char *text = NULL;
    *size = 0;
    for (size_t i = 0; i <= n; i++) {
        const char *piece;
        size_t piece_size;
        pd_error err;
        const pd_status status = i < n
                                     ? pd_detokenizer_add(&detokenizer, tokens[i], &piece, &piece_size, &err)
                                     : pd_detokenizer_finish(&detokenizer, &piece, &piece_size, &err);
        assert_int_equal(status, PD_OK);
        assert_int_equal(piece[piece_size], '\0');
        for (size_t k = 0; k < piece_size;) {
            size_t length;
            const size_t good = pd_utf8_look((const uint8_t *)piece + k, piece_size - k, &length);
            assert_true(good > 0 && good == length);
            k += length;
        }
        text = realloc(text, *size + piece_size + 1);
        memcpy(text + *size, piece, piece_size);
        *size += piece_size;
    }
    pd_detokenizer_free(&detokenizer);
    return text;
}

static void test_encode(void **state) {
    (void)state;
    sample *samples;
    size_t n_samples;
    yyjson_doc *strings = read_samples(&samples, &n_samples);
    for (size_t v = 0; v < COUNT(vocabularies); v++) {
        char name[64];
        snprintf(name, sizeof name, "text/%s.json", vocabularies[v]);
        yyjson_doc *golden = read_golden(name);
        pd_tokenizer *tokenizer = open_tokenizer(vocabularies[v]);
        size_t compared = 0;
        for (int special = 0; special < 2; special++) {
            yyjson_val *all = yyjson_obj_get(yyjson_doc_get_root(golden), special ? "special" : "plain");
            assert_int_equal(yyjson_arr_size(all), n_samples);
            for (size_t i = 0; i < n_samples; i++) {
                yyjson_val *expected = yyjson_arr_get(all, i);
                int32_t *tokens;
                size_t n;
                encode(tokenizer, samples[i].bytes, samples[i].size, special, &tokens, &n);
                if (!yyjson_is_null(expected)) {
                    expect_ids(name, i, expected, tokens, n);
                    compared++;
                }
                free(tokens);
            }
        }
        assert_true(compared > 700);
        pd_tokenizer_free(tokenizer);
        yyjson_doc_free(golden);
    }
    free_samples(strings, samples, n_samples);
}

static void test_words(void **state) {
    (void)state;
    sample *samples;
    size_t n_samples;
    yyjson_doc *strings = read_samples(&samples, &n_samples);
    for (size_t v = 0; v < COUNT(byte_level); v++) {
        char name[64];
        snprintf(name, sizeof name, "text/%s.json", byte_level[v]);
        yyjson_doc *golden = read_golden(name);
        yyjson_val *root = yyjson_doc_get_root(golden);
        pd_pretokenizer *pretokenizer;
        pd_error err;
        const char *pre = yyjson_get_str(yyjson_obj_get(root, "pre"));
        assert_int_equal(pd_pretokenizer_create(pre, "test", &pretokenizer, &err), PD_OK);
        pd_word_list words = {0};
        for (size_t i = 0; i < n_samples; i++) {
            yyjson_val *expected = yyjson_arr_get(yyjson_obj_get(root, "words"), i);
            assert_int_equal(
                pd_pretokenizer_split(pretokenizer, samples[i].bytes, samples[i].size, &words, &err), PD_OK);
            if (words.n != yyjson_arr_size(expected))
                fail_msg("%s, string %zu: %zu words, expected %zu", pre, i, words.n,
                         yyjson_arr_size(expected));
            size_t end = 0;
            for (size_t k = 0; k < words.n; k++) {
                end += yyjson_get_uint(yyjson_arr_get(expected, k));
                if (words.ends[k] != end)
                    fail_msg("%s, string %zu: word %zu ends at %zu, expected %zu", pre, i, k, words.ends[k],
                             end);
            }
        }
        free(words.ends);
        pd_pretokenizer_free(pretokenizer);
        yyjson_doc_free(golden);
    }
    free_samples(strings, samples, n_samples);
}

// Byte-level BPE loses nothing, and its text is what Python's decode(errors="replace") makes of the bytes.
static void test_decode_bytes(void **state) {
    (void)state;
    sample *samples;
    size_t n_samples;
    yyjson_doc *strings = read_samples(&samples, &n_samples);
    for (size_t v = 0; v < COUNT(byte_level); v++) {
        pd_tokenizer *tokenizer = open_tokenizer(byte_level[v]);
        for (size_t i = 0; i < n_samples; i++) {
            int32_t *tokens;
            size_t n;
            size_t size;
            encode(tokenizer, samples[i].bytes, samples[i].size, false, &tokens, &n);
            char *bytes = join_pieces(tokenizer, tokens, n, &size);
            assert_int_equal(size, samples[i].size);
            assert_memory_equal(bytes, samples[i].bytes, size);
            free(bytes);
            char *text = detokenize(tokenizer, tokens, n, &size);
            assert_int_equal(size, samples[i].text_size);
            assert_memory_equal(text, samples[i].text, size);
            free(text);
            free(tokens);
        }
        pd_tokenizer_free(tokenizer);
    }
    free_samples(strings, samples, n_samples);
}

// SentencePiece's own decode() of its own ids.
static void test_decode_spm(void **state) {
    (void)state;
    const char *const names[] = {"spm", "spm_bare"};
    for (size_t v = 0; v < COUNT(names); v++) {
        char name[64];
        snprintf(name, sizeof name, "text/%s.json", names[v]);
        yyjson_doc *golden = read_golden(name);
        yyjson_val *plain = yyjson_obj_get(yyjson_doc_get_root(golden), "plain");
        yyjson_val *decoded = yyjson_obj_get(yyjson_doc_get_root(golden), "decoded");
        pd_tokenizer *tokenizer = open_tokenizer(names[v]);
        size_t compared = 0;
        for (size_t i = 0; i < yyjson_arr_size(plain); i++) {
            yyjson_val *ids = yyjson_arr_get(plain, i);
            yyjson_val *expected = yyjson_arr_get(decoded, i);
            if (yyjson_is_null(expected)) continue;
            const size_t n = yyjson_arr_size(ids);
            int32_t *tokens = malloc((n + 1) * sizeof *tokens);
            for (size_t k = 0; k < n; k++) {
                tokens[k] = yyjson_get_int(yyjson_arr_get(ids, k));
            }
            size_t size;
            char *text = detokenize(tokenizer, tokens, n, &size);
            assert_int_equal(size, yyjson_get_len(expected));
            assert_memory_equal(text, yyjson_get_str(expected), size);
            free(text);
            free(tokens);
            compared++;
        }
        assert_true(compared > 100);
        pd_tokenizer_free(tokenizer);
        yyjson_doc_free(golden);
    }
}

static void test_prompts(void **state) {
    (void)state;
    const char *const names[] = {"spm", "llama3", "smollm"};
    yyjson_doc *golden = read_golden("text/prompts.json");
    yyjson_val *root = yyjson_doc_get_root(golden);
    yyjson_val *prompts = yyjson_obj_get(root, "prompts");
    assert_true(yyjson_arr_size(prompts) > 10);
    for (size_t v = 0; v < COUNT(names); v++) {
        pd_tokenizer *tokenizer = open_tokenizer(names[v]);
        for (size_t i = 0; i < yyjson_arr_size(prompts); i++) {
            yyjson_val *prompt = yyjson_arr_get(prompts, i);
            int32_t *tokens;
            size_t n;
            assert_int_equal(pd_tokenize_prompt(tokenizer, yyjson_get_str(prompt), yyjson_get_len(prompt),
                                                pd_tokenizer_add_bos(tokenizer), true, &tokens, &n, NULL),
                             PD_OK);
            expect_ids(names[v], i, yyjson_arr_get(yyjson_obj_get(root, names[v]), i), tokens, n);
            free(tokens);
        }
        pd_tokenizer_free(tokenizer);
    }
    yyjson_doc_free(golden);
}

// ---- the tokenizer's other answers ------------------------------------------------------------------------

static void test_properties(void **state) {
    (void)state;
    pd_tokenizer *spm = open_tokenizer("spm");
    assert_int_equal(pd_tokenizer_n_vocab(spm), 1000);
    assert_int_equal(pd_tokenizer_bos(spm), 1);
    assert_int_equal(pd_tokenizer_eos(spm), 2);
    assert_true(pd_tokenizer_add_bos(spm));
    assert_true(pd_tokenizer_add_space_prefix(spm));
    assert_true(pd_tokenizer_is_end_of_generation(spm, 2));
    assert_false(pd_tokenizer_is_end_of_generation(spm, 1));
    assert_false(pd_tokenizer_is_end_of_generation(spm, -1));
    assert_false(pd_tokenizer_is_end_of_generation(spm, 1000));
    assert_int_equal(pd_tokenizer_find(spm, "<s>"), 1);
    assert_int_equal(pd_tokenizer_find(spm, "no such token"), -1);

    const char *bytes;
    size_t size;
    pd_error err;
    assert_int_equal(pd_tokenizer_piece(spm, 2, false, &bytes, &size, &err), PD_OK);
    assert_int_equal(size, 0);
    assert_int_equal(pd_tokenizer_piece(spm, 2, true, &bytes, &size, &err), PD_OK);
    assert_int_equal(size, 4);
    assert_memory_equal(bytes, "</s>", 4);
    assert_int_equal(pd_tokenizer_piece(spm, pd_tokenizer_find(spm, "<0xFF>"), false, &bytes, &size, &err),
                     PD_OK);
    assert_int_equal(size, 1);
    assert_memory_equal(bytes, "\xFF", 1);
    assert_int_equal(
        pd_tokenizer_piece(spm, pd_tokenizer_find(spm, "\xE2\x96\x81the"), false, &bytes, &size, &err),
        PD_OK);
    assert_int_equal(size, 4);
    assert_memory_equal(bytes, " the", 4);
    assert_int_equal(pd_tokenizer_piece(spm, 1000, false, &bytes, &size, &err), PD_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "1000"));
    assert_int_equal(pd_tokenizer_piece(spm, -200, false, &bytes, &size, &err), PD_ERR_ARGUMENT);

    int32_t *tokens;
    size_t n;
    assert_int_equal(pd_tokenizer_encode(spm, "", 0, true, true, &tokens, &n, &err), PD_OK);
    assert_int_equal(n, 1);
    assert_int_equal(tokens[0], 1);
    free(tokens);
    assert_int_equal(pd_tokenizer_encode(spm, "", 0, false, true, &tokens, &n, &err), PD_OK);
    assert_int_equal(n, 0);
    assert_non_null(tokens);
    free(tokens);
    assert_int_equal(pd_tokenizer_encode(spm, "x", SIZE_MAX / 2, false, true, &tokens, &n, &err),
                     PD_ERR_ARGUMENT);
    assert_null(tokens);
    pd_tokenizer_free(spm);

    pd_tokenizer *llama3 = open_tokenizer("llama3");
    assert_true(pd_tokenizer_add_bos(llama3));
    assert_false(pd_tokenizer_add_space_prefix(llama3));
    assert_true(pd_tokenizer_is_end_of_generation(llama3, pd_tokenizer_find(llama3, "<|im_end|>")));
    assert_true(pd_tokenizer_is_end_of_generation(llama3, pd_tokenizer_find(llama3, "<|endoftext|>")));
    assert_false(pd_tokenizer_is_end_of_generation(llama3, pd_tokenizer_find(llama3, "<|im_start|>")));
    pd_tokenizer_free(llama3);

    pd_tokenizer *bare = open_tokenizer("spm_bare");
    assert_false(pd_tokenizer_add_bos(bare));
    assert_false(pd_tokenizer_add_space_prefix(bare));
    pd_tokenizer_free(bare);
    pd_tokenizer_free(NULL);
}

// ---- detokenizer ------------------------------------------------------------------------------------------

// The tokens <0x00> … <0xFF> of the SentencePiece vocabulary.
static void byte_tokens(const pd_tokenizer *tokenizer, int32_t tokens[256]) {
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", byte);
        tokens[byte] = pd_tokenizer_find(tokenizer, text);
        assert_true(tokens[byte] >= 0);
    }
}

static size_t to_utf8(uint32_t c, uint8_t bytes[4]) {
    if (c < 0x80) {
        bytes[0] = (uint8_t)c;
        return 1;
    }
    static const uint8_t leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    const size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--) {
        bytes[i] = (uint8_t)(0x80 | (c & 0x3F));
        c >>= 6;
    }
    bytes[0] = (uint8_t)(leads[n] | c);
    return n;
}

// Every character comes whole with its last byte, and nothing comes before.
static void test_detokenizer_whole_characters(void **state) {
    (void)state;
    pd_tokenizer *tokenizer = open_tokenizer("spm");
    int32_t tokens[256];
    byte_tokens(tokenizer, tokens);
    pd_detokenizer detokenizer;
    pd_detokenizer_start(&detokenizer, tokenizer);
    for (uint32_t c = 0; c <= 0x10FFFF; c += c < 0x900 || (c > 0xD700 && c < 0xE100) ? 1 : 61) {
        if (c >= 0xD800 && c < 0xE000) continue;
        uint8_t bytes[4];
        const size_t n = to_utf8(c, bytes);
        for (size_t i = 0; i < n; i++) {
            const char *text;
            size_t size;
            assert_int_equal(pd_detokenizer_add(&detokenizer, tokens[bytes[i]], &text, &size, NULL), PD_OK);
            assert_int_equal(size, i + 1 < n ? 0 : n);
            assert_memory_equal(text, bytes, size);
        }
    }
    pd_detokenizer_free(&detokenizer);
    pd_tokenizer_free(tokenizer);
}

// Every two bytes, as tokens of their own, after a cut-off character: as many U+FFFD as Unicode's practice of
// "maximal subparts" gives, each as soon as it is certain.
static void test_detokenizer_broken_characters(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        const char *at[5]; // what each byte brings, then what the end does
    } cases[] = {
        {"\x80", {"\xEF\xBF\xBD", ""}},
        {"\xC0\xAF", {"\xEF\xBF\xBD", "\xEF\xBF\xBD", ""}},
        {"\xC3(", {"", "\xEF\xBF\xBD(", ""}},
        {"\xE2\x82(", {"", "", "\xEF\xBF\xBD(", ""}},
        {"\xE2\x82\xC3\xA9", {"", "", "\xEF\xBF\xBD", "\xC3\xA9", ""}},
        {"\xE2\x82\xFF", {"", "", "\xEF\xBF\xBD\xEF\xBF\xBD", ""}},
        {"\xED\xA0\x80", {"", "\xEF\xBF\xBD\xEF\xBF\xBD", "\xEF\xBF\xBD", ""}},
        {"\xE0\x80", {"", "\xEF\xBF\xBD\xEF\xBF\xBD", ""}},
        {"\xF0\x80", {"", "\xEF\xBF\xBD\xEF\xBF\xBD", ""}},
        {"\xF4\x90", {"", "\xEF\xBF\xBD\xEF\xBF\xBD", ""}},
        {"\xF0\x9F\x98", {"", "", "", "\xEF\xBF\xBD"}},
        {"\xF0\x9F\x98 ", {"", "", "", "\xEF\xBF\xBD ", ""}},
        {"\xC3", {"", "\xEF\xBF\xBD"}},
    };
    pd_tokenizer *tokenizer = open_tokenizer("spm");
    int32_t tokens[256];
    byte_tokens(tokenizer, tokens);
    for (size_t c = 0; c < COUNT(cases); c++) {
        pd_detokenizer detokenizer;
        pd_detokenizer_start(&detokenizer, tokenizer);
        const size_t n = strlen(cases[c].bytes);
        for (size_t i = 0; i <= n; i++) {
            const char *text;
            size_t size;
            const pd_status status =
                i < n
                    ? pd_detokenizer_add(&detokenizer, tokens[(uint8_t)cases[c].bytes[i]], &text, &size, NULL)
                    : pd_detokenizer_finish(&detokenizer, &text, &size, NULL);
            assert_int_equal(status, PD_OK);
            assert_string_equal(text, cases[c].at[i]);
            assert_int_equal(size, strlen(cases[c].at[i]));
        }
        pd_detokenizer_free(&detokenizer);
    }
    pd_tokenizer_free(tokenizer);
}

static void expect_text(pd_detokenizer *detokenizer, int32_t token, const char *expected) {
    const char *text;
    size_t size;
    assert_int_equal(pd_detokenizer_add(detokenizer, token, &text, &size, NULL), PD_OK);
    assert_string_equal(text, expected);
}

static void test_detokenizer_space(void **state) {
    (void)state;
    pd_tokenizer *tokenizer = open_tokenizer("spm");
    const int32_t the = pd_tokenizer_find(tokenizer, "\xE2\x96\x81the");
    const int32_t space = pd_tokenizer_find(tokenizer, "\xE2\x96\x81");
    const int32_t byte_space = pd_tokenizer_find(tokenizer, "<0x20>");
    pd_detokenizer detokenizer;
    pd_detokenizer_start(&detokenizer, tokenizer);
    expect_text(&detokenizer, 1, ""); // control tokens are no text
    expect_text(&detokenizer, the, "the");
    expect_text(&detokenizer, the, " the");
    const char *text;
    size_t size;
    assert_int_equal(pd_detokenizer_finish(&detokenizer, &text, &size, NULL), PD_OK);
    expect_text(&detokenizer, space, ""); // a new text
    expect_text(&detokenizer, the, " the");
    assert_int_equal(pd_detokenizer_finish(&detokenizer, &text, &size, NULL), PD_OK);
    expect_text(&detokenizer, byte_space, " ");
    pd_error err;
    assert_int_equal(pd_detokenizer_add(&detokenizer, 1 << 20, &text, &size, &err), PD_ERR_ARGUMENT);
    assert_string_equal(text, "");
    pd_detokenizer_free(&detokenizer);
    pd_tokenizer_free(tokenizer);
}

// ---- long texts, threads ----------------------------------------------------------------------------------

// A megabyte of one letter must not take quadratic time: with that, this test would run for hours.
static void test_long_texts(void **state) {
    (void)state;
    static const char *const units[] = {"a",    " ", "\n", "<", "1", "\xC3\xA9", "\xE4\xB8\xAD",
                                        "\xFF", "'", "ab "};
    const size_t target = 1 << 20;
    char *text = malloc(target);
    for (size_t v = 0; v < COUNT(vocabularies); v++) {
        pd_tokenizer *tokenizer = open_tokenizer(vocabularies[v]);
        for (size_t u = 0; u < COUNT(units); u++) {
            const size_t unit = strlen(units[u]);
            const size_t size = target / unit * unit;
            for (size_t i = 0; i < size; i += unit) {
                memcpy(text + i, units[u], unit);
            }
            int32_t *tokens;
            size_t n;
            size_t n_bytes;
            encode(tokenizer, text, size, true, &tokens, &n);
            char *bytes = join_pieces(tokenizer, tokens, n, &n_bytes);
            const size_t prefix = pd_tokenizer_add_space_prefix(tokenizer) ? 1 : 0;
            if (strcmp(vocabularies[v], "spm_bare") != 0) { // which has no bytes to fall back on
                assert_int_equal(n_bytes, size + prefix);
                assert_memory_equal(bytes + prefix, text, size);
            }
            free(bytes);
            free(tokens);
        }
        pd_tokenizer_free(tokenizer);
    }
    free(text);
}

typedef struct {
    const pd_tokenizer *tokenizer;
    const sample *samples;
    size_t n_samples;
    uint64_t sum; // of all ids, by place
} worker;

static void *encode_all(void *opaque) {
    worker *w = opaque;
    for (size_t i = 0; i < w->n_samples; i++) {
        int32_t *tokens;
        size_t n;
        if (pd_tokenizer_encode(w->tokenizer, w->samples[i].bytes, w->samples[i].size, true, true, &tokens,
                                &n, NULL) != PD_OK)
            return NULL;
        for (size_t k = 0; k < n; k++) {
            w->sum = w->sum * 31 + (uint64_t)tokens[k];
        }
        free(tokens);
    }
    return w;
}

static void test_threads(void **state) {
    (void)state;
    sample *samples;
    size_t n_samples;
    yyjson_doc *strings = read_samples(&samples, &n_samples);
    pd_tokenizer *tokenizer = open_tokenizer("llama3");
    pthread_t threads[4];
    worker workers[4];
    for (size_t i = 0; i < COUNT(threads); i++) {
        workers[i] = (worker){tokenizer, samples, n_samples, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_all, &workers[i]), 0);
    }
    for (size_t i = 0; i < COUNT(threads); i++) {
        void *result;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, &workers[i]);
        assert_int_equal(workers[i].sum, workers[0].sum);
    }
    assert_int_not_equal(workers[0].sum, 0);
    pd_tokenizer_free(tokenizer);
    free_samples(strings, samples, n_samples);
}

// ---- metadata ---------------------------------------------------------------------------------------------

#define N_TINY 262
static char tiny_texts[N_TINY][16];
static const char *tiny_tokens[N_TINY];
static float tiny_scores[N_TINY + 1];
static int32_t tiny_types[N_TINY + 1];

// A sound SentencePiece vocabulary: <unk> <s> </s>, 256 bytes, "a", "b", "ab".
static struct gguf_context *tiny_spm(void) {
    const char *const words[] = {"<unk>", "<s>", "</s>", "a", "b", "ab"};
    for (size_t i = 0; i < N_TINY; i++) {
        const bool byte = i >= 3 && i < 259;
        if (byte) {
            snprintf(tiny_texts[i], sizeof tiny_texts[i], "<0x%02X>", (unsigned)(i - 3) & 0xFF);
        } else {
            snprintf(tiny_texts[i], sizeof tiny_texts[i], "%s", words[i < 3 ? i : i - 256]);
        }
        tiny_tokens[i] = tiny_texts[i];
        tiny_scores[i] = -(float)i;
        tiny_types[i] = i == 0 ? 2 : i < 3 ? 3 : byte ? 6 : 1;
    }
    struct gguf_context *gguf = gguf_init_empty();
    gguf_set_val_str(gguf, "tokenizer.ggml.model", "llama");
    gguf_set_arr_str(gguf, "tokenizer.ggml.tokens", tiny_tokens, N_TINY);
    gguf_set_arr_data(gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, tiny_scores, N_TINY);
    gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, tiny_types, N_TINY);
    return gguf;
}

static const char *tiny_bpe_tokens[] = {"a", "b", "c", "ab", "abc", "<|im_end|>"};
static const char *tiny_merges[] = {"a b", "ab c"};

static struct gguf_context *tiny_bpe(void) {
    struct gguf_context *gguf = gguf_init_empty();
    gguf_set_val_str(gguf, "tokenizer.ggml.model", "gpt2");
    gguf_set_val_str(gguf, "tokenizer.ggml.pre", "gpt-2");
    gguf_set_arr_str(gguf, "tokenizer.ggml.tokens", tiny_bpe_tokens, COUNT(tiny_bpe_tokens));
    gguf_set_arr_str(gguf, "tokenizer.ggml.merges", tiny_merges, COUNT(tiny_merges));
    return gguf;
}

static pd_tokenizer *create(struct gguf_context *metadata, pd_status expected, const char *part) {
    char path[] = "tiny.gguf";
    const pd_gguf gguf = {.path = path, .gguf = metadata};
    pd_tokenizer *tokenizer = NULL;
    pd_error err = {0};
    const pd_status status = pd_tokenizer_create(&gguf, &tokenizer, &err);
    gguf_free(metadata);
    if (status != expected) fail_msg("%s: status %d, expected %d: %s", part, status, expected, err.message);
    if (expected == PD_OK) return tokenizer;
    assert_null(tokenizer);
    if (!strstr(err.message, part) || !strstr(err.message, "tiny.gguf"))
        fail_msg("the message should name tiny.gguf and %s: %s", part, err.message);
    return NULL;
}

static void test_metadata_sound(void **state) {
    (void)state;
    pd_tokenizer *tokenizer = create(tiny_spm(), PD_OK, "sound");
    assert_int_equal(pd_tokenizer_bos(tokenizer), 1);
    int32_t *tokens;
    size_t n;
    encode(tokenizer, "ab", 2, false, &tokens, &n);
    assert_int_equal(n, 4); // U+2581 is three bytes here
    assert_int_equal(tokens[3], 261);
    free(tokens);
    pd_tokenizer_free(tokenizer);

    // Text never merges into a control token: it is not its spelling that makes one.
    struct gguf_context *gguf = tiny_spm();
    tiny_types[261] = 3;
    gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, tiny_types, N_TINY);
    tokenizer = create(gguf, PD_OK, "control");
    encode(tokenizer, "ab", 2, false, &tokens, &n);
    assert_int_equal(n, 5);
    assert_int_equal(tokens[3], 259);
    free(tokens);
    encode(tokenizer, "ab", 2, true, &tokens, &n);
    assert_int_equal(n, 1);
    assert_int_equal(tokens[0], 261);
    free(tokens);
    pd_tokenizer_free(tokenizer);

    // A byte without a token is left out, as there is no unknown token.
    tokenizer = create(tiny_bpe(), PD_OK, "sound");
    encode(tokenizer, "abc?", 4, false, &tokens, &n);
    assert_int_equal(n, 1);
    assert_int_equal(tokens[0], 4);
    free(tokens);
    // Called normal, but known to end answers.
    assert_true(pd_tokenizer_is_end_of_generation(tokenizer, 5));
    const char *bytes;
    size_t size;
    assert_int_equal(pd_tokenizer_piece(tokenizer, 5, false, &bytes, &size, NULL), PD_OK);
    assert_int_equal(size, 0);
    assert_int_equal(pd_tokenizer_bos(tokenizer), -1);
    pd_tokenizer_free(tokenizer);

    gguf = tiny_bpe();
    gguf_set_val_u32(gguf, "tokenizer.ggml.unknown_token_id", 2);
    tokenizer = create(gguf, PD_OK, "unknown");
    encode(tokenizer, "ab?", 3, false, &tokens, &n);
    assert_int_equal(n, 2);
    assert_int_equal(tokens[1], 2);
    free(tokens);
    pd_tokenizer_free(tokenizer);

    gguf = tiny_bpe();
    gguf_remove_key(gguf, "tokenizer.ggml.pre");
    pd_tokenizer_free(create(gguf, PD_OK, "default pre"));
    // To add a BOS token that is not there means to add none.
    gguf = tiny_bpe();
    gguf_set_val_bool(gguf, "tokenizer.ggml.add_bos_token", true);
    tokenizer = create(gguf, PD_OK, "no bos");
    assert_false(pd_tokenizer_add_bos(tokenizer));
    pd_tokenizer_free(tokenizer);
}

static void test_metadata_spm_broken(void **state) {
    (void)state;
    struct gguf_context *gguf = tiny_spm();
    gguf_remove_key(gguf, "tokenizer.ggml.model");
    create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.model");
    gguf = tiny_spm();
    gguf_set_val_str(gguf, "tokenizer.ggml.model", "bert");
    create(gguf, PD_ERR_UNSUPPORTED, "bert");
    gguf = tiny_spm();
    gguf_set_val_u32(gguf, "tokenizer.ggml.model", 1);
    create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.model");

    gguf = tiny_spm();
    gguf_remove_key(gguf, "tokenizer.ggml.tokens");
    create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.tokens");
    gguf = tiny_spm();
    gguf_set_arr_data(gguf, "tokenizer.ggml.tokens", GGUF_TYPE_INT32, tiny_types, N_TINY);
    create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.tokens");
    gguf = tiny_spm();
    gguf_set_arr_str(gguf, "tokenizer.ggml.tokens", tiny_tokens, 0);
    create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.tokens");

    static const char *const arrays[] = {"tokenizer.ggml.scores", "tokenizer.ggml.token_type"};
    for (size_t i = 0; i < COUNT(arrays); i++) {
        const enum gguf_type right = i == 0 ? GGUF_TYPE_FLOAT32 : GGUF_TYPE_INT32;
        const enum gguf_type wrong = i == 0 ? GGUF_TYPE_INT32 : GGUF_TYPE_UINT8;
        const void *data = i == 0 ? (const void *)tiny_scores : (const void *)tiny_types;
        const size_t lengths[] = {0, 1, N_TINY - 1, N_TINY + 1};
        for (size_t k = 0; k < COUNT(lengths); k++) {
            gguf = tiny_spm();
            gguf_set_arr_data(gguf, arrays[i], right, data, lengths[k]);
            create(gguf, PD_ERR_FORMAT, arrays[i]);
        }
        gguf = tiny_spm();
        gguf_set_arr_data(gguf, arrays[i], wrong, data, N_TINY);
        create(gguf, PD_ERR_FORMAT, arrays[i]);
        gguf = tiny_spm();
        gguf_set_val_u32(gguf, arrays[i], 1);
        create(gguf, PD_ERR_FORMAT, arrays[i]);
        gguf = tiny_spm();
        gguf_remove_key(gguf, arrays[i]);
        create(gguf, PD_ERR_FORMAT, arrays[i]);
    }

    const float bad_scores[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < COUNT(bad_scores); i++) {
        gguf = tiny_spm();
        tiny_scores[7] = bad_scores[i];
        gguf_set_arr_data(gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, tiny_scores, N_TINY);
        create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.scores[7]");
    }
    const int32_t bad_types[] = {-1, 7, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < COUNT(bad_types); i++) {
        gguf = tiny_spm();
        tiny_types[9] = bad_types[i];
        gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, tiny_types, N_TINY);
        create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.token_type[9]");
    }
    const char *const bad_bytes[] = {"<0xGG>", "<0x1>", "", "<0x001>", "0x00AA", "<0x0A)"};
    for (size_t i = 0; i < COUNT(bad_bytes); i++) {
        gguf = tiny_spm();
        tiny_tokens[20] = bad_bytes[i];
        gguf_set_arr_str(gguf, "tokenizer.ggml.tokens", tiny_tokens, N_TINY);
        create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.tokens[20]");
    }
    gguf = tiny_spm(); // no unknown token, and one byte without a token
    tiny_types[0] = 1;
    tiny_types[3 + 0x41] = 1;
    gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, tiny_types, N_TINY);
    create(gguf, PD_ERR_FORMAT, "<0x41>");

    static const char *const ids[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                      "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.eot_token_id",
                                      "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < COUNT(ids); i++) {
        gguf = tiny_spm();
        gguf_set_val_u32(gguf, ids[i], N_TINY);
        create(gguf, PD_ERR_FORMAT, ids[i]);
        gguf = tiny_spm();
        gguf_set_val_u32(gguf, ids[i], UINT32_MAX);
        create(gguf, PD_ERR_FORMAT, ids[i]);
        gguf = tiny_spm();
        gguf_set_val_i32(gguf, ids[i], -1);
        create(gguf, PD_ERR_FORMAT, ids[i]);
        gguf = tiny_spm();
        gguf_set_val_str(gguf, ids[i], "1");
        create(gguf, PD_ERR_FORMAT, ids[i]);
    }
    gguf = tiny_spm();
    gguf_set_val_u32(gguf, "tokenizer.ggml.add_bos_token", 1);
    create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.add_bos_token");
    gguf = tiny_spm();
    gguf_set_val_u32(gguf, "tokenizer.ggml.add_space_prefix", 1);
    create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.add_space_prefix");
}

static void test_metadata_bpe_broken(void **state) {
    (void)state;
    const char *const bad_merges[] = {
        "",     " ",     "ab",  "a ",  " b",  "a  b",    "a b ",
        " a b", "a b c", "a x", "x b", "b a", "abc abc", "<|im_end|> <|im_end|>"};
    for (size_t i = 0; i < COUNT(bad_merges); i++) {
        struct gguf_context *gguf = tiny_bpe();
        const char *merges[] = {"a b", bad_merges[i]};
        gguf_set_arr_str(gguf, "tokenizer.ggml.merges", merges, 2);
        create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.merges[1]");
    }
    struct gguf_context *gguf = tiny_bpe();
    gguf_remove_key(gguf, "tokenizer.ggml.merges");
    create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.merges");
    gguf = tiny_bpe();
    gguf_set_arr_data(gguf, "tokenizer.ggml.merges", GGUF_TYPE_INT32, tiny_types, 2);
    create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.merges");
    gguf = tiny_bpe();
    gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, tiny_types,
                      COUNT(tiny_bpe_tokens) - 1);
    create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.token_type");
    gguf = tiny_bpe();
    gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, tiny_types, 0);
    create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.token_type");
    gguf = tiny_bpe();
    gguf_set_arr_data(gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, tiny_scores, 2);
    create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.scores");
    gguf = tiny_bpe();
    gguf_set_val_str(gguf, "tokenizer.ggml.pre", "no-such-pre");
    create(gguf, PD_ERR_UNSUPPORTED, "gpt-2");
    gguf = tiny_bpe();
    gguf_set_val_str(gguf, "tokenizer.ggml.pre", "no-such-pre");
    create(gguf, PD_ERR_UNSUPPORTED, "smaug-bpe"); // the last of the list
    gguf = tiny_bpe();
    gguf_set_val_u32(gguf, "tokenizer.ggml.pre", 1);
    create(gguf, PD_ERR_FORMAT, "tokenizer.ggml.pre");
}

// ---- conversations ----------------------------------------------------------------------------------------

#define MAX_MESSAGES 8

// The messages of golden conversation `number`; returns how many.
static size_t golden_messages(yyjson_val *conversations, size_t number, pd_role roles[MAX_MESSAGES],
                              const char *texts[MAX_MESSAGES]) {
    yyjson_val *messages = yyjson_arr_get(conversations, number);
    const size_t n = yyjson_arr_size(messages);
    assert_true(n <= MAX_MESSAGES);
    for (size_t i = 0; i < n; i++) {
        yyjson_val *message = yyjson_arr_get(messages, i);
        const bool user = strcmp(yyjson_get_str(yyjson_arr_get(message, 0)), "user") == 0;
        roles[i] = user ? PD_ROLE_USER : PD_ROLE_ASSISTANT;
        texts[i] = yyjson_get_str(yyjson_arr_get(message, 1));
    }
    return n;
}

static void test_conversations(void **state) {
    (void)state;
    yyjson_doc *golden = read_golden("text/conversations.json");
    yyjson_val *root = yyjson_doc_get_root(golden);
    yyjson_val *cases = yyjson_obj_get(root, "cases");
    assert_true(yyjson_arr_size(cases) > 200);
    size_t i;
    size_t max;
    yyjson_val *value;
    yyjson_arr_foreach(cases, i, max, value) {
        const char *name = yyjson_get_str(yyjson_obj_get(value, "template"));
        const char *system = yyjson_get_str(yyjson_obj_get(value, "system"));
        const char *expected = yyjson_get_str(yyjson_obj_get(value, "prompt"));
        pd_role roles[MAX_MESSAGES + 1] = {PD_ROLE_SYSTEM};
        const char *texts[MAX_MESSAGES + 1] = {system};
        const size_t n =
            golden_messages(yyjson_obj_get(root, "conversations"),
                            yyjson_get_uint(yyjson_obj_get(value, "conversation")), roles + 1, texts + 1);
        const pd_conversation *conversation;
        pd_error err;
        if (pd_conversation_find(name, &conversation, &err) != PD_OK) fail_msg("%s", err.message);
        assert_string_equal(pd_conversation_name(conversation), name);
        char *prompt;
        const pd_status status =
            pd_conversation_render(conversation, system, roles + 1, texts + 1, n, &prompt, &err);
        if (!expected) { // LLaVA's get_prompt() raises an error
            assert_int_equal(status, PD_ERR_ARGUMENT);
            assert_null(prompt);
            assert_non_null(strstr(err.message, name));
            continue;
        }
        if (status != PD_OK) fail_msg("%s", err.message);
        assert_string_equal(prompt, expected);
        free(prompt);
        if (!system) continue;
        // A system message says the same as the system argument, and says it louder.
        assert_int_equal(pd_conversation_render(conversation, "unheard", roles, texts, n + 1, &prompt, &err),
                         PD_OK);
        assert_string_equal(prompt, expected);
        free(prompt);
    }
    yyjson_doc_free(golden);
}

static void test_conversation_errors(void **state) {
    (void)state;
    const pd_conversation *conversation;
    pd_error err;
    assert_int_equal(pd_conversation_find("vicuna", &conversation, &err), PD_ERR_ARGUMENT);
    assert_null(conversation);
    assert_non_null(strstr(err.message, "\"vicuna\""));
    for (size_t i = 0; i < pd_conversation_count(); i++) {
        const char *name = pd_conversation_name(pd_conversation_at(i));
        assert_non_null(strstr(err.message, name));
        assert_non_null(pd_conversation_stop(pd_conversation_at(i)));
    }
    const pd_role late_system[] = {PD_ROLE_USER, PD_ROLE_SYSTEM};
    const pd_role twice[] = {PD_ROLE_USER, PD_ROLE_USER};
    const char *const texts[] = {"a", "b"};
    char *prompt;
    assert_int_equal(pd_conversation_find("vicuna_v1", &conversation, &err), PD_OK);
    assert_string_equal(pd_conversation_stop(conversation), "</s>");
    assert_int_equal(pd_conversation_render(conversation, NULL, late_system, texts, 2, &prompt, &err),
                     PD_ERR_ARGUMENT);
    assert_null(prompt);
    assert_int_equal(pd_conversation_find("llama_2", &conversation, &err), PD_OK);
    assert_int_equal(pd_conversation_render(conversation, NULL, twice, texts, 2, &prompt, &err),
                     PD_ERR_ARGUMENT);
    assert_int_equal(pd_conversation_find("chatml", &conversation, &err), PD_OK);
    assert_string_equal(pd_conversation_stop(conversation), "<|im_end|>");
    assert_int_equal(pd_conversation_render(conversation, NULL, late_system, texts, 2, &prompt, &err), PD_OK);
    assert_string_equal(prompt, "<|im_start|>user\na<|im_end|>\n<|im_start|>system\nb<|im_end|>\n"
                                "<|im_start|>assistant\n");
    free(prompt);
}

static void test_conversation_choice(void **state) {
    (void)state;
    static const struct {
        const char *chat_template, *model, *architecture, *expected;
    } cases[] = {
        {NULL, NULL, NULL, "vicuna_v1"},
        {NULL, "LLaMA v2", "llama", "vicuna_v1"},
        {"{{'<|start_header_id|>'}}", NULL, "llama", "llama3"},
        {"{{'<|im_start|>'}}", NULL, "llama", "chatml"},
        {"{{'<|im_start|>'}}", "llava-v1.6-34b", "llama", "chatml_direct"},
        {"{{'<|im_start|>'}}You are a helpful AI assistant named SmolLM", "x", "llama", "smollm"},
        {"{{'<|im_start|>'}}You are a helpful assistant.", "x", "qwen2", "qwen"},
        {"[INST] {{ m }} [/INST]", "x", "llama", "mistral_instruct"},
        {"[INST] <<SYS>>", "x", "llama", "llama_2"},
        {"[INST] <<SYS>>", "LLaVA", "llama", "llava_llama_2"},
        {"USER: {{ m }} ASSISTANT:", "x", "llama", "vicuna_v1"},
        {"something else", "Mistral 7B", "llama", "mistral_instruct"},
        {NULL, "llava-v1.6-mistral-7b", "llama", "mistral_instruct"},
        {NULL, "llava-llama-2-13b-chat", "llama", "llava_llama_2"},
        {NULL, "LLaVA-v1.6-34B", "llama", "chatml_direct"},
        {NULL, "x", "qwen2", "qwen"},
        {NULL, "x", "mpt", "mpt"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char path[] = "chosen.gguf";
        const pd_gguf gguf = {.path = path, .gguf = gguf_init_empty()};
        if (cases[i].chat_template)
            gguf_set_val_str(gguf.gguf, "tokenizer.chat_template", cases[i].chat_template);
        if (cases[i].model) gguf_set_val_str(gguf.gguf, "general.name", cases[i].model);
        if (cases[i].architecture) gguf_set_val_str(gguf.gguf, "general.architecture", cases[i].architecture);
        const pd_conversation *conversation;
        assert_int_equal(pd_conversation_choose(&gguf, NULL, &conversation, NULL), PD_OK);
        assert_string_equal(pd_conversation_name(conversation), cases[i].expected);
        assert_int_equal(pd_conversation_choose(&gguf, "llava_v0", &conversation, NULL), PD_OK);
        assert_string_equal(pd_conversation_name(conversation), "llava_v0");
        assert_int_equal(pd_conversation_choose(&gguf, "none such", &conversation, NULL), PD_ERR_ARGUMENT);
        gguf_set_val_u32(gguf.gguf, "tokenizer.chat_template", 1);
        assert_int_equal(pd_conversation_choose(&gguf, NULL, &conversation, NULL), PD_ERR_FORMAT);
        gguf_free(gguf.gguf);
    }
    const pd_conversation *conversation;
    assert_int_equal(pd_conversation_choose(NULL, NULL, &conversation, NULL), PD_OK);
    assert_string_equal(pd_conversation_name(conversation), "vicuna_v1");
}

// ---- a real vocabulary ------------------------------------------------------------------------------------

// What llama.cpp makes of a page of text with SmolLM2's vocabulary (golden/real/make_real.py). The model is
// not part of this repository: PD_TEST_SMOLLM2 says where it is.
static void test_smollm2(void **state) {
    (void)state;
    const char *path = getenv("PD_TEST_SMOLLM2");
    if (!path) skip();
    pd_tokenizer *tokenizer = open_vocabulary(path);
    yyjson_doc *golden = read_golden("real/smollm2.json");
    yyjson_val *root = yyjson_doc_get_root(golden);
    yyjson_val *pages = yyjson_obj_get(root, "pages");
    yyjson_val *prompts = yyjson_obj_get(root, "prompts");
    assert_true(yyjson_arr_size(pages) > 0 && yyjson_arr_size(prompts) == 5);
    for (int list = 0; list < 2; list++) {
        size_t i;
        size_t max;
        yyjson_val *value;
        yyjson_arr_foreach(list == 0 ? pages : prompts, i, max, value) {
            yyjson_val *text = yyjson_obj_get(value, list == 0 ? "text" : "prompt");
            int32_t *tokens;
            size_t n;
            encode(tokenizer, yyjson_get_str(text), yyjson_get_len(text), true, &tokens, &n);
            expect_ids("smollm2", i, yyjson_obj_get(value, list == 0 ? "ids" : "prompt_ids"), tokens, n);
            free(tokens);
        }
    }
    yyjson_val *ends = yyjson_obj_get(root, "end_of_generation");
    size_t found = 0;
    for (int32_t id = 0; id < pd_tokenizer_n_vocab(tokenizer); id++) {
        if (!pd_tokenizer_is_end_of_generation(tokenizer, id)) continue;
        assert_int_equal(yyjson_get_int(yyjson_arr_get(ends, found)), id);
        found++;
    }
    assert_int_equal(found, yyjson_arr_size(ends));
    yyjson_doc_free(golden);
    pd_tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_decode_bytes),
        cmocka_unit_test(test_decode_spm),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_properties),
        cmocka_unit_test(test_detokenizer_whole_characters),
        cmocka_unit_test(test_detokenizer_broken_characters),
        cmocka_unit_test(test_detokenizer_space),
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_metadata_sound),
        cmocka_unit_test(test_metadata_spm_broken),
        cmocka_unit_test(test_metadata_bpe_broken),
        cmocka_unit_test(test_conversations),
        cmocka_unit_test(test_conversation_errors),
        cmocka_unit_test(test_conversation_choice),
        cmocka_unit_test(test_smollm2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
