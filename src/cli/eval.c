// pdrop eval: many questions from a file, their answers, and how many are right.
#include "base/file.h"
#include "cli/cli.h"
#include "eval/ask.h"
#include "eval/scoring.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <yyjson.h>

static struct {
    const char *question_file, *image_folder, *answers_file, *conversation, *system;
    int32_t max_new_tokens, n_sessions;
    bool json, verbose, quiet;
} flags = {.max_new_tokens = 128};

static const pd_option eval_table[] = {
    {.type = PD_OPTION_HEADING, .help = "questions"},
    {PD_OPTION_STRING, 0, "--question-file", "FILE",
     "questions as LLaVA's (JSON, or a record a line), with the expected answers or without",
     &flags.question_file, 0, 0, NULL},
    {PD_OPTION_STRING, 0, "--image-folder", "DIR", "where their pictures are", &flags.image_folder, 0, 0,
     NULL},
    {PD_OPTION_STRING, 0, "--answers-file", "FILE", "write the answers here, a JSON line each, as LLaVA does",
     &flags.answers_file, 0, 0, NULL},
    {PD_OPTION_STRING, 0, "--conv-mode", "NAME",
     "conversation template under LLaVA's name (default: what the GGUF says, else vicuna_v1)",
     &flags.conversation, 0, 0, NULL},
    {PD_OPTION_STRING, 0, "--system", "TEXT", "system prompt (default: the template's)", &flags.system, 0, 0,
     NULL},
    {PD_OPTION_INT, 0, "--max_new_tokens", "N", "most tokens of an answer (default: 128)",
     &flags.max_new_tokens, 1, INT32_MAX, NULL},
    {PD_OPTION_INT, 0, "--parallel", "N", "questions at a time (default: one for each thread)",
     &flags.n_sessions, 1, 512, NULL},
    {.type = PD_OPTION_HEADING, .help = "output"},
    {PD_OPTION_FLAG, 0, "--json", NULL, "the figures as one line of JSON", &flags.json, 0, 0, NULL},
    {PD_OPTION_FLAG, 'v', "--verbose", NULL, "every question with its answer", &flags.verbose, 0, 0, NULL},
    {PD_OPTION_FLAG, 'q', "--quiet", NULL, "no progress bar", &flags.quiet, 0, 0, NULL},
    {.type = PD_OPTION_END},
};

static const pd_option *const tables[] = {pd_model_option_table, eval_table, pd_schedule_option_table,
                                          pd_compute_option_table, NULL};

static const pd_command command = {
    .name = "eval",
    .usage = "pdrop eval -m MODEL [--mmproj MMPROJ] --question-file FILE [--image-folder DIR] [schedule] "
             "[options]",
    .about =
        "Asks every question of a file, several at a time, greedily, and counts the right answers by task.\n"
        "An answer is right when it equals the expected one but for case, punctuation and white space.",
    .tables = tables,
};

// What the answers add up to.
typedef struct {
    pd_file_writer writer; // of --answers-file; stream NULL: none
    char model[160];
    char schedule[512];
    int image_width, text_width, answer_width; // of -v's columns
    pd_scores scores;
    int64_t n, n_prompt_tokens, n_image_tokens, n_generated;
    double encode_ms, prefill_ms, decode_ms, seconds;
} tally;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

// ---- names ------------------------------------------------------------------------------------------------

// The model file's name without folder and ".gguf".
static void name_model(const char *path, char *name, size_t size) {
    const char *slash = strrchr(path, '/');
    snprintf(name, size, "%s", slash ? slash + 1 : path);
    const size_t length = strlen(name);
    if (length > 5 && strcmp(name + length - 5, ".gguf") == 0) name[length - 5] = '\0';
    pd_make_printable(name);
}

