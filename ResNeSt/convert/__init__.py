"""Stage 3, .onnx -> simplified .onnx -> a compiled model per batch size: convert.sh."""
