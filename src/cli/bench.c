// pdrop bench: prefill and decoding timed, dense and with the pyramid in turn, medians of several rounds.
#include "base/error.h"
#include "base/random.h"
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

static struct {
    int32_t repeats, n_text, n_generate, image_width, image_height, n_images;
    uint64_t seed;
    bool json, quiet, no_vision;
} flags = {
    .repeats = 3, .n_text = 64, .n_generate = 16, .image_width = 336, .image_height = 336, .n_images = 1};

static const pd_option bench_table[] = {
    {.type = PD_OPTION_HEADING, .help = "what is timed"},
    {PD_OPTION_INT, 'r', "--repeats", "N", "counted rounds after one that warms up (default: 3)",
     &flags.repeats, 1, 1000, NULL},
    {PD_OPTION_INT, 0, "--text-tokens", "N", "text tokens of the prompt (default: 64)", &flags.n_text, 2,
     1 << 20, NULL},
    {PD_OPTION_INT, 0, "--images", "N", "pictures in the prompt, with an mmproj (default: 1)",
     &flags.n_images, 0, 16, NULL},
    {PD_OPTION_INT, 0, "--image-width", "N", "their width in pixels (default: 336)", &flags.image_width, 1,
     16384, NULL},
    {PD_OPTION_INT, 0, "--image-height", "N",
     "their height (default: 336; 672 x 672 fills LLaVA-NeXT's grid)", &flags.image_height, 1, 16384, NULL},
    {PD_OPTION_FLAG, 0, "--no-vision", NULL,
     "leave the vision tower out: all pictures are one, encoded while warming up", &flags.no_vision, 0, 0,
     NULL},
    {PD_OPTION_INT, 'n', "--gen", "N", "tokens to decode (default: 16)", &flags.n_generate, 0, 1 << 20, NULL},
    {PD_OPTION_UINT64, 's', "--seed", "N", "seed of pictures and text (default: 0)", &flags.seed, 0, 0, NULL},
    {PD_OPTION_FLAG, 0, "--json", NULL, "one line of JSON: all figures of all rounds", &flags.json, 0, 0,
     NULL},
    {PD_OPTION_FLAG, 'q', "--quiet", NULL, "no progress bar", &flags.quiet, 0, 0, NULL},
    {.type = PD_OPTION_END},
};

static const pd_option *const tables[] = {pd_model_option_table, bench_table, pd_schedule_option_table,
                                          pd_compute_option_table, NULL};

static const pd_command command = {
    .name = "bench",
    .usage = "pdrop bench -m MODEL [--mmproj MMPROJ] [schedule] [options]",
    .about = "Times prefill and decoding on random pictures and text, dense and with the pyramid in turn, "
             "and prints\n"
             "the medians and their ratio. The time to the first token is split into its parts.",
    .tables = tables,
};

// ---- figures ----------------------------------------------------------------------------------------------

typedef enum {
    IMAGE_MS,
    VIT_MS,
    PROJECTOR_MS,
    PREFILL_MS,
    RANK_MS,
    FIRST_TOKEN_MS,
    DECODE_MS,
    FIRST_STAGE_MS, // and those of the later stages behind it
    N_FIGURES = FIRST_STAGE_MS + PD_MAX_DROPS + 1
} figure;

typedef struct {
    const char *name;
    pd_policy policy;
    pd_session *session;
    double *rounds[N_FIGURES]; // [repeats] each
    pd_stats stats;            // of the last round; `stages` is not valid
    pd_stage_stats stages[PD_MAX_DROPS + 1];
} contestant;

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int32_t n) {
    double sorted[1000];
    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, compare_doubles);
    return n % 2 ? sorted[n / 2] : 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]);
}

static double median_of(const contestant *c, figure which) {
    return median(c->rounds[which], flags.repeats);
}

// ---- rounds -----------------------------------------------------------------------------------------------

static pd_status make_image(uint64_t *state, pd_image **image, pd_error *err) {
    const size_t size = (size_t)flags.image_width * (size_t)flags.image_height * 3;
    uint8_t *rgb = malloc(size);
    if (!rgb) return pd_fail_memory(err, size, "a picture");
    for (size_t i = 0; i < size; i++)
        rgb[i] = (uint8_t)(pd_random_next(state) >> 56);
    const pd_status status = pd_image_from_rgb(rgb, flags.image_width, flags.image_height, image, err);
    free(rgb);
    return status;
}

