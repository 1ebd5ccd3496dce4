#!/usr/bin/env bash
# The whole pipeline, with its set-up: images -> tensors -> ONNX -> compiled models -> top-1. `bash run.sh --help` lists the
# options; without any it runs on the bundled demo.
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/env.sh" || exit
# What the set-up says is no part of the result: with --json - stdout is the JSON's alone.
if : >&2; then exec 3>&2; else exec 3>/dev/null; fi # a shell whose exec fails is at its end
case " $* " in *" --quiet "*) exec 3>/dev/null ;; esac
use_environment "$here/requirements/lock.txt" "$here/requirements.txt" >&3 || exit
bash "$here/native/build.sh" --once >&3 || : # without it Pillow makes the tensors, later
exec python -m ResNeSt.pipeline "$@" 3>&-
