"""The page at /: a photograph goes to the service that the page came from, its most probable classes come back."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path

_TEMPLATE = Path(__file__).with_name("page.html")


def page(title: str, model: str) -> str:
    """The page, HTML in UTF-8: `title` is its headline, `model` what requests call the model."""
    values = {"title": title, "model": model, "policy": policy()}
    return re.sub(r"{{(\w+)}}", lambda match: html.escape(values[match[1]]), _template())


def policy() -> str:
    """Its Content-Security-Policy: the script and the style that stand in it, and requests to where it came from."""
    scripts, styles = (_digests(tag) for tag in ("script", "style"))
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'"
    )


def headers() -> dict[str, str]:
    """Headers to send with it."""
    return {
        "Content-Security-Policy": f"{policy()}; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }


def _template() -> str:
    return _TEMPLATE.read_text(encoding="utf-8")


def _digests(tag: str) -> str:
    """Of the content of all elements of this kind, as a policy has them."""
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", _template(), re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in contents]
    return " ".join(f"'sha256-{digest}'" for digest in digests)
