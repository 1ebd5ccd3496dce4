"""Pictures in tar files, WebDataset shards and parquet files: read where they lie, answered as in a folder."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.evaluate import evaluate
from ResNeSt.images import parquet
from ResNeSt.images.archives import carried_labels, open_picture
from ResNeSt.images.decode import tensor_maker
from ResNeSt.images.listing import list_images, relative, scan
from ResNeSt.images.native import library
from ResNeSt.images.preprocess import preprocess
from ResNeSt.labels.carried import carried, truth_of
from ResNeSt.labels.file import read_labels
from ResNeSt.labels.folders import check, to_flat, to_tree
from ResNeSt.models.cards import card
from ResNeSt.models.model_info import format_of
from ResNeSt.report.thumbnails import thumbnails
from ResNeSt.tensors.format import read_index
from tests.conftest import PROJECT, assert_refused, call

VAL = PROJECT / "demo/val"
LABELS = PROJECT / "demo/val_label.txt"
FORMAT = format_of(card("resnest50"), "uint8", size=32)
PICTURES = {path.name: path.read_bytes() for path in sorted(VAL.iterdir())[:6]}
TRUTH = read_labels(LABELS)


def entry(name: str, size: int = 0, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar(path: Path, members: Mapping[str, bytes], *others: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as file:
        for name, content in members.items():
            file.addfile(entry(name, len(content)), io.BytesIO(content))
        for other in others:
            file.addfile(other)
    return path


def shard(path: Path, pictures: Mapping[str, bytes], suffix: str = ".cls") -> Path:
    """A WebDataset's: each picture with its class beside it, and a caption."""
    members = {}
    for name, content in pictures.items():
        key = name.split(".")[0]
        told = json.dumps({"label": TRUTH[key]} if suffix.lower() == ".json" else TRUTH[key])
        members.update({f"{key}.jpg": content, f"{key}{suffix}": told.encode(), f"{key}.txt": b"a digit"})
    return tar(path, members)


@pytest.fixture
def pyarrow() -> ModuleType:
    module: ModuleType = pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
    return module


def table(path: Path, rows: list[dict[str, Any]], rows_a_group: int = 4) -> Path:
    import pyarrow as pa
    from pyarrow import parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=rows_a_group)
    return path


def rows_of(pictures: Mapping[str, bytes]) -> list[dict[str, Any]]:
    return [
        {"image": {"bytes": content, "path": name}, "label": TRUTH[name.split(".")[0]]}
        for name, content in pictures.items()
    ]


def names(source: Path | str) -> list[str]:
    return [relative(image, source) for image in list_images(source)]


def test_the_pictures_of_a_tar_file_are_those_of_the_folder_it_was_made_of(tmp_path: Path) -> None:
    members = {"b/img10.png": b"1", "./b/img2.JPG": b"2", "a.jpeg": b"3"}
    unseen = {"b/._img2.jpg": b"", "__MACOSX/c.jpg": b"", ".git/d.jpg": b"", "readme.md": b"", "more.tar": b""}
    source = tar(tmp_path / "a.tar", {**unseen, **members}, entry("b/deep.jpg", type=tarfile.DIRTYPE))
    assert names(source) == ["a.jpeg", "b/img2.JPG", "b/img10.png"]
    assert [open_picture(image).read() for image in list_images(source)] == [b"3", b"2", b"1"]
    said: list[str] = []
    list_images(source, said.append)
    assert "2 hidden" in said[0]
    assert "1 made by a system" in said[0]
    assert "readme.md" in said[0]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_longer_than_a_header_or_no_utf_8_are_read(tmp_path: Path, form: int) -> None:
    long = f"{'d' * 90}/{'n' * 90}.jpg"
    odd = os.fsdecode(b"caf\xe9.jpg")
    source = tar(tmp_path / "a.tar", {long: b"1", odd: b"2", "é.jpg": b"3"}, form=form)
    assert sorted(names(source)) == sorted([long, odd, "é.jpg"])
    assert {open_picture(image).read() for image in list_images(source)} == {b"1", b"2", b"3"}


