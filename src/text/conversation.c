#include "text/conversation.h"

#include "text/conversation_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t pd_conversation_count(void) {
    return pd_conversation_table_size;
}

const pd_conversation *pd_conversation_at(size_t index) {
    return &pd_conversation_table[index];
}

const char *pd_conversation_name(const pd_conversation *conversation) {
    return conversation->name;
}

const char *pd_conversation_stop(const pd_conversation *conversation) {
    return conversation->stop;
}

static const pd_conversation *find(const char *name) {
    for (size_t i = 0; i < pd_conversation_table_size; i++) {
        if (strcmp(pd_conversation_table[i].name, name) == 0) return &pd_conversation_table[i];
    }
    return NULL;
}

pd_status pd_conversation_find(const char *name, const pd_conversation **conversation, pd_error *err) {
    *conversation = find(name);
    if (*conversation) return PD_OK;
    char names[400];
    size_t n = 0;
    for (size_t i = 0; i < pd_conversation_table_size; i++) {
        const int written =
            snprintf(names + n, sizeof names - n, "%s%s", i == 0 ? "" : ", ", pd_conversation_table[i].name);
        if (written < 0 || (size_t)written >= sizeof names - n) break;
        n += (size_t)written;
    }
    names[n] = '\0';
    return pd_fail(err, PD_ERR_ARGUMENT, "there is no conversation template \"%.40s\"; there are %s", name,
                   names);
}

static bool contains(const char *text, const char *part) {
    return text && strstr(text, part);
}

static bool contains_any_case(const char *text, const char *part) {
    return text && strcasestr(text, part);
}

// By what only this template's model writes. The name tells apart models that share a chat template.
static const char *name_of_chat_template(const char *chat_template, const char *model) {
    const bool llava = contains_any_case(model, "llava");
    if (contains(chat_template, "<|start_header_id|>")) return "llama3";
    if (contains(chat_template, "<|im_start|>")) {
        if (llava) return "chatml_direct";
        if (contains(chat_template, "SmolLM")) return "smollm";
        if (contains(chat_template, "You are a helpful assistant.")) return "qwen";
        return "chatml";
    }
    if (contains(chat_template, "[INST]")) {
        if (!contains(chat_template, "<<SYS>>")) return "mistral_instruct";
        return llava ? "llava_llama_2" : "llama_2";
    }
    if (contains(chat_template, "USER:") && contains(chat_template, "ASSISTANT:")) return "vicuna_v1";
    return NULL;
}

// As LLaVA's own programs tell by the model's name.
static const char *name_of_model(const char *model, const char *architecture) {
    if (contains_any_case(model, "llama-2"))
        return contains_any_case(model, "llava") ? "llava_llama_2" : "llama_2";
    if (contains_any_case(model, "mistral") || contains_any_case(model, "mixtral")) {
        if (contains_any_case(model, "orca")) return "mistral_orca";
        return contains_any_case(model, "hermes") ? "chatml_direct" : "mistral_instruct";
    }
    if (contains_any_case(model, "v1.6-34b")) return "chatml_direct";
    if (contains_any_case(model, "smollm")) return "smollm";
    if (contains_any_case(model, "llama-3") || contains_any_case(model, "llama3")) return "llama3";
    if (contains(architecture, "qwen2")) return "qwen";
    if (contains(architecture, "mpt")) return "mpt";
    return NULL;
}

pd_status pd_conversation_choose(const pd_gguf *gguf, const char *name, const pd_conversation **conversation,
                                 pd_error *err) {
    *conversation = NULL;
    if (name) return pd_conversation_find(name, conversation, err);
    const char *found = NULL;
    if (gguf) {
        const char *chat_template = NULL;
        const char *model = NULL;
        const char *architecture = NULL;
        pd_status status = pd_gguf_get_string(gguf, "tokenizer.chat_template", false, &chat_template, err);
        if (status == PD_OK) status = pd_gguf_get_string(gguf, "general.name", false, &model, err);
        if (status == PD_OK)
            status = pd_gguf_get_string(gguf, "general.architecture", false, &architecture, err);
        if (status != PD_OK) return status;
        found = name_of_chat_template(chat_template, model);
        if (!found) found = name_of_model(model, architecture);
    }
    return pd_conversation_find(found ? found : "vicuna_v1", conversation, err);
}

// ---- rendering --------------------------------------------------------------------------------------------

// A growing string. After a failed allocation it stays as it was.
typedef struct {
    char *bytes;
    size_t n;
    size_t capacity;
    bool failed;
    pd_text_span span; // of the message appended last
} text_builder;

