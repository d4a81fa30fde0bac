// pocket_eval: the pocket models on questions they have never seen, dense and with the pyramid (make
// pocket-eval).
#include "base/file.h"
#include "baseline.h"
#include "cli/cli.h"
#include "eval/ask.h"
#include "eval/scoring.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>

static struct {
    const char *models, *data, *summary, *out;
    int32_t max_new_tokens;
    bool quiet;
} flags = {.models = "models/pocket", .max_new_tokens = 16};

static const pd_option option_table[] = {
    {.type = PD_OPTION_HEADING, .help = "what"},
    {PD_OPTION_STRING, 0, "--models", "DIR",
     "with dense.gguf, dense-mmproj.gguf, pyramid.gguf, pyramid-mmproj.gguf (default: models/pocket)",
     &flags.models, 0, 0, NULL},
    {PD_OPTION_STRING, 0, "--data", "DIR", "written by scenes --kind eval --split test", &flags.data, 0, 0,
     NULL},
    {PD_OPTION_STRING, 0, "--summary", "FILE",
     "what scenes --report --json printed: the seed and the blind baseline", &flags.summary, 0, 0, NULL},
    {PD_OPTION_STRING, 'o', "--output", "FILE", "the figures as JSON", &flags.out, 0, 0, NULL},
    {PD_OPTION_INT, 0, "--max_new_tokens", "N", "most tokens of an answer (default: 16)",
     &flags.max_new_tokens, 1, 4096, NULL},
    {PD_OPTION_FLAG, 'q', "--quiet", NULL, "no progress bar", &flags.quiet, 0, 0, NULL},
    {.type = PD_OPTION_END},
};

static const pd_option *const tables[] = {option_table, pd_schedule_option_table, pd_compute_option_table,
                                          NULL};

static const pd_command command = {
    .program = "pocket_eval",
    .usage = "pocket_eval --data DIR --summary FILE -o FILE [--models DIR] [options]",
    .about =
        "Asks both pocket models every question, dense and with the pyramid, and prints how many answers "
        "are right,\nby task, beside the blind baseline: who has read the training split's questions and "
        "answers, but sees no picture.",
    .tables = tables,
};

enum { N_MODELS = 2, N_SCHEDULES = 2, MOST_PATH = 4096 };
static const char *const model_names[N_MODELS] = {"dense", "pyramid"};       // how it was trained
static const char *const schedule_names[N_SCHEDULES] = {"dense", "pyramid"}; // how it is run

// One model under one schedule.
typedef struct {
    pd_scores scores;
    int64_t n;
    double encode_ms, prefill_ms, decode_ms, seconds;
    const char *label;
} column;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

// ---- asking -----------------------------------------------------------------------------------------------

static void name_files(int model, char model_path[MOST_PATH], char mmproj_path[MOST_PATH]) {
    snprintf(model_path, MOST_PATH, "%s/%s.gguf", flags.models, model_names[model]);
    snprintf(mmproj_path, MOST_PATH, "%s/%s-mmproj.gguf", flags.models, model_names[model]);
}

static pd_status on_answer(const pd_eval_question *question, const pd_eval_answer *answer, void *user,
                           pd_error *err) {
    column *c = user;
    bool right = false;
    if (!question->answer)
        return pd_fail(err, PD_ERR_FORMAT, "question %.80s: answer: expected a string, found nothing",
                       question->id);
    PD_TRY(pd_answer_is_right(answer->text, question->answer, &right, err));
    PD_TRY(pd_scores_add(&c->scores, question->task, question->held_out, right, err));
    c->n++;
    c->encode_ms += answer->encode_ms;
    c->prefill_ms += answer->prefill_ms;
    c->decode_ms += answer->decode_ms;
    return PD_OK;
}

static void show_progress(const char *what, double progress, void *user) {
    (void)what;
    pd_cli_progress(((const column *)user)->label, progress, NULL);
}

static pd_status ask_model(pd_model *model, const pd_questions *questions, const atomic_bool *cancel,
                           column columns[N_SCHEDULES], pd_error *err) {
    for (int schedule = 0; schedule < N_SCHEDULES; schedule++) {
        pd_policy policy;
        pd_policy_none(&policy);
        if (schedule > 0) PD_TRY(pd_cli_policy(pd_model_n_layers(model), &policy, err));
        pd_session_params session;
        pd_cli_session_params(&policy, true, &session);
        session.n_predict = flags.max_new_tokens;
        column *c = &columns[schedule];
        const pd_eval_params params = {.model = model,
                                       .session = &session,
                                       .image_folder = flags.data,
                                       .cancel = cancel,
                                       .progress = flags.quiet ? NULL : show_progress,
                                       .progress_user = c,
                                       .on_answer = on_answer,
                                       .user = c};
        const double start = now();
        PD_TRY(pd_eval_ask(&params, questions, err));
        c->seconds = now() - start;
    }
    return PD_OK;
}

