"""Which files of a folder count as images, which of its folders as classes, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from ResNeSt.common.ais_bench_names import distinct_names, stem
from ResNeSt.common.errors import PipelineError
from ResNeSt.images import listing
from ResNeSt.images.decode import decode
from ResNeSt.images.listing import find_images, image_names, list_images, picture_suffixes, relative, scan


def files(folder: Path, *names: str) -> Path:
    """`folder` with an empty file of each name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_what_begins_with_a_dot_is_neither_an_image_nor_a_class(tmp_path: Path) -> None:
    hidden = [".ipynb_checkpoints/a-checkpoint.jpg", ".git/x.png", "cat/.hidden/b.jpg", "cat/._a.jpg", ".c.jpg"]
    found = scan(files(tmp_path, "cat/a.jpg", "dog/b.jpg", *hidden))
    assert [relative(image, tmp_path) for image in found.images] == ["cat/a.jpg", "dog/b.jpg"]
    assert found.folders == ["cat", "dog"]


@pytest.mark.parametrize("name", ["__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN", "System Volume Information"])
def test_what_a_system_puts_beside_the_classes_is_none(name: str, tmp_path: Path) -> None:
    found = scan(files(tmp_path, "cat/a.jpg", f"{name}/b.jpg"))
    assert (list(map(stem, found.images)), found.folders) == (["a"], ["cat"])
    assert list(found.skipped.values()) == ["made by a system"]


def test_every_suffix_of_what_pillow_decodes_counts_in_any_case(tmp_path: Path) -> None:
    taken = ["jfif", "jpe", "ppm", "pgm", "jp2", "JPEG", "Jpg", "tiff", "webp", "bmp", "gif", "png", "mpo"]
    files(tmp_path, *(f"{suffix}.{suffix}" for suffix in taken), *(f"no.{no}" for no in ("pdf", "eps", "mpg", "h5")))
    assert sorted(stem(image) for image in list_images(tmp_path)) == sorted(taken)
    # Pillow says itself whether it has this one's decoder.
    assert (".avif" in picture_suffixes()) == ("AVIF" in Image.OPEN)


def test_what_is_skipped_is_counted_and_named_in_one_line(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg", "Thumbs.db", "IMG.heic", "two\nlines", *(f"{n}.txt" for n in (1, 2, 10)), ".DS_Store")
    lines: list[str] = []
    list_images(tmp_path, lines.append)
    (line,) = lines
    assert "skipped 6 with no suffix of a picture" in line
    assert "(1.txt, 2.txt, 10.txt, ...)" in line
    assert line.endswith("1 hidden (.DS_Store)")
    assert "\n" not in line
    lines.clear()
    list_images(files(tmp_path / "clean", "a.jpg"), lines.append)
    assert lines == []


def test_images_further_down_are_of_the_first_folder_s_class_and_links_count_as_what_they_lead_to(
    tmp_path: Path,
) -> None:
    root = files(tmp_path / "root", "cat/1/deep/a.jpg", "cat/b.jpg")
    (root / "dog").symlink_to(files(tmp_path / "elsewhere", "c.jpg"))
    (root / "dog/d.jpg").symlink_to(tmp_path / "nothing")
    (root / "cat/round").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    found = scan(root)
    assert [relative(image, root) for image in found.images] == [
        "cat/1/deep/a.jpg", "cat/b.jpg", "dog/c.jpg", "dog/d.jpg",
    ]  # fmt: skip
    assert found.folders == ["cat", "dog"]
    assert {relative(path, root) for path in found.skipped} == {"cat/round", "self"}


def test_a_file_is_read_by_its_content_but_never_by_another_program(tmp_path: Path) -> None:
    """An .eps that is called .jpg would start Ghostscript."""
    Image.new("RGB", (4, 4)).save(tmp_path / "image.eps")
    (tmp_path / "image.eps").rename(tmp_path / "image.jpg")
    with pytest.raises(PipelineError, match="not an image in a format"):
        decode(tmp_path / "image.jpg")


def test_all_clashes_are_counted_and_the_first_named(tmp_path: Path) -> None:
    files(tmp_path, "n01/a.jpg", "n02/a.jpg", "n01/b.jpg", "n01/b.png", "n02/c.x.jpg", "n02/c.y.jpg", "n02/d.jpg")
    with pytest.raises(PipelineError, match=r"6 images share .*n01/a.jpg, n02/a.jpg, n01/b.jpg, .*--distinct-names"):
        find_images(tmp_path)


def test_images_of_one_name_get_names_of_their_paths_and_the_others_keep_theirs(tmp_path: Path) -> None:
    files(tmp_path, "n01/a.jpg", "n02/a.jpg", "n01/b.x.jpg", "n01/b.png", "n02/d.jpg")
    images = list_images(tmp_path)
    assert dict(zip((relative(image, tmp_path) for image in images), image_names(images, tmp_path))) == {
        "n01/a.jpg": "n01__a_jpg",
        "n02/a.jpg": "n02__a_jpg",
        "n01/b.x.jpg": "n01__b_x_jpg",
        "n01/b.png": "n01__b_png",
        "n02/d.jpg": "d.jpg",
    }


def test_a_name_that_would_be_two_images_is_refused_and_a_long_one_is_cut() -> None:
    with pytest.raises(PipelineError, match=r"a__b/c.jpg and a/b__c.jpg would both be called"):
        distinct_names(["a__b/c.jpg", "a/b__c.jpg", "c.png", "b__c.png"])
    long = [f"{folder}/{'größe' * 36}.jpg" for folder in ("n01", "n02")]
    names = distinct_names(long)
    assert len(set(names)) == 2
    assert max(len(os.fsencode(name)) for name in names) < 240


def test_three_names_are_shown_and_of_more_that_there_are() -> None:
    assert listing._some(["a", "b", "c"]) == "a, b, c"
    assert listing._some(["a", "b", "c", "d"]) == "a, b, c, ..."
