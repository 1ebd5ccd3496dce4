"""An Ascend host: Python 3.9, NumPy 1.x, Pillow and tqdm, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PROJECT, call
from tests.walls import light_modules


def python39() -> str | None:
    # pyenv's own folders first: its launcher on PATH is there for versions that are not switched on, too.
    folders = [str(path) for path in Path.home().glob(".pyenv/versions/3.9.*/bin")]
    return shutil.which("python3.9", path=os.pathsep.join([*folders, os.environ["PATH"]]))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python 3.9 environment with requirements/npu.txt and NumPy 1.x."""
    interpreter = python39()
    if interpreter is None:
        pytest.skip("no Python 3.9 on this machine")
    folder = tmp_path_factory.mktemp("host") / "env"
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    pip: list[str | Path] = [
        folder / "bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "numpy<2",
    ]
    subprocess.run([*pip, "-r", PROJECT / "requirements/npu.txt"], check=True)
    return folder / "bin/python"


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
    step(host, PROJECT / "resnest_preprocess.py", PROJECT / "demo/val", "prep_dataset", "--model=resnest_demo")
    step("bash", PROJECT / "convert.sh", "4", "310P3", "--onnx=resnest_demo.onnx")
    labels = PROJECT / "demo/val_label.txt"
    flags = ["--model=resnest_demo", "--input=prep_dataset", f"--labels={labels}", "--loop=3", "--output-dir=out"]
    step("bash", PROJECT / "bench.sh", "4", "310P3", *flags)
    summary = "--result_path=out/result_bs4_summary.json"
    printed = step(host, PROJECT / "ResNeSt_postprocess.py", summary, f"--gt_path={labels}")
    flags = ["--model=resnest_demo_bs4.om", f"--images={PROJECT / 'demo/val'}", f"--labels={labels}"]
    evaluated = step(host, "-m", "ResNeSt.evaluate", *flags)
    expected = json.loads((PROJECT / "demo/expected.json").read_text())
    assert f"top1_acc\t{expected['top1']:.4f}" in printed
    assert f"top1_acc\t{expected['top1']:.4f}" in evaluated
    compared = step(
        host, "-m", "ResNeSt.compare", "out/result_bs4_summary.json", "resnest_demo_bs4.om", "--input=prep_dataset"
    )
    assert compared.splitlines()[-1].split()[1:4] == ["396", "100.00", "%"]
