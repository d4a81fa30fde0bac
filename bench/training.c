// A training step of this project's trainer (forward, backward, clipping, AdamW), timed: dense and with the
// pyramid, in turn, on random weights, pictures and tokens.
//
//     training [--proportions llava-1.5|llava-next] [--geometry FILE] [options as bench/peer_train.py's]
//
// Each contestant is a process of its own, so that its peak memory is its own, and each waits for its turn.
// With --wait there is one contestant, that of --layer-list, and it speaks bench/peer_train.py's protocol.
#include "base/random.h"
#include "model/backend.h"
#include "model/synth.h"
#include "train/optimizer.h"
#include "train/step.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_STEPS = 1024, MAX_BATCH = 256, MAX_PICTURES = 64, BOS = 1 };

typedef struct {
    const char *proportions, *geometry, *layer_list, *ratios, *dtype;
    int layers, embd, ff, heads, kv_heads, vocab, image_tokens, text_tokens, batch, threads, steps, warmup;
    int tower_layers, tower_embd, tile_side, patch, vary;
    bool tied, random_features, train_tower, wait, json;
} options;

static options opt = {.layer_list = "",
                      .ratios = "",
                      .dtype = "auto",
                      .layers = 8,
                      .embd = 1024,
                      .ff = 2752,
                      .heads = 16,
                      .kv_heads = 16,
                      .vocab = 32000,
                      .image_tokens = 576,
                      .text_tokens = 80,
                      .batch = 1,
                      .threads = 2,
                      .steps = 5,
                      .warmup = 1,
                      .tower_layers = 6,
                      .tower_embd = 256,
                      .tile_side = 24,
                      .patch = 14};

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "training: %s\n", what);
    exit(1);
}

static void check(pd_status status, const pd_error *err) {
    if (status != PD_OK) fail(err->message);
}

// ---- options -----------------------------------------------------------------------------------------------

static const struct {
    const char *name;
    int *value, least, most;
} int_options[] = {{"--layers", &opt.layers, 2, 512},
                   {"--embd", &opt.embd, 16, 1 << 16},
                   {"--ff", &opt.ff, 16, 1 << 18},
                   {"--heads", &opt.heads, 1, 1024},
                   {"--kv-heads", &opt.kv_heads, 1, 1024},
                   {"--vocab", &opt.vocab, 512, 1 << 20},
                   {"--image-tokens", &opt.image_tokens, 1, 1 << 20},
                   {"--text-tokens", &opt.text_tokens, 8, 1 << 20},
                   {"--batch", &opt.batch, 1, MAX_BATCH},
                   {"--threads", &opt.threads, 1, 512},
                   {"--steps", &opt.steps, 1, MAX_STEPS},
                   {"--warmup", &opt.warmup, 0, MAX_STEPS},
                   {"--tower-layers", &opt.tower_layers, 1, 512},
                   {"--tower-embd", &opt.tower_embd, 64, 1 << 16},
                   {"--tile-side", &opt.tile_side, 1, 256},
                   {"--patch", &opt.patch, 1, 64},
                   {"--vary", &opt.vary, 0, 1 << 20}};

static const struct {
    const char *name;
    bool *value;
} flag_options[] = {{"--tied", &opt.tied},
                    {"--random-features", &opt.random_features},
                    {"--train-tower", &opt.train_tower},
                    {"--wait", &opt.wait},
                    {"--json", &opt.json}};

static const struct {
    const char *name, **value;
} text_options[] = {{"--proportions", &opt.proportions},
                    {"--geometry", &opt.geometry},
                    {"--layer-list", &opt.layer_list},
                    {"--ratios", &opt.ratios},
                    {"--dtype", &opt.dtype}};

static const char usage[] =
    "usage: training [options]\n"
    "  --proportions NAME     llava-1.5 (576 image tokens, batch 2) or llava-next (2,880, batch 1): 8 layers "
    "of\n"
    "                         1,024 and a frozen tower of LLaVA's share of the work; later options change "
    "them\n"
    "  --geometry FILE        a geometry in JSON (pdrop synth), everything trained\n"
    "  --layers --embd --ff --heads --kv-heads --vocab --image-tokens --text-tokens --batch --tied\n"
    "  --tower-layers --tower-embd --tile-side --patch    the frozen vision tower; --train-tower trains it\n"
    "  --random-features      as good as no tower and no projector: the decoder's time\n"
    "  --layer-list L --ratios R    the schedule (default: four equal stages, halved)\n"
    "  --dtype auto|f32|bf16|ggml   numbers of the products (default: auto)\n"
    "  --vary N               up to N text tokens more or less in each sample: every step has new shapes\n"
    "  --threads N (2)  --steps N (5)  --warmup N (1)  --json\n"
    "  --wait                 one contestant, with the schedule given or none: one step for every line of "
    "input\n";

