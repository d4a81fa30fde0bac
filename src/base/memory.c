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
        const uint64_t left = limit > used ? limit - used : 0;
        if (left < available) available = left;
    }
    return available < SIZE_MAX ? (size_t)available : SIZE_MAX;
}
