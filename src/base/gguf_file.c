#include "base/gguf_file.h"

#include "base/ggml_log.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ggml multiplies the sides without a look at overflow. No file has a tensor of 2^48 elements.
static pd_status check_elements(const pd_gguf *gguf, int64_t index, pd_error *err) {
    const int64_t *ne = gguf_get_tensor_ne(gguf->gguf, index);
    int64_t elements = 1;
    for (int i = 0; i < GGML_MAX_DIMS; i++) {
        if (ne[i] < 1 || __builtin_mul_overflow(elements, ne[i], &elements) || elements > INT64_C(1) << 48) {
            return pd_fail(err, PD_ERR_FORMAT,
                           "%s: tensor %s: expected 1 to 2^48 elements, found shape [%lld, %lld, %lld, %lld]",
                           gguf->path, gguf_get_tensor_name(gguf->gguf, index), (long long)ne[0],
                           (long long)ne[1], (long long)ne[2], (long long)ne[3]);
        }
    }
    return PD_OK;
}

static pd_status check_extents(const pd_gguf *gguf, pd_error *err) {
    const size_t data_offset = gguf_get_data_offset(gguf->gguf);
    const int64_t n_tensors = gguf_get_n_tensors(gguf->gguf);
    for (int64_t i = 0; i < n_tensors; i++) {
        PD_TRY(check_elements(gguf, i, err));
        const size_t offset = gguf_get_tensor_offset(gguf->gguf, i);
        const size_t size = gguf_get_tensor_size(gguf->gguf, i);
        size_t end;
        if (__builtin_add_overflow(data_offset, offset, &end) || __builtin_add_overflow(end, size, &end) ||
            end > gguf->file.size) {
            return pd_fail(
                err, PD_ERR_FORMAT,
                "%s: tensor %s points outside the file (expected %zu bytes at offset %zu; the file has "
                "%zu bytes): is the file truncated?",
                gguf->path, gguf_get_tensor_name(gguf->gguf, i), size, data_offset + offset, gguf->file.size);
        }
        // Quantised blocks hold 16-bit scales and f32 tensors are read as floats, in place.
        if ((data_offset + offset) % sizeof(float) != 0) {
            return pd_fail(err, PD_ERR_FORMAT,
                           "%s: tensor %s: expected an offset that is a multiple of 4, found %zu", gguf->path,
                           gguf_get_tensor_name(gguf->gguf, i), data_offset + offset);
        }
    }
    return PD_OK;
}

pd_status pd_gguf_open(const char *path, pd_gguf *gguf, pd_error *err) {
    *gguf = (pd_gguf){0};
    pd_status status = pd_mapped_file_open(path, &gguf->file, err);
    if (status != PD_OK) return status;
    gguf->path = strdup(path);
    if (!gguf->path) {
        pd_gguf_close(gguf);
        return pd_fail_memory(err, strlen(path) + 1, "a file name");
    }
    if (gguf->file.size < 4 || memcmp(gguf->file.data, "GGUF", 4) != 0) {
        status = pd_fail(err, PD_ERR_FORMAT, "%s: not a GGUF file (expected it to begin with \"GGUF\"%s)",
                         path, gguf->file.size == 0 ? "; it is empty" : "");
        pd_gguf_close(gguf);
        return status;
    }
    char reason[PD_CAUGHT_LINE];
    pd_ggml_log_catch(reason);
    gguf->gguf = gguf_init_from_buffer(gguf->file.data, gguf->file.size,
                                       (struct gguf_init_params){.no_alloc = true, .ctx = &gguf->tensors});
    pd_ggml_log_release();
    if (!gguf->gguf) {
        gguf->tensors = NULL;
        status = pd_fail(err, PD_ERR_FORMAT, "%s: damaged or truncated GGUF header: %s", path,
                         reason[0] ? reason : "ggml cannot read it");
        pd_gguf_close(gguf);
        return status;
    }
    status = check_extents(gguf, err);
    if (status != PD_OK) pd_gguf_close(gguf);
    return status;
}

void pd_gguf_close(pd_gguf *gguf) {
    if (gguf->gguf) gguf_free(gguf->gguf);
    if (gguf->tensors) ggml_free(gguf->tensors);
    pd_mapped_file_close(&gguf->file);
    free(gguf->path);
    *gguf = (pd_gguf){0};
}

// The key's id, or -1 when it is absent; *status says whether that is an error.
static int64_t find_key(const pd_gguf *gguf, const char *key, bool required, pd_status *status,
                        pd_error *err) {
    const int64_t id = gguf_find_key(gguf->gguf, key);
    *status = PD_OK;
    if (id < 0 && required)
        *status = pd_fail(err, PD_ERR_FORMAT, "%s: metadata key %s is missing", gguf->path, key);
    return id;
}

static pd_status wrong_type(const pd_gguf *gguf, const char *key, int64_t id, const char *expected,
                            pd_error *err) {
    return pd_fail(err, PD_ERR_FORMAT, "%s: metadata key %s: expected %s, found %s%s", gguf->path, key,
                   expected, gguf_get_kv_type(gguf->gguf, id) == GGUF_TYPE_ARRAY ? "an array of " : "",
                   gguf_type_name(gguf_get_kv_type(gguf->gguf, id) == GGUF_TYPE_ARRAY
                                      ? gguf_get_arr_type(gguf->gguf, id)
                                      : gguf_get_kv_type(gguf->gguf, id)));
}

