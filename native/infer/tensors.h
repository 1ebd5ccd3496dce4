// Folders of tensors that resnest_preprocess.py, or another program, made.
#pragma once

#include <string>
#include <vector>

#include "engine.h"
#include "json.h"

// The .bin and .npy files of a folder in ais_bench's order, or the one file that `source` is.
std::vector<std::string> tensor_files(const std::string &source);
// Raises Error where tensors.json says that they are others than the model takes, or not all there. The recipe that it
// names, or nothing.
std::string check_tensors(const std::string &source, const Engine &engine, size_t files);
// The values of a file, without the header of a .npy; raises Error where that is of other values or axes.
std::string read_tensor(const std::string &path, const Input &input);
// The values in `content`, a .npy file at `path`, with the same checks.
std::string npy_values(const std::string &content, const std::string &path, const Input &input);
// A .npy file of values.
std::string as_npy(const std::string &values, const std::string &descr, const std::string &shape);
// The three numbers of a list in JSON, at `path` in it; raises std::invalid_argument for anything else.
std::vector<double> three(const Json &found, const std::string &path);
