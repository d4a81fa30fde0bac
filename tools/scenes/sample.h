// One record of a data set: a scene and what is said about it, as a pure function of options and index.
#pragma once

#include "questions.h"

#include "base/error.h"

typedef enum { PD_KIND_CAPTIONS, PD_KIND_QUESTIONS, PD_KIND_EVAL, PD_KIND_DEMO } pd_kind;
typedef enum { PD_SPLIT_TRAIN, PD_SPLIT_VAL, PD_SPLIT_TEST } pd_split;

extern const char *const pd_kind_names[];  // NULL-terminated
extern const char *const pd_split_names[]; // NULL-terminated

enum { PD_MAX_TURNS = 16, PD_N_DEMOS = 8 };

typedef struct pd_sample_options {
    pd_kind kind;
    pd_split split;
    uint64_t seed;
    int64_t first;           // index of the first record (of each task)
    int64_t count;           // records; of each task with PD_KIND_EVAL
    int turns;               // questions a picture, at most
    int most;                // objects in a picture, at most; not with PD_KIND_EVAL and PD_KIND_DEMO
    double text_only;        // share of records without a picture
    double describe;         // share of pictures whose conversation ends with a description
    double told;             // share of conversations whose turns may tell each other's answers
    double held_out;         // share of records about what training never sees
    int mix[PD_N_SCENES];    // weights of the kinds of scene
    int weights[PD_N_TASKS]; // of the tasks in conversations
    int n_tasks;             // PD_KIND_EVAL
    pd_task tasks[PD_N_TASKS];
} pd_sample_options;

typedef struct pd_sample {
    char id[48];
    char image[64]; // path below the data set's folder; "": no picture
    pd_scene scene;
    int n_questions;
    pd_question questions[PD_MAX_TURNS];
    const char *describe;         // the question whose answer is the caption; NULL: none
    char caption[PD_MAX_CAPTION]; // PD_KIND_CAPTIONS, or the description; else ""
} pd_sample;

// How many records there are.
int64_t pd_n_samples(const pd_sample_options *options);
// Record `index` of them.
void pd_sample_make(const pd_sample_options *options, int64_t index, pd_sample *sample);
// As JSON: LLaVA's conversations, or a question with its answer (PD_KIND_EVAL). malloc'd; NULL without
// memory.
char *pd_sample_json(const pd_sample *sample, pd_kind kind);
