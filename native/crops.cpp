#include "crops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "axis.h"
#include "header.h"
#include "reader.h"
#include "resizer.h"

namespace {

constexpr int LARGEST_SIZE = 4096;
// As many as Pillow decodes without a warning; what lies beyond is its decision.
constexpr int64_t MOST_PIXELS = 1024 * 1024 * 1024 / 4 / 3;
// As in recipes.py.
constexpr double CROP_RATIO = 224.0 / 256.0;
constexpr int LONGEST = 100;

// A box of the picture is resized to `width` x `height`, of which the square at `left`, `top` is the crop.
struct Geometry {
    Window box;
    int width, height, left, top;
    Filter filter;
};

int rounded(double value) { return int(std::nearbyint(value)); }  // halves to even, as Python

// The centre of a resized picture.
Geometry centered(int in_width, int in_height, int width, int height, int size, Filter filter) {
    return {{0, 0, in_width, in_height}, width, height, rounded((width - size) / 2.0), rounded((height - size) / 2.0),
            filter};
}

// What recipes.py does with a picture; false where it refuses it.
bool plan(int recipe, int width, int height, int size, Geometry &found) {
    const int resized = int(size / CROP_RATIO);
    if (recipe == CROPS_ECENTERCROP_BICUBIC) {
        const double side = size / double(size + 32) * std::min(width, height);
        const int top = rounded((height - side) / 2.0), left = rounded((width - side) / 2.0);
        const Window box{left, top, rounded(left + side) - left, rounded(top + side) - top};
        found = {box, size, size, 0, 0, Filter::bicubic};
    } else if (recipe == CROPS_SQUASH_BILINEAR) {
        found = centered(width, height, resized, resized, size, Filter::bilinear);
    } else if (recipe == CROPS_RESIZE_BICUBIC || recipe == CROPS_RESIZE_BILINEAR) {
        if (std::max(width, height) > LONGEST * std::min(width, height)) return false;
        const Filter filter = recipe == CROPS_RESIZE_BICUBIC ? Filter::bicubic : Filter::bilinear;
        const auto longer = [resized](int side, int other) { return int(double(int64_t(resized) * side) / other); };
        found = width <= height ? centered(width, height, resized, longer(height, width), size, filter)
                                : centered(width, height, longer(width, height), resized, size, filter);
    } else {
        return false;
    }
    const Window &box = found.box;
    return box.width > 0 && box.height > 0 && box.left >= 0 && box.top >= 0 && box.left + box.width <= width &&
           box.top + box.height <= height && found.left >= 0 && found.top >= 0 && found.left + size <= found.width &&
           found.top + size <= found.height;
}

// Pillow's order of the two passes since 13.0; earlier ones always begin with the columns, like `tall_first` unset.
bool is_tall(const Geometry &geometry, int tall_first) {
    const int rows = geometry.box.height - geometry.height, columns = geometry.box.width - geometry.width;
    return tall_first && rows > 0 && rows > 2 * columns;
}

void write_bytes(const Resizer &crop, int size, uint8_t *out) {
    for (int row = 0; row < size; ++row) {
        const uint8_t *pixel = crop.row(row);
        for (int column = 0; column < size; ++column, pixel += 4, out += 3) std::memcpy(out, pixel, 3);
    }
}

void write_floats(const Resizer &crop, int size, const float *table, float *out) {
    for (int channel = 0; channel < 3; ++channel, table += 256)
        for (int row = 0; row < size; ++row) {
            const uint8_t *level = crop.row(row) + channel;
            for (int column = 0; column < size; ++column, level += 4) *out++ = table[*level];
        }
}

int make(const crops_order &order, const uint8_t *data, size_t length, void *out) {
    const int size = order.size;
    if (size < 1 || size > LARGEST_SIZE) return CROPS_LEFT;
    const Header header = read_header(data, length);
    if (header == Header::other) return CROPS_LEFT;
    if (header == Header::metadata && !order.looked) return CROPS_ASK;

    Reader reader;
    Geometry geometry;
    if (!reader.open(data, length) || int64_t(reader.width()) * reader.height() > MOST_PIXELS ||
        !plan(order.recipe, reader.width(), reader.height(), size, geometry))
        return CROPS_LEFT;
    const Window &box = geometry.box;
    Axis columns(geometry.filter, box.width, geometry.width, geometry.left, size);
    Axis rows(geometry.filter, box.height, geometry.height, geometry.top, size);
    const int left = columns.begin(0), top = rows.begin(0), width = columns.end(size - 1) - left;
    if (!reader.start({box.left + left, box.top + top, width, rows.end(size - 1) - top})) return CROPS_LEFT;

    std::vector<uint8_t> row(4 * size_t(reader.columns()));
    const uint8_t *const begin = &row[4 * size_t(box.left + left - reader.left())];
    for (int &first : columns.first) first -= left;
    Resizer resizer(std::move(columns), std::move(rows), width, size, is_tall(geometry, order.tall_first),
                    kernels(order.any_processor));
    while (!resizer.is_done()) {
        const int number = reader.row() - box.top;
        if (!reader.read_row(row.data())) return CROPS_LEFT;
        if (number >= top) resizer.take(number, begin);
    }
    if (!reader.finish(row.data())) return CROPS_LEFT;
    if (order.table)
        write_floats(resizer, size, order.table, static_cast<float *>(out));
    else
        write_bytes(resizer, size, static_cast<uint8_t *>(out));
    return CROPS_DONE;
}

}  // namespace

int crops_make(const crops_order *order, const uint8_t *data, size_t length, void *out) {
    try {
        return make(*order, data, length, out);
    } catch (const std::bad_alloc &) {
        return CROPS_LEFT;
    }
}

#define TEXT(value) TEXT_OF(value)
#define TEXT_OF(value) #value

const char *crops_library(void) { return "libjpeg-turbo " TEXT(LIBJPEG_TURBO_VERSION); }

const char *crops_instructions(void) { return kernels(false).name; }
