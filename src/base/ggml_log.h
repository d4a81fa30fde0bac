// ggml reports through one process-wide log callback. The library prints nothing: while it calls into a
// chatty part of ggml, this thread's lines are caught, and other threads' go where they went before.
#pragma once

#include <stddef.h>

enum { PD_CAUGHT_LINE = 256 };

// Until the matching pd_ggml_log_release, the first error line of this thread goes to line[PD_CAUGHT_LINE]
// ("" when there is none) and all other lines of this thread are dropped. Not recursive; other threads that
// want to catch wait.
void pd_ggml_log_catch(char *line);
void pd_ggml_log_release(void);
