#include "train/checkpoint.h"

#include "base/file.h"
#include "base/gguf_write.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Keys of state.gguf.
#define STEP_KEY   "pdrop.train.step"
#define ORDER_KEY  "pdrop.train.order"
#define COURSE_KEY "pdrop.train.course"
#define BASE_KEY   "pdrop.train.base"

static pd_status fail_path(pd_error *err, const char *path, const char *what) {
    const int reason = errno;
    return pd_fail(err, PD_ERR_IO, "%s: %s: %s", path, what, strerror(reason));
}

// ---- folders -----------------------------------------------------------------------------------------------

// Removes a folder and the files in it; one that is not there is fine.
static pd_status remove_folder(const char *path, pd_error *err) {
    DIR *folder = opendir(path);
    if (!folder) return errno == ENOENT ? PD_OK : fail_path(err, path, "cannot open");
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(folder), entry->d_name, 0);
    }
    closedir(folder);
    return rmdir(path) == 0 ? PD_OK : fail_path(err, path, "cannot remove");
}

// Has the disk know what a folder lists.
static void sync_folder(const char *path) {
    const int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;
    fsync(descriptor); // some file systems cannot; the files themselves are synced
    close(descriptor);
}

// The N of "checkpoint-N"; −1 for another name.
static int64_t step_of(const char *name) {
    static const char prefix[] = "checkpoint-";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return -1;
    const char *digits = name + sizeof prefix - 1;
    if (*digits == '\0' || strlen(digits) > 18 || strspn(digits, "0123456789") != strlen(digits)) return -1;
    return strtoll(digits, NULL, 10);
}

