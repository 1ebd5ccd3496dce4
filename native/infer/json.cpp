#include "json.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace {

constexpr int DEEPEST = 200;
constexpr char ESCAPES[] = "\"\\/bfnrt", ESCAPED[] = "\"\\/\b\f\n\r\t";

class Parser {
  public:
    explicit Parser(const std::string &text) : text_(text) {
        value("", 0);
        blanks();
        require(at_ == text.size(), "extra data");
    }

    Json found;

  private:
    void require(bool right, const char *otherwise) const {
        if (!right) throw std::invalid_argument(otherwise + (" at byte " + std::to_string(at_)));
    }
    void blanks() { at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size()); }
    bool take(char letter) { return at_ < text_.size() && text_[at_] == letter && ++at_; }

    void value(const std::string &path, int depth) {
        require(depth < DEEPEST, "nesting without end");
        blanks();
        const bool object = take('{');
        if (object || take('[')) {
            const char end = object ? '}' : ']';
            size_t number = 0;
            for (blanks(); !take(end); blanks()) {
                require(number == 0 || take(','), "no end of a list or object");
                blanks();
                const std::string name = object ? text() : std::to_string(number);
                blanks();
                require(!object || take(':'), "no colon");
                value(path + "/" + name, depth + 1);
                ++number;
            }
        } else if (at_ < text_.size() && text_[at_] == '"') {
            found[path] = text();
        } else {
            const size_t end = std::min(text_.find_first_of(" \t\r\n,]}", at_), text_.size());
            const std::string word = text_.substr(at_, end - at_);
            char *read = nullptr;
            std::strtod(word.c_str(), &read);
            const bool number = !word.empty() && *read == '\0' && word.find_first_not_of("+-.0123456789eE") == std::string::npos;
            require(number || word == "true" || word == "false" || word == "null", "no value");
            found[path] = word;
            at_ = end;
        }
    }

    uint32_t hex() {
        const std::string digits = text_.substr(at_, 4);
        require(digits.size() == 4 && digits.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos, "a damaged escape");
        at_ += 4;
        return uint32_t(std::stoul(digits, nullptr, 16));
    }

    // Behind `\u`: a character, or the first half of one.
    void unicode(std::string &made) {
        uint32_t code = hex();
        if (code >> 10 == 0x36 && text_.compare(at_, 2, "\\u") == 0) {
            at_ += 2;
            code = 0x10000 + ((code & 0x3FF) << 10) + (hex() & 0x3FF);
        }
        const int more = code < 0x80 || (code >= 0xDC80 && code <= 0xDCFF) ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        if (more == 0) made += char(code);  // of a file name that is no UTF-8, too
        if (more > 0) made += char((0xF00 >> more & 0xFF) | int(code >> 6 * more));
        for (int left = more - 1; left >= 0; --left) made += char(0x80 | (code >> 6 * left & 0x3F));
    }

    std::string text() {
        std::string made;
        require(take('"'), "no text");
        while (!take('"')) {
            require(at_ < text_.size() && uint8_t(text_[at_]) >= 0x20, "a text without end");
            if (!take('\\')) {
                made += text_[at_++];
            } else if (take('u')) {
                unicode(made);
            } else {
                const char *const name = at_ < text_.size() && text_[at_] ? std::strchr(ESCAPES, text_[at_]) : nullptr;
                require(name, "a damaged escape");
                made += ESCAPED[name - ESCAPES];
                ++at_;
            }
        }
        return made;
    }

    const std::string &text_;
    size_t at_ = 0;
};

}  // namespace

Json parse_json(const std::string &text) { return Parser(text).found; }

uint32_t next_character(const std::string &text, size_t &at) {
    const uint8_t first = uint8_t(text[at]);
    const size_t length = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    uint32_t code = length == 1 ? first : first & (0x7F >> length);
    bool valid = length > 0 && text.size() - at >= length;
    for (size_t more = 1; valid && more < length; ++more) {
        valid = (text[at + more] & 0xC0) == 0x80;
        code = code << 6 | (text[at + more] & 0x3F);
    }
    valid = valid && code >= (length == 3 ? 0x800u : length == 4 ? 0x10000u : 0u) && code <= 0x10FFFF && code >> 11 != 0x1B;
    at += valid ? length : 1;
    return valid ? code : 0xDC00u + first;
}

std::string json_text(const std::string &text) {
    std::string made = "\"";
    char hex[16];
    for (size_t at = 0; at < text.size();) {
        const uint32_t code = next_character(text, at);
        const char *const escaped = code && code < 0x80 && code != '/' ? std::strchr(ESCAPED, int(code)) : nullptr;
        if (escaped) {
            made += {'\\', ESCAPES[escaped - ESCAPED]};
        } else if (code >= 0x20 && code < 0x7F) {
            made += char(code);
        } else {
            const size_t one = size_t(std::snprintf(hex, sizeof hex, "\\u%04x", code < 0x10000 ? code : 0xD7C0 + (code >> 10)));
            if (code >= 0x10000) std::snprintf(hex + one, sizeof hex - one, "\\u%04x", 0xDC00 + (code & 0x3FF));
            made += hex;
        }
    }
    return made + '"';
}

std::string repr(double value) {
    char text[40];
    int digits = 15;
    do std::snprintf(text, sizeof text, "%.*g", digits, value);
    while (std::strtod(text, nullptr) != value && ++digits <= 17);
    return text + std::string(std::strpbrk(text, ".en") ? "" : ".0");
}
