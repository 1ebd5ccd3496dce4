"""Every command with generated values of its options, environment variables and side files: an exit code of the table
in ResNeSt.common.errors and at most one line of error, never a traceback.

The options are asked of the parsers, so a new one is covered by itself. `RESNEST_EXAMPLES=5000 pytest -n0
tests/test_any_value.py` looks longer.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.errors import run as run_main
from ResNeSt.report import data
from tests.conftest import PROJECT
from tests.test_paths import parser_of

onnx = pytest.importorskip("onnx")
pytest.importorskip("openvino")
EXAMPLES = int(os.environ.get("RESNEST_EXAMPLES", "0"))
CODES = {0, 1, 2, 3, 130, 141}

# A call of every command that works, in the folder that `ground` fills.
CALLS = {
    "commands.preprocess": "images fresh --model=resnest_demo",
    "commands.export": "--source=missing.pth --target=fresh.onnx",
    "convert.__main__": "1 cpu --onnx=m.onnx",
    "bench.__main__": "1 cpu --model=m --input=prep --labels=labels.txt --output=out --no-report",
    "infer.__main__": "--model=m.onnx --input=prep --output=out --output_dirname=r",
    "commands.postprocess": "--result_path=results/r_summary.json --gt_path=labels.txt",
    "pipeline": "--images=images --labels=labels.txt --model=resnest_demo --weights=w.pth --output=out",
    "evaluate": "--model=m.onnx --images=images --labels=labels.txt",
    "predict": "images --model=m.onnx",
    "compare.__main__": "m.onnx m.onnx --input=prep",
    "labels.__main__": "check labels.txt images",
    "models.__main__": "card.json",
    "report.__main__": "report",
    "mindir.__main__": "--onnx=m.onnx --target=fresh.mindir",
    "commands.train": "--train=classes --val=classes --output=out --model=card.json",
}
NUMBERS = ["-5", "-1", "0", "3", "200000", "99999999999", "9" * 5000, "-" + "9" * 5000, "1e400", "1e-320", "0.5"]
WORDS = [
    "",
    " ",
    "nan",
    "inf",
    "-inf",
    "ä",
    "\udcff",
    "x" * 300,
    "a\nb",
    "-",
    ".",
    "..",
    "%s",
    "{}",
    "1,1",
    "1,,2",
    "²",
]
FILES = ["images", "images/1.png", "empty", "empty/", "zero", "garbage", "m.onnx", "labels.txt", "card.json", "no/such"]
FILES += ["garbage.json", "garbage.onnx", "garbage.xml", "garbage.pth", "garbage.npy", "garbage.bin", "list.json"]


def run(module: str, *argv: str) -> int:
    """Runs the command in this process, as `run` would in its own; its code, after looking at what it says."""
    said, errors = io.StringIO(), io.StringIO()
    stopped = mock.Mock(side_effect=PipelineError("a process would be started here"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "argv", ["command", *argv]))
        stack.enter_context(contextlib.redirect_stdout(said))
        stack.enter_context(contextlib.redirect_stderr(errors))
        for place in ("ResNeSt.pipeline.spend", "ResNeSt.infer.client.spend", "ResNeSt.commands.train.train"):
            if importlib.import_module(place.rpartition(".")[0]):
                stack.enter_context(mock.patch(place, stopped))
        with pytest.raises(SystemExit) as ended:
            run_main(importlib.import_module(f"ResNeSt.{module}").main)
    code = ended.value.code or 0
    assert code in CODES, (argv, code)
    lines = [line for line in errors.getvalue().splitlines() if "error: " in line]
    assert len(lines) <= 1 or module == "predict", lines
    assert lines or code in (0, 1), errors.getvalue()
    return int(code)


@pytest.fixture(scope="module")
def ground(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with all that the commands read; the current one."""
    folder = tmp_path_factory.mktemp("ground")
    with contextlib.chdir(folder):
        _fill(folder, demo_onnx)
        yield folder


