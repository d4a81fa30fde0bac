// What the fuzz targets that make GGUF pairs share: the pair as files without a disk, and a short run of it.
#pragma once

#include "check.h"

#include "engine/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// A file in memory and its name among this process's descriptors.
typedef struct {
    FILE *stream;
    char path[64];
} memory_file;

static inline memory_file memory_file_open(const char *name) {
    const int descriptor = memfd_create(name, MFD_CLOEXEC);
    CHECK(descriptor >= 0);
    memory_file file = {.stream = fdopen(descriptor, "wb")};
    CHECK(file.stream);
    snprintf(file.path, sizeof file.path, "/proc/self/fd/%d", descriptor);
    return file;
}

// Every failure is a known status with one line about it.
static inline void check_failure(pd_status status, const pd_error *err) {
    CHECK(status >= PD_ERR_ARGUMENT && status <= PD_ERR_CONTEXT);
    CHECK(err->status == status);
    const size_t length = strlen(err->message);
    CHECK(length > 0 && length < sizeof err->message);
    for (size_t i = 0; i < length; i++)
        CHECK((unsigned char)err->message[i] >= ' ' && err->message[i] != 0x7f);
}

// Whether a picture can be run in a moment.
static inline bool is_tiny(const pd_model *model) {
    const pd_vision_hyperparameters *h = &model->weights.vision.h;
    return h->image_size <= 128 && pd_vision_n_patches(h) <= 1024 && h->n_pinpoints <= 4;
}

// Prefill over a word, with a picture where the model can see, and two tokens of an answer.
static inline void run_session(pd_model *model, const pd_session_params *params) {
    static const uint8_t rgb[5 * 3 * 3] = {255, 0, 7, 0, 200};
    pd_error err = {0};
    pd_session *session;
    pd_status status = pd_session_create(model, params, &session, &err);
    if (status != PD_OK) {
        CHECK(!session);
        check_failure(status, &err);
        return;
    }
    pd_image *image = NULL;
    const bool sees = pd_model_has_vision(model) && is_tiny(model);
    if (sees) CHECK(pd_image_from_rgb(rgb, 5, 3, &image, &err) == PD_OK);
    const pd_message question = {PD_ROLE_USER, "a b", &image, sees ? 1 : 0};
    status = pd_session_prompt(session, &question, 1, &err);
    for (int i = 0; i < 2 && status == PD_OK; i++) {
        const char *piece;
        status = pd_session_next(session, &piece, &err);
    }
    if (status != PD_OK && status != PD_DONE) check_failure(status, &err);
    pd_image_free(image);
    pd_session_free(session);
}

// Loads the pair (mmproj_path may be NULL) and, where it loads, runs it.
static inline void run_pair(const char *model_path, const char *mmproj_path, pd_compute_type compute,
                            const pd_session_params *params) {
    pd_error err = {0};
    pd_model_params mp;
    pd_model_params_default(&mp, sizeof mp);
    mp.model_path = model_path;
    mp.mmproj_path = mmproj_path;
    mp.compute = compute;
    pd_model *model;
    const pd_status status = pd_model_load(&mp, &model, &err);
    if (status != PD_OK) {
        CHECK(!model);
        check_failure(status, &err);
        return;
    }
    run_session(model, params);
    pd_model_free(model);
}
