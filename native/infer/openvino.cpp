// OpenVINO on the CPU: a compiled .xml in the precision that it asks for, as ResNeSt/engines/openvino.py opens it.
#include <algorithm>
#include <mutex>
#include <numeric>
#include <set>

#include <openvino/openvino.hpp>

#include "engine.h"
#include "files.h"
#include "flow.h"

namespace {

// What convert.sh writes into a model (ResNeSt/models/model_info.py).
constexpr const char *KEYS[] = {"model", "size", "recipe", "mean", "std", "classes", "weights", "architecture", "precision"};
// These change the form of what they are given, and these choose among it.
const std::set<std::string> PASSING{"Reshape", "Squeeze", "Unsqueeze", "Transpose", "Convert", "FakeQuantize"};
const std::set<std::string> CHOOSING{"TopK", "OneHot", "NonMaxSuppression"};

std::string last_line(const std::string &text) {
    const size_t end = text.find_last_not_of(" \n\t");
    if (end == std::string::npos) return "nothing said";
    const std::string whole = text.substr(0, end + 1);
    return whole.substr(whole.rfind('\n') + 1);
}

std::string element_name(const ov::element::Type &type) {
    if (type == ov::element::f32) return "float32";
    if (type == ov::element::u8) return "uint8";
    return type.get_type_name();
}

std::string told(const std::vector<ov::Output<ov::Node>> &ports) {
    std::string text = "[";
    for (const ov::Output<ov::Node> &port : ports)
        text += (text.size() > 1 ? ", " : "") + port.get_any_name() + " " + element_name(port.get_element_type()) + " " +
                port.get_partial_shape().to_string();
    return text + "]";
}

class OpenVINO : public Engine {
  public:
    OpenVINO(const std::string &path, const Opening &asked) : path_(path) {
        const std::string build = ov::get_openvino_version().buildNumber;
        title = "OpenVINO " + build.substr(0, build.find('-'));
        model_ = core_.read_model(path);
        check_classifier();
        for (const char *key : KEYS)
            if (model_->has_rt_info(std::vector<std::string>{"resnest", key}))
                info[key] = model_->get_rt_info<std::string>(std::vector<std::string>{"resnest", key});
        const ov::Dimension set = model_->input().get_partial_shape()[0];
        free_ = set.is_dynamic();
        if (free_) {
            sizes.resize(LARGEST_BATCH);
            std::iota(sizes.begin(), sizes.end(), 1);
        } else {
            sizes = {size_t(set.get_length())};
        }
        input.batch = fitting(asked.batch);
        const std::shared_ptr<ov::Model> of_size = free_ ? model_->clone() : model_;
        if (free_) of_size->reshape(shape(input.batch));

        const size_t busy = asked.busy(input.batch);
        const size_t wanted = asked.instances != AUTO ? asked.instances : busy == 1 ? 1 : AUTO;
        compiled_ = compile(of_size, wanted);
        const size_t best = compiled_.get_property(ov::optimal_number_of_infer_requests);
        if (wanted == AUTO && busy < best) compiled_ = compile(of_size, busy);
        instances = wanted != AUTO ? wanted : std::min(best, busy);
        for (size_t instance = 0; instance < instances; ++instance) requests_.push_back(compiled_.create_infer_request());
        free_requests_.resize(instances);
    }

    Answers run(size_t instance, const void *data, size_t images, size_t times) override {
        try {
            ov::InferRequest &request = request_for(instance, images);
            ov::Shape of(1, images);
            for (const size_t side : input.shape()) of.push_back(side);
            const auto element = input.element == "float32" ? ov::element::f32 : ov::element::u8;
            request.set_input_tensor(ov::Tensor(element, of, const_cast<void *>(data)));
            Answers answers;
            for (; times > 0; --times) {
                check_interrupted();
                const double begun = now();
                request.start_async();
                request.wait();
                answers.runs.push_back({begun, now()});
            }
            take(request.get_output_tensor(), images, answers);
            return answers;
        } catch (const ov::Exception &error) {
            throw Error(path_ + ": OpenVINO cannot run it for " + std::to_string(images) + " images (" +
                        last_line(error.what()) + "); export it again");
        }
    }

