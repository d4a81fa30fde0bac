// Checkpoints: what is saved comes back, names and numbers of folders, leftovers, and weights that are no
// numbers. And the optimiser's step, which cancelling must not cut in two.
#include "train/checkpoint.h"
#include "train/optimizer.h"

#include <dirent.h>
#include <math.h>
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

// The projector of a golden model, in training, and a folder to save in.
typedef struct {
    atomic_bool cancel;
    pd_backend backend;
    pd_weights weights;
    pd_parameters parameters;
    pd_checkpoint_params params;
    char folder[256];
} fixture;

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    pd_error err;
    assert_non_null(f);
    assert_true(make_test_folder(f->folder, sizeof f->folder, "checkpoint"));
    assert_true(check(pd_backend_create(pd_device_cpu(), 2, &f->cancel, &f->backend, &err), &err));
    assert_true(check(pd_weights_load(PD_TEST_DATA "/parity/mha.gguf", PD_TEST_DATA "/parity/mha-mmproj.gguf",
                                      pd_device_cpu(), &f->weights, &err),
                      &err));
    const pd_trainable trainable = {.groups = {[PD_GROUP_PROJECTOR] = true}};
    assert_true(
        check(pd_parameters_create(&trainable, &f->backend, &f->weights, &f->parameters, &err), &err));
    f->params = (pd_checkpoint_params){
        .output_dir = f->folder, .weights = &f->weights, .parameters = &f->parameters, .type = GGML_TYPE_F32};
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    pd_error err;
    assert_true(check(pd_checkpoint_clean(f->folder, &err), &err));
    assert_true(check(pd_checkpoint_remove(f->folder, 0, &err), &err));
    assert_int_equal(rmdir(f->folder), 0);
    pd_parameters_free(&f->parameters);
    pd_weights_free(&f->weights);
    pd_backend_free(&f->backend);
    free(f);
    return 0;
}

static void save(const fixture *f, int64_t step) {
    pd_error err;
    const pd_checkpoint_run run = {.step = step, .order = "as it comes", .course = "straight on"};
    assert_true(check(pd_checkpoint_save(&f->params, &run, &err), &err));
}

// How many names there are in the folder.
static int count_names(const char *path) {
    int n = 0;
    DIR *folder = opendir(path);
    assert_non_null(folder);
    while (readdir(folder))
        n++;
    closedir(folder);
    return n - 2; // "." and ".."
}

static void newest_is(const fixture *f, const char *name) {
    char *path = NULL;
    pd_error err;
    assert_true(check(pd_checkpoint_newest(f->folder, &path, &err), &err));
    if (name) {
        assert_non_null(path);
        assert_string_equal(path + strlen(f->folder) + 1, name);
    } else {
        assert_null(path);
    }
    free(path);
}

// ---- what is saved comes back ------------------------------------------------------------------------------

static void saved_state_comes_back(void **state) {
    fixture *f = *state;
    pd_error err;
    const pd_parameter *p = &f->parameters.all[0];
    float *weight = p->weight->data, *m = p->m->data, *v = p->v->data;
    const float first = weight[0];
    m[1] = 0.25F;
    v[2] = 3.0F;
    save(f, 12);
    weight[0] = first + 1.0F;
    m[1] = v[2] = 0.0F;
    char path[400];
    pd_checkpoint_run run;
    snprintf(path, sizeof path, "%s/checkpoint-12", f->folder);
    assert_true(check(pd_checkpoint_load(path, &f->parameters, &run, &err), &err));
    assert_int_equal(run.step, 12);
    assert_string_equal(run.order, "as it comes");
    assert_string_equal(run.course, "straight on");
    assert_near(weight[0], first, 0.0);
    assert_near(m[1], 0.25F, 0.0);
    assert_near(v[2], 3.0F, 0.0);
    assert_int_equal(count_names(path), 2); // the text model is not trained: no model.gguf
}