def test_what_is_no_plain_file_of_the_archive_is_named_and_left_out(tmp_path: Path) -> None:
    kinds = {
        "link": tarfile.SYMTYPE,
        "pipe": tarfile.FIFOTYPE,
        "device": tarfile.CHRTYPE,
        "sparse": tarfile.GNUTYPE_SPARSE,
    }
    others = [entry(f"{name}.jpg", type=kind, linkname="/etc/passwd") for name, kind in kinds.items()]
    hard = [entry("same.jpg", type=tarfile.LNKTYPE, linkname="a.jpg"), entry("none.jpg", type=tarfile.LNKTYPE)]
    paths = {"../out.jpg": b"", "/etc/abs.jpg": b"", "x/../../y.jpg": b""}
    found = scan(tar(tmp_path / "a.tar", {"a.jpg": b"1", **paths}, *others, *hard))
    assert [relative(image, tmp_path) for image in found.images] == ["a.tar/a.jpg", "a.tar/same.jpg"]
    assert open_picture(found.images[1]).read() == b"1"
    assert len(found.skipped) == len(kinds) + len(paths) + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar"]


def damaged() -> Iterator[tuple[str, bytes, str]]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as file:
        for name in ("a.jpg", "b.jpg"):
            file.addfile(entry(name, 700), io.BytesIO(b"x" * 700))
    whole = buffer.getvalue()
    second = 512 + 1024

    def with_size(size: bytes, kind: bytes = b"0") -> bytes:
        head = bytearray(whole[second : second + 512])
        head[124:136], head[156:157], head[148:156] = size, kind, b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        return whole[:second] + bytes(head) + whole[second + 512 :]

    yield "cut within a picture", whole[: second + 600], "copy it again"
    yield "cut within a header", whole[: second + 100], "copy it again"
    yield "cut behind a picture", whole[: second + 512 + 1024], "end mark"
    yield "rubbish for a header", whole[:second] + b"?" * 512 + whole[second + 512 :], "copy it again"
    yield "a second archive behind it", whole + whole, "other bytes"
    yield "a size beyond the end", with_size(b"77777777777\0"), "copy it again"
    yield "a size of many digits", with_size(b"\x80" + b"\x7f" * 11), "copy it again"
    yield "a size below nothing", with_size(b"\xff" * 8 + struct.pack(">i", -4096)), "copy it again"
    yield "a name of terabytes", with_size(b"\x80" + (1 << 42).to_bytes(11, "big"), b"L"), "copy it again"
    yield "extended fields below nothing", with_size(b"\xff" * 8 + struct.pack(">i", -4096), b"x"), "copy it again"
    yield "no tar at all", b"\xff\xd8\xff" * 1000, "copy it again"
    yield "empty", b"", "copy it again"
    yield "gzip under another name", b"\x1f\x8b" + whole, "compressed"


@pytest.mark.parametrize(("content", "word"), [pytest.param(*rest, id=name) for name, *rest in damaged()])
def test_a_damaged_tar_file_is_refused_whole(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=word) as caught:
        list_images(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_members_of_one_path_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name in ("x/a.jpg", "./x/a.jpg"):
            file.addfile(entry(name))
    with pytest.raises(PipelineError, match=r"x/a\.jpg twice"):
        list_images(tmp_path / "a.tar")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst", "a.zip", "a.TAR.XZ"])
def test_a_compressed_archive_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(PipelineError, match=r"compressed.*plain \.tar"):
        list_images(tmp_path / name)


def test_several_shards_are_one_source(tmp_path: Path) -> None:
    for number in (9, 10, 11):
        tar(tmp_path / f"s-{number:03}.tar", {f"{number}.jpg": b"", "readme.md": b""})
    expected = [f"s-{number:03}.tar/{number}.jpg" for number in (9, 10, 11)]
    for source in (
        f"{tmp_path}/s-{{009..011}}.tar",
        f"{tmp_path}/s-0{{09,10,11}}.tar",
        f"{tmp_path}/s-*.tar",
        tmp_path,
    ):
        assert names(source) == expected
    assert names(f"{tmp_path}/s-{{010..010}}.tar") == expected[1:2]
    with pytest.raises(PipelineError, match=r"s-012\.tar: no such file"):
        list_images(f"{tmp_path}/s-{{009..012}}.tar")
    with pytest.raises(PipelineError, match="no file is called so"):
        list_images(f"{tmp_path}/t-*.tar")
    (tmp_path / "own.jpg").write_bytes(b"")  # in a folder with pictures of its own archives are not looked into
    assert names(tmp_path) == ["own.jpg"]


def test_a_picture_of_an_archive_gives_the_tensor_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(PICTURES))
    source = tar(tmp_path / "a.tar", PICTURES)
    for switch in ("0", "1"):
        monkeypatch.setenv("RESNEST_NATIVE", switch)
        found, expected = np.zeros(FORMAT.shape, np.uint8), np.zeros(FORMAT.shape, np.uint8)
        tensor_maker(FORMAT)(f"{source}/{name}", found)
        tensor_maker(FORMAT)(VAL / name, expected)
        assert np.array_equal(found, expected)
        assert found.any()


