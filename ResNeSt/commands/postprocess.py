"""Command line of ResNeSt_postprocess.py: stage 4, the score of a client's outputs: top-1 and top-5."""

from __future__ import annotations

from ResNeSt.common.arguments import Parser, write_result
from ResNeSt.common.errors import run
from ResNeSt.common.flags import take
from ResNeSt.common.progress import remark
from ResNeSt.score.label_numbers import remarks_on
from ResNeSt.score.printed import (
    add_allow_flags,
    add_score_flags,
    figures,
    problem_lines,
    score_lines,
    write_tables,
)
from ResNeSt.score.score import KINDS, score_summaries


def main() -> int:
    """Prints the score and every kind of problem; 1 where one of them was not allowed."""
    options = make_parser().parse_args()
    result = score_summaries(options.results, options.labels, classes=options.classes, top_k=options.top_k)
    problems = {kind: cases for kind, cases in result.problems.items() if cases}
    notes = remarks_on(result, options.labels)
    print("\n".join(score_lines(result.score, result.labelled, result.ranks, options.top_k)))
    for note in notes:
        remark(note)
    print("".join(f"{line}\n" for line in problem_lines(problems, KINDS, options.allowed)), end="")
    write_tables(options, result)
    sources = {"result_path": options.results, "gt_path": options.labels, "classes": result.classes}
    written = {"confusion": options.confusion, "per_class": options.per_class}
    scored = figures(result.score, result.labelled, problems, options.allowed, result.ranks, options.top_k)
    write_result(options, {**sources, **written, "notes": notes, **scored})
    return 1 if set(problems) - set(options.allowed) else 0


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="ResNeSt_postprocess.py",
        description="Stage 4, the score: a client's outputs and a label file -> top-1 and top-5.",
        example="python ResNeSt_postprocess.py --result_path work/resnest_demo/results/result_bs4_summary.json "
        "--gt_path demo/val_label.txt",
    )
    take(parser, "results", "--result_path", action="append", required=True)
    take(parser, "labels", "--gt_path", required=True, note="or a folder of class folders")
    take(parser, "classes", note="what its results tell")
    add_score_flags(parser)
    add_allow_flags(parser, KINDS)
    take(parser, "threads")
    return parser


if __name__ == "__main__":
    run(main)
