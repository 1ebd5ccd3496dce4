"""The walls between the rooms of ResNeSt/: what a room may import, and what an Ascend host never loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT, call
from tests.walls import ALLOWED, HEAVY_PACKAGES, LEVELS, PACKAGE, imports, is_heavy, levels, light_modules, modules


def test_every_room_imports_the_rooms_of_the_table_and_no_other() -> None:
    assert imports() == {name: set(others.split()) for name, others in ALLOWED.items()}


def test_the_rooms_stand_on_eight_levels_without_a_circle() -> None:
    found = levels(imports())
    assert max(found.values()) == LEVELS
    for name, others in imports().items():
        assert all(found[other] < found[name] for other in others), name


def test_a_room_s_init_holds_a_docstring_and_nothing_else() -> None:
    for init in PACKAGE.rglob("*/__init__.py"):
        (docstring,) = ast.parse(init.read_text()).body
        assert isinstance(docstring, ast.Expr), init


@pytest.mark.parametrize(
    "packed",
    [
        *("bench", "common", "convert", "engines", "formats", "images"),
        *("infer", "labels", "models", "report", "score", "tensors"),
    ],
)
def test_the_walk_below_finds_the_modules_of(packed: str) -> None:
    assert len([module for module in modules() if not is_heavy(module) and module.parts[-2] == packed]) > 2


def test_what_an_ascend_host_imports_loads_no_heavy_package() -> None:
    code = f"""
import importlib, sys
for name in {light_modules()!r}:
    importlib.import_module(name)
    loaded = set({HEAVY_PACKAGES.split()!r}) & set(sys.modules)
    assert not loaded, (name, loaded)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "path",
    [*(path for path in modules() if not is_heavy(path)), *PROJECT.glob("resnest_pre*.py"), *PROJECT.glob("*post*.py")],
    ids=lambda path: path.relative_to(PROJECT).as_posix(),
)
def test_a_module_of_an_ascend_host_is_written_in_python_3_9(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 9))


def test_the_layout_can_be_printed() -> None:
    lines = call("-m", "tests.walls").stdout.splitlines()
    assert len(lines) == len(ALLOWED) + 1
    assert f"rooms on {LEVELS} levels, " in lines[-1]
