#include "text/token_map.h"

#include <stdlib.h>
#include <string.h>

// Spreads every bit of `x` over the whole word (the finaliser of MurmurHash3).
static uint64_t mix(uint64_t x) {
    x ^= x >> 33;
    x *= UINT64_C(0xff51afd7ed558ccd);
    x ^= x >> 33;
    x *= UINT64_C(0xc4ceb9fe1a85ec53);
    return x ^ (x >> 33);
}

// FNV-1a.
static uint64_t hash_text(const char *text, size_t size) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ (uint8_t)text[i]) * UINT64_C(0x100000001b3);
    }
    return mix(hash);
}

// At most half of the slots are ever taken, so that probing ends soon. 0 when `n` is too large.
static size_t slots_for(size_t n, size_t slot_size) {
    size_t slots = 16;
    while (slots / 2 < n) {
        if (slots > SIZE_MAX / 2 / slot_size) return 0;
        slots *= 2;
    }
    return slots;
}

pd_status pd_token_map_create(pd_token_map *map, size_t n, pd_error *err) {
    const size_t slots = slots_for(n, sizeof *map->slots);
    *map = (pd_token_map){0};
    map->slots = slots ? malloc(slots * sizeof *map->slots) : NULL;
    if (!map->slots) return pd_fail_memory(err, slots * sizeof *map->slots, "the vocabulary's index");
    map->mask = slots - 1;
    for (size_t i = 0; i < slots; i++) {
        map->slots[i] = (pd_token_slot){.id = -1};
    }
    return PD_OK;
}

void pd_token_map_free(pd_token_map *map) {
    free(map->slots);
    *map = (pd_token_map){0};
}

// The slot that holds this text, or the free one where it belongs.
static pd_token_slot *token_slot(const pd_token_map *map, const char *text, size_t size) {
    size_t i = hash_text(text, size) & map->mask;
    while (map->slots[i].id >= 0) {
        if (map->slots[i].size == size && memcmp(map->slots[i].text, text, size) == 0) break;
        i = (i + 1) & map->mask;
    }
    return &map->slots[i];
}

void pd_token_map_put(pd_token_map *map, const char *text, uint32_t size, int32_t id) {
    pd_token_slot *slot = token_slot(map, text, size);
    if (slot->id < 0) *slot = (pd_token_slot){text, size, id};
}

int32_t pd_token_map_find(const pd_token_map *map, const char *text, size_t size) {
    return token_slot(map, text, size)->id;
}

pd_status pd_merge_map_create(pd_merge_map *map, size_t n, pd_error *err) {
    const size_t slots = slots_for(n, sizeof *map->slots);
    *map = (pd_merge_map){0};
    map->slots = slots ? malloc(slots * sizeof *map->slots) : NULL;
    if (!map->slots) return pd_fail_memory(err, slots * sizeof *map->slots, "the index of merges");
    map->mask = slots - 1;
    for (size_t i = 0; i < slots; i++) {
        map->slots[i] = (pd_merge_slot){.id = -1};
    }
    return PD_OK;
}

void pd_merge_map_free(pd_merge_map *map) {
    free(map->slots);
    *map = (pd_merge_map){0};
}

static pd_merge_slot *merge_slot(const pd_merge_map *map, uint64_t pair) {
    size_t i = mix(pair) & map->mask;
    while (map->slots[i].id >= 0 && map->slots[i].pair != pair) {
        i = (i + 1) & map->mask;
    }
    return &map->slots[i];
}

static uint64_t pair_of(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

void pd_merge_map_put(pd_merge_map *map, int32_t left, int32_t right, uint32_t rank, int32_t id) {
    const uint64_t pair = pair_of(left, right);
    pd_merge_slot *slot = merge_slot(map, pair);
    if (slot->id < 0) *slot = (pd_merge_slot){pair, rank, id};
}

const pd_merge_slot *pd_merge_map_find(const pd_merge_map *map, int32_t left, int32_t right) {
    const pd_merge_slot *slot = merge_slot(map, pair_of(left, right));
    return slot->id < 0 ? NULL : slot;
}
