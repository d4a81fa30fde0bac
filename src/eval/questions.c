#include "eval/questions.h"

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

enum { BLOCK_BYTES = 1 << 16 };

typedef struct pd_text_block {
    struct pd_text_block *next;
    size_t used, size;
    char text[];
} pd_text_block;

typedef struct {
    const char *name; // of the file
    int64_t record;   // counted from 1
    pd_questions *questions;
    pd_error *err;
} reading;

// ---- memory -----------------------------------------------------------------------------------------------

// A copy of `size` bytes with a NUL behind them; NULL where memory is short.
static char *copy_text(pd_questions *q, const char *text, size_t size) {
    pd_text_block *block = q->blocks;
    if (!block || block->size - block->used <= size) {
        const size_t room = size + 1 > BLOCK_BYTES ? size + 1 : BLOCK_BYTES;
        block = malloc(sizeof *block + room);
        if (!block) return NULL;
        *block = (pd_text_block){.next = q->blocks, .size = room};
        q->blocks = block;
    }
    char *copy = block->text + block->used;
    memcpy(copy, text, size);
    copy[size] = '\0';
    block->used += size + 1;
    return copy;
}

static pd_status add_question(const reading *r, const pd_eval_question *question) {
    pd_questions *q = r->questions;
    if (q->n == q->capacity) {
        const size_t capacity = 2 * q->capacity + 64;
        pd_eval_question *items = realloc(q->items, capacity * sizeof *items);
        if (!items) return pd_fail_memory(r->err, capacity * sizeof *items, "questions");
        q->items = items;
        q->capacity = capacity;
    }
    q->items[q->n++] = *question;
    return PD_OK;
}

void pd_questions_free(pd_questions *q) {
    for (pd_text_block *block = q->blocks; block;) {
        pd_text_block *next = block->next;
        free(block);
        block = next;
    }
    free(q->items);
    *q = (pd_questions){0};
}

// ---- fields -----------------------------------------------------------------------------------------------

// The field under either of its names.
static yyjson_val *find(yyjson_val *record, const char *name, const char *other, const char **found) {
    yyjson_val *value = yyjson_obj_get(record, name);
    *found = value ? name : other;
    return value ? value : yyjson_obj_get(record, other);
}

static pd_status read_text(const reading *r, yyjson_val *value, const char *field, const char **text) {
    if (!yyjson_is_str(value))
        return pd_fail(r->err, PD_ERR_FORMAT, "%s: record %lld: %s: expected a string, found %s", r->name,
                       (long long)r->record, field, value ? yyjson_get_type_desc(value) : "nothing");
    if (memchr(yyjson_get_str(value), '\0', yyjson_get_len(value)))
        return pd_fail(r->err, PD_ERR_FORMAT,
                       "%s: record %lld: %s: expected text, found the character U+0000", r->name,
                       (long long)r->record, field);
    *text = copy_text(r->questions, yyjson_get_str(value), yyjson_get_len(value));
    return *text ? PD_OK : pd_fail_memory(r->err, yyjson_get_len(value), "questions");
}

// The same of a field that may be missing or null; then *text stays.
static pd_status read_optional(const reading *r, yyjson_val *record, const char *name, const char *other,
                               const char **text) {
    const char *field;
    yyjson_val *value = find(record, name, other, &field);
    return value && !yyjson_is_null(value) ? read_text(r, value, field, text) : PD_OK;
}

// A string or a whole number; the record's own number where there is none.
static pd_status read_id(const reading *r, yyjson_val *record, pd_eval_question *question) {
    const char *field;
    char digits[32];
    yyjson_val *value = find(record, "question_id", "id", &field);
    if (yyjson_is_str(value)) return read_text(r, value, field, &question->id);
    if (value && !yyjson_is_null(value) && !yyjson_is_int(value))
        return pd_fail(r->err, PD_ERR_FORMAT,
                       "%s: record %lld: %s: expected a string or a whole number, found %s", r->name,
                       (long long)r->record, field, yyjson_get_type_desc(value));
    if (yyjson_is_uint(value)) {
        snprintf(digits, sizeof digits, "%llu", (unsigned long long)yyjson_get_uint(value));
    } else {
        snprintf(digits, sizeof digits, "%lld",
                 (long long)(yyjson_is_int(value) ? yyjson_get_sint(value) : r->record));
    }
    question->id_is_number = true;
    question->id = copy_text(r->questions, digits, strlen(digits));
    return question->id ? PD_OK : pd_fail_memory(r->err, sizeof digits, "questions");
}

