#include "train/scratch.h"

#include "base/file.h"
#include "base/gguf_file.h"
#include "model/synth.h"
#include "train/output_folder.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

pd_status pd_scratch_find(const char *output_dir, uint64_t seed, bool *found, pd_error *err) {
    static const char *const names[] = {"scratch.gguf", "scratch-mmproj.gguf"};
    pd_status status = PD_OK;
    *found = true;
    for (size_t i = 0; i < 2 && status == PD_OK && *found; i++) {
        char *path = pd_path_join(output_dir, names[i]);
        if (!path) return pd_fail_memory(err, strlen(output_dir), "a path");
        *found = access(path, R_OK) == 0;
        if (*found) status = expect_seed(path, seed, err);
        free(path);
    }
    return status;
}

static pd_status write_pair(const char *geometry_path, const char *output_dir, uint64_t seed,
                            const char *model, const char *mmproj, pd_error *err) {
    int folder; // another training may be going on from the pair that is there
    PD_TRY(pd_output_folder_open(output_dir, &folder, err));
    pd_geometry_file file;
    pd_status status = pd_geometry_read(geometry_path, &file, err);
    if (status == PD_OK) {
        const pd_synth_params params = pd_synth_from_scratch(&file, seed);
        status = pd_synth_model(&params, model, err);
        if (status == PD_OK) status = pd_synth_mmproj(&params, mmproj, err);
        pd_geometry_file_close(&file);
    }
    close(folder);
    return status;
}

pd_status pd_scratch_pair(const char *geometry_path, const char *output_dir, uint64_t seed, bool write,
                          char **model, char **mmproj, pd_error *err) {
    *model = pd_path_join(output_dir, "scratch.gguf");
    *mmproj = pd_path_join(output_dir, "scratch-mmproj.gguf");
    pd_status status = *model && *mmproj ? PD_OK : pd_fail_memory(err, strlen(output_dir), "a path");
    if (status == PD_OK && write) status = write_pair(geometry_path, output_dir, seed, *model, *mmproj, err);
    if (status != PD_OK) {
        free(*model);
        free(*mmproj);
        *model = *mmproj = NULL;
    }
    return status;
}
