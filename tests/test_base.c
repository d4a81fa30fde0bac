// Files, GGUF metadata, errors and random numbers: what they do, and how they fail.
#include "base/ggml_log.h"
#include "base/gguf_file.h"
#include "base/random.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h> // wants the above

#include "checks.h" // wants cmocka

static char directory[256];

static const char *path_of(const char *name) {
    static char buffers[4][540];
    static unsigned next;
    char *buffer = buffers[next++ % 4];
    snprintf(buffer, sizeof buffers[0], "%s/%s", directory, name);
    return buffer;
}

static int count_files(void) {
    DIR *dir = opendir(directory);
    assert_non_null(dir);
    int n = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void write_file(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void assert_file(const char *path, const void *bytes, size_t size) {
    pd_mapped_file file;
    assert_int_equal(pd_mapped_file_open(path, &file, NULL), PD_OK);
    assert_int_equal(file.size, size);
    if (size > 0) assert_memory_equal(file.data, bytes, size);
    pd_mapped_file_close(&file);
}

static int set_up(void **state) {
    (void)state;
    return make_test_folder(directory, sizeof directory, "base") ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    DIR *dir = opendir(directory);
    if (!dir) return -1;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            remove(path_of(entry->d_name));
    }
    closedir(dir);
    return rmdir(directory);
}

// ---- errors -----------------------------------------------------------------------------------------------

static void errors(void **state) {
    (void)state;
    pd_error err;
    assert_int_equal(sizeof err, 512);
    assert_int_equal(pd_fail(&err, PD_ERR_IO, "%s: %d", "file", 7), PD_ERR_IO);
    assert_int_equal(err.status, PD_ERR_IO);
    assert_string_equal(err.message, "file: 7");
    assert_int_equal(pd_fail(NULL, PD_ERR_FORMAT, "nobody reads this"), PD_ERR_FORMAT);
    assert_int_equal(pd_fail_memory(&err, 12, "a dozen"), PD_ERR_MEMORY);
    assert_string_equal(err.message, "out of memory: 12 bytes for a dozen");
    char text[600];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    pd_fail(&err, PD_ERR_IO, "%s", text);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    for (int status = 0; status <= 9; status++)
        assert_string_not_equal(pd_status_name((pd_status)status), "unknown");
    assert_string_equal(pd_status_name((pd_status)10), "unknown");
    assert_true(strlen(pd_version()) >= 5);
}

// ---- mapped files -----------------------------------------------------------------------------------------

static void mapped_files(void **state) {
    (void)state;
    pd_mapped_file file;
    pd_error err;
    write_file(path_of("five"), "12345", 5);
    assert_int_equal(pd_mapped_file_open(path_of("five"), &file, &err), PD_OK);
    assert_int_equal(file.size, 5);
    assert_memory_equal(file.data, "12345", 5);
    pd_mapped_file_close(&file);
    assert_null(file.data);
    pd_mapped_file_close(&file); // a second time does nothing

    write_file(path_of("empty"), "", 0);
    assert_int_equal(pd_mapped_file_open(path_of("empty"), &file, &err), PD_OK);
    assert_null(file.data);
    assert_int_equal(file.size, 0);
    pd_mapped_file_close(&file);

    memset(&file, 0xff, sizeof file);
    assert_fails(pd_mapped_file_open(path_of("missing"), &file, &err), PD_ERR_IO, &err,
                 "missing: cannot open: No such file");
    assert_null(file.data);
    assert_fails(pd_mapped_file_open(directory, &file, &err), PD_ERR_IO, &err, "not a regular file");
    assert_fails(pd_mapped_file_open("/dev/null", &file, &err), PD_ERR_IO, &err, "not a regular file");
    assert_fails(pd_mapped_file_open(path_of("five/six"), &file, &err), PD_ERR_IO, &err, "cannot open");
    if (geteuid() != 0) { // root may read everything
        assert_int_equal(chmod(path_of("five"), 0), 0);
        assert_fails(pd_mapped_file_open(path_of("five"), &file, &err), PD_ERR_IO, &err, "Permission denied");
    }
    remove(path_of("five"));
    remove(path_of("empty"));
}

// ---- written files ----------------------------------------------------------------------------------------

static void writer_commits(void **state) {
    (void)state;
    pd_file_writer writer;
    pd_error err;
    const mode_t mask = umask(027);
    assert_int_equal(pd_file_writer_open(path_of("new"), &writer, &err), PD_OK);
    assert_int_equal(pd_file_write(&writer, "12345", 5, &err), PD_OK);
    assert_int_equal(pd_file_write(&writer, NULL, 0, &err), PD_OK);
    assert_int_equal(access(path_of("new"), F_OK), -1); // not before it is whole
    assert_int_equal(count_files(), 1);
    assert_int_equal(pd_file_writer_commit(&writer, &err), PD_OK);
    umask(mask);
    assert_file(path_of("new"), "12345", 5);
    assert_int_equal(count_files(), 1);
    struct stat info;
    assert_int_equal(stat(path_of("new"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640); // as the umask says
    pd_file_writer_discard(&writer);             // closed already: nothing happens
    assert_file(path_of("new"), "12345", 5);

    // another one over it, which a discarded one leaves alone
    assert_int_equal(pd_file_writer_open(path_of("new"), &writer, &err), PD_OK);
    assert_int_equal(pd_file_write(&writer, "abc", 3, &err), PD_OK);
    pd_file_writer_discard(&writer);
    pd_file_writer_discard(&writer);
    assert_file(path_of("new"), "12345", 5);
    assert_int_equal(pd_file_writer_open(path_of("new"), &writer, &err), PD_OK);
    assert_int_equal(pd_file_write(&writer, "abc", 3, &err), PD_OK);
    assert_int_equal(pd_file_writer_commit(&writer, &err), PD_OK);
    assert_file(path_of("new"), "abc", 3);

    // two at once have each their own temporary file; the last to commit stands
    pd_file_writer other;
    assert_int_equal(pd_file_writer_open(path_of("new"), &writer, &err), PD_OK);
    assert_int_equal(pd_file_writer_open(path_of("new"), &other, &err), PD_OK);
    assert_int_equal(count_files(), 3);
    assert_int_equal(pd_file_write(&writer, "first", 5, &err), PD_OK);
    assert_int_equal(pd_file_write(&other, "second", 6, &err), PD_OK);
    assert_int_equal(pd_file_writer_commit(&writer, &err), PD_OK);
    assert_int_equal(pd_file_writer_commit(&other, &err), PD_OK);
    assert_file(path_of("new"), "second", 6);
    assert_int_equal(count_files(), 1);
    remove(path_of("new"));
}

static void writer_fails(void **state) {
    (void)state;
    pd_file_writer writer;
    pd_error err;
    assert_fails(pd_file_writer_open(path_of("no/folder"), &writer, &err), PD_ERR_IO, &err,
                 "no/folder: cannot create: No such file");
    assert_null(writer.stream);
    pd_file_writer_discard(&writer);
    char longest[PATH_MAX];
    snprintf(longest, sizeof longest, "%s/%0250d", directory, 1);
    assert_fails(pd_file_writer_open(longest, &writer, &err), PD_ERR_IO, &err, "cannot create");
    if (geteuid() != 0) { // root may write everywhere
        assert_int_equal(chmod(directory, 0500), 0);
        assert_fails(pd_file_writer_open(path_of("new"), &writer, &err), PD_ERR_IO, &err,
                     "Permission denied");
        assert_int_equal(chmod(directory, 0700), 0);
    }

    // a folder, there before or by the time that the name is wanted: it stays, the temporary file goes
    assert_int_equal(mkdir(path_of("folder"), 0700), 0);
    assert_fails(pd_file_writer_open(path_of("folder"), &writer, &err), PD_ERR_IO, &err,
                 "folder: cannot create: a folder");
    assert_int_equal(rmdir(path_of("folder")), 0);
    assert_int_equal(pd_file_writer_open(path_of("folder"), &writer, &err), PD_OK);
    assert_int_equal(pd_file_write(&writer, "abc", 3, &err), PD_OK);
    assert_int_equal(mkdir(path_of("folder"), 0700), 0);
    assert_fails(pd_file_writer_commit(&writer, &err), PD_ERR_IO, &err, "folder: cannot write");
    assert_int_equal(count_files(), 1);
    pd_file_writer_discard(&writer);
    assert_int_equal(rmdir(path_of("folder")), 0);
}

// What stands at the name stays what it is: a link a link, a private file private, a device a device.
static void writer_keeps_what_is_there(void **state) {
    (void)state;
    pd_file_writer writer;
    pd_error err;
    struct stat info;
    write_file(path_of("private"), "old", 3);
    assert_int_equal(chmod(path_of("private"), 0600), 0);
    char link[PATH_MAX]; // path_of's buffer is one
    snprintf(link, sizeof link, "%s", path_of("link"));
    assert_int_equal(symlink("private", link), 0);
    assert_int_equal(pd_file_writer_open(link, &writer, &err), PD_OK);
    assert_int_equal(pd_file_write(&writer, "new", 3, &err), PD_OK);
    assert_int_equal(pd_file_writer_commit(&writer, &err), PD_OK);
    assert_file(path_of("private"), "new", 3);
    assert_int_equal(lstat(link, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(stat(link, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    remove(link);
    remove(path_of("private"));

    assert_int_equal(mkfifo(path_of("pipe"), 0600), 0);
    const int reader = open(path_of("pipe"), O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    char read_back[8] = "";
    assert_int_equal(pd_file_writer_open(path_of("pipe"), &writer, &err), PD_OK);
    assert_int_equal(pd_file_writer_reserve(&writer, 1 << 20, &err), PD_OK);
    assert_int_equal(pd_file_write(&writer, "piped", 5, &err), PD_OK);
    assert_int_equal(pd_file_writer_commit(&writer, &err), PD_OK);
    assert_int_equal(read(reader, read_back, sizeof read_back), 5);
    assert_string_equal(read_back, "piped");
    close(reader);
    assert_int_equal(stat(path_of("pipe"), &info), 0);
    assert_true(S_ISFIFO(info.st_mode));
    assert_int_equal(count_files(), 1);
    remove(path_of("pipe"));
}

// A disk that is full, played by a limit on the size of files.
static void writer_keeps_the_old_file(void **state) {
    (void)state;
    enum { LIMIT = 1 << 16 };
    pd_file_writer writer;
    pd_error err;
    write_file(path_of("kept"), "old", 3);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    const struct rlimit low = {LIMIT, before.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    char *bytes = calloc(2, LIMIT);
    assert_non_null(bytes);

    assert_int_equal(pd_file_writer_open(path_of("kept"), &writer, &err), PD_OK);
    const pd_status reserved = pd_file_writer_reserve(&writer, 2 * LIMIT, &err);
    pd_error reserve_err = err;
    pd_file_writer_discard(&writer);

    assert_int_equal(pd_file_writer_open(path_of("kept"), &writer, &err), PD_OK);
    const pd_status written = pd_file_write(&writer, bytes, 2 * LIMIT, &err);
    pd_error write_err = err;
    pd_file_writer_discard(&writer);

    // small enough to wait in the buffer: commit finds out
    assert_int_equal(pd_file_writer_open(path_of("kept"), &writer, &err), PD_OK);
    assert_int_equal(pd_file_write(&writer, bytes, LIMIT, &err), PD_OK);
    assert_int_equal(pd_file_write(&writer, bytes, 100, &err), PD_OK);
    const pd_status committed = pd_file_writer_commit(&writer, &err);

    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    free(bytes);
    assert_fails(reserved, PD_ERR_IO, &reserve_err, "kept: cannot write 131072 bytes: File too large");
    assert_fails(written, PD_ERR_IO, &write_err, "kept: cannot write: File too large");
    assert_fails(committed, PD_ERR_IO, &err, "kept: cannot write: File too large");
    assert_file(path_of("kept"), "old", 3);
    assert_int_equal(count_files(), 1);
    remove(path_of("kept"));
}

static void writer_reserves(void **state) {
    (void)state;
    pd_file_writer writer;
    pd_error err;
    // what is reserved and not written is no part of the file
    assert_int_equal(pd_file_writer_open(path_of("new"), &writer, &err), PD_OK);
    assert_int_equal(pd_file_writer_reserve(&writer, 100000, &err), PD_OK);
    assert_int_equal(pd_file_write(&writer, "12345", 5, &err), PD_OK);
    assert_int_equal(pd_file_writer_commit(&writer, &err), PD_OK);
    assert_file(path_of("new"), "12345", 5);
    // nor does a reservation bound it
    assert_int_equal(pd_file_writer_open(path_of("new"), &writer, &err), PD_OK);
    assert_int_equal(pd_file_writer_reserve(&writer, 0, &err), PD_OK);
    assert_int_equal(pd_file_writer_reserve(&writer, 2, &err), PD_OK);
    assert_int_equal(pd_file_write(&writer, "123456", 6, &err), PD_OK);
    assert_int_equal(pd_file_writer_commit(&writer, &err), PD_OK);
    assert_file(path_of("new"), "123456", 6);

    assert_int_equal(pd_file_writer_open(path_of("new"), &writer, &err), PD_OK);
    assert_fails(pd_file_writer_reserve(&writer, SIZE_MAX, &err), PD_ERR_IO, &err, "too many");
    pd_file_writer_discard(&writer);
    remove(path_of("new"));
}

// ---- GGUF -------------------------------------------------------------------------------------------------

static void write_gguf(const char *path) {
    struct gguf_context *gguf = gguf_init_empty();
    gguf_set_val_u8(gguf, "u8", 200);
    gguf_set_val_i8(gguf, "i8", 100);
    gguf_set_val_i8(gguf, "i8.negative", -1);
    gguf_set_val_u16(gguf, "u16", 60000);
    gguf_set_val_i16(gguf, "i16", 30000);
    gguf_set_val_i16(gguf, "i16.negative", -30000);
    gguf_set_val_u32(gguf, "u32", UINT32_MAX);
    gguf_set_val_i32(gguf, "i32", INT32_MAX);
    gguf_set_val_i32(gguf, "i32.negative", INT32_MIN);
    gguf_set_val_u64(gguf, "u64", UINT32_MAX);
    gguf_set_val_u64(gguf, "u64.large", (uint64_t)UINT32_MAX + 1);
    gguf_set_val_u64(gguf, "u64.largest", UINT64_MAX);
    gguf_set_val_i64(gguf, "i64", 7);
    gguf_set_val_i64(gguf, "i64.negative", INT64_MIN);
    gguf_set_val_i64(gguf, "i64.large", (int64_t)UINT32_MAX + 1);
    gguf_set_val_f32(gguf, "f32", 0.5F);
    gguf_set_val_f32(gguf, "f32.nan", NAN);
    gguf_set_val_f32(gguf, "f32.inf", -INFINITY);
    gguf_set_val_f64(gguf, "f64", 0.1);
    gguf_set_val_f64(gguf, "f64.large", 1e39);
    gguf_set_val_f64(gguf, "f64.nan", NAN);
    gguf_set_val_bool(gguf, "yes", true);
    gguf_set_val_bool(gguf, "no", false);
    gguf_set_val_str(gguf, "string", "text");
    gguf_set_val_str(gguf, "string.empty", "");
    const int32_t numbers[] = {3, -4, 5};
    gguf_set_arr_data(gguf, "array.i32", GGUF_TYPE_INT32, numbers, 3);
    gguf_set_arr_data(gguf, "array.empty", GGUF_TYPE_INT32, numbers, 0);
    const char *strings[] = {"one", "", "three"};
    gguf_set_arr_str(gguf, "array.string", strings, 3);
    struct ggml_context *ctx = ggml_init((struct ggml_init_params){.mem_size = 1 << 16});
    struct ggml_tensor *tensor = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 3, 2);
    ggml_set_name(tensor, "matrix");
    for (int i = 0; i < 6; i++)
        ((float *)tensor->data)[i] = (float)i;
    gguf_add_tensor(gguf, tensor);
    assert_true(gguf_write_to_file(gguf, path, false));
    ggml_free(ctx);
    gguf_free(gguf);
}

static void gguf_integers(const pd_gguf *gguf) {
    pd_error err;
    static const struct {
        const char *key;
        uint32_t value;
    } good[] = {{"u8", 200},         {"i8", 100},        {"u16", 60000},      {"i16", 30000},
                {"u32", UINT32_MAX}, {"i32", INT32_MAX}, {"u64", UINT32_MAX}, {"i64", 7}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uint32_t value = 1;
        assert_int_equal(pd_gguf_get_u32(gguf, good[i].key, true, &value, &err), PD_OK);
        assert_true(value == good[i].value);
    }
    static const char *const outside[] = {"i8.negative", "i16.negative", "i32.negative", "i64.negative",
                                          "i64.large",   "u64.large",    "u64.largest"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        uint32_t value = 1;
        assert_fails(pd_gguf_get_u32(gguf, outside[i], false, &value, &err), PD_ERR_FORMAT, &err,
                     "expected an integer in 0..4294967295");
        assert_non_null(strstr(err.message, outside[i]));
        assert_int_equal(value, 1);
    }
    static const struct {
        const char *key, *found;
    } wrong[] = {{"f32", "found f32"},
                 {"yes", "found bool"},
                 {"string", "found str"},
                 {"array.i32", "found an array of i32"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint32_t value = 1;
        assert_fails(pd_gguf_get_u32(gguf, wrong[i].key, false, &value, &err), PD_ERR_FORMAT, &err,
                     wrong[i].found);
        assert_non_null(strstr(err.message, "expected an integer"));
        assert_non_null(strstr(err.message, gguf->path));
        assert_int_equal(value, 1);
    }
}

static void gguf_floats(const pd_gguf *gguf) {
    pd_error err;
    float value = 1.0F;
    assert_int_equal(pd_gguf_get_f32(gguf, "f32", true, &value, &err), PD_OK);
    assert_true(value == 0.5F);
    assert_int_equal(pd_gguf_get_f32(gguf, "f64", true, &value, &err), PD_OK);
    assert_true(value == 0.1F);
    static const char *const outside[] = {"f32.nan", "f32.inf", "f64.large", "f64.nan"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        assert_fails(pd_gguf_get_f32(gguf, outside[i], true, &value, &err), PD_ERR_FORMAT, &err, "finite");
        assert_true(value == 0.1F);
    }
    assert_fails(pd_gguf_get_f32(gguf, "u32", false, &value, &err), PD_ERR_FORMAT, &err,
                 "expected a float, found u32");
}

static void gguf_arrays(const pd_gguf *gguf) {
    pd_error err;
    const void *data;
    size_t count;
    assert_int_equal(pd_gguf_get_array(gguf, "array.i32", true, GGUF_TYPE_INT32, &data, &count, &err), PD_OK);
    assert_int_equal(count, 3);
    const int32_t expected[] = {3, -4, 5};
    assert_memory_equal(data, expected, sizeof expected);
    assert_int_equal(pd_gguf_get_array(gguf, "array.empty", true, GGUF_TYPE_INT32, &data, &count, &err),
                     PD_OK);
    assert_int_equal(count, 0);
    assert_null(data);
    assert_fails(pd_gguf_get_array(gguf, "array.i32", false, GGUF_TYPE_FLOAT32, &data, &count, &err),
                 PD_ERR_FORMAT, &err, "expected an array of f32, found an array of i32");
    assert_null(data);
    assert_fails(pd_gguf_get_array(gguf, "i32", false, GGUF_TYPE_INT32, &data, &count, &err), PD_ERR_FORMAT,
                 &err, "expected an array of i32, found i32");

    int64_t id;
    assert_int_equal(pd_gguf_get_strings(gguf, "array.string", true, &id, &count, &err), PD_OK);
    assert_int_equal(count, 3);
    assert_string_equal(pd_gguf_string_at(gguf, id, 0), "one");
    assert_string_equal(pd_gguf_string_at(gguf, id, 1), "");
    assert_string_equal(pd_gguf_string_at(gguf, id, 2), "three");
    assert_fails(pd_gguf_get_strings(gguf, "array.i32", false, &id, &count, &err), PD_ERR_FORMAT, &err,
                 "expected an array of strings, found an array of i32");
    assert_int_equal(id, -1);
    assert_fails(pd_gguf_get_strings(gguf, "string", false, &id, &count, &err), PD_ERR_FORMAT, &err,
                 "found str");
}

static void gguf_absent(const pd_gguf *gguf) {
    pd_error err;
    uint32_t number = 1;
    float real = 1.0F;
    bool yes = true;
    const char *text = "default";
    const void *data = &err;
    size_t count = 9;
    int64_t id = 9;
    assert_int_equal(pd_gguf_get_u32(gguf, "absent", false, &number, &err), PD_OK);
    assert_int_equal(pd_gguf_get_f32(gguf, "absent", false, &real, &err), PD_OK);
    assert_int_equal(pd_gguf_get_bool(gguf, "absent", false, &yes, &err), PD_OK);
    assert_int_equal(pd_gguf_get_string(gguf, "absent", false, &text, &err), PD_OK);
    assert_int_equal(number, 1);
    assert_true(real == 1.0F);
    assert_true(yes);
    assert_string_equal(text, "default");
    assert_int_equal(pd_gguf_get_array(gguf, "absent", false, GGUF_TYPE_INT32, &data, &count, &err), PD_OK);
    assert_null(data);
    assert_int_equal(count, 0);
    assert_int_equal(pd_gguf_get_strings(gguf, "absent", false, &id, &count, &err), PD_OK);
    assert_int_equal(id, -1);

    static const char message[] = "metadata key absent is missing";
    assert_fails(pd_gguf_get_u32(gguf, "absent", true, &number, &err), PD_ERR_FORMAT, &err, message);
    assert_fails(pd_gguf_get_f32(gguf, "absent", true, &real, &err), PD_ERR_FORMAT, &err, message);
    assert_fails(pd_gguf_get_bool(gguf, "absent", true, &yes, &err), PD_ERR_FORMAT, &err, message);
    assert_fails(pd_gguf_get_string(gguf, "absent", true, &text, &err), PD_ERR_FORMAT, &err, message);
    assert_fails(pd_gguf_get_array(gguf, "absent", true, GGUF_TYPE_INT32, &data, &count, &err), PD_ERR_FORMAT,
                 &err, message);
    assert_fails(pd_gguf_get_strings(gguf, "absent", true, &id, &count, &err), PD_ERR_FORMAT, &err, message);
}

static void gguf_metadata(void **state) {
    (void)state;
    pd_gguf gguf;
    pd_error err;
    write_gguf(path_of("good.gguf"));
    assert_int_equal(pd_gguf_open(path_of("good.gguf"), &gguf, &err), PD_OK);
    gguf_integers(&gguf);
    gguf_floats(&gguf);
    gguf_arrays(&gguf);
    gguf_absent(&gguf);
    bool yes = false;
    assert_int_equal(pd_gguf_get_bool(&gguf, "yes", true, &yes, &err), PD_OK);
    assert_true(yes);
    assert_int_equal(pd_gguf_get_bool(&gguf, "no", true, &yes, &err), PD_OK);
    assert_false(yes);
    assert_fails(pd_gguf_get_bool(&gguf, "u8", true, &yes, &err), PD_ERR_FORMAT, &err,
                 "expected a bool, found u8");
    const char *text = NULL;
    assert_int_equal(pd_gguf_get_string(&gguf, "string", true, &text, &err), PD_OK);
    assert_string_equal(text, "text");
    assert_int_equal(pd_gguf_get_string(&gguf, "string.empty", true, &text, &err), PD_OK);
    assert_string_equal(text, "");
    assert_fails(pd_gguf_get_string(&gguf, "array.string", true, &text, &err), PD_ERR_FORMAT, &err,
                 "expected a string, found an array of str");

    const float *matrix = pd_gguf_tensor_data(&gguf, "matrix");
    assert_non_null(matrix);
    for (int i = 0; i < 6; i++)
        assert_true(matrix[i] == (float)i);
    assert_null(pd_gguf_tensor_data(&gguf, "no such tensor"));
    pd_gguf_close(&gguf);
    pd_gguf_close(&gguf); // a second time does nothing
}

static void gguf_damaged(void **state) {
    (void)state;
    pd_gguf gguf;
    pd_error err;
    write_gguf(path_of("good.gguf"));
    pd_mapped_file good;
    assert_int_equal(pd_mapped_file_open(path_of("good.gguf"), &good, &err), PD_OK);
    // cut anywhere: an error, and no crash
    for (size_t size = 0; size < good.size; size++) {
        write_file(path_of("cut.gguf"), good.data, size);
        const pd_status status = pd_gguf_open(path_of("cut.gguf"), &gguf, &err);
        // padding behind the last tensor may be missing
        if (status == PD_OK) {
            assert_true(size >= gguf_get_data_offset(gguf.gguf) + 6 * sizeof(float));
            pd_gguf_close(&gguf);
            continue;
        }
        assert_fails(status, PD_ERR_FORMAT, &err, "cut.gguf: ");
        assert_null(gguf.gguf);
        assert_null(gguf.path);
    }
    write_file(path_of("cut.gguf"), good.data, good.size - 9);
    assert_fails(pd_gguf_open(path_of("cut.gguf"), &gguf, &err), PD_ERR_FORMAT, &err, "cut.gguf: ");
    write_file(path_of("cut.gguf"), "", 0);
    assert_fails(pd_gguf_open(path_of("cut.gguf"), &gguf, &err), PD_ERR_FORMAT, &err, "it is empty");
    write_file(path_of("cut.gguf"), "GGML and so on", 14);
    assert_fails(pd_gguf_open(path_of("cut.gguf"), &gguf, &err), PD_ERR_FORMAT, &err, "not a GGUF file");
    assert_fails(pd_gguf_open(path_of("none.gguf"), &gguf, &err), PD_ERR_IO, &err, "cannot open");

    // a version from the future
    uint8_t *bytes = malloc(good.size);
    assert_non_null(bytes);
    memcpy(bytes, good.data, good.size);
    bytes[4] = 99;
    write_file(path_of("cut.gguf"), bytes, good.size);
    assert_fails(pd_gguf_open(path_of("cut.gguf"), &gguf, &err), PD_ERR_FORMAT, &err, "damaged or truncated");
    free(bytes);
    pd_mapped_file_close(&good);
    remove(path_of("cut.gguf"));
    remove(path_of("good.gguf"));
}

// ---- ggml's log -------------------------------------------------------------------------------------------

typedef struct {
    int n_lines;
    char last[64];
} log_book;

static void note(enum ggml_log_level level, const char *text, void *user) {
    (void)level;
    log_book *book = user;
    book->n_lines++;
    snprintf(book->last, sizeof book->last, "%s", text);
}

// Makes ggml report an error from this thread.
static void provoke(void) {
    assert_null(gguf_init_from_file("/no/such/file.gguf", (struct gguf_init_params){.no_alloc = true}));
}

static void *provoke_elsewhere(void *unused) {
    (void)unused;
    provoke();
    return NULL;
}

static void catching_ggml_log(void **state) {
    (void)state;
    log_book book = {0};
    ggml_log_callback before;
    void *before_user;
    ggml_log_get(&before, &before_user);
    ggml_log_set(note, &book);
    provoke();
    assert_int_equal(book.n_lines, 1);

    char line[PD_CAUGHT_LINE] = "left from before";
    pd_ggml_log_catch(line);
    assert_string_equal(line, "");
    provoke();
    assert_int_equal(book.n_lines, 1); // this thread's lines are caught …
    assert_non_null(strstr(line, "failed to open GGUF file"));
    assert_null(strchr(line, '\n'));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, provoke_elsewhere, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(book.n_lines, 2); // … and others' go where they went
    pd_ggml_log_release();

    ggml_log_callback after;
    void *after_user;
    ggml_log_get(&after, &after_user);
    assert_true(after == note);
    assert_ptr_equal(after_user, &book);
    provoke();
    assert_int_equal(book.n_lines, 3);
    ggml_log_set(before, before_user);
}

// ---- random numbers ---------------------------------------------------------------------------------------

static void random_numbers(void **state) {
    (void)state;
    // the first numbers of seed 1234567, as the algorithm's authors publish them
    static const uint64_t expected[] = {6457827717110365317U, 3203168211198807973U, 9817491932198370423U,
                                        4593380528125082431U, 16408922859458223821U};
    uint64_t seed = 1234567;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        assert_true(pd_random_next(&seed) == expected[i]);
    double sum = 0.0, squares = 0.0;
    enum { N = 100000 };
    for (int i = 0; i < N; i++) {
        const double x = pd_random_uniform(&seed);
        assert_true(x >= 0.0 && x < 1.0);
        sum += x;
        squares += x * x;
    }
    assert_true(fabs(sum / N - 0.5) < 5.0 * sqrt(1.0 / 12 / N));
    assert_true(fabs(squares / N - 1.0 / 3) < 5.0 * sqrt(4.0 / 45 / N));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors),
        cmocka_unit_test(mapped_files),
        cmocka_unit_test(writer_commits),
        cmocka_unit_test(writer_fails),
        cmocka_unit_test(writer_keeps_what_is_there),
        cmocka_unit_test(writer_keeps_the_old_file),
        cmocka_unit_test(writer_reserves),
        cmocka_unit_test(gguf_metadata),
        cmocka_unit_test(gguf_damaged),
        cmocka_unit_test(catching_ggml_log),
        cmocka_unit_test(random_numbers),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
