// Feeds damaged copies of files to what reads them, under sanitizers: fuzz SECONDS FILE... A .json is read as a summary, a
// .txt as labels, a .npy as a tensor, all else as a JPEG by crops_make. The damage is the same each time.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "crops.h"
#include "infer/files.h"
#include "infer/pictures.h"
#include "infer/tensors.h"

namespace {

using Bytes = std::vector<uint8_t>;

// Reads what is no JPEG; whether it was whole.
bool read(const std::string &kind, const std::string &content) {
    try {
        if (kind == ".json") {
            for (const auto &[place, text] : parse_json(content)) json_text(place + text);
        } else if (kind == ".txt") {
            labels_in(content, "labels.txt");
        } else {
            npy_values(content, "a.npy", input_of("float32", {3, 4, 4}));
        }
        return true;
    } catch (const Error &) {
        return false;
    } catch (const std::invalid_argument &) {
        return false;
    }
}

class Fuzzer {
  public:
    explicit Fuzzer(std::vector<Bytes> files) : files_(std::move(files)) {}

    // The number of a file, and its content with up to seven faults in it, none in every eighth one.
    std::pair<size_t, Bytes> next() {
        const size_t number = below(files_.size());
        Bytes content = files_[number];
        for (size_t faults = below(8); faults > 0 && content.size() > 4; --faults) damage(content);
        return {number, content};
    }

    size_t below(size_t bound) { return random_() % bound; }

  private:
    void damage(Bytes &content) {
        const size_t at = below(2) ? below(content.size()) : below(std::min<size_t>(content.size(), 700));
        const size_t run = std::min(1 + below(16), content.size() - at);
        const auto begin = content.begin() + std::ptrdiff_t(at);
        switch (below(6)) {
            case 0: content[at] = uint8_t(random_()); break;
            case 1: content[at] ^= uint8_t(1u << below(8)); break;
            case 2: content.erase(begin, begin + std::ptrdiff_t(run)); break;
            case 3: content.insert(begin, run, uint8_t(random_())); break;
            case 4: std::fill(begin, begin + std::ptrdiff_t(run), uint8_t(below(2) ? 0xFF : 0)); break;
            case 5: content.resize(below(3) ? content.size() - run : at); break;
        }
    }

    std::vector<Bytes> files_;
    std::mt19937 random_{1};
};

}  // namespace

int main(int count, char **words) {
    std::vector<Bytes> files;
    for (int number = 2; number < count; ++number) {
        std::ifstream file(words[number], std::ios::binary);
        if (file.peek() == std::ifstream::traits_type::eof()) {
            std::fprintf(stderr, "%s: nothing to read\n", words[number]);
            return 2;
        }
        files.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    if (files.empty()) return 2;
    Fuzzer fuzzer(files);
    const std::vector<float> table(3 * 256, 0.5f);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(words[1]));
    size_t made = 0, all = 0;
    for (; std::chrono::steady_clock::now() < end; ++all) {
        const auto [number, content] = fuzzer.next();
        const std::string kind = suffix(words[2 + number]);
        if (kind == ".json" || kind == ".txt" || kind == ".npy") {
            made += read(kind, std::string(content.begin(), content.end()));
            continue;
        }
        const int size = 1 + int(fuzzer.below(fuzzer.below(8) ? 64 : 600));
        const bool floats = fuzzer.below(2);
        const auto either = [&fuzzer] { return int(fuzzer.below(2)); };
        const crops_order order{int(fuzzer.below(5)), size, either(), either(), either(), floats ? table.data() : nullptr};
        Bytes out(size_t(3) * size * size * (floats ? sizeof(float) : 1));
        made += crops_make(&order, content.data(), content.size(), out.data()) == CROPS_DONE;
    }
    std::printf("%zu files, %zu of them taken, no fault\n", all, made);
    return made ? 0 : 1;
}
