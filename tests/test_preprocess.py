"""Stage 1: images -> tensors."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ResNeSt.common.ais_bench_names import natural_key
from ResNeSt.common.errors import PipelineError
from ResNeSt.images.decode import decode
from ResNeSt.images.listing import find_images
from ResNeSt.images.native import decoder
from ResNeSt.images.preprocess import preprocess
from ResNeSt.images.recipes import RECIPES
from ResNeSt.models.cards import IMAGENET_MEAN, IMAGENET_STD
from ResNeSt.tensors.folder import TensorFile, check_files, check_tensors, find_tensors, read_bytes, read_tensor
from ResNeSt.tensors.format import TensorFormat, TensorSet, read_index
from tests.conftest import PROJECT, assert_refused, call, picture

SCRIPT = "resnest_preprocess.py"
GOLDEN = {
    **{f"ecentercrop_bicubic_{size}": ("ecentercrop-bicubic", size) for size in (224, 256, 320, 416)},
    "resize256_bicubic_crop224": ("resize-bicubic", 224),
    "resize256_bilinear_crop224": ("resize-bilinear", 224),
    "squash256_bilinear_crop224": ("squash-bilinear", 224),
}


@pytest.mark.heavy
@pytest.mark.parametrize("golden", GOLDEN)
def test_a_crop_is_bit_identical_to_the_recorded_one(golden: str, shared: Path) -> None:
    recipe, size = GOLDEN[golden]
    expected = json.loads((shared / "golden/preprocess/expected.json").read_text())["recipes"][golden]
    for name, digest in expected.items():
        crop = np.asarray(RECIPES[recipe](decode(shared / "images" / name), size))
        assert hashlib.sha256(crop.tobytes()).hexdigest()[:16] == digest, name


@pytest.mark.parametrize(("recipe", "interpolation"), [("resize-bicubic", "BICUBIC"), ("resize-bilinear", "BILINEAR")])
def test_the_resize_recipes_give_torchvision_s_bits(
    recipe: str, interpolation: str, images: Path, tmp_path: Path, torchvision: ModuleType
) -> None:
    from torchvision import transforms

    reference = transforms.Compose(
        [
            transforms.Resize(256, getattr(transforms.InterpolationMode, interpolation)),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    assert call(SCRIPT, images, tmp_path / "out", "--recipe", recipe).returncode == 0
    for path in map(Path, find_images(images)):
        expected = reference(Image.open(path).convert("RGB")).numpy()
        found = np.fromfile(tmp_path / "out" / f"{path.stem}.bin", np.float32)
        assert np.array_equal(found.reshape(3, 224, 224), expected)


def test_uint8_tensors_are_the_crop_itself_in_nhwc(images: Path, tmp_path: Path) -> None:
    assert call(SCRIPT, images, tmp_path / "out", "--dtype", "uint8").returncode == 0
    for path in map(Path, find_images(images)):
        crop = np.asarray(RECIPES["ecentercrop-bicubic"](decode(path), 224))
        assert (tmp_path / "out" / f"{path.stem}.bin").read_bytes() == crop.tobytes()


def test_a_model_s_card_sets_size_and_recipe_and_flags_override_them(images: Path, tmp_path: Path) -> None:
    call(SCRIPT, images, tmp_path / "card", "--model", "resnest101")
    call(SCRIPT, images, tmp_path / "flags", "--model", "resnest101", "--size", "64", "--recipe", "squash-bilinear")
    card_index, flags_index = (read_index(tmp_path / name) for name in ("card", "flags"))
    assert card_index is not None
    assert flags_index is not None
    card, flags = card_index.format, flags_index.format
    assert (card.recipe, card.size) == ("ecentercrop-bicubic", 256)
    assert (flags.recipe, flags.size) == ("squash-bilinear", 64)


def test_the_json_beside_the_tensors_says_what_they_are(images: Path, tmp_path: Path) -> None:
    call(SCRIPT, images, tmp_path / "out")
    found = json.loads((tmp_path / "out/tensors.json").read_text())
    assert found["recipe"] == "ecentercrop-bicubic"
    assert (found["size"], found["dtype"], found["layout"]) == (224, "float32", "NCHW")
    assert (found["images"], found["count"], found["complete"], found["broken"]) == (12, 12, True, [])


def parts(name: str) -> list[Any]:
    """A name as texts and numbers in turn, which is what natural order compares."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", name))]


