// The program's commands and what they share.
#pragma once

#include "cli/options.h"

#include <stdatomic.h>
#include <stdio.h>
#include <yyjson.h>

// Exit codes: 0 success, 1 an error while working, 2 wrong use, 130 stopped by Ctrl-C.
enum { PD_EXIT_OK = 0, PD_EXIT_ERROR = 1, PD_EXIT_USAGE = 2, PD_EXIT_INTERRUPTED = 130 };

int pd_cli_run(int argc, char **argv);
int pd_cli_info(int argc, char **argv);
int pd_cli_flops(int argc, char **argv);
int pd_cli_synth(int argc, char **argv);
int pd_cli_bench(int argc, char **argv);
int pd_cli_train(int argc, char **argv);
int pd_cli_eval(int argc, char **argv);
int pd_cli_training_report(int argc, char **argv);

// Parses a command's arguments. False: the command ends here, with *exit_code (its help was asked for, or a
// line on stderr says what is wrong).
bool pd_cli_parse(const pd_command *command, int argc, char **argv, int *exit_code);
int pd_cli_exit_code(pd_status status);
// PD_ERR_ARGUMENT where the file that `option` names to write to is `input`, which is read. Both may be NULL.
pd_status pd_cli_expect_other(const char *option, const char *out, const char *input, pd_error *err);
// "pdrop: message" on stderr; the exit code for `status`. Of cancelled work only a message that begins with
// "stopped" is shown, else "stopped".
int pd_cli_report(pd_status status, const pd_error *err);

// ---- model, schedule and run options, shared by the commands that load a model ----------------------------

typedef struct pd_model_options {
    const char *model, *mmproj, *device;
    bool list_devices;
} pd_model_options;

typedef struct pd_schedule_options {
    const char *layer_list, *image_token_ratio_list, *policy;
    bool no_drop;
    int32_t positions; // 0: as the policy says, else 1 + pd_positions
} pd_schedule_options;

typedef struct pd_compute_flags {
    int32_t attention, cache_type, aspect_ratio, compute;
    bool compute_strict;
    int32_t n_threads, n_ctx;
} pd_compute_flags;

// The tables' targets are these objects, one of each: a command line is read once.
extern pd_model_options pd_model_flags;
extern pd_schedule_options pd_schedule_flags;
extern pd_compute_flags pd_compute_flag;
extern const pd_option pd_model_option_table[];
extern const pd_option pd_schedule_option_table[];
extern const pd_option pd_compute_option_table[];

// The policy the options ask for, on a model of n_layers.
pd_status pd_cli_policy(int32_t n_layers, pd_policy *policy, pd_error *err);
// ggml's own lines go nowhere, but its errors to stderr with PDROP_DEBUG.
void pd_cli_silence_ggml(void);
// Loads the model the options name. Prints devices and exits the command with 0 where that was asked: *done.
pd_status pd_cli_load_model(bool quiet, pd_model **model, bool *done, pd_error *err);
// Fills what the options say into session parameters, and installs the progress bar.
void pd_cli_session_params(const pd_policy *policy, bool quiet, pd_session_params *params);

// ---- output -----------------------------------------------------------------------------------------------

// A progress bar on stderr, where that is a terminal, for work that takes over two seconds.
void pd_cli_progress(const char *what, double progress, void *user);
void pd_cli_progress_end(void);
// "12.3 MiB"; buffer of at least 24 bytes, returned.
const char *pd_cli_bytes(char *buffer, size_t size, double bytes);
// The table of stages and the totals, with the dense figures beside them.
void pd_cli_print_stats(FILE *out, const pd_stats *stats, const pd_policy *policy, const char *compute);
// The document as one line on standard output; freed. PD_ERR_MEMORY, when there is none for `what`.
pd_status pd_cli_print_json(yyjson_mut_doc *doc, const char *what, pd_error *err);

// ---- Ctrl-C -----------------------------------------------------------------------------------------------

// From now on SIGINT, SIGTERM and SIGHUP cancel this session (NULL: end the program as usual).
void pd_cli_interruptible(pd_session *session);
// From now on they set *cancel; a second one ends the program.
void pd_cli_cancel_on_signals(atomic_bool *cancel);
// From now on they only make pd_cli_signalled true.
void pd_cli_catch_signals(void);
bool pd_cli_signalled(void);
