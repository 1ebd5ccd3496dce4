"""The part of a page on what int8 costs each layer of a network, where the conversion measured it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ResNeSt.report import plots
from ResNeSt.report.data import LayerCost, LayerCosts
from ResNeSt.report.markup import figure, grid, section, table

SHOWN_LAYERS = 10


def layer_section(costs: LayerCosts) -> str:
    """The section."""
    layers = costs.layers
    kept = [layer for layer in layers if not layer.quantized]
    hollow = " Hollow marks are layers that were kept in floating point, and what int8 would cost them." if kept else ""
    series = _series(layers)
    drawn = [figure("Difference from fp32 along the network", plots.along("layers", series))] if series else []
    parts = [grid(*drawn, _costliest("Costliest in int8", [layer for layer in layers if layer.quantized]))]
    if kept:
        parts.append(_costliest("Kept in floating point: what int8 would cost", kept))
    return section(
        "Layers in int8",
        f"How far each layer's output is off fp32's on {costs.images:,} held-out tensors, relative to its length: "
        "by its own rounding alone, and in the int8 network, where what was rounded before it adds up. 1 % is a "
        f"signal-to-noise ratio of 40 dB.{hollow} All {len(layers):,} layers are in report.json.",
        *parts,
    )


def _series(layers: Sequence[LayerCost]) -> list[plots.Marks]:
    placed = list(enumerate(layers, start=1))
    whole = [(place, 100 * layer.together) for place, layer in placed if layer.together]
    alone = [(place, 100 * layer.alone) for place, layer in placed if layer.alone and layer.quantized]
    kept = [(place, 100 * layer.alone) for place, layer in placed if layer.alone and not layer.quantized]
    series = [
        plots.Marks("in the int8 network", whole, joined=True, hollow=False),
        plots.Marks("alone", alone, joined=False, hollow=False),
        plots.Marks("alone, kept in floating point", kept, joined=False, hollow=True),
    ]
    return [each for each in series if each.points]


def _costliest(caption: str, layers: Sequence[LayerCost]) -> str:
    """Those whose own rounding costs most, what is no number first."""
    worst = sorted(layers, key=lambda layer: math.inf if layer.alone is None else layer.alone, reverse=True)
    rows = [
        [layer.name, layer.operator, _percent(layer.alone), _decibels(layer.alone), _percent(layer.together)]
        for layer in worst[:SHOWN_LAYERS]
    ]
    return table(caption, ["layer", "type", "alone %", "alone dB", "in the int8 network %"], rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _decibels(share: float | None) -> str:
    """Signal to noise; there is none where nothing is lost."""
    return f"{-20 * math.log10(share):.1f}" if share else "-"
