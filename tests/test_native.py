"""native/ gives Pillow's bits and Pillow's verdicts, or leaves a file to Pillow; skipped where it cannot be built."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ResNeSt.common.errors import ArgumentError
from ResNeSt.images import native
from ResNeSt.images.decode import BrokenImageError, tensor_maker
from ResNeSt.images.native import ASK, DONE, LEFT, SWITCH, Library
from ResNeSt.images.preprocess import preprocess
from ResNeSt.images.recipes import RECIPES, normalisation_table, normalise
from ResNeSt.models.cards import IMAGENET_MEAN, IMAGENET_STD
from ResNeSt.tensors.format import TensorFormat, read_index
from tests.conftest import PROJECT, call, picture
from tests.test_preprocess import GOLDEN

BUILD = PROJECT / "native/build.sh"
SIZE = 32
TABLE = normalisation_table(IMAGENET_MEAN, IMAGENET_STD)
# Bytes of a SOF segment from its start on: height, width, and the sampling of the first component.
HEIGHT, WIDTH, SAMPLING = 5, 7, 11


def built(folder: Path, script: Path = BUILD) -> Path:
    """The library, in a folder of its own; who lacks a compiler skips the test and reads why."""
    result = subprocess.run(["bash", script, "--once", folder], capture_output=True, text=True, check=False)
    if result.returncode and "compiled" not in result.stderr:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob("crops-*.so")
    return path


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(built(tmp_path_factory.mktemp("native") / "of mine"))


@pytest.fixture
def in_use(library: Library, monkeypatch: pytest.MonkeyPatch) -> Library:
    """The library, as if `bash native/build.sh` had built it."""
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr(native, "_found", lambda: (library, ""))
    return library


def like(library: Library, kind: type[Library] = Library, **changes: bool) -> Library:
    """The same loaded library with other habits."""
    other = kind.__new__(kind)
    vars(other).update({**vars(library), **changes})
    return other


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def pillows(content: bytes, recipe: str, size: int = SIZE) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(RECIPES[recipe](image.convert("RGB"), size))


def natives(library: Library, content: bytes, recipe: str, size: int = SIZE) -> np.ndarray:
    made = np.zeros((size, size, 3), np.uint8)
    assert library.crop(content, recipe, size, None, True, made) == DONE
    return made


def assert_same(library: Library, content: bytes, size: int = SIZE) -> None:
    for recipe in RECIPES:
        expected = pillows(content, recipe, size)
        np.testing.assert_array_equal(natives(library, content, recipe, size), expected, err_msg=recipe)


@pytest.mark.heavy
@pytest.mark.parametrize("golden", GOLDEN)
def test_crops_are_bit_identical_to_the_recorded_ones(golden: str, library: Library, shared: Path) -> None:
    recipe, size = GOLDEN[golden]
    expected = json.loads((shared / "golden/preprocess/expected.json").read_text())["recipes"][golden]
    for name, digest in expected.items():
        made = natives(library, (shared / "images" / name).read_bytes(), recipe, size)
        assert hashlib.sha256(made.tobytes()).hexdigest()[:16] == digest, name


@pytest.mark.parametrize(
    ("width", "height"),
    [(1, 1), (2, 1), (1, 90), (90, 1), (16, 16), (33, 31), (60, 20), (20, 60), (225, 224), (700, 90), (61, 2400)],
)
def test_odd_shapes_give_the_same_pixels_shrunk_and_enlarged(width: int, height: int, library: Library) -> None:
    content = jpeg(picture(width, height))
    for size in (61, 83):
        assert_same(library, content, size)


def test_a_crop_without_a_pixel_is_left_to_pillow(library: Library) -> None:
    out = np.zeros((1, 1, 3), np.uint8)
    assert library.crop(jpeg(picture(16, 16)), "ecentercrop-bicubic", 1, None, True, out) == LEFT
    content = jpeg(picture(33, 16))
    np.testing.assert_array_equal(natives(library, content, "resize-bicubic", 1), pillows(content, "resize-bicubic", 1))


def test_a_large_picture_gives_the_same_pixels(library: Library) -> None:
    assert_same(library, jpeg(picture(2400, 1700)), 224)


def test_the_longest_sides_that_a_recipe_refuses_are_left_to_pillow(library: Library) -> None:
    out = np.zeros((SIZE, SIZE, 3), np.uint8)
    for width, height in ((3, 303), (303, 3)):
        for recipe in ("resize-bicubic", "resize-bilinear"):
            assert library.crop(jpeg(picture(width, height)), recipe, SIZE, None, True, out) == LEFT
    assert_same(library, jpeg(picture(3, 300)))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_every_subsampling_gives_the_same_pixels(subsampling: str, progressive: bool, library: Library) -> None:
    for width, height in ((203, 131), (97, 160), (15, 17)):
        assert_same(
            library, jpeg(picture(width, height), subsampling=subsampling, progressive=progressive), min(width, 64)
        )
    restarts = jpeg(picture(203, 131), subsampling=subsampling, progressive=progressive, restart_marker_blocks=5)
    assert_same(library, restarts)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    ("written", "sampling", "width", "height"),
    [("4:2:2", 0x12, 96, 256), ("4:2:0", 0x41, 384, 64), ("4:2:0", 0x14, 96, 256)],
    ids=["4:4:0", "4:1:1", "1x4"],
)
def test_samplings_that_pillow_does_not_write_give_the_same_pixels(
    written: str, sampling: int, width: int, height: int, progressive: bool, library: Library
) -> None:
    """Of a picture with as many blocks in each MCU, whose header is made to say otherwise."""
    content = bytearray(jpeg(picture(192, 128), subsampling=written, progressive=progressive))
    frame = content.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    content[frame + HEIGHT : frame + WIDTH] = height.to_bytes(2, "big")
    content[frame + WIDTH : frame + WIDTH + 2] = width.to_bytes(2, "big")
    content[frame + SAMPLING] = sampling
    assert_same(library, bytes(content))


@pytest.mark.parametrize("progressive", [False, True])
def test_grey_becomes_rgb_as_pillow_has_it(progressive: bool, library: Library) -> None:
    assert_same(library, jpeg(picture(203, 131).convert("L"), progressive=progressive))


@pytest.mark.parametrize("space", ["CMYK", "YCCK", "unsaid"])
@pytest.mark.parametrize(("progressive", "subsampling"), [(False, 2), (True, 0)])
def test_inks_become_rgb_as_pillow_has_it(space: str, progressive: bool, subsampling: int, library: Library) -> None:
    for width, height in ((203, 131), (61, 340)):
        levels = np.dstack([np.asarray(picture(width, height)), np.asarray(picture(width, height, 1))[:, :, 0]])
        image = Image.frombytes("CMYK", (width, height), levels.tobytes())
        content = jpeg(image, progressive=progressive, subsampling=subsampling)
        at = content.index(b"\xff\xee")
        if space == "YCCK":
            content = content[: at + 15] + b"\2" + content[at + 16 :]
        if space == "unsaid":
            content = content[:at] + content[at + 16 :]
        assert_same(library, content)


@pytest.mark.parametrize("size", [SIZE, 37])
def test_floats_have_the_bits_of_the_python_way(size: int, library: Library) -> None:
    content = jpeg(picture(120, 90))
    expected, made = np.zeros((2, 3, size, size), np.float32)
    for recipe in RECIPES:
        normalise(pillows(content, recipe, size), TABLE, expected)
        assert library.crop(content, recipe, size, TABLE, True, made) == DONE
        assert made.tobytes() == expected.tobytes()


def test_nv12_is_made_of_the_same_crop(in_use: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(picture(120, 90)))
    made = []
    for switch in ("1", "0"):
        monkeypatch.setenv(SWITCH, switch)
        tensor_format = TensorFormat("resize-bicubic", SIZE, "yuv420sp", IMAGENET_MEAN, IMAGENET_STD)
        made.append(np.zeros(tensor_format.shape, np.uint8))
        tensor_maker(tensor_format)(path, made[-1])
    assert made[0].any()
    np.testing.assert_array_equal(made[0], made[1])


def test_the_tall_pictures_of_older_pillows_are_resized_across_first(library: Library) -> None:
    """By two passes of this Pillow's, since it may begin with the rows."""
    older = like(library, tall_first=False)
    by, content = Image.Resampling.BILINEAR, jpeg(picture(70, 300))
    with Image.open(io.BytesIO(content)) as image:
        resized = image.resize((64, 300), by).resize((64, 64), by)
    np.testing.assert_array_equal(
        natives(older, content, "squash-bilinear", 56), np.asarray(resized.crop((4, 4, 60, 60)))
    )


