#include "train/layout.h"

#include <stdlib.h>

static int32_t features_of(const pd_train_sample *sample, int32_t image) {
    return sample->images[image].layout.n_tokens;
}

int32_t pd_sample_n_labels(const pd_train_sample *sample) {
    int32_t n = 0;
    for (int32_t t = 1; t < sample->n_tokens; t++)
        n += sample->labels[t] != PD_IGNORE_INDEX;
    return n;
}

// Whether rows of a sample ask at all: an own label that is ignored before one that is not.
static bool asks(const pd_train_sample *sample) {
    for (int32_t t = 0; t + 1 < sample->n_tokens; t++) {
        if (sample->labels[t] == PD_IGNORE_INDEX && sample->labels[t + 1] != PD_IGNORE_INDEX) return true;
    }
    return false;
}

// ---- allocation --------------------------------------------------------------------------------------------

// An array of n elements and one more, so that none is empty; *status is PD_ERR_MEMORY if there is none.
static void *array(size_t n, size_t size, pd_status *status, pd_error *err) {
    void *memory = calloc(n + 1, size);
    if (!memory) *status = pd_fail_memory(err, (n + 1) * size, "a batch");
    return memory;
}

void pd_layout_free(pd_layout *layout) {
    for (int32_t i = 0; i < layout->n_samples && layout->schedules; i++)
        pd_schedule_free(&layout->schedules[i]);
    for (int32_t s = 0; s < layout->n_stages && layout->stages; s++) {
        free(layout->stages[s].starts);
        free(layout->stages[s].positions);
        free(layout->stages[s].asking.rows);
        free(layout->stages[s].asking.starts);
    }
    free(layout->schedules);
    free(layout->stages);
    free(layout->text_tokens);
    free(layout->feature_rows);
    free(layout->sources);
    free(layout->tiles);
    free(layout->label_rows);
    free(layout->labels);
    *layout = (pd_layout){0};
}

// ---- pictures ----------------------------------------------------------------------------------------------

// The tower's rows behind a picture's features, in LLaVA-NeXT's order: the base tile's, then the unpadded
// rows of the big map that the other tiles form; −1 stands for the newline behind each of these. Of every
// tile the class token comes first.
static void list_features(const pd_tile_layout *tile, int32_t first_tile, int32_t *rows) {
    const int32_t side = tile->tile_side, tile_rows = 1 + side * side, base = first_tile * tile_rows;
    for (int32_t i = 0; i < side * side; i++)
        *rows++ = base + 1 + i;
    if (tile->grid_width == 0) return;
    const pd_feature_crop *crop = &tile->crop;
    for (int32_t y = crop->top; y < crop->top + crop->rows; y++) {
        for (int32_t x = crop->left; x < crop->left + crop->cols; x++) {
            const int32_t index = 1 + (y / side) * tile->grid_width + x / side;
            *rows++ = base + index * tile_rows + 1 + (y % side) * side + x % side;
        }
        *rows++ = -1;
    }
}

enum { NEWLINE = -1 }; // a source to be placed when all features are counted

// Fills text_tokens, feature_rows, sources and tiles.
static pd_status lay_sources(pd_layout *layout, const pd_train_sample *samples, pd_error *err) {
    size_t n_text = 0, n_image_rows = 0, n_pictures = 0, most = 0;
    for (int32_t i = 0; i < layout->n_samples; i++) {
        n_text += (size_t)(samples[i].n_tokens - samples[i].n_images);
        n_pictures += (size_t)samples[i].n_images;
        for (int32_t j = 0; j < samples[i].n_images; j++) {
            const size_t n = (size_t)features_of(&samples[i], j);
            n_image_rows += n;
            if (n > most) most = n;
        }
    }
    pd_status status = PD_OK;
    layout->text_tokens = array(n_text, sizeof(int32_t), &status, err);
    layout->feature_rows = array(n_image_rows, sizeof(int32_t), &status, err);
    layout->sources = array(n_text + n_image_rows, sizeof(int32_t), &status, err);
    layout->tiles = array(n_pictures, sizeof(pd_tiles *), &status, err);
    int32_t *features = array(most, sizeof(int32_t), &status, err);
    int32_t row = 0;
    for (int32_t i = 0; i < layout->n_samples && status == PD_OK; i++) {
        int32_t image = 0;
        for (int32_t t = 0; t < samples[i].n_tokens; t++) {
            if (samples[i].tokens[t] != PD_IMAGE_TOKEN) {
                layout->sources[row++] = layout->n_text;
                layout->text_tokens[layout->n_text++] = samples[i].tokens[t];
                continue;
            }
            const pd_tiles *tiles = &samples[i].images[image++];
            list_features(&tiles->layout, layout->n_tiles, features);
            for (int32_t k = 0; k < tiles->layout.n_tokens; k++) {
                const bool newline = features[k] == NEWLINE;
                layout->sources[row++] = newline ? NEWLINE : (int32_t)n_text + layout->n_features;
                if (!newline) layout->feature_rows[layout->n_features++] = features[k];
            }
            layout->tiles[layout->n_pictures++] = tiles;
            layout->n_tiles += tiles->layout.n_tiles;
        }
    }
    for (int32_t i = 0; i < row; i++) {
        if (layout->sources[i] == NEWLINE) layout->sources[i] = layout->n_text + layout->n_features;
    }
    free(features);
    return status;
}

// ---- stages ------------------------------------------------------------------------------------------------

static int32_t rows_of(const pd_train_sample *sample) {
    int32_t n = sample->n_tokens - sample->n_images;
    for (int32_t i = 0; i < sample->n_images; i++)
        n += features_of(sample, i);
    return n;
}

