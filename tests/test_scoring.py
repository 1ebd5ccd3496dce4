from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ResNeSt.common.errors import PipelineError
from ResNeSt.score import score as scoring
from ResNeSt.score.outputs import NotFiniteError, OutputError, read_output
from ResNeSt.score.printed import problem_lines
from ResNeSt.score.ranking import top_k_predictions
from ResNeSt.score.score import Prediction, Result, Score, count, score_summaries, score_summary
from tests.conftest import Completed

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT.parent / "shared" / "golden" / "ais_bench"
CLASSES = 8

T = TypeVar("T")


def write_output(path: Path, values: Sequence[float] | np.ndarray) -> None:
    """One output file as the client writes it, in the format that its name says."""
    values = np.asarray(values, dtype=np.float32)
    if path.suffix == ".bin":
        path.write_bytes(values.tobytes())
    elif path.suffix == ".npy":
        np.save(path, values[None])
    else:
        path.write_text("".join(f"{value:f} " for value in values) + "\n")


def write_summary(path: Path, outfiles: Sequence[str]) -> Path:
    entries = {str(i): {"infiles": ["./prep/x.bin"], "outfiles": [file]} for i, file in enumerate(outfiles)}
    path.write_text(json.dumps({"filesinfo": entries, "throughput": 1.0}))
    return path


class Run:
    """A folder with the outputs of twelve images, their summary and their labels; about half of them are right."""

    def __init__(self, folder: Path, suffix: str = "txt", name: str = "result") -> None:
        random_numbers = np.random.default_rng(5)
        self.folder, self.name, self.suffix = folder, name, suffix
        self.images = [f"img{i}" for i in range(1, 13)]
        self.logits = random_numbers.integers(-9000, 9000, (12, CLASSES)) / 64  # exact in %f and in float32
        self.truth = [int(np.argsort(-row)[i % 7]) for i, row in enumerate(self.logits)]
        (folder / name).mkdir()
        for image, row in zip(self.images, self.logits):
            write_output(self.file(image), row)
        self.labels = folder / "val_label.txt"
        self.label(dict(zip(self.images, self.truth)))
        self.summary = folder / f"{name}_summary.json"
        self.list([self.recorded(image) for image in self.images])

    def file(self, image: str) -> Path:
        return self.folder / self.name / f"{image}_0.{self.suffix}"

    def recorded(self, image: str) -> str:
        """The path as the client saw it, from a directory that no test runs in."""
        return f"./elsewhere/{self.name}/{image}_0.{self.suffix}"

    def list(self, outfiles: Sequence[str]) -> None:
        write_summary(self.summary, outfiles)

    def label(self, truth: Mapping[str, int]) -> None:
        self.labels.write_text("".join(f"{image}.JPEG {label}\n" for image, label in truth.items()))

    def score(self) -> Result:
        return score_summary(self.summary, self.labels)


@pytest.fixture
def client_run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def found(result: Result) -> dict[str, list[str]]:
    """Only the kinds of problems that there are."""
    return {kind: lines for kind, lines in result.problems.items() if lines}


def attempt(read: Callable[[Path], T], path: Path) -> tuple[T | None, str | None]:
    """What `read` returns and no message, or None and the message of its PipelineError."""
    try:
        return read(path), None
    except PipelineError as error:
        return None, str(error)


# Counting


def ranked_by_hand(row: Sequence[float] | np.ndarray) -> list[int]:
    return sorted(range(len(row)), key=lambda index: (-row[index], index))


def score_of(logits: np.ndarray, labels: Sequence[int] | np.ndarray) -> Score:
    return count(Prediction(label, tuple(classes)) for label, classes in zip(labels, top_k_predictions(logits)))


few_values = st.sampled_from([-2.0, -0.0, 0.0, 1.0, 3.5])


