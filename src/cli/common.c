// Options and output that several commands share.
#include "base/error.h"
#include "base/file.h"
#include "cli/cli.h"

#include <ggml-backend.h>
#include <ggml.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

bool pd_cli_parse(const pd_command *command, int argc, char **argv, int *exit_code) {
    const pd_parsed parsed = pd_options_parse(command, argc, argv);
    *exit_code = parsed == PD_PARSED_ERROR ? PD_EXIT_USAGE : PD_EXIT_OK;
    return parsed == PD_PARSED_OK;
}

int pd_cli_exit_code(pd_status status) {
    return status == PD_ERR_CANCELLED  ? PD_EXIT_INTERRUPTED
           : status == PD_ERR_ARGUMENT ? PD_EXIT_USAGE
           : status == PD_OK           ? PD_EXIT_OK
                                       : PD_EXIT_ERROR;
}

pd_status pd_cli_expect_other(const char *option, const char *out, const char *input, pd_error *err) {
    if (!out || !input || !pd_same_file(out, input)) return PD_OK;
    return pd_fail(err, PD_ERR_ARGUMENT, "%s: it is read; expected another file for %s", out, option);
}

int pd_cli_report(pd_status status, const pd_error *err) {
    pd_cli_progress_end();
    static const char stopped[] = "stopped";
    // "stopped after step 3 of 9" says more; what else is cancelled names work that nobody asked about
    const bool says_where = strncmp(err->message, stopped, sizeof stopped - 1) == 0;
    fprintf(stderr, "pdrop: %s\n", status == PD_ERR_CANCELLED && !says_where ? stopped : err->message);
    return pd_cli_exit_code(status);
}

// ---- options ----------------------------------------------------------------------------------------------

pd_model_options pd_model_flags;
pd_schedule_options pd_schedule_flags;
pd_compute_flags pd_compute_flag;

static const char *const attentions[] = {"sdpa", "eager", "flash", NULL}; // in pd_attention's order
static const char *const cache_types[] = {"f16", "f32", "bf16", NULL};    // pd_cache_type's
static const char *const aspects[] = {"auto", "pad", "anyres", "square", NULL};
static const char *const computes[] = {"auto", "ggml", "f32", "bf16", "int8", NULL}; // pd_compute_type's
static const char *const positions[] = {"policy", "compact", "original", NULL};

const pd_option pd_model_option_table[] = {
    {.type = PD_OPTION_HEADING, .help = "model"},
    {PD_OPTION_STRING, 'm', "--model", "FILE", "text model (GGUF)", &pd_model_flags.model, 0, 0, NULL},
    {PD_OPTION_STRING, 0, "--mmproj", "FILE", "vision tower and projector (GGUF)", &pd_model_flags.mmproj, 0,
     0, NULL},
    {PD_OPTION_STRING, 0, "--device", "NAME", "device to run on (default: CPU)", &pd_model_flags.device, 0, 0,
     NULL},
    {PD_OPTION_FLAG, 0, "--list-devices", NULL, "list the devices and exit", &pd_model_flags.list_devices, 0,
     0, NULL},
    {.type = PD_OPTION_END},
};

const pd_option pd_schedule_option_table[] = {
    {.type = PD_OPTION_HEADING,
     .help = "pyramid (default: four equal stages, half the image tokens dropped after each)"},
    {PD_OPTION_STRING, 0, "--layer_list", "'[8,16,24]'", "drop after these numbers of layers",
     &pd_schedule_flags.layer_list, 0, 0, NULL},
    {PD_OPTION_STRING, 0, "--image_token_ratio_list", "'[0.5,0.25,0.125]'",
     "share of the original image tokens kept from there on", &pd_schedule_flags.image_token_ratio_list, 0, 0,
     NULL},
    {PD_OPTION_FLAG, 0, "--no-drop", NULL, "the dense model", &pd_schedule_flags.no_drop, 0, 0, NULL},
    {PD_OPTION_STRING, 0, "--policy", "TEXT",
     "a whole policy: none, pdrop, pdrop:8=.5,16=.25, fastv:2=.5, vtw:16, uniform:8=.5, random:8=.5;seed=7",
     &pd_schedule_flags.policy, 0, 0, NULL},
    {PD_OPTION_CHOICE, 0, "--positions", NULL, "positions after a drop: renumbered (compact) or kept",
     &pd_schedule_flags.positions, 0, 0, positions},
    {.type = PD_OPTION_END},
};

