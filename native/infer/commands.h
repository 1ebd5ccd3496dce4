// The two things that this program does, and what it is told on its command line.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "engine.h"

struct Options {
    std::string model, input, output, dirname, outfmt = "BIN", pure = "zero", images, labels, predictions;
    size_t loop = 1, warmup = 1, shown_batch = 0, batch = 0, device = 0, instances = 1, threads = 0, workers = 0;
    bool all_times = false;
    std::set<std::string> allowed;
    std::vector<std::string> arguments;
};

// Tensors through the model, as python -m ResNeSt.infer; a pure speed run without --input.
int infer(const Options &options);
// Photographs through the model, scored against labels, as python -m ResNeSt.evaluate.
int evaluate(const Options &options);
