"""How the inference client is started, and what it would refuse (contract: ais_bench, path rules, several devices)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.infer.client import check_input, check_output, make_output_folder, run_client
from ResNeSt.tensors.format import TensorFormat, TensorSet, write_index

# A client that only tells how it was called, and behaves as CLIENT in its environment says.
CLIENT = """
import json, os, pathlib, sys
flags = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:] if "=" in argument)
pathlib.Path("called.json").write_text(json.dumps({"argv": sys.argv[1:], "path": os.environ["PYTHONPATH"]}))
print("to stdout", flush=True)
print("to stderr", file=sys.stderr)
result, leaves = pathlib.Path(flags["output"]) / flags["output_dirname"], int(os.environ["LEAVES"])
devices = flags["device"].split(",")
names = [f"{result}_summary.json"]
if len(devices) > 1:
    result.mkdir()
    names = [result / f"device{device}_{place}_summary.json" for place, device in enumerate(devices)]
for name in names[:leaves]:
    pathlib.Path(name).write_text("{}")
if os.environ["ENDS"] != "0":
    print("the reason")
    print()
sys.exit(int(os.environ["ENDS"]))
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model; the client of the module above is installed for this interpreter."""
    (tmp_path / "site/ais_bench").mkdir(parents=True)
    (tmp_path / "site/ais_bench/__init__.py").touch()
    (tmp_path / "site/ais_bench/__main__.py").write_text(CLIENT)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("LEAVES", "9")
    monkeypatch.setenv("ENDS", "0")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "m.om").write_bytes(b"model")
    return work


def called(work: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads((work / "called.json").read_text())
    return record


def test_the_client_gets_the_flags_of_its_manual_and_its_words_go_to_a_log(work: Path) -> None:
    ran = run_client("m.om", "out", "result", "--batchsize=4", "--outfmt", "TXT", devices=[2])
    assert called(work)["argv"] == [
        *("--model=m.om", "--output=out", "--output_dirname=result"),
        *("--batchsize=4", "--outfmt", "TXT", "--device=2"),
    ]
    assert ran.summaries == [Path("out/result_summary.json")]
    assert (ran.spent.code, ran.spent.seconds > 0, ran.spent.peak_bytes > 1 << 20) == (0, True, True)
    assert (work / "out/result.log").read_text().splitlines() == ["to stdout", "to stderr"]


def test_the_client_finds_this_project_and_what_the_caller_s_path_has(work: Path) -> None:
    run_client("m.om", "out", "result")
    assert str(called(work)["argv"]).endswith("'--device=0']")
    project, rest = str(called(work)["path"]).split(os.pathsep)
    assert (Path(project) / "ResNeSt/infer/client.py").is_file()
    assert rest == os.environ["PYTHONPATH"]


def test_several_devices_divide_the_input_and_leave_a_summary_each(work: Path) -> None:
    ran = run_client("m.om", "out", "result", devices=[3, 0])
    assert called(work)["argv"] == [
        *("--model=m.om", "--output=out", "--output_dirname=result", "--device=3,0", "--divide_input=1")
    ]
    assert ran.summaries == [
        Path("out/result/device3_0_summary.json"),
        Path("out/result/device0_1_summary.json"),
    ]


def test_a_client_that_fails_is_told_with_its_command_code_and_last_words(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDS", "7")
    with pytest.raises(PipelineError, match=r"-m ais_bench --model=m\.om .*: ended with exit code 7: the reason \(all"):
        run_client("m.om", "out", "result")


@pytest.mark.parametrize("devices", [[0], [0, 1]])
def test_a_client_that_leaves_no_summary_has_failed(
    devices: list[int], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAVES", str(len(devices) - 1))
    with pytest.raises(PipelineError, match="ended with exit code 0: to stderr"):
        run_client("m.om", "out", "result", devices=devices)


def test_a_summary_of_an_earlier_run_is_not_taken_for_this_one_s(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_client("m.om", "out", "result")
    monkeypatch.setenv("LEAVES", "0")
    with pytest.raises(PipelineError, match="ended with exit code 0"):
        run_client("m.om", "out", "result")
    assert not (work / "out/result_summary.json").exists()


def test_a_model_that_is_not_there_is_named_before_anything_runs(work: Path) -> None:
    with pytest.raises(PipelineError, match=r"none\.om: no such model; compile it with convert\.sh"):
        run_client("none.om", "out", "result")
    assert not (work / "called.json").exists()


def test_without_the_client_an_om_ends_with_3(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not entry.endswith("site")])
    with pytest.raises(MissingRuntimeError, match=r"m\.om: ais_bench is not installed for .*requirements/npu\.txt"):
        run_client("m.om", "out", "result")


def test_a_new_output_folder_is_closed_to_others_and_one_that_was_there_stays_as_it_is(work: Path) -> None:
    before = os.umask(0)
    try:
        assert make_output_folder("a/b") == Path("a/b")
    finally:
        os.umask(before)
    assert Path("a/b").stat().st_mode & 0o777 == 0o750
    Path("a/b").chmod(0o777)
    make_output_folder("a/b")
    assert Path("a/b").stat().st_mode & 0o777 == 0o777


@pytest.mark.parametrize(("mode", "passes"), [(0o750, True), (0o700, True), (0o755, False), (0o770, False)])
def test_an_output_folder_open_to_others_is_refused_with_the_chmod(mode: int, passes: bool, work: Path) -> None:
    Path("out").mkdir()
    Path("out").chmod(mode)
    if passes:
        check_output("out")
    else:
        with pytest.raises(PipelineError, match=rf"out: is of mode {mode:04o}, .*chmod 750 out"):
            check_output("out")


def test_an_output_folder_behind_a_link_is_refused(work: Path) -> None:
    make_output_folder("real")
    Path("out").symlink_to("real")
    with pytest.raises(PipelineError, match="out: is a symbolic link"):
        check_output("out")


@pytest.fixture
def tensors(work: Path) -> Path:
    folder = work / "prep"
    folder.mkdir(mode=0o755)
    for name in ("a.bin", "b.bin"):
        (folder / name).write_bytes(b"1234")
        (folder / name).chmod(0o644)
    return folder


def test_inputs_that_only_their_owner_can_write_are_taken(tensors: Path) -> None:
    check_input("prep")
    check_input("prep/a.bin")


@pytest.mark.parametrize("mode", [0o664, 0o646])
@pytest.mark.parametrize("name", ["prep", "prep/b.bin"])
def test_an_input_that_others_can_write_is_refused_with_the_chmod(name: str, mode: int, tensors: Path) -> None:
    Path(name).chmod(mode | 0o111)
    with pytest.raises(PipelineError, match=rf"^{name}: writable by group or others, .*; run: chmod -R go-w prep$"):
        check_input("prep")


def test_an_input_of_another_user_is_refused_with_the_chown(tensors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tensors.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(PipelineError, match=r"prep: owned by another user, .*; run: chown -R \$USER prep$"):
        check_input("prep")


def test_an_input_behind_a_link_is_refused(tensors: Path) -> None:
    Path("linked").symlink_to("prep")
    with pytest.raises(PipelineError, match="linked: is a symbolic link"):
        check_input("linked")


def test_packed_tensors_are_not_for_the_client(tensors: Path) -> None:
    tensor_format = TensorFormat("ecentercrop-bicubic", 8, "uint8", (), ())
    write_index(tensors, TensorSet(tensor_format, images=0, count=0, complete=True, packed=True))
    with pytest.raises(PipelineError, match="packed"):
        check_input("prep")
