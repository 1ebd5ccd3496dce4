"""How a score and what is wrong with it are told, to people and to machines."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ResNeSt.common.arguments import Parser
from ResNeSt.common.flags import take
from ResNeSt.score.score import TOP, Problems, Score

SHOWN = 5  # of each kind of problem; the JSON has them all


def add_allow_flags(parser: Parser, kinds: Iterable[str]) -> None:
    """`--allow-<kind>` for every kind of problem, collected in `allowed`."""
    for kind in kinds:
        take(parser, f"allow-{kind}", dest="allowed", action="append_const", const=kind, default=[])


def score_lines(score: Score, labelled: int, ranks: int = TOP) -> list[str]:
    """The original sample's two lines, the counts, and what they are of; of few classes an image top-5 is not known."""
    if ranks < TOP:
        words = "one class" if ranks == 1 else f"{ranks} classes"
        return [
            f"top1_acc\t{score.top1_acc:.4f}",
            f"top1_correct={score.top1}, tot={score.total}, acc={100 * score.top1_acc:.3f}%",
            f"top-5 is not known, the file has {words} an image; tot is {score.total} of {labelled} labelled images",
        ]
    return [
        f"top1_acc\t{score.top1_acc:.4f}",
        f"top5_acc\t{score.top5_acc:.4f}",
        # Three digits: one image of 50,000 is 0.002 points.
        f"top1_correct={score.top1}, tot={score.total}, acc={100 * score.top1_acc:.3f}%",
        f"top5_correct={score.top5}, tot={score.total}, acc={100 * score.top5_acc:.3f}%",
        f"tot counts the labelled images whose result was read: {score.total} of {labelled}",
    ]


def problem_lines(problems: Problems, kinds: Mapping[str, str], allowed: Collection[str]) -> list[str]:
    """For every kind of problem that was found how many there are, the first few, and whether they are accepted."""
    lines = []
    for kind, cases in problems.items():
        verdict = f"accepted by --allow-{kind}" if kind in allowed else f"exit code 1; --allow-{kind} accepts them"
        lines.append(f"{kind}: {len(cases)} {kinds[kind]} ({verdict})")
        lines += [f"  {line}" for line in cases[:SHOWN]]
        if len(cases) > SHOWN:
            lines.append(f"  and {len(cases) - SHOWN} more")
    return lines


def figures(
    score: Score, labelled: int, problems: Problems, allowed: Collection[str], ranks: int = TOP
) -> dict[str, Any]:
    """The same for a JSON file, with all problems in it; null where top-5 is not known."""
    return {
        "top1_acc": score.top1_acc,
        "top5_acc": score.top5_acc if ranks == TOP else None,
        "top1_correct": score.top1,
        "top5_correct": score.top5 if ranks == TOP else None,
        "tot": score.total,
        "labelled": labelled,
        "problems": {
            kind: {"count": len(cases), "allowed": kind in allowed, "list": cases} for kind, cases in problems.items()
        },
    }
