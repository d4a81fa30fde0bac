// Command-line options as tables: parsed, checked and explained from one place.
#pragma once

#include <pyramiddrop.h>

typedef enum pd_option_type {
    PD_OPTION_END,     // closes a table
    PD_OPTION_HEADING, // `help` is a line between groups
    PD_OPTION_FLAG,    // bool: true
    PD_OPTION_OFF,     // bool: false
    PD_OPTION_BOOL,    // bool: "True" or "False", as transformers' argument parser has it; alone: true
    PD_OPTION_INT,     // int32_t in [low, high]
    PD_OPTION_UINT64,
    PD_OPTION_FLOAT,   // float in [low, high]
    PD_OPTION_DOUBLE,  // double in [low, high]
    PD_OPTION_STRING,  // const char *
    PD_OPTION_STRINGS, // pd_strings: may be repeated
    PD_OPTION_CHOICE,  // int32_t: index among `choices`
} pd_option_type;

enum { PD_MAX_STRINGS = 64 };

typedef struct pd_strings {
    const char *values[PD_MAX_STRINGS];
    size_t count;
} pd_strings;

typedef struct pd_option {
    pd_option_type type;
    char letter;          // "-m"; 0: none
    const char *name;     // "--model"
    const char *argument; // its name in the help; NULL for flags
    const char *help;
    void *target;
    double low, high;           // numbers
    const char *const *choices; // NULL-terminated
} pd_option;

typedef struct pd_command {
    const char *name;               // "run"; NULL: a program without commands
    const char *program;            // NULL: "pdrop"
    const char *usage;              // "pdrop run -m MODEL [options]"
    const char *about;              // a paragraph
    const pd_option *const *tables; // NULL-terminated list of tables
    pd_strings *positional;         // NULL: none allowed
} pd_command;

typedef enum pd_parsed { PD_PARSED_OK, PD_PARSED_HELP, PD_PARSED_ERROR } pd_parsed;

// Parses argv[1…]. Prints the help on -h/--help, or one line on stderr when something is wrong.
pd_parsed pd_options_parse(const pd_command *command, int argc, char **argv);
