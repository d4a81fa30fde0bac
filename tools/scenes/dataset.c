#include "dataset.h"

#include "base/file.h"
#include "canvas.h"
#include "train/output_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// What a worker leaves for the thread that writes the JSON.
typedef struct {
    char *json; // malloc'd
    bool done, image;
    size_t bytes; // of the picture
    int n_questions;
    pd_question *questions; // malloc'd; NULL unless they are tallied
} result;

enum { WINDOW = 4096 }; // results that may wait for those before them

typedef struct {
    const pd_dataset_options *options;
    const volatile bool *stop;
    const pd_artwork *artwork; // NULL: no pictures are drawn
    bool tally;
    int64_t n;
    atomic_int_fast64_t next;
    pthread_mutex_t lock;
    pthread_cond_t changed; // a result is there, or has been taken
    result *results;        // [WINDOW], of record i at i % WINDOW
    int64_t taken;
    bool failed;
    pd_error err; // of the first that failed
} job;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

// ---- files ------------------------------------------------------------------------------------------------

// A picture appears under its name when it is whole. All are forced to the disk at the end, before the JSON.
static pd_status write_picture(const char *path, const uint8_t *bytes, size_t size, pd_error *err) {
    char temporary[4200];
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    const int descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor < 0) return pd_fail(err, PD_ERR_IO, "%s: cannot create: %s", path, strerror(errno));
    int reason = 0;
    for (size_t written = 0; written < size && !reason;) {
        const ssize_t n = write(descriptor, bytes + written, size - written);
        if (n >= 0) {
            written += (size_t)n;
        } else if (errno != EINTR) {
            reason = errno;
        }
    }
    if (close(descriptor) != 0 && !reason) reason = errno;
    if (!reason && rename(temporary, path) != 0) reason = errno;
    if (!reason) return PD_OK;
    unlink(temporary);
    return pd_fail(err, PD_ERR_IO, "%s: cannot write: %s", path, strerror(reason));
}

// What pictures a folder holds, in a line that stands in its scenes.json.
static void describe_pictures(const pd_dataset_options *options, char line[512]) {
    const pd_sample_options *s = &options->samples;
    int used = snprintf(line, 512, "{\"pictures\":\"%s\",\"split\":\"%s\",\"seed\":%" PRIu64 ",\"size\":%d",
                        s->kind <= PD_KIND_QUESTIONS ? "training" : pd_kind_names[s->kind],
                        pd_split_names[s->split], s->seed, options->size);
    used += snprintf(line + used, 512 - (size_t)used, ",\"held_out\":%g", s->held_out);
    if (s->kind == PD_KIND_EVAL) {
        used += snprintf(line + used, 512 - (size_t)used,
                         ",\"first\":%" PRId64 ",\"count\":%" PRId64 ",\"tasks\":[", s->first, s->count);
        for (int i = 0; i < s->n_tasks; i++)
            used += snprintf(line + used, 512 - (size_t)used, "%s\"%s\"", i ? "," : "",
                             pd_task_names[s->tasks[i]]);
        used += snprintf(line + used, 512 - (size_t)used, "]");
    } else {
        for (int i = 0; i < PD_N_SCENES; i++)
            used += snprintf(line + used, 512 - (size_t)used, "%s%d", i ? "," : ",\"mix\":[", s->mix[i]);
        used += snprintf(line + used, 512 - (size_t)used, "]");
        if (s->most < PD_MAX_OBJECTS)
            used += snprintf(line + used, 512 - (size_t)used, ",\"most\":%d", s->most);
    }
    snprintf(line + used, 512 - (size_t)used, "}\n");
}

// A folder holds pictures of one sort: others would take their names.
static pd_status claim_folder(const pd_dataset_options *options, pd_error *err) {
    char path[4160], line[512];
    describe_pictures(options, line);
    snprintf(path, sizeof path, "%s/scenes.json", options->out);
    pd_mapped_file file;
    if (access(path, F_OK) == 0) {
        PD_TRY(pd_mapped_file_open(path, &file, err));
        const bool same = file.size == strlen(line) && memcmp(file.data, line, file.size) == 0;
        pd_mapped_file_close(&file);
        if (same) return PD_OK;
        return pd_fail(err, PD_ERR_ARGUMENT,
                       "%s holds pictures of other settings, see %s: choose another folder with --out",
                       options->out, path);
    }
    pd_file_writer writer;
    PD_TRY(pd_file_writer_open(path, &writer, err));
    const pd_status status = pd_file_write(&writer, line, strlen(line), err);
    if (status != PD_OK) {
        pd_file_writer_discard(&writer);
        return status;
    }
    return pd_file_writer_commit(&writer, err);
}

