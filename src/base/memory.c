#include "base/memory.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

// A file of one number; UINT64_MAX for "max", and where there is none.
static uint64_t read_number(const char *path) {
    uint64_t number = UINT64_MAX;
    FILE *file = fopen(path, "r");
    if (!file) return number;
    if (fscanf(file, "%" SCNu64, &number) != 1) number = UINT64_MAX;
    fclose(file);
    return number;
}

// What a control group counts as used but the kernel would give back: cached files, mapped models among them.
static uint64_t group_cache(void) {
    uint64_t total = 0, bytes;
    FILE *file = fopen("/sys/fs/cgroup/memory.stat", "r");
    if (!file) return 0;
    char line[128];
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "active_file %" SCNu64, &bytes) == 1 ||
            sscanf(line, "inactive_file %" SCNu64, &bytes) == 1)
            total += bytes;
    }
    fclose(file);
    return total;
}

static uint64_t kernel_available(void) {
    uint64_t kibibytes = UINT64_MAX / 1024;
    FILE *file = fopen("/proc/meminfo", "r");
    if (!file) return UINT64_MAX;
    char line[128];
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "MemAvailable: %" SCNu64, &kibibytes) == 1) break;
    }
    fclose(file);
    return kibibytes < UINT64_MAX / 1024 ? kibibytes * 1024 : UINT64_MAX;
}

size_t pd_memory_available(void) {
    uint64_t available = kernel_available();
    const uint64_t limit = read_number("/sys/fs/cgroup/memory.max"),
                   used = read_number("/sys/fs/cgroup/memory.current");
    if (limit != UINT64_MAX && used != UINT64_MAX) {
        const uint64_t cached = group_cache(), held = used > cached ? used - cached : 0;
        const uint64_t left = limit > held ? limit - held : 0;
        if (left < available) available = left;
    }
    return available < SIZE_MAX ? (size_t)available : SIZE_MAX;
}
