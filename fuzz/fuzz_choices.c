// Any text as a list of tasks or of weights: what is accepted chooses different names and weighs them within
// bounds.
#include "check.h"
#include "choices.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_NAMES = 5, UNTOUCHED = -1 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[N_NAMES + 1] = {"objects", "words", "word", "a", "signs", NULL};
    char *list = malloc(size + 1); // of exactly this size, so that reading beyond it is seen
    CHECK(list);
    if (size > 0) memcpy(list, data, size);
    list[size] = '\0';
    int chosen[N_NAMES];
    const int n = pd_read_choices(list, names, chosen);
    CHECK(n >= 0 && n <= N_NAMES);
    for (int i = 0; i < n; i++) {
        CHECK(chosen[i] >= 0 && chosen[i] < N_NAMES);
        for (int j = 0; j < i; j++)
            CHECK(chosen[i] != chosen[j]);
    }
    for (int least = 0; least <= 1; least++) {
        int weights[N_NAMES] = {UNTOUCHED, UNTOUCHED, UNTOUCHED, UNTOUCHED, UNTOUCHED}, n_named = 0;
        const bool accepted = pd_read_weights(list, names, least, weights);
        CHECK(!accepted || n == 0); // no list is both
        for (int i = 0; i < N_NAMES; i++) {
            CHECK(weights[i] == UNTOUCHED || (weights[i] >= least && weights[i] <= 10000));
            n_named += weights[i] != UNTOUCHED;
        }
        CHECK(!accepted || n_named > 0);
    }
    free(list);
    return 0;
}
