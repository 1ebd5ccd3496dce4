// OpenVINO on the CPU: a .xml that convert.sh compiled, in the precision that it asks for, as ResNeSt/engines/openvino.py.
#include <algorithm>
#include <numeric>
#include <unistd.h>

#include <openvino/openvino.hpp>

#include "engine.h"
#include "files.h"
#include "flow.h"

namespace {

std::string last_line(const std::string &text) {
    const std::string whole = text.substr(0, text.find_last_not_of(" \n\t") + 1);
    return whole.substr(whole.rfind('\n') + 1);
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
        spans_.resize(instances);
        for (size_t instance = 0; instance < instances; ++instance) {
            requests_.push_back(compiled_.create_infer_request());
            requests_[instance].set_callback([this, instance](std::exception_ptr) { spans_[instance].ended = now(); });
        }
    }

    void start(size_t instance, const char *data) override {
        try {
            const ov::Output<const ov::Node> port = compiled_.input();
            requests_[instance].set_input_tensor(ov::Tensor(port.get_element_type(), port.get_shape(), const_cast<char *>(data)));
            spans_[instance].begun = now();
            requests_[instance].start_async();
        } catch (const ov::Exception &error) {
            fail(error);
        }
    }

    Answers finish(size_t instance) override {
        try {
            requests_[instance].wait();
        } catch (const ov::Exception &error) {
            fail(error);
        }
        const ov::Tensor output = requests_[instance].get_output_tensor();
        const ov::Shape &rows = output.get_shape();
        if (rows.size() != 2 || rows[0] != input.batch)
            throw Error(cat(path_, ": gives ", rows.to_string(), " for ", input.batch, " images, expected a row each; export it "
                            "again with its batch axis kept"));
        const auto *const values = reinterpret_cast<const char *>(output.data<float>());
        return {std::string(values, output.get_byte_size()), rows[1], false, spans_[instance]};
    }

    void stop() noexcept override {
        for (ov::InferRequest &request : requests_) try {
                request.wait();
            } catch (const std::exception &) {
            }
    }

  private:
    [[noreturn]] void fail(const ov::Exception &error) const {
        throw Error(cat(path_, ": OpenVINO cannot run it (", last_line(error.what()), "); export it again"));
    }

    void check_model() {
        // What it says of itself (ResNeSt/models/model_info.py); convert.sh has checked whatever has it.
        if (!model_->has_rt_info(std::vector<std::string>{"resnest"}))
            throw Error(path_ + ": is not from convert.sh, which checks what a network is; compile it with that, or run "
                                "python -m ResNeSt.infer, which checks it itself");
        for (const std::string key : {"recipe", "mean", "std", "precision"}) {
            const std::vector<std::string> place{"resnest", key};
            if (model_->has_rt_info(place)) info[key] = model_->get_rt_info<std::string>(place);
        }
        const auto &in = model_->inputs(), &out = model_->outputs();
        if (in.size() == 1 && in[0].get_partial_shape().rank().is_static()) {
            std::vector<size_t> sides;
            for (const ov::Dimension &side : in[0].get_partial_shape())
                sides.push_back(side.is_static() ? size_t(side.get_length()) : 0);
            if (!sides.empty()) sides.erase(sides.begin());  // of the batch
            const auto type = in[0].get_element_type();
            input = input_of(type == ov::element::f32 ? "float32" : type == ov::element::u8 ? "uint8" : "", sides);
        }
        const bool answers = out.size() == 1 && out[0].get_element_type() == ov::element::f32 &&
                             out[0].get_partial_shape().compatible(ov::PartialShape::dynamic(2));
        if (input.kind.empty() || !answers)
            throw Error(path_ + ": is no network of this project (one input of images, float32 [N, 3, side, side] or uint8 "
                                "NHWC or NV12, and one output, float32 [N, classes]); export and compile it again");
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
    std::vector<Span> spans_;
    std::vector<ov::InferRequest> requests_;
};

}  // namespace

std::unique_ptr<Engine> open_openvino(const std::string &path, size_t batch, size_t instances) {
    try {
        return std::make_unique<OpenVINO>(path, batch, instances);
    } catch (const ov::Exception &error) {
        throw Error(cat(path, ": OpenVINO cannot compile it (", last_line(error.what()), "); make it again with convert.sh"));
    }
}