def unlike() -> Iterator[tuple[str, bytes]]:
    """Files that are no plain JPEG, by name."""
    image = picture(60, 50)
    yield "rgb", jpeg(image, keep_rgb=True)
    file = io.BytesIO()
    image.save(file, "PNG")
    yield "png", file.getvalue()
    file = io.BytesIO()
    image.save(file, "MPO", save_all=True, append_images=[image])
    yield "mpo", file.getvalue()
    yield "gap", jpeg(image).replace(b"\xff\xdb", b"\xff\xff\xdb", 1)
    yield "early-end", jpeg(image)[:-2]
    scans = jpeg(image, progressive=True)
    yield "a-scan-less", scans[: scans.rindex(b"\xff\xda")] + b"\xff\xd9"
    yield "junk-before-the-end", jpeg(image)[:-2] + bytes(64) + b"\xff\xd9"


@pytest.mark.parametrize(("name", "content"), list(unlike()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_other_file_is_left_to_pillow_and_nothing_is_written(name: str, content: bytes, library: Library) -> None:
    out = np.full((SIZE, SIZE, 3), 7, np.uint8)
    assert library.crop(content, "ecentercrop-bicubic", SIZE, None, True, out) == LEFT
    assert (out == 7).all()


def test_metadata_that_pillow_parses_are_shown_to_pillow_first(library: Library) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = np.zeros((SIZE, SIZE, 3), np.uint8)
    for content in (jpeg(picture(60, 50), exif=exif), jpeg(picture(60, 50), xmp=b"<x/>")):
        assert library.crop(content, "resize-bicubic", SIZE, None, False, out) == ASK
        assert_same(library, content)


@pytest.mark.parametrize(
    ("marker", "payload"),
    [(0xE0, b"JFIF\0\1"), (0xE2, b"ICC_PROFILE\0\1"), (0xED, b"Photoshop 3.0\0" + b"8BIM\4\4"), (0xEE, b"Adobe\0")],
)
def test_a_segment_that_pillow_stumbles_over_makes_the_file_broken_as_without_the_library(
    marker: int, payload: bytes, in_use: Library, tmp_path: Path
) -> None:
    path, content = tmp_path / "a.jpg", jpeg(picture(60, 50))
    for held in (payload, payload + bytes(14)):
        segment = bytes([0xFF, marker]) + (2 + len(held)).to_bytes(2, "big") + held
        path.write_bytes(content[:2] + segment + content[2:])
        without = results(path, off=True)
        assert results(path) == without
        assert all(isinstance(result, str) for result in without) == (held == payload)


def test_files_and_pictures_of_too_many_bytes_are_left_to_pillow(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = np.zeros((SIZE, SIZE, 3), np.uint8)
    assert library.crop(jpeg(Image.new("L", (65500, 1400))), "squash-bilinear", SIZE, None, True, out) == LEFT
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(picture(60, 50)))
    make = library.maker(TensorFormat("resize-bicubic", SIZE, "uint8", IMAGENET_MEAN, IMAGENET_STD))
    assert make(path, lambda path: True, out)
    monkeypatch.setattr(native, "MOST_BYTES", path.stat().st_size - 1)
    assert not make(path, lambda path: True, out)


@pytest.mark.parametrize("exif", [False, True])
def test_pictures_are_turned_by_exif_as_without_the_library(exif: bool, in_use: Library, tmp_path: Path) -> None:
    orientation = Image.Exif()
    for number in range(1, 9):
        orientation[0x0112] = number
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(jpeg(picture(60, 50), exif=orientation))
        found = results(path, exif)
        assert found == results(path, exif, off=True)
        assert {result[-1] for result in found} == {number > 1 and not exif}  # what it says was left as it lies
    path.write_bytes(jpeg(picture(60, 50), xmp=b'<x tiff:Orientation="6"/>'))
    assert results(path, exif) == results(path, exif, off=True)


def results(path: Path, exif: bool = False, off: bool = False) -> list[bytes | str]:
    """The tensor of a file by every recipe, or why there is none."""
    found: list[bytes | str] = []
    for recipe in RECIPES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(SWITCH, "0" if off else "1")
            make = tensor_maker(TensorFormat(recipe, SIZE, "uint8", IMAGENET_MEAN, IMAGENET_STD, exif))
        out = np.zeros((SIZE, SIZE, 3), np.uint8)
        try:
            unturned = make(path, out)
            found.append(out.tobytes() + bytes([unturned]))
        except BrokenImageError as error:
            assert not out.any()
            found.append(str(error))
    return found


def damaged(content: bytes, chance: random.Random) -> bytes:
    """With up to three faults, in the header as often as in the data."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(chance.choice([len(changed), min(len(changed), 620)]))
        run = chance.randint(1, 8)
        kind = chance.randrange(5)
        if kind == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at : at + run] = bytes(chance.choice([0, 255]) for _ in range(run))
        elif kind == 2:
            changed[at:at] = chance.randbytes(run)
        elif kind == 3:
            del changed[at : at + run]
        else:
            del changed[-run:]
    return bytes(changed)


@pytest.mark.parametrize("kind", ["4:4:4", "4:2:0", "progressive", "exif"])
def test_damaged_and_truncated_files_get_pillow_s_verdict_and_pillow_s_pixels(
    kind: str, in_use: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x011A] = 72.0
    kinds: dict[str, dict[str, Any]] = {"progressive": {"progressive": True}, "exif": {"exif": exif}}
    options = kinds.get(kind, {"subsampling": kind})
    content = jpeg(picture(70, 56), **options)
    chance, path, answered = random.Random(kind), tmp_path / "damaged.jpg", 0
    crop = in_use.crop

    def counted(*arguments: Any) -> int:
        nonlocal answered
        status = crop(*arguments)
        answered += status == DONE
        return status

    monkeypatch.setattr(in_use, "crop", counted)
    cuts = [content[:end] for end in range(0, len(content), 97)]
    for changed in [*cuts, *(damaged(content, chance) for _ in range(120))]:
        path.write_bytes(changed)
        assert results(path) == results(path, off=True)
    assert answered > 20  # some damage does not show


def test_threads_do_not_disturb_each_other(library: Library) -> None:
    contents = [jpeg(picture(90 + number, 70, seed=number)) for number in range(8)]
    expected = [pillows(content, "ecentercrop-bicubic") for content in contents]
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(lambda content: natives(library, content, "ecentercrop-bicubic"), contents * 20)
        for number, crop in enumerate(made):
            np.testing.assert_array_equal(crop, expected[number % 8])


def test_tensors_json_says_who_decoded_and_either_goes_on_where_the_other_stopped(
    in_use: Library, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor_format = TensorFormat("ecentercrop-bicubic", SIZE, "uint8", IMAGENET_MEAN, IMAGENET_STD)

    def run() -> tuple[int, str]:
        done = preprocess(images, tmp_path / "out", tensor_format)
        index = read_index(tmp_path / "out")
        assert index
        assert index.decoder == done.decoder
        return done.written, index.decoder

    by_library = f"{in_use.title}, else {native.PILLOW}"
    by_pillow = f"{native.PILLOW} ({SWITCH}=0)"
    assert run() == (12, by_library)
    monkeypatch.setenv(SWITCH, "0")
    assert run() == (0, by_library)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.bin")}
    (tmp_path / "out/val_7.bin").unlink()
    assert run() == (1, by_pillow)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.bin")} == kept


@pytest.mark.parametrize("value", ["off", "2", "-1"])
def test_a_switch_that_is_neither_on_nor_off_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, value)
    for asked in (native.library, native.decoder):
        with pytest.raises(ArgumentError, match=f"{SWITCH}='{value}' in the environment, expected a whole number"):
            asked()


def test_a_library_that_gives_another_pixel_than_this_pillow_is_not_used(library: Library) -> None:
    class Off(Library):
        def crop(self, *arguments: Any) -> int:
            status = super().crop(*arguments)
            arguments[-1][3, 4, 1] ^= 1
            return status

    off = like(library, Off)
    assert native.agrees(library)
    assert not native.agrees(off)


def sources(folder: Path) -> Path:
    """A copy of native/ without what was built in it."""
    return Path(shutil.copytree(PROJECT / "native", folder / "native", ignore=shutil.ignore_patterns("build")))


def test_a_library_of_other_sources_is_not_used(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr(native, "SOURCES", sources(tmp_path))
    find = native._found.__wrapped__
    assert find() == (None, "native/ is not built")
    (tmp_path / "native/build").mkdir()
    path = tmp_path / f"native/build/crops-{native.digest()}.so"
    shutil.copy(library._library._name, path)
    found, _ = find()
    assert found
    assert found.title == library.title
    with open(tmp_path / "native/axis.cpp", "a") as file:
        file.write("\n")
    assert find() == (None, "native/ is not built")
    path = tmp_path / f"native/build/crops-{native.digest()}.so"
    path.write_bytes(sealed(b"no library"))
    assert "native/ does not run here" in find()[1]
    path.unlink()
    path.mkdir()
    assert find() == (None, "native/ is not built")


def sealed(content: bytes) -> bytes:
    """As build.sh leaves a library."""
    return content + f"\n{hashlib.sha256(content).hexdigest()[:16]}\n".encode()


def test_half_a_library_is_not_loaded(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader would end the whole process."""
    monkeypatch.setattr(native, "SOURCES", sources(tmp_path))
    whole = Path(library._library._name).read_bytes()
    path = tmp_path / f"native/build/crops-{native.digest()}.so"
    path.parent.mkdir()
    for content in (whole[: len(whole) // 3], whole[:-30], b"", whole.replace(b"crops_make", b"crops_mate")):
        path.write_bytes(content)
        assert native._found.__wrapped__() == (None, f"{path} is damaged; bash native/build.sh builds it anew")


def test_hidden_files_beside_the_sources_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """build.sh passes over them, too: those of an editor, which may lead nowhere, and of a Mac's archives."""
    monkeypatch.setattr(native, "SOURCES", sources(tmp_path))
    before = native.digest()
    (tmp_path / "native/._axis.cpp").write_text("x")
    (tmp_path / "native/.#axis.h").symlink_to("user@host.1:2")
    assert native.digest() == before


def test_sources_that_cannot_be_read_leave_everything_to_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "SOURCES", sources(tmp_path))
    (tmp_path / "native/lost.cpp").symlink_to("nowhere")
    found, reason = native._found.__wrapped__()
    assert found is None
    assert "lost.cpp" in reason


def test_an_array_that_numpy_would_refuse_is_not_written_to(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(picture(60, 50)))
    shape = (3, SIZE, SIZE)
    closed = np.zeros(shape, np.float32)
    closed.flags.writeable = False
    make = library.maker(TensorFormat("resize-bicubic", SIZE, "float32", IMAGENET_MEAN, IMAGENET_STD))
    for out in (
        closed,
        np.zeros((3, SIZE, SIZE - 1), np.float32),
        np.zeros(shape, np.float16),
        np.zeros(shape, ">f4"),
        np.zeros((3, SIZE, 2 * SIZE), np.float32)[:, :, ::2],
        np.zeros(4 * 3 * SIZE * SIZE + 1, np.uint8)[1:].view(np.float32).reshape(shape),
    ):
        assert not make(path, lambda path: True, out)
        assert not out.any()
    assert make(path, lambda path: True, np.zeros(shape, np.float32))


def test_the_library_keeps_its_c_plus_plus_runtime_to_itself(library: Library) -> None:
    """Else one exception could be thrown by its own, and caught by another's."""
    linked = b"libstdc++.so" in Path(library._library._name).read_bytes()
    assert linked or not hasattr(library._library, "__cxa_throw")


def build(folder: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(folder / "build.sh"), *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def tools(folder: Path, compiler: str) -> Path:
    """A folder with all that build.sh calls, and a compiler of these lines."""
    folder.mkdir()
    for name in ["bash", "cat", "cut", "dirname", "find", "grep", "mkdir", "mktemp", "mv", "rm", "sha256sum", "touch"]:
        (folder / name).symlink_to(shutil.which(name) or name)
    program(folder / "c++", compiler)
    return folder


def program(path: Path, lines: str) -> None:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)


def test_what_a_build_lacks_is_one_line(tmp_path: Path) -> None:
    here = sources(tmp_path)
    path = tools(tmp_path / "bin", "exit 1")
    said = build(here, PATH=str(path)).stderr
    assert said == "native/: not built, Pillow makes all crops: no cmake on PATH\n"
    (path / "cmake").symlink_to("/bin/false")
    assert "c++ does not find jpeglib.h; install libjpeg-turbo's headers" in build(here, PATH=str(path)).stderr
    (path / "c++").unlink()
    assert "no c++ on PATH" in build(here, PATH=str(path)).stderr
    assert not (here / "build").exists()


def test_sources_that_could_not_be_compiled_are_not_tried_again_by_run_sh(tmp_path: Path) -> None:
    here = sources(tmp_path)
    path = tools(tmp_path / "bin", "exit 0")
    program(path / "cmake", f"echo called >>{tmp_path}/calls\necho why\nexit 1")
    for _ in range(2):
        result = build(here, "--once", PATH=str(path))
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1
        assert f"{here}/build/build.log" in result.stderr
    assert (tmp_path / "calls").read_text() == "called\n"
    assert (here / "build/build.log").read_text() == "why\n"
    build(here, PATH=str(path))
    assert (tmp_path / "calls").read_text() == "called\n" * 2
    assert not list((here / "build").glob("building-*"))


def test_a_build_that_leaves_no_library_failed(tmp_path: Path) -> None:
    """Whatever CMake says; and neither options in CXX nor a word that is none of its own lead it astray."""
    here = sources(tmp_path)
    path = tools(tmp_path / "bin", f"echo $* >>{tmp_path}/calls")
    program(path / "cmake", f"echo $* >>{tmp_path}/calls")
    result = build(here, PATH=str(path), CXX="c++ -std=c++17", CMAKE_GENERATOR="Ninja Multi-Config")
    assert result.returncode == 1
    assert "native/: not built, Pillow makes all crops" in result.stderr
    assert not list((here / "build").glob("crops-*"))
    calls = (tmp_path / "calls").read_text()
    assert "-std=c++17 -x c++ -E -\n" in calls
    assert "-G Unix Makefiles -S" in calls
    assert build(here, "--help", PATH=str(path)).stderr.endswith(
        "--help is no option; bash native/build.sh [--once] [FOLDER]\n"
    )


def test_run_sh_keeps_a_library_that_is_there_and_who_asks_gets_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be of another machine, or of a libjpeg that has gone."""
    here = sources(tmp_path)
    monkeypatch.setattr(native, "SOURCES", here)
    kept = here / f"build/crops-{native.digest()}.so"
    kept.parent.mkdir()
    kept.write_bytes(b"old")
    path = tools(tmp_path / "bin", "exit 0")
    program(path / "cmake", '[ "$1" = --build ] && echo new >"$2/crops.so" && echo new >"$2/resnest_infer"; exit 0')
    assert build(here, "--once", PATH=str(path)).returncode == 0
    assert kept.read_bytes() == b"old"
    assert build(here, PATH=str(path)).returncode == 0
    assert kept.read_bytes() == sealed(b"new\n")


def test_ctrl_c_while_it_builds_ends_run_sh_and_is_no_failure(tmp_path: Path) -> None:
    """Ninja and make end with a status then, like a compiler's error."""
    here = sources(tmp_path)
    path = tools(tmp_path / "bin", "exit 0")
    program(path / "cmake", f"trap 'exit 2' INT\necho >{tmp_path}/begun\nwhile :; do :; done")
    lines = f"bash {here}/build.sh --once || :\necho went on"
    shell = subprocess.Popen(
        ["bash", "-c", lines], env={"PATH": str(path)}, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (tmp_path / "begun").exists():
        time.sleep(0.02)
    os.killpg(shell.pid, signal.SIGINT)
    said, _ = shell.communicate(timeout=20)
    assert "went on" not in said
    assert shell.returncode == -signal.SIGINT
    assert not list((here / "build").glob("*-*"))


def test_a_compiler_without_a_c_plus_plus_runtime_to_link_is_enough(library: Library, tmp_path: Path) -> None:
    """As on systems where that is a package of its own."""
    refusing = 'for word; do [ "$word" = -static-libstdc++ ] && exit 1; done\n'
    program(tmp_path / "cxx", f'{refusing}exec {os.environ.get("CXX", "c++")} "$@"')
    command = ["cmake", "-G", "Unix Makefiles", "-S", str(PROJECT / "native"), "-B", str(tmp_path / "made")]
    subprocess.run(command, env={**os.environ, "CXX": str(tmp_path / "cxx")}, check=True, capture_output=True)
    (link,) = (tmp_path / "made").rglob("crops.dir/link.txt")
    assert "crops.so" in link.read_text()
    assert "-static" not in link.read_text()


def test_the_kernels_for_any_processor_give_the_same_pixels(library: Library) -> None:
    for width, height in ((203, 131), (70, 300), (20, 31)):
        for subsampling in ("4:4:4", "4:2:0"):
            content = jpeg(picture(width, height), subsampling=subsampling)
            assert_same(like(library, any_processor=True), content, 61)


@pytest.mark.heavy
def test_nothing_is_read_or_written_out_of_bounds_whatever_a_file_holds(library: Library, tmp_path: Path) -> None:
    """Under AddressSanitizer, its leak detector and UndefinedBehaviorSanitizer, for a few seconds of damaged files."""
    kinds: list[dict[str, Any]] = [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}]
    for number, options in enumerate([*kinds, {"restart_marker_blocks": 2}]):
        for width, height in ((90, 70), (31, 130)):
            (tmp_path / f"{number}_{width}.jpg").write_bytes(jpeg(picture(width, height), **options))
    (tmp_path / "grey.jpg").write_bytes(jpeg(picture(60, 60).convert("L")))
    # What resnest_infer reads besides.
    (tmp_path / "s.json").write_text(json.dumps({"filesinfo": {"0": {"outfiles": ["\u00e9\n"]}}, "x": [1.5e-7, None]}))
    (tmp_path / "l.txt").write_text("\ufeffn01/a.jpg 3\r\nn02/a.jpg 4\n\u00e9 b.JPEG\t999\n")
    np.save(tmp_path / "t.npy", np.zeros((3, 4, 4), np.float32))
    result = call("native/fuzz.sh", 2, *sorted(path for path in tmp_path.iterdir() if path.is_file()))
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    assert "no fault" in result.stdout
