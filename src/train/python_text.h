// Python's idea of white space, which LLaVA's data code relies on: str.strip() and str.split() of UTF-8 text.
#pragma once

#include <stddef.h>

// Narrows *text, of *size bytes, to what str.strip() leaves.
void pd_python_strip(const char **text, size_t *size);
// How many words len(text.split()) counts.
size_t pd_python_count_words(const char *text, size_t size);
