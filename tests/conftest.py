"""What the tests share: golden files where they are present, small images, an exported demo model, the stand-ins."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

if "PYTEST_XDIST_WORKER" in os.environ:
    # A test file on each core: threads of PyTorch's that wait for a core take ten times as long as one alone.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image

from benchmarks.peers import operators_of_torchvision
from ResNeSt.common import cores
from tests.warm import MODULES, Warm

PROJECT = Path(__file__).resolve().parent.parent
STANDINS = PROJECT / "tests" / "standins"

Completed = subprocess.CompletedProcess[str]
Command = Callable[..., Completed]


# The files that take longest, so that no core waits for another one's at the end.
LONGEST = [
    "test_walkthrough.py",
    "test_main_way.py",
    "test_pipeline.py",
    "test_onnx_weights.py",
    "test_training.py",
    "test_faults.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all else in its order."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def nothing_stays_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test's code says to its whole process, in the environment or of its cores, ends with the test."""
    monkeypatch.setattr(cores, "_share", None)
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Golden files beside the checkout; tests that want them are skipped where they are absent."""
    folder = PROJECT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no golden files beside the checkout")
    return folder


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    """torchvision's Python part; its compiled operators do not load beside a CPU build of torch, and are not needed."""
    pytest.importorskip("torch")
    operators_of_torchvision()
    module: ModuleType = pytest.importorskip("torchvision")
    return module


@pytest.fixture(scope="session")
def timm(torchvision: ModuleType) -> ModuleType:
    module: ModuleType = pytest.importorskip("timm")
    return module


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth random RGB image: no two rows or columns alike."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def tree(root: Path, **images: list[str]) -> Path:
    """A folder for each class, with small pictures of these names."""
    for folder, names in images.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            picture(8, 8).save(root / folder / name)
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A flat folder of twelve JPEGs of several shapes and modes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(1, 13):
        image = picture(200 + 37 * number, 500 - 29 * number, seed=number)
        if number == 3:
            image = image.convert("L")
        if number == 4:
            image = image.convert("CMYK")
        image.save(folder / f"val_{number}.JPEG", quality=90, progressive=number == 5)
    return folder


WARM = Warm()


def call(
    *arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None, fresh: bool = False
) -> Completed:
    """Runs a script of the project as a user would: a .py, a .sh, `-m module` or `-c code`, and captures its output.

    The interpreter has imported the large packages already, unless it is to be a `fresh` one; then the shell scripts
    run, too, and not just the module behind them.
    """
    name, *rest = map(str, arguments)
    environment = {**os.environ, "PYTHON": sys.executable, **(env or {})}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), environment.get("PYTHONPATH")]))
    if name in MODULES and not fresh:
        name, rest = "-m", [MODULES[name], *rest]
    command = [name if name.startswith("-") else str(PROJECT / name), *rest]
    if not fresh and not name.endswith(".sh"):
        return WARM.run(command, cwd, environment)
    program = "bash" if name.endswith(".sh") else sys.executable
    return subprocess.run([program, *command], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def assert_refused(result: Completed, *words: str, code: int = 1) -> None:
    """One line on stderr that starts with `error:` and holds `words`, no traceback, the exit code."""
    lines = result.stderr.strip().splitlines()
    assert lines, result.stdout
    assert lines[-1].startswith("error: "), result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in lines[-1]
    assert result.returncode == code


def corrupt(source: Path, target: Path, node: str, by: float = 5) -> None:
    """Copies an ONNX file with one weight of the convolution `node` changed by that many times the largest."""
    import onnx

    model = onnx.load(source)
    weights = next(found.input[1] for found in model.graph.node if found.name == node)
    constant = next(value for value in model.graph.initializer if value.name == weights)
    values = onnx.numpy_helper.to_array(constant).copy()
    values.flat[0] += by * np.abs(values).max()
    constant.CopyFrom(onnx.numpy_helper.from_array(values, constant.name))
    onnx.save(model, target)


@pytest.fixture(scope="session")
def demo_checkpoint() -> Path:
    """The bundled demo weights."""
    (found,) = (PROJECT / "demo").glob("resnest_demo-*.pth")
    return found


@pytest.fixture(scope="session")
def demo_onnx(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo network, exported by the project's own script."""
    target = tmp_path_factory.mktemp("export") / "resnest_demo.onnx"
    result = call("resnest_pth2onnx.py", f"--source={demo_checkpoint}", f"--target={target}")
    assert result.returncode == 0, result.stderr
    return target


CLIENTS = ["0.0.2", "0.1.0"]  # the two command lines of ais_bench


@pytest.fixture
def standins(request: pytest.FixtureRequest) -> dict[str, str]:
    """Environment in which atc, npu-smi and ais_bench are the stand-ins.

    ais_bench is 0.0.2, or what a test asks for: @pytest.mark.parametrize("standins", CLIENTS, indirect=True).
    """
    version = getattr(request, "param", CLIENTS[0])
    return {
        "PATH": f"{STANDINS / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{STANDINS}{os.pathsep}{STANDINS / 'versions' / version}",
        "STANDIN_PYTHON": sys.executable,
    }
