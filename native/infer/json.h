// JSON as Python writes and reads it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

struct Json {
    enum Kind { null, boolean, number, text, list, object } kind = null;
    double value = 0;       // of a number, or 0 and 1 of a boolean
    std::string string;     // a text, or a number as it was written
    std::vector<Json> items;
    std::vector<std::pair<std::string, Json>> members;

    // A member of an object, the last of its name; null where there is none.
    const Json *get(const std::string &name) const;
    // A text, or what Python's str makes of a number; empty of all else.
    const std::string &str() const { return string; }
};

// Raises std::invalid_argument, with the reason, for anything but one JSON value in UTF-8, without numbers that no
// double holds and without nesting that has no end.
Json parse_json(const std::string &text);

// The character at `at`, which moves behind it; a byte that is no UTF-8 becomes 0xDC00 and itself, as in Python.
uint32_t next_character(const std::string &text, size_t &at);
bool is_utf8(const std::string &text);

// As json.dumps and repr have them: ASCII in quotes; the shortest digits that read back to the same double.
std::string json_text(const std::string &text);
std::string repr(double value);
