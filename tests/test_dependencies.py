"""What run.sh installs is pinned, checked and accounted for."""

from __future__ import annotations

import re

from tests.conftest import PROJECT

PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((PROJECT / name).read_text()))


def test_every_package_but_pytorch_is_locked_at_its_version_with_hashes() -> None:
    locked = pins("requirements/lock.txt")
    assert {name: locked.get(name) for name in pins("requirements.txt") if name != "torch"} == {
        name: version for name, version in pins("requirements.txt").items() if name != "torch"
    }
    entries = re.split(PIN, (PROJECT / "requirements/lock.txt").read_text())[3::3]
    assert len(entries) == len(locked) > 30
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)


def test_every_package_has_its_licence_and_reason_in_the_table() -> None:
    files = ["requirements.txt", *(f"requirements/{name}.txt" for name in ("lock", "dev", "bench", "mutation", "ray"))]
    wanted = {name for file in files for name in pins(file)}
    rows = re.findall(
        r"^\| ([\w.-]+) \| (.+) \| (.+) \|$", (PROJECT / "docs/dependencies.md").read_text(), re.MULTILINE
    )
    assert {name for name, licence, reason in rows if licence and reason} >= wanted
