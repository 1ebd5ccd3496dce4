#include "axis.h"

#include <algorithm>
#include <cmath>

namespace {

double support_of(Filter filter) { return filter == Filter::bicubic ? 2.0 : 1.0; }

double weight_of(Filter filter, double x) {
    constexpr double a = -0.5;
    x = std::fabs(x);
    if (filter == Filter::bilinear) return x < 1.0 ? 1.0 - x : 0.0;
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

int32_t fixed(double weight) { return int32_t((weight < 0 ? -0.5 : 0.5) + weight * (1 << PRECISION)); }

}  // namespace

// The order of the operations is that of Pillow's, down to the last bit of a double.
Axis::Axis(Filter filter, int in, int out, int from, int count) : longest(0) {
    const double scale = double(in) / out;
    const double stretch = std::max(scale, 1.0);
    const double support = support_of(filter) * stretch;
    const double shrink = 1.0 / stretch;
    for (int pixel = from; pixel < from + count; ++pixel) {
        const double center = (pixel + 0.5) * scale;
        const int begin = std::max(int(center - support + 0.5), 0);
        const int end = std::min(int(center + support + 0.5), in);
        first.push_back(begin);
        taps.push_back(end - begin);
        longest = std::max(longest, end - begin);
    }
    weights.assign(size_t(longest) * count, 0);
    std::vector<double> exact(longest);
    for (int row = 0; row < count; ++row) {
        const double center = (from + row + 0.5) * scale;
        double sum = 0.0;
        for (int tap = 0; tap < taps[row]; ++tap) {
            exact[tap] = weight_of(filter, (tap + first[row] - center + 0.5) * shrink);
            sum += exact[tap];
        }
        for (int tap = 0; tap < taps[row]; ++tap)
            weights[size_t(row) * longest + tap] = fixed(sum != 0.0 ? exact[tap] / sum : exact[tap]);
    }
}
