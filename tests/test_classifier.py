"""Networks of other programs: what is served, and what is refused with how to make it a classifier."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ResNeSt.bench.measure import accuracy
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.compare.pairs import compare
from ResNeSt.convert import simplify
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.engines.opening import open_engine
from ResNeSt.evaluate import evaluate
from ResNeSt.infer.client import check_om_tensors
from ResNeSt.infer.inference import Inference, infer
from ResNeSt.models import classifier, onnx_file, sidecar
from ResNeSt.predict import predict
from ResNeSt.report import collect
from ResNeSt.score.score import score_summaries
from tests.conftest import PROJECT, picture

onnx = pytest.importorskip("onnx")
ov = pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxsim")

SIZE, CLASSES = 8, 10
CARD = "resnest_demo"
WEIGHTS = np.random.default_rng(0).standard_normal((CLASSES, 3 * SIZE * SIZE)).astype(np.float32) / 8
IMAGES = np.random.default_rng(1).standard_normal((4, 3, SIZE, SIZE)).astype(np.float32)


def node(operator: str, source: str | Sequence[str], target: str | Sequence[str], **attributes: Any) -> Any:
    names = [[name] if isinstance(name, str) else list(name) for name in (source, target)]
    title = "" if operator in ("Identity", "Reshape") else f"/{operator}"
    return onnx.helper.make_node(operator, *names, name=title, **attributes)


def value(name: str, shape: Sequence[int | str] | None, dtype: str = "FLOAT") -> Any:
    return onnx.helper.make_tensor_value_info(name, getattr(onnx.TensorProto, dtype), shape)


def network(
    path: Path,
    *middle: Any,
    inputs: Sequence[Any] = (),
    outputs: Sequence[Any] = (),
    constants: Sequence[Any] = (),
    opset: int = 17,
    metadata: dict[str, str] | None = None,
) -> Path:
    """`x` -> `middle`, from `x` to `y` -> a layer of WEIGHTS, `logits` -> what `middle` makes of them, to `out`."""
    front = [each for each in middle if each.input[0] == "x"] or [node("Identity", "x", "y")]
    back = [each for each in middle if each.input[0] != "x"] or [node("Identity", "logits", "out")]
    layer = [node("Flatten", "y", "flat"), node("Gemm", ["flat", "w"], "logits", transB=1)]
    graph = onnx.helper.make_graph(
        [*front, *layer, *back],
        "graph",
        list(inputs) or [value("x", ["N", 3, SIZE, SIZE])],
        list(outputs) or [value("out", ["N", CLASSES])],
        [onnx.numpy_helper.from_array(WEIGHTS, "w"), *constants],
    )
    domains = sorted({each.domain for each in graph.node if each.domain})
    sets = [onnx.helper.make_opsetid("", opset), *(onnx.helper.make_opsetid(domain, 1) for domain in domains)]
    model = onnx.helper.make_model(graph, opset_imports=sets, ir_version=8)
    onnx.helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def expected_logits(images: np.ndarray) -> np.ndarray:
    return np.asarray(images.reshape(len(images), -1) @ WEIGHTS.T)


def channels() -> list[Any]:
    return [
        onnx.numpy_helper.from_array(np.full(3, each, np.float32), name) for name, each in zip("abcd", (1, 0, 0, 1))
    ]


def constant(name: str, content: object, dtype: type) -> Any:
    return onnx.numpy_helper.from_array(np.array(content, dtype), name)


OTHERS: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "two outputs": (
        [node("Identity", "flat", "features"), node("Identity", "logits", "out")],
        {"outputs": [value("features", ["N", 192]), value("out", ["N", CLASSES])]},
        "extract_model",
    ),
    "two outputs, the classes first": (
        [node("Identity", "logits", "out"), node("Identity", "flat", "features")],
        {"outputs": [value("out", ["N", CLASSES]), value("features", ["N", 192])]},
        "which of them are the classes",
    ),
    "two inputs": (
        [node("Add", ["logits", "more"], "out")],
        {"inputs": [value("x", ["N", 3, SIZE, SIZE]), value("more", ["N", CLASSES])]},
        "images as its only input",
    ),
    "channels last": (
        [node("Transpose", "x", "y", perm=[0, 3, 1, 2])],
        {"inputs": [value("x", ["N", SIZE, SIZE, 3])]},
        "channels come last",
    ),
    "uint8": ([node("Cast", "x", "y", to=1)], {"inputs": [value("x", ["N", 3, SIZE, SIZE], "UINT8")]}, "float32"),
    "float16": ([node("Cast", "x", "y", to=1)], {"inputs": [value("x", ["N", 3, SIZE, SIZE], "FLOAT16")]}, "float32"),
    "any size": ([], {"inputs": [value("x", ["N", 3, "height", "width"])]}, "axis 0 alone"),
    "grey": ([], {"inputs": [value("x", ["N", 1, SIZE, SIZE])]}, "three channels"),
    "no images": ([], {"inputs": [value("x", ["N", 192])]}, "classifier of images"),
    "four axes": (
        [node("Reshape", ["logits", "form"], "out")],
        {"outputs": [value("out", ["N", CLASSES, 1, 1])], "constants": [constant("form", [0, 0, 1, 1], np.int64)]},
        "Flatten",
    ),
    "no batch axis": (
        [node("Squeeze", ["logits", "axes"], "out")],
        {"outputs": [value("out", [CLASSES])], "constants": [constant("axes", [0], np.int64)]},
        "batch axis kept",
    ),
    "a number": ([node("ReduceMax", "logits", "out", keepdims=0)], {"outputs": [value("out", [])]}, "batch axis kept"),
    "one value": (
        [node("ReduceMax", "logits", "out", axes=[1])],
        {"outputs": [value("out", ["N", 1])]},
        "a value for every class",
    ),
    "class numbers": (
        [node("ArgMax", "logits", "out", axis=1)],
        {"outputs": [value("out", ["N", 1], "INT64")]},
        "without the ArgMax",
    ),
    "the five best": (
        [node("TopK", ["logits", "five"], ["out", "numbers"])],
        {"outputs": [value("out", ["N", 5])], "constants": [constant("five", [5], np.int64)]},
        "what TopK makes",
    ),
    "class numbers as floats": (
        [node("TopK", ["logits", "five"], ["best", "numbers"]), node("Cast", "numbers", "out", to=1)],
        {"outputs": [value("out", ["N", 5])], "constants": [constant("five", [5], np.int64)]},
        "what TopK makes",
    ),
    "batch norm in training": (
        [node("BatchNormalization", ["x", *"abcd"], ["y", "mean", "variance"], training_mode=1)],
        {},
        r"BatchNormalization /BatchNormalization works as in training.*model\.eval\(\)",
    ),
    "batch norm in training, opset 11": (
        [node("BatchNormalization", ["x", *"abcd"], ["y", "mean", "variance", "m", "v"])],
        {"opset": 11},
        "works as in training",
    ),
    "dropout in training": (
        [node("Dropout", ["logits", "ratio", "on"], "out")],
        {"constants": [constant("ratio", 0.5, np.float32), constant("on", True, np.bool_)]},
        "Dropout /Dropout works as in training",
    ),
    "random numbers": (
        [node("RandomNormalLike", "logits", "noise"), node("Add", ["logits", "noise"], "out")],
        {},
        "RandomNormalLike /RandomNormalLike makes its answers random",
    ),
    "operator of a runtime": (
        [node("Gelu", "logits", "out", domain="com.microsoft")],
        {},
        r"Gelu /Gelu is an operator of com\.microsoft",
    ),
}


def make(name: str, path: Path) -> Path:
    middle, options, _ = OTHERS[name]
    norms = channels() if "batch norm" in name else []
    return network(path, *middle, **{**options, "constants": [*options.get("constants", []), *norms]})


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_classifier_is_refused_with_how_to_make_it_one(name: str, tmp_path: Path) -> None:
    path = make(name, tmp_path / "m.onnx")
    with pytest.raises(PipelineError, match=rf"m\.onnx: (.*){OTHERS[name][2]}") as refused:
        onnx_file.read(path)
    assert "\n" not in str(refused.value)


DEMO_SET = (PROJECT / "demo/val", PROJECT / "demo/val_label.txt")
COMMANDS: dict[str, Callable[[Path, Path], object]] = {
    "convert": lambda model, folder: convert(Conversion(model, [1], "cpu", folder)),
    "infer": lambda model, folder: infer(Inference(model)),
    "infer by openvino": lambda model, folder: infer(Inference(model, engine="openvino")),
    "predict": lambda model, folder: list(predict(ModelChoice(model, arch=CARD), [folder / "a.png"])),
    "evaluate": lambda model, folder: evaluate(ModelChoice(model, arch=CARD), *DEMO_SET),
    "compare": lambda model, folder: open_engine(model, batch=8),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_takes_a_model_refuses_it(command: str, tmp_path: Path) -> None:
    path = make("two outputs", tmp_path / "m.onnx")
    with pytest.raises(PipelineError, match="which of them are the classes"):
        COMMANDS[command](path, tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["m.onnx"]


@pytest.mark.parametrize(
    "name", ["two outputs", "four axes", "class numbers", "class numbers as floats", "channels last", "any size"]
)
def test_a_compiled_model_of_another_program_is_held_to_the_same(name: str, tmp_path: Path) -> None:
    ov.save_model(ov.convert_model(make(name, tmp_path / "m.onnx")), tmp_path / "m.xml")
    with pytest.raises(PipelineError, match=rf"m\.xml: .*{OTHERS[name][2]}"):
        open_engine(tmp_path / "m.xml")


def test_a_batch_norm_and_a_dropout_as_in_inference_are_taken(tmp_path: Path) -> None:
    path = network(
        tmp_path / "m.onnx",
        node("BatchNormalization", ["x", *"abcd"], "y"),
        node("Dropout", ["logits", "ratio", "off"], "out"),
        constants=[*channels(), constant("ratio", 0.5, np.float32), constant("off", False, np.bool_)],
    )
    assert onnx_file.read(path).batch is None


def test_an_output_whose_shape_is_not_said_is_judged_when_it_runs(tmp_path: Path) -> None:
    good = network(tmp_path / "good.onnx", outputs=[value("out", None)])
    assert np.allclose(open_engine(good, batch=4).run(IMAGES), expected_logits(IMAGES), atol=1e-4)
    flat = node("Reshape", ["logits", "form"], "out")
    form = [constant("form", [1, -1], np.int64)]
    bad = network(tmp_path / "bad.onnx", flat, outputs=[value("out", None)], constants=form)
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(PipelineError, match=r"bad\.onnx: gives \[1, 40\] for 4 images, expected \[4, classes\]"):
            open_engine(bad, engine, batch=4).run(IMAGES)


# --- probabilities

ENDS: dict[str, tuple[list[Any], bool]] = {
    "Softmax": ([node("Softmax", "logits", "out", axis=1)], True),
    "Softmax and Identity": ([node("Softmax", "logits", "p", axis=1), node("Identity", "p", "out")], True),
    "Softmax in parts": (
        [
            node("Exp", "logits", "e"),
            node("ReduceSum", ["e", "axis"], "sum", keepdims=1),
            node("Div", ["e", "sum"], "out"),
        ],
        True,
    ),
    "the mean of two Softmaxes": ([node("Softmax", "logits", "p", axis=1), node("Mean", ["p", "p"], "out")], False),
    "Sigmoid": ([node("Sigmoid", "logits", "out")], True),
    "LogSoftmax": ([node("LogSoftmax", "logits", "out", axis=1)], False),
    "nothing": ([], False),
}


def ending(name: str, path: Path) -> Path:
    return network(path, *ENDS[name][0], constants=[constant("axis", [1], np.int64)])


def expected_probabilities(name: str, logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return np.asarray(powers / (1 + powers) if name == "Sigmoid" else powers / powers.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("name", ENDS)
def test_probabilities_are_recognised_and_not_made_twice(name: str, tmp_path: Path) -> None:
    path = ending(name, tmp_path / "m.onnx")
    image = picture(SIZE, SIZE, seed=3)
    image.save(tmp_path / "a.png")
    ov.save_model(ov.convert_model(path), tmp_path / "m.xml")
    seen = []
    for file, engine in ((path, None), (path, "openvino"), (tmp_path / "m.xml", None)):
        assert open_engine(file, engine).probabilities == ENDS[name][1]
        (answer,) = predict(ModelChoice(file, engine=engine, arch=str(card_of_size(tmp_path))), [tmp_path / "a.png"])
        seen.append({guess.label: guess.probability for guess in answer.guesses})
    crop = image.resize((SIZE + 1, SIZE + 1), Image.Resampling.BILINEAR).crop((0, 0, SIZE, SIZE))
    tensor = (np.asarray(crop, np.float32) / 255).transpose(2, 0, 1)[None]
    expected = expected_probabilities(name, expected_logits(tensor))[0]
    for guesses in seen:
        assert list(guesses) == np.argsort(-expected)[:5].tolist()
        assert np.allclose(list(guesses.values()), expected[list(guesses)], atol=1e-4)


def card_of_size(folder: Path) -> Path:
    """A card of the networks here: pixels from 0 to 1, as they are."""
    from ResNeSt.models.cards import Card, card, write_card

    plain = {"recipe": "squash-bilinear", "size": SIZE, "classes": CLASSES, "mean": (0, 0, 0), "std": (1, 1, 1)}
    write_card(Card("plain", card(CARD).architecture, **plain), folder / "plain.json")  # type: ignore[arg-type]
    return folder / "plain.json"


def test_probabilities_and_logits_are_not_compared(tmp_path: Path) -> None:
    logits, softmax = ending("nothing", tmp_path / "logits.onnx"), ending("Softmax", tmp_path / "softmax.onnx")
    tensors = tmp_path / "tensors"
    tensors.mkdir()
    for number, image in enumerate(IMAGES):
        image.tofile(tensors / f"img{number}.bin")
    with pytest.raises(PipelineError, match=r"softmax\.onnx: gives probabilities .*logits\.onnx logits"):
        compare(logits, softmax, tensors)
    assert compare(softmax, softmax, tensors).difference == 0


@pytest.mark.parametrize(
    ("last", "says_so"),
    [("Softmax", True), ("Softmax", False), ("nothing", False), ("Sigmoid", True)],
)
def test_the_report_makes_no_probabilities_of_probabilities(last: str, says_so: bool, tmp_path: Path) -> None:
    values = np.array([2.0, 1.0, 0.0], np.float32)
    softmax, sigmoid = np.exp(values) / np.exp(values).sum(), 1 / (1 + np.exp(-values))
    answer, expected = {
        "Softmax": (softmax, softmax),
        "nothing": (values, softmax),
        "Sigmoid": (sigmoid, sigmoid),  # of which no sum tells
    }[last]
    path = tmp_path / "out/a_0.npy"
    path.parent.mkdir()
    np.save(path, answer[None])
    (tmp_path / "labels.txt").write_text("a.png 0\n")
    result = score_summaries([path.parent], tmp_path / "labels.txt", classes=3, probabilities=says_so)
    assert result.predictions["a"].confidence == pytest.approx(expected[0])
    assert collect._probability(str(path), result, 1) == pytest.approx(expected[1])


def test_of_a_model_that_ends_in_sigmoid_the_benchmark_takes_its_answers_as_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "a_0.npy", np.array([[0.5, 0.9, 0.8]], np.float32))
    (tmp_path / "labels.txt").write_text("a.png 0\n")
    entry = {"infiles": ["a.bin"], "outfiles": [str(tmp_path / "a_0.npy")]}
    summary = tmp_path / "s_summary.json"
    summary.write_text(json.dumps({"filesinfo": {"0": entry}, "npu_compute_time_list": [1.0]}))
    model = tmp_path / "m.xml"
    for answers, confidence in (("probabilities", 0.9), ("logits", np.exp(0.9) / np.exp([0.5, 0.9, 0.8]).sum())):
        model.with_name("m.xml.json").write_text(json.dumps({"answers": answers}))
        assert accuracy(model, 1, [summary], tmp_path / "labels.txt").predictions["a"].confidence == pytest.approx(
            confidence
        )


# --- convert


def test_a_batch_size_that_the_exporter_set_is_freed_where_that_changes_no_answer(tmp_path: Path) -> None:
    images, answers = value("x", [1, 3, SIZE, SIZE]), value("out", [1, CLASSES])
    path = network(tmp_path / "m.onnx", inputs=[images], outputs=[answers])
    models = convert(Conversion(path, [1, 4], "cpu", tmp_path))
    assert onnx_file.read(tmp_path / "m_sim.onnx").batch is None
    for model in models:
        engine = open_engine(model.path)
        images = IMAGES[: model.batch]
        assert np.allclose(engine.run(images), expected_logits(images), atol=1e-4)


def test_a_batch_size_that_is_set_inside_compiles_for_that_alone(tmp_path: Path) -> None:
    path = network(
        tmp_path / "m.onnx",
        node("Reshape", ["logits", "pairs"], "p"),
        node("Softmax", "p", "q", axis=2),
        node("Reshape", ["q", "form"], "out", allowzero=0),
        inputs=[value("x", [1, 3, SIZE, SIZE])],
        outputs=[value("out", [1, CLASSES])],
        constants=[constant("form", [1, CLASSES], np.int64), constant("pairs", [1, 5, 2], np.int64)],
    )
    truth = open_engine(path).run(IMAGES[:1])
    (model,) = convert(Conversion(path, [1], "cpu", tmp_path))
    assert np.allclose(open_engine(model.path).run(IMAGES[:1]), truth, atol=1e-4)
    with pytest.raises(PipelineError, match=r"batch size is set to 1.* compiled for 4.*dynamic_axes=\{'x': \{0: 'N'\}"):
        convert(Conversion(path, [1, 4], "cpu", tmp_path))


def test_freeing_the_batch_is_refused_where_images_would_mix(tmp_path: Path) -> None:
    """A mean over axis 0 runs at any batch size, and is another function at each."""
    path = network(
        tmp_path / "m.onnx",
        node("ReduceMean", "logits", "mean", axes=[0], keepdims=1),
        node("Add", ["logits", "mean"], "out"),
        inputs=[value("x", [1, 3, SIZE, SIZE])],
        outputs=[value("out", [1, CLASSES])],
    )
    assert simplify.has_free_batch(onnx_file.read(path)) is False


def test_without_mean_and_std_nothing_is_baked_into_a_model(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx")
    with pytest.raises(PipelineError, match=r"m_sim\.onnx: does not say with which mean and std.*--arch"):
        convert(Conversion(path, [1], "cpu", tmp_path, dtype="uint8"))
    assert not (tmp_path / "m_bs1.xml").exists()
    (model,) = convert(Conversion(path, [4], "cpu", tmp_path, dtype="uint8", arch=str(card_of_size(tmp_path))))
    levels = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    found = open_engine(model.path).run(levels)
    assert np.allclose(found, expected_logits(levels.transpose(0, 3, 1, 2).astype(np.float32) / 255), atol=1e-4)
    assert sidecar.info_of(model.path)["mean"] == "[0.0, 0.0, 0.0]"


def test_a_card_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", metadata={"resnest.mean": "[0.5, 0.5, 0.5]"})
    arch = str(card_of_size(tmp_path))
    for use in (
        lambda: convert(Conversion(path, [1], "cpu", tmp_path, arch=arch)),
        lambda: predict(ModelChoice(path, arch=arch), [tmp_path / "a.png"]),
    ):
        with pytest.raises(ArgumentError, match=r"its mean is \[0\.5, 0\.5, 0\.5\], plain has"):
            use()


@pytest.mark.parametrize(
    ("key", "said", "expected"),
    [
        ("std", "[0.0, 0.0, 0.0]", "std above 0"),
        ("mean", "[0.5]", "three numbers"),
        ("mean", "[]", "three numbers"),
        ("std", "[" * 99999, "three numbers"),
        ("recipe", "nonsense", "recipe is 'nonsense', expected one of ecentercrop-bicubic"),
        ("recipe", None, r"\(recipe lacking\); name its network with --arch"),
    ],
)
def test_a_file_that_says_what_no_image_is_prepared_by_is_refused(
    key: str, said: str | None, expected: str, tmp_path: Path
) -> None:
    info = {"recipe": "resize-bilinear", "mean": "[0.5, 0.5, 0.5]", "std": "[1, 1, 1]", key: said}
    metadata = {f"resnest.{key}": value for key, value in info.items() if value is not None}
    path = network(tmp_path / "m.onnx", metadata=metadata)
    with pytest.raises(PipelineError, match=rf"m\.onnx: .*{expected}"):
        predict(ModelChoice(path), [tmp_path / "a.png"])


MIXING: dict[str, list[Any]] = {
    "a Softmax over the images": [node("Softmax", "logits", "out", axis=0)],
    "a mean over the images": [
        node("ReduceMean", "logits", "mean", axes=[0], keepdims=1),
        node("Sub", ["logits", "mean"], "out"),
    ],
}


@pytest.mark.parametrize("size", ["N", 1, 4])
@pytest.mark.parametrize("name", MIXING)
def test_a_network_that_answers_by_the_other_images_is_refused(name: str, size: str | int, tmp_path: Path) -> None:
    images, answers = value("x", [size, 3, SIZE, SIZE]), value("out", [size, CLASSES])
    path = network(tmp_path / "m.onnx", *MIXING[name], inputs=[images], outputs=[answers])
    for use in (
        lambda: open_engine(path),
        lambda: open_engine(path, "openvino"),
        lambda: convert(Conversion(path, [1], "cpu", tmp_path)),
    ):
        with pytest.raises(PipelineError, match=r"m\.onnx: its answer to an image .*axis 0"):
            use()
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]


def test_a_compiled_model_of_a_network_that_ends_in_softmax_says_so(tmp_path: Path) -> None:
    (model,) = convert(Conversion(ending("Softmax", tmp_path / "m.onnx"), [1], "cpu", tmp_path))
    assert sidecar.read(model.path)["answers"] == "probabilities"
    assert classifier.read(tmp_path / "m_sim.onnx").probabilities


# --- tensors of another type, where no tensors.json says it


def write_tensors(folder: Path, dtype: str, suffix: str = "bin") -> Path:
    folder.mkdir()
    for number in range(32):
        values = np.zeros((3, SIZE, SIZE), dtype)
        if suffix == "bin":
            values.tofile(folder / f"img{number}.bin")
        else:
            np.save(folder / f"img{number}.npy", values)
    return folder


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float64"])
def test_tensors_of_another_type_are_no_smaller_number_of_results(dtype: str, tmp_path: Path) -> None:
    source = write_tensors(tmp_path / "tensors", dtype)
    found = {"uint8": 192, "float16": 384, "float64": 1536}[dtype]
    with pytest.raises(PipelineError, match=rf"img0\.bin.*{found}|{found}.*img0\.bin"):
        infer(Inference(network(tmp_path / "m.onnx"), source, tmp_path / "out", batch=4))
    assert not list(tmp_path.glob("out*summary.json"))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tensors_of_floats_are_no_pixels(dtype: str, tmp_path: Path) -> None:
    path, card_file = network(tmp_path / "m.onnx"), str(card_of_size(tmp_path))
    (model,) = convert(Conversion(path, [4], "cpu", tmp_path, dtype="uint8", arch=card_file))
    with pytest.raises(PipelineError, match=r"img0\.bin"):
        infer(Inference(model.path, write_tensors(tmp_path / "tensors", dtype), tmp_path / "out"))


@pytest.mark.parametrize(
    ("dtype", "suffix", "refusal"),
    [
        ("uint8", "bin", r"img0\.bin: 192 bytes, an image takes 768 \(float32 \[3, 8, 8\]\)"),
        ("int32", "npy", r"img0\.npy: holds <i4, the model takes float32"),
        (">f4", "npy", r"img0\.npy: holds >f4, the model takes float32"),
        ("float64", "npy", r"img0\.npy: holds <f8"),
        ("float32", "npy", None),
        ("float32", "bin", None),
    ],
)
def test_ais_bench_is_not_given_tensors_of_another_type(
    dtype: str, suffix: str, refusal: str | None, tmp_path: Path
) -> None:
    (tmp_path / "m.om.json").write_text('{"dtype": "float32", "info": {"size": "8"}}')
    source = write_tensors(tmp_path / "tensors", dtype, suffix)
    if refusal is None:
        check_om_tensors(tmp_path / "m.om", source)
    else:
        with pytest.raises(PipelineError, match=refusal):
            check_om_tensors(tmp_path / "m.om", source)


@pytest.mark.parametrize(("dtype", "size"), [("float32", "abc"), ("float32", None), ("float31", "8"), (None, "8")])
def test_a_record_that_makes_no_sense_says_nothing_of_the_tensors(dtype: object, size: object, tmp_path: Path) -> None:
    (tmp_path / "m.om.json").write_text(json.dumps({"dtype": dtype, "info": {"size": size}}))
    check_om_tensors(tmp_path / "m.om", write_tensors(tmp_path / "tensors", "uint8", "bin"))
