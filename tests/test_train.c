// Training steps against PyTorch's autograd: every case of tests/golden/train (its README section says what
// the files hold). Losses, kept tokens, gradients, AdamW's weights.
#include "base/random.h"
#include "engine/encode.h"
#include "model/backend.h"
#include "train/step.h"
#include "train/trainer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include <cmocka.h> // wants the above

#include "checks.h"
#include "golden_files.h" // both want cmocka

enum { SIGNS = 8, ELEMENTS = 64, MAX_SAMPLES = 8 };

static atomic_bool cancel;

static const char *path_of(char *buffer, size_t size, const char *folder, const char *name) {
    snprintf(buffer, size, "%s/%s/%s", PD_TEST_DATA, folder, name);
    return buffer;
}

static const char *string(yyjson_val *object, const char *key) {
    return yyjson_get_str(yyjson_obj_get(object, key));
}

static double number(yyjson_val *object, const char *key) {
    return yyjson_get_num(yyjson_obj_get(object, key));
}

// ---- a case's model and batches ----------------------------------------------------------------------------

typedef struct {
    pd_backend backend;
    pd_weights weights;
    pd_parameters parameters;
    pd_policy policy;
    pd_lowering *lowering;
    pd_step *step;
    pd_aspect_ratio aspect;
} trainee;

static int32_t *ints(yyjson_val *array) {
    size_t index, max;
    yyjson_val *value;
    int32_t *numbers = calloc(yyjson_arr_size(array) + 1, sizeof *numbers);
    assert_non_null(numbers);
    yyjson_arr_foreach(array, index, max, value) numbers[index] = (int32_t)yyjson_get_sint(value);
    return numbers;
}

static void read_policy(yyjson_val *one, pd_policy *policy) {
    pd_error err;
    double ratios[PD_MAX_DROPS];
    yyjson_val *list = yyjson_obj_get(one, "image_token_ratio_list");
    const size_t n = yyjson_arr_size(list);
    for (size_t i = 0; i < n; i++)
        ratios[i] = yyjson_get_num(yyjson_arr_get(list, i));
    int32_t *layers = ints(yyjson_obj_get(one, "layer_list"));
    assert_true(check(pd_policy_pyramid(policy, layers, ratios, (int32_t)n, &err), &err));
    free(layers);
    if (strcmp(string(one, "positions"), "original") == 0) policy->positions = PD_POSITIONS_ORIGINAL;
}

static void open_trainee(trainee *t, yyjson_val *one, const pd_trainable *trainable,
                         pd_compute_type compute) {
    char model[512], mmproj[512];
    pd_error err;
    *t = (trainee){.aspect = strcmp(string(one, "aspect"), "anyres") == 0 ? PD_ASPECT_ANYRES : PD_ASPECT_PAD};
    assert_true(check(pd_backend_create(pd_device_cpu(), 2, &cancel, &t->backend, &err), &err));
    assert_true(check(pd_weights_load(path_of(model, sizeof model, "parity", string(one, "model")),
                                      path_of(mmproj, sizeof mmproj, "parity", string(one, "mmproj")),
                                      pd_device_cpu(), &t->weights, &err),
                      &err));
    assert_true(check(pd_parameters_create(trainable, &t->backend, &t->weights, &t->parameters, &err), &err));
    const pd_lowering_params lowering = {.compute = compute, .everything = true};
    assert_true(check(pd_lowering_create(&lowering, &t->lowering, &err), &err));
    read_policy(one, &t->policy);
    const pd_step_params params = {.weights = &t->weights,
                                   .parameters = &t->parameters,
                                   .policy = &t->policy,
                                   .backend = &t->backend,
                                   .lowering = t->lowering};
    assert_true(check(pd_step_create(&params, &t->step, &err), &err));
}

static void close_trainee(trainee *t) {
    pd_step_free(t->step);
    pd_lowering_free(t->lowering);
    pd_parameters_free(&t->parameters);
    pd_weights_free(&t->weights);
    pd_backend_free(&t->backend);
}

