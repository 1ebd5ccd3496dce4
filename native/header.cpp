#include "header.h"

#include <cstring>

namespace {

enum { SOF0 = 0xC0, SOF2 = 0xC2, DHT = 0xC4, SOI = 0xD8, SOS = 0xDA, DQT = 0xDB, DRI = 0xDD, APP0 = 0xE0, COM = 0xFE };

struct Segment {
    int marker;
    const uint8_t *payload;
    size_t length;

    bool starts_with(const char *name, size_t bytes) const { return length >= bytes && !memcmp(payload, name, bytes); }
};

bool known_frame(const Segment &frame) {
    if (frame.length < 6 || frame.payload[0] != 8) return false;
    const int components = frame.payload[5];
    return (components == 1 || components == 3 || components == 4) && frame.length == 6 + 3u * components;
}

bool known_tables(const Segment &tables) {
    size_t at = 0;
    while (at < tables.length) {
        const int precision = tables.payload[at] >> 4;
        if (precision > 1) return false;
        at += 1 + 64 * (precision + 1);
    }
    return at == tables.length;
}

// By what JpegImagePlugin of Pillow does with each kind.
Header application(const Segment &part) {
    if (part.marker == APP0 && part.starts_with("JFIF", 4)) return part.length >= 14 ? Header::plain : Header::other;
    if (part.marker == APP0 + 1) return Header::metadata;  // EXIF, XMP
    if (part.marker == APP0 + 2 && part.starts_with("MPF\0", 4)) return Header::other;  // several pictures
    if (part.marker == APP0 + 2 && part.starts_with("ICC_PROFILE\0", 12))
        return part.length >= 14 ? Header::plain : Header::other;
    if (part.marker == APP0 + 13 && part.starts_with("Photoshop 3.0\0", 14)) return Header::metadata;
    if (part.marker == APP0 + 14 && part.starts_with("Adobe", 5))
        return part.length >= 12 ? Header::plain : Header::other;
    return Header::plain;
}

}  // namespace

Header read_header(const uint8_t *data, size_t length) {
    if (length < 4 || data[0] != 0xFF || data[1] != SOI) return Header::other;
    Header found = Header::plain;
    bool framed = false;
    for (size_t at = 2; at + 4 <= length;) {
        const Segment segment{data[at + 1], data + at + 4, size_t(data[at + 2] << 8 | data[at + 3]) - 2};
        if (data[at] != 0xFF || segment.length > length - at - 4) return Header::other;  // also a length below 2
        switch (segment.marker) {
            case SOF0:
            case SOF2:
                if (framed || !known_frame(segment)) return Header::other;
                framed = true;
                break;
            case DQT:
                if (!known_tables(segment)) return Header::other;
                break;
            case SOS:
                return framed ? found : Header::other;
            case DHT:
            case DRI:
            case COM:
                break;
            default: {
                if (segment.marker < APP0 || segment.marker > APP0 + 15) return Header::other;
                const Header kind = application(segment);
                if (kind == Header::other) return kind;
                if (kind == Header::metadata) found = kind;
            }
        }
        at += 4 + segment.length;
    }
    return Header::other;
}
