#!/usr/bin/env bash
# Holds the ATC and the ais_bench of this Ascend host to what is recorded of them, on the bundled demo. Needs an ONNX file of
# the demo model, made on any machine with PyTorch:
#   python resnest_pth2onnx.py --source=demo/resnest_demo-d78f3683.pth --target=resnest_demo.onnx
# and ends with 0 where everything is as recorded, 1 where something differs, 3 where a program is missing. It prints a line a
# fact, and bounds every command in time (ATC may take ten minutes a model); --tune adds AOE, which takes hours.
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -m tests.on_ascend "$@"