// ---- records ----------------------------------------------------------------------------------------------

// Takes the placeholders of pictures out, each with the line end behind or before it.
static void remove_placeholders(char *text) {
    static const char placeholder[] = "<image>";
    for (char *at; (at = strstr(text, placeholder));) {
        char *behind = at + sizeof placeholder - 1;
        if (*behind == '\n') {
            behind++;
        } else if (at > text && at[-1] == '\n' && *behind == '\0') {
            at--;
        }
        memmove(at, behind, strlen(behind) + 1);
    }
}

static bool is_from(yyjson_val *turn, const char *name, const char *other) {
    yyjson_val *from = yyjson_obj_get(turn, "from");
    return yyjson_equals_str(from, name) || yyjson_equals_str(from, other);
}

// Every turn of the user, with the assistant's behind it as the expected answer.
static pd_status read_conversation(const reading *r, yyjson_val *turns, const pd_eval_question *common) {
    if (!yyjson_is_arr(turns))
        return pd_fail(r->err, PD_ERR_FORMAT, "%s: record %lld: conversations: expected a list, found %s",
                       r->name, (long long)r->record, yyjson_get_type_desc(turns));
    const size_t n_turns = yyjson_arr_size(turns);
    int n = 0;
    for (size_t i = 0; i < n_turns; i++) {
        yyjson_val *turn = yyjson_arr_get(turns, i), *next = yyjson_arr_get(turns, i + 1);
        if (!is_from(turn, "human", "user")) continue;
        pd_eval_question question = *common;
        const char *text = NULL;
        PD_TRY(read_text(r, yyjson_obj_get(turn, "value"), "conversations: value", &text));
        remove_placeholders((char *)text); // a copy of ours
        question.text = text;
        if (is_from(next, "gpt", "assistant"))
            PD_TRY(read_text(r, yyjson_obj_get(next, "value"), "conversations: value", &question.answer));
        if (++n > 1) {
            char id[160];
            snprintf(id, sizeof id, "%.120s/%d", common->id, n);
            question.id_is_number = false;
            question.id = copy_text(r->questions, id, strlen(id));
            if (!question.id) return pd_fail_memory(r->err, sizeof id, "questions");
        }
        PD_TRY(add_question(r, &question));
    }
    if (n > 0) return PD_OK;
    return pd_fail(r->err, PD_ERR_FORMAT,
                   "%s: record %lld: conversations: expected a turn of the user's, found none", r->name,
                   (long long)r->record);
}

static pd_status read_record(const reading *r, yyjson_val *record) {
    if (!yyjson_is_obj(record))
        return pd_fail(r->err, PD_ERR_FORMAT, "%s: record %lld: expected an object, found %s", r->name,
                       (long long)r->record, yyjson_get_type_desc(record));
    pd_eval_question question = {.task = ""};
    const char *field;
    PD_TRY(read_id(r, record, &question));
    PD_TRY(read_optional(r, record, "image", "image", &question.image));
    if (question.image && question.image[0] == '\0')
        return pd_fail(r->err, PD_ERR_FORMAT, "%s: record %lld: image: expected a file's name, found \"\"",
                       r->name, (long long)r->record);
    PD_TRY(read_optional(r, record, "task", "category", &question.task));
    yyjson_val *held_out = yyjson_obj_get(record, "held_out");
    if (held_out && !yyjson_is_bool(held_out))
        return pd_fail(r->err, PD_ERR_FORMAT, "%s: record %lld: held_out: expected true or false, found %s",
                       r->name, (long long)r->record, yyjson_get_type_desc(held_out));
    question.held_out = yyjson_get_bool(held_out);
    yyjson_val *turns = yyjson_obj_get(record, "conversations");
    if (turns) return read_conversation(r, turns, &question);
    yyjson_val *text = find(record, "question", "text", &field);
    PD_TRY(read_text(r, text, field, &question.text));
    PD_TRY(read_optional(r, record, "answer", "label", &question.answer));
    return add_question(r, &question);
}