static void free_images(pd_image **images) {
    for (int32_t i = flags.n_images - 1; i >= 0; i--) { // the first last: the others may be the same
        if (i == 0 || images[i] != images[0]) pd_image_free(images[i]);
        images[i] = NULL;
    }
}

// New pictures in every round, which no session remembers; with --no-vision one, which all of them do.
static pd_status make_images(uint64_t *state, int32_t round, pd_image **images, pd_error *err) {
    if (flags.no_vision && round >= 0) return PD_OK;
    free_images(images);
    pd_status status = PD_OK;
    for (int32_t i = 0; i < flags.n_images && status == PD_OK; i++) {
        if (flags.no_vision && i > 0) {
            images[i] = images[0];
        } else {
            status = make_image(state, &images[i], err);
        }
    }
    return status;
}

static pd_status run_round(contestant *c, const int32_t *tokens, size_t n_tokens, pd_image *const *images,
                           size_t n_images, int32_t round, pd_error *err) {
    pd_cli_interruptible(c->session);
    pd_status status = pd_session_prompt_tokens(c->session, tokens, n_tokens, images, n_images, err);
    int32_t token;
    for (int32_t i = 0; i <= flags.n_generate && status == PD_OK; i++) {
        status = pd_session_next_token(c->session, &token, err);
    }
    if (status == PD_DONE) status = PD_OK; // the context is full
    if (status != PD_OK || round < 0) return status;
    const pd_stats *s = pd_session_stats(c->session);
    c->rounds[IMAGE_MS][round] = s->image_ms;
    c->rounds[VIT_MS][round] = s->vit_ms;
    c->rounds[PROJECTOR_MS][round] = s->projector_ms;
    c->rounds[PREFILL_MS][round] = s->prefill_ms;
    c->rounds[RANK_MS][round] = s->rank_ms;
    c->rounds[FIRST_TOKEN_MS][round] = s->first_token_ms;
    c->rounds[DECODE_MS][round] = s->n_decoded > 0 ? s->decode_ms / s->n_decoded : 0.0;
    for (int32_t i = 0; i < s->n_stages; i++) {
        c->rounds[FIRST_STAGE_MS + i][round] = s->stages[i].layers_ms;
        c->stages[i] = s->stages[i];
    }
    c->stats = *s;
    return PD_OK;
}

static pd_status run_rounds(contestant *contestants, size_t n_contestants, int32_t n_vocab, pd_error *err) {
    uint64_t state = flags.seed;
    const size_t n_images = (size_t)flags.n_images, n_tokens = n_images + (size_t)flags.n_text;
    int32_t *tokens = malloc(n_tokens * sizeof *tokens);
    if (!tokens) return pd_fail_memory(err, n_tokens * sizeof *tokens, "a prompt");
    pd_image *images[16] = {0};
    pd_status status = PD_OK;
    for (int32_t round = -1; round < flags.repeats && status == PD_OK; round++) {
        for (size_t i = 0; i < n_tokens; i++) { // half of the text, the pictures, the other half
            const bool is_image = i >= (size_t)flags.n_text / 2 && i < (size_t)flags.n_text / 2 + n_images;
            tokens[i] = is_image ? PD_IMAGE_TOKEN : (int32_t)(pd_random_next(&state) % (uint64_t)n_vocab);
        }
        status = make_images(&state, round, images, err);
        if (status == PD_OK && pd_cli_signalled()) status = pd_fail(err, PD_ERR_CANCELLED, "cancelled");
        for (size_t c = 0; c < n_contestants && status == PD_OK; c++) {
            status = run_round(&contestants[c], tokens, n_tokens, images, n_images, round, err);
        }
    }
    free_images(images);
    free(tokens);
    return status;
}

// ---- output -----------------------------------------------------------------------------------------------

static void print_line(const char *name, const contestant *dense, const contestant *pyramid, figure which) {
    const double d = median_of(dense, which), p = median_of(pyramid, which);
    printf("%-24s %12.2f %12.2f", name, d, p);
    if (d > 0) printf(" %9.3f", p / d);
    putchar('\n');
}

