// Conversations → tokens and labels, as LLaVA's llava/train/train.py makes them (preprocess_multimodal and
// preprocess).
#pragma once

#include "text/conversation.h"
#include "text/tokenizer.h"
#include "train/dataset.h"

// The label of a token that is not to be learnt (torch's cross entropy ignores it).
enum { PD_IGNORE_INDEX = -100 };

typedef struct pd_label_params {
    const pd_tokenizer *tokenizer;       // not owned
    const pd_conversation *conversation; // the template; not owned
    // How the tokenizer sets spaces behind special tokens: false is "legacy": false of transformers'
    // LlamaTokenizer, true the older one, which is also what pd_tokenize_prompt does.
    bool legacy;
    int32_t model_max_length; // tokens
} pd_label_params;

typedef struct pd_labelled {
    int32_t n;       // tokens
    int32_t *tokens; // [n] PD_IMAGE_TOKEN where a picture stands; owned
    int32_t *labels; // [n] the token itself, or PD_IGNORE_INDEX; owned
    int32_t n_images;
    // The lengths of the rounds did not add up to the whole, so that LLaVA warns of a "tokenization mismatch"
    // and learns nothing from the conversation: no label is left.
    bool mismatch;
} pd_labelled;

// The conversation of a record. Labels are the answers and the token that ends each.
//
//   "plain"           the picture and the answer, without a template (preprocess_plain)
//   v1, vicuna_v1, …  preprocess_v1, and llama_2, mistral_instruct, …: preprocess_llama_2. Both tokenize
//   every
//                     round again and count, which assumes LLaMA's vocabulary and a BOS token. For others the
//                     labels are found as below
//   MPT's and newer   a token carries a label from the first one that is not there without the answer to the
//                     end token. (preprocess_mpt miscounts: it masks all of nearly every conversation.)
//
// A first turn of the assistant's is left out. Nothing is cut off: model_max_length only decides, as in
// LLaVA, whether a mismatch is looked for. PD_ERR_UNSUPPORTED for templates of the style of "v0";
// PD_ERR_FORMAT when the template cannot hold the conversation, or no answer has a text. On failure there is
// nothing to free. Messages do not name the record.
pd_status pd_label_conversation(const pd_label_params *params, const pd_record *record, pd_labelled *labelled,
                                pd_error *err);
void pd_labelled_free(pd_labelled *labelled);
