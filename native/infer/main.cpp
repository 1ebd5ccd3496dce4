// From tensors or photographs to answers without Python: resnest_infer (docs/native.md).
#include <algorithm>
#include <cctype>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <new>
#include <set>
#include <sched.h>
#include <unistd.h>

#include "commands.h"
#include "files.h"
#include "flow.h"

namespace {

const char *const USAGE =
    R"(usage: resnest_infer --model FILE [--input PATH] [options]
       resnest_infer --model FILE --images DIR --labels FILE [options]

  --model, -m FILE         a .xml (OpenVINO, on the CPU) or .om (AscendCL, on an NPU)
  --batch, --dymBatch N    of a model that takes several sizes
  --instances N|auto       of a .xml side by side [1; auto with --images]
  --threads N              cores that all of it takes [all it may use]
  --device N               number of an NPU [0]
tensors, with the files and lines of python -m ResNeSt.infer:
  --input, -i PATH         folder of tensors, or one tensor file [none: a pure speed run]
  --output, -o DIR         folder for the results [none written]
  --output_dirname NAME    folder below --output [date and time]
  --outfmt BIN|NPY|TXT     format of the results [BIN]
  --loop N                 runs of every batch [1]
  --warmup_count N         uncounted runs first [1]
  --batchsize N            changes the throughput printed, nothing else [the model's]
  --pure_data_type zero|random  data of a pure run [zero]
  --display_all_summary    prints the copy times too
photographs, with the answers of python -m ResNeSt.evaluate:
  --images DIR             JPEG files, flat or with a sub-folder per class
  --labels FILE            a line 'NAME CLASS' for every image
  --predictions FILE       write a line of JSON per image
  --workers N              threads that decode [one per core]
  --allow-missing, --allow-extra, --allow-broken, --allow-not-finite
)";

[[noreturn]] void refuse(const std::string &what) {
    throw Error("argument " + what, ARGUMENTS);
}

size_t between(size_t least, size_t most, const std::string &flag, const std::string &text, const char *others = "") {
    const size_t from = std::min(text.find_first_not_of(" +"), text.size());
    const bool is_number = from < text.size() && text.size() - from <= 18 &&
                           text.find_first_not_of("0123456789", from) == std::string::npos;
    const size_t number = is_number ? std::stoull(text.substr(from)) : 0;
    if (!is_number || number < least || number > most)
        refuse(flag + ": " + (text.empty() ? "nothing" : text.substr(0, 20)) + " is not a whole number from " +
               std::to_string(least) + " to " + with_commas(most) + others);
    return number;
}

bool truth(const std::string &flag, const std::string &text) {
    const std::string word = lower(text);
    for (const char *yes : {"true", "1", "t", "y", "yes"})
        if (word == yes) return true;
    for (const char *no : {"false", "0", "f", "n", "no"})
        if (word == no) return false;
    refuse(flag + ": '" + text + "' is neither True nor False");
}

// As --threads does in Python: a bound for all threads, whichever library starts them.
void use_cores(size_t count) {
    cpu_set_t allowed, chosen;
    CPU_ZERO(&chosen);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) fail_by_errno("--threads");
    if (count > size_t(CPU_COUNT(&allowed)))
        throw Error("--threads " + std::to_string(count) + ": this process may use " + std::to_string(CPU_COUNT(&allowed)) +
                        " cores; name at most as many",
                    ARGUMENTS);
    for (size_t core = 0; count > 0; ++core)
        if (CPU_ISSET(core, &allowed)) CPU_SET(core, &chosen), --count;
    if (sched_setaffinity(0, sizeof chosen, &chosen) != 0) fail_by_errno("--threads");
}

