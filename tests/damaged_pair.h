// What the tests of damaged model files share: a directory for them, and a pair loaded and run as a user
// would.
#pragma once

#include <gguf.h>
#include <math.h>
#include <pyramiddrop.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h> // wants the above

#include "checks.h" // wants cmocka

static char directory[256];                   // for damaged files
static char text_path[300], mmproj_path[300]; // in it
static char good_text[512], good_mmproj[512]; // golden files

// ---- files ------------------------------------------------------------------------------------------------

typedef struct {
    uint8_t *bytes; // owned
    size_t size;
} blob;

static inline blob read_blob(const char *path) {
    blob b = {0};
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    b.size = (size_t)ftell(file);
    rewind(file);
    b.bytes = malloc(b.size + 1);
    assert_non_null(b.bytes);
    assert_int_equal(fread(b.bytes, 1, b.size, file), b.size);
    fclose(file);
    return b;
}

static inline void write_blob(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    if (size > 0) assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

// Where `text` stands in a file's header as a length and its bytes; the offset behind it.
static inline size_t behind(const blob *b, const char *text) {
    const uint64_t length = strlen(text);
    for (size_t at = 0; at + sizeof length + length <= b->size; at++) {
        if (memcmp(b->bytes + at, &length, sizeof length) == 0 &&
            memcmp(b->bytes + at + sizeof length, text, length) == 0) {
            return at + sizeof length + length;
        }
    }
    fail_msg("%s is not in the file", text);
    return 0;
}

static inline int set_up(void **state) {
    (void)state;
    if (!make_test_folder(directory, sizeof directory, "bad_gguf")) return -1;
    snprintf(text_path, sizeof text_path, "%s/text.gguf", directory);
    snprintf(mmproj_path, sizeof mmproj_path, "%s/mmproj.gguf", directory);
    snprintf(good_text, sizeof good_text, "%s/parity/mha.gguf", PD_TEST_DATA);
    snprintf(good_mmproj, sizeof good_mmproj, "%s/parity/mha-mmproj.gguf", PD_TEST_DATA);
    return 0;
}

static inline int tear_down(void **state) {
    (void)state;
    remove(text_path);
    remove(mmproj_path);
    return rmdir(directory);
}

// ---- loading and running ----------------------------------------------------------------------------------

static inline void assert_one_line(const pd_error *err, pd_status status) {
    assert_int_equal(err->status, status);
    assert_true(err->message[0] != '\0');
    for (const char *at = err->message; *at; at++)
        assert_true((unsigned char)*at >= ' ' && *at != 0x7f);
}

// A word and a picture through prefill and two tokens of the answer.
static inline pd_status run_prompt(pd_model *model, pd_error *err) {
    static const uint8_t rgb[5 * 3 * 3] = {255, 0, 7, 0, 200};
    pd_session_params params;
    pd_session_params_default(&params, sizeof params);
    params.n_threads = 1;
    params.n_ctx = 256;
    pd_session *session;
    pd_status status = pd_session_create(model, &params, &session, err);
    if (status != PD_OK) return status;
    pd_image *image;
    assert_int_equal(pd_image_from_rgb(rgb, 5, 3, &image, NULL), PD_OK);
    const pd_message question = {PD_ROLE_USER, "the cat", &image, pd_model_has_vision(model) ? 1 : 0};
    status = pd_session_prompt(session, &question, 1, err);
    for (int i = 0; i < 2 && status == PD_OK; i++) {
        const char *piece;
        status = pd_session_next(session, &piece, err);
    }
    pd_image_free(image);
    pd_session_free(session);
    return status == PD_DONE ? PD_OK : status;
}

static inline pd_status load_and_run(const char *text, const char *mmproj, pd_error *err) {
    *err = (pd_error){0};
    pd_model_params params;
    pd_model_params_default(&params, sizeof params);
    params.model_path = text;
    params.mmproj_path = mmproj;
    pd_model *model;
    pd_status status = pd_model_load(&params, &model, err);
    if (status != PD_OK) {
        assert_null(model);
    } else {
        status = run_prompt(model, err);
        pd_model_free(model);
    }
    if (status != PD_OK) assert_one_line(err, status);
    return status;
}

// The pair must be refused with `expected`, in a line that names `path` and contains `part`.
static inline void assert_refused(const char *text, const char *mmproj, pd_status expected, const char *path,
                                  const char *part) {
    pd_error err;
    const pd_status status = load_and_run(text, mmproj, &err);
    if (status != expected || !strstr(err.message, path) || !strstr(err.message, part)) {
        print_error("expected %s with \"%s\", found %s: %s\n", pd_status_name(expected), part,
                    pd_status_name(status), err.message);
    }
    assert_int_equal(status, expected);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, part));
}
