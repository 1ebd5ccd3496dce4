"""An Ascend host: Python 3.9, NumPy 1.x, Pillow and tqdm, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ResNeSt.convert.host import PACKAGES
from tests.conftest import PROJECT, call
from tests.walls import light_modules


def python39() -> str | None:
    # pyenv's own folders first: its launcher on PATH is there for versions that are not switched on, too.
    folders = [str(path) for path in Path.home().glob(".pyenv/versions/3.9.*/bin")]
    return shutil.which("python3.9", path=os.pathsep.join([*folders, os.environ["PATH"]]))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python 3.9 environment with this project's section of requirements/npu.txt and NumPy 1.x, without pip."""
    interpreter = python39()
    if interpreter is None:
        pytest.skip("no Python 3.9 on this machine")
    folder = tmp_path_factory.mktemp("host") / "env"
    subprocess.run([interpreter, "-m", "venv", "--without-pip", folder], check=True)
    own = folder / "own.txt"
    own.write_text("\n".join([*sections()[0], "numpy<2"]))
    into: list[str | Path] = [
        "--target",
        folder / "lib/python3.9/site-packages",
        "--python-version=3.9",
        "--only-binary=:all:",
    ]
    pip: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *into, "-r", own], check=True)
    return folder / "bin/python"


def sections() -> list[list[str]]:
    """The requirements of an Ascend host: this project's, and those of CANN's operator builder."""
    parts = (PROJECT / "requirements/npu.txt").read_text().split("\n\n")
    found = [[line.split("#")[0].strip() for line in part.splitlines()] for part in parts]
    return [list(filter(None, part)) for part in found if any(part)]


def test_requirements_npu_txt_has_this_project_s_packages_and_then_cann_s() -> None:
    own, cann = ([Requirement(line) for line in part] for part in sections())
    assert [package.name for package in own] == ["numpy", "pillow", "tqdm"]
    assert sorted(package.name for package in cann) == sorted(set(PACKAGES.values()) - {"numpy"})
    newest = {"numpy": "1.24.4", "pillow": "11.3.0", "tqdm": "4.67.1"}  # that Python 3.9 and CANN 8.0 take
    assert all(package.specifier.contains(newest[package.name]) for package in own)


@pytest.mark.heavy
def test_the_ascend_host_s_steps_run_on_python_3_9_and_numpy_1(
    host: Path, demo_onnx: Path, tmp_path: Path, standins: dict[str, str]
) -> None:
    env = {**standins, "PYTHON": str(host)}
    sim = tmp_path / "resnest_demo_sim.onnx"
    assert call("-m", "onnxsim", demo_onnx, sim).returncode == 0

    def step(program: object, *arguments: object) -> str:
        environment = {**os.environ, **env, "PYTHONPATH": os.pathsep.join([str(PROJECT), env["PYTHONPATH"]])}
        command = [str(program), *map(str, arguments)]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    step(host, "-c", f"import {', '.join(light_modules())}")
    step(host, PROJECT / "resnest_preprocess.py", PROJECT / "demo/val", "prep_dataset", "--arch=resnest_demo")
    step("bash", PROJECT / "convert.sh", "4", "310P3", "--onnx=resnest_demo.onnx")
    labels = PROJECT / "demo/val_label.txt"
    flags = ["--model=resnest_demo", "--input=prep_dataset", f"--labels={labels}", "--loop=3", "--output=out"]
    step("bash", PROJECT / "bench.sh", "4", "310P3", *flags)
    summary = "--result_path=out/result_bs4_summary.json"
    printed = step(host, PROJECT / "ResNeSt_postprocess.py", summary, f"--gt_path={labels}")
    flags = ["--model=resnest_demo_bs4.om", f"--images={PROJECT / 'demo/val'}", f"--labels={labels}"]
    evaluated = step(host, "-m", "ResNeSt.evaluate", *flags)
    expected = json.loads((PROJECT / "demo/expected.json").read_text())
    assert f"top1_acc\t{expected['top1']:.4f}" in printed
    assert f"top1_acc\t{expected['top1']:.4f}" in evaluated
    compared = step(
        host, "-m", "ResNeSt.compare", "out/result_bs4_summary.json", "resnest_demo_bs4.om", "--tensors=prep_dataset"
    )
    assert compared.splitlines()[-1].split()[1:4] == ["396", "100.00", "%"]
