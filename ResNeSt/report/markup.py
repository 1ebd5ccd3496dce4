"""The pieces that a page is made of: text goes in as it is and comes out escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

SHORT = 8  # letters that need no second line on a phone
_UNBROKEN = "\N{NON-BREAKING HYPHEN}"  # of `top-1` in the narrow head of a table


def section(title: str, text: str, *parts: str) -> str:
    """`parts` are markup, under a heading and a paragraph."""
    paragraph = f"<p>{html.escape(text)}</p>\n" if text else ""
    place = title.lower().replace(" ", "-")
    return f'<section id="{place}">\n<h2>{title}</h2>\n{paragraph}' + "\n".join(parts) + "\n</section>"


def grid(*parts: str) -> str:
    """Markup side by side, where there is room."""
    return '<div class="grid wide">' + "".join(parts) + "</div>"


def figure(caption: str, svg: str) -> str:
    """The tables hold the same figures, so a reader who does not see the drawing misses nothing."""
    caption = html.escape(caption)
    drawing = svg.replace("<svg ", f'<svg role="img" aria-label="{caption}" ', 1)
    return f'<figure class="card"><figcaption>{caption}</figcaption>{drawing}</figure>'


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], notes: str = "", second_names: bool = False
) -> str:
    """Rows of text, the first of each its head; `notes` are markup below. `second_names`: the second column, too, may
    have long names, which take several lines and break behind a slash.
    """
    lines = []
    for first, *cells in rows:
        body = "".join(
            f'<td class="name">{_breakable(cell)}</td>'
            if second_names and place == 0
            else f"<td>{html.escape(cell)}</td>"
            for place, cell in enumerate(cells)
        )
        lines.append(f'<tr><th scope="row">{_breakable(first)}</th>{body}</tr>')
    named = any(len(first) > SHORT for first, *_ in rows)
    return scroller(caption, head, lines, notes, "named" if named else "")


def _breakable(name: str) -> str:
    return html.escape(name).replace("/", "/<wbr>")


def scroller(caption: str, head: Sequence[str], rows: Sequence[str], notes: str = "", kind: str = "") -> str:
    """A table that scrolls inside its card where the screen is narrow, with a shadow where more of it lies.

    `kind` names classes of page.css.
    """
    caption = html.escape(caption)
    cells = "".join(
        f'<th scope="col">{html.escape(cell)}</th>' for cell in (cell.replace("-", _UNBROKEN) for cell in head)
    )
    head_and_body = f"<thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return (
        f'<div class="card wide"><h3>{caption}</h3>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
        f'<table class="{kind}" aria-label="{caption}">{head_and_body}</table></div>{notes}</div>'
    )


def hundred(right: int, total: int) -> str:
    """Hundredths, `99.24`."""
    return f"{100 * right / total:.2f}"


def percent(right: int, total: int) -> str:
    """`99.24 %`."""
    return f"{hundred(right, total)} %"


def interval(shares: tuple[float, float]) -> str:
    """`97.80 to 99.74`, in percent."""
    low, high = shares
    return f"{100 * low:.2f} to {100 * high:.2f}"
