"""Command line of resnest_preprocess.py: stage 1, images -> binary tensors."""

from __future__ import annotations

import dataclasses

from ResNeSt.cluster.flag import add_ray_flag, machines_of
from ResNeSt.common.arguments import Parser, write_result
from ResNeSt.common.errors import run
from ResNeSt.common.flags import take
from ResNeSt.common.progress import aloud, remark
from ResNeSt.images.decode import orientation_notes
from ResNeSt.images.preprocess import preprocess
from ResNeSt.images.recipes import RECIPES
from ResNeSt.models.cards import card
from ResNeSt.models.model_info import format_of
from ResNeSt.tensors.format import FILES, LAYOUTS
from ResNeSt.tensors.shards import SHARD_IMAGES


def main() -> int:
    """Parses the command line and prints what was done; 1 where images were broken."""
    options = make_parser().parse_args()
    tensor_format = dataclasses.replace(
        format_of(card(options.arch), options.dtype, options.recipe, options.size), exif=options.exif
    )
    with machines_of(options) as machines:
        done = preprocess(
            options.images,
            options.output,
            tensor_format,
            options.workers,
            options.pack,
            options.distinct_names,
            aloud,
            machines,
            options.tensor_format,
            options.list,
        )
    for reason in done.broken.values():
        print(f"broken: {reason}")
    aloud(
        f"{options.output}: {tensor_format}: {done.written} tensors written, {done.kept} kept, "
        f"{len(done.broken)} images broken, {done.seconds:.1f} s, {done.written / done.seconds:.0f} img/s, "
        f"decoded by {done.decoder}"
    )
    notes = orientation_notes(done.unturned, done.written + done.kept + len(done.broken))
    for note in notes:
        remark(note)
    told = {"target": options.output, "tensors": str(tensor_format), "list": options.list, "notes": notes}
    write_result(options, {**told, **dataclasses.asdict(done)})
    return 1 if done.broken and not options.allow_broken else 0


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="resnest_preprocess.py",
        description="Stage 1: ImageNet images -> binary tensors.",
        example="python resnest_preprocess.py demo/val work/tensors --arch resnest_demo",
    )
    take(parser, "images", positional=True)
    take(parser, "output", positional=True)
    take(parser, "arch", default="resnest50", note="resnest50; sets recipe and size", old=["--model"])
    parser.add_argument("--recipe", choices=list(RECIPES), help="how images are prepared [as for --arch]")
    take(parser, "size", note="as for --arch")
    orders = ", ".join(f"{dtype} {layout.order}" for dtype, layout in LAYOUTS.items())
    take(parser, "dtype", choices=list(LAYOUTS), default="float32", note=f"%(default)s; {orders}")
    parser.add_argument(
        "--pack",
        action="store_true",
        help=f"write {SHARD_IMAGES:,} images a file, for engines on cpu; ais_bench takes a file per image",
    )
    own = parser.add_argument(
        "--tensor-format",
        default="bin",
        choices=FILES,
        help="form of a tensor's file: bare values, or NumPy's array [bin]",
    )
    parser.answer_to(["--format"], own)
    parser.writes("--list", metavar="FILE", help="write the path of every tensor here, a line each")
    take(parser, "exif")
    parser.add_argument(
        "--distinct-names",
        action="store_true",
        help="call images of one name by their paths: n01/a.jpg becomes n01__a_jpg.bin",
    )
    take(parser, "workers")
    take(parser, "allow-broken")
    take(parser, "threads")
    add_ray_flag(parser)
    return parser


if __name__ == "__main__":
    run(main)
