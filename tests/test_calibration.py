"""Which tensors calibrate and judge int8, and the bar that a model has to reach: figures worked out by hand."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.progress import silent
from ResNeSt.compare.agreement import Agreement
from ResNeSt.convert import amct, calibration, chips, conversion, nncf
from ResNeSt.convert import gate as gates
from ResNeSt.convert.compile import Compilation
from ResNeSt.convert.conversion import Conversion
from ResNeSt.convert.gate import Gate
from ResNeSt.convert.layer_cost import LayerCost
from ResNeSt.engines.engine import TensorSpec
from ResNeSt.models import onnx_file, sidecar
from ResNeSt.models.onnx_file import Network
from ResNeSt.tensors.folder import TensorFile

MEAN, STD = (0.5, 0.25, 0.5), (0.5, 0.25, 0.25)
SIDE = 16
NETWORK = Network(Path("m.onnx"), "x", SIDE, SIDE, None, MEAN, STD, False, {})


def picture(number: int, contrast: float = 40) -> np.ndarray:
    """uint8 levels (3, SIDE, SIDE): a wave that no other number has, of that many levels up and down."""
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    wave = np.sin(2 * np.pi * ((1 + number % 5) * rows / 3 + (1 + number // 5) * columns / 3) + number)
    return np.rint(128 + contrast * np.stack([wave, -wave, wave * wave])).astype(np.uint8)


def normalised(levels: np.ndarray, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> np.ndarray:
    shift, scale = (np.array(values)[:, None, None] for values in (mean, std))
    return np.asarray((levels / 255 - shift) / scale, np.float32)


def write(folder: Path, tensors: list[np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    for number, tensor in enumerate(tensors):
        tensor.tofile(folder / f"t_{number}.bin")
    return folder


def numbers(files: list[TensorFile]) -> list[int]:
    return [int(Path(file.path).stem[2:]) for file in files]


def test_every_third_tensor_is_held_out_and_the_others_calibrate(tmp_path: Path) -> None:
    folder = write(tmp_path / "t", [normalised(picture(number)) for number in range(13)])
    said: list[str] = []
    chosen = calibration.choose(folder, NETWORK, said.append)
    assert numbers(chosen.calibration) == [0, 1, 3, 4, 6, 7, 9, 10, 12]
    assert numbers(chosen.held_out) == [2, 5, 8, 11]
    assert said == []


def test_twelve_different_pictures_are_enough_and_eleven_are_not(tmp_path: Path) -> None:
    tensors = [normalised(picture(number)) for number in range(12)]
    chosen = calibration.choose(write(tmp_path / "t", tensors), NETWORK)
    assert (len(chosen.calibration), len(chosen.held_out)) == (8, 4)
    with pytest.raises(PipelineError, match="11 tensors, calibration takes 12 and better 192;"):
        calibration.choose(write(tmp_path / "few", tensors[:11]), NETWORK)
    with pytest.raises(PipelineError, match=r"1 of 12 tensors repeat .* takes 12 different pictures and better 192,"):
        calibration.choose(write(tmp_path / "twice", [*tensors[:11], tensors[4]]), NETWORK)


def test_of_many_tensors_192_are_taken_and_of_those_that_repeat_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, said = [normalised(picture(number)) for number in range(13)], list[str]()
    folder = write(tmp_path / "t", [*tensors, tensors[0]])
    calibration.choose(folder, NETWORK, said.append)
    reason = "1 of 14 tensors repeat another one, or show one colour or noise alone; they are left out"
    assert said == [f"note: {folder}: {reason}"]
    monkeypatch.setattr(calibration, "_different", lambda folder, files, network, say: files)
    chosen = calibration.choose(write(tmp_path / "many", tensors[:1] * 200), NETWORK)
    assert (len(chosen.calibration), len(chosen.held_out)) == (128, 64)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(("mean", "std"), [((0.0,) * 3, (1.0,) * 3), ((0.5,) * 3, (0.5,) * 3), IMAGENET])
def test_tensors_normalised_as_for_another_network_are_refused(
    mean: tuple[float, ...], std: tuple[float, ...], tmp_path: Path
) -> None:
    folder = write(tmp_path / "t", [normalised(picture(number), mean, std) for number in range(12)])
    words = re.escape(f"t_0.bin: is normalised with mean {list(mean)} and std {list(std)}, the model")
    with pytest.raises(PipelineError, match=words):
        calibration.choose(folder, NETWORK)


@pytest.mark.parametrize(("levels", "kept"), [(1, 12), (2, 13), (3, 13)])
def test_pictures_are_two_from_a_difference_of_two_levels_on(levels: int, kept: int, tmp_path: Path) -> None:
    nearly = picture(5) + np.uint8(levels)
    tensors = [normalised(levels) for levels in (*map(picture, range(12)), nearly)]
    chosen = calibration.choose(write(tmp_path / "t", tensors), NETWORK)
    assert len(chosen.calibration) + len(chosen.held_out) == kept


def test_a_channel_that_varies_by_less_than_a_level_shows_nothing() -> None:
    flat = np.full((3, SIDE, SIDE), 100.0)
    assert not calibration._shows_something(flat)
    flat[1, :, : SIDE // 2] += 2  # a standard deviation of 1
    assert calibration._shows_something(flat)
    flat[1, :, : SIDE // 2] -= 0.1
    assert not calibration._shows_something(flat)


def test_noise_is_told_from_pictures_by_its_neighbours() -> None:
    """Squared differences of neighbours along each axis, against twice the variance, which is that of any two."""
    board = np.indices((SIDE, SIDE)).sum(axis=0) % 2 * 50.0
    assert not calibration._shows_something(np.stack([board] * 3))
    stripes = np.indices((SIDE, SIDE))[0] % 2 * 50.0  # alike along one axis: half as unlike
    assert not calibration._shows_something(np.stack([stripes] * 3))
    assert calibration._shows_something(np.stack([np.repeat(board[:, ::2], 2, axis=1).repeat(2, 0)[:SIDE]] * 3))


def test_levels_are_whole_unless_they_are_off_by_more_than_rounding_or_beyond_a_byte() -> None:
    whole = picture(3).astype(float)
    assert calibration._are_whole(whole)
    assert calibration._are_whole(whole + 0.1)
    for within in (-0.05, 255.05):
        near = whole.copy()
        near[0, 0, 0] = within
        assert calibration._are_whole(near), within
    assert not calibration._are_whole(whole + 0.11)
    for beyond in (-0.2, 255.2, math.nan):
        odd = whole.copy()
        odd[0, 0, 0] = beyond
        assert not calibration._are_whole(odd), beyond


@pytest.mark.parametrize(("value", "taken"), [(-64, True), (319, True), (-65, False), (320, False)])
def test_bicubic_sampling_may_overshoot_a_byte_by_64_levels(value: float, taken: bool, tmp_path: Path) -> None:
    tensors = [normalised(picture(number).astype(float) + 0.3) for number in range(12)]
    shift, scale = (np.array(values, np.float64) for values in (MEAN, STD))
    tensors[7][1, 3, 3] = (value / 255 - shift[1]) / scale[1] + (1e-6 if value < 0 else -1e-6)
    folder, said = write(tmp_path / "t", tensors), list[str]()
    if not taken:
        with pytest.raises(PipelineError, match=r"t_7\.bin: holds values from .*, which no picture has"):
            calibration.choose(folder, NETWORK)
        return
    calibration.choose(folder, NETWORK, said.append)
    assert len(said) == 1
    assert "12 of 12 tensors are not 8-bit pictures normalised with mean [0.5, 0.25, 0.5]" in said[0]


def test_block_means_are_the_means_of_eight_by_eight_parts() -> None:
    levels = np.random.default_rng(0).random((3, 16, 24))
    expected = levels.reshape(3, 8, 2, 8, 3).mean(axis=(2, 4))
    assert np.allclose(calibration._block_means(levels), expected.ravel())


def test_the_digest_is_of_all_tensors_in_their_order(tmp_path: Path) -> None:
    contents = [b"one", b"two", b"three"]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.bin").write_bytes(content)
    files = [TensorFile(str(tmp_path / f"{number}.bin")) for number in range(3)]
    assert calibration.sha256_of(files) == hashlib.sha256(b"onetwothree").hexdigest()
    assert calibration.sha256_of(files[::-1]) == hashlib.sha256(b"threetwoone").hexdigest()


def test_tensors_that_are_scored_too_are_counted_by_their_content(tmp_path: Path) -> None:
    tensors = [normalised(picture(number)) for number in range(12)]
    chosen = calibration.choose(write(tmp_path / "t", tensors), NETWORK)
    assert calibration.scored_too(chosen, tmp_path / "t") == 8
    others = write(tmp_path / "others", [normalised(picture(number)) for number in (20, 4, 21, 1, 2)])
    assert calibration.scored_too(chosen, others) == 2  # 1 and 4 calibrate, 2 is held out


@pytest.mark.parametrize("chip", [chips.CPU, "310P3"])
def test_force_quantizes_what_is_up_to_date(chip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    (tmp_path / "m.onnx").write_bytes(b"")
    (tmp_path / "t.bin").write_bytes(b"tensor")
    monkeypatch.setattr(nncf, "quantize", lambda network, target, tensors: made.append(target))
    monkeypatch.setattr(amct, "quantize", lambda network, target, *others, verbose: made.append(target))
    monkeypatch.setattr(calibration, "describe", lambda source, tensors: {})
    monkeypatch.setattr(conversion, "_gate", lambda *asked: Judged(NETWORK, [], 0))
    for holder in (onnx_file, sidecar):
        monkeypatch.setattr(holder, "holds", lambda target, made_of: True)
    network = dataclasses.replace(NETWORK, path=tmp_path / "m.onnx")
    compilation = Compilation(network, "m", tmp_path, chip, "float32", "int8", None, silent)
    quantize = conversion._quantize_on_cpu if chip == chips.CPU else conversion._quantize_for_ascend
    tensors = calibration.CalibrationTensors([TensorFile(str(tmp_path / "t.bin"))], [])
    for force in (False, True):
        target = quantize(compilation, Conversion(network.path, [1], chip, tmp_path, force=force), tensors)
        assert made == ([target] if force else [])


@pytest.mark.parametrize(("asked", "minimum"), [(None, 0.95), (0, 0), (0.5, 0.5), (1, 1)])
def test_a_bar_of_0_is_one_and_none_is_95_percent(asked: float | None, minimum: float, tmp_path: Path) -> None:
    compilation = Compilation(NETWORK, "m", tmp_path, chips.CPU, "float32", "int8", None, silent)
    tensors = calibration.CalibrationTensors([], HELD_OUT)
    gate = conversion._gate(compilation, Conversion(NETWORK.path, [1], chips.CPU, min_agreement=asked), tensors)
    assert (gate.minimum, gate.held_out, gate.network) == (minimum, HELD_OUT, NETWORK)


# The bar


class Judged(Gate):
    """A gate of which the logits of fp32 and the measured agreement are given."""

    def given(self, expected: np.ndarray, **measured: Any) -> Judged:
        self.__dict__["_expected"] = expected
        self.__dict__["measured"] = Agreement(images=len(expected), **measured)
        return self

    def check_tensors(self) -> None:
        if "_expected" in self.__dict__:
            super().check_tensors()

    def _measure(self, model: Path) -> Agreement:
        measured: Agreement = self.__dict__["measured"]
        return measured


HELD_OUT = [TensorFile("prep/a.bin"), TensorFile("later/b.bin")]


@pytest.mark.parametrize(("others", "taken"), [(0, False), (1, True), (2, True)])
def test_nineteen_answers_of_twenty_may_be_one_class_and_no_more(others: int, taken: bool) -> None:
    expected = np.zeros((20, 4))
    expected[:, 2] = 1
    expected[:others, 3] = 2
    said: list[str] = []
    if taken:
        Judged(NETWORK, HELD_OUT, 0.9, said.append).given(expected).check_tensors()
        assert said == []
        return
    words = "fp32 gives 20 of 20 held-out tensors one answer, class 2, which judges nothing"
    with pytest.raises(PipelineError, match=f"^prep: {words}; .*--min-agreement 0$"):
        Judged(NETWORK, HELD_OUT, 0.01, said.append).given(expected).check_tensors()
    Judged(NETWORK, HELD_OUT, 0, said.append).given(expected).check_tensors()
    assert said == [f"note: {words}"]


@pytest.mark.parametrize(
    ("minimum", "agreement", "distance", "passes"),
    [
        (0.95, 0.95, 0.5, True),
        (0.95, 0.949, 0.1, False),
        (0.95, 1.0, 0.501, False),
        (0.0, 0.0, 9.0, True),
        (0.001, 0.001, 9.0, False),
        (0.5, 0.9, 0.2, True),
        (0.0, None, 0.1, False),
        (0.0, 1.0, None, False),
    ],
)
def test_what_just_reaches_the_bar_passes_and_a_bar_of_0_passes_whatever_was_measured(
    minimum: float, agreement: float | None, distance: float | None, passes: bool
) -> None:
    judged = {"agreement": agreement, "distance": distance}
    assert Gate(NETWORK, HELD_OUT, minimum).passes(judged) is passes


def test_a_model_never_judged_passes_no_bar() -> None:
    assert not Gate(NETWORK, HELD_OUT, 0).passes({})


def test_the_distance_is_relative_to_how_far_the_logits_lie_from_their_mean() -> None:
    expected = np.array([[3.0, 1.0], [1.0, 3.0], [3.0, 1.0], [1.0, 3.0]])  # each 1 and -1 from a mean of 2 and 2
    said: list[str] = []
    figures = {"cosines": 3.6, "squared_difference": 0.08, "largest_difference": 0.3, "largest_expected": 3.0}
    gate = Judged(NETWORK, HELD_OUT, 0.75, said.append).given(expected, same_top1=3, **figures)
    judged = gate.check(Path("m.xml"), NETWORK.path, "m.xml")
    assert judged == {"agreement": 0.75, "distance": pytest.approx(math.sqrt(0.08 / 8))}
    assert said == [
        "m.xml: top-1 as fp32 for 75.0 %, cosine 0.9000, distance 0.10 of the spread of the logits, largest difference "
        "1.0e-01 of the largest logit (4 held-out tensors)"
    ]
    with pytest.raises(PipelineError, match=r"^m\.xml: not written: agrees with fp32 on 0\.500 .* is 0\.75, .* 0\.10"):
        gate.given(expected, same_top1=2, **figures).check(Path("m.xml"), NETWORK.path, "m.xml")


class Corner:
    """A model whose logits are the first pixel of each image."""

    def __init__(self, spec: TensorSpec) -> None:
        self.input, self.sizes, self.ran = spec, spec.shape[:1], list[int]()

    def run(self, batch: np.ndarray) -> np.ndarray:
        assert (batch.shape, batch.dtype.name) == (self.input.shape, self.input.dtype)
        self.ran.append(len(batch))
        return np.asarray(batch[:, :, 0, 0] if batch.shape[1] == 3 else batch[:, 0, 0], np.float32)


@pytest.mark.parametrize(("batch", "runs"), [(1, [1] * 13), (5, [5] * 3), (20, [20])])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_model_and_fp32_answer_all_held_out_tensors_in_their_order(
    dtype: str, batch: int, runs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = [normalised(picture(number)) for number in range(13)]
    write(tmp_path / "t", tensors)
    files = [TensorFile(str(tmp_path / f"t/t_{number}.bin")) for number in range(13)]
    shape = (batch, 3, SIDE, SIDE) if dtype == "float32" else (batch, SIDE, SIDE, 3)
    fp32, model = Corner(TensorSpec("x", (8, 3, SIDE, SIDE), "float32")), Corner(TensorSpec("x", shape, dtype))
    monkeypatch.setattr(gates, "open_engine", lambda path, *how: fp32 if path == NETWORK.path else model)
    gate = Gate(NETWORK, files, 0.5)
    measured = gate._measure(Path("m.xml"))
    assert np.array_equal(gate._expected, np.stack(tensors)[:, :, 0, 0])
    assert (fp32.ran, model.ran, measured.images) == ([8, 8], runs, 13)
    if dtype == "float32":
        assert (measured.same_top1, measured.largest_difference) == (13, 0)
    else:
        levels = np.stack([picture(number)[:, 0, 0] for number in range(13)]).astype(float)
        assert measured.largest_difference == pytest.approx(np.abs(levels - gate._expected).max())


def test_a_model_of_another_input_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Corner(TensorSpec("x", (1, 3, SIDE, SIDE - 1), "float32"))
    monkeypatch.setattr(gates, "open_engine", lambda path, *how: small)
    with pytest.raises(PipelineError, match=r"^m\.xml: takes float32 \[1, 3, 16, 15\], not the network's input$"):
        Gate(NETWORK, HELD_OUT, 0.5)._measure(Path("m.xml"))


@pytest.mark.parametrize("compiled_from", ["a_int8.onnx", "z_int8.onnx"])
def test_of_a_quantized_model_that_is_too_far_off_the_five_worst_layers_are_named(
    compiled_from: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, Path, int]] = []

    def costs(network: Network, quantized: Path, images: np.ndarray) -> list[LayerCost]:
        asked.append((network.path, quantized, len(images)))
        return [LayerCost(f"/layer{number}", "Conv", True, 0.01, 1 / number) for number in (8, 2, 6, 4, 5, 3, 7, 1)]

    monkeypatch.setattr(gates, "layer_costs", costs)
    write(tmp_path / "t", [normalised(picture(number)) for number in range(13)])
    files = [TensorFile(str(tmp_path / f"t/t_{number}.bin")) for number in range(13)]
    gate = Judged(NETWORK, files, 0.9).given(np.eye(13), same_top1=0)
    for _ in range(2):  # as of two batch sizes
        with pytest.raises(PipelineError, match=r"; furthest off: /layer1 1\.000, /layer2 0\.500, .*, /layer5 0\.200$"):
            gate.check(Path("m.xml"), Path(compiled_from), "m.xml")
    assert asked == [(NETWORK.path, Path(compiled_from), 8)]
    with pytest.raises(PipelineError, match=r"0\.5 is allowed$"):
        gate.check(Path("m.xml"), Path(str(NETWORK.path)), "m.xml")
    assert len(asked) == 1


def test_layers_that_cannot_be_measured_keep_no_model_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*asked: Any) -> list[LayerCost]:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(gates, "layer_costs", fails)
    write(tmp_path / "t", [normalised(picture(number)) for number in range(13)])
    files = [TensorFile(str(tmp_path / f"t/t_{number}.bin")) for number in range(13)]
    said: list[str] = []
    figures = {"cosines": 13.0, "squared_difference": 0.0, "largest_difference": 0.0, "largest_expected": 1.0}
    gate = Judged(NETWORK, files, 0.9, said.append).given(np.eye(13), same_top1=13, **figures)
    assert gate.check(Path("m.xml"), Path("m_int8.onnx"), "m.xml") == {"agreement": 1.0, "distance": 0.0}
    assert said[-1] == "note: m_int8.onnx: what int8 costs each layer could not be measured (no such operator)"
