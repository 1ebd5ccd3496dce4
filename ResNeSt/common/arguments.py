"""Kinds of command-line values that several programs take, and a parser that knows which of them are paths."""

from __future__ import annotations

import argparse
import errno
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Callable

from ResNeSt import __version__
from ResNeSt.common.cores import tell_of_quota, use_cores
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import STDOUT, PathLike, keep_stdout_for_json, write_json
from ResNeSt.common.paths import refuse_clashes
from ResNeSt.common.progress import be_quiet, is_quiet

# Beyond these the memory of a machine ends before the work begins.
LARGEST_SIDE, LARGEST_BATCH, MOST_INSTANCES = 4096, 1024, 256
LARGEST_DEVICE = 255  # that ais_bench takes
EXAMPLE = "example:\n  "
# What every command has besides its own flags.
ALSO = {
    "json": "write the result as JSON here, too; - is stdout, where nothing else goes then",
    "quiet": "print nothing but the result, notes and errors",
    "version": "print the version and end",
}


class _Help(argparse.HelpFormatter):
    """Breaks lines anywhere but in the example, which is to be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(EXAMPLE) else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """Options that are paths say what is done with them; what `refuse_clashes` refuses is refused after parsing.

    Every one has --version. A command's has --json and --quiet, as far as it `tells` something, and its help ends with
    an `example`, a command line that works as it stands in the project's folder once `bash run.sh` has run.
    """

    def __init__(
        self, *arguments: Any, example: str = "", tells: Collection[str] = ("json", "quiet"), **settings: Any
    ) -> None:
        self.roles: dict[str, str] = {}
        self.example = example
        # No first letters of a flag in its place: they would change their meaning with the next flag that begins so.
        super().__init__(*arguments, **{"allow_abbrev": False, "formatter_class": _Help, **settings})
        if example:
            self.epilog = "\n\n".join(filter(None, [self.epilog, f"{EXAMPLE}{example}"]))
        also = self.add_argument_group("as every command")
        if example and "json" in tells:
            self.writes("--json", group=also, metavar="FILE|-", help=ALSO["json"])
        if example and "quiet" in tells:
            also.add_argument("--quiet", action="store_true", help=ALSO["quiet"])
        if self.add_help:
            also.add_argument("--version", action="version", version=f"resnest {__version__}", help=ALSO["version"])

    def reads(self, *names: str, **settings: Any) -> None:
        """Adds an option for a file or folder that is read."""
        self.add_path(*names, role="reads", **settings)

    def reads_card(self, *names: str, **settings: Any) -> None:
        """Adds one for the name of a published card, or a card file, which then ends in .json."""
        self.add_path(*names, role="card", **settings)

    def writes(self, *names: str, **settings: Any) -> None:
        """Adds one for a file that is written, in place of an older one."""
        self.add_path(*names, role="writes", **settings)

    def fills(self, *names: str, **settings: Any) -> None:
        """Adds one for a folder that files are written into."""
        self.add_path(*names, role="fills", **settings)

    def add_path(self, *names: str, role: str, group: Any = None, **settings: Any) -> argparse.Action:
        """Adds an option for a path, to a group of options where one is given."""
        kind = _not_empty(settings.pop("type", str))
        action: argparse.Action = (group or self).add_argument(*names, type=kind, **settings)
        self.roles[action.dest] = role
        return action

    def answer_to(self, spellings: Iterable[str], action: argparse.Action) -> None:
        """Lets an option have further spellings, which neither --help nor an error shows."""
        self._option_string_actions.update(dict.fromkeys(spellings, action))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; raises ArgumentError and PipelineError as `refuse_clashes` does."""
        options, rest = super().parse_known_args(args, namespace)
        if (threads := getattr(options, "threads", None)) is not None:
            use_cores(threads)
        if getattr(options, "quiet", False):
            be_quiet()
        if _is_stdout(getattr(options, "json", None)):
            keep_stdout_for_json(besides=not is_quiet())
        tell_of_quota()
        cards = [path for path in self._paths(options, "card") if path.endswith(".json")]
        reads = [*cards, *self._paths(options, "reads")]
        writes = list(self._paths(options, "writes"))
        if any(map(_is_stdout, writes)):
            raise ArgumentError(f"{STDOUT}: only --json writes to stdout; name a file")
        refuse_clashes(reads, writes, self._paths(options, "fills"))
        refuse_clashes(reads, fills=self._paths(options, "adds"))
        for path in writes:
            _check_written(path)
        return options, rest

    def _paths(self, options: argparse.Namespace, wanted: str) -> Iterator[Any]:
        for name, role in self.roles.items():
            value = getattr(options, name)
            if role == wanted and value is not None and not (name == "json" and _is_stdout(value)):
                yield from value if isinstance(value, list) else [value]


