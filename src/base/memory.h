// How much memory the machine could still give, and in what pages.
#pragma once

#include <stdbool.h>
#include <stddef.h>

// Bytes this process could take without swapping: what the kernel says is available, and the least that the
// control groups around the process leave; SIZE_MAX where nobody says.
size_t pd_memory_available(void);

// The same by the kernel's files (proc/meminfo, proc/self/cgroup, sys/fs/cgroup/) below another folder than
// "" (for tests).
size_t pd_memory_available_below(const char *root);

typedef enum pd_cgroup_version { PD_CGROUP_V1, PD_CGROUP_V2, PD_CGROUP_VERSIONS } pd_cgroup_version;

// Whether a line of /proc/self/cgroup names the group that may limit memory ("4:memory:/path" or "0::/path").
// *path is where it lies below the mount, "" for the mount itself, and ends where `line` does.
bool pd_cgroup_parse(const char *line, pd_cgroup_version *version, const char **path);

// Asks for pages of two mebibytes for the whole ones within [data, data + bytes): memory that is walked
// through in hundreds of megabytes then faults and misses the TLB less. Only advice, and where the system
// knows no such pages nothing.
void pd_advise_huge_pages(void *data, size_t bytes);
