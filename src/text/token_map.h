// The two hash maps of a tokenizer, both with open addressing and linear probing, filled once and then read.
#pragma once

#include "base/error.h"

// Text of a token → its id. The texts themselves stay with the vocabulary.
typedef struct {
    const char *text; // not owned
    uint32_t size;    // bytes
    int32_t id;       // -1: the slot is free
} pd_token_slot;

typedef struct {
    pd_token_slot *slots;
    size_t mask; // number of slots - 1, a power of two - 1
} pd_token_map;

// Room for `n` tokens.
pd_status pd_token_map_create(pd_token_map *map, size_t n, pd_error *err);
void pd_token_map_free(pd_token_map *map);
// Of several tokens with the same text the first one put stays.
void pd_token_map_put(pd_token_map *map, const char *text, uint32_t size, int32_t id);
// -1 when there is none.
int32_t pd_token_map_find(const pd_token_map *map, const char *text, size_t size);

// A pair of token ids → the token they merge to, and how early.
typedef struct {
    uint64_t pair; // left id << 32 | right id
    uint32_t rank; // lower merges first
    int32_t id;    // -1: the slot is free
} pd_merge_slot;

typedef struct {
    pd_merge_slot *slots;
    size_t mask;
} pd_merge_map;

pd_status pd_merge_map_create(pd_merge_map *map, size_t n, pd_error *err);
void pd_merge_map_free(pd_merge_map *map);
void pd_merge_map_put(pd_merge_map *map, int32_t left, int32_t right, uint32_t rank, int32_t id);
// NULL when the two do not merge.
const pd_merge_slot *pd_merge_map_find(const pd_merge_map *map, int32_t left, int32_t right);
