"""No command writes onto what it reads, whatever name that goes by; every path option says which of both it is."""

from __future__ import annotations

import errno
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ResNeSt import pipeline
from ResNeSt.__main__ import COMMANDS
from ResNeSt.common import files
from ResNeSt.common.arguments import Parser
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.paths import lies_in, refuse_clashes
from tests.conftest import PROJECT

PATHS = {"FILE", "DIR", "PTH", "ONNX", "SRC", "DST", "JSON", "LABELS", "KIT", "CSV", "FOLDER", "IMAGE|DIR", "FILE|-"}
NO_PATHS = {"model"}  # bench's prefix of several files; infer's has no metavar


def parser_of(module: str) -> Parser:
    """The parser that the command makes."""
    found = importlib.import_module(module).make_parser()
    assert isinstance(found, Parser)
    return found


MODULES = [*(f"ResNeSt.{module}" for module, _ in COMMANDS.values()), "ResNeSt.serve.export", "benchmarks.__main__"]


@pytest.mark.parametrize("module", MODULES)
def test_every_option_that_is_a_path_says_whether_it_is_read_or_written(module: str) -> None:
    parser = parser_of(module)
    parsers = [parser, *(sub for action in parser._actions for sub in getattr(action, "_name_parser_map", {}).values())]
    for each in parsers:
        paths = {action.dest for action in each._actions if action.metavar in PATHS or action.type is Path}
        assert not paths - each.roles.keys()
        others = {action.dest for action in each._actions if action.nargs != 0}
        assert others & {"json", "output", "target", "predictions"} <= each.roles.keys()


# A call in the folder of `victims`, by what it would overwrite.
OVERWRITING: dict[str, tuple[str, str]] = {
    "the weights by the model": ("commands.export", "--source a.pth --target a.pth"),
    "the weights by a path of another form": ("commands.export", "--source a.pth --target sub/../a.pth"),
    "the weights by a hard link": ("commands.export", "--source a.pth --target hard.pth"),
    "the weights by the JSON": ("commands.export", "--source a.pth --target new.onnx --json a.pth"),
    "the card by the model": ("commands.export", "--source a.pth --model card.json --target card.json"),
    "the card beside by the model": ("commands.export", "--source a.pth --target a.json"),
    "the card by the JSON": ("commands.export", "--source a.pth --model card.json --target n --json card.json"),
    "the model by the JSON": ("commands.export", "--untrained --target new.onnx --json new.onnx"),
    "a picture by stage 1's JSON": ("commands.preprocess", "in new --json in/a.png"),
    "stage 1's index by its JSON": ("commands.preprocess", "in new --json new/tensors.json"),
    "stage 1's card by its JSON": ("commands.preprocess", "in new --model card.json --json card.json"),
    "the pictures by the tensors": ("commands.preprocess", "in in"),
    "the pictures by tensors among them": ("commands.preprocess", "in in/prep"),
    "the pictures by tensors through a link": ("commands.preprocess", "in linked"),
    "the pictures by tensors around them": ("commands.preprocess", "in ."),
    "labels by the score": ("commands.postprocess", "--result_path r_summary.json --gt_path l.txt --json l.txt"),
    "a summary by a score": ("commands.postprocess", "--result_path r_summary.json --gt_path l --json r_summary.json"),
    "a result by the score": ("commands.postprocess", "--result_path r_summary.json --gt_path l.txt --json r/a_0.txt"),
    "labels by predictions": ("evaluate", "--model m.xml --images in --labels l.txt --predictions l.txt"),
    "predictions by figures": ("evaluate", "--model m.xml --images in --labels l.txt --predictions new --json new"),
    "the model's weights by the figures": ("evaluate", "--model m.xml --images in --labels l.txt --json m.bin"),
    "a record by figures": ("evaluate", "--model m.xml --images in --labels l.txt --json m.xml.json"),
    "a picture by the figures": ("evaluate", "--model m.xml --images in --labels l.txt --json in/a.png"),
    "the model by the agreement": ("compare.__main__", "m.xml m.xml --input in --json m.xml"),
    "a tensor by the agreement": ("compare.__main__", "m.xml m.xml --input in --json in/a.png"),
    "a result by the agreement": ("compare.__main__", "r_summary.json r_summary.json --json r/a_0.txt"),
    "the tensors by the results": ("infer.__main__", "--model m.xml --input in --output in"),
    "the tensors by results among them": ("infer.__main__", "--model m.xml --input in --output in/r"),
    "tensors by the name of results": ("infer.__main__", "--model m.xml --input in --output . --output_dirname in"),
    "tensors by models": ("convert.__main__", "1 cpu --onnx x.onnx --calibration in --output-dir in"),
    "the tensors by the benchmark": ("bench.__main__", "1 cpu --input in --labels l.txt --output-dir in"),
    "the pictures by the pipeline": ("pipeline", "--images in --labels l.txt --work in/work"),
    "the pictures by the training": ("commands.train", "--train in --val in --output in/run"),
    "the network by the MINDIR": ("mindir.__main__", "--onnx x.mindir --target x.mindir"),
    "the labels by what was found": ("labels.__main__", "check l.txt in --json l.txt"),
    "a picture by what was found": ("labels.__main__", "check l.txt in --json in/a.png"),
    "the CSV by the labels": ("labels.__main__", "csv l.txt l.txt"),
}  # fmt: skip


