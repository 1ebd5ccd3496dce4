// Stage 4: a tensor folder through the model, with the files, names and lines of ResNeSt/infer/inference.py.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>
#include <numeric>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"
#include "files.h"
#include "flow.h"
#include "tensors.h"

namespace {

constexpr size_t READERS = 2;

void say(const std::string &line) { print_line("[INFO] " + line); }

std::string summary_path(const std::string &folder) { return folder + "_summary.json"; }

__extension__ using Wide = unsigned __int128;
constexpr Wide wide(uint64_t high, uint64_t low) { return Wide(high) << 64 | low; }

// NumPy's PCG64 of default_rng(0), whose random numbers are the data of `--pure_data_type random`.
class Random {
  public:
    double next() {
        state_ = state_ * wide(0x2360ED051FC65DA4, 0x4385DF649FCCF645) + wide(0x418DDADB3AF71A82, 0x588133BC447873A9);
        const auto folded = uint64_t(state_ >> 64) ^ uint64_t(state_);
        const int turn = int(state_ >> 122);
        return double((folded >> turn | folded << (-turn & 63)) >> 11) * 0x1p-53;
    }

  private:
    Wide state_ = wide(0x1AA1B5345996452D, 0x09585EB7A69561E3);
};

struct Figures {
    explicit Figures(std::vector<double> times) : times(std::move(times)) {
        std::vector<double> sorted = this->times;
        std::sort(sorted.begin(), sorted.end());
        const auto at = [&sorted](double place) {
            const auto below = size_t(place);
            const double a = sorted[below], b = sorted[std::min(below + 1, sorted.size() - 1)], part = place - double(below);
            return part < 0.5 ? a + (b - a) * part : b - (b - a) * (1 - part);
        };
        const auto last = double(sorted.size() - 1);
        mean = std::accumulate(sorted.begin(), sorted.end(), 0.0) / double(sorted.size());
        named = {{"min", sorted.front()}, {"max", sorted.back()}, {"mean", mean},
                 {"median", at(last / 2)}, {"percentile(99%)", at(last * 0.99)}};
    }
    std::string line(const std::string &name) const {
        std::string text;
        for (const auto &[key, value] : named) text += (text.empty() ? "" : ", ") + std::string(key) + " = " + repr(value);
        return name + " (ms): " + text;
    }
    std::string json() const {
        std::string text = "{";
        for (const auto &[key, value] : named) text += "\n  " + json_text(key) + ": " + repr(value) + ",";
        return text + "\n  \"count\": " + std::to_string(times.size()) + "\n }";
    }

    std::vector<double> times;
    double mean;
    std::vector<std::pair<const char *, double>> named;
};

// Runs a second while all instances were at work (busy_rate in inference.py).
double busy_rate(const std::vector<Span> &spans, size_t instances) {
    std::vector<double> starts, ends;
    for (const Span &span : spans) starts.push_back(span.begun), ends.push_back(span.ended);
    std::sort(starts.begin(), starts.end()), std::sort(ends.begin(), ends.end());
    const bool enough = spans.size() >= 2 * instances;
    const double begun = enough ? starts[instances - 1] : starts.front();
    const double ended = enough ? ends[ends.size() - instances] : ends.back();
    double runs = 0;
    for (const Span &span : spans)
        runs += (std::clamp(span.ended, begun, ended) - std::clamp(span.begun, begun, ended)) / (span.ended - span.begun);
    return runs / (ended - begun);
}

std::string as_text(const std::vector<float> &row) {
    std::string made;
    char text[64];
    for (const float value : row) {
        std::snprintf(text, sizeof text, "%f ", double(value));
        made += std::isnan(value) ? "nan " : text;
    }
    return made + "\n";
}

// A list of texts as json.dumps(indent=1) has it, `depth` deep.
std::string list_json(const std::vector<std::string> &values, size_t depth) {
    if (values.empty()) return "[]";
    const std::string end = "\n" + std::string(depth, ' ');
    std::string text;
    for (const std::string &value : values) text += (text.empty() ? "[" : ",") + end + " " + value;
    return text + end + "]";
}

class Run {
  public:
    Run(const Options &options, Engine &engine) : options_(options), engine_(engine), input_(engine.input) {
        if (options.has_output) {
            char now[32];
            const std::time_t seconds = std::time(nullptr);
            std::strftime(now, sizeof now, "%Y_%m_%d-%H_%M_%S", std::localtime(&seconds));
            const std::string dirname = options.dirname.empty() ? now : options.dirname;
            if (dirname[0] == '/')
                throw Error("--output_dirname " + dirname + ": is a name below --output, not an absolute path", ARGUMENTS);
            folder_ = joined(options.output, dirname);
            const bool there = is_folder(folder_);
            std::error_code error;
            std::filesystem::create_directories(folder_, error);
            if (error) throw Error(folder_ + ": " + error.message());
            struct stat status;
            if (!there && ::stat(folder_.c_str(), &status) == 0) ::chmod(folder_.c_str(), status.st_mode & 0750);
            say("output path:" + folder_);
            writer_ = std::make_unique<SoleWriter>(folder_);
            remove_earlier();
        }
    }

