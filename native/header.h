// Whether the header of a JPEG file is one that Pillow reads without a doubt.
#pragma once

#include <cstddef>
#include <cstdint>

enum class Header { plain, metadata, other };

// Reads as far as the first scan. `plain` is a baseline or progressive file of 8 bits, grey or of three or four components,
// whose segments follow each other without a gap and hold nothing that Pillow could stumble over; `metadata` is the
// same with parts (EXIF, XMP, Photoshop's) that Pillow parses; `other` is any other file.
Header read_header(const uint8_t *data, size_t length);