static _Noreturn void wrong_use(const char *what) {
    fprintf(stderr, "training: %s\n%s", what, usage);
    exit(2);
}

static int parse_int(const char *text, int least, int most, const char *name) {
    char *end = NULL;
    errno = 0;
    const long value = text ? strtol(text, &end, 10) : 0;
    if (!text || end == text || *end || errno || value < least || value > most) {
        char line[160];
        snprintf(line, sizeof line, "%s: expected %d to %d", name, least, most);
        wrong_use(line);
    }
    return (int)value;
}

static void set_proportions(const char *name) {
    const bool next = strcmp(name, "llava-next") == 0;
    if (!next && strcmp(name, "llava-1.5") != 0) wrong_use("--proportions: expected llava-1.5 or llava-next");
    opt.image_tokens = next ? 2880 : 576;
    opt.batch = next ? 1 : 2;
}

static bool parse_one(char **argv, int argc, int *at) {
    const char *name = argv[*at], *value = *at + 1 < argc ? argv[*at + 1] : NULL;
    for (size_t i = 0; i < sizeof flag_options / sizeof *flag_options; i++) {
        if (strcmp(name, flag_options[i].name) == 0) return *flag_options[i].value = true;
    }
    for (size_t i = 0; i < sizeof int_options / sizeof *int_options; i++) {
        if (strcmp(name, int_options[i].name) != 0) continue;
        *int_options[i].value = parse_int(value, int_options[i].least, int_options[i].most, name);
        ++*at;
        return true;
    }
    for (size_t i = 0; i < sizeof text_options / sizeof *text_options; i++) {
        if (strcmp(name, text_options[i].name) != 0 || !value) continue;
        *text_options[i].value = value;
        if (text_options[i].value == &opt.proportions) set_proportions(value);
        ++*at;
        return true;
    }
    return false;
}

static pd_compute_type compute_type(void) {
    static const char *const names[] = {"auto", "f32", "bf16", "ggml"};
    static const pd_compute_type types[] = {PD_COMPUTE_AUTO, PD_COMPUTE_F32, PD_COMPUTE_BF16,
                                            PD_COMPUTE_GGML};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(opt.dtype, names[i]) == 0) return types[i];
    }
    wrong_use("--dtype: expected auto, f32, bf16 or ggml");
}

// ---- the model ---------------------------------------------------------------------------------------------

typedef struct {
    char folder[64], model[96], mmproj[96];
    pd_geometry geometry;
    pd_geometry_file file;
} model_files;

static pd_geometry geometry_of_options(void) {
    if (opt.embd % opt.heads || opt.heads % opt.kv_heads || opt.embd / opt.heads % 2)
        wrong_use("--heads: expected a divisor of --embd, a multiple of --kv-heads");
    pd_geometry g = {.name = "bench", .title = "A benchmark's model", .projector_hidden = opt.embd};
    g.decoder = (pd_decoder_hyperparameters){.architecture = "llama",
                                             .n_layers = opt.layers,
                                             .n_embd = opt.embd,
                                             .n_ff = opt.ff,
                                             .n_heads = opt.heads,
                                             .n_kv_heads = opt.kv_heads,
                                             .head_dim = opt.embd / opt.heads,
                                             .n_vocab = opt.vocab,
                                             .n_ctx_train = 8192,
                                             .tied_embeddings = opt.tied,
                                             .rms_epsilon = 1e-5F,
                                             .rope_mode = GGML_ROPE_TYPE_NORMAL,
                                             .rope_dim = opt.embd / opt.heads,
                                             .rope_base = 1e4F,
                                             .rope_factor = 1.0F};
    g.vision = (pd_vision_hyperparameters){.image_size = opt.tile_side * opt.patch,
                                           .patch_size = opt.patch,
                                           .n_embd = opt.tower_embd,
                                           .n_ff = 4 * opt.tower_embd,
                                           .n_heads = opt.tower_embd / 64,
                                           .n_layers = opt.tower_layers,
                                           .n_layers_run = opt.tower_layers,
                                           .epsilon = 1e-5F,
                                           .mean = {0.5F, 0.5F, 0.5F},
                                           .std = {0.25F, 0.25F, 0.25F}};
    if (opt.tower_embd % 64) wrong_use("--tower-embd: expected a multiple of 64");
    if (opt.random_features) { // the trainer has no images without a tower: the least there can be
        g.projector_hidden = 16;
        g.vision.patch_size = 2;
        g.vision.image_size = 2 * opt.tile_side;
        g.vision.n_embd = g.vision.n_ff = 16;
        g.vision.n_heads = g.vision.n_layers = g.vision.n_layers_run = 1;
    }
    return g;
}

