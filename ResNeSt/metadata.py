"""What a model file says of itself: the keys that travel from the export through every later stage."""

from __future__ import annotations

import json
from typing import Dict

from ResNeSt.cards import Card

# In ONNX metadata_props the keys carry this prefix; in OpenVINO's rt_info they are a section of this name.
SECTION = "resnest"


def describe(card: Card, size: int, weights: str) -> Dict[str, str]:
    """Metadata of a model of `card` at `size` pixels; `weights` says where its weights come from."""
    return {
        "model": card.name,
        "size": str(size),
        "recipe": card.recipe,
        "mean": json.dumps(card.mean),
        "std": json.dumps(card.std),
        "classes": str(card.classes),
        "weights": weights,
    }
