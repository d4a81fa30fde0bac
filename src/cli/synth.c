// pdrop synth: a GGUF pair with random weights.
#include "model/synth.h"
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

static struct {
    pd_strings names;
    const char *out, *type, *mmproj_type;
    int32_t n_layers;
    uint64_t seed;
    bool quiet;
} flags = {.type = "q4_K", .mmproj_type = "f16"};

static const pd_option synth_table[] = {
    {.type = PD_OPTION_HEADING, .help = "options"},
    {PD_OPTION_STRING, 'o', "--output", "PREFIX",
     "write PREFIX.gguf and PREFIX-mmproj.gguf (default: the name)", &flags.out, 0, 0, NULL},
    {PD_OPTION_INT, 0, "--layers", "N", "decoder layers (default: the geometry's own)", &flags.n_layers, 1,
     1024, NULL},
    {PD_OPTION_STRING, 0, "--type", "TYPE", "type of the decoder's matrices (default: q4_K)", &flags.type, 0,
     0, NULL},
    {PD_OPTION_STRING, 0, "--mmproj-type", "TYPE",
     "type of the vision tower's and projector's (default: f16)", &flags.mmproj_type, 0, 0, NULL},
    {PD_OPTION_UINT64, 's', "--seed", "N", "seed of the weights (default: 0)", &flags.seed, 0, 0, NULL},
    {PD_OPTION_FLAG, 'q', "--quiet", NULL, "no progress bar, no summary", &flags.quiet, 0, 0, NULL},
    {.type = PD_OPTION_END},
};

static const pd_option *const tables[] = {synth_table, NULL};

static const pd_command command = {
    .name = "synth",
    .usage = "pdrop synth GEOMETRY [-o PREFIX] [--layers N] [--type TYPE] [options]",
    .about = "Writes a GGUF pair of a named geometry with random weights and a full vocabulary, for "
             "benchmarks and\n"
             "tests. Geometries: llava-1.5-7b, llava-1.5-13b, llava-next-7b, llava-next-13b,\n"
             "llava-next-mistral-7b, tiny, tiny-gqa, tiny-next.",
    .tables = tables,
    .positional = &flags.names,
};

static bool go_on(const char *what, double progress, void *user) {
    if (!flags.quiet) pd_cli_progress(what, progress, user);
    return !pd_cli_signalled();
}

static pd_status write_pair(const pd_synth_params *params, const char *prefix, char *path, size_t size,
                            pd_error *err) {
    snprintf(path, size, "%s.gguf", prefix);
    pd_status status = pd_synth_model(params, path, err);
    pd_cli_progress_end();
    if (status != PD_OK) return status;
    if (!flags.quiet) printf("%s\n", path);
    snprintf(path, size, "%s-mmproj.gguf", prefix);
    status = pd_synth_mmproj(params, path, err);
    pd_cli_progress_end();
    if (status == PD_OK && !flags.quiet) printf("%s\n", path);
    return status;
}

int pd_cli_synth(int argc, char **argv) {
    int parsed_exit;
    if (!pd_cli_parse(&command, argc, argv, &parsed_exit)) return parsed_exit;
    if (flags.names.count != 1) {
        fprintf(stderr, "pdrop synth: expected one geometry (see pdrop synth --help)\n");
        return PD_EXIT_USAGE;
    }
    pd_error err;
    pd_synth_params params = {.n_layers = flags.n_layers, .seed = flags.seed, .go_on = go_on};
    pd_status status = pd_geometry_find(flags.names.values[0], &params.geometry, &err);
    if (status == PD_OK) status = pd_synth_type(flags.type, &params.type, &err);
    if (status == PD_OK) status = pd_synth_type(flags.mmproj_type, &params.vision_type, &err);
    if (status == PD_OK) {
        const char *prefix = flags.out ? flags.out : params.geometry->name;
        const size_t size = strlen(prefix) + sizeof "-mmproj.gguf";
        char *path = malloc(size);
        if (path) {
            pd_cli_catch_signals();
            status = write_pair(&params, prefix, path, size, &err);
        } else {
            status = PD_ERR_MEMORY;
            snprintf(err.message, sizeof err.message, "out of memory");
        }
        free(path);
    }
    return status == PD_OK ? PD_EXIT_OK : pd_cli_report(status, &err);
}
