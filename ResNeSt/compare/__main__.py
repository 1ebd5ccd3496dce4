"""Agreement between two stages on the same images: models, folders of saved outputs, or summaries of a client.

With --layers it finds the first node at which two graphs part. The exit code is 1 where the agreement is below what is
asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ResNeSt.common.arguments import Parser, check_share, positive, write_result
from ResNeSt.common.errors import ArgumentError, PipelineError, run
from ResNeSt.common.flags import take
from ResNeSt.common.progress import remark
from ResNeSt.common.tables import table
from ResNeSt.compare.agreement import Agreement, Flip, Tolerance
from ResNeSt.compare.pairs import compare
from ResNeSt.compare.parting import FLOAT_DISTANCE, INT8_DISTANCE, Layer, Layers
from ResNeSt.engines.tensor_batches import TensorFolder
from ResNeSt.tensors.folder import spread

MIN_AGREEMENT = 0.95
LAYER_IMAGES = 8
SHOWN_FLIPS = 10


def main() -> None:
    """Command line."""
    options = make_parser().parse_args()
    check_share("--min-agreement", options.min_agreement)
    if options.max_difference is not None and not options.max_difference >= 0:
        raise ArgumentError(f"--max-difference {options.max_difference:g}, expected a number from 0")
    if options.layers:
        _compare_layers(options)
    else:
        _compare_outputs(options)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m ResNeSt.compare",
        description=__doc__,
        example="python -m ResNeSt.compare work/resnest_demo/resnest_demo.onnx work/resnest_demo/resnest_demo_bs4.xml "
        "--tensors work/resnest_demo/prep_dataset",
    )
    side = ".pth, .safetensors, .ckpt, .pdparams, .onnx, .xml, .param, .om, a folder of outputs, or a client's summary"
    parser.reads("reference", type=Path, metavar="REFERENCE", help=side)
    parser.reads("judged", type=Path, metavar="JUDGED", help="the same; with --layers .onnx, or one checkpoint")
    take(parser, "tensors", type=Path, note="none; models need them", old=["--input"])
    parser.add_argument(
        "--count", type=positive, metavar="N", help="images to compare, at even distances [all; --layers: 8]"
    )
    take(parser, "arch", note="as the checkpoint tells")
    take(parser, "ema")
    take(parser, "min-agreement", note=str(MIN_AGREEMENT))
    parser.add_argument(
        "--max-difference",
        type=float,
        metavar="D",
        help="largest difference of a logit, relative to the largest logit [any]; --layers: a node's relative distance "
        "[0.001; 0.3 for int8]",
    )
    parser.add_argument("--layers", action="store_true", help="finds the first node at which two graphs part")
    take(parser, "threads")
    return parser


def _compare_outputs(options: argparse.Namespace) -> None:
    notes: list[str] = []
    sides_of = (options.reference, options.judged, options.tensors, options.count, options.arch)
    agreement = compare(*sides_of, notes.append, options.ema)
    print(_table(options.judged, agreement))
    for note in notes:
        remark(note)
    if agreement.flips:
        print(f"\n{_flip_table(agreement.flips[:SHOWN_FLIPS])}")
    if len(agreement.flips) > SHOWN_FLIPS:
        print(f"and {len(agreement.flips) - SHOWN_FLIPS} more; --json FILE writes all")
    told = {"reference": options.reference, "judged": options.judged, "notes": notes}
    flips = [flip._asdict() for flip in agreement.flips]
    write_result(options, {**told, **agreement.figures(), "flips": flips})
    agreement_wanted = MIN_AGREEMENT if options.min_agreement is None else options.min_agreement
    complaint = Tolerance(agreement_wanted, options.max_difference).complaint(agreement)
    if complaint:
        raise PipelineError(f"{options.judged}, compared with {options.reference}: {complaint}")


def _compare_layers(options: argparse.Namespace) -> None:
    if options.tensors is None or options.min_agreement is not None:
        raise ArgumentError("--layers takes --tensors DIR, and --max-difference instead of --min-agreement")
    layers = Layers(options.reference, options.judged, options.arch, options.ema)
    usual = INT8_DISTANCE if layers.is_quantized else FLOAT_DISTANCE
    threshold = usual if options.max_difference is None else options.max_difference
    spec = layers.judged.input
    folder = TensorFolder(options.tensors, spec)
    names = spread(list(folder.files), options.count or LAYER_IMAGES)
    parting = layers.part(folder.adapter(options.judged, spec)(folder.load(names)), threshold)
    print(f"{parting.compared} nodes compared on {len(names)} images; furthest off:\n\n{_layer_table(parting.worst)}")
    sides = {"reference": options.reference, "judged": options.judged}
    first = parting.first._asdict() if parting.first else None
    worst = [layer._asdict() for layer in parting.worst]
    figures = {"images": len(names), "compared": parting.compared, "threshold": threshold}
    write_result(options, {**sides, **figures, "first": first, "worst": worst})
    if parting.first is None:
        print(
            f"\nthe graphs do not part: {parting.last.node}, the last node, is off by a relative distance of "
            f"{parting.last.distance:.1e}, allowed {threshold:g}"
        )
    else:
        raise PipelineError(
            f"{options.judged} parts from {options.reference} at {parting.first.node}: its values are off by a "
            f"relative distance of {parting.first.distance:.1e} (allowed {threshold:g}), the nodes before it agree"
        )


def _table(judged: Path, agreement: Agreement) -> str:
    head = ["judged", "images", "same top-1", "same top-5", "cosine", "distance", "largest difference", "of logits"]
    row = [
        judged.name,
        str(agreement.images),
        f"{100 * agreement.top1:.2f} %",
        f"{100 * agreement.top5:.2f} %",
        f"{agreement.cosine:.6f}",
        f"{agreement.distance:.1e}",
        f"{agreement.largest_difference:.1e}",
        f"{agreement.difference:.1e}",
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
