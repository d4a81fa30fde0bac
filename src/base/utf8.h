// Well-formed UTF-8 (Unicode 15, table 3-7): no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Looks at the character that starts at bytes[0] (size >= 1). *length becomes how many bytes such a character
// has, 0 when no character starts with this byte. Returns how many of them are there and right: the character
// is whole when that equals *length, cut off when it equals `size`, and broken otherwise.
size_t pd_utf8_look(const uint8_t *bytes, size_t size, size_t *length);