static int32_t read_samples(const trainee *t, yyjson_val *array, pd_train_sample *samples) {
    const pd_preprocess_params params = pd_encode_preprocess_params(&t->weights.vision.h, t->aspect);
    size_t index, max, image, n_images;
    yyjson_val *one, *name;
    pd_error err;
    assert_true(yyjson_arr_size(array) <= MAX_SAMPLES);
    yyjson_arr_foreach(array, index, max, one) {
        pd_train_sample *sample = &samples[index];
        yyjson_val *tokens = yyjson_obj_get(one, "tokens"), *names = yyjson_obj_get(one, "images");
        *sample = (pd_train_sample){.n_tokens = (int32_t)yyjson_arr_size(tokens),
                                    .tokens = ints(tokens),
                                    .labels = ints(yyjson_obj_get(one, "labels")),
                                    .n_images = (int32_t)yyjson_arr_size(names)};
        sample->images = calloc((size_t)sample->n_images + 1, sizeof *sample->images);
        assert_non_null(sample->images);
        yyjson_arr_foreach(names, image, n_images, name) {
            char path[512];
            pd_image *picture;
            assert_true(check(
                pd_image_load(path_of(path, sizeof path, "parity", yyjson_get_str(name)), &picture, &err),
                &err));
            assert_true(check(pd_preprocess(picture, &params, &sample->images[image], &err), &err));
            pd_image_free(picture);
        }
    }
    return (int32_t)max;
}

static void free_samples(pd_train_sample *samples, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        for (int32_t j = 0; j < samples[i].n_images; j++)
            pd_tiles_free(&samples[i].images[j]);
        free(samples[i].images);
        free(samples[i].tokens);
        free(samples[i].labels);
    }
}

// ---- compact records ---------------------------------------------------------------------------------------

typedef struct {
    float *records;
    size_t size, at; // floats
} record_file;

static record_file open_records(const char *name) {
    char path[512];
    FILE *file = fopen(path_of(path, sizeof path, "train", name), "rb");
    assert_non_null(file);
    record_file records = {0};
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    records.size = (size_t)ftell(file) / sizeof(float);
    rewind(file);
    records.records = malloc(records.size * sizeof(float) + 1);
    assert_non_null(records.records);
    assert_int_equal(fread(records.records, sizeof(float), records.size, file), records.size);
    fclose(file);
    return records;
}

// The estimate of ‖x − expected‖ / ‖expected‖ from the next record; in *norm the record's.
static double next_difference(record_file *file, const float *x, int64_t n, double *norm) {
    const size_t n_elements = n < ELEMENTS ? (size_t)n : ELEMENTS;
    assert_true(file->at + 1 + SIGNS + n_elements <= file->size);
    const float *record = file->records + file->at;
    file->at += 1 + SIGNS + n_elements;
    *norm = (double)record[0];
    double squares = 0.0;
    for (uint64_t j = 1; j <= SIGNS; j++) {
        uint64_t state = j, bits = 0;
        double sum = 0.0;
        for (int64_t i = 0; i < n; i++) {
            if (i % 64 == 0) bits = pd_random_next(&state);
            sum += bits >> (i % 64) & 1 ? -(double)x[i] : (double)x[i];
        }
        squares += (sum - (double)record[j]) * (sum - (double)record[j]);
    }
    double worst = sqrt(squares / SIGNS);
    uint64_t state = 0;
    for (size_t i = 0; i < n_elements; i++) {
        const size_t at = n <= ELEMENTS ? i : (size_t)(pd_random_next(&state) % (uint64_t)n);
        const double difference = fabs((double)x[at] - (double)record[1 + SIGNS + i]);
        worst = worse(worst, difference);
    }
    return worst / *norm;
}

