"""What every command has: a line in the list, --version, an example that works, --quiet, --json, completion."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ResNeSt import __main__ as resnest
from ResNeSt import __version__, completion
from ResNeSt.common.arguments import EXAMPLE, Parser
from ResNeSt.common.errors import ArgumentError, MissingRuntimeError
from ResNeSt.common.progress import aloud, be_quiet, is_quiet, remark
from ResNeSt.tensors.format import LAYOUTS
from tests.conftest import PROJECT, Completed, call

MODULES = {
    **{name: f"ResNeSt.{module}" for name, (module, _) in resnest.COMMANDS.items()},
    "serve export": "ResNeSt.serve.export",
    "benchmarks": "benchmarks.__main__",
}
SERVICE, COLLECTIONS, NO_RESULT = {"serve"}, {"labels"}, {"completion", "benchmarks"}


def parsers() -> Iterator[tuple[str, Parser]]:
    """Every command's, and those of its sub-commands."""
    for name, module in MODULES.items():
        parser: Parser = importlib.import_module(module).make_parser()
        yield name, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from ((f"{name} {below}", each) for below, each in action.choices.items())


PARSERS = dict(parsers())


def listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["resnest", *arguments])
    assert resnest.main() == 0
    return capsys.readouterr().out


def test_without_arguments_the_commands_are_listed_by_group_a_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = listed(monkeypatch, capsys)
    for title, group in resnest.GROUPS.items():
        (part,) = (part for part in text.split("\n\n") if part.startswith(f"{title}:"))
        assert [line.split()[0] for line in part.splitlines()[1:]] == list(group)
    assert max(map(len, text.splitlines())) <= 100
    assert listed(monkeypatch, capsys, "--help") == listed(monkeypatch, capsys, "help") == text


def test_help_with_a_command_is_the_command_s_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        listed(monkeypatch, capsys, "help", "models")
    assert capsys.readouterr().out == importlib.import_module(MODULES["models"]).make_parser().format_help()


@pytest.mark.parametrize(
    ("typed", "meant"), [("convrt", "convert"), ("benchmark", "bench"), ("training", "train"), ("Predict", "predict")]
)
def test_a_wrong_command_names_the_nearest(typed: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["resnest", typed])
    with pytest.raises(ArgumentError, match=f"{typed!r} is no command; did you mean {meant}?"):
        resnest.main()


@pytest.mark.parametrize("name", PARSERS)
def test_every_command_tells_the_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        PARSERS[name].parse_args(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"resnest {__version__}\n")


