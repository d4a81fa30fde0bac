#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The sum of the numbers behind `keys` (NULL-terminated; NULL: the file's first line is the number) in a file
// of the kernel's; UINT64_MAX where there is no such file or number, as for "max".
static uint64_t read_numbers(const char *path, const char *const *keys) {
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

size_t pd_memory_available(void) {
    static const char *const free_keys[] = {"MemAvailable:", NULL};
    // What a control group counts as used but the kernel would give back: cached files, mapped models among
    // them.
    static const char *const cache_keys[] = {"active_file ", "inactive_file ", NULL};
    const uint64_t kibibytes = read_numbers("/proc/meminfo", free_keys);
    uint64_t available = kibibytes < UINT64_MAX / 1024 ? kibibytes * 1024 : UINT64_MAX;
    const uint64_t limit = read_numbers("/sys/fs/cgroup/memory.max", NULL),
                   used = read_numbers("/sys/fs/cgroup/memory.current", NULL),
                   cache = read_numbers("/sys/fs/cgroup/memory.stat", cache_keys);
    if (limit != UINT64_MAX && used != UINT64_MAX) {
        const uint64_t held = cache < used ? used - cache : used;
        const uint64_t left = limit > held ? limit - held : 0;
        if (left < available) available = left;
    }
    return available < SIZE_MAX ? (size_t)available : SIZE_MAX;
}