static pd_status make_folders(const pd_dataset_options *options, pd_error *err) {
    if (strlen(options->out) > 4000)
        return pd_fail(err, PD_ERR_ARGUMENT, "--out: expected a path of at most 4000 bytes");
    PD_TRY(pd_output_folder_make(options->out, err));
    PD_TRY(claim_folder(options, err));
    if (!options->images || options->samples.kind == PD_KIND_DEMO) return PD_OK;
    char path[4160];
    snprintf(path, sizeof path, "%s/images", options->out);
    PD_TRY(pd_output_folder_make(path, err));
    const int64_t first = options->samples.kind == PD_KIND_EVAL ? 0 : options->samples.first;
    const int64_t last = first + pd_n_samples(&options->samples) - 1;
    for (int64_t folder = first / 1000; folder <= last / 1000; folder++) {
        snprintf(path, sizeof path, "%s/images/%03" PRId64, options->out, folder);
        PD_TRY(pd_output_folder_make(path, err));
    }
    return PD_OK;
}

// ---- workers ----------------------------------------------------------------------------------------------

static pd_status draw(const job *j, pd_canvas *canvas, const pd_sample *sample, result *r, pd_error *err) {
    char path[4160];
    uint8_t *png;
    snprintf(path, sizeof path, "%s/%s", j->options->out, sample->image);
    PD_TRY(pd_canvas_render(canvas, &sample->scene, &png, &r->bytes, err));
    const pd_status status = write_picture(path, png, r->bytes, err);
    free(png);
    return status;
}

static pd_status make_result(const job *j, pd_canvas *canvas, int64_t index, result *r, pd_error *err) {
    pd_sample sample;
    *r = (result){.done = true};
    pd_sample_make(&j->options->samples, index, &sample);
    r->n_questions = sample.n_questions;
    r->image = sample.image[0] != '\0';
    if (j->tally) {
        const size_t size = sizeof *r->questions * PD_MAX_TURNS;
        r->questions = malloc(size);
        if (!r->questions) return pd_fail_memory(err, size, "questions");
        memcpy(r->questions, sample.questions, size);
    }
    if (j->options->out) {
        r->json = pd_sample_json(&sample, j->options->samples.kind);
        if (!r->json) return pd_fail_memory(err, sizeof sample, "a record");
    }
    return canvas && r->image ? draw(j, canvas, &sample, r, err) : PD_OK;
}

static void give_up(job *j, const pd_error *err) {
    pthread_mutex_lock(&j->lock);
    if (!j->failed) j->err = *err;
    j->failed = true;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
}

// Waits until there is room for record `index`; false: the job ends.
static bool wait_for_room(job *j, int64_t index) {
    pthread_mutex_lock(&j->lock);
    while (!j->failed && index >= j->taken + WINDOW)
        pthread_cond_wait(&j->changed, &j->lock);
    const bool go_on = !j->failed;
    pthread_mutex_unlock(&j->lock);
    return go_on;
}

static void *work(void *argument) {
    job *j = argument;
    pd_canvas *canvas = NULL;
    pd_error err;
    if (j->artwork && pd_canvas_create(j->options->size, j->artwork, &canvas, &err) != PD_OK) {
        give_up(j, &err);
        return NULL;
    }
    for (;;) {
        const int64_t index = atomic_fetch_add(&j->next, 1);
        result r;
        if (index >= j->n || !wait_for_room(j, index)) break;
        const pd_status status = make_result(j, canvas, index, &r, &err);
        if (status != PD_OK) {
            free(r.json);
            free(r.questions);
            give_up(j, &err);
            break;
        }
        pthread_mutex_lock(&j->lock);
        j->results[index % WINDOW] = r;
        pthread_cond_broadcast(&j->changed);
        pthread_mutex_unlock(&j->lock);
    }
    pd_canvas_free(canvas);
    return NULL;
}

// ---- the thread that collects -----------------------------------------------------------------------------

static void show_progress(const pd_dataset_options *options, int64_t done, int64_t n, double seconds) {
    static const char *const what[] = {"records", "pictures"};
    const double rate = (double)done / seconds;
    const long left = rate > 0 ? (long)((double)(n - done) / rate) : 0;
    fprintf(stderr, "\rscenes: %" PRId64 " of %" PRId64 " %s, %.0f/s, %ld:%02ld left \033[K", done, n,
            what[options->images], rate, left / 60, left % 60);
    fflush(stderr);
}

static pd_status store(pd_file_writer *writer, pd_tally *tally, const result *r, bool first, pd_error *err) {
    if (r->json) {
        PD_TRY(pd_file_write(writer, first ? "\n" : ",\n", first ? 1 : 2, err));
        PD_TRY(pd_file_write(writer, r->json, strlen(r->json), err));
    }
    for (int i = 0; r->questions && i < r->n_questions; i++) {
        if (r->image) PD_TRY(pd_tally_add(tally, &r->questions[i], err));
    }
    return PD_OK;
}

