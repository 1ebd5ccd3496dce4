#include "tensors.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "files.h"

namespace {

const std::string &member(const Json &found, const std::string &path) {
    if (!found.count(path)) throw std::invalid_argument("no " + path.substr(1));
    return found.at(path);
}

// What stands between `key` and `end` in the header of a .npy, which is a Python literal.
std::string field(const std::string &header, const std::string &key, const std::string &end) {
    const size_t from = header.find(key);
    if (from == std::string::npos) return "";
    return header.substr(from + key.size(), header.find(end, from + key.size()) - from - key.size());
}

}  // namespace

std::vector<double> three(const Json &found, const std::string &path) {
    if (found.count(path + "/3")) throw std::invalid_argument("more than three numbers");
    return {std::stod(member(found, path + "/0")), std::stod(member(found, path + "/1")), std::stod(member(found, path + "/2"))};
}

std::vector<std::string> tensor_files(const std::string &source) {
    if (is_file(source)) return {source};
    if (!is_folder(source)) throw Error(source + ": no such folder; resnest_preprocess.py makes it");
    std::vector<std::string> files;
    for (const auto &entry : std::filesystem::directory_iterator(source)) {
        const std::string name = entry.path().filename(), kind = lower(name.substr(std::max<size_t>(name.size(), 4) - 4));
        if (kind == ".npz")
            throw Error(cat(source, ": holds ", name, ", this program reads .bin and .npy alone; run resnest_preprocess.py without "
                            "--tensor-format npz into another folder"));
        if (kind == ".bin" || kind == ".npy") files.push_back(joined(source, name));
    }
    sort_naturally(files);
    std::set<std::string> stems;
    for (const std::string &path : files) stems.insert(stem(path));
    if (stems.size() < files.size())
        throw Error(source + ": two files share a name up to the first dot, their results would too; rename one");
    return files;
}

std::string check_tensors(const std::string &source, const Engine &engine, size_t files) {
    const std::string path = joined(source, "tensors.json");
    const Json index = is_folder(source) ? read_json(path) : Json();
    if (index.count("/packed") && index.at("/packed") == "true")
        throw Error(source + ": holds packed tensors, which ais_bench and this program do not read; run resnest_preprocess.py "
                             "without --pack into another folder");
    if (files == 0) throw Error(source + ": holds no .bin or .npy files; resnest_preprocess.py makes them");
    if (!is_folder(source) || !is_file(path)) return "";
    try {
        const Input held{member(index, "/dtype"), std::stoul(member(index, "/size"))};
        if (held.kind != engine.input.kind || held.side != engine.input.side)
            throw Error(cat(source, ": holds tensors of ", held.told(), ", the model takes ", engine.input.told(),
                            "; run resnest_preprocess.py with the model's size and dtype, or compile the model for these tensors"));
        for (const std::string name : {"mean", "std"}) {
            const auto own = engine.info.find(name);
            if (held.kind == "float32" && own != engine.info.end() && three(index, "/" + name) != three(parse_json(own->second), ""))
                throw Error(cat(source, ": tensors are normalised with another ", name, " than the model's, ", own->second,
                                "; run resnest_preprocess.py with --model and the model's card"));
        }
        const bool complete = member(index, "/complete") == "true";
        const size_t expected = std::stoul(member(index, complete ? "/count" : "/images"));
        if (!complete || files != expected)
            throw Error(cat(source, ": ", files, " tensors of ", expected,
                            " are there; run the same resnest_preprocess.py command again to finish them"));
        return member(index, "/recipe");
    } catch (const std::logic_error &error) {
        throw Error(cat(path, ": not an index of tensors (", error.what(), "); run resnest_preprocess.py into a new folder"));
    }
}

std::string npy_values(const std::string &content, const std::string &path, const Input &input) {
    const auto require = [&path](bool right, const std::string &what) {
        if (!right) throw Error(cat(path, ": ", what, "; make the tensor again"));
    };
    const auto byte = [&content](size_t at) { return size_t(uint8_t(content[at])); };
    require(content.size() >= 12 && content.compare(0, 6, "\x93NUMPY") == 0 && byte(6) >= 1 && byte(6) <= 3, "not a .npy file");
    const size_t begin = byte(6) == 1 ? 10 : 12;
    const size_t length = byte(8) | byte(9) << 8 | (begin == 12 ? byte(10) << 16 | byte(11) << 24 : 0);
    require(length <= content.size() - begin, "not a whole .npy file");
    const std::string header = content.substr(begin, length), descr = field(header, "'descr': '", "'");
    const std::string shape = field(header, "'shape': (", ")"), own = input.told_shape();
    require(std::count(header.begin(), header.end(), ':') == 3, "its header has other fields than a .npy has");
    require(descr == (input.kind == "float32" ? "<f4" : "|u1"), cat("holds ", descr, ", the model takes ", input.element()));
    require(shape == own || shape == "1, " + own || shape == cat(input.bytes() / input.value_bytes(), ","),
            cat("of shape (", shape, "), the model takes (", own, ")"));
    require(shape.back() == ',' || field(header, "'fortran_order': ", ",") == "False", "its axes are in Fortran's order");
    require(input.bytes() <= content.size() - begin - length, "not a whole .npy file");
    return content.substr(begin + length, input.bytes());  // NumPy, too, leaves alone what follows
}

std::string read_tensor(const std::string &path, const Input &input) {
    const std::string content = read_file(path);
    return lower(suffix(path)) == ".npy" ? npy_values(content, path, input) : content;
}

std::string as_npy(const std::string &values, const std::string &descr, const std::string &shape) {
    std::string header = cat("{'descr': '", descr, "', 'fortran_order': False, 'shape': ", shape, ", }");
    header += std::string(63 - (10 + header.size()) % 64, ' ') + "\n";  // the whole is a multiple of 64 bytes, as NumPy has it
    return cat("\x93NUMPY\x01", '\0', char(header.size() & 255), char(header.size() >> 8), header, values);
}
