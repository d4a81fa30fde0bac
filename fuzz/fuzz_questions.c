// Any bytes as a question file: what is accepted has texts, and any of them can be laid bare.
#include "check.h"

#include "eval/questions.h"
#include "eval/scoring.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text) {
    char *bare = malloc(strlen(text) + 1), *again = malloc(strlen(text) + 1);
    CHECK(bare && again);
    pd_lay_bare(text, bare);
    CHECK(strlen(bare) <= strlen(text));
    pd_lay_bare(bare, again);
    CHECK(strlen(again) <= strlen(bare));
    bool right;
    CHECK(pd_answer_is_right(text, text, &right, NULL) == PD_OK && right);
    free(again);
    free(bare);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size ? size : 1); // of exactly this size, so that reading beyond it is seen
    CHECK(text);
    if (size > 0) memcpy(text, data, size);
    pd_questions questions;
    pd_error err = {0};
    if (pd_questions_parse(text, size, "questions.json", &questions, &err) == PD_OK) {
        CHECK(questions.n > 0);
        for (size_t i = 0; i < questions.n; i++) {
            const pd_eval_question *q = &questions.items[i];
            CHECK(q->id && q->text && q->task && (!q->image || q->image[0] != '\0'));
            check_text(q->text);
            if (q->answer) check_text(q->answer);
        }
    } else {
        CHECK(err.status == PD_ERR_FORMAT && err.message[0] != '\0' && !strchr(err.message, '\n'));
        CHECK(!questions.items);
    }
    pd_questions_free(&questions);
    free(text);
    return 0;
}
