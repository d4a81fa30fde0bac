#include "train/conversation_labels.h"

#include "text/conversation_table.h"
#include "train/python_text.h"

#include <stdlib.h>
#include <string.h>

static const char image_tag[] = "<image>";

// ---- texts ------------------------------------------------------------------------------------------------

// The conversation's turns as they are rendered.
typedef struct {
    char *memory; // the texts, one behind the other
    const char **texts;
    const pd_role *roles; // not owned
    size_t n;
    bool has_images;
} turn_list;

static void turn_list_free(turn_list *turns) {
    free(turns->memory);
    free(turns->texts);
}

// Appends text[0..size) at *out.
static void put(char **out, const char *text, size_t size) {
    memcpy(*out, text, size);
    *out += size;
}

// preprocess_multimodal: the turn's placeholders become one, on a line before the rest of the text.
static void put_image_first(char **out, const char *text, bool mmtag) {
    char *const start = *out;
    const char *tag = mmtag ? "<Image><image></Image>" : image_tag;
    put(out, tag, strlen(tag));
    put(out, "\n", 1);
    char *const rest = *out;
    for (const char *next = NULL; (next = strstr(text, image_tag)); text = next + strlen(image_tag))
        put(out, text, (size_t)(next - text));
    put(out, text, strlen(text));
    const char *stripped = rest;
    size_t size = (size_t)(*out - rest);
    pd_python_strip(&stripped, &size);
    memmove(rest, stripped, size);
    *out = rest + size;
    if (size == 0) *out = start + strlen(tag); // the line's end is a blank too
}

static pd_status make_turns(const pd_label_params *params, const pd_record *record, turn_list *turns,
                            pd_error *err) {
    const size_t skip = record->roles[0] == PD_ROLE_ASSISTANT;
    *turns = (turn_list){.roles = record->roles + skip,
                         .n = (size_t)record->n_turns - skip,
                         .has_images = record->n_images > 0};
    size_t size = 1;
    for (size_t i = 0; i < turns->n; i++)
        size += strlen(record->texts[skip + i]) + sizeof "<Image><image></Image>\n";
    turns->memory = malloc(size);
    turns->texts = malloc((turns->n + 1) * sizeof *turns->texts);
    if (!turns->memory || !turns->texts) {
        turn_list_free(turns);
        return pd_fail_memory(err, size, "a conversation");
    }
    const bool mmtag = strstr(params->conversation->name, "mmtag") != NULL;
    char *out = turns->memory;
    for (size_t i = 0; i < turns->n; i++) {
        const char *text = record->texts[skip + i];
        const char *image = strstr(text, image_tag);
        const bool single = image && !strstr(image + 1, image_tag);
        turns->texts[i] = out;
        if (turns->has_images && image && (record->n_images == 1 || single)) {
            put_image_first(&out, text, mmtag);
        } else {
            put(&out, text, strlen(text));
        }
        *out++ = '\0';
    }
    return PD_OK;
}

// ---- tokens -----------------------------------------------------------------------------------------------

// A conversation on its way to tokens and labels.
typedef struct {
    const pd_label_params *params;
    const char *text; // what is tokenized
    size_t size;
    unsigned flags; // pd_tokenize_flags
    pd_labelled *out;
    pd_error *err;
} labelling;

static pd_status tokenize(const labelling *l, const char *text, size_t size, int32_t **tokens, size_t *n) {
    PD_TRY(pd_tokenize_as(l->params->tokenizer, l->flags, text, size, tokens, n, l->err));
    if (*n < INT32_MAX) return PD_OK;
    free(*tokens);
    *tokens = NULL;
    return pd_fail(l->err, PD_ERR_FORMAT, "the conversation has %zu tokens; expected fewer than %d", *n,
                   INT32_MAX);
}

static pd_status count_tokens(const labelling *l, const char *text, size_t size, int64_t *n) {
    int32_t *tokens = NULL;
    size_t count = 0;
    PD_TRY(tokenize(l, text, size, &tokens, &count));
    free(tokens);
    *n = (int64_t)count;
    return PD_OK;
}

// The tokens of the whole text, all of them ignored.
static pd_status tokenize_whole(labelling *l) {
    size_t n = 0;
    PD_TRY(tokenize(l, l->text, l->size, &l->out->tokens, &n));
    l->out->labels = malloc((n + 1) * sizeof *l->out->labels);
    if (!l->out->labels) return pd_fail_memory(l->err, n * sizeof *l->out->labels, "the labels of a text");
    l->out->n = (int32_t)n;
    for (size_t i = 0; i < n; i++)
        l->out->labels[i] = PD_IGNORE_INDEX;
    return PD_OK;
}

