// A folder of photographs -> top-1 and top-5, with the answers and the predictions file of ResNeSt/evaluate.py.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <sys/stat.h>

#include "../crops.h"
#include "commands.h"
#include "files.h"
#include "flow.h"
#include "pictures.h"

namespace {

constexpr size_t FREE_BATCH = 16, TOP = 5, MOST_BYTES = 64 << 20, SHOWN = 5;
constexpr size_t FEWEST = 3, MANY = 3;  // as in label_numbers.py and file.py
constexpr int TALL_FIRST = 1;  // as Pillow 13 does
const std::map<std::string, int> RECIPES{{"ecentercrop-bicubic", CROPS_ECENTERCROP_BICUBIC},
                                         {"resize-bicubic", CROPS_RESIZE_BICUBIC},
                                         {"resize-bilinear", CROPS_RESIZE_BILINEAR},
                                         {"squash-bilinear", CROPS_SQUASH_BILINEAR}};
const std::vector<std::pair<const char *, const char *>> KINDS{
    {"missing", "labelled images without a file"},
    {"extra", "images without a label"},
    {"broken", "images that cannot be decoded"},
    {"not-finite", "images whose logits have NaN or infinity in them"}};

// What images are turned into: by what the model says of itself.
class Maker {
  public:
    Maker(const std::string &path, Engine &engine) : input_(engine.input) {
        std::string lacking;
        for (const char *key : {"recipe", "mean", "std"})
            if (!engine.info.count(key)) lacking += (lacking.empty() ? "" : ", ") + std::string(key);
        if (!lacking.empty())
            throw Error(path + ": does not say how its images are prepared (" + lacking +
                        " lacking); python -m ResNeSt.evaluate --arch takes it");
        recipe = engine.info["recipe"];
        if (!RECIPES.count(recipe))
            throw Error(path + ": says that its recipe is '" + recipe + "', which this program does not know; export it again");
        mean = moments(path, engine.info["mean"], 0), std = moments(path, engine.info["std"], 1);
        // In float32 and in this order, as normalisation_table in recipes.py.
        for (size_t channel = 0; channel < 3; ++channel)
            for (int level = 0; level < 256; ++level)
                table_.push_back((float(level) / 255.0f - float(mean[channel])) / float(std[channel]));
    }

    // Whether it made the tensor of an image at `out`.
    bool make(const std::string &path, char *out) const {
        struct stat status;
        if (::stat(path.c_str(), &status) != 0 || size_t(status.st_size) > MOST_BYTES) return false;
        const std::string content = read_file(path);
        std::string pixels(input_.kind == "yuv420sp" ? 3 * input_.side * input_.side : 0, '\0');
        crops_order order{RECIPES.at(recipe), int(input_.side), TALL_FIRST, 1, 0,
                          input_.kind == "float32" ? table_.data() : nullptr};
        char *const to = pixels.empty() ? out : pixels.data();
        const auto *const data = reinterpret_cast<const uint8_t *>(content.data());
        if (crops_make(&order, data, content.size(), to) != CROPS_DONE) return false;
        if (!pixels.empty()) to_nv12(reinterpret_cast<const uint8_t *>(pixels.data()), out);
        return true;
    }

    std::string told() const {
        const char *layout = input_.kind == "float32" ? "NCHW" : input_.kind == "uint8" ? "NHWC" : "NV12";
        return recipe + " " + std::to_string(input_.side) + ", " + input_.kind + " " + layout;
    }
    std::string json() const {
        return "{\"recipe\":" + json_text(recipe) + ",\"size\":" + std::to_string(input_.side) + ",\"dtype\":" +
               json_text(input_.kind) + ",\"mean\":" + list(mean) + ",\"std\":" + list(std) + ",\"exif\":false}";
    }

    std::string recipe;
    std::vector<double> mean, std;

