#include "text/merge.h"

#include <stdlib.h>

void pd_merge_workspace_free(pd_merge_workspace *workspace) {
    free(workspace->symbols);
    free(workspace->heap);
    *workspace = (pd_merge_workspace){0};
}

// Grows `capacity` to at least `n`, by half at least, so that repeated growth costs O(n).
static size_t grown(size_t capacity, size_t n) {
    const size_t larger = capacity + capacity / 2;
    return larger > n ? larger : n;
}

pd_status pd_merge_reserve(pd_merge_workspace *workspace, size_t n, pd_error *err) {
    workspace->n_symbols = 0;
    workspace->n_heap = 0;
    if (n <= workspace->symbols_capacity) return PD_OK;
    const size_t capacity = grown(workspace->symbols_capacity, n);
    pd_symbol *symbols = realloc(workspace->symbols, capacity * sizeof *symbols);
    if (!symbols) return pd_fail_memory(err, capacity * sizeof *symbols, "the symbols of a text");
    workspace->symbols = symbols;
    workspace->symbols_capacity = capacity;
    return PD_OK;
}

void pd_merge_append(pd_merge_workspace *workspace, uint32_t start, uint32_t size, int32_t id) {
    const size_t i = workspace->n_symbols++;
    workspace->symbols[i] =
        (pd_symbol){.start = start, .size = size, .prev = (int32_t)i - 1, .next = -1, .id = id};
    if (i > 0) workspace->symbols[i - 1].next = (int32_t)i;
}

static bool before(const pd_merge_candidate *a, const pd_merge_candidate *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->left < b->left;
}

static pd_status heap_push(pd_merge_workspace *workspace, pd_merge_candidate candidate, pd_error *err) {
    if (workspace->n_heap == workspace->heap_capacity) {
        const size_t capacity = grown(workspace->heap_capacity, workspace->n_heap + 64);
        pd_merge_candidate *heap = realloc(workspace->heap, capacity * sizeof *heap);
        if (!heap) return pd_fail_memory(err, capacity * sizeof *heap, "the merges of a text");
        workspace->heap = heap;
        workspace->heap_capacity = capacity;
    }
    pd_merge_candidate *heap = workspace->heap;
    size_t i = workspace->n_heap++;
    while (i > 0 && before(&candidate, &heap[(i - 1) / 2])) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = candidate;
    return PD_OK;
}

static pd_merge_candidate heap_pop(pd_merge_workspace *workspace) {
    pd_merge_candidate *heap = workspace->heap;
    const pd_merge_candidate best = heap[0];
    const size_t n = --workspace->n_heap;
    const pd_merge_candidate last = heap[n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n) break;
        if (child + 1 < n && before(&heap[child + 1], &heap[child])) child++;
        if (!before(&heap[child], &last)) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return best;
}

static pd_status propose(pd_merge_workspace *workspace, int32_t left, int32_t right, pd_merge_lookup lookup,
                         const void *context, pd_error *err) {
    if (left < 0 || right < 0) return PD_OK;
    const pd_symbol *a = &workspace->symbols[left];
    const pd_symbol *b = &workspace->symbols[right];
    pd_merge_candidate candidate = {.left = left, .right = right, .size = a->size + b->size};
    if (!lookup(context, a, b, &candidate.rank, &candidate.id)) return PD_OK;
    return heap_push(workspace, candidate, err);
}

pd_status pd_merge_run(pd_merge_workspace *workspace, pd_merge_lookup lookup, const void *context,
                       pd_error *err) {
    pd_status status = PD_OK;
    for (size_t i = 1; i < workspace->n_symbols; i++) {
        status = propose(workspace, (int32_t)i - 1, (int32_t)i, lookup, context, err);
        if (status != PD_OK) return status;
    }
    while (workspace->n_heap > 0) {
        const pd_merge_candidate best = heap_pop(workspace);
        pd_symbol *left = &workspace->symbols[best.left];
        pd_symbol *right = &workspace->symbols[best.right];
        // Symbols only grow or vanish, so an unchanged sum means that neither has been touched.
        if (left->size == 0 || right->size == 0 || left->size + right->size != best.size) continue;
        left->size = best.size;
        left->id = best.id;
        left->next = right->next;
        if (right->next >= 0) workspace->symbols[right->next].prev = best.left;
        right->size = 0;
        status = propose(workspace, left->prev, best.left, lookup, context, err);
        if (status != PD_OK) return status;
        status = propose(workspace, best.left, left->next, lookup, context, err);
        if (status != PD_OK) return status;
    }
    return PD_OK;
}
