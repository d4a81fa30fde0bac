// Samples read ahead of the training step: threads tokenize conversations, decode pictures and cut them into
// tiles; the step takes samples in the sampler's order.
//
//     pd_loader_create(&params, &loader, &err);
//     while (…) {
//         pd_sampler_batch(&params.sampler, rank, step, micro, &position, &count);
//         pd_loader_next(loader, count, samples, &err);
//         …
//     }
//     pd_loader_free(loader);
//
// What comes out, errors and log lines included, depends on the data, the seed and the position alone: not on
// the number of threads, nor on where a run was interrupted.
#pragma once

#include "train/sample.h"
#include "train/sampler.h"

#include <stdatomic.h>

typedef struct pd_loader pd_loader;

typedef struct pd_loader_params {
    pd_sample_params sample; // what it points to must outlive the loader
    pd_sampler sampler;      // n_samples and lengths are the data set's
    int32_t rank;
    int64_t position;  // in the rank's sequence (pd_sampler_batch): 0, or where to go on
    int32_t n_threads; // 1 … PD_LOADER_MAX_THREADS
    int32_t n_ahead;   // how many samples may be ready or under way, at least 1
    // What becomes of a bad record: an error when its turn comes, or the next record of the data set, and the
    // one behind it, until one is good, stands in for it; around the end it goes on with record 0. So the
    // order of all others stays, and a position means the same in every run.
    bool skip_bad_images;  // a picture that is missing, broken or not supported
    bool skip_bad_samples; // no answer within model_max_length, or a conversation the template cannot hold
    const atomic_bool *cancel; // NULL, or set by any thread or signal handler to stop
    pd_log_callback log;       // called from pd_loader_next; NULL: silent
    void *log_user;
} pd_loader_params;

#define PD_LOADER_MAX_THREADS 256
// So many bad records in a row are an error even when they are skipped: the folder is wrong, say.
#define PD_LOADER_MAX_BAD_RUN 1000

typedef struct pd_loader_stats {
    int64_t samples;       // given out
    int64_t bad_images;    // different records skipped for a picture
    int64_t bad_samples;   // different records skipped for their text
    int64_t truncated;     // samples cut off at model_max_length
    int64_t mismatches;    // samples without labels after a tokenization mismatch
    double seconds_waited; // in pd_loader_next for samples that were not ready
} pd_loader_stats;

// Starts the threads. PD_ERR_ARGUMENT for numbers out of range.
pd_status pd_loader_create(const pd_loader_params *params, pd_loader **loader, pd_error *err);

// The next `count` samples of the order, for the caller to free; count 0 gives none. On failure samples[]
// holds nothing, and the loader gives the same error from then on. PD_ERR_CANCELLED once *cancel is set.
//
// Skipped records are named in the log, each once. The first truncated sample and the first mismatch are
// named, the others counted.
pd_status pd_loader_next(pd_loader *loader, int32_t count, pd_train_sample *samples, pd_error *err);

// Of what was given out so far. To be called from the thread that calls pd_loader_next.
pd_loader_stats pd_loader_get_stats(const pd_loader *loader);

// Stops and joins the threads.
void pd_loader_free(pd_loader *loader);
