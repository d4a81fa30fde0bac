// How much memory the machine could still give.
#pragma once

#include <stddef.h>

// Bytes this process could take without swapping: what the kernel says is available, and what a control group
// leaves; SIZE_MAX where nobody says.
size_t pd_memory_available(void);