// total: the norm of all gradients together.
static double worst_gradient(const trainee *t, yyjson_val *expect, double total) {
    record_file file = open_records(string(expect, "gradients"));
    double worst = 0.0;
    size_t index, max, seen = 0;
    yyjson_val *one;
    yyjson_arr_foreach(yyjson_obj_get(expect, "parameters"), index, max, one) {
        const char *name = yyjson_get_str(yyjson_arr_get(one, 0));
        const bool zero = strcmp(yyjson_get_str(yyjson_arr_get(one, 3)), "zero") == 0;
        const pd_parameter *p = pd_parameters_find(&t->parameters, name);
        if (!p) {
            print_error("no parameter %s\n", name);
            assert_non_null(p);
        }
        assert_int_equal(ggml_nelements(p->gradient), yyjson_get_sint(yyjson_arr_get(one, 1)));
        double norm = 0.0;
        double error = next_difference(&file, p->gradient->data, ggml_nelements(p->gradient), &norm);
        if (zero) { // rounding of zero, against all gradients together
            double square = 0.0;
            for (int64_t i = 0; i < ggml_nelements(p->gradient); i++) {
                const double g = (double)((const float *)p->gradient->data)[i];
                square += g * g;
            }
            error = sqrt(square) / total;
        }
        seen++;
        if (getenv("PD_TEST_VERBOSE")) print_message("  %-32s %.3g\n", name, error);
        worst = worse(worst, error);
    }
    assert_int_equal(file.at, file.size);
    assert_int_equal(seen, t->parameters.n);
    free(file.records);
    return worst;
}

// ---- one step ----------------------------------------------------------------------------------------------

// The first stage's rows that should live in stage `s`: all text, and of every image what `kept` says.
static int32_t expected_rows(yyjson_val *samples, yyjson_val *expects, size_t s, int32_t *rows,
                             int32_t most) {
    size_t index, max, at, n_tokens, k, n_kept;
    yyjson_val *one, *token, *row_of_image;
    int32_t n = 0, row = 0;
    yyjson_arr_foreach(samples, index, max, one) {
        yyjson_val *expect = yyjson_arr_get(expects, index);
        size_t image = 0;
        yyjson_arr_foreach(yyjson_obj_get(one, "tokens"), at, n_tokens, token) {
            if (yyjson_get_sint(token) != PD_IMAGE_TOKEN) {
                assert_true(n < most);
                rows[n++] = row++;
                continue;
            }
            yyjson_val *kept = yyjson_arr_get(yyjson_arr_get(yyjson_obj_get(expect, "kept"), image), s);
            yyjson_arr_foreach(kept, k, n_kept, row_of_image) {
                assert_true(n < most);
                rows[n++] = row + (int32_t)yyjson_get_sint(row_of_image);
            }
            row += (int32_t)yyjson_get_sint(yyjson_arr_get(yyjson_obj_get(expect, "image_tokens"), image++));
        }
    }
    return n;
}

static void check_kept(const trainee *t, yyjson_val *samples, yyjson_val *expects) {
    enum { MAX_ROWS = 4096 };
    int32_t *live = calloc(MAX_ROWS, sizeof *live), *expected = calloc(MAX_ROWS, sizeof *expected);
    assert_non_null(live);
    assert_non_null(expected);
    for (int32_t i = 0; i < MAX_ROWS; i++)
        live[i] = i;
    for (int32_t s = 0; s <= t->policy.n_drops; s++) {
        int32_t n = 0;
        const int32_t *selected = pd_step_selected(t->step, s, &n);
        for (int32_t i = 0; i < n; i++) // ascending: reads ahead of what it writes
            live[i] = live[selected[i]];
        const int32_t n_expected = expected_rows(samples, expects, (size_t)s, expected, MAX_ROWS);
        if (selected) assert_int_equal(n, n_expected);
        for (int32_t i = 0; i < n_expected; i++)
            assert_int_equal(live[i], expected[i]);
    }
    free(expected);
    free(live);
}

