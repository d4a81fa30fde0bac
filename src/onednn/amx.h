// Products of bf16 and of eight-bit numbers on x86's tile registers (AMX; Intel, "Intel 64 and IA-32
// Architectures Software Developer's Manual", volume 1, chapter 18). oneDNN's kernels for them reach a
// quarter of the unit's rate on matrices that do not stay in the caches (docs/SPEED.md); these reach half.
#pragma once

#include "onednn/rows.h"

// Whether there are kernels for rows of k such numbers: on a CPU with tiles that the system lets this process
// use, for bf16 and int8, where a row is whole steps of 64 bytes.
bool pd_amx_multiplies(pd_number_kind kind, int64_t k);

// Bytes of weights [k, n] in the kernels' layout, a multiple of 64.
size_t pd_amx_packed_bytes(pd_number_kind kind, int64_t n, int64_t k);
// Packs weights[i · stride_k + j · stride_n], bf16 or s8, into `packed`, which is 64-byte aligned. One of the
// strides is 1: of s8 stride_k.
void pd_amx_pack(pd_number_kind kind, int64_t n, int64_t k, const void *weights, int64_t stride_k,
                 int64_t stride_n, void *packed);

// Row `i` of packed weights [k, n] of eight bits: to[n].
void pd_amx_packed_row(int64_t n, int64_t k, const void *packed, int64_t i, int8_t *to);
// Has the caches fetch it.
void pd_amx_fetch_packed_row(int64_t n, int64_t k, const void *packed, int64_t i);

// A block of whole sums, in the cache: up to PD_AMX_BLOCK rows and columns from (row, column) on, with
// PD_AMX_BLOCK numbers from row to row. more: of the product beside it; NULL: there is none.
enum { PD_AMX_BLOCK = 32 };
typedef struct pd_amx_block {
    int64_t row, column, rows, columns;
    const void *sums; // f32, or s32 where the kind is int8
    const float *more;
} pd_amx_block;

// Rows of memory that will be wanted with a block of sums: fetched before. rows NULL: none.
typedef struct pd_amx_rows {
    const void *rows;    // of the product's first row on
    size_t stride;       // bytes from row to row
    size_t column_bytes; // of one column: 2 or 4
} pd_amx_rows;

typedef struct pd_amx_product {
    pd_number_kind kind;
    int64_t rows, columns, k;
    const void *source;   // [rows][k]: bf16, or u8 where the kind is int8
    size_t source_stride; // bytes from row to row
    const void *weights;  // packed
    void *destination;    // [rows][columns]: f32, or s32 where the kind is int8
    size_t destination_stride;
    bool accumulate; // destination += instead of =
    void *sums;      // pd_amx_sums_bytes, 64-byte aligned; lost
    // Who takes the sums, block by block, instead of the destination; NULL: nobody.
    void (*finish)(const void *user, const pd_amx_block *block);
    const void *user;
    // Beside it, for `finish`, a product in bf16 of as many rows and columns; more_k 0: none. Its packed
    // weights are asked for when they are needed: by then the caches have seen `weights`.
    const void *more_source;
    size_t more_source_stride;
    const void *(*more_weights)(const void *user);
    int64_t more_k;
    pd_amx_rows touched[2]; // what `finish` will read or write
} pd_amx_product;

// Room for the sums of a product before they are whole.
size_t pd_amx_sums_bytes(int64_t rows, int64_t columns);
// On this thread alone. The order of a sum depends on k and on nothing else.
void pd_amx_multiply(const pd_amx_product *product);
