"""Where two graphs part: the first node whose values differ although what it is made from agrees, and the worst nodes.

Values that go by one name in both graphs, with one shape, are compared. The first node is found by bisection, so that a
graph of n nodes takes about log n runs with one value kept each; the worst take a sweep over all, in portions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.compare.activations import Activations, OnnxActivations, open_activations
from ResNeSt.compare.agreement import ratio

PORTION = 256 << 20  # bytes of one graph's values that are kept at a time
WORST = 10
# Distances allowed. Float32 rounding stays far below the first; in int8 a sound network's attention is up to 0.25 off.
FLOAT_DISTANCE, INT8_DISTANCE = 1e-3, 0.3


class Layer(NamedTuple):
    """A node and how far its values are off: Euclidean distance relative to the expected values' length, and largest
    difference relative to the largest expected value.
    """

    node: str
    distance: float
    difference: float


@dataclasses.dataclass(frozen=True)
class Parting:
    """The first node that parts (None where the last one does not), the last one, the worst ten, and how many there
    are to compare.
    """

    first: Layer | None
    last: Layer
    worst: list[Layer]
    compared: int


class Layers:
    """Two graphs on the same images; `order` lists the nodes compared, by value, in topological order.

    Raises ArgumentError unless one of them is an ONNX file, PipelineError where they have no names in common.
    """

    def __init__(self, reference: Path, judged: Path, arch: str | None = None, ema: bool | None = None) -> None:
        self.reference, self.judged = (open_activations(path, arch, ema) for path in (reference, judged))
        graphs = [graph for graph in (self.judged, self.reference) if isinstance(graph, OnnxActivations)]
        if not graphs:
            raise ArgumentError(f"{judged}: --layers takes at least one .onnx; export the checkpoint first")
        self.is_quantized = any(graph.is_quantized for graph in graphs)
        self._graph = graphs[0]
        self._pairs = _match(self._graph, self.reference, self.judged)
        self.order = [value for value in self._graph.nodes if value in self._pairs]
        if not self.order:
            raise PipelineError(f"{judged}: no value has the name and shape of one of {reference}; nothing to compare")

    def measure(self, values: Sequence[str], images: np.ndarray) -> list[Layer]:
        """How far the nodes of these values are off on float32 images (N, 3, H, W), N small."""
        expected = self.reference.run([self._pairs[value][0] for value in values], images)
        actual = self.judged.run([self._pairs[value][1] for value in values], images)
        return [_layer(self._graph.nodes[value], *pair) for value, *pair in zip(values, actual, expected)]

    def part(self, images: np.ndarray, threshold: float) -> Parting:
        """Where the graphs part by a distance of more than `threshold`, on a few images (N, 3, H, W)."""
        known: dict[str, Layer] = {}

        def parted(value: str) -> bool:
            if value not in known:
                (known[value],) = self.measure([value], images)
            return not known[value].distance <= threshold  # NaN is parted

        first = find_first(self.order, self.feeders(), parted)
        return Parting(known[first] if first else None, known[self.order[-1]], self.worst(images), len(self.order))

    def feeders(self) -> dict[str, list[str]]:
        """For every value of `order` the nearest ones before it that are compared, too."""
        near: dict[str, dict[str, None]] = {}
        for value, sources in self._graph.feeders.items():
            near[value] = {
                source: None for name in sources for source in ([name] if name in self._pairs else near[name])
            }
        return {value: list(near[value]) for value in self.order}

    def worst(self, images: np.ndarray) -> list[Layer]:
        """The nodes that are furthest off, worst first."""
        layers = [layer for portion in self._portions(len(images)) for layer in self.measure(portion, images)]
        return sorted(layers, key=lambda layer: np.nan_to_num(layer.distance, nan=np.inf), reverse=True)[:WORST]

    def _portions(self, images: int) -> Iterator[list[str]]:
        portion: list[str] = []
        size = 0
        for value in self.order:
            portion.append(value)
            size += 4 * images * int(np.prod(self._graph.shapes[value]))
            if size >= PORTION:
                yield portion
                portion, size = [], 0
        if portion:
            yield portion


def _match(graph: Activations, reference: Activations, judged: Activations) -> dict[str, Sequence[str]]:
    """For every value of `graph`, one of the two, that both have: its name in the reference and in the judged."""
    pairs: dict[str, Sequence[str]] = {}
    for name, value in graph.names.items():
        if name in reference.names and name in judged.names and value not in pairs:
            pair = reference.names[name], judged.names[name]
            if reference.shapes[pair[0]] == judged.shapes[pair[1]]:
                pairs[value] = pair
    return pairs


def find_first(order: Sequence[str], feeders: Mapping[str, Sequence[str]], parted: Callable[[str], bool]) -> str | None:
    """A value that parted and whose feeders did not; None where the last one of `order` did not part.

    `order` is topological. Bisection finds where values that agree are followed by one that does not; where branches
    run side by side the values between may be another branch's, so the search goes on from a feeder that parted.
    """
    if not parted(order[-1]):
        return None
    line = list(order)
    while True:
        agreed, off = -1, len(line) - 1
        while off - agreed > 1:
            middle = (agreed + off) // 2
            agreed, off = (agreed, middle) if parted(line[middle]) else (middle, off)
        culprits = [feeder for feeder in feeders[line[off]] if parted(feeder)]
        if not culprits:
            return line[off]
        line = _up_to(culprits[0], order, feeders)


def _up_to(value: str, order: Sequence[str], feeders: Mapping[str, Sequence[str]]) -> list[str]:
    """`value` and all that it depends on, in topological order."""
    needed, waiting = {value}, [value]
    while waiting:
        for feeder in feeders[waiting.pop()]:
            if feeder not in needed:
                needed.add(feeder)
                waiting.append(feeder)
    return [name for name in order if name in needed]


def _layer(node: str, actual: np.ndarray, expected: np.ndarray) -> Layer:
    off = np.abs(actual - expected)
    return Layer(
        node=node,
        distance=ratio(float(np.linalg.norm(off)), float(np.linalg.norm(expected))),
        difference=ratio(float(off.max()), float(np.abs(expected).max())),
    )