// Loss and gradients of one case; the worst error of a gradient, relative to its norm.
static double check_case(yyjson_val *one, pd_compute_type compute, double *loss_error) {
    static const pd_trainable everything = {.groups = {true, true, true}};
    yyjson_val *expect = yyjson_obj_get(one, "expect"), *list = yyjson_obj_get(one, "samples");
    trainee t;
    pd_error err;
    pd_train_sample samples[MAX_SAMPLES];
    pd_step_result result;
    open_trainee(&t, one, &everything, compute);
    const int32_t n = read_samples(&t, list, samples);
    const double n_predicted = number(expect, "n_predicted");
    assert_true(
        check(pd_step_add_gradients(t.step, samples, n, (float)(1.0 / n_predicted), &result, &err), &err));
    assert_int_equal(result.n_labels, (int32_t)n_predicted);
    *loss_error = fabs(result.loss / n_predicted / number(expect, "loss") - 1.0);
    if (compute != PD_COMPUTE_BF16) check_kept(&t, list, yyjson_obj_get(expect, "samples"));
    const double worst = worst_gradient(&t, expect, number(expect, "gradient_norm"));
    free_samples(samples, n);
    close_trainee(&t);
    return worst;
}

static yyjson_doc *read_cases(const char *name) {
    yyjson_doc *doc = read_golden(name);
    assert_true(yyjson_arr_size(yyjson_doc_get_root(doc)) > 0);
    return doc;
}

static void check_gradients(pd_compute_type compute, double tolerance, double loss_tolerance) {
    yyjson_doc *doc = read_cases("train/cases.json");
    const char *only = getenv("PD_TEST_CASE");
    double worst = 0.0, worst_loss = 0.0;
    size_t index, max;
    yyjson_val *one;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), index, max, one) {
        if (only && strcmp(only, string(one, "name")) != 0) continue;
        double loss_error = 0.0;
        const double error = check_case(one, compute, &loss_error);
        if (getenv("PD_TEST_VERBOSE"))
            print_message("%s: %.3g, loss %.3g\n", string(one, "name"), error, loss_error);
        if (!(error <= tolerance && loss_error <= loss_tolerance))
            print_error("%s: a gradient is off by %.3g of its norm, the loss by %.3g\n", string(one, "name"),
                        error, loss_error);
        assert_true(error <= tolerance && loss_error <= loss_tolerance);
        if (error > worst) worst = error;
        if (loss_error > worst_loss) worst_loss = loss_error;
    }
    print_message("%zu cases, worst gradient off by %.2g of its norm, worst loss by %.2g\n", max, worst,
                  worst_loss);
    yyjson_doc_free(doc);
}

static void gradients_of_ggml(void **state) {
    (void)state;
    check_gradients(PD_COMPUTE_GGML, 5e-5, 2e-6);
}

static void gradients_lowered(void **state) {
    (void)state;
    check_gradients(PD_COMPUTE_F32, 5e-5, 2e-6);
}

// On a CPU with bf16 units. Rounding moves gradients by several per cent of their norm and may keep other
// tokens at a close call; the loss is what must hold.
static void losses_bf16(void **state) {
    (void)state;
    const pd_lowering_params params = {.compute = PD_COMPUTE_BF16, .strict = true};
    pd_lowering *lowering;
    pd_error err;
    if (pd_lowering_create(&params, &lowering, &err) != PD_OK) {
        print_message("%s\n", err.message);
        skip();
    }
    pd_lowering_free(lowering);
    check_gradients(PD_COMPUTE_BF16, INFINITY, 2e-2);
}

// ---- several steps -----------------------------------------------------------------------------------------

enum { MAX_BATCHES = 40 };

typedef struct {
    pd_train_sample samples[MAX_BATCHES][MAX_SAMPLES];
    int32_t n_samples[MAX_BATCHES];
    size_t n;
} batch_list;