@pytest.mark.parametrize("script", ["run.sh", "convert.sh", "bench.sh"])
def test_a_script_tells_the_version_where_nothing_is_installed(script: str, tmp_path: Path) -> None:
    lone = tmp_path / script
    for name in (script, "env.sh", "ResNeSt"):
        (tmp_path / name).symlink_to(PROJECT / name)
    environment = {"PATH": os.environ["PATH"], "PYTHON": "/nowhere"}
    done = subprocess.run(["bash", lone, "--version"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"resnest {__version__}\n", "")


@pytest.mark.parametrize("script", ["run.sh", "convert.sh", "bench.sh"])
def test_a_script_is_found_through_a_link_to_it(script: str, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(PROJECT / script)
    told = subprocess.run(["bash", tmp_path / "linked", "--version"], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout, told.stderr) == (0, f"resnest {__version__}\n", "")


@pytest.mark.parametrize("name", PARSERS)
def test_the_help_ends_with_an_example_that_the_command_takes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    parser = PARSERS[name]
    assert parser.format_help().endswith(f"\n{EXAMPLE}{parser.example}\n")
    *_, last = re.sub(" +#.*", "", parser.example).split(" && ")
    words = shlex.split(last)
    options = words[3:] if words[1] == "-m" else words[2:]
    below = name.split()[1:] if name != "completion" else [name]
    assert options[: len(below)] == below
    parser.parse_args(options[len(below) :])


@pytest.mark.parametrize("name", PARSERS)
def test_every_command_with_a_result_has_json_and_quiet(name: str) -> None:
    flags = set(PARSERS[name]._option_string_actions) & {"--json", "--quiet"}
    expected = {"--json", "--quiet"} - ({"--json"} if name in SERVICE else set())
    assert flags == (set() if name in COLLECTIONS | NO_RESULT else expected)
    assert ("json" in PARSERS[name].roles) == ("--json" in flags)


@pytest.mark.parametrize("name", ["export", "train"])
def test_a_command_says_which_package_it_lacks_and_tells_its_version_without(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, MODULES[name], raising=False)
    for package in ("onnx", "torch"):
        monkeypatch.setitem(sys.modules, package, None)
    for loaded in [loaded for loaded in sys.modules if loaded.startswith(("ResNeSt.training", "ResNeSt.export"))]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(MissingRuntimeError, match=rf"(onnx|torch) is not installed here; {name} takes it: pip install"):
        resnest.start(name)
    monkeypatch.setattr(sys, "argv", [name, "--version"])
    assert resnest.start(name) == 0
    assert capsys.readouterr().out == f"resnest {__version__}\n"


@pytest.mark.parametrize("flag", ["--json=told.json", "--quiet"])
def test_what_ais_bench_has_no_flag_for_is_refused_with_its_model(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["infer", "--model=m_bs1.om", flag])
    with pytest.raises(ArgumentError, match=r"not for a \.om, which ais_bench runs"):
        importlib.import_module(MODULES["infer"]).main()


def follow(example: str, *more: str, cwd: Path) -> Completed:
    """Runs the commands of an example, the last of them with `more` flags."""
    *before, last = example.split(" && ")
    for command in before:
        if not command.startswith("python"):
            subprocess.run(["bash", "-c", command], cwd=cwd, check=True)
        elif (done := follow(command, cwd=cwd)).returncode:
            return done
    if not last.startswith(("python", "bash")):
        raise AssertionError(last)
    if " > " in last:
        raise AssertionError(last)
    _, *words = shlex.split(last)
    if words[0] == "run.sh":
        words[:1] = ["-m", "ResNeSt.pipeline"]
    return call(*words, *more, cwd=cwd)


def notes_alone(stderr: str) -> bool:
    """Some of the demo's pictures carry an EXIF orientation, which is said."""
    return all(line.startswith("note: ") for line in stderr.splitlines())


PREDICTED = json.loads((PROJECT / "demo/expected.json").read_text())["predicted"]
LABELS = dict(line.split() for line in (PROJECT / "demo/val_label.txt").read_text().splitlines())
# Of the demo's pictures those that the network takes for another class, and as many as make it forty, one with EXIF.
WRONG = [name for name, label in LABELS.items() if PREDICTED[name] != int(label)]
PICTURES = [*[name for name in LABELS if name not in WRONG][: 40 - len(WRONG)], *WRONG]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the project's, of forty of the demo's pictures, after a short run of the example of run.sh.

    That said no more than its table.
    """
    folder = tmp_path_factory.mktemp("project")
    (folder / "demo/val").mkdir(parents=True)
    for name in PICTURES:
        (folder / "demo/val" / name).symlink_to(PROJECT / "demo/val" / name)
    (folder / "demo/val_label.txt").write_text("".join(f"{name} {LABELS[name]}\n" for name in PICTURES))
    (weights,) = (PROJECT / "demo").glob("resnest_demo-*.pth")
    (folder / "demo" / weights.name).symlink_to(weights)
    done = follow(PARSERS["run"].example, "--batch=1,4", "--loop=1", "--quiet", "--json=run.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert notes_alone(done.stderr)
    assert [line.split("  ")[0] for line in done.stdout.split("\n") if line] == [
        *("stage", "-" * 88, "PyTorch", "ONNX", "simplified ONNX", "compiled", "compiled"),
    ]
    return folder


@pytest.mark.heavy
def test_the_run_s_json_has_the_table_and_where_it_lies(project: Path) -> None:
    told = json.loads((project / "run.json").read_text())
    assert told["version"] == __version__
    assert [stage["stage"] for stage in told["stages"]] == [
        "PyTorch",
        "ONNX",
        "simplified ONNX",
        "compiled",
        "compiled",
    ]
    assert (project / told["folder"] / "summary.json").is_file()


# A command, and what its JSON holds besides the version.
RESULTS: dict[str, dict[str, Any]] = {
    "preprocess": {"written": 40, "kept": 0, "broken": {}},
    "export": {"model": "resnest_demo", "size": 96, "opset": 11},
    "convert": {"simplified": "work/models/resnest_demo_sim.onnx"},
    "bench": {"chip": "cpu", "folder": "work/bench"},
    "infer": {"model": "work/resnest_demo/resnest_demo_bs4.xml"},
    "postprocess": {"top1_correct": 40 - len(WRONG), "tot": 40},
    "evaluate": {"top1_correct": 40 - len(WRONG), "tot": 40},
    "predict": {"model": "work/resnest_demo/resnest_demo_bs1.xml"},
    "compare": {"images": 40, "same_top1": 40, "flips": []},
    "report": {"page": "work/resnest_demo/report.html"},
    "labels tree": {"images": 40, "classes": 10},
    "labels csv": {"images": 1, "classes": 1},
    "labels archive": {"images": 1, "classes": 1},
    "labels check": {"labels": 40, "missing": [], "extra": []},
    "labels to-flat": {"moved": 40},
    "serve export": {"name": "resnest_demo"},
}
# What takes packages, files or minutes that not every machine has: the commands take the examples, as is tested above.
NOT_RUN = {"run", "serve", "loadgen", "mindir", "train", "labels", "labels devkit", "labels to-tree", "benchmarks"}
CHEAPER = {"bench": ["--loop=3", "--no-report"]}


def test_every_example_is_run_or_named() -> None:
    assert {*RESULTS, *NOT_RUN, "models", "completion"} == set(PARSERS)


@pytest.mark.heavy
@pytest.mark.parametrize("name", RESULTS)
def test_an_example_works_and_its_json_alone_is_said_where_that_is_asked(name: str, project: Path) -> None:
    shutil.rmtree(project / "work/tree", ignore_errors=True)  # of another example
    example = PARSERS[name].example.replace(".sh 1,4 cpu", ".sh 4 cpu")  # a batch size is enough
    done = follow(example, *CHEAPER.get(name, ()), "--json=-", "--quiet", cwd=project)
    assert done.returncode == 0, done.stderr
    assert notes_alone(done.stderr)
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["version"] == __version__
    assert {key: told[key] for key in RESULTS[name]} == RESULTS[name]


def test_the_json_of_models_is_the_list_of_cards_whichever_way_it_is_asked_for(tmp_path: Path) -> None:
    spelled = [("resnest50", "--json"), ("--json", "resnest50"), ("resnest50", "--json=-")]
    one, *others = (call("-m", "ResNeSt.models", *words, cwd=tmp_path) for words in spelled)
    assert [card["name"] for card in json.loads(one.stdout)] == ["resnest50"]
    assert {other.stdout for other in others} == {one.stdout}
    assert not list(tmp_path.iterdir())
    done = call("-m", "ResNeSt.models", "--json=all.json", cwd=tmp_path)
    assert (len(json.loads((tmp_path / "all.json").read_text())), "resnest269" in done.stdout) == (12, True)


@pytest.mark.heavy
def test_a_quiet_command_prints_its_answer_and_nothing_else(project: Path) -> None:
    score = follow(PARSERS["postprocess"].example, "--quiet", cwd=project)
    assert [line.split("\t")[0].split("=")[0] for line in score.stdout.splitlines()[:4]] == [
        *("top1_acc", "top5_acc", "top1_correct", "top5_correct"),
    ]
    assert score.stderr == ""


def test_quiet_lets_notes_through_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    aloud("first")
    remark("labels seem to count from 1")
    be_quiet()
    aloud("second")
    remark("labels seem to count from 0")
    captured = capsys.readouterr()
    assert captured.out == "first\nnote: labels seem to count from 1\n"
    assert captured.err == "note: labels seem to count from 0\n"


@pytest.mark.parametrize("value", ["", "0", "no"])
def test_only_a_command_of_this_project_makes_those_that_it_starts_quiet(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNEST_QUIET", value)
    assert not is_quiet()
    be_quiet()
    assert is_quiet()


def test_what_a_command_starts_does_not_write_into_its_json(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; from ResNeSt.common.arguments import Parser, write_result;"
        "options = Parser(example='x').parse_args(); subprocess.run(['echo', 'child']); print('besides');"
        "write_result(options, {'a': 1})"
    )
    loud, quiet = (call("-c", code, "--json=-", *more, cwd=tmp_path) for more in ([], ["--quiet"]))
    for done in (loud, quiet):
        assert json.loads(done.stdout) == {"version": __version__, "a": 1}
    assert sorted(loud.stderr.split()) == ["besides", "child"]
    assert quiet.stderr == ""


def test_completion_without_shtab_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(MissingRuntimeError, match=r"requirements/completion\.txt"):
        completion.completion("bash")


def completed(script: str, *words: str) -> set[str]:
    """What bash offers for the last of `words`."""
    pytest.importorskip("shtab", reason="requirements/completion.txt is not installed")
    typed = shlex.join(words)
    ask = f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _shtab_resnest {words[0]} {words[-1]!r} {words[-2]!r}"
    text = f"{script}\n{ask}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", text], cwd=PROJECT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_bash_completes_commands_options_choices_and_files() -> None:
    pytest.importorskip("shtab", reason="requirements/completion.txt is not installed")
    script = completion.completion("bash")
    assert completed(script, "resnest", "ev") == {"evaluate"}
    assert completed(script, "resnest", "convert", "--dry") == {"--dry-run"}
    assert completed(script, "resnest", "labels", "to-") == {"to-tree", "to-flat"}
    assert completed(script, "resnest", "preprocess", "--dtype", "") == set(LAYOUTS)
    assert completed(script, "resnest", "evaluate", "--labels", "demo/val_") == {"demo/val_label.txt"}
    assert completed(script, "resnest", "evaluate", "--labels", "nothing_like_it") == set()


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_there_is_a_script_for_each_shell(shell: str) -> None:
    pytest.importorskip("shtab", reason="requirements/completion.txt is not installed")
    script = completion.completion(shell)
    assert all(command in script for command in resnest.COMMANDS)


def test_a_command_whose_packages_are_not_here_is_completed_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("shtab", reason="requirements/completion.txt is not installed")
    monkeypatch.setitem(sys.modules, "ResNeSt.commands.export", None)
    script = completion.completion("bash")
    assert completed(script, "resnest", "exp") == {"export"}
    assert completed(script, "resnest", "export", "--tar") == set()


def test_what_a_library_prints_is_not_heard_with_quiet(tmp_path: Path) -> None:
    code = (
        "import ctypes; from ResNeSt.common.arguments import Parser; from ResNeSt.common.progress import unheard;"
        "Parser(example='x').parse_args(); print('before', flush=True)\n"
        "with unheard(): print('Python'); ctypes.CDLL(None).puts(b'C')\n"
        "print('after')"
    )
    loud, quiet = (call("-c", code, *more, cwd=tmp_path, fresh=True) for more in ([], ["--quiet"]))
    assert sorted(loud.stdout.split()) == ["C", "Python", "after", "before"]
    assert quiet.stdout.split() == ["before", "after"]


@pytest.mark.parametrize("flag", ["--confusion", "--per-class"])
def test_only_json_takes_a_minus_for_stdout(flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=r"^-: only --json writes to stdout; name a file$"):
        PARSERS["postprocess"].parse_args(["--results=x", "--labels=y", flag, "-"])
