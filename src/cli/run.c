// pdrop run: one question, or a chat.
#include "base/error.h"
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    pd_strings images;
    const char *prompt, *system, *conversation;
    int32_t n_predict, top_k, repeat_last_n;
    float temperature, top_p, repeat_penalty;
    uint64_t seed;
    bool json, verbose, quiet, ignore_eos;
} flags = {.n_predict = -1, .repeat_last_n = 64, .top_p = 1.0F, .repeat_penalty = 1.0F};

static const pd_option run_table[] = {
    {.type = PD_OPTION_HEADING, .help = "question"},
    {PD_OPTION_STRINGS, 0, "--image", "FILE", "a picture (JPEG, PNG, WebP); may be repeated", &flags.images,
     0, 0, NULL},
    {PD_OPTION_STRING, 'p', "--prompt", "TEXT",
     "the question, \"<image>\" where a picture stands; without it: a chat", &flags.prompt, 0, 0, NULL},
    {PD_OPTION_STRING, 0, "--system", "TEXT", "system prompt (default: the template's)", &flags.system, 0, 0,
     NULL},
    {PD_OPTION_STRING, 0, "--conv-mode", "NAME",
     "conversation template under LLaVA's name (default: what the GGUF says, else vicuna_v1)",
     &flags.conversation, 0, 0, NULL},
    {.type = PD_OPTION_HEADING, .help = "answer"},
    {PD_OPTION_INT, 'n', "--n-predict", "N", "most tokens of an answer (default: -1, until it ends)",
     &flags.n_predict, -1, INT32_MAX, NULL},
    {PD_OPTION_FLOAT, 0, "--temp", "X", "temperature (default: 0, greedy)", &flags.temperature, 0, 1e6, NULL},
    {PD_OPTION_INT, 0, "--top-k", "N", "draw among the N likeliest (default: 0, all)", &flags.top_k, 0,
     INT32_MAX, NULL},
    {PD_OPTION_FLOAT, 0, "--top-p", "X", "draw among those that make up this probability (default: 1, all)",
     &flags.top_p, 0, 1, NULL},
    {PD_OPTION_FLOAT, 0, "--repeat-penalty", "X", "make recent tokens less likely (default: 1, off)",
     &flags.repeat_penalty, 0, 1e6, NULL},
    {PD_OPTION_INT, 0, "--repeat-last-n", "N", "how many tokens count as recent (default: 64)",
     &flags.repeat_last_n, 0, INT32_MAX, NULL},
    {PD_OPTION_UINT64, 's', "--seed", "N", "seed of the drawing (default: 0)", &flags.seed, 0, 0, NULL},
    {PD_OPTION_FLAG, 0, "--ignore-eos", NULL, "go on behind the end token", &flags.ignore_eos, 0, 0, NULL},
    {.type = PD_OPTION_HEADING, .help = "output"},
    {PD_OPTION_FLAG, 0, "--json", NULL,
     "the answer, the kept tokens of every stage and all figures as one line of JSON", &flags.json, 0, 0,
     NULL},
    {PD_OPTION_FLAG, 'v', "--verbose", NULL,
     "the model, and a table of stages beside the dense model's, on stderr", &flags.verbose, 0, 0, NULL},
    {PD_OPTION_FLAG, 'q', "--quiet", NULL, "no progress bar", &flags.quiet, 0, 0, NULL},
    {.type = PD_OPTION_END},
};

static const pd_option *const tables[] = {pd_model_option_table, run_table, pd_schedule_option_table,
                                          pd_compute_option_table, NULL};

static const pd_command command = {
    .name = "run",
    .usage = "pdrop run -m MODEL [--mmproj MMPROJ] [--image FILE]... [-p QUESTION] [options]",
    .about = "Answers a question about pictures, streaming, or chats where no question is given.",
    .tables = tables,
};

// ---- JSON -------------------------------------------------------------------------------------------------

static void add_kept(yyjson_mut_doc *doc, yyjson_mut_val *root, const pd_session *session,
                     const pd_stats *s) {
    yyjson_mut_val *kept = yyjson_mut_obj_add_arr(doc, root, "kept"); // [image][stage][token]
    for (int32_t image = 0; image < s->n_images; image++) {
        yyjson_mut_val *of_image = yyjson_mut_arr_add_arr(doc, kept);
        for (int32_t stage = 0; stage < s->n_stages; stage++) {
            yyjson_mut_val *of_stage = yyjson_mut_arr_add_arr(doc, of_image);
            const int32_t *tokens;
            size_t count;
            if (pd_session_kept(session, image, stage, &tokens, &count, NULL) != PD_OK) continue;
            for (size_t i = 0; i < count; i++)
                yyjson_mut_arr_add_int(doc, of_stage, tokens[i]);
        }
    }
}

