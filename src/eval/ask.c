#include "eval/ask.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_SESSIONS = 512, MOST_TOGETHER = 32 };

typedef struct {
    pd_eval_answer answer;
    bool done;
} result;

typedef struct {
    const pd_eval_params *params;
    const pd_questions *questions;
    result *results; // [questions->n]
    pthread_mutex_t lock;
    pthread_cond_t changed; // a result is there, or a worker has failed
    size_t next;            // question that nobody has taken
    bool stop;
    pd_error err; // of the first worker that failed; status PD_OK: none has
} job;

typedef struct {
    job *job;
    pd_session *session;
    pthread_t thread;
} worker;

// ---- one question -----------------------------------------------------------------------------------------

static pd_status load_image(const job *j, const char *name, pd_image **image, pd_error *err) {
    const char *folder = j->params->image_folder;
    if (!folder || name[0] == '/') return pd_image_load(name, image, err);
    const size_t size = strlen(folder) + strlen(name) + 2;
    char *path = malloc(size);
    if (!path) return pd_fail_memory(err, size, "a file name");
    snprintf(path, size, "%s/%s", folder, name);
    const pd_status status = pd_image_load(path, image, err);
    free(path);
    return status;
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void trim(char *text) {
    size_t size = strlen(text), first = 0;
    while (size > 0 && is_space(text[size - 1]))
        size--;
    while (first < size && is_space(text[first]))
        first++;
    memmove(text, text + first, size - first);
    text[size - first] = '\0';
}

// All pieces of the answer, in one string of the caller's.
static pd_status collect(pd_session *session, char **text, pd_error *err) {
    size_t size = 0, capacity = 64;
    *text = malloc(capacity);
    if (!*text) return pd_fail_memory(err, capacity, "an answer");
    **text = '\0';
    const char *piece;
    pd_status status;
    while ((status = pd_session_next(session, &piece, err)) == PD_OK) {
        const size_t length = strlen(piece);
        if (size + length + 1 > capacity) {
            capacity = 2 * (size + length + 1);
            char *grown = realloc(*text, capacity);
            if (!grown) return pd_fail_memory(err, capacity, "an answer");
            *text = grown;
        }
        memcpy(*text + size, piece, length + 1);
        size += length;
    }
    trim(*text);
    return status == PD_DONE ? PD_OK : status;
}

static pd_status answer(worker *w, const pd_eval_question *question, pd_eval_answer *a, pd_error *err) {
    pd_image *image = NULL;
    *a = (pd_eval_answer){0};
    if (question->image) PD_TRY(load_image(w->job, question->image, &image, err));
    const pd_message message = {PD_ROLE_USER, question->text, &image, image != NULL};
    pd_status status = pd_session_prompt(w->session, &message, 1, err);
    pd_image_free(image);
    if (status == PD_OK) status = collect(w->session, &a->text, err);
    if (status != PD_OK) return status;
    const pd_stats *s = pd_session_stats(w->session);
    a->n_prompt_tokens = s->n_prompt_tokens;
    a->n_image_tokens = s->n_image_tokens;
    a->n_generated = s->n_generated;
    a->encode_ms = s->image_ms + s->vit_ms + s->projector_ms;
    a->prefill_ms = s->prefill_ms;
    a->decode_ms = s->decode_ms;
    return PD_OK;
}

// ---- workers ----------------------------------------------------------------------------------------------

// Takes the next question, and those behind it about the same picture, which a session encodes once.
static bool take(job *j, size_t *first, size_t *end) {
    pthread_mutex_lock(&j->lock);
    *first = *end = j->next;
    const size_t n = j->stop ? *first : j->questions->n;
    while (*end < n && *end - *first < MOST_TOGETHER) {
        const char *image = j->questions->items[*end].image, *before = j->questions->items[*first].image;
        if (*end > *first && !(image && before && strcmp(image, before) == 0)) break;
        ++*end;
    }
    j->next = *end;
    pthread_mutex_unlock(&j->lock);
    return *end > *first;
}

static void give_up(job *j, const pd_eval_question *question, const pd_error *err) {
    pthread_mutex_lock(&j->lock);
    if (j->err.status == PD_OK && err->status == PD_ERR_CANCELLED) j->err = *err;
    if (j->err.status == PD_OK)
        pd_fail(&j->err, err->status, "question %.80s: %.400s", question->id, err->message);
    j->stop = true;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
}

static void *work(void *argument) {
    worker *w = argument;
    job *j = w->job;
    for (size_t first, end; take(j, &first, &end);) {
        for (size_t i = first; i < end; i++) {
            pd_eval_answer a;
            pd_error err;
            const pd_status status = answer(w, &j->questions->items[i], &a, &err);
            pthread_mutex_lock(&j->lock);
            j->results[i] = (result){a, status == PD_OK};
            const bool stop = j->stop;
            pthread_cond_broadcast(&j->changed);
            pthread_mutex_unlock(&j->lock);
            if (status != PD_OK) {
                err.status = status;
                give_up(j, &j->questions->items[i], &err);
            }
            if (status != PD_OK || stop) return NULL;
        }
    }
    return NULL;
}

// ---- the thread that calls --------------------------------------------------------------------------------

// Waits for answer `index`, and now and then looks whether it should stop.
static pd_status wait_for(job *j, size_t index, pd_error *err) {
    const atomic_bool *cancel = j->params->cancel;
    pd_status status = PD_OK;
    pthread_mutex_lock(&j->lock);
    while (status == PD_OK && !j->results[index].done) {
        if (j->err.status != PD_OK) {
            *err = j->err;
            status = err->status;
        } else if (cancel && atomic_load(cancel)) {
            status = pd_fail(err, PD_ERR_CANCELLED, "stopped");
        } else {
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_nsec += 100 * 1000 * 1000;
            until.tv_sec += until.tv_nsec / 1000000000;
            until.tv_nsec %= 1000000000;
            pthread_cond_timedwait(&j->changed, &j->lock, &until);
        }
    }
    pthread_mutex_unlock(&j->lock);
    return status;
}

static pd_status tell_answers(job *j, pd_error *err) {
    const pd_eval_params *p = j->params;
    for (size_t i = 0; i < j->questions->n; i++) {
        PD_TRY(wait_for(j, i, err));
        PD_TRY(p->on_answer(&j->questions->items[i], &j->results[i].answer, p->user, err));
        free(j->results[i].answer.text);
        j->results[i].answer.text = NULL;
        if (p->progress)
            p->progress("questions", (double)(i + 1) / (double)j->questions->n, p->progress_user);
    }
    return PD_OK;
}

static void stop_all(job *j, worker *workers, int n) {
    pthread_mutex_lock(&j->lock);
    j->stop = true;
    pthread_mutex_unlock(&j->lock);
    for (int i = 0; i < n; i++)
        pd_session_cancel(workers[i].session);
}

// Signals are the calling thread's: handlers on a worker's stack would overwrite what computes there.
static int start_threads(worker *workers, int n) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int started = 0;
    while (started < n && pthread_create(&workers[started].thread, NULL, work, &workers[started]) == 0)
        started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

static pd_status run(job *j, worker *workers, int n, pd_error *err) {
    pd_session_params params = *j->params->session;
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    const int threads = params.n_threads > 0 ? params.n_threads : cores > 0 && cores < 512 ? (int)cores : 1;
    params.progress = NULL; // several at once
    pd_status status = PD_OK;
    int made = 0, started = 0;
    while (status == PD_OK && made < n) {
        params.n_threads = threads / n > 0 ? threads / n + (made < threads % n) : 1;
        workers[made].job = j;
        status = pd_session_create(j->params->model, &params, &workers[made].session, err);
        made += status == PD_OK;
    }
    if (status == PD_OK) {
        started = start_threads(workers, n);
        if (started == 0) status = pd_fail(err, PD_ERR_MEMORY, "cannot start a thread");
    }
    if (status == PD_OK) status = tell_answers(j, err);
    if (status != PD_OK) stop_all(j, workers, made);
    for (int i = 0; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    for (int i = 0; i < made; i++)
        pd_session_free(workers[i].session);
    return status;
}

pd_status pd_eval_ask(const pd_eval_params *params, const pd_questions *questions, pd_error *err) {
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int64_t n = params->n_sessions > 0           ? params->n_sessions
                : params->session->n_threads > 0 ? params->session->n_threads
                                                 : cores;
    if (n > MOST_SESSIONS) n = MOST_SESSIONS;
    if (n > (int64_t)questions->n) n = (int64_t)questions->n;
    if (n < 1) n = 1;
    job j = {.params = params, .questions = questions};
    j.results = calloc(questions->n ? questions->n : 1, sizeof *j.results);
    worker *workers = calloc((size_t)n, sizeof *workers);
    pthread_mutex_init(&j.lock, NULL);
    pthread_cond_init(&j.changed, NULL);
    pd_status status =
        j.results && workers ? PD_OK : pd_fail_memory(err, questions->n * sizeof *j.results, "answers");
    if (status == PD_OK) status = run(&j, workers, (int)n, err);
    for (size_t i = 0; j.results && i < questions->n; i++)
        free(j.results[i].answer.text);
    pthread_cond_destroy(&j.changed);
    pthread_mutex_destroy(&j.lock);
    free(workers);
    free(j.results);
    return status;
}
