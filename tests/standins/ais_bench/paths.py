"""The client's path rules: characters, links, owner, mode (contract ais_bench, path rules)."""

from __future__ import annotations

import argparse
import os
import re
import stat

_ILLEGAL = re.compile(r"[^_A-Za-z0-9/.-]")
_WRITABLE_BY_OTHERS = 0o022
_LOOSER_THAN_0750 = 0o027
_TENSOR_SUFFIXES = (".bin", ".npy")
_MOST_FILES = 100_000


def model(path: str) -> str:
    """An existing `.om` that may be read."""
    _allowed(path, _WRITABLE_BY_OTHERS)
    if not path.endswith(".om") or not os.path.isfile(path):
        raise argparse.ArgumentTypeError(f"om path:{path} is illegal. Please check.")
    return path


def inputs(text: str) -> list[str]:
    """What `--input` names: a folder, or files apart by commas."""
    paths = [text] if os.path.isdir(text) else text.split(",")
    for path in paths:
        _allowed(path, _WRITABLE_BY_OTHERS)
    return paths


def tensors(paths: list[str]) -> list[str]:
    """The files that `inputs` stand for, in the order of inference; all that lies in a folder is held to the rules."""
    if not os.path.isdir(paths[0]):
        return paths
    (folder,) = paths
    names = []
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if _ILLEGAL.search(os.path.abspath(path)):
            raise RuntimeError("create FileStat failed")
        if _problem(path, _WRITABLE_BY_OTHERS):
            raise RuntimeError(f"input data:{path} is illegal")
        if not os.path.isdir(path) and name.lower().endswith(_TENSOR_SUFFIXES):
            names.append(name)
    if not names:
        print(f"[ERROR] {folder} of input args not find valid file", flush=True)
        raise RuntimeError
    if len(names) > _MOST_FILES:
        raise OverflowError(f"file count under directory: {folder} is over {_MOST_FILES}!")
    return [os.path.join(folder, name) for name in sorted(names, key=_natural)]


def output(path: str) -> str:
    """A folder that may be written; one that exists must be of mode 0750 or stricter."""
    return _allowed(path, _LOOSER_THAN_0750, there=False)


def _allowed(path: str, forbidden: int, there: bool = True) -> str:
    problem = _problem(path, forbidden, there)
    if problem:
        print(f"[ERROR] {problem}", flush=True)
        raise argparse.ArgumentTypeError(f"path:{path} is illegal. Please check.")
    return path


def _problem(path: str, forbidden: int, there: bool = True) -> str:
    """What is wrong with the path, as the client logs it."""
    path = os.path.abspath(path)
    if _ILLEGAL.search(path):
        return "path contains illegal char, legal chars include A-Z a-z 0-9 _ - / ."
    if not os.path.exists(path):
        return f"path: {path} not exist, please check if file or dir is exist" if there else ""
    if os.path.islink(path):
        return f"path :{path} is a soft link, not supported, please import file(or directory) directly"
    status = os.stat(path)
    if status.st_uid != os.geteuid() and status.st_gid not in os.getgroups():
        return f"current user isn't path:{path}'s owner or ownergroup"
    if status.st_mode & forbidden or not status.st_mode & stat.S_IRUSR:
        return f"The file {path} is of mode {stat.S_IMODE(status.st_mode):04o}"
    return ""


def _natural(name: str) -> list[object]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
