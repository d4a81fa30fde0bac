// pdrop flops: what a schedule costs and saves, of a named geometry or of a model file.
#include "drop/flops.h"
#include "cli/cli.h"
#include "model/geometry.h"

#include <stdlib.h>

static struct {
    const char *geometry, *model, *mmproj;
    int32_t n_text, n_images, image_tokens;
    bool json;
} flags = {.n_text = 64, .n_images = 1};

static const pd_option flops_table[] = {
    {.type = PD_OPTION_HEADING, .help = "what"},
    {PD_OPTION_STRING, 0, "--geometry", "NAME",
     "llava-1.5-7b, llava-1.5-13b, llava-next-7b, llava-next-13b, llava-next-mistral-7b, tiny, …",
     &flags.geometry, 0, 0, NULL},
    {PD_OPTION_STRING, 'm', "--model", "FILE", "or a text model (GGUF)", &flags.model, 0, 0, NULL},
    {PD_OPTION_STRING, 0, "--mmproj", "FILE", "and its vision tower and projector (GGUF)", &flags.mmproj, 0,
     0, NULL},
    {PD_OPTION_INT, 0, "--image-tokens", "N",
     "tokens of a picture (default: the most one can have, newlines apart)", &flags.image_tokens, 1, 1 << 24,
     NULL},
    {PD_OPTION_INT, 0, "--images", "N", "pictures (default: 1)", &flags.n_images, 0, 1024, NULL},
    {PD_OPTION_INT, 0, "--text-tokens", "N", "text tokens of the prompt (default: 64)", &flags.n_text, 1,
     1 << 24, NULL},
    {PD_OPTION_FLAG, 0, "--json", NULL, "one line of JSON", &flags.json, 0, 0, NULL},
    {.type = PD_OPTION_END},
};

static const pd_option *const tables[] = {flops_table, pd_schedule_option_table, NULL};

static const pd_command command = {
    .name = "flops",
    .usage = "pdrop flops [--geometry NAME | -m MODEL [--mmproj MMPROJ]] [schedule] [options]",
    .about = "Counts a prompt's prefill, dense and with the pyramid. Two figures: the field's convention "
             "(multiply-\n"
             "accumulates of the image tokens in the decoder's layers), and all FLOPs of the run (2 per "
             "multiply-\n"
             "accumulate: vision tower, projector, text, ranking and output head included). Without a "
             "geometry or\n"
             "model: the published rows for LLaVA-1.5-7B and LLaVA-NeXT-7B.",
    .tables = tables,
};

typedef struct {
    double image_tmacs, total_tflops;
} cost;

static pd_status count(const pd_geometry *geometry, int32_t image_tokens, const pd_policy *policy, cost *out,
                       pd_error *err) {
    const pd_decoder_hyperparameters *h = &geometry->decoder;
    pd_span *spans = calloc((size_t)flags.n_images + 1, sizeof *spans);
    if (!spans) return pd_fail_memory(err, ((size_t)flags.n_images + 1) * sizeof *spans, "the pictures");
    // pictures first, text behind them: only the numbers of rows matter
    for (int32_t i = 0; i < flags.n_images; i++)
        spans[i] = (pd_span){i * image_tokens, image_tokens};
    pd_schedule schedule;
    const pd_status status =
        pd_schedule_create(policy, h->n_layers, flags.n_images * image_tokens + flags.n_text, spans,
                           flags.n_images, &schedule, err);
    if (status == PD_OK) {
        double flops = pd_prefill_flops(h, policy, &schedule);
        if (geometry->vision.n_layers > 0) {
            const int32_t patches = pd_vision_n_patches(&geometry->vision);
            // Of a picture: a tile's patches and at most as many newlines as it has rows.
            const int32_t most = patches + geometry->vision.image_size / geometry->vision.patch_size;
            const int32_t tiles = (image_tokens + most - 1) / most;
            flops += (double)flags.n_images * tiles *
                     (pd_vision_tower_flops(&geometry->vision) +
                      pd_projector_flops(&geometry->vision, geometry->projector_hidden, h->n_embd));
        }
        *out = (cost){pd_image_macs(h, &schedule) * 1e-12, flops * 1e-12};
        pd_schedule_free(&schedule);
    }
    free(spans);
    return status;
}