    void go() {
        if (options_.has_input)
            group_files();
        else
            fill_pure();
        Flow flow;
        flow.items = batches_;
        flow.loaders = std::min(READERS, batches_);
        flow.instances = engine_.instances;
        slots_.resize(flow.ahead());
        const std::string nothing(input_.batch * input_.image_bytes(), '\0');
        for (size_t instance = 0; instance < engine_.instances; ++instance)
            for (size_t time = 0; time < options_.warmup; ++time) engine_.run(instance, nothing.data(), input_.batch, 1);
        say("warm up " + std::to_string(options_.warmup) + " done");
        if (options_.has_input) flow.load = [this](size_t item, size_t) { load(item); };
        flow.run = [this](size_t instance, size_t item) {
            Slot &slot = slots_[item % slots_.size()];
            const std::string &data = options_.has_input ? slot.data : pure_;
            slot.answers = engine_.run(instance, data.data(), input_.batch, options_.has_input ? options_.loop : 1);
        };
        flow.take = [this](size_t item) { take(item); };
        flow.go();
    }

    // Prints the figures, and writes them once everything else is done.
    void tell() const {
        std::vector<double> times;
        for (const Span &span : spans_) times.push_back(1000 * (span.ended - span.begun));
        const Figures compute(times), to_device(to_device_), to_host(to_host_);
        const size_t shown = options_.shown_batch ? options_.shown_batch : input_.batch;
        const bool several = engine_.instances > 1;
        const double throughput = double(shown) * (several ? busy_rate(spans_, engine_.instances) : 1000 / compute.mean);
        const double told = several ? throughput : 1000 * double(shown) / compute.mean;
        say("-----------------Performance Summary------------------");
        if (options_.all_times) say(to_device.line("H2D_latency"));
        say(compute.line("NPU_compute_time"));
        if (options_.all_times) say(to_host.line("D2H_latency"));
        const std::string count = std::to_string(shown);
        say("throughput " +
            (several ? "of " + std::to_string(engine_.instances) + " instances, by the clock"
                     : "1000*batchsize.mean(" + count + ")/NPU_compute_time.mean(" + repr(compute.mean) + ")") +
            ": " + repr(told));
        say("------------------------------------------------------");
        if (folder_.empty()) return;
        std::vector<std::string> arguments, listed;
        for (const std::string &argument : options_.arguments) arguments.push_back(json_text(argument));
        for (const double time : times) listed.push_back(repr(time));
        std::string text = "{\n \"filesinfo\": {";
        for (size_t number = 0; number < results_.size(); ++number)
            text += (number ? ",\n  \"" : "\n  \"") + std::to_string(number) + "\": {\n   \"infiles\": " +
                    list_json({json_text(results_[number].first)}, 3) + ",\n   \"outfiles\": " +
                    list_json({json_text(results_[number].second)}, 3) + "\n  }";
        text += "\n },\n \"args\": " + list_json(arguments, 1) + ",\n \"NPU_compute_time\": " + compute.json() +
                ",\n \"H2D_latency\": " + to_device.json() + ",\n \"D2H_latency\": " + to_host.json() +
                ",\n \"npu_compute_time_list\": " + list_json(listed, 1) + ",\n \"throughput\": " + repr(told);
        if (several) text += ",\n \"instances\": " + std::to_string(engine_.instances);
        write_whole(summary_path(folder_), text + ",\n \"pid\": " + std::to_string(::getpid()) + "\n}\n");
    }

  private:
    struct Slot {
        std::string data;
        Answers answers;
    };

    // A folder of results is of one run: what the summary of an earlier one lists goes, and that summary itself.
    void remove_earlier() const {
        const std::string summary = summary_path(folder_);
        std::vector<std::string> names;
        try {
            const Json told = read_json(summary, true);
            if (const Json *entries = told.get("filesinfo"))
                for (const auto &[number, entry] : entries->members)
                    if (const Json *files = entry.get("outfiles"))
                        for (const Json &file : files->items) names.push_back(base_name(file.str()));
        } catch (const Error &) {
            names.clear();  // it is damaged
        }
        for (const std::string &name : names) {
            const std::string kind = suffix(name), rest = name.substr(0, name.size() - kind.size());
            const bool ours = rest.size() > 2 && rest.compare(rest.size() - 2, 2, "_0") == 0;
            if (ours && (kind == ".bin" || kind == ".npy" || kind == ".txt")) remove_plain(joined(folder_, name));
        }
        remove_plain(summary);
    }