pd_status pd_gguf_get_u32(const pd_gguf *gguf, const char *key, bool required, uint32_t *value,
                          pd_error *err) {
    pd_status status;
    const int64_t id = find_key(gguf, key, required, &status, err);
    if (id < 0) return status;
    int64_t number;
    switch (gguf_get_kv_type(gguf->gguf, id)) {
    case GGUF_TYPE_UINT8:
        number = gguf_get_val_u8(gguf->gguf, id);
        break;
    case GGUF_TYPE_INT8:
        // NOLINTNEXTLINE(bugprone-signed-char-misuse,cert-str34-c): a number, not a character
        number = gguf_get_val_i8(gguf->gguf, id);
        break;
    case GGUF_TYPE_UINT16:
        number = gguf_get_val_u16(gguf->gguf, id);
        break;
    case GGUF_TYPE_INT16:
        number = gguf_get_val_i16(gguf->gguf, id);
        break;
    case GGUF_TYPE_UINT32:
        number = gguf_get_val_u32(gguf->gguf, id);
        break;
    case GGUF_TYPE_INT32:
        number = gguf_get_val_i32(gguf->gguf, id);
        break;
    case GGUF_TYPE_INT64:
        number = gguf_get_val_i64(gguf->gguf, id);
        break;
    case GGUF_TYPE_UINT64: {
        const uint64_t wide = gguf_get_val_u64(gguf->gguf, id);
        if (wide > INT64_MAX) return wrong_type(gguf, key, id, "an integer in 0..4294967295", err);
        number = (int64_t)wide;
        break;
    }
    default:
        return wrong_type(gguf, key, id, "an integer", err);
    }
    if (number < 0 || number > UINT32_MAX) {
        return pd_fail(err, PD_ERR_FORMAT,
                       "%s: metadata key %s: expected an integer in 0..%u, found %" PRId64, gguf->path, key,
                       UINT32_MAX, number);
    }
    *value = (uint32_t)number;
    return PD_OK;
}

pd_status pd_gguf_get_f32(const pd_gguf *gguf, const char *key, bool required, float *value, pd_error *err) {
    pd_status status;
    const int64_t id = find_key(gguf, key, required, &status, err);
    if (id < 0) return status;
    double number;
    switch (gguf_get_kv_type(gguf->gguf, id)) {
    case GGUF_TYPE_FLOAT32:
        number = (double)gguf_get_val_f32(gguf->gguf, id);
        break;
    case GGUF_TYPE_FLOAT64:
        number = gguf_get_val_f64(gguf->gguf, id);
        break;
    default:
        return wrong_type(gguf, key, id, "a float", err);
    }
    if (!(fabs(number) <= (double)FLT_MAX)) { // NaN too
        return pd_fail(err, PD_ERR_FORMAT, "%s: metadata key %s: expected a finite 32-bit float", gguf->path,
                       key);
    }
    *value = (float)number;
    return PD_OK;
}

pd_status pd_gguf_get_bool(const pd_gguf *gguf, const char *key, bool required, bool *value, pd_error *err) {
    pd_status status;
    const int64_t id = find_key(gguf, key, required, &status, err);
    if (id < 0) return status;
    if (gguf_get_kv_type(gguf->gguf, id) != GGUF_TYPE_BOOL) return wrong_type(gguf, key, id, "a bool", err);
    *value = gguf_get_val_bool(gguf->gguf, id);
    return PD_OK;
}

pd_status pd_gguf_get_string(const pd_gguf *gguf, const char *key, bool required, const char **value,
                             pd_error *err) {
    pd_status status;
    const int64_t id = find_key(gguf, key, required, &status, err);
    if (id < 0) return status;
    if (gguf_get_kv_type(gguf->gguf, id) != GGUF_TYPE_STRING)
        return wrong_type(gguf, key, id, "a string", err);
    *value = gguf_get_val_str(gguf->gguf, id);
    return PD_OK;
}

pd_status pd_gguf_get_array(const pd_gguf *gguf, const char *key, bool required, enum gguf_type type,
                            const void **values, size_t *count, pd_error *err) {
    *values = NULL;
    *count = 0;
    pd_status status;
    const int64_t id = find_key(gguf, key, required, &status, err);
    if (id < 0) return status;
    if (gguf_get_kv_type(gguf->gguf, id) != GGUF_TYPE_ARRAY || gguf_get_arr_type(gguf->gguf, id) != type) {
        char expected[64];
        snprintf(expected, sizeof expected, "an array of %s", gguf_type_name(type));
        return wrong_type(gguf, key, id, expected, err);
    }
    *count = gguf_get_arr_n(gguf->gguf, id);
    *values = *count ? gguf_get_arr_data(gguf->gguf, id) : NULL;
    return PD_OK;
}

pd_status pd_gguf_get_strings(const pd_gguf *gguf, const char *key, bool required, int64_t *key_id,
                              size_t *count, pd_error *err) {
    *key_id = -1;
    *count = 0;
    pd_status status;
    const int64_t id = find_key(gguf, key, required, &status, err);
    if (id < 0) return status;
    if (gguf_get_kv_type(gguf->gguf, id) != GGUF_TYPE_ARRAY ||
        gguf_get_arr_type(gguf->gguf, id) != GGUF_TYPE_STRING) {
        return wrong_type(gguf, key, id, "an array of strings", err);
    }
    *key_id = id;
    *count = gguf_get_arr_n(gguf->gguf, id);
    return PD_OK;
}

const char *pd_gguf_string_at(const pd_gguf *gguf, int64_t key_id, size_t index) {
    return gguf_get_arr_str(gguf->gguf, key_id, index);
}

const void *pd_gguf_tensor_data(const pd_gguf *gguf, const char *name) {
    const int64_t id = gguf_find_tensor(gguf->gguf, name);
    if (id < 0) return NULL;
    return gguf->file.data + gguf_get_data_offset(gguf->gguf) + gguf_get_tensor_offset(gguf->gguf, id);
}
