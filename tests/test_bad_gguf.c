// Damaged model files, as bytes: none, cut short, with flipped bits, with a header that is not true. Each
// must end in one line that names the file and what was expected, or run.
#include "damaged_pair.h"

#include "base/gguf_file.h"
#include "base/random.h"

static void test_good_pair_runs(void **state) {
    (void)state;
    pd_error err;
    assert_int_equal(load_and_run(good_text, good_mmproj, &err), PD_OK);
}

// ---- whole files ------------------------------------------------------------------------------------------

static void test_not_a_model(void **state) {
    (void)state;
    assert_refused("/nowhere/model.gguf", NULL, PD_ERR_IO, "/nowhere/model.gguf", "cannot open");
    assert_refused(good_text, "/nowhere/mmproj.gguf", PD_ERR_IO, "/nowhere/mmproj.gguf", "cannot open");
    assert_refused(directory, NULL, PD_ERR_IO, directory, "not a regular file");
    assert_refused("/dev/null", NULL, PD_ERR_IO, "/dev/null", "not a regular file");
    assert_int_equal(mkfifo(text_path, 0600), 0); // nobody writes into it, and nobody waits
    assert_refused(text_path, NULL, PD_ERR_IO, text_path, "not a regular file");
    remove(text_path);
    write_blob(text_path, "", 0);
    assert_refused(text_path, NULL, PD_ERR_FORMAT, text_path, "it is empty");
    assert_refused(good_text, text_path, PD_ERR_FORMAT, text_path, "it is empty");
    write_blob(text_path, "GGU", 3);
    assert_refused(text_path, NULL, PD_ERR_FORMAT, text_path, "not a GGUF file");
    write_blob(text_path, "PK\3\4 and so on", 13);
    assert_refused(text_path, NULL, PD_ERR_FORMAT, text_path, "not a GGUF file");
    write_blob(text_path, "GGUF", 4);
    assert_refused(text_path, NULL, PD_ERR_FORMAT, text_path, "damaged or truncated");
    char picture[512];
    snprintf(picture, sizeof picture, "%s/parity/tile.png", PD_TEST_DATA);
    assert_refused(picture, NULL, PD_ERR_FORMAT, picture, "not a GGUF file");
    assert_refused(good_mmproj, NULL, PD_ERR_UNSUPPORTED, good_mmproj, "expected a text model");
    assert_refused(good_text, good_text, PD_ERR_UNSUPPORTED, good_text, "expected clip");
}

static size_t data_offset_of(const char *path) {
    pd_gguf gguf;
    assert_int_equal(pd_gguf_open(path, &gguf, NULL), PD_OK);
    const size_t offset = gguf_get_data_offset(gguf.gguf);
    pd_gguf_close(&gguf);
    return offset;
}

// Every prefix of a file is refused: densely in the header, here and there in the tensors.
static void check_truncations(const char *good, const char *damaged, bool is_text) {
    const blob whole = read_blob(good);
    const size_t header = data_offset_of(good);
    uint64_t random = 1;
    size_t n = 0;
    for (size_t size = 4; size < whole.size; n++) {
        write_blob(damaged, whole.bytes, size);
        pd_error err;
        const pd_status status = load_and_run(is_text ? damaged : good_text, is_text ? NULL : damaged, &err);
        if (status != PD_ERR_FORMAT) print_error("cut to %zu bytes: %s\n", size, pd_status_name(status));
        assert_int_equal(status, PD_ERR_FORMAT);
        assert_non_null(strstr(err.message, damaged));
        size += 1 + pd_random_next(&random) % (size < header ? header / 80 : whole.size / 40);
    }
    assert_true(n > 100);
    write_blob(damaged, whole.bytes, whole.size - 1);
    assert_refused(is_text ? damaged : good_text, is_text ? NULL : damaged, PD_ERR_FORMAT, damaged,
                   "points outside the file");
    free(whole.bytes);
}

static void test_truncated(void **state) {
    (void)state;
    check_truncations(good_text, text_path, true);
    check_truncations(good_mmproj, mmproj_path, false);
}

// Bits and bytes of the header at seeded places: refused with a line about this file, or it runs.
static void check_flips(const char *good, const char *damaged, bool is_text, int n_flips, uint64_t seed) {
    const blob whole = read_blob(good);
    const size_t header = data_offset_of(good);
    uint64_t random = seed;
    int n_refused = 0;
    for (int i = 0; i < n_flips; i++) {
        const size_t at = 4 + pd_random_next(&random) % (header - 4);
        const uint8_t before = whole.bytes[at];
        const uint64_t bits = pd_random_next(&random);
        whole.bytes[at] = (uint8_t)(i % 3 == 2 ? bits : before ^ (uint64_t)1 << bits % 8);
        write_blob(damaged, whole.bytes, whole.size);
        pd_error err;
        const pd_status status =
            load_and_run(is_text ? damaged : good_text, is_text ? good_mmproj : damaged, &err);
        n_refused += status != PD_OK;
        if (status == PD_ERR_FORMAT || status == PD_ERR_UNSUPPORTED) {
            if (!strstr(err.message, damaged)) print_error("byte %zu: %s\n", at, err.message);
            assert_non_null(strstr(err.message, directory));
        }
        whole.bytes[at] = before;
    }
    assert_true(n_refused > n_flips / 4); // names, texts and scores may change unnoticed
    assert_true(n_refused < n_flips);
    free(whole.bytes);
}

