// Photographs in a folder, and the labels that say what they show.
#pragma once

#include <map>
#include <string>
#include <vector>

// Paths within `folder` of its images, at any depth, in natural order; prints how many other files lie there.
std::vector<std::string> list_images(const std::string &folder);
// Class of every image of the text of a labels file, by its name up to the first dot, or by its whole path where several
// share that; raises Error, with the line, for what is none.
std::map<std::string, int> labels_in(std::string text, const std::string &path);
// By which name each image stands in `truth`, if it does.
std::vector<std::string> keys_of(const std::vector<std::string> &images, const std::string &folder,
                                 const std::map<std::string, int> &truth);
