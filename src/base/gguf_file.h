// A GGUF file: mapped, its header parsed by ggml, every tensor's extent checked, metadata read by type.
// Layout of the format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include "base/file.h"

#include <ggml.h>
#include <gguf.h>

typedef struct pd_gguf {
    char *path;
    pd_mapped_file file;
    struct gguf_context *gguf;
    struct ggml_context *tensors; // names, shapes and types; no data attached
} pd_gguf;

// Opens and checks: magic, version, lengths, and that every tensor lies inside the file.
pd_status pd_gguf_open(const char *path, pd_gguf *gguf, pd_error *err);
void pd_gguf_close(pd_gguf *gguf);

// Metadata. `required` keys fail with PD_ERR_FORMAT when absent; optional ones leave *value as it was.
// A key of another type always fails, and the message names file, key, expected and found type.
// Integers accept any GGUF integer type that holds the value; floats accept f32 and f64.
pd_status pd_gguf_get_u32(const pd_gguf *gguf, const char *key, bool required, uint32_t *value,
                          pd_error *err);
pd_status pd_gguf_get_f32(const pd_gguf *gguf, const char *key, bool required, float *value, pd_error *err);
pd_status pd_gguf_get_bool(const pd_gguf *gguf, const char *key, bool required, bool *value, pd_error *err);
// *value points into the file's metadata and lives as long as it.
pd_status pd_gguf_get_string(const pd_gguf *gguf, const char *key, bool required, const char **value,
                             pd_error *err);
// An array of `type`. *values points into the metadata (NULL when absent), *count is its length.
pd_status pd_gguf_get_array(const pd_gguf *gguf, const char *key, bool required, enum gguf_type type,
                            const void **values, size_t *count, pd_error *err);
// An array of strings: *key_id is what pd_gguf_string_at wants (-1 when absent).
pd_status pd_gguf_get_strings(const pd_gguf *gguf, const char *key, bool required, int64_t *key_id,
                              size_t *count, pd_error *err);
const char *pd_gguf_string_at(const pd_gguf *gguf, int64_t key_id, size_t index);

// The mapped bytes of tensor `name`, of ggml_nbytes() bytes; NULL when there is no such tensor.
const void *pd_gguf_tensor_data(const pd_gguf *gguf, const char *name);
