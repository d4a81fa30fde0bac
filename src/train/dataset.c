#include "train/dataset.h"

#include "train/python_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

struct pd_dataset {
    char *path;
    pd_mapped_file file;
    uint64_t *starts; // [n] where a record starts in the file
    uint32_t *sizes;  // [n] its bytes
    int32_t *lengths; // [n]
    int32_t n;
    int32_t capacity;
};

const char *pd_dataset_path(const pd_dataset *dataset) {
    return dataset->path;
}

int32_t pd_dataset_size(const pd_dataset *dataset) {
    return dataset->n;
}

int32_t pd_dataset_length(const pd_dataset *dataset, int32_t index) {
    return dataset->lengths[index];
}

const int32_t *pd_dataset_lengths(const pd_dataset *dataset) {
    return dataset->lengths;
}

// ---- one record -------------------------------------------------------------------------------------------

// What a check says about.
typedef struct {
    const char *path;
    const char *name; // of the record
    pd_error *err;
} place;

static void name_record(yyjson_val *record, int64_t index, char *name, size_t size) {
    yyjson_val *id = yyjson_is_obj(record) ? yyjson_obj_get(record, "id") : NULL;
    if (yyjson_is_str(id)) {
        snprintf(name, size, "record %lld (id \"%.60s\")", (long long)index, yyjson_get_str(id));
    } else if (yyjson_is_int(id)) {
        snprintf(name, size, "record %lld (id %lld)", (long long)index, (long long)yyjson_get_sint(id));
    } else {
        snprintf(name, size, "record %lld", (long long)index);
    }
}

// A string without U+0000, which would end it early.
static pd_status check_text(const place *at, yyjson_val *value, const char *field) {
    if (!yyjson_is_str(value)) {
        return pd_fail(at->err, PD_ERR_FORMAT, "%s: %s: %s: expected a string, found %s", at->path, at->name,
                       field, value ? yyjson_get_type_desc(value) : "nothing");
    }
    if (memchr(yyjson_get_str(value), '\0', yyjson_get_len(value))) {
        return pd_fail(at->err, PD_ERR_FORMAT, "%s: %s: %s: expected text, found the character U+0000",
                       at->path, at->name, field);
    }
    return PD_OK;
}

static size_t count_images(const char *text) {
    size_t n = 0;
    while ((text = strstr(text, "<image>"))) {
        n++;
        text += strlen("<image>");
    }
    return n;
}

static bool role_of(const char *from, pd_role *role) {
    const bool user = strcmp(from, "human") == 0 || strcmp(from, "user") == 0;
    *role = user ? PD_ROLE_USER : PD_ROLE_ASSISTANT;
    return user || strcmp(from, "gpt") == 0 || strcmp(from, "assistant") == 0;
}

static bool is_list(yyjson_val *image) {
    return yyjson_is_arr(image);
}

// The record's pictures: absent and null are none, a string is one.
static size_t count_pictures(yyjson_val *image) {
    if (!image || yyjson_is_null(image)) return 0;
    return is_list(image) ? yyjson_arr_size(image) : 1;
}

static pd_status check_pictures(const place *at, yyjson_val *image) {
    if (count_pictures(image) > 0 && !is_list(image) && !yyjson_is_str(image)) {
        return pd_fail(at->err, PD_ERR_FORMAT,
                       "%s: %s: image: expected a file's name or a list of names, found %s", at->path,
                       at->name, yyjson_get_type_desc(image));
    }
    for (size_t i = 0; i < count_pictures(image); i++) {
        char field[40] = "image";
        if (is_list(image)) snprintf(field, sizeof field, "image[%zu]", i);
        yyjson_val *name = is_list(image) ? yyjson_arr_get(image, i) : image;
        PD_TRY(check_text(at, name, field));
        if (yyjson_get_len(name) == 0) {
            return pd_fail(at->err, PD_ERR_FORMAT, "%s: %s: %s: expected a file's name, found \"\"", at->path,
                           at->name, field);
        }
    }
    return PD_OK;
}

// Counts of a record that passed.
typedef struct {
    size_t n_turns;
    size_t n_images;
    size_t words;
    size_t placeholders;
    size_t turns_with_placeholders;
} record_counts;

