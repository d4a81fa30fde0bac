// Bad input behind the model: pictures that are none, prompts that do not fit, policies that cannot be, work
// that no memory holds, and cancelling. Each must end in one line and leave the session usable.
#include <math.h>
#include <pyramiddrop.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h> // wants the above

#include "checks.h" // wants cmocka

enum { BOS = 1 };

static pd_model *model, *text_model; // with and without an mmproj
static pd_image *picture;

static pd_model *load(const char *mmproj) {
    char path[512], mmproj_path[512];
    snprintf(path, sizeof path, "%s/parity/mha.gguf", PD_TEST_DATA);
    if (mmproj) snprintf(mmproj_path, sizeof mmproj_path, "%s/parity/%s", PD_TEST_DATA, mmproj);
    pd_model_params params;
    pd_model_params_default(&params, sizeof params);
    params.model_path = path;
    params.mmproj_path = mmproj ? mmproj_path : NULL;
    pd_model *loaded;
    assert_int_equal(pd_model_load(&params, &loaded, NULL), PD_OK);
    return loaded;
}

static int set_up(void **state) {
    (void)state;
    static const uint8_t rgb[6 * 4 * 3] = {255, 0, 7, 0, 200};
    model = load("mha-mmproj.gguf");
    text_model = load(NULL);
    return pd_image_from_rgb(rgb, 6, 4, &picture, NULL) == PD_OK ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    pd_image_free(picture);
    pd_model_free(text_model);
    pd_model_free(model);
    return 0;
}

static pd_session_params small_params(void) {
    pd_session_params params;
    pd_session_params_default(&params, sizeof params);
    params.n_threads = 1;
    params.n_ctx = 256;
    params.ignore_eos = true;
    return params;
}

static pd_session *create(pd_model *of, const pd_session_params *params) {
    pd_session *session;
    assert_int_equal(pd_session_create(of, params, &session, NULL), PD_OK);
    return session;
}

// A session that has failed goes on as if it had not.
static void assert_usable(pd_session *session) {
    const pd_message question = {PD_ROLE_USER, "the cat", NULL, 0};
    pd_error err;
    assert_int_equal(pd_session_prompt(session, &question, 1, &err), PD_OK);
    const char *piece;
    assert_int_equal(pd_session_next(session, &piece, &err), PD_OK);
}

// ---- pictures ---------------------------------------------------------------------------------------------

static uint8_t *read_golden(const char *name, size_t *size) {
    char path[512];
    snprintf(path, sizeof path, "%s/image/%s", PD_TEST_DATA, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    uint8_t *bytes = malloc(1 << 16);
    assert_non_null(bytes);
    *size = fread(bytes, 1, 1 << 16, file);
    fclose(file);
    return bytes;
}

static void assert_no_picture(const void *bytes, size_t size, const char *part) {
    pd_error err;
    pd_image *image;
    const pd_status status = pd_image_decode(bytes, size, "bad.jpg", &image, &err);
    assert_null(image);
    assert_true(status == PD_ERR_FORMAT || status == PD_ERR_UNSUPPORTED);
    assert_fails(status, status, &err, part);
    assert_non_null(strstr(err.message, "bad.jpg"));
}

static uint32_t crc_of(const uint8_t *bytes, size_t size) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320U : crc >> 1;
    }
    return ~crc;
}

static void put_u32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