static void print_readable(const pd_model *model, const contestant *dense, const contestant *pyramid) {
    const pd_stats *s = &pyramid->stats;
    printf(
        "%s\n%d text and %d image tokens, %d decoded, %s attention, compute %s; medians of %d rounds, ms\n\n",
        pd_model_description(model), s->n_prompt_tokens - s->n_image_tokens, s->n_image_tokens,
        flags.n_generate, pd_compute_flag.attention == PD_ATTENTION_EAGER ? "eager" : "flash",
        pd_session_compute(dense->session), flags.repeats);
    printf("%-24s %12s %12s %9s\n", "", "dense", "pyramid", "ratio");
    print_line("tiles", dense, pyramid, IMAGE_MS);
    print_line("ViT", dense, pyramid, VIT_MS);
    print_line("projector", dense, pyramid, PROJECTOR_MS);
    print_line("prefill", dense, pyramid, PREFILL_MS);
    for (int32_t i = 0; i < s->n_stages; i++) {
        const pd_stage_stats *stage = &pyramid->stages[i];
        char name[64];
        snprintf(name, sizeof name, "  layers %d-%d, %d rows", stage->first_layer,
                 stage->first_layer + stage->n_layers - 1, stage->n_rows);
        printf("%-24s %12s %12.2f\n", name, "", median_of(pyramid, (figure)(FIRST_STAGE_MS + i)));
    }
    const double rank = median_of(pyramid, RANK_MS), prefill = median_of(pyramid, PREFILL_MS);
    printf("%-24s %12s %12.2f   (%.2f %% of prefill, %.2f %% of the time to first token)\n", "  ranking", "",
           rank, 100 * rank / prefill, 100 * rank / median_of(pyramid, FIRST_TOKEN_MS));
    print_line("time to first token", dense, pyramid, FIRST_TOKEN_MS);
    print_line("decode, a token", dense, pyramid, DECODE_MS);
    const double n = s->n_prompt_tokens, dense_prefill = median_of(dense, PREFILL_MS);
    printf("\n%-24s %12.2f %12.2f\n", "prefill, tokens/s", 1e3 * n / dense_prefill, 1e3 * n / prefill);
    const double dense_decode = median_of(dense, DECODE_MS), decode = median_of(pyramid, DECODE_MS);
    if (dense_decode > 0 && decode > 0) {
        printf("%-24s %12.2f %12.2f\n", "decode, tokens/s", 1e3 / dense_decode, 1e3 / decode);
    }
    double vision = 0.0, pyramid_flops = 0.0, dense_flops = 0.0;
    for (int32_t i = 0; i < s->n_stages; i++) {
        pyramid_flops += pyramid->stages[i].flops;
        dense_flops += pyramid->stages[i].flops_dense;
    }
    vision = s->prefill_flops_dense - dense_flops; // and the output head
    printf("%-24s %12.3f %12.3f %9.3f\n", "decoder TFLOP", dense_flops * 1e-12, pyramid_flops * 1e-12,
           pyramid_flops / dense_flops);
    printf("%-24s %12.3f %12.3f %9.3f\n", "all TFLOP", (dense_flops + vision) * 1e-12,
           (pyramid_flops + vision) * 1e-12, (pyramid_flops + vision) / (dense_flops + vision));
    char text[2][24];
    printf("%-24s %12s %12s %9.3f\n", "KV", pd_cli_bytes(text[0], 24, (double)dense->stats.kv_bytes),
           pd_cli_bytes(text[1], 24, (double)s->kv_bytes),
           (double)s->kv_bytes / (double)dense->stats.kv_bytes);
    if (s->packed_bytes > 0)
        printf("%-24s %12s\n", "packed weights", pd_cli_bytes(text[0], 24, (double)s->packed_bytes));
}

