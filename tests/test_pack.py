"""Stage 1 with --pack: few large files instead of one per image, and what reads them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ResNeSt.common.errors import PipelineError
from ResNeSt.convert import calibration
from ResNeSt.images.listing import find_images
from ResNeSt.models import onnx_file
from ResNeSt.tensors.folder import check_tensors, read_bytes, tensor_files
from ResNeSt.tensors.format import read_index
from ResNeSt.tensors.shards import SHARD_IMAGES, list_shards, write_shard
from tests.conftest import PROJECT, assert_refused, call, picture

SCRIPT = "resnest_preprocess.py"
SMALL = ("--size=16", "--dtype=uint8")
MANY = 2 * SHARD_IMAGES + 100


def pack(images: Path, out: Path, *flags: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    result = call(SCRIPT, images, out, "--pack", *flags)
    assert result.returncode == code, result.stderr
    return result


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "sources.jsonl"}


def sources(folder: Path) -> str:
    """What is recorded of the tensors there."""
    path = folder / "sources.jsonl"
    return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images for three shards, the last one short."""
    folder = tmp_path_factory.mktemp("many") / "images"
    folder.mkdir()
    for number in range(MANY):
        picture(24, 20, seed=number).save(folder / f"img_{number}.bmp")
    return folder


@pytest.fixture(scope="module")
def packed(many: Path) -> Path:
    """Their shards."""
    pack(many, many.parent / "packed", *SMALL)
    return many.parent / "packed"


