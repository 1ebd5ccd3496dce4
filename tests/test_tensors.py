"""Folders of tensors: what their JSON, their shards and the record of their sources hold, read back and refused."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.made_of import FileState, Unchanged, differing, state_of
from ResNeSt.tensors.folder import (
    TensorFile,
    check_files,
    check_tensors,
    find_tensors,
    list_tensors,
    read_bytes,
    read_tensor,
    refuse_for_ais_bench,
    spread,
    tensor_files,
    tensor_name,
)
from ResNeSt.tensors.format import TensorFormat, TensorSet, index_path, read_index, write_index
from ResNeSt.tensors.shards import list_shards, read_shard, shard_path, write_shard
from ResNeSt.tensors.sources import NAME, SourceLog

FLOATS = TensorFormat("ecentercrop-bicubic", 4, "float32", (0.5, 0.25, 0.125), (1.0, 2.0, 4.0))
PIXELS = dataclasses.replace(FLOATS, dtype="uint8", exif=True)


# What they are


def test_floats_lie_channel_by_channel_and_pixels_side_by_side() -> None:
    assert (FLOATS.exif, PIXELS.exif) == (False, True)
    assert (FLOATS.layout, FLOATS.shape, FLOATS.nbytes) == ("NCHW", (3, 4, 4), 192)
    assert (PIXELS.layout, PIXELS.shape, PIXELS.nbytes) == ("NHWC", (4, 4, 3), 48)
    assert str(FLOATS) == "ecentercrop-bicubic 4, float32 NCHW"
    assert str(PIXELS) == "ecentercrop-bicubic 4, by EXIF, uint8 NHWC"
    told = [str(TensorSet(FLOATS, 1, 1, True, packed=packed)) for packed in (False, True)]
    assert told == [f"{FLOATS}, a file each", f"{FLOATS}, packed"]


@pytest.mark.parametrize(
    "tensors",
    [
        TensorSet(FLOATS, images=7, count=5, complete=True, broken=("a.png", "b.png")),
        TensorSet(PIXELS, images=3, count=0, complete=False, packed=True),
    ],
)
def test_the_json_of_a_folder_is_read_as_it_was_written(tensors: TensorSet, tmp_path: Path) -> None:
    assert read_index(tmp_path) is None
    write_index(tmp_path, tensors)
    assert read_index(tmp_path) == tensors
    assert json.loads((tmp_path / "tensors.json").read_text())["layout"] == tensors.format.layout


def test_the_json_of_an_earlier_release_is_of_files_that_heed_no_exif(tmp_path: Path) -> None:
    write_index(tmp_path, TensorSet(PIXELS, 1, 1, True, packed=True))
    fields = json.loads(index_path(tmp_path).read_text())
    del fields["exif"], fields["packed"], fields["decoder"]
    index_path(tmp_path).write_text(json.dumps(fields))
    assert read_index(tmp_path) == TensorSet(dataclasses.replace(PIXELS, exif=False), 1, 1, True)


def test_what_tensors_are_does_not_change_while_they_are_made() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FLOATS.size = 5  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        TensorSet(FLOATS, 1, 1, True).count = 2  # type: ignore[misc]


@pytest.mark.parametrize("change", [{"layout": "NHWC"}, {"dtype": "int8"}, {"count": "many"}, {"mean": 1}])
def test_a_json_that_makes_no_sense_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    write_index(tmp_path, TensorSet(FLOATS, 1, 1, True))
    fields = {**json.loads(index_path(tmp_path).read_text()), **change}
    index_path(tmp_path).write_text(json.dumps(fields))
    with pytest.raises(PipelineError, match=r"tensors\.json: not an index of tensors"):
        read_index(tmp_path)


def test_a_json_that_lacks_anything_else_is_refused(tmp_path: Path) -> None:
    write_index(tmp_path, TensorSet(FLOATS, 1, 1, True))
    fields = json.loads(index_path(tmp_path).read_text())
    for key in fields.keys() - {"exif", "packed", "decoder", "files", "unturned"}:
        index_path(tmp_path).write_text(json.dumps({name: value for name, value in fields.items() if name != key}))
        with pytest.raises(PipelineError, match=f"not an index of tensors .*{key}"):
            read_index(tmp_path)


# Folders


def values(number: float) -> np.ndarray:
    return np.full(FLOATS.shape, number, np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three tensors, one of them a .npy, among other files."""
    values(10).tofile(tmp_path / "img_10.bin")
    values(9).tofile(tmp_path / "img_9.BIN")
    np.save(tmp_path / "img_2.npy", values(2))
    (tmp_path / "notes.txt").touch()
    (tmp_path / "bin").touch()
    return tmp_path


