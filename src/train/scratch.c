#include "train/scratch.h"

#include "base/file.h"
#include "model/synth.h"
#include "train/output_folder.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
