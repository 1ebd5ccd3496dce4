"""Command line of ResNeSt_postprocess.py: stage 4, the score of a client's outputs: top-1 and top-5."""

from __future__ import annotations

from ResNeSt.common.arguments import Parser, add_threads_flag, positive
from ResNeSt.common.errors import run
from ResNeSt.common.files import write_json
from ResNeSt.score.label_numbers import remarks_on
from ResNeSt.score.printed import add_allow_flags, figures, problem_lines, score_lines
from ResNeSt.score.score import KINDS, score_summaries


def main() -> int:
    """Prints the score and every kind of problem; 1 where one of them was not allowed."""
    options = make_parser().parse_args()
    result = score_summaries(options.result_path, options.gt_path, classes=options.classes)
    problems = {kind: cases for kind, cases in result.problems.items() if cases}
    notes = remarks_on(result, options.gt_path)
    lines = [*score_lines(result.score, result.labelled, result.ranks), *(f"note: {note}" for note in notes)]
    print("\n".join(lines + problem_lines(problems, KINDS, options.allowed)))
    if options.json:
        sources = {"result_path": options.result_path, "gt_path": options.gt_path, "classes": result.classes}
        scored = figures(result.score, result.labelled, problems, options.allowed, result.ranks)
        write_json(options.json, {**sources, "notes": notes, **scored})
    return 1 if set(problems) - set(options.allowed) else 0


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="ResNeSt_postprocess.py",
        description="Stage 4, the score: a client's outputs and a label file -> top-1 and top-5.",
    )
    parser.reads(
        "--result_path",
        action="append",
        required=True,
        metavar="PATH",
        help="the client's summary, once for every device that ran a part of the images; or a folder of outputs, or a "
        "list of them; or the predictions of evaluate or predict, or mlperf_log_accuracy.json",
    )
    parser.reads("--gt_path", required=True, metavar="FILE", help="labels, a line 'NAME CLASS' for every image")
    parser.add_argument("--classes", type=positive, metavar="N", help="of the model [what its results tell]")
    parser.writes("--json", metavar="FILE", help="write the figures and all problems here as well")
    add_allow_flags(parser, KINDS)
    add_threads_flag(parser)
    return parser


if __name__ == "__main__":
    run(main)
