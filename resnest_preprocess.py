"""Stage 1: ImageNet images -> binary tensors."""

from __future__ import annotations

import argparse
import dataclasses

from ResNeSt.arguments import positive
from ResNeSt.cards import card, names
from ResNeSt.errors import run
from ResNeSt.files import write_json
from ResNeSt.preprocess import preprocess
from ResNeSt.recipes import RECIPES
from ResNeSt.shards import SHARD_IMAGES
from ResNeSt.tensors import LAYOUTS, TensorFormat


def main() -> int:
    """Parses the command line and prints what was done; 1 where images were broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", metavar="SRC", help="folder of images, flat or with a sub-folder per class")
    parser.add_argument("target", metavar="DST", help="folder for the tensors")
    parser.add_argument(
        "--model", default="resnest50", help=f"sets recipe and size [resnest50]: {', '.join(names())}, or a card file"
    )
    parser.add_argument("--recipe", choices=list(RECIPES), help="override the model's recipe")
    parser.add_argument("--size", type=int, help="override the model's input size in pixels")
    parser.add_argument(
        "--dtype", default="float32", choices=list(LAYOUTS), help="float32 NCHW [default] or uint8 NHWC"
    )
    parser.add_argument(
        "--pack",
        action="store_true",
        help=f"write {SHARD_IMAGES:,} images a file, for engines on cpu; ais_bench takes a file per image",
    )
    parser.add_argument("--workers", type=positive, help="threads [one per core]")
    parser.add_argument("--allow-broken", action="store_true", help="exit 0 although some images cannot be decoded")
    parser.add_argument("--json", metavar="FILE", help="write the counts and every broken image's reason here as well")
    options = parser.parse_args()

    found = card(options.model)
    made = TensorFormat(
        options.recipe or found.recipe, options.size or found.size, options.dtype, found.mean, found.std
    )
    outcome = preprocess(options.source, options.target, made, options.workers, options.pack)
    for reason in outcome.broken.values():
        print(f"broken: {reason}")
    print(
        f"{options.target}: {made}: {outcome.written} tensors written, {outcome.kept} kept, "
        f"{len(outcome.broken)} images broken, {outcome.seconds:.1f} s, {outcome.written / outcome.seconds:.0f} img/s"
    )
    if options.json:
        write_json(options.json, {"target": options.target, "tensors": str(made), **dataclasses.asdict(outcome)})
    return 1 if outcome.broken and not options.allow_broken else 0


if __name__ == "__main__":
    run(main)
