// A loaded model: what it takes, what its file says of it, and how it is run; as ResNeSt/engines/engine.py.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

constexpr size_t LARGEST_BATCH = 1024, MOST_INSTANCES = 256, AUTO = 0;

// Tensors of square images; `kind` is what --dtype of stage 1 calls them: float32 (NCHW), uint8 (NHWC), yuv420sp (NV12).
struct Input {
    std::string kind;  // empty where the model takes something else
    size_t side = 0, batch = 0;

    // All of one image.
    const char *element() const { return kind == "float32" ? "float32" : "uint8"; }  // NumPy's name of its values
    size_t value_bytes() const { return kind == "float32" ? 4 : 1; }
    std::vector<size_t> shape() const;
    size_t bytes() const;
    std::string told_shape() const;  // "3, 224, 224"
    std::string told() const { return kind + " [" + told_shape() + "]"; }
};

// The kind of tensors of one image that have this shape and these values.
Input input_of(const std::string &element, const std::vector<size_t> &shape);

struct Span {
    double begun, ended;  // seconds
};

// The answers to a batch, and when it ran.
struct Answers {
    std::string values;  // of every image in turn
    size_t classes = 0;
    bool half = false;  // float16, as some .om give; else float32
    Span span{};
    double to_device_ms = 0, to_host_ms = 0;

    size_t row_bytes() const { return classes * (half ? 2 : 4); }
    std::vector<float> row(size_t image) const;
};

class Engine {
  public:
    virtual ~Engine() = default;
    // A whole batch; each `instance`, from 0, is used by one thread.
    virtual Answers run(size_t instance, const char *data) = 0;
    // Gives back what it holds; raises Error where that fails.
    virtual void close() {}

    bool takes(size_t batch) const;
    std::string told_sizes() const;

    std::string title;
    Input input;
    std::vector<size_t> sizes;  // batch sizes, ascending; 1 to LARGEST_BATCH of a model that leaves it free
    size_t instances = 1;
    std::map<std::string, std::string> info;
};

// A model by its suffix, at the `batch` size where it takes several, on the NPU number `device`; `instances` may be AUTO.
// Raises Error where it is none that this program runs.
std::unique_ptr<Engine> open_engine(const std::string &path, size_t batch, size_t device, size_t instances);
std::unique_ptr<Engine> open_openvino(const std::string &path, size_t batch, size_t instances);
std::unique_ptr<Engine> open_ascend(const std::string &path, size_t batch, size_t device);

// The smallest of the sizes that is not below `batch`, else the largest.
size_t fitting(const std::vector<size_t> &sizes, size_t batch);
// Cores that this process may use, by affinity and by its container's bound.
size_t cores();
