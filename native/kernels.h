// The loops that take the time, built once for each instruction set.
//
// A pixel is four levels (the last one means nothing), each in 32 bits: widened once a row, so that the sums need no more
// than a multiplication and an addition.
#pragma once

#include <cstddef>
#include <cstdint>

constexpr int DOWN_BLOCK = 32;

struct Kernels {
    const char *name;

    // `count` bytes, each in 32 bits.
    void (*widen)(const uint8_t *bytes, size_t count, int32_t *out);

    // A row of `count` pixels out of a longer one. Pixel `i` is made of the 2 * `pairs` pixels from `first[i]` on, which
    // must be readable; `weights` holds, for each pair, the weight of the one four times and that of the other.
    void (*across)(const int32_t *row, const int *first, const int32_t *weights, int pairs, int count, int32_t *out);

    // `count` levels, a multiple of DOWN_BLOCK, out of as many of each of `taps` rows.
    void (*down)(const int32_t *const *rows, const int32_t *weights, int taps, size_t count, uint8_t *out);
};

extern const Kernels KERNELS_BASELINE;
#ifdef CROPS_AVX2  // by CMakeLists.txt, on x86-64
extern const Kernels KERNELS_AVX2;
#endif

// The best of this machine, or those that run on any.
const Kernels &kernels(bool any);