static void write_model(model_files *files) {
    pd_error err;
    pd_synth_params params = {
        .geometry = &files->geometry, .type = GGML_TYPE_F32, .vision_type = GGML_TYPE_F32};
    if (opt.geometry) {
        check(pd_geometry_read(opt.geometry, &files->file, &err), &err);
        params = pd_synth_from_scratch(&files->file, 1);
        files->geometry = files->file.geometry;
        opt.tile_side = files->geometry.vision.image_size / files->geometry.vision.patch_size;
        opt.layers = files->geometry.decoder.n_layers;
        opt.vocab = files->geometry.decoder.n_vocab;
        opt.image_tokens = opt.tile_side * opt.tile_side;
        opt.train_tower = true;
    } else {
        files->geometry = geometry_of_options();
    }
    if (opt.image_tokens % (opt.tile_side * opt.tile_side) ||
        opt.image_tokens / (opt.tile_side * opt.tile_side) > MAX_PICTURES)
        wrong_use("--image-tokens: expected a multiple of --tile-side squared");
    const char *temporary = getenv("TMPDIR");
    snprintf(files->folder, sizeof files->folder, "%.40s/training-XXXXXX", temporary ? temporary : "/tmp");
    if (!mkdtemp(files->folder)) fail("cannot make a temporary folder (TMPDIR)");
    snprintf(files->model, sizeof files->model, "%s/model.gguf", files->folder);
    snprintf(files->mmproj, sizeof files->mmproj, "%s/mmproj.gguf", files->folder);
    check(pd_synth_model(&params, files->model, &err), &err);
    check(pd_synth_mmproj(&params, files->mmproj, &err), &err);
    if (opt.geometry) pd_geometry_file_close(&files->file);
}

static void remove_model(const model_files *files) {
    unlink(files->model);
    unlink(files->mmproj);
    rmdir(files->folder);
}

static void make_policy(pd_policy *policy, bool drops) {
    pd_error err;
    pd_policy_none(policy);
    if (!drops) return;
    if (*opt.layer_list) {
        char layers[256], ratios[256];
        snprintf(layers, sizeof layers, "[%s]", opt.layer_list);
        snprintf(ratios, sizeof ratios, "[%s]", opt.ratios);
        check(pd_policy_lists(policy, layers, ratios, &err), &err);
    } else {
        pd_policy_default(policy, opt.layers);
    }
    check(pd_policy_check(policy, opt.layers, &err), &err);
}

// ---- a batch -----------------------------------------------------------------------------------------------

typedef struct {
    pd_train_sample samples[MAX_BATCH];
    uint64_t state;
} batch;

// One tile; what is random in it stays.
static pd_tiles make_picture(const pd_vision_hyperparameters *h, uint64_t *state) {
    pd_tiles tiles = {.image_size = h->image_size, .width = h->image_size, .height = h->image_size};
    tiles.layout =
        (pd_tile_layout){.n_tiles = 1, .tile_side = opt.tile_side, .n_tokens = opt.tile_side * opt.tile_side};
    const size_t n = 3 * (size_t)h->image_size * (size_t)h->image_size;
    tiles.data = malloc(n * sizeof *tiles.data);
    if (!tiles.data) fail("out of memory");
    for (size_t i = 0; i < n; i++)
        tiles.data[i] = (float)(4.0 * pd_random_uniform(state) - 2.0);
    return tiles;
}

static void make_batch(batch *b, const pd_vision_hyperparameters *h) {
    const int32_t n_pictures = opt.image_tokens / (opt.tile_side * opt.tile_side);
    b->state = 1;
    for (int i = 0; i < opt.batch; i++) {
        pd_train_sample *s = &b->samples[i];
        const size_t most = (size_t)(opt.text_tokens + opt.vary + n_pictures);
        *s = (pd_train_sample){.n_images = n_pictures};
        s->tokens = calloc(most, sizeof *s->tokens);
        s->labels = calloc(most, sizeof *s->labels);
        s->images = calloc((size_t)n_pictures, sizeof *s->images);
        if (!s->tokens || !s->labels || !s->images) fail("out of memory");
        for (int32_t j = 0; j < n_pictures; j++)
            s->images[j] = make_picture(h, &b->state);
    }
}