// The policy in --policy's words.
static void name_schedule(const pd_policy *policy, char *name, size_t size) {
    static const char *const scorers[] = {"pdrop", "fastv", "uniform", "random"}; // pd_scorer's order
    int used = snprintf(name, size, "%s", policy->n_drops ? scorers[policy->scorer] : "none");
    for (int32_t i = 0; i < policy->n_drops && used < (int)size - 32; i++)
        used += snprintf(name + used, size - (size_t)used, "%c%d=%g", i ? ',' : ':', policy->layer_list[i],
                         policy->image_token_ratio_list[i]);
    if (policy->n_drops > 0 && policy->scorer == PD_SCORER_RANDOM && used < (int)size - 32)
        used += snprintf(name + used, size - (size_t)used, ";seed=%llu", (unsigned long long)policy->seed);
    if (policy->n_drops > 0 && policy->positions == PD_POSITIONS_ORIGINAL && used < (int)size - 32)
        snprintf(name + used, size - (size_t)used, ";positions=original");
}

// Columns as wide as the texts, up to some width that most lines keep to.
static int wider(int width, const char *text, int most) {
    const size_t length = text ? strlen(text) : 0;
    return length > (size_t)width ? (int)(length < (size_t)most ? length : (size_t)most) : width;
}

static void choose_widths(const pd_questions *questions, tally *t) {
    t->answer_width = 8;
    for (size_t i = 0; i < questions->n; i++) {
        const pd_eval_question *question = &questions->items[i];
        t->image_width = wider(t->image_width, question->image, 32);
        t->text_width = wider(t->text_width, question->text, 60);
        t->answer_width = wider(t->answer_width, question->answer, 24);
    }
}

// ---- answers ----------------------------------------------------------------------------------------------

static pd_status write_answer(tally *t, const pd_eval_question *question, const char *text, bool right,
                              pd_error *err) {
    char *id;
    if (asprintf(&id, "%s-%s", t->model, question->id) < 0)
        return pd_fail_memory(err, strlen(question->id), "an answer");
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    if (question->id_is_number) {
        yyjson_mut_obj_add_val(doc, root, "question_id", yyjson_mut_raw(doc, question->id));
    } else {
        yyjson_mut_obj_add_str(doc, root, "question_id", question->id);
    }
    yyjson_mut_obj_add_str(doc, root, "prompt", question->text);
    yyjson_mut_obj_add_str(doc, root, "text", text);
    yyjson_mut_obj_add_str(doc, root, "answer_id", id);
    yyjson_mut_obj_add_str(doc, root, "model_id", t->model);
    yyjson_mut_val *metadata = yyjson_mut_obj_add_obj(doc, root, "metadata");
    if (question->answer) {
        yyjson_mut_obj_add_str(doc, metadata, "answer", question->answer);
        yyjson_mut_obj_add_bool(doc, metadata, "right", right);
    }
    char *line = yyjson_mut_write(doc, YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL);
    yyjson_mut_doc_free(doc);
    free(id);
    if (!line) return pd_fail_memory(err, 0, "an answer");
    pd_status status = pd_file_write(&t->writer, line, strlen(line), err);
    free(line);
    if (status == PD_OK) status = pd_file_write(&t->writer, "\n", 1, err);
    return status;
}

// One line, whatever is in the texts.
static pd_status print_answer(const tally *t, const pd_eval_question *question, const char *text, bool right,
                              pd_error *err) {
    FILE *out = flags.json ? stderr : stdout;
    const char *parts[] = {question->image ? question->image : "", question->text, text,
                           question->answer ? question->answer : ""};
    char *copies[4] = {0};
    bool copied = true;
    for (size_t i = 0; i < 4; i++) {
        copies[i] = strdup(parts[i]);
        copied = copied && copies[i];
        if (copies[i]) pd_make_printable(copies[i]);
    }
    if (copied) {
        pd_cli_progress_end();
        fprintf(out, "%-*s  %-*s  ", t->image_width, copies[0], t->text_width, copies[1]);
        if (!question->answer) {
            fprintf(out, "%s\n", copies[2]);
        } else if (right) {
            fprintf(out, "%-*s  right\n", t->answer_width, copies[2]);
        } else {
            fprintf(out, "%-*s  wrong: %s\n", t->answer_width, copies[2], copies[3]);
        }
    }
    for (size_t i = 0; i < 4; i++)
        free(copies[i]);
    if (ferror(out) && out == stdout) return pd_fail(err, PD_ERR_IO, "cannot write to standard output");
    return copied ? PD_OK : pd_fail_memory(err, strlen(text), "an answer");
}

