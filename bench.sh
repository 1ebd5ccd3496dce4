#!/usr/bin/env bash
# Stage 4: accuracy and pure-loop speed of the compiled models, a row per batch size, e.g. `bash bench.sh 1,4,8 310P3`.
# Relative paths are those of the caller; --help lists the options.
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/env.sh" || exit
run_module ResNeSt.bench "$@"
