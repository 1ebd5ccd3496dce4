"""Exact rewrites of the network for deployment, one a file: the same function in operators that compile well.

Each takes a loaded network in eval mode and changes it in place.
"""

from __future__ import annotations

from ResNeSt.export.rewrites.dense_splits import dense_splits
from ResNeSt.export.rewrites.fold_batch_norm import fold_batch_norm
from ResNeSt.export.rewrites.sigmoid_attention import sigmoid_attention
from ResNeSt.models.resnest import ResNeSt

# In this order: each works on what the ones before it left.
REWRITES = (fold_batch_norm, sigmoid_attention, dense_splits)


def deploy(model: ResNeSt) -> ResNeSt:
    """Applies every rewrite to `model` and returns it."""
    for rewrite in REWRITES:
        rewrite(model)
    return model
