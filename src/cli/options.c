#include "cli/options.h"

#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_COLUMN = 34, HELP_WIDTH = 100 };

// Wraps `text` from HELP_COLUMN on; the cursor stands at `column`.
static void print_wrapped(const char *text, size_t column) {
    if (column >= HELP_COLUMN) {
        putchar('\n');
        column = 0;
    }
    printf("%*s", (int)(HELP_COLUMN - column), "");
    column = HELP_COLUMN;
    while (*text) {
        const size_t word = strcspn(text, " ");
        if (column + word > HELP_WIDTH && column > HELP_COLUMN) {
            printf("\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        printf("%.*s", (int)word, text);
        column += word;
        text += word;
        if (*text == ' ') {
            if (column < HELP_WIDTH) putchar(' ');
            column++;
            text++;
        }
    }
    putchar('\n');
}

static void print_option(const pd_option *option) {
    char left[160];
    int used = snprintf(left, sizeof left, "  ");
    if (option->letter) used += snprintf(left + used, sizeof left - (size_t)used, "-%c, ", option->letter);
    used += snprintf(left + used, sizeof left - (size_t)used, "%s", option->name);
    if (option->type == PD_OPTION_CHOICE) {
        for (size_t i = 0; option->choices[i] && used < (int)sizeof left - 24; i++) {
            used +=
                snprintf(left + used, sizeof left - (size_t)used, "%c%s", i ? '|' : ' ', option->choices[i]);
        }
    } else if (option->argument) {
        used += snprintf(left + used, sizeof left - (size_t)used, " %s", option->argument);
    }
    fputs(left, stdout);
    print_wrapped(option->help, (size_t)used);
}

static void print_help(const pd_command *command) {
    printf("usage: %s\n\n%s\n", command->usage, command->about);
    for (const pd_option *const *table = command->tables; *table; table++) {
        for (const pd_option *option = *table; option->type != PD_OPTION_END; option++) {
            if (option->type == PD_OPTION_HEADING) {
                printf("\n%s\n", option->help);
            } else {
                print_option(option);
            }
        }
    }
    fputs("  -h, --help", stdout);
    print_wrapped("this text", sizeof "  -h, --help" - 1);
}

static bool complain(const pd_command *command, const char *name, const char *what, const char *value) {
    pd_error err;
    pd_fail(&err, PD_ERR_ARGUMENT, "%.100s: %s%s%.200s%s", name, what, value ? ", found \"" : "",
            value ? value : "", value ? "\"" : "");
    char program[64];
    snprintf(program, sizeof program, "%s%s%s", command->program ? command->program : "pdrop",
             command->name ? " " : "", command->name ? command->name : "");
    fprintf(stderr, "%s: %s (see %s --help)\n", program, err.message, program);
    return false;
}

static bool parse_number(const pd_command *command, const pd_option *option, const char *value) {
    char expected[96], *end;
    errno = 0;
    if (option->type == PD_OPTION_UINT64) {
        const unsigned long long number = strtoull(value, &end, 10);
        if (end == value || *end || *value == '-' || errno) {
            return complain(command, option->name, "expected a whole number", value);
        }
        *(uint64_t *)option->target = number;
        return true;
    }
    if (option->type == PD_OPTION_INT) {
        const long long number = strtoll(value, &end, 10);
        snprintf(expected, sizeof expected, "expected a whole number from %.0f to %.0f", option->low,
                 option->high);
        if (end == value || *end || errno || (double)number < option->low || (double)number > option->high) {
            return complain(command, option->name, expected, value);
        }
        *(int32_t *)option->target = (int32_t)number;
        return true;
    }
    const double number = strtod(value, &end);
    snprintf(expected, sizeof expected, "expected a number from %g to %g", option->low, option->high);
    if (end == value || *end || !(number >= option->low && number <= option->high)) {
        return complain(command, option->name, expected, value);
    }
    if (option->type == PD_OPTION_DOUBLE) {
        *(double *)option->target = number;
    } else {
        *(float *)option->target = (float)number;
    }
    return true;
}

static bool parse_choice(const pd_command *command, const pd_option *option, const char *value) {
    char expected[256] = "expected one of";
    for (int32_t i = 0; option->choices[i]; i++) {
        if (strcmp(value, option->choices[i]) == 0) {
            *(int32_t *)option->target = i;
            return true;
        }
        const size_t used = strlen(expected);
        snprintf(expected + used, sizeof expected - used, "%s %s", i ? "," : "", option->choices[i]);
    }
    return complain(command, option->name, expected, value);
}

// Whether `value` is a truth value, which is then *truth.
static bool is_truth(const char *value, bool *truth) {
    static const char *const yes[] = {"True", "true", "1", "yes"}, *const no[] = {"False", "false", "0",
                                                                                  "no"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        *truth = strcmp(value, yes[i]) == 0;
        if (*truth || strcmp(value, no[i]) == 0) return true;
    }
    return false;
}

static bool parse_truth(const pd_command *command, const pd_option *option, const char *value) {
    bool truth = true;
    if (value && !is_truth(value, &truth))
        return complain(command, option->name, "expected True or False", value);
    *(bool *)option->target = truth;
    return true;
}

static bool add_string(const pd_command *command, const char *name, pd_strings *strings, const char *value) {
    if (strings->count == PD_MAX_STRINGS) return complain(command, name, "given too often", NULL);
    strings->values[strings->count++] = value;
    return true;
}

static bool apply(const pd_command *command, const pd_option *option, const char *value) {
    switch (option->type) {
    case PD_OPTION_FLAG:
        *(bool *)option->target = true;
        return true;
    case PD_OPTION_OFF:
        *(bool *)option->target = false;
        return true;
    case PD_OPTION_BOOL:
        return parse_truth(command, option, value);
    case PD_OPTION_INT:
    case PD_OPTION_UINT64:
    case PD_OPTION_FLOAT:
    case PD_OPTION_DOUBLE:
        return parse_number(command, option, value);
    case PD_OPTION_STRING:
        *(const char **)option->target = value;
        return true;
    case PD_OPTION_STRINGS:
        return add_string(command, option->name, option->target, value);
    case PD_OPTION_CHOICE:
        return parse_choice(command, option, value);
    case PD_OPTION_END:
    case PD_OPTION_HEADING:
        break;
    }
    return false;
}

// The option that `word` names: "-m", "--model" or the name part of "--model=x".
static const pd_option *find_option(const pd_command *command, const char *word) {
    const size_t length = strcspn(word, "=");
    for (const pd_option *const *table = command->tables; *table; table++) {
        for (const pd_option *option = *table; option->type != PD_OPTION_END; option++) {
            if (option->type == PD_OPTION_HEADING) continue;
            if (option->letter && word[0] == '-' && word[1] == option->letter && word[2] == '\0')
                return option;
            if (strlen(option->name) == length && strncmp(option->name, word, length) == 0) return option;
        }
    }
    return NULL;
}

// A word that is no option, behind the truth option `bare` (NULL: behind something else).
static bool take_argument(const pd_command *command, const pd_option *bare, const char *word) {
    if (command->positional) return add_string(command, "argument", command->positional, word);
    if (bare) return complain(command, bare->name, "expected True or False", word);
    return complain(command, word, "no such argument expected here", NULL);
}

pd_parsed pd_options_parse(const pd_command *command, int argc, char **argv) {
    bool only_positional = false;
    const pd_option *bare = NULL; // the word before, where a truth value might have followed it
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (only_positional || word[0] != '-' || word[1] == '\0') {
            if (!take_argument(command, bare, word)) return PD_PARSED_ERROR;
            bare = NULL;
            continue;
        }
        bare = NULL;
        if (strcmp(word, "--") == 0) {
            only_positional = true;
            continue;
        }
        if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
            print_help(command);
            return PD_PARSED_HELP;
        }
        const pd_option *option = find_option(command, word);
        if (!option) {
            complain(command, word, "no such option", NULL);
            return PD_PARSED_ERROR;
        }
        const bool is_bool = option->type == PD_OPTION_BOOL;
        const bool takes_value = option->type != PD_OPTION_FLAG && option->type != PD_OPTION_OFF && !is_bool;
        const char *equals = word[1] == '-' ? strchr(word, '=') : NULL;
        const char *value = equals ? equals + 1 : NULL;
        if (takes_value && !value) {
            if (i + 1 >= argc) {
                complain(command, option->name, "expected a value behind it", NULL);
                return PD_PARSED_ERROR;
            }
            value = argv[++i];
        }
        bool truth = false;
        if (is_bool && !value && i + 1 < argc && is_truth(argv[i + 1], &truth)) value = argv[++i];
        if (!takes_value && !is_bool && value) {
            complain(command, option->name, "takes no value", value);
            return PD_PARSED_ERROR;
        }
        if (!apply(command, option, value)) return PD_PARSED_ERROR;
        if (is_bool && !value) bare = option;
    }
    return PD_PARSED_OK;
}
