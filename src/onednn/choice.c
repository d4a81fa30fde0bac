#include "onednn/choice.h"

#include "onednn/int16.h"
#include "onednn/packed.h"

#include <stdio.h>
#include <string.h>

// oneDNN's masks of instruction sets (dnnl_cpu_isa_t): each generation has its own bit over those before.
// Other CPUs have bits with other meanings.
enum { BIT_AVX2_VNNI = 0x08, BIT_AVX512 = 0x20, BIT_AVX512_VNNI = 0x40, BIT_AVX512_BF16 = 0x80 };

#if defined(__x86_64__)
static const char *cpu_name(void) {
    const dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    static const struct {
        dnnl_cpu_isa_t isa;
        const char *name;
    } names[] = {
        {dnnl_cpu_isa_avx512_core_amx, "amx"},
        {dnnl_cpu_isa_avx512_core_bf16, "avx512_bf16"},
        {dnnl_cpu_isa_avx512_core_vnni, "avx512_vnni"},
        {dnnl_cpu_isa_avx512_core, "avx512"},
        {dnnl_cpu_isa_avx2_vnni, "avx2_vnni"},
        {dnnl_cpu_isa_avx2, "avx2"},
        {dnnl_cpu_isa_sse41, "sse4.1"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if ((isa & names[i].isa) == names[i].isa) return names[i].name;
    }
    return "cpu";
}

static bool has_bits(unsigned bits) {
    const unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    return isa != (unsigned)dnnl_cpu_isa_default && (isa & bits) != 0;
}

// Whether bf16 products, where there are any, are faster than f32's.
static bool bf16_is_fast(void) {
    return has_bits(BIT_AVX512_BF16);
}
#else
static const char *cpu_name(void) {
#if defined(__aarch64__)
    return "arm";
#else
    return "cpu";
#endif
}

static bool has_bits(unsigned bits) {
    (void)bits;
    return false;
}

static bool bf16_is_fast(void) {
    return true;
}
#endif

// Whether there is a kernel at all, whatever its speed.
static bool can_multiply(pd_gemm_cache *cache, pd_number_kind kind) {
    pd_gemm_shape shape = {
        .m = 64, .n = 64, .k = 64, .source_stride_m = 64, .source_stride_k = 1, .destination_stride_m = 64};
    pd_gemm_set_types(&shape, kind);
    const pd_gemm *gemm;
    if (pd_gemm_get(cache, &shape, &gemm, NULL) != PD_OK) return false;
    pd_gemm_release(cache, gemm);
    return true;
}

// Only integers need packed weights.
static void describe_unpacked(pd_choice *choice) {
    const size_t size = sizeof choice->description;
    if (!pd_number_is_integer(choice->quantised) && !pd_number_is_integer(choice->floating)) {
        memcpy(choice->partly_packed, choice->description, size);
        memcpy(choice->unpacked, choice->description, size);
        return;
    }
    const char *others = pd_number_name(choice->changing);
    snprintf(choice->partly_packed, size, "%s for packed weights, %s for others (%s)",
             pd_number_name(choice->quantised), others, cpu_name());
    snprintf(choice->unpacked, size, "%s (%s)", others, cpu_name());
}

static void describe(pd_choice *choice) {
    const size_t size = sizeof choice->description;
    const char *changing = pd_number_name(choice->changing), *floating = pd_number_name(choice->floating);
    char quantised[32];
    snprintf(quantised, sizeof quantised, "%s", pd_number_name(choice->quantised));
    if (choice->quantised == PD_NUMBER_INT8) // which leaves products that narrow to floats
        snprintf(quantised, sizeof quantised, "int8 and %s", changing);
    if (choice->quantised == choice->floating) {
        snprintf(choice->description, size, "%s (%s)", quantised, cpu_name());
    } else {
        snprintf(choice->description, size, "%s, %s for float weights (%s)", quantised, floating, cpu_name());
    }
}

// x86 without VNNI adds eight-bit products in sixteen bits.
static bool is_saturating(void) {
#if defined(__x86_64__)
    return !has_bits(BIT_AVX2_VNNI | BIT_AVX512_VNNI);
#else
    return false;
#endif
}

pd_status pd_choose(pd_gemm_cache *cache, pd_compute_type compute, bool eight_bits, bool floats,
                    pd_choice *choice, pd_error *err) {
    if (!can_multiply(cache, PD_NUMBER_F32)) {
        *choice = (pd_choice){.useless = true, .description = "ggml"};
        return pd_fail(err, PD_ERR_UNSUPPORTED, "compute: oneDNN has no fast kernels for this CPU (%s)",
                       cpu_name());
    }
    const bool saturating = is_saturating(), bf16 = can_multiply(cache, PD_NUMBER_BF16);
    const bool int16 = saturating && pd_int16_available() && !eight_bits;
    const bool integers = int16 || can_multiply(cache, PD_NUMBER_INT8);
    const pd_number_kind integer = int16 ? PD_NUMBER_INT16 : PD_NUMBER_INT8;
    *choice = (pd_choice){.changing = PD_NUMBER_F32,
                          .range = pd_int8_range_for(saturating),
                          .group = int16 ? PD_INT16_GROUP : PD_INT8_GROUP};
    if (compute == PD_COMPUTE_BF16 ? bf16 : compute != PD_COMPUTE_F32 && bf16 && bf16_is_fast())
        choice->changing = PD_NUMBER_BF16;
    choice->floating = compute == PD_COMPUTE_INT8 && integers ? integer : choice->changing;
    // Both are at least as exact as ggml's own kernels for quantised weights, which round activations to
    // eight bits too (docs/models.md). Where f32 has AVX-512, sixteen bits in AVX2's registers gain nothing.
    const bool gains = !floats && (int16 ? !has_bits(BIT_AVX512) : !saturating);
    const bool quantised = integers && (compute == PD_COMPUTE_INT8 || (compute == PD_COMPUTE_AUTO && gains));
    choice->quantised = quantised ? integer : choice->changing;
    describe(choice);
    describe_unpacked(choice);
    if (compute == PD_COMPUTE_INT8 && !integers)
        return pd_fail(err, PD_ERR_UNSUPPORTED, "compute int8: oneDNN has no kernel for it on this CPU (%s)",
                       cpu_name());
    if (compute == PD_COMPUTE_BF16 && !bf16)
        return pd_fail(err, PD_ERR_UNSUPPORTED, "compute bf16: oneDNN has no kernel for it on this CPU (%s)",
                       cpu_name());
    return PD_OK;
}