// Gives the tokens [start, end) labels, as far as there are such.
static void give_labels(labelling *l, int64_t start, int64_t end) {
    if (end > l->out->n) end = l->out->n;
    for (int64_t i = start < 0 ? 0 : start; i < end; i++)
        l->out->labels[i] = l->out->tokens[i];
}

// ---- labels by counting: preprocess_v1, preprocess_llama_2 ------------------------------------------------

// The tokens that LLaVA counts in the whole: those that do not pad. It pads with the unknown token, and cuts
// a text without pictures at model_max_length.
static int64_t count_whole(const labelling *l) {
    const int32_t padding = pd_tokenizer_find(l->params->tokenizer, "<unk>");
    int32_t n = l->out->n;
    if (!(l->flags & PD_TOKENIZE_IMAGES) && n > l->params->model_max_length) n = l->params->model_max_length;
    int64_t total = 0;
    for (int32_t i = 0; i < n; i++)
        total += l->out->tokens[i] != padding;
    return total;
}

// The first `part` in text[0..size), NULL for none.
static const char *find(const char *text, size_t size, const char *part) {
    return memmem(text, size, part, strlen(part));
}

// Rounds end with `end`; in each, the answer starts behind `start`. What a round's tokens are more on their
// own than in the whole: its BOS, which makes up for the end token, and where `shorter`, the space before it.
static pd_status label_by_counting(labelling *l, const char *start, const char *end, bool shorter) {
    int64_t at = 1; // behind the BOS token
    const char *round = l->text;
    for (size_t i = 0;; i++) {
        const size_t left = l->size - (size_t)(round - l->text);
        const char *behind = find(round, left, end);
        const size_t size = behind ? (size_t)(behind - round) : left;
        if (size == 0) break;
        const char *answer = find(round, size, start);
        if (!answer) break;
        answer += strlen(start);
        if (find(answer, size - (size_t)(answer - round), start)) break;
        int64_t n_round = 0;
        int64_t n_instruction = 0;
        PD_TRY(count_tokens(l, round, size, &n_round));
        PD_TRY(count_tokens(l, round, (size_t)(answer - round), &n_instruction));
        n_instruction -= 2; // BOS, and the space at the end, which belongs to the answer's first word
        if (i > 0 && shorter) {
            n_round--;
            n_instruction--;
        }
        give_labels(l, at + (n_instruction > 0 ? n_instruction : 0), at + n_round);
        at += n_round;
        if (!behind) break;
        round = behind + strlen(end);
    }
    if (at < l->params->model_max_length && at != count_whole(l)) {
        l->out->mismatch = true;
        for (int32_t i = 0; i < l->out->n; i++)
            l->out->labels[i] = PD_IGNORE_INDEX;
    }
    return PD_OK;
}

// ---- labels by place --------------------------------------------------------------------------------------

// How many of the whole's first tokens text[0..size) has as well.
static pd_status count_common(const labelling *l, size_t size, int64_t *common) {
    int32_t *tokens = NULL;
    size_t n = 0;
    PD_TRY(tokenize(l, l->text, size, &tokens, &n));
    const size_t most = n < (size_t)l->out->n ? n : (size_t)l->out->n;
    size_t i = 0;
    while (i < most && tokens[i] == l->out->tokens[i])
        i++;
    free(tokens);
    *common = (int64_t)i;
    return PD_OK;
}

static pd_status label_by_place(labelling *l, const turn_list *turns, const pd_text_span *spans) {
    for (size_t i = 0; i < turns->n; i++) {
        if (turns->roles[i] != PD_ROLE_ASSISTANT || spans[i].start == spans[i].end) continue;
        int64_t start = 0;
        int64_t end = 0;
        PD_TRY(count_common(l, spans[i].start, &start));
        PD_TRY(count_common(l, spans[i].end, &end));
        give_labels(l, start, end);
    }
    return PD_OK;
}

// ---- templates --------------------------------------------------------------------------------------------

// preprocess_plain: the picture and the answer.
static pd_status label_plain(labelling *l, const pd_record *record, const turn_list *turns) {
    if (record->n_turns != 2 || turns->n != 2 || !strstr(turns->texts[0], image_tag)) {
        return pd_fail(l->err, PD_ERR_FORMAT,
                       "the template %s expects a user's turn with a picture and one answer",
                       l->params->conversation->name);
    }
    const char *parts[] = {image_tag, turns->texts[1], l->params->conversation->sep};
    const size_t size = strlen(parts[0]) + strlen(parts[1]) + strlen(parts[2]);
    char *text = malloc(size + 1);
    if (!text) return pd_fail_memory(l->err, size, "a conversation");
    char *out = text;
    for (size_t i = 0; i < 3; i++)
        put(&out, parts[i], strlen(parts[i]));
    *out = '\0';
    l->text = text;
    l->size = size;
    l->flags |= PD_TOKENIZE_IMAGES;
    int64_t n_picture = 0;
    pd_status status = tokenize_whole(l);
    if (status == PD_OK) status = count_tokens(l, image_tag, strlen(image_tag), &n_picture);
    if (status == PD_OK) give_labels(l, n_picture, l->out->n);
    free(text);
    return status;
}

