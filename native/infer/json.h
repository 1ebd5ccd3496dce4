// JSON as Python writes and reads it.
#pragma once

#include <cstdint>
#include <map>
#include <string>

// What stands at each path of a JSON file, such as "/mean/0": a text, or the letters of a number, true, false or null.
using Json = std::map<std::string, std::string>;

// Raises std::invalid_argument, with the reason, for anything but one JSON value.
Json parse_json(const std::string &text);

// The character at `at`, which moves behind it; a byte that is no UTF-8 becomes 0xDC00 and itself, as in Python.
uint32_t next_character(const std::string &text, size_t &at);

// As json.dumps and repr have them: ASCII in quotes; the shortest digits that read back to the same double.
std::string json_text(const std::string &text);
std::string repr(double value);
