#include "engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <random>
#include <sched.h>
#include <unistd.h>

#include "files.h"

namespace {

constexpr double DEPENDS = 0.1;  // of the largest answer, as in opening.py

float of_half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float value = exponent == 31 ? (fraction ? NAN : INFINITY)
                        : exponent     ? std::ldexp(float(1024 + fraction), exponent - 25)
                                       : std::ldexp(float(fraction), -24);
    return bits >> 15 ? -value : value;
}

// CPUs that a control group lets its members take; 0 without a bound.
double quota_of(const std::string &folder) {
    double quota = -1, period = 0;
    std::ifstream two(folder + "/cpu.max");
    if (!(two >> quota >> period)) {
        std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
        std::ifstream(folder + "/cpu.cfs_period_us") >> period;
    }
    return quota > 0 && period > 0 ? quota / period : 0;
}

// The least of all groups that this process is in.
double cpu_quota() {
    double least = 0;
    std::ifstream membership("/proc/self/cgroup");
    for (std::string line; std::getline(membership, line);) {
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
        if (controllers != ",," && controllers.find(",cpu,") == std::string::npos) continue;
        for (const char *root : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu"})
            for (std::string path = line.substr(second + 1);; path.resize(path.rfind('/'))) {
                const double quota = quota_of(root + path);
                if (quota > 0 && (least == 0 || quota < least)) least = quota;
                if (path.find('/') == std::string::npos) break;
            }
    }
    return least;
}

// Of a network of another program an answer may depend on the others of its batch, as ResNeSt/engines/opening.py says.
void check_apart(const std::string &path, Engine &engine) {
    const Input &input = engine.input;
    const size_t images = input.batch, bytes = input.image_bytes();
    std::mt19937 random(0);
    std::string data(images * bytes, '\0');
    const auto fill = [&](size_t image, int divisor) {
        const size_t values = input.element == "float32" ? bytes / sizeof(float) : bytes;
        for (size_t place = 0; place < values; ++place) {
            const auto level = uint8_t(uint8_t(random()) / divisor);
            const float scaled = float(level) / 64 - 2;
            if (values == bytes)
                data[image * bytes + place] = char(level);
            else
                std::memcpy(&data[image * bytes + place * sizeof scaled], &scaled, sizeof scaled);
        }
    };
    fill(0, 1);
    for (size_t image = 1; image < images; ++image) data.replace(image * bytes, bytes, data, 0, bytes);
    const std::vector<float> alone = engine.run(0, data.data(), images, 1).row(0);
    for (size_t image = 1; image < images; ++image) fill(image, 4);
    const std::vector<float> among = engine.run(0, data.data(), images, 1).row(0);
    double largest = 0, difference = 0;
    for (size_t place = 0; place < alone.size(); ++place) {
        largest = std::max(largest, std::abs(double(alone[place])));
        difference = std::max(difference, std::abs(double(alone[place]) - double(among[place])));
    }
    const bool flat = std::equal(alone.begin() + 1, alone.end(), alone.begin());
    if (difference > DEPENDS * largest || flat)
        throw Error(path + ": its answer to an image " +
                    (difference > 0 ? "depends on the other images of the batch" : "is the same for every class") +
                    "; export it again for inference (model.eval()), with nothing computed over axis 0, such as a Softmax");
}

}  // namespace

std::vector<size_t> Input::shape() const {
    if (kind == "float32") return {3, side, side};
    if (kind == "uint8") return {side, side, 3};
    return {side * 3 / 2, side};
}

size_t Input::image_bytes() const {
    size_t bytes = element == "float32" ? 4 : 1;
    for (const size_t each : shape()) bytes *= each;
    return bytes;
}

std::string Input::told_shape() const {
    std::string text;
    for (const size_t each : shape()) text += (text.empty() ? "[" : ", ") + std::to_string(each);
    return text + "]";
}

Input input_of(const std::string &name, const std::string &element, const std::vector<long long> &shape) {
    Input found;
    found.name = name, found.element = element;
    for (const char *kind : {"float32", "uint8", "yuv420sp"})
        for (const long long side : shape) {
            if (side <= 0 || (element == "float32") != (std::strcmp(kind, "float32") == 0)) continue;
            if (std::strcmp(kind, "yuv420sp") == 0 && side % 2) continue;
            found.kind = kind, found.side = size_t(side);
            const std::vector<size_t> wanted = found.shape();
            if (std::equal(shape.begin(), shape.end(), wanted.begin(), wanted.end(),
                           [](long long a, size_t b) { return a == (long long)(b); }))
                return found;
        }
    found.kind.clear();
    return found;
}

std::vector<float> Answers::row(size_t image) const {
    std::vector<float> made(classes);
    const char *const from = values.data() + image * row_bytes();
    if (!half) {
        std::memcpy(made.data(), from, row_bytes());
        return made;
    }
    for (size_t place = 0; place < classes; ++place) {
        uint16_t bits;
        std::memcpy(&bits, from + 2 * place, 2);
        made[place] = of_half(bits);
    }
    return made;
}

size_t Engine::fitting(size_t images) const {
    const auto found = std::lower_bound(sizes.begin(), sizes.end(), images);
    return found == sizes.end() ? sizes.back() : *found;
}

#ifndef WITH_OPENVINO
std::unique_ptr<Engine> open_openvino(const std::string &path, const Opening &) {
    throw Error(path + ": this program was built without OpenVINO, which runs a .xml; pip install openvino (requirements.txt "
                       "says which), then bash native/build.sh",
                RUNTIME);
}
#endif

size_t cores() {
    cpu_set_t set;
    const int allowed = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    const double quota = cpu_quota();
    return size_t(quota > 0 ? std::max(1, std::min(allowed, int(std::ceil(quota)))) : allowed);
}

bool has_all_cores() { return long(cores()) >= sysconf(_SC_NPROCESSORS_ONLN); }

std::unique_ptr<Engine> open_engine(const std::string &path, const Opening &asked) {
    if (!is_file(path)) throw Error(path + ": no such model file");
    const std::string kind = suffix(path);
    if (kind == ".om") return open_ascend(path, asked);
    if (kind != ".xml")
        throw Error(path + ": not a model that this program runs; expected .xml or .om (python -m ResNeSt.infer runs more)",
                    ARGUMENTS);
    std::unique_ptr<Engine> engine = open_openvino(path, asked);
    if (engine->info.empty()) {
        Opening with_two = asked;
        with_two.batch = 2;
        const bool alone = engine->input.batch == 1;
        check_apart(path, alone ? *open_openvino(path, with_two) : *engine);
    }
    return engine;
}
