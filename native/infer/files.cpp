#include "files.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace fs = std::filesystem;

constexpr char TEMPORARY[] = ".resnest_infer-", PART[] = ".part";  // with the number of a process between them

namespace {

// Sorts as text, since each number stands behind a character that no name has and one for how many digits it has.
std::string natural_key(const std::string &name) {
    static const char *const digits = "0123456789";
    std::string key;
    for (size_t at = 0; at < name.size();) {
        size_t end = std::min(name.find_first_not_of(digits, at), name.size());
        if (end == at) {
            key += name[at++];
            continue;
        }
        at = std::min(name.find_first_not_of('0', at), end - 1);
        key += '\0', key += char(end - at);
        key.append(name, at, end - at);
        at = end;
    }
    return key;
}

}  // namespace

void fail_by_errno(const std::string &path) { throw Error(path + ": " + std::strerror(errno)); }

void print_line(const std::string &line) {
    if (std::puts(line.c_str()) < 0 || std::fflush(stdout) != 0) fail_by_errno("stdout");
}

bool is_file(const std::string &path) {
    std::error_code ignored;
    return fs::is_regular_file(path, ignored);
}

bool is_folder(const std::string &path) {
    std::error_code ignored;
    return fs::is_directory(path, ignored);
}

std::string joined(const std::string &folder, const std::string &name) { return fs::path(folder) / name; }

std::string base_name(const std::string &path) { return fs::path(path).filename(); }

std::string stem(const std::string &path) {
    const std::string name = base_name(path);
    return name.substr(0, name.find('.'));
}

std::string suffix(const std::string &path) { return fs::path(path).extension(); }

std::string lower(std::string text) {
    for (char &letter : text)
        if (letter >= 'A' && letter <= 'Z') letter = char(letter | 32);
    return text;
}

void sort_naturally(std::vector<std::string> &paths) {
    std::vector<std::pair<std::string, std::string>> keyed;
    for (std::string &path : paths) keyed.emplace_back(natural_key(path), std::move(path));
    std::sort(keyed.begin(), keyed.end());
    std::transform(keyed.begin(), keyed.end(), paths.begin(), [](auto &each) { return std::move(each.second); });
}

bool lies_in(const std::string &path, const std::string &folder) {
    std::error_code ignored;
    const fs::path outer = fs::weakly_canonical(fs::absolute(joined(folder, "")), ignored);
    const fs::path within = fs::weakly_canonical(fs::absolute(joined(path, "")), ignored).lexically_relative(outer);
    return !within.empty() && *within.begin() != "..";
}

std::string read_file(const std::string &path) {
    struct stat status;
    if (::stat(path.c_str(), &status) != 0) fail_by_errno(path);
    // A pipe would wait for a writer without end, a device does whatever it does.
    if (!S_ISREG(status.st_mode)) throw Error(path + ": not a plain file; remove it, or put the file itself there");
    std::ifstream file(path, std::ios::binary);
    std::string content(size_t(status.st_size), '\0');
    if (!file.read(&content[0], status.st_size)) fail_by_errno(path);
    return content;
}

Json read_json(const std::string &path) {
    if (!is_file(path)) return {};
    try {
        return parse_json(read_file(path));
    } catch (const std::invalid_argument &error) {
        throw Error(path + ": not valid JSON (" + error.what() + "); the file is damaged or cut short, make it again");
    }
}

void check_plain(const std::string &path) {
    std::error_code ignored;
    const fs::file_type type = fs::symlink_status(path, ignored).type();
    if (type == fs::file_type::regular || type == fs::file_type::not_found) return;
    const char *const kind = type == fs::file_type::symlink ? "a link" : type == fs::file_type::directory ? "a folder" : "a pipe or a device";
    throw Error(path + ": is " + kind + "; only a plain file is written here, name another");
}

void write_whole(const std::string &path, const std::string &content) {
    check_plain(path);
    const std::string temporary = joined(fs::path(path).parent_path(), cat(TEMPORARY, ::getpid(), PART));
    ::unlink(temporary.c_str());
    std::FILE *const file = std::fopen(temporary.c_str(), "wxe");  // new, so no link is followed
    if (!file) fail_by_errno(path);
    const bool written = std::fwrite(content.data(), 1, content.size(), file) == content.size();
    // Only where it is closed does NFS hold it whole, or say that the disk is full.
    if (std::fclose(file) != 0 || !written || ::rename(temporary.c_str(), path.c_str()) != 0) {
        const int reason = errno;
        ::unlink(temporary.c_str());
        errno = reason;
        fail_by_errno(path);
    }
}

void hold_folder(const std::string &folder) {
    const int handle = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (handle < 0) fail_by_errno(folder);
    if (::flock(handle, LOCK_EX | LOCK_NB) != 0)
        throw Error(folder + ": another process is writing here; wait for it or name another");
    for (const fs::directory_entry &entry : fs::directory_iterator(folder)) {
        const std::string name = entry.path().filename();
        if (name.rfind(TEMPORARY, 0) == 0 && suffix(name) == PART) ::unlink(entry.path().c_str());
    }
}
