#include "train/output_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static pd_status fail_path(pd_error *err, const char *path, const char *what) {
    const int reason = errno;
    return pd_fail(err, PD_ERR_IO, "%s: %s: %s", path, what, strerror(reason));
}

// As mkdir -p; a folder that is there is fine. *path is changed on the way.
static bool make_folders(char *path) {
    for (char *at = path + 1; *at; at++) {
        if (*at != '/') continue;
        *at = '\0';
        const bool made = mkdir(path, 0777) == 0 || errno == EEXIST;
        *at = '/';
        if (!made) return false;
    }
    struct stat info;
    if (mkdir(path, 0777) == 0) return true;
    if (errno != EEXIST || stat(path, &info) != 0) return false;
    errno = ENOTDIR;
    return S_ISDIR(info.st_mode);
}

pd_status pd_output_folder_make(const char *path, pd_error *err) {
    char *copy = strdup(*path ? path : ".");
    if (!copy) return pd_fail_memory(err, strlen(path), "a path");
    const bool made = make_folders(copy);
    const int reason = errno;
    free(copy);
    errno = reason;
    return made ? PD_OK : fail_path(err, path, "cannot make the output folder");
}

pd_status pd_output_folder_open(const char *path, int *descriptor, pd_error *err) {
    *descriptor = -1;
    PD_TRY(pd_output_folder_make(path, err));
    const int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return fail_path(err, path, "cannot open the output folder");
    pd_status status = PD_OK;
    if (faccessat(folder, ".", W_OK | X_OK, AT_EACCESS) != 0) {
        status = fail_path(err, path, "cannot write into the output folder");
    } else if (flock(folder, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        // some network file systems have no locks: then nobody is kept out
        status = pd_fail(err, PD_ERR_IO, "%s: another training writes into this output folder", path);
    }
    if (status == PD_OK) {
        *descriptor = folder;
    } else {
        close(folder);
    }
    return status;
}
