"""What a client left: its summary, which model it was of, and what the values of its results are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ResNeSt.common import files
from ResNeSt.common.errors import PipelineError
from ResNeSt.models import sidecar
from ResNeSt.score import outputs
from ResNeSt.score.outputs import OUTPUT_NAME, bin_dtype, list_outputs, model_classes, read_output, read_summary
from ResNeSt.score.ranking import are_probabilities


def write(path: Path, fields: object) -> Path:
    path.write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize("times", [[1.5], [1, 2.5]])
def test_a_summary_with_its_times_is_read_whole(times: list[float], tmp_path: Path) -> None:
    fields = {"npu_compute_time_list": times, "filesinfo": {}}
    assert read_summary(write(tmp_path / "s.json", fields)) == fields


@pytest.mark.parametrize(
    "fields", [[], 1, {}, *({"npu_compute_time_list": odd} for odd in ([], None, ["1"], [1, None], 5, {"1": 2}))]
)
def test_a_summary_without_times_is_refused(fields: object, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"s\.json: holds no npu_compute_time_list"):
        read_summary(write(tmp_path / "s.json", fields))


@pytest.mark.parametrize(
    ("name", "image"),
    [("a_0.bin", "a"), ("a_b_12.txt", "a_b"), ("a_0_1.npy", "a_0"), ("a.bin", None), ("_0.bin", None), ("a_0.", None)],
)
def test_a_result_is_called_by_its_image_a_number_and_a_suffix(name: str, image: str | None) -> None:
    match = OUTPUT_NAME.fullmatch(name)
    assert (match[1] if match else None) == image


def test_results_lie_beside_their_summary_before_they_lie_where_it_says(tmp_path: Path) -> None:
    recorded = [str(tmp_path / "first/out/a_0.bin"), str(tmp_path / "first/out/b_0.bin")]
    files = {str(number): {"outfiles": [path]} for number, path in enumerate(recorded)}
    (tmp_path / "first/out").mkdir(parents=True)
    (tmp_path / "copied").mkdir()
    summary = write(tmp_path / "copied/out_summary.json", {"filesinfo": files})
    assert list_outputs(summary) == recorded
    (tmp_path / "copied/out").mkdir()
    assert list_outputs(summary) == [str(tmp_path / f"copied/out/{name}_0.bin") for name in "ab"]
    old = write(tmp_path / "copied/sumary.json", {"filesinfo": files})
    assert list_outputs(old) == [str(tmp_path / f"copied/{name}_0.bin") for name in "ab"]


@pytest.mark.parametrize("odd", [None, [], {"outfiles": None}, {"outfiles": [1]}, {"outfiles": ["a\nb_0.bin"]}, {}])
def test_an_entry_that_lists_no_paths_is_refused(odd: object, tmp_path: Path) -> None:
    files = {"0": {"outfiles": ["out/a_0.bin"]}, "1": odd}
    with pytest.raises(PipelineError, match="not a summary of ais_bench: an entry of filesinfo is"):
        list_outputs(write(tmp_path / "s.json", {"filesinfo": files}))
    others: list[object] = [{}, [], {"filesinfo": []}]
    for fields in others:
        with pytest.raises(PipelineError, match="no object called filesinfo"):
            list_outputs(write(tmp_path / "s.json", fields))


# Which model


@pytest.mark.parametrize(
    "flags",
    [["--model=M"], ["-m", "M"], ["-m=M"], ["--om-model", "M"], ["--input=x", "--outfmt", "BIN", "--model", "M"]],
)
def test_the_model_of_a_summary_says_how_many_classes_it_has(flags: list[str], tmp_path: Path) -> None:
    model = tmp_path / "m.om"
    model.touch()
    sidecar.write(model, {"info": {"classes": "12"}})
    told = [flag.replace("-m=M", f"-m{model}").replace("M", str(model)) for flag in flags]
    assert model_classes(write(tmp_path / "s.json", {"args": ["ais_bench", *told]})) == 12


@pytest.mark.parametrize(
    "fields", [[], {}, {"args": "x"}, {"args": [1]}, {"args": ["--model"]}, {"args": ["--model=none.om"]}, {"args": []}]
)
def test_a_summary_that_does_not_lead_to_a_model_says_nothing(fields: Any, tmp_path: Path) -> None:
    assert model_classes(write(tmp_path / "s.json", fields)) is None


def test_a_model_whose_record_does_not_say_its_classes_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.om").touch()
    summary = write(tmp_path / "s.json", {"args": [f"--model={tmp_path / 'm.om'}"]})
    for info in ({}, {"classes": "many"}, {"classes": None}):
        sidecar.write(tmp_path / "m.om", {"info": info})
        assert model_classes(summary) is None


# What the values are


def bins(folder: Path, rows: np.ndarray) -> list[Path]:
    for number, row in enumerate(rows):
        (folder / f"{number}_0.bin").write_bytes(row.tobytes())
    return [folder / f"{number}_0.bin" for number in range(len(rows))]


LOGITS = np.random.default_rng(3).standard_normal((30, 12)).astype(np.float32) * 5


def test_halves_are_told_from_floats_by_the_number_of_classes_and_by_their_bits(tmp_path: Path) -> None:
    paths = bins(tmp_path, LOGITS)
    assert [bin_dtype(paths, classes) for classes in ((), [12], [24], [12, 24])] == ["<f4"] * 4
    paths = bins(tmp_path, LOGITS.astype(np.float16))
    assert bin_dtype(paths, [12]) == bin_dtype(paths, [5, 12]) == bin_dtype(paths, (), 12) == "<f2"
    assert bin_dtype(paths, [6]) == "<f4"  # the model's number decides, the labels' does not
    assert bin_dtype(paths, [6, 12]) == bin_dtype(paths, [6], 12) == "<f2"
    with pytest.raises(PipelineError, match="look like 12 values of float16"):
        bin_dtype(paths, (), 6)
    for classes in ((), [5]):
        with pytest.raises(
            PipelineError, match=r"0_0\.bin: its 24 bytes look like 12 values of float16, .* 6 of float32"
        ):
            bin_dtype(paths, classes)


@pytest.mark.parametrize("classes", [12, 10])
def test_of_a_few_values_the_labels_decide(classes: int, tmp_path: Path) -> None:
    paths = bins(tmp_path, LOGITS[:2, :classes].astype(np.float16))
    assert bin_dtype(paths, (), classes) == "<f2"
    assert bin_dtype(paths, (), classes // 2) == "<f4"
    for labelled in (classes // 2 - 1, classes // 2 + 1, 2 * classes):
        with pytest.raises(PipelineError, match=f"look like {classes} values of float16, but may be {classes // 2} of"):
            bin_dtype(paths, (), labelled)


def test_an_odd_number_of_halves_are_no_floats(tmp_path: Path) -> None:
    paths = bins(tmp_path, LOGITS[:, :5].astype(np.float16))
    assert bin_dtype(paths, [5]) == "<f2"
    assert bin_dtype(paths, [6]) == "<f4"  # which reading them refuses
    paths = bins(tmp_path, np.zeros((3, 7), np.uint8))
    assert bin_dtype(paths, [3]) == "<f4"
    assert bin_dtype([], [3]) == bin_dtype([tmp_path / "a_0.txt"], [3]) == "<f4"


def test_a_few_files_of_another_size_or_gone_do_not_decide(tmp_path: Path) -> None:
    paths = bins(tmp_path, LOGITS.astype(np.float16))
    paths[0].write_bytes(bytes(400))
    paths[1].write_bytes(b"")
    assert bin_dtype([tmp_path / "gone_0.bin", *paths], [12]) == "<f2"


def test_of_many_files_some_are_looked_at_from_first_to_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    opened = files.open_plain

    def noted(path: Path) -> Any:
        looked.append(Path(path).name)
        return opened(path)

    monkeypatch.setattr(outputs, "open_plain", noted)
    paths = bins(tmp_path, np.repeat(LOGITS, 7, axis=0)[:200])
    assert bin_dtype(paths, [12]) == "<f4"
    assert looked == [f"{number}_0.bin" for number in range(0, 200, 3)]


@pytest.mark.parametrize(("count", "fits", "floats"), [(15, True, True), (15, False, False), (16, True, False)])
def test_where_there_is_little_to_see_the_number_of_classes_decides(count: int, fits: bool, floats: bool) -> None:
    """Words of two halves of 1.5 and more: as float32 their lower bits are no noise, and no zeros."""
    words = np.frombuffer(np.linspace(1.5, 9.3, 2 * count).astype("<f2").tobytes(), "<u4")
    assert outputs._look_like_float32(words, fits) is floats
    with_zeros = np.concatenate([words, np.zeros(99, np.uint32)])  # which say nothing
    assert outputs._look_like_float32(with_zeros, fits) is floats


@pytest.mark.parametrize(("short", "floats"), [(90, True), (89, False)])
def test_floats_of_a_shorter_type_have_zeros_in_nine_words_of_ten(short: int, floats: bool) -> None:
    words = np.full(100, 0x3FC0_3C01, np.uint32)  # a lower half of 1.001
    words[:short] = 0x3FC0_2000
    assert outputs._look_like_float32(words, False) is floats


@pytest.mark.parametrize(("wild", "floats"), [(5, True), (4, False)])
@pytest.mark.parametrize("half", [0x6401, 0xE401, 0x7C01, 0x7FFF], ids=["1025", "-1025", "NaN", "another NaN"])
def test_floats_have_lower_halves_that_no_logits_are_in_one_word_of_twenty(half: int, wild: int, floats: bool) -> None:
    words = np.full(100, 0x3FC0_3C01, np.uint32)
    words[:wild] = 0x3FC0_0000 | half
    assert outputs._look_like_float32(words, False) is floats


@pytest.mark.parametrize("half", [0x6400, 0xE400, 0x2001, 0x3001])
def test_halves_of_1024_and_those_with_a_last_bit_may_be_logits(half: int) -> None:
    assert not outputs._look_like_float32(np.full(100, 0x3FC0_0000 | half, np.uint32), False)


def test_zeros_alone_are_floats() -> None:
    assert outputs._look_like_float32(np.zeros(100, np.uint32), False)


@pytest.mark.parametrize(
    ("rows", "are"),
    [
        ([[0.25, 0.75], [1, 0]], True),
        ([[0.25, 0.7505], [1, 0]], True),
        ([[0.25, 0.7515], [1, 0]], False),
        ([[0.25, 0.7485], [1, 0]], False),
        ([[-0.25, 1.25], [1, 0]], False),
        ([[1, 0], [3, -2]], False),
        ([[1.5, 0.5]], False),
    ],
)
def test_probabilities_are_none_below_0_and_sum_to_1_in_every_row(rows: list[list[float]], are: bool) -> None:
    assert are_probabilities(np.array(rows, np.float32)) is are


@pytest.mark.parametrize(
    ("shares", "taken"),
    [
        ([0.5, 0.3, 0.2, 0, 0, 0], False),
        ([0.4, 0.3, 0.2, 0.1, 0, 0], False),
        ([0.4, 0.3, 0.1, 0.1, 0.1, 0], True),
        ([0.6, 0.4, 0, 0, 0], True),  # all five are ranked whatever they are
        ([0.6, 0.41, 0, 0, 0, 0], True),  # no probabilities
        ([1.5, -0.5, 0, 0, 0, 0], True),
    ],
)
def test_text_of_probabilities_needs_five_with_digits(shares: list[float], taken: bool, tmp_path: Path) -> None:
    path = tmp_path / "a_0.txt"
    path.write_text("".join(f"{share:f} " for share in shares) + "\n")
    if taken:
        assert read_output(path) == pytest.approx(shares)
        return
    with pytest.raises(PipelineError, match=r"a_0\.txt: probabilities, most of them 0"):
        read_output(path)


def test_halves_become_float32_and_half_a_value_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a_0.bin"
    path.write_bytes(np.array([1.5, -2, 0.25], "<f2").tobytes())
    values = read_output(path, "<f2")
    assert values.dtype == np.float32
    assert values.tolist() == [1.5, -2, 0.25]
    with pytest.raises(PipelineError, match="cut short, 6 bytes are no whole number of float32 values"):
        read_output(path)
