// Rows of a JPEG file, as libjpeg-turbo gives them, or nothing where it has the least doubt about the file.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include <jpeglib.h>

struct Window {
    int left, top, width, height;
};

// Every method that can fail returns false where libjpeg-turbo fails or warns; then only the destructor may follow.
class Reader {
  public:
    Reader() = default;
    Reader(const Reader &) = delete;
    Reader &operator=(const Reader &) = delete;
    ~Reader();

    // Reads the header; false, too, for anything but YCbCr, grey, CMYK and YCCK.
    bool open(const uint8_t *data, size_t length);
    int width() const { return int(jpeg_.image_width); }
    int height() const { return int(jpeg_.image_height); }

    // Begins to decode what `needed` takes, or the whole picture where that is not known to give the same pixels.
    bool start(const Window &needed);
    // The column and the number of columns that `read_row` gives, and the row that comes next.
    int left() const { return left_; }
    int columns() const { return int(jpeg_.output_width); }
    int row() const { return int(jpeg_.output_scanline); }

    // The next row, four bytes a pixel: red, green, blue and one that means nothing; of CMYK as Pillow makes them.
    bool read_row(uint8_t *pixels);
    // Decodes what is left just enough to find damage in it; `scratch` takes a row.
    bool finish(uint8_t *scratch);

  private:
    struct Errors {
        jpeg_error_mgr manager;
        jmp_buf jump;
    };

    static void leave(j_common_ptr jpeg);
    static void message(j_common_ptr jpeg, int level);
    bool crops_exactly() const;
    bool is_complete() const;

    jpeg_decompress_struct jpeg_{};
    Errors errors_{};
    int left_ = 0;
};
