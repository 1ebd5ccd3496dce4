"""Image files as they come: odd ones are read as Pillow reads them, broken ones named, no bytes bring a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import socket
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ResNeSt.images.decode import BrokenImageError, decode, tensor_maker
from ResNeSt.images.preprocess import preprocess
from ResNeSt.images.recipes import RECIPES
from ResNeSt.tensors.format import TensorFormat
from tests.conftest import assert_refused, call, picture

SIZE = 32
# More for a longer search: FUZZ_EXAMPLES=100000 python -m pytest tests/test_faults_images.py -k bytes
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))


def png(width: int, height: int) -> bytes:
    """A black picture of one bit a pixel: small as a file, whatever its size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound pictures of every kind that data sets hold."""
    folder = tmp_path_factory.mktemp("odd")
    image = picture(90, 70, seed=1)
    for kind in ("PNG", "WebP", "GIF", "BMP", "TIFF"):
        image.save(folder / f"{kind}.JPEG", kind)
    for mode in ("L", "CMYK", "YCbCr"):
        image.convert(mode).save(folder / f"{mode}.JPEG", "JPEG")
    image.convert("CMYK").save(folder / "adobe.JPEG", "JPEG", adobe=True)
    for mode in ("LA", "P", "1", "RGBA"):
        image.convert(mode).save(folder / f"mode_{mode}.png")
    image.convert("P").save(folder / "transparent.png", transparency=3)
    image.resize((1, 1)).save(folder / "one_pixel.JPEG")
    image.resize((900, 2)).save(folder / "two_rows.JPEG")
    image.save(folder / "broken_exif.JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff garbage")
    for name in ("with blank", "quote'\"s", "größe 图", "-leading dash", "new\nline", "$(touch pwned);x"):
        image.save(folder / f"{name}.JPEG")
    return folder


@pytest.mark.parametrize("workers", [1, 2])
def test_every_odd_picture_gives_the_tensor_of_what_pillow_reads(odd: Path, tmp_path: Path, workers: int) -> None:
    flags = [f"--size={SIZE}", "--dtype=uint8", f"--workers={workers}"]
    result = call("resnest_preprocess.py", odd, tmp_path / "out", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    for path in odd.iterdir():
        with Image.open(path) as image:
            expected = np.asarray(RECIPES["ecentercrop-bicubic"](image.convert("RGB"), SIZE))
        found = np.fromfile(tmp_path / "out" / f"{path.name.split('.')[0]}.bin", np.uint8)
        assert np.array_equal(found.reshape(SIZE, SIZE, 3), expected), path.name
    assert not list(tmp_path.rglob("pwned"))


@pytest.fixture
def broken(odd: Path, tmp_path: Path) -> Path:
    """Two sound pictures among files that are none."""
    folder = tmp_path / "broken"
    folder.mkdir()
    picture(90, 70).save(folder / "sound_1.JPEG")
    picture(70, 90).save(folder / "sound_2.JPEG")
    whole = (folder / "sound_1.JPEG").read_bytes()
    contents = {
        "empty.JPEG": b"",
        "text.JPEG": b"404 Not Found\n",
        "cut_in_head.JPEG": whole[:100],
        "cut_in_half.JPEG": whole[: len(whole) // 2],
        "cut.png": (odd / "mode_RGBA.png").read_bytes()[:-200],
        "bomb.png": png(20_000, 20_000),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "vanished.JPEG").symlink_to(tmp_path / "nothing")
    (folder / "round.JPEG").symlink_to("round.JPEG")
    return folder


NAMES = (
    "bomb.png",
    "cut.png",
    "cut_in_half.JPEG",
    "cut_in_head.JPEG",
    "empty.JPEG",
    "round.JPEG",
    "text.JPEG",
    "vanished.JPEG",
)


def test_every_broken_file_is_named_and_the_sound_ones_are_made(broken: Path, tmp_path: Path) -> None:
    result = call("resnest_preprocess.py", broken, tmp_path / "out", f"--size={SIZE}")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("broken: ")]
    assert sorted(line.split(": ")[1].rsplit("/", 1)[1] for line in lines) == sorted(NAMES)
    assert {path.name for path in (tmp_path / "out").glob("*.bin")} == {"sound_1.bin", "sound_2.bin"}


LEVELS = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16  # 0 to 65520


def sixteen_bits(kind: str) -> bytes:
    """A file of 16-bit grey LEVELS, 0 black, of the kind that its name says."""
    buffer = io.BytesIO()
    if kind == "big-endian.tif":
        Image.frombytes("I;16B", LEVELS.shape, LEVELS.astype(">u2").tobytes()).save(buffer, "TIFF")
    elif kind == "white-is-zero.tif":
        Image.fromarray(65535 - LEVELS).save(buffer, "TIFF", tiffinfo={262: 0})
    elif kind == "twelve-bits.pgm":
        return b"P5 64 64 4095\n" + (LEVELS >> 4).astype(">u2").tobytes()
    else:
        Image.fromarray(LEVELS).save(buffer, {"png": "PNG", "tif": "TIFF", "pgm": "PPM", "jp2": "JPEG2000"}[kind])
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["png", "tif", "pgm", "jp2", "big-endian.tif", "white-is-zero.tif", "twelve-bits.pgm"])
def test_of_16_bit_grey_levels_the_high_byte_counts_as_pillow_has_it_with_16_bit_colours(
    kind: str, tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(sixteen_bits(kind))
    found = np.asarray(decode(tmp_path / "image"))
    expected = np.repeat(LEVELS[:, :, None] >> 8, 3, axis=2)
    assert np.abs(found.astype(int) - expected).max() <= (1 if kind == "twelve-bits.pgm" else 0)  # 4095 is 65535 there


@pytest.mark.parametrize(("mode", "kind"), [("I", "TIFF"), ("F", "TIFF"), ("F", "PPM")])
def test_levels_whose_range_the_file_does_not_tell_are_refused(mode: str, kind: str, tmp_path: Path) -> None:
    image = Image.new(mode, (8, 8))
    image.save(tmp_path / "image", kind)
    with pytest.raises(BrokenImageError, match=r"image: cannot be decoded \(ValueError"):
        decode(tmp_path / "image")


@pytest.mark.parametrize("command", ["decode", "make"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(command: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
    make = tensor_maker(TensorFormat("ecentercrop-bicubic", 8, "uint8", (0, 0, 0), (1, 1, 1)))
    for path in tmp_path.iterdir():
        with pytest.raises(BrokenImageError, match="not a plain file"):
            decode(path) if command == "decode" else make(path, np.empty((8, 8, 3), np.uint8))


@pytest.mark.parametrize("recipe", list(RECIPES))
@pytest.mark.parametrize("shape", [(1, 3000), (60_000, 1)])
def test_no_recipe_makes_a_large_picture_of_a_thin_one(recipe: str, shape: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "thin.png").write_bytes(png(*shape))
    make = tensor_maker(TensorFormat(recipe, 224, "uint8", (0, 0, 0), (1, 1, 1)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = pytest.raises(BrokenImageError, match="more than 100 times as long as wide")
    with refused if recipe.startswith("resize") else contextlib.nullcontext():
        make(tmp_path / "thin.png", np.empty((224, 224, 3), np.uint8))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_a_picture_for_which_memory_runs_out_is_broken_and_the_others_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crop(image: Image.Image, size: int) -> Image.Image:
        if image.width == 90:
            raise MemoryError
        return image.resize((size, size))

    (tmp_path / "images").mkdir()
    picture(90, 70).save(tmp_path / "images/large.png")
    picture(70, 90).save(tmp_path / "images/small.png")
    monkeypatch.setitem(RECIPES, "squash-bilinear", crop)
    tensor_format = TensorFormat("squash-bilinear", 8, "uint8", (0, 0, 0), (1, 1, 1))
    done = preprocess(tmp_path / "images", tmp_path / "out", tensor_format)
    assert (done.written, list(done.broken)) == (1, ["large.png"])
    assert "MemoryError" in done.broken["large.png"]


def test_a_bomb_is_refused_by_its_number_of_pixels_before_it_takes_memory(broken: Path) -> None:
    with pytest.raises(BrokenImageError, match=r"400000000 pixels.*exceeds limit of 178956970"):
        decode(broken / "bomb.png")


def test_evaluate_names_the_same_broken_files(broken: Path, demo_onnx: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{path.name} 0\n" for path in broken.iterdir()))
    flags = [f"--model={demo_onnx}", f"--images={broken}", f"--labels={labels}"]
    result = call("-m", "ResNeSt.evaluate", *flags)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert f"broken: {len(NAMES)} images that cannot be decoded" in result.stdout
    assert "tot=2," in result.stdout


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_any_bytes_in_place_of_an_image_s_are_decoded_or_refused_in_one_line(
    data: st.DataObject, odd: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = data.draw(st.sampled_from(sorted(odd.iterdir())))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    changed = tmp_path_factory.mktemp("fuzz") / "image.JPEG"
    changed.write_bytes(content)
    with contextlib.suppress(BrokenImageError):
        image = decode(changed)
        assert image.mode == "RGB"
        assert np.asarray(image).shape == (image.height, image.width, 3)


def test_a_folder_of_broken_files_alone_says_so(tmp_path: Path, demo_onnx: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.JPEG").write_bytes(b"")
    (tmp_path / "labels.txt").write_text("a.JPEG 0\n")
    flags = [f"--model={demo_onnx}", "--images=images", "--labels=labels.txt"]
    result = call("-m", "ResNeSt.evaluate", *flags, cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "broken: 1 images" in result.stdout
    (tmp_path / "images/a.JPEG").unlink()
    assert_refused(call("-m", "ResNeSt.evaluate", *flags, cwd=tmp_path), "images: no image files")