@given(data=st.data(), classes=st.integers(1, 9), images=st.integers(0, 6))
def test_top_1_and_top_5_are_those_counted_by_hand_with_ties_to_the_lower_class(
    data: st.DataObject, classes: int, images: int
) -> None:
    row = st.lists(few_values, min_size=classes, max_size=classes)
    rows = data.draw(st.lists(row, min_size=images, max_size=images))
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))
    order = [ranked_by_hand(values) for values in rows]
    right = {k: sum(label in ranks[:k] for ranks, label in zip(order, labels)) for k in (1, 3, 5, 9)}
    logits = np.array(rows, dtype=np.float32).reshape(images, classes)
    assert score_of(logits, labels) == Score({1: right[1], 5: right[5]}, images)
    assert top_k_predictions(logits).tolist() == [ranks[:5] for ranks in order]
    nine = [Prediction(label, tuple(best)) for label, best in zip(labels, top_k_predictions(logits, 9))]
    assert count(nine, [9, 3]) == Score(right, images)


def test_of_equal_logits_the_lower_class_wins() -> None:
    assert top_k_predictions(np.zeros((1, 1000), np.float32)).tolist() == [[0, 1, 2, 3, 4]]


def test_accuracies_are_shares_of_what_was_scored_and_scores_of_shards_add_up() -> None:
    score = Score({1: 3, 5: 5}, 8)
    assert (score.top1_acc, score.top5_acc) == (0.375, 0.625)
    assert score + Score({1: 1, 5: 3}, 12) == Score({1: 4, 5: 8}, 20)  # numbers whose bits overlap
    assert Score() + score == score
    assert np.isnan([Score().top1_acc, Score().top5_acc]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(NotFiniteError, match="NaN or infinity"):
        top_k_predictions(np.array([[0.0, bad]]))


# Reading one output


@pytest.mark.parametrize("suffix", ["bin", "npy", "txt"])
def test_an_output_is_read_as_float32_values(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a_0.{suffix}"
    write_output(path, [1.5, -2.25, 0.0])
    values = read_output(path)
    assert values.dtype == np.float32
    assert values.tolist() == [1.5, -2.25, 0.0]


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_an_npy_of_another_floating_point_type_is_read(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a_0.npy", np.array([[1.5, -2.25]], dtype=dtype))
    assert read_output(tmp_path / "a_0.npy").tolist() == [1.5, -2.25]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a_0.txt", b"1.000000 2.0000", "cut short"),
        ("a_0.txt", b"1.000000 x \n", "could not convert"),
        ("a_0.txt", b"\xff\xfe\n", "could not convert"),
        ("a_0.txt", b"", "empty"),
        ("a_0.txt", b" \n", "empty"),
        ("a_0.bin", b"\0\0\0\0\0", "5 bytes"),
        ("a_0.bin", b"", "empty"),
        ("a_0.npy", b"", "reading magic string"),
        ("a_0.npy", b"\x93NUMPY\x01\x00", "reading array header length"),
        ("a_0.npy", b"PK\x03\x04\0\0\0\0", "the magic string is not correct"),
        ("a_0.csv", b"1,2\n", "expected a file that ends in"),
    ],
)
def test_a_damaged_output_is_refused_by_name(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(OutputError, match=reason) as caught:
        read_output(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize("values", [np.array([1, 2]), np.array(["1"]), np.array([1j]), np.array([{}])])
def test_an_npy_without_floating_point_numbers_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "a_0.npy", values)
    with pytest.raises(OutputError, match=r"a_0\.npy: "):
        read_output(tmp_path / "a_0.npy")


def test_an_npy_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a_0.npy"
    with open(path, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (4 * 10**17,)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(OutputError, match=r"a_0\.npy: "):
        read_output(path)


def test_a_float64_beyond_float32_is_not_finite(tmp_path: Path) -> None:
    np.save(tmp_path / "a_0.npy", np.array([1e300, 0.0]))
    with pytest.raises(NotFiniteError, match="1 of 2 values"):
        read_output(tmp_path / "a_0.npy")


@given(content=st.binary(max_size=200), suffix=st.sampled_from(["bin", "npy", "txt"]), magic=st.booleans())
def test_any_bytes_are_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str, magic: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any_0.{suffix}"
    path.write_bytes((b"\x93NUMPY\x01\x00\x20\x00" if magic else b"") + content)
    values, message = attempt(read_output, path)
    if values is None:
        assert message is not None
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
    else:
        assert np.isfinite(values).all()
        assert values.size


# Reading a summary

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["0", "filesinfo", "outfiles", "infiles"]), inner, max_size=3)
    ),
    max_leaves=8,
)
paths = st.sampled_from(["a_0.txt", "./out/a_0.bin", "b_0.npy", "a.txt", "x" * 300 + "/a_0.txt"])
entries = st.fixed_dictionaries({"outfiles": st.lists(paths | json_values, max_size=3)}) | json_values
summaries = json_values | st.fixed_dictionaries({"filesinfo": st.dictionaries(st.just("0"), entries) | json_values})


