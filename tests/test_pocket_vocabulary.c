// models/pocket/vocabulary.gguf: our tokenizer against what sentencepiece makes of the data set's text
// (tools/make_vocabulary.py --golden).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "golden_files.h"

#include <stdlib.h>
#include <string.h>

static const char vocabulary[] = PD_TEST_DATA "/../../models/pocket/vocabulary.gguf";

static void vocabulary_is_what_the_geometry_expects(void **state) {
    (void)state;
    pd_tokenizer *tokenizer = open_vocabulary(vocabulary);
    assert_int_equal(pd_tokenizer_n_vocab(tokenizer), 1152);
    assert_int_equal(pd_tokenizer_bos(tokenizer), 1);
    assert_int_equal(pd_tokenizer_eos(tokenizer), 2);
    assert_int_equal(pd_tokenizer_find(tokenizer, "<unk>"), 0);
    assert_true(pd_tokenizer_add_bos(tokenizer));
    assert_true(pd_tokenizer_add_space_prefix(tokenizer));
    assert_true(pd_tokenizer_find(tokenizer, "<0x0A>") > 0);
    pd_tokenizer_free(tokenizer);
}

// The environment's PD_ENCODINGS may name a longer file of the same form.
static void texts_become_the_tokens_of_sentencepiece(void **state) {
    (void)state;
    const char *path = getenv("PD_ENCODINGS");
    if (!path) path = PD_TEST_DATA "/pocket/encodings.json";
    yyjson_doc *doc = read_json_file(path);
    yyjson_val *root = yyjson_doc_get_root(doc);
    assert_true(yyjson_arr_size(root) >= 100);
    pd_tokenizer *tokenizer = open_vocabulary(vocabulary);
    pd_error err;
    size_t i, max;
    yyjson_val *value;
    yyjson_arr_foreach(root, i, max, value) {
        yyjson_val *text = yyjson_obj_get(value, "text"), *expected = yyjson_obj_get(value, "tokens");
        int32_t *tokens = NULL;
        size_t n = 0;
        if (pd_tokenizer_encode(tokenizer, yyjson_get_str(text), yyjson_get_len(text), false, false, &tokens,
                                &n, &err) != PD_OK)
            fail_msg("%s", err.message);
        if (n != yyjson_arr_size(expected))
            fail_msg("\"%s\": expected %zu tokens, found %zu", yyjson_get_str(text),
                     yyjson_arr_size(expected), n);
        for (size_t k = 0; k < n; k++) {
            const int64_t token = yyjson_get_int(yyjson_arr_get(expected, k));
            if (tokens[k] != token)
                fail_msg("\"%s\": token %zu: expected %d, found %d", yyjson_get_str(text), k, (int)token,
                         tokens[k]);
        }
        free(tokens);
    }
    pd_tokenizer_free(tokenizer);
    yyjson_doc_free(doc);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vocabulary_is_what_the_geometry_expects),
        cmocka_unit_test(texts_become_the_tokens_of_sentencepiece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