static pd_status geometry_of_files(pd_gguf files[2], pd_geometry *geometry, pd_error *err) {
    pd_status status = pd_gguf_open(flags.model, &files[0], err);
    if (status == PD_OK) status = pd_decoder_hyperparameters_read(&files[0], &geometry->decoder, err);
    if (status != PD_OK || !flags.mmproj) return status;
    status = pd_gguf_open(flags.mmproj, &files[1], err);
    if (status == PD_OK) status = pd_vision_hyperparameters_read(&files[1], &geometry->vision, err);
    if (status != PD_OK) return status;
    const struct ggml_tensor *mm0 = ggml_get_tensor(files[1].tensors, "mm.0.weight");
    if (!mm0 || mm0->ne[1] > INT32_MAX)
        return pd_fail(err, PD_ERR_FORMAT, "%s: tensor mm.0.weight is missing or too large", flags.mmproj);
    geometry->projector_hidden = (int32_t)mm0->ne[1];
    return PD_OK;
}

static pd_status print_json(const char *name, int32_t image_tokens, const pd_policy *policy, cost pyramid,
                            cost dense, pd_error *err) {
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "model", name);
    yyjson_mut_obj_add_int(doc, root, "n_images", flags.n_images);
    yyjson_mut_obj_add_int(doc, root, "n_image_tokens", (int64_t)flags.n_images * image_tokens);
    yyjson_mut_obj_add_int(doc, root, "n_text_tokens", flags.n_text);
    yyjson_mut_val *layers = yyjson_mut_obj_add_arr(doc, root, "layer_list");
    yyjson_mut_val *ratios = yyjson_mut_obj_add_arr(doc, root, "image_token_ratio_list");
    for (int32_t i = 0; i < policy->n_drops; i++) {
        yyjson_mut_arr_add_int(doc, layers, policy->layer_list[i]);
        yyjson_mut_arr_add_real(doc, ratios, policy->image_token_ratio_list[i]);
    }
    yyjson_mut_obj_add_real(doc, root, "image_tmacs", pyramid.image_tmacs);
    yyjson_mut_obj_add_real(doc, root, "image_tmacs_dense", dense.image_tmacs);
    yyjson_mut_obj_add_real(doc, root, "total_tflops", pyramid.total_tflops);
    yyjson_mut_obj_add_real(doc, root, "total_tflops_dense", dense.total_tflops);
    return pd_cli_print_json(doc, "the counts", err);
}

static void print_row(const char *name, int32_t image_tokens, const pd_policy *policy, cost pyramid,
                      cost dense) {
    char schedule[128] = "none";
    size_t used = 0;
    for (int32_t i = 0; i < policy->n_drops && used < sizeof schedule - 24; i++) {
        used += (size_t)snprintf(schedule + used, sizeof schedule - used, "%s%d=%g", i ? "," : "",
                                 policy->layer_list[i], policy->image_token_ratio_list[i]);
    }
    printf("%-22s %6d  %-26s %7.2f T %6.1f %%  %8.2f T %6.1f %%\n", name, flags.n_images * image_tokens,
           schedule, pyramid.image_tmacs,
           dense.image_tmacs > 0 ? 100 * pyramid.image_tmacs / dense.image_tmacs : 100.0,
           pyramid.total_tflops, 100 * pyramid.total_tflops / dense.total_tflops);
}

static void print_heading(void) {
    static bool printed;
    if (printed) return;
    printed = true;
    printf("%-22s %6s  %-26s %9s %8s  %10s %8s\n", "model", "image", "schedule", "image", "of", "all", "of");
    printf("%-22s %6s  %-26s %9s %8s  %10s %8s\n", "", "tokens", "", "MACs", "dense", "FLOPs", "dense");
}

