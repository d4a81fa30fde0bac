// The session: sampling, prompts one after the other and side by side, stopping, cancelling, counting, and
// every argument it refuses. What it computes is test_parity.c's matter.
#include "base/random.h"
#include "drop/flops.h"
#include "engine/session.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <pyramiddrop.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h> // wants the above

#include "checks.h" // wants cmocka

// ---- what every graph passes through ----------------------------------------------------------------------

// This program's own ggml_backend_sched_graph_compute stands before ggml's: it sees every graph that the
// library computes.
static struct {
    double flops; // of the graphs since it was zeroed: matrix products, 2 a multiply-accumulate
    void (*before)(void *user);
    void *user;
} watch;

static double count_flops(struct ggml_cgraph *graph) {
    double flops = 0.0;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const struct ggml_tensor *node = ggml_graph_node(graph, i);
        if (node->op == GGML_OP_MUL_MAT) {
            flops += 2.0 * (double)ggml_nelements(node) * (double)node->src[0]->ne[0];
        } else if (node->op == GGML_OP_FLASH_ATTN_EXT) { // scores, and their sum of values
            flops += 2.0 * 2.0 * (double)ggml_nelements(node->src[0]) * (double)node->src[1]->ne[1];
        }
    }
    return flops;
}

enum ggml_status ggml_backend_sched_graph_compute(ggml_backend_sched_t scheduler, struct ggml_cgraph *graph) {
    typedef enum ggml_status (*compute)(ggml_backend_sched_t, struct ggml_cgraph *);
    compute real;
    *(void **)&real = dlsym(RTLD_NEXT, "ggml_backend_sched_graph_compute");
    if (watch.before) {
        watch.flops += count_flops(graph);
        watch.before(watch.user);
    }
    return real(scheduler, graph);
}

static void do_nothing(void *unused) {
    (void)unused;
}

// ---- models, pictures, sessions ---------------------------------------------------------------------------

static pd_model *mha, *gqa, *text_only;
static pd_image *wide, *tall;
enum { N_LAYERS = 6, N_VOCAB = 320, MHA_TOKENS = 16, GQA_TOKENS = 36 }; // and a picture's tokens

static pd_model *load_model(const char *name, bool vision) {
    char model_path[512], mmproj_path[512];
    pd_error err;
    snprintf(model_path, sizeof model_path, "%s/parity/%s.gguf", PD_TEST_DATA, name);
    snprintf(mmproj_path, sizeof mmproj_path, "%s/parity/%s-mmproj.gguf", PD_TEST_DATA, name);
    pd_model_params params;
    pd_model_params_default(&params, sizeof params);
    params.model_path = model_path;
    params.mmproj_path = vision ? mmproj_path : NULL;
    params.compute = PD_COMPUTE_GGML; // FLOPs are counted in ggml's own nodes
    pd_model *model;
    if (pd_model_load(&params, &model, &err) != PD_OK) print_error("%s\n", err.message);
    return model;
}

static pd_image *load_image(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/parity/%s", PD_TEST_DATA, name);
    pd_image *image;
    pd_image_load(path, &image, NULL);
    return image;
}

static int set_up(void **state) {
    (void)state;
    mha = load_model("mha", true);
    gqa = load_model("gqa", true);
    text_only = load_model("mha", false);
    wide = load_image("wide.png");
    tall = load_image("tall.png");
    return mha && gqa && text_only && wide && tall ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    pd_image_free(wide);
    pd_image_free(tall);
    pd_model_free(mha);
    pd_model_free(gqa);
    pd_model_free(text_only);
    return 0;
}

static pd_policy policy_of(const char *text) {
    pd_policy policy;
    pd_error err;
    if (pd_policy_parse(&policy, text, N_LAYERS, &err) != PD_OK) fail_msg("%s", err.message);
    return policy;
}

// The parameters the tests start from. The policy outlives the call only until the next.
static pd_session_params params_of(const char *policy) {
    static _Thread_local pd_policy parsed;
    parsed = policy_of(policy);
    pd_session_params params;
    pd_session_params_default(&params, sizeof params);
    params.policy = &parsed;
    params.cache_type = PD_CACHE_F32;
    params.n_threads = 1;
    params.ignore_eos = true;
    return params;
}

static pd_session *create(pd_model *model, const pd_session_params *params) {
    pd_session *session;
    pd_error err;
    if (pd_session_create(model, params, &session, &err) != PD_OK) fail_msg("%s", err.message);
    return session;
}

static pd_session *session_of(pd_model *model, const char *policy) {
    const pd_session_params params = params_of(policy);
    return create(model, &params);
}

static const int32_t one_picture[] = {1, 20, 30, PD_IMAGE_TOKEN, 40, 50, 60, 70};
static const int32_t two_pictures[] = {1, PD_IMAGE_TOKEN, 40, 50, PD_IMAGE_TOKEN, 60, 70};
static const int32_t picture_last[] = {1, 20, PD_IMAGE_TOKEN};
static const int32_t only_text[] = {1, 100, 110, 120, 130, 140};
enum { N_ONE = 8, N_TWO = 7, N_LAST = 3, N_TEXT = 6 };

static void prompt(pd_session *session, const int32_t *tokens, size_t n) {
    pd_image *const images[] = {wide, tall};
    size_t n_images = 0;
    for (size_t i = 0; i < n; i++)
        n_images += tokens[i] == PD_IMAGE_TOKEN;
    pd_error err;
    if (pd_session_prompt_tokens(session, tokens, n, images, n_images, &err) != PD_OK)
        fail_msg("%s", err.message);
}

static const float *logits_of(pd_session *session) {
    const float *logits;
    size_t count;
    assert_int_equal(pd_session_logits(session, &logits, &count, NULL), PD_OK);
    assert_int_equal(count, N_VOCAB);
    return logits;
}

// Fewer than n where the session is done before.
static size_t generate(pd_session *session, int32_t *tokens, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const pd_status status = pd_session_next_token(session, &tokens[i], NULL);
        if (status == PD_DONE) return i;
        assert_int_equal(status, PD_OK);
    }
    return n;
}

// ---- sampler ----------------------------------------------------------------------------------------------

static const pd_sampler_params plain = {.temperature = 1.0F, .top_p = 1.0F, .repeat_penalty = 1.0F};

static pd_sampler sampler_of(pd_sampler_params params, int32_t n_vocab) {
    pd_sampler sampler;
    assert_int_equal(pd_sampler_create(&params, n_vocab, &sampler, NULL), PD_OK);
    return sampler;
}

// How often each of the n tokens is drawn.
static void draw_many(pd_sampler_params params, const float *logits, int32_t n, int32_t draws,
                      int32_t *counts) {
    pd_sampler sampler = sampler_of(params, n);
    memset(counts, 0, (size_t)n * sizeof *counts);
    for (int32_t i = 0; i < draws; i++) {
        const int32_t token = pd_sampler_draw(&sampler, logits, NULL, 0);
        assert_in_range(token, 0, n - 1);
        counts[token]++;
    }
    pd_sampler_free(&sampler);
}

// Within five deviations of what the shares say; a share of 0 is never drawn.
static void assert_shares(const int32_t *counts, const double *shares, int32_t n, int32_t draws) {
    for (int32_t i = 0; i < n; i++) {
        const double expected = shares[i] * draws, deviation = sqrt(expected * (1.0 - shares[i]));
        assert_true(fabs(counts[i] - expected) <= 5.0 * deviation);
    }
}

enum { DRAWS = 40000 };

static void sampler_greedy(void **state) {
    (void)state;
    pd_sampler_params params = plain;
    params.temperature = 0.0F;
    params.top_k = 2;
    params.top_p = 0.1F;
    pd_sampler sampler = sampler_of(params, 5);
    const float ties[] = {-1.0F, 2.0F, 0.0F, 2.0F, 2.0F}, low[] = {-9.0F, -8.0F, -8.0F, -9.0F, -INFINITY};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pd_sampler_draw(&sampler, ties, NULL, 0), 1); // the lower id first
        assert_int_equal(pd_sampler_draw(&sampler, low, NULL, 0), 1);
    }
    pd_sampler_free(&sampler);
    pd_sampler_free(&sampler); // a second time does nothing
}

