"""The client's command lines (contract ais_bench); both refuse options with exit code 2, and 0.1.0 paths with 1."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, Callable, NoReturn

from ais_bench import paths, version
from ais_bench.boxes import boxed

# Options of the real client that no stage of the pipeline needs.
_NOT_CARRIED_OUT = """dymHW dymDims dymShape outputSize auto_set_dymshape_mode profiler dump acl_json_path
aipp_config energy_consumption npu_id"""


class _Boxed(argparse.ArgumentParser):
    """Says what it refuses as typer does."""

    def error(self, message: str) -> NoReturn:
        print(f"Usage: {self.prog} [OPTIONS]\nTry '{self.prog} --help' for help.", file=sys.stderr)
        print(boxed("Error", message), file=sys.stderr)
        sys.exit(2)


class _Options:
    """Options with the names and the ways of either client."""

    def __init__(self, dashes: bool) -> None:
        self.dashes = dashes
        kind = _Boxed if dashes else argparse.ArgumentParser
        self.parser = kind(prog="python -m ais_bench" if dashes else "ais_bench", allow_abbrev=False)
        self._checks: dict[str, Callable[[str], Any]] = {}

    def add(self, name: str, *short: str, check: Callable[[str], Any] = str, **settings: Any) -> None:
        """An option whose value passes `check`: with dashes the parser does not catch what that raises."""
        if self.dashes:
            self._checks[name] = check
        else:
            settings["type"] = check
        self.parser.add_argument(self._flag(name), *short, dest=name, **settings)

    def switch(self, name: str) -> None:
        """One that takes a value, `--pipeline 1`, or none, `--pipeline` and `--no-pipeline`."""
        how = {"action": argparse.BooleanOptionalAction} if self.dashes else {"type": _boolean}
        self.parser.add_argument(self._flag(name), dest=name, default=False, **how)

    def _flag(self, name: str) -> str:
        return f"--{name.replace('_', '-') if self.dashes else name}"

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        options = self.parser.parse_args(arguments)
        for name, check in self._checks.items():
            value = getattr(options, name)
            if isinstance(value, str):
                setattr(options, name, check(value))
        return options


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options by their names; `input` is the list of paths, or None."""
    options = _Options(version.dashes())
    _add_paths(options)
    _add_settings(options)
    for name in _NOT_CARRIED_OUT.split():
        options.parser.add_argument(f"--{name}")
    found = options.parse(arguments)
    _check_combinations(options.parser, found)
    return found


def _add_paths(options: _Options) -> None:
    options.add("model", "-m", check=paths.model, required=True)
    options.add("input", "-i", check=paths.inputs)
    options.add("output", "-o", check=paths.output)
    options.add("output_dirname", check=paths.output)  # of the current folder: so it is, in both


def _add_settings(options: _Options) -> None:
    options.add("outfmt", choices=["BIN", "NPY", "TXT"], default="BIN")
    options.add("loop", "-l", check=_loops, default=1)
    options.add("warmup_count", check=_natural, default=1)
    options.add("batchsize", check=_positive)
    options.parser.add_argument("--dymBatch", type=_positive)
    options.add("device", "-d", check=_devices, default=[0])
    options.add("pure_data_type", choices=["zero", "random"], default="zero")
    options.add("run_mode", choices=["array", "files", "tensor", "full"], default="array")
    options.add("threads", check=_positive, default=1)
    options.add("output_batchsize_axis", check=_natural, default=0)
    for name in ("debug", "display_all_summary", "pipeline", "divide_input"):
        options.switch(name)


def _check_combinations(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.output_dirname is not None and options.output is None:
        parser.error("--output_dirname cannot be used without --output")
    if options.output_dirname is not None and os.path.isabs(options.output_dirname):
        raise ValueError("--output_dirname do not support abs path!")
    if options.threads > 1 and not options.pipeline:
        parser.error("--threads needs --pipeline")
    for name in _NOT_CARRIED_OUT.split():
        if getattr(options, name) is not None:
            parser.error(f"the stand-in does not carry out --{name}")


def _boolean(text: str) -> bool:
    """The real client's switches take a value: `--display_all_summary 1`, never the bare flag."""
    lowered = text.lower()
    if lowered in ("1", "true", "t", "yes", "y"):
        return True
    if lowered in ("0", "false", "f", "no", "n"):
        return False
    raise argparse.ArgumentTypeError(f"{text} is neither true nor false")


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _positive(text: str) -> int:
    value = _natural(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 is not positive")
    return value


def _loops(text: str) -> int:
    value = _positive(text)
    if value > 100_000:
        raise argparse.ArgumentTypeError(f"{text} is an invalid loop size value")
    return value


def _devices(text: str) -> list[int]:
    devices = [_natural(part) for part in text.split(",")]
    if max(devices) > 255:
        raise argparse.ArgumentTypeError(f"{text}: the greatest device is 255")
    return devices
