// Two sessions at once on one model whose products are lowered: weights are packed once, and answers are
// those of a session alone. Sessions have one thread each, so that ThreadSanitizer (make tsan) sees our
// threads and no OpenMP team, which it does not understand.
#include <pthread.h>
#include <pyramiddrop.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // wants the above

enum { N_SESSIONS = 2, N_ROUNDS = 3, MOST_VOCAB = 512, N_TOKENS = 120 };

typedef struct {
    pd_model *model;
    int32_t first_token; // prompts differ
    float logits[MOST_VOCAB];
    size_t n_vocab;
    uint64_t packed_bytes;
    bool failed;
} job;

static void *prefill(void *user) {
    job *j = user;
    pd_session_params params;
    pd_session_params_default(&params, sizeof params);
    params.n_threads = 1;
    int32_t tokens[N_TOKENS];
    for (int32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = (j->first_token + 7 * i) % 256 + 3;
    for (int round = 0; round < N_ROUNDS; round++) {
        pd_error err;
        pd_session *session;
        const float *logits;
        if (pd_session_create(j->model, &params, &session, &err) != PD_OK ||
            pd_session_prompt_tokens(session, tokens, N_TOKENS, NULL, 0, &err) != PD_OK ||
            pd_session_logits(session, &logits, &j->n_vocab, &err) != PD_OK) {
            fprintf(stderr, "%s\n", err.message);
            j->failed = true;
            return NULL;
        }
        memcpy(j->logits, logits, j->n_vocab * sizeof *logits);
        j->packed_bytes = pd_session_stats(session)->packed_bytes;
        pd_session_free(session);
    }
    return NULL;
}

static pd_model *load(pd_compute_type compute) {
    pd_error err;
    pd_model_params params;
    pd_model_params_default(&params, sizeof params);
    params.model_path = PD_TEST_DATA "/parity/mha.gguf";
    params.compute = compute;
    pd_model *model;
    if (pd_model_load(&params, &model, &err) != PD_OK) fprintf(stderr, "%s\n", err.message);
    return model;
}

static void check(pd_compute_type compute) {
    static job alone[N_SESSIONS], together[N_SESSIONS];
    pd_model *model = load(compute);
    assert_non_null(model);
    for (int32_t i = 0; i < N_SESSIONS; i++) {
        alone[i] = (job){.model = model, .first_token = 11 * i};
        prefill(&alone[i]);
        assert_false(alone[i].failed);
    }
    pd_model_free(model);

    model = load(compute); // nothing is packed yet
    assert_non_null(model);
    pthread_t threads[N_SESSIONS];
    for (int32_t i = 0; i < N_SESSIONS; i++) {
        together[i] = (job){.model = model, .first_token = 11 * i};
        assert_int_equal(pthread_create(&threads[i], NULL, prefill, &together[i]), 0);
    }
    for (int32_t i = 0; i < N_SESSIONS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int32_t i = 0; i < N_SESSIONS; i++) {
        assert_false(together[i].failed);
        assert_memory_equal(together[i].logits, alone[i].logits, alone[i].n_vocab * sizeof(float));
        assert_true(together[i].packed_bytes == alone[i].packed_bytes);
#ifdef PD_ONEDNN
        if (compute == PD_COMPUTE_INT8) assert_true(alone[i].packed_bytes > 0);
#endif
    }
    pd_model_free(model);
}

static void f32(void **state) {
    (void)state;
    check(PD_COMPUTE_F32);
}

static void int8(void **state) {
    (void)state;
    check(PD_COMPUTE_INT8);
}

static void automatic(void **state) {
    (void)state;
    check(PD_COMPUTE_AUTO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32),
        cmocka_unit_test(int8),
        cmocka_unit_test(automatic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
