"""report.html: what stands on it, where it comes from, and that it opens anywhere."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.models import cards
from ResNeSt.report import collect, data
from ResNeSt.report.draw import draw, draw_where_possible
from ResNeSt.report.thumbnails import thumbnails
from ResNeSt.score.score import Prediction, Result, Score, score_summaries, score_summary
from tests.chromium import browser
from tests.conftest import PROJECT, assert_refused, call

CLASSES, IMAGES = 4, 40


def run_of(folder: Path, dirname: str, logits: np.ndarray) -> Path:
    """A client's results in float32, a file an image, and the summary that lists them."""
    (folder / dirname).mkdir(parents=True)
    entries = {}
    for number, row in enumerate(logits):
        path = folder / dirname / f"img_{number}_0.bin"
        path.write_bytes(np.asarray(row, "<f4").tobytes())
        entries[str(number)] = {"infiles": [f"img_{number}.bin"], "outfiles": [str(path)]}
    summary = folder / f"{dirname}_summary.json"
    summary.write_text(json.dumps({"filesinfo": entries}))
    return summary


LAYERS = [
    data.LayerCost("/conv1/Conv", "Conv", True, 0.01, 0.01),
    data.LayerCost("/layer1/conv/Conv", "Conv", True, 0.05, 0.125),
    data.LayerCost("/layer1/weigh/fc1/Conv", "Conv", False, 0.02, 0.0625),
    data.LayerCost("/fc/Gemm", "Gemm", True, 0.0, None),
]
LABELS = np.arange(IMAGES) % CLASSES


def answers() -> tuple[np.ndarray, np.ndarray]:
    """Logits of a reference that is right but for images 7 and 8, and of a stage with four other answers."""
    reference = np.eye(CLASSES)[LABELS] * 4
    reference[7] = reference[8] = [0, 0, 5, 0]  # labels 3 and 0
    judged = reference.copy()
    judged[1] = [1, 0, 0, 0]  # label 1: right before, wrong now
    judged[2] = [1, 0, 0, 0]  # label 2: the same
    judged[7] = [0, 0, 0, 2]  # label 3: wrong before, right now
    judged[8] = [0, 3, 0, 0]  # label 0: wrong both times
    return reference, judged


def make(folder: Path) -> Path:
    """A run's folder with report.json and the pictures that it names."""
    (folder / "labels.txt").write_text("".join(f"img_{place}.png {label}\n" for place, label in enumerate(LABELS)))
    (folder / "images").mkdir()
    for place in range(IMAGES):
        Image.new("RGB", (300, 200), (6 * place, 0, 255 - 6 * place)).save(folder / "images" / f"img_{place}.png")
    stages = []
    for name, values in zip(("PyTorch", "compiled"), answers()):
        summary = run_of(folder, name, values)
        stages.append(collect.Judged(name, 8, score_summary(summary, folder / "labels.txt"), [summary], 123.4))
    report = collect.report(
        collect.Subject("resnest50", 224, ["tench", "shark", "ray", "hen"], None),
        {"chip": "cpu", "date": "2026-01-02"},
        stages,
        [collect.speed(batch, 1000 / batch, np.linspace(batch, 3 * batch, 50)) for batch in (1, 8)],
        [data.Step("export", 2.5, 345_000_000), data.Step("bench", 61.0, 89_000_000)],
        loop=50,
        images=folder / "images",
        layer_costs=data.LayerCosts(8, LAYERS),
    )
    data.write(folder, report)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder to be changed, not drawn yet."""
    return make(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, to be read only."""
    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def drawn(made: Path) -> Path:
    """The same with its page."""
    draw(made)
    return made


@pytest.fixture(scope="module")
def page(drawn: Path) -> Page:
    return Page(drawn / "report.html")