static pd_status check_turn(const place *at, yyjson_val *turn, size_t index, pd_role *previous,
                            record_counts *counts) {
    char field[60];
    snprintf(field, sizeof field, "conversations[%zu]", index);
    if (!yyjson_is_obj(turn)) {
        return pd_fail(at->err, PD_ERR_FORMAT,
                       "%s: %s: %s: expected an object with \"from\" and \"value\", found %s", at->path,
                       at->name, field, yyjson_get_type_desc(turn));
    }
    snprintf(field, sizeof field, "conversations[%zu].from", index);
    yyjson_val *from = yyjson_obj_get(turn, "from");
    PD_TRY(check_text(at, from, field));
    pd_role role = PD_ROLE_USER;
    if (!role_of(yyjson_get_str(from), &role)) {
        return pd_fail(at->err, PD_ERR_FORMAT,
                       "%s: %s: %s: expected \"human\", \"gpt\", \"user\" or \"assistant\", found \"%.40s\"",
                       at->path, at->name, field, yyjson_get_str(from));
    }
    if (index > 0 && role == *previous) {
        return pd_fail(at->err, PD_ERR_FORMAT,
                       "%s: %s: %s: expected user and assistant by turns, found \"%.40s\" twice in a row",
                       at->path, at->name, field, yyjson_get_str(from));
    }
    *previous = role;
    snprintf(field, sizeof field, "conversations[%zu].value", index);
    yyjson_val *value = yyjson_obj_get(turn, "value");
    PD_TRY(check_text(at, value, field));
    const size_t placeholders = count_images(yyjson_get_str(value));
    counts->placeholders += placeholders;
    counts->turns_with_placeholders += placeholders > 0;
    counts->words += pd_python_count_words(yyjson_get_str(value), yyjson_get_len(value));
    return PD_OK;
}

static pd_status check_record(const place *at, yyjson_val *record, record_counts *counts) {
    *counts = (record_counts){0};
    if (!yyjson_is_obj(record)) {
        return pd_fail(at->err, PD_ERR_FORMAT, "%s: %s: expected an object, found %s", at->path, at->name,
                       yyjson_get_type_desc(record));
    }
    yyjson_val *image = yyjson_obj_get(record, "image");
    PD_TRY(check_pictures(at, image));
    counts->n_images = count_pictures(image);
    yyjson_val *turns = yyjson_obj_get(record, "conversations");
    counts->n_turns = yyjson_arr_size(turns);
    if (counts->n_turns == 0) {
        return pd_fail(at->err, PD_ERR_FORMAT, "%s: %s: conversations: expected a list of turns, found %s",
                       at->path, at->name,
                       !turns                 ? "nothing"
                       : yyjson_is_arr(turns) ? "an empty one"
                                              : yyjson_get_type_desc(turns));
    }
    pd_role previous = PD_ROLE_SYSTEM;
    size_t i;
    size_t max;
    yyjson_val *turn;
    yyjson_arr_foreach(turns, i, max, turn) {
        PD_TRY(check_turn(at, turn, i, &previous, counts));
    }
    const size_t placeholders =
        counts->n_images == 1 ? counts->turns_with_placeholders : counts->placeholders;
    if (placeholders != counts->n_images) {
        return pd_fail(
            at->err, PD_ERR_FORMAT,
            "%s: %s: conversations: expected \"<image>\" once for every picture, found it %zu times "
            "for %zu pictures",
            at->path, at->name, placeholders, counts->n_images);
    }
    return PD_OK;
}

// ---- the file ---------------------------------------------------------------------------------------------

