"""Libraries that are measured beside this project, where they are installed; none of them is needed by it."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any


def available(name: str, module: str) -> bool:
    """Whether a peer can be imported; says so where it cannot."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(f"{name} is missing ({error}): pip install -r requirements/bench.txt")
        return False
    return True


@functools.cache
def operators_of_torchvision() -> Any:
    """Declares torchvision's compiled operators, so that its Python part loads beside a CPU build of torch."""
    import torch

    declare: Callable[[str, str], Any] = torch.library.Library
    library = declare("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    return library


def transforms() -> ModuleType:
    """torchvision.transforms."""
    operators_of_torchvision()
    return importlib.import_module("torchvision.transforms")
