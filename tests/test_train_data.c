// Training data against LLaVA's own code (golden/make_labels.py): records, labels, the order of samples; and
// the loader, which must give the same samples with any number of threads and from any position.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"
#include "checks.h"
#include "golden_files.h"
#include "train/loader.h"
#include "train/python_text.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <yyjson.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static char directory[256];

static int make_directory(void **state) {
    (void)state;
    return make_test_folder(directory, sizeof directory, "train_data") ? 0 : -1;
}

static int remove_directory(void **state) {
    (void)state;
    char path[300];
    const char *const names[] = {"data.json", "labels.json", "broken.jpg"};
    for (size_t i = 0; i < COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        unlink(path);
    }
    return rmdir(directory);
}

static const char *path_of(const char *name) {
    static char path[300];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void write_file(const char *name, const char *bytes, size_t size) {
    FILE *file = fopen(path_of(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static pd_tokenizer *open_tokenizer(const char *name) {
    char path[128];
    const bool own = strstr(name, "bos") != NULL;
    snprintf(path, sizeof path, "%s/%s", own ? "train" : "text", name);
    return open_golden_vocabulary(path);
}

static pd_dataset *open_text(const char *text, size_t size) {
    write_file("data.json", text, size);
    pd_dataset *dataset = NULL;
    pd_error err;
    if (pd_dataset_open(path_of("data.json"), &dataset, &err) != PD_OK) fail_msg("%s", err.message);
    return dataset;
}

// ---- labels -----------------------------------------------------------------------------------------------

static bool is_learnt(yyjson_val *spans, int64_t token) {
    size_t i;
    size_t max;
    yyjson_val *span;
    yyjson_arr_foreach(spans, i, max, span) {
        if (token >= yyjson_get_sint(yyjson_arr_get(span, 0)) &&
            token < yyjson_get_sint(yyjson_arr_get(span, 1)))
            return true;
    }
    return false;
}

static bool has_answer(const pd_record *record) {
    for (int32_t i = 1; i < record->n_turns; i++) { // an assistant's first turn does not count
        if (record->roles[i] == PD_ROLE_ASSISTANT && *record->texts[i]) return true;
    }
    return false;
}

static void expect_labels(yyjson_val *one, const pd_record *record, const pd_labelled *found) {
    yyjson_val *tokens = yyjson_obj_get(one, "tokens");
    yyjson_val *spans = yyjson_obj_get(one, "spans");
    const int32_t max_length = (int32_t)yyjson_get_sint(yyjson_obj_get(one, "max_length"));
    // LLaVA cuts a text without pictures off at once.
    const int32_t n = record->n_images == 0 && found->n > max_length ? max_length : found->n;
    bool same = yyjson_arr_size(tokens) == (size_t)n &&
                found->mismatch == yyjson_get_bool(yyjson_obj_get(one, "mismatch"));
    size_t i;
    size_t max;
    yyjson_val *token;
    yyjson_arr_foreach(tokens, i, max, token) {
        if (!same) break;
        const int64_t expected = yyjson_get_sint(token);
        const int64_t label = is_learnt(spans, (int64_t)i) ? expected : PD_IGNORE_INDEX;
        same = found->tokens[i] == expected && found->labels[i] == label;
    }
    if (same) return;
    char *json = yyjson_val_write(one, 0, NULL);
    print_error("expected %s\nfound", json);
    for (int32_t k = 0; k < found->n; k++)
        print_error(" %d%s", found->tokens[k], found->labels[k] == PD_IGNORE_INDEX ? "" : "*");
    print_error("%s\n", found->mismatch ? " mismatch" : "");
    free(json);
    fail();
}

static void test_labels(void **state) {
    (void)state;
    yyjson_doc *doc = read_golden("train/labels.json");
    yyjson_val *root = yyjson_doc_get_root(doc);
    size_t size = 0;
    char *records = yyjson_val_write(yyjson_obj_get(root, "records"), 0, &size);
    pd_dataset *dataset = open_text(records, size);
    free(records);
    const char *opened = "";
    pd_tokenizer *tokenizer = NULL;
    size_t n_labelled = 0;
    size_t n_refused = 0;
    size_t i;
    size_t max;
    yyjson_val *one;
    yyjson_arr_foreach(yyjson_obj_get(root, "cases"), i, max, one) {
        const char *vocabulary = yyjson_get_str(yyjson_obj_get(one, "vocabulary"));
        if (strcmp(vocabulary, opened) != 0) {
            pd_tokenizer_free(tokenizer);
            tokenizer = open_tokenizer(vocabulary);
            opened = vocabulary;
        }
        pd_label_params params = {.tokenizer = tokenizer,
                                  .legacy = yyjson_get_bool(yyjson_obj_get(one, "legacy")),
                                  .model_max_length =
                                      (int32_t)yyjson_get_sint(yyjson_obj_get(one, "max_length"))};
        pd_error err;
        const char *template = yyjson_get_str(yyjson_obj_get(one, "template"));
        assert_int_equal(pd_conversation_find(template, &params.conversation, &err), PD_OK);
        pd_record record;
        const int32_t index = (int32_t)yyjson_get_sint(yyjson_obj_get(one, "record"));
        assert_int_equal(pd_dataset_read(dataset, index, &record, &err), PD_OK);
        pd_labelled labelled;
        const pd_status status = pd_label_conversation(&params, &record, &labelled, &err);
        if (!yyjson_obj_get(one, "tokens") || !has_answer(&record)) {
            assert_int_equal(status, PD_ERR_FORMAT);
            assert_null(labelled.tokens);
            n_refused++;
        } else {
            if (status != PD_OK) fail_msg("%s, record %d: %s", template, index, err.message);
            expect_labels(one, &record, &labelled);
            n_labelled++;
        }
        pd_labelled_free(&labelled);
        pd_record_free(&record);
    }
    assert_true(n_labelled > 400 && n_refused > 50);
    pd_tokenizer_free(tokenizer);
    pd_dataset_free(dataset);
    yyjson_doc_free(doc);
}

static void label_one(const char *json, const char *vocabulary, const char *template, pd_labelled *labelled,
                      pd_status expected, const char *message) {
    pd_dataset *dataset = open_text(json, strlen(json));
    pd_tokenizer *tokenizer = open_tokenizer(vocabulary);
    pd_label_params params = {.tokenizer = tokenizer, .legacy = true, .model_max_length = 2048};
    pd_error err = {0};
    assert_int_equal(pd_conversation_find(template, &params.conversation, &err), PD_OK);
    pd_record record;
    assert_int_equal(pd_dataset_read(dataset, 0, &record, &err), PD_OK);
    const pd_status status = pd_label_conversation(&params, &record, labelled, &err);
    if (status != expected) fail_msg("%s: %s", template, err.message);
    if (message && !strstr(err.message, message)) fail_msg("%s", err.message);
    pd_record_free(&record);
    pd_tokenizer_free(tokenizer);
    pd_dataset_free(dataset);
}

#define HUMAN(text) "{\"from\":\"human\",\"value\":\"" text "\"}"
#define GPT(text)   "{\"from\":\"gpt\",\"value\":\"" text "\"}"

// The learnt tokens' text.
static void expect_learnt(const char *vocabulary, const char *template, const char *json, const char *text) {
    pd_labelled labelled;
    label_one(json, vocabulary, template, &labelled, PD_OK, NULL);
    pd_tokenizer *tokenizer = open_tokenizer(vocabulary);
    char found[500] = "";
    for (int32_t i = 0; i < labelled.n; i++) {
        if (labelled.labels[i] == PD_IGNORE_INDEX) continue;
        const char *piece;
        size_t size;
        assert_int_equal(pd_tokenizer_piece(tokenizer, labelled.labels[i], true, &piece, &size, NULL), PD_OK);
        strncat(found, piece, size);
    }
    assert_string_equal(found, text);
    pd_tokenizer_free(tokenizer);
    pd_labelled_free(&labelled);
}

// Vocabularies for which LLaVA has no code: the answers and their ends, nothing else.
static void test_other_vocabularies(void **state) {
    (void)state;
    const char *json =
        "[{\"conversations\":[" HUMAN("What?") "," GPT("A cat.") "," HUMAN("Why?") "," GPT("I see it.") "]}]";
    expect_learnt("llama3", "vicuna_v1", json, " A cat.</s> I see it.</s>");
    expect_learnt("smollm", "smollm", json, "A cat.<|im_end|>I see it.<|im_end|>");
    expect_learnt("no_bos", "vicuna_v1", json, " A cat.</s> I see it.</s>");
    expect_learnt("llama3", "llama3", json, "A cat.<|eot_id|>I see it.<|eot_id|>");
}

// The other names of speakers mean the same.
static void test_speakers(void **state) {
    (void)state;
    expect_learnt(
        "bos", "vicuna_v1",
        "{\"conversations\":[{\"from\":\"user\",\"value\":\"Q\"},{\"from\":\"assistant\",\"value\":\"A\"}]}",
        " A</s>");
}

static void test_label_errors(void **state) {
    (void)state;
    pd_labelled labelled;
    const char *text = "[{\"conversations\":[" HUMAN("Q") "," GPT("A") "]}]";
    label_one(text, "bos", "v0", &labelled, PD_ERR_UNSUPPORTED, "v0");
    label_one(text, "bos", "plain", &labelled, PD_ERR_FORMAT, "plain expects");
    label_one("[{\"conversations\":[" HUMAN("Q") "," GPT("") "]}]", "bos", "v1", &labelled, PD_ERR_FORMAT,
              "expected an answer");
    label_one("[{\"conversations\":[" HUMAN("") "," GPT("A") "]}]", "bos", "llama_2", &labelled,
              PD_ERR_FORMAT, "not empty");
    label_one("[{\"image\":\"a\",\"conversations\":[" HUMAN("<im<image>age>") "," GPT("A") "]}]", "bos", "v1",
              &labelled, PD_ERR_FORMAT, "2 places for 1 pictures");
}

// ---- data sets --------------------------------------------------------------------------------------------

static void expect_error(const char *json, size_t size, const char *expected) {
    write_file("data.json", json, size);
    pd_dataset *dataset = NULL;
    pd_error err = {0};
    assert_int_not_equal(pd_dataset_open(path_of("data.json"), &dataset, &err), PD_OK);
    assert_null(dataset);
    if (!strstr(err.message, expected)) fail_msg("expected \"%s\", found \"%s\"", expected, err.message);
    if (!strstr(err.message, path_of("data.json"))) fail_msg("no file in \"%s\"", err.message);
}

static void test_dataset_errors(void **state) {
    (void)state;
    static const struct {
        const char *json;
        const char *message;
    } cases[] = {
        {"", "the file is empty"},
        {" \n ", "the file is empty"},
        {"[]", "expected at least one record"},
        {"[] x", "line 1, column 4: expected nothing behind"},
        {"17", "line 1, column 1: expected a list of records"},
        {"[17]", "line 1, column 2: expected a record"},
        {"[\n {\"a\": 1,}]", "line 2, column 9: trailing comma"},
        {"[{\"conversations\":[" HUMAN("Q") "]}", "line 1, column 50: expected \",\" or \"]\""},
        {"[{\"conversations\":[" HUMAN("Q") "]} {}]", "expected \",\" or \"]\""},
        {"[{\"conversations\":[" HUMAN("Q") "]},]", "expected a record"},
        {"[{\"conversations\":[" HUMAN("Q") "]}] []", "expected nothing behind the list"},
        {"{\"conversations\":[" HUMAN("\xc3\xa9") "]}\n\n  {\"a\": nul}", "line 3, column 9"},
        {"{\"conversations\":[" HUMAN("Q") "]}\n[]", "line 2, column 1: expected a record"},
        {"[{\"id\":\"\xc3\xa9\" x", "line 1, column 12"},
        {"[{\"id\": \"x\"}]", "record 0 (id \"x\"): conversations: expected a list of turns, found nothing"},
        {"[{\"id\": 7, \"conversations\": []}]", "record 0 (id 7): conversations: expected a list of turns"},
        {"[{\"conversations\": {}}]", "conversations: expected a list of turns, found object"},
        {"[{\"conversations\": [1]}]", "conversations[0]: expected an object"},
        {"[{\"conversations\": [{\"value\": \"\"}]}]",
         "conversations[0].from: expected a string, found nothing"},
        {"[{\"conversations\": [{\"from\": \"bot\"}]}]", "conversations[0].from: expected \"human\""},
        {"[{\"conversations\": [{\"from\": \"gpt\", \"value\": 1}]}]",
         "conversations[0].value: expected a string"},
        {"[{\"conversations\": [" HUMAN("\\u0000") "]}]", "conversations[0].value: expected text"},
        {"[{\"conversations\": [" HUMAN("a") "," HUMAN("b") "]}]",
         "conversations[1].from: expected user and"},
        {"[{\"image\": 1, \"conversations\": [" HUMAN("a") "]}]", "image: expected a file's name or a list"},
        {"[{\"image\": \"\", \"conversations\": [" HUMAN("a") "]}]", "image: expected a file's name, found"},
        {"[{\"image\": [\"a\", 1], \"conversations\": [" HUMAN("a") "]}]", "image[1]: expected a string"},
        {"[{\"image\": \"a\", \"conversations\": [" HUMAN("a") "]}]", "0 times for 1 pictures"},
        {"[{\"conversations\": [" HUMAN("<image>") "]}]", "1 times for 0 pictures"},
        {"[{\"image\": \"a\", \"conversations\": [" HUMAN("<image>") "," GPT("<image>") "]}]",
         "2 times for 1"},
        {"[{\"image\": [\"a\", \"b\"], \"conversations\": [" HUMAN("<image>") "]}]",
         "1 times for 2 pictures"},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        expect_error(cases[i].json, strlen(cases[i].json), cases[i].message);
    pd_dataset *dataset = NULL;
    pd_error err;
    assert_int_equal(pd_dataset_open("/nowhere/data.json", &dataset, &err), PD_ERR_IO);
    assert_non_null(strstr(err.message, "/nowhere/data.json"));
}

static void test_dataset(void **state) {
    (void)state;
    const char list[] = "[{\"id\":\"a\",\"model\":{},\"image\":\"p.png\",\"conversations\":[" HUMAN(
        "<image>\\n One "
        "two\\u3000three"
        " ") "," GPT("4 5") "]},\n{\"image\":null,\"conversations\":[" HUMAN("x\\u001cy") "]},"
                                                                                          "{\"image\":[\"p\","
                                                                                          "\"q\"],"
                                                                                          "\"conversations\":"
                                                                                          "[" HUMAN(
                                                                                              "<image><"
                                                                                              "image>") "]}]";
    // The same a line, and behind the last line no end.
    char lines[sizeof list];
    const size_t size = strlen(list) - 2;
    memcpy(lines, list + 1, size);
    for (char *comma = lines; (comma = memmem(comma, size - (size_t)(comma - lines), "},", 2)); comma += 2) {
        if (memmem(comma + 2, 5, "{\"im", 4)) comma[1] = '\n';
    }
    for (int pass = 0; pass < 2; pass++) {
        pd_dataset *dataset = pass ? open_text(lines, size) : open_text(list, strlen(list));
        assert_int_equal(pd_dataset_size(dataset), 3);
        assert_int_equal(pd_dataset_length(dataset, 0), 6);
        assert_int_equal(pd_dataset_length(dataset, 1), -2);
        assert_int_equal(pd_dataset_length(dataset, 2), 1);
        pd_record record;
        pd_error err;
        assert_int_equal(pd_dataset_read(dataset, 0, &record, &err), PD_OK);
        assert_string_equal(record.name, "record 0 (id \"a\")");
        assert_int_equal(record.n_turns, 2);
        assert_int_equal(record.n_images, 1);
        assert_string_equal(record.images[0], "p.png");
        assert_string_equal(record.texts[1], "4 5");
        pd_record_free(&record);
        assert_int_equal(pd_dataset_read(dataset, 2, &record, &err), PD_OK);
        assert_int_equal(record.n_images, 2);
        assert_string_equal(record.images[1], "q");
        pd_record_free(&record);
        assert_int_equal(pd_dataset_read(dataset, 3, &record, &err), PD_ERR_ARGUMENT);
        pd_dataset_free(dataset);
    }
}

// Opens what may be broken; what opens can be read.
static bool try_bytes(const char *bytes, size_t size) {
    const int descriptor = memfd_create("data.json", MFD_CLOEXEC);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    assert_int_equal(write(descriptor, bytes, size), size);
    pd_dataset *dataset = NULL;
    pd_error err = {0};
    const pd_status status = pd_dataset_open(path, &dataset, &err);
    close(descriptor);
    if (status != PD_OK) {
        assert_int_equal(status, PD_ERR_FORMAT);
        assert_true(strlen(err.message) > 0);
        return false;
    }
    for (int32_t i = 0; i < pd_dataset_size(dataset); i++) {
        pd_record record;
        if (pd_dataset_read(dataset, i, &record, &err) != PD_OK) fail_msg("%s", err.message);
        assert_true(record.n_turns > 0);
        pd_record_free(&record);
    }
    pd_dataset_free(dataset);
    return true;
}

static void test_damaged_datasets(void **state) {
    (void)state;
    static const char good[] = "[ {\"id\":\"a\\\\\\\"\",\"image\":\"p.png\",\"conversations\":[" HUMAN(
        "<image>\\n{[") "," GPT("}]") "]},\n{\"image\":[\"p\"],\"conversations\":[" HUMAN("<image>") "]} ]";
    const size_t size = strlen(good);
    assert_true(try_bytes(good, size));
    for (size_t n = 0; n < size; n++) // every beginning is broken
        assert_false(try_bytes(good, n));
    uint64_t random = 5;
    size_t n_good = 0;
    for (int i = 0; i < 1000; i++) {
        char damaged[sizeof good];
        memcpy(damaged, good, size);
        for (uint64_t k = 1 + pd_random_next(&random) % 2; k > 0; k--)
            damaged[pd_random_next(&random) % size] = (char)pd_random_next(&random);
        n_good += try_bytes(damaged, size);
    }
    assert_in_range(n_good, 1, 900);
}

static void test_python_text(void **state) {
    (void)state;
    static const char text[] = "\xe3\x80\x80\t a\xc2\xa0"
                               "b \xe2\x80\xa8\xc2\x85\x1f";
    const char *stripped = text;
    size_t size = strlen(text);
    pd_python_strip(&stripped, &size);
    assert_int_equal(size, 4);
    assert_memory_equal(stripped,
                        "a\xc2\xa0"
                        "b",
                        4);
    assert_int_equal(pd_python_count_words(text, strlen(text)), 2);
    assert_int_equal(pd_python_count_words(" ", 1), 0);
    static const char *const blanks[] = {
        "\t",           "\n",           "\v",           "\f",           "\r",
        "\x1c",         "\x1d",         "\x1e",         "\x1f",         " ",
        "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x8a",
        "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
    for (size_t i = 0; i < COUNT(blanks); i++)
        assert_int_equal(pd_python_count_words(blanks[i], strlen(blanks[i])), 0);
    assert_int_equal(pd_python_count_words("\xe2\x80\x8b", 3), 1); // no blank: U+200B
}

// ---- the order of samples ---------------------------------------------------------------------------------

static void test_order_golden(void **state) {
    (void)state;
    yyjson_doc *doc = read_golden("train/order.json");
    size_t i;
    size_t max;
    yyjson_val *one;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, one) {
        yyjson_val *lengths = yyjson_obj_get(one, "lengths");
        int32_t values[200];
        int32_t order[200];
        const int32_t n = (int32_t)yyjson_arr_size(lengths);
        assert_in_range(n, 1, COUNT(values));
        for (int32_t k = 0; k < n; k++)
            values[k] = (int32_t)yyjson_get_sint(yyjson_arr_get(lengths, (size_t)k));
        const int32_t chunks = (int32_t)yyjson_get_sint(yyjson_obj_get(one, "chunks"));
        // Ranks and accumulated micro-batches are chunks alike.
        const bool even = chunks % 2 == 0;
        const pd_sampler sampler = {.n_samples = n,
                                    .lengths = values,
                                    .group_by_modality_length = true,
                                    .seed = yyjson_get_uint(yyjson_obj_get(one, "seed")),
                                    .batch_size = (int32_t)yyjson_get_sint(yyjson_obj_get(one, "batch_size")),
                                    .gradient_accumulation_steps = even ? 2 : 1,
                                    .world_size = even ? chunks / 2 : chunks};
        assert_int_equal(
            pd_sampler_order(&sampler, yyjson_get_sint(yyjson_obj_get(one, "epoch")), order, NULL), PD_OK);
        for (int32_t k = 0; k < n; k++)
            assert_int_equal(order[k],
                             yyjson_get_sint(yyjson_arr_get(yyjson_obj_get(one, "order"), (size_t)k)));
    }
    yyjson_doc_free(doc);
}

// All ranks' micro-batches of all steps are the epochs' orders, each sample once.
static void check_shares(const pd_sampler *s) {
    enum { EPOCHS = 2 };
    const int64_t steps = pd_sampler_steps_per_epoch(s);
    const int64_t step_size = (int64_t)s->batch_size * s->gradient_accumulation_steps * s->world_size;
    int64_t positions[16] = {0};
    for (int64_t step = 0; step < EPOCHS * steps; step++) {
        int64_t place = step % steps * step_size;
        for (int32_t micro = 0; micro < s->gradient_accumulation_steps; micro++) {
            for (int32_t rank = 0; rank < s->world_size; rank++) {
                int64_t position = -1;
                int32_t count = -1;
                pd_sampler_batch(s, rank, step, micro, &position, &count);
                assert_int_equal(position, positions[rank]);
                assert_in_range(count, 0, s->batch_size);
                if (step % steps < steps - 1) assert_int_equal(count, s->batch_size);
                const int64_t size = pd_sampler_epoch_size(s, rank);
                for (int32_t i = 0; i < count; i++) {
                    assert_int_equal((position + i) / size, step / steps);
                    assert_int_equal(pd_sampler_place(s, rank, (position + i) % size), place++);
                }
                positions[rank] += count;
            }
        }
        const int64_t end = (step % steps + 1) * step_size;
        assert_int_equal(place, end < s->n_samples ? end : s->n_samples);
    }
    for (int32_t rank = 0; rank < s->world_size; rank++)
        assert_int_equal(positions[rank], EPOCHS * pd_sampler_epoch_size(s, rank));
}

static void test_sampler(void **state) {
    (void)state;
    uint64_t random = 3;
    int n_checked = 0;
    for (int trial = 0; trial < 400; trial++) {
        pd_sampler s = {.n_samples = 1 + (int32_t)(pd_random_next(&random) % 150),
                        .drop_last = trial % 3 == 0,
                        .group_by_modality_length = trial % 2 == 0,
                        .seed = pd_random_next(&random),
                        .batch_size = 1 + (int32_t)(pd_random_next(&random) % 5),
                        .gradient_accumulation_steps = 1 + (int32_t)(pd_random_next(&random) % 3),
                        .world_size = 1 + (int32_t)(pd_random_next(&random) % 4)};
        int32_t lengths[151];
        for (int32_t i = 0; i < s.n_samples; i++)
            lengths[i] = (int32_t)(pd_random_next(&random) % 41) - 20;
        s.lengths = lengths;
        if (pd_sampler_check(&s, NULL) != PD_OK) continue;
        n_checked++;
        int32_t order[2][151];
        for (int64_t epoch = 0; epoch < 3; epoch++) {
            bool seen[151] = {false};
            assert_int_equal(pd_sampler_order(&s, epoch, order[0], NULL), PD_OK);
            assert_int_equal(pd_sampler_order(&s, epoch, order[1], NULL), PD_OK);
            assert_memory_equal(order[0], order[1], (size_t)s.n_samples * sizeof(int32_t));
            for (int32_t i = 0; i < s.n_samples; i++) {
                assert_in_range(order[0][i], 0, s.n_samples - 1);
                assert_false(seen[order[0][i]]);
                seen[order[0][i]] = true;
            }
        }
        if (s.drop_last)
            s.n_samples -= s.n_samples % (s.batch_size * s.gradient_accumulation_steps * s.world_size);
        check_shares(&s);
    }
    assert_true(n_checked > 300);
}

// Whole megabatches are of one modality, and their chunks are about equally long.
static void test_modalities(void **state) {
    (void)state;
    enum { N = 1000, STEP = 32 };
    int32_t lengths[N];
    int32_t order[N];
    uint64_t random = 11;
    for (int i = 0; i < N; i++) {
        const int32_t length = 1 + (int32_t)(pd_random_next(&random) % 300);
        lengths[i] = i % 3 == 0 ? -length : length;
    }
    const pd_sampler s = {.n_samples = N,
                          .lengths = lengths,
                          .group_by_modality_length = true,
                          .seed = 1,
                          .batch_size = 8,
                          .gradient_accumulation_steps = 2,
                          .world_size = 2};
    assert_int_equal(pd_sampler_order(&s, 0, order, NULL), PD_OK);
    for (int start = 0; start + 2 * STEP <= N; start += STEP) {
        for (int i = 1; i < STEP; i++)
            assert_int_equal(lengths[order[start]] > 0, lengths[order[start + i]] > 0);
        int32_t least = INT32_MAX;
        int32_t most = 0;
        for (int chunk = 0; chunk < STEP; chunk += 8) {
            int32_t sum = 0;
            for (int i = 0; i < 8; i++)
                sum += abs(lengths[order[start + chunk + i]]);
            least = sum < least ? sum : least;
            most = sum > most ? sum : most;
        }
        assert_true(most - least <= 100); // a third of the longest sample
    }
    int32_t next[N];
    assert_int_equal(pd_sampler_order(&s, 1, next, NULL), PD_OK);
    assert_memory_not_equal(order, next, sizeof order);
}

static void test_sampler_errors(void **state) {
    (void)state;
    const pd_sampler good = {
        .n_samples = 10, .batch_size = 2, .gradient_accumulation_steps = 1, .world_size = 2, .seed = 1};
    pd_error err;
    assert_int_equal(pd_sampler_check(&good, &err), PD_OK);
    pd_sampler bad[6] = {good, good, good, good, good, good};
    bad[0].batch_size = 0;
    bad[1].gradient_accumulation_steps = -1;
    bad[2].world_size = 6; // ranks 5 and on have none
    bad[3].batch_size = INT32_MAX;
    bad[4].group_by_modality_length = true;
    bad[5].drop_last = true;
    bad[5].batch_size = 6;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(pd_sampler_check(&bad[i], &err), PD_ERR_ARGUMENT);
}

// ---- the loader -------------------------------------------------------------------------------------------

static const char *const pictures[] = {"jpeg_420.jpg", "png_grey_1.png", "jpeg_exif_6.jpg", "png_1x1.png"};

enum { LOG_SIZE = 1 << 14 };

// A data set, a model's view of it, and what was logged.
typedef struct {
    pd_dataset *dataset;
    pd_tokenizer *tokenizer;
    char folder[500];
    char log[LOG_SIZE];
    atomic_bool cancel;
    pd_loader_params params;
} stage;

static const pd_preprocess_params preprocess = {.image_size = 28,
                                                .patch_size = 14,
                                                .mean = {0.48F, 0.45F, 0.4F},
                                                .std = {0.26F, 0.26F, 0.27F},
                                                .n_pinpoints = 2,
                                                .pinpoints = (const int32_t[][2]){{28, 56}, {56, 56}},
                                                .aspect_ratio = PD_ASPECT_ANYRES};

static void log_to_stage(pd_log_level level, const char *line, void *user) {
    stage *s = user;
    assert_int_equal(level, PD_LOG_WARNING);
    const size_t n = strlen(s->log);
    snprintf(s->log + n, sizeof s->log - n, "%s\n", line);
}

// `n` records: text and pictures by turns; every `bad`-th picture is missing or broken (0: none).
static void open_stage(stage *s, int32_t n, int32_t bad) {
    *s = (stage){0};
    write_file("broken.jpg", "\xff\xd8\xff\xe0 no picture", 16);
    char *json = malloc((size_t)n * 600 + 10);
    char *out = json;
    for (int32_t i = 0; i < n; i++) {
        char image[400];
        snprintf(image, sizeof image, "%s", pictures[(size_t)i % COUNT(pictures)]);
        if (bad && i % bad == bad - 1) {
            if (i % (2 * bad) == bad - 1) {
                snprintf(image, sizeof image, "missing.png");
            } else {
                snprintf(image, sizeof image, "%s", path_of("broken.jpg"));
            }
        }
        out += sprintf(out, "{\"id\":\"r%d\",", i);
        if (i % 3 != 1) out += sprintf(out, "\"image\":\"%s\",", image);
        out += sprintf(out, "\"conversations\":[{\"from\":\"human\",\"value\":\"%sWhat is number %d?\"},",
                       i % 3 != 1 ? "<image>\\n" : "", i);
        out += sprintf(out, "{\"from\":\"gpt\",\"value\":\"It is number %d", i);
        for (int32_t k = 0; k < i % 7; k++)
            out += sprintf(out, ", and a dog");
        out += sprintf(out, ".\"}]}\n");
    }
    s->dataset = open_text(json, (size_t)(out - json));
    free(json);
    s->tokenizer = open_tokenizer("bos");
    snprintf(s->folder, sizeof s->folder, "%s/image", PD_TEST_DATA);
    s->params = (pd_loader_params){
        .sample = {.dataset = s->dataset,
                   .image_folder = s->folder,
                   .preprocess = &preprocess,
                   .labels = {.tokenizer = s->tokenizer, .legacy = true, .model_max_length = 2048}},
        .sampler = {.n_samples = n,
                    .lengths = pd_dataset_lengths(s->dataset),
                    .group_by_modality_length = true,
                    .seed = 9,
                    .batch_size = 2,
                    .gradient_accumulation_steps = 2,
                    .world_size = 2},
        .rank = 1,
        .n_threads = 2,
        .n_ahead = 5,
        .cancel = &s->cancel,
        .log = log_to_stage,
        .log_user = s,
    };
    pd_error err;
    assert_int_equal(pd_conversation_find("vicuna_v1", &s->params.sample.labels.conversation, &err), PD_OK);
}

static void close_stage(stage *s) {
    pd_dataset_free(s->dataset);
    pd_tokenizer_free(s->tokenizer);
}

static uint64_t mix(uint64_t hash, const void *bytes, size_t size) {
    const uint8_t *at = bytes;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ at[i]) * 0x100000001b3U; // FNV-1a
    return hash;
}

static uint64_t hash_sample(const pd_train_sample *sample) {
    uint64_t hash = mix(0xcbf29ce484222325U, &sample->index, sizeof sample->index);
    hash = mix(hash, sample->tokens, (size_t)sample->n_tokens * sizeof(int32_t));
    hash = mix(hash, sample->labels, (size_t)sample->n_tokens * sizeof(int32_t));
    for (int32_t i = 0; i < sample->n_images; i++) {
        const pd_tiles *tiles = &sample->images[i];
        const size_t side = (size_t)tiles->image_size;
        hash = mix(hash, tiles->data, (size_t)tiles->layout.n_tiles * 3 * side * side * sizeof(float));
    }
    return hash;
}

// That the sample holds together.
static void check_sample(const pd_train_sample *sample) {
    int32_t n_images = 0;
    int32_t n_rows = 0;
    int32_t n_labels = 0;
    for (int32_t i = 0; i < sample->n_tokens; i++) {
        const bool image = sample->tokens[i] == PD_IMAGE_TOKEN;
        n_rows += image ? sample->images[n_images++].layout.n_tokens : 1;
        if (sample->labels[i] == PD_IGNORE_INDEX) continue;
        assert_int_equal(sample->labels[i], sample->tokens[i]);
        n_labels++;
    }
    assert_int_equal(n_images, sample->n_images);
    assert_int_equal(n_rows, sample->n_rows);
    assert_int_equal(n_labels, sample->n_labels);
}

// Reads hashes[0..n) of samples from the params' position on, a few at a time.
static void read_hashes(const pd_loader_params *params, uint64_t *hashes, int32_t n, pd_loader_stats *stats) {
    pd_loader *loader;
    pd_error err;
    if (pd_loader_create(params, &loader, &err) != PD_OK) fail_msg("%s", err.message);
    uint64_t random = 1;
    for (int32_t done = 0; done < n;) {
        pd_train_sample samples[8];
        int32_t count = (int32_t)(pd_random_next(&random) % 9);
        if (count > n - done) count = n - done;
        if (pd_loader_next(loader, count, samples, &err) != PD_OK) fail_msg("%s", err.message);
        for (int32_t i = 0; i < count; i++) {
            check_sample(&samples[i]);
            hashes[done++] = hash_sample(&samples[i]);
            pd_train_sample_free(&samples[i]);
        }
    }
    if (stats) *stats = pd_loader_get_stats(loader);
    pd_loader_free(loader);
}

enum { N_READ = 90 }; // of 70 records, shared by two ranks: into the third epoch

static void test_loader_threads(void **state) {
    (void)state;
    static stage s;
    open_stage(&s, 70, 6);
    s.params.skip_bad_images = true;
    uint64_t expected[N_READ];
    pd_loader_stats stats;
    s.params.n_threads = 1;
    s.params.n_ahead = 1;
    read_hashes(&s.params, expected, N_READ, &stats);
    assert_int_equal(stats.samples, N_READ);
    assert_int_equal(stats.bad_samples, 0);
    char log[LOG_SIZE];
    memcpy(log, s.log, sizeof log);
    assert_non_null(strstr(log, "missing.png"));
    assert_non_null(strstr(log, "broken.jpg"));
    int64_t lines = 0;
    for (const char *at = log; (at = strchr(at, '\n')); at++)
        lines++;
    assert_true(lines > 3);
    assert_int_equal(stats.bad_images, lines);
    for (const char *line = log; *line; line = strchr(line, '\n') + 1) { // each once
        char copy[600];
        snprintf(copy, sizeof copy, "%.*s", (int)(strchr(line, '\n') - line), line);
        assert_null(strstr(line + 1, copy));
    }
    static const int32_t threads[][2] = {{1, 7}, {2, 2}, {2, 30}, {4, 4}, {4, 200}};
    for (size_t i = 0; i < COUNT(threads); i++) {
        s.params.n_threads = threads[i][0];
        s.params.n_ahead = threads[i][1];
        s.log[0] = '\0';
        uint64_t found[N_READ];
        read_hashes(&s.params, found, N_READ, NULL);
        assert_memory_equal(found, expected, sizeof found);
        assert_string_equal(s.log, log);
    }
    close_stage(&s);
}

static void test_loader_resume(void **state) {
    (void)state;
    static stage s;
    open_stage(&s, 70, 6);
    s.params.skip_bad_images = true;
    uint64_t expected[N_READ];
    read_hashes(&s.params, expected, N_READ, NULL);
    uint64_t random = 8;
    for (int trial = 0; trial < 10; trial++) {
        const int32_t start = (int32_t)(pd_random_next(&random) % N_READ);
        s.params.position = start;
        uint64_t found[N_READ];
        read_hashes(&s.params, found, N_READ - start, NULL);
        assert_memory_equal(found, expected + start, (size_t)(N_READ - start) * sizeof *found);
    }
    close_stage(&s);
}

// Without bad records the samples are the order's; a bad one's place is taken by the next record.
static void test_loader_order(void **state) {
    (void)state;
    for (int32_t bad = 0; bad <= 70; bad += 70) {
        static stage s;
        open_stage(&s, 70, bad); // with 70: the last record, which is followed by the first
        s.params.skip_bad_images = true;
        s.params.sampler.world_size = 1;
        s.params.rank = 0;
        int32_t order[70];
        assert_int_equal(pd_sampler_order(&s.params.sampler, 0, order, NULL), PD_OK);
        pd_loader *loader;
        pd_error err;
        assert_int_equal(pd_loader_create(&s.params, &loader, &err), PD_OK);
        pd_train_sample samples[70];
        if (pd_loader_next(loader, 70, samples, &err) != PD_OK) fail_msg("%s", err.message);
        for (int i = 0; i < 70; i++) {
            assert_int_equal(samples[i].index, bad && order[i] == 69 ? 0 : order[i]);
            pd_train_sample_free(&samples[i]);
        }
        assert_int_equal(pd_loader_get_stats(loader).bad_images, bad ? 1 : 0);
        pd_loader_free(loader);
        close_stage(&s);
    }
}

static void test_loader_stops_at_bad_images(void **state) {
    (void)state;
    static stage s;
    open_stage(&s, 70, 6);
    pd_error first = {0};
    for (int32_t threads = 1; threads <= 4; threads++) {
        s.params.n_threads = threads;
        pd_loader *loader;
        pd_error err = {0};
        assert_int_equal(pd_loader_create(&s.params, &loader, &err), PD_OK);
        pd_train_sample samples[40];
        pd_status status = PD_OK;
        int32_t n = 0;
        while (status == PD_OK && n < 100) {
            status = pd_loader_next(loader, 1, samples, &err);
            pd_train_sample_free(&samples[0]);
            n++;
        }
        assert_int_not_equal(status, PD_OK);
        assert_non_null(strstr(err.message, "data.json: record "));
        assert_non_null(strstr(err.message, "id \"r"));
        assert_true(strstr(err.message, "missing.png") || strstr(err.message, "broken.jpg"));
        if (threads == 1) first = err;
        assert_string_equal(err.message, first.message);
        assert_int_equal(pd_loader_next(loader, 40, samples, &err), status); // and so it stays
        assert_null(samples[0].tokens);
        pd_loader_free(loader);
    }
    close_stage(&s);
}

static void test_loader_all_bad(void **state) {
    (void)state;
    static stage s;
    open_stage(&s, 3, 1);
    s.params.sampler.world_size = 1;
    s.params.rank = 0;
    s.params.skip_bad_images = true;
    snprintf(s.folder, sizeof s.folder, "/nowhere");
    const char *json = "[{\"image\":\"a\",\"conversations\":[" HUMAN("<image>") "," GPT("A") "]}]";
    pd_dataset_free(s.dataset);
    s.dataset = open_text(json, strlen(json));
    s.params.sample.dataset = s.dataset;
    s.params.sampler.n_samples = 1;
    s.params.sampler.lengths = pd_dataset_lengths(s.dataset);
    pd_loader *loader;
    pd_error err;
    assert_int_equal(pd_loader_create(&s.params, &loader, &err), PD_OK);
    pd_train_sample sample;
    assert_int_equal(pd_loader_next(loader, 1, &sample, &err), PD_ERR_IO);
    assert_non_null(strstr(err.message, "1 bad records in a row"));
    assert_non_null(strstr(err.message, "/nowhere/a"));
    pd_loader_free(loader);
    close_stage(&s);
}

// One record, the sample of which is cut off at every length there is.
static void test_truncation(void **state) {
    (void)state;
    static stage s;
    open_stage(&s, 1, 0);
    pd_sample_params params = s.params.sample;
    pd_train_sample whole;
    pd_sample_notes notes;
    pd_error err;
    if (pd_sample_make(&params, 0, &whole, &notes, &err) != PD_OK) fail_msg("%s", err.message);
    assert_false(notes.truncated);
    assert_int_equal(whole.n_images, 1);
    const int32_t n_image_tokens = whole.images[0].layout.n_tokens;
    assert_int_equal(whole.n_rows, whole.n_tokens - 1 + n_image_tokens);
    int32_t first_label = 0;
    while (whole.labels[first_label] == PD_IGNORE_INDEX)
        first_label++;
    for (int32_t most = 1; most <= whole.n_rows; most++) {
        params.labels.model_max_length = most;
        pd_train_sample cut;
        const pd_status status = pd_sample_make(&params, 0, &cut, &notes, &err);
        if (most <= first_label - 1 + n_image_tokens) {
            assert_int_equal(status, PD_ERR_CONTEXT);
            assert_true(notes.bad_record && !notes.bad_image);
            assert_non_null(
                strstr(err.message, "record 0 (id \"r0\"): the sample is longer than the context"));
            assert_null(cut.tokens);
            continue;
        }
        assert_int_equal(status, PD_OK);
        check_sample(&cut);
        assert_int_equal(cut.n_rows, most);
        assert_int_equal(notes.truncated, most < whole.n_rows);
        assert_memory_equal(cut.tokens, whole.tokens, (size_t)cut.n_tokens * sizeof(int32_t));
        assert_memory_equal(cut.labels, whole.labels, (size_t)cut.n_tokens * sizeof(int32_t));
        pd_train_sample_free(&cut);
    }
    pd_train_sample_free(&whole);
    params.preprocess = NULL;
    params.labels.model_max_length = 2048;
    assert_int_equal(pd_sample_make(&params, 0, &whole, &notes, &err), PD_ERR_FORMAT);
    assert_non_null(strstr(err.message, "cannot see"));
    close_stage(&s);
}

// Samples that are too long, or have no answer, or give a mismatch.
static void test_bad_samples(void **state) {
    (void)state;
    static stage s;
    open_stage(&s, 70, 0);
    pd_dataset_free(s.dataset);
    static const char json[] = "[{\"conversations\":[" HUMAN("Q") "," GPT("") "]},{\"conversations\":[" HUMAN(
        "Q") "," GPT("A") "]},"
                          "{\"conversations\":[" HUMAN("Q") "," GPT("A") "," HUMAN("Q") "," GPT("") "]}]";
    s.dataset = open_text(json, strlen(json));
    s.params.sample.dataset = s.dataset;
    s.params.sampler =
        (pd_sampler){.n_samples = 3, .batch_size = 1, .gradient_accumulation_steps = 1, .world_size = 1};
    s.params.rank = 0;
    pd_loader *loader;
    pd_error err;
    pd_train_sample samples[3];
    assert_int_equal(pd_loader_create(&s.params, &loader, &err), PD_OK);
    assert_int_equal(pd_loader_next(loader, 3, samples, &err), PD_ERR_FORMAT);
    assert_non_null(strstr(err.message, "record 0: conversations: expected an answer"));
    pd_loader_free(loader);
    s.params.skip_bad_samples = true;
    s.log[0] = '\0';
    assert_int_equal(pd_loader_create(&s.params, &loader, &err), PD_OK);
    assert_int_equal(pd_loader_next(loader, 3, samples, &err), PD_OK);
    int n_masked = 0;
    for (int i = 0; i < 3; i++) {
        assert_in_range(samples[i].index, 1, 2);
        n_masked += samples[i].n_labels == 0;
        pd_train_sample_free(&samples[i]);
    }
    assert_int_equal(n_masked, 1);
    const pd_loader_stats stats = pd_loader_get_stats(loader);
    assert_int_equal(stats.bad_samples, 1);
    assert_int_equal(stats.mismatches, 1);
    assert_non_null(strstr(s.log, "skipped: "));
    assert_non_null(strstr(s.log, "record 2 gives no labels: tokenization mismatch"));
    pd_loader_free(loader);
    close_stage(&s);
}

static void *cancel_soon(void *opaque) {
    usleep(30000);
    atomic_store((atomic_bool *)opaque, true);
    return NULL;
}

static void test_cancel(void **state) {
    (void)state;
    static stage s;
    open_stage(&s, 70, 0);
    pd_loader *loader;
    pd_error err;
    assert_int_equal(pd_loader_create(&s.params, &loader, &err), PD_OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &s.cancel), 0);
    pd_status status = PD_OK;
    while (status == PD_OK) {
        pd_train_sample samples[3];
        status = pd_loader_next(loader, 3, samples, &err);
        for (int i = 0; i < 3; i++)
            pd_train_sample_free(&samples[i]);
    }
    assert_int_equal(status, PD_ERR_CANCELLED);
    pthread_join(thread, NULL);
    pd_loader_free(loader);
    close_stage(&s);
}

static void test_loader_errors(void **state) {
    (void)state;
    static stage s;
    open_stage(&s, 70, 0);
    pd_loader_params bad[7] = {s.params, s.params, s.params, s.params, s.params, s.params, s.params};
    bad[0].n_threads = 0;
    bad[1].n_ahead = 0;
    bad[2].rank = 2;
    bad[3].position = -1;
    bad[4].sampler.n_samples = 69;
    bad[5].sample.labels.model_max_length = 0;
    bad[6].sampler.batch_size = 0;
    for (size_t i = 0; i < COUNT(bad); i++) {
        pd_loader *loader;
        pd_error err = {0};
        assert_int_equal(pd_loader_create(&bad[i], &loader, &err), PD_ERR_ARGUMENT);
        assert_null(loader);
        assert_true(strlen(err.message) > 0);
    }
    // Freed before anything is read.
    for (int i = 0; i < 20; i++) {
        pd_loader *loader;
        pd_error err;
        assert_int_equal(pd_loader_create(&s.params, &loader, &err), PD_OK);
        pd_loader_free(loader);
    }
    pd_loader_free(NULL);
    close_stage(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_labels),           cmocka_unit_test(test_other_vocabularies),
        cmocka_unit_test(test_speakers),         cmocka_unit_test(test_label_errors),
        cmocka_unit_test(test_dataset),          cmocka_unit_test(test_dataset_errors),
        cmocka_unit_test(test_damaged_datasets), cmocka_unit_test(test_python_text),
        cmocka_unit_test(test_order_golden),     cmocka_unit_test(test_sampler),
        cmocka_unit_test(test_modalities),       cmocka_unit_test(test_sampler_errors),
        cmocka_unit_test(test_loader_threads),   cmocka_unit_test(test_loader_resume),
        cmocka_unit_test(test_loader_order),     cmocka_unit_test(test_loader_stops_at_bad_images),
        cmocka_unit_test(test_loader_all_bad),   cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_bad_samples),      cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_loader_errors),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