static void start_adapters(const trainee *t) {
    for (size_t i = 0; i < t->parameters.n_adapters; i++) {
        struct ggml_tensor *const both[] = {t->parameters.adapters[i].a, t->parameters.adapters[i].b};
        for (uint64_t j = 0; j < 2; j++) {
            uint64_t state = 1000 + 2 * i + j;
            for (int64_t k = 0; k < ggml_nelements(both[j]); k++)
                ((float *)both[j]->data)[k] =
                    (float)((2.0 * pd_random_uniform(&state) - 1.0) * (j == 0 ? 0.125 : 0.1));
        }
    }
}

// The worst difference of records in `file` to what `numbers_of` gives for the entries of `names`.
static double worst_record(const trainee *t, yyjson_val *names, const char *file_name,
                           const float *const *initial, bool skip_zero) {
    record_file file = open_records(file_name);
    double worst = 0.0;
    size_t index, max;
    yyjson_val *one;
    yyjson_arr_foreach(names, index, max, one) {
        const char *name = yyjson_get_str(yyjson_arr_get(one, 0));
        const pd_parameter *p = pd_parameters_find(&t->parameters, name);
        assert_non_null(p);
        const int64_t n = ggml_nelements(p->weight);
        float *numbers = malloc((size_t)n * sizeof *numbers);
        assert_non_null(numbers);
        memcpy(numbers, p->weight->data, (size_t)n * sizeof *numbers);
        for (int64_t i = 0; i < n && initial; i++)
            numbers[i] -= initial[index][i];
        double norm = 0.0;
        const double error = next_difference(&file, numbers, n, &norm);
        free(numbers);
        const bool zero = strcmp(yyjson_get_str(yyjson_arr_get(one, 3)), "zero") == 0;
        if (skip_zero && zero) continue;
        if (getenv("PD_TEST_VERBOSE")) print_message("  %-40s %.3g\n", name, error);
        worst = worse(worst, error);
    }
    free(file.records);
    return worst;
}

static double worst_merged(const trainee *t, yyjson_val *expect) {
    record_file file = open_records(string(expect, "merged"));
    double worst = 0.0;
    size_t index, max;
    yyjson_val *one;
    yyjson_arr_foreach(yyjson_obj_get(expect, "merged_parameters"), index, max, one) {
        const char *name = yyjson_is_arr(one) ? yyjson_get_str(yyjson_arr_get(one, 0)) : yyjson_get_str(one);
        const pd_adapter *adapter = pd_parameters_adapter(&t->parameters, name);
        assert_non_null(adapter);
        const int64_t n = ggml_nelements(adapter->weight);
        float *merged = malloc((size_t)n * sizeof *merged);
        assert_non_null(merged);
        memcpy(merged, adapter->weight->data, (size_t)n * sizeof *merged);
        pd_adapter_merge(&t->parameters, adapter, merged);
        double norm = 0.0;
        const double error = next_difference(&file, merged, n, &norm);
        worst = worse(worst, error);
        free(merged);
    }
    free(file.records);
    return worst;
}

static const char *const groups[PD_GROUP_COUNT] = {"decoder", "projector", "vision"};

