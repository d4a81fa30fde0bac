#include "base/memory.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// What a version's memory controller calls its files. A group's file pages are the `cache_keys` of
// memory.stat: it counts them as used, but the kernel would give them back, mapped models among them.
typedef struct controller {
    const char *mount, *limit, *used;
    const char *cache_keys[3];
} controller;

static const controller controllers[PD_CGROUP_VERSIONS] = {
    [PD_CGROUP_V1] = {"/sys/fs/cgroup/memory",
                      "memory.limit_in_bytes",
                      "memory.usage_in_bytes",
                      {"total_active_file ", "total_inactive_file ", NULL}},
    [PD_CGROUP_V2] = {"/sys/fs/cgroup",
                      "memory.max",
                      "memory.current",
                      {"active_file ", "inactive_file ", NULL}},
};

// Version 1 has no word for "no limit", only the largest multiple of a page.
static const uint64_t no_limit = (uint64_t)1 << 62;

// The sum of the numbers behind `keys` (NULL-terminated; NULL: the file's first line is the number) in a file
// of the kernel's; UINT64_MAX where there is no such file or number, as for "max".
static uint64_t read_numbers(const char *folder, const char *name, const char *const *keys) {
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) return UINT64_MAX;
    FILE *file = fopen(path, "r");
    if (!file) return UINT64_MAX;
    static const char *const none[] = {"", NULL};
    uint64_t total = 0;
    bool found = false;
    char line[128];
    while (fgets(line, sizeof line, file)) {
        for (const char *const *key = keys ? keys : none; *key; key++) {
            const size_t size = strlen(*key);
            if (strncmp(line, *key, size) != 0) continue;
            char *end;
            const unsigned long long number = strtoull(line + size, &end, 10);
            if (end == line + size) continue;
            total += number;
            found = true;
        }
    }
    fclose(file);
    return found ? total : UINT64_MAX;
}

static bool has_controller(const char *list, size_t size, const char *name) {
    const size_t wanted = strlen(name);
    for (const char *end = list + size; list < end;) {
        const char *comma = memchr(list, ',', (size_t)(end - list));
        const size_t length = (size_t)((comma ? comma : end) - list);
        if (length == wanted && memcmp(list, name, wanted) == 0) return true;
        list += length + 1;
    }
    return false;
}

// Whether a path leads out of the mount, as that of a process outside its namespace's root does.
static bool leads_out(const char *path) {
    for (const char *at = path; (at = strstr(at, "/..")) != NULL; at += 3) {
        if (at[3] == '/' || at[3] == '\0') return true;
    }
    return false;
}

bool pd_cgroup_parse(const char *line, pd_cgroup_version *version, const char **path) {
    const char *list = strchr(line, ':'), *end = list ? strchr(list + 1, ':') : NULL;
    if (!end || end[1] != '/') return false;
    const size_t size = (size_t)(end - ++list);
    if (size == 0 && strncmp(line, "0:", 2) == 0) {
        *version = PD_CGROUP_V2;
    } else if (has_controller(list, size, "memory")) {
        *version = PD_CGROUP_V1;
    } else {
        return false;
    }
    *path = end + 1;
    if (strcmp(*path, "/") == 0 || leads_out(*path)) *path = "";
    return true;
}

static uint64_t left_in_group(const char *folder, const controller *c) {
    const uint64_t limit = read_numbers(folder, c->limit, NULL), used = read_numbers(folder, c->used, NULL);
    if (limit >= no_limit || used == UINT64_MAX) return UINT64_MAX;
    const uint64_t cache = read_numbers(folder, "memory.stat", c->cache_keys);
    const uint64_t held = cache < used ? used - cache : used;
    return limit > held ? limit - held : 0;
}

// The least of what a group and those above it leave. A container may be told a path that is not below its
// mount: what is not there sets no limit, and the mount's own files do.
static uint64_t left_in_groups(const char *root, const controller *c, const char *path) {
    char folder[PATH_MAX];
    const size_t mount = strlen(root) + strlen(c->mount);
    if (snprintf(folder, sizeof folder, "%s%s%s", root, c->mount, path) >= (int)sizeof folder)
        return UINT64_MAX;
    uint64_t least = UINT64_MAX;
    for (;;) {
        const uint64_t left = left_in_group(folder, c);
        if (left < least) least = left;
        char *last = strrchr(folder + mount, '/');
        if (!last) return least;
        *last = '\0';
    }
}

// Reads a line without its end; a line that is too long is skipped.
static bool next_line(FILE *file, char *line, size_t size) {
    bool skipping = false;
    while (fgets(line, (int)size, file)) {
        char *end = strchr(line, '\n');
        if (end) *end = '\0';
        const bool whole = end || feof(file);
        if (whole && !skipping) return true;
        skipping = !whole;
    }
    return false;
}

size_t pd_memory_available_below(const char *root) {
    static const char *const free_keys[] = {"MemAvailable:", NULL};
    char path[PATH_MAX], line[PATH_MAX];
    uint64_t available = UINT64_MAX;
    if (snprintf(path, sizeof path, "%s/proc", root) < (int)sizeof path) {
        const uint64_t kibibytes = read_numbers(path, "meminfo", free_keys);
        if (kibibytes < UINT64_MAX / 1024) available = kibibytes * 1024;
    }
    bool named[PD_CGROUP_VERSIONS] = {false};
    FILE *groups = NULL;
    if (snprintf(path, sizeof path, "%s/proc/self/cgroup", root) < (int)sizeof path)
        groups = fopen(path, "r");
    while (groups && next_line(groups, line, sizeof line)) {
        pd_cgroup_version version;
        const char *group;
        if (!pd_cgroup_parse(line, &version, &group)) continue;
        named[version] = true;
        const uint64_t left = left_in_groups(root, &controllers[version], group);
        if (left < available) available = left;
    }
    if (groups) fclose(groups);
    for (int version = 0; version < PD_CGROUP_VERSIONS; version++) {
        const uint64_t left = named[version] ? UINT64_MAX : left_in_groups(root, &controllers[version], "");
        if (left < available) available = left;
    }
    return available < SIZE_MAX ? (size_t)available : SIZE_MAX;
}

size_t pd_memory_available(void) {
    return pd_memory_available_below("");
}

void pd_advise_huge_pages(void *data, size_t bytes) {
#ifdef MADV_HUGEPAGE
    const uintptr_t huge = (uintptr_t)2 << 20, base = (uintptr_t)data;
    const uintptr_t first = (base + huge - 1) / huge * huge, last = (base + bytes) / huge * huge;
    if (last > first) madvise((void *)first, last - first, MADV_HUGEPAGE);
#else
    (void)data;
    (void)bytes;
#endif
}