// The beginning of a PNG of that size: signature and IHDR, and an IDAT with nothing in it.
enum { PNG_HEAD = 8 + 25 + 12 };
static void make_png_head(uint8_t png[PNG_HEAD], uint32_t width, uint32_t height) {
    memcpy(png, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR________\x08\x02\0\0\0____\0\0\0\0IDAT____", PNG_HEAD);
    put_u32(png + 16, width);
    put_u32(png + 20, height);
    put_u32(png + 29, crc_of(png + 12, 17));
    put_u32(png + 41, crc_of(png + 37, 4));
}

static long peak_kib(void) {
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_maxrss;
}

static void test_pictures(void **state) {
    (void)state;
    pd_error err;
    pd_image *image;
    assert_fails(pd_image_load("/nowhere/cat.jpg", &image, &err), PD_ERR_IO, &err,
                 "/nowhere/cat.jpg: cannot open");
    assert_fails(pd_image_load(PD_TEST_DATA, &image, &err), PD_ERR_IO, &err, "not a regular file");
    assert_no_picture(NULL, 0, "empty");
    assert_no_picture("hello, world", 12, "not a picture");
    assert_no_picture("GIF89a\1\0\1\0", 10, "a GIF picture: expected JPEG, PNG or WebP");
    static const uint8_t rgb[3];
    assert_fails(pd_image_from_rgb(rgb, 0, 0, &image, &err), PD_ERR_ARGUMENT, &err,
                 "0x0 pixels: expected at least");
    assert_fails(pd_image_from_rgb(rgb, -1, 7, &image, &err), PD_ERR_ARGUMENT, &err, "-1x7 pixels");
    assert_fails(pd_image_from_rgb(NULL, 1, 1, &image, &err), PD_ERR_ARGUMENT, &err, "at NULL");
}

// What a header says is believed no further than memory goes.
static void test_picture_sizes(void **state) {
    (void)state;
    uint8_t png[PNG_HEAD];
    make_png_head(png, 0, 0);
    assert_no_picture(png, sizeof png, "PNG");
    const long before = peak_kib();
    make_png_head(png, 50000, 50000);
    assert_no_picture(png, sizeof png, "PNG of 50000x50000 pixels");
    make_png_head(png, UINT32_MAX, UINT32_MAX);
    assert_no_picture(png, sizeof png, "PNG");
    // SOI, then a baseline frame header of three components
    static uint8_t jpeg[] = "\xff\xd8\xff\xc0\0\x11\x08\xc3\x50\xc3\x50\x03\x01\x11\0\x02\x11\0\x03\x11";
    assert_no_picture(jpeg, sizeof jpeg, "bad.jpg");
    assert_true(peak_kib() - before < 64 * 1024);
}

static void test_pictures_cut_short(void **state) {
    (void)state;
    static const char *const names[] = {"jpeg_444.jpg",
                                        "jpeg_progressive.jpg",
                                        "png_rgb_8.png",
                                        "png_palette_4.png",
                                        "png_rgb_alpha_16_interlaced.png",
                                        "webp_lossless.webp",
                                        "webp_lossy.webp"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t size;
        uint8_t *bytes = read_golden(names[i], &size);
        assert_no_picture(bytes, size / 2, "bad.jpg");
        for (size_t cut = 1; cut < size / 2; cut += 1 + size / 50) {
            pd_image *image;
            pd_error err;
            const pd_status status = pd_image_decode(bytes, cut, "cut", &image, &err);
            assert_fails(status, status == PD_ERR_UNSUPPORTED ? status : PD_ERR_FORMAT, &err, "cut");
        }
        free(bytes);
    }
}

// ---- prompts ----------------------------------------------------------------------------------------------

static void note_encoding(const char *what, double progress, void *user) {
    (void)progress;
    if (strcmp(what, "image") == 0) *(bool *)user = true;
}

static void test_prompts(void **state) {
    (void)state;
    bool encoded = false;
    pd_session_params params = small_params();
    params.progress = note_encoding;
    params.progress_user = &encoded;
    pd_session *session = create(model, &params), *blind = create(text_model, &params);
    pd_error err;
    const char *piece;
    assert_fails(pd_session_next(session, &piece, &err), PD_ERR_ARGUMENT, &err, "no prompt yet");
    static const struct {
        int32_t tokens[3];
        size_t n_tokens, n_images;
        const char *part;
    } cases[] = {
        {{0}, 0, 0, "the prompt is empty"},
        {{BOS, 320}, 2, 0, "prompt token 1: expected an id in 0..319, found 320"},
        {{BOS, -1}, 2, 0, "expected an id in 0..319, found -1"},
        {{BOS, INT32_MIN}, 2, 0, "found -2147483648"},
        {{BOS, PD_IMAGE_TOKEN, 5}, 3, 0, "1 picture placeholders for 0 pictures"},
        {{BOS, 5, 5}, 3, 1, "0 picture placeholders for 1 pictures"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_fails(pd_session_prompt_tokens(session, cases[i].tokens, cases[i].n_tokens, &picture,
                                              cases[i].n_images, &err),
                     PD_ERR_ARGUMENT, &err, cases[i].part);
    }
    static const int32_t with_image[3] = {BOS, PD_IMAGE_TOKEN, 5};
    assert_fails(pd_session_prompt_tokens(blind, with_image, 3, &picture, 1, &err), PD_ERR_ARGUMENT, &err,
                 "loaded without an mmproj");
    pd_image *const none = NULL;
    assert_fails(pd_session_prompt_tokens(session, with_image, 3, &none, 1, &err), PD_ERR_ARGUMENT, &err,
                 "NULL");

    char *long_text = malloc(100001);
    assert_non_null(long_text);
    memset(long_text, 'a', 100000);
    long_text[100000] = '\0';
    const pd_message long_question = {PD_ROLE_USER, long_text, &picture, 1};
    assert_fails(pd_session_prompt(session, &long_question, 1, &err), PD_ERR_CONTEXT, &err,
                 "leave no room for an answer in a context of 256");
    assert_false(encoded); // refused before the vision tower ran
    free(long_text);
    static const pd_message messages[] = {{PD_ROLE_USER, "<image> <image>", NULL, 0},
                                          {PD_ROLE_ASSISTANT, "no", NULL, 0},
                                          {PD_ROLE_USER, NULL, NULL, 0}};
    assert_fails(pd_session_prompt(session, messages, 0, &err), PD_ERR_ARGUMENT, &err,
                 "must end with a user");
    assert_fails(pd_session_prompt(session, messages, 2, &err), PD_ERR_ARGUMENT, &err,
                 "must end with a user");
    assert_fails(pd_session_prompt(session, messages, 1, &err), PD_ERR_ARGUMENT, &err,
                 "2 <image> placeholders for 0");
    assert_fails(pd_session_prompt(session, messages + 2, 1, &err), PD_ERR_ARGUMENT, &err,
                 "message 0 has no text");
    const pd_message empty = {PD_ROLE_USER, "", NULL, 0}; // the template makes a prompt of it
    assert_int_equal(pd_session_prompt(session, &empty, 1, &err), PD_OK);
    assert_usable(session);
    assert_usable(blind);
    pd_session_free(blind);
    pd_session_free(session);
}

// The prompt fits to the last token but one, which is left to the answer.
static void test_context_is_filled(void **state) {
    (void)state;
    pd_session_params params = small_params();
    params.n_ctx = 128;
    pd_session *session = create(text_model, &params);
    int32_t tokens[128];
    for (int i = 0; i < 128; i++)
        tokens[i] = BOS + i;
    pd_error err;
    int32_t token;
    assert_fails(pd_session_prompt_tokens(session, tokens, 128, NULL, 0, &err), PD_ERR_CONTEXT, &err,
                 "128 tokens");
    assert_int_equal(pd_session_prompt_tokens(session, tokens, 127, NULL, 0, &err), PD_OK);
    assert_int_equal(pd_session_next_token(session, &token, &err), PD_OK);
    assert_int_equal(pd_session_next_token(session, &token, &err), PD_DONE);
    assert_int_equal(pd_session_prompt_tokens(session, tokens, 1, NULL, 0, &err), PD_OK);
    for (int i = 1; i < 128; i++)
        assert_int_equal(pd_session_next_token(session, &token, &err), PD_OK);
    assert_int_equal(pd_session_next_token(session, &token, &err), PD_DONE);
    pd_session_free(session);
}

// ---- parameters -------------------------------------------------------------------------------------------

static void assert_params_refused(const pd_session_params *params, const char *part) {
    pd_error err;
    pd_session *session;
    assert_fails(pd_session_create(model, params, &session, &err), PD_ERR_ARGUMENT, &err, part);
    assert_null(session);
}

#define REFUSE(field, value, part)                                                                           \
    do {                                                                                                     \
        pd_session_params bad = small_params();                                                              \
        bad.field = value;                                                                                   \
        assert_params_refused(&bad, part);                                                                   \
    } while (0)

static void test_session_params(void **state) {
    (void)state;
    REFUSE(size, 8, "pd_session_params: expected a size of");
    REFUSE(attention, (pd_attention)3, "attention: expected 0 to 2, found 3");
    REFUSE(cache_type, (pd_cache_type)7, "cache_type: expected 0 to 2, found 7");
    REFUSE(aspect_ratio, (pd_aspect_ratio)4, "aspect_ratio: expected 0 to 3, found 4");
    REFUSE(n_ctx, -1, "n_ctx: expected 0 to");
    REFUSE(n_ctx, INT32_MAX, "n_ctx: expected 0 to");
    REFUSE(n_predict, -2, "n_predict: expected -1 to");
    REFUSE(n_threads, 100000, "n_threads: expected 0 to");
    REFUSE(temperature, NAN, "temperature: expected 0 or more");
    REFUSE(temperature, INFINITY, "temperature: expected 0 or more");
    REFUSE(temperature, -0.5F, "temperature: expected 0 or more");
    REFUSE(top_k, -1, "top_k: expected 0 or more");
    REFUSE(top_p, 0.0F, "top_p: expected a number in (0, 1]");
    REFUSE(top_p, NAN, "top_p: expected a number in (0, 1]");
    REFUSE(repeat_penalty, 0.0F, "repeat_penalty: expected a positive number");
    REFUSE(repeat_last_n, -1, "repeat_last_n: expected 0 to");
    REFUSE(conversation, "no_such_template", "there is no conversation template \"no_such_template\"");
    pd_model_params params;
    pd_model_params_default(&params, sizeof params);
    pd_model *loaded;
    pd_error err;
    assert_fails(pd_model_load(&params, &loaded, &err), PD_ERR_ARGUMENT, &err, "model_path: expected");
    params.model_path = "x.gguf";
    params.device = "Abacus0";
    assert_fails(pd_model_load(&params, &loaded, &err), PD_ERR_ARGUMENT, &err,
                 "no device named Abacus0 (devices here:");
    params.size = 1;
    assert_fails(pd_model_load(&params, &loaded, &err), PD_ERR_ARGUMENT, &err,
                 "pd_model_params: expected a size");
}

// ---- policies ---------------------------------------------------------------------------------------------

static void test_policy_lists(void **state) {
    (void)state;
    static const struct {
        const char *layers, *ratios, *part;
    } cases[] = {
        {"[2,4]", "[.5]", "layer_list has 2 entries and image_token_ratio_list 1"},
        {"[2]", "[.5,.25]", "layer_list has 1 entries and image_token_ratio_list 2"},
        {"[4,2]", "[.5,.25]", "expected strictly increasing layers, found 2 after 4"},
        {"[2,2]", "[.5,.25]", "expected strictly increasing layers, found 2 after 2"},
        {"[0,2]", "[.5,.25]", "expected layers from 1, found 0"},
        {"[-1]", "[.5]", "expected whole numbers, found -1"},
        {"[1.5]", "[.5]", "expected whole numbers, found 1.5"},
        {"[1e300]", "[.5]", "expected whole numbers, found 1e+300"},
        {"[nan]", "[.5]", "expected whole numbers, found"},
        {"[2,4]", "[.25,.5]", "expected non-increasing ratios, found 0.5 after 0.25"},
        {"[2]", "[nan]", "expected ratios in [0, 1], found"},
        {"[2]", "[inf]", "expected ratios in [0, 1], found inf"},
        {"[2]", "[1.01]", "expected ratios in [0, 1], found 1.01"},
        {"[2]", "[-.1]", "expected ratios in [0, 1], found -0.1"},
        {"[2", "[.5]", "layer_list \"[2\": expected"},
        {"2]", "[.5]", "layer_list \"2]\": expected"},
        {"[2,]", "[.5]", "expected a number behind the last comma"},
        {"[2 4]", "[.5,.25]", "layer_list \"[2 4]\": expected"},
        {"eight", "[.5]", "layer_list \"eight\": expected at most 31 numbers"},
        {"[2]", "[.5]\n[", "image_token_ratio_list \"[.5]?[\""},
        {"1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32", "[.5]",
         "expected at most 31 numbers"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pd_policy policy;
        pd_error err;
        const pd_status status = pd_policy_lists(&policy, cases[i].layers, cases[i].ratios, &err);
        assert_fails(status, PD_ERR_ARGUMENT, &err, cases[i].part);
        assert_int_equal(policy.n_drops, 0);
    }
}

static void test_policy_texts(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"", "expected none, pdrop, fastv, vtw, uniform or random"},
        {"pyramid", "expected none, pdrop, fastv, vtw, uniform or random"},
        {"none:2=.5", "expected nothing after none"},
        {"pdrop:", "expected a layer number"},
        {"pdrop:2", "expected \"=\" and a ratio"},
        {"pdrop:2=", "expected a ratio"},
        {"pdrop:2=x", "expected a ratio"},
        {"pdrop:2=nan", "expected ratios in [0, 1]"},
        {"pdrop:2=.5,", "expected a layer number"},
        {"pdrop:-2=.5", "expected a layer number"},
        {"pdrop:99999999999999999999=.5", "expected a layer number"},
        {"pdrop:6=.5", "layer 6 is beyond the model (expected 1 to 5)"},
        {"pdrop:4=.5,2=.25", "expected strictly increasing"},
        {"pdrop:2=.25,4=.5", "expected non-increasing"},
        {"pdrop;", "expected positions=compact, positions=original or seed=N"},
        {"pdrop;seed=-1", "expected positions=compact"},
        {"pdrop;seed=99999999999999999999", "expected a seed below 2^64"},
        {"pdrop;positions=original;x", "expected positions=compact"},
        {"pdrop:2=.5 ", "expected \";\" or the end"},
        {"fastv", "expected \":\" and a list"},
        {"vtw:x", "expected a layer number"},
        {"pdrop\n:2=.5\x1b[2J", "policy \"pdrop?:2=.5?[2J\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pd_policy policy;
        pd_error err;
        assert_fails(pd_policy_parse(&policy, cases[i].text, 6, &err), PD_ERR_ARGUMENT, &err, cases[i].part);
    }
}

static void test_policy_of_a_session(void **state) {
    (void)state;
    pd_policy policy;
    pd_policy_none(&policy);
    policy.n_drops = 1;
    policy.layer_list[0] = 6;
    policy.image_token_ratio_list[0] = 0.5;
    REFUSE(policy, &policy, "layer 6 is beyond the model (expected 1 to 5)");
    policy.layer_list[0] = 2;
    policy.image_token_ratio_list[0] = (double)NAN;
    REFUSE(policy, &policy, "expected ratios in [0, 1]");
    policy.image_token_ratio_list[0] = 0.5;
    policy.n_drops = PD_MAX_DROPS + 1;
    REFUSE(policy, &policy, "expected 0 to 31 drops, found 32");
    policy.n_drops = -1;
    REFUSE(policy, &policy, "expected 0 to 31 drops, found -1");
    policy.n_drops = 1;
    policy.scorer = (pd_scorer)4;
    REFUSE(policy, &policy, "unknown scorer 4");
    policy.scorer = PD_SCORER_RANDOM;
    policy.positions = (pd_positions)2;
    REFUSE(policy, &policy, "unknown positions 2");
}

// What the baselines keep is told truly: the memory of their choice is not used again by later layers.
static void test_kept_tokens_are_tokens(void **state) {
    (void)state;
    static const char *const texts[] = {"uniform:2=.5,4=.25", "random:2=.5,4=.25", "vtw:3",
                                        "pdrop:2=.5,4=.25", "fastv:2=.5"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        pd_policy policy;
        assert_int_equal(pd_policy_parse(&policy, texts[i], 6, NULL), PD_OK);
        pd_session_params params = small_params();
        params.policy = &policy;
        pd_session *session = create(model, &params);
        static const int32_t tokens[4] = {BOS, PD_IMAGE_TOKEN, 5, 6};
        assert_int_equal(pd_session_prompt_tokens(session, tokens, 4, &picture, 1, NULL), PD_OK);
        for (int32_t stage = 0; stage <= policy.n_drops; stage++) {
            const int32_t *kept;
            size_t count;
            assert_int_equal(pd_session_kept(session, 0, stage, &kept, &count, NULL), PD_OK);
            for (size_t t = 0; t < count; t++)
                assert_true(kept[t] > (t > 0 ? kept[t - 1] : -1) && kept[t] < 16);
        }
        pd_session_free(session);
    }
}

// ---- memory -----------------------------------------------------------------------------------------------

// Scores of 2^38 pairs and heads: said before they are asked for.
static void test_absurd_memory(void **state) {
    (void)state;
    enum { N_TOKENS = 1 << 18 };
    pd_session_params params = small_params();
    params.n_ctx = 1 << 24;
    params.attention = PD_ATTENTION_EAGER;
    pd_session *session = create(text_model, &params);
    int32_t *tokens = calloc(N_TOKENS, sizeof *tokens);
    assert_non_null(tokens);
    const long before = peak_kib();
    pd_error err;
    assert_fails(pd_session_prompt_tokens(session, tokens, N_TOKENS, NULL, 0, &err), PD_ERR_MEMORY, &err,
                 "bytes for a prefill of 262144 rows");
    assert_true(peak_kib() - before < 1024 * 1024); // the cache, 1.5 KiB a row, was there
    free(tokens);
    assert_usable(session);
    pd_session_free(session);
}

// ---- cancelling -------------------------------------------------------------------------------------------

static void cancel_at_half(const char *what, double progress, void *user) {
    if (strcmp(what, "prefill") == 0 && progress > 0.4) pd_session_cancel(*(pd_session **)user);
}

static void test_cancelled(void **state) {
    (void)state;
    pd_session *session = NULL;
    pd_session_params params = small_params();
    params.progress = cancel_at_half;
    params.progress_user = &session;
    session = create(model, &params);
    const pd_message question = {PD_ROLE_USER, "the cat", &picture, 1};
    pd_error err;
    assert_fails(pd_session_prompt(session, &question, 1, &err), PD_ERR_CANCELLED, &err, "cancelled");
    const char *piece;
    assert_fails(pd_session_next(session, &piece, &err), PD_ERR_ARGUMENT, &err, "no prompt yet");
    pd_session_free(session);

    params.progress = NULL;
    session = create(model, &params);
    pd_session_cancel(session); // before the work: told at its beginning, once
    assert_fails(pd_session_prompt(session, &question, 1, &err), PD_ERR_CANCELLED, &err, "cancelled");
    assert_int_equal(pd_session_prompt(session, &question, 1, &err), PD_OK);
    assert_int_equal(pd_session_next(session, &piece, &err), PD_OK);
    pd_session_cancel(session);
    assert_fails(pd_session_next(session, &piece, &err), PD_ERR_CANCELLED, &err, "cancelled");
    assert_int_equal(pd_session_next(session, &piece, &err), PD_OK); // and goes on where it was
    assert_usable(session);
    pd_session_free(session);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_picture_sizes),
        cmocka_unit_test(test_pictures_cut_short),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_context_is_filled),
        cmocka_unit_test(test_session_params),
        cmocka_unit_test(test_policy_lists),
        cmocka_unit_test(test_policy_texts),
        cmocka_unit_test(test_policy_of_a_session),
        cmocka_unit_test(test_kept_tokens_are_tokens),
        cmocka_unit_test(test_absurd_memory),
        cmocka_unit_test(test_cancelled),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
