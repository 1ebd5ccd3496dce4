"""The client's command line (contract ais_bench); argparse refuses with exit code 2, as the real one does."""

from __future__ import annotations

import argparse

from ais_bench import paths

# Options of the real client that no stage of the pipeline needs.
_NOT_CARRIED_OUT = """dymHW dymDims dymShape outputSize auto_set_dymshape_mode profiler dump acl_json_path
aipp_config energy_consumption npu_id"""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options by their names; `input` is the list of files, or None."""
    parser = argparse.ArgumentParser(prog="ais_bench", allow_abbrev=False)
    _add_paths(parser)
    _add_settings(parser)
    for name in _NOT_CARRIED_OUT.split():
        parser.add_argument(f"--{name}")
    options = parser.parse_args(arguments)
    _check_combinations(parser, options)
    return options


def _add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", "-m", type=paths.model, required=True)
    parser.add_argument("--input", "-i", type=paths.inputs)
    parser.add_argument("--output", "-o", type=paths.output)
    parser.add_argument("--output_dirname", type=paths.dirname)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--outfmt", choices=["BIN", "NPY", "TXT"], default="BIN")
    parser.add_argument("--loop", type=_positive, default=1)
    parser.add_argument("--warmup_count", type=_natural, default=1)
    parser.add_argument("--batchsize", type=_positive)
    parser.add_argument("--dymBatch", type=_positive)
    parser.add_argument("--device", type=_devices, default=[0])
    parser.add_argument("--debug", type=_boolean, default=False)
    parser.add_argument("--pure_data_type", choices=["zero", "random"], default="zero")
    parser.add_argument("--display_all_summary", type=_boolean, default=False)
    parser.add_argument("--run_mode", choices=["array", "files", "tensor", "full"], default="array")
    parser.add_argument("--pipeline", type=_boolean, default=False)
    parser.add_argument("--threads", type=_positive, default=1)
    parser.add_argument("--output_batchsize_axis", type=_natural, default=0)
    parser.add_argument("--divide_input", type=_boolean, default=False)


def _check_combinations(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.output_dirname is not None and options.output is None:
        parser.error("--output_dirname cannot be used without --output")
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


def _devices(text: str) -> list[int]:
    devices = [_natural(part) for part in text.split(",")]
    if max(devices) > 255:
        raise argparse.ArgumentTypeError(f"{text}: the greatest device is 255")
    return devices
