#include "tensors.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "files.h"

namespace {

bool ends_with(const std::string &text, const std::string &end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

bool is_npy(const std::string &path) { return ends_with(lower(path), ".npy"); }

const Json &member(const Json &index, const char *name, Json::Kind kind) {
    const Json *const found = index.get(name);
    if (!found || found->kind != kind) throw std::invalid_argument(name);
    return *found;
}

// Three numbers as json.dumps writes floats.
std::string moments(const Json &index, const char *name) {
    std::string text;
    for (const Json &each : member(index, name, Json::list).items) {
        if (each.kind != Json::number) throw std::invalid_argument(name);
        text += (text.empty() ? "[" : ", ") + repr(each.value);
    }
    return text + "]";
}

// What follows a key in the header of a .npy, which is a Python literal.
std::string field(const std::string &header, const std::string &key) {
    const size_t at = header.find("'" + key + "':");
    if (at == std::string::npos) return "";
    const size_t from = header.find_first_not_of(' ', at + key.size() + 3);
    if (from == std::string::npos) return "";
    const char end = header[from] == '(' ? ')' : header[from] == '\'' ? '\'' : ',';
    const size_t to = header.find(end, from + 1);
    return to == std::string::npos ? "" : header.substr(from, to - from + (end == ',' ? 0 : 1));
}

}  // namespace

std::vector<std::string> tensor_files(const std::string &source) {
    if (is_file(source)) return {source};
    if (!is_folder(source)) throw Error(source + ": no such folder; resnest_preprocess.py makes it");
    std::vector<std::pair<std::string, std::string>> names;
    for (const auto &entry : std::filesystem::directory_iterator(source)) {
        const std::string name = entry.path().filename();
        if (ends_with(lower(name), ".npz"))
            throw Error(source + ": holds " + name + ", this program reads .bin and .npy alone; run resnest_preprocess.py without "
                                 "--format npz into another folder");
        if (ends_with(lower(name), ".bin") || is_npy(name)) names.emplace_back(natural_key(name), name);
    }
    std::sort(names.begin(), names.end());
    std::vector<std::string> files;
    std::set<std::string> stems;
    for (const auto &[key, name] : names) {
        files.push_back(joined(source, name));
        stems.insert(stem(name));
    }
    if (stems.size() < files.size())
        throw Error(source + ": two files share a name up to the first dot, their results would too; rename one");
    return files;
}

std::string check_tensors(const std::string &source, const Engine &engine, size_t files) {
    const std::string path = joined(source, "tensors.json");
    if (!is_folder(source) || !is_file(path)) {
        if (files == 0) throw Error(source + ": holds no .bin or .npy files; resnest_preprocess.py makes them");
        return "";
    }
    const Json index = read_json(path);
    try {
        const std::string recipe = member(index, "recipe", Json::text).str(), kind = member(index, "dtype", Json::text).str();
        const std::string layout = member(index, "layout", Json::text).str();
        const auto whole = [&index](const char *name) { return size_t(std::max(0.0, member(index, name, Json::number).value)); };
        const size_t side = whole("size"), images = whole("images"), count = whole("count");
        const bool complete = member(index, "complete", Json::boolean).value != 0;
        const std::string mean = moments(index, "mean"), std = moments(index, "std");
        const Json *const packed = index.get("packed");
        if (packed && packed->value != 0)
            throw Error(source + ": holds packed tensors, which ais_bench and this program do not read; run "
                                 "resnest_preprocess.py without --pack into another folder");
        if (files == 0) throw Error(source + ": holds no .bin or .npy files; resnest_preprocess.py makes them");
        Input held = engine.input;
        held.kind = kind, held.side = side;
        if (kind != engine.input.kind || side != engine.input.side)
            throw Error(source + ": holds " + recipe + " " + std::to_string(side) + ", " + kind + " " + layout +
                        " tensors of shape " + held.told_shape() + ", the model takes " + engine.input.kind + " " +
                        engine.input.told_shape() + "; run resnest_preprocess.py with the model's size and dtype, or "
                        "compile the model for these tensors");
        for (const auto &[name, said] : {std::make_pair("mean", mean), std::make_pair("std", std)}) {
            const auto own = engine.info.find(name);
            if (kind == "float32" && own != engine.info.end() && own->second != said)
                throw Error(source + ": tensors are normalised with " + name + " " + said + ", the model wants " +
                            own->second + "; run resnest_preprocess.py with --model and the model's card");
        }
        if (!complete || files != count)
            throw Error(source + ": " + std::to_string(files) + " tensors of " + std::to_string(complete ? count : images) +
                        " are there; run the same resnest_preprocess.py command again to finish them");
        return recipe;
    } catch (const std::invalid_argument &error) {
        throw Error(path + ": not an index of tensors (" + error.what() + "); run resnest_preprocess.py into a new folder");
    }
}

std::string npy_values(const std::string &content, const std::string &path, const Input &input) {
    const auto broken = [&path](const std::string &why) -> Error {
        return Error(path + ": not a whole .npy file (" + why + "); make the tensor again");
    };
    const auto byte = [&content](size_t at) { return size_t(uint8_t(content[at])); };
    if (content.size() < 12 || content.compare(0, 6, "\x93NUMPY") != 0 || byte(6) < 1 || byte(6) > 3)
        throw broken("its first bytes are of no .npy");
    const size_t begin = byte(6) == 1 ? 10 : 12;
    const size_t length = byte(8) | byte(9) << 8 | (begin == 12 ? byte(10) << 16 | byte(11) << 24 : 0);
    if (length > content.size() - begin) throw broken("cut short in its header");
    const std::string header = content.substr(begin, length), shape = field(header, "shape");
    const std::string order = field(header, "fortran_order");
    std::string descr = field(header, "descr");
    if (descr.size() < 3 || shape.empty()) throw broken("its header is damaged");
    descr = descr.substr(1, descr.size() - 2);
    if (descr != (input.element == "float32" ? "<f4" : "|u1"))
        throw Error(path + ": holds " + descr + ", the model takes " + input.element + "; make the tensor again");
    std::vector<size_t> sides, wanted;
    size_t values = 1, wanted_values = 1;
    for (size_t at = 0; at < shape.size();) {
        if (shape[at] < '0' || shape[at] > '9') {
            ++at;
            continue;
        }
        size_t side = 0;
        for (; at < shape.size() && shape[at] >= '0' && shape[at] <= '9'; ++at)
            side = std::min<size_t>(10 * side + size_t(shape[at] - '0'), 1u << 30);
        values = std::min<size_t>(values * side, size_t(1) << 32);
        if (side != 1) sides.push_back(side);
    }
    for (const size_t side : input.shape()) {
        wanted_values *= side;
        if (side != 1) wanted.push_back(side);
    }
    if (order != "False" && sides.size() > 1) throw Error(path + ": its axes are in Fortran's order; save it in C's");
    if (sides.size() > 1 && values == wanted_values && sides != wanted)
        throw Error(path + ": of shape [" + shape.substr(1, shape.size() - 2) + "], the model takes " + input.told_shape() + "; turn its axes, or make it again");
    const size_t bytes = values * (input.element == "float32" ? 4 : 1);
    if (content.size() - begin - length < bytes) throw broken("cut short");
    return content.substr(begin + length, bytes);  // NumPy, too, leaves alone what follows
}

std::string read_tensor(const std::string &path, const Input &input) {
    std::string content = read_file(path);
    return is_npy(path) ? npy_values(content, path, input) : content;
}

std::string as_npy(const std::string &values, const std::string &descr, const std::string &shape) {
    std::string header = "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }";
    // The number of values may grow, as NumPy leaves room for it, and the whole is a multiple of 64 bytes.
    header += std::string(63 - (10 + header.size()) % 64, ' ') + "\n";
    std::string made = "\x93NUMPY\x01";
    made += '\0', made += char(header.size() & 255), made += char(header.size() >> 8);
    return made + header + values;
}
