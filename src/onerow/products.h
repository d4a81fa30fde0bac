// Products of a matrix of block-quantised weights with one row of activations: what decoding spends its time
// on. The weights are read as they lie in the file.
//
// The numbers are ggml's: activations in blocks of 256 with eight bits and one scale (its q8_K), exact
// integer sums within a block, blocks added in f32. Only the order of the last additions differs.
#pragma once

#include <ggml.h>
#include <stdbool.h>

// Whether this CPU runs the kernels of this room.
bool pd_onerow_available(void);
// Whether weights of this type have one.
bool pd_onerow_can_multiply(enum ggml_type type);

// Bytes of n activations, 64-byte aligned; n is a multiple of 256.
size_t pd_onerow_activation_bytes(int64_t n);
void pd_onerow_quantise(const float *from, void *activations, int64_t n);

// destination[i] = weights[i] · activations for rows first … end − 1 of `weights` [n, rows], row_bytes apart.
// next_first: the row that this thread will go on with, which is fetched ahead; any row there is.
void pd_onerow_multiply(enum ggml_type type, const void *weights, size_t row_bytes, const void *activations,
                        int64_t n, int64_t first, int64_t end, int64_t next_first, float *destination);
