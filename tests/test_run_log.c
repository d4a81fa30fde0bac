// A training log as pdrop report reads it: sums, points of long logs, numbers that are none, broken lines.
#include "train/run_log.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // wants the above

static pd_status read_text(const char *text, pd_run_log *log, pd_error *err) {
    FILE *stream = fmemopen((void *)text, strlen(text), "rb");
    assert_non_null(stream);
    const pd_status status = pd_run_log_read_stream(stream, "log.jsonl", log, err);
    fclose(stream);
    return status;
}

static void test_sums(void **state) {
    (void)state;
    pd_run_log log;
    pd_error err;
    assert_int_equal(
        read_text("{\"step\":1,\"epoch\":0.5,\"loss\":4,\"learning_rate\":0,\"grad_norm\":2,\"labels\":10,"
                  "\"rows\":300,\"image_rows\":200,\"image_rows_mean\":100,\"step_ms\":500,\"wait_ms\":100,"
                  "\"tokens_per_second\":600}\r\n"
                  "\n"
                  "{\"step\":2,\"epoch\":1,\"loss\":2,\"learning_rate\":0.001,\"grad_norm\":1,\"labels\":20,"
                  "\"rows\":50,\"image_rows\":0,\"image_rows_mean\":0,\"step_ms\":1500,\"wait_ms\":0,"
                  "\"tokens_per_second\":33.3}\n",
                  &log, &err),
        PD_OK);
    assert_int_equal(log.n_points, 2);
    assert_int_equal(log.n_steps, 2);
    assert_int_equal(log.last_step, 2);
    assert_true(log.epoch == 1 && log.seconds == 2 && log.wait_seconds == 0.1);
    assert_true(log.n_rows == 350 && log.n_labels == 30 && log.image_kept == 0.5);
    assert_int_equal(log.n_bad_losses, 0);
    assert_int_equal(log.n_without_loss, 0);
    assert_false(log.cut_short);
    assert_true(log.points[0].seconds == 0.5 && log.points[1].seconds == 2);
    assert_true(log.points[1].curves[PD_RUN_LOSS].mean == 2);
    assert_true(log.points[1].curves[PD_RUN_STEP_SECONDS].mean == 1.5);
    assert_int_equal(log.points[0].curves[PD_RUN_IMAGE_KEPT].n, 1);
    assert_int_equal(log.points[1].curves[PD_RUN_IMAGE_KEPT].n, 0); // text only
    pd_run_log_free(&log);
}

static void test_no_numbers(void **state) {
    (void)state;
    pd_run_log log;
    pd_error err;
    assert_int_equal(
        read_text("{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":nan}\n{\"step\":3,\"loss\":-inf}\n"
                  "{\"step\":4,\"loss\":1e300}\n{\"step\":5,\"loss\":1e999}\n{\"step\":6,\"loss\":"
                  "null}\n{\"step\":7,\"loss\":5,\"grad_norm\":inf,\"step_ms\":1e300}\n",
                  &log, &err),
        PD_OK);
    assert_int_equal(log.n_steps, 7);
    assert_int_equal(log.n_bad_losses, 3); // 1e300 is a number, but beyond what a curve shows
    assert_int_equal(log.n_without_loss, 1);
    for (int i = 1; i < 6; i++)
        assert_int_equal(log.points[i].curves[PD_RUN_LOSS].n, 0);
    assert_int_equal(log.points[6].curves[PD_RUN_GRADIENT_NORM].n, 0);
    assert_true(isnan(log.seconds) && isnan(log.epoch) && isnan(log.image_kept));
    assert_true(isnan(log.wait_seconds) && isnan(log.n_rows) && isnan(log.n_labels));
    assert_true(log.points[6].seconds == 0);
    double smoothed[7];
    pd_run_log_smooth(&log, PD_RUN_LOSS, 1, smoothed);
    assert_true(fabs(smoothed[0] - 3) < 1e-6); // the other value is six sigmas away
    assert_true(fabs(smoothed[3] - 4) < 1e-9); // half way
    assert_true(fabs(smoothed[6] - 5) < 1e-6);
    pd_run_log_smooth(&log, PD_RUN_LOSS, 0.3, smoothed);
    assert_true(isnan(smoothed[3]));
    pd_run_log_free(&log);
}

// Of more steps than there are points: nothing is lost from sums, means, lows and highs.
static void test_long_log(void **state) {
    (void)state;
    enum { N = 1000 * 8 + 3 };
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    for (int i = 1; i <= N; i++)
        fprintf(out, "{\"step\":%d,\"loss\":%d,\"step_ms\":250}\n", 10 * i, i == 5000 ? 100000 : i % 2);
    fclose(out);
    pd_run_log log;
    pd_error err;
    assert_int_equal(read_text(text, &log, &err), PD_OK);
    free(text);
    assert_int_equal(log.stride, 16);
    assert_int_equal(log.n_points, (N + 15) / 16);
    assert_int_equal(log.n_steps, N);
    assert_true(log.seconds == 0.25 * N);
    int64_t steps = 0;
    double sum = 0, high = 0;
    for (size_t i = 0; i < log.n_points; i++) {
        const pd_run_point *point = &log.points[i];
        const pd_run_value *loss = &point->curves[PD_RUN_LOSS];
        assert_int_equal(point->first_step, 10 * (steps + 1));
        steps += point->n_steps;
        assert_int_equal(point->last_step, 10 * steps);
        assert_true(point->seconds == 0.25 * (double)steps);
        assert_int_equal(loss->n, point->n_steps);
        assert_true(loss->low == (loss->n == 1 ? 1 : 0) && loss->high >= 1);
        sum += loss->mean * (double)loss->n;
        high = fmax(high, loss->high);
    }
    assert_int_equal(steps, N);
    assert_true(high == 100000);
    assert_true(fabs(sum - (N / 2 + 1 + 100000)) < 1e-6);
    pd_run_log_free(&log);
}

