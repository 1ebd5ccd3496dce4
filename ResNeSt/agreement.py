"""How far two stages agree on the same images."""

from __future__ import annotations

import dataclasses
import os
from typing import Dict

import numpy as np

from ResNeSt.errors import PipelineError
from ResNeSt.files import PathLike
from ResNeSt.scoring import list_outputs, read_output


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Images compared, those with the same top-1 class, and the largest difference relative to the largest logit."""

    images: int
    same_top1: int
    difference: float


def agreement(summary: PathLike, reference: PathLike) -> Agreement:
    """Compares the outputs that two summary JSONs list, image by image.

    Raises PipelineError where they do not list the same images.
    """
    found, expected = _outputs(summary), _outputs(reference)
    if found.keys() != expected.keys():
        odd = sorted(found.keys() ^ expected.keys())
        raise PipelineError(f"{summary} and {reference} list different images, such as {odd[0]}; run both stages again")
    same, difference, largest = 0, 0.0, 0.0
    for name, path in found.items():
        ours, theirs = read_output(path), read_output(expected[name])
        if ours.shape != theirs.shape:
            raise PipelineError(f"{path}: {ours.size} values, {expected[name]} has {theirs.size}")
        same += int(ours.argmax() == theirs.argmax())
        difference = max(difference, float(np.abs(ours - theirs).max()))
        largest = max(largest, float(np.abs(theirs).max()))
    return Agreement(len(found), same, difference / largest if largest else difference)


def _outputs(summary: PathLike) -> Dict[str, str]:
    return {os.path.splitext(os.path.basename(path))[0]: path for path in list_outputs(summary)}
