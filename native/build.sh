#!/usr/bin/env bash
# Builds the library that makes crops of JPEG files (docs/native.md) into native/build, or into the folder given. Without a
# compiler, CMake or libjpeg-turbo's headers it says so in one line and ends with 1; everything works without the library.
# `--once`, as run.sh calls it: no second try with sources that could not be compiled.
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
once=
[ "${1:-}" = --once ] && once=yes && shift
folder="${1:-$here/build}"
compiler="${CXX:-c++}"

refuse() {
    echo "native/: not built, Pillow makes all crops: $1" >&2
    exit 1
}

# As in ResNeSt/images/native.py: a library of other sources is not used.
digest=$(cd "$here" && LC_ALL=C && cat ./*.cpp ./*.h ./*.inc CMakeLists.txt | sha256sum | cut -c 1-16)
[ -e "$folder/crops-$digest.so" ] && exit 0
[ "$once" ] && [ -e "$folder/failed-$digest" ] && refuse "see $folder/build.log; bash native/build.sh tries again"
for program in "$compiler" cmake; do
    command -v "$program" >/dev/null || refuse "no $program on PATH"
done
printf '#include <cstdio>\n#include <jpeglib.h>\n' | "$compiler" -x c++ -E - >/dev/null 2>&1 ||
    refuse "$compiler does not find jpeglib.h; install libjpeg-turbo's headers (libjpeg-dev, libjpeg-turbo-devel)"
mkdir -p "$folder" 2>/dev/null && building=$(mktemp -d "$folder/building-XXXXXX" 2>/dev/null) || refuse "cannot write $folder"
trap 'rm -rf "$building"' EXIT
command -v ninja >/dev/null && export CMAKE_GENERATOR="${CMAKE_GENERATOR:-Ninja}"
echo "building native/ (seconds)"
{
    timeout 60 cmake -S "$here" -B "$building" && timeout 120 cmake --build "$building"
} >"$folder/build.log" 2>&1 || {
    touch "$folder/failed-$digest"
    refuse "it could not be compiled, see $folder/build.log"
}
mv "$building/crops.so" "$folder/crops-$digest.so"
# Those of other sources, and what killed builds left.
find "$folder" -maxdepth 1 \( -name 'crops-*.so' ! -name "crops-$digest.so" -o -name 'failed-*' -o -name build.log \) -delete
find "$folder" -maxdepth 1 -name 'building-*' -mmin +60 -exec rm -rf {} +
