"""Tensors in .npz files with a list of them: made, kept, read and refused like the .bin files of the same values."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.images.preprocess import preprocess
from ResNeSt.models import model_info
from ResNeSt.models.cards import card
from ResNeSt.models.model_info import format_of
from ResNeSt.tensors import npz
from ResNeSt.tensors.folder import (
    TensorFile,
    check_files,
    check_tensors,
    find_tensors,
    read_bytes,
    read_tensor,
    refuse_for_ais_bench,
)
from ResNeSt.tensors.format import LAYOUTS, read_index
from tests.conftest import call, picture

FORMAT = format_of(card("resnest50"), "uint8", size=32)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in (2, 10):
        picture(40, 50, number).save(folder / f"img{number}.png")
    return folder


@pytest.mark.parametrize("dtype", LAYOUTS)
def test_an_npz_holds_the_values_of_the_bin_by_the_name_of_the_input(
    pictures: Path, tmp_path: Path, dtype: str
) -> None:
    wanted = format_of(card("resnest50"), dtype, size=32)
    preprocess(pictures, tmp_path / "bin", wanted)
    preprocess(pictures, tmp_path / "npz", wanted, files="npz")
    assert npz.KEY == model_info.INPUT
    for expected, found in zip(find_tensors(tmp_path / "bin"), find_tensors(tmp_path / "npz")):
        assert Path(found.path).name == f"{Path(expected.path).stem}.npz"
        with np.load(found.path) as arrays:
            assert list(arrays) == [npz.KEY]
            assert (arrays[npz.KEY].shape, arrays[npz.KEY].dtype) == ((1, *wanted.shape), wanted.element)
            assert arrays[npz.KEY].tobytes() == Path(expected.path).read_bytes()
        assert read_bytes(found, wanted.element, wanted.shape) == read_bytes(expected)
        assert np.array_equal(read_tensor(found, wanted.shape, wanted.element)[None], np.load(found.path)[npz.KEY])
    check_tensors(tmp_path / "npz", (8, *wanted.shape), wanted.element, {})
    check_files(tmp_path / "npz", wanted.shape, wanted.element)


def test_a_run_keeps_what_an_earlier_one_left_and_makes_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    target, names = tmp_path / "npz", tmp_path / "list.txt"
    assert preprocess(pictures, target, FORMAT, files="npz", list_file=names).written == 2
    before = (target / "img2.npz").read_bytes()
    assert names.read_text() == f"{target}/img2.npz\n{target}/img10.npz\n"
    (target / "img2.npz").unlink()
    done = preprocess(pictures, target, FORMAT, files="npz", list_file=names)
    assert (done.written, done.kept) == (1, 1)
    assert (target / "img2.npz").read_bytes() == before
    index = read_index(target)
    assert index is not None
    assert (index.files, index.complete) == ("npz", True)
    for files, packed in (("bin", False), ("bin", True)):
        with pytest.raises(PipelineError, match=r"a \.npz file each, this run makes"):
            preprocess(pictures, target, FORMAT, files=files, packed=packed)


def test_a_list_names_what_was_made_and_is_gone_while_a_run_goes_on(pictures: Path, tmp_path: Path) -> None:
    names = tmp_path / "list.txt"
    (pictures / "img3.png").write_bytes(b"no picture")
    preprocess(pictures, tmp_path / "bin", FORMAT, list_file=names)
    assert names.read_text() == f"{tmp_path}/bin/img2.bin\n{tmp_path}/bin/img10.bin\n"
    with pytest.raises(PipelineError, match="this run makes"):
        preprocess(pictures, tmp_path / "bin", dataclasses.replace(FORMAT, exif=True), list_file=names)
    assert not names.exists()
    picture(8, 8).save(pictures / "two\nlines.png")
    with pytest.raises(PipelineError, match="line break"):
        preprocess(pictures, tmp_path / "bin", FORMAT, list_file=names)


@pytest.mark.parametrize("wrong", [{"files": "npz"}, {"list_file": "list.txt"}])
def test_packed_tensors_have_no_files_to_name(pictures: Path, tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ArgumentError, match="--pack"):
        preprocess(pictures, tmp_path / "x", FORMAT, packed=True, **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()


def test_the_command_line_writes_npz_files_and_their_list(pictures: Path, tmp_path: Path) -> None:
    flags = ["--dtype=uint8", "--size=32", "--format=npz"]
    result = call("resnest_preprocess.py", str(pictures), str(tmp_path / "x"), *flags, f"--list={tmp_path}/list.txt")
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "list.txt").read_text().splitlines()) == 2


def test_ais_bench_is_not_given_npz_files(pictures: Path, tmp_path: Path) -> None:
    preprocess(pictures, tmp_path / "x", FORMAT, files="npz")
    for given in (tmp_path / "x", tmp_path / "x/img2.npz"):
        with pytest.raises(PipelineError, match=r"\.bin and \.npy alone"):
            refuse_for_ais_bench(given)


def _npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _bomb() -> bytes:
    """An array of terabytes, by its header."""
    file, head = io.BytesIO(), io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (1 << 42,)}
    np.lib.format.write_array_header_1_0(head, fields)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", head.getvalue())
    return file.getvalue()


WHOLE = _npz(x=np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not a whole .npz"),
        (WHOLE[:-30], "not a whole .npz"),
        (WHOLE[:200] + b"?" + WHOLE[201:], "not a whole .npz"),
        (_npz(x=np.zeros(3), y=np.zeros(3)), "2 arrays"),
        (_npz(x=np.zeros((32, 32, 3), np.float32)), "the model takes uint8"),
        (_npz(x=np.zeros((3, 32, 32), np.uint8)), "turn its axes"),
        (_npz(x=np.zeros((2, 32, 32, 3), np.uint8)), "6144 bytes"),
        (_npz(x=np.array([{}], object)), "not a whole .npz"),
        (_bomb(), "4,398,046,511,104 bytes"),
    ],
)
def test_a_damaged_or_other_npz_is_refused_by_name(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(PipelineError) as caught:
        read_tensor(TensorFile(str(path)), FORMAT.shape, FORMAT.element)
    assert word in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_npz_of_another_program_is_read_by_its_only_array_or_the_inputs_name(tmp_path: Path) -> None:
    values = np.arange(3072, dtype=np.uint8).reshape(1, 32, 32, 3)
    for arrays in ({"x": values}, {"other": np.zeros(1), npz.KEY: values}):
        (tmp_path / "a.npz").write_bytes(_npz(**arrays))
        assert np.array_equal(read_tensor(find_tensors(tmp_path)[0], FORMAT.shape, "uint8"), values[0])