static pd_status ask_all(const pd_questions *questions, const atomic_bool *cancel,
                         column columns[N_MODELS][N_SCHEDULES], pd_error *err) {
    static const char *const labels[N_MODELS][N_SCHEDULES] = {
        {"dense model, dense", "dense model, pyramid"}, {"pyramid model, dense", "pyramid model, pyramid"}};
    for (int i = 0; i < N_MODELS; i++) {
        char model_path[MOST_PATH], mmproj_path[MOST_PATH];
        pd_model *model;
        bool done;
        name_files(i, model_path, mmproj_path);
        pd_model_flags.model = model_path;
        pd_model_flags.mmproj = mmproj_path;
        for (int k = 0; k < N_SCHEDULES; k++)
            columns[i][k].label = labels[i][k];
        pd_status status = pd_cli_load_model(true, &model, &done, err);
        if (status == PD_OK) status = ask_model(model, questions, cancel, columns[i], err);
        pd_model_free(model);
        pd_cli_progress_end();
        PD_TRY(status);
    }
    return PD_OK;
}

// ---- output -----------------------------------------------------------------------------------------------

static double share(int64_t right, int64_t n) {
    return n > 0 ? (double)right / (double)n : 0;
}

static void print_row(const char *task, int64_t n, double blind, const double shares[N_MODELS][N_SCHEDULES]) {
    printf("%-11s %9lld ", task, (long long)n);
    if (blind >= 0) {
        printf("%6.1f %%", 100 * blind);
    } else {
        printf("%8s", "");
    }
    for (int i = 0; i < N_MODELS; i++)
        printf("  |  %6.1f %%  %6.1f %%", 100 * shares[i][0], 100 * shares[i][1]);
    putchar('\n');
}

static void print_table(column columns[N_MODELS][N_SCHEDULES], const pd_baseline *b) {
    printf("%-11s %9s %8s  |  %-18s  |  %s\n", "", "", "", "trained dense", "trained with pyramid");
    printf("%-11s %9s %8s", "task", "questions", "blind");
    for (int i = 0; i < N_MODELS; i++)
        printf("  |  %8s  %8s", "dense", "pyramid");
    putchar('\n');
    const size_t n_rows = columns[0][0].scores.n;
    double shares[N_MODELS][N_SCHEDULES] = {{0}};
    for (size_t at = 1; at <= n_rows; at++) {
        const pd_score *first = &columns[0][0].scores.rows[at % n_rows]; // all of them last
        for (int i = 0; i < N_MODELS * N_SCHEDULES; i++) {
            const pd_score *row = &columns[i / 2][i % 2].scores.rows[at % n_rows];
            shares[i / 2][i % 2] = share(row->right, row->n);
        }
        print_row(first->task, first->n, pd_baseline_of(b, first->task), shares);
    }
    const pd_score *all = &columns[0][0].scores.rows[0];
    if (all->n_held_out > 0) {
        for (int i = 0; i < N_MODELS * N_SCHEDULES; i++) {
            const pd_score *row = &columns[i / 2][i % 2].scores.rows[0];
            shares[i / 2][i % 2] = share(row->right_held_out, row->n_held_out);
        }
        print_row("held out", all->n_held_out, -1, shares);
    }
    printf("%-30s", "all, 95 % interval");
    for (int i = 0; i < N_MODELS; i++) {
        printf("  | ");
        for (int k = 0; k < N_SCHEDULES; k++) {
            const pd_score *row = &columns[i][k].scores.rows[0];
            double low, high;
            pd_share_interval(row->right, row->n, &low, &high);
            printf(" %4.1f-%4.1f", 100 * low, 100 * high);
        }
    }
    printf("\n%-30s", "prefill of a question, ms");
    for (int i = 0; i < N_MODELS; i++)
        printf("  |  %8.1f  %8.1f", columns[i][0].prefill_ms / (double)columns[i][0].n,
               columns[i][1].prefill_ms / (double)columns[i][1].n);
    putchar('\n');
}

static void add_row(yyjson_mut_doc *doc, yyjson_mut_val *rows, const char *model, const char *schedule,
                    const pd_score *score, double blind) {
    double low, high;
    pd_share_interval(score->right, score->n, &low, &high);
    yyjson_mut_val *row = yyjson_mut_arr_add_obj(doc, rows);
    yyjson_mut_obj_add_str(doc, row, "task", score->task);
    yyjson_mut_obj_add_str(doc, row, "model", model);
    yyjson_mut_obj_add_str(doc, row, "schedule", schedule);
    yyjson_mut_obj_add_real(doc, row, "accuracy", share(score->right, score->n));
    yyjson_mut_obj_add_int(doc, row, "n", score->n);
    if (blind >= 0) {
        yyjson_mut_obj_add_real(doc, row, "blind", blind);
    } else {
        yyjson_mut_obj_add_null(doc, row, "blind");
    }
    yyjson_mut_obj_add_real(doc, row, "low", low);
    yyjson_mut_obj_add_real(doc, row, "high", high);
    yyjson_mut_obj_add_int(doc, row, "n_held_out", score->n_held_out);
    yyjson_mut_obj_add_int(doc, row, "right_held_out", score->right_held_out);
}