def _fill(folder: Path, demo_onnx: Path) -> None:
    for name in ("images", "classes/a", "classes/b", "empty"):
        Path(name).mkdir(parents=True)
    labels = dict(line.split() for line in (PROJECT / "demo/val_label.txt").read_text().splitlines())
    chosen = sorted((PROJECT / "demo/val").iterdir())[:3]
    for number, picture in enumerate(chosen):
        shutil.copy(picture, f"images/{number}.png")
        shutil.copy(picture, f"classes/{'ab'[number % 2]}/{number}.png")
    lines = [
        f"{number} {labels[picture.stem.split('.')[0]] if picture.stem in labels else 0}\n"
        for number, picture in enumerate(chosen)
    ]
    Path("labels.txt").write_text("".join(lines))
    Path("card.json").write_text('{"architecture": "resnest_demo", "size": 96, "mean": [0, 0, 0], "std": [1, 1, 1]}')
    Path("names.txt").write_text("".join(f"digit {number}\n" for number in range(10)))
    shutil.copy(demo_onnx, "m.onnx")
    for suffix in ("", ".json", ".onnx", ".xml", ".pth", ".npy", ".bin"):
        Path(f"garbage{suffix}").write_bytes(bytes(range(256)))
    Path("zero").touch()
    Path("list.json").write_text("[[1], null]")
    assert run("commands.preprocess", "images", "prep", "--model=resnest_demo") == 0
    assert run("commands.preprocess", "images", "packed", "--model=resnest_demo", "--pack") == 0
    assert run("convert.__main__", "1", "cpu", "--onnx=m.onnx") == 0
    for kind in ("TXT", "NPY"):
        flags = ["--model=m.onnx", "--input=prep", "--output=results", f"--outfmt={kind}"]
        assert run("infer.__main__", *flags, f"--output_dirname={'r' if kind == 'TXT' else 'npy'}") == 0
    assert run("evaluate", *CALLS["evaluate"].split(), "--predictions=p.jsonl") == 0
    Path("report").mkdir()
    share = (0.2, 0.9)
    stage = data.StageScore("PyTorch", 1, 2, 3, 3, 3, 0, 0, 10.0, share, share, 1e-6)
    flip = data.FlippedImage("0", 1, [0], data.Guessed(1, 0.5), data.Guessed(2, 0.4))
    matrix = data.Matrix([1, 2], [[1, 1], [0, 1]])
    classes = data.Classes("PyTorch", 2, 1, 2, [data.ClassScore(1, 2, 1, share)], [data.Confusion(1, 2, 1, 2)], matrix)
    confidence = data.Confidence("PyTorch", 3, 0.1, [data.Bin(0.4, 0.6, 3, 0.5, 2)], [data.Kept(0.0, 3, 2)])
    speed, step = data.Speed(1, 10.0, 1.0, [1.0] * 101), data.Step("export", 1.0, 1000)
    published = data.PublishedSpeed("NVIDIA T4", "a paper", {"1": 100.0})
    seen = data.Report("m", 96, {"chip": "cpu"}, 5, stages=[stage], same_top1=[[3]], flip_count=1, flips=[flip])
    data.write(
        "report",
        dataclasses.replace(
            seen,
            classes=classes,
            confidence=confidence,
            speeds=[speed],
            published_speeds=[published],
            steps=[step],
        ),
    )


def looking(examples: int) -> Callable[..., Any]:
    """As many examples in the suite, as RESNEST_EXAMPLES says by hand."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(
        max_examples=EXAMPLES or examples, deadline=None, derandomize=not EXAMPLES, suppress_health_check=checks
    )


VALUES = (
    st.sampled_from(NUMBERS + WORDS + FILES)
    | st.text(st.characters(blacklist_characters="\0/"), max_size=20)
    | st.integers().map(str)
)


@pytest.mark.parametrize("module", CALLS)
@looking(5)
@given(draw=st.data())
def test_any_value_of_an_option_gives_a_code_of_the_table_and_one_line(
    module: str, draw: st.DataObject, ground: Path
) -> None:
    options = [action for action in parser_of(f"ResNeSt.{module}")._actions if action.dest != "help"]
    argv = CALLS[module].split()
    for _ in range(draw.draw(st.integers(1, 2))):
        action = draw.draw(st.sampled_from(options))
        if action.dest in {"loop", "warmup_count"}:  # what takes for ever was asked to
            continue
        value = draw.draw(VALUES | st.sampled_from([*map(str, action.choices)]) if action.choices else VALUES)
        if not action.option_strings:
            places = [place for place, word in enumerate(argv) if not word.startswith("--")]
            argv[draw.draw(st.sampled_from(places or [0]))] = value
        elif action.nargs == 0:
            argv.append(action.option_strings[0])
        else:
            argv.append(f"{max(action.option_strings, key=len)}={value}")
    run(module, *argv)
    for left in ("out", "fresh", "fresh.onnx"):
        shutil.rmtree(left, ignore_errors=True)


# A file, and the commands that read it.
READERS: dict[str, list[tuple[str, str]]] = {
    "card.json": [("models.__main__", "card.json"), ("commands.preprocess", "images fresh --model=card.json"),
                  ("commands.export", "--source=garbage.pth --target=fresh.onnx --model=card.json")],
    "labels.txt": [("labels.__main__", "check labels.txt images"), ("evaluate", CALLS["evaluate"])],
    "names.txt": [("predict", "images --model=m.onnx --names=names.txt")],
    "prep/tensors.json": [("infer.__main__", CALLS["infer.__main__"]), ("compare.__main__", CALLS["compare.__main__"]),
                          ("commands.preprocess", "images prep --model=resnest_demo"),
                          ("bench.__main__", CALLS["bench.__main__"])],
    "prep/sources.jsonl": [("commands.preprocess", "images prep --model=resnest_demo")],
    "packed/shard_00000.json": [("infer.__main__", "--model=m.onnx --input=packed"),
                                ("commands.preprocess", "images packed --model=resnest_demo --pack")],
    "packed/shard_00000.npy": [("infer.__main__", "--model=m.onnx --input=packed"),
                               ("commands.preprocess", "images packed --model=resnest_demo --pack")],
    "m_bs1.xml.json": [("convert.__main__", "1 cpu --onnx=m.onnx --dry-run"),
                       ("bench.__main__", CALLS["bench.__main__"]),
                       ("predict", "images --model=m_bs1.xml")],
    "results/r_summary.json": [("commands.postprocess", CALLS["commands.postprocess"]),
                               ("compare.__main__", "results/r_summary.json results/r_summary.json")],
    "results/r/0_0.txt": [("commands.postprocess", CALLS["commands.postprocess"]),
                          ("compare.__main__", "results/r_summary.json results/r_summary.json")],
    "results/npy/0_0.npy": [
        ("commands.postprocess", "--result_path=results/npy_summary.json --gt_path=labels.txt")
    ],
    "report/report.json": [("report.__main__", "report")],
    "p.jsonl.unfinished": [("evaluate", CALLS["evaluate"] + " --predictions=p.jsonl")],
    "m.onnx": [("predict", CALLS["predict"]), ("infer.__main__", CALLS["infer.__main__"]),
               ("convert.__main__", "1 cpu --onnx=m.onnx --dry-run")],
}  # fmt: skip
JUNK = [None, True, -5, 0, 1, 3, 200000, 10**17, 0.5, 1e-320, "", "x", "ä", "\ud800", "9" * 5000, [], [1], {}, {"a": 1}]
RAW = [b"", b"\xff\xfe", b"null", b"[]", b"{}", b"[[]]", b"1e400", b'{"a": NaN}', b"[" * 100_000, b"1" * 5000, b"\n\n"]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """All containers and keys in a JSON value."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [*((value, key) for key in keys), *(place for key in keys for place in _places(value[key]))]


