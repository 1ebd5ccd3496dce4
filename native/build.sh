#!/usr/bin/env bash
# Builds the library that makes crops of JPEG files, and the program resnest_infer (docs/native.md), into native/build, or
# into the folder given; what is there is replaced. Without a compiler, CMake or libjpeg-turbo's headers it says so in one
# line and ends with 1; everything in Python works without. `--once`, as run.sh calls it: the library alone, not where one
# of these sources is there, and no second try with sources that could not be compiled.
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
once=
[ "${1:-}" = --once ] && once=yes && shift

refuse() {
    echo "native/: not built, Pillow makes all crops: $1" >&2
    exit 1
}

case "${1:-}" in -*) refuse "$1 is no option; bash native/build.sh [--once] [FOLDER]" ;; esac
folder="${1:-$here/build}"
read -ra compiler <<<"${CXX:-c++}" # with options or a launcher, as CMake takes it

# As in ResNeSt/images/native.py: a library of other sources is not used.
digest=$(cd "$here" && LC_ALL=C && cat ./*.cpp ./*.h ./*.inc CMakeLists.txt | sha256sum | cut -c 1-16)
[ "$once" ] && [ -e "$folder/crops-$digest.so" ] && exit 0
[ "$once" ] && [ -e "$folder/failed-$digest" ] && refuse "see $folder/build.log; bash native/build.sh tries again"
for program in "${compiler[0]}" cmake; do
    command -v "$program" >/dev/null || refuse "no $program on PATH"
done
# CMake finds them in the places of CMAKE_PREFIX_PATH, too.
[ "${CMAKE_PREFIX_PATH:-}" ] ||
    printf '#include <cstdio>\n#include <jpeglib.h>\n' | "${compiler[@]}" -x c++ -E - >/dev/null 2>&1 ||
    refuse "${compiler[*]} does not find jpeglib.h; install libjpeg-turbo's headers (libjpeg-dev, libjpeg-turbo-devel)"
# Of OpenVINO's wheel; without one CMake looks where packages of the system lie.
infer=(-D INFER=ON)
for python in "${PYTHON:-python}" python3 "$here/../.venv/bin/python"; do
    [ "$once" ] || [ "${OpenVINO_DIR:-}" ] && break
    OpenVINO_DIR=$("$python" -c 'from openvino.package_utils import get_cmake_path as path; print(path())' 2>/dev/null)
done
[ "${OpenVINO_DIR:-}" ] && infer+=(-D OpenVINO_DIR="$OpenVINO_DIR")
[ "$once" ] && infer=()
mkdir -p "$folder" 2>/dev/null && building=$(mktemp -d "$folder/building-XXXXXX" 2>/dev/null) || refuse "cannot write $folder"
trap 'rm -rf "$building"' EXIT
# Ctrl-C ends this by the signal, so that run.sh ends with it; Ninja and make end with a status as if it were a failure.
trap 'trap - INT; kill -INT $$' INT
generator="Unix Makefiles"
command -v ninja >/dev/null && generator=Ninja
echo "building native/ (seconds)"
{
    cmake -G "$generator" -S "$here" -B "$building" "${infer[@]}" && cmake --build "$building" --target crops && [ -s "$building/crops.so" ]
} >"$folder/build.log" 2>&1 || {
    touch "$folder/failed-$digest"
    refuse "it could not be compiled, see $folder/build.log"
}
# A digest at its end, by which native.py tells that it is whole.
seal=$(sha256sum <"$building/crops.so" | cut -c 1-16)
printf '\n%s\n' "$seal" >>"$building/crops.so" && mv "$building/crops.so" "$folder/crops-$digest.so" ||
    refuse "cannot write $folder"
# Those of other sources, and what killed builds left.
find "$folder" -maxdepth 1 \( -name 'crops-*.so' ! -name "crops-$digest.so" -o -name 'failed-*' -o -name build.log \) -delete
find "$folder" -maxdepth 1 -name 'building-*' -mmin +60 -exec rm -rf {} +
[ "$once" ] && exit 0
cmake --build "$building" --target resnest_infer >"$folder/build.log" 2>&1 && mv "$building/resnest_infer" "$folder/resnest_infer" || {
    echo "native/: the library is built, resnest_infer could not be, see $folder/build.log" >&2
    exit 1
}
rm "$folder/build.log"
grep -q '^OpenVINO_DIR:.*=/' "$building/CMakeCache.txt" && engines="OpenVINO (.xml) and AscendCL (.om)" ||
    engines="AscendCL (.om) alone; OpenVINO is not found: pip install openvino, and PYTHON=<that Python> bash native/build.sh"
echo "$folder/resnest_infer runs $engines"
