// OpenVINO on the CPU: a .xml that convert.sh compiled, in the precision that it asks for, as ResNeSt/engines/openvino.py.
#include <algorithm>
#include <numeric>
#include <unistd.h>

#include <openvino/openvino.hpp>

#include "engine.h"
#include "files.h"
#include "flow.h"

namespace {

// What OpenVINO raises, as a line of Error: the last one of what it says.
template <typename Work> auto named(const std::string &path, const char *what, Work work) {
    try {
        return work();
    } catch (const ov::Exception &error) {
        std::string text = error.what();
        text.erase(text.find_last_not_of(" \n\t") + 1);
        text.erase(0, text.rfind('\n') + 1);
        throw Error(cat(path, ": OpenVINO cannot ", what, " (", text, "); make it again with convert.sh"));
    }
}

class OpenVINO : public Engine {
  public:
    OpenVINO(const std::string &path, size_t batch, size_t asked) : path_(path) {
        const std::string build = ov::get_openvino_version().buildNumber;
        title = "OpenVINO " + build.substr(0, build.find('-'));
        core_.set_property(ov::enable_mmap(false));  // weights that are written over must not change its answers
        model_ = core_.read_model(path);
        check_model();
        const ov::PartialShape takes = model_->input().get_partial_shape();
        if (takes[0].is_dynamic()) {
            sizes.resize(LARGEST_BATCH);
            std::iota(sizes.begin(), sizes.end(), 1);
            input.batch = fitting(sizes, batch);
            ov::PartialShape of_batch = takes;
            of_batch[0] = ov::Dimension(int64_t(input.batch));
            model_->reshape(of_batch);
        } else {
            sizes = {size_t(takes[0].get_length())};
            input.batch = sizes[0];
        }
        compile(asked);
        instances = asked == AUTO ? compiled_.get_property(ov::optimal_number_of_infer_requests) : asked;
        while (requests_.size() < instances) requests_.push_back(compiled_.create_infer_request());
    }

    Answers run(size_t instance, const char *data) override {
        return named(path_, "run it", [&]() -> Answers {
            ov::InferRequest &request = requests_[instance];
            const ov::Output<const ov::Node> port = compiled_.input();
            request.set_input_tensor(ov::Tensor(port.get_element_type(), port.get_shape(), const_cast<char *>(data)));
            const double begun = now();
            request.infer();
            const Span span{begun, now()};
            const ov::Tensor output = request.get_output_tensor();
            const ov::Shape &rows = output.get_shape();
            if (rows.size() != 2 || rows[0] != input.batch)
                throw Error(cat(path_, ": gives ", rows.to_string(), " for ", input.batch, " images, expected a row each; export "
                                "it again with its batch axis kept"));
            const auto *const values = reinterpret_cast<const char *>(output.data<float>());
            return {std::string(values, output.get_byte_size()), rows[1], false, span};
        });
    }

  private:
    void check_model() {
        // What it says of itself (ResNeSt/models/model_info.py); convert.sh has checked whatever has it.
        if (!model_->has_rt_info(std::vector<std::string>{"resnest"}))
            throw Error(path_ + ": is not from convert.sh, which checks what a network is; compile it with that, or run "
                                "python -m ResNeSt.infer, which checks it itself");
        for (const std::string key : {"recipe", "mean", "std", "precision"}) {
            const std::vector<std::string> place{"resnest", key};
            if (model_->has_rt_info(place)) info[key] = model_->get_rt_info<std::string>(place);
        }
        const auto type = model_->input().get_element_type();
        ov::Shape sides = model_->input().get_partial_shape().get_min_shape();
        if (!sides.empty()) sides.erase(sides.begin());  // of the batch
        input = input_of(type == ov::element::f32 ? "float32" : type == ov::element::u8 ? "uint8" : "", sides);
        if (input.kind.empty())
            throw Error(path_ + ": its input is no square images, float32 NCHW, uint8 NHWC or NV12; export and compile it again");
    }

    // Instances that run side by side, or AUTO for as many as OpenVINO finds best.
    void compile(size_t wanted) {
        const std::string precision = info.count("precision") ? info["precision"] : "fp32";
        if (precision != "fp32" && precision != "bf16" && precision != "int8")
            throw Error(cat(path_, ": its precision is ", precision, ", expected fp32, bf16 or int8; make it again with convert.sh"));
        const auto mode = wanted == 1 ? ov::hint::PerformanceMode::LATENCY : ov::hint::PerformanceMode::THROUGHPUT;
        const auto element = precision == "fp32" ? ov::element::f32 : ov::element::bf16;
        ov::AnyMap settings{ov::hint::performance_mode(mode), ov::hint::inference_precision(element)};
        if (wanted != AUTO) settings.insert(ov::num_streams(ov::streams::Num(int32_t(wanted))));
        if (long(cores()) < sysconf(_SC_NPROCESSORS_ONLN)) settings.insert(ov::inference_num_threads(int32_t(cores())));
        compiled_ = core_.compile_model(model_, "CPU", settings);
    }

    const std::string path_;
    ov::Core core_;
    std::shared_ptr<ov::Model> model_;
    ov::CompiledModel compiled_;
    std::vector<ov::InferRequest> requests_;
};

}  // namespace

std::unique_ptr<Engine> open_openvino(const std::string &path, size_t batch, size_t instances) {
    return named(path, "compile it", [&] { return std::make_unique<OpenVINO>(path, batch, instances); });
}