// A quarter of the text, the pictures, and the rest, whose second half is to be learnt.
static void deal_tokens(batch *b) {
    for (int i = 0; i < opt.batch; i++) {
        pd_train_sample *s = &b->samples[i];
        int32_t n_text = opt.text_tokens;
        if (opt.vary)
            n_text += (int32_t)(pd_random_next(&b->state) % (uint64_t)(2 * opt.vary + 1)) - opt.vary;
        if (n_text < 8) n_text = 8;
        const int32_t before = n_text / 4, read = (n_text - before) / 2;
        s->n_tokens = n_text + s->n_images;
        s->n_rows = n_text + opt.image_tokens;
        s->n_labels = 0;
        for (int32_t t = 0; t < s->n_tokens; t++) {
            s->tokens[t] = t == 0 ? BOS
                           : t >= before && t < before + s->n_images
                               ? PD_IMAGE_TOKEN
                               : (int32_t)(pd_random_next(&b->state) % (uint64_t)opt.vocab);
            const bool learnt = t >= before + s->n_images + read;
            s->labels[t] = learnt ? s->tokens[t] : PD_IGNORE_INDEX;
            s->n_labels += learnt;
        }
    }
}

// ---- a contestant ------------------------------------------------------------------------------------------

typedef struct {
    pd_backend backend;
    pd_weights weights;
    pd_parameters parameters;
    pd_policy policy;
    pd_lowering *lowering;
    pd_step *step;
    pd_optimizer *optimizer;
    batch batch;
    int64_t n_steps;
} trainee;

typedef struct {
    double ms, cpu_ms, loss;
    int32_t n_rows, n_labels;
    double image_rows_mean, peak_mib;
    int64_t n_parameters;
    size_t graph_bytes;
    char compute[80];
} figures;

static double memory_mib(const char *field) {
    double kib = 0.0;
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, field, strlen(field)) == 0 && line[strlen(field)] == ':')
            kib = strtod(line + strlen(field) + 1, NULL);
    }
    if (file) fclose(file);
    return kib / 1024.0;
}

// From here on. Where the system has no such thing the peak includes what making the model took.
static void forget_peak(void) {
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file) return;
    fputs("5", file);
    fclose(file);
}

static void open_trainee(trainee *t, const model_files *files, bool drops) {
    static atomic_bool cancel;
    pd_error err;
    check(pd_backend_create(pd_device_cpu(), opt.threads, &cancel, &t->backend, &err), &err);
    check(pd_weights_load(files->model, files->mmproj, pd_device_cpu(), &t->weights, &err), &err);
    make_policy(&t->policy, drops);
    const pd_trainable wanted = {.groups = {true, true, opt.train_tower}};
    check(pd_parameters_create(&wanted, &t->backend, &t->weights, &t->parameters, &err), &err);
    const pd_lowering_params lowering = {.compute = compute_type(), .floats = true};
    check(pd_lowering_create(&lowering, &t->lowering, &err), &err);
    const pd_step_params step = {.weights = &t->weights,
                                 .parameters = &t->parameters,
                                 .policy = &t->policy,
                                 .backend = &t->backend,
                                 .lowering = t->lowering};
    check(pd_step_create(&step, &t->step, &err), &err);
    check(pd_optimizer_create(&t->parameters, &t->backend, &t->optimizer, &err), &err);
    make_batch(&t->batch, &t->weights.vision.h);
    forget_peak();
}

