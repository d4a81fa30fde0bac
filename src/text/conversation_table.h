// The templates' data (conversation_table.c), for those that render them and that take them apart.
#pragma once

#include <stddef.h>

// LLaVA's SeparatorStyle, and the two of newer chat templates.
typedef enum {
    PD_STYLE_SINGLE,  // "role: text###"
    PD_STYLE_TWO,     // "USER: text ASSISTANT: text</s>"
    PD_STYLE_MPT,     // "<|im_start|>user\ntext<|im_end|>"
    PD_STYLE_LLAMA_2, // "[INST] text [/INST] text </s><s>"
    PD_STYLE_PLAIN,   // "text\n"
    PD_STYLE_CHATML,  // "<|im_start|>user\ntext<|im_end|>\n"
    PD_STYLE_LLAMA_3, // "<|start_header_id|>user<|end_header_id|>\n\ntext<|eot_id|>"
} pd_conversation_style;

struct pd_conversation {
    const char *name;
    pd_conversation_style style;
    const char *system_prefix; // before the system prompt
    const char *system;        // its own system prompt; NULL: none
    const char *user;          // roles
    const char *assistant;
    const char *sep;
    const char *sep2;
    const char *stop;
    const char *example[2]; // an exchange that stands before every conversation; NULL: none
};

extern const struct pd_conversation pd_conversation_table[];
extern const size_t pd_conversation_table_size;
