"""A client's summary and the output files that it lists."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ResNeSt.common.ais_bench_names import natural_key
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, open_plain, read_json
from ResNeSt.models.files import info_of_file
from ResNeSt.tensors import npz


def read_summary(path: PathLike) -> dict[str, Any]:
    """A client's summary; raises PipelineError where it lacks the times."""
    summary = read_json(path)
    times = summary.get("npu_compute_time_list") if isinstance(summary, dict) else None
    if not isinstance(times, list) or not times or not all(isinstance(value, (int, float)) for value in times):
        raise PipelineError(f"{path}: holds no npu_compute_time_list; was it written by ais_bench or ResNeSt.infer?")
    return dict(summary)


OUTPUT_NAME = re.compile(r"(.+)_[0-9]+\.\w+")  # contract: ais_bench, output file
LIST_SUFFIXES = (".txt", ".lst", ".list")
_OLD_SUMMARY = "sumary.json"  # until November 2022 it lay among the outputs, spelled like this


class OutputError(PipelineError):
    """An output file that cannot be read; `kind` is one of KINDS."""

    kind = "unreadable"


class NotFiniteError(OutputError):
    """Logits with NaN or infinity in them, which no ranking can be made of."""

    kind = "not-finite"


def list_outputs(path: PathLike) -> list[str]:
    """Paths of all output files that a summary JSON lists, in its order.

    The client writes paths as seen from the directory where it ran. The directory beside the summary goes first, so
    that a copied result is scored and not the one it was copied from; then the path as it stands.
    Raises PipelineError where the file is no summary or lists nothing.
    """
    recorded = [file for entry in _entries(path) for file in _outfiles(entry, path)]
    if not recorded:
        raise PipelineError(f"{path}: lists no output files; run the client without --pipeline, which leaves them out")
    folders = {folder: _find_folder(folder, Path(path)) for folder in set(map(os.path.dirname, recorded))}
    return [os.path.join(folders[os.path.dirname(file)], os.path.basename(file)) for file in recorded]


def is_summary(path: PathLike) -> bool:
    """Whether a path is to be read as a client's summary: no folder, no output, no list of outputs."""
    return not os.path.isdir(path) and os.path.splitext(path)[1].lower() not in {*_READERS, *LIST_SUFFIXES}


def find_outputs(path: PathLike) -> list[str]:
    """Paths of the outputs of a folder, in natural order, or of those that a list names, a line each; or the one file.

    A path in a list counts from here or, where nothing is there, from the list's folder. Raises PipelineError where
    there are none, a line names no output, or a folder holds some that the summary beside it does not list.
    """
    if os.path.isdir(path):
        suffixes = tuple(_READERS)
        names = [entry.name for entry in os.scandir(path) if entry.name.endswith(suffixes)]
        names = sorted((name for name in names if not name.startswith(".")), key=natural_key)
        found = [os.path.join(path, name) for name in names]
        _refuse_of_another_run(path, names)
    elif os.path.splitext(path)[1].lower() in LIST_SUFFIXES:
        found = list(_listed_in(path))
    else:
        found = [os.fspath(path)]
    if not found:
        raise PipelineError(f"{path}: holds no outputs, files that end in {', '.join(_READERS)}{_elsewhere(path)}")
    return found