def test_native_crops_take_the_bytes_of_an_archive(tmp_path: Path) -> None:
    if (native := library()) is None:
        pytest.skip("native/ is not built")
    source = tar(tmp_path / "a.tar", PICTURES)

    def never(path: Any) -> bool:
        raise AssertionError(path)

    out = np.zeros(FORMAT.shape, np.uint8)
    assert native.maker(FORMAT)(f"{source}/{next(iter(PICTURES))}", never, out)
    assert out.any()


def test_preprocess_of_an_archive_is_that_of_the_folder_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    broken = {"broken.jpg": b"no picture", "long.bmp": b""}
    for name, content in {**PICTURES, **broken}.items():
        (folder / name).write_bytes(content)
    source = tar(tmp_path / "a.tar", {**PICTURES, **broken})
    expected, done = (preprocess(given, tmp_path / to, FORMAT) for given, to in ((folder, "x"), (source, "y")))
    assert (done.written, list(done.broken)) == (expected.written, list(expected.broken)) == (6, list(broken))
    assert f"{source}/broken.jpg" in done.broken["broken.jpg"]
    for path in (tmp_path / "x").glob("*.bin"):
        assert (tmp_path / "y" / path.name).read_bytes() == path.read_bytes()
    assert read_index(tmp_path / "x") == read_index(tmp_path / "y")
    assert preprocess(source, tmp_path / "y", FORMAT).kept == 6
    tar(source, {**dict(reversed(list(PICTURES.items()))), **broken})
    assert preprocess(source, tmp_path / "y", FORMAT).kept == 0


def test_pictures_of_one_name_are_refused_as_in_a_folder(tmp_path: Path) -> None:
    one = next(iter(PICTURES.values()))
    source = tar(tmp_path / "a.tar", {"n01/a.jpg": one, "n02/a.jpg": one})
    with pytest.raises(PipelineError, match="--distinct-names"):
        preprocess(source, tmp_path / "x", FORMAT)
    preprocess(source, tmp_path / "x", FORMAT, distinct=True)
    assert sorted(path.name for path in (tmp_path / "x").glob("*.bin")) == ["n01__a_jpg.bin", "n02__a_jpg.bin"]


def test_a_tar_that_changes_while_it_is_read_gives_no_other_picture(tmp_path: Path) -> None:
    source = tar(tmp_path / "a.tar", {"a.jpg": b"1" * 600, "b.jpg": b"2" * 600})
    image = list_images(source)[1]
    tar(source, {"b.jpg": b"3" * 500})
    assert open_picture(image).read() == b"3" * 500
    source.write_bytes(b"")
    with pytest.raises(PipelineError, match=r"a\.tar: not a whole tar file"):
        open_picture(image)
    with pytest.raises(PipelineError, match="holds no such file"):
        open_picture(f"{tar(source, {'c.jpg': b''})}/b.jpg")


@pytest.mark.parametrize("suffix", [".cls", ".json", ".CLS", ".Json"])
def test_the_classes_of_a_webdataset_are_its_labels(tmp_path: Path, suffix: str) -> None:
    source = shard(tmp_path / "a.tar", PICTURES, suffix)
    said: list[str] = []
    assert len(list_images(source, said.append)) == 6
    assert not said
    assert carried(source) == {f"{Path(name).stem}.jpg": TRUTH[Path(name).stem] for name in PICTURES}
    images = list_images(source)
    assert truth_of(None, images, source) == {Path(name).stem: TRUTH[Path(name).stem] for name in PICTURES}
    assert truth_of(LABELS, images, source) == TRUTH


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"a.cls": b"seven"}, "a.cls: holds 'seven'"),
        ({"a.cls": b"-1"}, "number of a class"),
        ({"a.cls": b"1.5"}, "number of a class"),
        ({"a.cls": b""}, "number of a class"),
        ({"a.cls": b"true"}, "number of a class"),
        ({"a.cls": b"3" * 70_000}, "65,536 at most"),
        ({"a.cls": b"3", "a.json": b'{"label": 4}'}, "class 3 by its .cls, 4 by its .json"),
        ({"a.CLS": b"3", "a.cls": b"4"}, "class 4 by its .cls, 3 by its .CLS"),
        ({"a.CLS": b"seven"}, "a.CLS: holds 'seven'"),
    ],
)
def test_a_class_that_is_none_is_refused_by_name(tmp_path: Path, members: dict[str, bytes], word: str) -> None:
    source = tar(tmp_path / "a.tar", {"a.jpg": b"", **members})
    with pytest.raises(PipelineError) as caught:
        carried_labels([f"{source}/a.jpg"])
    assert word in str(caught.value)
    assert str(source) in str(caught.value)


