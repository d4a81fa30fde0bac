// Any bytes as a blind baseline: what is accepted has tasks with names, and shares of right answers.
#include "baseline.h"
#include "check.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static pd_baseline baseline;
    pd_error err = {0};
    if (pd_baseline_parse((const char *)data, size, "summary.json", &baseline, &err) != PD_OK) {
        CHECK(err.status == PD_ERR_FORMAT && err.message[0] != '\0' && !strchr(err.message, '\n'));
        return 0;
    }
    CHECK(baseline.n <= PD_BASELINE_MOST_TASKS);
    for (size_t i = 0; i < baseline.n; i++) {
        CHECK(memchr(baseline.rows[i].task, '\0', sizeof baseline.rows[i].task));
        CHECK(baseline.rows[i].blind >= 0 && baseline.rows[i].blind <= 1);
        CHECK(pd_baseline_of(&baseline, baseline.rows[i].task) >= 0);
    }
    return 0;
}