static void sampler_distribution(void **state) {
    (void)state;
    // logarithms of shares in disorder, moved by a constant, which must not matter
    const double shares[] = {0.15, 0.5, 0.05, 0.0, 0.3};
    float logits[5];
    int32_t counts[5];
    for (int i = 0; i < 5; i++)
        logits[i] = (float)(log(shares[i]) + 3.0);
    draw_many(plain, logits, 5, DRAWS, counts);
    assert_shares(counts, shares, 5, DRAWS);

    pd_sampler_params params = plain;
    params.top_k = 2;
    draw_many(params, logits, 5, DRAWS, counts);
    assert_shares(counts, (const double[]){0, 0.625, 0, 0, 0.375}, 5, DRAWS);
    params.top_k = 1;
    draw_many(params, logits, 5, 100, counts);
    assert_int_equal(counts[1], 100);
    params.top_k = 1000; // more than there are
    draw_many(params, logits, 5, DRAWS, counts);
    assert_shares(counts, shares, 5, DRAWS);

    params = plain;
    params.top_p = 0.49F; // the first reaches it alone
    draw_many(params, logits, 5, 100, counts);
    assert_int_equal(counts[1], 100);
    params.top_p = 0.51F; // the one that reaches it is among them
    draw_many(params, logits, 5, DRAWS, counts);
    assert_shares(counts, (const double[]){0, 0.625, 0, 0, 0.375}, 5, DRAWS);
    params.top_p = 0.94F;
    draw_many(params, logits, 5, DRAWS, counts);
    assert_shares(counts, (const double[]){0.15 / 0.95, 0.5 / 0.95, 0, 0, 0.3 / 0.95}, 5, DRAWS);
    // top_p cuts the distribution before the temperature flattens it, and after top_k
    params.top_p = 0.51F;
    params.temperature = 1e9F;
    draw_many(params, logits, 5, DRAWS, counts);
    assert_shares(counts, (const double[]){0, 0.5, 0, 0, 0.5}, 5, DRAWS);
    params.top_p = 0.6F;
    params.top_k = 2; // 0.625 alone
    draw_many(params, logits, 5, 100, counts);
    assert_int_equal(counts[1], 100);

    params = plain;
    params.temperature = 2.0F; // shares to the power of 1/2, normalised
    double flat[5], sum = 0.0;
    for (int i = 0; i < 5; i++)
        sum += flat[i] = sqrt(shares[i]);
    for (int i = 0; i < 5; i++)
        flat[i] /= sum;
    draw_many(params, logits, 5, DRAWS, counts);
    assert_shares(counts, flat, 5, DRAWS);
    params.temperature = 1e-30F; // as good as greedy
    draw_many(params, logits, 5, 100, counts);
    assert_int_equal(counts[1], 100);
    const float equal[] = {7.0F, 7.0F, 7.0F, 7.0F, 7.0F};
    draw_many(params, equal, 5, DRAWS, counts); // but of equals any
    assert_shares(counts, (const double[]){0.2, 0.2, 0.2, 0.2, 0.2}, 5, DRAWS);
}

// Which tokens top_k and top_p leave, by counting for each how many stand before it and what share they have.
static void survivors(const pd_sampler_params *params, const float *logits, int32_t n, bool *survives) {
    double all = 0.0;
    int32_t place[64];
    for (int32_t i = 0; i < n; i++) {
        place[i] = 0;
        for (int32_t j = 0; j < n; j++)
            place[i] += logits[j] > logits[i] || (logits[j] == logits[i] && j < i);
        survives[i] = params->top_k == 0 || place[i] < params->top_k;
        if (survives[i]) all += exp((double)logits[i]);
    }
    for (int32_t i = 0; i < n; i++) {
        double before = 0.0;
        for (int32_t j = 0; j < n; j++)
            before += place[j] < place[i] ? exp((double)logits[j]) : 0.0;
        survives[i] = survives[i] && (before < (double)params->top_p * all || params->top_p == 1.0F);
    }
}

static void sampler_cuts(void **state) {
    (void)state;
    uint64_t random = 4;
    for (int round = 0; round < 2000; round++) {
        float logits[64];
        bool survives[64];
        int32_t counts[64], n_survivors = 0;
        const int32_t n = 1 + (int32_t)(pd_random_next(&random) % 64);
        for (int32_t i = 0; i < n; i++) // many equal ones
            logits[i] = 0.5F * (float)(pd_random_next(&random) % 8);
        pd_sampler_params params = plain;
        params.seed = pd_random_next(&random);
        params.temperature = 1e9F; // what is left is drawn equally often
        if (round % 2) params.top_k = (int32_t)(pd_random_next(&random) % (uint64_t)(n + 2));
        if (round % 3) params.top_p = 1.0F - (float)pd_random_uniform(&random);
        survivors(&params, logits, n, survives);
        for (int32_t i = 0; i < n; i++)
            n_survivors += survives[i];
        assert_true(n_survivors > 0);
        draw_many(params, logits, n, 30 * n_survivors, counts);
        for (int32_t i = 0; i < n; i++)
            assert_int_equal(counts[i] > 0, survives[i]);
    }
}

static void sampler_seed(void **state) {
    (void)state;
    enum { N = 50 };
    float logits[100];
    uint64_t random = 3;
    for (int i = 0; i < 100; i++)
        logits[i] = (float)pd_random_uniform(&random);
    int32_t first[N], same[N], again[N], other[N];
    pd_sampler_params params = plain;
    params.seed = 7;
    pd_sampler a = sampler_of(params, 100), b = sampler_of(params, 100);
    params.seed = 8;
    pd_sampler c = sampler_of(params, 100);
    for (int i = 0; i < N; i++) {
        first[i] = pd_sampler_draw(&a, logits, NULL, 0);
        same[i] = pd_sampler_draw(&b, logits, NULL, 0);
        other[i] = pd_sampler_draw(&c, logits, NULL, 0);
    }
    pd_sampler_reset(&a);
    for (int i = 0; i < N; i++)
        again[i] = pd_sampler_draw(&a, logits, NULL, 0);
    assert_memory_equal(first, same, sizeof first);
    assert_memory_equal(first, again, sizeof first);
    assert_memory_not_equal(first, other, sizeof first);
    pd_sampler_free(&a);
    pd_sampler_free(&b);
    pd_sampler_free(&c);
}

static void sampler_repeat_penalty(void **state) {
    (void)state;
    pd_sampler_params params = plain;
    params.temperature = 0.0F;
    params.repeat_penalty = 2.0F;
    pd_sampler sampler = sampler_of(params, 4);
    const float logits[] = {4.0F, 3.0F, 1.5F, -1.0F};
    const int32_t recent[] = {0, 0, 0, 1, -1, PD_IMAGE_TOKEN, 4, 1000};
    assert_int_equal(pd_sampler_draw(&sampler, logits, NULL, 0), 0);
    assert_int_equal(pd_sampler_draw(&sampler, logits, recent, 1), 1); // 2 against 3
    assert_int_equal(pd_sampler_draw(&sampler, logits, recent, 3), 1); // counted once: 2, not 0.5
    assert_int_equal(pd_sampler_draw(&sampler, logits, recent, 8), 0); // 2 against 1.5 and 1.5
    const float negative[] = {-1.0F, -1.5F, -5.0F, -5.0F};
    assert_int_equal(pd_sampler_draw(&sampler, negative, NULL, 0), 0);
    assert_int_equal(pd_sampler_draw(&sampler, negative, recent, 1), 1); // -2 against -1.5
    pd_sampler_free(&sampler);
    params.repeat_penalty = 0.5F; // prefers what was
    sampler = sampler_of(params, 4);
    assert_int_equal(pd_sampler_draw(&sampler, logits, recent + 3, 1), 1);
    pd_sampler_free(&sampler);
}