@given(st.lists(st.text("ab019._- ", max_size=7)))
def test_natural_order_compares_texts_as_texts_and_numbers_as_numbers(names: list[str]) -> None:
    assert sorted(names, key=natural_key) == sorted(names, key=parts)


def test_a_folder_per_class_gives_the_same_tensors_as_a_flat_one(images: Path, tmp_path: Path) -> None:
    call(SCRIPT, images, tmp_path / "flat")
    for number, path in enumerate(map(Path, find_images(images))):
        folder = images / f"n{number % 3:08d}"
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    assert call(SCRIPT, images, tmp_path / "nested").returncode == 0
    assert contents(tmp_path / "flat") == contents(tmp_path / "nested")


def test_images_come_in_natural_order(images: Path) -> None:
    assert [Path(path).stem for path in find_images(images)] == [f"val_{number}" for number in range(1, 13)]


def test_hidden_files_and_files_of_other_kinds_are_left_alone(images: Path) -> None:
    (images / "._val_1.JPEG").write_bytes(b"not an image")
    (images / "val_label.txt").write_text("val_1.JPEG 0")
    assert len(find_images(images)) == 12


def test_exif_orientation_is_ignored_as_the_official_recipe_does(tmp_path: Path) -> None:
    image, exif = picture(300, 200), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert decode(tmp_path / "turned.jpg").size == (300, 200)


@pytest.mark.parametrize("packed", [False, True])
def test_pictures_that_exif_would_turn_are_counted_while_they_are_made_and_known_when_they_are_kept(
    packed: bool, tmp_path: Path
) -> None:
    made = TensorFormat("ecentercrop-bicubic", 32, "uint8", IMAGENET_MEAN, IMAGENET_STD)
    (tmp_path / "in").mkdir()
    for name, orientation in (("a.jpg", 1), ("b.jpg", 6), ("c.jpg", 3), ("d.png", 8), ("e.webp", 5), ("f.jpg", None)):
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        picture(40, 30).save(tmp_path / "in" / name, exif=exif)
    for written in (6, 0):
        done = preprocess(tmp_path / "in", tmp_path / "out", made, packed=packed)
        assert (done.written, done.unturned) == (written, 4)
    turned = preprocess(tmp_path / "in", tmp_path / "exif", dataclasses.replace(made, exif=True), packed=packed)
    assert turned.unturned == 0


def test_an_undecodable_image_is_named_and_the_run_goes_on(images: Path, tmp_path: Path) -> None:
    (images / "val_2.JPEG").write_bytes((images / "val_2.JPEG").read_bytes()[:2000])
    (images / "val_7.JPEG").write_bytes(b"")
    result = call(SCRIPT, images, tmp_path / "out")
    assert result.returncode == 1
    named = [line.split(":")[1].split("/")[-1] for line in result.stdout.splitlines() if line.startswith("broken: ")]
    assert named == ["val_2.JPEG", "val_7.JPEG"]
    assert len(list((tmp_path / "out").glob("*.bin"))) == 10
    index = read_index(tmp_path / "out")
    assert index is not None
    assert index.broken == ("val_2.JPEG", "val_7.JPEG")


def test_allow_broken_makes_the_exit_code_0(images: Path, tmp_path: Path) -> None:
    (images / "val_2.JPEG").write_bytes(b"not an image")
    assert call(SCRIPT, images, tmp_path / "out", "--allow-broken").returncode == 0


def test_two_files_with_one_name_up_to_the_first_dot_are_refused_before_any_work(images: Path, tmp_path: Path) -> None:
    picture(50, 50).save(images / "val_1.small.png")
    assert_refused(call(SCRIPT, images, tmp_path / "out"), "val_1.JPEG", "val_1.small.png", "rename them")
    assert not (tmp_path / "out").exists()


