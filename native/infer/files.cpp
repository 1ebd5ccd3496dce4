#include "files.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <memory>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace fs = std::filesystem;

namespace {

// SHA-256 (FIPS 180-4): its constants are the first bits of the fractions of square and cube roots of primes.
class Sha256 {
  public:
    void add(const char *data, size_t length) {
        bits_ += 8 * uint64_t(length);
        for (; length > 0; --length) {
            block_[filled_++] = uint8_t(*data++);
            if (filled_ == 64) mix(), filled_ = 0;
        }
    }

    std::string hex() {
        const uint64_t bits = bits_;
        add("\x80", 1);
        while (filled_ != 56) add("\0", 1);
        for (int shift = 56; shift >= 0; shift -= 8) block_[filled_++] = uint8_t(bits >> shift);
        mix();
        std::string made;
        char digits[9];
        for (const uint32_t word : state_) {
            std::snprintf(digits, sizeof digits, "%08x", word);
            made += digits;
        }
        return made;
    }

  private:
    static uint32_t turned(uint32_t word, int by) { return word >> by | word << (32 - by); }

    void mix() {
        static const uint32_t constants[64] = {
            0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
            0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
            0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
            0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
            0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
            0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
            0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
            0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
        uint32_t words[64];
        for (int i = 0; i < 16; ++i)
            words[i] = uint32_t(block_[4 * i]) << 24 | uint32_t(block_[4 * i + 1]) << 16 |
                       uint32_t(block_[4 * i + 2]) << 8 | block_[4 * i + 3];
        for (int i = 16; i < 64; ++i) {
            const uint32_t a = words[i - 15], b = words[i - 2];
            words[i] = words[i - 16] + (turned(a, 7) ^ turned(a, 18) ^ a >> 3) + words[i - 7] +
                       (turned(b, 17) ^ turned(b, 19) ^ b >> 10);
        }
        auto [a, b, c, d, e, f, g, h] = state_;
        for (int i = 0; i < 64; ++i) {
            const uint32_t one = h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) +
                                 constants[i] + words[i];
            const uint32_t two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
        }
        const std::array<uint32_t, 8> added{a, b, c, d, e, f, g, h};
        for (size_t i = 0; i < 8; ++i) state_[i] += added[i];
    }

    std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t block_[64];
    size_t filled_ = 0;
    uint64_t bits_ = 0;
};

struct Handle {
    explicit Handle(int number) : number(number) {}
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;
    ~Handle() {
        if (number >= 0) ::close(number);
    }
    const int number;
};

void lock(int handle, const std::string &path) {
    if (::flock(handle, LOCK_EX | LOCK_NB) == 0) return;
    if (errno != EWOULDBLOCK) fail_by_errno(path);
    throw Error(path + ": another process is writing here; wait for it or name another");
}

// Names that this project alone gives, as in files.py: digits at the end follow from the rest.
std::string temporary_of(const std::string &path) {
    const std::string start = ".resnest-" + hex_sha256(base_name(path)).substr(0, 12) + "-";
    return joined(fs::path(path).parent_path(), start + hex_sha256(start).substr(0, 8) + ".part");
}

bool is_ours(const std::string &name) {
    const size_t cut = name.rfind('-');
    if (cut == std::string::npos || name.compare(0, 9, ".resnest-") != 0) return false;
    const std::string start = name.substr(0, cut + 1);
    return name == start + hex_sha256(start).substr(0, 8) + ".part";
}

void remove_leftover(const std::string &temporary, const std::string &path) {
    check_plain(temporary);
    const Handle handle(::open(temporary.c_str(), O_WRONLY | O_NOFOLLOW));
    if (handle.number < 0) return;
    lock(handle.number, path);
    ::unlink(temporary.c_str());
}

}  // namespace

void fail_by_errno(const std::string &path) { throw Error(path + ": " + std::strerror(errno)); }

std::string with_commas(size_t number) {
    std::string text = std::to_string(number);
    for (size_t place = text.size(); place > 3; place -= 3) text.insert(place - 3, ",");
    return text;
}

std::string hex_sha256(const std::string &content) {
    Sha256 digest;
    digest.add(content.data(), content.size());
    return digest.hex();
}

std::string hex_sha256_of_file(const std::string &path) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    if (!file) fail_by_errno(path);
    Sha256 digest;
    std::vector<char> block(1 << 20);
    while (const size_t count = std::fread(block.data(), 1, block.size(), file.get())) digest.add(block.data(), count);
    if (std::ferror(file.get())) fail_by_errno(path);
    return digest.hex();
}

