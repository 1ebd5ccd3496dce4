// What went wrong, and the file habits of ResNeSt/common/files.py.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "json.h"

// A line for the user, and the exit code: 1 the work failed, 2 the command line was refused, 3 no runtime, 130 Ctrl-C.
struct Error : std::runtime_error {
    explicit Error(const std::string &line, int with = 1) : std::runtime_error(line), code(with) {}
    int code;
};
constexpr int ARGUMENTS = 2, RUNTIME = 3, INTERRUPTED = 130;

// Texts and whole numbers, one behind the other.
template <typename... Parts> std::string cat(const Parts &...parts) {
    std::ostringstream text;
    (text << ... << parts);
    return text.str();
}

[[noreturn]] void fail_by_errno(const std::string &path);
void print_line(const std::string &line);  // on stdout, at once

bool is_file(const std::string &path);
bool is_folder(const std::string &path);
std::string joined(const std::string &folder, const std::string &name);  // os.path.join
std::string base_name(const std::string &path);
std::string stem(const std::string &path);    // the name up to its first dot, where ais_bench cuts
std::string suffix(const std::string &path);  // ".xml"
std::string lower(std::string text);
void sort_naturally(std::vector<std::string> &paths);  // img2 before img10
bool lies_in(const std::string &path, const std::string &folder);

// The content of a plain file; raises Error for what is none.
std::string read_file(const std::string &path);
// Raises Error where it is damaged; nothing where there is no such file.
Json read_json(const std::string &path);

// Raises Error where a link, a device, a pipe or a folder is at `path`.
void check_plain(const std::string &path);
// Writes a file whole or not at all; one of the same name is replaced.
void write_whole(const std::string &path, const std::string &content);
// Keeps a folder to this process, for as long as it lives, and clears what a killed one left half-written.
void hold_folder(const std::string &folder);
