"""What the documents quote is what the programs say."""

from __future__ import annotations

import argparse
import importlib
import itertools
import re
import shlex
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ResNeSt.common.arguments import Parser
from ResNeSt.convert import failure
from tests.conftest import PROJECT

PAGES = ["README.md", *sorted(path.relative_to(PROJECT).as_posix() for path in (PROJECT / "docs").glob("*.md"))]
CHINESE = ["README.zh-CN.md", *sorted(path.relative_to(PROJECT).as_posix() for path in PROJECT.glob("docs/zh-CN/*.md"))]
TRANSLATED = ["README.md", *sorted(f"docs/{path.name}" for path in (PROJECT / "docs/zh-CN").glob("*.md"))]


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
    assert explained == set(failure._HINTS)


def test_every_command_of_the_readme_names_a_file_that_is_there() -> None:
    text = "".join((PROJECT / page).read_text() for page in TRANSLATED)
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


COMMENT = re.compile(r"(?<=\S) +# (.+)$")


def commands(section: list[str]) -> list[str]:
    """Lines of its code blocks, without their comments: commands and what they print."""
    return [COMMENT.sub("", line) for line in section if line.startswith("    ")]


def for_reading(section: list[str]) -> list[str]:
    """What is to be read in another language beside the prose: comments of commands, heads of tables."""
    comments = [match[1] for line in section if line.startswith("    ") and (match := COMMENT.search(line))]
    return [*comments, *(head for head, line in itertools.pairwise(section) if line.startswith("| --- |"))]


def named(section: list[str]) -> list[str]:
    """Code, link targets and quoted files in its prose, in any order."""
    prose = "\n".join(line for line in section if not line.startswith("    "))
    found = re.findall(r"`[^`]+`|\]\([^)]+\)", prose)
    # From either folder; a heading in the page itself is called otherwise there.
    return sorted(re.sub(r"\.\./|docs/|zh-CN/|(?<=\]\()#[^)]+", "", " ".join(text.split())) for text in found)


@pytest.mark.parametrize("page", TRANSLATED)
def test_a_chinese_page_has_the_sections_commands_and_names_of_the_english_one(page: str) -> None:
    translation = "README.zh-CN.md" if page == "README.md" else page.replace("docs/", "docs/zh-CN/")
    english, chinese = sections(page), sections(translation)
    assert len(chinese) == len(english) > 0
    for ours, theirs in zip(english, chinese, strict=True):
        assert theirs[0].split()[0] == ours[0].split()[0], ours[0]  # as many #
        assert commands(theirs) == commands(ours), ours[0]
        assert named(theirs) == named(ours), ours[0]
        assert not re.search("[\u4e00-\u9fff]", "".join(ours)), ours[0]
        assert re.search("[\u4e00-\u9fff]", "".join(theirs)), theirs[0]
        assert len(for_reading(theirs)) == len(for_reading(ours)), ours[0]
        assert [text for text in for_reading(theirs) if not re.search("[\u4e00-\u9fff]", text)] == []


def test_chinese_pages_call_things_what_the_ascend_community_calls_them() -> None:
    text = "".join((PROJECT / page).read_text() for page in CHINESE)
    assert [word for word in ("卡片", "权重卡", "参赛", "同类", "教科书", "显存") if word in text] == []
    words = ["模型配置文件", "对比对象", "未改写的计算图", "动态 batch", "可视化报告", "图片分类预测", "端到端精度评估"]
    assert [word for word in words if word not in text] == []


ENTRIES = {
    "resnest_preprocess.py": "ResNeSt.commands.preprocess",
    "resnest_pth2onnx.py": "ResNeSt.commands.export",
    "resnest_train.py": "ResNeSt.commands.train",
    "ResNeSt_postprocess.py": "ResNeSt.commands.postprocess",
    "convert.sh": "ResNeSt.convert.__main__",
    "bench.sh": "ResNeSt.bench.__main__",
    "run.sh": "ResNeSt.pipeline",
    "tests/on_ascend.sh": "tests.on_ascend",
}
PLACEHOLDER = re.compile(r"[\[…<|]| [A-Z]{2,}\b| N\b|=[A-Z]+\b")  # in a line of usage; it cannot be typed


class ParsedError(Exception):
    """The command line holds."""


