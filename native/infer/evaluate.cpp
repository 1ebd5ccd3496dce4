// A folder of photographs -> top-1 and top-5, with the answers of ResNeSt/evaluate.py and its predictions, line by line.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <numeric>
#include <unistd.h>

#include "../crops.h"
#include "commands.h"
#include "files.h"
#include "flow.h"
#include "pictures.h"
#include "tensors.h"

namespace {

constexpr size_t FREE_BATCH = 16, TOP = 5, MOST_BYTES = 64 << 20, SHOWN = 5;
const std::map<std::string, int> RECIPES{{"ecentercrop-bicubic", CROPS_ECENTERCROP_BICUBIC},
                                         {"resize-bicubic", CROPS_RESIZE_BICUBIC},
                                         {"resize-bilinear", CROPS_RESIZE_BILINEAR},
                                         {"squash-bilinear", CROPS_SQUASH_BILINEAR}};
const std::vector<std::pair<std::string, std::string>> KINDS{
    {"missing", "labelled images without a file"},
    {"extra", "images without a label"},
    {"broken", "images that cannot be decoded"},
    {"not-finite", "images whose logits have NaN or infinity in them"}};

// What images are turned into: by what the model says of itself.
class Maker {
  public:
    Maker(const std::string &path, Engine &engine) {
        const Input &input = engine.input;
        const std::string recipe = engine.info["recipe"];
        if (!RECIPES.count(recipe) || input.kind == "yuv420sp")
            throw Error(cat(path, ": takes ", input.kind, " by the recipe '", recipe, "', expected float32 or uint8 by a recipe that "
                            "it names; python -m ResNeSt.evaluate takes more (a recipe by --arch)"));
        told = cat(recipe, " ", input.side, ", ", input.kind, input.kind == "float32" ? " NCHW" : " NHWC");
        order_.recipe = RECIPES.at(recipe), order_.size = int(input.side), order_.looked = 1;
        order_.tall_first = 1;  // as Pillow 13 does
        if (input.kind == "float32") fill_table(path, engine.info["mean"], engine.info["std"]);
    }
    Maker(const Maker &) = delete;

    // Whether it made the tensor of an image at `out`.
    bool make(const std::string &path, char *out) const {
        std::error_code error;
        if (std::filesystem::file_size(path, error) > MOST_BYTES || error) return false;
        std::string content;
        try {
            content = read_file(path);
        } catch (const Error &) {  // one that may not be read, or that is gone, stops no others
            return false;
        }
        return crops_make(&order_, reinterpret_cast<const uint8_t *>(content.data()), content.size(), out) == CROPS_DONE;
    }

    std::string told;

  private:
    void fill_table(const std::string &path, const std::string &mean, const std::string &std) {
        try {
            const std::vector<double> means = three(parse_json(mean), ""), stds = three(parse_json(std), "");
            // In float32 and in this order, as normalisation_table in recipes.py.
            for (size_t channel = 0; channel < 3; ++channel)
                for (int level = 0; level < 256; ++level)
                    table_.push_back((float(level) / 255.0f - float(means[channel])) / float(stds[channel]));
        } catch (const std::logic_error &) {
            throw Error(cat(path, ": says mean '", mean, "' and std '", std, "', expected three numbers each; export it again"));
        }
        order_.table = table_.data();
    }

    crops_order order_{};
    std::vector<float> table_;
};

std::vector<size_t> best_of(const std::vector<float> &row) {
    std::vector<size_t> order(row.size());
    std::iota(order.begin(), order.end(), 0);
    const size_t count = std::min(TOP, order.size());
    std::partial_sort(order.begin(), order.begin() + std::ptrdiff_t(count), order.end(), [&row](size_t a, size_t b) {
        return row[a] > row[b] || (row[a] == row[b] && a < b);
    });
    order.resize(count);
    return order;
}

class Evaluation {
  public:
    explicit Evaluation(const Options &options) : options_(options) {
        const std::string &file = options.predictions;
        if (!file.empty()) check_plain(file);
        const std::string folder = joined(std::filesystem::path(file).parent_path(), ".");
        if (!file.empty() && ::access(folder.c_str(), W_OK) != 0)
            throw Error(cat(file, ": ", std::strerror(errno), "; name a file in a folder that can be written"));
        for (const std::string &read : {options.model, options.labels, options.images})
            if (!file.empty() && lies_in(file, read))
                throw Error(cat(file, ": is ", read, " or lies in it, which is read; name another file"), ARGUMENTS);
        truth_ = labels_in(read_file(options.labels), options.labels);
        join();
    }