static bool is_json_blank(uint8_t byte) {
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static size_t skip_blanks(const pd_mapped_file *file, size_t at) {
    while (at < file->size && is_json_blank(file->data[at]))
        at++;
    return at;
}

// Behind the object or list that starts at `at`: where its brackets are closed, or the end of the file.
static size_t skip_value(const pd_mapped_file *file, size_t at) {
    size_t depth = 0;
    bool quoted = false;
    for (; at < file->size; at++) {
        const uint8_t byte = file->data[at];
        if (quoted) {
            if (byte == '\\') at++;
            if (byte == '"') quoted = false;
        } else if (byte == '"') {
            quoted = true;
        } else if (byte == '{' || byte == '[') {
            depth++;
        } else if (byte == '}' || byte == ']') {
            if (--depth == 0) return at + 1;
        }
    }
    return file->size;
}

// Broken JSON at byte `at`, told as line and column; a column is a character.
static pd_status fail_at(const pd_dataset *dataset, size_t at, const char *what, pd_error *err) {
    size_t line = 1;
    size_t column = 1;
    if (at > dataset->file.size) at = dataset->file.size;
    for (size_t i = 0; i < at; i++) {
        const uint8_t byte = dataset->file.data[i];
        if (byte == '\n') {
            line++;
            column = 1;
        } else if ((byte & 0xc0) != 0x80) {
            column++;
        }
    }
    return pd_fail(err, PD_ERR_FORMAT, "%s: line %zu, column %zu: %s", dataset->path, line, column, what);
}

static pd_status parse(const pd_dataset *dataset, size_t start, size_t size, const yyjson_alc *allocator,
                       yyjson_doc **document, pd_error *err) {
    yyjson_read_err error;
    // Without YYJSON_READ_INSITU the bytes are only read.
    *document = yyjson_read_opts((char *)(uintptr_t)(dataset->file.data + start), size, 0, allocator, &error);
    if (*document) return PD_OK;
    if (error.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION) return pd_fail_memory(err, size, "a JSON record");
    return fail_at(dataset, start + error.pos, error.msg, err);
}

static pd_status append_record(pd_dataset *dataset, size_t start, size_t size, int32_t length,
                               pd_error *err) {
    if (dataset->n == dataset->capacity) {
        if (dataset->n == INT32_MAX)
            return pd_fail(err, PD_ERR_UNSUPPORTED, "%s: more than %d records", dataset->path, INT32_MAX);
        const int32_t capacity =
            dataset->capacity > INT32_MAX / 2 ? INT32_MAX : dataset->capacity * 2 + (dataset->n == 0) * 1024;
        const size_t n = (size_t)capacity;
        uint64_t *starts = realloc(dataset->starts, n * sizeof *starts);
        if (starts) dataset->starts = starts;
        uint32_t *sizes = realloc(dataset->sizes, n * sizeof *sizes);
        if (sizes) dataset->sizes = sizes;
        int32_t *lengths = realloc(dataset->lengths, n * sizeof *lengths);
        if (lengths) dataset->lengths = lengths;
        if (!starts || !sizes || !lengths) return pd_fail_memory(err, n * 16, "a data set's records");
        dataset->capacity = capacity;
    }
    dataset->starts[dataset->n] = start;
    dataset->sizes[dataset->n] = (uint32_t)size;
    dataset->lengths[dataset->n++] = length;
    return PD_OK;
}

// The record that starts at *at, which moves behind it.
static pd_status index_record(pd_dataset *dataset, const yyjson_alc *allocator, size_t *at, pd_error *err) {
    const size_t start = *at;
    if (start >= dataset->file.size || dataset->file.data[start] != '{')
        return fail_at(dataset, start, "expected a record, {…}", err);
    *at = skip_value(&dataset->file, start);
    const size_t size = *at - start;
    if (size > UINT32_MAX)
        return fail_at(dataset, start, "the record is longer than 4 GiB, or not closed", err);
    yyjson_doc *document = NULL;
    PD_TRY(parse(dataset, start, size, allocator, &document, err));
    char name[sizeof((pd_record){0}.name)];
    yyjson_val *root = yyjson_doc_get_root(document);
    name_record(root, dataset->n, name, sizeof name);
    const place where = {dataset->path, name, err};
    record_counts counts;
    const pd_status status = check_record(&where, root, &counts);
    yyjson_doc_free(document);
    if (status != PD_OK) return status;
    if (counts.n_turns > INT32_MAX || counts.n_images > INT32_MAX || counts.words > INT32_MAX) {
        return pd_fail(err, PD_ERR_UNSUPPORTED, "%s: %s: more than %d turns, pictures or words",
                       dataset->path, name, INT32_MAX);
    }
    const int32_t words = (int32_t)counts.words;
    return append_record(dataset, start, size, counts.n_images > 0 ? words : -words, err);
}

static pd_status index_list(pd_dataset *dataset, const yyjson_alc *allocator, size_t at, pd_error *err) {
    const pd_mapped_file *file = &dataset->file;
    at = skip_blanks(file, at + 1);
    while (at >= file->size || file->data[at] != ']' || dataset->n > 0) {
        PD_TRY(index_record(dataset, allocator, &at, err));
        at = skip_blanks(file, at);
        if (at < file->size && file->data[at] == ']') break;
        if (at >= file->size || file->data[at] != ',')
            return fail_at(dataset, at, "expected \",\" or \"]\" behind a record", err);
        at = skip_blanks(file, at + 1);
    }
    at = skip_blanks(file, at + 1);
    if (at < file->size) return fail_at(dataset, at, "expected nothing behind the list of records", err);
    return PD_OK;
}

static pd_status index_lines(pd_dataset *dataset, const yyjson_alc *allocator, size_t at, pd_error *err) {
    while (at < dataset->file.size) {
        PD_TRY(index_record(dataset, allocator, &at, err));
        at = skip_blanks(&dataset->file, at);
    }
    return PD_OK;
}

static pd_status index_file(pd_dataset *dataset, pd_error *err) {
    const pd_mapped_file *file = &dataset->file;
    const size_t start = skip_blanks(file, 0);
    if (start >= file->size) return pd_fail(err, PD_ERR_FORMAT, "%s: the file is empty", dataset->path);
    yyjson_alc *allocator = yyjson_alc_dyn_new();
    if (!allocator) return pd_fail_memory(err, sizeof *allocator, "a JSON reader");
    pd_status status = PD_OK;
    if (file->data[start] == '[') {
        status = index_list(dataset, allocator, start, err);
    } else if (file->data[start] == '{') {
        status = index_lines(dataset, allocator, start, err);
    } else {
        status = fail_at(dataset, start, "expected a list of records, […], or a record a line, {…}", err);
    }
    yyjson_alc_dyn_free(allocator);
    if (status == PD_OK && dataset->n == 0)
        status = pd_fail(err, PD_ERR_FORMAT, "%s: expected at least one record, found none", dataset->path);
    return status;
}

pd_status pd_dataset_open(const char *path, pd_dataset **out, pd_error *err) {
    *out = NULL;
    pd_dataset *dataset = calloc(1, sizeof *dataset);
    if (!dataset) return pd_fail_memory(err, sizeof *dataset, "a data set");
    dataset->path = strdup(path);
    pd_status status =
        dataset->path ? PD_OK : pd_fail_memory(err, strlen(path) + 1, "the name of a data set");
    if (status == PD_OK) status = pd_mapped_file_open(path, &dataset->file, err);
    if (status == PD_OK) status = index_file(dataset, err);
    if (status != PD_OK) {
        pd_dataset_free(dataset);
        return status;
    }
    *out = dataset;
    return PD_OK;
}

void pd_dataset_free(pd_dataset *dataset) {
    if (!dataset) return;
    pd_mapped_file_close(&dataset->file);
    free(dataset->starts);
    free(dataset->sizes);
    free(dataset->lengths);
    free(dataset->path);
    free(dataset);
}

// ---- reading ----------------------------------------------------------------------------------------------

// The record's lists, in one piece of memory; the strings stay with the document.
static pd_status lay_out(yyjson_val *root, const record_counts *counts, pd_record *record, pd_error *err) {
    const size_t n_strings = counts->n_turns + counts->n_images;
    const size_t size = n_strings * sizeof(const char *) + counts->n_turns * sizeof(pd_role);
    const char **strings = malloc(size);
    if (!strings) return pd_fail_memory(err, size, "a record");
    pd_role *roles = (pd_role *)(strings + n_strings);
    size_t i;
    size_t max;
    yyjson_val *turn;
    yyjson_arr_foreach(yyjson_obj_get(root, "conversations"), i, max, turn) {
        role_of(yyjson_get_str(yyjson_obj_get(turn, "from")), &roles[i]);
        strings[i] = yyjson_get_str(yyjson_obj_get(turn, "value"));
    }
    yyjson_val *image = yyjson_obj_get(root, "image");
    for (i = 0; i < counts->n_images; i++)
        strings[counts->n_turns + i] = yyjson_get_str(is_list(image) ? yyjson_arr_get(image, i) : image);
    record->memory = strings;
    record->n_turns = (int32_t)counts->n_turns;
    record->roles = roles;
    record->texts = strings;
    record->n_images = (int32_t)counts->n_images;
    record->images = strings + counts->n_turns;
    return PD_OK;
}

pd_status pd_dataset_read(const pd_dataset *dataset, int32_t index, pd_record *record, pd_error *err) {
    *record = (pd_record){.index = index};
    if (index < 0 || index >= dataset->n) {
        return pd_fail(err, PD_ERR_ARGUMENT, "%s: record %d: expected 0..%d", dataset->path, index,
                       dataset->n - 1);
    }
    yyjson_doc *document = NULL;
    PD_TRY(parse(dataset, dataset->starts[index], dataset->sizes[index], NULL, &document, err));
    record->document = document;
    yyjson_val *root = yyjson_doc_get_root(document);
    name_record(root, index, record->name, sizeof record->name);
    // Again, as the file may have changed since.
    const place where = {dataset->path, record->name, err};
    record_counts counts;
    pd_status status = check_record(&where, root, &counts);
    if (status == PD_OK) status = lay_out(root, &counts, record, err);
    if (status != PD_OK) pd_record_free(record);
    return status;
}

void pd_record_free(pd_record *record) {
    free(record->memory);
    yyjson_doc_free(record->document);
    *record = (pd_record){0};
}
