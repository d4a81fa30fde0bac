#include "train/loader.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// A record that was skipped.
typedef struct {
    int32_t index;
    bool image;
    pd_error err;
} bad_record;

// One sample of the ring. A thread that took its ticket fills it; once it is ready, it is the consumer's.
typedef struct {
    bool ready;
    pd_status status;
    pd_error err;
    pd_train_sample sample;
    pd_sample_notes notes;
    bad_record *bad; // [n_bad] on the way to the sample
    int32_t n_bad;
    int32_t bad_capacity;
} slot;

struct pd_loader {
    pd_loader_params params;
    pthread_mutex_t mutex;
    pthread_cond_t room;  // a slot became free
    pthread_cond_t ready; // the consumer's slot became ready
    pthread_t *threads;
    int32_t n_threads; // started
    // Under the mutex. Ticket t is position params.position + t; its slot is t % n_ahead.
    slot *slots; // [n_ahead]
    int64_t next_ticket;
    int64_t n_taken; // by the consumer
    int64_t order_epoch;
    int32_t *order; // [n_samples] of order_epoch
    atomic_bool stop;
    // The consumer's alone.
    pd_loader_stats stats;
    uint8_t *named; // [n_samples] bit by bit: the record was logged
    pd_status failed;
    pd_error failure;
};