static int by_step(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

// The steps of all checkpoints of a folder, ascending, malloc'd.
static pd_status list_steps(const char *output_dir, int64_t **steps, size_t *n, pd_error *err) {
    *steps = NULL;
    *n = 0;
    DIR *folder = opendir(output_dir);
    if (!folder) return errno == ENOENT ? PD_OK : fail_path(err, output_dir, "cannot open");
    pd_status status = PD_OK;
    for (struct dirent *entry; status == PD_OK && (entry = readdir(folder));) {
        const int64_t step = step_of(entry->d_name);
        if (step < 0) continue;
        int64_t *grown = realloc(*steps, (*n + 1) * sizeof **steps);
        if (!grown) {
            status = pd_fail_memory(err, (*n + 1) * sizeof **steps, "the list of checkpoints");
            break;
        }
        *steps = grown;
        grown[(*n)++] = step;
    }
    closedir(folder);
    if (*n > 0) qsort(*steps, *n, sizeof **steps, by_step);
    return status;
}

static char *checkpoint_path(const char *output_dir, const char *format, int64_t step) {
    char name[64];
    snprintf(name, sizeof name, format, (long long)step);
    return pd_path_join(output_dir, name);
}

pd_status pd_checkpoint_newest(const char *output_dir, char **path, pd_error *err) {
    int64_t *steps = NULL;
    size_t n = 0;
    *path = NULL;
    pd_status status = list_steps(output_dir, &steps, &n, err);
    if (status == PD_OK && n > 0) {
        *path = checkpoint_path(output_dir, "checkpoint-%lld", steps[n - 1]);
        if (!*path) status = pd_fail_memory(err, strlen(output_dir), "a path");
    }
    free(steps);
    return status;
}

pd_status pd_checkpoint_expect_none(const char *output_dir, int64_t after, pd_error *err) {
    int64_t *steps = NULL;
    size_t n = 0;
    pd_status status = list_steps(output_dir, &steps, &n, err);
    if (status == PD_OK && n > 0 && steps[n - 1] > after)
        status = pd_fail(err, PD_ERR_ARGUMENT,
                         "%s: holds an earlier run's checkpoint-%lld (expected resume, to go on from it, "
                         "overwrite_output_dir, to remove it, or another output_dir)",
                         output_dir, (long long)steps[n - 1]);
    free(steps);
    return status;
}

bool pd_checkpoint_is_own(const char *output_dir, int64_t step, const char *path) {
    char *own_path = checkpoint_path(output_dir, "checkpoint-%lld", step);
    const bool same = own_path && pd_same_file(own_path, path);
    free(own_path);
    return same;
}

pd_status pd_checkpoint_holds(const char *output_dir, const char *name, const char *path, bool *holds,
                              pd_error *err) {
    int64_t *steps = NULL;
    size_t n = 0;
    pd_status status = list_steps(output_dir, &steps, &n, err);
    *holds = false;
    for (size_t i = 0; i < n && status == PD_OK && !*holds; i++) {
        char *folder = checkpoint_path(output_dir, "checkpoint-%lld", steps[i]);
        char *file = folder ? pd_path_join(folder, name) : NULL;
        if (file) {
            *holds = pd_same_file(file, path);
        } else {
            status = pd_fail_memory(err, strlen(output_dir), "a path");
        }
        free(file);
        free(folder);
    }
    free(steps);
    return status;
}

// Takes a checkpoint out of its name, so that no half of it is ever seen, and removes it.
static pd_status remove_checkpoint(const char *output_dir, int64_t step, pd_error *err) {
    char *path = checkpoint_path(output_dir, "checkpoint-%lld", step);
    char *removed = checkpoint_path(output_dir, ".checkpoint-%lld.removed.tmp", step);
    pd_status status =
        path && removed ? remove_folder(removed, err) : pd_fail_memory(err, strlen(output_dir), "a path");
    if (status == PD_OK) {
        if (rename(path, removed) == 0) {
            status = remove_folder(removed, err);
        } else if (errno != ENOENT) {
            status = fail_path(err, path, "cannot remove");
        }
    }
    free(removed);
    free(path);
    return status;
}

// All but the newest `keep`, as far as they are later than `after`.
static pd_status remove_some(const char *output_dir, size_t keep, int64_t after, pd_error *err) {
    int64_t *steps = NULL;
    size_t n = 0;
    pd_status status = list_steps(output_dir, &steps, &n, err);
    if (status != PD_OK) n = 0;
    for (size_t i = 0; i + keep < n; i++) { // one that stays is no reason to keep the others
        if (steps[i] <= after) continue;
        const pd_status removed = remove_checkpoint(output_dir, steps[i], err);
        if (removed != PD_OK) status = removed;
    }
    free(steps);
    return status;
}

pd_status pd_checkpoint_remove(const char *output_dir, int32_t keep, pd_error *err) {
    return remove_some(output_dir, (size_t)keep, -1, err);
}

pd_status pd_checkpoint_remove_after(const char *output_dir, int64_t after, pd_error *err) {
    return remove_some(output_dir, 0, after, err);
}

static bool ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

pd_status pd_checkpoint_clean(const char *output_dir, pd_error *err) {
    DIR *folder = opendir(output_dir);
    if (!folder) return fail_path(err, output_dir, "cannot open");
    pd_status status = PD_OK;
    for (struct dirent *entry; status == PD_OK && (entry = readdir(folder));) {
        const char *name = entry->d_name;
        const bool is_folder = strncmp(name, ".checkpoint-", sizeof ".checkpoint-" - 1) == 0;
        const bool is_file = strncmp(name, "model.gguf.", sizeof "model.gguf." - 1) == 0 ||
                             strncmp(name, "mmproj.gguf.", sizeof "mmproj.gguf." - 1) == 0 ||
                             strncmp(name, "scratch", sizeof "scratch" - 1) == 0;
        if (!ends_with(name, ".tmp") || !(is_folder || is_file)) continue;
        char *path = pd_path_join(output_dir, name);
        if (!path) {
            status = pd_fail_memory(err, strlen(output_dir), "a path");
        } else if (is_folder) {
            remove_folder(path, NULL); // what somebody still reads stays until the next time
        } else if (unlink(path) != 0 && errno != ENOENT) {
            status = fail_path(err, path, "cannot remove");
        }
        free(path);
    }
    closedir(folder);
    return status;
}

// ---- state.gguf --------------------------------------------------------------------------------------------

static const char *const suffixes[] = {"", ".m", ".v"};

static struct ggml_tensor *part_of(const pd_parameter *p, size_t part) {
    return part == 0 ? p->weight : part == 1 ? p->m : p->v;
}

// Tensors are written in the order they were described in.
typedef struct {
    const pd_parameters *parameters;
    size_t next;
} state_source;

static pd_status state_bytes(const struct ggml_tensor *t, const void **bytes, void *user, pd_error *err) {
    (void)t;
    (void)err;
    state_source *source = user;
    *bytes = part_of(&source->parameters->all[source->next / 3], source->next % 3)->data;
    source->next++;
    return PD_OK;
}

static pd_status save_state(const pd_parameters *parameters, const pd_checkpoint_run *run, const char *path,
                            pd_error *err) {
    const size_t size = (3 * parameters->n + 1) * ggml_tensor_overhead();
    struct ggml_context *tensors = ggml_init((struct ggml_init_params){.mem_size = size, .no_alloc = true});
    struct gguf_context *gguf = gguf_init_empty();
    pd_status status = tensors && gguf ? PD_OK : pd_fail_memory(err, size, "a checkpoint");
    for (size_t i = 0; i < 3 * parameters->n && status == PD_OK; i++) {
        const struct ggml_tensor *t = part_of(&parameters->all[i / 3], i % 3);
        struct ggml_tensor *described = ggml_new_tensor(tensors, GGML_TYPE_F32, ggml_n_dims(t), t->ne);
        ggml_format_name(described, "%s%s", t->name, suffixes[i % 3]);
    }
    if (status == PD_OK) {
        state_source source = {.parameters = parameters};
        gguf_set_val_str(gguf, "general.architecture", "pdrop-training-state");
        gguf_set_val_u32(gguf, STEP_KEY, (uint32_t)run->step);
        gguf_set_val_str(gguf, ORDER_KEY, run->order);
        gguf_set_val_str(gguf, COURSE_KEY, run->course);
        gguf_set_val_str(gguf, BASE_KEY, run->base);
        status = pd_gguf_write(path, gguf, tensors, state_bytes, &source, err);
    }
    if (gguf) gguf_free(gguf);
    if (tensors) ggml_free(tensors);
    return status;
}

static pd_status load_part(const pd_gguf *gguf, struct ggml_tensor *to, const char *suffix, pd_error *err) {
    char name[GGML_MAX_NAME + 8];
    snprintf(name, sizeof name, "%s%s", to->name, suffix);
    const struct ggml_tensor *from = ggml_get_tensor(gguf->tensors, name);
    if (!from)
        return pd_fail(err, PD_ERR_FORMAT,
                       "%s: no tensor %s: a checkpoint of another geometry, or of other trained parameters",
                       gguf->path, name);
    if (from->type != GGML_TYPE_F32 || !ggml_are_same_shape(from, to))
        return pd_fail(
            err, PD_ERR_FORMAT,
            "%s: tensor %s: expected f32 [%lld, %lld], found %s [%lld, %lld]: a checkpoint of another "
            "geometry",
            gguf->path, name, (long long)to->ne[0], (long long)to->ne[1], ggml_type_name(from->type),
            (long long)from->ne[0], (long long)from->ne[1]);
    memcpy(to->data, pd_gguf_tensor_data(gguf, name), ggml_nbytes(to));
    return PD_OK;
}

static pd_status load_state(const pd_gguf *gguf, const pd_parameters *parameters, pd_checkpoint_run *run,
                            pd_error *err) {
    uint32_t step = 0;
    const char *order = NULL, *course = NULL, *base = "";
    PD_TRY(pd_gguf_get_u32(gguf, STEP_KEY, true, &step, err));
    PD_TRY(pd_gguf_get_string(gguf, ORDER_KEY, true, &order, err));
    PD_TRY(pd_gguf_get_string(gguf, COURSE_KEY, true, &course, err));
    PD_TRY(pd_gguf_get_string(gguf, BASE_KEY, false, &base, err));
    const int64_t n = gguf_get_n_tensors(gguf->gguf), expected = 3 * (int64_t)parameters->n;
    for (size_t i = 0; i < 3 * parameters->n; i++)
        PD_TRY(load_part(gguf, part_of(&parameters->all[i / 3], i % 3), suffixes[i % 3], err));
    if (n != expected)
        return pd_fail(err, PD_ERR_FORMAT, "%s: expected %lld tensors, found %lld: other trained parameters",
                       gguf->path, (long long)expected, (long long)n);
    run->step = step;
    snprintf(run->order, sizeof run->order, "%s", order);
    snprintf(run->course, sizeof run->course, "%s", course);
    snprintf(run->base, sizeof run->base, "%s", base);
    return PD_OK;
}

pd_status pd_checkpoint_load(const char *path, const pd_parameters *parameters, pd_checkpoint_run *run,
                             pd_error *err) {
    *run = (pd_checkpoint_run){0};
    char *file = pd_path_join(path, "state.gguf");
    if (!file) return pd_fail_memory(err, strlen(path), "a path");
    pd_gguf gguf;
    pd_status status = pd_gguf_open(file, &gguf, err);
    free(file);
    if (status != PD_OK) return status;
    status = load_state(&gguf, parameters, run, err);
    pd_gguf_close(&gguf);
    return status;
}

// ---- saving ------------------------------------------------------------------------------------------------

static pd_status export_one(const pd_checkpoint_params *params, const pd_gguf *from, const char *folder,
                            const char *name, pd_error *err) {
    if (!pd_export_changes(from, params->parameters)) return PD_OK;
    char *path = pd_path_join(folder, name);
    if (!path) return pd_fail_memory(err, strlen(folder), "a path");
    const pd_status status = pd_export_model(from, params->parameters, params->type, path, err);
    free(path);
    return status;
}

pd_status pd_checkpoint_export(const pd_checkpoint_params *params, const char *folder, pd_error *err) {
    PD_TRY(export_one(params, &params->weights->text_file, folder, "model.gguf", err));
    if (!params->weights->has_vision) return PD_OK;
    return export_one(params, &params->weights->vision_file, folder, "mmproj.gguf", err);
}

// A step whose weights left the range of f32 shows in the next step's loss: it must not be kept as a good
// one.
static pd_status check_numbers(const pd_parameters *parameters, int64_t step, pd_error *err) {
    for (size_t i = 0; i < 3 * parameters->n; i++) {
        const struct ggml_tensor *t = part_of(&parameters->all[i / 3], i % 3);
        const float *numbers = t->data;
        const int64_t n = ggml_nelements(t);
        float zeros = 0.0F; // 0 · x is NaN for NaN and infinities
        for (int64_t j = 0; j < n; j++)
            zeros += 0.0F * numbers[j];
        if (zeros == 0.0F) continue;
        return pd_fail(
            err, PD_ERR_BACKEND,
            "step %lld: %s%s: expected numbers, found infinities or NaN (the last checkpoint stays)",
            (long long)step, t->name, suffixes[i % 3]);
    }
    return PD_OK;
}

static pd_status fill_folder(const pd_checkpoint_params *params, const pd_checkpoint_run *run,
                             const char *folder, pd_error *err) {
    PD_TRY(remove_folder(folder, err));
    if (mkdir(folder, 0777) != 0) return fail_path(err, folder, "cannot create");
    PD_TRY(pd_checkpoint_export(params, folder, err));
    char *path = pd_path_join(folder, "state.gguf");
    if (!path) return pd_fail_memory(err, strlen(folder), "a path");
    const pd_status status = save_state(params->parameters, run, path, err);
    free(path);
    sync_folder(folder);
    return status;
}

// Renames a whole folder to its checkpoint's name. What had that name (a run from another folder's checkpoint
// may come by the same step) goes when the new one is there.
static pd_status put_in_place(const char *output_dir, int64_t step, const char *temporary, const char *path,
                              pd_error *err) {
    char *removed = checkpoint_path(output_dir, ".checkpoint-%lld.removed.tmp", step);
    pd_status status =
        removed ? remove_folder(removed, err) : pd_fail_memory(err, strlen(output_dir), "a path");
    if (status == PD_OK && rename(path, removed) != 0 && errno != ENOENT)
        status = fail_path(err, path, "cannot rename");
    if (status == PD_OK && rename(temporary, path) != 0) {
        status = fail_path(err, path, "cannot create");
        rename(removed, path);
    }
    if (status == PD_OK) {
        sync_folder(output_dir);
        remove_folder(removed, NULL); // has lost its name; pd_checkpoint_clean tries again
    }
    free(removed);
    return status;
}

pd_status pd_checkpoint_save(const pd_checkpoint_params *params, const pd_checkpoint_run *run,
                             pd_error *err) {
    PD_TRY(check_numbers(params->parameters, run->step, err));
    char *path = checkpoint_path(params->output_dir, "checkpoint-%lld", run->step);
    char *temporary = checkpoint_path(params->output_dir, ".checkpoint-%lld.tmp", run->step);
    pd_status status = path && temporary ? PD_OK : pd_fail_memory(err, strlen(params->output_dir), "a path");
    if (status == PD_OK) {
        status = fill_folder(params, run, temporary, err);
        if (status == PD_OK) status = put_in_place(params->output_dir, run->step, temporary, path, err);
        if (status != PD_OK) remove_folder(temporary, NULL);
    }
    free(temporary);
    free(path);
    return status;
}
