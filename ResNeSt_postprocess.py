"""Stage 4, the score: a client's outputs and a label file -> top-1 and top-5."""

from __future__ import annotations

import argparse
from typing import Collection, Dict, List

from ResNeSt.errors import run
from ResNeSt.files import write_json
from ResNeSt.scoring import KINDS, Problems, Result, score_summaries

SHOWN = 5  # of each kind of problem; --json has them all


def main() -> int:
    """Prints the score and every kind of problem; 1 where one of them was not allowed."""
    options = _parser().parse_args()
    result = score_summaries(options.result_path, options.gt_path)
    problems = {kind: found for kind, found in result.problems.items() if found}
    print("\n".join(_score_lines(result) + _problem_lines(problems, options.allowed)))
    if options.json:
        sources = {"result_path": options.result_path, "gt_path": options.gt_path}
        write_json(options.json, {**sources, **_figures(result, problems, options.allowed)})
    return 1 if set(problems) - set(options.allowed) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--result_path",
        action="append",
        required=True,
        metavar="JSON",
        help="the client's summary; once for every device that ran a part of the images",
    )
    parser.add_argument("--gt_path", required=True, metavar="FILE", help="labels, a line 'NAME CLASS' for every image")
    parser.add_argument("--json", metavar="FILE", help="write the figures and all problems here as well")
    for kind, meaning in KINDS.items():
        parser.add_argument(
            f"--allow-{kind}",
            dest="allowed",
            action="append_const",
            const=kind,
            default=[],
            help=f"exit 0 although there are {meaning}",
        )
    return parser


def _score_lines(result: Result) -> List[str]:
    score = result.score
    return [
        f"top1_acc\t{score.top1_acc:.4f}",
        f"top5_acc\t{score.top5_acc:.4f}",
        # Three digits: one image of 50,000 is 0.002 points.
        f"top1_correct={score.top1}, tot={score.total}, acc={100 * score.top1_acc:.3f}%",
        f"top5_correct={score.top5}, tot={score.total}, acc={100 * score.top5_acc:.3f}%",
        f"tot counts the labelled images whose result was read: {score.total} of {result.labelled}",
    ]


def _problem_lines(problems: Problems, allowed: Collection[str]) -> List[str]:
    lines = []
    for kind, found in problems.items():
        verdict = f"accepted by --allow-{kind}" if kind in allowed else f"exit code 1; --allow-{kind} accepts them"
        lines.append(f"{kind}: {len(found)} {KINDS[kind]} ({verdict})")
        lines += [f"  {line}" for line in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"  and {len(found) - SHOWN} more")
    return lines


def _figures(result: Result, problems: Problems, allowed: Collection[str]) -> Dict[str, object]:
    return {
        "top1_acc": result.score.top1_acc,
        "top5_acc": result.score.top5_acc,
        "top1_correct": result.score.top1,
        "top5_correct": result.score.top5,
        "tot": result.score.total,
        "labelled": result.labelled,
        "classes": result.classes,
        "problems": {
            kind: {"count": len(found), "allowed": kind in allowed, "list": found} for kind, found in problems.items()
        },
    }


if __name__ == "__main__":
    run(main)