class Page(HTMLParser):
    """The text of a page, and the values of its attributes by name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.attributes: dict[str, list[Any]] = {}
        self.tags: list[str] = []
        self._goes_on = False
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._goes_on = tag == "wbr"
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value)

    def handle_data(self, words: str) -> None:
        if self._goes_on:
            words = self.words.pop() + words
        self._goes_on = False
        self.words.append(words)


@pytest.mark.parametrize(("right", "total"), [(0, 5), (1, 1), (39, 40), (394, 396), (40515, 50000)])
def test_the_intervals_are_wilson_s(right: int, total: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert data.wilson(right, total) == pytest.approx(tuple(expected), abs=1e-12)


def test_a_share_never_lies_outside_its_interval() -> None:
    for total in range(1, 400):
        for right in (0, 1, total - 1, total):
            low, high = data.wilson(right, total)
            assert 0 <= low <= right / total <= high <= 1, (right, total)


def test_what_is_collected_is_what_the_logits_say(made: Path) -> None:
    reference, judged = answers()
    found = data.read(made)
    before, after = reference.argmax(1), judged.argmax(1)
    stage = found.stages[1]
    assert (stage.top1, stage.total) == ((after == LABELS).sum(), IMAGES)
    assert stage.same_top1 == (before == after).sum() == found.same_top1[0][1] == found.same_top1[1][0]
    assert (stage.lost, stage.gained) == (2, 1)
    assert (stage.top5, found.flip_count) == (IMAGES, 4)
    assert found.classes is not None
    assert found.classes.of == "compiled, batch 8"
    assert {(score.label, score.right, score.images) for score in found.classes.worst} == {
        *((0, 9, 10), (1, 9, 10), (2, 9, 10))
    }
    assert {(pair.label, pair.found, pair.count) for pair in found.classes.confused} == {
        *((0, 1, 1), (1, 0, 1), (2, 0, 1))
    }
    assert found.speeds[1].percentiles_ms[99] == pytest.approx(np.percentile(np.linspace(8, 24, 50), 99))


def test_the_worst_class_and_the_most_confused_pair_come_first() -> None:
    """Of equal shares the class with more images, of equal counts the pair with the larger share."""
    answers = {0: [0, 0, 1, 1], 1: [1, 0], 2: [0, 0, 1], 3: [3] * 5}
    pairs = [(label, found) for label, founds in answers.items() for found in founds]
    predictions = {f"img_{place}": Prediction(label, (found,)) for place, (label, found) in enumerate(pairs)}
    found = collect._classes(collect.Judged("int8", 2, Result(Score(), 14, CLASSES, predictions, {}), [], 1.0))
    assert (found.of, found.count, found.fewest, found.most) == ("int8, batch 2", 4, 2, 5)
    assert [(score.label, score.right, score.images) for score in found.worst] == [(2, 0, 3), (0, 2, 4), (1, 1, 2)]
    confused = [(pair.label, pair.found, pair.count, pair.images) for pair in found.confused]
    assert confused == [(2, 0, 2, 3), (0, 1, 2, 4), (1, 0, 1, 2), (2, 1, 1, 3)]


def test_of_an_image_with_two_results_the_first_listed_is_shown(tmp_path: Path) -> None:
    summaries = [run_of(tmp_path, name, np.eye(2)) for name in ("first", "second")]
    stage = collect.Judged("compiled", 1, Result(Score(), 2, 2, {}, {}), summaries, 1.0)
    assert collect._outputs(stage) == {f"img_{place}": str(tmp_path / f"first/img_{place}_0.bin") for place in (0, 1)}


def test_flips_name_both_answers_with_their_softmax_and_those_that_cost_accuracy_come_first(made: Path) -> None:
    reference, judged = answers()
    flips = data.read(made).flips
    assert [flip.image for flip in flips] == ["img_1", "img_2", "img_7", "img_8"]
    for flip in flips:
        number = int(flip.image[4:])
        for answer, values in ((flip.expected, reference[number]), (flip.found, judged[number])):
            assert answer.number == values.argmax()
            assert answer.probability == pytest.approx(np.exp(values.max()) / np.exp(values).sum(), rel=1e-6)


def test_the_page_shows_the_figures_of_the_json(page: Page) -> None:
    text = page.text
    assert "PyTorch 8 95.00 83.50 to 98.62" in text
    assert "compiled, batch 8 36 of 40 4 2 1" in text
    assert "img_1 label 1 shark PyTorch, batch 8 1 shark, 94.8 %, right compiled, batch 8 0 tench, 47.5 %" in text
    assert "this run 1,000 (2.00)" in text  # the mean, not what images/s alone would say
    assert "1,000 images/s the network alone batch 1: 2.00 ms a batch" in text
    assert "63.5 s 2 processes the largest held 345 MB" in text
    assert "Ascend 310P3 435 (2.30) 1,704 (2.35)" in text
    assert "NVIDIA T4 FP16 142 (7.06) 445 (8.98) 599 (13.35)" in text


def test_several_processes_are_a_line_of_their_own_with_the_latency_of_one(folder: Path) -> None:
    alone, together = (
        collect.speed(8, rate, np.array([ms]), count) for rate, ms, count in ((400, 20, 1), (640, 25, 2))
    )
    data.write(folder, dataclasses.replace(data.read(folder), speeds=[alone, together]))
    text = Page(draw(folder)).text
    assert re.search(r"this run, one alone [- ]+400 \(20.00\)", text)
    assert re.search(r"this run, 2 processes [- ]+640 \(25.00\)", text)
    assert "640 images/s the network alone batch 8, 2 processes: 25.00 ms a batch" in text
    assert "8, 2 processes 25.00" in text


def test_another_json_gives_another_page(folder: Path, page: Page) -> None:
    report = data.read(folder)
    changed = dataclasses.replace(report.stages[1], top1=21, top1_interval=data.wilson(21, IMAGES))
    data.write(folder, dataclasses.replace(report, stages=[report.stages[0], changed]))
    assert "52.50" in Page(draw(folder)).text
    assert "52.50" not in page.text


def test_one_stage_one_batch_size_and_one_run_are_enough(folder: Path) -> None:
    report = data.read(folder)
    one: dict[str, Any] = {"stages": report.stages[:1], "flips": [], "flip_count": 0, "same_top1": [[IMAGES]]}
    data.write(folder, dataclasses.replace(report, **one, speeds=[collect.speed(4, 100, np.array([40.0]))]))
    text = Page(draw(folder)).text
    assert "Agreement" not in text
    assert "4 40.00 40.00 40.00 40.00 40.00 40.00" in text


def test_one_batch_size_is_drawn_as_bars_beside_what_was_published_of_it(folder: Path) -> None:
    report = dataclasses.replace(data.read(folder), speeds=[collect.speed(4, 100, np.array([40.0]))])
    data.write(folder, report)
    text = Page(draw(folder)).text
    assert "over batch size" not in text
    assert text.count("Throughput at batch 4") == 1
    plots = " ".join(re.findall(r"<svg.*?</svg>", (folder / "report.html").read_text(), re.DOTALL))
    assert "this run" in plots
    assert "Ascend 310P3" in plots  # has that batch size, V100 and T4, too
    data.write(folder, dataclasses.replace(report, speeds=[collect.speed(2, 100, np.array([40.0]))]))
    Page(draw(folder))
    plots = " ".join(re.findall(r"<svg.*?</svg>", (folder / "report.html").read_text(), re.DOTALL))
    assert "Ascend 310P3" not in plots  # published for other batch sizes alone: the table has them
    assert "Ascend 310P3" in Page(folder / "report.html").text


def test_a_sweep_over_instances_and_batch_sizes_is_one_picture_with_a_line_for_each_number(folder: Path) -> None:
    speeds = [
        collect.speed(batch, 100.0 * batch * count, np.array([10.0]), instances=count)
        for batch in (1, 4, 8)
        for count in (1, 2, 4)
    ]
    data.write(folder, dataclasses.replace(data.read(folder), speeds=speeds, published_speeds=[]))
    draw(folder)
    throughput = re.findall(r"<figure.*?</figure>", (folder / "report.html").read_text(), re.DOTALL)
    (picture,) = [each for each in throughput if "Throughput over batch size" in each]
    assert all(name in picture for name in ("this run, one alone<", "this run, 2 instances<", "this run, 4 instances<"))


def test_where_every_stage_agrees_as_well_none_is_called_the_worst(folder: Path, page: Page) -> None:
    assert "36 of 40 images with the top-1 of PyTorch, batch 8 at every other stage" in page.text
    report = data.read(folder)
    worse = dataclasses.replace(report.stages[1], name="int8", same_top1=30)
    data.write(folder, dataclasses.replace(report, stages=[*report.stages, worse], same_top1=[[IMAGES] * 3] * 3))
    assert "30 of 40 images with the top-1 of PyTorch, batch 8 the fewest: int8, batch 8" in Page(draw(folder)).text


def test_the_json_holds_the_intervals_of_the_page(made: Path) -> None:
    stage = json.loads((made / "report.json").read_text())["stages"][0]
    assert stage["top1_interval"] == pytest.approx(data.wilson(38, 40))
    assert stage["top5_interval"] == pytest.approx(data.wilson(40, 40))
    worst = json.loads((made / "report.json").read_text())["classes"]["worst"][0]
    assert worst["interval"] == pytest.approx(data.wilson(9, 10))


def test_the_confusion_matrix_counts_every_image_and_is_left_out_of_many_classes(made: Path) -> None:
    classes = data.read(made).classes
    assert classes is not None
    assert classes.matrix is not None
    expected = np.zeros((CLASSES, CLASSES), int)
    np.add.at(expected, (LABELS, answers()[1].argmax(1)), 1)
    assert classes.matrix == data.Matrix([0, 1, 2, 3], expected.tolist())
    many = {str(place): Prediction(place, (place,)) for place in range(collect.MATRIX_CLASSES + 1)}
    judged = collect.Judged("PyTorch", 1, Result(Score(), 51, 51, many, {}), [], 1.0)
    assert collect._classes(judged).matrix is None


def test_the_calibration_error_is_that_of_the_paper_by_hand(made: Path) -> None:
    logits = answers()[1]
    probability = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).max(1)
    right = logits.argmax(1) == LABELS
    error = 0.0
    for low in np.arange(15) / 15:
        inside = (probability > low) & (probability <= low + 1 / 15)
        if inside.any():
            error += inside.sum() / IMAGES * abs(right[inside].mean() - probability[inside].mean())
    confidence = data.read(made).confidence
    assert confidence is not None
    assert confidence.error == pytest.approx(error)
    assert sum(each.images for each in confidence.bins) == confidence.images == IMAGES
    assert (confidence.kept[0].images, confidence.kept[0].right) == (IMAGES, right.sum())
    assert {(each.confidence, each.images) for each in confidence.kept} >= {(0.9, int((probability >= 0.9).sum()))}


def test_probabilities_are_taken_as_they_are_and_an_accuracy_log_has_none(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("img_0.png 0\nimg_1.png 1\n")
    rows = np.array([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]])
    summaries = [run_of(tmp_path, "softmaxed", rows)]
    result = score_summaries(summaries, tmp_path / "labels.txt", classes=3)
    assert [each.confidence for each in result.predictions.values()] == pytest.approx([0.7, 0.5])
    confidence = collect._confidence(collect.Judged("softmaxed", 1, result, [], 1.0))
    assert confidence is not None
    assert [each.images for each in confidence.kept if each.confidence == 0.5] == [2]  # at least 0.5, which both have
    unknown = dataclasses.replace(result, predictions={"img_0": Prediction(0, (0,))})
    assert collect._confidence(collect.Judged("log", 1, unknown, [], 1.0)) is None


def test_the_costliest_layers_come_first_and_those_kept_in_float_with_what_int8_would_cost(page: Page) -> None:
    head = "layer type alone % alone dB in the int8 network %"
    assert (
        f"Costliest in int8 {head} /layer1/conv/Conv Conv 5.00 26.0 12.50 /conv1/Conv Conv 1.00 40.0 1.00" in page.text
    )
    assert "/fc/Gemm Gemm 0.00 - -" in page.text
    kept = "Kept in floating point: what int8 would cost"
    assert f"{kept} {head} /layer1/weigh/fc1/Conv Conv 2.00 34.0 6.25" in page.text
    assert "on 8 held-out tensors" in page.text
    assert "All 4 layers are in report.json" in page.text


def test_one_image_a_class_is_no_plural(folder: Path) -> None:
    change(folder / "report.json", ("classes", "fewest"), 1)
    change(folder / "report.json", ("classes", "most"), 1)
    assert "4 classes of 1 image each" in Page(draw(folder)).text


def test_of_a_run_that_measured_no_layer_nothing_is_drawn(folder: Path) -> None:
    change(folder / "report.json", ("layer_costs",), None)
    assert "Layers in int8" not in Page(draw(folder)).text
    fields = json.loads((folder / "report.json").read_text())
    del fields["layer_costs"]  # as an earlier release wrote it
    (folder / "report.json").write_text(json.dumps(fields))
    assert "Layers in int8" not in Page(draw(folder)).text


def test_layer_costs_come_from_a_model_s_record_and_a_damaged_one_has_none() -> None:
    layers = [dataclasses.asdict(layer) for layer in LAYERS]
    found = collect.layer_costs({"layer_costs": {"images": 8, "layers": layers}})
    assert found == data.LayerCosts(8, LAYERS)
    several: list[Any] = [[], {"images": 8}, {"images": "8", "layers": []}, {"images": 8, "layers": [{"name": 1}]}, 7]
    for damaged in several:
        assert collect.layer_costs({"layer_costs": damaged}) is None
    assert collect.layer_costs({}) is None


def change(path: Path, where: Any, value: Any) -> None:
    fields = holder = json.loads(path.read_text())
    for key in where[:-1]:
        holder = holder[key]
    holder[where[-1]] = value
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("size",), "<b>224</b>"),
        (("stages", 0, "top1"), "38"),
        (("stages", 0, "top1_interval", 0), "0"),
        (("speeds", 0, "percentiles_ms", 50), None),
        (("confidence", "bins", 0, "images"), True),
        (("about", "chip"), 1),
        (("layer_costs", "layers", 0, "quantized"), 1),
        (("layer_costs", "layers", 0, "alone"), "0.1"),
    ],
)
def test_a_value_of_another_kind_is_refused_before_it_reaches_a_page(folder: Path, where: Any, value: Any) -> None:
    change(folder / "report.json", where, value)
    with pytest.raises(PipelineError, match="not a report"):
        draw(folder)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("speeds", 0, "percentiles_ms"), [1.0]),
        (("confidence", "bins"), []),
        (("confidence", "bins", 0, "images"), 0),
        (("flips", 0, "stages"), [7]),
        (("published_speeds", 0, "images_per_second"), {"a": 1.0}),
    ],
)
def test_a_value_that_cannot_be_ends_in_one_line_and_leaves_no_page(folder: Path, where: Any, value: Any) -> None:
    change(folder / "report.json", where, value)
    with pytest.raises(PipelineError, match=r"report\.json: cannot be drawn"):
        draw(folder)
    assert not (folder / "report.html").exists()


def test_a_class_below_0_has_no_name(folder: Path) -> None:
    change(folder / "report.json", ("flips", 0, "label"), -1)
    assert "label -1 PyTorch" in Page(draw(folder)).text


def test_a_network_of_the_user_s_own_is_titled_by_where_it_lies() -> None:
    card = cards.card("resnest50")
    assert collect.of_card(card, "anywhere.pth").model == "resnest50"
    own = dataclasses.replace(card, name="best", class_names=("cat", "dog"))
    assert collect.of_card(own, "work/pets/best.pth").model == "pets/best.pth"
    assert collect.of_info({"model": "best", "class_names": '["cat", "dog"]'}, "pets", None).model == "pets"


def test_a_published_network_s_classes_are_called_by_imagenet_s_words() -> None:
    for subject in (
        collect.of_card(cards.card("resnest50"), "anywhere.pth"),
        collect.of_info({"model": "resnest50", "classes": "1000"}, "m", None),
    ):
        assert subject.class_names is not None
        assert (len(subject.class_names), subject.class_names[4]) == (1000, "hammerhead, hammerhead shark")
    assert collect.of_info({"model": "mine", "classes": "10"}, "m", None).class_names is None


def test_a_run_that_failed_says_why_at_the_top(folder: Path) -> None:
    assert "failed" not in Page(draw(folder)).attributes.get("class", [])
    change(folder / "report.json", ("complaints",), ["compiled, batch 8: differs by 1.0e-02"])
    page = Page(draw(folder))
    assert "alert" in page.attributes["role"]
    assert page.text.index("compiled, batch 8: differs by 1.0e-02") < page.text.index("top-1: ")


def test_published_speeds_are_those_of_the_same_network_and_size_alone(page: Page) -> None:
    assert "The published figures are of the same network at 224 pixels" in page.text
    for model, size, devices in (("resnest50", 224, 4), ("resnest50_fast_1s1x64d", 224, 2), ("resnest50", 256, 0)):
        subject = collect.Subject(model, size, None, None)
        assert len(collect.report(subject, {}, [], [], [], 50, None).published_speeds) == devices


def test_names_from_outside_cannot_become_markup(folder: Path) -> None:
    report = data.read(folder)
    evil = "<script>alert(1)</script>\"'&"
    flips = [dataclasses.replace(flip, image=evil) for flip in report.flips]
    names = [evil] * CLASSES
    stages = [dataclasses.replace(stage, name=evil) for stage in report.stages]
    assert report.classes is not None
    classes = dataclasses.replace(report.classes, of=evil)
    steps = [data.Step(evil, 1.0, 1)]
    hostile = dataclasses.replace(
        report,
        model=evil,
        about={evil: evil},
        class_names=names,
        stages=stages,
        flips=flips,
        classes=classes,
        steps=steps,
    )
    data.write(folder, hostile)
    page = Page(draw(folder))
    assert "script" not in page.tags
    assert page.text.count(evil) > 10


HOSTILE = '<img src=x onerror=alert(1)>"\'&$x_1$ $\\frac{ #000011 url(#a) id="b" --></svg></style></title>{0} %s'


def hostile(value: Any) -> Any:
    """The same with another text for every text in it, keys of free choice included."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, list):
        return [hostile(each) for each in value]
    if isinstance(value, dict):
        return {key: hostile(each) for key, each in value.items()}
    return value