static pd_status show(const char *name, const pd_geometry *geometry, const pd_policy *policy, pd_error *err) {
    const int32_t image_tokens = flags.image_tokens          ? flags.image_tokens
                                 : geometry->vision.n_layers ? pd_geometry_n_image_tokens(geometry)
                                                             : 0;
    if ((int64_t)flags.n_images * image_tokens > 1 << 28)
        return pd_fail(err, PD_ERR_ARGUMENT, "%d pictures of %d tokens are too many", flags.n_images,
                       image_tokens);
    pd_policy none;
    pd_policy_none(&none);
    cost pyramid, dense;
    pd_status status = count(geometry, image_tokens, policy, &pyramid, err);
    if (status == PD_OK) status = count(geometry, image_tokens, &none, &dense, err);
    if (status != PD_OK) return status;
    if (flags.json) return print_json(name, image_tokens, policy, pyramid, dense, err);
    print_heading();
    print_row(name, image_tokens, policy, pyramid, dense);
    return PD_OK;
}

// The rows of docs/algorithm.md, section 7.
static pd_status show_published(pd_error *err) {
    static const struct {
        const char *geometry, *policy;
    } rows[] = {{"llava-1.5-7b", "none"},
                {"llava-1.5-7b", "pdrop:8=.5,16=.25,24=.125"},
                {"llava-1.5-7b", "pdrop:10=.5,20=.25"},
                {"llava-next-7b", "none"},
                {"llava-next-7b", "pdrop:8=.5,16=.25,24=.125"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const pd_geometry *geometry;
        pd_policy policy;
        pd_status status = pd_geometry_find(rows[i].geometry, &geometry, err);
        if (status == PD_OK) {
            status = pd_policy_parse(&policy, rows[i].policy, geometry->decoder.n_layers, err);
        }
        if (status == PD_OK) status = show(rows[i].geometry, geometry, &policy, err);
        if (status != PD_OK) return status;
    }
    return PD_OK;
}

static pd_status show_asked(pd_error *err) {
    pd_gguf files[2] = {0};
    pd_geometry of_files = {0};
    const pd_geometry *geometry = &of_files;
    pd_policy policy;
    pd_status status = flags.geometry ? pd_geometry_find(flags.geometry, &geometry, err)
                                      : geometry_of_files(files, &of_files, err);
    if (status == PD_OK) status = pd_cli_policy(geometry->decoder.n_layers, &policy, err);
    if (status == PD_OK) status = show(flags.geometry ? flags.geometry : flags.model, geometry, &policy, err);
    pd_gguf_close(&files[0]);
    pd_gguf_close(&files[1]);
    return status;
}

int pd_cli_flops(int argc, char **argv) {
    int parsed_exit;
    if (!pd_cli_parse(&command, argc, argv, &parsed_exit)) return parsed_exit;
    if (flags.geometry && flags.model) {
        fprintf(stderr, "pdrop flops: --geometry and -m exclude each other\n");
        return PD_EXIT_USAGE;
    }
    const pd_schedule_options *schedule = &pd_schedule_flags;
    if (flags.mmproj && !flags.model) {
        fprintf(stderr, "pdrop flops: --mmproj wants its text model beside it, with -m\n");
        return PD_EXIT_USAGE;
    }
    const bool scheduled = schedule->layer_list || schedule->image_token_ratio_list || schedule->policy ||
                           schedule->no_drop || schedule->positions > 0;
    if (scheduled && !flags.geometry && !flags.model) {
        fprintf(stderr, "pdrop flops: a schedule wants --geometry or -m to lay it over\n");
        return PD_EXIT_USAGE;
    }
    pd_error err;
    const pd_status status = flags.geometry || flags.model ? show_asked(&err) : show_published(&err);
    return status == PD_OK ? PD_EXIT_OK : pd_cli_report(status, &err);
}
