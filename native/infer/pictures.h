// Photographs in a folder, and the labels file that says what they show.
#pragma once

#include <map>
#include <string>
#include <vector>

// Paths of the images of a folder, at any depth, in natural order; a line in `skipped` where others lie there.
std::vector<std::string> list_images(const std::string &folder, std::string &skipped);
bool is_picture(const std::string &path);
// The path of an image within the folder that it was found in.
std::string relative(const std::string &image, const std::string &folder);
// Class of every image of a labels file; raises Error, with the line, for what is none.
std::map<std::string, int> read_labels(const std::string &path);
std::map<std::string, int> labels_in(const std::string &text, const std::string &path);
// By which name each image stands in `truth`, if it does.
std::vector<std::string> keys_of(const std::vector<std::string> &paths, const std::string &folder,
                                 const std::map<std::string, int> &truth);
