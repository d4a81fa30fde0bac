#include "train/ranks.h"

#include "train/collective.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Gradients are summed in pieces of so many numbers: large enough that a call's own cost does not show.
enum { BUCKET = 4 << 20 };

struct pd_ranks {
    pd_collective all;
    int32_t n_threads, n_idle;
    bool agreed_to_fail;
    float *bucket; // [BUCKET]; owned
};

// ---- cores -------------------------------------------------------------------------------------------------

// A core that k ranks may run on counts 1/k for each.
static pd_status share_cores(pd_ranks *ranks, pd_error *err) {
    cpu_set_t mine, launchers;
    int32_t users[CPU_SETSIZE] = {0};
    if (sched_getaffinity(0, sizeof mine, &mine) != 0) CPU_ZERO(&mine);
    if (sched_getaffinity(getppid(), sizeof launchers, &launchers) != 0) CPU_ZERO(&launchers);
    for (size_t core = 0; core < CPU_SETSIZE; core++)
        users[core] = CPU_ISSET(core, &mine) != 0;
    PD_TRY(pd_collective_sum_on_node(&ranks->all, users, CPU_SETSIZE, err));
    double cores = 0.0;
    for (size_t core = 0; core < CPU_SETSIZE; core++) {
        if (CPU_ISSET(core, &mine)) cores += 1.0 / users[core];
        if (CPU_ISSET(core, &launchers) && users[core] == 0) ranks->n_idle++;
    }
    ranks->n_threads = cores > 1.0 ? (int32_t)(cores + 1e-6) : 1;
    return PD_OK;
}

// ------------------------------------------------------------------------------------------------------------

static pd_status start(pd_ranks *ranks, pd_error *err) {
    PD_TRY(pd_collective_join(&ranks->all, err));
    if (!ranks->all.launched) return PD_OK;
    PD_TRY(share_cores(ranks, err));
    ranks->bucket = malloc(BUCKET * sizeof *ranks->bucket);
    return ranks->bucket ? PD_OK : pd_fail_memory(err, BUCKET * sizeof *ranks->bucket, "sums of gradients");
}

pd_status pd_ranks_join(pd_ranks **out, pd_error *err) {
    *out = NULL;
    pd_ranks *ranks = calloc(1, sizeof *ranks);
    if (!ranks) return pd_fail_memory(err, sizeof *ranks, "the ranks");
    *out = ranks;
    return start(ranks, err);
}

void pd_ranks_leave(pd_ranks *ranks, pd_status status) {
    if (!ranks) return;
    pd_collective_leave(&ranks->all, status == PD_OK || ranks->agreed_to_fail || ranks->all.count == 1);
    free(ranks->bucket);
    free(ranks);
}

int32_t pd_ranks_index(const pd_ranks *ranks) {
    return ranks->all.index;
}

int32_t pd_ranks_count(const pd_ranks *ranks) {
    return ranks->all.count;
}

int32_t pd_ranks_threads(const pd_ranks *ranks) {
    return ranks->n_threads;
}

int32_t pd_ranks_idle_cores(const pd_ranks *ranks) {
    return ranks->n_idle;
}

bool pd_ranks_speaks(const pd_ranks *ranks) {
    return ranks->all.index == 0 || !ranks->agreed_to_fail;
}

// ---- sums --------------------------------------------------------------------------------------------------

pd_status pd_ranks_sum(pd_ranks *ranks, double *values, int32_t n, pd_error *err) {
    return pd_collective_sum_f64(&ranks->all, values, n, err);
}

// Where a gradient's numbers stand in the bucket.
typedef struct {
    float *numbers;
    int32_t n;
} piece;

typedef struct {
    pd_ranks *ranks;
    piece pieces[256];
    int32_t n_pieces, used;
} packing;

static pd_status flush(packing *p, pd_error *err) {
    float *bucket = p->ranks->bucket;
    int32_t at = 0;
    PD_TRY(pd_collective_sum_f32(&p->ranks->all, bucket, p->used, err));
    for (int32_t i = 0; i < p->n_pieces; i++) {
        memcpy(p->pieces[i].numbers, bucket + at, (size_t)p->pieces[i].n * sizeof *bucket);
        at += p->pieces[i].n;
    }
    p->n_pieces = p->used = 0;
    return PD_OK;
}

static pd_status pack(packing *p, float *numbers, int32_t n, pd_error *err) {
    const bool full = p->n_pieces == sizeof p->pieces / sizeof *p->pieces || n > BUCKET - p->used;
    if (full) PD_TRY(flush(p, err));
    memcpy(p->ranks->bucket + p->used, numbers, (size_t)n * sizeof *numbers);
    p->pieces[p->n_pieces++] = (piece){numbers, n};
    p->used += n;
    return PD_OK;
}

pd_status pd_ranks_sum_gradients(pd_ranks *ranks, const pd_parameters *parameters, pd_error *err) {
    packing p = {.ranks = ranks};
    if (ranks->all.count == 1) return PD_OK;
    for (size_t i = 0; i < parameters->n; i++) {
        float *numbers = parameters->all[i].gradient->data;
        int64_t left = ggml_nelements(parameters->all[i].gradient);
        // whole buckets' worth where it lies
        for (; left >= BUCKET; left -= BUCKET, numbers += BUCKET)
            PD_TRY(pd_collective_sum_f32(&ranks->all, numbers, BUCKET, err));
        if (left > 0) PD_TRY(pack(&p, numbers, (int32_t)left, err));
    }
    return p.used > 0 ? flush(&p, err) : PD_OK;
}

// ---- agreement ---------------------------------------------------------------------------------------------

// The smaller, the sooner a rank is heard: failures before cancelling, then by rank.
static int32_t key_of(const pd_collective *all, pd_status mine) {
    return mine == PD_OK ? 2 * all->count : (mine == PD_ERR_CANCELLED ? all->count : 0) + all->index;
}

pd_status pd_ranks_agree(pd_ranks *ranks, pd_status mine, pd_error *err) {
    const pd_collective *all = &ranks->all;
    int32_t key = key_of(all, mine);
    if (all->count == 1) return mine;
    pd_error heard = {.status = PD_ERR_BACKEND};
    PD_TRY(pd_collective_min(all, &key, err));
    if (key == 2 * all->count) return PD_OK;
    const int32_t rank = key % all->count;
    if (rank == all->index && err) heard = *err;
    heard.status = rank == all->index ? mine : heard.status;
    PD_TRY(pd_collective_broadcast(all, &heard, (int32_t)sizeof heard, rank, err));
    ranks->agreed_to_fail = true;
    if (rank == 0) return pd_fail(err, heard.status, "%s", heard.message);
    return pd_fail(err, heard.status, "rank %d: %s", rank, heard.message);
}

pd_status pd_ranks_compare(pd_ranks *ranks, const char *what, const char *text, pd_error *err) {
    char first[512];
    snprintf(first, sizeof first, "%s", text);
    PD_TRY(pd_collective_broadcast(&ranks->all, first, (int32_t)sizeof first, 0, err));
    if (strncmp(first, text, sizeof first - 1) == 0) return PD_OK;
    return pd_fail(err, PD_ERR_ARGUMENT, "%s: expected the first rank's (%s), found (%s)", what, first, text);
}
