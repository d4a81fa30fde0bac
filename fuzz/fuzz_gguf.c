// Any bytes as a GGUF pair: the first four are the length of the text model (little endian), which follows;
// the rest is the mmproj, or nothing. What loads is run.
#include "pair.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fill(memory_file *file, const uint8_t *data, size_t size) {
    CHECK(fwrite(data, 1, size, file->stream) == size && fflush(file->stream) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 4) return 0;
    size_t n_text = data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16 | (size_t)data[3] << 24;
    data += 4;
    size -= 4;
    if (n_text > size) n_text = size;
    memory_file text = memory_file_open("text"), mmproj = memory_file_open("mmproj");
    fill(&text, data, n_text);
    fill(&mmproj, data + n_text, size - n_text);
    pd_session_params params;
    pd_session_params_default(&params, sizeof params);
    params.n_threads = 1;
    params.n_ctx = 256;
    run_pair(text.path, n_text < size ? mmproj.path : NULL, PD_COMPUTE_AUTO, &params);
    fclose(mmproj.stream);
    fclose(text.stream);
    return 0;
}