    void group_files() {
        files_ = tensor_files(options_.input);
        const std::string recipe = check_tensors(options_.input, engine_, files_.size());
        const std::string note = engine_.info.count("recipe") ? recipe_note(engine_, recipe) : "";
        if (!note.empty()) say("note: " + options_.input + ": " + note);
        const size_t image = input_.image_bytes(), whole = input_.batch * image;
        first_ = read_tensor(files_[0], input_).size();
        if (first_ == 0 || whole % first_)
            throw Error("[ERROR] arg0 tensorsize: " + std::to_string(whole) + " filesize: " + std::to_string(first_) +
                        " not match (" + files_[0] + ")");
        if (first_ != image)
            throw Error(files_[0] + ": " + std::to_string(first_) + " bytes, an image takes " + std::to_string(image) + " (" +
                        input_.kind + " " + input_.told_shape() +
                        "); a tensor file holds one image, make it with resnest_preprocess.py");
        batches_ = (files_.size() + input_.batch - 1) / input_.batch;
        say("get filesperbatch files0 size:" + std::to_string(first_) + " tensor0size:" + std::to_string(whole) +
            " filesperbatch:" + std::to_string(input_.batch) + " runcount:" + std::to_string(batches_));
    }

    void fill_pure() {
        batches_ = options_.loop;
        pure_.assign(input_.batch * input_.image_bytes(), '\0');
        if (options_.pure != "random") return;
        Random random;
        if (input_.element == "uint8")
            for (char &value : pure_) value = char(uint8_t(random.next() * 255));
        else
            for (size_t at = 0; at < pure_.size(); at += sizeof(float)) {
                const auto value = float(random.next());
                std::memcpy(&pure_[at], &value, sizeof value);
            }
    }

    size_t in_batch(size_t item) const { return std::min(input_.batch, files_.size() - item * input_.batch); }

    void load(size_t item) {
        std::string &data = slots_[item % slots_.size()].data;
        data.clear();
        for (size_t image = 0; image < in_batch(item); ++image) {
            const std::string &path = files_[item * input_.batch + image], content = read_tensor(path, input_);
            if (content.size() != first_)
                throw Error(path + ": " + std::to_string(content.size()) + " bytes, the first file has " +
                            std::to_string(first_) + "; make the tensor again");
            data += content;
        }
        while (data.size() < input_.batch * first_) data.append(data, 0, first_);  // with the batch's first file
    }

    void take(size_t item) {
        const Answers &answers = slots_[item % slots_.size()].answers;
        spans_.insert(spans_.end(), answers.runs.begin(), answers.runs.end());
        if (!options_.has_input && item > 0) return;
        to_device_.push_back(answers.to_device_ms), to_host_.push_back(answers.to_host_ms);
        if (!options_.has_input) return keep("pure_infer_data", answers, 0, input_.batch);
        for (size_t image = 0; image < in_batch(item); ++image) keep(files_[item * input_.batch + image], answers, image, 1);
    }

    // Writes the answers to `images` from `first` on.
    void keep(const std::string &name, const Answers &answers, size_t first, size_t images) {
        if (folder_.empty()) return;
        std::string content = answers.values.substr(first * answers.row_bytes(), images * answers.row_bytes());
        if (options_.outfmt == "NPY") {
            const std::string classes = std::to_string(answers.classes);
            const std::string shape = options_.has_input ? "(" + classes + ",)" : "(" + std::to_string(images) + ", " + classes + ")";
            content = as_npy(content, answers.half ? "<f2" : "<f4", shape);
        } else if (options_.outfmt == "TXT") {
            content.clear();
            for (size_t image = first; image < first + images; ++image) content += as_text(answers.row(image));
        }
        const std::string path = joined(folder_, stem(name) + "_0." + lower(options_.outfmt));
        write_whole(path, content);
        results_.emplace_back(name, path);
    }

    const Options &options_;
    Engine &engine_;
    const Input input_;
    std::string folder_, pure_;
    std::unique_ptr<SoleWriter> writer_;
    std::vector<std::string> files_;
    size_t first_ = 0, batches_ = 0;
    std::vector<Slot> slots_;
    std::vector<Span> spans_;
    std::vector<double> to_device_, to_host_;
    std::vector<std::pair<std::string, std::string>> results_;
};

}  // namespace

int infer(const Options &options) {
    for (const std::string &folder : {options.output, joined(options.output, options.dirname)})
        if (options.has_input && options.has_output && lies_in(folder, options.input))
            throw Error(folder + ": is " + options.input + " or lies in it, which is read; name another folder", ARGUMENTS);
    Opening asked{options.batch ? options.batch : 1, options.device, options.instances, 0};
    if (options.instances == AUTO && options.has_input) asked.images = tensor_files(options.input).size();
    const std::unique_ptr<Engine> engine = open_engine(options.model, asked);
    check_named(options.model, *engine, options.batch);
    for (const std::string &line : {engine->title + " init", "open device " + std::to_string(options.device),
                                    "load model " + options.model, std::string("create model description")})
        say(line + " success");
    Run run(options, *engine);
    run.go();
    run.tell();
    engine->close();
    say("end to finalize " + engine->title);
    return 0;
}