@pytest.mark.parametrize("members", [{}, {"a.json": b"{}"}, {"a.json": b'{"label": "cat"}'}, {"a.json": b"[["}])
def test_a_picture_without_a_class_has_no_label(tmp_path: Path, members: dict[str, bytes]) -> None:
    source = tar(tmp_path / "a.tar", {"a.jpg": b"", **members})
    assert carried_labels([f"{source}/a.jpg"]) == {}
    with pytest.raises(PipelineError, match="--labels"):
        truth_of(None, list_images(source), source)


def test_a_class_that_may_be_of_two_pictures_counts_for_neither(tmp_path: Path) -> None:
    source = tar(tmp_path / "a.tar", {"a.jpg": b"", "a.seg.png": b"", "a.cls": b"3", "b.jpg": b"", "b.cls": b"3"})
    with pytest.raises(PipelineError, match=r"a\.tar/a\.jpg and .*a\.tar/a\.seg\.png: two pictures of one sample"):
        carried_labels(list_images(source))
    without = tar(tmp_path / "b.tar", {"a.jpg": b"", "a.seg.png": b""})
    assert carried_labels(list_images(without)) == {}


def test_what_is_there_and_no_archive_is_not_said_to_be_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(PipelineError, match="neither a folder nor such a file"):
        scan(tmp_path / "a.tar")


def test_pictures_of_a_report_come_from_an_archive_too(tmp_path: Path) -> None:
    source = tar(tmp_path / "a.tar", PICTURES)
    first = Path(next(iter(PICTURES))).stem
    assert list(thumbnails(source, [first])) == [first]


def test_labels_that_say_another_class_than_the_source_are_refused(tmp_path: Path) -> None:
    source = shard(tmp_path / "a.tar", PICTURES)
    other = tmp_path / "labels.txt"
    first = Path(next(iter(PICTURES))).stem
    other.write_text("".join(f"{name} {(label + (name == first)) % 10}\n" for name, label in TRUTH.items()))
    with pytest.raises(PipelineError, match=rf"1 images have another class .*a\.tar/{first}\.jpg"):
        truth_of(other, list_images(source), source)