static void test_flipped_bits(void **state) {
    (void)state;
    check_flips(good_text, text_path, true, 300, 2);
    check_flips(good_mmproj, mmproj_path, false, 300, 3);
}

// ---- bytes ------------------------------------------------------------------------------------------------

typedef struct {
    const char *name; // of a tensor or key; NULL: from the file's beginning
    size_t offset;    // behind it
    uint64_t value;
    size_t size; // bytes of the value that are written
    const char *part;
} patch;

static void check_patch(const patch *p) {
    blob b = read_blob(good_text);
    const size_t at = (p->name ? behind(&b, p->name) : 0) + p->offset;
    memcpy(b.bytes + at, &p->value, p->size); // little endian, as the file
    write_blob(text_path, b.bytes, b.size);
    assert_refused(text_path, NULL, PD_ERR_FORMAT, text_path, p->part);
    free(b.bytes);
}

static void test_header_bytes(void **state) {
    (void)state;
    static const char q[] = "blk.1.attn_q.weight"; // u32 dimensions, two u64 sides, u32 type, u64 offset
    static const patch patches[] = {
        {NULL, 4, 1, 4, "GGUFv1"},
        {NULL, 4, 4, 4, "version 4"},
        {NULL, 4, 0x03000000, 4, "endian"},
        {NULL, 8, UINT64_MAX, 8, "number of tensors"},
        {NULL, 8, 1U << 30, 8, "damaged or truncated"},
        {NULL, 16, UINT64_MAX, 8, "number of key value pairs"},
        {NULL, 16, 1U << 30, 8, "damaged or truncated"},
        {NULL, 24, UINT64_MAX, 8, "damaged or truncated"},       // the first key's length
        {"llama.block_count", 0, 13, 4, "damaged or truncated"}, // no such value type

        {"tokenizer.ggml.tokens", 4, 9, 4, "tokenizer.ggml.tokens"},
        {"tokenizer.ggml.tokens", 8, UINT64_MAX, 8, "damaged or truncated"},
        {"tokenizer.ggml.tokens", 8, 1U << 28, 8, "damaged or truncated"},
        {"tokenizer.ggml.scores", 8, UINT64_C(1) << 62, 8, "damaged or truncated"},
        {q, 0, 5, 4, "number of dimensions"},
        {"output.weight", 4, 0, 8, "output.weight: expected 1 to 2^48 elements"},
        {q, 4, UINT64_MAX, 8, "damaged or truncated"},
        {q, 12, UINT64_C(1) << 62, 8, "damaged or truncated"},
        {q, 20, 999, 4, "invalid ggml type"},
        {q, 20, GGML_TYPE_Q4_K, 4, "not a multiple of block size"},
        {q, 24, UINT64_MAX - 31, 8, "tensor 'blk.1.attn_q.weight' has offset"},
        {q, 24, 1, 8, "tensor 'blk.1.attn_q.weight' has offset"},
    };
    for (size_t i = 0; i < sizeof patches / sizeof *patches; i++) {
        check_patch(&patches[i]);
    }
}

// Sides whose product is 2^64 have no bytes where nobody looks.
static void test_overflowing_sides(void **state) {
    (void)state;
    blob b = read_blob(good_text);
    const size_t at = behind(&b, "output.weight"); // the last tensor: none stands behind it
    const uint64_t side = UINT64_C(1) << 32;
    memcpy(b.bytes + at + 4, &side, sizeof side);
    memcpy(b.bytes + at + 12, &side, sizeof side);
    write_blob(text_path, b.bytes, b.size);
    assert_refused(text_path, NULL, PD_ERR_FORMAT, text_path, "output.weight");
    free(b.bytes);
}

static void rename_to(blob *b, const char *from, const char *to) {
    assert_int_equal(strlen(from), strlen(to));
    const size_t end = behind(b, from);
    memcpy(b->bytes + end - strlen(from), to, strlen(to));
}

static void test_duplicates(void **state) {
    (void)state;
    blob b = read_blob(good_text);
    rename_to(&b, "tokenizer.ggml.eos_token_id", "tokenizer.ggml.bos_token_id");
    write_blob(text_path, b.bytes, b.size);
    assert_refused(text_path, NULL, PD_ERR_FORMAT, text_path, "duplicate key 'tokenizer.ggml.bos_token_id'");
    free(b.bytes);
    b = read_blob(good_text);
    rename_to(&b, "blk.1.attn_q.weight", "blk.0.attn_q.weight");
    write_blob(text_path, b.bytes, b.size);
    assert_refused(text_path, NULL, PD_ERR_FORMAT, text_path, "duplicate tensor name 'blk.0.attn_q.weight'");
    free(b.bytes);
    b = read_blob(good_text); // a key that is no UTF-8, and one with a NUL: strangers, passed over
    rename_to(&b, "general.file_type", "\xff\xfe\xf0\x80.file_typ\x80\xc0\xaf\x01");
    const size_t end = behind(&b, "llama.vocab_size");
    if (end > 4) b.bytes[end - 4] = '\0';
    write_blob(text_path, b.bytes, b.size);
    pd_error err;
    assert_int_equal(load_and_run(text_path, good_mmproj, &err), PD_OK);
    free(b.bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_pair_runs), cmocka_unit_test(test_not_a_model),
        cmocka_unit_test(test_truncated),      cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_header_bytes),   cmocka_unit_test(test_overflowing_sides),
        cmocka_unit_test(test_duplicates),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
