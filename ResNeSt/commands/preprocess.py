"""Command line of resnest_preprocess.py: stage 1, images -> binary tensors."""

from __future__ import annotations

import dataclasses

from ResNeSt.cluster.flag import add_ray_flag, machines_of
from ResNeSt.common.arguments import Parser, add_threads_flag, positive, side
from ResNeSt.common.errors import run
from ResNeSt.common.files import write_json
from ResNeSt.common.progress import aloud
from ResNeSt.images.preprocess import preprocess
from ResNeSt.images.recipes import RECIPES
from ResNeSt.models.cards import card, names
from ResNeSt.models.model_info import format_of
from ResNeSt.tensors.format import FILES, LAYOUTS
from ResNeSt.tensors.shards import SHARD_IMAGES


def main() -> int:
    """Parses the command line and prints what was done; 1 where images were broken."""
    options = make_parser().parse_args()
    tensor_format = dataclasses.replace(
        format_of(card(options.model), options.dtype, options.recipe, options.size), exif=options.exif
    )
    with machines_of(options) as machines:
        done = preprocess(
            options.source,
            options.target,
            tensor_format,
            options.workers,
            options.pack,
            options.distinct_names,
            aloud,
            machines,
            options.format,
            options.list,
        )
    for reason in done.broken.values():
        print(f"broken: {reason}")
    print(
        f"{options.target}: {tensor_format}: {done.written} tensors written, {done.kept} kept, "
        f"{len(done.broken)} images broken, {done.seconds:.1f} s, {done.written / done.seconds:.0f} img/s, "
        f"decoded by {done.decoder}"
    )
    if options.json:
        told = {"target": options.target, "tensors": str(tensor_format)}
        write_json(options.json, {**told, **dataclasses.asdict(done)})
    return 1 if done.broken and not options.allow_broken else 0


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="resnest_preprocess.py", description="Stage 1: ImageNet images -> binary tensors.")
    parser.reads("source", metavar="SRC", help="folder of images, flat or with a sub-folder per class; .tar, .parquet")
    parser.fills("target", metavar="DST", help="folder for the tensors")
    parser.reads_card(
        "--model", default="resnest50", help=f"sets recipe and size [resnest50]: {', '.join(names())}, or a card file"
    )
    parser.add_argument("--recipe", choices=list(RECIPES), help="override the model's recipe")
    parser.add_argument("--size", type=side, help="override the model's input size in pixels")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=list(LAYOUTS),
        help=", ".join(f"{dtype} {layout.order}" for dtype, layout in LAYOUTS.items()) + " [%(default)s]",
    )
    parser.add_argument(
        "--pack",
        action="store_true",
        help=f"write {SHARD_IMAGES:,} images a file, for engines on cpu; ais_bench takes a file per image",
    )
    parser.add_argument(
        "--format", default="bin", choices=FILES, help="of a tensor's file: bare values, or an array of NumPy's [bin]"
    )
    parser.writes("--list", metavar="FILE", help="write the path of every tensor here, a line each")
    parser.add_argument("--exif", action="store_true", help="turn images as their EXIF orientation says")
    parser.add_argument(
        "--distinct-names",
        action="store_true",
        help="call images of one name by their paths: n01/a.jpg becomes n01__a_jpg.bin",
    )
    parser.add_argument("--workers", type=positive, help="threads [one per core]")
    parser.add_argument("--allow-broken", action="store_true", help="exit 0 although some images cannot be decoded")
    parser.writes("--json", metavar="FILE", help="write the counts and every broken image's reason here as well")
    add_threads_flag(parser)
    add_ray_flag(parser)
    return parser


if __name__ == "__main__":
    run(main)
