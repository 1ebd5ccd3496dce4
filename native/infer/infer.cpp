// Stage 4: a tensor folder through the model, with the files, names and lines of ResNeSt/infer/inference.py.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <numeric>
#include <random>
#include <unistd.h>

#include "commands.h"
#include "files.h"
#include "flow.h"
#include "tensors.h"

namespace {

constexpr size_t READERS = 2;

void say(const std::string &line) { print_line("[INFO] " + line); }

// ais_bench's figures of a list of milliseconds.
struct Figures {
    explicit Figures(std::vector<double> times) : count(times.size()) {
        std::sort(times.begin(), times.end());
        const auto at = [&times](double share) {
            const double place = share * double(times.size() - 1);
            const double below = times[size_t(place)], above = times[size_t(std::ceil(place))];
            return below + (above - below) * (place - std::floor(place));
        };
        mean = std::accumulate(times.begin(), times.end(), 0.0) / double(count);
        named = {{"min", at(0)}, {"max", at(1)}, {"mean", mean}, {"median", at(0.5)}, {"percentile(99%)", at(0.99)}};
    }
    std::string line(const std::string &name) const {
        std::string text;
        for (const auto &[key, value] : named) text += cat(text.empty() ? "" : ", ", key, " = ", repr(value));
        return name + " (ms): " + text;
    }
    std::string json() const {
        std::string text = "{";
        for (const auto &[key, value] : named) text += cat("\n  ", json_text(key), ": ", repr(value), ",");
        return cat(text, "\n  \"count\": ", count, "\n }");
    }

    size_t count;
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

// A list as json.dumps(indent=1) has it, one deep.
std::string list_json(const std::vector<std::string> &values) {
    std::string text;
    for (const std::string &value : values) text += (text.empty() ? "[\n  " : ",\n  ") + value;
    return text + "\n ]";
}

class Run {
  public:
    Run(const Options &options, Engine &engine) : options_(options), engine_(engine), input_(engine.input) {
        if (!options.output.empty()) open_folder();
        if (!options.input.empty()) check_files();
    }

    void go() {
        const bool pure = options_.input.empty();
        const std::string nothing(input_.batch * input_.bytes(), '\0');
        for (size_t instance = 0; instance < engine_.instances; ++instance)
            for (size_t time = 0; time < options_.warmup; ++time) engine_.run(instance, nothing.data());
        say(cat("warm up ", options_.warmup, " done"));
        Flow flow{pure ? input_.batch : files_.size(), READERS, options_.loop, {}, {}};
        flow.load = [=](size_t image, char *out) { return pure ? fill(image, out) : load(files_[image], out); };
        flow.take = [=](const Batch &batch) {
            spans_.insert(spans_.end(), batch.spans.begin(), batch.spans.end());
            to_device_.push_back(batch.answers.to_device_ms), to_host_.push_back(batch.answers.to_host_ms);
            if (pure) return keep("pure_infer_data", batch.answers, 0, input_.batch);
            for (size_t place = 0; place < batch.images; ++place) keep(files_[batch.first + place], batch.answers, place, 1);
        };
        flow.through(engine_);
    }

    // Prints the figures, and writes them once everything else is done.
    void tell() const {
        std::vector<double> times;
        std::vector<std::string> listed, arguments;
        for (const Span &span : spans_) times.push_back(1000 * (span.ended - span.begun)), listed.push_back(repr(times.back()));
        for (const std::string &argument : options_.arguments) arguments.push_back(json_text(argument));
        const Figures compute(times), to_device(to_device_), to_host(to_host_);
        const size_t shown = options_.shown_batch ? options_.shown_batch : input_.batch, instances = engine_.instances;
        const std::string throughput =
            repr(instances > 1 ? double(shown) * busy_rate(spans_, instances) : 1000 * double(shown) / compute.mean);
        say("-----------------Performance Summary------------------");
        if (options_.all_times) say(to_device.line("H2D_latency"));
        say(compute.line("NPU_compute_time"));
        if (options_.all_times) say(to_host.line("D2H_latency"));
        say(instances > 1 ? cat("throughput of ", instances, " instances, by the clock: ", throughput)
                          : cat("throughput 1000*batchsize.mean(", shown, ")/NPU_compute_time.mean(", repr(compute.mean),
                                "): ", throughput));
        say("------------------------------------------------------");
        if (folder_.empty()) return;
        write_whole(folder_ + "_summary.json",
                    cat("{\n \"filesinfo\": {", filesinfo_, "\n },\n \"args\": ", list_json(arguments),
                        ",\n \"NPU_compute_time\": ", compute.json(), ",\n \"H2D_latency\": ", to_device.json(),
                        ",\n \"D2H_latency\": ", to_host.json(), ",\n \"npu_compute_time_list\": ", list_json(listed),
                        ",\n \"throughput\": ", throughput, instances > 1 ? cat(",\n \"instances\": ", instances) : "",
                        ",\n \"pid\": ", ::getpid(), "\n}\n"));
    }

  private:
    void open_folder() {
        namespace fs = std::filesystem;
        char now[32];
        const std::time_t seconds = std::time(nullptr);
        std::strftime(now, sizeof now, "%Y_%m_%d-%H_%M_%S", std::localtime(&seconds));
        folder_ = joined(options_.output, options_.dirname.empty() ? now : options_.dirname);
        std::error_code error;
        if (fs::create_directories(folder_, error)) fs::permissions(folder_, fs::perms(027), fs::perm_options::remove, error);
        if (error) throw Error(folder_ + ": " + error.message());
        say("output path:" + folder_);
        hold_folder(folder_);
        remove_earlier();
    }

