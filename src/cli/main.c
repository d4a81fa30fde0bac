// pdrop: run large vision-language models with a pyramid of visual tokens.
#include "base/error.h"
#include "cli/cli.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} commands[] = {
    {"run", pd_cli_run, "ask a question about pictures, or chat"},
    {"info", pd_cli_info, "show what a GGUF file holds"},
    {"flops", pd_cli_flops, "count what a schedule costs and saves"},
    {"synth", pd_cli_synth, "write a GGUF pair of a geometry, with random or initial weights"},
    {"train", pd_cli_train, "train on LLaVA's conversations, with the pyramid or without"},
    {"eval", pd_cli_eval, "ask the questions of a file, and count the right answers"},
    {"report", pd_cli_training_report, "draw the curves of training runs on a page"},
    {"bench", pd_cli_bench, "time prefill and decoding, dense and with the pyramid"},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_usage(FILE *out) {
    fprintf(out,
            "pdrop %s: run large vision-language models with a pyramid of visual tokens (PyramidDrop)\n\n"
            "usage: pdrop COMMAND [options]\n\ncommands:\n",
            pd_version());
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-10s%s\n", commands[i].name, commands[i].about);
    fputs("  version   print the version\n  help      print this text, or a command's: pdrop help run\n\n"
          "example:\n"
          "  pdrop run -m llava-v1.5-7b.Q4_K_M.gguf --mmproj mmproj-model-f16.gguf \\\n"
          "      --image cat.jpg -p \"What is in the picture?\" -v\n",
          out);
}

// A file that is opened while a standard stream is closed would get its number, and what is printed would end
// up in the file. Opened the wrong way round, reads and writes fail as on a closed one.
static void occupy_standard_streams(void) {
    for (int descriptor = 0; descriptor <= 2; descriptor++) {
        if (fcntl(descriptor, F_GETFD) < 0 && open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY) < 0)
            return;
    }
}

static int run_command(int argc, char **argv) {
    if (argc < 2) {
        print_usage(stderr);
        return PD_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "version") == 0 || strcmp(name, "--version") == 0) {
        printf("pdrop %s\n", pd_version());
        return PD_EXIT_OK;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        if (argc < 3 || strcmp(argv[2], "version") == 0 || strcmp(argv[2], "help") == 0) {
            print_usage(stdout);
            return PD_EXIT_OK;
        }
        name = argv[2];
        argv[2] = "--help";
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(name, commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    }
    pd_error err;
    return pd_cli_report(pd_fail(&err, PD_ERR_ARGUMENT, "no command \"%.100s\" (see pdrop help)", name),
                         &err);
}

int main(int argc, char **argv) {
    occupy_standard_streams();
    signal(SIGXFSZ, SIG_IGN); // a file that may not grow is a write that fails
    signal(SIGPIPE, SIG_IGN); // and so is a pipe that nobody reads
    const int exit_code = run_command(argc, argv);
    if ((fflush(stdout) != 0 || ferror(stdout)) && exit_code == PD_EXIT_OK) {
        fputs("pdrop: cannot write to standard output\n", stderr);
        return PD_EXIT_ERROR;
    }
    return exit_code;
}