bool is_file(const std::string &path) {
    struct stat status;
    return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

bool is_folder(const std::string &path) {
    struct stat status;
    return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

std::string joined(const std::string &folder, const std::string &name) {
    if (folder.empty() || name.compare(0, 1, "/") == 0) return name;
    return folder.back() == '/' ? folder + name : folder + "/" + name;
}

std::string base_name(const std::string &path) { return path.substr(path.rfind('/') + 1); }

std::string stem(const std::string &path) {
    const std::string name = base_name(path);
    return name.substr(0, name.find('.'));
}

std::string suffix(const std::string &path) {
    const std::string name = base_name(path);
    const size_t dot = name.rfind('.');
    return dot == std::string::npos || dot == 0 || dot + 1 == name.size() ? "" : name.substr(dot);
}

std::string lower(std::string text) {
    for (char &letter : text)
        if (letter >= 'A' && letter <= 'Z') letter = char(letter | 32);
    return text;
}

std::string natural_key(const std::string &name) {
    const auto is_digit = [&name](size_t at) { return at < name.size() && name[at] >= '0' && name[at] <= '9'; };
    std::string key;
    for (size_t at = 0; at < name.size();) {
        if (!is_digit(at)) {
            key += name[at++];
            continue;
        }
        size_t end = at;
        while (is_digit(end)) ++end;
        while (at + 1 < end && name[at] == '0') ++at;
        key += '\0', key += char(end - at);
        key.append(name, at, end - at);
        at = end;
    }
    return key;
}

bool lies_in(const std::string &path, const std::string &folder) {
    std::error_code ignored;
    fs::path inner = fs::weakly_canonical(fs::absolute(path), ignored);
    fs::path outer = fs::weakly_canonical(fs::absolute(folder), ignored);
    if (!inner.has_filename()) inner = inner.parent_path();
    if (!outer.has_filename()) outer = outer.parent_path();
    const auto parted = std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end());
    return parted.first == outer.end() || fs::equivalent(path, folder, ignored);
}

std::string read_file(const std::string &path) {
    struct stat status;
    // A pipe would wait for a writer without end, a device does whatever it does.
    if (::stat(path.c_str(), &status) != 0) fail_by_errno(path);
    if (!S_ISREG(status.st_mode)) throw Error(path + ": not a plain file; remove it, or put the file itself there");
    const Handle file(::open(path.c_str(), O_RDONLY));
    if (file.number < 0) fail_by_errno(path);
    std::string content(size_t(status.st_size), '\0');
    size_t filled = 0;
    while (true) {
        if (filled == content.size()) content.resize(filled + 4096);
        const ssize_t count = ::read(file.number, &content[filled], content.size() - filled);
        if (count < 0) fail_by_errno(path);
        if (count == 0) break;
        filled += size_t(count);
        if (filled == size_t(status.st_size) && filled == content.size()) break;
    }
    content.resize(filled);
    return content;
}

Json read_json(const std::string &path, bool missing) {
    if (!is_file(path)) {
        if (missing) return {};
        throw Error(path + ": no such file");
    }
    try {
        return parse_json(read_file(path));
    } catch (const std::invalid_argument &error) {
        throw Error(path + ": not valid JSON (" + error.what() + "); the file is damaged or cut short, make it again");
    }
}

void check_plain(const std::string &path) {
    struct stat status;
    if (::lstat(path.c_str(), &status) != 0 || S_ISREG(status.st_mode)) return;
    const auto is = [&status](mode_t kind) { return (status.st_mode & S_IFMT) == kind; };
    const char *kind = is(S_IFLNK) ? "a link" : is(S_IFDIR) ? "a folder" : is(S_IFIFO) ? "a pipe" : "a device";
    throw Error(path + ": is " + kind + "; only a plain file is written here, name another");
}

void write_whole(const std::string &path, const std::string &content) {
    check_plain(path);
    const std::string temporary = temporary_of(path);
    int number;
    while ((number = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666)) < 0) {
        if (errno != EEXIST) fail_by_errno(temporary);
        remove_leftover(temporary, path);
    }
    const Handle file(number);
    try {
        lock(file.number, path);
        for (size_t written = 0; written < content.size();) {
            const ssize_t count = ::write(file.number, content.data() + written, content.size() - written);
            if (count < 0) fail_by_errno(path);
            written += size_t(count);
        }
        if (::rename(temporary.c_str(), path.c_str()) != 0) fail_by_errno(path);
    } catch (...) {
        ::unlink(temporary.c_str());
        throw;
    }
}

void remove_plain(const std::string &path) {
    check_plain(path);
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) fail_by_errno(path);
}

SoleWriter::SoleWriter(const std::string &folder) : handle_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (handle_ < 0) fail_by_errno(folder);
    try {
        lock(handle_, folder);
        for (const fs::directory_entry &entry : fs::directory_iterator(folder))
            if (is_ours(entry.path().filename())) remove_leftover(entry.path(), folder);
    } catch (...) {
        ::close(handle_);
        throw;
    }
}

SoleWriter::~SoleWriter() { ::close(handle_); }