static pd_status on_answer(const pd_eval_question *question, const pd_eval_answer *answer, void *user,
                           pd_error *err) {
    tally *t = user;
    bool right = false;
    if (question->answer) {
        PD_TRY(pd_answer_is_right(answer->text, question->answer, &right, err));
        PD_TRY(pd_scores_add(&t->scores, question->task, question->held_out, right, err));
    }
    if (t->writer.stream) PD_TRY(write_answer(t, question, answer->text, right, err));
    if (flags.verbose) PD_TRY(print_answer(t, question, answer->text, right, err));
    t->n++;
    t->n_prompt_tokens += answer->n_prompt_tokens;
    t->n_image_tokens += answer->n_image_tokens;
    t->n_generated += answer->n_generated;
    t->encode_ms += answer->encode_ms;
    t->prefill_ms += answer->prefill_ms;
    t->decode_ms += answer->decode_ms;
    return PD_OK;
}

// ---- figures ----------------------------------------------------------------------------------------------

static void print_table(const tally *t) {
    const pd_scores *s = &t->scores;
    bool any_held_out = s->n > 0 && s->rows[0].n_held_out > 0;
    int width = 4;
    for (size_t i = 0; i < s->n; i++)
        width = (int)strlen(s->rows[i].task) > width && strlen(s->rows[i].task) < 40
                    ? (int)strlen(s->rows[i].task)
                    : width;
    if (flags.verbose) putchar('\n');
    if (s->n > 0)
        printf("%-*s %9s %9s %9s  %17s%s\n", width, "task", "questions", "right", "accuracy", "95 % interval",
               any_held_out ? "   held out" : "");
    // all of them last; where they are of one nameless task, alone
    const size_t first = s->n == 2 && s->rows[1].task[0] == '\0' ? 2 : 1;
    for (size_t i = first; s->n > 0 && i <= s->n; i++) {
        const pd_score *row = &s->rows[i < s->n ? i : 0];
        double low, high;
        pd_share_interval(row->right, row->n, &low, &high);
        char name[64];
        snprintf(name, sizeof name, "%.40s", row->task[0] ? row->task : "-");
        pd_make_printable(name);
        printf("%-*s %9lld %9lld %7.1f %%  %6.1f - %6.1f %%", width, name, (long long)row->n,
               (long long)row->right, 100.0 * (double)row->right / (double)row->n, 100 * low, 100 * high);
        if (row->n_held_out > 0)
            printf("   %6.1f %% of %lld", 100.0 * (double)row->right_held_out / (double)row->n_held_out,
                   (long long)row->n_held_out);
        putchar('\n');
    }
    const double n = (double)t->n;
    printf("%s%lld questions to %s, %s, in %.1f s (%.1f a second)\n", s->n > 0 ? "\n" : "", (long long)t->n,
           t->model, t->schedule, t->seconds, n / t->seconds);
    printf("a question: %.1f tokens, %.1f of them of pictures; picture %.1f ms, prefill %.1f ms; %.1f tokens "
           "answered, %.1f ms\n",
           (double)t->n_prompt_tokens / n, (double)t->n_image_tokens / n, t->encode_ms / n, t->prefill_ms / n,
           (double)t->n_generated / n, t->decode_ms / n);
}

static void add_score(yyjson_mut_doc *doc, yyjson_mut_val *object, const pd_score *row) {
    double low, high;
    pd_share_interval(row->right, row->n, &low, &high);
    yyjson_mut_obj_add_int(doc, object, "n", row->n);
    yyjson_mut_obj_add_int(doc, object, "right", row->right);
    yyjson_mut_obj_add_real(doc, object, "accuracy", (double)row->right / (double)row->n);
    yyjson_mut_obj_add_real(doc, object, "low", low);
    yyjson_mut_obj_add_real(doc, object, "high", high);
    yyjson_mut_obj_add_int(doc, object, "n_held_out", row->n_held_out);
    yyjson_mut_obj_add_int(doc, object, "right_held_out", row->right_held_out);
}