static void expect_failure(const char *text, const char *message) {
    pd_run_log log;
    pd_error err;
    assert_int_equal(read_text(text, &log, &err), PD_ERR_FORMAT);
    assert_string_equal(err.message, message);
    assert_null(log.points);
}

static void test_broken(void **state) {
    (void)state;
    expect_failure(" \n", "log.jsonl: expected a line a step, found none");
    expect_failure("{\"step\":1,\"loss\":1}\n[1]\n", "log.jsonl: line 2: expected an object, found array");
    expect_failure("\n{\"loss\":1}\n", "log.jsonl: line 2: step: expected a whole number, found nothing");
    expect_failure("{\"step\":-1,\"loss\":1}\n",
                   "log.jsonl: line 1: step: expected a whole number, found sint");
    expect_failure("{\"step\":1.5,\"loss\":1}\n",
                   "log.jsonl: line 1: step: expected a whole number, found real");
    expect_failure("{\"step\":1}\n", "log.jsonl: line 1: loss: expected a number, found nothing");
    expect_failure("{\"step\":1,\"loss\":\"2\"}\n",
                   "log.jsonl: line 1: loss: expected a number, found string");
    expect_failure("{\"step\":1,\"loss\":2,\"step_ms\":-3}\n",
                   "log.jsonl: line 1: step_ms: expected a number of at least 0, found -3");
    expect_failure("{\"step\":2,\"loss\":2}\n{\"step\":2,\"loss\":2}\n",
                   "log.jsonl: line 2: step: expected one behind 2, found 2");
    pd_run_log log;
    pd_error err;
    assert_int_equal(
        read_text("{\"step\":1,\"loss\":1}\n{\"step\":2,,}\n{\"step\":3,\"loss\":1}\n", &log, &err),
        PD_ERR_FORMAT);
    assert_non_null(strstr(err.message, "log.jsonl: line 2, column 11: broken JSON: "));
    assert_int_equal(pd_run_log_read("/nowhere/log.jsonl", &log, &err), PD_ERR_IO);
    assert_string_equal(err.message, "/nowhere/log.jsonl: cannot open: No such file or directory");
}

// A run that is still going on, or was killed, may have half a line at its end.
static void test_half_line(void **state) {
    (void)state;
    pd_run_log log;
    pd_error err;
    assert_int_equal(read_text("{\"step\":1,\"loss\":1}\n{\"step\":2,\"lo", &log, &err), PD_OK);
    assert_int_equal(log.n_steps, 1);
    assert_true(log.cut_short);
    pd_run_log_free(&log);
    assert_int_equal(read_text("{\"step\":1,\"loss\":1}\n{\"step\":2,\"loss\":1}", &log, &err), PD_OK);
    assert_int_equal(log.n_steps, 2);
    assert_false(log.cut_short);
    pd_run_log_free(&log);
}

static void test_long_line(void **state) {
    (void)state;
    char *text = malloc(PD_RUN_LONGEST_LINE + 64);
    assert_non_null(text);
    memset(text, ' ', PD_RUN_LONGEST_LINE);
    const char *end = "{\"step\":1,\"loss\":1}\n";
    strcpy(text + PD_RUN_LONGEST_LINE - strlen(end) + 1, end);
    pd_run_log log;
    pd_error err;
    assert_int_equal(read_text(text, &log, &err), PD_OK);
    pd_run_log_free(&log);
    text[PD_RUN_LONGEST_LINE] = ' ';
    strcpy(text + PD_RUN_LONGEST_LINE + 1, "\n");
    expect_failure(text, "log.jsonl: line 1: longer than 65535 bytes");
    free(text);
}

// What a run keeps that goes on behind a step.
static void test_whole_lines(void **state) {
    (void)state;
    static const char first[] = "{\"step\":1,\"loss\":nan}\n\n";
    static const char second[] = "{\"step\":2,\"loss\":null}\r\n";
    static const char *const ends[] = {"{\"step\":3,\"lo",
                                       "{\"step\":3}",
                                       "{\"step\":3,,}\n",
                                       "[3]\n",
                                       "{\"step\":2}\n",
                                       "{\"step\":-3}\n",
                                       "{\"step\":18446744073709551615}\n",
                                       ""};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        char text[128];
        const size_t size = (size_t)snprintf(text, sizeof text, "%s%s%s", first, second, ends[i]);
        assert_int_equal(pd_run_log_whole_lines(text, size, 1), sizeof first - 1);
        assert_int_equal(pd_run_log_whole_lines(text, size, 2), sizeof first + sizeof second - 2);
        assert_int_equal(pd_run_log_whole_lines(text, size, INT64_MAX), sizeof first + sizeof second - 2);
    }
    assert_int_equal(pd_run_log_whole_lines(first, sizeof first - 1, 0), 0);
    assert_int_equal(pd_run_log_whole_lines(NULL, 0, 5), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),        cmocka_unit_test(test_no_numbers),
        cmocka_unit_test(test_long_log),    cmocka_unit_test(test_broken),
        cmocka_unit_test(test_half_line),   cmocka_unit_test(test_long_line),
        cmocka_unit_test(test_whole_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
