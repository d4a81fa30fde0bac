// SentencePiece BPE, for LLaMA's vocabularies: no normalisation but the escaping of spaces.
// Kudo and Richardson, 2018; https://github.com/google/sentencepiece
#pragma once

#include "text/merge.h"
#include "text/token_list.h"
#include "text/vocabulary.h"

// That what has no token of its own can still be written: 256 byte tokens, or an unknown token.
pd_status pd_spm_check(const pd_gguf *gguf, const pd_vocabulary *vocabulary, pd_error *err);
// Appends the tokens of text[0..size), which holds no special tokens. `space_prefix`: as if a space stood
// before it. Bytes without a token become byte tokens; where there are none, a run of them becomes the
// unknown token.
pd_status pd_spm_encode(const pd_vocabulary *vocabulary, const char *text, size_t size, bool space_prefix,
                        pd_merge_workspace *workspace, pd_token_list *tokens, pd_error *err);