// ---- the file ---------------------------------------------------------------------------------------------

// `first_line` is that of bytes[0].
static pd_status fail_json(const reading *r, const char *bytes, size_t size, int64_t first_line,
                           const yyjson_read_err *why) {
    if (why->code == YYJSON_READ_ERROR_MEMORY_ALLOCATION) return pd_fail_memory(r->err, size, r->name);
    int64_t line = first_line;
    size_t start = 0;
    for (size_t i = 0; i < why->pos && i < size; i++) {
        if (bytes[i] != '\n') continue;
        line++;
        start = i + 1;
    }
    return pd_fail(r->err, PD_ERR_FORMAT, "%s: line %lld, column %zu: broken JSON: %s", r->name,
                   (long long)line, why->pos - start + 1, why->msg);
}

// yyjson promises not to write to the text without YYJSON_READ_INSITU.
static yyjson_doc *read_json(const char *bytes, size_t size, yyjson_read_err *why) {
    return yyjson_read_opts((char *)bytes, size, YYJSON_READ_NOFLAG, NULL, why);
}

static pd_status read_list(reading *r, const char *bytes, size_t size) {
    yyjson_read_err why;
    yyjson_doc *doc = read_json(bytes, size, &why);
    if (!doc) return fail_json(r, bytes, size, 1, &why);
    pd_status status = PD_OK;
    yyjson_arr_iter records = yyjson_arr_iter_with(yyjson_doc_get_root(doc));
    for (yyjson_val *record; status == PD_OK && (record = yyjson_arr_iter_next(&records));) {
        r->record++;
        status = read_record(r, record);
    }
    yyjson_doc_free(doc);
    return status;
}

static bool is_blank(char byte) {
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

static pd_status read_lines(reading *r, const char *bytes, size_t size) {
    int64_t line = 0;
    for (size_t at = 0; at < size;) {
        const char *end = memchr(bytes + at, '\n', size - at);
        const size_t length = end ? (size_t)(end - bytes) - at : size - at;
        size_t blanks = 0;
        while (blanks < length && is_blank(bytes[at + blanks]))
            blanks++;
        line++;
        if (blanks < length) {
            yyjson_read_err why;
            yyjson_doc *doc = read_json(bytes + at, length, &why);
            if (!doc) return fail_json(r, bytes + at, length, line, &why);
            r->record++;
            const pd_status status = read_record(r, yyjson_doc_get_root(doc));
            yyjson_doc_free(doc);
            PD_TRY(status);
        }
        at += length + 1;
    }
    return PD_OK;
}

pd_status pd_questions_parse(const char *bytes, size_t size, const char *name, pd_questions *questions,
                             pd_error *err) {
    *questions = (pd_questions){0};
    reading r = {.name = name, .questions = questions, .err = err};
    size_t first = 0;
    while (first < size && is_blank(bytes[first]))
        first++;
    pd_status status = PD_OK;
    if (first < size) {
        status = bytes[first] == '[' ? read_list(&r, bytes, size) : read_lines(&r, bytes, size);
    }
    if (status == PD_OK && questions->n == 0)
        status = pd_fail(err, PD_ERR_FORMAT, "%s: expected questions, found none", name);
    if (status != PD_OK) pd_questions_free(questions);
    return status;
}

pd_status pd_questions_read(const char *path, pd_questions *questions, pd_error *err) {
    *questions = (pd_questions){0};
    pd_mapped_file file;
    PD_TRY(pd_mapped_file_open(path, &file, err));
    const pd_status status = pd_questions_parse((const char *)file.data, file.size, path, questions, err);
    pd_mapped_file_close(&file);
    return status;
}
