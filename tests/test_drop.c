// Policies, schedules, selection and the counting of FLOPs, against plain references and published figures.
#include "base/random.h"
#include "drop/flops.h"
#include "drop/select.h"
#include "model/geometry.h"

#include <math.h>
#include <pyramiddrop.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // wants the above

#include "checks.h" // wants cmocka

enum { N_LAYERS = 32 };

static void assert_policy(const pd_policy *policy, int32_t n_drops, const int32_t *layers,
                          const double *ratios, pd_scorer scorer) {
    assert_int_equal(policy->n_drops, n_drops);
    for (int32_t i = 0; i < n_drops; i++) {
        assert_int_equal(policy->layer_list[i], layers[i]);
        assert_true(policy->image_token_ratio_list[i] == ratios[i]);
    }
    assert_int_equal(policy->scorer, scorer);
}

// ---- policies ---------------------------------------------------------------------------------------------

static void defaults(void **state) {
    (void)state;
    static const struct {
        int32_t n_layers, n_drops;
        int32_t layers[3];
        double ratios[3];
    } cases[] = {
        {32, 3, {8, 16, 24}, {0.5, 0.25, 0.125}},
        {40, 3, {10, 20, 30}, {0.5, 0.25, 0.125}},
        {30, 3, {7, 15, 22}, {0.5, 0.25, 0.125}},
        {4, 3, {1, 2, 3}, {0.5, 0.25, 0.125}},
        {3, 2, {1, 2}, {0.25, 0.125}},
        {2, 1, {1}, {0.25}},
        {1, 0, {0}, {0}},
        {0, 0, {0}, {0}},
        {INT32_MAX, 3, {536870911, 1073741823, 1610612735}, {0.5, 0.25, 0.125}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pd_policy policy;
        memset(&policy, 0xff, sizeof policy);
        pd_policy_default(&policy, cases[i].n_layers);
        assert_policy(&policy, cases[i].n_drops, cases[i].layers, cases[i].ratios, PD_SCORER_NEXT_LAYER);
        assert_int_equal(policy.positions, PD_POSITIONS_COMPACT);
        assert_int_equal(pd_policy_check(&policy, cases[i].n_layers, NULL), PD_OK);
    }
    pd_policy none;
    memset(&none, 0xff, sizeof none);
    pd_policy_none(&none);
    assert_policy(&none, 0, NULL, NULL, PD_SCORER_NEXT_LAYER);
    assert_int_equal(pd_policy_check(&none, 1, NULL), PD_OK);
}

static void pyramids(void **state) {
    (void)state;
    pd_policy policy;
    pd_error err;
    const int32_t layers[] = {1, 5, 31};
    const double ratios[] = {1.0, 0.3, 0.0};
    assert_int_equal(pd_policy_pyramid(&policy, layers, ratios, 3, &err), PD_OK);
    assert_policy(&policy, 3, layers, ratios, PD_SCORER_NEXT_LAYER);
    const double repeated[] = {0.5, 0.5, 0.5};
    assert_int_equal(pd_policy_pyramid(&policy, layers, repeated, 3, &err), PD_OK);
    assert_int_equal(pd_policy_pyramid(&policy, NULL, NULL, 0, &err), PD_OK);
    assert_policy(&policy, 0, NULL, NULL, PD_SCORER_NEXT_LAYER);

    int32_t many_layers[PD_MAX_DROPS + 1];
    double many_ratios[PD_MAX_DROPS + 1];
    for (int32_t i = 0; i <= PD_MAX_DROPS; i++) {
        many_layers[i] = i + 1;
        many_ratios[i] = 1.0 / (i + 2);
    }
    assert_int_equal(pd_policy_pyramid(&policy, many_layers, many_ratios, PD_MAX_DROPS, &err), PD_OK);
    assert_policy(&policy, PD_MAX_DROPS, many_layers, many_ratios, PD_SCORER_NEXT_LAYER);
    assert_fails(pd_policy_pyramid(&policy, many_layers, many_ratios, PD_MAX_DROPS + 1, &err),
                 PD_ERR_ARGUMENT, &err, "0 to 31");
    assert_int_equal(policy.n_drops, 0); // a failure leaves the dense policy
    assert_fails(pd_policy_pyramid(&policy, layers, ratios, -1, &err), PD_ERR_ARGUMENT, &err, "found -1");

    static const struct {
        int32_t layers[2];
        double ratios[2];
        const char *message;
    } wrong[] = {
        {{0, 5}, {0.5, 0.5}, "from 1, found 0"},     {{-3, 5}, {0.5, 0.5}, "found -3"},
        {{5, 5}, {0.5, 0.5}, "found 5 after 5"},     {{6, 5}, {0.5, 0.5}, "found 5 after 6"},
        {{1, 5}, {0.5, 0.6}, "found 0.6 after 0.5"}, {{1, 5}, {1.1, 0.5}, "found 1.1"},
        {{1, 5}, {0.5, -0.1}, "found -0.1"},         {{1, 5}, {0.5, NAN}, "[0, 1]"},
        {{1, 5}, {INFINITY, 0.5}, "found inf"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        policy.n_drops = 7;
        assert_fails(pd_policy_pyramid(&policy, wrong[i].layers, wrong[i].ratios, 2, &err), PD_ERR_ARGUMENT,
                     &err, wrong[i].message);
        assert_int_equal(policy.n_drops, 0);
        assert_int_equal(pd_policy_pyramid(&policy, wrong[i].layers, wrong[i].ratios, 2, NULL),
                         PD_ERR_ARGUMENT);
    }
}

static void checks(void **state) {
    (void)state;
    pd_policy policy;
    pd_error err;
    pd_policy_default(&policy, N_LAYERS);
    assert_int_equal(pd_policy_check(&policy, 25, &err), PD_OK);
    assert_fails(pd_policy_check(&policy, 24, &err), PD_ERR_ARGUMENT, &err,
                 "layer 24 is beyond the model (expected 1 to 23)");
    policy.n_drops = -1;
    assert_fails(pd_policy_check(&policy, N_LAYERS, &err), PD_ERR_ARGUMENT, &err, "found -1");
    policy.n_drops = PD_MAX_DROPS + 1;
    assert_fails(pd_policy_check(&policy, N_LAYERS, &err), PD_ERR_ARGUMENT, &err, "found 32");
    pd_policy_default(&policy, N_LAYERS);
    policy.scorer = (pd_scorer)4;
    assert_fails(pd_policy_check(&policy, N_LAYERS, &err), PD_ERR_ARGUMENT, &err, "unknown scorer 4");
    policy.scorer = PD_SCORER_RANDOM;
    policy.positions = (pd_positions)2;
    assert_fails(pd_policy_check(&policy, N_LAYERS, &err), PD_ERR_ARGUMENT, &err, "unknown positions 2");
    policy.positions = PD_POSITIONS_ORIGINAL;
    assert_int_equal(pd_policy_check(&policy, N_LAYERS, &err), PD_OK);
    policy.image_token_ratio_list[1] = 0.75;
    assert_fails(pd_policy_check(&policy, N_LAYERS, &err), PD_ERR_ARGUMENT, &err, "found 0.75 after 0.5");
}

static void lists(void **state) {
    (void)state;
    pd_policy policy;
    pd_error err;
    static const int32_t layers[] = {8, 16, 24};
    static const double ratios[] = {0.5, 0.25, 0.125};
    static const char *const same[][2] = {
        {"[8,16,24]", "[0.5,0.25,0.125]"},
        {"8,16,24", ".5,.25,.125"},
        {" [ 8 , 16,\t24 ] ", "[ 5e-1, 0.25 ,1.25e-1 ]"},
        {"8, 16, 24 ", "0.5, 0.25, 0.125"},
        {"[8.0,16,24]", "[0.5,0.25,0.125]"},
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        assert_int_equal(pd_policy_lists(&policy, same[i][0], same[i][1], &err), PD_OK);
        assert_policy(&policy, 3, layers, ratios, PD_SCORER_NEXT_LAYER);
    }
    assert_int_equal(pd_policy_lists(&policy, "[]", "[]", &err), PD_OK);
    assert_int_equal(policy.n_drops, 0);
    assert_int_equal(pd_policy_lists(&policy, "", " ", &err), PD_OK);
    assert_int_equal(policy.n_drops, 0);

    static const struct {
        const char *layers, *ratios, *message;
    } wrong[] = {
        {"[8,16]", "[0.5]", "2 entries and image_token_ratio_list 1"},
        {"[8", "[0.5]", "expected \",\" or \"]\""},
        {"8]", "[0.5]", "expected \",\" or the end at \"]\""},
        {"[8]]", "[0.5]", "layer_list"},
        {"[8] 9", "[0.5]", "layer_list"},
        {"[8 9]", "[0.5]", "layer_list"},
        {"[8,]", "[0.5]", "behind the last comma"},
        {"8,", "[0.5]", "behind the last comma"},
        {"[,8]", "[0.5]", "numbers such as"},
        {"[eight]", "[0.5]", "numbers such as"},
        {"[8]", "[half]", "image_token_ratio_list \"[half]\""},
        {"[8]", "[0.5,]", "image_token_ratio_list \"[0.5,]\""},
        {"[8.5]", "[0.5]", "whole numbers, found 8.5"},
        {"[1e7]", "[0.5]", "whole numbers"},
        {"[nan]", "[0.5]", "whole numbers"},
        {"[-1]", "[0.5]", "whole numbers, found -1"},
        {"[0]", "[0.5]", "from 1, found 0"},
        {"[16,8]", "[0.5,0.25]", "found 8 after 16"},
        {"[8,16]", "[0.25,0.5]", "found 0.5 after 0.25"},
        {"[8]", "[nan]", "[0, 1]"},
        {"[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32]", "[0.5]",
         "at most 31"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_fails(pd_policy_lists(&policy, wrong[i].layers, wrong[i].ratios, &err), PD_ERR_ARGUMENT, &err,
                     wrong[i].message);
        assert_int_equal(policy.n_drops, 0);
    }
}

static void texts(void **state) {
    (void)state;
    pd_error err;
    static const struct {
        const char *text;
        int32_t n_drops;
        int32_t layers[3];
        double ratios[3];
        pd_scorer scorer;
        pd_positions positions;
        uint64_t seed;
    } cases[] = {
        {"none", 0, {0}, {0}, PD_SCORER_NEXT_LAYER, PD_POSITIONS_COMPACT, 0},
        {"None;positions=original", 0, {0}, {0}, PD_SCORER_NEXT_LAYER, PD_POSITIONS_ORIGINAL, 0},
        {"pdrop", 3, {8, 16, 24}, {0.5, 0.25, 0.125}, PD_SCORER_NEXT_LAYER, PD_POSITIONS_COMPACT, 0},
        {"PDrop;seed=18446744073709551615",
         3,
         {8, 16, 24},
         {0.5, 0.25, 0.125},
         PD_SCORER_NEXT_LAYER,
         PD_POSITIONS_COMPACT,
         UINT64_MAX},
        {"pdrop:8=.5,16=.25,24=.125",
         3,
         {8, 16, 24},
         {0.5, 0.25, 0.125},
         PD_SCORER_NEXT_LAYER,
         PD_POSITIONS_COMPACT,
         0},
        {"pdrop:31=1e-3;positions=original;positions=compact",
         1,
         {31},
         {1e-3},
         PD_SCORER_NEXT_LAYER,
         PD_POSITIONS_COMPACT,
         0},
        {"fastv:2", 1, {2}, {0.5}, PD_SCORER_PREVIOUS_LAYER, PD_POSITIONS_COMPACT, 0},
        {"fastv:2=.25,4=0;positions=original",
         2,
         {2, 4},
         {0.25, 0},
         PD_SCORER_PREVIOUS_LAYER,
         PD_POSITIONS_ORIGINAL,
         0},
        {"vtw:16", 1, {16}, {0}, PD_SCORER_UNIFORM, PD_POSITIONS_COMPACT, 0},
        {"uniform:8=.5", 1, {8}, {0.5}, PD_SCORER_UNIFORM, PD_POSITIONS_COMPACT, 0},
        {"random:8=.5,16=.25;seed=7;positions=original",
         2,
         {8, 16},
         {0.5, 0.25},
         PD_SCORER_RANDOM,
         PD_POSITIONS_ORIGINAL,
         7},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pd_policy policy;
        memset(&policy, 0xff, sizeof policy);
        assert_int_equal(pd_policy_parse(&policy, cases[i].text, N_LAYERS, &err), PD_OK);
        assert_policy(&policy, cases[i].n_drops, cases[i].layers, cases[i].ratios, cases[i].scorer);
        assert_int_equal(policy.positions, cases[i].positions);
        assert_true(policy.seed == cases[i].seed);
    }
    static const struct {
        const char *text, *message;
    } wrong[] = {
        {"", "none, pdrop, fastv"},
        {"pyramid", "none, pdrop, fastv"},
        {"pdro", "none, pdrop, fastv"},
        {"pdropp", "none, pdrop, fastv"},
        {" pdrop", "none, pdrop, fastv"},
        {"pdrop ", "none, pdrop, fastv"},
        {"none:8=.5", "nothing after none"},
        {"fastv", "a list such as"},
        {"random;seed=7", "a list such as"},
        {"pdrop:", "a layer number"},
        {"pdrop:x", "a layer number"},
        {"pdrop: 8=.5", "a layer number"},
        {"pdrop:-8=.5", "a layer number"},
        {"pdrop:99999999999=.5", "a layer number"},
        {"pdrop:99999999999999999999=.5", "a layer number"},
        {"pdrop:8", "\"=\" and a ratio"},
        {"pdrop:8=", "a ratio"},
        {"pdrop:8= .5", "a ratio"},
        {"pdrop:8=x", "a ratio"},
        {"pdrop:8=.5,", "a layer number"},
        {"pdrop:8=.5 ", "\";\" or the end"},
        {"pdrop:8=.5/16=.25", "\";\" or the end"},
        {"pdrop:8=.5;", "positions=compact"},
        {"pdrop:8=.5;positions=none", "positions=compact"},
        {"pdrop:8=.5;seed=", "seed=N"},
        {"pdrop:8=.5;seed=-1", "seed=N"},
        {"pdrop:8=.5;seed=7x", "\";\" or the end"},
        {"pdrop:8=.5;seed=18446744073709551616", "below 2^64"},
        {"pdrop:8=1.5", "found 1.5"},
        {"pdrop:8=nan", "[0, 1]"},
        {"pdrop:0=.5", "from 1, found 0"},
        {"pdrop:8=.5,8=.25", "found 8 after 8"},
        {"pdrop:8=.25,16=.5", "found 0.5 after 0.25"},
        {"pdrop:32=.5", "layer 32 is beyond the model (expected 1 to 31)"},
        {"pdrop:1=.5,2=.5,3=.5,4=.5,5=.5,6=.5,7=.5,8=.5,9=.5,10=.5,11=.5,12=.5,13=.5,14=.5,15=.5,16=.5,"
         "17=.5,18=.5,19=.5,20=.5,21=.5,22=.5,23=.5,24=.5,25=.5,26=.5,27=.5,28=.5,29=.5,30=.5,31=.5,32=.5",
         "no more than 31 drops"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        pd_policy policy, before;
        memset(&policy, 0x5a, sizeof policy);
        before = policy;
        assert_fails(pd_policy_parse(&policy, wrong[i].text, N_LAYERS, &err), PD_ERR_ARGUMENT, &err,
                     wrong[i].message);
        assert_memory_equal(&policy, &before, sizeof policy); // left as it was
    }
}

// ---- schedules --------------------------------------------------------------------------------------------

// Truncation of the double product, as Python's int(n * ratio) has it.
static void kept_tokens(void **state) {
    (void)state;
    static const struct {
        int32_t n;
        double ratio;
        int32_t kept;
    } cases[] = {
        {576, 0.5, 288}, {576, 0.25, 144}, {576, 0.125, 72},   {576, 0.7, 403}, {576, 0.0625, 36},
        {100, 0.29, 28}, // 28.999999999999996
        {100, 0.57, 56}, // 56.99999999999999
        {10, 0.3, 3},    {1000, 0.001, 1}, {2880, 0.125, 360}, {7, 0.5, 3},     {1, 0.999, 0},
        {1, 1.0, 1},     {576, 0.0, 0},    {0, 0.5, 0},        {576, 1.0, 576}, {2147483647, 1.0, 2147483647},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(pd_kept_tokens(cases[i].n, cases[i].ratio), cases[i].kept);
}

static pd_schedule make_schedule(const pd_policy *policy, int32_t n_rows, const pd_span *images,
                                 int32_t n_images) {
    pd_schedule schedule;
    assert_int_equal(pd_schedule_create(policy, N_LAYERS, n_rows, images, n_images, &schedule, NULL), PD_OK);
    assert_int_equal(schedule.n_stages, policy->n_drops + 1);
    assert_int_equal(schedule.n_images, n_images);
    int32_t layer = 0;
    for (int32_t s = 0; s < schedule.n_stages; s++) {
        assert_int_equal(schedule.stages[s].first_layer, layer);
        assert_true(schedule.stages[s].end_layer > layer);
        layer = schedule.stages[s].end_layer;
    }
    assert_int_equal(layer, N_LAYERS);
    return schedule;
}

static void schedules(void **state) {
    (void)state;
    pd_policy policy;
    // text 3, picture 7, text 1, picture 10, picture 1, text 4
    const pd_span images[] = {{3, 7}, {11, 10}, {21, 1}};
    assert_int_equal(pd_policy_parse(&policy, "pdrop:4=1,8=.5,12=.5,20=.3,30=0", N_LAYERS, NULL), PD_OK);
    pd_schedule schedule = make_schedule(&policy, 26, images, 3);
    static const pd_span expected[6][3] = {
        {{3, 7}, {11, 10}, {21, 1}}, {{3, 7}, {11, 10}, {21, 1}}, {{3, 3}, {7, 5}, {12, 0}},
        {{3, 3}, {7, 5}, {12, 0}},   {{3, 2}, {6, 3}, {9, 0}},    {{3, 0}, {4, 0}, {4, 0}},
    };
    static const int32_t rows[] = {26, 26, 16, 16, 13, 8};
    static const bool drops[] = {false, false, true, false, true, true};
    static const bool ranks[] = {false, false, true, false, true, false};
    for (int32_t s = 0; s < 6; s++) {
        const pd_stage *stage = &schedule.stages[s];
        int32_t n_image_tokens = 0;
        for (int32_t i = 0; i < 3; i++) {
            assert_int_equal(stage->images[i].start, expected[s][i].start);
            assert_int_equal(stage->images[i].count, expected[s][i].count);
            n_image_tokens += expected[s][i].count;
        }
        assert_int_equal(stage->n_rows, rows[s]);
        assert_int_equal(stage->n_image_tokens, n_image_tokens);
        if (s == 0) continue;
        assert_int_equal(pd_schedule_drops(&schedule, s), drops[s]);
        assert_int_equal(pd_schedule_ranks(&policy, &schedule, s), ranks[s]);
        policy.scorer = PD_SCORER_PREVIOUS_LAYER;
        assert_int_equal(pd_schedule_ranks(&policy, &schedule, s), ranks[s]);
        policy.scorer = PD_SCORER_UNIFORM;
        assert_false(pd_schedule_ranks(&policy, &schedule, s));
        policy.scorer = PD_SCORER_RANDOM;
        assert_false(pd_schedule_ranks(&policy, &schedule, s));
        policy.scorer = PD_SCORER_NEXT_LAYER;
    }
    pd_schedule_free(&schedule);
    pd_schedule_free(&schedule); // a second time does nothing

    // text only
    schedule = make_schedule(&policy, 26, NULL, 0);
    for (int32_t s = 0; s < schedule.n_stages; s++) {
        assert_int_equal(schedule.stages[s].n_rows, 26);
        assert_int_equal(schedule.stages[s].n_image_tokens, 0);
        if (s > 0) assert_false(pd_schedule_drops(&schedule, s));
        if (s > 0) assert_false(pd_schedule_ranks(&policy, &schedule, s));
    }
    pd_schedule_free(&schedule);

    // nothing left at all: pictures alone, withdrawn
    pd_error err;
    const pd_span alone[] = {{0, 7}, {7, 5}};
    assert_int_equal(pd_policy_parse(&policy, "pdrop:4=.5,8=0", N_LAYERS, NULL), PD_OK);
    assert_fails(pd_schedule_create(&policy, N_LAYERS, 12, alone, 2, &schedule, &err), PD_ERR_ARGUMENT, &err,
                 "drops the whole prompt after layer 8");
    assert_null(schedule.stages);
    assert_int_equal(pd_policy_parse(&policy, "pdrop:4=.15", N_LAYERS, NULL), PD_OK);
    schedule = make_schedule(&policy, 12, alone, 2); // 1 of 7 and 0 of 5
    assert_int_equal(schedule.stages[1].n_rows, 1);
    pd_schedule_free(&schedule);

    // never compounded: shares of the 100 it began with, whatever the last stage left
    const pd_span hundred = {0, 100};
    assert_int_equal(pd_policy_parse(&policy, "pdrop:1=.57,2=.29,3=.29,4=.07", N_LAYERS, NULL), PD_OK);
    schedule = make_schedule(&policy, 101, &hundred, 1);
    static const int32_t counts[] = {100, 56, 28, 28, 7};
    for (int32_t s = 0; s < 5; s++)
        assert_int_equal(schedule.stages[s].images[0].count, counts[s]);
    pd_schedule_free(&schedule);
}

// ---- selection --------------------------------------------------------------------------------------------

// How many of the span's scores stand before score `i`: higher ones, and equal ones with a lower index.
// Numbers stand before what is none.
static int32_t place_of(const float *scores, pd_span span, int32_t i) {
    int32_t place = 0;
    for (int32_t j = span.start; j < span.start + span.count; j++) {
        const bool i_nan = scores[i] != scores[i], j_nan = scores[j] != scores[j];
        if (i_nan ? (!j_nan || j < i) : scores[j] > scores[i] || (scores[j] == scores[i] && j < i)) place++;
    }
    return place;
}

// The rows that live on, by counting for each how many stand before it.
static int32_t select_plainly(const pd_selection *selection, const float *scores, int32_t *rows) {
    int32_t n = 0;
    for (int32_t row = 0; row < selection->before->n_rows; row++) {
        bool lives = true;
        for (int32_t image = 0; image < selection->n_images; image++) {
            const pd_span span = selection->before->images[image];
            if (row >= span.start && row < span.start + span.count)
                lives = place_of(scores, span, row) < selection->after->images[image].count;
        }
        if (lives) rows[n++] = row;
    }
    return n;
}

static uint32_t below(uint64_t *state, uint32_t n) {
    return (uint32_t)(pd_random_next(state) % n);
}

static float random_score(uint64_t *state, uint32_t kind) {
    static const float special[] = {0.0F, -0.0F, INFINITY, -INFINITY, NAN, 1e-40F, 1.0F, -1.0F};
    switch (kind) {
    case 0: // distinct, for all purposes
        return (float)pd_random_uniform(state);
    case 1: // many ties
        return (float)below(state, 3);
    case 2: // all equal
        return 0.25F;
    case 3: // all sorts of floats
        return special[below(state, sizeof special / sizeof *special)];
    default: // none of them a number
        return NAN;
    }
}

// Random spans of 0 to 12 tokens with 0 to 3 rows of text between them.
static int32_t random_spans(uint64_t *state, pd_span *spans, int32_t n_images) {
    int32_t row = (int32_t)below(state, 4);
    for (int32_t i = 0; i < n_images; i++) {
        spans[i] = (pd_span){row, (int32_t)below(state, 13)};
        row += spans[i].count + (int32_t)below(state, 4);
    }
    return row + 1;
}

static void select_random_cases(void **state) {
    (void)state;
    enum { CASES = 20000, MAX_ROWS = 128 };
    uint64_t random = 1;
    for (int32_t n = 0; n < CASES; n++) {
        pd_span spans[4];
        const int32_t n_images = (int32_t)below(&random, 5);
        const int32_t n_rows = random_spans(&random, spans, n_images);
        pd_policy policy;
        pd_policy_none(&policy);
        policy.n_drops = 2;
        policy.layer_list[0] = 1;
        policy.layer_list[1] = 2;
        // 0, 1 and shares between
        policy.image_token_ratio_list[0] = (double)below(&random, 11) / 10.0;
        policy.image_token_ratio_list[1] = policy.image_token_ratio_list[0] * (double)below(&random, 5) / 4.0;
        pd_schedule schedule = make_schedule(&policy, n_rows, spans, n_images);
        for (int32_t stage = 1; stage <= 2; stage++) {
            pd_selection selection;
            assert_int_equal(pd_selection_create(&schedule, stage, &selection, NULL), PD_OK);
            float scores[MAX_ROWS];
            const uint32_t kind = below(&random, 5);
            for (int32_t i = 0; i < MAX_ROWS; i++)
                scores[i] = random_score(&random, kind);
            int32_t rows[MAX_ROWS], expected[MAX_ROWS];
            memset(rows, 0xff, sizeof rows);
            memset(expected, 0xff, sizeof expected);
            pd_select(&selection, scores, rows);
            assert_int_equal(select_plainly(&selection, scores, expected), schedule.stages[stage].n_rows);
            assert_memory_equal(rows, expected, sizeof rows); // and nothing behind the last
            pd_selection_free(&selection);
        }
        pd_schedule_free(&schedule);
    }
}

static void select_by_hand(void **state) {
    (void)state;
    pd_policy policy;
    const pd_span image = {1, 5};
    static const struct {
        const char *policy;
        float scores[7];
        int32_t n, rows[7];
    } cases[] = {
        {"pdrop:1=.4", {9, 1, 5, 3, 4, 2, 0}, 4, {0, 2, 4, 6}}, // text is never asked
        {"pdrop:1=.4", {0, 1, 1, 1, 1, 1, 0}, 4, {0, 1, 2, 6}}, // all equal: the first
        {"pdrop:1=.4", {0, 1, 2, 1, 2, 2, 0}, 4, {0, 2, 4, 6}}, // a tie at the cut
        {"pdrop:1=.4", {0, NAN, -1, NAN, -INFINITY, NAN, 0}, 4, {0, 2, 4, 6}},
        {"pdrop:1=.4", {0, NAN, NAN, NAN, NAN, 7, 0}, 4, {0, 1, 5, 6}},
        {"pdrop:1=.4", {0, 1, INFINITY, 2, INFINITY, INFINITY, 0}, 4, {0, 2, 4, 6}},
        {"pdrop:1=.4", {0, 0.0F, -0.0F, 0.0F, -0.0F, -1, 0}, 4, {0, 1, 2, 6}}, // zeros are equal
        {"pdrop:1=0", {0, 1, 2, 3, 4, 5, 0}, 2, {0, 6}},
        {"pdrop:1=.2", {0, 1, 2, 5, 4, 3, 0}, 3, {0, 3, 6}},
        {"pdrop:1=1", {0, 1, 2, 5, 4, 3, 0}, 7, {0, 1, 2, 3, 4, 5, 6}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(pd_policy_parse(&policy, cases[i].policy, N_LAYERS, NULL), PD_OK);
        pd_schedule schedule = make_schedule(&policy, 7, &image, 1);
        pd_selection selection;
        int32_t rows[7];
        assert_int_equal(pd_selection_create(&schedule, 1, &selection, NULL), PD_OK);
        pd_select(&selection, cases[i].scores, rows);
        assert_int_equal(schedule.stages[1].n_rows, cases[i].n);
        assert_memory_equal(rows, cases[i].rows, (size_t)cases[i].n * sizeof *rows);
        pd_selection_free(&selection);
        pd_schedule_free(&schedule);
    }
}

// Ascending, all of the text, and of each picture as many as planned.
static void assert_valid_selection(const pd_selection *selection, const int32_t *rows) {
    int32_t n_text = 0, n_text_before = selection->before->n_rows;
    int32_t n_of_image[4] = {0};
    for (int32_t i = 0; i < selection->after->n_rows; i++) {
        assert_in_range(rows[i], i > 0 ? rows[i - 1] + 1 : 0, selection->before->n_rows - 1);
        bool text = true;
        for (int32_t image = 0; image < selection->n_images; image++) {
            const pd_span span = selection->before->images[image];
            if (rows[i] < span.start || rows[i] >= span.start + span.count) continue;
            n_of_image[image]++;
            text = false;
        }
        n_text += text;
    }
    for (int32_t image = 0; image < selection->n_images; image++) {
        n_text_before -= selection->before->images[image].count;
        assert_int_equal(n_of_image[image], selection->after->images[image].count);
    }
    assert_int_equal(n_text, n_text_before);
}

static void baselines_random_cases(void **state) {
    (void)state;
    enum { CASES = 5000, MAX_ROWS = 128 };
    uint64_t random = 2;
    for (int32_t n = 0; n < CASES; n++) {
        pd_span spans[4];
        const int32_t n_images = (int32_t)below(&random, 5);
        const int32_t n_rows = random_spans(&random, spans, n_images);
        pd_policy policy;
        pd_policy_none(&policy);
        policy.n_drops = 1;
        policy.layer_list[0] = 1 + (int32_t)below(&random, N_LAYERS - 1);
        policy.image_token_ratio_list[0] = pd_random_uniform(&random);
        pd_schedule schedule = make_schedule(&policy, n_rows, spans, n_images);
        pd_selection selection;
        assert_int_equal(pd_selection_create(&schedule, 1, &selection, NULL), PD_OK);
        int32_t rows[MAX_ROWS], again[MAX_ROWS];
        pd_select_uniform(&selection, rows);
        assert_valid_selection(&selection, rows);
        const uint64_t seed = pd_random_next(&random);
        pd_select_random(&selection, seed, rows);
        assert_valid_selection(&selection, rows);
        pd_select_random(&selection, seed, again);
        assert_memory_equal(rows, again, (size_t)schedule.stages[1].n_rows * sizeof *rows);
        pd_selection_free(&selection);
        pd_schedule_free(&schedule);
    }
}

static void select_uniform(void **state) {
    (void)state;
    pd_policy policy;
    const pd_span image = {2, 10};
    static const struct {
        const char *policy;
        int32_t n, rows[12];
    } cases[] = {
        // the middles of equal parts: floor((2 i + 1) · 10 / (2 k))
        {"uniform:1=.1", 4, {0, 1, 2 + 5, 12}},
        {"uniform:1=.2", 5, {0, 1, 2 + 2, 2 + 7, 12}},
        {"uniform:1=.3", 6, {0, 1, 2 + 1, 2 + 5, 2 + 8, 12}},
        {"uniform:1=.5", 8, {0, 1, 2 + 1, 2 + 3, 2 + 5, 2 + 7, 2 + 9, 12}},
        {"uniform:1=0", 3, {0, 1, 12}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(pd_policy_parse(&policy, cases[i].policy, N_LAYERS, NULL), PD_OK);
        pd_schedule schedule = make_schedule(&policy, 13, &image, 1);
        pd_selection selection;
        int32_t rows[13];
        assert_int_equal(pd_selection_create(&schedule, 1, &selection, NULL), PD_OK);
        pd_select_uniform(&selection, rows);
        assert_int_equal(schedule.stages[1].n_rows, cases[i].n);
        assert_memory_equal(rows, cases[i].rows, (size_t)cases[i].n * sizeof *rows);
        pd_selection_free(&selection);
        pd_schedule_free(&schedule);
    }
}

// Every token is drawn equally often, and another seed or layer draws others.
static void select_random_is_fair(void **state) {
    (void)state;
    enum { SEEDS = 20000, TOKENS = 10, KEPT = 3 };
    pd_policy policy;
    const pd_span image = {0, TOKENS};
    assert_int_equal(pd_policy_parse(&policy, "random:4=.3,8=.3", N_LAYERS, NULL), PD_OK);
    pd_schedule schedule = make_schedule(&policy, TOKENS + 1, &image, 1);
    pd_selection selection;
    assert_int_equal(pd_selection_create(&schedule, 1, &selection, NULL), PD_OK);
    int32_t counts[TOKENS + 1] = {0}, rows[KEPT + 1], last[KEPT + 1] = {0};
    int32_t n_changes = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        pd_select_random(&selection, seed, rows);
        for (int32_t i = 0; i <= KEPT; i++)
            counts[rows[i]]++;
        n_changes += memcmp(rows, last, sizeof rows) != 0;
        memcpy(last, rows, sizeof rows);
    }
    assert_int_equal(counts[TOKENS], SEEDS);
    const double expected = (double)SEEDS * KEPT / TOKENS, deviation = sqrt(expected * (1.0 - 0.3));
    for (int32_t i = 0; i < TOKENS; i++)
        assert_true(fabs(counts[i] - expected) < 5.0 * deviation);
    assert_true(n_changes > SEEDS * 98 / 100); // 119 of 120 pairs of draws differ
    pd_selection_free(&selection);
    pd_schedule_free(&schedule);

    // the drop's layer is part of the seed
    const pd_span hundred = {0, 100};
    assert_int_equal(pd_policy_parse(&policy, "random:4=.5", N_LAYERS, NULL), PD_OK);
    pd_schedule early = make_schedule(&policy, 101, &hundred, 1);
    assert_int_equal(pd_policy_parse(&policy, "random:5=.5", N_LAYERS, NULL), PD_OK);
    pd_schedule late = make_schedule(&policy, 101, &hundred, 1);
    pd_selection early_selection, late_selection;
    assert_int_equal(pd_selection_create(&early, 1, &early_selection, NULL), PD_OK);
    assert_int_equal(pd_selection_create(&late, 1, &late_selection, NULL), PD_OK);
    int32_t early_rows[51], late_rows[51];
    pd_select_random(&early_selection, 7, early_rows);
    pd_select_random(&late_selection, 7, late_rows);
    assert_memory_not_equal(early_rows, late_rows, sizeof early_rows);
    pd_selection_free(&early_selection);
    pd_selection_free(&late_selection);
    pd_schedule_free(&early);
    pd_schedule_free(&late);
}

// ---- cost -------------------------------------------------------------------------------------------------

// docs/algorithm.md, section 7, to the digits printed there.
static void published_macs(void **state) {
    (void)state;
    static const struct {
        const char *geometry, *policy;
        int32_t n_image_tokens;
        const char *tera;
        int digits;
    } cases[] = {
        {"llava-1.5-7b", "none", 576, "3.82", 2},
        {"llava-1.5-7b", "pdrop:8=.5,16=.25,24=.125", 576, "1.78", 2},
        {"llava-1.5-7b", "pdrop:10=.5,20=.25", 576, "2.13", 2},
        {"llava-next-7b", "none", 2880, "20.8", 1},
        {"llava-next-7b", "pdrop", 2880, "9.46", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const pd_geometry *geometry;
        pd_policy policy;
        assert_int_equal(pd_geometry_find(cases[i].geometry, &geometry, NULL), PD_OK);
        assert_int_equal(pd_geometry_n_image_tokens(geometry), cases[i].n_image_tokens);
        assert_int_equal(pd_policy_parse(&policy, cases[i].policy, N_LAYERS, NULL), PD_OK);
        // text stands before and behind, and counts nothing
        const pd_span image = {35, cases[i].n_image_tokens};
        pd_schedule schedule = make_schedule(&policy, 35 + cases[i].n_image_tokens + 20, &image, 1);
        char text[32];
        snprintf(text, sizeof text, "%.*f", cases[i].digits,
                 pd_image_macs(&geometry->decoder, &schedule) * 1e-12);
        assert_string_equal(text, cases[i].tera);
        pd_schedule_free(&schedule);
    }
}

// A decoder small enough to count on fingers: hidden 4, FFN 6, 2 query heads and 1 key head of 3, 8 tokens.
static const pd_decoder_hyperparameters tiny = {
    .n_layers = 3, .n_embd = 4, .n_ff = 6, .n_heads = 2, .n_kv_heads = 1, .head_dim = 3, .n_vocab = 8};

static void true_flops(void **state) {
    (void)state;
    // 5 rows: q 4→6, k and v 4→3, o 6→4, scores and values over 5 rows and 6 channels, three of 4·6
    const double q = 2 * 5 * 4 * 6, kv = 2 * (2 * 5 * 4 * 3), o = 2 * 5 * 6 * 4,
                 attention = 2 * (2 * 5 * 5 * 6);
    const double ffn = 3 * (2 * 5 * 4 * 6);
    assert_true(pd_layer_flops(&tiny, 5, 5) == q + kv + o + attention + ffn);
    assert_true(pd_layer_flops(&tiny, 5, 1) == q / 5 + kv + o / 5 + attention / 5 + ffn / 5);
    assert_true(pd_layers_flops(&tiny, 0, 2, 5) == 2 * pd_layer_flops(&tiny, 5, 5));
    assert_true(pd_layers_flops(&tiny, 0, 3, 5) ==
                2 * pd_layer_flops(&tiny, 5, 5) + pd_layer_flops(&tiny, 5, 1));
    assert_true(pd_output_flops(&tiny) == 2 * 4 * 8);
    // one query, 5 scores of 6 channels, the keys of the 2 that are dropped
    assert_true(pd_rank_flops(&tiny, 5, 3) == 2 * 4 * 6 + 2 * 5 * 6 + 2 * 2 * 4 * 3);

    const pd_span image = {1, 3};
    pd_policy policy;
    pd_policy_none(&policy);
    policy.n_drops = 1;
    policy.layer_list[0] = 1;
    policy.image_token_ratio_list[0] = 0.5; // of 3: 1
    pd_schedule schedule;
    assert_int_equal(pd_schedule_create(&policy, 3, 5, &image, 1, &schedule, NULL), PD_OK);
    const double layers =
        pd_layers_flops(&tiny, 0, 1, 5) + pd_layers_flops(&tiny, 1, 3, 3) + pd_output_flops(&tiny);
    assert_true(pd_prefill_flops(&tiny, &policy, &schedule) == layers + pd_rank_flops(&tiny, 5, 3));
    policy.scorer = PD_SCORER_PREVIOUS_LAYER; // all of its keys serve the layer that is run
    assert_true(pd_prefill_flops(&tiny, &policy, &schedule) == layers + pd_rank_flops(&tiny, 5, 5));
    policy.scorer = PD_SCORER_UNIFORM;
    assert_true(pd_prefill_flops(&tiny, &policy, &schedule) == layers);
    pd_schedule_free(&schedule);

    // a tile of 2 x 2 patches of 2 x 2 pixels, hidden 3, FFN 5, 2 layers
    const pd_vision_hyperparameters vision = {
        .image_size = 4, .patch_size = 2, .n_embd = 3, .n_ff = 5, .n_layers_run = 2};
    assert_int_equal(pd_vision_n_patches(&vision), 4);
    const double layer = 4 * (2 * 5 * 3 * 3) + 2 * (2 * 5 * 5 * 3) + 2 * (2 * 5 * 3 * 5);
    assert_true(pd_vision_tower_flops(&vision) == 2 * 4 * (3 * 2 * 2) * 3 + 2 * layer);
    assert_true(pd_projector_flops(&vision, 7, 4) == 2 * 4 * 3 * 7 + 2 * 4 * 7 * 4);
}

static void geometries(void **state) {
    (void)state;
    const pd_geometry *geometry;
    pd_error err;
    assert_true(pd_geometry_count() >= 5);
    for (size_t i = 0; i < pd_geometry_count(); i++) {
        const pd_geometry *at = pd_geometry_at(i);
        assert_int_equal(pd_geometry_find(at->name, &geometry, &err), PD_OK);
        assert_ptr_equal(geometry, at);
        assert_int_equal(at->decoder.head_dim * at->decoder.n_heads, at->decoder.n_embd);
        assert_int_equal(at->decoder.n_heads % at->decoder.n_kv_heads, 0);
        assert_int_equal(at->vision.image_size % at->vision.patch_size, 0);
        assert_int_equal(at->vision.n_layers_run, at->vision.n_layers - 1);
    }
    assert_fails(pd_geometry_find("llava-2-7b", &geometry, &err), PD_ERR_ARGUMENT, &err, "llava-next-7b");
    assert_null(geometry);

    assert_int_equal(pd_geometry_find("llava-1.5-7b", &geometry, &err), PD_OK);
    assert_int_equal(geometry->decoder.n_layers, 32);
    assert_int_equal(geometry->decoder.n_embd, 4096);
    assert_int_equal(geometry->decoder.n_ff, 11008);
    assert_int_equal(geometry->vision.n_layers_run, 23);
    assert_int_equal(pd_geometry_find("llava-1.5-13b", &geometry, &err), PD_OK);
    assert_int_equal(geometry->decoder.n_layers, 40);
    assert_int_equal(geometry->decoder.n_embd, 5120);
    assert_int_equal(geometry->decoder.n_ff, 13824);
    assert_int_equal(pd_geometry_n_image_tokens(geometry), 576);

    // the largest grid a file may ask for does not overflow
    pd_geometry huge = *geometry;
    huge.vision = (pd_vision_hyperparameters){
        .image_size = 4096, .patch_size = 1, .n_pinpoints = 1, .pinpoints = {{64 * 4096, 64 * 4096}}};
    assert_int_equal(pd_geometry_n_image_tokens(&huge), INT32_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),       cmocka_unit_test(pyramids),
        cmocka_unit_test(checks),         cmocka_unit_test(lists),
        cmocka_unit_test(texts),          cmocka_unit_test(kept_tokens),
        cmocka_unit_test(schedules),      cmocka_unit_test(select_random_cases),
        cmocka_unit_test(select_by_hand), cmocka_unit_test(baselines_random_cases),
        cmocka_unit_test(select_uniform), cmocka_unit_test(select_random_is_fair),
        cmocka_unit_test(published_macs), cmocka_unit_test(true_flops),
        cmocka_unit_test(geometries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
