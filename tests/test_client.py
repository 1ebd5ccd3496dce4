"""How the inference client is started, and what it would refuse (contract: ais_bench, path rules, several devices)."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from ResNeSt.common import cann_libraries
from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.infer import __main__ as command_line
from ResNeSt.infer.ais_bench import find, spoken
from ResNeSt.infer.client import check_run, make_output_folder, run_client
from ResNeSt.tensors.format import TensorFormat, TensorSet, write_index

# A client that only tells how it was called, and behaves as CLIENT in its environment says.
CLIENT = """
import json, os, pathlib, sys
pairs = (argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:] if "=" in argument)
flags = {name.replace("-", "_"): value for name, value in pairs}
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


def install(work: Path, version: str) -> None:
    """Lets the client's metadata say its version."""
    folder = work.parent / f"site/ais_bench-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ais-bench\nVersion: {version}\n")


@pytest.mark.parametrize(
    ("version", "dashes"),
    [
        *(("0.0.1", False), ("0.0.2", False), ("0.0.2+cann8.0", False), ("0.0.10rc1", False)),
        *(("0.1.0", True), ("0.1", True), ("0.1.0.dev3", True), ("0.10.2", True), ("1.0", True), ("2026.8", True)),
    ],
)
def test_the_client_s_version_says_which_command_line_it_has(version: str, dashes: bool, work: Path) -> None:
    install(work, version)
    assert find("m.om").dashes is dashes


@pytest.mark.parametrize("version", [None, "unknown", ""])
@pytest.mark.parametrize(("shown", "dashes"), [("--output-dirname TEXT", True), ("--output_dirname DIR", False)])
def test_a_client_whose_version_says_nothing_is_asked_for_its_help_once(
    version: str | None, shown: str, dashes: bool, work: Path
) -> None:
    if version is not None:
        install(work, version)
    prints = f"""import sys
assert "--help" in sys.argv
open("asked", "a").write("x")
print("named by output_dirname: {shown}")
"""
    (work.parent / "site/ais_bench/__main__.py").write_text(prints)
    assert [find("m.om").dashes, find("m.om").dashes] == [dashes, dashes]
    assert (work / "asked").read_text() == "x"


@pytest.mark.parametrize(
    ("version", "dirname", "divide"),
    [("0.0.2", "--output_dirname=result", "--divide_input=1"), ("0.1.0", "--output-dirname=result", "--divide-input")],
)
def test_each_client_gets_flags_as_it_spells_them(version: str, dirname: str, divide: str, work: Path) -> None:
    install(work, version)
    run_client("m.om", "out", "result", "--outfmt", "TXT", devices=[0, 1])
    expected = ["--model=m.om", "--output=out", dirname, "--outfmt", "TXT", "--device=0,1", divide]
    assert called(work)["argv"] == expected


SPELLINGS = [  # what is typed, what 0.0.2 gets, what 0.1.0 gets
    (
        ["--tensors=prep", "--batch", "8", "--warmup=2"],
        ["--input=prep", "--dymBatch", "8", "--warmup_count=2"],
        ["--input=prep", "--dymBatch", "8", "--warmup-count=2"],
    ),
    (["--output_dirname", "r"], ["--output_dirname", "r"], ["--output-dirname", "r"]),
    (["--output-dirname=r"], ["--output_dirname=r"], ["--output-dirname=r"]),
    (["--display_all_summary", "1"], ["--display_all_summary=1"], ["--display-all-summary"]),
    (["--display_all_summary=True"], ["--display_all_summary=True"], ["--display-all-summary"]),
    (["--display-all-summary"], ["--display_all_summary=1"], ["--display-all-summary"]),
    (["--pipeline", "--threads", "2"], ["--pipeline=1", "--threads", "2"], ["--pipeline", "--threads", "2"]),
    (["--pipeline", "f", "--threads=2"], ["--pipeline=f", "--threads=2"], ["--no-pipeline", "--threads=2"]),
    (["--no-profiler-rename"], ["--profiler_rename=0"], ["--no-profiler-rename"]),
    (["--dymBatch", "8", "-d", "0"], ["--dymBatch", "8", "-d", "0"], ["--dymBatch", "8", "-d", "0"]),
    (["--dymShape_range=x:1~3"], ["--dymShape_range=x:1~3"], ["--dymShape_range=x:1~3"]),
    (["--output_batchsize_axis=1"], ["--output_batchsize_axis=1"], ["--output-batchsize-axis=1"]),
    (["--unheard_of=1"], ["--unheard_of=1"], ["--unheard_of=1"]),
    (["--input=a_b", "--output", "c_d"], ["--input=a_b", "--output", "c_d"], ["--input=a_b", "--output", "c_d"]),
]


@pytest.mark.parametrize(
    "name",
    [
        *("debug", "dump", "dump_npy", "perf", "pipeline", "profiler", "profiler_rename", "divide_input"),
        *("display_all_summary", "energy_consumption", "auto_set_dymshape_mode", "auto_set_dymdims_mode"),
    ],
)
def test_every_switch_loses_its_value_where_options_have_dashes(name: str) -> None:
    assert spoken([f"--{name}=True"], dashes=True) == [f"--{name.replace('_', '-')}"]


