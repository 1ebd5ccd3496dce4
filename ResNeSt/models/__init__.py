"""The networks: `create_model(name)` builds any architecture that has a weight card."""

from ResNeSt.models.resnest import ResNeSt, SplitAttention, create_model

__all__ = ["ResNeSt", "SplitAttention", "create_model"]
