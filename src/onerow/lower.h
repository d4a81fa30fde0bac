// Lowering of a graph that decodes one token: its heavy nodes become custom ones with the kernels of this
// room.
#pragma once

#include "base/error.h"

#include <ggml.h>

// A rewritten graph, its nodes' memory and what their kernels need.
typedef struct pd_onerow pd_onerow;

// Takes `graph` over, before it is allocated: products of one row with constant q4_K and q6_K weights, and
// attention of one row over an f16 cache. Nodes of other kinds stay with ggml. The result is computed on the
// CPU backend with at most n_threads threads, and freed with pd_onerow_free before the graph's context.
pd_status pd_onerow_lower(struct ggml_cgraph *graph, int32_t n_threads, pd_onerow **lowered, pd_error *err);
struct ggml_cgraph *pd_onerow_graph(const pd_onerow *lowered);
// Nodes that were rewritten.
int32_t pd_onerow_count(const pd_onerow *lowered);
void pd_onerow_free(pd_onerow *lowered);