static void weights_that_are_no_numbers_are_not_saved(void **state) {
    fixture *f = *state;
    pd_error err;
    const pd_checkpoint_run run = {.step = 2, .order = ""};
    const pd_parameter *p = &f->parameters.all[f->parameters.n - 1];
    float *numbers[] = {p->weight->data, p->m->data, p->v->data};
    const float bad[] = {INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < 3; i++) {
        float *last = numbers[i] + ggml_nelements(p->weight) - 1;
        const float kept = *last;
        *last = bad[i];
        assert_int_equal(pd_checkpoint_save(&f->params, &run, &err), PD_ERR_BACKEND);
        assert_non_null(strstr(err.message, p->weight->name));
        assert_int_equal(count_names(f->folder), 0);
        *last = kept;
    }
    save(f, 2);
}

// Matrices only: a vector's type is always f32.
static void weights_beyond_their_type_are_not_saved(void **state) {
    fixture *f = *state;
    pd_error err;
    const pd_checkpoint_run run = {.step = 2, .order = ""};
    pd_parameter *matrix = pd_parameters_find(&f->parameters, "mm.0.weight");
    const struct {
        enum ggml_type type;
        float large;
        bool fits;
    } cases[] = {{GGML_TYPE_F16, 65504.0F, true},        {GGML_TYPE_F16, -65537.0F, false},
                 {GGML_TYPE_BF16, 1e30F, true},          {GGML_TYPE_F32, 1e30F, true},
                 {GGML_TYPE_Q8_0, 127 * 65504.0F, true}, {GGML_TYPE_Q8_0, 1e7F, false}};
    assert_non_null(matrix);
    float *first = matrix->weight->data;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        *first = cases[i].large;
        f->params.type = cases[i].type;
        const pd_status status = pd_checkpoint_save(&f->params, &run, &err);
        assert_int_equal(status, cases[i].fits ? PD_OK : PD_ERR_BACKEND);
        if (!cases[i].fits) assert_non_null(strstr(err.message, "mm.0.weight: expected numbers within"));
        assert_int_equal(count_names(f->folder), 1); // the first case's
    }
}

// What a run began with is told apart by its shapes and by the weights that it leaves as they are.
static void a_model_has_a_fingerprint(void **state) {
    fixture *f = *state;
    pd_error err;
    pd_weights other;
    pd_parameters parameters;
    const uint64_t base = pd_parameters_base(&f->parameters, &f->weights);
    float *trained = f->parameters.all[0].weight->data;
    *trained += 1.0F;
    assert_true(pd_parameters_base(&f->parameters, &f->weights) == base);
    assert_true(
        check(pd_weights_load(PD_TEST_DATA "/parity/mha.gguf", NULL, pd_device_cpu(), &other, &err), &err));
    const pd_trainable trainable = {.groups = {[PD_GROUP_DECODER] = true}};
    assert_true(check(pd_parameters_create(&trainable, &f->backend, &other, &parameters, &err), &err));
    assert_true(pd_parameters_base(&parameters, &other) != base);
    pd_parameters_free(&parameters);
    pd_weights_free(&other);
}

static void own_checkpoints_are_told_from_other_files(void **state) {
    fixture *f = *state;
    pd_error err;
    bool holds = false;
    char path[400];
    save(f, 3);
    snprintf(path, sizeof path, "%s/./checkpoint-3/mmproj.gguf", f->folder);
    assert_true(check(pd_checkpoint_holds(f->folder, "mmproj.gguf", path, &holds, &err), &err));
    assert_true(holds);
    assert_true(check(
        pd_checkpoint_holds(f->folder, "mmproj.gguf", PD_TEST_DATA "/parity/mha-mmproj.gguf", &holds, &err),
        &err));
    assert_false(holds);
}

// ---- folders -----------------------------------------------------------------------------------------------