def typed(page: str) -> Iterator[list[str]]:
    """The project's own commands in a page that a reader can type, without the interpreter; no mere names."""
    text = re.sub(r"\\\n\s*", "", (PROJECT / page).read_text())
    fenced = [block for _, block in re.findall(r"^```(sh|bash|console)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
    blocks = [line for line in text.splitlines() if line.startswith("    ")]
    quoted = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]
    for line in [*blocks, *"".join(fenced).splitlines(), *quoted]:
        command = line.strip().removeprefix("$ ")
        if re.match(r"(bash|python(?: -m)?) \S", command) and not PLACEHOLDER.search(command):
            words = shlex.split(command, comments=True)
            ends = [number for number, word in enumerate(words) if word in {"&&", "|", ">", ";"}]
            words = words[: min(ends, default=len(words))]
            words = words[2:] if words[1] == "-m" else words[1:]
            if (words[0] in ENTRIES or words[0].startswith("ResNeSt.")) and len(words) > 1:
                yield words


def main_of(name: str) -> Callable[..., object]:
    """What a command runs."""
    module = ENTRIES.get(name, name)
    if (PROJECT / module.replace(".", "/") / "__main__.py").is_file():
        module += ".__main__"
    found: Callable[..., object] = importlib.import_module(module).main
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_documents_is_one_that_its_program_takes(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(parser: argparse.ArgumentParser, *_given: object) -> None:
        shown = {spelling: action for action in parser._actions for spelling in action.option_strings}
        parser._option_string_actions = shown  # and no spelling of earlier versions
        _, rest = argparse.ArgumentParser.parse_known_args(parser)
        raise SystemExit(2) if rest else ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(Parser, "parse_known_args", argparse.ArgumentParser.parse_known_args)  # the files are not here
    refused = []
    for command in typed(page):
        monkeypatch.setattr(sys, "argv", command)
        try:
            main_of(command[0])()
            refused.append("parses nothing: " + shlex.join(command))
        except ParsedError:
            continue
        except SystemExit:
            refused.append(shlex.join(command))
    assert refused == []


def test_the_readme_is_read_in_ten_minutes() -> None:
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 150


def columns(line: str) -> int:
    """What it takes on a terminal, where a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


@pytest.mark.parametrize("page", [*PAGES, *CHINESE, "CONTRIBUTING.md", "demo/README.md", "tests/standins/README.md"])
def test_prose_ends_at_100_columns(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (PROJECT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    prose = [line for line in text.splitlines() if not line.startswith(("    ", "|"))]
    assert [line for line in prose if columns(line) > 100] == []


def test_every_link_of_a_page_leads_to_a_file() -> None:
    pages = [PROJECT / "README.md", PROJECT / "README.zh-CN.md", *(PROJECT / "docs").rglob("*.md")]
    links = [
        (page, target) for page in pages for target in re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", page.read_text())
    ]
    assert len(links) > 100
    assert [(page.name, target) for page, target in links if not page.parent.joinpath(target).exists()] == []


def slug(heading: str) -> str:
    """What GitHub calls the anchor of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES + CHINESE)
def test_every_link_to_a_heading_leads_to_one(page: str) -> None:
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", (PROJECT / page).read_text()):
        text = ((PROJECT / page).parent / file if file else PROJECT / page).read_text()
        assert anchor in {slug(heading) for heading in re.findall(r"^#+ (.+)", text, re.MULTILINE)}


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for target in re.findall(r"\]\((?!https?:)([^)#]+\.md)\)", (PROJECT / page).read_text()):
            found = (PROJECT / page).parent.joinpath(target).resolve().relative_to(PROJECT.resolve()).as_posix()
            if found not in reached:
                waiting.append(found)
    assert set(PAGES) <= reached


def test_a_page_goes_to_the_same_page_in_the_other_language() -> None:
    for name in TRANSLATED[1:]:
        name = name.removeprefix("docs/")
        assert (PROJECT / "docs" / name).read_text().startswith(f"[简体中文](zh-CN/{name})\n")
        assert (PROJECT / "docs/zh-CN" / name).read_text().startswith(f"[English](../{name})\n")


def test_a_chinese_page_links_to_the_chinese_page_where_there_is_one() -> None:
    for page in CHINESE:
        links = re.findall(r"\]\((?!https?:)([^)#]+\.md)", (PROJECT / page).read_text())
        found = [(PROJECT / page).parent.joinpath(link).resolve() for link in links]
        own = {"README.md", f"docs/{Path(page).name}"}  # the same page in English, at the top
        english = {path.relative_to(PROJECT).as_posix() for path in found} & set(TRANSLATED)
        assert english <= own, page


def known_from(page: str, head: str) -> list[str]:
    """Last cells of the tables whose last column has this head."""
    text = (PROJECT / page).read_text()
    tables = re.findall(rf"^\|.*{head} \|\n\|[ |-]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert len(tables) == text.count(f"{head} |")
    return [line.removesuffix(" |").rpartition("| ")[2] for body in tables for line in body.splitlines()]


def test_every_line_about_an_ascend_host_says_what_it_is_known_from() -> None:
    marks = known_from("docs/ascend.md", "known from")
    assert len(marks) > 40
    assert set(marks) == {"cpu", "stand-ins", "documents"}
    chinese = {"cpu": "cpu", "stand-ins": "桩程序", "documents": "文档"}
    assert known_from("docs/zh-CN/ascend.md", "依据") == [chinese[mark] for mark in marks]
