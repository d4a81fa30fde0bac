// Asks a model many questions, several at a time.
#pragma once

#include "eval/questions.h"

#include <stdatomic.h>

typedef struct pd_eval_answer {
    char *text; // UTF-8, without white space at its ends
    int32_t n_prompt_tokens, n_image_tokens, n_generated;
    double encode_ms;  // picture, vision tower and projector; 0 where it was encoded before
    double prefill_ms; // decoder
    double decode_ms;  // passes behind the prompt
} pd_eval_answer;

// Questions are answered in any order and told in theirs, by the calling thread. Not PD_OK ends all.
typedef pd_status (*pd_eval_callback)(const pd_eval_question *question, const pd_eval_answer *answer,
                                      void *user, pd_error *err);

typedef struct pd_eval_params {
    pd_model *model;
    const pd_session_params *session; // n_threads: of all sessions together; 0: the cores
    const char *image_folder;         // NULL: pictures' names are paths as they are
    int32_t n_sessions;               // at a time; 0: one for each thread
    const atomic_bool *cancel;        // set: stop with PD_ERR_CANCELLED; NULL: never
    pd_progress_callback progress;    // of the calling thread; NULL: none
    void *progress_user;
    pd_eval_callback on_answer;
    void *user;
} pd_eval_params;

// Each session answers with its share of the threads, so that small models keep all cores busy.
pd_status pd_eval_ask(const pd_eval_params *params, const pd_questions *questions, pd_error *err);
