"""What a reader types from the pages works in a clean clone, and prints what they say."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROJECT, Completed
from tests.warm import MODULES, Warm

PAGES = sorted(path.name for path in (PROJECT / "docs").glob("*.md"))
# What a page's first command needs that is not everywhere, in the words that stand before it.
NEEDS = {
    "cluster.md": "requirements/ray.txt",
    "edge.md": "requirements/edge.txt",
    "native.md": "C++17 compiler",
    "own-data.md": "the demo's own run",
    "serve.md": "requirements/serve.txt",
    "speed.md": "half a minute",
    "training.md": "ten seconds",
}
ENDS_WITH_1 = {"troubleshooting.md": "ends with 1"}  # there is no CANN here, and the page says what it then does


class Clone:
    """The files that git has, as they are now, in a folder that is a repository of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warm = Warm(folder)
        self.done: dict[str, Completed] = {}

    def run(self, line: str) -> Completed:
        """Runs a line as it is typed there, once."""
        if line not in self.done:
            self.done[line] = self._run(shlex.split(line, comments=True))
        return self.done[line]

    def _run(self, words: list[str]) -> Completed:
        program, name, *rest = words
        modules = {**MODULES, "run.sh": "ResNeSt.pipeline"}  # without the set-up
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHON": sys.executable}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
        if program == "bash" and name in modules:
            return self.warm.run(["-m", modules[name], *rest], self.folder, environment)
        if program == "python":
            return self.warm.run([name, *rest], self.folder, environment)
        return subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def git(self, *arguments: str) -> list[str]:
        command = ["git", "-C", str(self.folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    listed = ["git", "-C", str(PROJECT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("no git checkout, so no clean clone")
    folder = tmp_path_factory.mktemp("clone") / "ResNeSt"
    for name in filter(None, found.stdout.split("\0")):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)
    made = Clone(folder)
    made.git("init", "--quiet")
    made.git("add", "--all")
    return made


def blocks(text: str) -> list[list[str]]:
    """The code blocks of a page, each a list of lines."""
    found = re.findall(r"(?:^    .*\n(?:\n(?=    ))*)+", text, re.MULTILINE)
    return [[line[4:] for line in block.rstrip().split("\n")] for block in found]


def transcripts(block: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Commands, and what the page says that they print."""
    for part in re.split(r"^\$ ", "\n".join(block), flags=re.MULTILINE)[1:]:
        command, *printed = part.rstrip().split("\n")
        yield command, printed


VARIES = [
    (r"\b\d+(\.\d+)?( s\b|(?= img/s))", "SECONDS"),
    (r"decoded by .*", "DECODER"),
    (r"OpenVINO [\d.]+", "OpenVINO"),
    (r"\d+\.\d{7,}", "TIME"),
    (r"\d\.\d+e[-+]\d+", "DIFFERENCE"),
    (r"-{5,}", "RULE"),
    (r"^(\d+)\*?( +[\d.]+ +[\d.]+) .*", r"\1\2 SPEEDS"),  # a row of bench.sh; which is the fastest varies, too
    (r"( of \d+ .*) [\d.]+$", r"\1 SPEED"),  # a row of run.sh's table
    (r" +", " "),
]


def without_what_varies(lines: list[str]) -> list[str]:
    """Accuracies, counts, names and words stay; times, speeds and rounding do not, nor does how wide a column is."""
    for pattern, word in VARIES:
        lines = [re.sub(pattern, word, line) for line in lines]
    return [line.strip() for line in lines if line.strip()]


@pytest.mark.heavy
def test_the_quickstart_s_commands_print_in_a_clean_clone_what_it_says_and_leave_nothing_for_git(clone: Clone) -> None:
    page = (PROJECT / "docs/quickstart.md").read_text()
    (whole,), printed, *by_hand = blocks(page)
    said = [(whole, printed), *(step for block in by_hand for step in transcripts(block))]
    assert len(said) > 8
    for command, expected in said:
        done = clone.run(command)
        assert done.returncode == 0, done.stderr
        assert without_what_varies(done.stdout.split("\n")) == without_what_varies(expected), command
    assert clone.git("ls-files", "--others", "--exclude-standard") == []
    assert clone.git("diff", "--name-only") == []


@pytest.mark.heavy
@pytest.mark.parametrize("page", PAGES)
def test_the_first_command_of_a_page_works_after_run_sh_in_a_clean_clone(page: str, clone: Clone) -> None:
    text = (PROJECT / "docs" / page).read_text()
    before = " ".join(text.partition("\n    ")[0].split())
    for word in (NEEDS.get(page), ENDS_WITH_1.get(page)):
        assert word is None or word in before
    assert len(before.split("# ")[1].split()) < 80  # a title and a sentence or two
    if page in NEEDS:
        pytest.skip(f"docs/{page} needs: {NEEDS[page]}")
    assert clone.run("bash run.sh").returncode == 0
    for line in blocks(text)[0]:
        done = clone.run(line)
        assert done.returncode == (1 if page in ENDS_WITH_1 else 0), done.stdout + done.stderr
    assert done.stdout
    assert clone.git("ls-files", "--others", "--exclude-standard") == []