static void sampler_arguments(void **state) {
    (void)state;
    pd_sampler sampler;
    pd_error err;
    const struct {
        pd_sampler_params params;
        const char *message;
    } wrong[] = {
        {{-0.1F, 0, 1, 1, 0}, "temperature: expected 0 or more, found -0.1"},
        {{NAN, 0, 1, 1, 0}, "temperature"},
        {{INFINITY, 0, 1, 1, 0}, "temperature"},
        {{1, -1, 1, 1, 0}, "top_k: expected 0 or more, found -1"},
        {{1, 0, 0, 1, 0}, "top_p: expected a number in (0, 1], found 0"},
        {{1, 0, 1.5F, 1, 0}, "found 1.5"},
        {{1, 0, NAN, 1, 0}, "top_p"},
        {{1, 0, 1, 0, 0}, "repeat_penalty: expected a positive number, found 0"},
        {{1, 0, 1, -1, 0}, "repeat_penalty"},
        {{1, 0, 1, NAN, 0}, "repeat_penalty"},
        {{1, 0, 1, INFINITY, 0}, "repeat_penalty"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_fails(pd_sampler_create(&wrong[i].params, 4, &sampler, &err), PD_ERR_ARGUMENT, &err,
                     wrong[i].message);
    }
}

// ---- one prompt after another -----------------------------------------------------------------------------

enum { N_ANSWER = 12 };

typedef struct {
    float prompt_logits[N_VOCAB];
    int32_t tokens[N_ANSWER];
    float final_logits[N_VOCAB];
} answer;

static answer answer_of(pd_session *session, const int32_t *tokens, size_t n) {
    answer a;
    prompt(session, tokens, n);
    memcpy(a.prompt_logits, logits_of(session), sizeof a.prompt_logits);
    assert_int_equal(generate(session, a.tokens, N_ANSWER), N_ANSWER);
    memcpy(a.final_logits, logits_of(session), sizeof a.final_logits);
    return a;
}

static void assert_same_answer(const answer *a, const answer *b) {
    assert_memory_equal(a->tokens, b->tokens, sizeof a->tokens);
    assert_memory_equal(a->prompt_logits, b->prompt_logits, sizeof a->prompt_logits);
    assert_memory_equal(a->final_logits, b->final_logits, sizeof a->final_logits);
}

static answer fresh_answer(pd_model *model, const char *policy, const int32_t *tokens, size_t n) {
    pd_session *session = session_of(model, policy);
    const answer a = answer_of(session, tokens, n);
    pd_session_free(session);
    return a;
}

static void prompts_start_afresh(void **state) {
    (void)state;
    static const char policy[] = "pdrop:2=.5,4=.25";
    const answer one = fresh_answer(gqa, policy, one_picture, N_ONE),
                 two = fresh_answer(gqa, policy, two_pictures, N_TWO),
                 text = fresh_answer(gqa, policy, only_text, N_TEXT);
    assert_memory_not_equal(one.prompt_logits, two.prompt_logits, sizeof one.prompt_logits);
    pd_session *session = session_of(gqa, policy);
    // larger and smaller ones, so that every buffer is made larger and used by a smaller prompt
    answer a = answer_of(session, only_text, N_TEXT);
    assert_same_answer(&a, &text);
    a = answer_of(session, one_picture, N_ONE);
    assert_same_answer(&a, &one);
    a = answer_of(session, two_pictures, N_TWO);
    assert_same_answer(&a, &two);
    a = answer_of(session, only_text, N_TEXT);
    assert_same_answer(&a, &text);
    a = answer_of(session, one_picture, N_ONE);
    assert_same_answer(&a, &one);
    a = answer_of(session, one_picture, N_ONE);
    assert_same_answer(&a, &one);
    pd_session_free(session);

    // drawing starts afresh, too
    pd_session_params params = params_of(policy);
    params.temperature = 2.0F;
    params.seed = 5;
    session = create(gqa, &params);
    a = answer_of(session, one_picture, N_ONE);
    const answer drawn_again = answer_of(session, one_picture, N_ONE);
    assert_same_answer(&a, &drawn_again);
    assert_memory_not_equal(a.tokens, one.tokens, sizeof a.tokens);
    pd_session_free(session);
}

static void pictures_are_encoded_once(void **state) {
    (void)state;
    pd_session *session = session_of(mha, "pdrop:2=.5,4=.25");
    const pd_stats *stats = pd_session_stats(session);
    const answer first = answer_of(session, one_picture, N_ONE);
    assert_true(stats->vit_ms > 0.0 && stats->image_ms > 0.0 && stats->projector_ms > 0.0);
    const answer second = answer_of(session, one_picture, N_ONE);
    assert_true(stats->vit_ms == 0.0 && stats->image_ms == 0.0 && stats->projector_ms == 0.0);
    assert_same_answer(&first, &second);

    // a copy of the picture counts as the same, another picture does not
    pd_image *copy;
    assert_int_equal(
        pd_image_from_rgb(pd_image_rgb(wide), pd_image_width(wide), pd_image_height(wide), &copy, NULL),
        PD_OK);
    assert_int_equal(pd_session_prompt_tokens(session, one_picture, N_ONE, &copy, 1, NULL), PD_OK);
    assert_true(stats->vit_ms == 0.0);
    assert_memory_equal(logits_of(session), first.prompt_logits, sizeof first.prompt_logits);
    pd_image_free(copy);
    assert_int_equal(pd_session_prompt_tokens(session, one_picture, N_ONE, &tall, 1, NULL), PD_OK);
    assert_true(stats->vit_ms > 0.0);
    assert_memory_not_equal(logits_of(session), first.prompt_logits, sizeof first.prompt_logits);

    // twice in one prompt: encoded once
    pd_image *const twice[] = {wide, wide};
    watch.before = do_nothing;
    watch.flops = 0.0;
    assert_int_equal(pd_session_prompt_tokens(session, two_pictures, N_TWO, twice, 2, NULL), PD_OK);
    const double once_flops = watch.flops;
    watch.flops = 0.0;
    assert_int_equal(pd_session_prompt_tokens(session, two_pictures, N_TWO, twice, 2, NULL), PD_OK);
    watch.before = NULL;
    const pd_vision_weights *vision = &mha->weights.vision;
    assert_true(once_flops - watch.flops ==
                pd_vision_tower_flops(&vision->h) + pd_projector_flops(&vision->h, vision->mm0->ne[1], 64));
    pd_session_free(session);
}

typedef struct {
    pd_model *model;
    const char *policy;
    const int32_t *tokens;
    size_t n_tokens;
    answer answers[3];
} job;

static void *work(void *user) {
    job *j = user;
    for (int i = 0; i < 3; i++)
        j->answers[i] = fresh_answer(j->model, j->policy, j->tokens, j->n_tokens);
    return NULL;
}

static void sessions_side_by_side(void **state) {
    (void)state;
    job jobs[] = {{.model = mha, .policy = "pdrop:2=.5,4=.25", .tokens = one_picture, .n_tokens = N_ONE},
                  {.model = mha, .policy = "none", .tokens = two_pictures, .n_tokens = N_TWO}};
    answer alone[2];
    for (int i = 0; i < 2; i++)
        alone[i] = fresh_answer(jobs[i].model, jobs[i].policy, jobs[i].tokens, jobs[i].n_tokens);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &jobs[i]), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 3; k++)
            assert_same_answer(&jobs[i].answers[k], &alone[i]);
    }
}

static void *load_models(void *failures) {
    for (int i = 0; i < 5; i++) {
        pd_model *model = load_model(i % 2 ? "mha" : "gqa", true);
        pd_model_params params;
        pd_model_params_default(&params, sizeof params);
        params.model_path = "/no/such/file.gguf";
        pd_model *none;
        *(int *)failures += model == NULL || pd_model_load(&params, &none, NULL) != PD_ERR_IO;
        pd_model_free(model);
    }
    return NULL;
}

static void models_side_by_side(void **state) {
    (void)state;
    pthread_t threads[2];
    int failures[2] = {0};
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, load_models, &failures[i]), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(failures[0] + failures[1], 0);
}

// ---- how long an answer is --------------------------------------------------------------------------------

static void answers_end(void **state) {
    (void)state;
    enum { ROWS = N_ONE - 1 + MHA_TOKENS };
    int32_t tokens[64], open[64];
    pd_session *session = session_of(mha, "pdrop:2=.5,4=.25");
    prompt(session, one_picture, N_ONE);
    assert_int_equal(generate(session, open, 64), 64);
    pd_session_free(session);

    static const int32_t lengths[] = {0, 1, 2, 40};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        pd_session_params params = params_of("pdrop:2=.5,4=.25");
        params.n_predict = lengths[i];
        session = create(mha, &params);
        for (int round = 0; round < 2; round++) {
            prompt(session, one_picture, N_ONE);
            assert_int_equal(generate(session, tokens, 64), lengths[i]);
            assert_memory_equal(tokens, open, (size_t)lengths[i] * sizeof *tokens);
            int32_t token = 7;
            assert_int_equal(pd_session_next_token(session, &token, NULL), PD_DONE);
            assert_int_equal(token, -1);
            assert_int_equal(pd_session_stats(session)->n_generated, lengths[i]);
            logits_of(session); // behind the last token, still
        }
        pd_session_free(session);
    }

    // a context of exactly the prompt and 3 more
    pd_session_params params = params_of("pdrop:2=.5,4=.25");
    params.n_ctx = ROWS + 3;
    session = create(mha, &params);
    prompt(session, one_picture, N_ONE);
    assert_int_equal(generate(session, tokens, 64), 3);
    assert_memory_equal(tokens, open, 3 * sizeof *tokens);
    logits_of(session);
    assert_int_equal(pd_session_next_token(session, tokens, NULL), PD_DONE);
    pd_session_free(session);
    params.n_ctx = ROWS + 1;
    session = create(mha, &params);
    prompt(session, one_picture, N_ONE);
    assert_int_equal(generate(session, tokens, 64), 1);
    pd_session_free(session);
    params.n_ctx = ROWS;
    session = create(mha, &params);
    pd_error err;
    assert_fails(pd_session_prompt_tokens(session, one_picture, N_ONE, &wide, 1, &err), PD_ERR_CONTEXT, &err,
                 "23 tokens, pictures included, leave no room for an answer in a context of 23");
    prompt(session, only_text, N_TEXT); // a shorter one fits
    pd_session_free(session);

    // the end token ends it, unless it is ignored
    params = params_of("none");
    params.ignore_eos = false;
    session = create(mha, &params);
    prompt(session, only_text, N_TEXT);
    ((float *)(uintptr_t)logits_of(session))[2] = 1e30F;
    assert_int_equal(pd_session_next_token(session, tokens, NULL), PD_DONE);
    assert_int_equal(pd_session_stats(session)->n_generated, 0);
    pd_session_free(session);
    session = session_of(mha, "none");
    prompt(session, only_text, N_TEXT);
    ((float *)(uintptr_t)logits_of(session))[2] = 1e30F;
    assert_int_equal(pd_session_next_token(session, tokens, NULL), PD_OK);
    assert_int_equal(tokens[0], 2);
    pd_session_free(session);
}

// A cache that grew while the answer did, against one that was large from the start; and against a prompt
// that is the whole of it.
static void long_answers(void **state) {
    (void)state;
    enum { N = 600 };
    static int32_t grown[N], reserved[N], whole[N_TEXT + N];
    static const char *const policies[] = {"pdrop:2=.5,4=.25", "pdrop:2=.5,4=.25;positions=original", "none"};
    for (size_t p = 0; p < sizeof policies / sizeof *policies; p++) {
        pd_session *session = session_of(mha, policies[p]);
        prompt(session, two_pictures, N_TWO);
        assert_int_equal(generate(session, grown, N), N);
        assert_true(pd_session_stats(session)->kv_bytes_reserved >= pd_session_stats(session)->kv_bytes);
        pd_session_free(session);
        session = session_of(mha, policies[p]);
        prompt(session, two_pictures, N_TWO);
        assert_int_equal(pd_kv_cache_grow(&mha->weights.decoder.h, N, &session->cache, NULL), PD_OK);
        assert_int_equal(generate(session, reserved, N), N);
        pd_session_free(session);
        assert_memory_equal(grown, reserved, sizeof grown);
    }

    pd_session *session = session_of(gqa, "none");
    memcpy(whole, only_text, sizeof only_text);
    prompt(session, only_text, N_TEXT);
    assert_int_equal(generate(session, whole + N_TEXT, N), N);
    float stepwise[N_VOCAB];
    memcpy(stepwise, logits_of(session), sizeof stepwise);
    pd_session_free(session);
    session = session_of(gqa, "none");
    prompt(session, whole, N_TEXT + N);
    const float *at_once = logits_of(session);
    for (int i = 0; i < N_VOCAB; i++)
        assert_true(fabsf(stepwise[i] - at_once[i]) < 1e-3F);
    pd_session_free(session);
}

