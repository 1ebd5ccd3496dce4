#!/usr/bin/env bash
# Stage 3: .onnx -> simplified .onnx -> a compiled model per batch size, e.g. `bash convert.sh 1,4,8 310P3`.
# Relative paths are those of the caller; --help lists the options.
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/env.sh" || exit
run_module ResNeSt.convert "$@"