  private:
    static std::vector<double> moments(const std::string &path, const std::string &text, double above) {
        std::vector<double> found;
        try {
            for (const Json &each : parse_json(text).items)
                if (each.kind == Json::number) found.push_back(each.value);
        } catch (const std::invalid_argument &) {
            found.clear();
        }
        const bool possible = std::all_of(found.begin(), found.end(), [above](double each) { return above == 0 || each > 0; });
        if (found.size() != 3 || !possible)
            throw Error(path + ": its metadata says '" + text.substr(0, 60) +
                        "' of mean or std, expected three numbers each, std above 0; export it again");
        return found;
    }
    static std::string list(const std::vector<double> &values) {
        return "[" + repr(values[0]) + "," + repr(values[1]) + "," + repr(values[2]) + "]";
    }

    // As ResNeSt/tensors/nv12.py; U and V are means of two by two pixels.
    void to_nv12(const uint8_t *pixels, char *out) const {
        static const float yuv[3][3] = {{0.299f, 0.587f, 0.114f},
                                        {-0.168735892f, -0.331264108f, 0.5f},
                                        {0.5f, -0.418687589f, -0.081312411f}};
        const size_t side = input_.side;
        const auto weighed = [](const float *of, const float *by) { return of[0] * by[0] + of[1] * by[1] + of[2] * by[2]; };
        for (size_t row = 0; row < side; ++row)
            for (size_t column = 0; column < side; ++column) {
                const uint8_t *const at = pixels + 3 * (row * side + column);
                const float rgb[3] = {float(at[0]), float(at[1]), float(at[2])};
                out[row * side + column] = char(uint8_t(std::nearbyint(weighed(rgb, yuv[0]))));
                if (row % 2 || column % 2) continue;
                float sums[3];
                for (size_t channel = 0; channel < 3; ++channel)
                    sums[channel] = float(at[channel] + at[channel + 3] + at[channel + 3 * side] + at[channel + 3 * side + 3]) / 4;
                for (size_t plane = 1; plane < 3; ++plane) {
                    const float value = std::min(weighed(sums, yuv[plane]) + 128, 255.0f);
                    out[side * side + row / 2 * side + column + plane - 1] = char(uint8_t(std::nearbyint(value)));
                }
            }
    }