static void take_step(trainee *t, pd_optimizer *optimizer, yyjson_val *one, yyjson_val *step,
                      batch_list *batches, int64_t k, double loss_tolerance) {
    pd_error err;
    yyjson_val *which = yyjson_obj_get(step, "batches");
    int32_t n_labels = 0;
    for (size_t i = 0; i < yyjson_arr_size(which); i++) {
        const size_t b = (size_t)yyjson_get_uint(yyjson_arr_get(which, i));
        for (int32_t j = 0; j < batches->n_samples[b]; j++)
            n_labels += pd_sample_n_labels(&batches->samples[b][j]);
    }
    double loss = 0.0, norm = 0.0;
    for (size_t i = 0; i < yyjson_arr_size(which); i++) {
        const size_t b = (size_t)yyjson_get_uint(yyjson_arr_get(which, i));
        pd_step_result result;
        assert_true(check(pd_step_add_gradients(t->step, batches->samples[b], batches->n_samples[b],
                                                1.0F / (float)n_labels, &result, &err),
                          &err));
        loss += result.loss / n_labels;
    }
    const double loss_error = fabs(loss / number(step, "loss") - 1.0);
    if (!(loss_error <= loss_tolerance))
        print_error("%s, step %lld: loss %.6f for %.6f\n", string(one, "name"), (long long)k, loss,
                    number(step, "loss"));
    assert_true(loss_error <= loss_tolerance);
    assert_true(check(pd_optimizer_gradient_norm(optimizer, &norm, &err), &err));
    assert_true(fabs(norm / number(step, "gradient_norm") - 1.0) < 1e-4);
    if (k == 0) assert_true(worst_gradient(t, yyjson_obj_get(one, "expect"), norm) <= 5e-5);
    const pd_train_params recipe = {.adam_beta1 = (float)number(one, "adam_beta1"),
                                    .adam_beta2 = (float)number(one, "adam_beta2"),
                                    .adam_epsilon = (float)number(one, "adam_epsilon"),
                                    .weight_decay = (float)number(one, "weight_decay"),
                                    .learning_rate = (float)number(one, "learning_rate"),
                                    .mm_projector_lr = (float)number(one, "mm_projector_lr"),
                                    .mm_vision_tower_lr = (float)number(one, "mm_vision_tower_lr"),
                                    .lr_scheduler_type = PD_RATE_COSINE,
                                    .max_grad_norm = (float)number(one, "max_grad_norm")};
    const pd_adamw_params params = pd_train_adamw(&recipe, k, (int64_t)number(one, "warmup_steps"),
                                                  (int64_t)number(one, "n_steps"), norm);
    size_t index, max;
    yyjson_val *group, *rate;
    yyjson_obj_foreach(yyjson_obj_get(step, "lr"), index, max, group, rate) {
        for (size_t i = 0; i < PD_GROUP_COUNT; i++) {
            if (strcmp(yyjson_get_str(group), groups[i]) == 0)
                assert_near(params.learning_rates[i], yyjson_get_num(rate), 1e-6 * yyjson_get_num(rate));
        }
    }
    assert_true(check(pd_optimizer_step(optimizer, &params, &err), &err));
}

static void check_steps(yyjson_val *one) {
    yyjson_val *expect = yyjson_obj_get(one, "expect"), *batch, *step;
    yyjson_val *names = yyjson_obj_get(expect, "parameters");
    const int32_t rank = (int32_t)yyjson_get_sint(yyjson_obj_get(one, "lora_r"));
    const pd_trainable trainable = {.groups = {true, true, rank == 0},
                                    .lora_rank = rank,
                                    .lora_alpha = rank > 0 ? (float)number(one, "lora_alpha") : 0.0F};
    trainee t;
    pd_error err;
    pd_optimizer *optimizer;
    size_t index, max;
    open_trainee(&t, one, &trainable, PD_COMPUTE_F32);
    start_adapters(&t);
    batch_list *batches = calloc(1, sizeof *batches);
    float **initial = calloc(t.parameters.n + 1, sizeof *initial);
    assert_non_null(batches);
    assert_non_null(initial);
    yyjson_arr_foreach(names, index, max, batch) {
        const pd_parameter *p = pd_parameters_find(&t.parameters, yyjson_get_str(yyjson_arr_get(batch, 0)));
        assert_non_null(p);
        initial[index] = malloc(ggml_nbytes(p->weight));
        assert_non_null(initial[index]);
        memcpy(initial[index], p->weight->data, ggml_nbytes(p->weight));
        const char *group = yyjson_get_str(yyjson_arr_get(batch, 4));
        assert_string_equal(group, groups[p->group]);
        assert_int_equal(p->decays, strcmp(yyjson_get_str(yyjson_arr_get(batch, 5)), "decay") == 0);
    }
    yyjson_arr_foreach(yyjson_obj_get(one, "batches"), index, max, batch) {
        assert_true(index < MAX_BATCHES);
        batches->n_samples[batches->n] = read_samples(&t, batch, batches->samples[batches->n]);
        batches->n++;
    }
    assert_true(check(pd_optimizer_create(&t.parameters, &t.backend, &optimizer, &err), &err));
    yyjson_arr_foreach(yyjson_obj_get(expect, "steps"), index, max, step)
        take_step(&t, optimizer, one, step, batches, (int64_t)index, 1e-5);
    assert_int_equal(max, (size_t)number(one, "n_steps"));
    const double weights = worst_record(&t, names, string(expect, "weights"), NULL, true);
    const double change =
        worst_record(&t, names, string(expect, "change"), (const float *const *)initial, true);
    const double merged = rank > 0 ? worst_merged(&t, expect) : 0.0;
    print_message("%s: after %zu steps weights off by %.2g, their change by %.2g, merged by %.2g\n",
                  string(one, "name"), max, weights, change, merged);
    assert_true(weights <= 3e-6 && merged <= 3e-6);
    assert_true(change <= (rank > 0 ? 1e-4 : 2e-3));
    pd_optimizer_free(optimizer);
    for (size_t i = 0; i < batches->n; i++)
        free_samples(batches->samples[i], batches->n_samples[i]);
    for (size_t i = 0; i < t.parameters.n; i++)
        free(initial[i]);
    free(initial);
    free(batches);
    close_trainee(&t);
}

