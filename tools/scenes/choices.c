#include "choices.h"

#include <stdlib.h>
#include <string.h>

static int find_name(const char *const *names, const char *word, size_t length) {
    for (int i = 0; names[i]; i++) {
        if (strlen(names[i]) == length && strncmp(names[i], word, length) == 0) return i;
    }
    return -1;
}

int pd_read_choices(const char *list, const char *const *names, int *chosen) {
    int n = 0;
    for (const char *word = list;;) {
        const size_t length = strcspn(word, ",");
        const int name = find_name(names, word, length);
        if (name < 0) return 0;
        for (int i = 0; i < n; i++) {
            if (chosen[i] == name) return 0;
        }
        chosen[n++] = name;
        if (word[length] == '\0') return n;
        word += length + 1;
    }
}

bool pd_read_weights(const char *list, const char *const *names, int least, int *weights) {
    for (const char *word = list;;) {
        const size_t length = strcspn(word, "=");
        const int name = find_name(names, word, length);
        if (name < 0 || word[length] != '=') return false;
        const char *digits = word + length + 1;
        char *end;
        const long weight = strtol(digits, &end, 10);
        if (end == digits || weight < least || weight > 10000 || (*end != ',' && *end != '\0')) return false;
        weights[name] = (int)weight;
        if (*end == '\0') return true;
        word = end + 1;
    }
}
