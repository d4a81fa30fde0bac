// Conversation templates: messages → the prompt a model was trained on.
//
// LLaVA's templates under LLaVA's names (llava/conversation.py), its "v1" and "vicuna_v1" and so on, which
// render byte for byte what its get_prompt() does; and the chat templates of newer language models: "chatml",
// "qwen", "smollm", "llama3". Texts are put in as they are: separators and special tokens inside them count
// as such.
#pragma once

#include "base/gguf_file.h"

typedef struct pd_conversation pd_conversation;

// The templates: index in 0..count-1.
size_t pd_conversation_count(void);
const pd_conversation *pd_conversation_at(size_t index);
const char *pd_conversation_name(const pd_conversation *conversation);

// By name; PD_ERR_ARGUMENT, with all the names, when there is none such.
pd_status pd_conversation_find(const char *name, const pd_conversation **conversation, pd_error *err);

// `name` if it is not NULL; else what the file's tokenizer.chat_template, general.name and
// general.architecture tell; else "vicuna_v1". `gguf` may be NULL.
pd_status pd_conversation_choose(const pd_gguf *gguf, const char *name, const pd_conversation **conversation,
                                 pd_error *err);

// The prompt for `n` messages and the start of the assistant's answer to them, NUL-terminated; *prompt is
// malloc'd, the caller frees it. `system`: the system prompt, NULL for the template's own; a system message
// at the start takes precedence over both. A BOS token is left to the tokenizer. PD_ERR_ARGUMENT when the
// template cannot hold these messages: a system message further on (all but "chatml", "qwen", "smollm" and
// "llama3"), or, in the styles that tell the speakers by position ("llama_2", "mistral_instruct", "plain",
// …), messages that do not alternate from user to assistant.
pd_status pd_conversation_render(const pd_conversation *conversation, const char *system,
                                 const pd_role *roles, const char *const *texts, size_t n, char **prompt,
                                 pd_error *err);

// A text's place in a prompt, in bytes: from its first one to behind the separator that ends it. Empty where
// the text is.
typedef struct {
    size_t start;
    size_t end;
} pd_text_span;

// The same messages as a model is trained on them: nothing stands behind the last one. LLaVA's get_prompt()
// without the open answer. spans[i] is the place of texts[i]; roles[0] may not be the system's. "plain" has
// no such prompt (PD_ERR_ARGUMENT when it is given an answer).
pd_status pd_conversation_render_spans(const pd_conversation *conversation, const pd_role *roles,
                                       const char *const *texts, size_t n, char **prompt, pd_text_span *spans,
                                       pd_error *err);

// The text that ends an answer besides the tokenizer's end-of-generation tokens: "</s>", "###", "<|im_end|>",
// …
const char *pd_conversation_stop(const pd_conversation *conversation);