@pytest.fixture
def copy(many: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Images and shards that a test may change."""
    shutil.copytree(many, tmp_path / "images")
    pack(tmp_path / "images", tmp_path / "packed", *SMALL)
    return tmp_path / "images", tmp_path / "packed"


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_shard_holds_the_tensors_of_single_files_in_the_order_of_its_names(
    dtype: str, images: Path, tmp_path: Path
) -> None:
    pack(images, tmp_path / "packed", f"--dtype={dtype}")
    call(SCRIPT, images, tmp_path / "single", f"--dtype={dtype}")
    shard = np.load(tmp_path / "packed/shard_00000.npy")
    names = json.loads((tmp_path / "packed/shard_00000.json").read_text())["images"]
    assert names == [Path(path).name for path in find_images(images)]
    assert (shard.dtype, shard.shape[1:]) == (dtype, (224, 224, 3) if dtype == "uint8" else (3, 224, 224))
    for name, tensor in zip(names, shard):
        assert tensor.tobytes() == (tmp_path / "single" / name).with_suffix(".bin").read_bytes()


def test_shards_take_1024_images_each_and_the_last_one_the_rest(packed: Path) -> None:
    shapes = [np.load(path).shape for path in sorted(packed.glob("*.npy"))]
    assert shapes == [(1024, 16, 16, 3), (1024, 16, 16, 3), (100, 16, 16, 3)]
    assert len(contents(packed)) == 7


def test_the_json_beside_the_shards_says_that_they_are_packed(packed: Path) -> None:
    found = json.loads((packed / "tensors.json").read_text())
    assert (found["packed"], found["images"], found["count"], found["complete"]) == (True, MANY, MANY, True)


def test_a_killed_run_goes_on_with_the_first_missing_shard_and_gives_the_same_bytes(
    many: Path, packed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(PROJECT / SCRIPT), str(many), str(out), "--pack", *SMALL, "--workers=1"]
    process = subprocess.Popen(command)
    while "img_1023.bin" not in sources(out) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = {path.name: path.stat().st_mtime_ns for path in out.glob("*.npy")}
    assert "shard_00000.npy" in left
    assert len(left) < 3
    index = read_index(out)
    assert index is not None
    assert not index.complete
    assert f"{MANY - 1024 * len(left)} tensors written, {1024 * len(left)} kept" in pack(many, out, *SMALL).stdout
    assert {name: (out / name).stat().st_mtime_ns for name in left} == left
    assert contents(out) == contents(packed)


def test_a_second_run_makes_shards_that_are_lost_cut_short_or_older_than_an_image(
    copy: tuple[Path, Path], packed: Path
) -> None:
    images, out = copy
    (out / "shard_00000.json").unlink()
    with open(out / "shard_00001.npy", "r+b") as file:
        file.truncate(5000)
    future = time.time() + 10
    os.utime(images / f"img_{MANY - 1}.bmp", (future, future))
    assert f"{MANY} tensors written, 0 kept" in pack(images, out, *SMALL).stdout
    assert contents(out) == contents(packed)


def test_a_shard_that_is_made_anew_is_not_there_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "shard_00000.npy"
    tensor = np.zeros((2, 2, 3), np.uint8)
    write_shard(path, tensor.shape, "uint8", [("a.png", tensor), ("b.png", None)])
    seen = []

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        yield "b.png", tensor
        seen.extend(list_shards(tmp_path))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(path, tensor.shape, "uint8", tensors())
    assert seen == list_shards(tmp_path) == []
    assert not list(tmp_path.glob(".*"))


def test_an_undecodable_image_is_named_and_left_out_and_its_shard_is_made_again_when_it_is_repaired(
    copy: tuple[Path, Path], packed: Path
) -> None:
    images, out = copy
    whole = (images / "img_1030.bmp").read_bytes()
    (images / "img_1030.bmp").write_bytes(b"not an image")
    result = pack(images, out, *SMALL, code=1)
    assert "broken: " in result.stdout
    assert "1023 tensors written, 1124 kept, 1 images broken" in result.stdout
    index = read_index(out)
    assert index is not None
    assert index.broken == ("img_1030.bmp",)
    before, after = (np.load(folder / "shard_00001.npy") for folder in (packed, out))
    assert np.array_equal(after, np.delete(before, 6, axis=0))
    (images / "img_1030.bmp").write_bytes(whole)
    os.utime(images / "img_1030.bmp", (0, 0))  # as a copy that keeps its date
    assert "1024 tensors written, 1124 kept" in pack(images, out, *SMALL).stdout
    assert contents(out) == contents(packed)


def test_a_folder_of_broken_images_gives_an_empty_shard(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/one.png").write_bytes(b"")
    pack(tmp_path / "images", tmp_path / "out", *SMALL, "--allow-broken")
    assert np.load(tmp_path / "out/shard_00000.npy").shape == (0, 16, 16, 3)
    result = call("-m", "ResNeSt.infer", "--model=x.om", "--input=out", cwd=tmp_path)
    assert_refused(result, "out: holds packed tensors")


def test_images_that_came_or_went_are_not_mixed_with_older_shards(copy: tuple[Path, Path], packed: Path) -> None:
    images, out = copy
    (images / "img_5.bmp").rename(images / "later_5.bmp")
    assert_refused(call(SCRIPT, images, out, "--pack", *SMALL), "shard_00000.npy: holds other images than", "another")
    for number in range(2 * SHARD_IMAGES, MANY):
        (images / f"img_{number}.bmp").unlink()
    (images / "later_5.bmp").rename(images / "img_5.bmp")
    assert_refused(call(SCRIPT, images, out, "--pack", *SMALL), "shard_00002.npy: holds other images than")
    assert contents(out) == contents(packed)


def test_a_shard_past_the_last_image_is_refused_though_it_is_damaged(copy: tuple[Path, Path]) -> None:
    images, out = copy
    (out / "shard_00007.npy").write_bytes(b"")
    assert_refused(call(SCRIPT, images, out, "--pack", *SMALL), "shard_00007.npy: holds other images than")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([], ["--pack"], ["float32 NCHW, a file each", "this run makes ecentercrop-bicubic 224, float32 NCHW, packed"]),
        (["--pack"], [], ["float32 NCHW, packed", "this run makes ecentercrop-bicubic 224, float32 NCHW, a file each"]),
        (["--pack"], ["--pack", "--size=64"], ["holds ecentercrop-bicubic 224", "makes ecentercrop-bicubic 64"]),
    ],
)
def test_a_folder_of_another_kind_is_refused_and_left_as_it_is(
    before: list[str], after: list[str], words: list[str], images: Path, tmp_path: Path
) -> None:
    call(SCRIPT, images, tmp_path / "out", *before)
    there = contents(tmp_path / "out")
    assert_refused(call(SCRIPT, images, tmp_path / "out", *after), *words)
    assert contents(tmp_path / "out") == there


@pytest.fixture(scope="module")
def work(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's ONNX file and its pictures, a file each and packed."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copy(demo_onnx, folder / "m.onnx")
    for name, flags in {"single": [], "packed": ["--pack"]}.items():
        assert call(SCRIPT, PROJECT / "demo/val", folder / name, "--model=resnest_demo", *flags).returncode == 0
    return folder


def infer(folder: Path, source: str, name: str, batch: int = 7) -> subprocess.CompletedProcess[str]:
    flags = ["--output=out", f"--output_dirname={name}", f"--dymBatch={batch}"]
    return call("-m", "ResNeSt.infer", "--model=m.onnx", f"--input={source}", *flags, cwd=folder)


def test_inference_gives_the_results_names_and_summary_of_single_files(work: Path) -> None:
    printed = [infer(work, name, name).stdout for name in ("single", "packed")]
    assert contents(work / "out/single") == contents(work / "out/packed")
    assert len(contents(work / "out/packed")) == 396
    single, packed = (
        json.loads((work / f"out/{name}_summary.json").read_text())["filesinfo"] for name in ("single", "packed")
    )
    assert json.loads(json.dumps(single).replace("single/", "packed/")) == packed
    lines = [[line for line in text.splitlines() if "filesperbatch" in line] for text in printed]
    assert lines[0] == lines[1] != []


def test_packed_tensors_come_in_the_order_of_single_files_where_the_images_lie_in_class_folders(tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / f"images/class_{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        picture(24, 20, seed=number).save(folder / f"img_{number}.bmp")
    pack(tmp_path / "images", tmp_path / "packed", *SMALL)
    call(SCRIPT, tmp_path / "images", tmp_path / "single", *SMALL)
    found, expected = (tensor_files(tmp_path / name) for name in ("packed", "single"))
    assert [Path(tensor.path).name for tensor in found] == [Path(tensor.path).name for tensor in expected]
    assert [read_bytes(tensor) for tensor in found] == [read_bytes(tensor) for tensor in expected]


def test_bench_on_cpu_scores_packed_tensors_like_single_files(work: Path) -> None:
    assert call("convert.sh", "8", "cpu", "--onnx=m.onnx", cwd=work).returncode == 0
    rows = {}
    for name in ("single", "packed"):
        flags = [f"--input={name}", f"--labels={PROJECT / 'demo/val_label.txt'}", "--loop=2", f"--output=b_{name}"]
        result = call("bench.sh", "8", "cpu", "--prefix=m", *flags, cwd=work)
        assert result.returncode == 0, result.stderr
        rows[name] = json.loads((work / f"b_{name}/bench.json").read_text())["rows"][0]
    assert (rows["packed"]["top1"], rows["packed"]["top5"]) == (rows["single"]["top1"], rows["single"]["top5"])


def test_calibration_chooses_the_same_tensors_from_shards(work: Path) -> None:
    assert call("convert.sh", "1", "cpu", "--onnx=m.onnx", cwd=work).returncode == 0
    chosen = [calibration.choose(work / name, onnx_file.read(work / "m_sim.onnx")) for name in ("packed", "single")]
    for kind in ("calibration", "held_out"):
        found, expected = (getattr(tensors, kind) for tensors in chosen)
        assert [read_bytes(tensor) for tensor in found] == [read_bytes(tensor) for tensor in expected]


def test_a_folder_that_lacks_a_shard_is_refused(copy: tuple[Path, Path]) -> None:
    (copy[1] / "shard_00001.npy").unlink()
    with pytest.raises(PipelineError, match="1124 tensors of 2148 are there"):
        check_tensors(copy[1], (1, 16, 16, 3), "uint8", {})


def test_a_shard_cut_short_or_with_names_of_another_is_refused_before_anything_runs(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "packed", tmp_path / "packed")
    shutil.copy(work / "m.onnx", tmp_path)
    names = tmp_path / "packed/shard_00000.json"
    found = json.loads(names.read_text())
    names.write_text(json.dumps({**found, "images": found["images"][:-1]}))
    assert_refused(infer(tmp_path, "packed", "cut"), "shard_00000.npy: holds float32 [396, 3, 96, 96]", "[395, 3, 96")
    with open(tmp_path / "packed/shard_00000.npy", "r+b") as file:
        file.truncate(100_000)
    assert_refused(infer(tmp_path, "packed", "cut"), "shard_00000.npy: not a shard of tensors", "same resnest_preproc")


def test_ais_bench_is_not_given_packed_tensors(work: Path, standins: dict[str, str]) -> None:
    result = call("-m", "ResNeSt.infer", "--model=m_bs8.om", "--input=packed", cwd=work, env=standins)
    assert_refused(result, "packed: holds packed tensors, which ais_bench cannot read", "without --pack")


def test_bench_for_an_ascend_chip_refuses_packed_tensors(work: Path, standins: dict[str, str]) -> None:
    result = call("convert.sh", "8", "310P3", "--onnx=m.onnx", cwd=work, env=standins)
    assert result.returncode == 0, result.stderr
    flags = ["--model=m", "--input=packed", f"--labels={PROJECT / 'demo/val_label.txt'}"]
    result = call("bench.sh", "8", "310P3", *flags, cwd=work, env=standins)
    assert_refused(result, "packed: holds packed tensors, which ais_bench cannot read", "without --pack")


def test_compare_reads_packed_tensors(work: Path) -> None:
    result = call("-m", "ResNeSt.compare", "m.onnx", "m_sim.onnx", "--tensors=packed", cwd=work)
    assert result.returncode == 0, result.stderr
    assert "396" in result.stdout