// ---- text -------------------------------------------------------------------------------------------------

enum { BYTE_0 = 3 }; // the token of byte 0 in the toy vocabulary: <0x00>

// Makes the model say `token`, and returns the piece.
static pd_status say(pd_session *session, int32_t token, const char **piece) {
    ((float *)(uintptr_t)logits_of(session))[token] = 1e30F;
    return pd_session_next(session, piece, NULL);
}

// Says the bytes one by one; pieces[i] is what must come with byte i, NULL: the end.
static void assert_pieces(const char *conversation, int32_t n_predict, const char *bytes,
                          const char *const *pieces) {
    pd_session_params params = params_of("none");
    params.conversation = conversation;
    params.system = "";
    params.n_predict = n_predict;
    pd_session *session = create(text_only, &params);
    const pd_message question = {.role = PD_ROLE_USER, .text = "the cat"};
    assert_int_equal(pd_session_prompt(session, &question, 1, NULL), PD_OK);
    const char *piece;
    for (size_t i = 0; bytes[i]; i++) {
        const pd_status status = say(session, BYTE_0 + (uint8_t)bytes[i], &piece);
        assert_string_equal(piece, pieces[i] ? pieces[i] : "");
        assert_int_equal(status, pieces[i] ? PD_OK : PD_DONE);
        if (!pieces[i]) break;
    }
    pd_session_free(session);
}

static void stop_texts(void **state) {
    (void)state;
    assert_pieces("v0", -1, "a###", (const char *[]){"a", "", "", NULL});
    assert_pieces("v0", -1, "###", (const char *[]){"", "", NULL});
    assert_pieces("v0", -1, "##a#b###", (const char *[]){"", "", "##a", "", "#b", "", "", NULL});
    assert_pieces("v0", -1, "a ## ##b", (const char *[]){"a", " ", "", "", "## ", "", "", "##b"});
    assert_pieces("vicuna_v1", -1, "a</s>", (const char *[]){"a", "", "", "", NULL});
    assert_pieces("vicuna_v1", -1, "</</s</s>", (const char *[]){"", "", "</", "", "", "</s", "", "", NULL});
    assert_pieces("vicuna_v1", -1, "<s>", (const char *[]){"", "<s", ">"});
    assert_pieces("plain", -1, "ab\nc", (const char *[]){"a", "b", NULL});
    // a character in pieces comes whole, and a stop text behind it is seen
    assert_pieces("v0", -1, "\xe2\x96\x81###", (const char *[]){"", "", "\xe2\x96\x81", "", "", NULL});

    // what was held back as the beginning of a stop text comes out when the answer ends otherwise
    pd_session_params params = params_of("none");
    params.conversation = "v0";
    params.n_predict = 3;
    pd_session *session = create(text_only, &params);
    const pd_message question = {.role = PD_ROLE_USER, .text = "the cat"};
    for (int round = 0; round < 2; round++) {
        assert_int_equal(pd_session_prompt(session, &question, 1, NULL), PD_OK);
        const char *piece;
        assert_int_equal(say(session, BYTE_0 + 'a', &piece), PD_OK);
        assert_string_equal(piece, "a");
        assert_int_equal(say(session, BYTE_0 + '#', &piece), PD_OK);
        assert_string_equal(piece, "");
        assert_int_equal(say(session, BYTE_0 + '#', &piece), PD_OK);
        assert_string_equal(piece, "");
        assert_int_equal(pd_session_next(session, &piece, NULL), PD_OK);
        assert_string_equal(piece, "##");
        for (int i = 0; i < 2; i++) {
            assert_int_equal(pd_session_next(session, &piece, NULL), PD_DONE);
            assert_string_equal(piece, "");
        }
    }
    // after the stop text no token is drawn any more either
    int32_t token;
    const char *piece;
    assert_int_equal(pd_session_prompt(session, &question, 1, NULL), PD_OK);
    assert_int_equal(say(session, BYTE_0 + '#', &piece), PD_OK);
    assert_int_equal(say(session, BYTE_0 + '#', &piece), PD_OK);
    assert_int_equal(say(session, BYTE_0 + '#', &piece), PD_DONE);
    assert_int_equal(pd_session_next_token(session, &token, NULL), PD_DONE);
    // without a template there is no stop text
    assert_int_equal(pd_session_prompt_tokens(session, only_text, N_TEXT, NULL, 0, NULL), PD_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(say(session, BYTE_0 + '#', &piece), PD_OK);
        assert_string_equal(piece, "#");
    }
    pd_session_free(session);
}

// A character that an end cuts short becomes U+FFFD.
static void cut_characters(void **state) {
    (void)state;
    pd_session_params params = params_of("none");
    params.n_predict = 2;
    pd_session *session = create(text_only, &params);
    prompt(session, only_text, N_TEXT);
    const char *piece;
    assert_int_equal(say(session, BYTE_0 + 'a', &piece), PD_OK);
    assert_int_equal(say(session, BYTE_0 + 0xe2, &piece), PD_OK);
    assert_string_equal(piece, "");
    assert_int_equal(pd_session_next(session, &piece, NULL), PD_OK);
    assert_string_equal(piece, "\xef\xbf\xbd");
    assert_int_equal(pd_session_next(session, &piece, NULL), PD_DONE);
    pd_session_free(session);
}

// Rows of the output head that no token stands for are never drawn.
static void padding_is_never_drawn(void **state) {
    (void)state;
    enum { N_TOKENS = 300 };
    char from[512], path[512];
    const char *parent = getenv("TMPDIR");
    snprintf(from, sizeof from, "%s/parity/mha.gguf", PD_TEST_DATA);
    snprintf(path, sizeof path, "%.200s/pd_test_engine_XXXXXX", parent ? parent : P_tmpdir);
    const int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    struct ggml_context *tensors = NULL;
    struct gguf_context *whole =
        gguf_init_from_file(from, (struct gguf_init_params){.no_alloc = false, .ctx = &tensors});
    assert_non_null(whole);
    struct gguf_context *gguf = gguf_init_empty();
    gguf_set_kv(gguf, whole);
    for (struct ggml_tensor *t = ggml_get_first_tensor(tensors); t; t = ggml_get_next_tensor(tensors, t)) {
        if (gguf_find_tensor(whole, t->name) >= 0) gguf_add_tensor(gguf, t);
    }
    gguf_free(whole);
    const char *texts[N_TOKENS];
    float scores[N_TOKENS];
    int32_t types[N_TOKENS];
    const int64_t key = gguf_find_key(gguf, "tokenizer.ggml.tokens");
    memcpy(scores, gguf_get_arr_data(gguf, gguf_find_key(gguf, "tokenizer.ggml.scores")), sizeof scores);
    memcpy(types, gguf_get_arr_data(gguf, gguf_find_key(gguf, "tokenizer.ggml.token_type")), sizeof types);
    for (size_t i = 0; i < N_TOKENS; i++)
        assert_non_null(texts[i] = strdup(gguf_get_arr_str(gguf, key, i)));
    gguf_set_arr_str(gguf, "tokenizer.ggml.tokens", texts, N_TOKENS);
    gguf_set_arr_data(gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores, N_TOKENS);
    gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types, N_TOKENS);
    for (size_t i = 0; i < N_TOKENS; i++)
        free((char *)(uintptr_t)texts[i]);
    assert_true(gguf_write_to_file(gguf, path, false));
    gguf_free(gguf);
    ggml_free(tensors);

    pd_model_params mp;
    pd_model_params_default(&mp, sizeof mp);
    mp.model_path = path;
    pd_model *model;
    assert_int_equal(pd_model_load(&mp, &model, NULL), PD_OK);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(pd_model_n_vocab(model), N_VOCAB);
    pd_session *session = session_of(model, "none");
    prompt(session, only_text, N_TEXT);
    float *logits = (float *)(uintptr_t)logits_of(session);
    logits[N_TOKENS] = logits[N_VOCAB - 1] = 1e30F;
    logits[N_TOKENS - 1] = 1e29F;
    int32_t token;
    assert_int_equal(pd_session_next_token(session, &token, NULL), PD_OK);
    assert_int_equal(token, N_TOKENS - 1);
    pd_session_free(session);
    pd_model_free(model);
}

// The repeat penalty looks at the prompt's text and the answer, and not at what fills a picture's rows.
static void penalty_passes_pictures_over(void **state) {
    (void)state;
    pd_session_params params = params_of("none");
    params.repeat_penalty = 10.0F;
    params.repeat_last_n = 1000; // more than there are
    pd_session *session = create(mha, &params);
    prompt(session, one_picture, N_ONE);
    float *logits = (float *)(uintptr_t)logits_of(session);
    memset(logits, 0, N_VOCAB * sizeof *logits);
    logits[0] = 5.0F;
    logits[20] = 6.0F; // the prompt has it: 0.6
    int32_t token;
    assert_int_equal(pd_session_next_token(session, &token, NULL), PD_OK);
    assert_int_equal(token, 0);
    logits = (float *)(uintptr_t)logits_of(session);
    memset(logits, 0, N_VOCAB * sizeof *logits);
    logits[0] = 5.0F; // and now the answer has it
    logits[300] = 1.0F;
    assert_int_equal(pd_session_next_token(session, &token, NULL), PD_OK);
    assert_int_equal(token, 300);
    pd_session_free(session);
}

