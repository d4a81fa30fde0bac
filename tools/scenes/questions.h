// What is asked about a scene, and the answer.
#pragma once

#include "scene.h"

typedef enum {
    PD_TASK_SHAPES,
    PD_TASK_COLORS,
    PD_TASK_SIZES,
    PD_TASK_POSITIONS,
    PD_TASK_RELATIONS,
    PD_TASK_COUNTING,
    PD_TASK_EXISTENCE,
    PD_TASK_WORDS,
    PD_TASK_NUMBERS,
    PD_TASK_DOCUMENTS,
    PD_TASK_CHARTS,
    PD_TASK_EMOJI,
    PD_N_TASKS,
} pd_task;

extern const char *const pd_task_names[PD_N_TASKS + 1]; // NULL-terminated

enum { PD_MAX_QUESTION = 112, PD_MAX_ANSWER = 24 };

typedef struct pd_question {
    pd_task task;
    const char *type;          // which of the task's kinds of question, such as "size of one"
    bool held_out;             // is about something that training never sees
    int choice;                // 1, 2: the answer is the first or second of two that the question names
    char key[PD_MAX_QUESTION]; // the same for every wording of the same question
    char question[PD_MAX_QUESTION];
    char answer[PD_MAX_ANSWER];
} pd_question;

// A task's targets are what its questions are balanced over: the answers where they are few (each colour;
// yes and no), else the kinds of question.
int pd_n_targets(pd_task task);
// Whether some questions of the task are about held out things.
bool pd_task_has_held_out(pd_task task);
// A kind of scene for the task, drawn from those it is asked about (and that hold what is held out).
pd_scene_kind pd_scene_for_task(pd_task task, bool held_out, uint64_t *random);

// Asks a question of this task and target, in one of a few wordings. False where the scene gives no
// unambiguous one. `held_out`: may ask for absent things that training never sees.
bool pd_ask(const pd_scene *scene, pd_task task, int target, bool held_out, uint64_t *random,
            pd_question *question);
// Asks some question about the scene, of a task that is drawn with these weights, targets evenly; false now
// and then, where the task that was drawn has none, and where all the scene's tasks weigh nothing.
bool pd_ask_any(const pd_scene *scene, const int weights[PD_N_TASKS], bool held_out, uint64_t *random,
                pd_question *question);

// Whether one of n earlier turns asks the same in whatever words, or reads the same.
bool pd_asked_before(const pd_question *turns, int n, const pd_question *question);
// Whether they give the answer away: who can read it there need not see it.
bool pd_told_before(const pd_question *turns, int n, const pd_question *question);

// All there is in the scene, in reading order.
enum { PD_MAX_CAPTION = 512 };
void pd_caption(const pd_scene *scene, char caption[PD_MAX_CAPTION]);
// How a caption is asked for.
enum { PD_N_DESCRIBE_WORDINGS = 3 };
extern const char *const pd_describe_wordings[PD_N_DESCRIBE_WORDINGS];
// A question that needs no picture: sums, numbers in order, words to repeat. Nothing held out is in it.
void pd_ask_text_only(uint64_t *random, char question[PD_MAX_QUESTION], char answer[PD_MAX_ANSWER]);

// ---- shared by the files that ask -------------------------------------------------------------------------

bool pd_ask_objects(const pd_scene *scene, pd_task task, int target, bool held_out, uint64_t *random,
                    pd_question *question);
bool pd_ask_signs(const pd_scene *scene, pd_task task, int target, uint64_t *random, pd_question *question);
bool pd_ask_letters(const pd_scene *scene, pd_task task, int target, uint64_t *random, pd_question *question);
bool pd_ask_document(const pd_scene *scene, int target, uint64_t *random, pd_question *question);
bool pd_ask_chart(const pd_scene *scene, int target, uint64_t *random, pd_question *question);

// Fills in a question whose wording is one of n formats, drawn at random, each with at most two "%s".
void pd_word_question(pd_question *question, const char *type, const char *const *formats, int n,
                      const char *first, const char *second, uint64_t *random);
// What writing is called: "word", "number", "letter" or "digit".
const char *pd_writing(const pd_scene *scene, const pd_item *item);
void pd_word_answer(pd_question *question, const char *answer);
