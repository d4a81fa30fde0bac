// Questions with pictures and expected answers, out of a file: a JSON list of records, or a record a line.
// Three kinds of records:
//
//     {"question_id": 7, "image": "a.png", "text": "What is it?", "category": "animals"}     LLaVA's
//     questions
//     {"id": "7", "image": "a.png", "question": "What is it?", "answer": "cat", "task": "animals"}
//     {"id": "7", "image": "a.png", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"},
//                                                     {"from": "gpt", "value": "cat"}, …]}  LLaVA's training
//
// In the first two "text" and "question", "task" and "category", and "answer" and "label" mean the same. Of
// a conversation every turn of the user is a question of its own.
#pragma once

#include "base/error.h"

// Strings are UTF-8 without U+0000 and belong to the pd_questions.
typedef struct pd_eval_question {
    const char *id;
    bool id_is_number; // in the file
    const char *image; // as the file names it; NULL: none
    const char *text;
    const char *answer; // the expected one; NULL: not known
    const char *task;   // "": not said
    bool held_out;      // is about something that training never saw, as the file says
} pd_eval_question;

typedef struct pd_questions {
    pd_eval_question *items; // [n]
    size_t n, capacity;
    struct pd_text_block *blocks; // the strings
} pd_questions;

// PD_ERR_FORMAT names file, line and column of broken JSON, else record and field. At least one question on
// success; empty on failure.
pd_status pd_questions_read(const char *path, pd_questions *questions, pd_error *err);
// The same from memory; `name` stands in messages.
pd_status pd_questions_parse(const char *bytes, size_t size, const char *name, pd_questions *questions,
                             pd_error *err);
void pd_questions_free(pd_questions *questions);
