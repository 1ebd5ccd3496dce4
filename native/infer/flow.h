// Images through threads that load them, a model that runs them in batches, and a caller that takes the answers in order.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "engine.h"

extern std::atomic<bool> interrupted;  // by Ctrl-C

double now();  // seconds of a clock that is never set

struct Batch {
    size_t first = 0, images = 0;  // the number of its first image, and of images without padding
    std::string data;              // padded with its first image
    std::vector<char> made;        // whether an image could be loaded
    std::vector<Span> spans;       // of its runs
    Answers answers;               // of the last run
};

struct Flow {
    size_t images, loaders, times;                      // in all; threads; runs of each batch
    std::function<bool(size_t image, char *out)> load;  // whether it made the tensor at `out`; by several threads at once
    std::function<void(const Batch &batch)> take;       // in the caller's thread, in order

    // Raises what a function raised, once its batch's turn comes.
    void through(Engine &engine) const;
};