@given(value=summaries)
def test_any_json_is_scored_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "any_labels.txt").write_text("a.JPEG 0\n")
    (folder / "any_summary.json").write_text(json.dumps(value))
    result, message = attempt(lambda path: score_summary(path, folder / "any_labels.txt"), folder / "any_summary.json")
    assert result is None  # no such path holds an output
    assert message is not None
    assert "\n" not in message


@pytest.mark.parametrize("cut", [0, 1, 40, -2])
def test_a_summary_cut_short_is_refused_by_name(client_run: Run, cut: int) -> None:
    text = client_run.summary.read_text()
    client_run.summary.write_text(text[:cut])
    with pytest.raises(PipelineError, match=r"result_summary\.json: not valid JSON"):
        client_run.score()


@pytest.mark.parametrize("name", ["a\0_0.txt", "a\n_0.txt", "\ud800_0.txt"])
def test_a_path_that_no_client_writes_is_refused(client_run: Run, name: str) -> None:
    client_run.list([name])
    with pytest.raises(PipelineError, match="not a summary"):
        client_run.score()


@pytest.mark.parametrize("filesinfo", [{}, {"0": {"infiles": [], "outfiles": []}}])
def test_a_summary_that_lists_nothing_says_why_that_happens(client_run: Run, filesinfo: dict[str, object]) -> None:
    client_run.summary.write_text(json.dumps({"filesinfo": filesinfo}))
    with pytest.raises(PipelineError, match=r"lists no output files.*--pipeline"):
        client_run.score()


def test_every_output_of_an_entry_counts(client_run: Run) -> None:
    files = [client_run.recorded(image) for image in client_run.images]
    batches = {"0": {"infiles": [], "outfiles": files[:8]}, "1": {"infiles": [], "outfiles": files[8:]}}
    expected = client_run.score()
    client_run.summary.write_text(json.dumps({"filesinfo": batches}))
    assert client_run.score() == expected


def test_a_summary_among_its_outputs_as_old_clients_wrote_it_is_read(client_run: Run) -> None:
    expected = client_run.score()
    old = client_run.summary.rename(client_run.folder / "result" / "sumary.json")
    assert score_summary(old, client_run.labels) == expected