    // A folder of results is of one run: what the summary of an earlier one lists goes, and that summary itself.
    void remove_earlier() const {
        const std::string summary = folder_ + "_summary.json";
        std::vector<std::string> earlier{summary};
        try {
            for (const auto &[place, text] : read_json(summary)) {
                const std::string name = base_name(text), kind = suffix(name), end = "_0" + kind;
                const bool ours = name.size() > end.size() && name.substr(name.size() - end.size()) == end;
                const bool listed = place.find("/filesinfo/") == 0 && place.find("/outfiles/") != std::string::npos;
                if (listed && ours && (kind == ".bin" || kind == ".npy" || kind == ".txt")) earlier.push_back(joined(folder_, name));
            }
        } catch (const Error &) {  // it is damaged
        }
        for (const std::string &path : earlier) check_plain(path), std::remove(path.c_str());
    }

    void check_files() {
        files_ = tensor_files(options_.input);
        const std::string recipe = check_tensors(options_.input, engine_, files_.size());
        const auto own = engine_.info.find("recipe");
        if (!recipe.empty() && own != engine_.info.end() && own->second != recipe)
            say(cat("note: ", options_.input, ": prepared by ", recipe, ", the model's own recipe is ", own->second));
        const size_t first = read_tensor(files_[0], input_).size();
        if (first != input_.bytes())
            throw Error(cat(files_[0], ": ", first, " bytes, an image takes ", input_.bytes(), " (", input_.told(),
                            "); a tensor file holds one image, make it with resnest_preprocess.py"));
        say(cat("get filesperbatch files0 size:", first, " tensor0size:", input_.batch * first, " filesperbatch:", input_.batch,
                " runcount:", (files_.size() + input_.batch - 1) / input_.batch));
    }

    bool fill(size_t image, char *out) const {
        std::mt19937 random{uint32_t(image)};
        std::uniform_real_distribution<float> share;
        const bool floats = input_.kind == "float32", zero = options_.pure == "zero";
        for (size_t at = 0; at < input_.bytes(); at += floats ? sizeof(float) : 1) {
            const float value = zero ? 0 : share(random);
            if (floats)
                std::memcpy(out + at, &value, sizeof value);
            else
                out[at] = char(uint8_t(255 * value));
        }
        return true;
    }

    bool load(const std::string &path, char *out) const {
        const std::string content = read_tensor(path, input_);
        if (content.size() != input_.bytes())
            throw Error(cat(path, ": ", content.size(), " bytes, the first file has ", input_.bytes(), "; make the tensor again"));
        std::memcpy(out, content.data(), content.size());
        return true;
    }

    // Writes the answers to `images` from `first` on.
    void keep(const std::string &name, const Answers &answers, size_t first, size_t images) {
        if (folder_.empty()) return;
        std::string content = answers.values.substr(first * answers.row_bytes(), images * answers.row_bytes());
        if (options_.outfmt == "NPY") {
            content = as_npy(content, answers.half ? "<f2" : "<f4",
                             options_.input.empty() ? cat("(", images, ", ", answers.classes, ")") : cat("(", answers.classes, ",)"));
        } else if (options_.outfmt == "TXT") {
            content.clear();
            for (size_t image = first; image < first + images; ++image) content += as_text(answers.row(image));
        }
        const std::string path = joined(folder_, cat(stem(name), "_0.", lower(options_.outfmt)));
        write_whole(path, content);
        filesinfo_ += cat(results_ ? ",\n  \"" : "\n  \"", results_, "\": {\n   \"infiles\": [\n    ", json_text(name),
                          "\n   ],\n   \"outfiles\": [\n    ", json_text(path), "\n   ]\n  }");
        ++results_;
    }

    const Options &options_;
    Engine &engine_;
    const Input input_;
    std::string folder_, filesinfo_;  // the latter is of the summary
    size_t results_ = 0;
    std::vector<std::string> files_;
    std::vector<Span> spans_;
    std::vector<double> to_device_, to_host_;
};

}  // namespace

int infer(const Options &options) {
    if (options.dirname.compare(0, 1, "/") == 0)
        throw Error(cat("--output_dirname ", options.dirname, ": is a name below --output, not an absolute path"), ARGUMENTS);
    if (!options.input.empty() && !options.output.empty() && lies_in(joined(options.output, options.dirname), options.input))
        throw Error(cat(options.output, ": is ", options.input, " or lies in it, which is read; name another folder"), ARGUMENTS);
    const std::unique_ptr<Engine> engine = open_engine(options.model, std::max<size_t>(options.batch, 1), options.device, options.instances);
    const bool one = engine->sizes.size() == 1;
    if (one ? options.batch != 0 : !engine->takes(options.batch))
        throw Error(cat(options.model, ": takes a batch of ", engine->told_sizes(),
                        one ? ", no other; leave --dymBatch out" : "; choose one with --dymBatch N"),
                    ARGUMENTS);
    for (const std::string &line : {engine->title + " init", cat("open device ", options.device), "load model " + options.model,
                                    std::string("create model description")})
        say(line + " success");
    Run run(options, *engine);
    run.go();
    run.tell();
    engine->close();
    say("end to finalize " + engine->title);
    return 0;
}