def write_result(options: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """Writes what a command found where --json says, if it does, with the version that found it."""
    if options.json:
        write_json(options.json, {"version": __version__, **result})


def hold_json(options: argparse.Namespace, reads: Iterable[PathLike] = (), fills: Iterable[PathLike] = ()) -> None:
    """Holds --json against the paths that a command takes without being told them: usual names, models by a prefix.

    Raises ArgumentError where it would write onto what is read or made there, as `refuse_clashes` does.
    """
    if options.json is not None and not _is_stdout(options.json):
        refuse_clashes(reads, [options.json])
        refuse_clashes([], [options.json], fills)


def _check_written(path: str) -> None:
    if _is_stdout(path):
        raise ArgumentError(f"{path}: only --json writes to stdout; name a file (./{STDOUT} is one)")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise PipelineError(f"{path}: there is no folder {folder}; make it first, or name another")
    if not os.access(folder, os.W_OK | os.X_OK):
        is_read_only = bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
        why = os.strerror(errno.EROFS if is_read_only else errno.EACCES)
        raise PipelineError(f"{path}: nothing can be written in {folder} ({why}); name another folder")


def _is_stdout(path: Any) -> bool:
    return isinstance(path, (str, os.PathLike)) and os.fspath(path) == STDOUT


def _not_empty(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def made(text: str) -> Any:
        if not text:
            raise argparse.ArgumentTypeError("is empty; name a path, or leave the option out")
        return kind(text)

    return made


def positive(text: str) -> int:
    """A whole number above 0, of at most nine digits."""
    return _between(1, 999_999_999, text)


def side(text: str) -> int:
    """The side of a network's input in pixels."""
    return _between(1, LARGEST_SIDE, text)


def batch_size(text: str) -> int:
    """Images of one run of a network."""
    return _between(1, LARGEST_BATCH, text)


def instances(text: str) -> int | None:
    """How many of a model run side by side; None where that is left to its runtime."""
    return None if text == "auto" else _between(1, MOST_INSTANCES, text, ", or auto")


def device(text: str) -> int:
    """The number of an NPU."""
    return _between(0, LARGEST_DEVICE, text)


def precision(text: str) -> str:
    """What a network computes with, by its short name: bf16 is PyTorch's bfloat16."""
    return {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}.get(text, text)


def each(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Several of a kind, with commas between them."""
    return lambda text: [kind(part) for part in text.split(",")]


def _between(least: int, most: int, text: str, others: str = "") -> int:
    if re.fullmatch(r"\s*[+-]?\d{1,20}\s*", text) is None or not least <= int(text) <= most:
        found = text[:20] or "nothing"
        raise argparse.ArgumentTypeError(f"{found} is not a whole number from {least} to {most:,}{others}")
    return int(text)


def check_side(size: int) -> int:
    """`size`; raises ArgumentError where it cannot be the side of a network's input in pixels."""
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= LARGEST_SIDE:
        raise ArgumentError(f"size {size!r}, expected a whole number of pixels from 1 to {LARGEST_SIDE:,}")
    return size


def variable(name: str, default: int, least: int, most: int | None = None) -> int:
    """The number in an environment variable; raises ArgumentError where it holds something else."""
    text = os.environ.get(name) or str(default)
    is_number = text.isascii() and text.isdigit() and len(text) < 7
    if not (is_number and least <= int(text) <= (int(text) if most is None else most)):
        expected = f"expected a whole number from {least}" + (f" to {most}" if most else "")
        raise ArgumentError(f"{name}={text[:40]!r} in the environment, {expected}; unset it")
    return int(text)


def check_share(name: str, value: float | None) -> None:
    """Raises ArgumentError where the option `name` is given, and is no share; NaN is none."""
    if value is not None and not 0 <= value <= 1:
        raise ArgumentError(f"{name} {value:g}, expected a share from 0 to 1, like 0.95")