// ---- cancelling -------------------------------------------------------------------------------------------

static pd_session *to_cancel;
static int32_t calls_before_cancel;

static void *cancel(void *session) {
    pd_session_cancel(session);
    return NULL;
}

static void cancel_from_another_thread(void) {
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel, to_cancel), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void cancel_in_progress(const char *what, double progress, void *wanted) {
    assert_true(progress >= 0.0 && progress <= 1.0);
    if (strcmp(what, wanted) == 0 && calls_before_cancel-- == 0) cancel_from_another_thread();
}

static void cancel_before_graph(void *user) {
    (void)user;
    if (calls_before_cancel-- == 0) cancel_from_another_thread();
}

static void cancel_on_signal(int signal) {
    (void)signal;
    pd_session_cancel(to_cancel);
}

static void raise_before_graph(void *user) {
    (void)user;
    if (calls_before_cancel-- == 0) raise(SIGUSR1);
}

static void cancelled_prompts(void **state) {
    (void)state;
    static const char policy[] = "pdrop:2=.5,4=.25";
    const answer undisturbed = fresh_answer(mha, policy, one_picture, N_ONE);
    static const struct {
        const char *what;
        int32_t calls; // progress calls of that kind before the one that cancels
    } cases[] = {{"image", 0}, {"prefill", 0}, {"prefill", 1}, {"prefill", 5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pd_session_params params = params_of(policy);
        params.progress = cancel_in_progress;
        params.progress_user = (void *)(uintptr_t)cases[i].what;
        pd_session *session = to_cancel = create(mha, &params);
        calls_before_cancel = cases[i].calls;
        pd_error err;
        assert_fails(pd_session_prompt_tokens(session, one_picture, N_ONE, &wide, 1, &err), PD_ERR_CANCELLED,
                     &err, "cancelled");
        const float *logits;
        size_t count;
        assert_fails(pd_session_logits(session, &logits, &count, &err), PD_ERR_ARGUMENT, &err,
                     "no prompt yet");
        assert_null(logits);
        // it was told once, and works again
        const answer a = answer_of(session, one_picture, N_ONE);
        assert_same_answer(&a, &undisturbed);
        pd_session_free(session);
    }
    // with nothing running, it is the next prompt that is cancelled
    pd_session *session = session_of(mha, policy);
    pd_session_cancel(session);
    pd_session_cancel(session);
    assert_int_equal(pd_session_prompt_tokens(session, one_picture, N_ONE, &wide, 1, NULL), PD_ERR_CANCELLED);
    const answer a = answer_of(session, one_picture, N_ONE);
    assert_same_answer(&a, &undisturbed);
    pd_session_free(session);
}

static void cancelled_answers(void **state) {
    (void)state;
    static const char policy[] = "pdrop:2=.5,4=.25";
    const answer undisturbed = fresh_answer(mha, policy, one_picture, N_ONE);
    void (*const ways[])(void *) = {cancel_before_graph, raise_before_graph};
    const struct sigaction action = {.sa_handler = cancel_on_signal};
    struct sigaction before;
    assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
    for (size_t i = 0; i < 2; i++) {
        pd_session *session = to_cancel = session_of(mha, policy);
        prompt(session, one_picture, N_ONE);
        watch.before = ways[i];
        answer a;
        for (int n = 0; n < N_ANSWER; n++) {
            calls_before_cancel = 0;
            if (n > 0) { // the first comes from the prompt's logits
                assert_int_equal(pd_session_next_token(session, &a.tokens[n], NULL), PD_ERR_CANCELLED);
                assert_int_equal(a.tokens[n], -1);
            }
            assert_int_equal(pd_session_next_token(session, &a.tokens[n], NULL), PD_OK);
        }
        assert_memory_equal(a.tokens, undisturbed.tokens, sizeof a.tokens);
        const float *logits;
        size_t count;
        calls_before_cancel = 0;
        assert_int_equal(pd_session_logits(session, &logits, &count, NULL), PD_ERR_CANCELLED);
        watch.before = NULL;
        assert_memory_equal(logits_of(session), undisturbed.final_logits, sizeof undisturbed.final_logits);
        pd_session_free(session);
    }
    assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
}

// ---- what is counted --------------------------------------------------------------------------------------

static void kv_bytes(void **state) {
    (void)state;
    static const struct {
        pd_cache_type type;
        uint64_t size;
    } types[] = {{PD_CACHE_F16, 2}, {PD_CACHE_F32, 4}, {PD_CACHE_BF16, 2}};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        for (int flash = 0; flash < 2; flash++) {
            pd_session_params params = params_of("pdrop:2=.5,4=.25");
            params.cache_type = types[t].type;
            params.attention = flash ? PD_ATTENTION_FLASH : PD_ATTENTION_EAGER;
            pd_session *session = create(gqa, &params);
            const pd_stats *stats = pd_session_stats(session);
            prompt(session, two_pictures, N_TWO);
            // text 5; pictures 2 · 36, then 2 · 18, then 2 · 9; 2 key heads of 16 channels, keys and values
            const uint64_t rows[] = {5 + 72, 5 + 36, 5 + 18}, row = 2 * 2 * 16 * types[t].size;
            assert_int_equal(stats->n_stages, 3);
            assert_int_equal(stats->n_prompt_tokens, 77);
            assert_int_equal(stats->n_image_tokens, 72);
            assert_int_equal(stats->n_images, 2);
            int32_t tokens[8];
            for (uint64_t drawn = 0; drawn < 8; drawn++) {
                assert_int_equal(stats->n_generated, drawn);
                // the last one drawn has no row before it is run
                const uint64_t run = drawn ? drawn - 1 : 0;
                uint64_t sum = 0;
                for (int32_t s = 0; s < 3; s++) {
                    const pd_stage_stats *stage = &stats->stages[s];
                    assert_int_equal(stage->first_layer, 2 * s);
                    assert_int_equal(stage->n_layers, 2);
                    assert_int_equal(stage->n_rows, rows[s]);
                    assert_int_equal(stage->n_image_tokens, rows[s] - 5);
                    assert_int_equal(stage->kv_bytes, 2 * (rows[s] + run) * row);
                    assert_int_equal(stage->kv_bytes_dense, 2 * (rows[0] + run) * row);
                    sum += stage->kv_bytes;
                }
                assert_int_equal(stats->kv_bytes, sum);
                assert_int_equal(stats->kv_bytes_dense, 6 * (rows[0] + run) * row);
                assert_true(stats->kv_bytes_reserved >= stats->kv_bytes);
                assert_true(stats->compute_bytes > 0);
                assert_int_equal(generate(session, &tokens[drawn], 1), 1);
            }
            logits_of(session);
            assert_int_equal(stats->kv_bytes, 2 * (rows[0] + rows[1] + rows[2] + 3 * 8) * row);
            pd_session_free(session);
        }
    }
}

// The formula against the graphs that are computed: every matrix product of vision tower, projector and
// decoder.
static void flops_of_the_graphs(void **state) {
    (void)state;
    static const char *const policies[] = {
        "none",
        "pdrop:2=.5,4=.25",
        "pdrop:1=.5,2=.5,3=.3,5=0",
        "pdrop:2=.5,4=.25;positions=original",
        "fastv:2=.5",
        "fastv:2=.5,4=.25;positions=original",
        "vtw:3",
        "uniform:1=.5,3=.25",
        "random:1=.5,3=.25;seed=7",
    };
    static const struct {
        const int32_t *tokens;
        size_t n;
    } prompts[] = {{only_text, N_TEXT}, {one_picture, N_ONE}, {two_pictures, N_TWO}, {picture_last, N_LAST}};
    pd_model *const models[] = {mha, gqa};
    for (size_t i = 0; i < 2 * 2 * 4 * (sizeof policies / sizeof *policies); i++) {
        pd_session_params params = params_of(policies[i / 16]);
        params.attention = i % 2 ? PD_ATTENTION_FLASH : PD_ATTENTION_EAGER;
        pd_session *session = create(models[i / 2 % 2], &params);
        watch.before = do_nothing;
        watch.flops = 0.0;
        prompt(session, prompts[i / 4 % 4].tokens, prompts[i / 4 % 4].n);
        watch.before = NULL;
        const pd_stats *stats = pd_session_stats(session);
        if (stats->prefill_flops != watch.flops)
            print_error("%s: counted %.0f, computed %.0f\n", policies[i / 16], stats->prefill_flops,
                        watch.flops);
        assert_true(stats->prefill_flops == watch.flops);
        if (i / 16 == 0) assert_true(stats->prefill_flops_dense == watch.flops);
        double stages = 0.0, dense_stages = 0.0;
        for (int32_t s = 0; s < stats->n_stages; s++) {
            stages += stats->stages[s].flops;
            dense_stages += stats->stages[s].flops_dense;
        }
        // beside the layers stand the output head, and per picture the tower: the same of both
        assert_true(stats->prefill_flops - stages == stats->prefill_flops_dense - dense_stages);
        pd_session_free(session);
    }
}

