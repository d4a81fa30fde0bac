#include "train/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Pictures [start, end).
static void free_images(pd_tiles *images, int32_t start, int32_t end) {
    for (int32_t i = start; i < end; i++)
        pd_tiles_free(&images[i]);
}

void pd_train_sample_free(pd_train_sample *sample) {
    free(sample->tokens);
    free(sample->labels);
    free_images(sample->images, 0, sample->n_images);
    free(sample->images);
    *sample = (pd_train_sample){0};
}

// A sample being made.
typedef struct {
    const pd_sample_params *params;
    pd_record record;
    pd_train_sample *sample;
    pd_sample_notes *notes;
    pd_error *err;
} making;

// Puts file and record before the error's line.
static void name_record(const making *m) {
    if (!m->err) return;
    char reason[sizeof m->err->message];
    memcpy(reason, m->err->message, sizeof reason);
    pd_fail(m->err, m->err->status, "%s: %s: %s", pd_dataset_path(m->params->dataset), m->record.name,
            reason);
}

static pd_status load_image(const making *m, const char *name, pd_tiles *tiles) {
    const char *folder = m->params->image_folder;
    const bool joined = folder && *folder && name[0] != '/';
    const size_t size = (joined ? strlen(folder) : 0) + strlen(name) + 2;
    char *path = malloc(size);
    if (!path) return pd_fail_memory(m->err, size, "a picture's name");
    if (joined) {
        snprintf(path, size, "%s%s%s", folder, folder[strlen(folder) - 1] == '/' ? "" : "/", name);
    } else {
        snprintf(path, size, "%s", name);
    }
    pd_image *image = NULL;
    pd_status status = pd_image_load(path, &image, m->err);
    if (status == PD_OK) status = pd_preprocess(image, m->params->preprocess, tiles, m->err);
    pd_image_free(image);
    free(path);
    return status;
}

static pd_status load_images(const making *m) {
    const pd_record *record = &m->record;
    if (record->n_images == 0) return PD_OK;
    if (!m->params->preprocess) {
        m->notes->bad_record = true;
        return pd_fail(m->err, PD_ERR_FORMAT,
                       "image: the model cannot see; expected a record without pictures");
    }
    const size_t n = (size_t)record->n_images;
    m->sample->images = calloc(n, sizeof *m->sample->images);
    if (!m->sample->images)
        return pd_fail_memory(m->err, n * sizeof *m->sample->images, "a record's pictures");
    for (size_t i = 0; i < n; i++) {
        const pd_status status = load_image(m, record->images[i], &m->sample->images[i]);
        if (status != PD_OK) {
            m->notes->bad_record = m->notes->bad_image = status != PD_ERR_MEMORY;
            return status;
        }
        m->sample->n_images++;
    }
    return PD_OK;
}

// Lays image tokens in, cuts off what is too long, and counts.
static void truncate_sample(const making *m) {
    pd_train_sample *sample = m->sample;
    const int32_t most = m->params->labels.model_max_length;
    int32_t kept = 0;
    int32_t n_images = 0;
    for (; kept < sample->n_tokens; kept++) {
        const bool image = sample->tokens[kept] == PD_IMAGE_TOKEN;
        const int32_t rows = image ? sample->images[n_images].layout.n_tokens : 1;
        if (rows > most - sample->n_rows) break;
        sample->n_rows += rows;
        n_images += image;
        sample->n_labels += sample->labels[kept] != PD_IGNORE_INDEX;
    }
    m->notes->truncated = kept < sample->n_tokens;
    free_images(sample->images, n_images, sample->n_images);
    sample->n_images = n_images;
    sample->n_tokens = kept;
}

static pd_status label(const making *m) {
    pd_labelled labelled;
    const pd_status status = pd_label_conversation(&m->params->labels, &m->record, &labelled, m->err);
    if (status != PD_OK) {
        m->notes->bad_record = status == PD_ERR_FORMAT;
        return status;
    }
    m->sample->tokens = labelled.tokens;
    m->sample->labels = labelled.labels;
    m->sample->n_tokens = labelled.n;
    m->notes->mismatch = labelled.mismatch;
    return PD_OK;
}

static pd_status check_labels(const making *m) {
    if (m->sample->n_labels > 0 || m->notes->mismatch) return PD_OK;
    m->notes->bad_record = true;
    if (m->notes->truncated) {
        return pd_fail(m->err, PD_ERR_CONTEXT,
                       "the sample is longer than the context: no answer begins within %d tokens, pictures "
                       "included (--model_max_length)",
                       m->params->labels.model_max_length);
    }
    return pd_fail(m->err, PD_ERR_FORMAT, "conversations: expected an answer to learn, found none");
}

static pd_status make(making *m) {
    PD_TRY(label(m));
    PD_TRY(load_images(m));
    truncate_sample(m);
    return check_labels(m);
}

pd_status pd_sample_make(const pd_sample_params *params, int32_t index, pd_train_sample *sample,
                         pd_sample_notes *notes, pd_error *err) {
    *sample = (pd_train_sample){.index = index};
    *notes = (pd_sample_notes){0};
    making m = {.params = params, .sample = sample, .notes = notes, .err = err};
    PD_TRY(pd_dataset_read(params->dataset, index, &m.record, err));
    const pd_status status = make(&m);
    if (status != PD_OK) {
        name_record(&m);
        pd_train_sample_free(sample);
    }
    pd_record_free(&m.record);
    return status;
}
