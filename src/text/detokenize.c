#include "base/utf8.h"
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

void pd_detokenizer_start(pd_detokenizer *detokenizer, const pd_tokenizer *tokenizer) {
    *detokenizer = (pd_detokenizer){.tokenizer = tokenizer, .at_start = true};
}

void pd_detokenizer_free(pd_detokenizer *detokenizer) {
    free(detokenizer->text);
    *detokenizer = (pd_detokenizer){0};
}

// Empties the text and makes room for `size` bytes and a NUL.
static pd_status reserve(pd_detokenizer *detokenizer, size_t size, pd_error *err) {
    if (size + 1 > detokenizer->capacity) {
        char *text = realloc(detokenizer->text, size + 1);
        if (!text) return pd_fail_memory(err, size + 1, "the text of a token");
        detokenizer->text = text;
        detokenizer->capacity = size + 1;
    }
    detokenizer->size = 0;
    return PD_OK;
}

static void emit(pd_detokenizer *detokenizer, const void *bytes, size_t size) {
    memcpy(detokenizer->text + detokenizer->size, bytes, size);
    detokenizer->size += size;
}

static void emit_replacement(pd_detokenizer *detokenizer) {
    emit(detokenizer, "\xEF\xBF\xBD", 3);
}

static void add_byte(pd_detokenizer *detokenizer, uint8_t byte) {
    uint8_t *waiting = detokenizer->waiting;
    waiting[detokenizer->n_waiting++] = byte;
    size_t length = 0;
    size_t good = pd_utf8_look(waiting, detokenizer->n_waiting, &length);
    if (good > 0 && good < detokenizer->n_waiting) { // this byte does not continue what waits: it starts anew
        emit_replacement(detokenizer);
        waiting[0] = byte;
        detokenizer->n_waiting = 1;
        good = pd_utf8_look(waiting, 1, &length);
    }
    if (good < length) return;
    if (length == 0) {
        emit_replacement(detokenizer);
    } else {
        emit(detokenizer, waiting, length);
    }
    detokenizer->n_waiting = 0;
}

// What SentencePiece put before the text: it never comes from a byte token.
static bool starts_with_added_space(const pd_detokenizer *detokenizer, int32_t token, const char *bytes,
                                    size_t size) {
    if (!detokenizer->at_start || !pd_tokenizer_add_space_prefix(detokenizer->tokenizer)) return false;
    return size > 0 && bytes[0] == ' ' && token != pd_tokenizer_find(detokenizer->tokenizer, "<0x20>");
}

pd_status pd_detokenizer_add(pd_detokenizer *detokenizer, int32_t token, const char **text, size_t *size,
                             pd_error *err) {
    *text = "";
    *size = 0;
    const char *bytes = NULL;
    size_t n = 0;
    pd_status status = pd_tokenizer_piece(detokenizer->tokenizer, token, false, &bytes, &n, err);
    // A byte becomes three at most, and what waited may become three more.
    if (status == PD_OK) status = reserve(detokenizer, 3 * n + 3, err);
    if (status != PD_OK) return status;
    const size_t first = starts_with_added_space(detokenizer, token, bytes, n) ? 1 : 0;
    if (n > 0) detokenizer->at_start = false;
    for (size_t i = first; i < n; i++) {
        add_byte(detokenizer, (uint8_t)bytes[i]);
    }
    detokenizer->text[detokenizer->size] = '\0';
    *text = detokenizer->text;
    *size = detokenizer->size;
    return PD_OK;
}

pd_status pd_detokenizer_finish(pd_detokenizer *detokenizer, const char **text, size_t *size, pd_error *err) {
    *text = "";
    *size = 0;
    const pd_status status = reserve(detokenizer, 3, err);
    if (status != PD_OK) return status;
    if (detokenizer->n_waiting > 0) emit_replacement(detokenizer);
    detokenizer->text[detokenizer->size] = '\0';
    detokenizer->n_waiting = 0;
    detokenizer->at_start = true;
    *text = detokenizer->text;
    *size = detokenizer->size;
    return PD_OK;
}