def test_tensors_come_in_the_order_of_the_numbers_in_their_names(folder: Path) -> None:
    assert list_tensors(folder) == ["img_2.npy", "img_9.BIN", "img_10.bin"]
    found = tensor_files(folder)
    assert found == find_tensors(folder) == [TensorFile(str(folder / name)) for name in list_tensors(folder)]
    assert [read_tensor(tensor, FLOATS.shape, "float32")[0, 0, 0] for tensor in found] == [2, 9, 10]
    assert [len(read_bytes(tensor)) for tensor in found] == [192] * 3
    check_files(folder, FLOATS.shape, "float32")


def test_a_tensor_is_called_by_its_image_up_to_the_first_dot() -> None:
    assert tensor_name("some/where/a.b.JPEG") == "a.bin"


def test_a_file_is_one_tensor(folder: Path) -> None:
    assert tensor_files(folder / "img_10.bin") == [TensorFile(str(folder / "img_10.bin"))]


def test_folders_without_tensors_or_with_two_of_one_name_are_refused(folder: Path) -> None:
    with pytest.raises(PipelineError, match="none: no such folder"):
        tensor_files(folder / "none")
    (folder / "empty").mkdir()
    with pytest.raises(PipelineError, match=r"empty: holds no \.bin, \.npy or \.npz files"):
        tensor_files(folder / "empty")
    (folder / "img_9.again.bin").touch()
    with pytest.raises(PipelineError, match="two files share a name up to the first dot"):
        tensor_files(folder)


@pytest.mark.parametrize("short", [191, 193, 0, 384])
def test_a_tensor_of_another_size_is_refused_by_name(short: int, folder: Path) -> None:
    (folder / "img_10.bin").write_bytes(bytes(short))
    with pytest.raises(PipelineError, match=rf"img_10\.bin: {short} bytes, float32 \[3, 4, 4\] takes 192"):
        read_tensor(TensorFile(str(folder / "img_10.bin")), FLOATS.shape, "float32")
    with pytest.raises(PipelineError, match=rf"img_10\.bin: {short} bytes, an image takes 192"):
        check_files(folder, FLOATS.shape, "float32")


@pytest.mark.parametrize("dtype", ["int32", ">f4", "float64", "uint8"])
def test_a_npy_of_another_dtype_is_refused_by_name(dtype: str, folder: Path) -> None:
    np.save(folder / "img_2.npy", values(2).astype(dtype))
    tensor = TensorFile(str(folder / "img_2.npy"))
    expected: list[Callable[[], object]] = [
        lambda: read_tensor(tensor, FLOATS.shape, "float32"),
        lambda: check_files(folder, FLOATS.shape, "float32"),
    ]
    for read in expected:
        with pytest.raises(PipelineError, match=r"img_2\.npy: holds .*, the model takes float32"):
            read()


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        *(((3, 4, 4), ""), ((1, 3, 4, 4), ""), ((3, 4, 1, 4), ""), ((48,), ""), ((48, 1), "")),
        *(((4, 4, 3), "turn its axes"), ((1, 4, 4, 3), "turn its axes"), ((3, 16), "turn its axes")),
        *(((3, 4, 5), "240 bytes"), ((4, 4, 2), "128 bytes"), ((2, 3, 4, 4), "384 bytes")),
    ],
)
def test_a_npy_with_turned_axes_is_refused_by_name(shape: tuple[int, ...], words: str, folder: Path) -> None:
    np.save(folder / "img_2.npy", np.zeros(shape, np.float32))
    tensor = TensorFile(str(folder / "img_2.npy"))
    expected: list[Callable[[], object]] = [
        lambda: read_tensor(tensor, FLOATS.shape, "float32"),
        lambda: check_files(folder, FLOATS.shape, "float32"),
    ]
    for read in expected:
        if not words:
            read()
            continue
        with pytest.raises(PipelineError, match=rf"img_2\.npy: .*{words}"):
            read()