static void figures(void **state) {
    (void)state;
    pd_session *session = session_of(mha, "pdrop:2=.5,4=.25");
    const pd_stats *stats = pd_session_stats(session);
    assert_int_equal(stats->n_stages, 0); // before any prompt
    prompt(session, one_picture, N_ONE);
    double layers_ms = 0.0, rank_ms = 0.0;
    for (int32_t s = 0; s < 3; s++) {
        assert_true(stats->stages[s].layers_ms > 0.0);
        assert_true(s < 2 ? stats->stages[s].rank_ms > 0.0 : stats->stages[s].rank_ms == 0.0);
        layers_ms += stats->stages[s].layers_ms;
        rank_ms += stats->stages[s].rank_ms;
    }
    assert_true(fabs(stats->rank_ms - rank_ms) < 1e-9);
    assert_true(layers_ms + rank_ms <= stats->prefill_ms);
    assert_true(stats->first_token_ms == 0.0 && stats->decode_ms == 0.0);
    int32_t tokens[3];
    generate(session, tokens, 1);
    const double first_token_ms = stats->first_token_ms;
    assert_true(first_token_ms >= stats->prefill_ms + stats->vit_ms);
    assert_true(stats->n_decoded == 0 && stats->decode_ms == 0.0);
    generate(session, tokens, 2);
    assert_int_equal(stats->n_decoded, 2);
    assert_true(stats->decode_ms > 0.0);
    const float *logits; // an end token is drawn from a pass of its own
    size_t n_logits;
    assert_int_equal(pd_session_logits(session, &logits, &n_logits, NULL), PD_OK);
    assert_int_equal(stats->n_decoded, 3);
    assert_true(stats->first_token_ms == first_token_ms);
    // 16 image tokens, d 64, m 128: per layer 4·n·d² + 2·n²·d + 3·n·d·m, in T
    const double n[] = {16, 8, 4};
    double macs = 0.0;
    for (int s = 0; s < 3; s++)
        macs += 2 * (4 * n[s] * 64 * 64 + 2 * n[s] * n[s] * 64 + 3 * n[s] * 64 * 128);
    assert_true(fabs(stats->image_tmacs - macs * 1e-12) < 1e-20);
    pd_session_free(session);
}

// ---- policies ---------------------------------------------------------------------------------------------

static void kept_of(pd_session *session, int32_t image, int32_t stage, const int32_t **tokens, size_t *n) {
    assert_int_equal(pd_session_kept(session, image, stage, tokens, n, NULL), PD_OK);
}

// Right counts, ascending, each stage's out of the last one's.
static void assert_kept(pd_session *session, const pd_policy *policy, int32_t n_images, int32_t n_tokens) {
    for (int32_t image = 0; image < n_images; image++) {
        const int32_t *before, *kept;
        size_t n_before, n;
        kept_of(session, image, 0, &before, &n_before);
        assert_int_equal(n_before, n_tokens);
        for (int32_t i = 0; i < n_tokens; i++)
            assert_int_equal(before[i], i);
        for (int32_t s = 1; s <= policy->n_drops; s++) {
            kept_of(session, image, s, &kept, &n);
            assert_int_equal(n, (int32_t)(n_tokens * policy->image_token_ratio_list[s - 1]));
            size_t at = 0;
            for (size_t i = 0; i < n; i++) {
                while (at < n_before && before[at] != kept[i])
                    at++;
                assert_true(at++ < n_before);
            }
            before = kept;
            n_before = n;
        }
    }
}

static void policies_run(void **state) {
    (void)state;
    static const char *const texts[] = {
        "none",
        "pdrop",
        "pdrop:1=1,2=.7,3=.7,4=.1,5=0",
        "pdrop:1=.01",
        "fastv:1=.5",
        "fastv:2",
        "fastv:2=.5,4=.25,5=0;positions=original",
        "vtw:3",
        "vtw:3;positions=original",
        "uniform:1=.5,3=.25",
        "uniform:5=.3;positions=original",
        "random:1=.5,3=.25",
        "random:1=.5,3=.25,4=0;seed=9;positions=original",
    };
    pd_model *const models[] = {mha, gqa};
    const int32_t n_tokens[] = {MHA_TOKENS, GQA_TOKENS};
    static const pd_attention attentions[] = {PD_ATTENTION_SDPA, PD_ATTENTION_EAGER, PD_ATTENTION_FLASH};
    for (size_t i = 0; i < 6 * (sizeof texts / sizeof *texts); i++) {
        const pd_policy policy = policy_of(texts[i / 6]);
        pd_session_params params = params_of(texts[i / 6]);
        params.attention = attentions[i % 3];
        pd_session *session = create(models[i / 3 % 2], &params);
        int32_t tokens[4];
        prompt(session, two_pictures, N_TWO);
        assert_kept(session, &policy, 2, n_tokens[i / 3 % 2]);
        assert_int_equal(generate(session, tokens, 4), 4);
        const float *logits = logits_of(session);
        for (int k = 0; k < N_VOCAB; k++)
            assert_true(isfinite(logits[k]));
        // a picture at the end: its last token asks, or what is left before it
        prompt(session, picture_last, N_LAST);
        assert_kept(session, &policy, 1, n_tokens[i / 3 % 2]);
        assert_int_equal(generate(session, tokens, 4), 4);
        prompt(session, only_text, N_TEXT);
        assert_int_equal(pd_session_stats(session)->n_stages, policy.n_drops + 1);
        assert_int_equal(pd_session_stats(session)->stages[policy.n_drops].n_rows, N_TEXT);
        pd_session_free(session);
    }
}

static bool keep_the_same(pd_model *model, const char *a, const char *b, int32_t stage) {
    pd_session *first = session_of(model, a), *second = session_of(model, b);
    prompt(first, two_pictures, N_TWO);
    prompt(second, two_pictures, N_TWO);
    bool same = true;
    for (int32_t image = 0; image < 2; image++) {
        const int32_t *x, *y;
        size_t n, m;
        kept_of(first, image, stage, &x, &n);
        kept_of(second, image, stage, &y, &m);
        assert_int_equal(n, m);
        same = same && memcmp(x, y, n * sizeof *x) == 0;
    }
    pd_session_free(first);
    pd_session_free(second);
    return same;
}

// FastV after layer K asks layer K-1, which is the next layer to one that has run K-1: the same question,
// about the same rows, as PyramidDrop's after K-1 layers.
static void fastv_asks_the_layer_just_run(void **state) {
    (void)state;
    pd_model *const models[] = {mha, gqa};
    int differences = 0;
    for (int m = 0; m < 2; m++) {
        for (int k = 2; k < N_LAYERS; k++) {
            char fastv[32], before[32], after[32];
            snprintf(fastv, sizeof fastv, "fastv:%d=.4", k);
            snprintf(before, sizeof before, "pdrop:%d=.4", k - 1);
            snprintf(after, sizeof after, "pdrop:%d=.4", k);
            assert_true(keep_the_same(models[m], fastv, before, 1));
            differences += !keep_the_same(models[m], fastv, after, 1);
        }
    }
    assert_true(differences >= 6); // of 8: two layers seldom agree
}

static void baselines_keep(void **state) {
    (void)state;
    pd_session *session = session_of(mha, "uniform:1=.25,3=.125");
    prompt(session, one_picture, N_ONE);
    const int32_t *tokens;
    size_t n;
    kept_of(session, 0, 1, &tokens, &n);
    assert_int_equal(n, 4);
    assert_memory_equal(tokens, ((const int32_t[]){2, 6, 10, 14}), 4 * sizeof *tokens);
    kept_of(session, 0, 2, &tokens, &n); // the middles of the four that live
    assert_int_equal(n, 2);
    assert_memory_equal(tokens, ((const int32_t[]){6, 14}), 2 * sizeof *tokens);
    pd_session_free(session);
    assert_true(keep_the_same(gqa, "random:2=.5,3=.25;seed=3", "random:2=.5,3=.25;seed=3", 2));
    assert_false(keep_the_same(gqa, "random:2=.5,3=.25;seed=3", "random:2=.5,3=.25;seed=4", 2));
    assert_false(keep_the_same(gqa, "random:2=.5", "uniform:2=.5", 1));
}

// ---- arguments --------------------------------------------------------------------------------------------

