"""Agreement between any two stages, and the first node at which two graphs part."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ResNeSt.common.errors import PipelineError
from ResNeSt.compare.pairs import compare as compare_sides
from ResNeSt.compare.pairs import open_pair
from ResNeSt.compare.parting import Layers, find_first
from ResNeSt.engines.tensor_batches import TensorFolder
from tests.conftest import PROJECT, Completed, assert_refused, call, corrupt

IMAGES = 396


@pytest.fixture(scope="module")
def work(demo_onnx: Path, demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo as .pth, .onnx in both forms and .xml, its tensors in both types, and m.onnx's saved outputs."""
    folder = tmp_path_factory.mktemp("compare")
    shutil.copy(demo_onnx, folder / "m.onnx")
    shutil.copy(demo_onnx, folder / "u.onnx")
    shutil.copy(demo_checkpoint, folder)
    commands: list[list[object]] = [
        ["resnest_preprocess.py", PROJECT / "demo/val", "prep", "--arch=resnest_demo"],
        ["resnest_preprocess.py", PROJECT / "demo/val", "prep8", "--arch=resnest_demo", "--dtype=uint8"],
        ["resnest_pth2onnx.py", f"--source={demo_checkpoint}", "--target=reference.onnx", "--form=reference"],
        ["convert.sh", "3,4", "cpu", "--onnx=m.onnx"],
        ["convert.sh", "4", "cpu", "--onnx=u.onnx", "--dtype=uint8"],
        ["-m", "ResNeSt.infer", "--model=m.onnx", "--input=prep", "--output=out", "--output_dirname=saved"],
    ]
    for command in commands:
        result = call(*command, cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


def compare(folder: Path, *arguments: object, env: dict[str, str] | None = None) -> Completed:
    return call("-m", "ResNeSt.compare", *arguments, cwd=folder, env=env)


def figures(folder: Path, *arguments: object, env: dict[str, str] | None = None) -> dict[str, Any]:
    result = compare(folder, *arguments, "--json=compared.json", env=env)
    assert result.returncode == 0, result.stderr
    told: dict[str, Any] = json.loads((folder / "compared.json").read_text())
    return told


def checkpoint(folder: Path) -> str:
    return next(folder.glob("*.pth")).name


@pytest.mark.parametrize(
    "sides",
    [
        ["m.onnx", "m_bs4.xml"],
        ["m_bs4.xml", "m_bs3.xml"],
        ["reference.onnx", "m_sim.onnx"],
        ["*.pth", "m.onnx"],
        ["out/saved", "m_bs4.xml"],
        ["m.onnx", "out/saved_summary.json"],
    ],
    ids=" ".join,
)
def test_models_and_saved_outputs_in_any_pair_agree_on_every_image(sides: list[str], work: Path) -> None:
    sides = [checkpoint(work) if side == "*.pth" else side for side in sides]
    found = figures(work, *sides, "--input=prep")
    assert found["same_top1"] == found["images"] == IMAGES
    assert found["difference"] < 1e-4
    assert found["cosine"] == pytest.approx(1)
    assert found["flips"] == []


def test_a_summary_and_a_folder_need_no_tensors(work: Path) -> None:
    found = figures(work, "out/saved", "out/saved_summary.json")
    assert (found["same_top5"], found["largest_difference"]) == (IMAGES, 0)


def test_uint8_tensors_are_normalised_for_a_model_of_float32(work: Path) -> None:
    found = figures(work, "m.onnx", "u_bs4.xml", "--input=prep8")
    assert found["same_top1"] == IMAGES
    assert found["difference"] < 1e-4


def test_float32_tensors_become_the_levels_they_were_made_of_for_a_model_of_uint8(work: Path) -> None:
    found = figures(work, "m.onnx", "u_bs4.xml", "--input=prep")
    assert found["same_top1"] == IMAGES
    assert found["difference"] < 1e-4


def test_tensors_that_fit_no_model_are_refused(work: Path) -> None:
    flags = ["--model=resnest_demo", "--size=64"]
    assert call("resnest_preprocess.py", PROJECT / "demo/val", work / "small", *flags).returncode == 0
    result = compare(work, "m.onnx", "u_bs4.xml", "--input=small")
    assert_refused(result, "small: holds float32 tensors", "[3, 96, 96]")


@pytest.mark.parametrize(
    ("count", "chosen"), [(None, range(1, 14)), (1, [1]), (2, [1, 13]), (4, [1, 5, 9, 13]), (99, range(1, 14))]
)
def test_count_takes_images_at_even_distances(count: int | None, chosen: Sequence[int], tmp_path: Path) -> None:
    for number in range(1, 14):
        np.full(3, number, np.float32).tofile(tmp_path / f"img_{number}_0.bin")
    chunks = [chunk.names for chunk in open_pair(tmp_path, tmp_path, None, count, None).chunks]
    assert [name for names in chunks for name in names] == [f"img_{number}" for number in chosen]
    assert max(map(len, chunks)) <= 8


def test_as_many_images_are_compared_as_the_flag_says(work: Path) -> None:
    assert figures(work, "m_bs4.xml", "m_bs3.xml", "--input=prep", "--count=10")["images"] == 10


def test_an_om_runs_through_ais_bench_s_python_interface(work: Path, tmp_path: Path, standins: dict[str, str]) -> None:
    for name in ("m.onnx", "m_sim.onnx"):
        shutil.copy(work / name, tmp_path / name)
    shutil.copytree(work / "prep", tmp_path / "prep")
    assert call("convert.sh", "4", "310P3", "--onnx=m.onnx", cwd=tmp_path, env=standins).returncode == 0
    found = figures(tmp_path, "m.onnx", "m_bs4.om", "--input=prep", env=standins)
    assert found["same_top1"] == IMAGES


def test_an_om_without_ais_bench_ends_with_3(work: Path, tmp_path: Path) -> None:
    (tmp_path / "m.om").write_bytes(b"")
    result = compare(tmp_path, work / "m.onnx", "m.om", f"--input={work / 'prep'}")
    assert_refused(result, "ais_bench is not installed", code=3)


@pytest.fixture
def flipped(work: Path, tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A copy of the saved outputs in which one image has its two best logits swapped; its logits before and after."""
    shutil.copytree(work / "out/saved", tmp_path / "saved")
    path = tmp_path / "saved/digits_val_00000007_0.bin"
    before = np.fromfile(path, np.float32)
    after = before.copy()
    second, first = np.argsort(before)[-2:]
    after[[first, second]] = 0.5 * before[[second, first]]
    after.tofile(path)
    return tmp_path / "saved", before, after


def test_a_flipped_image_is_listed_with_both_answers_and_their_margins(
    work: Path, flipped: tuple[Path, np.ndarray, np.ndarray]
) -> None:
    folder, before, after = flipped
    found = figures(work, "out/saved_summary.json", folder)
    assert found["same_top1"] == IMAGES - 1
    (flip,) = found["flips"]
    expected, other = int(before.argmax()), int(after.argmax())
    assert expected != other
    assert flip == {
        "image": "digits_val_00000007",
        "expected": expected,
        "found": other,
        "expected_margin": pytest.approx(float(before[expected] - before[other])),
        "found_margin": pytest.approx(float(after[other] - after[expected])),
    }


def test_agreement_below_what_is_asked_for_ends_with_1(
    work: Path, flipped: tuple[Path, np.ndarray, np.ndarray]
) -> None:
    result = compare(work, "out/saved", flipped[0], "--min-agreement=0.999")
    assert_refused(result, "the same top-1 for 99.75 % of 396 images, at least 99.9 % are expected")
    assert "digits_val_00000007" in result.stdout


def test_a_difference_beyond_what_is_allowed_ends_with_1(
    work: Path, flipped: tuple[Path, np.ndarray, np.ndarray]
) -> None:
    assert_refused(compare(work, "out/saved", flipped[0], "--max-difference=0.001"), "of the largest logit, at most")


def test_sides_that_list_other_images_are_refused(work: Path, flipped: tuple[Path, np.ndarray, np.ndarray]) -> None:
    (flipped[0] / "digits_val_00000007_0.bin").unlink()
    assert_refused(compare(work, "out/saved", flipped[0]), "1 are in one alone, such as digits_val_00000007")


def test_logits_that_are_no_numbers_are_refused_with_the_image(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "prep", tmp_path / "prep")
    path = tmp_path / "prep/digits_val_00000009.bin"
    np.full_like(np.fromfile(path, np.float32), np.nan).tofile(path)
    result = compare(work, "m.onnx", "m_bs4.xml", f"--input={tmp_path / 'prep'}")
    assert_refused(result, "m.onnx: NaN or infinity in the logits of digits_val_00000009")


@pytest.mark.parametrize(
    "arguments",
    [
        ["m.onnx", "m_bs4.xml"],
        ["out/saved", "out/saved", "--input=prep"],
        ["m.onnx", "m_bs4.xml", "--input=prep", "--count=0"],
        ["--layers", "m.onnx", "m_sim.onnx"],
        ["--layers", "m.onnx", "m_bs4.xml", "--input=prep"],
        ["--layers", "m.onnx", "m_sim.onnx", "--input=prep", "--min-agreement=1"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense_ends_with_2(arguments: list[str], work: Path) -> None:
    result = compare(work, *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("reference", "node"),
    [
        ("m.onnx", "/layer2/layer2.0/weigh/fc1/Conv"),
        ("m.onnx", "/layer3/layer3.0/wide.1/Conv"),
        ("m.onnx", "/fc/Gemm"),
        ("reference.onnx", "/layer2/layer2.0/downsample/downsample.1/Conv"),
        ("*.pth", "/conv1/conv1.3/Conv"),
        ("*.pth", "/layer4/layer4.0/conv3/Conv"),
    ],
)
def test_layers_names_the_node_whose_weight_was_changed(reference: str, node: str, work: Path, tmp_path: Path) -> None:
    corrupt(work / "m_sim.onnx", tmp_path / "bad.onnx", node)
    reference = checkpoint(work) if reference == "*.pth" else reference
    result = compare(work, "--layers", reference, tmp_path / "bad.onnx", "--input=prep", "--json=layers.json")
    assert_refused(result, f"bad.onnx parts from {reference} at {node}:")
    found = json.loads((work / "layers.json").read_text())
    assert found["first"]["node"] == node
    assert len(found["worst"]) == 10


@pytest.mark.parametrize("reference", ["m.onnx", "reference.onnx", "*.pth"])
def test_layers_of_sound_graphs_do_not_part_and_cover_every_block(reference: str, work: Path) -> None:
    path = work / (checkpoint(work) if reference == "*.pth" else reference)
    layers = Layers(path, work / "m_sim.onnx")
    folder = TensorFolder(work / "prep", layers.judged.input)
    found = layers.part(folder.load(list(folder.files)[:3]), 1e-4)
    assert found.first is None
    assert {f"/layer{stage}/layer{stage}.0/relu_4/Relu_output_0" for stage in (1, 2, 3, 4)} <= set(layers.order)


def chain(count: int) -> dict[str, list[str]]:
    """A line of values, each fed by the one before."""
    return {str(number): [str(number - 1)] if number else [] for number in range(count)}


def test_the_first_of_many_is_found_in_few_looks() -> None:
    looks: list[str] = []

    def parted(value: str) -> bool:
        looks.append(value)
        return int(value) >= 700

    assert find_first(list(chain(1000)), chain(1000), parted) == "700"
    assert len(set(looks)) <= math.ceil(math.log2(1000)) + 2


def test_a_branch_beside_that_agrees_does_not_hide_the_first() -> None:
    feeders = {**chain(3), "off": ["2"], "off, too": ["off"], "beside": ["2"], "beside, too": ["beside"]}
    feeders.update({"joined": ["off, too", "beside, too"], "end": ["joined"]})
    assert find_first(list(feeders), feeders, {"off", "off, too", "joined", "end"}.__contains__) == "off"


def test_graphs_whose_last_node_agrees_do_not_part() -> None:
    assert find_first(list(chain(9)), chain(9), lambda value: False) is None


def test_halves_of_a_model_in_fp16_are_compared_as_what_they_are(tmp_path: Path) -> None:
    rows = np.random.default_rng(3).standard_normal((20, 10)).astype(np.float32)
    for name, dtype in (("float32", np.float32), ("float16", np.float16)):
        (tmp_path / name).mkdir()
        for number, row in enumerate(rows):
            (tmp_path / name / f"img{number}_0.bin").write_bytes(row.astype(dtype).tobytes())
    with pytest.raises(PipelineError, match="look like 10 values of float16"):
        compare_sides(tmp_path / "float32", tmp_path / "float16")
    (tmp_path / "m.om").touch()
    (tmp_path / "m.om.json").write_text('{"info": {"classes": "10"}}')
    files = {str(number): {"outfiles": [f"float16/img{number}_0.bin"]} for number in range(20)}
    told = {"filesinfo": files, "args": ["ais_bench", f"--model={tmp_path / 'm.om'}"]}
    (tmp_path / "float16_summary.json").write_text(json.dumps(told))
    assert compare_sides(tmp_path / "float32", tmp_path / "float16_summary.json").difference < 1e-3


def saved(folder: Path, rows: np.ndarray) -> Path:
    folder.mkdir()
    for number, row in enumerate(rows):
        row.astype(np.float32).tofile(folder / f"img_{number}_0.bin")
    return folder


@pytest.mark.parametrize(
    "names", [["val_0001", "val_0002", "val_1000"], ["cat", "dog", "img-3"], ["a_0", "b_0", "c_0"]]
)
def test_outputs_called_as_their_images_are_compared_with_a_client_s(names: list[str], tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32)
    for folder in ("own", "other", "client"):
        (tmp_path / folder).mkdir()
    for name, row in zip(names, rows):
        np.savez(tmp_path / f"own/{name}.npz", logits=row)
        np.save(tmp_path / f"other/{name}.npy", row)
        np.save(tmp_path / f"client/{name.removesuffix('_0')}_0.npy", row)
    for other in ("other", "client"):
        assert compare_sides(tmp_path / "own", tmp_path / other).images == 3


def test_all_images_count_and_the_first_side_is_what_is_expected(tmp_path: Path) -> None:
    expected = np.random.default_rng(1).standard_normal((19, 6)) * 3
    found = expected.copy()
    found[2, 1] += 7  # the largest difference lies in the first of three chunks
    expected[3, 4] = found[3, 4] = 40
    one, other = saved(tmp_path / "one", expected), saved(tmp_path / "other", found)
    compared = compare_sides(one, other)
    assert compared.images == 19
    assert compared.difference == pytest.approx(7 / 40)
    (flip,) = compared.flips
    assert (flip.image, flip.expected, flip.found) == ("img_2", expected[2].argmax(), found[2].argmax())


def test_sides_of_other_images_or_classes_and_two_results_of_an_image_are_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((9, 6))
    one, fewer = saved(tmp_path / "one", rows), saved(tmp_path / "fewer", rows[:8])
    for sides in ((one, fewer), (fewer, one)):
        with pytest.raises(PipelineError, match="do not list the same images: 1 are in one alone, such as img_8;"):
            compare_sides(*sides)
    with pytest.raises(PipelineError, match=r"classes: 5 values an image, .*one has 6"):
        compare_sides(one, saved(tmp_path / "classes", rows[:, :5]))
    (fewer / "img_8_0.bin").write_bytes((one / "img_8_0.bin").read_bytes())
    (fewer / "img_8_1.bin").write_bytes((one / "img_8_0.bin").read_bytes())
    with pytest.raises(PipelineError, match=r"img_8_\d\.bin is a second output of its image"):
        compare_sides(one, fewer)
