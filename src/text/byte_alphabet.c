#include "text/byte_alphabet.h"

static bool prints(uint32_t byte) {
    return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

// The bytes that do not print, in order: 0x00-0x20, 0x7F-0xA0, 0xAD.
#define N_HIDDEN 68

static uint32_t letter_of(uint8_t byte) {
    if (prints(byte)) return byte;
    if (byte <= 0x20) return 0x100 + (uint32_t)byte;
    if (byte <= 0xA0) return 0x100 + 0x21 + (uint32_t)byte - 0x7F;
    return 0x100 + N_HIDDEN - 1;
}

// -1 when `letter` is outside the alphabet.
static int32_t byte_of(uint32_t letter) {
    if (letter <= 0xFF) return prints(letter) ? (int32_t)letter : -1;
    const uint32_t hidden = letter - 0x100;
    if (hidden >= N_HIDDEN) return -1;
    if (hidden <= 0x20) return (int32_t)hidden;
    if (hidden < N_HIDDEN - 1) return (int32_t)(hidden - 0x21 + 0x7F);
    return 0xAD;
}

size_t pd_byte_alphabet_spell(uint8_t byte, char letter[2]) {
    const uint32_t code_point = letter_of(byte);
    if (code_point < 0x80) {
        letter[0] = (char)code_point;
        return 1;
    }
    letter[0] = (char)(0xC0 | code_point >> 6);
    letter[1] = (char)(0x80 | (code_point & 0x3F));
    return 2;
}

bool pd_byte_alphabet_read(const char *spelling, size_t size, char *bytes, size_t *n) {
    *n = 0;
    for (size_t i = 0; i < size;) {
        const uint8_t lead = (uint8_t)spelling[i];
        uint32_t letter = lead;
        if (lead < 0x80) {
            i += 1;
        } else if (lead >= 0xC2 && lead <= 0xDF && i + 1 < size &&
                   ((uint8_t)spelling[i + 1] & 0xC0) == 0x80) {
            letter = (lead & 0x1FU) << 6 | ((uint8_t)spelling[i + 1] & 0x3FU);
            i += 2;
        } else {
            return false;
        }
        const int32_t byte = byte_of(letter);
        if (byte < 0) return false;
        bytes[(*n)++] = (char)byte;
    }
    return true;
}
