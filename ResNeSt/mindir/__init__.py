"""ONNX -> MINDIR, MindSpore's file format: `python -m ResNeSt.mindir`."""