static pd_status lay_schedule(const pd_policy *policy, int32_t n_layers, const pd_train_sample *sample,
                              pd_schedule *schedule, pd_error *err) {
    const bool whole = !asks(sample);
    pd_span *images = calloc((size_t)sample->n_images + 1, sizeof *images);
    if (!images) return pd_fail_memory(err, (size_t)sample->n_images * sizeof *images, "a batch");
    int32_t row = 0, image = 0;
    for (int32_t t = 0; t < sample->n_tokens; t++) {
        if (sample->tokens[t] != PD_IMAGE_TOKEN) {
            row++;
            continue;
        }
        images[image] = (pd_span){row, features_of(sample, image)};
        row += images[image++].count;
    }
    const pd_status status =
        pd_schedule_create(policy, n_layers, rows_of(sample), images, whole ? 0 : image, schedule, err);
    free(images);
    return status;
}

// The labels of a sample's rows in a stage.
static void label_rows(const pd_train_sample *sample, const pd_schedule *schedule, int32_t stage,
                       int32_t *labels) {
    int32_t image = 0;
    for (int32_t t = 0; t < sample->n_tokens; t++) {
        if (sample->tokens[t] != PD_IMAGE_TOKEN) {
            *labels++ = sample->labels[t];
            continue;
        }
        const int32_t n =
            schedule->n_images > 0 ? schedule->stages[stage].images[image].count : features_of(sample, image);
        for (int32_t k = 0; k < n; k++)
            *labels++ = PD_IGNORE_INDEX;
        image++;
    }
}

static pd_status lay_stage(pd_layout *layout, const pd_train_sample *samples, int32_t s, int32_t *labels,
                           pd_error *err) {
    pd_layout_stage *stage = &layout->stages[s];
    pd_status status = PD_OK;
    stage->starts = array((size_t)layout->n_samples, sizeof(int32_t), &status, err);
    stage->asking.starts = array((size_t)layout->n_samples, sizeof(int32_t), &status, err);
    for (int32_t i = 0; i < layout->n_samples; i++) {
        stage->n_rows += layout->schedules[i].stages[s].n_rows;
        if (s + 1 < layout->n_stages && pd_schedule_drops(&layout->schedules[i], s + 1)) stage->drops = true;
    }
    stage->positions = array((size_t)stage->n_rows, sizeof(int32_t), &status, err);
    stage->asking.rows = array((size_t)stage->n_rows, sizeof(int32_t), &status, err);
    if (status != PD_OK) return status;
    const bool last = s + 1 == layout->n_stages;
    int32_t row = 0;
    for (int32_t i = 0; i < layout->n_samples; i++) {
        const pd_schedule *schedule = &layout->schedules[i];
        const int32_t n = schedule->stages[s].n_rows;
        const bool ranked = !last && pd_schedule_drops(schedule, s + 1);
        label_rows(&samples[i], schedule, s, labels);
        for (int32_t r = 0; r < n; r++) {
            stage->positions[row + r] = r;
            if (ranked && r + 1 < n && labels[r] == PD_IGNORE_INDEX && labels[r + 1] != PD_IGNORE_INDEX)
                stage->asking.rows[stage->asking.n++] = row + r;
            if (last && r > 0 && labels[r] != PD_IGNORE_INDEX) {
                layout->label_rows[layout->n_labels] = row + r - 1;
                layout->labels[layout->n_labels++] = labels[r];
            }
        }
        row += n;
        stage->starts[i + 1] = row;
        stage->asking.starts[i + 1] = stage->asking.n;
    }
    return PD_OK;
}

static pd_status lay_stages(pd_layout *layout, const pd_policy *policy, int32_t n_layers,
                            const pd_train_sample *samples, pd_error *err) {
    size_t most = 0, n_labels = 0;
    for (int32_t i = 0; i < layout->n_samples; i++) {
        PD_TRY(lay_schedule(policy, n_layers, &samples[i], &layout->schedules[i], err));
        n_labels += (size_t)pd_sample_n_labels(&samples[i]);
        if ((size_t)rows_of(&samples[i]) > most) most = (size_t)rows_of(&samples[i]);
    }
    pd_status status = PD_OK;
    layout->label_rows = array(n_labels, sizeof(int32_t), &status, err);
    layout->labels = array(n_labels, sizeof(int32_t), &status, err);
    int32_t *labels = array(most, sizeof(int32_t), &status, err);
    for (int32_t s = 0; s < layout->n_stages && status == PD_OK; s++)
        status = lay_stage(layout, samples, s, labels, err);
    free(labels);
    return status;
}

pd_status pd_layout_check_policy(const pd_policy *policy, pd_error *err) {
    if (policy->n_drops == 0 || policy->scorer != PD_SCORER_PREVIOUS_LAYER) return PD_OK;
    return pd_fail(
        err, PD_ERR_ARGUMENT,
        "training: the policy ranks by the layer just run (expected pdrop, uniform, random or vtw)");
}

pd_status pd_layout_create(const pd_policy *policy, int32_t n_layers, const pd_train_sample *samples,
                           int32_t n_samples, pd_layout *layout, pd_error *err) {
    *layout = (pd_layout){.samples = samples, .n_samples = n_samples, .n_stages = policy->n_drops + 1};
    PD_TRY(pd_layout_check_policy(policy, err));
    pd_status status = PD_OK;
    layout->schedules = array((size_t)n_samples, sizeof *layout->schedules, &status, err);
    layout->stages = array((size_t)layout->n_stages, sizeof *layout->stages, &status, err);
    if (status == PD_OK) status = lay_sources(layout, samples, err);
    if (status == PD_OK) status = lay_stages(layout, policy, n_layers, samples, err);
    if (status != PD_OK) pd_layout_free(layout);
    return status;
}