def test_a_second_run_keeps_what_is_there_and_makes_what_is_missing(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call(SCRIPT, images, out)
    before = contents(out)
    (out / "val_3.bin").unlink()
    (out / "val_4.bin").write_bytes(b"short")
    result = call(SCRIPT, images, out)
    assert "2 tensors written, 10 kept" in result.stdout
    assert contents(out) == before


def test_an_image_that_changed_is_made_again(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call(SCRIPT, images, out)
    picture(300, 300, seed=99).save(images / "val_5.JPEG")
    future = time.time() + 10
    os.utime(images / "val_5.JPEG", (future, future))
    assert "1 tensors written" in call(SCRIPT, images, out).stdout


def other(images: Path, folder: Path) -> Path:
    """Other pictures under the same names, with older dates, as an archive that is unpacked leaves them."""
    folder.mkdir()
    for number, path in enumerate(sorted(images.iterdir())):
        picture(90, 80, seed=100 + number).save(folder / path.name)
        os.utime(folder / path.name, (1_000_000_000, 1_000_000_000))
    return folder


@pytest.mark.parametrize("flags", [[], ["--pack"]])
def test_other_pictures_under_the_same_names_are_made_anew_however_old_they_are(
    flags: list[str], images: Path, tmp_path: Path
) -> None:
    second = other(images, tmp_path / "second")
    assert call(SCRIPT, images, tmp_path / "out", "--size=16", *flags).returncode == 0
    assert "12 tensors written, 0 kept" in call(SCRIPT, second, tmp_path / "out", "--size=16", *flags).stdout
    assert call(SCRIPT, second, tmp_path / "fresh", "--size=16", *flags).returncode == 0
    assert {
        path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.suffix in (".bin", ".npy")
    } == {path.name: path.read_bytes() for path in (tmp_path / "fresh").iterdir() if path.suffix in (".bin", ".npy")}
    assert "0 tensors written, 12 kept" in call(SCRIPT, second, tmp_path / "out", "--size=16", *flags).stdout


@pytest.mark.parametrize("flags", [[], ["--pack"]])
def test_pictures_that_take_the_place_of_others_are_made_anew_however_old_they_are(
    flags: list[str], images: Path, tmp_path: Path
) -> None:
    second = other(images, tmp_path / "second")
    assert call(SCRIPT, images, tmp_path / "out", "--size=16", *flags).returncode == 0
    for path in second.iterdir():
        path.replace(images / path.name)
    assert "12 tensors written, 0 kept" in call(SCRIPT, images, tmp_path / "out", "--size=16", *flags).stdout


@pytest.mark.parametrize("flags", [[], ["--pack"]])
def test_pictures_that_changed_places_are_made_anew_even_of_one_size_and_date(flags: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()

    def write(first: int, second: int) -> None:
        for name, seed in (("a.bmp", first), ("b.bmp", second)):
            picture(20, 20, seed=seed).save(folder / name)
            os.utime(folder / name, (1_000_000_000, 1_000_000_000))

    for seeds in ((1, 2), (2, 1)):
        write(*seeds)
        done = call(SCRIPT, folder, tmp_path / "out", "--size=16", *flags)
        assert "2 tensors written, 0 kept" in done.stdout
    assert "0 tensors written, 2 kept" in call(SCRIPT, folder, tmp_path / "out", "--size=16", *flags).stdout


def test_tensors_stay_when_only_their_modes_change(images: Path, tmp_path: Path) -> None:
    """As `chmod -R go-w`, which bench.sh asks for, does it."""
    call(SCRIPT, images, tmp_path / "out", "--size=16")
    for path in (tmp_path / "out").iterdir():
        path.chmod(0o600)
    assert "0 tensors written, 12 kept" in call(SCRIPT, images, tmp_path / "out", "--size=16").stdout


def test_pictures_of_another_folder_are_others_even_of_one_size_and_date(tmp_path: Path) -> None:
    for number, name in enumerate(("first", "second")):
        (tmp_path / name).mkdir()
        picture(20, 20, seed=number).save(tmp_path / name / "a.bmp")
        os.utime(tmp_path / name / "a.bmp", (1_000_000_000, 1_000_000_000))
    tensors = []
    for name in ("first", "second"):
        assert call(SCRIPT, tmp_path / name, tmp_path / "out", "--size=16").returncode == 0
        tensors.append((tmp_path / "out/a.bin").read_bytes())
    assert tensors[0] != tensors[1]


@pytest.mark.parametrize("flags", [[], ["--pack"]])
def test_a_tensor_that_was_damaged_at_equal_size_is_made_anew(flags: list[str], images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(SCRIPT, images, out, "--size=16", *flags).returncode == 0
    path = sorted([*out.glob("*.bin"), *out.glob("*.npy")])[0]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert call(SCRIPT, images, out, "--size=16", *flags).returncode == 0
    assert path.read_bytes() == content


@pytest.mark.parametrize("left", [b"", b"garbage\n", b"[]\n", b'["val_1.bin"]\n{}\nnull\n[[]]\n', b"\xff\xfe\n" * 9])
def test_tensors_of_which_nothing_is_recorded_are_made_anew(left: bytes, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call(SCRIPT, images, out, "--size=16")
    record = (out / "sources.jsonl").read_bytes()
    (out / "sources.jsonl").write_bytes(left)
    assert "12 tensors written, 0 kept" in call(SCRIPT, images, out, "--size=16").stdout
    (out / "sources.jsonl").write_bytes(record[:-5])
    result = call(SCRIPT, images, out, "--size=16")
    assert result.returncode == 0, result.stderr


def test_a_killed_run_leaves_no_half_tensor_and_the_next_one_finishes_it(images: Path, tmp_path: Path) -> None:
    for number in range(200):
        (images / f"more_{number}.JPEG").write_bytes((images / "val_1.JPEG").read_bytes())
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, str(PROJECT / SCRIPT), str(images), str(out)])
    while len(list(out.glob("*.bin"))) < 20 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = list(out.glob("*.bin"))
    assert 20 <= len(left) < 212
    assert {path.stat().st_size for path in left} == {3 * 224 * 224 * 4}
    index = read_index(out)
    assert index is not None
    assert not index.complete
    assert call(SCRIPT, images, out).returncode == 0
    call(SCRIPT, images, tmp_path / "undisturbed")
    assert contents(out) == contents(tmp_path / "undisturbed")
    assert not list(out.glob(".*"))


def test_tensors_of_another_recipe_are_not_mixed_in(images: Path, tmp_path: Path) -> None:
    call(SCRIPT, images, tmp_path / "out")
    result = call(SCRIPT, images, tmp_path / "out", "--recipe", "squash-bilinear")
    assert_refused(result, "holds ecentercrop-bicubic 224", "this run makes squash-bilinear 224", "another folder")


def test_a_tensor_without_an_image_is_not_passed_on(images: Path, tmp_path: Path) -> None:
    call(SCRIPT, images, tmp_path / "out")
    (images / "val_9.JPEG").unlink()
    assert_refused(call(SCRIPT, images, tmp_path / "out"), "1 tensors without an image", "val_9.bin")


@pytest.mark.parametrize("source", ["nowhere", "empty"])
def test_a_source_without_images_is_refused(source: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(call(SCRIPT, tmp_path / source, tmp_path / "out"), source)


def test_an_unknown_model_is_refused_with_exit_code_2(images: Path, tmp_path: Path) -> None:
    assert_refused(call(SCRIPT, images, tmp_path / "out", "--model", "resnet50"), "unknown model", code=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.bin")}


def test_what_was_done_comes_as_json_for_machines(images: Path, tmp_path: Path) -> None:
    (images / "val_2.JPEG").write_bytes(b"damaged")
    call("resnest_preprocess.py", images, tmp_path / "out", "--size=32", f"--json={tmp_path}/told.json")
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["written"], told["kept"], list(told["broken"])) == (11, 0, ["val_2.JPEG"])


@pytest.mark.parametrize("packed", [False, True])
def test_the_tensor_of_a_picture_that_broke_since_is_gone(packed: bool, images: Path, tmp_path: Path) -> None:
    tensor_format = TensorFormat("ecentercrop-bicubic", 8, "float32", (0.5,) * 3, (0.5,) * 3)
    preprocess(images, tmp_path / "out", tensor_format, packed=packed)
    (images / "val_2.JPEG").write_bytes(b"")
    assert list(preprocess(images, tmp_path / "out", tensor_format, packed=packed).broken) == ["val_2.JPEG"]
    names = [Path(tensor.path).name for tensor in find_tensors(tmp_path / "out")]
    assert names == [f"val_{number}.bin" for number in range(1, 13) if number != 2]


def test_long_and_odd_names_become_tensors_and_one_too_long_for_its_results_is_broken(tmp_path: Path) -> None:
    whole = ["a" * 249 + ".jpg", "at 9\u202fPM.png", "b\u00a0c.png", "new\nline.png", os.fsdecode(b"caf\xe9.png")]
    for name in [*whole, "d" * 250 + ".png"]:
        (tmp_path / "images").mkdir(exist_ok=True)
        picture(40, 30).save(tmp_path / "images/image.png")
        (tmp_path / "images/image.png").rename(tmp_path / "images" / name)
    tensor_format = TensorFormat("ecentercrop-bicubic", 8, "uint8", (0.5,) * 3, (0.5,) * 3)
    done = preprocess(tmp_path / "images", tmp_path / "out", tensor_format)
    assert list(done.broken) == ["d" * 250 + ".png"]
    assert "too long for results" in next(iter(done.broken.values()))
    assert {path.name for path in (tmp_path / "out").glob("*.bin")} == {f"{name[:-4]}.bin" for name in whole}
    (tmp_path / f"{'a' * 249}_0.bin").touch()  # the file system takes the name of its result


@pytest.mark.parametrize("name", ["pipe.bin", "pipe.npy"])
def test_a_pipe_among_tensors_is_refused_and_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(PipelineError, match=rf"{name}: not a plain file"):
        read_bytes(TensorFile(str(tmp_path / name)))


@pytest.mark.parametrize("axes", [(1, 2, 0), (1, 0, 2), (2, 1, 0)])
def test_a_npy_whose_axes_stand_in_another_order_is_refused(axes: tuple[int, int, int], tmp_path: Path) -> None:
    values = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)
    np.save(tmp_path / "a.npy", values.transpose(axes))
    file, turned = TensorFile(str(tmp_path / "a.npy")), r"a\.npy: of shape .*, the model takes \[3, 4, 5\]"
    with pytest.raises(PipelineError, match=turned):
        read_tensor(file, (3, 4, 5), "float32")
    with pytest.raises(PipelineError, match=turned):
        check_files(file.path, (3, 4, 5), "float32")
    for same in (values, values[None], values.ravel()):
        np.save(tmp_path / "a.npy", same)
        assert np.array_equal(read_tensor(file, (3, 4, 5), "float32"), values)


@pytest.mark.parametrize("packed", [False, True])
def test_the_index_counts_what_was_made_and_names_what_failed(packed: bool, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in (1, 2, 10):
        picture(20, 16, number).save(tmp_path / f"images/{number}.png")
    (tmp_path / "images/2.png").write_bytes(b"broken")
    made = TensorFormat("squash-bilinear", 8, "uint8", (0.0,) * 3, (1.0,) * 3)
    done = preprocess(tmp_path / "images", tmp_path / "prep", made, packed=packed)
    assert (done.written, done.kept, list(done.broken)) == (2, 0, ["2.png"])
    whole = TensorSet(made, images=3, count=2, complete=True, broken=("2.png",), packed=packed, decoder=decoder())
    assert read_index(tmp_path / "prep") == whole
    check_tensors(tmp_path / "prep", (1, 8, 8, 3), "uint8", {})
    picture(20, 16, 2).save(tmp_path / "images/2.png")
    done = preprocess(tmp_path / "images", tmp_path / "prep", made, packed=packed)
    assert (done.written, done.kept, done.broken) == ((3, 0, {}) if packed else (1, 2, {}))  # a shard is made whole
    assert read_index(tmp_path / "prep") == dataclasses.replace(whole, count=3, broken=())
