// Files: mapped for reading, and written so that a half-written file never stands under its final name.
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdio.h>

// A read-only mapping of a whole regular file. `data` is NULL exactly when `size` is 0.
typedef struct {
    const uint8_t *data;
    size_t size; // bytes
} pd_mapped_file;

// Maps `path`. Fails with PD_ERR_IO when it cannot be opened or is not a regular file.
pd_status pd_mapped_file_open(const char *path, pd_mapped_file *file, pd_error *err);
void pd_mapped_file_close(pd_mapped_file *file);
// Gives back the memory that holds what was read so far; what is read again is fetched again.
void pd_mapped_file_forget(const pd_mapped_file *file);

// Writes to "<path>.XXXXXX.tmp" in the same directory; commit renames it to `path`, discard removes it. A
// device or a pipe is written to as it is.
typedef struct {
    FILE *stream;
    char *path;      // final name, links followed, owned
    char *temporary; // name while writing, owned; NULL: a device or a pipe
} pd_file_writer;

// PD_ERR_IO when it cannot be made, or is a folder.
pd_status pd_file_writer_open(const char *path, pd_file_writer *writer, pd_error *err);
// PD_ERR_IO, with the system's reason, when the bytes cannot be written (a full disk, for one).
pd_status pd_file_write(pd_file_writer *writer, const void *bytes, size_t size, pd_error *err);
// Flushes to the disk and renames. On failure the temporary file is removed. Either way the writer is closed.
pd_status pd_file_writer_commit(pd_file_writer *writer, pd_error *err);
// Removes the temporary file. A no-op on a writer that is closed or zeroed.
void pd_file_writer_discard(pd_file_writer *writer);
// Takes `size` bytes of the disk beforehand, so that a disk that is too full is found out at once. File
// systems and systems that cannot say pass.
pd_status pd_file_writer_reserve(pd_file_writer *writer, size_t size, pd_error *err);

// Whether both paths lead to one file or folder that is there.
bool pd_same_file(const char *a, const char *b);
// "folder/name", malloc'd; NULL when there is no memory.
char *pd_path_join(const char *folder, const char *name);