static void add_figures(yyjson_mut_doc *doc, yyjson_mut_val *o, const contestant *c) {
    static const char *const names[FIRST_STAGE_MS] = {
        "image_ms", "vit_ms", "projector_ms", "prefill_ms", "rank_ms", "first_token_ms", "decode_ms"};
    for (int i = 0; i < FIRST_STAGE_MS; i++) {
        yyjson_mut_obj_add_real(doc, o, names[i], median_of(c, (figure)i));
    }
    yyjson_mut_val *rounds = yyjson_mut_obj_add_obj(doc, o, "rounds");
    for (int i = 0; i < FIRST_STAGE_MS; i++) {
        yyjson_mut_obj_add(rounds, yyjson_mut_str(doc, names[i]),
                           yyjson_mut_arr_with_real(doc, c->rounds[i], (size_t)flags.repeats));
    }
    const pd_stats *s = &c->stats;
    yyjson_mut_obj_add_uint(doc, o, "kv_bytes", s->kv_bytes);
    yyjson_mut_obj_add_uint(doc, o, "compute_bytes", s->compute_bytes);
    yyjson_mut_obj_add_real(doc, o, "prefill_flops", s->prefill_flops);
    yyjson_mut_val *stages = yyjson_mut_obj_add_arr(doc, o, "stages");
    for (int32_t i = 0; i < s->n_stages; i++) {
        yyjson_mut_val *stage = yyjson_mut_arr_add_obj(doc, stages);
        yyjson_mut_obj_add_int(doc, stage, "first_layer", c->stages[i].first_layer);
        yyjson_mut_obj_add_int(doc, stage, "n_layers", c->stages[i].n_layers);
        yyjson_mut_obj_add_int(doc, stage, "n_rows", c->stages[i].n_rows);
        yyjson_mut_obj_add_int(doc, stage, "n_image_tokens", c->stages[i].n_image_tokens);
        yyjson_mut_obj_add_real(doc, stage, "layers_ms", median_of(c, (figure)(FIRST_STAGE_MS + i)));
        yyjson_mut_obj_add_real(doc, stage, "flops", c->stages[i].flops);
        yyjson_mut_obj_add_uint(doc, stage, "kv_bytes", c->stages[i].kv_bytes);
    }
}

static pd_status print_json(const pd_model *model, const contestant *contestants, size_t n, pd_error *err) {
    const pd_stats *s = &contestants[0].stats;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "model", pd_model_description(model));
    yyjson_mut_obj_add_str(doc, root, "compute", pd_session_compute(contestants[0].session));
    yyjson_mut_obj_add_uint(doc, root, "packed_bytes", s->packed_bytes);
    yyjson_mut_obj_add_int(doc, root, "repeats", flags.repeats);
    yyjson_mut_obj_add_int(doc, root, "n_prompt_tokens", s->n_prompt_tokens);
    yyjson_mut_obj_add_int(doc, root, "n_image_tokens", s->n_image_tokens);
    yyjson_mut_obj_add_int(doc, root, "n_generated", s->n_generated);
    for (size_t i = 0; i < n; i++) {
        add_figures(doc, yyjson_mut_obj_add_obj(doc, root, contestants[i].name), &contestants[i]);
    }
    return pd_cli_print_json(doc, "the figures", err);
}

// ---- the command ------------------------------------------------------------------------------------------

static pd_status prepare(contestant *c, pd_model *model, pd_error *err) {
    double *block = calloc((size_t)N_FIGURES * (size_t)flags.repeats, sizeof *block);
    if (!block)
        return pd_fail_memory(err, N_FIGURES * (size_t)flags.repeats * sizeof *block, "the rounds' figures");
    for (int i = 0; i < N_FIGURES; i++)
        c->rounds[i] = block + (size_t)i * (size_t)flags.repeats;
    pd_session_params params;
    pd_cli_session_params(&c->policy, flags.quiet, &params);
    params.n_predict = flags.n_generate + 1;
    params.ignore_eos = true;
    return pd_session_create(model, &params, &c->session, err);
}

int pd_cli_bench(int argc, char **argv) {
    int parsed_exit;
    if (!pd_cli_parse(&command, argc, argv, &parsed_exit)) return parsed_exit;
    pd_error err;
    pd_model *model = NULL;
    contestant contestants[2] = {{.name = "dense"}, {.name = "pyramid"}};
    bool done;
    pd_status status = pd_cli_load_model(true, &model, &done, &err);
    if (status == PD_OK && done) return PD_EXIT_OK;
    if (status == PD_OK) {
        if (!pd_model_has_vision(model)) flags.n_images = 0;
        pd_policy_none(&contestants[0].policy);
        status = pd_cli_policy(pd_model_n_layers(model), &contestants[1].policy, &err);
    }
    for (size_t i = 0; i < 2 && status == PD_OK; i++)
        status = prepare(&contestants[i], model, &err);
    if (status == PD_OK) status = run_rounds(contestants, 2, pd_model_n_vocab(model), &err);
    pd_cli_interruptible(NULL);
    pd_cli_progress_end();
    if (status == PD_OK && flags.json) {
        status = print_json(model, contestants, 2, &err);
    } else if (status == PD_OK) {
        print_readable(model, &contestants[0], &contestants[1]);
    }
    const int exit_code = status == PD_OK ? PD_EXIT_OK : pd_cli_report(status, &err);
    for (size_t i = 0; i < 2; i++) {
        pd_session_free(contestants[i].session);
        free(contestants[i].rounds[0]);
    }
    pd_model_free(model);
    return exit_code;
}