def test_no_text_of_report_json_can_become_markup_a_formula_or_a_colour(folder: Path) -> None:
    path = folder / "report.json"
    fields = hostile(json.loads(path.read_text()))
    fields["about"] = {HOSTILE: HOSTILE, "chip": HOSTILE, "date": HOSTILE, "precision": HOSTILE, "calibration": HOSTILE}
    fields["published"] = {"recipe": HOSTILE, "top1": 80.0, "top5": 95.0, "source": HOSTILE}
    fields["class_names"], fields["complaints"] = [HOSTILE] * CLASSES, [HOSTILE]
    path.write_text(json.dumps(fields))
    draw(folder)
    page = Page(folder / "report.html")
    assert not {"img", "script"} & set(page.tags)  # no picture has such a name
    assert not any(name.startswith("on") for name in page.attributes)
    assert page.attributes["charset"] == ["utf-8"]
    assert page.text.count(HOSTILE) > 40
    ids = page.attributes["id"]
    assert len(ids) == len(set(ids))


def channel(value: int) -> float:
    share = value / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def luminance(colour: str) -> float:
    red, green, blue = (channel(int(colour[place : place + 2], 16)) for place in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours like #1b2127."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def schemes(style: str) -> list[dict[str, str]]:
    """The colours of the light scheme, the dark one's, and, where the style has them, those of paper."""
    light, *others = (
        dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})\b", block))
        for block in re.findall(r":root {(.*?)}", style, re.DOTALL)
    )
    return [light, *({**light, **other} for other in others)]