static void add_stages(yyjson_mut_doc *doc, yyjson_mut_val *root, const pd_stats *s) {
    yyjson_mut_val *stages = yyjson_mut_obj_add_arr(doc, root, "stages");
    for (int32_t i = 0; i < s->n_stages; i++) {
        const pd_stage_stats *stage = &s->stages[i];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, stages);
        yyjson_mut_obj_add_int(doc, o, "first_layer", stage->first_layer);
        yyjson_mut_obj_add_int(doc, o, "n_layers", stage->n_layers);
        yyjson_mut_obj_add_int(doc, o, "n_rows", stage->n_rows);
        yyjson_mut_obj_add_int(doc, o, "n_image_tokens", stage->n_image_tokens);
        yyjson_mut_obj_add_real(doc, o, "layers_ms", stage->layers_ms);
        yyjson_mut_obj_add_real(doc, o, "rank_ms", stage->rank_ms);
        yyjson_mut_obj_add_uint(doc, o, "kv_bytes", stage->kv_bytes);
        yyjson_mut_obj_add_uint(doc, o, "kv_bytes_dense", stage->kv_bytes_dense);
        yyjson_mut_obj_add_real(doc, o, "flops", stage->flops);
        yyjson_mut_obj_add_real(doc, o, "flops_dense", stage->flops_dense);
    }
}

static pd_status print_json(pd_session *session, const char *answer, pd_error *err) {
    const pd_stats *s = pd_session_stats(session);
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "answer", answer);
    yyjson_mut_obj_add_str(doc, root, "conversation", pd_session_conversation(session));
    yyjson_mut_obj_add_int(doc, root, "n_images", s->n_images);
    yyjson_mut_obj_add_int(doc, root, "n_prompt_tokens", s->n_prompt_tokens);
    yyjson_mut_obj_add_int(doc, root, "n_image_tokens", s->n_image_tokens);
    yyjson_mut_obj_add_int(doc, root, "n_generated", s->n_generated);
    yyjson_mut_obj_add_int(doc, root, "n_decoded", s->n_decoded);
    add_stages(doc, root, s);
    add_kept(doc, root, session, s);
    const struct {
        const char *name;
        double value;
    } figures[] = {
        {"image_ms", s->image_ms},
        {"vit_ms", s->vit_ms},
        {"projector_ms", s->projector_ms},
        {"prefill_ms", s->prefill_ms},
        {"rank_ms", s->rank_ms},
        {"decode_ms", s->decode_ms},
        {"pack_ms", s->pack_ms},
        {"first_token_ms", s->first_token_ms},
        {"prefill_flops", s->prefill_flops},
        {"prefill_flops_dense", s->prefill_flops_dense},
        {"image_tmacs", s->image_tmacs},
        {"image_tmacs_dense", s->image_tmacs_dense},
    };
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        yyjson_mut_obj_add_real(doc, root, figures[i].name, figures[i].value);
    }
    yyjson_mut_obj_add_uint(doc, root, "kv_bytes", s->kv_bytes);
    yyjson_mut_obj_add_uint(doc, root, "kv_bytes_dense", s->kv_bytes_dense);
    yyjson_mut_obj_add_uint(doc, root, "kv_bytes_reserved", s->kv_bytes_reserved);
    yyjson_mut_obj_add_uint(doc, root, "compute_bytes", s->compute_bytes);
    yyjson_mut_obj_add_str(doc, root, "compute", pd_session_compute(session));
    yyjson_mut_obj_add_uint(doc, root, "packed_bytes", s->packed_bytes);
    return pd_cli_print_json(doc, "the answer", err);
}

// ---- one answer -------------------------------------------------------------------------------------------

// A growing string; NULL text after a failed allocation.
typedef struct {
    char *text;
    size_t size, capacity;
} string_buffer;

static bool append(string_buffer *buffer, const char *text) {
    const size_t size = strlen(text);
    if (buffer->size + size + 1 > buffer->capacity) {
        const size_t capacity = 2 * (buffer->size + size + 1);
        char *grown = realloc(buffer->text, capacity);
        if (!grown) return false;
        buffer->text = grown;
        buffer->capacity = capacity;
    }
    memcpy(buffer->text + buffer->size, text, size + 1);
    buffer->size += size;
    return true;
}

