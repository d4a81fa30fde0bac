// The public pd_model: weights and tokenizer of one GGUF pair.
#pragma once

#include "model/weights.h"
#include "onednn/lowering.h"
#include "text/tokenizer.h"

struct pd_model {
    pd_weights weights;
    pd_tokenizer *tokenizer;
    pd_lowering *lowering;   // NULL: graphs run as they are
    bool own_decode_kernels; // src/onerow/
    char description[256];
    pd_log_callback log;
    void *log_user;
};

// Says a line to the model's log callback, if it has one.
__attribute__((format(printf, 3, 4))) void pd_model_log(const pd_model *model, pd_log_level level,
                                                        const char *format, ...);