// The next result in order; false where there will be none.
static bool take(job *j, result *r, double start, bool *shown) {
    pthread_mutex_lock(&j->lock);
    while (!j->failed && !*j->stop && !j->results[j->taken % WINDOW].done) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 200 * 1000 * 1000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&j->changed, &j->lock, &until);
    }
    const bool there = !j->failed && !*j->stop;
    if (there) {
        *r = j->results[j->taken % WINDOW];
        j->results[j->taken % WINDOW] = (result){0};
        j->taken++;
        pthread_cond_broadcast(&j->changed);
    }
    pthread_mutex_unlock(&j->lock);
    const double seconds = now() - start;
    if (there && j->options->progress && seconds > 2 && j->taken % 50 == 0) {
        show_progress(j->options, j->taken, j->n, seconds);
        *shown = true;
    }
    return there;
}

static pd_status collect(job *j, pd_file_writer *writer, pd_tally *tally, pd_dataset_summary *summary,
                         pd_error *err) {
    const double start = now();
    bool shown = false;
    pd_status status = PD_OK;
    for (int64_t i = 0; status == PD_OK && i < j->n; i++) {
        result r;
        if (!take(j, &r, start, &shown)) {
            status = j->failed ? j->err.status : PD_ERR_CANCELLED;
            if (j->failed)
                *err = j->err;
            else
                pd_fail(err, PD_ERR_CANCELLED, "stopped");
            break;
        }
        status = store(writer, tally, &r, i == 0, err);
        summary->n_records++;
        summary->n_images += r.image;
        summary->n_questions += r.n_questions;
        summary->image_bytes += r.bytes;
        free(r.json);
        free(r.questions);
    }
    if (shown) fputs("\r\033[K", stderr);
    return status;
}

static pd_status run(job *j, pd_file_writer *writer, pd_tally *tally, pd_dataset_summary *summary,
                     pd_error *err) {
    pthread_t *threads = calloc((size_t)j->options->threads, sizeof *threads);
    if (!threads) return pd_fail_memory(err, (size_t)j->options->threads * sizeof *threads, "threads");
    int n = 0;
    while (n < j->options->threads && pthread_create(&threads[n], NULL, work, j) == 0)
        n++;
    pd_status status = n > 0 ? PD_OK : pd_fail(err, PD_ERR_MEMORY, "cannot start a thread");
    if (status == PD_OK) status = collect(j, writer, tally, summary, err);
    pd_error ended;
    pd_fail(&ended, PD_ERR_CANCELLED, "ended");
    if (status != PD_OK) give_up(j, &ended);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    for (int i = 0; i < WINDOW; i++) {
        free(j->results[i].json);
        free(j->results[i].questions);
    }
    return status;
}

static pd_status open_json(const pd_dataset_options *options, pd_file_writer *writer,
                           pd_dataset_summary *summary, pd_error *err) {
    PD_TRY(make_folders(options, err));
    const pd_sample_options *s = &options->samples;
    if (s->kind == PD_KIND_DEMO) {
        snprintf(summary->json, sizeof summary->json, "%s/demo.json", options->out);
    } else {
        snprintf(summary->json, sizeof summary->json, "%s/%s-%s.json", options->out, pd_split_names[s->split],
                 pd_kind_names[s->kind]);
    }
    return pd_file_writer_open(summary->json, writer, err);
}

pd_status pd_dataset_write(const pd_dataset_options *options, const volatile bool *stop, pd_tally *tally,
                           pd_dataset_summary *summary, pd_error *err) {
    *summary = (pd_dataset_summary){0};
    const double start = now();
    pd_file_writer writer = {0};
    pd_artwork *artwork = NULL;
    if (options->out && options->images) PD_TRY(pd_artwork_create(&artwork, err));
    if (options->out) {
        const pd_status opened = open_json(options, &writer, summary, err);
        if (opened != PD_OK) {
            pd_artwork_free(artwork);
            return opened;
        }
    }
    job j = {.options = options,
             .stop = stop,
             .artwork = artwork,
             .tally = tally != NULL,
             .n = pd_n_samples(&options->samples)};
    pthread_mutex_init(&j.lock, NULL);
    pthread_cond_init(&j.changed, NULL);
    j.results = calloc(WINDOW, sizeof *j.results);
    pd_status status = j.results ? PD_OK : pd_fail_memory(err, WINDOW * sizeof *j.results, "records");
    if (status == PD_OK && options->out) status = pd_file_write(&writer, "[", 1, err);
    if (status == PD_OK) status = run(&j, &writer, tally, summary, err);
    if (status == PD_OK && options->out) status = pd_file_write(&writer, "\n]\n", 3, err);
    free(j.results);
    pd_artwork_free(artwork);
    pthread_cond_destroy(&j.changed);
    pthread_mutex_destroy(&j.lock);
    if (status != PD_OK) {
        pd_file_writer_discard(&writer);
        return status;
    }
    if (options->out) {
        (void)syncfs(fileno(writer.stream)); // the pictures, before the JSON says that they are there
        PD_TRY(pd_file_writer_commit(&writer, err));
    }
    summary->seconds = now() - start;
    return PD_OK;
}
