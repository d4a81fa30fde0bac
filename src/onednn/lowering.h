// Hands the heavy nodes of a CPU graph to oneDNN: they become custom nodes that run its kernels on ggml's own
// threads; everything else stays as it is. Built without oneDNN there is nothing to hand over to, and graphs
// run as they are. No oneDNN header is needed here.
#pragma once

#include "base/error.h"

#include <ggml-backend.h>
#include <stdatomic.h>

// One for each model: how to multiply, the packed weights and the primitives, shared by its sessions'
// threads.
typedef struct pd_lowering pd_lowering;
// One for each lowered graph.
typedef struct pd_lowered pd_lowered;

typedef struct pd_lowering_params {
    pd_compute_type compute;
    // An error, where else something slower is taken and said: for want of a kernel or of memory. No room for
    // packed weights is no error of PD_COMPUTE_AUTO, which picks by memory too.
    bool strict;
    // For training: PD_COMPUTE_AUTO picks no integers, and products of weights other than f32 are lowered
    // whatever their size.
    bool floats;
    bool everything;          // products of any size, where else small ones stay with ggml (for tests)
    bool eight_bits;          // int8 in eight bits, also where sixteen would take their place (for tests)
    size_t most_packed_bytes; // 0: as much as the machine can spare
    size_t mapped_bytes;      // of the files that the weights lie in: pages which packing must not drive out
    pd_log_callback log;
    void *log_user;
} pd_lowering_params;

// *lowering is NULL where nothing is to be lowered: PD_COMPUTE_GGML, or, unless strict, no kernels for this
// CPU. PD_ERR_UNSUPPORTED when strict and the CPU or this build lacks what was asked for.
pd_status pd_lowering_create(const pd_lowering_params *params, pd_lowering **lowering, pd_error *err);
void pd_lowering_free(pd_lowering *lowering);
// What is multiplied in, such as "int8, f32 for float weights (avx2)"; "ggml" for NULL. Before weights are
// packed it is what was picked; once they have no room, what has taken its place. Each text lives as long as
// the lowering, and any thread may ask.
const char *pd_lowering_description(const pd_lowering *lowering);
// Bytes of packed weights so far.
size_t pd_lowering_packed_bytes(const pd_lowering *lowering);

// Who computes.
typedef struct pd_lower_params {
    ggml_backend_t cpu; // packs, if need be
    int32_t n_threads;  // of that backend, which will also compute the graph
    const atomic_bool *cancel;
    pd_progress_callback progress; // of packing; NULL: none
    void *progress_user;
} pd_lower_params;

// Lowers `graph`: its heavy nodes are rewritten in place, so that it must not be computed itself any more,
// and *lowered holds the graph to compute, with the same nodes for its results. First packs those weights
// (tensors in buffers of usage WEIGHTS) that no graph before has used. After a failure, which
// leaves the lowering usable, `graph` must not be computed either.
pd_status pd_lower(pd_lowering *lowering, struct ggml_cgraph *graph, const pd_lower_params *params,
                   pd_lowered **lowered, pd_error *err);
struct ggml_cgraph *pd_lowered_graph(const pd_lowered *lowered);
// Nodes that oneDNN computes.
int32_t pd_lowered_count(const pd_lowered *lowered);
// Whether all its computations so far succeeded; to be asked after each.
pd_status pd_lowered_check(const pd_lowered *lowered, pd_error *err);
// Milliseconds it took to pack weights, waiting for another session's packing included.
double pd_lowered_pack_ms(const pd_lowered *lowered);
// Bytes of its threads' scratch memory.
size_t pd_lowered_bytes(const pd_lowered *lowered);
void pd_lowered_free(pd_lowered *lowered);