static double cpu_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static figures train_step(trainee *t) {
    pd_error err;
    pd_step_result result;
    deal_tokens(&t->batch);
    const double start = pd_now_ms(), cpu_start = cpu_ms();
    int32_t n_labels = 0;
    for (int i = 0; i < opt.batch; i++)
        n_labels += pd_sample_n_labels(&t->batch.samples[i]);
    check(pd_step_add_gradients(t->step, t->batch.samples, opt.batch, 1.0F / (float)n_labels, &result, &err),
          &err);
    double norm = 0.0;
    check(pd_optimizer_gradient_norm(t->optimizer, &norm, &err), &err);
    const pd_adamw_params adamw = {.beta1 = 0.9F,
                                   .beta2 = 0.999F,
                                   .epsilon = 1e-8F,
                                   .learning_rates = {1e-4F, 1e-4F, 1e-4F},
                                   .gradient_scale = norm > 1.0 ? (float)(1.0 / norm) : 1.0F,
                                   .step = ++t->n_steps};
    check(pd_optimizer_step(t->optimizer, &adamw, &err), &err);
    figures f = {.ms = pd_now_ms() - start,
                 .cpu_ms = cpu_ms() - cpu_start,
                 .loss = result.loss / n_labels,
                 .n_rows = result.n_rows,
                 .n_labels = result.n_labels,
                 .image_rows_mean = result.image_rows_mean,
                 .peak_mib = memory_mib("VmHWM"),
                 .n_parameters = pd_parameters_count(&t->parameters),
                 .graph_bytes = pd_step_bytes(t->step)};
    snprintf(f.compute, sizeof f.compute, "%s", pd_lowering_description(t->lowering));
    return f;
}

// The process ends afterwards, and with it everything else.
static void serve(const model_files *files, bool drops, int commands, int answers) {
    trainee *t = calloc(1, sizeof *t);
    if (!t) fail("out of memory");
    open_trainee(t, files, drops);
    char command;
    while (read(commands, &command, 1) == 1) {
        const figures f = train_step(t);
        if (write(answers, &f, sizeof f) != (ssize_t)sizeof f) fail("cannot answer");
    }
}

// ---- rounds ------------------------------------------------------------------------------------------------

typedef struct {
    const char *name;
    pid_t process;
    int commands, answers;
    figures last;
    double ms[MAX_STEPS], cpu_ms[MAX_STEPS];
} contestant;

static void start_contestant(contestant *c, const model_files *files, bool drops) {
    int commands[2], answers[2];
    if (pipe(commands) || pipe(answers)) fail("cannot make a pipe");
    c->process = fork();
    if (c->process < 0) fail("cannot start a process");
    if (c->process == 0) {
        close(commands[1]);
        close(answers[0]);
        serve(files, drops, commands[0], answers[1]);
        _exit(0);
    }
    close(commands[0]);
    close(answers[1]);
    c->commands = commands[1];
    c->answers = answers[0];
}

static bool ask(contestant *c) {
    size_t at = 0;
    if (write(c->commands, "s", 1) != 1) return false;
    while (at < sizeof c->last) {
        const ssize_t n = read(c->answers, (char *)&c->last + at, sizeof c->last - at);
        if (n <= 0) return false;
        at += (size_t)n;
    }
    return true;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int n) {
    double sorted[MAX_STEPS];
    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, compare);
    return n % 2 ? sorted[n / 2] : 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]);
}

static void print_text(const contestant *dense, const contestant *pyramid, double bar) {
    const contestant *const both[] = {dense, pyramid};
    printf(
        "%d samples of %d image and %d text tokens, %d layers; %.1f M parameters trained%s; %s; %d threads\n",
        opt.batch, opt.image_tokens, opt.text_tokens, opt.layers, (double)dense->last.n_parameters * 1e-6,
        opt.random_features ? ", no tower"
        : opt.train_tower   ? ", the tower among them"
                            : ", the tower runs frozen",
        dense->last.compute, opt.threads);
    printf("%-8s %10s %10s %11s %10s %18s %9s %9s\n", "", "ms", "CPU ms", "samples/s", "rows",
           "image rows, mean", "peak MiB", "loss");
    for (int i = 0; i < 2; i++) {
        const contestant *c = both[i];
        const double ms = median(c->ms, opt.steps);
        printf("%-8s %10.1f %10.1f %11.3f %10d %18.1f %9.0f %9.4f\n", c->name, ms,
               median(c->cpu_ms, opt.steps), 1e3 * opt.batch / ms, c->last.n_rows, c->last.image_rows_mean,
               c->last.peak_mib, c->last.loss);
    }
    const double ratio = median(pyramid->ms, opt.steps) / median(dense->ms, opt.steps),
                 cpu = median(pyramid->cpu_ms, opt.steps) / median(dense->cpu_ms, opt.steps);
    printf("pyramid / dense: %.3f of the time, %.3f of the CPU time", ratio, cpu);
    if (bar > 0.0) printf(" (bar: at most %.2f)", bar);
    putchar('\n');
}