static bool is_cancelled(const pd_loader *loader) {
    return loader->params.cancel && atomic_load_explicit(loader->params.cancel, memory_order_relaxed);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// ---- threads ----------------------------------------------------------------------------------------------

// The record at a ticket's position. The mutex is held.
static pd_status find_record(pd_loader *loader, int64_t ticket, int32_t *index, pd_error *err) {
    const pd_sampler *sampler = &loader->params.sampler;
    const int64_t position = loader->params.position + ticket;
    const int64_t size = pd_sampler_epoch_size(sampler, loader->params.rank);
    const int64_t epoch = position / size;
    if (epoch != loader->order_epoch) {
        loader->order_epoch = -1;
        PD_TRY(pd_sampler_order(sampler, epoch, loader->order, err));
        loader->order_epoch = epoch;
    }
    *index = loader->order[pd_sampler_place(sampler, loader->params.rank, position % size)];
    return PD_OK;
}

static pd_status note_bad(slot *s, int32_t index, pd_error *err) {
    if (s->n_bad == s->bad_capacity) {
        const int32_t capacity = s->bad_capacity * 2 + 4;
        bad_record *grown = realloc(s->bad, (size_t)capacity * sizeof *grown);
        if (!grown) return pd_fail_memory(err, (size_t)capacity * sizeof *grown, "the list of bad records");
        s->bad = grown;
        s->bad_capacity = capacity;
    }
    s->bad[s->n_bad++] = (bad_record){index, s->notes.bad_image, s->err};
    return PD_OK;
}

// Fills the slot with the sample of record `index`, or of the next good one.
static pd_status fill(pd_loader *loader, slot *s, int32_t index) {
    const pd_loader_params *params = &loader->params;
    for (;;) {
        if (atomic_load(&loader->stop) || is_cancelled(loader))
            return pd_fail(&s->err, PD_ERR_CANCELLED, "reading samples was cancelled");
        const pd_status status = pd_sample_make(&params->sample, index, &s->sample, &s->notes, &s->err);
        if (status == PD_OK) return PD_OK;
        const bool skip = s->notes.bad_image ? params->skip_bad_images : params->skip_bad_samples;
        if (!s->notes.bad_record || !skip) return status;
        PD_TRY(note_bad(s, index, &s->err));
        if (s->n_bad == PD_LOADER_MAX_BAD_RUN || s->n_bad == params->sampler.n_samples) {
            char first[sizeof s->err.message];
            memcpy(first, s->bad[0].err.message, sizeof first);
            return pd_fail(&s->err, status, "%d bad records in a row, the first: %s", s->n_bad, first);
        }
        index = index + 1 < params->sampler.n_samples ? index + 1 : 0;
    }
}

static void *work(void *opaque) {
    pd_loader *loader = opaque;
    const int64_t n_ahead = loader->params.n_ahead;
    pthread_mutex_lock(&loader->mutex);
    for (;;) {
        while (!atomic_load(&loader->stop) && loader->next_ticket - loader->n_taken >= n_ahead)
            pthread_cond_wait(&loader->room, &loader->mutex);
        if (atomic_load(&loader->stop)) break;
        const int64_t ticket = loader->next_ticket++;
        slot *s = &loader->slots[ticket % n_ahead];
        int32_t index = 0;
        s->status = find_record(loader, ticket, &index, &s->err);
        pthread_mutex_unlock(&loader->mutex);
        if (s->status == PD_OK) s->status = fill(loader, s, index);
        pthread_mutex_lock(&loader->mutex);
        s->ready = true;
        if (ticket == loader->n_taken) pthread_cond_signal(&loader->ready);
    }
    pthread_mutex_unlock(&loader->mutex);
    return NULL;
}

// ---- the consumer -----------------------------------------------------------------------------------------

static void free_slot(slot *s) {
    pd_train_sample_free(&s->sample);
    free(s->bad);
    *s = (slot){0};
}

// Waits for the next slot to be ready; false when it was cancelled. The mutex is held.
static bool wait_for(pd_loader *loader, const slot *s) {
    while (!s->ready && !is_cancelled(loader)) {
        // A signal handler cannot signal a condition: the flag is looked at now and then.
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += 50000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        if (loader->params.cancel) {
            pthread_cond_timedwait(&loader->ready, &loader->mutex, &until);
        } else {
            pthread_cond_wait(&loader->ready, &loader->mutex);
        }
    }
    return !is_cancelled(loader);
}

// Takes the next slot's content out of the ring.
static pd_status take(pd_loader *loader, slot *taken, pd_error *err) {
    *taken = (slot){0};
    pthread_mutex_lock(&loader->mutex);
    slot *s = &loader->slots[loader->n_taken % loader->params.n_ahead];
    const double start = s->ready ? 0 : seconds();
    const bool ready = wait_for(loader, s);
    if (start > 0) loader->stats.seconds_waited += seconds() - start;
    if (ready) {
        *taken = *s;
        *s = (slot){0};
        loader->n_taken++;
        pthread_cond_signal(&loader->room);
    }
    pthread_mutex_unlock(&loader->mutex);
    return ready ? PD_OK : pd_fail(err, PD_ERR_CANCELLED, "reading samples was cancelled");
}

static void log_line(const pd_loader *loader, const char *line) {
    if (loader->params.log) loader->params.log(PD_LOG_WARNING, line, loader->params.log_user);
}

static void report_bad(pd_loader *loader, const bad_record *bad) {
    uint8_t *bits = &loader->named[bad->index / 8];
    const uint8_t bit = (uint8_t)(1U << (bad->index % 8));
    if (*bits & bit) return;
    *bits |= bit;
    if (bad->image) {
        loader->stats.bad_images++;
    } else {
        loader->stats.bad_samples++;
    }
    char line[sizeof bad->err.message + 16];
    snprintf(line, sizeof line, "skipped: %s", bad->err.message);
    log_line(loader, line);
}

static void report_first(const pd_loader *loader, int64_t index, int64_t count, const char *what) {
    if (count != 1) return;
    char line[sizeof((pd_error){0}.message)];
    snprintf(line, sizeof line, "%s: record %lld %s; the next ones are only counted",
             pd_dataset_path(loader->params.sample.dataset), (long long)index, what);
    log_line(loader, line);
}

static void report(pd_loader *loader, const slot *s) {
    for (int32_t i = 0; i < s->n_bad; i++)
        report_bad(loader, &s->bad[i]);
    if (s->status != PD_OK) return;
    loader->stats.samples++;
    if (s->notes.truncated) {
        report_first(loader, s->sample.index, ++loader->stats.truncated,
                     "is longer than --model_max_length and was cut off");
    }
    if (s->notes.mismatch) {
        report_first(loader, s->sample.index, ++loader->stats.mismatches,
                     "gives no labels: tokenization mismatch");
    }
}

static pd_status take_sample(pd_loader *loader, pd_train_sample *sample, pd_error *err) {
    slot taken;
    PD_TRY(take(loader, &taken, err));
    report(loader, &taken);
    const pd_status status = taken.status;
    if (status == PD_OK) {
        *sample = taken.sample;
        taken.sample = (pd_train_sample){0};
    } else if (err) {
        *err = taken.err;
    }
    free_slot(&taken);
    return status;
}

pd_status pd_loader_next(pd_loader *loader, int32_t count, pd_train_sample *samples, pd_error *err) {
    for (int32_t i = 0; i < count; i++)
        samples[i] = (pd_train_sample){0};
    for (int32_t i = 0; i < count && loader->failed == PD_OK; i++)
        loader->failed = take_sample(loader, &samples[i], &loader->failure);
    if (loader->failed == PD_OK) return PD_OK;
    for (int32_t i = 0; i < count; i++)
        pd_train_sample_free(&samples[i]);
    if (err) *err = loader->failure;
    return loader->failed;
}

pd_loader_stats pd_loader_get_stats(const pd_loader *loader) {
    return loader->stats;
}

// ---- life -------------------------------------------------------------------------------------------------

static pd_status check_params(const pd_loader_params *params, pd_error *err) {
    const pd_dataset *dataset = params->sample.dataset;
    PD_TRY(pd_sampler_check(&params->sampler, err));
    const struct {
        const char *name;
        int64_t value;
        int64_t least;
        int64_t most;
    } ranges[] = {
        {"the number of loader threads", params->n_threads, 1, PD_LOADER_MAX_THREADS},
        {"the number of samples read ahead", params->n_ahead, 1, INT32_MAX},
        {"the rank", params->rank, 0, params->sampler.world_size - 1},
        {"the position", params->position, 0, INT64_MAX / 2},
        {"model_max_length", params->sample.labels.model_max_length, 1, INT32_MAX},
        {"the sampler's number of samples", params->sampler.n_samples, pd_dataset_size(dataset),
         pd_dataset_size(dataset)},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (ranges[i].value >= ranges[i].least && ranges[i].value <= ranges[i].most) continue;
        return pd_fail(err, PD_ERR_ARGUMENT, "%s: expected %lld..%lld, found %lld", ranges[i].name,
                       (long long)ranges[i].least, (long long)ranges[i].most, (long long)ranges[i].value);
    }
    return PD_OK;
}

static pd_status start_threads(pd_loader *loader, pd_error *err) {
    for (int32_t i = 0; i < loader->params.n_threads; i++) {
        const int failed = pthread_create(&loader->threads[i], NULL, work, loader);
        if (failed) return pd_fail(err, PD_ERR_MEMORY, "cannot start a loader thread: %s", strerror(failed));
        loader->n_threads++;
    }
    return PD_OK;
}

static void init_locks(pd_loader *loader) {
    pthread_mutex_init(&loader->mutex, NULL);
    pthread_cond_init(&loader->room, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&loader->ready, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

pd_status pd_loader_create(const pd_loader_params *params, pd_loader **out, pd_error *err) {
    *out = NULL;
    PD_TRY(check_params(params, err));
    pd_loader *loader = calloc(1, sizeof *loader);
    if (!loader) return pd_fail_memory(err, sizeof *loader, "a loader");
    loader->params = *params;
    loader->order_epoch = -1;
    init_locks(loader);
    const size_t n = (size_t)params->sampler.n_samples;
    loader->threads = calloc((size_t)params->n_threads, sizeof *loader->threads);
    loader->slots = calloc((size_t)params->n_ahead, sizeof *loader->slots);
    loader->order = malloc(n * sizeof *loader->order);
    loader->named = calloc(n / 8 + 1, 1);
    pd_status status = loader->threads && loader->slots && loader->order && loader->named
                           ? start_threads(loader, err)
                           : pd_fail_memory(err, n * sizeof *loader->order, "a loader");
    if (status != PD_OK) {
        pd_loader_free(loader);
        return status;
    }
    *out = loader;
    return PD_OK;
}

void pd_loader_free(pd_loader *loader) {
    if (!loader) return;
    pthread_mutex_lock(&loader->mutex);
    atomic_store(&loader->stop, true);
    pthread_cond_broadcast(&loader->room);
    pthread_mutex_unlock(&loader->mutex);
    for (int32_t i = 0; i < loader->n_threads; i++)
        pthread_join(loader->threads[i], NULL);
    for (int32_t i = 0; loader->slots && i < loader->params.n_ahead; i++)
        free_slot(&loader->slots[i]);
    pthread_cond_destroy(&loader->room);
    pthread_cond_destroy(&loader->ready);
    pthread_mutex_destroy(&loader->mutex);
    free(loader->threads);
    free(loader->slots);
    free(loader->order);
    free(loader->named);
    free(loader);
}
