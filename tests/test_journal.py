"""A journal of records: what a run that died leaves, and what the next one makes of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.journal import Journal

HEAD = {"model": "a", "batch": 2}
RECORDS = [{"image": str(number)} for number in range(5)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "predictions.jsonl"


def unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".unfinished")


def left_by_a_run(path: Path, records: list[dict[str, str]], group: int = 1) -> None:
    with Journal(path, HEAD, group) as journal:
        journal.write(records)


def test_a_finished_journal_is_its_head_and_its_records_a_line_each(path: Path) -> None:
    with Journal(path, HEAD) as journal:
        journal.write(RECORDS[:2])
        journal.write(RECORDS[2:])
        assert not path.exists()
        journal.finish()
    assert list(map(json.loads, path.read_bytes().splitlines())) == [HEAD, *RECORDS]
    assert not unfinished(path).exists()


def test_what_is_written_is_in_the_file_before_anything_else_happens(path: Path) -> None:
    with Journal(path, HEAD) as journal:
        assert unfinished(path).read_bytes().count(b"\n") == 1
        journal.write(RECORDS[:1])
        assert unfinished(path).read_bytes().count(b"\n") == 2


def test_a_run_of_the_same_head_goes_on_behind_the_records_that_are_there(path: Path) -> None:
    left_by_a_run(path, RECORDS[:3])
    with Journal(path, HEAD) as journal:
        assert list(journal) == RECORDS[:3]
        journal.write(RECORDS[3:])
        journal.finish()
    assert list(map(json.loads, path.read_bytes().splitlines())) == [HEAD, *RECORDS]


def test_a_new_journal_holds_nothing(path: Path) -> None:
    with Journal(path, HEAD) as journal:
        assert list(journal) == []


@pytest.mark.parametrize(("written", "kept"), [(0, 0), (1, 0), (2, 2), (3, 2), (4, 4), (5, 4)])
def test_only_whole_groups_are_kept(written: int, kept: int, path: Path) -> None:
    left_by_a_run(path, RECORDS[:written], group=2)
    with Journal(path, HEAD, group=2) as journal:
        assert list(journal) == RECORDS[:kept]
        journal.write(RECORDS[kept:])
        assert list(journal) == RECORDS


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_line_cut_short_is_dropped(cut: int, path: Path) -> None:
    left_by_a_run(path, RECORDS[:2])
    unfinished(path).write_bytes(unfinished(path).read_bytes()[:-cut])
    with Journal(path, HEAD) as journal:
        assert list(journal) == RECORDS[:1]


@pytest.mark.parametrize("key", ["model", "batch"])
def test_records_of_another_head_are_refused_by_what_differs_and_stay(key: str, path: Path) -> None:
    left_by_a_run(path, RECORDS[:1])
    before = unfinished(path).read_bytes()
    with pytest.raises(PipelineError, match=rf"{unfinished(path).name}: is of a run with another {key};"):
        Journal(path, {**HEAD, key: "other"})
    assert unfinished(path).read_bytes() == before
    with Journal(path, HEAD) as journal:  # nor is it held any longer
        assert list(journal) == RECORDS[:1]


def test_a_key_more_or_less_makes_another_head(path: Path) -> None:
    left_by_a_run(path, RECORDS[:1])
    with pytest.raises(PipelineError, match="with another mean, model;"):
        Journal(path, {"batch": 2, "mean": [0.5]})


@pytest.mark.parametrize("left", [b"", b"{", b'{"model":', b"{}\n", b'{"batch":5}\n', b"[1]\n{"])
def test_what_holds_no_record_is_begun_anew(left: bytes, path: Path) -> None:
    unfinished(path).write_bytes(left)
    with Journal(path, HEAD) as journal:
        assert list(journal) == []
        journal.finish()
    assert list(map(json.loads, path.read_bytes().splitlines())) == [HEAD]


@pytest.mark.parametrize("left", [b"cat\ndog\n", b"[]\n[]\n", b"\xff\n\n", b"1\n2\n", b"[" * 9999 + b"\n{}\n"])
def test_a_file_of_another_program_is_refused_and_stays(left: bytes, path: Path) -> None:
    unfinished(path).write_bytes(left)
    with pytest.raises(PipelineError, match="is of a run with another "):
        Journal(path, HEAD)
    assert unfinished(path).read_bytes() == left


def test_records_are_kept_up_to_the_first_that_is_none_in_its_place(path: Path) -> None:
    left_by_a_run(path, [RECORDS[0], RECORDS[1], RECORDS[3], RECORDS[3]])
    asked: list[int] = []

    def in_place(place: int, record: dict[str, str]) -> bool:
        asked.append(place)
        return record == RECORDS[place]

    with Journal(path, HEAD, is_record=in_place) as journal:
        assert list(journal) == RECORDS[:2]
    assert asked == [0, 1, 2]


@pytest.mark.parametrize("odd", [b"garbage", b"[" * 100_000, b"[]", b""])
def test_a_line_that_is_no_record_goes_with_all_behind_it(odd: bytes, path: Path) -> None:
    left_by_a_run(path, RECORDS)
    lines = unfinished(path).read_bytes().split(b"\n")
    lines[3] = odd
    unfinished(path).write_bytes(b"\n".join(lines))
    with Journal(path, HEAD) as journal:
        assert list(journal) == RECORDS[:2]


@pytest.mark.parametrize("name", ["predictions.jsonl", "predictions.jsonl.unfinished"])
@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_is_no_plain_file_is_refused_and_stays(name: str, kind: str, path: Path) -> None:
    odd = path.with_name(name)
    if kind == "link":
        odd.symlink_to(path.with_name("elsewhere"))
    else:
        odd.mkdir()
    with pytest.raises(PipelineError, match=rf"{name}: "):
        Journal(path, HEAD)
    assert [entry.name for entry in path.parent.iterdir()] == [name]


def test_others_may_read_a_journal_as_the_umask_says(path: Path) -> None:
    before = os.umask(0o022)
    try:
        with Journal(path, HEAD) as journal:
            journal.finish()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_second_writer_is_refused_while_the_first_one_lives(path: Path) -> None:
    with Journal(path, HEAD), pytest.raises(PipelineError, match="another process is writing here"):
        Journal(path, HEAD)
    with Journal(path, HEAD):
        pass
