"""How a score and what is wrong with it are told, to people and to machines."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from ResNeSt.common.arguments import Parser
from ResNeSt.common.flags import take
from ResNeSt.labels.class_names import ClassName
from ResNeSt.score.per_class import Pairs, write_confusion, write_per_class
from ResNeSt.score.score import TOP, TOP_K, Problems, Score

SHOWN = 5  # of each kind of problem; the JSON has them all


class Scored(Protocol):
    """What tells of classes: score_summaries' Result and evaluate's Evaluated."""

    @property
    def pairs(self) -> Pairs:
        """Images by their label and the class predicted for them."""

    @property
    def class_names(self) -> Sequence[ClassName]:
        """Of all classes."""


def add_allow_flags(parser: Parser, kinds: Iterable[str]) -> None:
    """`--allow-<kind>` for every kind of problem, collected in `allowed`."""
    for kind in kinds:
        take(parser, f"allow-{kind}", dest="allowed", action="append_const", const=kind, default=[])


def add_score_flags(parser: Parser) -> None:
    """--top-k, --confusion and --per-class."""
    take(parser, "top-k", several=True, default=list(TOP_K), note=",".join(map(str, TOP_K)))
    take(parser, "confusion")
    take(parser, "per-class")


def write_tables(options: argparse.Namespace, scored: Scored) -> None:
    """The files that --confusion and --per-class ask for."""
    if options.confusion:
        write_confusion(options.confusion, scored.pairs, scored.class_names)
    if options.per_class:
        write_per_class(options.per_class, scored.pairs, scored.class_names)


def score_lines(score: Score, labelled: int, ranks: int = TOP, top_k: Iterable[int] = TOP_K) -> list[str]:
    """The original sample's two lines of each of `top_k`, the counts, and what they are of.

    Of `ranks` classes an image a greater k is not known.
    """
    asked = sorted(set(top_k))
    known, unknown = [k for k in asked if k <= ranks], [f"top-{k}" for k in asked if k > ranks]
    lines = [f"top{k}_acc\t{score.accuracy(k):.4f}" for k in known]
    # Three digits: one image of 50,000 is 0.002 points.
    lines += [f"top{k}_correct={score.right[k]}, tot={score.total}, acc={100 * score.accuracy(k):.3f}%" for k in known]
    if not unknown:
        return [*lines, f"tot counts the labelled images whose result was read: {score.total} of {labelled}"]
    words = "one class" if ranks == 1 else f"{ranks} classes"
    told = f"{' and '.join(unknown)} {'are' if unknown[1:] else 'is'} not known, the file has {words} an image"
    return [*lines, f"{told}; tot is {score.total} of {labelled} labelled images"]


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
    score: Score,
    labelled: int,
    problems: Problems,
    allowed: Collection[str],
    ranks: int = TOP,
    top_k: Iterable[int] = TOP_K,
) -> dict[str, Any]:
    """The same for a JSON file, with all problems in it; null where a top-k is not known."""
    asked = sorted(set(top_k))
    return {
        **{f"top{k}_acc": score.accuracy(k) if k <= ranks else None for k in asked},
        **{f"top{k}_correct": score.right[k] if k <= ranks else None for k in asked},
        "tot": score.total,
        "labelled": labelled,
        "problems": {
            kind: {"count": len(cases), "allowed": kind in allowed, "list": cases} for kind, cases in problems.items()
        },
    }
