from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ResNeSt.common.errors import PipelineError
from ResNeSt.labels.file import read_labels


@pytest.fixture
def label_file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "val_label.txt"
        path.write_bytes(content)
        return path

    return write


def test_a_name_is_cut_at_the_first_dot_and_keeps_its_class(label_file: Callable[[bytes], Path]) -> None:
    path = label_file(b"ILSVRC2012_val_00000001.JPEG 65\nn01440764_10026.v2.png 0\n")
    assert read_labels(path) == {"ILSVRC2012_val_00000001": 65, "n01440764_10026": 0}


@pytest.mark.parametrize(
    "content",
    [
        b"a.jpg 1\r\nb.jpg 2\r\n",
        b"\xef\xbb\xbfa.jpg 1\nb.jpg 2\n",
        b"a.jpg\t1\nb.jpg \t 2\t\n",
        b"\na.jpg 1\n\n   \nb.jpg 2",
        b"  a.jpg 1\n\tb.jpg 2\n",
        b"val/a.jpg 1\nval/b.jpg 2\n",
    ],
    ids=["CRLF", "byte-order mark", "tabs", "blank lines and no last newline", "indented", "with a folder"],
)
def test_common_spellings_of_a_label_file_are_read_alike(label_file: Callable[[bytes], Path], content: bytes) -> None:
    assert read_labels(label_file(content)) == {"a": 1, "b": 2}


def test_a_name_may_hold_blanks(label_file: Callable[[bytes], Path]) -> None:
    assert read_labels(label_file(b"my holiday 2.jpg 7\n")) == {"my holiday 2": 7}


@pytest.mark.parametrize(
    "line", ["b.jpg", "b.jpg -1", "b.jpg +1", "b.jpg 1.0", "b.jpg cat", "b.jpg 1_0", "b.jpg ٣", "5"]
)
def test_a_line_without_a_class_number_is_named(label_file: Callable[[bytes], Path], line: str) -> None:
    path = label_file(f"a.jpg 1\n\n{line}\n".encode())
    with pytest.raises(PipelineError, match=r"val_label\.txt: line 3: found .* expected a file name"):
        read_labels(path)


@pytest.mark.parametrize("line", ["b.jpg 3 0", "val/b.JPEG\t3\t1", "my b.png 0.25 1"])
def test_a_line_with_more_than_one_field_behind_the_name_is_refused(
    label_file: Callable[[bytes], Path], line: str
) -> None:
    """Lists of detection and of several labels; the last of their fields is no class."""
    with pytest.raises(PipelineError, match=r"line 2: found .*between the name and the class; expected the class"):
        read_labels(label_file(f"a.jpg 1\n{line}\n".encode()))


def test_a_blank_in_a_name_is_no_field(label_file: Callable[[bytes], Path]) -> None:
    path = label_file(b"v1.jpg copy 2.jpg 7\nimage 12 3\nSt. Louis, 1904.png 4\n")
    assert read_labels(path) == {"v1": 7, "image 12": 3, "St": 4}


def test_an_image_that_is_labelled_twice_is_named_with_both_lines(label_file: Callable[[bytes], Path]) -> None:
    for again in (b"a.jpg 1", b"./a.jpg 2", b"a 1"):
        path = label_file(b"a.jpg 1\nb.jpg 2\n" + again)
        with pytest.raises(PipelineError, match=r"line 3: image '.*' was already labelled in line 1"):
            read_labels(path)


def test_files_of_one_name_in_other_folders_or_with_other_suffixes_count_by_their_whole_names(
    label_file: Callable[[bytes], Path],
) -> None:
    path = label_file(b"n01/a.jpg 1\nn02/a.jpg 2\nb.jpg 3\nb.png 4\nn02/c.jpg 5\n")
    assert read_labels(path) == {"n01__a_jpg": 1, "n02__a_jpg": 2, "b_jpg": 3, "b_png": 4, "c": 5}


def test_other_white_space_than_blanks_and_tabs_is_part_of_a_name(label_file: Callable[[bytes], Path]) -> None:
    """U+202F is in the names of macOS's screenshots, before PM."""
    names = ["at 9\u202fPM", "a\u00a0b", "c\u3000", "\u2028d", "e\x0bf"]
    path = label_file("".join(f"{name}.png {number}\n" for number, name in enumerate(names)).encode())
    assert read_labels(path) == {name: number for number, name in enumerate(names)}


def test_a_file_without_labels_is_refused(label_file: Callable[[bytes], Path]) -> None:
    with pytest.raises(PipelineError, match="holds no labels"):
        read_labels(label_file(b"\r\n \n"))


def test_a_file_that_is_no_text_is_refused(label_file: Callable[[bytes], Path]) -> None:
    with pytest.raises(PipelineError, match="not UTF-8"):
        read_labels(label_file("a.jpg 1\n".encode("utf-16")))


def attempt(path: Path) -> tuple[dict[str, int] | None, str | None]:
    """The labels and no message, or None and the message of the PipelineError."""
    try:
        return read_labels(path), None
    except PipelineError as error:
        return None, str(error)


@given(content=st.binary(max_size=200) | st.text(alphabet="ab.19 -\t\r\n\ufeff", max_size=60).map(str.encode))
def test_any_file_is_read_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any_labels.txt"
    path.write_bytes(content)
    labels, message = attempt(path)
    if labels is None:
        assert message is not None
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
    else:
        assert labels
        assert all(label >= 0 for label in labels.values())


def test_a_folder_in_the_place_of_a_labels_file_is_told_what_makes_one_of_it(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"is a folder, expected a labels file; `python -m ResNeSt\.labels tree`"):
        read_labels(tmp_path)
