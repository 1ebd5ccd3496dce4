"""Lists the weight cards, or tells one whole: `python -m ResNeSt.models [NAME|CARD.json] [--json]`."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any, List, Optional

from ResNeSt.cards import Card, card, names
from ResNeSt.errors import run
from ResNeSt.tables import table


def main() -> None:
    """Prints the table, one card, or either as JSON."""
    parser = argparse.ArgumentParser(prog="python -m ResNeSt.models", description=__doc__)
    parser.add_argument("model", nargs="?", help="tell this one whole: a name, or a card file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    found = [card(options.model)] if options.model else [card(name) for name in names()]
    if options.json:
        print(json.dumps([dataclasses.asdict(each) for each in found], indent=1))
    elif options.model:
        print(_whole(found[0]))
    else:
        print(_table(found))


def _table(cards: List[Card]) -> str:
    head = ["model", "parameters, M", "multiply-adds, G", "input", "top-1 %", "recipe", "SHA-256", "licence"]
    rows = [
        [
            found.name,
            _scaled(found.parameters, 1e6),
            _scaled(found.multiply_adds, 1e9),
            str(found.size),
            _or_dash(found.top1),
            found.recipe,
            _or_dash(found.sha256)[:8],
            _or_dash(found.licence),
        ]
        for found in cards
    ]
    return table(head, rows)


def _whole(found: Card) -> str:
    fields = {key: value for key, value in dataclasses.asdict(found).items() if key != "published"}
    lines = [f"{key:13}  {_or_dash(value)}" for key, value in fields.items()]
    for accuracy in found.published:
        lines.append(
            f"{'accuracy':13}  {accuracy.recipe}: top-1 {accuracy.top1:.2f} %, top-5 {_or_dash(accuracy.top5)} %, "
            f"{accuracy.source}"
        )
    return "\n".join(lines)


def _scaled(count: Optional[int], unit: float) -> str:
    return "-" if count is None else f"{count / unit:.2f}"


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)


if __name__ == "__main__":
    run(main)