@pytest.mark.parametrize(("typed", "old", "new"), SPELLINGS)
def test_arguments_of_either_spelling_are_said_as_the_client_has_them(
    typed: list[str], old: list[str], new: list[str]
) -> None:
    assert spoken(typed, dashes=False) == old
    assert spoken(typed, dashes=True) == new


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


def test_the_device_that_left_nothing_is_named(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAVES", "1")
    monkeypatch.setenv("ENDS", "1")
    with pytest.raises(PipelineError, match=r"--device=3,5 .*: ended with exit code 1: device 5: the reason \(all"):
        run_client("m.om", "out", "result", devices=[3, 5])


def test_a_client_that_was_killed_is_told_so(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = work.parent / "site/ais_bench/__main__.py"
    path.write_text("import os, signal\nprint('[INFO] loaded', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n")
    install(work, "0.0.2")
    with pytest.raises(
        PipelineError, match=r"exit code -9: killed by signal 9 \(Killed\); its last words: \[INFO\] load"
    ):
        run_client("m.om", "out", "result")


@pytest.mark.parametrize("devices", [[0], [0, 1]])
def test_a_client_that_leaves_no_summary_has_failed(
    devices: list[int], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAVES", str(len(devices) - 1))
    which = "device 1: " if len(devices) > 1 else ""
    with pytest.raises(PipelineError, match=f"ended with exit code 0: {which}to stderr"):
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
    monkeypatch.setattr(sys, "path", [str(work), *(entry for entry in sys.path if not entry.endswith("site"))])
    for folder in (
        ".",
        "ais_bench",
    ):  # the second is where wheels were unpacked, and Python takes any folder for a package
        (work / folder).mkdir(exist_ok=True)
        with pytest.raises(MissingRuntimeError, match=r"m\.om: ais_bench is not installed for .*requirements/npu\.txt"):
            run_client("m.om", "out", "result")


LIBRARY = "libascendcl.so: cannot open shared object file: No such file or directory"
FAILS = 'import os\nif not os.path.exists(os.environ.get("LD_LIBRARY_PATH", "-") + "/libascendcl.so"):\n'


@pytest.fixture
def cann(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CANN's environment script; the client works in its environment alone."""
    home = work.parent / "Ascend tools/latest"
    (home / "lib64").mkdir(parents=True)
    (home / "lib64/libascendcl.so").touch()
    (home / "set_env.sh").write_text(f'export LD_LIBRARY_PATH="{home}/lib64"\n')
    path = work.parent / "site/ais_bench/__main__.py"
    path.write_text(f"{FAILS}    raise ImportError({LIBRARY!r})\n{path.read_text()}")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    install(work, "0.0.2")
    return home


def test_the_client_runs_in_the_environment_that_cann_s_script_makes(
    work: Path, cann: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(cann))
    assert run_client("m.om", "out", "result").spent.code == 0


@pytest.mark.parametrize("version", [True, False])
def test_without_cann_s_library_the_script_to_source_is_named(
    version: bool, work: Path, cann: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not version:
        (work.parent / "site/ais_bench-0.0.2.dist-info/METADATA").unlink()
    for told in ("<folder of CANN>/set_env.sh", f"'{cann}/set_env.sh'"):
        with pytest.raises(
            MissingRuntimeError, match=rf"^m\.om: libascendcl\.so is not found: .*source {re.escape(told)}$"
        ):
            run_client("m.om", "out", "result")
        (cann / "lib64/libascendcl.so").unlink(missing_ok=True)
        monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(cann))


def test_a_package_that_the_client_lacks_is_named(work: Path) -> None:
    (work.parent / "site/ais_bench/__main__.py").write_text("import aclruntime\n")
    with pytest.raises(MissingRuntimeError, match=r"^m\.om: aclruntime is not installed for .*requirements/npu\.txt"):
        run_client("m.om", "out", "result")


def test_a_part_of_the_client_itself_that_is_not_there_is_no_package_to_install() -> None:
    assert cann_libraries.not_imported("ModuleNotFoundError: No module named 'ais_bench.infer'") is None
    assert cann_libraries.not_imported("ModuleNotFoundError: No module named 'ais_bench_x'") is not None


def test_more_loops_than_the_client_takes_are_refused() -> None:
    check_run([], [], None, loop=100_000)
    with pytest.raises(ArgumentError, match="--loop 100001: ais_bench takes at most 100,000"):
        check_run([], [], None, loop=100_001)


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


def test_packed_tensors_are_not_for_the_client(work: Path) -> None:
    tensor_format = TensorFormat("ecentercrop-bicubic", 8, "uint8", (), ())
    (work / "prep").mkdir()
    write_index(work / "prep", TensorSet(tensor_format, images=0, count=0, complete=True, packed=True))
    with pytest.raises(PipelineError, match="packed"):
        check_run([], ["prep"], None)


def test_infer_of_a_om_makes_the_output_folder_that_the_client_takes_again(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda _program, command, _environment: became.append(command[3:]))
    flags = ["--om-model", "m.om", "--output=out", "--output-dirname=a", "--batch-size", "8"]
    monkeypatch.setattr(sys, "argv", ["infer", *flags])
    for _ in range(2):
        command_line._hand_over_om()
    assert became == [["--model", "m.om", "--output=out", "--output_dirname=a", "--batchsize", "8"]] * 2
    assert Path("out").stat().st_mode & 0o777 == 0o750