def _elsewhere(folder: PathLike) -> str:
    """What to give in place of a folder without outputs: the summaries in it, such as those of several devices."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    names = sorted((name for name in names if name.endswith("_summary.json")), key=natural_key)
    paths = (shlex.quote(os.path.join(folder, name)) for name in names)
    return f"; give a summary in it: {' '.join(f'--results {path}' for path in paths)}" if names else ""


def _refuse_of_another_run(folder: PathLike, names: Sequence[str]) -> None:
    """A run that was killed leaves outputs that no summary lists, and the next one into its folder writes its own."""
    summary = f"{os.fspath(folder).rstrip('/')}_summary.json"
    listed = set(names)
    with contextlib.suppress(PipelineError):  # there is none, or it lists nothing
        listed = set(map(os.path.basename, list_outputs(summary)))
    if others := [name for name in names if name not in listed]:
        raise PipelineError(
            f"{folder}: {len(others)} of its {len(names)} outputs are not of the run of {summary}, such as "
            f"{others[0]}; name {summary} in place of the folder, or delete these"
        )


def _listed_in(path: PathLike) -> Iterator[str]:
    with open_plain(path) as file:
        lines = file.read().removeprefix(b"\xef\xbb\xbf").splitlines()
    for number, line in enumerate(lines, start=1):
        name = os.fsdecode(line.strip())
        if not name:
            continue
        if os.path.splitext(name)[1] not in _READERS:
            raise PipelineError(
                f"{path}: line {number}: found {name[:80]!a}, expected the path of an output, a file that ends in "
                f"{', '.join(_READERS)}"
            )
        beside = os.path.join(os.path.dirname(path), name)
        yield beside if not os.path.exists(name) and os.path.exists(beside) else name


def _entries(path: PathLike) -> Iterable[Any]:
    if os.path.isdir(path):
        summary = f"{os.fspath(path).rstrip('/')}_summary.json"
        raise PipelineError(f"{path}: a folder; give the summary that the client writes beside it, {summary}")
    summary = read_json(path)
    entries = summary.get("filesinfo") if isinstance(summary, dict) else None
    if not isinstance(entries, dict):
        raise PipelineError(f"{path}: not a summary of ais_bench: no object called filesinfo in it")
    return entries.values()


def _outfiles(entry: Any, path: PathLike) -> list[str]:
    files = entry.get("outfiles") if isinstance(entry, dict) else None
    # Unprintable characters: no path of the client's has them, and they would not survive a look-up or a report.
    if not isinstance(files, list) or not all(isinstance(file, str) and file.isprintable() for file in files):
        raise PipelineError(
            f"{path}: not a summary of ais_bench: an entry of filesinfo is {str(entry)[:80]!a}, expected an object "
            "whose outfiles are a list of paths"
        )
    return files


def _find_folder(recorded: str, summary: Path) -> str:
    beside = summary.parent if summary.name == _OLD_SUMMARY else summary.parent / os.path.basename(recorded)
    return os.fspath(beside) if os.path.isdir(beside) else recorded


def model_info_of(summary: PathLike) -> dict[str, str]:
    """What the model that a summary is of says of itself, with a whole number of `classes`; else nothing.

    A checkpoint is not asked: it would have to be read whole, and its results are of this project's client.
    """
    fields = read_json(summary)
    arguments = fields.get("args") if isinstance(fields, dict) else None
    if not isinstance(arguments, list) or not all(isinstance(argument, str) for argument in arguments):
        return {}
    flag = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    flag.add_argument("--model", "-m", "--om-model", type=Path, default=Path("-"))
    with contextlib.suppress(argparse.ArgumentError, OSError, PipelineError, KeyError, TypeError, ValueError):
        model = flag.parse_known_args(arguments)[0].model
        info = info_of_file(model) if model.suffix in (".om", ".onnx", ".xml", ".param") else {}
        return {**info, "classes": str(int(info["classes"]))}
    return {}


def model_classes(summary: PathLike) -> int | None:
    """How many classes the model has that a summary is of, where `model_info_of` tells it."""
    classes = model_info_of(summary).get("classes")
    return int(classes) if classes else None


def bin_dtype(paths: Iterable[PathLike], classes: Collection[int] = (), labelled: int = 0) -> str:
    """`<f4` or `<f2`: what the values of `.bin` outputs of one run are, which a file does not say.

    A model compiled in FP16 writes halves, and two of them are as long as a float32. `classes` are the numbers of
    classes that the models have, `labelled` is how many the labels speak of, which may be fewer. Raises PipelineError
    where the values do not look like float32 and none of these numbers fits.
    """
    contents = _sample([path for path in paths if os.fspath(path).endswith(".bin")])
    size = len(contents[0]) if contents else 0
    is_half = size // 2 in {*classes, labelled}
    if not size or size % 2 or (size % 4 and not is_half):
        return "<f4"  # or cut short, which reading them tells
    if size // 4 in classes and not is_half:
        return "<f4"
    if size % 4 == 0 and _look_like_float32(np.frombuffer(b"".join(contents), "<u4"), size // 4 == labelled):
        return "<f4"
    if is_half:
        return "<f2"
    first = next(os.fspath(path) for path in paths if os.fspath(path).endswith(".bin"))
    raise PipelineError(
        f"{first}: its {size} bytes look like {size // 2} values of float16, but may be {size // 4} of float32; say "
        "how many classes the model has (ResNeSt_postprocess.py --classes N), or let the client write --outfmt NPY"
    )


def _sample(paths: Sequence[PathLike]) -> list[bytes]:
    """The contents of up to 64 files, at even distances, of the size that most of them have."""
    contents = []
    for path in paths[:: max(1, len(paths) // 64)]:
        with contextlib.suppress(OSError, PipelineError), open_plain(path) as file:
            contents.append(file.read())
    sizes = Counter(map(len, filter(None, contents)))
    return [content for content in contents if sizes and len(content) == sizes.most_common(1)[0][0]]


_FEW = 16
_TOP = 5


def _look_like_float32(words: np.ndarray, fits: bool) -> bool:
    """Of float32 the lower half is the end of the mantissa: noise, or 0 where the value comes from a shorter type.

    A lower half of noise is, as float16, above 1,024 or no number in 7 of 32 cases; logits never are. `fits` is whether
    the labels speak of as many classes as there are float32, which decides where there is too little to see.
    """
    words = words[words != 0]
    if len(words) < _FEW and fits:
        return True
    halves = (words & 0xFFFF).astype("<u2")
    short = float(np.mean((halves & 0x1FFF) == 0)) if len(words) else 1.0  # the ten bits that float16 keeps are above
    with np.errstate(invalid="ignore"):
        wild = float(np.mean(~(np.abs(halves.view("<f2")) <= 1024))) if len(words) else 0.0
    return short >= 0.9 or wild >= 0.05


def read_output(path: PathLike, dtype: str = "<f4") -> np.ndarray:
    """float32 [C]: the values of one output file: .bin (bare, of `dtype`), .npy, .npz, or .txt (apart by blanks).

    Raises OutputError that names the file where it cannot be read or is cut short, NotFiniteError (one, too) where it
    holds NaN or infinity.
    """
    read = _READERS.get(os.path.splitext(path)[1])
    if read is None:
        raise OutputError(f"{path}: expected a file that ends in {', '.join(_READERS)}")
    try:
        values = read(path, dtype)
    except PipelineError as error:
        raise OutputError(str(error)) from None
    except Exception as error:  # NumPy's readers raise nearly anything on damaged files
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise OutputError(f"{path}: {reason}") from None
    if not values.size:
        raise OutputError(f"{path}: empty")
    if not np.isfinite(values).all():
        raise NotFiniteError(f"{path}: {np.sum(~np.isfinite(values))} of {values.size} values")
    return values


_ONE_ROW = "a result has one; the tensor file held several images, which nothing can be joined to"


def _read_bin(path: PathLike, dtype: str) -> np.ndarray:
    with open_plain(path) as file:
        content, kind = file.read(), np.dtype(dtype)
    if len(content) % kind.itemsize:
        raise ValueError(f"cut short, {len(content)} bytes are no whole number of {kind.name} values")
    return np.frombuffer(content, dtype=dtype).astype(np.float32)


def _read_npy(path: PathLike, _: str) -> np.ndarray:
    with open_plain(path) as file:
        return _one_row(np.lib.format.read_array(file, allow_pickle=False))


def _one_row(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "f":
        raise ValueError(f"holds {values.dtype}, expected floating-point numbers")
    if sum(side > 1 for side in values.shape) > 1:
        raise ValueError(f"is of shape {list(values.shape)}, {_ONE_ROW}")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is reported
        return values.astype(np.float32).ravel()


def _read_npz(path: PathLike, _: str) -> np.ndarray:
    with open_plain(path) as file:
        return _one_row(npz.read(file))


def _read_txt(path: PathLike, _: str) -> np.ndarray:
    with open_plain(path) as file:
        text = file.read()
    if text and not text.endswith(b"\n"):
        raise ValueError("cut short, the last line does not end")
    rows = text.count(b"\n")
    if rows > 1 and len(text.split(b"\n", 1)[0].split()) > 1:
        raise ValueError(f"holds {rows} rows, {_ONE_ROW}")
    # As fast as np.fromstring, which takes damaged text for numbers in NumPy 1.x.
    values = np.array(text.split(), dtype=np.float32)
    if values.size > _TOP and values.min() >= 0 and abs(values.sum() - 1) < 1e-3 and np.sum(values > 0) < _TOP:
        # Of a network that ends in Softmax: which classes come next has no digit left.
        raise ValueError("probabilities, most of them 0 to six digits; run the client with --outfmt NPY")
    return values


_READERS = {".bin": _read_bin, ".npy": _read_npy, ".npz": _read_npz, ".txt": _read_txt}
