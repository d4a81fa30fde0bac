// What processes started together do together, over MPI where the build has it (collective_mpi.c), else as
// one process alone (collective_none.c). No other file knows of MPI.
#pragma once

#include "base/error.h"

typedef struct pd_collective {
    int32_t index, count; // this process is `index` of `count`
    bool launched;        // by a launcher, if only one of them
    void *of_node;        // collective_mpi.c's own
} pd_collective;

// Joins the processes that a launcher (mpirun, srun) started. Without one, or without MPI, a process is alone
// and nothing is initialised.
pd_status pd_collective_join(pd_collective *all, pd_error *err);
// in_order: all of them leave. Otherwise the others are ended, as they may be waiting for this one, and with
// MPI the call does not return.
void pd_collective_leave(pd_collective *all, bool in_order);

// Every process calls these in the same order, with the same n. values[i] becomes the sum over all, the same
// on each.
pd_status pd_collective_sum_f32(const pd_collective *all, float *values, int32_t n, pd_error *err);
pd_status pd_collective_sum_f64(const pd_collective *all, double *values, int32_t n, pd_error *err);
// *value becomes the smallest of all.
pd_status pd_collective_min(const pd_collective *all, int32_t *value, pd_error *err);
// The bytes of process `from`.
pd_status pd_collective_broadcast(const pd_collective *all, void *bytes, int32_t n, int32_t from,
                                  pd_error *err);
// The sum over the processes on this machine.
pd_status pd_collective_sum_on_node(const pd_collective *all, int32_t *values, int32_t n, pd_error *err);
