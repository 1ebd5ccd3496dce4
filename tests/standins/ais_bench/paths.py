"""The client's path rules: character set, no links, owner, mode (contract ais_bench, path rules)."""

from __future__ import annotations

import argparse
import os
import re
import stat
from pathlib import Path

_LEGAL = re.compile(r"[_A-Za-z0-9/.-]+")
_WRITABLE_BY_OTHERS = 0o022
_LOOSER_THAN_0750 = 0o027
_TENSOR_SUFFIXES = (".bin", ".npy")


def model(path: str) -> str:
    """An existing `.om` that may be read."""
    if not path.endswith(".om"):
        raise argparse.ArgumentTypeError(f"model path {path} does not end in .om")
    if not os.path.isfile(path):
        raise argparse.ArgumentTypeError(f"model path {path} is not a file")
    return _allowed(path, _WRITABLE_BY_OTHERS)


def inputs(text: str) -> list[str]:
    """The files that `--input` stands for, in the order of inference: a folder's tensors, or a list of files."""
    if not os.path.isdir(text):
        return [_allowed(path, _WRITABLE_BY_OTHERS) for path in text.split(",")]
    _allowed(text, _WRITABLE_BY_OTHERS)
    names = [name for name in os.listdir(text) if name.lower().endswith(_TENSOR_SUFFIXES)]
    if not names:
        raise argparse.ArgumentTypeError(f"no .bin or .npy files in {text}")
    return [_allowed(os.path.join(text, name), _WRITABLE_BY_OTHERS) for name in sorted(names, key=_natural)]


def output(path: str) -> str:
    """A folder that may be written; one that exists must be of mode 0750 or stricter."""
    _legal(path)
    return _allowed(path, _LOOSER_THAN_0750) if os.path.exists(path) else path


def dirname(path: str) -> str:
    """A relative name below `--output`."""
    if os.path.isabs(path):
        raise argparse.ArgumentTypeError(f"output_dirname {path} must not be absolute")
    return _legal(path)


def _legal(path: str) -> str:
    if not _LEGAL.fullmatch(path):
        raise argparse.ArgumentTypeError(f"path {path} has characters other than _A-Za-z0-9/.-")
    return path


def _allowed(path: str, forbidden: int) -> str:
    _legal(path)
    if any(part.is_symlink() for part in [Path(path), *Path(path).parents]):
        raise argparse.ArgumentTypeError(f"path {path} is or crosses a symbolic link")
    try:
        status = os.stat(path)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"path {path}: {error.strerror}") from None
    if status.st_uid != os.geteuid():
        raise argparse.ArgumentTypeError(f"path {path} belongs to another user")
    if status.st_mode & forbidden:
        mode = stat.S_IMODE(status.st_mode)
        raise argparse.ArgumentTypeError(f"path {path} has mode {mode:04o}; the bits {forbidden:03o} must be off")
    return path


def _natural(name: str) -> list[object]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
