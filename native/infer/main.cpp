// From tensors or photographs to answers without Python: resnest_infer (docs/native.md).
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <functional>
#include <new>
#include <sched.h>

#include "commands.h"
#include "files.h"
#include "flow.h"

namespace {

const char *const USAGE =
    R"(usage: resnest_infer --model FILE [--tensors PATH] [options]
       resnest_infer --model FILE --images DIR --labels FILE [options]

  --model, -m FILE         a .xml (OpenVINO, on the CPU) or .om (AscendCL, on an NPU)
  --batch, --dymBatch N    of a model that takes several sizes
  --instances N|auto       of a .xml side by side [1; auto with --images]
  --threads N              cores that all of it takes [all it may use]
  --device N               number of an NPU [0]
tensors, with the files and lines of python -m ResNeSt.infer:
  --tensors, --input, -i PATH  folder of tensors, or one tensor file [none: a pure speed run]
  --output, -o DIR         folder for the results [none written]
  --output_dirname NAME    folder below --output [date and time]
  --outfmt BIN|NPY|TXT     format of the results [BIN]
  --loop N                 runs of every batch [1]
  --warmup, --warmup_count N  uncounted runs first [1]
  --batchsize N            changes the throughput printed, nothing else [the model's]
  --pure_data_type zero|random  data of a pure run [zero]
  --display_all_summary    prints the copy times too
photographs, with the answers of python -m ResNeSt.evaluate:
  --images DIR             JPEG files, flat or with a sub-folder per class
  --labels FILE            a line 'NAME CLASS' for every image
  --predictions FILE       write a line of JSON per image
  --workers N              threads that decode [one per core]
  --allow-missing, --allow-extra, --allow-broken, --allow-not-finite

  --version                print the version and end

example, after bash run.sh:
  native/build/resnest_infer --model work/resnest_demo/resnest_demo_bs8.xml --images demo/val --labels demo/val_label.txt --allow-broken)";

constexpr size_t MANY = 999'999'999;
enum Of { BOTH, TENSORS, PHOTOGRAPHS };  // with which of the two commands it goes
enum Value { ONE, NONE, MAYBE };         // MAYBE: as in ais_bench 0.0.2 with a value, as in 0.1.0 without

struct Flag {
    std::vector<std::string> names;
    Of of;
    Value value;
    std::function<void(Options &to, const std::string &text)> set;
};

size_t number(const std::string &text, size_t least, size_t most) {
    const bool digits = !text.empty() && text.size() <= 9 && text.find_first_not_of("0123456789") == std::string::npos;
    const size_t found = digits ? std::stoul(text) : 0;
    if (!digits || found < least || found > most)
        throw std::invalid_argument(cat(text.substr(0, 20), " is not a whole number from ", least, " to ", most));
    return found;
}

std::string one_of(const std::string &text, const std::vector<std::string> &words) {
    if (std::find(words.begin(), words.end(), text) != words.end()) return text;
    std::string all;
    for (const std::string &word : words) all += (all.empty() ? "" : ", ") + word;
    throw std::invalid_argument("invalid choice: '" + text + "' (choose from " + all + ")");
}

bool truth(const std::string &text) {
    return one_of(lower(text), {"true", "1", "t", "y", "yes", "false", "0", "f", "n", "no"}).find_first_of("1ty") == 0;
}

using To = Options &;
using Text = const std::string &;
const std::vector<Flag> FLAGS{
    {{"--model", "-m"}, BOTH, ONE, [](To o, Text text) { o.model = text; }},
    {{"--batch", "--dymBatch", "--dym-batch"}, BOTH, ONE, [](To o, Text text) { o.batch = number(text, 1, LARGEST_BATCH); }},
    {{"--instances"}, BOTH, ONE, [](To o, Text text) { o.instances = text == "auto" ? AUTO : number(text, 1, MOST_INSTANCES); }},
    {{"--threads"}, BOTH, ONE, [](To o, Text text) { o.threads = number(text, 1, MANY); }},
    {{"--device"}, BOTH, ONE, [](To o, Text text) { o.device = number(text, 0, 255); }},
    {{"--tensors", "--input", "-i"}, TENSORS, ONE, [](To o, Text text) { o.input = text; }},
    {{"--output", "-o"}, TENSORS, ONE, [](To o, Text text) { o.output = text; }},
    {{"--output_dirname"}, TENSORS, ONE, [](To o, Text text) { o.dirname = text; }},
    {{"--outfmt"}, TENSORS, ONE, [](To o, Text text) { o.outfmt = one_of(text, {"BIN", "NPY", "TXT"}); }},
    {{"--loop"}, TENSORS, ONE, [](To o, Text text) { o.loop = number(text, 1, MANY); }},
    {{"--warmup", "--warmup_count"}, TENSORS, ONE, [](To o, Text text) { o.warmup = number(text, 0, MANY); }},
    {{"--batchsize"}, TENSORS, ONE, [](To o, Text text) { o.shown_batch = number(text, 1, MANY); }},
    {{"--pure_data_type"}, TENSORS, ONE, [](To o, Text text) { o.pure = one_of(text, {"zero", "random"}); }},
    {{"--display_all_summary"}, TENSORS, MAYBE, [](To o, Text text) { o.all_times = truth(text); }},
    {{"--divide_input"}, TENSORS, MAYBE, [](To, Text text) { truth(text); }},  // for one device the same as without
    {{"--images"}, BOTH, ONE, [](To o, Text text) { o.images = text; }},
    {{"--labels"}, BOTH, ONE, [](To o, Text text) { o.labels = text; }},
    {{"--predictions"}, PHOTOGRAPHS, ONE, [](To o, Text text) { o.predictions = text; }},
    {{"--workers"}, PHOTOGRAPHS, ONE, [](To o, Text text) { o.workers = number(text, 1, MANY); }},
    {{"--allow-missing"}, PHOTOGRAPHS, NONE, [](To o, Text) { o.allowed.insert("missing"); }},
    {{"--allow-extra"}, PHOTOGRAPHS, NONE, [](To o, Text) { o.allowed.insert("extra"); }},
    {{"--allow-broken"}, PHOTOGRAPHS, NONE, [](To o, Text) { o.allowed.insert("broken"); }},
    {{"--allow-not-finite"}, PHOTOGRAPHS, NONE, [](To o, Text) { o.allowed.insert("not-finite"); }}};

// With dashes or underscores between its words, as one ais_bench or the other has them.
const Flag *flag_of(const std::string &name) {
    const auto dashed = [](std::string text) {
        std::replace(text.begin() + (text.size() > 2 ? 2 : 0), text.end(), '_', '-');
        return text;
    };
    for (const Flag &flag : FLAGS)
        for (const std::string &known : flag.names)
            if (dashed(known) == dashed(name)) return &flag;
    return nullptr;
}

[[noreturn]] void refuse(const std::string &why) { throw Error(why, ARGUMENTS); }

Options parsed(const std::vector<std::string> &words) {
    Options o;
    o.arguments = words;
    std::string of[3];  // a flag that was given of each Of
    o.instances = MANY;
    for (size_t at = 1; at < words.size(); ++at) {
        const size_t equals = words[at].compare(0, 2, "--") == 0 ? words[at].find('=') : std::string::npos;
        const bool has_value = equals != std::string::npos;
        const std::string name = words[at].substr(0, equals);
        const Flag *const flag = flag_of(name);
        if (!flag || (has_value && flag->value == NONE)) refuse("unrecognized arguments: " + words[at]);
        const bool follows = !has_value && flag->value != NONE && at + 1 < words.size() && words[at + 1][0] != '-';
        const std::string value = has_value ? words[at].substr(equals + 1) : follows ? words[++at] : flag->value == ONE ? "" : "1";
        if (value.empty()) refuse("argument " + name + ": expected one argument");
        try {
            flag->set(o, value);
        } catch (const std::invalid_argument &error) {
            refuse("argument " + name + ": " + error.what());
        }
        of[flag->of] = name;
    }
    if (o.model.empty()) refuse("the following arguments are required: --model");
    if (o.images.empty() != o.labels.empty()) refuse("the following arguments are required: --images and --labels, both or none");
    const std::string &odd = of[o.images.empty() ? PHOTOGRAPHS : TENSORS];
    if (!odd.empty()) refuse("argument " + odd + ": is not for " + (o.images.empty() ? "tensors" : "photographs") + "; leave it out");
    if (o.instances == MANY) o.instances = o.images.empty() ? 1 : AUTO;
    const bool npu = suffix(o.model) == ".om";
    if (npu && o.instances > 1) refuse("argument --instances: a .om runs alone here; leave it out");
    if (!npu && o.device) refuse(cat("--device ", o.device, ": ", o.model, " runs on the CPU, which is device 0; leave it out"));
    return o;
}

// As --threads does in Python: a bound for all threads, whichever library starts them.
void use_cores(size_t count) {
    cpu_set_t allowed, chosen;
    CPU_ZERO(&chosen);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) fail_by_errno("--threads");
    if (count > size_t(CPU_COUNT(&allowed)))
        refuse(cat("--threads ", count, ": this process may use ", CPU_COUNT(&allowed), " cores; name at most as many"));
    for (size_t core = 0; count > 0; ++core)
        if (CPU_ISSET(core, &allowed)) CPU_SET(core, &chosen), --count;
    if (sched_setaffinity(0, sizeof chosen, &chosen) != 0) fail_by_errno("--threads");
}