static void model_arguments(void **state) {
    (void)state;
    pd_error err;
    pd_model *model = mha;
    pd_model_params params;
    // a struct of an earlier version is filled no further than it reaches
    struct {
        pd_model_params params;
        uint8_t behind[8];
    } small;
    memset(&small, 0x5a, sizeof small);
    pd_model_params_default(&small.params, offsetof(pd_model_params, log));
    assert_int_equal(small.params.size, offsetof(pd_model_params, log));
    assert_null(small.params.device);
    assert_int_equal(((const uint8_t *)&small)[offsetof(pd_model_params, log)], 0x5a);

    pd_model_params_default(&params, sizeof params);
    assert_fails(pd_model_load(&params, &model, &err), PD_ERR_ARGUMENT, &err, "model_path");
    assert_null(model);
    params.model_path = "/no/such/file.gguf";
    model = mha;
    assert_fails(pd_model_load(&params, &model, &err), PD_ERR_IO, &err, "/no/such/file.gguf: cannot open");
    assert_null(model);
    assert_int_equal(pd_model_load(&params, &model, NULL), PD_ERR_IO);
    params.device = "Abacus0";
    assert_fails(pd_model_load(&params, &model, &err), PD_ERR_ARGUMENT, &err, "no device named Abacus0");
    params.size--;
    assert_fails(pd_model_load(&params, &model, &err), PD_ERR_ARGUMENT, &err,
                 "pd_model_params: expected a size");
    params.size = 0;
    assert_fails(pd_model_load(&params, &model, &err), PD_ERR_ARGUMENT, &err, "found 0");

    // the two files taken for each other
    char text[512], vision[512];
    snprintf(text, sizeof text, "%s/parity/mha.gguf", PD_TEST_DATA);
    snprintf(vision, sizeof vision, "%s/parity/mha-mmproj.gguf", PD_TEST_DATA);
    pd_model_params_default(&params, sizeof params);
    params.model_path = vision;
    assert_fails(pd_model_load(&params, &model, &err), PD_ERR_UNSUPPORTED, &err, "--mmproj");
    params.model_path = params.mmproj_path = text;
    assert_fails(pd_model_load(&params, &model, &err), PD_ERR_UNSUPPORTED, &err, "expected clip");
    char other[512]; // hidden size 32
    snprintf(other, sizeof other, "%s/parity/linear.gguf", PD_TEST_DATA);
    params.model_path = other;
    params.mmproj_path = vision;
    assert_fails(pd_model_load(&params, &model, &err), PD_ERR_FORMAT, &err, "expected a matching pair");
    assert_null(model);
    pd_model_free(NULL);
}

static void model_answers(void **state) {
    (void)state;
    assert_int_equal(pd_model_n_layers(mha), N_LAYERS);
    assert_int_equal(pd_model_n_vocab(mha), N_VOCAB);
    assert_int_equal(pd_model_n_ctx_train(mha), 2048);
    assert_true(pd_model_has_vision(mha));
    assert_false(pd_model_has_vision(text_only));
    assert_int_equal(pd_model_n_image_tokens(mha, 100, 60), MHA_TOKENS);
    assert_int_equal(pd_model_n_image_tokens(text_only, 100, 60), 0);
    assert_int_equal(pd_model_n_image_tokens(mha, 0, 60), 0);
    assert_non_null(strstr(pd_model_description(mha), "llama"));

    int32_t tokens[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
    size_t count;
    pd_error err;
    static const char text[] = "the <image> cat</s>";
    assert_int_equal(pd_model_tokenize(mha, text, true, true, NULL, 0, &count, &err), PD_OK);
    assert_true(count >= 4 && count <= 8);
    assert_int_equal(pd_model_tokenize(mha, text, true, true, tokens, 2, &count, &err), PD_OK);
    assert_int_equal(tokens[0], 1);
    assert_int_equal(tokens[2], -1); // no more than it holds
    assert_int_equal(pd_model_tokenize(mha, text, true, true, tokens, 8, &count, &err), PD_OK);
    assert_int_equal(tokens[count - 1], 2);
    size_t n_images = 0;
    for (size_t i = 0; i < count; i++)
        n_images += tokens[i] == PD_IMAGE_TOKEN;
    assert_int_equal(n_images, 1);
    const char *bytes;
    size_t size;
    assert_int_equal(pd_model_token_piece(mha, BYTE_0 + 'a', &bytes, &size, &err), PD_OK);
    assert_int_equal(size, 1);
    assert_int_equal(bytes[0], 'a');
    assert_int_equal(pd_model_token_piece(mha, N_VOCAB, &bytes, &size, &err), PD_ERR_ARGUMENT);
    assert_int_equal(pd_model_token_piece(mha, -1, &bytes, &size, &err), PD_ERR_ARGUMENT);
    assert_int_equal(pd_model_token_piece(mha, PD_IMAGE_TOKEN, &bytes, &size, &err), PD_ERR_ARGUMENT);
}

typedef void (*spoil)(pd_session_params *params);
static pd_policy deep_policy;

static void spoil_size(pd_session_params *p) {
    p->size += 8;
}
static void spoil_attention(pd_session_params *p) {
    p->attention = (pd_attention)3;
}
static void spoil_cache_type(pd_session_params *p) {
    p->cache_type = (pd_cache_type)3;
}
static void spoil_aspect_ratio(pd_session_params *p) {
    p->aspect_ratio = (pd_aspect_ratio)4;
}
static void spoil_n_ctx(pd_session_params *p) {
    p->n_ctx = -1;
}
static void spoil_n_predict(pd_session_params *p) {
    p->n_predict = -2;
}
static void spoil_n_threads(pd_session_params *p) {
    p->n_threads = 513;
}
static void spoil_repeat_last_n(pd_session_params *p) {
    p->repeat_last_n = -1;
}
static void spoil_conversation(pd_session_params *p) {
    p->conversation = "vicuna_v9";
}
static void spoil_policy(pd_session_params *p) {
    p->policy = &deep_policy;
}
static void spoil_temperature(pd_session_params *p) {
    p->temperature = -1.0F;
}
static void spoil_top_k(pd_session_params *p) {
    p->top_k = -1;
}
static void spoil_top_p(pd_session_params *p) {
    p->top_p = 0.0F;
}
static void spoil_repeat_penalty(pd_session_params *p) {
    p->repeat_penalty = 0.0F;
}

static void session_arguments(void **state) {
    (void)state;
    static const struct {
        spoil spoil;
        const char *message;
    } wrong[] = {
        {spoil_size, "pd_session_params: expected a size"},
        {spoil_attention, "attention: expected 0 to 2, found 3"},
        {spoil_cache_type, "cache_type: expected 0 to 2, found 3"},
        {spoil_aspect_ratio, "aspect_ratio: expected 0 to 3, found 4"},
        {spoil_n_ctx, "n_ctx: expected 0 to"},
        {spoil_n_predict, "n_predict: expected -1 to"},
        {spoil_n_threads, "n_threads: expected 0 to 512, found 513"},
        {spoil_repeat_last_n, "repeat_last_n"},
        {spoil_conversation, "vicuna_v1"},
        {spoil_policy, "layer 24 is beyond the model (expected 1 to 5)"},
        {spoil_temperature, "temperature"},
        {spoil_top_k, "top_k"},
        {spoil_top_p, "top_p"},
        {spoil_repeat_penalty, "repeat_penalty"},
    };
    pd_policy_default(&deep_policy, 32);
    pd_error err;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        pd_session_params params;
        pd_session_params_default(&params, sizeof params);
        wrong[i].spoil(&params);
        pd_session *session = (pd_session *)mha;
        assert_fails(pd_session_create(mha, &params, &session, &err), PD_ERR_ARGUMENT, &err,
                     wrong[i].message);
        assert_null(session);
        assert_int_equal(pd_session_create(mha, &params, &session, NULL), PD_ERR_ARGUMENT);
    }
    struct {
        pd_session_params params;
    } small;
    memset(&small, 0x5a, sizeof small);
    pd_session_params_default(&small.params, offsetof(pd_session_params, temperature));
    assert_int_equal(small.params.n_predict, -1);
    assert_int_equal(((const uint8_t *)&small)[offsetof(pd_session_params, temperature)], 0x5a);
    assert_int_equal(((const uint8_t *)&small)[offsetof(pd_session_params, top_p)], 0x5a);
    pd_session_free(NULL);

    // no policy is the default, and the parameters need not outlive the call
    pd_session_params params;
    pd_session_params_default(&params, sizeof params);
    char system[] = "Be brief.";
    params.system = system;
    params.n_threads = 1;
    pd_session *session = create(mha, &params);
    memset(&params, 0x5a, sizeof params);
    memset(system, 'x', sizeof system - 1);
    assert_string_equal(pd_session_conversation(session), "vicuna_v1");
    const pd_message question = {PD_ROLE_USER, "the cat", &wide, 1};
    assert_int_equal(pd_session_prompt(session, &question, 1, &err), PD_OK);
    assert_int_equal(pd_session_stats(session)->n_stages, 4);
    assert_int_equal(pd_session_stats(session)->stages[3].n_image_tokens, MHA_TOKENS / 8);
    pd_session_free(session);
}