static pd_status print_json(const tally *t, pd_error *err) {
    const double n = (double)t->n;
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "model", t->model);
    yyjson_mut_obj_add_str(doc, root, "schedule", t->schedule);
    yyjson_mut_obj_add_int(doc, root, "questions", t->n);
    yyjson_mut_obj_add_real(doc, root, "seconds", t->seconds);
    yyjson_mut_obj_add_real(doc, root, "prompt_tokens", (double)t->n_prompt_tokens / n);
    yyjson_mut_obj_add_real(doc, root, "image_tokens", (double)t->n_image_tokens / n);
    yyjson_mut_obj_add_real(doc, root, "generated", (double)t->n_generated / n);
    yyjson_mut_obj_add_real(doc, root, "encode_ms", t->encode_ms / n);
    yyjson_mut_obj_add_real(doc, root, "prefill_ms", t->prefill_ms / n);
    yyjson_mut_obj_add_real(doc, root, "decode_ms", t->decode_ms / n);
    yyjson_mut_val *rows = yyjson_mut_obj_add_arr(doc, root, "rows");
    for (size_t i = 0; i < t->scores.n; i++) {
        const size_t at = i + 1 < t->scores.n ? i + 1 : 0; // all of them last
        yyjson_mut_val *row = yyjson_mut_arr_add_obj(doc, rows);
        yyjson_mut_obj_add_str(doc, row, "task", t->scores.rows[at].task);
        add_score(doc, row, &t->scores.rows[at]);
    }
    return pd_cli_print_json(doc, "the figures", err);
}

// ---- the command ------------------------------------------------------------------------------------------

static pd_status ask(pd_model *model, const pd_questions *questions, const atomic_bool *cancel, tally *t,
                     pd_error *err) {
    pd_policy policy;
    pd_session_params session;
    PD_TRY(pd_cli_policy(pd_model_n_layers(model), &policy, err));
    pd_cli_session_params(&policy, true, &session);
    session.conversation = flags.conversation;
    session.system = flags.system;
    session.n_predict = flags.max_new_tokens;
    name_model(pd_model_flags.model, t->model, sizeof t->model);
    name_schedule(&policy, t->schedule, sizeof t->schedule);
    choose_widths(questions, t);
    const pd_eval_params params = {.model = model,
                                   .session = &session,
                                   .image_folder = flags.image_folder,
                                   .n_sessions = flags.n_sessions,
                                   .cancel = cancel,
                                   .progress = flags.quiet ? NULL : pd_cli_progress,
                                   .on_answer = on_answer,
                                   .user = t};
    const double start = now();
    const pd_status status = pd_eval_ask(&params, questions, err);
    pd_cli_progress_end();
    t->seconds = now() - start;
    return status;
}

static pd_status evaluate(pd_model *model, const atomic_bool *cancel, pd_error *err) {
    pd_questions questions = {0};
    tally t = {0};
    if (!flags.question_file)
        return pd_fail(err, PD_ERR_ARGUMENT, "no questions: give a file with --question-file");
    const char *inputs[] = {flags.question_file, pd_model_flags.model, pd_model_flags.mmproj};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        PD_TRY(pd_cli_expect_other("--answers-file", flags.answers_file, inputs[i], err));
    PD_TRY(pd_questions_read(flags.question_file, &questions, err));
    pd_status status = PD_OK;
    if (flags.answers_file) status = pd_file_writer_open(flags.answers_file, &t.writer, err);
    if (status == PD_OK) status = ask(model, &questions, cancel, &t, err);
    if (status == PD_OK && flags.answers_file) status = pd_file_writer_commit(&t.writer, err);
    pd_file_writer_discard(&t.writer);
    if (status == PD_OK && flags.json) {
        status = print_json(&t, err);
    } else if (status == PD_OK) {
        print_table(&t);
    }
    pd_scores_free(&t.scores);
    pd_questions_free(&questions);
    return status;
}

int pd_cli_eval(int argc, char **argv) {
    static atomic_bool cancel;
    int parsed_exit;
    if (!pd_cli_parse(&command, argc, argv, &parsed_exit)) return parsed_exit;
    pd_error err;
    pd_model *model = NULL;
    bool done;
    pd_status status = pd_cli_load_model(true, &model, &done, &err);
    if (status == PD_OK && done) return PD_EXIT_OK;
    if (status == PD_OK) {
        pd_cli_cancel_on_signals(&cancel);
        status = evaluate(model, &cancel, &err);
    }
    pd_model_free(model);
    return status == PD_OK ? PD_EXIT_OK : pd_cli_report(status, &err);
}