static void append_bytes(text_builder *out, const char *bytes, size_t size) {
    if (out->failed) return;
    if (out->capacity - out->n <= size) {
        size_t capacity = 0;
        char *grown = NULL;
        if (!__builtin_add_overflow(out->n + out->n / 2 + 256, size, &capacity))
            grown = realloc(out->bytes, capacity);
        if (!grown) {
            out->failed = true;
            return;
        }
        out->bytes = grown;
        out->capacity = capacity;
    }
    memcpy(out->bytes + out->n, bytes, size);
    out->n += size;
    out->bytes[out->n] = '\0';
}

// Appends up to three strings; NULL ends them.
static void append(text_builder *out, const char *first, const char *second, const char *third) {
    const char *const parts[] = {first, second, third};
    for (size_t i = 0; i < 3 && parts[i]; i++) {
        append_bytes(out, parts[i], strlen(parts[i]));
    }
}

// Appends a message's text and what ends it.
static void append_message(text_builder *out, const char *text, const char *end) {
    out->span.start = out->n;
    append(out, text, end, NULL);
    out->span.end = out->n;
}

// One message.
typedef struct {
    pd_role role;
    const char *text;
} turn;

static const char *role_name(const pd_conversation *conversation, pd_role role) {
    if (role == PD_ROLE_SYSTEM) return "system";
    return role == PD_ROLE_USER ? conversation->user : conversation->assistant;
}

// LLaMA-3's chat template strips texts.
static void append_stripped(text_builder *out, const char *text) {
    static const char blanks[] = " \t\n\v\f\r";
    text += strspn(text, blanks);
    size_t size = strlen(text);
    while (size > 0 && strchr(blanks, text[size - 1])) {
        size--;
    }
    append_bytes(out, text, size);
}

static void append_system(text_builder *out, const pd_conversation *conversation, const char *system) {
    switch (conversation->style) {
    case PD_STYLE_SINGLE:
    case PD_STYLE_TWO:
        append(out, system, conversation->sep, NULL);
        break;
    case PD_STYLE_MPT:
        append(out, conversation->system_prefix, system, conversation->sep);
        break;
    case PD_STYLE_PLAIN:
        append(out, system, NULL, NULL);
        break;
    case PD_STYLE_LLAMA_2: // stands inside the first message
    case PD_STYLE_CHATML:  // a message of its own
    case PD_STYLE_LLAMA_3:
        break;
    }
}

static void append_llama_2(text_builder *out, const pd_conversation *conversation, const char *system,
                           const char *text, size_t index) {
    if (index % 2 == 1) {
        append(out, " ", NULL, NULL);
        append_message(out, text, " ");
        append(out, conversation->sep2, NULL, NULL);
        out->span.end = out->n;
        return;
    }
    if (index > 0) append(out, conversation->sep, NULL, NULL); // get_prompt() strips the first one
    append(out, "[INST] ", NULL, NULL);
    if (index == 0 && *system) append(out, "<<SYS>>\n", system, "\n<</SYS>>\n\n");
    append_message(out, text, " [/INST]");
}

// An empty `text` leaves the message open for its speaker.
static void append_turn(text_builder *out, const pd_conversation *conversation, const char *system,
                        turn message, size_t index) {
    const char *role = role_name(conversation, message.role);
    const char *text = message.text;
    const bool open = !*text;
    out->span = (pd_text_span){0};
    switch (conversation->style) {
    case PD_STYLE_SINGLE:
    case PD_STYLE_TWO:
        append(out, role, ":", NULL);
        if (open) break;
        append(out, " ", NULL, NULL);
        append_message(out, text,
                       conversation->style == PD_STYLE_TWO && index % 2 == 1 ? conversation->sep2
                                                                             : conversation->sep);
        break;
    case PD_STYLE_MPT:
        append(out, role, NULL, NULL);
        if (!open) append_message(out, text, conversation->sep);
        break;
    case PD_STYLE_LLAMA_2:
        if (!open) append_llama_2(out, conversation, system, text, index);
        break;
    case PD_STYLE_PLAIN:
        if (!open) append_message(out, text, conversation->sep);
        break;
    case PD_STYLE_CHATML:
        append(out, "<|im_start|>", role, "\n");
        append_message(out, text, "<|im_end|>");
        append(out, "\n", NULL, NULL);
        break;
    case PD_STYLE_LLAMA_3:
        append(out, "<|start_header_id|>", role, "<|end_header_id|>\n\n");
        out->span.start = out->n;
        append_stripped(out, text);
        append(out, "<|eot_id|>", NULL, NULL);
        out->span.end = out->n;
        break;
    }
    if (open) out->span = (pd_text_span){0};
}

