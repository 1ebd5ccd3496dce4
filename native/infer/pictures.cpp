#include "pictures.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <sstream>

#include "files.h"

namespace fs = std::filesystem;

namespace {

const char *const BLANKS = " \t\r";
// Suffixes of the formats that Pillow 13 decodes (ResNeSt/images/listing.py): what counts as an image, decoded or not.
const std::set<std::string> SUFFIXES{
    ".apng", ".avif", ".avifs", ".blp", ".bmp", ".bw", ".cur", ".dcx", ".dds", ".dib", ".ftc", ".ftu", ".gbr", ".gif",
    ".icb", ".icns", ".ico", ".im", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx",
    ".mpo", ".msp", ".pbm", ".pcd", ".pcx", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".pxr", ".qoi", ".ras",
    ".rgb", ".rgba", ".sgi", ".tga", ".tif", ".tiff", ".vda", ".vst", ".webp", ".xbm", ".xpm"};
const std::set<std::string> OF_A_SYSTEM{"__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN", "System Volume Information"};

bool is_picture(const std::string &name) { return SUFFIXES.count(lower(suffix(name))); }

// A path as one name: n01/a.jpg becomes n01__a_jpg.
std::string whole_name(const std::string &path) {
    std::string name;
    for (const char letter : path) name += letter == '/' ? "__" : letter == '.' ? "_" : std::string(1, letter);
    return name;
}

std::string stripped(const std::string &text) {
    const size_t from = text.find_first_not_of(BLANKS);
    return from == std::string::npos ? "" : text.substr(from, text.find_last_not_of(BLANKS) - from + 1);
}

// What stands before the last blank, and behind it.
std::pair<std::string, std::string> last_field(const std::string &line) {
    const size_t cut = line.find_last_of(BLANKS);
    if (cut == std::string::npos) return {"", line};
    return {stripped(line.substr(0, cut)), line.substr(cut + 1)};
}

}  // namespace

std::vector<std::string> list_images(const std::string &folder) {
    if (!is_folder(folder)) throw Error(folder + ": no such folder; expected the folder that holds the images");
    std::vector<std::string> images;
    size_t skipped = 0;
    const fs::recursive_directory_iterator end;
    try {
        for (auto entry = fs::recursive_directory_iterator(folder, fs::directory_options::follow_directory_symlink); entry != end; ++entry) {
            const std::string path = entry->path(), name = base_name(path);
            const bool to_above = fs::is_symlink(path) && is_folder(path) && lies_in(entry->path().parent_path(), path);
            const bool passed_over = name[0] == '.' || OF_A_SYSTEM.count(name) || to_above;
            if (passed_over) entry.disable_recursion_pending();
            if (!passed_over && is_folder(path)) continue;
            if (passed_over || !is_picture(name))
                ++skipped;
            else
                images.push_back(path.substr(joined(folder, "").size()));
        }
    } catch (const fs::filesystem_error &error) {
        throw Error(cat(error.path1().string(), ": ", error.code().message()));
    }
    if (skipped) print_line(cat(folder, ": skipped ", skipped, " files or folders that are hidden or no pictures"));
    if (images.empty()) throw Error(folder + ": no image files in it");
    sort_naturally(images);
    return images;
}

std::map<std::string, int> labels_in(std::string text, const std::string &path) {
    if (text.compare(0, 3, "\xEF\xBB\xBF") == 0) text.erase(0, 3);
    for (size_t at = 0; at < text.size();)
        if (next_character(text, at) >> 10 == 0x37) throw Error(path + ": not UTF-8 text; expected lines of 'NAME CLASS'");
    for (size_t at = 0; at + 1 < text.size(); ++at)
        if (text[at] == '\r' && text[at + 1] != '\n') text[at] = '\n';
    struct Line {
        std::string where, name;
        int label;
    };
    std::vector<Line> lines;
    std::map<std::string, int> counts;  // of names up to the first dot
    std::set<std::string> bare;         // names without one
    std::istringstream stream(text);
    std::string line;
    for (size_t number = 1; std::getline(stream, line); ++number) {
        if ((line = stripped(line)).empty()) continue;
        const auto [full, label] = last_field(line);
        const auto [before, behind] = last_field(full);
        const std::string name = full.compare(0, 2, "./") == 0 ? full.substr(2) : full, where = cat(path, ": line ", number);
        const bool is_class = !label.empty() && label.size() <= 9 && label.find_first_not_of("0123456789") == std::string::npos;
        // "a.jpg 5 3" would be image "a" of class 3.
        if (name.empty() || !is_class || (is_picture(before) && !is_picture(name)))
            throw Error(cat(where, ": found '", line.substr(0, 80), "', expected a file name, a blank and a class number from 0"));
        lines.push_back({where, name, std::stoi(label)});
        ++counts[stem(name)];
        if (name == stem(name)) bare.insert(name);
    }
    if (lines.empty()) throw Error(path + ": holds no labels; expected a line 'NAME CLASS' for every image");
    std::map<std::string, int> labels;
    for (const Line &each : lines) {
        const std::string start = stem(each.name);
        const bool is_new = labels.emplace(counts[start] > 1 && !bare.count(start) ? whole_name(each.name) : start, each.label).second;
        if (!is_new)
            throw Error(cat(each.where, ": '", each.name, "' was labelled before (names count up to the first dot); remove one"));
    }
    return labels;
}

std::vector<std::string> keys_of(const std::vector<std::string> &images, const std::string &folder,
                                 const std::map<std::string, int> &truth) {
    std::map<std::string, int> counts;
    for (const std::string &image : images) ++counts[stem(image)];
    std::vector<std::string> keys;
    std::map<std::string, std::string> taken;
    for (const std::string &image : images) {
        const std::string whole = whole_name(image);
        keys.push_back(truth.count(whole) || counts[stem(image)] > 1 ? whole : stem(image));
        const auto [other, is_new] = taken.emplace(keys.back(), image);
        if (!is_new) throw Error(cat(folder, ": ", other->second, " and ", image, " both go by the label of ", keys.back(), "; rename one"));
    }
    return keys;
}
