// pdrop synth: a GGUF pair with random weights, or with those that a training begins with.
#include "model/synth.h"
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

static struct {
    pd_strings names;
    const char *from, *out, *type, *mmproj_type;
    int32_t n_layers;
    uint64_t seed;
    bool init, quiet;
} flags;

static const pd_option synth_table[] = {
    {.type = PD_OPTION_HEADING, .help = "options"},
    {PD_OPTION_STRING, 0, "--from", "FILE", "a geometry in JSON, and the vocabulary it names", &flags.from, 0,
     0, NULL},
    {PD_OPTION_FLAG, 0, "--init", NULL, "the weights that a training from scratch begins with, in f32",
     &flags.init, 0, 0, NULL},
    {PD_OPTION_STRING, 'o', "--output", "PREFIX",
     "write PREFIX.gguf and PREFIX-mmproj.gguf (default: the name)", &flags.out, 0, 0, NULL},
    {PD_OPTION_INT, 0, "--layers", "N", "decoder layers (default: the geometry's own)", &flags.n_layers, 1,
     1024, NULL},
    {PD_OPTION_STRING, 0, "--type", "TYPE", "type of the decoder's matrices (default: q4_K; with --init f32)",
     &flags.type, 0, 0, NULL},
    {PD_OPTION_STRING, 0, "--mmproj-type", "TYPE",
     "type of the vision tower's and projector's (default: f16; with --init f32)", &flags.mmproj_type, 0, 0,
     NULL},
    {PD_OPTION_UINT64, 's', "--seed", "N", "seed of the weights (default: 0)", &flags.seed, 0, 0, NULL},
    {PD_OPTION_FLAG, 'q', "--quiet", NULL, "no progress bar, no summary", &flags.quiet, 0, 0, NULL},
    {.type = PD_OPTION_END},
};

static const pd_option *const tables[] = {synth_table, NULL};

static const pd_command command = {
    .name = "synth",
    .usage = "pdrop synth GEOMETRY | --from FILE [--init] [-o PREFIX] [--layers N] [--type TYPE] [options]",
    .about =
        "Writes a GGUF pair of a geometry: with random weights and a full vocabulary, for benchmarks and\n"
        "tests, or with the weights that a training from scratch begins with. Geometries: llava-1.5-7b,\n"
        "llava-1.5-13b, llava-next-7b, llava-next-13b, llava-next-mistral-7b, tiny, tiny-gqa, tiny-next.",
    .tables = tables,
    .positional = &flags.names,
};

static bool go_on(const char *what, double progress, void *user) {
    if (!flags.quiet) pd_cli_progress(what, progress, user);
    return !pd_cli_signalled();
}

static const char *const endings[] = {".gguf", "-mmproj.gguf"};

// The pair is not to take the place of the geometry's file or of the one with its vocabulary.
static pd_status expect_others(const pd_synth_params *params, const char *prefix, char *path, size_t size,
                               pd_error *err) {
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        snprintf(path, size, "%s%s", prefix, endings[i]);
        PD_TRY(pd_cli_expect_other("--output", path, flags.from, err));
        if (params->vocabulary) PD_TRY(pd_cli_expect_other("--output", path, params->vocabulary->path, err));
    }
    return PD_OK;
}

static pd_status write_pair(const pd_synth_params *params, const char *prefix, char *path, size_t size,
                            pd_error *err) {
    PD_TRY(expect_others(params, prefix, path, size, err));
    snprintf(path, size, "%s%s", prefix, endings[0]);
    pd_status status = pd_synth_model(params, path, err);
    pd_cli_progress_end();
    if (status != PD_OK) return status;
    if (!flags.quiet) printf("%s\n", path);
    snprintf(path, size, "%s%s", prefix, endings[1]);
    status = pd_synth_mmproj(params, path, err);
    pd_cli_progress_end();
    if (status == PD_OK && !flags.quiet) printf("%s\n", path);
    return status;
}

// The named geometry or the file's; *file is for the caller to close.
static pd_status choose(pd_synth_params *params, pd_geometry_file *file, pd_initializer *initializer,
                        pd_error *err) {
    if (flags.from) {
        PD_TRY(pd_geometry_read(flags.from, file, err));
        *params = pd_synth_from_scratch(file, flags.seed);
        *initializer = file->initializer;
    } else {
        PD_TRY(pd_geometry_find(flags.names.values[0], &params->geometry, err));
        *initializer = pd_initializer_default(params->geometry);
    }
    params->initializer = flags.init ? initializer : NULL;
    params->n_layers = flags.n_layers;
    params->seed = flags.seed;
    params->go_on = go_on;
    const char *type = flags.type ? flags.type : flags.init ? "f32" : "q4_K";
    const char *vision_type = flags.mmproj_type ? flags.mmproj_type : flags.init ? "f32" : "f16";
    PD_TRY(pd_synth_type(type, &params->type, err));
    return pd_synth_type(vision_type, &params->vision_type, err);
}

int pd_cli_synth(int argc, char **argv) {
    int parsed_exit;
    if (!pd_cli_parse(&command, argc, argv, &parsed_exit)) return parsed_exit;
    if (flags.names.count + (flags.from != NULL) != 1) {
        fprintf(stderr,
                "pdrop synth: expected one geometry, a name or --from FILE (see pdrop synth --help)\n");
        return PD_EXIT_USAGE;
    }
    pd_error err;
    pd_synth_params params = {0};
    pd_geometry_file file = {0};
    pd_initializer initializer;
    pd_status status = choose(&params, &file, &initializer, &err);
    if (status == PD_OK) {
        const char *prefix = flags.out ? flags.out : params.geometry->name;
        const size_t size = strlen(prefix) + sizeof "-mmproj.gguf";
        char *path = malloc(size);
        if (path) {
            pd_cli_catch_signals();
            status = write_pair(&params, prefix, path, size, &err);
        } else {
            status = pd_fail_memory(&err, size, "a file name");
        }
        free(path);
    }
    pd_geometry_file_close(&file);
    return status == PD_OK ? PD_EXIT_OK : pd_cli_report(status, &err);
}
