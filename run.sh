#!/usr/bin/env bash
# The whole pipeline, with its set-up: images -> tensors -> ONNX -> compiled models -> top-1. `bash run.sh --help` lists the
# options; without any it runs on the bundled demo.
. "$(dirname -- "${BASH_SOURCE[0]}")/env.sh"
use_environment "$here/requirements/lock.txt" "$here/requirements.txt" || exit
bash "$here/native/build.sh" --once || : # without it Pillow makes the tensors, later
exec python -m ResNeSt.pipeline "$@"
