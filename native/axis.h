// Which pixels make each pixel of a resized picture along one axis, and with what weights: those of Pillow.
#pragma once

#include <cstdint>
#include <vector>

enum class Filter { bilinear, bicubic };

constexpr int PRECISION = 32 - 8 - 2;  // bits after the point of a weight

struct Axis {
    // Pixels `from` to `from + count` of `in` pixels resized to `out`.
    Axis(Filter filter, int in, int out, int from, int count);

    int begin(int pixel) const { return first[pixel]; }
    int end(int pixel) const { return first[pixel] + taps[pixel]; }

    int longest;                   // the largest of `taps`
    std::vector<int> first, taps;  // of each pixel: the first pixel that it is made of, and how many
    std::vector<int32_t> weights;  // `longest` of each pixel, 0 beyond its own
};