const pd_option pd_compute_option_table[] = {
    {.type = PD_OPTION_HEADING, .help = "computing"},
    {PD_OPTION_CHOICE, 0, "--attn", NULL, "attention kernel; sdpa picks the best at hand",
     &pd_compute_flag.attention, 0, 0, attentions},
    {PD_OPTION_CHOICE, 0, "--compute", NULL,
     "numbers the CPU multiplies in, by oneDNN; auto: int8 for quantised weights, else bf16, where the CPU "
     "is "
     "fast at them, else f32; ggml: ggml's own kernels",
     &pd_compute_flag.compute, 0, 0, computes},
    {PD_OPTION_FLAG, 0, "--compute-strict", NULL,
     "stop where the CPU or the memory cannot do --compute, instead of taking the next best",
     &pd_compute_flag.compute_strict, 0, 0, NULL},
    {PD_OPTION_CHOICE, 0, "--cache-type", NULL, "type of the KV cache", &pd_compute_flag.cache_type, 0, 0,
     cache_types},
    {PD_OPTION_CHOICE, 0, "--image_aspect_ratio", NULL, "how pictures become tiles; auto: as the mmproj says",
     &pd_compute_flag.aspect_ratio, 0, 0, aspects},
    {PD_OPTION_INT, 't', "--threads", "N", "CPU threads (default: one for each core)",
     &pd_compute_flag.n_threads, 1, 512, NULL},
    {PD_OPTION_INT, 'c', "--ctx-size", "N",
     "most tokens of prompt and answer together (default: the model's own, at most 4096)",
     &pd_compute_flag.n_ctx, 1, 1 << 24, NULL},
    {.type = PD_OPTION_END},
};

pd_status pd_cli_policy(int32_t n_layers, pd_policy *policy, pd_error *err) {
    const pd_schedule_options *o = &pd_schedule_flags;
    const bool lists = o->layer_list || o->image_token_ratio_list;
    if ((o->policy && (lists || o->no_drop)) || (o->no_drop && lists)) {
        return pd_fail(
            err, PD_ERR_ARGUMENT,
            "--layer_list with --image_token_ratio_list, --policy and --no-drop exclude each other");
    }
    if (lists && !(o->layer_list && o->image_token_ratio_list)) {
        return pd_fail(err, PD_ERR_ARGUMENT,
                       "--layer_list and --image_token_ratio_list: expected both, lists of one length");
    }
    pd_status status = PD_OK;
    if (o->no_drop) {
        pd_policy_none(policy);
    } else if (lists) {
        status = pd_policy_lists(policy, o->layer_list, o->image_token_ratio_list, err);
    } else if (o->policy) {
        status = pd_policy_parse(policy, o->policy, n_layers, err);
    } else {
        pd_policy_default(policy, n_layers);
    }
    if (status == PD_OK && o->positions > 0) policy->positions = (pd_positions)(o->positions - 1);
    return status == PD_OK ? pd_policy_check(policy, n_layers, err) : status;
}

static void print_devices(void) {
    ggml_backend_load_all();
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        size_t available, total;
        ggml_backend_dev_memory(device, &available, &total);
        char text[24];
        printf("%-12s %s (%s)\n", ggml_backend_dev_name(device), ggml_backend_dev_description(device),
               pd_cli_bytes(text, sizeof text, (double)total));
    }
}

static void ignore_ggml_log(enum ggml_log_level level, const char *text, void *user) {
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR && getenv("PDROP_DEBUG")) fputs(text, stderr);
}

static void log_line(pd_log_level level, const char *line, void *user) {
    const bool quiet = user != NULL;
    if (level >= PD_LOG_WARNING || !quiet)
        fprintf(stderr, "%s%s\n", level >= PD_LOG_WARNING ? "pdrop: " : "", line);
}

void pd_cli_silence_ggml(void) {
    ggml_log_set(ignore_ggml_log, NULL); // errors reach the user as pd_error's one line
}

pd_status pd_cli_load_model(bool quiet, pd_model **model, bool *done, pd_error *err) {
    *model = NULL;
    *done = false;
    pd_cli_silence_ggml();
    if (pd_model_flags.list_devices) {
        print_devices();
        *done = true;
        return PD_OK;
    }
    if (!pd_model_flags.model) return pd_fail(err, PD_ERR_ARGUMENT, "no model: give a GGUF file with -m");
    static int quiet_marker;
    pd_model_params params;
    pd_model_params_default(&params, sizeof params);
    params.model_path = pd_model_flags.model;
    params.mmproj_path = pd_model_flags.mmproj;
    params.device = pd_model_flags.device;
    params.compute = (pd_compute_type)pd_compute_flag.compute;
    params.compute_strict = pd_compute_flag.compute_strict;
    params.log = log_line;
    params.log_user = quiet ? &quiet_marker : NULL;
    return pd_model_load(&params, model, err);
}

