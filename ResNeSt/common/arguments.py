"""Kinds of command-line values that several programs take."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value
