// How much memory there is to take, by files as the kernel writes them.
#include "base/memory.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h> // wants the above

#include "checks.h" // wants cmocka

static char root[256];

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *at) {
    (void)info;
    (void)type;
    (void)at;
    return remove(path);
}

static int set_up(void **state) {
    (void)state;
    return make_test_folder(root, sizeof root, "memory") ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

// A file below the root, with its folders.
static void put(const char *name, const char *text) {
    char path[768];
    assert_true(snprintf(path, sizeof path, "%s/%s", root, name) < (int)sizeof path);
    for (char *slash = path + strlen(root); (slash = strchr(slash + 1, '/')) != NULL;) {
        *slash = '\0';
        assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void put_group(const char *folder, const char *limit_name, const char *limit, const char *used_name,
                      const char *used, const char *stat) {
    char name[512];
    snprintf(name, sizeof name, "%s/%s", folder, limit_name);
    put(name, limit);
    snprintf(name, sizeof name, "%s/%s", folder, used_name);
    put(name, used);
    snprintf(name, sizeof name, "%s/memory.stat", folder);
    put(name, stat);
}

static void put_v1(const char *folder, const char *limit, const char *used, const char *stat) {
    put_group(folder, "memory.limit_in_bytes", limit, "memory.usage_in_bytes", used, stat);
}

static void put_v2(const char *folder, const char *limit, const char *used, const char *stat) {
    put_group(folder, "memory.max", limit, "memory.current", used, stat);
}

static size_t available(void) {
    return pd_memory_available_below(root);
}

static void nothing_said(void **state) {
    (void)state;
    assert_true(available() == SIZE_MAX);
    put("proc/meminfo", "MemTotal:       2048 kB\nMemFree:        10 kB\nMemAvailable:   1000 kB\n");
    assert_int_equal(available(), 1000 * 1024);
    put("proc/self/cgroup", "0::/user.slice/a.scope\n"); // and no files of the controller's
    assert_int_equal(available(), 1000 * 1024);
    assert_true(pd_memory_available() > 0);
}

static void version_2_nested(void **state) {
    (void)state;
    put("proc/meminfo", "MemAvailable: 1000000 kB\n");
    put("proc/self/cgroup", "0::/user.slice/user-1000.slice/run.scope\n");
    put_v2("sys/fs/cgroup/user.slice/user-1000.slice/run.scope", "max\n", "50000\n", "active_file 0\n");
    put_v2("sys/fs/cgroup/user.slice/user-1000.slice", "100000\n", "70000\n",
           "anon 9\ninactive_anon 5\nactive_file 20000\ninactive_file 10000\nslab 7\n");
    put_v2("sys/fs/cgroup/user.slice", "500000\n", "400000\n", "active_file 0\ninactive_file 0\n");
    assert_int_equal(available(), 60000); // the middle one leaves least
    put("sys/fs/cgroup/user.slice/user-1000.slice/run.scope/memory.max", "90000\n");
    assert_int_equal(available(), 40000);
    put("sys/fs/cgroup/user.slice/memory.current", "490000\n");
    assert_int_equal(available(), 10000);
    put("sys/fs/cgroup/user.slice/memory.current", "510000\n"); // more than it may
    assert_int_equal(available(), 0);
}

static void version_2_without_limit(void **state) {
    (void)state;
    put("proc/meminfo", "MemAvailable: 1000 kB\n");
    put("proc/self/cgroup", "0::/a\n");
    put_v2("sys/fs/cgroup/a", "max\n", "50000\n", "active_file 0\n");
    assert_int_equal(available(), 1000 * 1024);
}

static void version_1(void **state) {
    (void)state;
    put("proc/meminfo", "MemAvailable: 1000000 kB\n");
    put("proc/self/cgroup", "9:name=systemd:/\n5:cpuset,memory:/jobs/7\n1:cpu:/\n0::/elsewhere\n");
    put_v1("sys/fs/cgroup/memory", "9223372036854771712\n", "5\n", "total_active_file 1\n");
    put_v1("sys/fs/cgroup/memory/jobs", "300000\n", "200000\n",
           "active_file 1\ninactive_file 2\ntotal_active_file 30000\ntotal_inactive_file 20000\n");
    put_v1("sys/fs/cgroup/memory/jobs/7", "9223372036854771712\n", "100000\n", "total_active_file 0\n");
    assert_int_equal(available(), 150000);
    put("sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes", "110000\n");
    assert_int_equal(available(), 10000);
    // no limit anywhere
    put("sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", "9223372036854710272\n"); // pages of 64 KiB
    assert_int_equal(available(), (size_t)1000000 * 1024);
    put("proc/meminfo", "");
    assert_true(available() == SIZE_MAX);
}

// In a container the path may be the host's.
static void path_not_below_the_mount(void **state) {
    (void)state;
    put("proc/self/cgroup", "4:memory:/docker/0123\n");
    put_v1("sys/fs/cgroup/memory", "100000\n", "30000\n", "total_active_file 0\n");
    assert_int_equal(available(), 70000);
    put("proc/self/cgroup", "0::/../../b\n");
    put_v2("sys/fs/cgroup", "60000\n", "30000\n", "active_file 0\n");
    assert_int_equal(available(), 30000);
    put("proc/self/cgroup", "");
    assert_int_equal(available(), 30000);
    put("sys/fs/cgroup/memory.current", "none\n"); // no number: no limit known
    assert_int_equal(available(), 70000);
}

static void missing_stat(void **state) {
    (void)state;
    put("proc/self/cgroup", "0::/a\n");
    put("sys/fs/cgroup/a/memory.max", "1000\n");
    assert_true(available() == SIZE_MAX); // what it uses is not known
    put("sys/fs/cgroup/a/memory.current", "400\n");
    assert_int_equal(available(), 600);
    // what is beside the numbers does no harm: more cache than use, lines without end
    put("sys/fs/cgroup/a/memory.stat", "active_file 500\ninactive_file x");
    assert_int_equal(available(), 600);
}

// ---- lines of /proc/self/cgroup ----------------------------------------------------------------------------

static void assert_group(const char *line, pd_cgroup_version expected, const char *expected_path) {
    pd_cgroup_version version;
    const char *path;
    assert_true(pd_cgroup_parse(line, &version, &path));
    assert_int_equal(version, expected);
    assert_string_equal(path, expected_path);
}

static void lines(void **state) {
    (void)state;
    assert_group("0::/", PD_CGROUP_V2, "");
    assert_group("0::/user.slice/a b:c", PD_CGROUP_V2, "/user.slice/a b:c");
    assert_group("0::/..", PD_CGROUP_V2, "");
    assert_group("0::/../x", PD_CGROUP_V2, "");
    assert_group("0::/..x", PD_CGROUP_V2, "/..x");
    assert_group("4:memory:/a/b", PD_CGROUP_V1, "/a/b");
    assert_group("11:cpu,memory:/", PD_CGROUP_V1, "");
    assert_group("11:memory,cpu:/a", PD_CGROUP_V1, "/a");
    static const char *const others[] = {
        "",         "0",         "0:",          "0::",         "0::a",     "3::/a",
        "4:memory", "4:memory:", "4:memoryx:/", "4:xmemory:/", "4:cpu,:/", "9:name=systemd:/",
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        pd_cgroup_version version;
        const char *path;
        assert_false(pd_cgroup_parse(others[i], &version, &path));
    }
}

static void line_too_long(void **state) {
    (void)state;
    put("sys/fs/cgroup/a/memory.max", "1000\n");
    put("sys/fs/cgroup/a/memory.current", "400\n");
    enum { LONG = 20000 };
    static const char first[] = "4:memory:/", last[] = "\n0::/a"; // which has no end
    char *text = malloc(LONG + sizeof last);
    assert_non_null(text);
    memset(text, 'x', LONG);
    memcpy(text, first, sizeof first - 1);
    memcpy(text + LONG, last, sizeof last);
    put("proc/self/cgroup", text);
    free(text);
    assert_int_equal(available(), 600);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_said, set_up, tear_down),
        cmocka_unit_test_setup_teardown(version_2_nested, set_up, tear_down),
        cmocka_unit_test_setup_teardown(version_2_without_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(version_1, set_up, tear_down),
        cmocka_unit_test_setup_teardown(path_not_below_the_mount, set_up, tear_down),
        cmocka_unit_test_setup_teardown(missing_stat, set_up, tear_down),
        cmocka_unit_test(lines),
        cmocka_unit_test_setup_teardown(line_too_long, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
