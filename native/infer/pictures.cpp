#include "pictures.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <sys/stat.h>

#include "files.h"

namespace fs = std::filesystem;

namespace {

constexpr size_t LONGEST_NAME = 200, SKIPPED_SHOWN = 3;
const char *const BLANKS = " \t";
// Suffixes of the formats that Pillow 13 decodes (ResNeSt/images/listing.py): what counts as an image, decoded or not.
const std::set<std::string> SUFFIXES{
    ".apng", ".avif", ".avifs", ".blp", ".bmp", ".bw", ".cur", ".dcx", ".dds", ".dib", ".ftc", ".ftu", ".gbr", ".gif",
    ".icb", ".icns", ".ico", ".im", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx",
    ".mpo", ".msp", ".pbm", ".pcd", ".pcx", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".pxr", ".qoi", ".ras",
    ".rgb", ".rgba", ".sgi", ".tga", ".tif", ".tiff", ".vda", ".vst", ".webp", ".xbm", ".xpm"};
const std::set<std::string> OF_A_SYSTEM{"__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN", "System Volume Information"};

using Skipped = std::map<std::string, std::vector<std::string>>;  // paths by why they do not count
using Folder = std::pair<dev_t, ino_t>;

void walk(const std::string &folder, std::vector<Folder> above, std::vector<std::string> &images, Skipped &skipped) {
    struct stat status;
    if (::stat(folder.c_str(), &status) != 0) fail_by_errno(folder);
    const Folder here{status.st_dev, status.st_ino};
    if (std::find(above.begin(), above.end(), here) != above.end()) {
        skipped["linked to a folder that they lie in"].push_back(folder);
        return;
    }
    above.push_back(here);
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; entry != end; entry.increment(error)) {
        const std::string name = entry->path().filename(), path = joined(folder, name);
        if (name[0] == '.')
            skipped["hidden"].push_back(path);
        else if (OF_A_SYSTEM.count(name))
            skipped["made by a system"].push_back(path);
        else if (is_folder(path))
            walk(path, above, images, skipped);
        else if (is_picture(name))
            images.push_back(path);
        else
            skipped["with no suffix of a picture"].push_back(path);
    }
    if (error) throw Error(folder + ": " + error.message());
}

std::string told(const std::string &folder, const Skipped &skipped) {
    std::string text;
    for (const auto &[reason, paths] : skipped) {
        std::vector<std::string> names;
        for (const std::string &path : paths) names.push_back(relative(path, folder));
        std::sort(names.begin(), names.end(),
                  [](const auto &a, const auto &b) { return natural_key(a) < natural_key(b); });
        std::string some;
        for (size_t number = 0; number < std::min(SKIPPED_SHOWN, names.size()); ++number) some += (number ? ", " : "") + names[number];
        text += (text.empty() ? folder + ": skipped " : ", ") + std::to_string(paths.size()) + " " + reason + " (" + some +
                (names.size() > SKIPPED_SHOWN ? ", ..." : "") + ")";
    }
    return text;
}

std::string whole_name(const std::string &path) {
    std::string name;
    for (const char letter : path) name += letter == '/' ? "__" : letter == '.' ? "_" : std::string(1, letter);
    if (name.size() <= LONGEST_NAME) return name;
    size_t from = name.size() - LONGEST_NAME;
    while (from < name.size() && (name[from] & 0xC0) == 0x80) ++from;
    return name.substr(from) + "-" + hex_sha256(path).substr(0, 16);
}

std::vector<std::string> distinct_names(const std::vector<std::string> &paths) {
    std::map<std::string, int> counts;
    for (const std::string &path : paths) ++counts[stem(path)];
    std::vector<std::string> names;
    std::map<std::string, std::string> taken;
    for (const std::string &path : paths) {
        names.push_back(counts[stem(path)] == 1 ? base_name(path) : whole_name(path));
        const auto [other, is_new] = taken.emplace(stem(names.back()), path);
        if (!is_new) throw Error(other->second + " and " + path + " would both be called " + other->first + "; rename one");
    }
    return names;
}

std::string stripped(const std::string &text, const char *of) {
    const size_t from = text.find_first_not_of(of);
    return from == std::string::npos ? "" : text.substr(from, text.find_last_not_of(of) - from + 1);
}

// What stands before the last blank, and behind it.
std::pair<std::string, std::string> last_field(const std::string &line) {
    const size_t cut = line.find_last_of(BLANKS);
    if (cut == std::string::npos) return {"", line};
    return {stripped(line.substr(0, cut), BLANKS), line.substr(cut + 1)};
}

bool is_class(const std::string &text) {
    return !text.empty() && text.size() <= 9 && text.find_first_not_of("0123456789") == std::string::npos;
}

// Whether a line is one of a CSV file: a name in quotes or before a comma.
bool is_of_csv(const std::string &name, const std::string &label) {
    const std::string bare = stripped(name, " \t,;");
    const bool in_quotes = bare.size() > 1 && (bare[0] == '"' || bare[0] == '\'') && bare.back() == bare[0];
    const size_t comma = label.find_last_of(",;");
    const bool behind_comma = name.empty() && comma != std::string::npos && is_class(label.substr(comma + 1));
    return behind_comma || (is_class(label) && (in_quotes || (!name.empty() && std::strchr(",;", name.back()))));
}

