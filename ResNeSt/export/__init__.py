"""Stage 2, checkpoint -> ONNX: resnest_pth2onnx.py."""
