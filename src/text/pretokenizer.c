#define PCRE2_CODE_UNIT_WIDTH 8

#include "text/pretokenizer.h"

#include "base/utf8.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The expressions are those of the models' tokenizer.json. Unicode's White_Space is spelt out, since PCRE2's
// \s has U+180E besides; S is its inside for a class.
#define S "\\x{09}-\\x{0D}\\x{85}\\p{Z}"

#define GPT2                                                                                                 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" S "\\p{L}\\p{N}]+|[" S "]+(?![^" S "])|[" S "]+"

// LLaMA-3 takes numbers by up to three digits, Qwen2 by one.
#define LLAMA3(number)                                                                                       \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" number "| ?[^" S                           \
    "\\p{L}\\p{N}]+[\\r\\n]*|"                                                                               \
    "[" S "]*[\\r\\n]+|[" S "]+(?![^" S "])|[" S "]+"

#define MAX_PASSES 4

// Every pass cuts each word of the former pass further: what matches is a word, and what lies between.
typedef struct {
    const char *passes[MAX_PASSES];
} expressions;

static const expressions gpt2 = {{GPT2}};
static const expressions smollm = {{"\\p{N}", GPT2}};
static const expressions qwen2 = {{LLAMA3("\\p{N}")}};
static const expressions llama3 = {{LLAMA3("\\p{N}{1,3}")}};
static const expressions fallback = {{"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}};

static const struct {
    const char *name;
    const expressions *expressions;
    bool ignore_merges;
    bool add_bos;
} known[] = {
    {"default", &fallback, false, false},

    {"gpt-2", &gpt2, false, false},
    {"phi-2", &gpt2, false, false},
    {"mpt", &gpt2, false, false},
    {"olmo", &gpt2, false, false},
    {"jais", &gpt2, false, false},
    {"gigachat", &gpt2, false, false},
    {"mellum", &gpt2, false, false},
    {"a.x-4.0", &gpt2, false, false},
    {"exaone4", &gpt2, false, false},
    {"trillion", &gpt2, false, false},
    {"granite-docling", &gpt2, false, false},

    {"smollm", &smollm, false, false},
    {"starcoder", &smollm, false, false},
    {"refact", &smollm, false, false},
    {"command-r", &smollm, false, false},
    {"codeshell", &smollm, false, false},
    {"exaone", &smollm, false, false},
    {"minerva-7b", &smollm, false, false},
    {"mellum2", &smollm, false, false},

    {"qwen2", &qwen2, false, false},
    {"deepseek-r1-qwen", &qwen2, false, false},
    {"kormo", &qwen2, false, false},
    {"stablelm2", &qwen2, false, false},
    {"megrez", &qwen2, false, false},
    {"hunyuan", &qwen2, false, false},
    {"solar-open", &qwen2, false, false},

    {"llama-bpe", &llama3, true, true},
    {"llama3", &llama3, true, true},
    {"llama-v3", &llama3, true, true},
    {"falcon3", &llama3, true, true},
    {"falcon-h1", &llama3, true, true},
    {"pixtral", &llama3, true, true},
    {"midm-2.0", &llama3, true, true},
    {"lfm2", &llama3, true, true},
    {"dbrx", &llama3, false, false},
    {"smaug-bpe", &llama3, false, false},
};
#define N_KNOWN (sizeof known / sizeof *known)

struct pd_pretokenizer {
    pcre2_code *passes[MAX_PASSES];
    size_t n_passes;
    pcre2_match_context *limits;
    bool ignore_merges;
    bool add_bos;
};

static pd_status unknown_name(const char *name, const char *path, pd_error *err) {
    char names[400];
    size_t n = 0;
    for (size_t i = 0; i < N_KNOWN; i++) {
        const int written = snprintf(names + n, sizeof names - n, "%s%s", i == 0 ? "" : ", ", known[i].name);
        if (written < 0 || (size_t)written >= sizeof names - n) break;
        n += (size_t)written;
    }
    names[n] = '\0';
    return pd_fail(err, PD_ERR_UNSUPPORTED, "%s: tokenizer.ggml.pre is \"%.40s\"; known are %s", path, name,
                   names);
}

static pd_status compile(pd_pretokenizer *pretokenizer, const char *expression, pd_error *err) {
    int code = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code *pass = pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                                     &code, &offset, NULL);
    if (!pass) {
        return pd_fail(
            err, PD_ERR_UNSUPPORTED,
            "PCRE2 refuses a pre-tokenizer's expression (error %d at %zu): it needs Unicode support", code,
            offset);
    }
    (void)pcre2_jit_compile(pass, PCRE2_JIT_COMPLETE); // where there is no JIT, the interpreter does the same
    pretokenizer->passes[pretokenizer->n_passes++] = pass;
    return PD_OK;
}

pd_status pd_pretokenizer_create(const char *name, const char *path, pd_pretokenizer **out, pd_error *err) {
    *out = NULL;
    size_t index = 0;
    while (index < N_KNOWN && strcmp(known[index].name, name) != 0) {
        index++;
    }
    if (index == N_KNOWN) return unknown_name(name, path, err);
    pd_pretokenizer *pretokenizer = calloc(1, sizeof *pretokenizer);
    if (!pretokenizer) return pd_fail_memory(err, sizeof *pretokenizer, "a pre-tokenizer");
    pretokenizer->ignore_merges = known[index].ignore_merges;
    pretokenizer->add_bos = known[index].add_bos;
    pretokenizer->limits = pcre2_match_context_create(NULL);
    pd_status status = pretokenizer->limits ? PD_OK : pd_fail_memory(err, 0, "a pre-tokenizer");
    for (size_t i = 0; i < MAX_PASSES && known[index].expressions->passes[i] && status == PD_OK; i++) {
        status = compile(pretokenizer, known[index].expressions->passes[i], err);
    }
    if (status != PD_OK) {
        pd_pretokenizer_free(pretokenizer);
        return status;
    }
    // These expressions take time in proportion to the text, however long: no limit has to guard them.
    pcre2_set_match_limit(pretokenizer->limits, UINT32_MAX);
    *out = pretokenizer;
    return PD_OK;
}

void pd_pretokenizer_free(pd_pretokenizer *pretokenizer) {
    if (!pretokenizer) return;
    for (size_t i = 0; i < pretokenizer->n_passes; i++) {
        pcre2_code_free(pretokenizer->passes[i]);
    }
    pcre2_match_context_free(pretokenizer->limits);
    free(pretokenizer);
}

bool pd_pretokenizer_ignore_merges(const pd_pretokenizer *pretokenizer) {
    return pretokenizer->ignore_merges;
}

bool pd_pretokenizer_add_bos(const pd_pretokenizer *pretokenizer) {
    return pretokenizer->add_bos;
}

static pd_status append_end(pd_word_list *words, size_t end, pd_error *err) {
    if (words->n == words->capacity) {
        const size_t capacity = words->capacity + words->capacity / 2 + 64;
        size_t *ends = realloc(words->ends, capacity * sizeof *ends);
        if (!ends) return pd_fail_memory(err, capacity * sizeof *ends, "the words of a text");
        words->ends = ends;
        words->capacity = capacity;
    }
    words->ends[words->n++] = end;
    return PD_OK;
}

// Appends the words of text[start..end), which the expression sees as if nothing stood around it.
static pd_status split_word(const pd_pretokenizer *pretokenizer, const pcre2_code *pass, const char *text,
                            size_t start, size_t end, pcre2_match_data *match, pd_word_list *words,
                            pd_error *err) {
    const PCRE2_SPTR subject = (PCRE2_SPTR)text + start;
    const size_t size = end - start;
    size_t position = 0;
    pd_status status = PD_OK;
    while (position < size && status == PD_OK) {
        const int found =
            pcre2_match(pass, subject, size, position, PCRE2_NO_UTF_CHECK, match, pretokenizer->limits);
        if (found == PCRE2_ERROR_NOMATCH) return append_end(words, end, err);
        if (found < 0)
            return pd_fail(err, PD_ERR_MEMORY, "PCRE2 cannot match a text of %zu bytes (error %d)", size,
                           found);
        const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(match);
        if (bounds[0] > position) status = append_end(words, start + bounds[0], err);
        if (status == PD_OK) status = append_end(words, start + bounds[1], err);
        position = bounds[1];
    }
    return status;
}

// A copy of the text in which every byte outside well-formed characters is U+0001: to all the expressions
// that is what U+FFFD is to them, and offsets stay the same.
static char *scrub(const char *text, size_t size) {
    char *clean = malloc(size ? size : 1);
    if (!clean) return NULL;
    memcpy(clean, text, size);
    for (size_t i = 0; i < size;) {
        size_t length = 0;
        const size_t good = pd_utf8_look((const uint8_t *)text + i, size - i, &length);
        if (good == length && length > 0) {
            i += length;
        } else {
            clean[i++] = 1;
        }
    }
    return clean;
}

pd_status pd_pretokenizer_split(const pd_pretokenizer *pretokenizer, const char *text, size_t size,
                                pd_word_list *words, pd_error *err) {
    words->n = 0;
    if (size == 0) return PD_OK;
    char *clean = scrub(text, size);
    if (!clean) return pd_fail_memory(err, size, "a text to tokenize");
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    pd_word_list former = {0};
    pd_status status = match ? append_end(words, size, err) : pd_fail_memory(err, 0, "a match");
    for (size_t pass = 0; pass < pretokenizer->n_passes && status == PD_OK; pass++) {
        const pd_word_list swap = former;
        former = *words;
        *words = swap;
        words->n = 0;
        size_t start = 0;
        for (size_t i = 0; i < former.n && status == PD_OK; i++) {
            status = split_word(pretokenizer, pretokenizer->passes[pass], clean, start, former.ends[i], match,
                                words, err);
            start = former.ends[i];
        }
    }
    free(former.ends);
    pcre2_match_data_free(match);
    free(clean);
    return status;
}