static void append_answer_start(text_builder *out, const pd_conversation *conversation, size_t index) {
    switch (conversation->style) {
    case PD_STYLE_CHATML:
        append(out, "<|im_start|>assistant\n", NULL, NULL);
        break;
    case PD_STYLE_LLAMA_3:
        append(out, "<|start_header_id|>assistant<|end_header_id|>\n\n", NULL, NULL);
        break;
    default:
        append_turn(out, conversation, "", (turn){PD_ROLE_ASSISTANT, ""}, index);
    }
}

static pd_status check(const pd_conversation *conversation, const pd_role *roles, const char *const *texts,
                       size_t n, pd_error *err) {
    const pd_conversation_style style = conversation->style;
    const bool by_position = style == PD_STYLE_LLAMA_2 || style == PD_STYLE_PLAIN;
    const bool system_anywhere = style == PD_STYLE_CHATML || style == PD_STYLE_LLAMA_3;
    for (size_t i = 0; i < n; i++) {
        if (roles[i] == PD_ROLE_SYSTEM && !system_anywhere) {
            return pd_fail(err, PD_ERR_ARGUMENT,
                           "message %zu: the template %s holds one system message, before all others", i + 1,
                           conversation->name);
        }
        if (style == PD_STYLE_PLAIN && i % 2 == 1 && *texts[i]) {
            return pd_fail(err, PD_ERR_ARGUMENT, "message %zu: the template %s holds no answers", i + 1,
                           conversation->name);
        }
        if (by_position && roles[i] != (i % 2 == 0 ? PD_ROLE_USER : PD_ROLE_ASSISTANT)) {
            return pd_fail(err, PD_ERR_ARGUMENT,
                           "message %zu: the template %s expects messages of user and assistant by turns",
                           i + 1, conversation->name);
        }
    }
    if (style == PD_STYLE_LLAMA_2 && (n == 0 || !*texts[0])) {
        return pd_fail(err, PD_ERR_ARGUMENT, "the template %s expects a first message that is not empty",
                       conversation->name);
    }
    return PD_OK;
}

// Appends the system prompt (NULL: none) and the messages; *index counts them, example and all. `spans` may
// be NULL.
static void append_messages(text_builder *out, const pd_conversation *conversation, const char *system,
                            const pd_role *roles, const char *const *texts, size_t n, pd_text_span *spans,
                            size_t *index) {
    append_system(out, conversation, system);
    if (conversation->style == PD_STYLE_CHATML || conversation->style == PD_STYLE_LLAMA_3) {
        if (system) append_turn(out, conversation, NULL, (turn){PD_ROLE_SYSTEM, system}, 0);
    } else if (conversation->example[0]) {
        append_turn(out, conversation, system, (turn){PD_ROLE_USER, conversation->example[0]}, (*index)++);
        append_turn(out, conversation, system, (turn){PD_ROLE_ASSISTANT, conversation->example[1]},
                    (*index)++);
    }
    for (size_t i = 0; i < n; i++) {
        append_turn(out, conversation, system, (turn){roles[i], texts[i]}, (*index)++);
        if (spans) spans[i] = out->span;
    }
}

// The text, with its NUL, for the caller.
static pd_status finish(text_builder *out, char **prompt, pd_error *err) {
    append_bytes(out, "", 0); // so that an empty prompt is a string too
    if (out->failed) {
        free(out->bytes);
        return pd_fail_memory(err, out->capacity, "a prompt");
    }
    *prompt = out->bytes;
    return PD_OK;
}

pd_status pd_conversation_render(const pd_conversation *conversation, const char *system,
                                 const pd_role *roles, const char *const *texts, size_t n, char **prompt,
                                 pd_error *err) {
    *prompt = NULL;
    if (!system) system = conversation->system;
    if (n > 0 && roles[0] == PD_ROLE_SYSTEM) {
        system = texts[0];
        roles++;
        texts++;
        n--;
    }
    PD_TRY(check(conversation, roles, texts, n, err));
    text_builder out = {0};
    size_t index = 0;
    append_messages(&out, conversation, system, roles, texts, n, NULL, &index);
    append_answer_start(&out, conversation, index);
    return finish(&out, prompt, err);
}

pd_status pd_conversation_render_spans(const pd_conversation *conversation, const pd_role *roles,
                                       const char *const *texts, size_t n, char **prompt, pd_text_span *spans,
                                       pd_error *err) {
    *prompt = NULL;
    PD_TRY(check(conversation, roles, texts, n, err));
    text_builder out = {0};
    size_t index = 0;
    append_messages(&out, conversation, conversation->system, roles, texts, n, spans, &index);
    return finish(&out, prompt, err);
}
