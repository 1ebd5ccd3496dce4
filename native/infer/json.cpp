#include "json.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace {

constexpr int DEEPEST = 200;
constexpr size_t MOST_DIGITS = 18;  // what 64 bits hold

class Parser {
  public:
    explicit Parser(const std::string &text) : text_(text) {}

    Json whole() {
        Json found = value(0);
        blanks();
        if (at_ != text_.size()) fail("extra data");
        return found;
    }

  private:
    [[noreturn]] void fail(const char *what) const {
        throw std::invalid_argument(std::string(what) + " at byte " + std::to_string(at_));
    }
    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
    void blanks() { at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size()); }
    bool take(const char *word) {
        const size_t length = std::strlen(word);
        if (text_.compare(at_, length, word) != 0) return false;
        at_ += length;
        return true;
    }

    Json value(int depth) {
        if (depth > DEEPEST) fail("nesting without end");
        blanks();
        Json made;
        if (peek() == '"') {
            made.kind = Json::text;
            made.string = text();
        } else if (take("{")) {
            made.kind = Json::object;
            series('}', [&] {
                blanks();
                if (peek() != '"') fail("no name");
                std::string name = text();
                blanks();
                if (!take(":")) fail("no colon");
                made.members.emplace_back(std::move(name), value(depth + 1));
            });
        } else if (take("[")) {
            made.kind = Json::list;
            series(']', [&] { made.items.push_back(value(depth + 1)); });
        } else if (take("true")) {
            made.kind = Json::boolean;
            made.value = 1;
        } else if (take("false")) {
            made.kind = Json::boolean;
        } else if (!take("null")) {
            number(made);
        }
        return made;
    }

    template <typename Item> void series(char end, Item item) {
        blanks();
        if (peek() == end) {
            ++at_;
            return;
        }
        do {
            item();
            blanks();
        } while (take(","));
        if (peek() != end || at_ == text_.size()) fail("no end of a list or object");
        ++at_;
    }

    size_t digits() {
        const size_t from = at_;
        while (peek() >= '0' && peek() <= '9') ++at_;
        if (at_ == from) fail("no value");
        return at_ - from;
    }

    void number(Json &made) {
        const size_t from = at_;
        take("-");
        const bool zero = peek() == '0';
        const size_t count = digits();
        if (zero && count > 1) fail("a number that begins with 0");
        bool whole = true;
        if (take(".")) digits(), whole = false;
        if (take("e") || take("E")) {
            if (!take("+")) take("-");
            digits(), whole = false;
        }
        if (whole && count > MOST_DIGITS) fail("a number of too many digits");
        made.kind = Json::number;
        made.string = text_.substr(from, at_ - from);
        made.value = std::strtod(made.string.c_str(), nullptr);
        if (!std::isfinite(made.value)) fail("a number without end");
    }

    unsigned hex() {
        unsigned made = 0;
        for (int place = 0; place < 4; ++place, ++at_) {
            const char digit = peek();
            if (!std::isxdigit(static_cast<unsigned char>(digit))) fail("a damaged escape");
            made = 16 * made + unsigned(digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10);
        }
        return made;
    }

    void append(std::string &made, unsigned code) {
        if (code < 0x80) {
            made += char(code);
        } else if (code >= 0xDC80 && code <= 0xDCFF) {
            made += char(code - 0xDC00);  // a byte of a file name
        } else {
            const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
            made += char((0xF00 >> more & 0xFF) | int(code >> 6 * more));
            for (int left = more - 1; left >= 0; --left) made += char(0x80 | (code >> 6 * left & 0x3F));
        }
    }

    std::string text() {
        static const char *const names = "\"\\/bfnrt", *const meant = "\"\\/\b\f\n\r\t";
        std::string made;
        for (++at_; peek() != '"';) {
            if (static_cast<unsigned char>(peek()) < 0x20) fail("a text without end");
            if (!take("\\")) {
                made += text_[at_++];
            } else if (take("u")) {
                unsigned code = hex();
                if (code >= 0xD800 && code < 0xDC00 && text_.compare(at_, 2, "\\u") == 0) {
                    const size_t before = at_;
                    at_ += 2;
                    const unsigned low = hex();
                    if (low >= 0xDC00 && low < 0xE000)
                        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                    else
                        at_ = before;
                }
                append(made, code);
            } else {
                const char *const name = peek() ? std::strchr(names, peek()) : nullptr;
                if (!name) fail("a damaged escape");
                made += meant[name - names];
                ++at_;
            }
        }
        ++at_;
        return made;
    }

    const std::string &text_;
    size_t at_ = 0;
};

}  // namespace

const Json *Json::get(const std::string &name) const {
    for (size_t number = members.size(); number > 0; --number)
        if (members[number - 1].first == name) return &members[number - 1].second;
    return nullptr;
}

Json parse_json(const std::string &text) {
    const std::string without_mark = text.compare(0, 3, "\xEF\xBB\xBF") == 0 ? text.substr(3) : text;
    if (!is_utf8(without_mark)) throw std::invalid_argument("no UTF-8");
    return Parser(without_mark).whole();
}

uint32_t next_character(const std::string &text, size_t &at) {
    const auto byte = [&text](size_t place) { return place < text.size() ? uint8_t(text[place]) : 0; };
    const uint8_t first = byte(at);
    const size_t length = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    uint32_t code = length == 1 ? first : first & (0x7F >> length);
    bool valid = length > 0;
    for (size_t more = 1; more < length; ++more) {
        valid = valid && (byte(at + more) & 0xC0) == 0x80;
        code = code << 6 | (byte(at + more) & 0x3F);
    }
    valid = valid && code >= (length == 3 ? 0x800u : length == 4 ? 0x10000u : 0u) && code <= 0x10FFFF;
    if (!valid || (code >= 0xD800 && code < 0xE000)) return at++, 0xDC00u + first;
    at += length;
    return code;
}

bool is_utf8(const std::string &text) {
    for (size_t at = 0; at < text.size();) {
        const uint32_t code = next_character(text, at);
        if (code >= 0xDC00 && code < 0xE000) return false;
    }
    return true;
}

std::string json_text(const std::string &text) {
    static const char *const names = "\"\\bfnrt", *const meant = "\"\\\b\f\n\r\t";
    std::string made = "\"";
    char hex[16];
    for (size_t at = 0; at < text.size();) {
        const uint32_t code = next_character(text, at);
        const char *const short_one = code && code < 0x80 ? std::strchr(meant, int(code)) : nullptr;
        if (short_one) {
            made += '\\', made += names[short_one - meant];
        } else if (code >= 0x20 && code < 0x7F) {
            made += char(code);
        } else if (code == 0x7F) {
            made += char(code);
        } else if (code < 0x10000) {
            std::snprintf(hex, sizeof hex, "\\u%04x", code);
            made += hex;
        } else {
            std::snprintf(hex, sizeof hex, "\\u%04x\\u%04x", 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + (code & 0x3FF));
            made += hex;
        }
    }
    return made + '"';
}

std::string repr(double value) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
    char text[40];
    int precision = 0;
    do std::snprintf(text, sizeof text, "%.*e", precision, value);
    while (std::strtod(text, nullptr) != value && ++precision < 17);
    const int exponent = std::atoi(std::strchr(text, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        // Python writes 1e+16 and 1e-05, as C does.
        return text;
    }
    std::snprintf(text, sizeof text, "%.*f", std::max(precision - exponent, 1), value);
    return text;
}
