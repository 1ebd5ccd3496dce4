#include "resizer.h"

#include <algorithm>
#include <utility>

namespace {

// Levels in a row, with what `Kernels::down` wants to be there.
size_t levels_of(int pixels) { return (4 * size_t(pixels) + DOWN_BLOCK - 1) / DOWN_BLOCK * DOWN_BLOCK; }

std::vector<int32_t> fourfold(const Axis &axis, int size, int pairs) {
    std::vector<int32_t> found(size_t(size) * pairs * 8, 0);
    for (int pixel = 0; pixel < size; ++pixel)
        for (int tap = 0; tap < axis.longest; ++tap)
            std::fill_n(&found[(size_t(pixel) * pairs * 2 + tap) * 4], 4,
                        axis.weights[size_t(pixel) * axis.longest + tap]);
    return found;
}

}  // namespace

Resizer::Resizer(Axis columns, Axis rows, int width, int size, bool tall, const Kernels &kernels)
    : kernels_(kernels),
      columns_(std::move(columns)),
      rows_(std::move(rows)),
      width_(width),
      size_(size),
      tall_(tall),
      pairs_((columns_.longest + 1) / 2),
      in_levels_(levels_of(width)),
      out_levels_(levels_of(size)),
      kept_levels_(tall ? in_levels_ : out_levels_),
      weights_(fourfold(columns_, size, pairs_)),
      wide_(in_levels_ + 8 * size_t(pairs_)),
      line_(out_levels_),
      kept_(size_t(rows_.longest) * kept_levels_),
      taken_(size_t(rows_.longest)),
      middle_(in_levels_),
      crop_(size_t(size) * out_levels_) {}

void Resizer::take(int number, const uint8_t *row) {
    int32_t *const place = &kept_[size_t(number % rows_.longest) * kept_levels_];
    if (tall_)
        kernels_.widen(row, 4 * size_t(width_), place);
    else
        across(row, place);
    for (; made_ < size_ && rows_.end(made_) <= number + 1; ++made_) {
        uint8_t *const out = &crop_[size_t(made_) * out_levels_];
        down(tall_ ? middle_.data() : out);
        if (!tall_) continue;
        across(middle_.data(), line_.data());
        std::copy(line_.begin(), line_.end(), out);
    }
}

void Resizer::across(const uint8_t *row, int32_t *out) {
    kernels_.widen(row, 4 * size_t(width_), wide_.data());
    kernels_.across(wide_.data(), columns_.first.data(), weights_.data(), pairs_, size_, out);
}

void Resizer::down(uint8_t *out) {
    const int taps = rows_.taps[made_];
    for (int tap = 0; tap < taps; ++tap)
        taken_[tap] = &kept_[size_t((rows_.begin(made_) + tap) % rows_.longest) * kept_levels_];
    kernels_.down(taken_.data(), &rows_.weights[size_t(made_) * rows_.longest], taps, kept_levels_, out);
}
