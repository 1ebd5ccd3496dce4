// Built with -mavx2, see CMakeLists.txt.
#define KERNELS KERNELS_AVX2
#define KERNELS_NAME "avx2"
#include "kernels.inc"