    int go() {
        const std::string &model = options_.model;
        const size_t batch = options_.batch ? options_.batch : FREE_BATCH;
        const std::unique_ptr<Engine> engine = open_engine(model, batch, options_.device, options_.instances);
        if (options_.batch && !engine->takes(batch))
            throw Error(cat(model, ": takes a batch of ", engine->told_sizes(), "; leave --batch ", batch, " out"), ARGUMENTS);
        const Maker maker(model, *engine);
        const std::string nothing(engine->input.batch * engine->input.bytes(), '\0');
        check_labels(engine->run(0, nothing.data()).classes);
        const std::string instances = engine->instances > 1 ? cat(", ", engine->instances, " instances") : "";
        const std::string setting = cat(engine->title, ", batch ", engine->input.batch, instances, ", ", maker.told,
                                        ", decoded by native (", crops_library(), ", ", crops_instructions(), ")");
        print_line(cat(model, ": ", setting, "; ", images_.size(), " images"));
        // The head by which ResNeSt_postprocess.py knows predictions; no run of evaluate goes on with what has it.
        predictions_ = cat("{\"model\":", json_text(base_name(model)), ",\"setting\":", json_text(setting),
                           ",\"images\":", images_.size(), ",\"pictures\":null}\n");
        Flow flow{images_.size(), options_.workers ? options_.workers : cores(), 1, {}, {}};
        flow.load = [&](size_t image, char *out) { return maker.make(joined(options_.images, images_[image]), out); };
        flow.take = [this](const Batch &done) {
            for (size_t place = 0; place < done.images; ++place)
                take(done.first + place, done.made[place], done.answers.row(place));
        };
        const double started = now();
        flow.through(*engine);
        const double seconds = now() - started;
        char text[128];
        std::snprintf(text, sizeof text, "%zu images in %.1f s, %.1f img/s", images_.size(), seconds, double(images_.size()) / seconds);
        print_line(text);
        if (!options_.predictions.empty()) write_whole(options_.predictions, predictions_);
        engine->close();
        return tell();
    }

  private:
    void join() {
        const std::vector<std::string> found = list_images(options_.images), keys = keys_of(found, options_.images, truth_);
        std::map<std::string, int> left = truth_;
        for (size_t number = 0; number < found.size(); ++number) {
            const auto label = truth_.find(keys[number]);
            if (label == truth_.end()) {
                problems_["extra"].push_back(joined(options_.images, found[number]));
            } else {
                images_.push_back(found[number]), labels_.push_back(size_t(label->second));
                left.erase(keys[number]);
            }
        }
        for (const auto &[key, label] : left) problems_["missing"].push_back(key);
        for (const auto &[kind, words] : KINDS) {
            const std::vector<std::string> &cases = problems_[kind];
            if (!cases.empty() && (images_.empty() || !options_.allowed.count(kind)))
                throw Error(cat(options_.images, ": ", cases.size(), " ", words, " (labels: ", options_.labels, "), such as ", cases[0],
                                "; complete them, or leave these out with --allow-", kind));
        }
    }

    void check_labels(size_t classes) const {
        for (const auto &[name, label] : truth_)
            if (size_t(label) >= classes)
                throw Error(cat(options_.labels, ": ", name, " has class ", label, ", the outputs have ", classes,
                                " values, so classes 0 to ", classes - 1, "; take this model's labels"));
    }

    void take(size_t number, bool made, const std::vector<float> &row) {
        std::string problem, reason = joined(options_.images, images_[number]), classes;
        const auto wrong = std::count_if(row.begin(), row.end(), [](float value) { return !std::isfinite(value); });
        if (!made) {
            problem = "broken";
            reason += ": not a JPEG that is decoded here (another format, damaged, or not to be read); python -m "
                      "ResNeSt.evaluate leaves such a file to Pillow";
        } else if (wrong) {
            problem = "not-finite";
            reason += cat(": ", wrong, " values");
        } else {
            reason.clear();
            const std::vector<size_t> best = best_of(row);
            ++total_;
            top1_ += best[0] == labels_[number];
            top5_ += std::find(best.begin(), best.end(), labels_[number]) != best.end();
            for (const size_t each : best) classes += cat(classes.empty() ? "" : ",", each);
        }
        if (!problem.empty()) problems_[problem].push_back(reason);
        predictions_ += cat("{\"image\":", json_text(images_[number]), ",\"classes\":[", classes, "],\"problem\":", json_text(problem),
                            ",\"reason\":", json_text(reason), "}\n");
    }

    // The lines of evaluate; 1 where an image has a problem that was not allowed.
    int tell() {
        char text[256];
        const double all = total_ ? double(total_) : NAN, one = double(top1_) / all, five = double(top5_) / all;
        std::snprintf(text, sizeof text,
                      "top1_acc\t%.4f\ntop5_acc\t%.4f\ntop1_correct=%zu, tot=%zu, acc=%.3f%%\ntop5_correct=%zu, tot=%zu, "
                      "acc=%.3f%%\ntot counts the labelled images whose result was read: %zu of %zu",
                      one, five, top1_, total_, 100 * one, top5_, total_, 100 * five, total_, truth_.size());
        print_line(text);
        int code = 0;
        for (const auto &[kind, words] : KINDS) {
            const std::vector<std::string> &cases = problems_[kind];
            if (cases.empty()) continue;
            const bool allowed = options_.allowed.count(kind);
            code |= !allowed;
            print_line(cat(kind, ": ", cases.size(), " ", words, allowed ? " (accepted by " : " (exit code 1; ", "--allow-", kind,
                           allowed ? ")" : " accepts them)"));
            for (size_t number = 0; number < std::min(SHOWN, cases.size()); ++number) print_line("  " + cases[number]);
            if (cases.size() > SHOWN) print_line(cat("  and ", cases.size() - SHOWN, " more"));
        }
        return code;
    }

    const Options &options_;
    std::map<std::string, int> truth_;
    std::vector<std::string> images_;  // paths in the folder of those with a label
    std::vector<size_t> labels_;
    std::map<std::string, std::vector<std::string>> problems_;
    std::string predictions_;
    size_t top1_ = 0, top5_ = 0, total_ = 0;
};

}  // namespace

int evaluate(const Options &options) { return Evaluation(options).go(); }