def test_paths_are_taken_as_they_stand_where_nothing_lies_beside_the_summary(
    client_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_run.list([f"./result/{image}_0.txt" for image in client_run.images])
    moved = client_run.folder / "copies" / "result_summary.json"
    moved.parent.mkdir()
    client_run.summary.rename(moved)
    monkeypatch.chdir(client_run.folder)
    assert score_summary(moved, client_run.labels).score.total == 12


def test_a_copied_result_is_scored_and_not_the_one_it_was_copied_from(
    client_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = client_run.folder / "elsewhere" / "result"
    newer.mkdir(parents=True)
    for image in client_run.images:
        write_output(newer / f"{image}_0.txt", np.zeros(CLASSES))
    expected = client_run.score()
    monkeypatch.chdir(client_run.folder)
    assert client_run.score() == expected


# Joining


def test_bin_npy_and_txt_give_the_same_score(tmp_path: Path) -> None:
    results = []
    for suffix in ("bin", "npy", "txt"):
        (tmp_path / suffix).mkdir()
        results.append(Run(tmp_path / suffix, suffix).score())
    assert results[0] == results[1] == results[2]
    assert 0 < results[0].score.top1 < results[0].score.top5 < results[0].score.total == 12


def test_the_score_of_files_is_the_score_in_memory(client_run: Run) -> None:
    assert client_run.score().score == score_of(client_run.logits, client_run.truth)


def test_predictions_are_by_image_best_class_first(client_run: Run) -> None:
    predictions = client_run.score().predictions
    label, classes, _ = predictions["img3"]
    assert (label, classes) == (client_run.truth[2], tuple(ranked_by_hand(client_run.logits[2])[:5]))
    assert list(predictions) == client_run.images


def test_the_order_of_results_and_labels_does_not_matter(client_run: Run) -> None:
    expected = client_run.score()
    shuffled = random.Random(3).sample(range(12), 12)
    client_run.list([client_run.recorded(client_run.images[i]) for i in reversed(shuffled)])
    client_run.label({client_run.images[i]: client_run.truth[i] for i in shuffled})
    assert client_run.score() == expected


def test_a_missing_image_is_named_and_shifts_no_other(client_run: Run) -> None:
    whole = client_run.score()
    client_run.list([client_run.recorded(image) for image in client_run.images if image != "img2"])
    result = client_run.score()
    assert found(result) == {"missing": ["img2"]}
    assert (result.score.total, result.labelled) == (11, 12)
    assert result.predictions == {name: it for name, it in whole.predictions.items() if name != "img2"}


def test_a_result_without_a_label_is_extra_and_does_not_count(client_run: Run) -> None:
    client_run.label(dict(zip(client_run.images[1:], client_run.truth[1:])))
    result = client_run.score()
    assert found(result) == {"extra": [str(client_run.file("img1"))]}
    assert result.score.total == 11


def test_an_image_listed_twice_counts_once_and_is_named(client_run: Run) -> None:
    expected = client_run.score()
    other = client_run.folder / "again"
    other.mkdir()
    write_output(other / "img4_0.txt", -client_run.logits[3])
    client_run.list([*map(client_run.recorded, client_run.images), str(other / "img4_0.txt")])
    result = client_run.score()
    assert found(result) == {"duplicate": [f"{other / 'img4_0.txt'}: the first is {client_run.file('img4')}"]}
    assert result.score == expected.score
    assert result.predictions == expected.predictions


def test_a_listed_file_that_is_not_there_is_unreadable_not_missing(client_run: Run) -> None:
    client_run.file("img5").unlink()
    result = client_run.score()
    assert found(result) == {"unreadable": [f"{client_run.file('img5')}: No such file or directory"]}
    assert result.score.total == 11


def test_a_file_without_an_output_number_is_unreadable(client_run: Run) -> None:
    client_run.list([*(client_run.recorded(image) for image in client_run.images), "./elsewhere/result/img.txt"])
    assert list(found(client_run.score())) == ["unreadable"]


@pytest.mark.parametrize("size", [CLASSES - 1, CLASSES + 1])
def test_a_result_of_another_size_than_most_is_named_even_if_it_comes_first(size: int, client_run: Run) -> None:
    write_output(client_run.file("img1"), np.zeros(size))
    result = client_run.score()
    assert found(result) == {"wrong-size": [f"{client_run.file('img1')}: {size} values, most have 8"]}
    assert (result.score.total, result.classes) == (11, CLASSES)


def test_where_the_number_of_classes_is_known_results_of_another_size_reject_no_other(client_run: Run) -> None:
    for image in client_run.images[:8]:
        write_output(client_run.file(image), np.zeros(2 * CLASSES))
    result = score_summaries([client_run.summary], client_run.labels, classes=CLASSES)
    assert len(result.problems["wrong-size"]) == 8
    assert (result.score.total, result.classes) == (4, CLASSES)


def test_a_result_that_is_no_plain_file_is_named_once(client_run: Run) -> None:
    client_run.file("img1").unlink()
    os.mkfifo(client_run.file("img1"))
    (problem,) = client_run.score().problems["unreadable"]
    assert problem.count("img1_0") == 1


def test_the_folder_of_results_scores_as_the_summary_beside_it(client_run: Run) -> None:
    assert score_summaries([client_run.file("img1").parent], client_run.labels) == client_run.score()


def test_a_folder_with_results_that_the_summary_beside_it_does_not_list_is_refused(client_run: Run) -> None:
    """As a killed run leaves them where the next one has fewer tensors."""
    client_run.list([client_run.recorded(image) for image in client_run.images[:5]])
    folder = client_run.file("img1").parent
    with pytest.raises(PipelineError, match=rf"7 of its 12 outputs are not of the run of {client_run.summary}.*img6_0"):
        score_summaries([folder], client_run.labels)
    client_run.summary.unlink()
    assert score_summaries([folder], client_run.labels).score.total == 12


def test_a_result_with_nan_is_named_and_does_not_count(client_run: Run) -> None:
    write_output(client_run.file("img6"), [np.nan] * CLASSES)
    result = client_run.score()
    assert found(result) == {"not-finite": [f"{client_run.file('img6')}: 8 of 8 values"]}
    assert result.score.total == 11


def test_a_label_that_is_no_class_is_named(client_run: Run) -> None:
    client_run.label({**dict(zip(client_run.images, client_run.truth)), "img9": CLASSES})
    with pytest.raises(PipelineError, match=r"val_label\.txt: img9 has class 8.*classes 0 to 7"):
        client_run.score()


def test_results_of_other_images_than_the_labelled_are_refused(client_run: Run) -> None:
    client_run.label({"other": 1})
    with pytest.raises(PipelineError, match=r"none of the 12 results.*img1_0\.txt.*other"):
        client_run.score()


def test_outputs_that_are_all_gone_are_refused_with_a_reason(client_run: Run) -> None:
    for image in client_run.images:
        client_run.file(image).unlink()
    with pytest.raises(PipelineError, match=r"none of the 12 results can be scored.*img1_0\.txt: No such file"):
        client_run.score()


def test_results_of_several_devices_are_scored_together(client_run: Run) -> None:
    other = client_run.folder / "device1_0"
    other.mkdir()
    for image in client_run.images[6:]:
        client_run.file(image).rename(other / client_run.file(image).name)
    second = client_run.folder / "device1_0_summary.json"
    write_summary(second, [f"out/device1_0/{image}_0.txt" for image in client_run.images[6:]])
    client_run.list([client_run.recorded(image) for image in client_run.images[:6]])
    result = score_summaries([client_run.summary, second], client_run.labels)
    assert found(result) == {}
    assert result.score == score_of(client_run.logits, client_run.truth)


def test_the_same_summary_twice_gives_duplicates_and_the_same_score(client_run: Run) -> None:
    result = score_summaries([client_run.summary] * 2, client_run.labels)
    assert len(result.problems["duplicate"]) == 12
    assert result.score == client_run.score().score


def test_processes_give_the_same_result_as_one(client_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    client_run.file("img2").write_bytes(b"")
    write_output(client_run.file("img3"), [np.inf] * CLASSES)
    alone = client_run.score()
    monkeypatch.setattr(scoring, "_FILES_PER_PROCESS", 4)
    assert score_summaries([client_run.summary], client_run.labels, workers=2) == alone


def test_a_result_and_an_error_survive_pickling(client_run: Run) -> None:
    result = client_run.score()
    assert pickle.loads(pickle.dumps(result)) == result
    error = pickle.loads(pickle.dumps(NotFiniteError("img1_0.txt: 1 of 8 values")))
    assert (str(error), error.kind) == ("img1_0.txt: 1 of 8 values", "not-finite")


# The command


def postprocess(client_run: Run, *options: str) -> Completed:
    command = [sys.executable, "ResNeSt_postprocess.py"]
    command += [f"--result_path={client_run.summary}", f"--gt_path={client_run.labels}", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command_prints_the_score_as_the_sample_does(client_run: Run) -> None:
    client_run.label(dict.fromkeys(client_run.images, 0))
    score = score_of(client_run.logits, [0] * 12)
    done = postprocess(client_run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:4] == [
        f"top1_acc\t{score.top1 / 12:.4f}",
        f"top5_acc\t{score.top5 / 12:.4f}",
        f"top1_correct={score.top1}, tot=12, acc={score.top1 / 12:.3%}",
        f"top5_correct={score.top5}, tot=12, acc={score.top5 / 12:.3%}",
    ]


def test_a_problem_is_printed_and_ends_in_1_unless_its_flag_is_given(client_run: Run) -> None:
    client_run.list([client_run.recorded(image) for image in client_run.images[:-1]])
    client_run.file("img1").unlink()
    refused = postprocess(client_run, "--allow-missing")
    assert refused.returncode == 1
    assert "missing: 1 labelled images without a result (accepted by --allow-missing)\n  img12" in refused.stdout
    assert "unreadable: 1 results that cannot be read (exit code 1; --allow-unreadable accepts them)" in refused.stdout
    assert "tot counts the labelled images whose result was read: 10 of 12" in refused.stdout
    assert postprocess(client_run, "--allow-missing", "--allow-unreadable").returncode == 0


def test_many_problems_are_printed_as_a_few_and_a_count(client_run: Run) -> None:
    client_run.list([client_run.recorded("img1")])
    lines = postprocess(client_run, "--allow-missing").stdout.splitlines()
    assert lines[-6:] == ["  img2", "  img3", "  img4", "  img5", "  img6", "  and 6 more"]


def test_the_json_file_holds_figures_and_all_problems(client_run: Run) -> None:
    client_run.list([client_run.recorded("img1")])
    target = client_run.folder / "score.json"
    assert postprocess(client_run, f"--json={target}").returncode == 1
    figures = json.loads(target.read_text())
    assert (figures["tot"], figures["labelled"], figures["classes"]) == (1, 12, CLASSES)
    assert figures["top1_acc"] == figures["top1_correct"] / figures["tot"]
    assert figures["problems"] == {
        "missing": {"count": 11, "allowed": False, "list": [f"img{i}" for i in range(2, 13)]}
    }


def test_five_of_a_kind_are_printed_and_of_more_how_many_there_are() -> None:
    def printed(cases: int) -> list[str]:
        return problem_lines({"missing": [f"img{n}" for n in range(cases)]}, {"missing": "without a result"}, ["extra"])

    head = "missing: 5 without a result (exit code 1; --allow-missing accepts them)"
    assert printed(5) == [head, *(f"  img{n}" for n in range(5))]
    assert printed(6)[1:] == [*(f"  img{n}" for n in range(5)), "  and 1 more"]


@pytest.mark.parametrize("gone", ["summary", "labels"])
def test_a_file_that_is_not_there_ends_in_one_line(client_run: Run, gone: str) -> None:
    path = getattr(client_run, gone)
    path.unlink()
    done = postprocess(client_run)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {path}: ")
    assert done.stderr.count("\n") == 1


# What the real client wrote


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the client's real files are not here")
@pytest.mark.parametrize("name", ["result_bs1", "result_bs4"])
def test_files_of_the_real_client_are_scored(tmp_path: Path, name: str) -> None:
    best = {}
    for path in (GOLDEN / name).iterdir():
        values = [float(number) for number in path.read_text().split()]
        best[path.name[: -len("_0.txt")]] = values.index(max(values))
    labels = tmp_path / "val_label.txt"
    labels.write_text("".join(f"{image}.JPEG {label}\n" for image, label in best.items()))
    result = score_summary(GOLDEN / f"{name}_summary.json", labels)
    assert found(result) == {}
    assert result.score == Score({1: 6, 5: 6}, 6)
    assert result.classes == 1000


@pytest.mark.parametrize("suffix", ["txt", "npy"])
def test_a_result_of_several_images_is_named_and_not_taken_for_one_of_more_classes(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    values = np.array([[0, 1, 0], [1, 0, 0]], np.float32)
    for name, logits in (("one", values[:1]), ("both", values)):
        path = tmp_path / f"out/{name}_0.{suffix}"
        if suffix == "npy":
            np.save(path, logits)
        else:
            path.write_text("".join("".join(f"{value:f} " for value in row) + "\n" for row in logits))
    filesinfo = {
        str(n): {"infiles": [name], "outfiles": [f"out/{name}_0.{suffix}"]} for n, name in enumerate(("one", "both"))
    }
    (tmp_path / "out_summary.json").write_text(json.dumps({"filesinfo": filesinfo}))
    (tmp_path / "labels").write_text("one.png 1\nboth.png 1\n")
    result = scoring.score_summary(tmp_path / "out_summary.json", tmp_path / "labels")
    assert (result.score.top1, result.score.total, result.classes) == (1, 1, 3)
    (told,) = result.problems["unreadable"]
    assert "both_0" in told
    assert "the tensor file held several images" in told


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (CLASSES // 2, f"the model has {CLASSES // 2} classes; a tensor file holds one image"),
        (CLASSES - 1, f"not {CLASSES - 1}, as --classes says"),
        (CLASSES * 2, f"not {CLASSES * 2}, as --classes says"),
    ],
)
def test_results_of_another_number_of_values_than_the_caller_says_are_refused(
    told: int, reason: str, client_run: Run
) -> None:
    client_run.label(dict.fromkeys(client_run.images, 0))
    with pytest.raises(PipelineError, match=f"most results have {CLASSES} values, {reason}"):
        scoring.score_summaries([client_run.summary], client_run.labels, classes=told)


# Results that do not say what they hold


def write_bins(folder: Path, rows: np.ndarray, truth: Sequence[int], classes: int | None = None) -> Path:
    """A client's BIN results, labels, and beside the model, which is elsewhere, a record of its classes."""
    (folder / "out").mkdir()
    for number, row in enumerate(rows):
        (folder / f"out/img{number}_0.bin").write_bytes(row.tobytes())
    files = [{"infiles": [], "outfiles": [f"out/img{number}_0.bin"]} for number in range(len(rows))]
    if classes is not None:
        (folder / "m.om").touch()
        (folder / "m.om.json").write_text(json.dumps({"info": {"classes": str(classes)}}))
    told = {"filesinfo": dict(enumerate(files)), "args": ["ais_bench", "-m", str(folder / "m.om"), "--outfmt=BIN"]}
    (folder / "out_summary.json").write_text(json.dumps(told))
    (folder / "labels").write_text("".join(f"img{number}.png {label}\n" for number, label in enumerate(truth)))
    return folder / "out_summary.json"


ROWS = np.random.default_rng(7).standard_normal((40, 10)).astype(np.float32) * 4


@pytest.mark.parametrize("told", ["by the labels", "by the record", "by the caller"])
def test_halves_of_a_model_in_fp16_are_not_read_as_floats(told: str, tmp_path: Path) -> None:
    truth = ROWS.astype(np.float16).argmax(axis=1)
    if told != "by the labels":  # which are of a part of the classes only
        truth = np.minimum(truth, 3)
    summary = write_bins(tmp_path, ROWS.astype(np.float16), truth.tolist(), 10 if told == "by the record" else None)
    result = score_summaries([summary], tmp_path / "labels", classes=10 if told == "by the caller" else None)
    assert result.classes == 10
    assert result.score == score_of(ROWS.astype(np.float16).astype(np.float32), truth.tolist())


def test_halves_of_an_odd_number_of_classes_are_read(tmp_path: Path) -> None:
    rows = ROWS[:, :5].astype(np.float16)
    summary = write_bins(tmp_path, rows, rows.argmax(axis=1).tolist())
    assert score_summary(summary, tmp_path / "labels").score == Score({1: 40, 5: 40}, 40)


def test_halves_of_which_nothing_says_how_many_classes_there_are_are_refused(tmp_path: Path) -> None:
    summary = write_bins(tmp_path, ROWS.astype(np.float16), [3] * 40)
    with pytest.raises(PipelineError, match=r"img0_0\.bin: its 20 bytes look like 10 values of float16.*--classes N"):
        score_summary(summary, tmp_path / "labels")


def test_labels_of_half_the_classes_make_no_floats_of_a_few_halves(tmp_path: Path) -> None:
    summary = write_bins(tmp_path, ROWS[:5].astype(np.float16), [0, 1, 2, 3, 4])
    with pytest.raises(PipelineError, match="its 20 bytes look like 10 values of float16"):
        score_summary(summary, tmp_path / "labels")


def test_the_number_of_classes_that_is_given_decides_what_the_values_are(tmp_path: Path) -> None:
    rows = np.full((8, 10), 0x3C003C00, np.uint32).view(np.float32)  # 20 halves of 1
    assert score_summaries([write_bins(tmp_path, rows, [9] * 8)], tmp_path / "labels", classes=10).classes == 10


@pytest.mark.parametrize("kind", ["float32", "from float16", "from bfloat16"])
def test_floats_are_read_as_floats_whatever_the_labels_say(kind: str, tmp_path: Path) -> None:
    rows = ROWS.astype(np.float16).astype(np.float32) if kind == "from float16" else ROWS
    if kind == "from bfloat16":
        rows = (ROWS.view(np.uint32) & 0xFFFF0000).view(np.float32)
    truth = [*rows.argmax(axis=1).tolist()[:-1], 4]  # of which 10 is the greatest number of classes
    summary = write_bins(tmp_path, rows, truth)
    assert score_summary(summary, tmp_path / "labels").classes == 10
    (tmp_path / "labels").write_text("".join(f"img{number}.png {number % 4}\n" for number in range(40)))
    assert score_summary(summary, tmp_path / "labels").classes == 10


def test_rows_of_several_images_are_no_row_of_more_classes(tmp_path: Path) -> None:
    summary = write_bins(tmp_path, ROWS.reshape(10, 40), [3] * 10, classes=10)
    with pytest.raises(PipelineError, match="most results have 40 values, the model has 10 classes"):
        score_summary(summary, tmp_path / "labels")


def test_probabilities_whose_digits_have_run_out_are_not_ranked(tmp_path: Path) -> None:
    write_output(tmp_path / "a_0.txt", [0.999999, 0.000001, *[0] * 8])
    with pytest.raises(OutputError, match=r"a_0\.txt: probabilities, most of them 0 to six digits.*--outfmt NPY"):
        read_output(tmp_path / "a_0.txt")
    write_output(tmp_path / "b_0.txt", [0.5, 0.2, 0.1, 0.1, 0.1, *[0] * 5])
    assert read_output(tmp_path / "b_0.txt")[0] == 0.5


@pytest.mark.parametrize("shape", [(1, 3), (3,), (1, 3, 1, 1)])
def test_a_result_of_one_image_may_have_axes_of_one(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3, dtype=np.float32).reshape(shape))
    assert read_output(tmp_path / "a.npy").tolist() == [0, 1, 2]
    rows = np.arange(3, dtype=np.float32).reshape(shape).reshape(-1, shape[-1])
    (tmp_path / "a.txt").write_text("".join("".join(f"{value:f} " for value in row) + "\n" for row in rows))
    assert read_output(tmp_path / "a.txt").tolist() == [0, 1, 2]