def damaged(draw: st.DataObject, content: bytes, name: str) -> bytes:
    """Something else in the place of the file, or in one place of it."""
    if name.endswith(".onnx"):
        return _other_metadata(draw, content)
    how = draw.draw(st.sampled_from(["raw", "cut", "byte", "leaf", "leaf", "leaf"]))
    if how == "raw":
        return draw.draw(st.sampled_from(RAW) | st.binary(max_size=30))
    place = draw.draw(st.integers(0, max(len(content) - 1, 0)))
    if how == "cut":
        return content[:place]
    lines = content.splitlines() if ".jsonl" in name else [content]
    if how == "byte" or ".json" not in name:
        place = min(place, 200)
        return content[:place] + draw.draw(st.binary(min_size=1, max_size=3)) + content[place + 1 :]
    number = draw.draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[number])
    container, key = draw.draw(st.sampled_from(_places(value)))
    if draw.draw(st.booleans()) and isinstance(container, dict):
        del container[key]
    else:
        container[key] = copy.deepcopy(draw.draw(st.sampled_from(JUNK)))
    lines[number] = json.dumps(value).encode()
    return b"\n".join([*lines, b""])


def _other_metadata(draw: st.DataObject, content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    entry = draw.draw(st.sampled_from(list(model.metadata_props)))
    words = [word for word in NUMBERS + WORDS if word.isprintable()]
    entry.value = draw.draw(
        st.sampled_from([*words, "[1e-320, 1, 1]", "[NaN, 0, 0]", "[]", "[1]", "{}", "null", "[[]]"])
    )
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("name", READERS)
@looking(3)
@given(draw=st.data())
def test_any_content_of_a_side_file_gives_a_code_of_the_table_and_one_line(
    name: str, draw: st.DataObject, ground: Path
) -> None:
    module, call = draw.draw(st.sampled_from(READERS[name]))
    path = Path("p.jsonl" if name == "p.jsonl.unfinished" else name)
    before = {each: each.read_bytes() for each in path.parent.iterdir() if each.is_file()}
    try:
        content = damaged(draw, before[path], name)
        Path(name).unlink(missing_ok=True)
        Path(name).write_bytes(content)
        run(module, *call.split())
    finally:
        for each in path.parent.iterdir():
            if each.is_file() and each not in before:
                each.unlink()
        for each, content in before.items():
            if not each.exists() or each.read_bytes() != content:
                each.write_bytes(content)
        for left in ("out", "fresh"):
            shutil.rmtree(left, ignore_errors=True)


VARIABLES = ["TE_PARALLEL_COMPILER", "LOCAL_WORLD_SIZE", "RANK", "WORLD_SIZE", "LOCAL_RANK", "COLUMNS"]


@looking(10)
@given(variable=st.sampled_from(VARIABLES), value=st.sampled_from([*NUMBERS, *WORDS, "max"]))
def test_any_value_of_an_environment_variable_gives_a_code_of_the_table_and_one_line(
    variable: str, value: str, ground: Path
) -> None:
    with mock.patch.dict(os.environ, {variable: value}):
        module = "convert.__main__" if variable == "TE_PARALLEL_COMPILER" else "commands.train"
        run(module, *("1 310P3 --onnx=m.onnx --check" if variable == "TE_PARALLEL_COMPILER" else CALLS[module]).split())
    shutil.rmtree("out", ignore_errors=True)
