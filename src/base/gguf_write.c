#include "base/gguf_write.h"

#include "base/file.h"

#include <stdlib.h>

static pd_status write_header(pd_file_writer *writer, const struct gguf_context *gguf, pd_error *err) {
    const size_t size = gguf_get_meta_size(gguf);
    void *bytes = malloc(size);
    if (!bytes) return pd_fail_memory(err, size, "a GGUF header");
    gguf_get_meta_data(gguf, bytes);
    const pd_status status = pd_file_write(writer, bytes, size, err);
    free(bytes);
    return status;
}

static pd_status write_all(pd_file_writer *writer, const struct gguf_context *gguf,
                           struct ggml_context *tensors, pd_tensor_source source, void *user, pd_error *err) {
    const size_t alignment = GGUF_DEFAULT_ALIGNMENT;
    static const uint8_t zeros[GGUF_DEFAULT_ALIGNMENT] = {0};
    size_t total = gguf_get_meta_size(gguf);
    for (struct ggml_tensor *t = ggml_get_first_tensor(tensors); t; t = ggml_get_next_tensor(tensors, t))
        total += GGML_PAD(ggml_nbytes(t), alignment);
    PD_TRY(pd_file_writer_reserve(writer, total, err));
    PD_TRY(write_header(writer, gguf, err));
    for (struct ggml_tensor *t = ggml_get_first_tensor(tensors); t; t = ggml_get_next_tensor(tensors, t)) {
        const void *bytes = NULL;
        const size_t size = ggml_nbytes(t);
        PD_TRY(source(t, &bytes, user, err));
        PD_TRY(pd_file_write(writer, bytes, size, err));
        PD_TRY(pd_file_write(writer, zeros, GGML_PAD(size, alignment) - size, err));
    }
    return PD_OK;
}

pd_status pd_gguf_write(const char *path, struct gguf_context *gguf, struct ggml_context *tensors,
                        pd_tensor_source source, void *user, pd_error *err) {
    gguf_remove_key(gguf,
                    GGUF_KEY_GENERAL_ALIGNMENT); // another file's; tensors are laid out with the default
    for (struct ggml_tensor *t = ggml_get_first_tensor(tensors); t; t = ggml_get_next_tensor(tensors, t))
        gguf_add_tensor(gguf, t);
    pd_file_writer writer;
    PD_TRY(pd_file_writer_open(path, &writer, err));
    const pd_status status = write_all(&writer, gguf, tensors, source, user, err);
    if (status != PD_OK) {
        pd_file_writer_discard(&writer);
        return status;
    }
    return pd_file_writer_commit(&writer, err);
}