static void optimiser_steps(void **state) {
    (void)state;
    yyjson_doc *doc = read_cases("train/steps.json");
    const char *only = getenv("PD_TEST_CASE");
    size_t index, max;
    yyjson_val *one;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), index, max, one) {
        if (!only || strcmp(only, string(one, "name")) == 0) check_steps(one);
    }
    yyjson_doc_free(doc);
}

// transformers' get_scheduler: "constant", "constant_with_warmup", "linear", "cosine", of 10 steps, 4 of them
// warm-up.
static void rate_courses(void **state) {
    (void)state;
    static const struct {
        pd_rate_course course;
        double factors[11];
    } courses[] = {
        {PD_RATE_CONSTANT, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
        {PD_RATE_CONSTANT_WITH_WARMUP, {0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1}},
        {PD_RATE_LINEAR, {0, 0.25, 0.5, 0.75, 1, 5.0 / 6, 4.0 / 6, 3.0 / 6, 2.0 / 6, 1.0 / 6, 0}},
        {PD_RATE_COSINE, {0, 0.25, 0.5, 0.75, 1, 0.9330127018922193, 0.75, 0.5, 0.25, 0.0669872981077807, 0}},
    };
    for (size_t i = 0; i < sizeof courses / sizeof *courses; i++) {
        for (int64_t step = 0; step <= 10; step++)
            assert_near(pd_rate_factor(courses[i].course, step, 4, 10), courses[i].factors[step], 1e-12);
    }
}

// Rates that are 0 are the decoder's, and no norm is clipped by 0.
static void update_without_clipping(void **state) {
    (void)state;
    const pd_train_params p = {
        .learning_rate = 0.5F, .mm_vision_tower_lr = 0.125F, .lr_scheduler_type = PD_RATE_CONSTANT};
    const pd_adamw_params adamw = pd_train_adamw(&p, 6, 0, 10, 50.0);
    assert_near(adamw.learning_rates[PD_GROUP_DECODER], 0.5, 0);
    assert_near(adamw.learning_rates[PD_GROUP_PROJECTOR], 0.5, 0);
    assert_near(adamw.learning_rates[PD_GROUP_VISION], 0.125, 0);
    assert_near(adamw.gradient_scale, 1, 0);
    assert_int_equal(adamw.step, 7);
}

int main(void) {
    if (getenv("PD_TEST_ONLY")) cmocka_set_test_filter(getenv("PD_TEST_ONLY"));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_ggml), cmocka_unit_test(gradients_lowered),
        cmocka_unit_test(losses_bf16),       cmocka_unit_test(optimiser_steps),
        cmocka_unit_test(rate_courses),      cmocka_unit_test(update_without_clipping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
