// Rows of a picture in, rows of its crop out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "axis.h"
#include "kernels.h"

class Resizer {
  public:
    // Rows of `width` pixels will come; `columns` and `rows` say which of them make the `size` x `size` of the crop.
    // With `tall`, rows are summed before columns; the rounding between the two makes a difference.
    Resizer(Axis columns, Axis rows, int width, int size, bool tall, const Kernels &kernels);

    // Takes row `number`, four bytes a pixel; they come one after the other, from the first that is needed.
    void take(int number, const uint8_t *row);
    bool is_done() const { return made_ == size_; }
    // A row of the crop, four bytes a pixel.
    const uint8_t *row(int number) const { return &crop_[number * size_t(out_levels_)]; }

  private:
    void across(const uint8_t *row, int32_t *out);
    void down(uint8_t *out);

    const Kernels &kernels_;
    const Axis columns_, rows_;
    const int width_, size_;
    const bool tall_;
    const int pairs_;
    const size_t in_levels_, out_levels_, kept_levels_;  // in a row of the picture, of the crop, and of `kept_`
    std::vector<int32_t> weights_;                       // of the columns, as `Kernels::across` wants them
    std::vector<int32_t> wide_, line_;
    std::vector<int32_t> kept_;  // the last rows; all that make a row of the crop are there together
    std::vector<const int32_t *> taken_;
    std::vector<uint8_t> middle_, crop_;
    int made_ = 0;
};
