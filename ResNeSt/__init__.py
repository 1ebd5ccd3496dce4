"""ResNeSt, offline: PyTorch checkpoint -> ONNX -> compiled model -> ImageNet score."""

from ResNeSt.common import telemetry

__version__ = "0.1.0"

# Before any module of this package can import a runtime that reports its use.
telemetry.refuse()
