#include "train/collective.h"

#include <mpi.h>
#include <stdlib.h>

// MPI_Init alone costs a process most of a second (Open MPI 4.1), so that it is left where no launcher is.
static bool launched(void) {
    // Open MPI's mpirun; PMIx and PMI-1, with which srun and the other MPIs' launchers start processes
    static const char *const signs[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
        if (getenv(signs[i])) return true;
    }
    return false;
}

static pd_status check(int code, const char *what, pd_error *err) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (code == MPI_SUCCESS) return PD_OK;
    MPI_Error_string(code, text, &length);
    return pd_fail(err, PD_ERR_BACKEND, "MPI: %s: %s", what, text);
}

static bool alone(const pd_collective *all) {
    return !all->of_node;
}

pd_status pd_collective_join(pd_collective *all, pd_error *err) {
    static MPI_Comm of_node; // one, as MPI itself
    *all = (pd_collective){.count = 1};
    if (!launched()) return PD_OK;
    int given = 0, index = 0, count = 1;
    PD_TRY(check(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &given), "start", err));
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    PD_TRY(check(MPI_Comm_rank(MPI_COMM_WORLD, &index), "rank", err));
    PD_TRY(check(MPI_Comm_size(MPI_COMM_WORLD, &count), "number of ranks", err));
    PD_TRY(check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, index, MPI_INFO_NULL, &of_node),
                 "the ranks of this machine", err));
    *all = (pd_collective){.index = index, .count = count, .launched = true, .of_node = &of_node};
    return PD_OK;
}

void pd_collective_leave(pd_collective *all, bool in_order) {
    if (!alone(all)) {
        if (!in_order) MPI_Abort(MPI_COMM_WORLD, 1);
        MPI_Comm_free(all->of_node);
        MPI_Finalize();
    }
    *all = (pd_collective){0};
}

pd_status pd_collective_sum_f32(const pd_collective *all, float *values, int32_t n, pd_error *err) {
    if (alone(all)) return PD_OK;
    return check(MPI_Allreduce(MPI_IN_PLACE, values, n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD), "sum", err);
}

pd_status pd_collective_sum_f64(const pd_collective *all, double *values, int32_t n, pd_error *err) {
    if (alone(all)) return PD_OK;
    return check(MPI_Allreduce(MPI_IN_PLACE, values, n, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD), "sum", err);
}

pd_status pd_collective_min(const pd_collective *all, int32_t *value, pd_error *err) {
    if (alone(all)) return PD_OK;
    return check(MPI_Allreduce(MPI_IN_PLACE, value, 1, MPI_INT32_T, MPI_MIN, MPI_COMM_WORLD), "minimum", err);
}

pd_status pd_collective_broadcast(const pd_collective *all, void *bytes, int32_t n, int32_t from,
                                  pd_error *err) {
    if (alone(all)) return PD_OK;
    return check(MPI_Bcast(bytes, n, MPI_BYTE, from, MPI_COMM_WORLD), "broadcast", err);
}

pd_status pd_collective_sum_on_node(const pd_collective *all, int32_t *values, int32_t n, pd_error *err) {
    if (alone(all)) return PD_OK;
    MPI_Comm *of_node = all->of_node;
    return check(MPI_Allreduce(MPI_IN_PLACE, values, n, MPI_INT32_T, MPI_SUM, *of_node), "sum on a machine",
                 err);
}
