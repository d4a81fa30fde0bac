// Questions from files, what counts as right, and many questions at a time against one at a time.
#include "eval/ask.h"
#include "eval/scoring.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // wants the above

// ---- question files ---------------------------------------------------------------------------------------

static pd_status parse(const char *text, pd_questions *questions, pd_error *err) {
    return pd_questions_parse(text, strlen(text), "q.json", questions, err);
}

static void test_records(void **state) {
    (void)state;
    pd_questions q;
    pd_error err;
    // LLaVA's question files are lines
    assert_int_equal(
        parse("{\"question_id\": 7, \"image\": \"a.png\", \"text\": \"What?\", \"category\": \"x\"}\r\n\n"
              "{\"question_id\": \"b\", \"text\": \"Who?\", \"image\": null}",
              &q, &err),
        PD_OK);
    assert_int_equal(q.n, 2);
    assert_string_equal(q.items[0].id, "7");
    assert_true(q.items[0].id_is_number);
    assert_string_equal(q.items[0].image, "a.png");
    assert_string_equal(q.items[0].text, "What?");
    assert_string_equal(q.items[0].task, "x");
    assert_null(q.items[0].answer);
    assert_false(q.items[1].id_is_number);
    assert_null(q.items[1].image);
    assert_string_equal(q.items[1].task, "");
    pd_questions_free(&q);

    assert_int_equal(
        parse(" [{\"id\":\"s-1\",\"image\":\"i/1.png\",\"task\":\"colors\",\"held_out\":true,"
              "\"question\":\"Caf\\u00e9?\",\"answer\":\"red\"},{\"question\":\"a\",\"label\":\"no\"}]\n",
              &q, &err),
        PD_OK);
    assert_int_equal(q.n, 2);
    assert_string_equal(q.items[0].text, "Caf\xc3\xa9?");
    assert_string_equal(q.items[0].answer, "red");
    assert_true(q.items[0].held_out);
    assert_string_equal(q.items[1].id, "2");
    assert_string_equal(q.items[1].answer, "no");
    assert_false(q.items[1].held_out);
    pd_questions_free(&q);
}

static void test_conversations(void **state) {
    (void)state;
    pd_questions q;
    pd_error err;
    assert_int_equal(
        parse("[{\"id\":5,\"image\":\"a.png\",\"conversations\":[{\"from\":\"human\",\"value\":\"<image>"
              "\\nWhat?\"},"
              "{\"from\":\"gpt\",\"value\":\"cat\"},{\"from\":\"human\",\"value\":\"Where?\\n<image>\"}]}]",
              &q, &err),
        PD_OK);
    assert_int_equal(q.n, 2);
    assert_string_equal(q.items[0].id, "5");
    assert_string_equal(q.items[0].text, "What?");
    assert_string_equal(q.items[0].answer, "cat");
    assert_string_equal(q.items[1].id, "5/2");
    assert_false(q.items[1].id_is_number);
    assert_string_equal(q.items[1].image, "a.png");
    assert_string_equal(q.items[1].text, "Where?");
    assert_null(q.items[1].answer);
    pd_questions_free(&q);
}

static void expect_failure(const char *text, const char *message) {
    pd_questions q;
    pd_error err;
    assert_int_equal(parse(text, &q, &err), PD_ERR_FORMAT);
    assert_non_null(strstr(err.message, message));
    assert_null(q.items);
    assert_null(q.blocks);
}

static void test_broken_files(void **state) {
    (void)state;
    expect_failure("", "q.json: expected questions, found none");
    expect_failure("[]", "q.json: expected questions, found none");
    expect_failure("{\"text\":\"a\"}\n{\"text\":,}\n", "q.json: line 2, column 9: broken JSON: ");
    expect_failure("[{\"text\":\"a\"},\n {\"text\" 1}]", "q.json: line 2, column 10: broken JSON: ");
    expect_failure("[3]", "q.json: record 1: expected an object, found uint");
    expect_failure("{\"text\":\"a\"}\n{\"id\":1}",
                   "q.json: record 2: text: expected a string, found nothing");
    expect_failure("{\"question\":7}", "q.json: record 1: question: expected a string, found uint");
    expect_failure("{\"text\":\"a\\u0000b\"}", "record 1: text: expected text, found the character U+0000");
    expect_failure("{\"text\":\"a\",\"image\":[\"x\"]}", "record 1: image: expected a string, found array");
    expect_failure("{\"text\":\"a\",\"image\":\"\"}", "record 1: image: expected a file's name, found \"\"");
    expect_failure("{\"text\":\"a\",\"id\":1.5}",
                   "record 1: id: expected a string or a whole number, found real");
    expect_failure("{\"text\":\"a\",\"held_out\":1}",
                   "record 1: held_out: expected true or false, found uint");
    expect_failure("{\"conversations\":{}}", "record 1: conversations: expected a list, found object");
    expect_failure("{\"conversations\":[{\"from\":\"gpt\",\"value\":\"x\"}]}",
                   "expected a turn of the user's, found none");
    expect_failure("{\"conversations\":[{\"from\":\"human\"}]}",
                   "conversations: value: expected a string, found nothing");
    pd_questions q;
    pd_error err;
    assert_int_equal(pd_questions_read("/nowhere/q.json", &q, &err), PD_ERR_IO);
}

