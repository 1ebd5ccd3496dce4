// A loaded model: what it takes, what its file says of it, and how it is run; as ResNeSt/engines/engine.py.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

constexpr size_t LARGEST_BATCH = 1024, MOST_INSTANCES = 256, AUTO = 0;

// Tensors for images, by what --dtype of stage 1 calls them: float32 NCHW, uint8 NHWC, yuv420sp (NV12).
struct Input {
    std::string name, kind, element;  // the kind of tensors; NumPy's name of its values
    size_t batch = 0, side = 0;

    std::vector<size_t> shape() const;  // of one image
    size_t image_bytes() const;
    std::string told_shape() const;  // "[3, 224, 224]"
};

// The kind of tensors that have this shape and these values; an empty `kind` where there is none.
Input input_of(const std::string &name, const std::string &element, const std::vector<long long> &shape);

struct Span {
    double begun, ended;  // seconds
};

// The answers to a batch, and when each of its runs began and ended.
struct Answers {
    std::string values;  // of every image in turn
    size_t classes = 0;
    bool half = false;  // float16, as some .om give; else float32
    std::vector<Span> runs;
    double to_device_ms = 0, to_host_ms = 0;

    size_t row_bytes() const { return classes * (half ? 2 : 4); }
    std::vector<float> row(size_t image) const;
};

class Engine {
  public:
    virtual ~Engine() = default;
    // `images` of them at `data`, any of the sizes that it takes, run `times` times; `instance` counts from 0, and each
    // is used by one thread.
    virtual Answers run(size_t instance, const void *data, size_t images, size_t times) = 0;
    // Gives back what it holds; raises Error where that fails.
    virtual void close() {}

    std::string title;
    Input input;
    std::vector<size_t> sizes;  // ascending; 1 to LARGEST_BATCH of a model that leaves it free
    size_t instances = 1;
    std::map<std::string, std::string> info;

    bool any_size() const { return sizes.size() == LARGEST_BATCH; }
    size_t fitting(size_t images) const;  // the smallest of its sizes that holds them, else the largest
};

// What is asked of a model: `batch` of one that takes several, `device` of an NPU, `instances` or AUTO, how many images
// are to be run, or 0.
struct Opening {
    size_t batch = 1, device = 0, instances = 1, images = 0;
    size_t busy(size_t size) const { return images ? (images + size - 1) / size : MOST_INSTANCES; }
};

std::unique_ptr<Engine> open_openvino(const std::string &path, const Opening &asked);
std::unique_ptr<Engine> open_ascend(const std::string &path, const Opening &asked);
// By the suffix; raises Error where the model is none that this program runs, or depends on other images of its batch.
std::unique_ptr<Engine> open_engine(const std::string &path, const Opening &asked);

// Cores that this process may use, by affinity and control groups, and whether those are fewer than the machine's.
size_t cores();
bool has_all_cores();