TEXTS = [
    *[(ink, ground) for ink in ("ink", "muted") for ground in ("page", "card")],
    *[("ink", "mark"), ("ink", "right"), ("good", "card"), ("series-1", "page"), ("series-1", "card")],
]
SERVICE_TEXTS = [
    *[(ink, ground) for ink in ("ink", "muted", "bar") for ground in ("page", "card", "good")],
    *[("bad", "bad-page"), ("card", "bar")],
]


@pytest.mark.parametrize(
    ("file", "texts", "shapes"),
    [
        ("report/page.css", TEXTS, [(f"series-{number}", "card") for number in range(1, 7)]),
        ("serve/page.html", SERVICE_TEXTS, [("edge", "page"), ("edge", "card"), ("bar", "track"), ("bar", "card")]),
    ],
)
def test_text_and_shapes_have_the_contrast_of_wcag_aa_in_light_in_the_dark_and_on_paper(
    file: str, texts: list[tuple[str, str]], shapes: list[tuple[str, str]]
) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    found = schemes((PROJECT / "ResNeSt" / file).read_text())
    assert len(found) >= 2
    for scheme in found:
        for pairs, least in ((texts, 4.5), (shapes, 3.0)):
            for ink, ground in pairs:
                assert contrast(scheme[f"--{ink}"], scheme[f"--{ground}"]) >= least, (ink, ground, scheme)


