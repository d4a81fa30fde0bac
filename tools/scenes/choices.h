// Lists on the command line that choose among names, or weigh them. `names` end with NULL.
#pragma once

#include <stdbool.h>

// "colors,words": different names; chosen[], which has room for all of them, gets their indices in the list's
// order. How many; 0 where the list is another.
int pd_read_choices(const char *list, const char *const *names, int *chosen);

// "existence=4,words=0": weights from `least` to 10000 of those that are named; the others keep theirs. False
// where the list is another.
bool pd_read_weights(const char *list, const char *const *names, int least, int *weights);
