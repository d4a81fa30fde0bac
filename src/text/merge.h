// Byte-pair merging (Sennrich et al., 2016) as SentencePiece and GPT-2 both do it: of all neighbours that can
// merge, the best pair first, the leftmost of equals; O(n log n) with a priority queue.
#pragma once

#include "base/error.h"

// A run of bytes that merges with its neighbours. A merged-away symbol has size 0.
typedef struct {
    uint32_t start; // first byte
    uint32_t size;  // bytes
    int32_t prev;   // neighbours' indices, -1 at the ends
    int32_t next;
    int32_t id; // token, -1 when no token has this text
} pd_symbol;

// Candidates, ordered by (rank, left).
typedef struct {
    uint32_t rank;
    int32_t left;
    int32_t right;
    uint32_t size; // of both together when this was queued; another size now means that it is out of date
    int32_t id;    // what they merge to
} pd_merge_candidate;

// Buffers that one encoding reuses for every word. Zero it before the first use.
typedef struct {
    pd_symbol *symbols; // [n_symbols]
    size_t n_symbols;
    size_t symbols_capacity;
    pd_merge_candidate *heap; // [n_heap]
    size_t n_heap;
    size_t heap_capacity;
} pd_merge_workspace;

void pd_merge_workspace_free(pd_merge_workspace *workspace);
// The most bytes of text whose symbols and candidates can be counted.
#define PD_MERGE_MAX_BYTES ((size_t)1 << 29)

// Makes room for `n` symbols and forgets the former ones.
pd_status pd_merge_reserve(pd_merge_workspace *workspace, size_t n, pd_error *err);
// Appends a symbol behind the last one; there must be room.
void pd_merge_append(pd_merge_workspace *workspace, uint32_t start, uint32_t size, int32_t id);

// Whether `left` and `right` merge: *rank (lower is better) and *id of the result.
typedef bool (*pd_merge_lookup)(const void *context, const pd_symbol *left, const pd_symbol *right,
                                uint32_t *rank, int32_t *id);
// Merges until nothing merges. What is left is the chain from symbol 0 along `next`.
pd_status pd_merge_run(pd_merge_workspace *workspace, pd_merge_lookup lookup, const void *context,
                       pd_error *err);
