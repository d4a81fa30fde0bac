// Data-parallel ranks: every rank has the whole model and its share of each step's samples; gradients are
// summed. One rank alone without mpirun.
#pragma once

#include "train/parameters.h"

typedef struct pd_ranks pd_ranks;

// The ranks this process was started with (mpirun), or itself alone. Also after a failure there may be
// something to leave.
pd_status pd_ranks_join(pd_ranks **ranks, pd_error *err);
// `status` is what this rank ends with. A failure that the ranks have not agreed on ends the others too,
// which may be waiting for this one; the call then does not return. NULL is let be.
void pd_ranks_leave(pd_ranks *ranks, pd_status status);

int32_t pd_ranks_index(const pd_ranks *ranks); // 0 … count − 1
int32_t pd_ranks_count(const pd_ranks *ranks);
// Threads for this rank: its share of the cores that it and the other ranks on its machine may use, at least
// 1. 0 for one rank alone, which may choose.
int32_t pd_ranks_threads(const pd_ranks *ranks);
// Cores that the launcher may use here and has bound none of the ranks to: mpirun binds a rank to one core
// unless told otherwise.
int32_t pd_ranks_idle_cores(const pd_ranks *ranks);
// Whether it is on this rank to report its failure: it is the first, or the others do not know of it.
bool pd_ranks_speaks(const pd_ranks *ranks);

// Collective: every rank calls them in the same order. values[i] becomes the sum over the ranks.
pd_status pd_ranks_sum(pd_ranks *ranks, double *values, int32_t n, pd_error *err);
pd_status pd_ranks_sum_gradients(pd_ranks *ranks, const pd_parameters *parameters, pd_error *err);
// One rank's failure is every rank's: PD_OK where all say PD_OK; else all get the status and the line of the
// first rank that failed, which names that rank where it is not the first. Cancelling gives way to failures.
pd_status pd_ranks_agree(pd_ranks *ranks, pd_status mine, pd_error *err);
// PD_ERR_ARGUMENT where `text` is not the first rank's; `what` stands in the message. To be agreed on.
pd_status pd_ranks_compare(pd_ranks *ranks, const char *what, const char *text, pd_error *err);
