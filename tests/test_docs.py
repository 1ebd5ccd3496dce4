"""What the documents quote is what the programs say."""

from __future__ import annotations

import re

from ResNeSt.convert import atc
from tests.conftest import PROJECT


def rows(section: str) -> list[str]:
    """First cells of a section's table in docs/troubleshooting.md."""
    text = (PROJECT / "docs/troubleshooting.md").read_text()
    part = text.split(f"## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| (.+?) \|", part, re.MULTILINE)[2:]


def test_every_message_quoted_as_this_project_s_own_stands_in_its_source() -> None:
    source = "".join(path.read_text() for path in (PROJECT / "ResNeSt").rglob("*.py"))
    joined = re.sub(r'"\n\s*f?"', "", source)  # a text that goes on in the next line
    system = {"No space left on device"}
    matches = [re.fullmatch("`(.+)`", row) for row in rows("This project")]
    assert all(matches)
    quoted = {match[1] for match in matches if match} - system
    assert len(quoted) > 12
    assert [message for message in quoted if message not in joined] == []


def test_every_code_of_atc_that_has_a_hint_is_explained() -> None:
    explained = set(re.findall(r"E[0-9A-Z]\d{4}", " ".join(rows("ATC"))))
    assert explained == set(atc._HINTS)


def test_every_command_of_the_readme_names_a_file_that_is_there() -> None:
    text = (PROJECT / "README.md").read_text()
    scripts = set(re.findall(r"(?:python|bash) ((?:\w+/)*\w+\.(?:py|sh))", text))
    modules = set(re.findall(r"python -m ((?:ResNeSt|benchmarks)[\w.]*)", text))
    assert len(scripts) > 6
    assert [name for name in scripts if not (PROJECT / name).is_file()] == []
    paths = [PROJECT / name.replace(".", "/") for name in modules]
    assert [path for path in paths if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file())] == []


def sections(name: str) -> list[list[str]]:
    """Lines of each section of a document, its heading first."""
    text = (PROJECT / name).read_text()
    return [part.splitlines() for part in re.split(r"^(?=#+ )", text, flags=re.MULTILINE)[1:]]


def commands(section: list[str]) -> list[str]:
    """Lines of its code blocks: commands and what they print."""
    return [line for line in section if line.startswith("    ")]


def named(section: list[str]) -> list[str]:
    """Code, link targets and quoted files in its prose, in any order."""
    prose = "\n".join(line for line in section if not line.startswith("    "))
    found = re.findall(r"`[^`]+`|\]\([^)]+\)", prose)
    return sorted(" ".join(text.split()) for text in found)


def test_the_chinese_readme_has_the_sections_commands_and_names_of_the_english_one() -> None:
    english, chinese = sections("README.md"), sections("README.zh-CN.md")
    assert len(english) > 15
    assert len(chinese) == len(english)
    for ours, theirs in zip(english, chinese, strict=True):
        assert theirs[0].split()[0] == ours[0].split()[0], ours[0]  # as many #
        assert commands(theirs) == commands(ours), ours[0]
        assert named(theirs) == named(ours), ours[0]
        assert not re.search("[\u4e00-\u9fff]", "".join(ours)), ours[0]
        assert re.search("[\u4e00-\u9fff]", "".join(theirs)), theirs[0]
