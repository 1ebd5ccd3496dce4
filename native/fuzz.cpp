// Feeds damaged copies of JPEG files to crops_make under sanitizers: fuzz SECONDS FILE... The damage is the same each time.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <utility>
#include <vector>

#include "crops.h"

namespace {

using Bytes = std::vector<uint8_t>;

class Fuzzer {
  public:
    explicit Fuzzer(std::vector<Bytes> files) : files_(std::move(files)) {}

    // A file with up to seven faults in it, none in every eighth one.
    Bytes next() {
        Bytes content = files_[below(files_.size())];
        for (size_t faults = below(8); faults > 0 && content.size() > 4; --faults) damage(content);
        return content;
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
        const Bytes content = fuzzer.next();
        const int size = 1 + int(fuzzer.below(fuzzer.below(8) ? 64 : 600));
        const bool floats = fuzzer.below(2);
        const auto either = [&fuzzer] { return int(fuzzer.below(2)); };
        const crops_order order{int(fuzzer.below(5)), size, either(), either(), either(), floats ? table.data() : nullptr};
        Bytes out(size_t(3) * size * size * (floats ? sizeof(float) : 1));
        made += crops_make(&order, content.data(), content.size(), out.data()) == CROPS_DONE;
    }
    std::printf("%zu files, %zu of them crops, no fault\n", all, made);
    return made ? 0 : 1;
}