// Answers the conversation; the answer streams to stdout, and to *answer.
static pd_status answer_messages(pd_session *session, const pd_message *messages, size_t n,
                                 const pd_policy *policy, string_buffer *answer, pd_error *err) {
    answer->size = 0;
    if (!append(answer, "")) return pd_fail_memory(err, 1, "an answer");
    pd_status status = pd_session_prompt(session, messages, n, err);
    pd_cli_progress_end();
    if (status != PD_OK) return status;
    const char *piece;
    while ((status = pd_session_next(session, &piece, err)) == PD_OK) {
        // SentencePiece's answers begin with the space that followed "ASSISTANT:"
        if (answer->size == 0) piece += strspn(piece, " ");
        if (!append(answer, piece)) return pd_fail_memory(err, answer->size + strlen(piece), "an answer");
        if (!flags.json && (fputs(piece, stdout) == EOF || fflush(stdout) != 0)) break;
    }
    if (!flags.json) putchar('\n');
    if (ferror(stdout) || fflush(stdout) != 0)
        return pd_fail(err, PD_ERR_IO, "cannot write the answer to standard output");
    if (status == PD_DONE || status == PD_ERR_CANCELLED) {
        if (flags.json) PD_TRY(print_json(session, answer->text, err));
        if (flags.verbose)
            pd_cli_print_stats(stderr, pd_session_stats(session), policy, pd_session_compute(session));
    }
    return status == PD_DONE ? PD_OK : status;
}

// ---- chat -------------------------------------------------------------------------------------------------

typedef struct {
    pd_message *messages;
    char **texts;         // owned, one a message
    pd_image ***pictures; // owned arrays, one a message; NULL where there are none
    size_t count, capacity;
    pd_image *waiting[PD_MAX_STRINGS]; // loaded, for the next question
    size_t n_waiting;
} chat;

static void chat_clear(chat *c) {
    for (size_t i = 0; i < c->count; i++) {
        for (size_t j = 0; j < c->messages[i].n_images; j++)
            pd_image_free(c->pictures[i][j]);
        free(c->pictures[i]);
        free(c->texts[i]);
    }
    for (size_t i = 0; i < c->n_waiting; i++)
        pd_image_free(c->waiting[i]);
    c->count = c->n_waiting = 0;
}

static void chat_free(chat *c) {
    chat_clear(c);
    free(c->messages);
    free(c->texts);
    free(c->pictures);
}

// Adds a message, with the waiting pictures if it is the user's.
static bool chat_add(chat *c, pd_role role, const char *text) {
    if (c->count == c->capacity) {
        const size_t capacity = 2 * c->capacity + 8;
        pd_message *messages = realloc(c->messages, capacity * sizeof *messages);
        if (messages) c->messages = messages;
        char **texts = realloc(c->texts, capacity * sizeof *texts);
        if (texts) c->texts = texts;
        pd_image ***pictures = realloc(c->pictures, capacity * sizeof *pictures);
        if (pictures) c->pictures = pictures;
        if (!messages || !texts || !pictures) return false;
        c->capacity = capacity;
    }
    const size_t n_images = role == PD_ROLE_USER ? c->n_waiting : 0;
    char *copy = strdup(text);
    pd_image **pictures = n_images ? malloc(n_images * sizeof(pd_image *)) : NULL;
    if (!copy || (n_images && !pictures)) {
        free(copy);
        free(pictures);
        return false;
    }
    for (size_t i = 0; i < n_images; i++)
        pictures[i] = c->waiting[i];
    c->texts[c->count] = copy;
    c->pictures[c->count] = pictures;
    c->messages[c->count] = (pd_message){role, copy, pictures, n_images};
    c->count++;
    if (role == PD_ROLE_USER) c->n_waiting = 0;
    return true;
}

// Takes the last message back; its pictures wait again.
static void chat_undo(chat *c) {
    c->count--;
    for (size_t i = 0; i < c->messages[c->count].n_images; i++)
        c->waiting[c->n_waiting++] = c->pictures[c->count][i];
    free(c->pictures[c->count]);
    free(c->texts[c->count]);
}

static pd_status chat_load_image(chat *c, const char *path, pd_error *err) {
    if (c->n_waiting == PD_MAX_STRINGS)
        return pd_fail(err, PD_ERR_ARGUMENT, "at most %d pictures in one question", PD_MAX_STRINGS);
    const pd_status status = pd_image_load(path, &c->waiting[c->n_waiting], err);
    if (status == PD_OK) c->n_waiting++;
    return status;
}

static pd_status ask(pd_session *session, chat *c, const char *question, const pd_policy *policy,
                     string_buffer *answer, pd_error *err) {
    if (!chat_add(c, PD_ROLE_USER, question)) return pd_fail_memory(err, strlen(question), "a question");
    const pd_status status = answer_messages(session, c->messages, c->count, policy, answer, err);
    const bool stopped_midway = status == PD_ERR_CANCELLED && answer->size > 0;
    if (status != PD_OK && !stopped_midway) {
        chat_undo(c);
        return status;
    }
    if (!chat_add(c, PD_ROLE_ASSISTANT, answer->text)) return pd_fail_memory(err, answer->size, "an answer");
    return status;
}

