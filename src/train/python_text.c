#include "train/python_text.h"

#include <stdbool.h>
#include <string.h>

// How many bytes the blank has that text[0..size) starts with; 0 when it starts with none. The blanks of
// str.isspace(): U+0009 … U+000D, U+001C … U+0020, U+0085, U+00A0, U+1680, U+2000 … U+200A, U+2028, U+2029,
// U+202F, U+205F, U+3000.
static size_t blank_size(const char *text, size_t size) {
    if (size == 0) return 0;
    const unsigned char a = (unsigned char)text[0];
    if (a < 0x80) return (a >= 0x09 && a <= 0x0d) || (a >= 0x1c && a <= 0x20);
    if (size < 2) return 0;
    const unsigned char b = (unsigned char)text[1];
    if (a == 0xc2) return b == 0x85 || b == 0xa0 ? 2 : 0;
    if (size < 3) return 0;
    const unsigned char c = (unsigned char)text[2];
    bool blank = false;
    if (a == 0xe1) blank = b == 0x9a && c == 0x80;
    if (a == 0xe2 && b == 0x80) blank = c <= 0x8a || c == 0xa8 || c == 0xa9 || c == 0xaf;
    if (a == 0xe2 && b == 0x81) blank = c == 0x9f;
    if (a == 0xe3) blank = b == 0x80 && c == 0x80;
    return blank ? 3 : 0;
}

// The same at the end.
static size_t last_blank_size(const char *text, size_t size) {
    for (size_t n = 1; n <= 3 && n <= size; n++) {
        if (blank_size(text + size - n, n) == n) return n;
    }
    return 0;
}

void pd_python_strip(const char **text, size_t *size) {
    for (size_t n = 0; (n = blank_size(*text, *size)) > 0;) {
        *text += n;
        *size -= n;
    }
    for (size_t n = 0; (n = last_blank_size(*text, *size)) > 0;)
        *size -= n;
}

size_t pd_python_count_words(const char *text, size_t size) {
    size_t words = 0;
    bool inside = false;
    for (size_t i = 0; i < size;) {
        const size_t blank = blank_size(text + i, size - i);
        if (!blank && !inside) words++;
        inside = !blank;
        i += blank ? blank : 1;
    }
    return words;
}