void pd_cli_session_params(const pd_policy *policy, bool quiet, pd_session_params *params) {
    pd_session_params_default(params, sizeof *params);
    params->policy = policy;
    params->attention = (pd_attention)pd_compute_flag.attention;
    params->cache_type = (pd_cache_type)pd_compute_flag.cache_type;
    params->aspect_ratio = (pd_aspect_ratio)pd_compute_flag.aspect_ratio;
    params->n_threads = pd_compute_flag.n_threads;
    params->n_ctx = pd_compute_flag.n_ctx;
    if (!quiet) params->progress = pd_cli_progress;
}

// ---- output -----------------------------------------------------------------------------------------------

static struct {
    bool shown;
    double start_ms, value;
    const char *what;
} bar;

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

void pd_cli_progress(const char *what, double progress, void *user) {
    (void)user;
    enum { WIDTH = 40 };
    if (!isatty(STDERR_FILENO)) return;
    if (!bar.what || strcmp(bar.what, what) != 0 || progress < bar.value) {
        pd_cli_progress_end();
        bar.what = what;
        bar.start_ms = now_ms();
    }
    bar.value = progress;
    const double elapsed = now_ms() - bar.start_ms;
    // shown once the whole is seen to take over two seconds
    if (!bar.shown && elapsed < 2000.0 && !(elapsed > 300.0 && elapsed / (progress + 1e-9) > 2000.0)) return;
    bar.shown = true;
    char cells[WIDTH + 1];
    const int filled = (int)(progress * (double)WIDTH);
    for (int i = 0; i < WIDTH; i++)
        cells[i] = i < filled ? '#' : '.';
    cells[WIDTH] = '\0';
    fprintf(stderr, "\r%-8s [%s] %3.0f%%", what, cells, progress * 100.0);
    fflush(stderr);
    if (progress >= 1.0) pd_cli_progress_end();
}

void pd_cli_progress_end(void) {
    if (bar.shown) fputs("\r\033[K", stderr);
    bar.shown = false;
    bar.what = NULL;
    bar.value = 0.0;
}

