"""The package, installed: one command, its data files, and the same requirements that the files say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from ResNeSt import __main__ as resnest
from ResNeSt import __version__
from tests.conftest import PROJECT, assert_refused, call, picture


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install .` puts on the path, from a copy of the project."""
    pytest.importorskip("setuptools")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    shutil.copytree(PROJECT / "ResNeSt", source / "ResNeSt", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PROJECT / "requirements", source / "requirements")
    for name in ("pyproject.toml", "README.md", "requirements.txt"):
        shutil.copy(PROJECT / name, source)
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    done = subprocess.run([*pip, "--target", target, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def run(installed: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command: list[str | Path] = [sys.executable, installed / "bin/resnest", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.heavy
def test_the_installed_command_runs_the_tools_with_their_data_files(
    installed: Path, demo_onnx: Path, tmp_path: Path
) -> None:
    assert run(installed, "--version", cwd=tmp_path).stdout == f"resnest {__version__}\n"
    assert "resnest269" in run(installed, "models", cwd=tmp_path).stdout
    picture = sorted((PROJECT / "demo/val").iterdir())[0]
    answer = run(installed, "predict", "--model", demo_onnx, picture, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert len(list(installed.rglob("imagenet_classes.tsv"))) == len(list(installed.rglob("page.css"))) == 1


@pytest.mark.heavy
def test_the_installed_pipeline_runs_the_stages_as_commands_of_its_own(installed: Path, tmp_path: Path) -> None:
    """Up to the export, whose checkpoint is none."""
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        picture(60, 50, number).save(tmp_path / "images" / f"img_{number}.png")
    (tmp_path / "labels.txt").write_text("img_1.png 0\nimg_2.png 1\n")
    (tmp_path / "none.pth").write_bytes(b"none")
    flags = ["--images=images", "--labels=labels.txt", "--model=resnest_demo", "--weights=none.pth", "--output=w"]
    done = run(installed, "run", *flags, cwd=tmp_path)
    assert re.findall(r"^\$ resnest (\w+)", done.stdout, re.MULTILINE) == ["preprocess", "export"]
    assert "2 tensors written" in done.stdout
    assert_refused(done, "ended with exit code 1")
    assert_refused(run(installed, "run", cwd=tmp_path), "the demo is not installed", code=2)


@pytest.mark.parametrize("command", resnest.COMMANDS)
def test_every_command_has_a_help_of_its_own(command: str) -> None:
    result = call("-m", "ResNeSt", command, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: ")


def test_the_help_names_every_command_and_what_is_none_is_refused_with_their_names() -> None:
    listed = call("-m", "ResNeSt", "--help").stdout
    assert re.findall(r"^  (\w+) ", listed, re.MULTILINE) == list(resnest.COMMANDS)
    assert_refused(call("-m", "ResNeSt", "convrt"), "'convrt' is no command; did you mean convert?", code=2)


def test_a_command_by_this_name_does_what_its_script_does() -> None:
    by_name = call("-m", "ResNeSt", "models", "resnest50", "--json")
    assert by_name.stdout == call("-m", "ResNeSt.models", "resnest50", "--json").stdout
    refused = call("-m", "ResNeSt", "convert", "x", "cpu")
    assert (refused.returncode, refused.stderr) == (2, call("convert.sh", "x", "cpu", fresh=True).stderr)


def test_extras_are_the_requirements_files() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert settings["project"]["name"] != "resnest"
    extras = settings["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
    files = {path.stem: f"requirements/{path.name}" for path in (PROJECT / "requirements").glob("*.txt")}
    files.pop("lock")
    assert {name: extra["file"] for name, extra in extras.items()} == {**files, "cpu": "requirements.txt"}
