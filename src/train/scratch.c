#include "train/scratch.h"

#include "base/file.h"
#include "base/gguf_file.h"
#include "model/synth.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MODEL, MMPROJ, FILES };

static const char *const kept_names[FILES] = {"scratch.gguf", "scratch-mmproj.gguf"};
static const char *const new_names[FILES] = {"scratch.gguf.new.tmp", "scratch-mmproj.gguf.new.tmp"};

static void free_paths(char *paths[FILES]) {
    free(paths[MODEL]);
    free(paths[MMPROJ]);
    paths[MODEL] = paths[MMPROJ] = NULL;
}

// Both malloc'd.
static pd_status join_paths(const char *output_dir, const char *const names[FILES], char *paths[FILES],
                            pd_error *err) {
    for (int i = 0; i < FILES; i++)
        paths[i] = pd_path_join(output_dir, names[i]);
    if (paths[MODEL] && paths[MMPROJ]) return PD_OK;
    free_paths(paths);
    return pd_fail_memory(err, strlen(output_dir), "a path");
}

static bool are_there(char *const paths[FILES]) {
    return access(paths[MODEL], R_OK) == 0 && access(paths[MMPROJ], R_OK) == 0;
}

static pd_status expect_seed(const char *path, uint64_t seed, pd_error *err) {
    char expected[24];
    const char *found = NULL;
    pd_gguf gguf;
    snprintf(expected, sizeof expected, "%" PRIu64, seed);
    PD_TRY(pd_gguf_open(path, &gguf, err));
    pd_status status = pd_gguf_get_string(&gguf, PD_INITIAL_SEED_KEY, false, &found, err);
    if (status == PD_OK && found && strcmp(found, expected) != 0)
        status =
            pd_fail(err, PD_ERR_ARGUMENT,
                    "%s: expected weights of seed %s, found %s: another run's (without the file they are "
                    "made anew)",
                    path, expected, found);
    pd_gguf_close(&gguf);
    return status;
}

static pd_status expect_geometry(const pd_synth_params *params, const char *geometry_path,
                                 char *const paths[FILES], pd_error *err) {
    for (int i = 0; i < FILES; i++) {
        bool same = false;
        PD_TRY(expect_seed(paths[i], params->seed, err));
        PD_TRY(pd_synth_would_be(params, i == MMPROJ, paths[i], &same, err));
        if (!same)
            return pd_fail(err, PD_ERR_ARGUMENT,
                           "%s: expected a file of the geometry and vocabulary of %s, found another: another "
                           "run's (without the file it is made anew)",
                           paths[i], geometry_path);
    }
    return PD_OK;
}

static pd_status write_pair(const pd_synth_params *params, const char *output_dir, pd_error *err) {
    char *paths[FILES];
    PD_TRY(join_paths(output_dir, new_names, paths, err));
    pd_status status = pd_synth_model(params, paths[MODEL], err);
    if (status == PD_OK) status = pd_synth_mmproj(params, paths[MMPROJ], err);
    free_paths(paths);
    if (status != PD_OK) pd_scratch_discard(output_dir);
    return status;
}

pd_status pd_scratch_prepare(const char *geometry_path, const char *output_dir, uint64_t seed, bool resumes,
                             pd_error *err) {
    pd_geometry_file file;
    char *kept[FILES];
    PD_TRY(join_paths(output_dir, kept_names, kept, err));
    pd_status status = pd_geometry_read(geometry_path, &file, err);
    if (status == PD_OK) {
        const pd_synth_params params = pd_synth_from_scratch(&file, seed);
        status = resumes && are_there(kept) ? expect_geometry(&params, geometry_path, kept, err)
                                            : write_pair(&params, output_dir, err);
        pd_geometry_file_close(&file);
    }
    free_paths(kept);
    return status;
}

pd_status pd_scratch_paths(const char *output_dir, char **model, char **mmproj, pd_error *err) {
    char *paths[FILES];
    PD_TRY(join_paths(output_dir, new_names, paths, err));
    if (!are_there(paths)) {
        free_paths(paths);
        PD_TRY(join_paths(output_dir, kept_names, paths, err));
    }
    *model = paths[MODEL];
    *mmproj = paths[MMPROJ];
    return PD_OK;
}

static pd_status rename_one(const char *from, const char *to, pd_error *err) {
    if (rename(from, to) == 0 || errno == ENOENT) return PD_OK;
    return pd_fail(err, PD_ERR_IO, "%s: cannot rename %s to it: %s", to, from, strerror(errno));
}

pd_status pd_scratch_keep(const char *output_dir, pd_error *err) {
    char *from[FILES], *to[FILES];
    PD_TRY(join_paths(output_dir, new_names, from, err));
    pd_status status = join_paths(output_dir, kept_names, to, err);
    if (status == PD_OK) {
        for (int i = 0; i < FILES && status == PD_OK; i++)
            status = rename_one(from[i], to[i], err);
        free_paths(to);
    }
    free_paths(from);
    return status;
}

void pd_scratch_discard(const char *output_dir) {
    char *paths[FILES];
    if (join_paths(output_dir, new_names, paths, NULL) != PD_OK) return;
    for (int i = 0; i < FILES; i++)
        unlink(paths[i]);
    free_paths(paths);
}