class Flags {
  public:
    explicit Flags(Options &options) {
        Options *const o = &options;
        path("--model", o->model);
        path("--input", o->input, &o->has_input);
        path("--output", o->output, &o->has_output);
        path("--images", o->images), path("--labels", o->labels), path("--predictions", o->predictions);
        value_["--output_dirname"] = [o](const std::string &text) { o->dirname = text; };
        choice("--outfmt", o->outfmt, {"BIN", "NPY", "TXT"});
        choice("--pure_data_type", o->pure, {"zero", "random"});
        number("--loop", o->loop, 1, 999'999'999), number("--batchsize", o->shown_batch, 1, 999'999'999);
        number("--warmup_count", o->warmup, 0, 999'999'999), number("--workers", o->workers, 1, 999'999'999);
        number("--dymBatch", o->batch, 1, LARGEST_BATCH), number("--device", o->device, 0, 255);
        value_["--threads"] = [](const std::string &text) { use_cores(between(1, 999'999'999, "--threads", text)); };
        value_["--instances"] = [o](const std::string &text) {
            o->instances = text == "auto" ? AUTO : between(1, MOST_INSTANCES, "--instances", text, ", or auto");
        };
        switch_["--display_all_summary"] = [o](bool on) { o->all_times = on; };
        switch_["--divide_input"] = [](bool) {};
        for (const char *kind : {"missing", "extra", "broken", "not-finite"})
            bare_["--allow-" + std::string(kind)] = [o, kind] { o->allowed.insert(kind); };
    }

    void parse(const std::vector<std::string> &words) {
        static const std::map<std::string, std::string> SHORT{{"-m", "--model"}, {"-i", "--input"}, {"-o", "--output"}};
        static const std::map<std::string, std::string> DASHED{{"--output-dirname", "--output_dirname"},
                                                               {"--warmup-count", "--warmup_count"},
                                                               {"--pure-data-type", "--pure_data_type"},
                                                               {"--display-all-summary", "--display_all_summary"},
                                                               {"--divide-input", "--divide_input"},
                                                               {"--batch", "--dymBatch"}};
        for (size_t at = 0; at < words.size(); ++at) {
            const size_t equals = words[at].compare(0, 2, "--") == 0 ? words[at].find('=') : std::string::npos;
            std::string flag = words[at].substr(0, equals);
            for (const auto *names : {&SHORT, &DASHED})
                if (names->count(flag)) flag = names->at(flag);
            const bool has_value = equals != std::string::npos;
            std::string value = has_value ? words[at].substr(equals + 1) : "";
            const bool follows = !has_value && at + 1 < words.size() && (words[at + 1][0] != '-' || words[at + 1].size() == 1);
            given_.insert(flag);
            if (flag == "--help" || flag == "-h") {
                std::fputs(USAGE, stdout);
                std::exit(0);
            } else if (bare_.count(flag) && !has_value) {
                bare_[flag]();
            } else if (switch_.count(flag)) {
                switch_[flag](has_value ? truth(flag, value) : follows ? truth(flag, words[++at]) : true);
            } else if (value_.count(flag)) {
                if (!has_value && !follows) refuse(flag + ": expected one argument");
                value_[flag](has_value ? value : words[++at]);
            } else {
                throw Error("unrecognized arguments: " + words[at], ARGUMENTS);
            }
        }
    }

    // Raises Error for one of `flags` that was given.
    void refuse_given(const std::vector<const char *> &flags, const std::string &why) const {
        for (const char *flag : flags)
            if (given_.count(flag)) refuse(std::string(flag) + ": " + why);
    }
    bool given(const char *flag) const { return given_.count(flag); }

  private:
    void path(const char *flag, std::string &to, bool *given = nullptr) {
        value_[flag] = [=, &to](const std::string &text) {
            if (text.empty()) refuse(std::string(flag) + ": is empty; name a path, or leave the option out");
            to = text;
            if (given) *given = true;
        };
    }
    void number(const char *flag, size_t &to, size_t least, size_t most) {
        value_[flag] = [=, &to](const std::string &text) { to = between(least, most, flag, text); };
    }
    void choice(const char *flag, std::string &to, std::set<std::string> known) {
        value_[flag] = [=, &to](const std::string &text) {
            std::string all;
            for (const std::string &each : known) all += (all.empty() ? "'" : ", '") + each + "'";
            if (!known.count(text)) refuse(std::string(flag) + ": invalid choice: '" + text + "' (choose from " + all + ")");
            to = text;
        };
    }

    std::map<std::string, std::function<void(const std::string &)>> value_;
    std::map<std::string, std::function<void(bool)>> switch_;
    std::map<std::string, std::function<void()>> bare_;
    std::set<std::string> given_;
};

