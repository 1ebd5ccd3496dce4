#include "engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sched.h>

#include "files.h"

namespace {

float of_half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float value = exponent == 31 ? (fraction ? NAN : INFINITY)
                        : exponent     ? std::ldexp(float(1024 + fraction), exponent - 25)
                                       : std::ldexp(float(fraction), -24);
    return bits >> 15 ? -value : value;
}

}  // namespace

std::vector<size_t> Input::shape() const {
    if (kind == "float32") return {3, side, side};
    if (kind == "uint8") return {side, side, 3};
    return {side * 3 / 2, side};
}

size_t Input::bytes() const {
    size_t bytes = value_bytes();
    for (const size_t each : shape()) bytes *= each;
    return bytes;
}

std::string Input::told_shape() const {
    std::string text;
    for (const size_t each : shape()) text += cat(text.empty() ? "" : ", ", each);
    return text;
}

Input input_of(const std::string &element, const std::vector<size_t> &shape) {
    for (const char *kind : {"float32", "uint8", "yuv420sp"})
        for (const size_t side : shape) {
            const Input found{kind, side};
            if (found.element() == element && found.shape() == shape) return found;
        }
    return {};
}

std::vector<float> Answers::row(size_t image) const {
    std::vector<float> made(classes);
    const char *const from = values.data() + image * row_bytes();
    if (!half) std::memcpy(made.data(), from, row_bytes());
    for (size_t place = 0; half && place < classes; ++place) {
        uint16_t bits;
        std::memcpy(&bits, from + 2 * place, 2);
        made[place] = of_half(bits);
    }
    return made;
}

bool Engine::takes(size_t batch) const { return std::binary_search(sizes.begin(), sizes.end(), batch); }

std::string Engine::told_sizes() const {
    if (sizes.size() == LARGEST_BATCH) return cat("1 to ", LARGEST_BATCH);
    std::string text;
    for (const size_t size : sizes) text += cat(text.empty() ? "" : ", ", size);
    return text;
}

size_t fitting(const std::vector<size_t> &sizes, size_t batch) {
    const auto found = std::lower_bound(sizes.begin(), sizes.end(), batch);
    return found == sizes.end() ? sizes.back() : *found;
}

size_t cores() {
    cpu_set_t set;
    const int allowed = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    double quota = -1, period = 0;
    std::ifstream two("/sys/fs/cgroup/cpu.max");
    if (!(two >> quota >> period)) {  // without a bound, or control groups of version 1
        std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
        std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
    }
    const bool bound = quota > 0 && period > 0;
    return size_t(bound ? std::clamp(int(std::ceil(quota / period)), 1, allowed) : allowed);
}

#ifndef WITH_OPENVINO
std::unique_ptr<Engine> open_openvino(const std::string &path, size_t, size_t) {
    throw Error(path + ": this program was built without OpenVINO, which runs a .xml; pip install openvino (requirements.txt "
                       "says which), then bash native/build.sh",
                RUNTIME);
}
#endif

std::unique_ptr<Engine> open_engine(const std::string &path, size_t batch, size_t device, size_t instances) {
    if (!is_file(path)) throw Error(path + ": no such model file");
    if (suffix(path) == ".om") return open_ascend(path, batch, device);
    if (suffix(path) == ".xml") return open_openvino(path, batch, instances);
    throw Error(path + ": not a model that this program runs; expected .xml or .om (python -m ResNeSt.infer runs more)",
                ARGUMENTS);
}