class Trap:
    """What makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_npy_that_carries_code_is_refused_and_does_not_run_it(folder: Path) -> None:
    np.save(folder / "img_2.npy", np.array([Trap(folder / "sprung")], object))
    tensor = TensorFile(str(folder / "img_2.npy"))
    with pytest.raises(PipelineError, match=r"img_2\.npy: not a whole \.npy file"):
        read_tensor(tensor, FLOATS.shape, "float32")
    with pytest.raises(PipelineError, match=r"img_2\.npy: "):
        check_files(folder, FLOATS.shape, "float32")
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize(
    ("count", "chosen"),
    [(1, [0]), (2, [0, 9]), (3, [0, 4, 9]), (4, [0, 3, 6, 9]), (10, list(range(10))), (11, list(range(10)))],
)
def test_some_are_taken_at_even_distances_first_and_last_among_them(count: int, chosen: list[int]) -> None:
    assert spread(list(range(10)), count) == chosen


@pytest.mark.parametrize(
    ("change", "shape", "dtype", "info", "words"),
    [
        ({}, (1, 3, 4, 4), "float32", {}, None),
        ({}, (8, 3, 4, 4), "float32", {"mean": "[0.5, 0.25, 0.125]", "std": "[1.0, 2.0, 4.0]"}, None),
        ({}, (1, 3, 5, 5), "float32", {}, "the model takes float32 [3, 5, 5]"),
        ({}, (1, 3, 4, 4), "uint8", {}, "the model takes uint8 [3, 4, 4]"),
        ({}, (1, 3, 4, 4), "float32", {"mean": "[0.5, 0.25, 0.12]"}, "with mean [0.5, 0.25, 0.125], the model wants"),
        ({}, (1, 3, 4, 4), "float32", {"std": "[1.0, 2.0, 4.5]"}, "with std [1.0, 2.0, 4.0], the model wants [1.0"),
        ({"format": PIXELS}, (1, 4, 4, 3), "uint8", {"mean": "[0, 0, 0]"}, None),
        ({"count": 4}, (1, 3, 4, 4), "float32", {}, "3 tensors of 4 are there"),
        ({"count": 2}, (1, 3, 4, 4), "float32", {}, "3 tensors of 2 are there"),
        ({"complete": False}, (1, 3, 4, 4), "float32", {}, "3 tensors of 5 are there"),
    ],
)
def test_tensors_fit_a_model_of_their_shape_dtype_and_normalisation_once_all_are_there(
    change: dict[str, Any], shape: tuple[int, ...], dtype: str, info: dict[str, str], words: str | None, folder: Path
) -> None:
    tensors = TensorSet(FLOATS, images=5, count=3, complete=True)
    write_index(folder, dataclasses.replace(tensors, **change))
    if words is None:
        check_tensors(folder, shape, dtype, info)
        return
    with pytest.raises(PipelineError) as refused:
        check_tensors(folder, shape, dtype, info)
    assert words in str(refused.value)


def test_a_folder_of_another_program_is_left_to_the_client(folder: Path) -> None:
    check_tensors(folder, (1, 3, 99, 99), "uint8", {})
    refuse_for_ais_bench(folder)


# Shards


def test_a_shard_holds_its_tensors_in_order_and_names_those_left_out(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 12)
    assert path == tmp_path / "shard_00012.npy"
    write_shard(path, FLOATS.shape, "float32", [("b.png", values(2)), ("odd.png", None), ("a.png", values(1))])
    shard = read_shard(path, FLOATS.shape, "float32")
    assert (shard.images, shard.broken, shard.offset) == (["b.png", "a.png"], ["odd.png"], 128)
    assert np.load(path)[:, 0, 0, 0].tolist() == [2, 1]
    write_index(tmp_path, TensorSet(FLOATS, images=3, count=2, complete=True, packed=True))
    found = find_tensors(tmp_path)
    assert [os.path.basename(tensor.path) for tensor in found] == ["a.bin", "b.bin"]
    assert [read_tensor(tensor, FLOATS.shape, "float32")[2, 3, 3] for tensor in found] == [1, 2]
    check_files(tmp_path, FLOATS.shape, "float32")
    with pytest.raises(PipelineError, match="holds packed tensors, which ais_bench cannot read"):
        refuse_for_ais_bench(tmp_path)


def test_shards_are_listed_in_order(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        write_shard(shard_path(tmp_path, number), (1,), "uint8", [])
    assert list_shards(tmp_path) == [shard_path(tmp_path, number) for number in (0, 2, 10)]


def test_a_shard_of_other_tensors_or_cut_short_is_refused(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, FLOATS.shape, "float32", [("a", values(1))])
    for shape, dtype in (((3, 4, 5), "float32"), ((3, 4, 3), "float32"), (FLOATS.shape, "float64")):
        with pytest.raises(PipelineError, match=r"shard_00000\.npy: holds float32 \[1, 3, 4, 4\]"):
            read_shard(path, shape, dtype)
    names = path.with_suffix(".json").read_text()
    path.with_suffix(".json").write_text(json.dumps({"images": ["a", "b"], "broken": []}))
    with pytest.raises(PipelineError, match=r"float32 \[2, 3, 4, 4\] was expected"):
        read_shard(path, FLOATS.shape, "float32")
    path.with_suffix(".json").write_text(names)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PipelineError, match="not a shard of tensors"):
        read_shard(path, FLOATS.shape, "float32")
    np.save(path, np.array([{}]))
    with pytest.raises(PipelineError, match=r"not a shard of tensors"):
        read_shard(path, FLOATS.shape, "float32")


# What they were made of


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """An image, and a tensor that was recorded as made of it."""
    image, tensor = tmp_path / "a.png", tmp_path / "prep/a.bin"
    image.write_bytes(b"picture")
    tensor.parent.mkdir()
    tensor.write_bytes(b"tensor")
    with SourceLog(tensor.parent) as log:
        log.begin([])
        log.add([("a.png", state_of(image))], tensor)
    return image, tensor


def test_a_tensor_is_kept_as_long_as_nothing_changed(made: tuple[Path, Path], tmp_path: Path) -> None:
    image, tensor = made
    assert SourceLog(tensor.parent).holds("a.png", image, tensor)
    assert not SourceLog(tensor.parent).holds("b.png", image, tensor)
    assert not SourceLog(tmp_path).holds("a.png", image, tensor)


@pytest.mark.parametrize("which", [0, 1])
def test_other_content_another_date_or_another_file_of_either_is_made_anew(
    which: int, made: tuple[Path, Path], tmp_path: Path
) -> None:
    image, tensor = made
    log, path = SourceLog(tensor.parent), made[which]
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content + b"1")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not log.holds("a.png", image, tensor), "larger"
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns - 1))
    assert not log.holds("a.png", image, tensor), "older"
    path.unlink()
    assert not log.holds("a.png", image, tensor), "gone"


def test_an_image_that_was_copied_over_with_its_date_is_another_one(made: tuple[Path, Path]) -> None:
    image, tensor = made
    before = image.stat()
    image.write_bytes(b"erutcip")
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert image.stat().st_size == before.st_size
    assert not SourceLog(tensor.parent).holds("a.png", image, tensor)


def test_a_tensor_whose_mode_changed_is_kept(made: tuple[Path, Path]) -> None:
    image, tensor = made
    tensor.chmod(0o600)
    assert SourceLog(tensor.parent).holds("a.png", image, tensor)


def test_a_run_begins_with_the_records_that_it_keeps_and_adds_its_own_at_once(made: tuple[Path, Path]) -> None:
    image, tensor = made
    other = tensor.with_name("b.bin")
    other.write_bytes(b"other")
    with SourceLog(tensor.parent) as log:
        log.begin(["a.png"])
        log.add([("b.png", state_of(image))], other)
        assert SourceLog(tensor.parent).holds("b.png", image, other)
        assert SourceLog(tensor.parent).holds("a.png", image, tensor)
    with SourceLog(tensor.parent) as log:
        log.begin(["b.png"])
    assert SourceLog(tensor.parent).holds("b.png", image, other)
    assert not SourceLog(tensor.parent).holds("a.png", image, tensor)


@pytest.mark.parametrize("damage", [b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_damaged_line_says_nothing_and_hides_no_other(damage: bytes, made: tuple[Path, Path]) -> None:
    image, tensor = made
    record = tensor.with_name(NAME)
    record.write_bytes(damage + b"\n" + record.read_bytes())
    assert SourceLog(tensor.parent).holds("a.png", image, tensor)


def test_a_state_is_path_size_and_both_times(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = made
    monkeypatch.chdir(image.parent)
    status = image.stat()
    assert state_of("a.png") == FileState(str(image), 7, status.st_mtime_ns, status.st_ctime_ns)


def test_files_that_change_while_they_are_read_are_told_unless_something_else_went_wrong(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    with Unchanged(tmp_path / "a", tmp_path / "b") as read:
        read.check()
    for change in (lambda: (tmp_path / "b").write_bytes(b"1"), (tmp_path / "b").unlink):
        with pytest.raises(PipelineError, match="b: changed while it was being read"), Unchanged(tmp_path / "b"):
            change()
        (tmp_path / "b").touch()
    read = Unchanged(tmp_path / "a")
    (tmp_path / "a").unlink()
    read.__exit__(ValueError, ValueError("the first error"), None)
    with pytest.raises(PipelineError, match="a: changed"):
        read.check()


def test_what_differs_is_named_in_order() -> None:
    assert differing({"b": 1, "a": 2, "c": 3}, {"b": 1, "a": 3, "d": 4}) == ["a", "c", "d"]
    assert differing({"a": 1}, {"a": 1}) == []


@pytest.mark.parametrize("content", [b"PK\x03\x04 no archive", b"\x93NUMPY\x01\x00\x08\x00{'a': (\n", b"", b"x" * 99])
def test_a_shard_that_is_none_is_refused_with_what_makes_it_anew(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "shard_00000.npy").write_bytes(content)
    (tmp_path / "shard_00000.json").write_text('{"images": ["a"], "broken": []}')
    with pytest.raises(PipelineError, match=r"run the same resnest_preprocess\.py command again"):
        read_shard(tmp_path / "shard_00000.npy", (3, 2, 2), "float32")


def test_an_archive_of_arrays_is_no_shard(tmp_path: Path) -> None:
    with open(tmp_path / "shard_00000.npy", "wb") as file:
        np.savez(file, a=np.zeros(3))
    (tmp_path / "shard_00000.json").write_text('{"images": ["a"], "broken": []}')
    with pytest.raises(PipelineError, match="not a shard of tensors"):
        read_shard(tmp_path / "shard_00000.npy", (3, 2, 2), "float32")
