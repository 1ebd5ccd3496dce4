"""What docs/python.md shows runs as it stands, and the hooks are what test.sh runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import PROJECT, call


@pytest.mark.heavy
def test_the_python_page_runs_from_top_to_bottom_and_prints_what_it_says(tmp_path: Path) -> None:
    page = (PROJECT / "docs/python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```\n\n    (.*?)\n", page, re.DOTALL)
    assert len(blocks) == page.count("```python") > 1
    (tmp_path / "demo").symlink_to(PROJECT / "demo")
    result = call("-c", "".join(code for code, _ in blocks), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [printed for _, printed in blocks]


def test_every_name_of_the_python_page_is_there_and_documented() -> None:
    names = sorted(set(re.findall(r"`(ResNeSt(?:\.\w+)+)`", (PROJECT / "docs/python.md").read_text())))
    assert len(names) > 15
    code = f"import pydoc\nfor name in {names}:\n    assert getattr(pydoc.locate(name), '__doc__', None), name"
    result = call("-c", code)
    assert result.returncode == 0, result.stderr


def test_the_commit_hooks_are_what_test_sh_runs_before_the_tests() -> None:
    hooks = re.findall(r"^ +entry: (.+)$", (PROJECT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
    script = (PROJECT / "test.sh").read_text()
    before = re.findall(r'cd "\$here" && (.+) && exec', script)[0].split(" && ")
    assert hooks == before