def test_evaluate_answers_an_archive_as_its_folder_and_goes_on_where_it_stopped(
    tmp_path: Path, demo_onnx: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in PICTURES.items():
        (folder / name.replace("JPEG", "jpg")).write_bytes(content)
    source = shard(tmp_path / "a.tar", PICTURES)
    model = ModelChoice(demo_onnx, batch=4)
    evaluate(model, folder, LABELS, tmp_path / "x", allowed=["missing"])
    done = evaluate(model, source, predictions=tmp_path / "y")
    assert (tmp_path / "x").read_text().split("\n")[1:] == (tmp_path / "y").read_text().split("\n")[1:]
    assert done.score.total == done.labelled == 6
    whole = (tmp_path / "y").read_bytes()
    (tmp_path / "y.unfinished").write_bytes(whole[:-10])
    assert evaluate(model, source, predictions=tmp_path / "y").kept == 4
    assert (tmp_path / "y").read_bytes() == whole
    (tmp_path / "y.unfinished").write_bytes(whole[:-10])
    shard(source, PICTURES, ".json")
    with pytest.raises(PipelineError, match="pictures"):
        evaluate(model, source, predictions=tmp_path / "y")


def test_predict_takes_an_archive_and_one_picture_of_it(tmp_path: Path, demo_onnx: Path) -> None:
    source = tar(tmp_path / "a.tar", PICTURES)
    one = f"{source}/{next(iter(PICTURES))}"
    result = call("-m", "ResNeSt.predict", f"--model={demo_onnx}", "--format=csv", "--top=1", str(source), one)
    assert result.returncode == 0, result.stderr
    images = [line.split(",")[0] for line in result.stdout.splitlines()[1:]]
    assert images == [*(f"{source}/{name}" for name in PICTURES), one]


def test_labels_are_written_of_an_archive_and_checked_against_it(tmp_path: Path) -> None:
    source, labels = shard(tmp_path / "a.tar", PICTURES), tmp_path / "labels.txt"
    result = call("-m", "ResNeSt.labels", "archive", str(source), str(labels))
    assert result.returncode == 0, result.stderr
    assert read_labels(labels) == {Path(name).stem: TRUTH[Path(name).stem] for name in PICTURES}
    assert check(labels, source).missing == []


def test_pictures_in_an_archive_are_not_moved(tmp_path: Path) -> None:
    source = shard(tmp_path / "a.tar", PICTURES)
    with pytest.raises(PipelineError, match="unpack it first"):
        to_tree(LABELS, source)
    with pytest.raises(PipelineError, match="unpack it first"):
        to_flat(tmp_path, tmp_path / "labels.txt")


def test_a_parquet_file_gives_pictures_in_its_order_with_labels(tmp_path: Path, pyarrow: ModuleType) -> None:
    backwards = dict(reversed(list(PICTURES.items())))
    source = table(tmp_path / "val.parquet", rows_of(backwards))
    images = list_images(source)
    assert [relative(image, source) for image in images] == list(backwards)
    assert [open_picture(image).read() for image in images] == list(backwards.values())
    assert truth_of(LABELS, images, source) == TRUTH
    assert list(truth_of(None, images, source).values()) == [TRUTH[Path(name).stem] for name in backwards]


def test_rows_without_names_of_their_own_go_by_their_numbers(tmp_path: Path, pyarrow: ModuleType) -> None:
    rows = rows_of(PICTURES)
    for path in ("image.jpg", None, "../..", "/"):
        for row in rows:
            row["image"]["path"] = path
        for number in (0, 1):
            table(tmp_path / f"part-{number}.parquet", rows)
        assert names(tmp_path) == [
            f"part-{number}.parquet/part-{number}_{row:08}" for number in (0, 1) for row in range(len(rows))
        ]
    assert preprocess(tmp_path, tmp_path.with_name("made"), FORMAT).written == 12


def test_the_bare_bytes_of_a_column_are_pictures_too(tmp_path: Path, pyarrow: ModuleType) -> None:
    from pyarrow import parquet as pq

    pq.write_table(pyarrow.table({"image": list(PICTURES.values())}), tmp_path / "a.parquet")
    images = list_images(tmp_path / "a.parquet")
    assert [open_picture(image).read() for image in images] == list(PICTURES.values())
    assert carried_labels(images[:1]) == {}


def test_a_row_without_a_label_or_bytes_is_an_image_all_the_same(tmp_path: Path, pyarrow: ModuleType) -> None:
    rows = rows_of(PICTURES)
    rows[0]["label"], rows[1]["label"], rows[2]["image"]["bytes"] = None, -1, None
    images = list_images(table(tmp_path / "a.parquet", rows))
    assert list(carried_labels(images[:3])) == images[2:3]
    done = preprocess(tmp_path / "a.parquet", tmp_path / "x", FORMAT)
    assert (done.written, len(done.broken)) == (5, 1)
    assert "row 2 holds no bytes" in next(iter(done.broken.values()))
    rows[0]["label"] = -7
    with pytest.raises(PipelineError, match=r"label '-7'"):
        carried_labels(list_images(table(tmp_path / "b.parquet", rows))[:1])


def test_a_parquet_file_of_something_else_is_refused(
    tmp_path: Path, pyarrow: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet as pq

    path = tmp_path / "a.parquet"
    for columns, word in (
        ({"picture": [b"x"]}, "its columns are"),
        ({"image": ["x"]}, "its columns are"),
        ({"image": [{"path": "x"}]}, "its columns are"),
        ({"image": [b"x"], "label": ["cat"]}, "label holds string"),
    ):
        pq.write_table(pyarrow.table(columns), path)
        with pytest.raises(PipelineError, match=word):
            list_images(path)
    whole = table(path, rows_of(PICTURES)).read_bytes()
    for content in (b"", b"PAR1", whole[:-20], b"x" * 5000):
        path.write_bytes(content)
        with pytest.raises(PipelineError, match="copy it again"):
            list_images(path)
    path.write_bytes(whole)
    monkeypatch.setattr(parquet, "LARGEST_GROUP", 100)
    with pytest.raises(PipelineError, match="row_group_size"):
        list_images(path)


def test_without_pyarrow_a_parquet_file_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingRuntimeError, match=r"requirements/parquet\.txt"):
        list_images(tmp_path / "a.parquet")


def test_what_is_written_is_never_the_archive(tmp_path: Path, demo_onnx: Path) -> None:
    source = shard(tmp_path / "a.tar", PICTURES)
    for given in (source, f"{tmp_path}/{{a,a}}.tar"):
        result = call("-m", "ResNeSt.evaluate", f"--model={demo_onnx}", f"--images={given}", f"--predictions={source}")
        assert_refused(result, "would be overwritten", code=2)
    assert len(list_images(source)) == 6
