#include "base/utf8.h"

size_t pd_utf8_look(const uint8_t *bytes, size_t size, size_t *length) {
    const uint8_t lead = bytes[0];
    uint8_t low = 0x80; // bounds of the second byte
    uint8_t high = 0xBF;
    if (lead < 0x80) {
        *length = 1;
        return 1;
    }
    if (lead < 0xC2 || lead > 0xF4) {
        *length = 0;
        return 0;
    }
    if (lead < 0xE0) {
        *length = 2;
    } else if (lead < 0xF0) {
        *length = 3;
        if (lead == 0xE0) low = 0xA0;  // shorter form exists below
        if (lead == 0xED) high = 0x9F; // surrogates above
    } else {
        *length = 4;
        if (lead == 0xF0) low = 0x90;
        if (lead == 0xF4) high = 0x8F; // beyond U+10FFFF above
    }
    size_t n = 1;
    while (n < *length && n < size && bytes[n] >= low && bytes[n] <= high) {
        low = 0x80;
        high = 0xBF;
        n++;
    }
    return n;
}
