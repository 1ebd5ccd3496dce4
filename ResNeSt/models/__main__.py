"""Lists the weight cards, or tells one whole."""

from __future__ import annotations

import dataclasses
from typing import Any

from ResNeSt.common.arguments import Parser
from ResNeSt.common.errors import PipelineError, run
from ResNeSt.common.files import STDOUT, write_json
from ResNeSt.common.flags import take
from ResNeSt.common.tables import table
from ResNeSt.models.cards import Card, card, names


def main() -> None:
    """Prints the table, one card, or either as JSON: a list of cards."""
    options = make_parser().parse_args()
    if options.arch is None and _is_card(options.json):  # `--json NAME`, as it was before --json took a file
        options.arch, options.json = options.json, STDOUT
    cards = [card(options.arch)] if options.arch else [card(name) for name in names()]
    if options.json:
        write_json(options.json, cards)
    if options.json != STDOUT:
        print(_whole(cards[0]) if options.arch else _table(cards))


def _is_card(name: str | None) -> bool:
    try:
        return name not in (None, STDOUT) and card(str(name)) is not None
    except PipelineError:
        return False


def _table(cards: list[Card]) -> str:
    head = ["model", "parameters, M", "multiply-adds, G", "input", "top-1 %", "recipe", "SHA-256", "licence"]
    rows = [
        [
            model_card.name,
            _scaled(model_card.parameters, 1e6),
            _scaled(model_card.multiply_adds, 1e9),
            str(model_card.size),
            _or_dash(model_card.top1),
            model_card.recipe,
            _or_dash(model_card.sha256)[:8],
            _or_dash(model_card.licence),
        ]
        for model_card in cards
    ]
    return table(head, rows)


def _whole(model_card: Card) -> str:
    fields = {key: value for key, value in dataclasses.asdict(model_card).items() if key != "published"}
    lines = [f"{key:13}  {_or_dash(value)}" for key, value in fields.items()]
    for accuracy in model_card.published:
        lines.append(
            f"{'accuracy':13}  {accuracy.recipe}: top-1 {accuracy.top1:.2f} %, top-5 {_or_dash(accuracy.top5)} %, "
            f"{accuracy.source}"
        )
    return "\n".join(lines)


def _scaled(count: int | None, unit: float) -> str:
    return "-" if count is None else f"{count / unit:.2f}"


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)


def make_parser() -> Parser:
    """The command line."""
    example = "python -m ResNeSt.models resnest50"
    parser = Parser(prog="python -m ResNeSt.models", description=__doc__, example=example, tells=("quiet",))
    take(parser, "arch", positional=True, nargs="?", note="all of them, in a table")
    take(parser, "json", nargs="?", const=STDOUT)
    return parser


if __name__ == "__main__":
    run(main)