static pd_status write_json(column columns[N_MODELS][N_SCHEDULES], const pd_baseline *b,
                            pd_file_writer *writer, pd_error *err) {
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_uint(doc, root, "seed", b->seed);
    yyjson_mut_val *rows = yyjson_mut_obj_add_arr(doc, root, "rows");
    yyjson_mut_val *runs = yyjson_mut_obj_add_arr(doc, root, "runs");
    for (int i = 0; i < N_MODELS * N_SCHEDULES; i++) {
        const column *c = &columns[i / 2][i % 2];
        const char *model = model_names[i / 2], *schedule = schedule_names[i % 2];
        for (size_t k = 1; k <= c->scores.n; k++) {
            const pd_score *score = &c->scores.rows[k % c->scores.n];
            add_row(doc, rows, model, schedule, score, pd_baseline_of(b, score->task));
        }
        yyjson_mut_val *run = yyjson_mut_arr_add_obj(doc, runs);
        yyjson_mut_obj_add_str(doc, run, "model", model);
        yyjson_mut_obj_add_str(doc, run, "schedule", schedule);
        yyjson_mut_obj_add_real(doc, run, "seconds", c->seconds);
        yyjson_mut_obj_add_real(doc, run, "encode_ms", c->encode_ms / (double)c->n);
        yyjson_mut_obj_add_real(doc, run, "prefill_ms", c->prefill_ms / (double)c->n);
        yyjson_mut_obj_add_real(doc, run, "decode_ms", c->decode_ms / (double)c->n);
    }
    char *text =
        yyjson_mut_write(doc, YYJSON_WRITE_PRETTY_TWO_SPACES | YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL);
    yyjson_mut_doc_free(doc);
    if (!text) return pd_fail_memory(err, 0, flags.out);
    pd_status status = pd_file_write(writer, text, strlen(text), err);
    if (status == PD_OK) status = pd_file_write(writer, "\n", 1, err);
    free(text);
    return status == PD_OK ? pd_file_writer_commit(writer, err) : status;
}

// ---- the program ------------------------------------------------------------------------------------------

// The figures are not to take the place of what they come from.
static pd_status expect_others(const char *questions, pd_error *err) {
    PD_TRY(pd_cli_expect_other("--output", flags.out, flags.summary, err));
    PD_TRY(pd_cli_expect_other("--output", flags.out, questions, err));
    for (int i = 0; i < N_MODELS; i++) {
        char model[MOST_PATH], mmproj[MOST_PATH];
        name_files(i, model, mmproj);
        PD_TRY(pd_cli_expect_other("--output", flags.out, model, err));
        PD_TRY(pd_cli_expect_other("--output", flags.out, mmproj, err));
    }
    return PD_OK;
}

static pd_status run(const atomic_bool *cancel, pd_error *err) {
    static pd_baseline b;
    column columns[N_MODELS][N_SCHEDULES] = {0};
    pd_questions questions = {0};
    char path[MOST_PATH];
    if (!flags.data || !flags.summary || !flags.out)
        return pd_fail(err, PD_ERR_ARGUMENT, "expected --data, --summary and -o (see pocket_eval --help)");
    snprintf(path, sizeof path, "%s/test-eval.json", flags.data);
    PD_TRY(expect_others(path, err));
    PD_TRY(pd_baseline_read(flags.summary, &b, err));
    PD_TRY(pd_questions_read(path, &questions, err));
    pd_file_writer writer; // opened before the work that is to be written
    pd_status status = pd_file_writer_open(flags.out, &writer, err);
    if (status == PD_OK) status = ask_all(&questions, cancel, columns, err);
    if (status == PD_OK) print_table(columns, &b);
    if (status == PD_OK) status = write_json(columns, &b, &writer, err);
    pd_file_writer_discard(&writer);
    for (int i = 0; i < N_MODELS * N_SCHEDULES; i++)
        pd_scores_free(&columns[i / 2][i % 2].scores);
    pd_questions_free(&questions);
    return status;
}

int main(int argc, char **argv) {
    static atomic_bool cancel;
    const pd_parsed parsed = pd_options_parse(&command, argc, argv);
    if (parsed != PD_PARSED_OK) return parsed == PD_PARSED_HELP ? PD_EXIT_OK : PD_EXIT_USAGE;
    pd_cli_cancel_on_signals(&cancel);
    signal(SIGPIPE, SIG_IGN); // a pipe that nobody reads is a write that fails
    pd_error err;
    const pd_status status = run(&cancel, &err);
    pd_cli_progress_end();
    if (status == PD_ERR_CANCELLED) {
        fputs("pocket_eval: stopped\n", stderr);
        return PD_EXIT_INTERRUPTED;
    }
    if (status != PD_OK) {
        fprintf(stderr, "pocket_eval: %s\n", err.message);
        return status == PD_ERR_ARGUMENT ? PD_EXIT_USAGE : PD_EXIT_ERROR;
    }
    if (fflush(stdout) == 0 && !ferror(stdout)) return PD_EXIT_OK;
    fputs("pocket_eval: cannot write to standard output\n", stderr);
    return PD_EXIT_ERROR;
}
