#include "kernels.h"

const Kernels &kernels([[maybe_unused]] bool any) {
#ifdef CROPS_AVX2
    static const bool avx2 = __builtin_cpu_supports("avx2");
    if (avx2 && !any) return KERNELS_AVX2;
#endif
    return KERNELS_BASELINE;
}