static void print_one(const contestant *c) {
    printf(
        "\"%s\": {\"ms\": %.2f, \"cpu_ms\": %.2f, \"peak_mib\": %.1f, \"graph_mib\": %.1f, \"n_rows\": %d, "
        "\"n_labels\": %d, \"image_rows_mean\": %.1f, \"loss\": %.5f, \"ms_all\": [",
        c->name, median(c->ms, opt.steps), median(c->cpu_ms, opt.steps), c->last.peak_mib,
        (double)c->last.graph_bytes / (1 << 20), c->last.n_rows, c->last.n_labels, c->last.image_rows_mean,
        c->last.loss);
    for (int i = 0; i < opt.steps; i++)
        printf("%s%.2f", i ? ", " : "", c->ms[i]);
    printf("]}");
}

static void print_json(const contestant *dense, const contestant *pyramid, double bar) {
    printf(
        "{\"batch\": %d, \"image_tokens\": %d, \"text_tokens\": %d, \"layers\": %d, \"n_parameters\": %lld, "
        "\"tower\": \"%s\", \"compute\": \"%s\", \"threads\": %d, ",
        opt.batch, opt.image_tokens, opt.text_tokens, opt.layers, (long long)dense->last.n_parameters,
        opt.random_features ? "none"
        : opt.train_tower   ? "trained"
                            : "frozen",
        dense->last.compute, opt.threads);
    print_one(dense);
    printf(", ");
    print_one(pyramid);
    printf(", \"ratio\": %.4f, \"cpu_ratio\": %.4f, \"bar\": ",
           median(pyramid->ms, opt.steps) / median(dense->ms, opt.steps),
           median(pyramid->cpu_ms, opt.steps) / median(dense->cpu_ms, opt.steps));
    if (bar > 0.0) {
        printf("%.2f}\n", bar);
    } else {
        printf("null}\n");
    }
}

static void compete(const model_files *files) {
    static contestant dense = {.name = "dense"}, pyramid = {.name = "pyramid"};
    contestant *const both[] = {&dense, &pyramid};
    bool good = true;
    start_contestant(&dense, files, false);
    start_contestant(&pyramid, files, true);
    for (int round = -opt.warmup; round < opt.steps && good; round++) {
        for (int i = 0; i < 2 && good; i++) {
            good = ask(both[i]);
            if (round < 0) continue;
            both[i]->ms[round] = both[i]->last.ms;
            both[i]->cpu_ms[round] = both[i]->last.cpu_ms;
        }
    }
    close(dense.commands); // the second process holds a copy of it until it ends
    close(pyramid.commands);
    for (int i = 0; i < 2; i++) {
        int status = 0;
        waitpid(both[i]->process, &status, 0);
        good = good && status == 0;
    }
    remove_model(files);
    if (!good) fail("a contestant failed");
    const double bar = !opt.proportions ? 0.0 : strcmp(opt.proportions, "llava-next") == 0 ? 0.50 : 0.62;
    if (opt.json) {
        print_json(&dense, &pyramid, bar);
    } else {
        print_text(&dense, &pyramid, bar);
    }
}

// bench/peer_train.py's --wait.
static void serve_lines(const model_files *files) {
    static trainee t;
    static contestant alone = {.name = "result"};
    char line[64];
    int n = 0;
    open_trainee(&t, files, *opt.layer_list != '\0');
    remove_model(files);
    for (int i = 0; i < opt.warmup; i++)
        train_step(&t);
    printf("{\"ready\": true}\n");
    fflush(stdout);
    while (n < MAX_STEPS && fgets(line, sizeof line, stdin)) {
        alone.last = train_step(&t);
        alone.ms[n] = alone.last.ms;
        alone.cpu_ms[n++] = alone.last.cpu_ms;
        printf("{\"ms\": %.2f, \"cpu_ms\": %.2f}\n", alone.last.ms, alone.last.cpu_ms);
        fflush(stdout);
    }
    if (n == 0) return;
    opt.steps = n;
    printf("{");
    print_one(&alone);
    printf(", \"compute\": \"%s\", \"n_parameters\": %lld, \"threads\": %d}\n", alone.last.compute,
           (long long)alone.last.n_parameters, opt.threads);
}

int main(int argc, char **argv) {
    static model_files files;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return 0;
        }
        char line[160];
        snprintf(line, sizeof line, "%.100s: no such option, or its value is missing", argv[i]);
        if (!parse_one(argv, argc, &i)) wrong_use(line);
    }
    (void)compute_type();
    write_model(&files);
    if (opt.wait) {
        serve_lines(&files);
    } else {
        compete(&files);
    }
    return 0;
}
