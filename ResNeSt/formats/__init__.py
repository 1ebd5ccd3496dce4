"""Files of other programs, read without them: ONNX, .om, checkpoints of MindSpore and Paddle, protobuf below."""