    const Input input_;
    std::vector<float> table_;
};

// A path as Python's repr has it, with the quotes.
std::string python_repr(const std::string &text) {
    const char mark = text.find('\'') != std::string::npos && text.find('"') == std::string::npos ? '"' : '\'';
    std::string made(1, mark);
    char hex[16];
    for (size_t at = 0; at < text.size();) {
        const size_t from = at;
        const uint32_t code = next_character(text, at);
        // What is not printable: controls, blanks but ' ', marks of direction, bytes that are no UTF-8.
        const bool hidden = code < 0x20 || (code >= 0x7F && code <= 0xA0) || code == 0xAD || code == 0x1680 ||
                            (code >= 0x2000 && code <= 0x200F) || (code >= 0x2028 && code <= 0x202F) ||
                            (code >= 0x205F && code <= 0x206F) || code == 0x3000 || code == 0xFEFF ||
                            (code >= 0xD800 && code <= 0xF8FF) || code >= 0xE0000;
        if (code == uint32_t(mark) || code == '\\') {
            made += '\\', made += char(code);
        } else if (code == '\n' || code == '\r' || code == '\t') {
            made += code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t";
        } else if (hidden) {
            std::snprintf(hex, sizeof hex, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
            made += hex;
        } else {
            made.append(text, from, at - from);
        }
    }
    return made + mark;
}

// The digest of all pictures' states (ResNeSt.common.made_of.state_of), by which a journal knows them.
std::string digest_of(const std::vector<std::string> &images) {
    std::string states;
    for (const std::string &image : images) {
        struct stat status;
        if (::stat(image.c_str(), &status) != 0) {
            states += image;
        } else {
            const auto ns = [](const timespec &time) { return std::to_string(time.tv_sec * 1000000000LL + time.tv_nsec); };
            states += "FileState(path=" + python_repr(std::filesystem::absolute(image).lexically_normal()) + ", size=" +
                      std::to_string(status.st_size) + ", mtime_ns=" + ns(status.st_mtim) + ", ctime_ns=" +
                      ns(status.st_ctim) + ")";
        }
        states += '\0';
    }
    return hex_sha256(states);
}

std::vector<size_t> best_of(const std::vector<float> &row) {
    std::vector<size_t> order(row.size());
    for (size_t place = 0; place < order.size(); ++place) order[place] = place;
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
        refuse_clashes();
        truth_ = read_labels(options.labels);
        join();
    }

    int go() {
        Opening asked{options_.batch ? options_.batch : FREE_BATCH, options_.device, options_.instances, images_.size()};
        const std::unique_ptr<Engine> engine = open_engine(options_.model, asked);
        if (options_.batch && engine->input.batch != options_.batch) {
            std::string sizes;
            for (const size_t size : engine->sizes) sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
            throw Error(options_.model + ": its batch " + (engine->sizes.size() > 1 ? "sizes are " : "size is ") + sizes +
                            "; leave --batch " + std::to_string(options_.batch) + " out",
                        ARGUMENTS);
        }
        const Maker maker(options_.model, *engine);
        const std::string nothing(engine->input.batch * engine->input.image_bytes(), '\0');
        classes_ = engine->run(0, nothing.data(), engine->input.batch, 1).classes;
        check_labels();
        const std::string instances = engine->instances > 1 ? ", " + std::to_string(engine->instances) + " instances" : "";
        print_line(options_.model + ": " + engine->title + ", batch " + std::to_string(engine->input.batch) + instances + ", " +
                   maker.told() + ", decoded by native (" + crops_library() + ", " + crops_instructions() + "); " +
                   std::to_string(images_.size()) + " images");
        if (!options_.predictions.empty()) journal_ = head(*engine, maker);
        const double started = now();
        run(*engine, maker);
        const double seconds = now() - started;
        char text[128];
        std::snprintf(text, sizeof text, "%zu images in %.1f s, %.1f img/s", images_.size(), seconds,
                      double(images_.size()) / seconds);
        print_line(text);
        if (!options_.predictions.empty()) write_whole(options_.predictions, journal_);
        engine->close();
        return tell();
    }

  private:
    void refuse_clashes() const {
        const std::string &file = options_.predictions;
        if (file.empty()) return;
        check_plain(file), check_plain(file + ".unfinished");
        for (const std::string &read : {options_.model, options_.labels, options_.images})
            if (lies_in(file, read) && (is_file(file) || read == file))
                throw Error(file + ": would be overwritten and is read, too (as " + read + "); name another file", ARGUMENTS);
        const std::string folder = std::filesystem::path(file).parent_path();
        if (!folder.empty() && !is_folder(folder))
            throw Error(file + ": there is no folder " + folder + "; make it first, or name another");
        if (is_file(file + ".unfinished"))
            throw Error(file + ".unfinished: is of a run of python -m ResNeSt.evaluate that was interrupted; repeat that run "
                               "to finish it, move the file away, or name another");
    }

    void join() {
        std::string skipped;
        const std::vector<std::string> images = list_images(options_.images, skipped);
        if (!skipped.empty()) print_line(skipped);
        std::vector<std::string> paths;
        for (const std::string &image : images) paths.push_back(relative(image, options_.images));
        const std::vector<std::string> keys = keys_of(paths, options_.images, truth_);
        std::map<std::string, int> left = truth_;
        for (size_t number = 0; number < images.size(); ++number) {
            const auto found = truth_.find(keys[number]);
            if (found == truth_.end()) {
                problems_["extra"].push_back(images[number]);
                continue;
            }
            images_.push_back(images[number]), paths_.push_back(paths[number]), labels_.push_back(found->second);
            left.erase(keys[number]);
        }
        for (const auto &[key, label] : left) problems_["missing"].push_back(key);
        for (size_t number = 0; number < 2; ++number) {
            const auto &[kind, words] = KINDS[number];
            const std::vector<std::string> &cases = problems_[kind];
            if (!cases.empty() && (images_.empty() || !options_.allowed.count(kind)))
                throw Error(options_.images + ": " + std::to_string(cases.size()) + " " + words + " (labels: " +
                            options_.labels + "), such as " + cases[0] + "; complete them, or leave these out with --allow-" +
                            kind);
        }
    }

    auto range() const {
        const auto less = [](const auto &a, const auto &b) { return a.second < b.second; };
        return std::minmax_element(truth_.begin(), truth_.end(), less);
    }

    void check_labels() const {
        const auto [lowest, highest] = range();
        if (size_t(highest->second) < classes_) return;
        const bool from_one = size_t(highest->second) == classes_ && lowest->second > 0;
        throw Error(options_.labels + ": " + highest->first + " has class " + std::to_string(highest->second) +
                    ", the outputs have " + std::to_string(classes_) + " values, so classes 0 to " +
                    std::to_string(classes_ - 1) + "; " +
                    (from_one ? "they seem to count from 1, so take 1 from each" : "take this model's labels"));
    }

    // Where labels seem to count from another class than the model does, as label_numbers.py tells it.
    std::string remark() const {
        const auto [first, last] = range();
        const size_t lowest = size_t(first->second), highest = size_t(last->second);
        const auto better = [this](size_t shifted) { return shifted >= std::max(FEWEST, 2 * top1_) && 4 * shifted >= total_; };
        const std::string start = "note: " + options_.labels + ": " + std::to_string(top1_) + " of " + std::to_string(total_) +
                                  " images are right at first guess; were every label one ";
        if (lowest > 0 && better(less_))
            return start + "less " + std::to_string(less_) +
                   " would be right: they seem to count from 1, and classes count from 0";
        if (highest + 1 < classes_ && better(more_))
            return start + "more " + std::to_string(more_) +
                   " would be right: the model seems to have one class before theirs";
        const bool from_one = lowest == 1 || (lowest > 1 && truth_.size() >= MANY * classes_);
        if (!from_one || (top1_ >= FEWEST && top1_ > less_)) return "";
        return "note: no image is of class 0 in " + options_.labels + ", the lowest " + std::to_string(lowest) +
               "; classes count from 0, so if these count from 1, all of them are wrong";
    }

    // The first line of a predictions file: all that they depend on.
    std::string head(Engine &engine, const Maker &maker) const {
        const std::string &model = options_.model;
        std::string digests = json_text(base_name(model)) + ":" + json_text(hex_sha256_of_file(model));
        if (suffix(model) == ".xml") {
            const std::string weights = model.substr(0, model.size() - 4) + ".bin";
            digests += "," + json_text(base_name(weights)) + ":" + json_text(hex_sha256_of_file(weights));
        }
        const std::string architecture = engine.info.count("architecture") ? json_text(engine.info["architecture"]) : "null";
        return "{\"model\":{" + digests + "},\"engine\":null,\"ema\":null,\"batch\":" + std::to_string(engine.input.batch) +
               ",\"architecture\":" + architecture + ",\"tensors\":" + maker.json() + ",\"images\":" +
               std::to_string(images_.size()) + ",\"pictures\":" + json_text(digest_of(images_)) + "}\n";
    }

    void run(Engine &engine, const Maker &maker) {
        struct Slot {
            std::string data;
            std::vector<char> made;
            Answers answers;
        };
        const size_t size = engine.input.batch, bytes = engine.input.image_bytes();
        Flow flow;
        flow.items = (images_.size() + size - 1) / size;
        flow.instances = engine.instances;
        flow.loaders = options_.workers ? options_.workers : cores();
        std::vector<Slot> slots(flow.ahead());
        for (Slot &slot : slots) slot.data.resize(size * bytes), slot.made.resize(size);
        const auto images = [&](size_t item) { return std::min(size, images_.size() - item * size); };
        flow.parts = images;
        flow.load = [&](size_t item, size_t part) {
            Slot &slot = slots[item % slots.size()];
            slot.made[part] = maker.make(images_[item * size + part], &slot.data[part * bytes]);
            if (!slot.made[part]) std::memset(&slot.data[part * bytes], 0, bytes);
        };
        flow.run = [&](size_t instance, size_t item) {
            Slot &slot = slots[item % slots.size()];
            const size_t count = engine.fitting(images(item));  // the last, short batch
            std::memset(&slot.data[images(item) * bytes], 0, (count - images(item)) * bytes);
            slot.answers = engine.run(instance, slot.data.data(), count, 1);
        };
        flow.take = [&](size_t item) {
            const Slot &slot = slots[item % slots.size()];
            for (size_t part = 0; part < images(item); ++part)
                take(item * size + part, slot.made[part], slot.answers.row(part));
        };
        flow.go();
    }

    void take(size_t number, bool made, const std::vector<float> &row) {
        std::string problem, reason, classes;
        const auto wrong = std::count_if(row.begin(), row.end(), [](float value) { return !std::isfinite(value); });
        if (!made) {
            problem = "broken";
            reason = images_[number] + ": not a JPEG that is decoded here (another format, or damaged); python -m "
                                       "ResNeSt.evaluate leaves such a file to Pillow";
        } else if (wrong) {
            problem = "not-finite";
            reason = images_[number] + ": " + std::to_string(wrong) + " values";
        } else {
            const std::vector<size_t> best = best_of(row);
            const auto label = size_t(labels_[number]);
            ++total_;
            top1_ += best[0] == label, less_ += best[0] + 1 == label, more_ += best[0] == label + 1;
            top5_ += std::find(best.begin(), best.end(), label) != best.end();
            for (const size_t each : best) classes += (classes.empty() ? "" : ",") + std::to_string(each);
        }
        if (!problem.empty()) problems_[problem].push_back(reason);
        if (!options_.predictions.empty())
            journal_ += "{\"image\":" + json_text(paths_[number]) + ",\"classes\":[" + classes + "],\"problem\":" +
                        json_text(problem) + ",\"reason\":" + json_text(reason) + "}\n";
    }

    // The lines of evaluate; 1 where an image has a problem that was not allowed.
    int tell() const {
        char text[256];
        const double all = total_ ? double(total_) : std::nan("");
        for (const auto &[name, right] : {std::make_pair("top1", top1_), std::make_pair("top5", top5_)}) {
            std::snprintf(text, sizeof text, "%s_acc\t%.4f", name, double(right) / all);
            print_line(total_ ? text : name + std::string("_acc\tnan"));
        }
        for (const auto &[name, right] : {std::make_pair("top1", top1_), std::make_pair("top5", top5_)}) {
            std::snprintf(text, sizeof text, "%s_correct=%zu, tot=%zu, acc=%.3f%%", name, right, total_, 100 * (double(right) / all));
            print_line(total_ ? text : name + std::string("_correct=0, tot=0, acc=nan%"));
        }
        print_line("tot counts the labelled images whose result was read: " + std::to_string(total_) + " of " +
                   std::to_string(truth_.size()));
        const std::string note = remark();
        if (!note.empty()) print_line(note);
        int code = 0;
        for (const auto &[kind, words] : KINDS) {
            const auto found = problems_.find(kind);
            if (found == problems_.end() || found->second.empty()) continue;
            const std::vector<std::string> &cases = found->second;
            const bool allowed = options_.allowed.count(kind);
            code |= !allowed;
            print_line(std::string(kind) + ": " + std::to_string(cases.size()) + " " + words + " (" +
                       (allowed ? "accepted by --allow-" + std::string(kind)
                                : "exit code 1; --allow-" + std::string(kind) + " accepts them") +
                       ")");
            for (size_t number = 0; number < std::min(SHOWN, cases.size()); ++number) print_line("  " + cases[number]);
            if (cases.size() > SHOWN) print_line("  and " + std::to_string(cases.size() - SHOWN) + " more");
        }
        return code;
    }

    const Options &options_;
    std::map<std::string, int> truth_;
    std::vector<std::string> images_, paths_;  // those with a label; their paths in the folder
    std::vector<int> labels_;
    std::map<std::string, std::vector<std::string>> problems_;
    std::string journal_;
    size_t classes_ = 0, top1_ = 0, top5_ = 0, total_ = 0;
    size_t less_ = 0, more_ = 0;  // images that would be right with labels one less, or more
};

}  // namespace

int evaluate(const Options &options) { return Evaluation(options).go(); }
