// From the bytes of a JPEG file to the tensor of one of ResNeSt/images/recipes.py, with the bits that Pillow gives.
#ifndef RESNEST_CROPS_H
#define RESNEST_CROPS_H

#include <cstddef>
#include <cstdint>

#define CROPS_API __attribute__((visibility("default")))

extern "C" {

// What became of a file. Only `CROPS_DONE` has written to `out`.
enum {
    CROPS_DONE = 0,
    CROPS_LEFT = 1,  // Pillow must read it: another kind of file, a damaged one, or one that no recipe takes
    CROPS_ASK = 2,   // Pillow must look at its metadata, which can make it refuse a file; call again with `looked` set
};

// Numbers of the recipes.
enum { CROPS_ECENTERCROP_BICUBIC, CROPS_RESIZE_BICUBIC, CROPS_RESIZE_BILINEAR, CROPS_SQUASH_BILINEAR };

// What to make of a file.
struct crops_order {
    int recipe, size;    // `size` x `size` pixels
    int tall_first;      // whether Pillow sums the rows of a tall picture before its columns, as it does since 13.0
    int looked;          // whether Pillow has looked at the metadata, and takes the file
    int any_processor;   // whether to do without the instructions that not every processor has, for tests
    const float *table;  // float32 (3, 256), a value for every level of every channel; null for the levels themselves
};

// `out` gets float32 (3, size, size) with a table, else uint8 (size, size, 3), of the `length` bytes of a file at
// `data`. Safe to call from several threads at once.
CROPS_API int crops_make(const crops_order *order, const uint8_t *data, size_t length, void *out);

// What it was built with, "libjpeg-turbo 2.1.5", and what it runs on, "avx2".
CROPS_API const char *crops_library(void);
CROPS_API const char *crops_instructions(void);
}

#endif
