// One function for several generations of a CPU: the compiler makes a clone for each, the loader picks.
#pragma once

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define PD_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PD_SANITIZED 1
#endif

// Before a static function (others' resolvers would be exported) whose loops the compiler turns into SIMD.
// Needs the loader's help (ifunc), which glibc has and the sanitizers' start-up does not bear; elsewhere the
// one version is for the oldest CPU.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__) &&                 \
    !defined(PD_SANITIZED)
#define PD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PD_CLONES
#endif

// A part of a function with PD_CLONES: what is not inlined into the clones would be code for the oldest CPU.
#define PD_CLONED_PART __attribute__((always_inline)) static inline