// A line that begins with "/". PD_DONE: leave the chat.
static pd_status chat_command(chat *c, pd_session *session, const char *line, const pd_policy *policy,
                              pd_error *err) {
    if (strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0) return PD_DONE;
    if (strncmp(line, "/image ", 7) == 0) {
        PD_TRY(chat_load_image(c, line + 7, err));
        fprintf(stderr, "%s goes with the next question\n", line + 7);
    } else if (strcmp(line, "/clear") == 0) {
        chat_clear(c);
        fputs("the conversation is empty\n", stderr);
    } else if (strcmp(line, "/stats") == 0) {
        pd_cli_print_stats(stderr, pd_session_stats(session), policy, pd_session_compute(session));
    } else {
        fputs("/image FILE   a picture for the next question\n"
              "/clear        forget the conversation\n"
              "/stats        figures of the last answer\n"
              "/exit         leave (or Ctrl-D)\n",
              stderr);
    }
    return PD_OK;
}

static int chat_loop(pd_session *session, chat *c, const pd_policy *policy, string_buffer *answer) {
    const bool terminal = isatty(STDIN_FILENO);
    if (terminal) fputs("Ask away. /help tells more; Ctrl-C stops an answer, Ctrl-D leaves.\n", stderr);
    char *line = NULL;
    size_t capacity = 0;
    int exit_code = PD_EXIT_OK;
    for (;;) {
        if (terminal) fputs("> ", stderr);
        pd_cli_interruptible(NULL); // at the prompt, Ctrl-C ends the program
        ssize_t size = getline(&line, &capacity, stdin);
        if (size < 0) {
            if (!feof(stdin) && errno != EBADF) { // closed is empty
                fprintf(stderr, "pdrop: standard input: cannot read: %s\n", strerror(errno));
                exit_code = PD_EXIT_ERROR;
            }
            break;
        }
        while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r'))
            line[--size] = '\0';
        if (size == 0) continue;
        pd_error err;
        pd_status status;
        if (line[0] == '/') {
            status = chat_command(c, session, line, policy, &err);
            if (status == PD_DONE) break;
        } else {
            pd_cli_interruptible(session);
            status = ask(session, c, line, policy, answer, &err);
        }
        if (status != PD_OK) {
            exit_code = pd_cli_report(status, &err);
            if (!terminal) break;
            exit_code = PD_EXIT_OK; // somebody is there and has read it
        }
    }
    free(line);
    return exit_code;
}

// ---- the command ------------------------------------------------------------------------------------------

static int run_session(pd_session *session, const pd_policy *policy) {
    chat c = {0};
    string_buffer answer = {0};
    pd_error err;
    pd_status status = PD_OK;
    int exit_code = PD_EXIT_OK;
    for (size_t i = 0; i < flags.images.count && status == PD_OK; i++) {
        status = chat_load_image(&c, flags.images.values[i], &err);
    }
    if (status == PD_OK && flags.prompt) {
        pd_cli_interruptible(session);
        status = ask(session, &c, flags.prompt, policy, &answer, &err);
    }
    if (status != PD_OK) {
        exit_code = pd_cli_report(status, &err);
    } else if (!flags.prompt) {
        exit_code = chat_loop(session, &c, policy, &answer);
    }
    pd_cli_interruptible(NULL);
    free(answer.text);
    chat_free(&c);
    return exit_code;
}

int pd_cli_run(int argc, char **argv) {
    int parsed_exit;
    if (!pd_cli_parse(&command, argc, argv, &parsed_exit)) return parsed_exit;
    pd_error err;
    pd_model *model = NULL;
    pd_session *session = NULL;
    pd_policy policy;
    bool done;
    pd_status status = pd_cli_load_model(!flags.verbose, &model, &done, &err);
    if (status == PD_OK && done) return PD_EXIT_OK;
    if (status == PD_OK) status = pd_cli_policy(pd_model_n_layers(model), &policy, &err);
    if (status == PD_OK) {
        pd_session_params params;
        pd_cli_session_params(&policy, flags.quiet, &params);
        params.conversation = flags.conversation;
        params.system = flags.system;
        params.n_predict = flags.n_predict;
        params.temperature = flags.temperature;
        params.top_k = flags.top_k;
        params.top_p = flags.top_p;
        params.repeat_penalty = flags.repeat_penalty;
        params.repeat_last_n = flags.repeat_last_n;
        params.seed = flags.seed;
        params.ignore_eos = flags.ignore_eos;
        status = pd_session_create(model, &params, &session, &err);
    }
    const int exit_code = status == PD_OK ? run_session(session, &policy) : pd_cli_report(status, &err);
    pd_session_free(session);
    pd_model_free(model);
    return exit_code;
}