static pd_status label_rendered(labelling *l, const turn_list *turns, const pd_text_span *spans) {
    const pd_conversation *conversation = l->params->conversation;
    const pd_tokenizer *tokenizer = l->params->tokenizer;
    // What the counting assumes.
    const bool llama = pd_tokenizer_add_bos(tokenizer) && pd_tokenizer_add_space_prefix(tokenizer);
    PD_TRY(tokenize_whole(l));
    if (llama && conversation->style == PD_STYLE_TWO)
        return label_by_counting(l, " ASSISTANT: ", conversation->sep2, !l->params->legacy);
    if (llama && conversation->style == PD_STYLE_LLAMA_2)
        return label_by_counting(l, "[/INST] ", conversation->sep2, false);
    return label_by_place(l, turns, spans);
}

static pd_status label_template(labelling *l, const turn_list *turns) {
    const pd_conversation *conversation = l->params->conversation;
    pd_text_span *spans = calloc(turns->n + 1, sizeof *spans);
    if (!spans) return pd_fail_memory(l->err, turns->n * sizeof *spans, "a conversation");
    char *prompt = NULL;
    pd_status status = pd_conversation_render_spans(conversation, turns->roles, turns->texts, turns->n,
                                                    &prompt, spans, l->err);
    // The template's refusal is about the data here.
    if (status == PD_ERR_ARGUMENT) {
        status = PD_ERR_FORMAT;
        if (l->err) l->err->status = status;
    }
    if (status == PD_OK) {
        l->text = prompt;
        l->size = strlen(prompt);
        status = label_rendered(l, turns, spans);
    }
    free(prompt);
    free(spans);
    return status;
}

static pd_status check_result(const labelling *l, const pd_record *record) {
    pd_labelled *out = l->out;
    for (int32_t i = 0; i < out->n; i++) {
        if (out->tokens[i] != PD_IMAGE_TOKEN) continue;
        out->n_images++;
        out->labels[i] = PD_IGNORE_INDEX; // an answer's picture is not learnt
    }
    if (out->n_images == record->n_images) return PD_OK;
    return pd_fail(l->err, PD_ERR_FORMAT, "the template %s leaves %d places for %d pictures",
                   l->params->conversation->name, out->n_images, record->n_images);
}

static bool has_answer(const turn_list *turns) {
    for (size_t i = 0; i < turns->n; i++) {
        if (turns->roles[i] == PD_ROLE_ASSISTANT && *turns->texts[i]) return true;
    }
    return false;
}

pd_status pd_label_conversation(const pd_label_params *params, const pd_record *record, pd_labelled *labelled,
                                pd_error *err) {
    *labelled = (pd_labelled){0};
    const pd_conversation *conversation = params->conversation;
    if (conversation->style == PD_STYLE_SINGLE) {
        return pd_fail(err, PD_ERR_UNSUPPORTED,
                       "the template %s is not one to train with; expected plain, vicuna_v1, llama_2, "
                       "chatml_direct, qwen, llama3 or their like",
                       conversation->name);
    }
    turn_list turns;
    PD_TRY(make_turns(params, record, &turns, err));
    labelling l = {.params = params, .out = labelled, .err = err};
    l.flags = PD_TOKENIZE_SPECIAL | (turns.has_images ? (unsigned)PD_TOKENIZE_IMAGES : 0) |
              (pd_tokenizer_add_bos(params->tokenizer) ? (unsigned)PD_TOKENIZE_BOS : 0) |
              (params->legacy ? 0 : (unsigned)PD_TOKENIZE_NOT_LEGACY);
    pd_status status = PD_OK;
    if (!has_answer(&turns)) {
        status = pd_fail(err, PD_ERR_FORMAT, "conversations: expected an answer with a text, found none");
    } else if (conversation->style == PD_STYLE_PLAIN) {
        status = label_plain(&l, record, &turns);
    } else {
        status = label_template(&l, &turns);
    }
    if (status == PD_OK) status = check_result(&l, record);
    turn_list_free(&turns);
    if (status != PD_OK) pd_labelled_free(labelled);
    return status;
}

void pd_labelled_free(pd_labelled *labelled) {
    free(labelled->tokens);
    free(labelled->labels);
    *labelled = (pd_labelled){0};
}
