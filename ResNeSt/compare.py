"""Agreement between two stages on the same images: models, folders of saved outputs, or summaries of a client.

    python -m ResNeSt.compare REFERENCE JUDGED --input prep_dataset
    python -m ResNeSt.compare bench/result_bs1_summary.json bench/result_bs8_summary.json
    python -m ResNeSt.compare --layers resnest50.onnx resnest50_int8.onnx --input prep_dataset

The last form finds the first node at which two graphs part. The exit code is 1 where the agreement is below what is
asked for.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Optional, Sequence

from ResNeSt.agreement import Agreement, Flip, Tolerance, agreement
from ResNeSt.arguments import positive
from ResNeSt.errors import ArgumentError, PipelineError, run
from ResNeSt.files import write_json
from ResNeSt.layers import FLOAT_DISTANCE, INT8_DISTANCE, Layer, Layers
from ResNeSt.sides import TensorFolder, open_pair
from ResNeSt.tables import table
from ResNeSt.tensors import spread

MIN_AGREEMENT = 0.95
LAYER_IMAGES = 8
SHOWN_FLIPS = 10


def main() -> None:
    """Command line."""
    options = _parser().parse_args()
    if options.layers:
        _compare_layers(options)
    else:
        _compare_outputs(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ResNeSt.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    side = ".pth, .safetensors, .ckpt, .pdparams, .onnx, .xml, .om, a folder of outputs, or a client's summary"
    parser.add_argument("reference", type=Path, metavar="REFERENCE", help=side)
    parser.add_argument("judged", type=Path, metavar="JUDGED", help="the same; with --layers .onnx, or one checkpoint")
    parser.add_argument("--input", type=Path, metavar="DIR", help="tensors of stage 1, for models")
    parser.add_argument("--count", type=positive, metavar="N", help="images, at even distances [all; --layers: 8]")
    parser.add_argument("--arch", metavar="NAME", help="the network of a checkpoint whose file name does not tell it")
    parser.add_argument("--min-agreement", type=float, metavar="SHARE", help=f"with the same top-1 [{MIN_AGREEMENT}]")
    parser.add_argument(
        "--max-difference",
        type=float,
        metavar="D",
        help="of a logit, relative to the largest [any]; --layers: a node's relative distance [0.001; 0.3 for int8]",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the figures and every flipped image")
    parser.add_argument("--layers", action="store_true", help="finds the first node at which two graphs part")
    return parser


def _compare_outputs(options: argparse.Namespace) -> None:
    found = compare(options.reference, options.judged, options.input, options.count, options.arch)
    print(_table(options.judged, found))
    if found.flips:
        print(f"\n{_flip_table(found.flips[:SHOWN_FLIPS])}")
    if len(found.flips) > SHOWN_FLIPS:
        print(f"and {len(found.flips) - SHOWN_FLIPS} more; --json FILE writes all")
    if options.json:
        sides = {"reference": str(options.reference), "judged": str(options.judged)}
        write_json(options.json, {**sides, **found.figures(), "flips": [flip._asdict() for flip in found.flips]})
    agreement_wanted = MIN_AGREEMENT if options.min_agreement is None else options.min_agreement
    complaint = Tolerance(agreement_wanted, options.max_difference).complaint(found)
    if complaint:
        raise PipelineError(f"{options.judged}, compared with {options.reference}: {complaint}")


def _compare_layers(options: argparse.Namespace) -> None:
    if options.input is None or options.min_agreement is not None:
        raise ArgumentError("--layers takes --input DIR, and --max-difference instead of --min-agreement")
    layers = Layers(options.reference, options.judged, options.arch)
    usual = INT8_DISTANCE if layers.is_quantized else FLOAT_DISTANCE
    threshold = usual if options.max_difference is None else options.max_difference
    spec = layers.judged.input
    folder = TensorFolder(options.input, spec)
    names = spread(list(folder.files), options.count or LAYER_IMAGES)
    found = layers.part(folder.adapter(options.judged, spec)(folder.load(names)), threshold)
    print(f"{found.compared} nodes compared on {len(names)} images; furthest off:\n\n{_layer_table(found.worst)}")
    if options.json:
        sides = {"reference": str(options.reference), "judged": str(options.judged)}
        first = found.first._asdict() if found.first else None
        worst = [layer._asdict() for layer in found.worst]
        figures = {"images": len(names), "compared": found.compared, "threshold": threshold}
        write_json(options.json, {**sides, **figures, "first": first, "worst": worst})
    if found.first is None:
        print(
            f"\nthe graphs do not part: {found.last.node}, the last node, is off by a relative distance of "
            f"{found.last.distance:.1e}, allowed {threshold:g}"
        )
    else:
        raise PipelineError(
            f"{options.judged} parts from {options.reference} at {found.first.node}: its values are off by a "
            f"relative distance of {found.first.distance:.1e} (allowed {threshold:g}), the nodes before it agree"
        )


def compare(
    reference: Path,
    judged: Path,
    source: Optional[Path] = None,
    count: Optional[int] = None,
    arch: Optional[str] = None,
) -> Agreement:
    """How far `judged` agrees with `reference`, image by image; see ResNeSt.sides.open_pair for what they may be.

    Raises what open_pair raises, and PipelineError where the sides have different numbers of classes or logits that
    are no numbers.
    """
    total = Agreement()
    pair = open_pair(reference, judged, source, count, arch)
    for chunk in pair.chunks:
        expected, found = pair.reference(chunk), pair.judged(chunk)
        if found.shape != expected.shape:
            raise PipelineError(
                f"{judged}: {found.shape[1]} values an image, {reference} has {expected.shape[1]}; compare models of "
                "the same classes"
            )
        total += agreement(chunk.names, found, expected)
    return total


def _table(judged: Path, found: Agreement) -> str:
    head = ["judged", "images", "same top-1", "same top-5", "cosine", "distance", "largest difference", "of logits"]
    row = [
        judged.name,
        str(found.images),
        f"{100 * found.top1:.2f} %",
        f"{100 * found.top5:.2f} %",
        f"{found.cosine:.6f}",
        f"{found.distance:.1e}",
        f"{found.largest_difference:.1e}",
        f"{found.difference:.1e}",
    ]
    return table(head, [row])


def _flip_table(flips: Sequence[Flip]) -> str:
    head = ["flipped image", "reference", "judged", "reference's margin", "judged's margin"]
    rows = [
        [flip.image, str(flip.expected), str(flip.found), f"{flip.expected_margin:.2e}", f"{flip.found_margin:.2e}"]
        for flip in flips
    ]
    return table(head, rows)


def _layer_table(layers: Sequence[Layer]) -> str:
    rows = [[layer.node, f"{layer.distance:.1e}", f"{layer.difference:.1e}"] for layer in layers]
    return table(["node", "distance", "largest difference"], rows)


if __name__ == "__main__":
    run(main)