int report(std::string line, int code) {
    std::replace_if(line.begin(), line.end(), [](char letter) { return uint8_t(letter) < 0x20 || letter == 0x7F; }, ' ');
    std::fflush(stdout);
    std::fprintf(stderr, "error: %s\n", line.c_str());
    return code;
}

}  // namespace

int main(int count, char **words) {
    const auto on_interrupt = [](int) {
        interrupted = true;
        std::signal(SIGINT, SIG_DFL);  // a second one ends it where it stands
    };
    if (std::signal(SIGINT, SIG_IGN) != SIG_IGN) std::signal(SIGINT, on_interrupt);  // as nohup and `&` ask for
    try {
        for (int number = 1; number < count; ++number)
            if (words[number] == std::string("--help") || words[number] == std::string("-h")) return std::puts(USAGE), 0;
        if (count == 2 && words[1] == std::string("--version")) return std::puts("resnest " RESNEST_VERSION), 0;
        const Options options = parsed({words, words + count});
        if (options.threads) use_cores(options.threads);
        return options.images.empty() ? infer(options) : evaluate(options);
    } catch (const Error &error) {
        return report(error.what(), error.code);
    } catch (const std::bad_alloc &) {
        return report("not enough memory; take a smaller batch or input size, or fewer threads", 1);
    } catch (const std::exception &error) {
        return report(error.what(), 1);
    }
}