def test_a_browser_has_nothing_to_load(page: Page) -> None:
    loads = [
        value for name in ("src", "href", "xlink:href", "srcset", "action") for value in page.attributes.get(name, [])
    ]
    assert loads
    assert all(value.startswith(("#", "data:image/")) for value in loads)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    styles = " ".join(page.words) + " ".join(filter(None, page.attributes.get("style", [])))
    assert not re.search(r"@import|url\((?!#)", styles)
    assert "default-src 'none'" in page.attributes["content"][0]


def test_ids_are_unique_and_every_reference_has_one(page: Page) -> None:
    ids = page.attributes["id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in page.attributes["xlink:href"]} <= set(ids)


def test_colours_follow_the_theme(drawn: Path) -> None:
    text = (drawn / "report.html").read_text()
    plots = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    used = set(re.findall(r"var\((--[\w-]+)\)", plots))
    dark = text[text.index("prefers-color-scheme: dark") :]
    assert "--ink" in used
    assert all(f"{name}:" in dark for name in used)
    assert not re.findall(r"#0000[01][0-9a-f]", plots)


def test_thumbnails_show_the_flipped_images(page: Page) -> None:
    uris = [value for value in page.attributes["src"] if value.startswith("data:image/jpeg;base64,")]
    colours = []
    for uri in uris:
        image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
        assert max(image.size) == 160
        pixel = image.getpixel((80, 50))
        assert isinstance(pixel, tuple)
        colours.append(pixel[0])
    assert colours == pytest.approx([6 * 1, 6 * 2, 6 * 7, 6 * 8], abs=4)


def test_pictures_that_are_gone_or_damaged_are_left_out(folder: Path) -> None:
    (folder / "images" / "img_1.png").write_bytes(b"damaged")
    (folder / "images" / "img_7.png").unlink()
    assert set(thumbnails(folder / "images", ["img_1", "img_7", "img_8"])) == {"img_8"}
    assert "no picture here" in Page(draw(folder)).text
    shutil.rmtree(folder / "images")
    assert "src" not in Page(draw(folder)).attributes


def test_a_name_that_is_no_utf_8_is_shown_all_the_same(folder: Path) -> None:
    report = data.read(folder)
    data.write(folder, dataclasses.replace(report, about={**report.about, "pictures": os.fsdecode(b"\xe9t\xe9")}))
    assert r"pictures \udce9t\udce9" in Page(draw(folder)).text


def test_a_folder_of_pictures_that_is_named_and_holds_none_is_refused(folder: Path) -> None:
    with pytest.raises(PipelineError, match="elsewere: no such folder"):
        draw(folder, folder / "elsewere")


def test_the_command_draws_it_again_elsewhere_with_the_pictures_of_that_machine(folder: Path) -> None:
    shutil.move(folder / "images", folder / "elsewhere")
    result = call("-m", "ResNeSt.report", folder, f"--images={folder / 'elsewhere'}")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"to look at: {folder}/report.html\n"
    assert len(Page(folder / "report.html").attributes["src"]) == 4


def test_without_matplotlib_a_run_says_how_to_draw_it_and_the_command_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    draw_where_possible(folder)
    assert f"python -m ResNeSt.report {folder}" in capsys.readouterr().out
    with pytest.raises(MissingRuntimeError, match=r"pip install -r requirements\.txt"):
        draw(folder)
    assert not (folder / "report.html").exists()


def test_a_folder_without_a_report_or_with_a_damaged_one_is_named(folder: Path, tmp_path: Path) -> None:
    assert_refused(call("-m", "ResNeSt.report", folder / "images"), "report.json: no such file", "bench.sh or run.sh")
    (tmp_path / "report.json").write_text('{"model": 1}')
    with pytest.raises(PipelineError, match="not a report"):
        data.read(tmp_path)


@pytest.mark.heavy
def test_in_a_browser_the_page_is_never_wider_than_a_phone_or_a_desktop(drawn: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium")
    frames = "".join(
        f'<iframe width="{width}" height="800" src="{(drawn / "report.html").as_uri()}" onload="const page = this.'
        f"contentDocument.documentElement; this.title = 'too wide by ' + (page.scrollWidth - page.clientWidth) + "
        f"', plots ' + page.querySelectorAll('svg path').length\"></iframe>"
        for width in (360, 390, 1280)
    )
    (tmp_path / "frames.html").write_text(frames)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--allow-file-access-from-files"]
    command = [chromium, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command.append((tmp_path / "frames.html").as_uri())
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert len(re.findall(r'title="too wide by 0, plots [1-9]\d+"', shown)) == 3


@pytest.mark.heavy
def test_long_names_leave_room_for_the_figures_on_a_phone_and_fifty_classes_print_on_few_pages(
    folder: Path, tmp_path: Path
) -> None:
    report = data.read(folder)
    names = [f"{'a_class_without_a_space_' * 3}{number}" if number % 2 else "a long name " * 6 for number in range(50)]
    matrix = data.Matrix(list(range(50)), np.eye(50, dtype=int).tolist())
    assert report.classes is not None
    classes = dataclasses.replace(report.classes, matrix=matrix)
    data.write(folder, dataclasses.replace(report, class_names=names, classes=classes))
    draw(folder)
    with browser(tmp_path / "profile") as tab:
        tab.look(360, "light")
        tab.open((folder / "report.html").as_uri())
        shares = tab.evaluate(
            "[...document.querySelectorAll('.scroll')].map((box) => box.querySelector('tbody th').offsetWidth / "
            "box.clientWidth)"
        )
        assert len(shares) > 8
        assert max(shares) < 0.6
        printed = base64.b64decode(tab("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert len(re.findall(rb"/Type /Page\b", printed)) <= 8


@pytest.mark.heavy
def test_a_keyboard_reaches_the_figures_and_every_table_and_shows_where_it_is(drawn: Path, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as tab:
        tab.open((drawn / "report.html").as_uri())
        reached = []
        for _ in range(40):
            tab.press("Tab", 9)
            reached.append(
                tab.evaluate(
                    "(() => { const here = document.activeElement, box = here.getBoundingClientRect(); return "
                    "[here.getAttribute('href') || here.getAttribute('aria-label'), "
                    "getComputedStyle(here).outlineStyle, box.top >= 0 && box.top < innerHeight]; })()"
                )
            )
            if reached[-1][0] is None:
                break
        tables = tab.evaluate("document.querySelectorAll('.scroll').length")
    names = [name for name, *_ in reached[:-1]]
    assert names[0] == "#figures"
    assert "#speed" in names
    assert sum(not name.startswith("#") for name in names) == tables
    assert all(outline == "solid" and seen for _, outline, seen in reached[:-1])
