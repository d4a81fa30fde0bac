// The alphabet of byte-level BPE (GPT-2's bytes_to_unicode): bytes that print stand for themselves, the other
// 68, in order, for U+0100 and on. So every byte string has a printable spelling, and no spelling has a
// space.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Writes the letter of `byte`, 1 or 2 bytes of UTF-8, and returns how many.
size_t pd_byte_alphabet_spell(uint8_t byte, char letter[2]);
// The bytes that spelling[0..size) stands for; there is room for `size` of them. Stores how many in *n. False
// when a letter is outside the alphabet.
bool pd_byte_alphabet_read(const char *spelling, size_t size, char *bytes, size_t *n);