const char *pd_cli_bytes(char *buffer, size_t size, double bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    while (bytes >= 1024.0 && unit + 1 < sizeof units / sizeof *units) {
        bytes /= 1024.0;
        unit++;
    }
    snprintf(buffer, size, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
    return buffer;
}

static double percent(double part, double whole) {
    return whole > 0.0 ? 100.0 * part / whole : 100.0;
}

void pd_cli_print_stats(FILE *out, const pd_stats *s, const pd_policy *policy, const char *compute) {
    char kv[24], kv_dense[24], text[24];
    fprintf(out, "\n%-6s %-9s %6s %7s %9s %8s %10s %8s | %6s %10s %8s\n", "stage", "layers", "rows", "image",
            "time", "rank", "KV", "GFLOP", "rows", "KV", "GFLOP");
    fprintf(out, "%-6s %-9s %6s %7s %9s %8s %10s %8s | %-26s\n", "", "", "", "", "ms", "ms", "", "",
            "of the dense model");
    const int32_t dense_rows = s->n_stages ? s->stages[0].n_rows : 0;
    for (int32_t i = 0; i < s->n_stages; i++) {
        const pd_stage_stats *stage = &s->stages[i];
        char layers[32];
        snprintf(layers, sizeof layers, "%d-%d", stage->first_layer,
                 stage->first_layer + stage->n_layers - 1);
        fprintf(out, "%-6d %-9s %6d %7d %9.1f %8.2f %10s %8.1f | %6d %10s %8.1f\n", i, layers, stage->n_rows,
                stage->n_image_tokens, stage->layers_ms, stage->rank_ms,
                pd_cli_bytes(kv, sizeof kv, (double)stage->kv_bytes), stage->flops * 1e-9, dense_rows,
                pd_cli_bytes(kv_dense, sizeof kv_dense, (double)stage->kv_bytes_dense),
                stage->flops_dense * 1e-9);
    }
    fprintf(out, "%-6s %-9s %6d %7d %9.1f %8.2f %10s %8.1f | %6d %10s %8.1f\n", "total", "",
            s->n_prompt_tokens, s->n_image_tokens, s->prefill_ms, s->rank_ms,
            pd_cli_bytes(kv, sizeof kv, (double)s->kv_bytes), s->prefill_flops * 1e-9, dense_rows,
            pd_cli_bytes(kv_dense, sizeof kv_dense, (double)s->kv_bytes_dense),
            s->prefill_flops_dense * 1e-9);
    fprintf(out, "\npolicy      ");
    if (policy->n_drops == 0) fputs("dense", out);
    for (int32_t i = 0; i < policy->n_drops; i++) {
        fprintf(out, "%safter layer %d keep %g", i ? ", " : "", policy->layer_list[i],
                policy->image_token_ratio_list[i]);
    }
    fprintf(out, "\npictures    %d (%d tokens): tiles %.1f ms, ViT %.1f ms, projector %.1f ms\n", s->n_images,
            s->n_image_tokens, s->image_ms, s->vit_ms, s->projector_ms);
    fprintf(out, "prefill     %d rows in %.1f ms (%.1f tokens/s), ranking %.2f %% of it\n",
            s->n_prompt_tokens, s->prefill_ms,
            s->prefill_ms > 0 ? 1e3 * s->n_prompt_tokens / s->prefill_ms : 0.0,
            s->prefill_ms > 0 ? percent(s->rank_ms, s->prefill_ms) : 0.0);
    fprintf(out, "first token %.1f ms\n", s->first_token_ms);
    if (s->n_decoded > 0 && s->decode_ms > 0) {
        fprintf(out, "decode      %d tokens, %.2f tokens/s\n", s->n_generated,
                1e3 * s->n_decoded / s->decode_ms);
    }
    fprintf(out, "image MACs  %.4g T, dense %.4g T (%.1f %%)\n", s->image_tmacs, s->image_tmacs_dense,
            percent(s->image_tmacs, s->image_tmacs_dense));
    fprintf(out, "all FLOPs   %.4g T, dense %.4g T (%.1f %%)\n", s->prefill_flops * 1e-12,
            s->prefill_flops_dense * 1e-12, percent(s->prefill_flops, s->prefill_flops_dense));
    fprintf(out, "KV          %s live, ", pd_cli_bytes(text, sizeof text, (double)s->kv_bytes));
    fprintf(out, "%s reserved; ", pd_cli_bytes(text, sizeof text, (double)s->kv_bytes_reserved));
    fprintf(out, "scratch %s\n", pd_cli_bytes(text, sizeof text, (double)s->compute_bytes));
    fprintf(out, "compute     %s", compute);
    if (s->packed_bytes > 0) {
        fprintf(out, "; packed weights %s", pd_cli_bytes(text, sizeof text, (double)s->packed_bytes));
        if (s->pack_ms > 1.0) fprintf(out, ", made in %.0f ms", s->pack_ms);
    }
    fputc('\n', out);
}

pd_status pd_cli_print_json(yyjson_mut_doc *doc, const char *what, pd_error *err) {
    char *text =
        yyjson_mut_write(doc, YYJSON_WRITE_ALLOW_INVALID_UNICODE | YYJSON_WRITE_INF_AND_NAN_AS_NULL, NULL);
    yyjson_mut_doc_free(doc);
    if (!text) return pd_fail_memory(err, 0, what);
    puts(text);
    fflush(stdout);
    free(text);
    return PD_OK;
}

// ---- Ctrl-C -----------------------------------------------------------------------------------------------

static pd_session *volatile interrupted_session;
static volatile sig_atomic_t interrupted;

static void on_signal(int signal) {
    (void)signal;
    interrupted = 1;
    if (interrupted_session) pd_session_cancel(interrupted_session);
}

// On a stack of its own: oneDNN's generated code (3.7) keeps data below its stack pointer, where a handler
// that runs on the computing thread's stack would overwrite it.
static void handle_signals(void (*handler)(int)) {
    static char stack[64 * 1024]; // AVX-512's registers and AMX's tiles are saved on it
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    // Cancelling is asked for between steps; a write that waits for its terminal must not fail for it.
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    struct sigaction hangup; // under nohup it stays ignored
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
        sigaction(SIGHUP, &action, NULL);
}

void pd_cli_interruptible(pd_session *session) {
    interrupted_session = session;
    handle_signals(session ? on_signal : SIG_DFL);
}

static atomic_bool *volatile cancelled_flag;

static void on_cancel(int number) {
    interrupted = 1;
    if (cancelled_flag) atomic_store(cancelled_flag, true);
    signal(number, SIG_DFL);
}

void pd_cli_cancel_on_signals(atomic_bool *cancel) {
    cancelled_flag = cancel;
    handle_signals(on_cancel);
}

void pd_cli_catch_signals(void) {
    interrupted_session = NULL;
    handle_signals(on_signal);
}

bool pd_cli_signalled(void) {
    return interrupted != 0;
}