// ---- right or wrong ---------------------------------------------------------------------------------------

static void test_rule(void **state) {
    (void)state;
    static const struct {
        const char *text, *bare;
    } cases[] = {
        {"Red.", "red"},
        {"  The   CAT!\n", "the cat"},
        {"top-left", "topleft"},
        {"$1,000.50!", "1000.50"},
        {"-3", "-3"},
        {"a -3", "a -3"},
        {"3-4", "34"},
        {"3.", "3"},
        {".5", "5"},
        {"\"yes\"", "yes"},
        {"", ""},
        {" . ", ""},
        {"Caf\xc3\xa9", "caf\xc3\xa9"},
        {"a , b", "a b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char bare[32];
        pd_lay_bare(cases[i].text, bare);
        assert_string_equal(bare, cases[i].bare);
    }
    bool right;
    assert_int_equal(pd_answer_is_right(" Bottom Right.", "bottom right", &right, NULL), PD_OK);
    assert_true(right);
    assert_int_equal(pd_answer_is_right("red and blue", "red", &right, NULL), PD_OK);
    assert_false(right);
    assert_int_equal(pd_answer_is_right("35", "3.5", &right, NULL), PD_OK);
    assert_false(right);
}

// The roots p of (p - right/n)² = z² p (1 - p) / n, in decimal arithmetic of 30 digits.
static void test_interval(void **state) {
    (void)state;
    static const struct {
        int64_t right, n;
        double low, high;
    } cases[] = {{0, 0, 0, 1},
                 {0, 10, 0, 0.2775328},
                 {8, 10, 0.4901625, 0.9433178},
                 {95, 100, 0.8882495, 0.9784563},
                 {10, 10, 0.7224672, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double low, high;
        pd_share_interval(cases[i].right, cases[i].n, &low, &high);
        assert_true(fabs(low - cases[i].low) < 1e-6);
        assert_true(fabs(high - cases[i].high) < 1e-6);
    }
}

static void test_scores(void **state) {
    (void)state;
    pd_scores s = {0};
    for (int i = 0; i < 40; i++) {
        char task[8];
        snprintf(task, sizeof task, "t%d", i % 20);
        assert_int_equal(pd_scores_add(&s, task, i % 4 == 0, i % 3 == 0, NULL), PD_OK);
    }
    assert_int_equal(s.n, 21);
    assert_string_equal(s.rows[0].task, "all");
    assert_int_equal(s.rows[0].n, 40);
    assert_int_equal(s.rows[0].right, 14);
    assert_int_equal(s.rows[0].n_held_out, 10);
    assert_int_equal(s.rows[0].right_held_out, 4); // 0, 12, 24, 36
    assert_string_equal(s.rows[1].task, "t0");
    assert_int_equal(s.rows[1].n, 2);
    assert_int_equal(s.rows[1].right, 1);
    assert_int_equal(s.rows[4].n_held_out, 0);
    pd_scores_free(&s);
}

// ---- asking -----------------------------------------------------------------------------------------------

enum { N_QUESTIONS = 9 };

typedef struct {
    const pd_eval_question *first; // the list's
    size_t n;
    char *texts[N_QUESTIONS];
    int32_t n_image_tokens[N_QUESTIONS];
    size_t stop_after;   // answers; 0: never
    atomic_bool *cancel; // set after as many; NULL: fail instead
} heard;

static pd_status hear(const pd_eval_question *question, const pd_eval_answer *answer, void *user,
                      pd_error *err) {
    heard *h = user;
    assert_ptr_equal(question, &h->first[h->n]); // in order
    h->texts[h->n] = strdup(answer->text);
    h->n_image_tokens[h->n] = answer->n_image_tokens;
    h->n++;
    if (h->n != h->stop_after) return PD_OK;
    if (!h->cancel) return pd_fail(err, PD_ERR_IO, "enough");
    atomic_store(h->cancel, true);
    return PD_OK;
}

static void forget(heard *h) {
    for (size_t i = 0; i < h->n; i++)
        free(h->texts[i]);
}

static pd_status ask(pd_model *model, const pd_questions *q, int32_t n_sessions, heard *h, pd_error *err) {
    pd_session_params session;
    pd_session_params_default(&session, sizeof session);
    session.n_predict = 6;
    session.n_threads = n_sessions; // one each, for ThreadSanitizer does not understand OpenMP teams
    h->first = q->items;
    const pd_eval_params params = {.model = model,
                                   .session = &session,
                                   .image_folder = PD_TEST_DATA "/parity",
                                   .n_sessions = n_sessions,
                                   .cancel = h->cancel,
                                   .on_answer = hear,
                                   .user = h};
    return pd_eval_ask(&params, q, err);
}

static pd_model *load(void) {
    pd_error err;
    pd_model_params params;
    pd_model_params_default(&params, sizeof params);
    params.model_path = PD_TEST_DATA "/parity/mha.gguf";
    params.mmproj_path = PD_TEST_DATA "/parity/mha-mmproj.gguf";
    params.compute = PD_COMPUTE_F32;
    pd_model *model;
    if (pd_model_load(&params, &model, &err) != PD_OK) fail_msg("%s", err.message);
    return model;
}

static void make_questions(pd_questions *q) {
    char text[4096] = "";
    for (int i = 0; i < N_QUESTIONS; i++) {
        const size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "{\"id\":%d,%s\"text\":\"%c%c what is it\"}\n", i,
                 i % 4 == 3 ? "" : "\"image\":\"tile.png\",", 'a' + i, 'z' - i);
    }
    pd_error err;
    if (parse(text, q, &err) != PD_OK) fail_msg("%s", err.message);
}

static void test_at_a_time(void **state) {
    (void)state;
    pd_model *model = load();
    pd_questions q;
    make_questions(&q);
    heard one = {0}, three = {0};
    pd_error err;
    assert_int_equal(ask(model, &q, 1, &one, &err), PD_OK);
    assert_int_equal(ask(model, &q, 3, &three, &err), PD_OK);
    assert_int_equal(one.n, N_QUESTIONS);
    assert_int_equal(three.n, N_QUESTIONS);
    bool differ = false;
    for (size_t i = 0; i < N_QUESTIONS; i++) {
        assert_string_equal(one.texts[i], three.texts[i]);
        assert_int_equal(one.n_image_tokens[i] > 0, i % 4 != 3);
        assert_int_equal(one.n_image_tokens[i], three.n_image_tokens[i]);
        differ = differ || strcmp(one.texts[i], one.texts[0]) != 0;
    }
    assert_true(differ); // else equal answers would mean nothing
    forget(&one);
    forget(&three);
    pd_questions_free(&q);
    pd_model_free(model);
}

static void test_stops(void **state) {
    (void)state;
    pd_model *model = load();
    pd_questions q;
    make_questions(&q);
    pd_error err;
    heard h = {.stop_after = 3};
    assert_int_equal(ask(model, &q, 2, &h, &err), PD_ERR_IO);
    assert_string_equal(err.message, "enough");
    assert_int_equal(h.n, 3);
    forget(&h);
    atomic_bool cancel = false;
    h = (heard){.stop_after = 3, .cancel = &cancel};
    const pd_status status = ask(model, &q, 2, &h, &err);
    assert_true(status == PD_ERR_CANCELLED ||
                (status == PD_OK && h.n == N_QUESTIONS)); // all had been answered
    forget(&h);
    atomic_store(&cancel, false);
    h = (heard){.stop_after = 3, .cancel = &cancel};
    assert_int_equal(ask(model, &q, 1, &h, &err), PD_ERR_CANCELLED); // one at a time: they had not
    assert_true(h.n < N_QUESTIONS);
    forget(&h);
    pd_questions_free(&q);
    assert_int_equal(parse("{\"id\":\"x y\",\"image\":\"absent.png\",\"text\":\"a\"}\n", &q, &err), PD_OK);
    h = (heard){0};
    assert_int_equal(ask(model, &q, 2, &h, &err), PD_ERR_IO);
    assert_non_null(strstr(err.message, "question x y: "));
    assert_non_null(strstr(err.message, "absent.png: cannot open"));
    pd_questions_free(&q);
    pd_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records),      cmocka_unit_test(test_conversations),
        cmocka_unit_test(test_broken_files), cmocka_unit_test(test_rule),
        cmocka_unit_test(test_interval),     cmocka_unit_test(test_scores),
        cmocka_unit_test(test_at_a_time),    cmocka_unit_test(test_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