static void prompt_arguments(void **state) {
    (void)state;
    pd_session *session = session_of(mha, "pdrop:2=.5,4=.25"), *blind = session_of(text_only, "none");
    pd_error err;
    const float *logits;
    const char *piece = NULL;
    const int32_t *kept;
    size_t count;
    int32_t token = 7;
    // nothing to answer yet
    assert_fails(pd_session_next(session, &piece, &err), PD_ERR_ARGUMENT, &err, "no prompt yet");
    assert_string_equal(piece, "");
    assert_fails(pd_session_next_token(session, &token, &err), PD_ERR_ARGUMENT, &err, "no prompt yet");
    assert_int_equal(token, -1);
    assert_fails(pd_session_logits(session, &logits, &count, &err), PD_ERR_ARGUMENT, &err, "no prompt yet");
    assert_null(logits);
    assert_int_equal(count, 0);
    assert_fails(pd_session_kept(session, 0, 0, &kept, &count, &err), PD_ERR_ARGUMENT, &err, "no prompt yet");
    assert_null(kept);

    pd_image *const images[] = {wide, tall}, *const holes[] = {wide, NULL};
    const struct {
        int32_t tokens[5];
        size_t n, n_images;
        const char *message;
    } wrong[] = {
        {{1}, 0, 0, "the prompt is empty"},
        {{1, N_VOCAB, 3}, 3, 0, "prompt token 1: expected an id in 0..319, found 320"},
        {{1, 2, -1}, 3, 0, "prompt token 2: expected an id in 0..319, found -1"},
        {{1, PD_IMAGE_TOKEN, 3}, 3, 0, "1 picture placeholders for 0 pictures"},
        {{1, PD_IMAGE_TOKEN, 3}, 3, 2, "1 picture placeholders for 2 pictures"},
        {{1, 2, 3}, 3, 1, "0 picture placeholders for 1 pictures"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_fails(
            pd_session_prompt_tokens(session, wrong[i].tokens, wrong[i].n, images, wrong[i].n_images, &err),
            PD_ERR_ARGUMENT, &err, wrong[i].message);
        assert_int_equal(
            pd_session_prompt_tokens(session, wrong[i].tokens, wrong[i].n, images, wrong[i].n_images, NULL),
            PD_ERR_ARGUMENT);
    }
    assert_fails(pd_session_prompt_tokens(session, two_pictures, N_TWO, holes, 2, &err), PD_ERR_ARGUMENT,
                 &err, "picture 1 of the prompt is NULL");
    assert_fails(pd_session_prompt_tokens(blind, one_picture, N_ONE, images, 1, &err), PD_ERR_ARGUMENT, &err,
                 "without an mmproj");
    // a picture and nothing else, withdrawn
    pd_session *withdrawing = session_of(mha, "vtw:3");
    const int32_t alone = PD_IMAGE_TOKEN;
    assert_fails(pd_session_prompt_tokens(withdrawing, &alone, 1, images, 1, &err), PD_ERR_ARGUMENT, &err,
                 "drops the whole prompt");
    prompt(withdrawing, one_picture, N_ONE);
    pd_session_free(withdrawing);
    pd_session_params params = params_of("none");
    params.aspect_ratio = PD_ASPECT_ANYRES;
    pd_session *anyres = create(mha, &params);
    assert_fails(pd_session_prompt_tokens(anyres, one_picture, N_ONE, images, 1, &err), PD_ERR_ARGUMENT, &err,
                 "image_grid_pinpoints");
    pd_session_free(anyres);
    // one that fails leaves no prompt behind
    prompt(session, one_picture, N_ONE);
    assert_int_equal(pd_session_prompt_tokens(session, wrong[1].tokens, 3, NULL, 0, NULL), PD_ERR_ARGUMENT);
    assert_int_equal(pd_session_next_token(session, &token, NULL), PD_ERR_ARGUMENT);

    prompt(session, one_picture, N_ONE);
    assert_fails(pd_session_kept(session, 1, 0, &kept, &count, &err), PD_ERR_ARGUMENT, &err,
                 "no picture 1 in stage 0: the prompt has 1 pictures and 3 stages");
    assert_int_equal(pd_session_kept(session, -1, 0, &kept, &count, NULL), PD_ERR_ARGUMENT);
    assert_int_equal(pd_session_kept(session, 0, 3, &kept, &count, NULL), PD_ERR_ARGUMENT);
    assert_int_equal(pd_session_kept(session, 0, -1, &kept, &count, NULL), PD_ERR_ARGUMENT);
    assert_null(kept);
    assert_int_equal(count, 0);
    pd_session_free(session);
    pd_session_free(blind);
}

static void message_arguments(void **state) {
    (void)state;
    pd_session *session = session_of(mha, "pdrop:2=.5,4=.25");
    pd_error err;
    pd_image *const images[] = {wide, tall};
    const pd_message ends_with_assistant[] = {{.role = PD_ROLE_USER, .text = "the cat"},
                                              {.role = PD_ROLE_ASSISTANT, .text = "the dog"}};
    assert_fails(pd_session_prompt(session, NULL, 0, &err), PD_ERR_ARGUMENT, &err, "must end with a user");
    assert_fails(pd_session_prompt(session, ends_with_assistant, 2, &err), PD_ERR_ARGUMENT, &err,
                 "must end with a user");
    const pd_message system = {.role = PD_ROLE_SYSTEM, .text = "the cat"};
    assert_fails(pd_session_prompt(session, &system, 1, &err), PD_ERR_ARGUMENT, &err, "must end with a user");
    const pd_message silent = {.role = PD_ROLE_USER};
    assert_fails(pd_session_prompt(session, &silent, 1, &err), PD_ERR_ARGUMENT, &err,
                 "message 0 has no text");
    const pd_message unlisted = {PD_ROLE_USER, "the cat", NULL, 2};
    assert_fails(pd_session_prompt(session, &unlisted, 1, &err), PD_ERR_ARGUMENT, &err,
                 "message 0 has no list of its 2 pictures");
    const pd_message too_many[] = {{.role = PD_ROLE_USER, .text = "the cat"},
                                   {.role = PD_ROLE_ASSISTANT, .text = "the dog"},
                                   {PD_ROLE_USER, "<image> <image>", images, 1}};
    assert_fails(pd_session_prompt(session, too_many, 3, &err), PD_ERR_ARGUMENT, &err,
                 "message 2 has 2 <image> placeholders for 1 pictures");
    pd_image *const hole = NULL;
    const pd_message missing = {PD_ROLE_USER, "the cat", &hole, 1};
    assert_fails(pd_session_prompt(session, &missing, 1, &err), PD_ERR_ARGUMENT, &err,
                 "picture 0 of the prompt is NULL");

    // placeholders a text lacks stand before it, as if they had been written there
    const pd_message written = {PD_ROLE_USER, "<image>\n<image>\nthe cat", images, 2},
                     lacking_one = {PD_ROLE_USER, "<image>\nthe cat", images, 2},
                     lacking_both = {PD_ROLE_USER, "the cat", images, 2};
    float expected[N_VOCAB];
    assert_int_equal(pd_session_prompt(session, &written, 1, &err), PD_OK);
    memcpy(expected, logits_of(session), sizeof expected);
    assert_int_equal(pd_session_stats(session)->n_images, 2);
    assert_int_equal(pd_session_prompt(session, &lacking_one, 1, &err), PD_OK);
    assert_memory_equal(logits_of(session), expected, sizeof expected);
    assert_int_equal(pd_session_prompt(session, &lacking_both, 1, &err), PD_OK);
    assert_memory_equal(logits_of(session), expected, sizeof expected);

    // a conversation with a picture in an earlier turn
    const pd_message turns[] = {{PD_ROLE_USER, "the cat", images, 1},
                                {.role = PD_ROLE_ASSISTANT, .text = "the dog"},
                                {PD_ROLE_USER, "the <image> dog", images + 1, 1}};
    assert_int_equal(pd_session_prompt(session, turns, 3, &err), PD_OK);
    assert_int_equal(pd_session_stats(session)->n_image_tokens, 2 * MHA_TOKENS);
    assert_true(pd_session_stats(session)->vit_ms == 0.0);
    pd_session_free(session);
}

// What the log says, and that nothing is said without one.
static void note_line(pd_log_level level, const char *line, void *user) {
    assert_in_range(level, PD_LOG_INFO, PD_LOG_WARNING);
    assert_null(strchr(line, '\n'));
    snprintf(user, 512, "%s", line);
}

static void log_lines(void **state) {
    (void)state;
    char path[512], line[512] = "";
    snprintf(path, sizeof path, "%s/parity/mha.gguf", PD_TEST_DATA);
    pd_model_params mp;
    pd_model_params_default(&mp, sizeof mp);
    mp.model_path = path;
    mp.log = note_line;
    mp.log_user = line;
    mp.compute = PD_COMPUTE_GGML;
    pd_model *model;
    assert_int_equal(pd_model_load(&mp, &model, NULL), PD_OK);
    assert_non_null(strstr(line, pd_model_description(model)));
    assert_non_null(strstr(line, "compute ggml"));
    line[0] = '\0';
    pd_session_params params = params_of("none");
    params.n_ctx = 2048;
    pd_session_free(create(model, &params));
    assert_string_equal(line, "");
    params.n_ctx = 2049;
    pd_session_free(create(model, &params));
    assert_string_equal(line, "a context of 2049 is longer than the 2048 the model was trained with");
    pd_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sampler_greedy),
        cmocka_unit_test(sampler_distribution),
        cmocka_unit_test(sampler_cuts),
        cmocka_unit_test(sampler_seed),
        cmocka_unit_test(sampler_repeat_penalty),
        cmocka_unit_test(sampler_arguments),
        cmocka_unit_test(prompts_start_afresh),
        cmocka_unit_test(pictures_are_encoded_once),
        cmocka_unit_test(sessions_side_by_side),
        cmocka_unit_test(models_side_by_side),
        cmocka_unit_test(answers_end),
        cmocka_unit_test(long_answers),
        cmocka_unit_test(stop_texts),
        cmocka_unit_test(cut_characters),
        cmocka_unit_test(padding_is_never_drawn),
        cmocka_unit_test(penalty_passes_pictures_over),
        cmocka_unit_test(cancelled_prompts),
        cmocka_unit_test(cancelled_answers),
        cmocka_unit_test(kv_bytes),
        cmocka_unit_test(flops_of_the_graphs),
        cmocka_unit_test(figures),
        cmocka_unit_test(policies_run),
        cmocka_unit_test(fastv_asks_the_layer_just_run),
        cmocka_unit_test(baselines_keep),
        cmocka_unit_test(model_arguments),
        cmocka_unit_test(model_answers),
        cmocka_unit_test(session_arguments),
        cmocka_unit_test(prompt_arguments),
        cmocka_unit_test(message_arguments),
        cmocka_unit_test(log_lines),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
