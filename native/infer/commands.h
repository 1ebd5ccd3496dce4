// The two things that this program does, and what it is told on its command line.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "engine.h"

struct Options {
    std::string model, input, output, dirname, outfmt = "BIN", pure = "zero", images, labels, predictions;
    size_t loop = 1, warmup = 1, shown_batch = 0, batch = 0, device = 0, instances = 1, workers = 0;
    bool has_input = false, has_output = false, all_times = false;
    std::set<std::string> allowed;
    std::vector<std::string> arguments;
};

// A line on stdout, at once, whatever bytes file names have.
void print_line(const std::string &line);

// Tensors through the model, as python -m ResNeSt.infer; a pure speed run without --input.
int infer(const Options &options);
// Photographs through the model, scored against labels, as python -m ResNeSt.evaluate.
int evaluate(const Options &options);

// A line where tensors or pictures are prepared in another way than the model's own; "" else.
std::string recipe_note(const Engine &engine, const std::string &recipe);
// Raises Error where a batch size is named for a model of one size, or is none of several.
void check_named(const std::string &model, const Engine &engine, size_t batch);
