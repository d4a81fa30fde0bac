// Which numbers to multiply in, on this CPU.
#pragma once

#include "onednn/gemm.h"
#include "onednn/rows.h"

typedef struct pd_choice {
    pd_number_kind quantised; // products with constant weights of a block type
    pd_number_kind floating;  // with other constant weights
    pd_number_kind changing;  // with weights that change or are not packed, and attention: f32 or bf16
    pd_int8_range range;      // int8
    int64_t group;            // inner numbers that share a scale, of integers
    bool useless;             // there are no kernels at all
    char description[64];
    char partly_packed[64],
        unpacked[64]; // the same where there was room for some packed weights, or for none
} pd_choice;

// PD_ERR_UNSUPPORTED: the CPU cannot do what was asked for; *choice is then the best it can. `err` says what
// it lacks.
// eight_bits: PD_COMPUTE_INT8 in eight bits, also where sixteen would take their place. floats:
// PD_COMPUTE_AUTO picks no integers.
pd_status pd_choose(pd_gemm_cache *cache, pd_compute_type compute, bool eight_bits, bool floats,
                    pd_choice *choice, pd_error *err);
