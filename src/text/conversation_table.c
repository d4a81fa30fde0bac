// System prompts and separators from LLaVA's llava/conversation.py (Apache-2.0; Liu et al., 2023),
// "mistral_orca" from LLaVA-NeXT's; the last four from the chat templates published with the models.
#include "text/conversation_table.h"

#define SYSTEM_HUMAN                                                                                         \
    "A chat between a curious human and an artificial intelligence assistant. "                              \
    "The assistant gives helpful, detailed, and polite answers to the human's questions."

#define SYSTEM_USER                                                                                          \
    "A chat between a curious user and an artificial intelligence assistant. "                               \
    "The assistant gives helpful, detailed, and polite answers to the user's questions."

#define SYSTEM_MMTAG                                                                                         \
    "A chat between a curious user and an artificial intelligence assistant. "                               \
    "The assistant is able to understand the visual content that the user provides, and assist the user "    \
    "with "                                                                                                  \
    "a variety of tasks using natural language."                                                             \
    "The visual content will be provided with the following format: <Image>visual content</Image>."

#define SYSTEM_LLAMA_2                                                                                       \
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while "     \
    "being "                                                                                                 \
    "safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or "   \
    "illegal content. Please ensure that your responses are socially unbiased and positive in nature.\n\n"   \
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering " \
    "something not correct. If you don't know the answer to a question, please don't share false "           \
    "information."

#define SYSTEM_LLAVA_LLAMA_2                                                                                 \
    "You are a helpful language and vision assistant. "                                                      \
    "You are able to understand the visual content that the user provides, "                                 \
    "and assist the user with a variety of tasks using natural language."

#define SYSTEM_MPT                                                                                           \
    "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest "   \
    "answers."

#define SYSTEM_ORCA                                                                                          \
    "You are MistralOrca, a large language model trained by Alignment Lab AI. Write out your reasoning "     \
    "step-by-step to be sure you get the right answers!"

#define EXAMPLE_QUESTION "What are the key differences between renewable and non-renewable energy sources?"

#define EXAMPLE_ANSWER                                                                                       \
    "Renewable energy sources are those that can be replenished naturally in a relatively "                  \
    "short amount of time, such as solar, wind, hydro, geothermal, and biomass. "                            \
    "Non-renewable energy sources, on the other hand, are finite and will eventually be "                    \
    "depleted, such as coal, oil, and natural gas. Here are some key differences between "                   \
    "renewable and non-renewable energy sources:\n"                                                          \
    "1. Availability: Renewable energy sources are virtually inexhaustible, while non-renewable "            \
    "energy sources are finite and will eventually run out.\n"                                               \
    "2. Environmental impact: Renewable energy sources have a much lower environmental impact "              \
    "than non-renewable sources, which can lead to air and water pollution, greenhouse gas emissions, "      \
    "and other negative effects.\n"                                                                          \
    "3. Cost: Renewable energy sources can be more expensive to initially set up, but they typically "       \
    "have lower operational costs than non-renewable sources.\n"                                             \
    "4. Reliability: Renewable energy sources are often more reliable and can be used in more remote "       \
    "locations than non-renewable sources.\n"                                                                \
    "5. Flexibility: Renewable energy sources are often more flexible and can be adapted to different "      \
    "situations and needs, while non-renewable sources are more rigid and inflexible.\n"                     \
    "6. Sustainability: Renewable energy sources are more sustainable over the long term, while "            \
    "non-renewable sources are not, and their depletion can lead to economic and social instability.\n"

#define VICUNA_V0(NAME)                                                                                      \
    {                                                                                                        \
        .name = (NAME), .style = PD_STYLE_SINGLE, .system = SYSTEM_HUMAN, .user = "Human",                   \
        .assistant = "Assistant", .sep = "###", .stop = "###", .example = {                                  \
            EXAMPLE_QUESTION,                                                                                \
            EXAMPLE_ANSWER                                                                                   \
        }                                                                                                    \
    }

#define SINGLE(NAME, SYSTEM)                                                                                 \
    {                                                                                                        \
        .name = (NAME), .style = PD_STYLE_SINGLE, .system = (SYSTEM), .user = "Human",                       \
        .assistant = "Assistant", .sep = "###", .stop = "###"                                                \
    }

#define TWO(NAME, SYSTEM)                                                                                    \
    {                                                                                                        \
        .name = (NAME), .style = PD_STYLE_TWO, .system = (SYSTEM), .user = "USER", .assistant = "ASSISTANT", \
        .sep = " ", .sep2 = "</s>", .stop = "</s>"                                                           \
    }

#define LLAMA_2(NAME, SYSTEM, SEP)                                                                           \
    {                                                                                                        \
        .name = (NAME), .style = PD_STYLE_LLAMA_2, .system = (SYSTEM), .sep = (SEP), .sep2 = "</s>",         \
        .stop = "</s>"                                                                                       \
    }

#define MPT(NAME, SYSTEM)                                                                                    \
    {                                                                                                        \
        .name = (NAME), .style = PD_STYLE_MPT, .system_prefix = "<|im_start|>system\n", .system = (SYSTEM),  \
        .user = "<|im_start|>user\n", .assistant = "<|im_start|>assistant\n", .sep = "<|im_end|>",           \
        .stop = "<|im_end|>"                                                                                 \
    }

#define PLAIN(NAME)                                                                                          \
    { .name = (NAME), .style = PD_STYLE_PLAIN, .system = "", .sep = "\n", .stop = "\n" }

#define CHATML(NAME, SYSTEM)                                                                                 \
    {                                                                                                        \
        .name = (NAME), .style = PD_STYLE_CHATML, .system = (SYSTEM), .user = "user",                        \
        .assistant = "assistant", .stop = "<|im_end|>"                                                       \
    }

const struct pd_conversation pd_conversation_table[] = {
    VICUNA_V0("default"),
    VICUNA_V0("v0"),
    TWO("v1", SYSTEM_USER),
    TWO("vicuna_v1", SYSTEM_USER),
    LLAMA_2("llama_2", SYSTEM_LLAMA_2, "<s>"),
    LLAMA_2("mistral_instruct", "", ""),
    MPT("mistral_orca", SYSTEM_ORCA),
    MPT("chatml_direct", "Answer the questions."),
    MPT("mistral_direct", "Answer the questions."),
    PLAIN("plain"),
    PLAIN("v0_plain"),
    SINGLE("llava_v0", SYSTEM_HUMAN),
    SINGLE("v0_mmtag", SYSTEM_MMTAG),
    TWO("llava_v1", SYSTEM_HUMAN),
    TWO("v1_mmtag", SYSTEM_MMTAG),
    LLAMA_2("llava_llama_2", SYSTEM_LLAVA_LLAMA_2, "<s>"),
    MPT("mpt", SYSTEM_MPT),
    CHATML("chatml", NULL),
    CHATML("qwen", "You are a helpful assistant."),
    CHATML("smollm", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    {.name = "llama3",
     .style = PD_STYLE_LLAMA_3,
     .user = "user",
     .assistant = "assistant",
     .stop = "<|eot_id|>"},
};

const size_t pd_conversation_table_size = sizeof pd_conversation_table / sizeof *pd_conversation_table;
