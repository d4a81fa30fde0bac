// GGUF files written: under a temporary name, renamed when they are whole.
#pragma once

#include "base/error.h"

#include <ggml.h>
#include <gguf.h>

// The bytes of a tensor to be written, ggml_nbytes() of them, valid until the next call.
typedef pd_status (*pd_tensor_source)(const struct ggml_tensor *tensor, const void **bytes, void *user,
                                      pd_error *err);

// Writes the metadata of `gguf` and all tensors of `tensors`, which it also describes to `gguf`.
pd_status pd_gguf_write(const char *path, struct gguf_context *gguf, struct ggml_context *tensors,
                        pd_tensor_source source, void *user, pd_error *err);