  private:
    void check_classifier() {
        if (model_->inputs().size() == 1 && model_->input().get_partial_shape().rank().is_static()) {
            const ov::PartialShape sides = model_->input().get_partial_shape();
            std::vector<long long> of_image;
            for (size_t axis = 1; axis < sides.size(); ++axis)
                of_image.push_back(sides[axis].is_static() ? sides[axis].get_length() : 0);
            input = input_of(model_->input().get_any_name(), element_name(model_->input().get_element_type()), of_image);
        }
        if (input.kind.empty())
            throw Error(path_ + ": inputs are " + told(model_->inputs()) +
                        ", expected one of float32 [N, 3, height, width] or uint8 NHWC or NV12; export it again");
        if (model_->outputs().size() != 1)
            throw Error(path_ + ": outputs are " + told(model_->outputs()) + ", expected one of [N, classes]; keep that one");
        const ov::PartialShape answers = model_->output().get_partial_shape();
        const bool flat = answers.rank().is_dynamic() || (answers.size() == 2 && answers[1] != ov::Dimension(1));
        if (!model_->output().get_element_type().is_real() || !flat || CHOOSING.count(last_operator()))
            throw Error(path_ + ": its output is " + told(model_->outputs()) + " of " + last_operator() +
                        ", expected float [N, classes]; export it without the ArgMax or TopK at its end, with a Flatten");
    }

    std::string last_operator() const {
        std::shared_ptr<ov::Node> node = model_->get_results()[0]->get_input_node_shared_ptr(0);
        while (PASSING.count(node->get_type_name()) && node->get_input_size()) node = node->get_input_node_shared_ptr(0);
        return node->get_type_name();
    }

    ov::PartialShape shape(size_t images) const {
        ov::PartialShape of = model_->input().get_partial_shape();
        of[0] = ov::Dimension(int64_t(images));
        return of;
    }

    ov::CompiledModel compile(const std::shared_ptr<ov::Model> &model, size_t wanted) {
        const auto mode = wanted == 1 ? ov::hint::PerformanceMode::LATENCY : ov::hint::PerformanceMode::THROUGHPUT;
        const std::string precision = info.count("precision") ? info["precision"] : "fp32";
        if (precision != "fp32" && precision != "bf16" && precision != "int8")
            throw Error(path_ + ": OpenVINO cannot compile it (its precision is '" + precision +
                        "', expected one of fp32, bf16, int8); make it again with convert.sh");
        const auto element = precision == "fp32" ? ov::element::f32 : ov::element::bf16;
        ov::AnyMap settings{ov::hint::performance_mode(mode), ov::hint::inference_precision(element)};
        if (wanted != AUTO) settings.insert(ov::num_streams(ov::streams::Num(int32_t(wanted))));
        if (!has_all_cores()) settings.insert(ov::inference_num_threads(int32_t(cores())));
        return core_.compile_model(model, "CPU", settings);
    }

    // One of any other size than the model was compiled for, such as a short last batch, has a model of its own.
    ov::InferRequest &request_for(size_t instance, size_t images) {
        if (images == input.batch || !free_) return requests_[instance];
        std::lock_guard<std::mutex> alone(compiling_);
        if (!compiled_free_) compiled_free_ = compile(model_, instances);
        if (!free_requests_[instance]) free_requests_[instance] = compiled_free_.create_infer_request();
        return free_requests_[instance];
    }

    void take(const ov::Tensor &output, size_t images, Answers &answers) const {
        const ov::Shape &of = output.get_shape();
        if (of.size() != 2 || of[0] != images)
            throw Error(path_ + ": gives " + ov::PartialShape(of).to_string() + " for " + std::to_string(images) +
                        " images, expected [" + std::to_string(images) + ", classes]; export it again with its batch axis "
                        "kept (a Reshape in it may set it) and a Flatten at the end");
        answers.classes = of[1];
        std::vector<float> values(output.get_size());
        const ov::element::Type type = output.get_element_type();
        if (type == ov::element::f32)
            std::copy_n(output.data<float>(), values.size(), values.begin());
        else if (type == ov::element::f16)
            std::copy_n(output.data<ov::float16>(), values.size(), values.begin());
        else if (type == ov::element::bf16)
            std::copy_n(output.data<ov::bfloat16>(), values.size(), values.begin());
        else
            std::transform(output.data<double>(), output.data<double>() + values.size(), values.begin(),
                           [](double value) { return float(value); });
        answers.values.assign(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(float));
    }

    const std::string path_;
    ov::Core core_;
    std::shared_ptr<ov::Model> model_;
    bool free_ = false;
    ov::CompiledModel compiled_, compiled_free_;
    std::vector<ov::InferRequest> requests_, free_requests_;
    std::mutex compiling_;
};

}  // namespace

std::unique_ptr<Engine> open_openvino(const std::string &path, const Opening &asked) {
    try {
        return std::make_unique<OpenVINO>(path, asked);
    } catch (const ov::Exception &error) {
        throw Error(path + ": OpenVINO cannot compile it (" + last_line(error.what()) + "); make it again with convert.sh");
    }
}