@pytest.fixture
def victims(tmp_path: Path) -> Iterator[Path]:
    """Files of every kind; afterwards they have to be there, unchanged."""
    names = ["a.pth", "a.json", "card.json", "l.txt", "m.xml", "m.bin", "m.xml.json", "x.onnx", "x.mindir"]
    names += ["in/a.png", "in/b.png", "r_summary.json", "r/a_0.txt", "sub/x"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"precious {name}")
    (tmp_path / "card.json").write_text('{"architecture": "resnest_demo"}')
    shutil.copy(next((PROJECT / "demo/val").iterdir()), tmp_path / "in/a.png")
    os.link(tmp_path / "a.pth", tmp_path / "hard.pth")
    (tmp_path / "linked").symlink_to("in")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    yield tmp_path
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("victim", OVERWRITING)
def test_what_is_read_is_not_overwritten(victim: str, victims: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, call = OVERWRITING[victim]
    monkeypatch.setattr(sys, "argv", ["command", *call.split()])
    monkeypatch.chdir(victims)
    with pytest.raises(ArgumentError, match=r"; name (another|a file|two)"):
        importlib.import_module(f"ResNeSt.{module}").main()


# A call with --json onto what it takes, or makes, without being told: the demo, usual names, models by their prefix.
UNTOLD = {
    "the demo's labels by the run": ("pipeline", "--json demo/val_label.txt"),
    "a file of the work folder by the run": ("pipeline", "--json work/resnest_demo/new.json"),
    "a compiled model by the benchmark": ("bench.__main__", "4 cpu --prefix n --json n_bs4.xml"),
    "its weights by the benchmark": ("bench.__main__", "auto cpu --prefix n --json n_bs4.bin"),
    "a dynamic one by the benchmark": ("bench.__main__", "1,4 310P3 --dynamic-batch --prefix n --json n_dyn.om"),
    "the usual labels by the benchmark": ("bench.__main__", "4 cpu --prefix n --json val_label.txt"),
    "the compiled model by what was compiled": ("convert.__main__", "4 cpu --onnx n.onnx --json n_bs4.xml"),
    "a new one by what was compiled": ("convert.__main__", "1,2 cpu --onnx n.onnx --json ./n_bs2.xml"),
    "the record by what was compiled": ("convert.__main__", "4 cpu --onnx n.onnx --json n_bs4.xml.json"),
    "the simplified graph by what was compiled": ("convert.__main__", "4 cpu --onnx n.onnx --json n_sim.onnx"),
}


@pytest.mark.parametrize("victim", UNTOLD)
def test_json_is_not_written_onto_what_a_command_takes_without_being_told(
    victim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["demo/val_label.txt", "work/resnest_demo/x", "prep_dataset/x", "val_label.txt", "n.onnx", "n_sim.onnx"]
    for name in [*names, "n_bs4.xml", "n_bs4.bin", "n_bs4.xml.json", "n_dyn.om"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("precious")
    module, call = UNTOLD[victim]
    monkeypatch.setattr(pipeline, "DEMO", Path("demo"))
    monkeypatch.setattr(sys, "argv", ["command", *call.split()])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=r": .*; name (another|a file)"):
        importlib.import_module(f"ResNeSt.{module}").main()


def test_json_may_lie_beside_the_models_that_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parser_of("ResNeSt.convert.__main__").parse_args(["4", "cpu", "--json=told.json"]).json == "told.json"


def test_a_file_is_refused_at_once_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parser, asked = parser_of("ResNeSt.evaluate"), ["--model=m.xml", "--images=i", "--labels=l"]
    with pytest.raises(ArgumentError, match="-: only --json writes to stdout; name a file"):
        parser.parse_args([*asked, "--confusion=-"])
    monkeypatch.setattr(os, "access", lambda folder, _: folder != ".")  # root may write anywhere
    with pytest.raises(
        PipelineError, match=r"f\.json: nothing can be written in \. \(Permission denied\); name another folder"
    ):
        parser.parse_args([*asked, "--json=f.json"])


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
@pytest.mark.parametrize(
    "call",
    [
        "commands.export --untrained --target {}",
        "evaluate --model m.xml --images i --labels l --predictions {}",
        "evaluate --model m.xml --images i --labels l --json {}",
        "labels.__main__ tree i {}",
    ],
)
def test_only_a_plain_file_is_written(call: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("/dev/null") if kind == "device" else tmp_path / "out"
    make: dict[str, Callable[[], object]] = {"link": lambda: path.symlink_to("x"), "pipe": lambda: os.mkfifo(path)}
    make.get(kind, lambda: path.mkdir(exist_ok=True) if kind == "folder" else None)()
    module, *words = call.replace("{}", str(path)).split()
    monkeypatch.setattr(sys, "argv", ["command", *words])
    with pytest.raises(PipelineError, match=f"{path}: is a {kind}; only a plain file is written here"):
        importlib.import_module(f"ResNeSt.{module}").main()


@pytest.mark.parametrize("option", ["--json=", "--predictions=", "--images=", "--labels="])
def test_a_path_is_not_empty(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = parser_of("ResNeSt.evaluate")
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--model=m.xml", "--images=i", "--labels=l", option])
    assert ended.value.code == 2
    assert f"argument {option[:-1]}: is empty" in capsys.readouterr().err


def test_a_name_that_no_report_can_hold_is_refused_where_it_is_to_be_written_and_read_where_it_is(
    tmp_path: Path,
) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    for clash in ({"writes": [odd]}, {"fills": [Path(odd)]}, {"fills": [f"{odd}/below"]}):
        with pytest.raises(ArgumentError, match=r"caf\\udce9.*: is not UTF-8, .*; name another"):
            refuse_clashes([], **clash)
    with pytest.raises(ArgumentError, match="is not UTF-8"):
        parser_of("ResNeSt.bench.__main__").parse_args(["1", "cpu", "--output", odd])
    for clash in ({"writes": [tmp_path / "a\nb.json"]}, {"fills": [tmp_path / "a\rb"]}, {"fills": ["a\x7fb"]}):
        with pytest.raises(ArgumentError, match=r"a\\(n|r|x7f)b.*: holds a control character"):
            refuse_clashes([], **clash)
    refuse_clashes([odd, "a\nb"], [tmp_path / "café.json"], [tmp_path / "文件"])


def test_what_does_not_clash_is_let_through(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "old.json").write_text("{}")
    refuse_clashes([tmp_path / "images", "resnest50"], [tmp_path / "old.json", tmp_path / "images/new.json"])
    refuse_clashes([tmp_path / "images", tmp_path / "l.txt"], [tmp_path / "l.json"], [tmp_path / "images2"])
    refuse_clashes([tmp_path / "images"], fills=[tmp_path])


def test_a_file_in_a_folder_that_is_not_there_is_refused_before_the_work_and_by_its_name(tmp_path: Path) -> None:
    parser = Parser()
    parser.writes("--json")
    there, gone = tmp_path / "x.json", tmp_path / "gone" / "x.json"
    assert parser.parse_args(["--json", str(there)]).json == str(there)
    with pytest.raises(PipelineError, match=r"gone/x\.json: there is no folder .*gone; make it first"):
        parser.parse_args(["--json", str(gone)])


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_what_is_up_to_date_in_a_folder_that_takes_no_files_needs_no_lock(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "_exclusive", refused)
    with files.alone(tmp_path / "model"):
        pass


def test_a_path_lies_in_a_folder_however_it_is_spelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "linked").symlink_to("in/sub")
    for path in ("in", "in/sub/x", "linked/new/x", "in/../in/new", tmp_path / "in/new"):
        assert lies_in(path, "in"), path
    for path in ("in2", "x", "in/../x", tmp_path):
        assert not lies_in(path, "in"), path