int run(const std::vector<std::string> &words) {
    Options options;
    options.arguments = words;
    Flags flags(options);
    flags.parse({words.begin() + 1, words.end()});
    if (options.model.empty()) throw Error("the following arguments are required: --model/-m", ARGUMENTS);
    const bool photographs = !options.images.empty();
    if (photographs != !options.labels.empty())
        throw Error("the following arguments are required: --images and --labels, both or none", ARGUMENTS);
    if (photographs) {
        flags.refuse_given({"--input", "--output", "--output_dirname", "--outfmt", "--loop", "--warmup_count", "--batchsize",
                            "--pure_data_type", "--display_all_summary", "--divide_input"},
                           "is for tensors; leave it out with --images");
        if (!flags.given("--instances")) options.instances = AUTO;
    } else {
        flags.refuse_given({"--predictions", "--workers", "--allow-missing", "--allow-extra", "--allow-broken",
                            "--allow-not-finite"},
                           "is for photographs; name --images and --labels, too");
    }
    if (suffix(options.model) == ".om") {
        if (options.instances > 1) refuse("--instances: a .om runs alone here; leave it out");
        options.instances = 1;
    } else if (options.device != 0) {
        throw Error("--device " + std::to_string(options.device) + ": " + options.model + " runs by openvino; on cpu there is device 0 only", ARGUMENTS);
    }
    return photographs ? evaluate(options) : infer(options);
}

// On one line, without what only a terminal understands.
std::string plain(const std::string &text) {
    std::string made;
    for (size_t at = 0; at < text.size(); ++at) {
        const auto letter = static_cast<unsigned char>(text[at]);
        if (letter == 0x1B && at + 1 < text.size() && text[at + 1] == '[') {
            for (++at; at + 1 < text.size() && !std::isalpha(static_cast<unsigned char>(text[at])); ++at) continue;
        } else if (letter == '\n' || letter == '\r' || letter == '\t') {
            made += ' ';
        } else if (letter >= 0x20 && letter != 0x7F) {
            made += text[at];
        }
    }
    return made;
}

int report(const std::string &line, int code) {
    std::fflush(stdout);
    std::fprintf(stderr, "error: %s\n", plain(line).c_str());
    return code;
}

}  // namespace

void print_line(const std::string &line) {
    std::string made;
    char hex[16];
    for (size_t at = 0; at < line.size();) {
        const size_t from = at;
        const uint32_t code = next_character(line, at);
        std::snprintf(hex, sizeof hex, "\\udc%02x", code & 0xFF);
        made += code >= 0xDC00 && code < 0xE000 ? hex : line.substr(from, at - from);
    }
    if (std::puts(made.c_str()) < 0 || std::fflush(stdout) != 0) fail_by_errno("stdout");
}

std::string recipe_note(const Engine &engine, const std::string &recipe) {
    const auto own = engine.info.find("recipe");
    if (recipe.empty() || (own != engine.info.end() && own->second == recipe)) return "";
    return "prepared by " + recipe + ", " +
           (own != engine.info.end() ? "the model's own recipe is " + own->second : "the model does not say its own");
}

void check_named(const std::string &model, const Engine &engine, size_t batch) {
    if (engine.sizes.size() == 1 && batch)
        throw Error(model + ": is for a batch of " + std::to_string(engine.sizes[0]) + " alone; leave --dymBatch " +
                        std::to_string(batch) + " out",
                    ARGUMENTS);
    std::string known;
    bool takes = false;
    for (const size_t size : engine.sizes) known += (known.empty() ? "" : ", ") + std::to_string(size), takes |= size == batch;
    if (engine.sizes.size() > 1 && !takes)
        throw Error(model + ": takes several batch sizes (" + (engine.any_size() ? "any" : known) +
                        "); choose one with --dymBatch N",
                    ARGUMENTS);
}

int main(int count, char **words) {
    const auto on_interrupt = [](int) {
        interrupted = true;
        std::signal(SIGINT, SIG_DFL);  // a second one ends it where it stands
    };
    if (std::signal(SIGINT, SIG_IGN) != SIG_IGN) std::signal(SIGINT, on_interrupt);  // as nohup and `&` ask for
    std::signal(SIGPIPE, [](int) { ::_exit(141); });  // whoever read the output has gone
    try {
        return run({words, words + count});
    } catch (const Error &error) {
        return report(error.what(), error.code);
    } catch (const std::bad_alloc &) {
        return report("not enough memory; take a smaller batch or input size, or fewer threads", 1);
    } catch (const std::exception &error) {
        return report(error.what(), 1);
    }
}
