// libjpeg reports errors by longjmp. Each method that calls it sets the place to return to first and keeps nothing on
// its stack that has a destructor.
#include "reader.h"

#include <algorithm>

namespace {
// Upsampling of the chroma looks one pixel beyond; an iMCU is 16 pixels at most in the files that are cropped. Without
// subsampling no pixel depends on those of another block.
constexpr int SUBSAMPLED_MARGIN = 16;

// Inks as Adobe writes them, 255 for none, to the colours that Pillow's convert("RGB") gives.
void to_rgb(uint8_t *pixels, size_t count) {
    for (; count > 0; --count, pixels += 4)
        for (int ink = 0; ink < 3; ++ink) {
            const int product = (255 - pixels[ink]) * pixels[3] + 128;
            pixels[ink] = uint8_t(std::max(pixels[3] - ((product >> 8) + product) / 256, 0));
        }
}
}  // namespace

Reader::~Reader() { jpeg_destroy_decompress(&jpeg_); }

void Reader::leave(j_common_ptr jpeg) { longjmp(reinterpret_cast<Errors *>(jpeg->err)->jump, 1); }

void Reader::message(j_common_ptr jpeg, int level) {
    if (level < 0) leave(jpeg);  // a warning: of damage, of data beyond a marker, of an early end
}

bool Reader::open(const uint8_t *data, size_t length) {
    jpeg_.err = jpeg_std_error(&errors_.manager);
    errors_.manager.error_exit = leave;
    errors_.manager.emit_message = message;
    if (setjmp(errors_.jump)) return false;
    jpeg_create_decompress(&jpeg_);
    jpeg_mem_src(&jpeg_, data, static_cast<unsigned long>(length));
    jpeg_read_header(&jpeg_, TRUE);
    const J_COLOR_SPACE held = jpeg_.jpeg_color_space;
    const bool inks = held == JCS_CMYK || held == JCS_YCCK;
    if (held != JCS_YCbCr && held != JCS_GRAYSCALE && !inks) return false;
    jpeg_.out_color_space = inks ? JCS_CMYK : JCS_EXT_RGBX;
    return true;
}

bool Reader::start(const Window &needed) {
    if (setjmp(errors_.jump)) return false;
    jpeg_start_decompress(&jpeg_);
    if (!is_complete()) return false;
    if (!crops_exactly()) return true;
    const int margin = jpeg_.max_h_samp_factor > 1 || jpeg_.max_v_samp_factor > 1 ? SUBSAMPLED_MARGIN : 0;
    const int right = std::min(needed.left + needed.width + margin, width());
    JDIMENSION left = JDIMENSION(std::max(needed.left - margin, 0)), columns = JDIMENSION(right) - left;
    if (columns < jpeg_.image_width) {
        jpeg_crop_scanline(&jpeg_, &left, &columns);
        left_ = int(left);
    }
    if (needed.top > margin) jpeg_skip_scanlines(&jpeg_, JDIMENSION(needed.top - margin));
    return true;
}

bool Reader::read_row(uint8_t *pixels) {
    if (setjmp(errors_.jump)) return false;
    if (jpeg_read_scanlines(&jpeg_, &pixels, 1) != 1) return false;
    if (jpeg_.out_color_space == JCS_CMYK) to_rgb(pixels, jpeg_.output_width);
    return true;
}

bool Reader::finish(uint8_t *scratch) {
    if (setjmp(errors_.jump)) return false;
    if (jpeg_has_multiple_scans(&jpeg_)) return true;  // the whole file is read by now
    // A skip to the very end would not look at the data.
    const JDIMENSION rest = jpeg_.output_height - jpeg_.output_scanline;
    if (rest > 1 && crops_exactly()) jpeg_skip_scanlines(&jpeg_, rest - 1);
    while (jpeg_.output_scanline < jpeg_.output_height) jpeg_read_scanlines(&jpeg_, &scratch, 1);
    jpeg_finish_decompress(&jpeg_);
    return true;
}

// Grey, 4:4:4, 4:2:2 and 4:2:0; others are rare, and libjpeg-turbo has had faults in cropping them.
bool Reader::crops_exactly() const {
    const jpeg_component_info *components = jpeg_.comp_info;
    for (int index = 1; index < jpeg_.num_components; ++index)
        if (components[index].h_samp_factor != 1 || components[index].v_samp_factor != 1) return false;
    const int across = components[0].h_samp_factor, down = components[0].v_samp_factor;
    if (jpeg_.num_components == 1) return across == 1 && down == 1;
    return (across == 1 && down == 1) || (across == 2 && (down == 1 || down == 2));
}

// A progressive file that lacks scans is smoothed, each version of libjpeg-turbo in its own way.
bool Reader::is_complete() const {
    if (!jpeg_.progressive_mode || !jpeg_.coef_bits) return true;
    for (int component = 0; component < jpeg_.num_components; ++component)
        for (int place = 0; place < DCTSIZE2; ++place)
            if (jpeg_.coef_bits[component][place] != 0) return false;
    return true;
}
