"""Checkpoints of other frameworks' ResNeSts, as NumPy arrays under the official names; no framework is imported.

Weights are one half of a trained network, the function is the other: these frameworks pool differently at the border,
so a checkpoint comes with the `pooling` that it was trained with (ResNeSt.models.pooling).
"""

from __future__ import annotations

import importlib
from typing import Callable, NamedTuple

import numpy as np

from ResNeSt.common.errors import PipelineError, library_text
from ResNeSt.common.files import PathLike
from ResNeSt.formats import content

Arrays = dict[str, np.ndarray]
FRAMEWORKS = {content.MINDSPORE: "mindspore", content.PICKLE: "paddle"}


class Foreign(NamedTuple):
    """A checkpoint: official parameter name -> array, and one of ResNeSt.models.pooling.POOLINGS."""

    state: Arrays
    pooling: str


def read(path: PathLike, kind: str) -> Foreign:
    """The checkpoint at `path`, whose kind is one of FRAMEWORKS.

    Entries that no name is known for keep theirs. Raises PipelineError where the file is damaged or something else.
    """
    framework = FRAMEWORKS[kind]
    reader: Callable[[PathLike], Foreign] = importlib.import_module(f"ResNeSt.formats.{framework}").read
    try:
        foreign = reader(path)
        return Foreign(_completed(foreign.state), foreign.pooling)
    except PipelineError:
        raise
    except Exception as error:  # an unpickler raises nearly anything on damaged files
        raise PipelineError(
            f"{path}: not a whole {framework} checkpoint ({library_text(error)}); copy it again"
        ) from None


def _completed(state: Arrays) -> Arrays:
    """With the biases that the official names have on top."""
    completed = dict(state)
    for name, value in state.items():
        if name.endswith((".fc1.weight", ".fc2.weight")):
            completed.setdefault(name.replace(".weight", ".bias"), np.zeros(value.shape[0], value.dtype))
    return completed
