// What the kernels of this room share: whether they can run here, and how they are compiled.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define PD_HAS_AVX2_KERNELS 1
#include <immintrin.h>
// Before a function of AVX2, FMA and F16C instructions, which only pd_onerow_available guards.
#define PD_AVX2 __attribute__((target("avx2,fma,f16c")))
#else
#define PD_HAS_AVX2_KERNELS 0
#endif