std::pair<std::string, int> parse(const std::string &line, const std::string &where) {
    const auto [name, label] = last_field(stripped(line, BLANKS));
    const std::string found = where + ": found '" + stripped(line, " \t\r\n").substr(0, 80) + "'";
    const std::string number = stripped(label, "\r");
    if (is_of_csv(name, number))
        throw Error(found + ", a name in quotes or before a comma; make a labels file of a CSV by `python -m ResNeSt.labels csv`");
    if (name.empty() || !is_class(number))
        throw Error(found + ", expected a file name, a blank and a class number from 0");
    const auto [before, behind] = last_field(name);
    if (is_picture(before) && !is_picture(name))
        throw Error(found + ", with '" + behind + "' between the name and the class; expected the class alone");
    return {name.compare(0, 2, "./") == 0 ? name.substr(2) : name, std::stoi(number)};
}

}  // namespace

bool is_picture(const std::string &path) {
    const std::string name = base_name(path);
    const size_t dot = name.rfind('.');
    return dot != std::string::npos && dot > 0 && SUFFIXES.count(lower(name.substr(dot)));
}

std::vector<std::string> list_images(const std::string &folder, std::string &skipped) {
    if (!is_folder(folder)) throw Error(folder + ": no such folder; expected the folder that holds the images");
    std::vector<std::string> images;
    Skipped others;
    walk(folder, {}, images, others);
    skipped = told(folder, others);
    if (images.empty()) throw Error(folder + ": no image files in it");
    std::vector<std::pair<std::string, std::string>> keyed;
    for (std::string &image : images) keyed.emplace_back(natural_key(image), std::move(image));
    std::sort(keyed.begin(), keyed.end());
    images.clear();
    for (auto &[key, image] : keyed) images.push_back(std::move(image));
    return images;
}

std::string relative(const std::string &image, const std::string &folder) {
    const std::string start = joined(folder, "");
    return image.compare(0, start.size(), start) == 0 ? image.substr(start.size()) : image;
}

std::map<std::string, int> labels_in(const std::string &text, const std::string &path) {
    const std::string content = text.compare(0, 3, "\xEF\xBB\xBF") == 0 ? text.substr(3) : text;
    if (!is_utf8(content)) throw Error(path + ": not UTF-8 text; expected lines of 'NAME CLASS'");
    struct Line {
        std::string name;
        int label;
        size_t number;
    };
    std::vector<Line> lines;
    std::map<std::string, int> counts;
    std::set<std::string> bare;
    size_t number = 0;
    for (size_t from = 0; from <= content.size(); ++number) {
        // Python ends lines at \n, \r\n and \r.
        const size_t end = std::min(content.find_first_of("\r\n", from), content.size());
        const std::string line = content.substr(from, end - from);
        from = end + (content.compare(end, 2, "\r\n") == 0 ? 2 : 1);
        if (stripped(line, BLANKS).empty()) continue;
        const auto [name, label] = parse(line, path + ": line " + std::to_string(number + 1));
        lines.push_back({name, label, number + 1});
        ++counts[stem(name)];
        if (name == stem(name)) bare.insert(name);
    }
    if (lines.empty()) throw Error(path + ": holds no labels; expected a line 'NAME CLASS' for every image");
    std::map<std::string, int> labels;
    std::map<std::string, size_t> first;
    for (const Line &line : lines) {
        const std::string start = stem(line.name);
        const std::string key = counts[start] > 1 && !bare.count(start) ? whole_name(line.name) : start;
        const auto [earlier, is_new] = first.emplace(key, line.number);
        if (!is_new)
            throw Error(path + ": line " + std::to_string(line.number) + ": image '" + line.name +
                        "' was already labelled in line " + std::to_string(earlier->second) + " as class " +
                        std::to_string(labels[key]) + ", here " + std::to_string(line.label) +
                        " (names count up to the first dot); remove one of them");
        labels[key] = line.label;
    }
    return labels;
}

std::map<std::string, int> read_labels(const std::string &path) { return labels_in(read_file(path), path); }

std::vector<std::string> keys_of(const std::vector<std::string> &paths, const std::string &folder,
                                 const std::map<std::string, int> &truth) {
    const std::vector<std::string> names = distinct_names(paths);
    std::vector<std::string> keys;
    std::map<std::string, std::string> taken;
    for (size_t number = 0; number < paths.size(); ++number) {
        const std::string whole = whole_name(paths[number]);
        keys.push_back(truth.count(whole) ? whole : stem(names[number]));
        const auto [other, is_new] = taken.emplace(keys.back(), paths[number]);
        if (!is_new)
            throw Error(folder + ": " + other->second + " and " + paths[number] + " both go by the label of " + keys.back() +
                        "; rename one");
    }
    return keys;
}