static void the_newest_is_found_and_the_oldest_go(void **state) {
    fixture *f = *state;
    pd_error err;
    newest_is(f, NULL);
    save(f, 9);
    save(f, 100); // by number, not by name
    newest_is(f, "checkpoint-100");
    save(f, 20);
    newest_is(f, "checkpoint-100");
    assert_true(check(pd_checkpoint_remove(f->folder, 2, &err), &err));
    assert_int_equal(count_names(f->folder), 2);
    save(f, 100); // again, in place of the one there
    assert_int_equal(count_names(f->folder), 2);
    assert_true(check(pd_checkpoint_remove(f->folder, 1, &err), &err));
    newest_is(f, "checkpoint-100");
    assert_int_equal(count_names(f->folder), 1);
    char path[400];
    snprintf(path, sizeof path, "%s/nowhere", f->folder);
    char *newest = NULL;
    assert_int_equal(pd_checkpoint_newest(path, &newest, &err), PD_OK);
    assert_null(newest);
}

static void leftovers_are_removed_and_nothing_else(void **state) {
    static const char *const leftovers[] = {".checkpoint-7.tmp", ".checkpoint-3.removed.tmp"};
    static const char *const others[] = {".checkpoint-7", "checkpoint-", "checkpoint-7.tmp", "checkpoint-x"};
    fixture *f = *state;
    pd_error err;
    char path[400];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", f->folder, leftovers[i]);
        assert_int_equal(mkdir(path, 0777), 0);
        snprintf(path, sizeof path, "%s/%s/state.gguf.00ab12.tmp", f->folder, leftovers[i]);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fclose(file);
    }
    snprintf(path, sizeof path, "%s/model.gguf.00ab12.tmp", f->folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", f->folder, others[i]);
        assert_int_equal(mkdir(path, 0777), 0);
    }
    newest_is(f, NULL);
    assert_int_equal(count_names(f->folder), 7);
    assert_true(check(pd_checkpoint_clean(f->folder, &err), &err));
    assert_int_equal(count_names(f->folder), 4);
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", f->folder, others[i]);
        assert_int_equal(rmdir(path), 0);
    }
}

// ---- the optimiser -----------------------------------------------------------------------------------------

static void a_cancelled_step_is_a_whole_one(void **state) {
    fixture *f = *state;
    pd_error err;
    pd_optimizer *optimizer = NULL;
    assert_true(check(pd_optimizer_create(&f->parameters, &f->backend, &optimizer, &err), &err));
    const pd_adamw_params adamw = {.beta1 = 0.9F,
                                   .beta2 = 0.999F,
                                   .epsilon = 1e-8F,
                                   .learning_rates = {0.5F, 0.5F, 0.5F},
                                   .gradient_scale = 1.0F,
                                   .step = 1};
    const pd_parameter *p = &f->parameters.all[0];
    const int64_t n = ggml_nelements(p->weight);
    float *weight = p->weight->data, *gradient = p->gradient->data,
          *before = malloc((size_t)n * sizeof *before);
    assert_non_null(before);
    memcpy(before, weight, (size_t)n * sizeof *before);
    for (int64_t i = 0; i < n; i++)
        gradient[i] = 1.0F;
    double norm = 0.0;
    atomic_store(&f->cancel, true);
    assert_true(check(pd_optimizer_gradient_norm(optimizer, &norm, &err), &err));
    assert_near(norm, sqrt((double)n), 1e-9);
    assert_true(check(pd_optimizer_step(optimizer, &adamw, &err), &err));
    for (int64_t i = 0; i < n; i++) // the first step's length is the learning rate
        assert_near(weight[i], before[i] - 0.5F, 1e-6);
    free(before);
    pd_optimizer_free(optimizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(saved_state_comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(weights_that_are_no_numbers_are_not_saved, set_up, tear_down),
        cmocka_unit_test_setup_teardown(weights_beyond_their_type_are_not_saved, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_model_has_a_fingerprint, set_up, tear_down),
        cmocka_unit_test_setup_teardown(own_checkpoints_are_told_from_other_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_newest_is_found_and_the_oldest_go, set_up, tear_down),
        cmocka_unit_test_setup_teardown(leftovers_are_removed_and_nothing_else, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_cancelled_step_is_a_whole_one, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
