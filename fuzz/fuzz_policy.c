// Any text as a policy, as two lists, or any numbers as a pd_policy: what is accepted must pass
// pd_policy_check, and make schedules and selections that hold together.
#include "pair.h"

#include "drop/schedule.h"
#include "drop/select.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_IMAGES = 4 };

typedef struct {
    int32_t n_layers, n_rows, n_images;
    pd_span images[MAX_IMAGES];
} prompt_shape;

static uint8_t next(const uint8_t **data, size_t *size) {
    if (*size == 0) return 0;
    (*size)--;
    return *(*data)++;
}

// Pictures and text in turn, from the bytes.
static prompt_shape choose_shape(const uint8_t **data, size_t *size) {
    prompt_shape shape = {.n_layers = next(data, size) % 64, .n_images = next(data, size) % (MAX_IMAGES + 1)};
    for (int32_t i = 0; i < shape.n_images; i++) {
        shape.n_rows += next(data, size) % 4;
        shape.images[i] = (pd_span){shape.n_rows, 1 + next(data, size)};
        shape.n_rows += shape.images[i].count;
    }
    shape.n_rows += next(data, size) % 4;
    if (shape.n_rows == 0) shape.n_rows = 1;
    return shape;
}

// Rows of a selection: ascending, inside the stage before, and all of its text.
static void check_rows(const pd_schedule *schedule, int32_t stage, const int32_t *rows) {
    const pd_stage *before = &schedule->stages[stage - 1], *after = &schedule->stages[stage];
    int32_t expected_text = 0, n_image_rows = 0;
    for (int32_t i = 0; i < after->n_rows; i++) {
        CHECK(rows[i] >= 0 && rows[i] < before->n_rows);
        if (i > 0) CHECK(rows[i] > rows[i - 1]);
        bool of_image = false;
        for (int32_t j = 0; j < schedule->n_images; j++) {
            const pd_span *span = &before->images[j];
            of_image = of_image || (rows[i] >= span->start && rows[i] < span->start + span->count);
        }
        n_image_rows += of_image;
        expected_text += !of_image;
    }
    CHECK(n_image_rows == after->n_image_tokens);
    CHECK(expected_text == before->n_rows - before->n_image_tokens);
}

static void check_selections(const pd_schedule *schedule, int32_t stage, uint64_t seed) {
    pd_selection selection;
    CHECK(pd_selection_create(schedule, stage, &selection, NULL) == PD_OK);
    const size_t n = (size_t)schedule->stages[stage - 1].n_rows;
    int32_t *rows = calloc((size_t)schedule->stages[stage].n_rows + 1, sizeof *rows);
    float *scores = calloc(n, sizeof *scores);
    CHECK(rows && scores);
    pd_select_uniform(&selection, rows);
    check_rows(schedule, stage, rows);
    pd_select_random(&selection, seed, rows);
    check_rows(schedule, stage, rows);
    for (size_t i = 0; i < n; i++) // with ties and with what is not a number
        scores[i] = i % 7 == 3 ? __builtin_nanf("") : (float)((i * 5 + seed % 11) % 6);
    pd_select(&selection, scores, rows);
    check_rows(schedule, stage, rows);
    free(scores);
    free(rows);
    pd_selection_free(&selection);
}

static void check_schedule(const pd_policy *policy, const prompt_shape *shape) {
    pd_error err = {0};
    pd_schedule schedule;
    const pd_status status = pd_schedule_create(policy, shape->n_layers, shape->n_rows, shape->images,
                                                shape->n_images, &schedule, &err);
    if (status != PD_OK) {
        check_failure(status, &err);
        CHECK(!schedule.stages);
        return;
    }
    CHECK(schedule.n_stages == policy->n_drops + 1);
    CHECK(schedule.stages[0].first_layer == 0 && schedule.stages[0].n_rows == shape->n_rows);
    CHECK(schedule.stages[policy->n_drops].end_layer == shape->n_layers);
    const int32_t n_text = shape->n_rows - schedule.stages[0].n_image_tokens;
    for (int32_t s = 0; s < schedule.n_stages; s++) {
        const pd_stage *stage = &schedule.stages[s];
        int32_t n_image_tokens = 0, end = 0;
        for (int32_t i = 0; i < shape->n_images; i++) {
            const pd_span *span = &stage->images[i];
            CHECK(span->start >= end && span->count >= 0 && span->count <= shape->images[i].count);
            end = span->start + span->count;
            n_image_tokens += span->count;
        }
        CHECK(end <= stage->n_rows && n_image_tokens == stage->n_image_tokens);
        CHECK(stage->n_rows == n_text + n_image_tokens && stage->n_rows > 0);
        if (s == 0) continue;
        CHECK(stage->first_layer == stage[-1].end_layer && stage->first_layer > stage[-1].first_layer);
        CHECK(stage->n_image_tokens <= stage[-1].n_image_tokens);
        CHECK(pd_schedule_drops(&schedule, s) == (stage->n_rows < stage[-1].n_rows));
        check_selections(&schedule, s, policy->seed);
    }
    pd_schedule_free(&schedule);
}

// The bytes as the struct's own numbers.
static pd_policy raw_policy(const uint8_t *data, size_t size) {
    pd_policy policy = {0};
    memcpy(&policy.seed, data, size < sizeof policy.seed ? size : sizeof policy.seed);
    policy.n_drops = next(&data, &size) - 4;
    policy.scorer = (pd_scorer)next(&data, &size);
    policy.positions = (pd_positions)next(&data, &size);
    for (int i = 0; i < PD_MAX_DROPS; i++) {
        policy.layer_list[i] = next(&data, &size) - 4;
        if (size < sizeof(double)) continue;
        memcpy(&policy.image_token_ratio_list[i], data, sizeof(double));
        data += sizeof(double);
        size -= sizeof(double);
    }
    return policy;
}

static char *copy_text(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    CHECK(text);
    memcpy(text, data, size);
    text[size] = '\0';
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t way = next(&data, &size) % 3;
    const prompt_shape shape = choose_shape(&data, &size);
    pd_policy policy;
    pd_policy_none(&policy);
    pd_error err = {0};
    pd_status status;
    if (way == 0) {
        char *text = copy_text(data, size);
        status = pd_policy_parse(&policy, text, shape.n_layers, &err);
        if (status == PD_OK) CHECK(pd_policy_check(&policy, shape.n_layers, &err) == PD_OK);
        if (status != PD_OK) CHECK(policy.n_drops == 0);
        free(text);
    } else if (way == 1) {
        char *layers = copy_text(data, size);
        char *ratios = strchr(layers, ';');
        if (ratios) *ratios++ = '\0';
        status = pd_policy_lists(&policy, layers, ratios ? ratios : "", &err);
        if (status != PD_OK) CHECK(policy.n_drops == 0);
        if (status == PD_OK) status = pd_policy_check(&policy, shape.n_layers, &err);
        free(layers);
    } else {
        policy = raw_policy(data, size);
        status = pd_policy_check(&policy, shape.n_layers, &err);
    }
    if (status == PD_OK) {
        check_schedule(&policy, &shape);
    } else {
        check_failure(status, &err);
    }
    pd_policy_default(&policy, shape.n_layers);
    if (shape.n_layers > 0) CHECK(pd_policy_check(&policy, shape.n_layers, &err) == PD_OK);
    check_schedule(&policy, &shape);
    return 0;
}
