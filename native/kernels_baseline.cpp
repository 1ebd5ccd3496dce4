#define KERNELS KERNELS_BASELINE
#if defined(__x86_64__)
#define KERNELS_NAME "sse2"
#elif defined(__aarch64__)
#define KERNELS_NAME "neon"
#else
#define KERNELS_NAME "generic"
#endif
#include "kernels.inc"
