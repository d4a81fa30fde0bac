// Data-parallel ranks: every rank has the whole model and its share of each step's samples; gradients are
// summed. One rank alone without MPI.
#pragma once

#include "train/parameters.h"

typedef struct pd_ranks pd_ranks;

// The ranks this process was started with (mpirun), or itself alone.
pd_status pd_ranks_join(pd_ranks **ranks, pd_error *err);
// NULL is let be.
void pd_ranks_leave(pd_ranks *ranks);

int32_t pd_ranks_index(const pd_ranks *ranks); // 0 … count − 1
int32_t pd_ranks_count(const pd_ranks *ranks);

// Collective: every rank calls them in the same order. values[i] becomes the sum over the ranks.
pd_status pd_ranks_sum(pd_ranks *ranks, double *values, int32_t n, pd_error *err);
pd_status pd_ranks_sum_gradients(pd_ranks *ranks, const pd_parameters *parameters, pd_error *err);
// One rank's failure is every rank's: PD_OK where all say PD_OK; the rank that failed keeps its own error,
// the others get one that names the rank.
pd_status pd_ranks_agree(pd_ranks *ranks, pd_status mine, pd_error *err);
