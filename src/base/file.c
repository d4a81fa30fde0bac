#include "base/file.h"

#include "base/random.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

pd_status pd_mapped_file_open(const char *path, pd_mapped_file *file, pd_error *err) {
    *file = (pd_mapped_file){0};
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe without a writer does not wait
    if (descriptor < 0) return pd_fail(err, PD_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    struct stat info;
    if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(descriptor);
        return pd_fail(err, PD_ERR_IO, "%s: not a regular file", path);
    }
    void *data = NULL;
    if (info.st_size > 0) {
        data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, descriptor, 0);
        if (data == MAP_FAILED) {
            int reason = errno;
            close(descriptor);
            return pd_fail(err, PD_ERR_IO, "%s: cannot map: %s", path, strerror(reason));
        }
    }
    close(descriptor);
    file->data = data;
    file->size = (size_t)info.st_size;
    return PD_OK;
}

void pd_mapped_file_close(pd_mapped_file *file) {
    if (file->data) munmap((void *)(uintptr_t)file->data, file->size);
    *file = (pd_mapped_file){0};
}

static void writer_free(pd_file_writer *writer) {
    free(writer->path);
    free(writer->temporary);
    *writer = (pd_file_writer){0};
}

void pd_mapped_file_forget(const pd_mapped_file *file) {
    if (file->data) madvise((void *)(uintptr_t)file->data, file->size, MADV_DONTNEED);
}

// Not mkstemps, which makes the file private: the umask, which all threads share, can only be read by
// changing it.
static int create_temporary(char *name, const char *path) {
    const size_t size = strlen(path) + sizeof ".XXXXXX.tmp";
    uint64_t state = (uint64_t)getpid() ^ (uint64_t)(uintptr_t)name;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) == 0) state ^= (uint64_t)now.tv_nsec << 32;
    int descriptor = -1;
    for (int attempt = 0; attempt < 100 && descriptor < 0; attempt++) {
        snprintf(name, size, "%s.%06x.tmp", path, (unsigned)(pd_random_next(&state) & 0xffffff));
        descriptor = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor < 0 && errno != EEXIST) break;
    }
    return descriptor;
}

// What stands at `path` now: a file's mode is kept, and a link goes on pointing where it does. A device or a
// pipe is written to, not replaced: it has no temporary name.
static pd_status look_at_target(const char *path, pd_file_writer *writer, mode_t *mode, pd_error *err) {
    struct stat info;
    const bool there = stat(path, &info) == 0;
    if (there && S_ISDIR(info.st_mode)) return pd_fail(err, PD_ERR_IO, "%s: cannot create: a folder", path);
    *mode = there ? info.st_mode & 07777 : 0;
    writer->path = there ? realpath(path, NULL) : strdup(path);
    if (!writer->path) return pd_fail(err, PD_ERR_IO, "%s: cannot create: %s", path, strerror(errno));
    if (there && !S_ISREG(info.st_mode)) return PD_OK;
    const size_t size = strlen(writer->path) + sizeof ".XXXXXX.tmp";
    writer->temporary = malloc(size);
    return writer->temporary ? PD_OK : pd_fail_memory(err, size, "a file name");
}

pd_status pd_file_writer_open(const char *path, pd_file_writer *writer, pd_error *err) {
    *writer = (pd_file_writer){0};
    mode_t mode = 0;
    const pd_status status = look_at_target(path, writer, &mode, err);
    if (status != PD_OK) {
        writer_free(writer);
        return status;
    }
    const int descriptor = writer->temporary ? create_temporary(writer->temporary, writer->path)
                                             : open(writer->path, O_WRONLY | O_CLOEXEC);
    if (descriptor < 0) {
        int reason = errno;
        writer_free(writer);
        return pd_fail(err, PD_ERR_IO, "%s: cannot create: %s", path, strerror(reason));
    }
    if (mode != 0 && writer->temporary) (void)!fchmod(descriptor, mode); // another's file keeps the usual one
    writer->stream = fdopen(descriptor, "wb");
    if (!writer->stream) {
        close(descriptor);
        pd_file_writer_discard(writer);
        return pd_fail_memory(err, BUFSIZ, "a file buffer");
    }
    return PD_OK;
}

pd_status pd_file_write(pd_file_writer *writer, const void *bytes, size_t size, pd_error *err) {
    if (size != 0 && fwrite(bytes, 1, size, writer->stream) != size) {
        return pd_fail(err, PD_ERR_IO, "%s: cannot write: %s", writer->path, strerror(errno));
    }
    return PD_OK;
}

pd_status pd_file_writer_commit(pd_file_writer *writer, pd_error *err) {
    const int descriptor = fileno(writer->stream);
    int failed = fflush(writer->stream) != 0;
    if (writer->temporary && !failed) { // what was reserved and not written is given back
        failed = ftruncate(descriptor, ftello(writer->stream)) != 0 || fsync(descriptor) != 0;
    }
    int reason = errno;
    if (fclose(writer->stream) != 0 && !failed) {
        failed = 1;
        reason = errno;
    }
    writer->stream = NULL;
    if (!failed && writer->temporary && rename(writer->temporary, writer->path) != 0) {
        failed = 1;
        reason = errno;
    }
    pd_status status = PD_OK;
    if (failed) {
        status = pd_fail(err, PD_ERR_IO, "%s: cannot write: %s", writer->path, strerror(reason));
        if (writer->temporary) unlink(writer->temporary);
    }
    writer_free(writer);
    return status;
}

void pd_file_writer_discard(pd_file_writer *writer) {
    if (writer->stream) fclose(writer->stream);
    if (writer->temporary) unlink(writer->temporary);
    writer_free(writer);
}

pd_status pd_file_writer_reserve(pd_file_writer *writer, size_t size, pd_error *err) {
    if (size > INT64_MAX) return pd_fail(err, PD_ERR_IO, "%s: %zu bytes are too many", writer->path, size);
#ifdef __linux__
    // Not posix_fallocate, which writes where the file system cannot reserve.
    if (writer->temporary && fallocate(fileno(writer->stream), 0, 0, (off_t)size) != 0 &&
        (errno == ENOSPC || errno == EFBIG || errno == EDQUOT)) {
        return pd_fail(err, PD_ERR_IO, "%s: cannot write %zu bytes: %s", writer->path, size, strerror(errno));
    }
#endif
    return PD_OK;
}

bool pd_same_file(const char *a, const char *b) {
    struct stat first, second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

char *pd_path_join(const char *folder, const char *name) {
    const size_t size = strlen(folder) + strlen(name) + 2;
    char *path = malloc(size);
    if (path) snprintf(path, size, "%s/%s", folder, name);
    return path;
}
