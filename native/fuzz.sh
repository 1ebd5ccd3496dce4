#!/usr/bin/env bash
# Builds the fuzzer in a folder of its own and feeds it damaged copies of JPEG, .json, .txt and .npy files: bash native/fuzz.sh SECONDS FILE...
[ $# -ge 2 ] || {
    echo "bash native/fuzz.sh SECONDS FILE..." >&2
    exit 2
}
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
building=$(mktemp -d) || exit
trap 'rm -rf "$building"' EXIT
cmake -S "$here" -B "$building" -D SANITIZE=ON >"$building/log" 2>&1 && cmake --build "$building" >>"$building/log" 2>&1 || {
    cat "$building/log" >&2
    exit 1
}
"$building/fuzz" "$@"
