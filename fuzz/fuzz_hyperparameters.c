// Whatever pair (made_pair.h) passes the checks of the loader must run; what ggml would abort on must be
// refused.
#include "made_pair.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    fill_numbers();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    maker m = {.data = data, .size = size};
    pd_session_params params;
    pd_session_params_default(&params, sizeof params);
    params.n_threads = 1;
    params.n_ctx = next(&m);
    params.attention = (pd_attention)(next(&m) % 3);
    params.cache_type = (pd_cache_type)(next(&m) % 3);
    params.aspect_ratio = (pd_aspect_ratio)(next(&m) % 4);
    params.temperature = next(&m) % 2 ? 1.0F : 0.0F;
    params.top_k = next(&m) % 4;
    params.top_p = next(&m) % 2 ? 1.0F : 0.5F;
    params.repeat_penalty = next(&m) % 2 ? 1.0F : 1e-30F;
    params.ignore_eos = true;
    const pd_compute_type compute = (pd_compute_type)(next(&m) % 5);
    int32_t n_embd, n_layers;
    memory_file text = make_text(&m, &n_embd, &n_layers);
    memory_file mmproj = make_mmproj(&m, n_embd);
    pd_policy policy;
    choose_policy(&m, n_layers, &policy);
    params.policy = &policy;
    run_pair(text.path, mmproj.path, compute, &params);
    fclose(mmproj.stream);
    fclose(text.stream);
    return 0;
}
