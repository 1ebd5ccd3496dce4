"""What a request to the service may hold, without a network: what is wrong is told why, the next is answered."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.engines.opening import open_engine
from ResNeSt.images.decode import tensor_maker
from ResNeSt.models.cards import card
from ResNeSt.models.model_info import format_of
from ResNeSt.predict import predict
from ResNeSt.serve import __main__ as command
from ResNeSt.serve import model as served
from ResNeSt.serve import protocol
from ResNeSt.serve.errors import ModelError, RequestError
from ResNeSt.serve.model import ServedModel
from ResNeSt.serve.settings import Service, plain_name, port, size
from tests.conftest import PROJECT

PICTURES = sorted((PROJECT / "demo/val").iterdir())[:3]
SIDE = 96


@pytest.fixture(scope="module")
def compiled(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The demo at batch sizes 1 and 4."""
    return [model.path for model in convert(Conversion(demo_onnx, [1, 4], "cpu", tmp_path_factory.mktemp("compiled")))]


@pytest.fixture(scope="module")
def demo(compiled: list[Path]) -> Iterator[ServedModel]:
    opened = ServedModel("demo", [ModelChoice(file, instances=1) for file in compiled], 8)
    yield opened
    opened.batcher.close(5)


def answer(model: ServedModel, request: protocol.Request) -> list[protocol.Tensor]:
    """What the service does between the two protocols."""
    model.check_outputs(request.outputs)
    images = model.count(request.input)
    if request.input.datatype == protocol.BYTES:
        rows = model.empty(images)
        for content, row in zip(request.input.data, rows):
            model.decode(bytes(content), "picture 1 of 1", row)
    else:
        rows = model.rows(request.input)
    return model.outputs_of(request, model.batcher.submit(rows).result(10).logits)


def asked(head: Any, tail: bytes = b"") -> protocol.Request:
    return protocol.request_of(json.loads(json.dumps(head)), memoryview(tail))


def of_input(outputs: Any = None, **changes: Any) -> dict[str, Any]:
    """A request of one black image with these changes; None leaves a key out."""
    given = {"name": "actual_input_1", "datatype": "UINT8", "shape": [1, SIDE, SIDE, 3], "data": [0] * SIDE * SIDE * 3}
    given = {key: value for key, value in {**given, **changes}.items() if value is not None}
    return {"inputs": [given], **({"outputs": outputs} if outputs is not None else {})}


def of_pictures(*contents: bytes, outputs: Any = None) -> dict[str, Any]:
    data = [base64.b64encode(content).decode() for content in contents]
    return of_input(outputs, datatype="BYTES", shape=[len(contents)], data=data)


def test_a_picture_has_the_logits_of_its_file_to_the_last_bit_at_every_batch_size(
    demo: ServedModel, compiled: list[Path]
) -> None:
    make = tensor_maker(format_of(card("resnest_demo"), "float32"))
    rows = np.empty((4, 3, SIDE, SIDE), np.float32)
    for place, picture in enumerate([*PICTURES, PICTURES[-1]]):
        make(picture, rows[place])
    single, four = map(open_engine, compiled)
    alone, together = np.concatenate([single.run(row[None]) for row in rows]), four.run(rows)
    for count in (1, 3, 4):
        contents = [picture.read_bytes() for picture in [*PICTURES, PICTURES[-1]][:count]]
        (logits, probabilities) = answer(demo, asked(of_pictures(*contents)))
        (tensors, _) = answer(
            demo, asked(of_input(datatype="FP32", shape=[count, 3, SIDE, SIDE], data=rows[:count].tolist()))
        )
        for found in (logits, tensors):  # which sizes run is a matter of their speed
            assert all(
                np.array_equal(row, alone[place]) or np.array_equal(row, together[place])
                for place, row in enumerate(found.data)
            )
            assert len(found.data) == count
        assert np.allclose(np.sum(probabilities.data, axis=1), 1)


def test_pixels_of_a_crop_are_normalised_as_stage_1_does(demo: ServedModel) -> None:
    pixels = np.empty((1, SIDE, SIDE, 3), np.uint8)
    tensor_maker(format_of(card("resnest_demo"), "uint8"))(PICTURES[0], pixels[0])
    sent, _ = answer(demo, asked(of_input(data=pixels.tolist())))
    decoded, _ = answer(demo, asked(of_pictures(PICTURES[0].read_bytes())))
    assert np.array_equal(sent.data, decoded.data)


def test_classification_names_the_classes_that_predict_names(demo_onnx: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("".join(f"digit {number}\n" for number in range(10)))
    model = ServedModel("", [ModelChoice(demo_onnx, instances=1)], 8, names)
    try:
        outputs = [{"name": "probabilities", "parameters": {"classification": 3}}]
        (found,) = answer(model, asked(of_pictures(PICTURES[0].read_bytes(), outputs=outputs)))
    finally:
        model.batcher.close(5)
    (expected,) = predict(ModelChoice(demo_onnx), [PICTURES[0]], 3, names)
    told = [f"{guess.probability:f}:{guess.label}:{guess.name}".encode() for guess in expected.guesses]
    assert (found.datatype, found.shape, list(found.data)) == ("BYTES", (1, 3), told)
    assert model.name == "resnest_demo"  # as its file says
    assert model.metadata()["platform"] == "onnxruntime_onnx"


def test_more_images_than_the_largest_batch_have_an_answer_each(demo: ServedModel) -> None:
    contents = [picture.read_bytes() for picture in PICTURES]
    together, _ = answer(demo, asked(of_pictures(*contents, *contents)))
    assert together.shape == (6, 10)
    assert np.allclose(together.data[:3], together.data[3:], atol=1e-4)


def test_numbers_flat_nested_and_binary_are_the_same_tensor(demo: ServedModel) -> None:
    values = np.arange(SIDE * SIDE * 3, dtype=np.uint8).reshape(1, SIDE, SIDE, 3)
    flat = asked(of_input(data=values.ravel().tolist())).input
    nested = asked(of_input(data=values.tolist())).input
    sized = of_input(data=None, parameters={"binary_data_size": values.nbytes})
    binary = asked(sized, values.tobytes()).input
    for tensor in (flat, nested, binary):
        assert np.array_equal(np.asarray(tensor.data), values)


def test_elements_of_bytes_are_each_behind_their_length() -> None:
    tail = struct.pack("<I", 3) + b"abc" + struct.pack("<I", 0)
    head = of_input(datatype="BYTES", shape=[2], data=None, parameters={"binary_data_size": len(tail)})
    assert list(asked(head, tail).input.data) == [b"abc", b""]
    assert protocol.packed(protocol.Tensor("x", "BYTES", (2,), [b"abc", b""])) == tail


PIXELS = SIDE * SIDE * 3
WRONG: list[tuple[Any, str]] = [
    ([], "no JSON object"),
    ({}, "0 inputs, expected one"),
    ({"inputs": None}, "0 inputs"),
    ({"inputs": [1]}, "expected a list of objects"),
    ({"inputs": of_input()["inputs"] * 2}, "2 inputs, expected one"),
    ({**of_input(), "id": 7}, "id is 7, expected text"),
    ({**of_input(), "parameters": "x"}, "parameters is 'x', expected an object"),
    (of_input(name="image"), "no input 'image', expected 'actual_input_1'"),
    (of_input(name=7), "an input's name is 7"),
    (of_input(datatype="FP16"), "datatype 'FP16', expected one of FP32, UINT8, BYTES"),
    (of_input(datatype=["FP32"]), "expected one of FP32, UINT8, BYTES"),
    (of_input(datatype=None), "datatype None"),
    (of_input(shape=None), "shape None"),
    (of_input(shape=[]), r"shape \[\], expected whole numbers from 1"),
    (of_input(shape=[-1, SIDE, SIDE, 3]), r"shape \[-1, 96, 96, 3\], expected whole numbers from 1"),
    (of_input(shape=[0, SIDE, SIDE, 3], data=[]), r"shape \[0, 96, 96, 3\], expected"),
    (of_input(shape=[True, SIDE, SIDE, 3]), "expected whole numbers from 1"),
    (of_input(shape=[1.0, SIDE, SIDE, 3]), "expected whole numbers from 1"),
    (of_input(shape=[2**40, SIDE, SIDE, 3]), "expected whole numbers from 1"),
    (of_input(shape=[2, SIDE, SIDE, 3]), "takes 55,296 values, found 27,648"),
    (
        of_input(shape=[1, 3, SIDE, SIDE]),
        r"UINT8 \[1, 3, 96, 96\], expected FP32 \[N, 3, 96, 96\]; UINT8 \[N, 96, 96, 3\]",
    ),
    (of_input(shape=[PIXELS]), r"UINT8 \[27648\], expected"),
    (of_input(data=[[0, 1], [0]]), "ragged or holds other things than numbers"),
    (of_input(data=["a"] * PIXELS), "other things than numbers"),
    (of_input(data=[None] * PIXELS), "other things than numbers"),
    (of_input(data=[True] * PIXELS), "other things than numbers"),
    (of_input(data=[10**400] * PIXELS), "other things than numbers"),
    (of_input(data=7), "data is 7, expected a list"),
    (of_input(data=[256] * PIXELS), "whole numbers from 0 to 255"),
    (of_input(data=[-1] * PIXELS), "whole numbers from 0 to 255"),
    (of_input(data=[0.5] * PIXELS), "whole numbers from 0 to 255"),
    (of_input(data=[float("nan")] * PIXELS), "whole numbers from 0 to 255"),
    (of_input(datatype="FP32", shape=[1, 3, SIDE, SIDE], data=[1e39] * PIXELS), "image 1 of 1 has NaN or infinity"),
    (of_input(datatype="FP32", shape=[1, 3, SIDE, SIDE], data=[float("nan")] * PIXELS), "image 1 of 1 has NaN"),
    (of_input(data=None), "expected either data or the parameter binary_data_size"),
    (of_input(parameters={"binary_data_size": 4}), "expected either data or"),
    (of_input(data=None, parameters={"binary_data_size": -4}), "binary_data_size is -4, the body has 0"),
    (of_input(data=None, parameters={"binary_data_size": "4"}), "parameter binary_data_size is '4', expected int"),
    (of_input(data=None, parameters={"shared_memory_region": "a"}), "shared memory is not offered"),
    (of_input(datatype="BYTES", shape=[2], data=["aaaa"]), "takes 2 elements, found 1"),
    (of_input(datatype="BYTES", shape=[1], data=["%"]), "is '%', expected base64"),
    (of_input(datatype="BYTES", shape=[1], data=[7]), "is 7, expected base64"),
    (of_input(datatype="BYTES", shape=[1, 2], data=["aaaa", "aaaa"]), r"shape \[1, 2\] of BYTES, expected \[N\]"),
    (of_pictures(*[b"x"] * 9), "9 images in a request, expected at most 8"),
    (of_pictures(b""), "picture 1 of 1: not an image in a format that Pillow knows"),
    (of_pictures(PICTURES[0].read_bytes()[:300]), "picture 1 of 1: cannot be decoded"),
    (of_input([{"name": "logits"}]), "no output 'logits', expected 'output1' or 'probabilities'"),
    (of_input([{"name": "output1"}, {"name": "output1"}]), "'output1' is asked for twice"),
    (of_input([{}]), "an output's name is None"),
    (of_input([{"name": "output1", "parameters": {"classification": 0}}]), "classification is 0, expected how many"),
    (of_input([{"name": "output1", "parameters": {"classification": "5"}}]), "classification is '5', expected int"),
]


def test_what_is_wrong_with_a_request_is_said_and_the_next_one_is_answered(demo: ServedModel) -> None:
    for head, words in WRONG:
        with pytest.raises(RequestError, match=words) as caught:
            answer(demo, asked(head))
        assert (caught.value.http, caught.value.grpc) == (400, "INVALID_ARGUMENT")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    assert answer(demo, asked(of_input()))[0].shape == (1, 10)


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (bytes(PIXELS - 1), "binary_data_size is 27648, the body has 27647 bytes"),
        (bytes(PIXELS + 1), "binary_data_size is 27648, the body has 27649 bytes"),
    ],
)
def test_binary_data_is_as_long_as_it_says(tail: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        asked(of_input(data=None, parameters={"binary_data_size": PIXELS}), tail)
    with pytest.raises(RequestError, match="takes 27,648 bytes, found"):
        asked(of_input(data=None, parameters={"binary_data_size": len(tail)}), tail)
    with pytest.raises(RequestError, match="end within an element"):
        asked(of_input(datatype="BYTES", shape=[1], data=None, parameters={"binary_data_size": 6}), b"\x05\0\0\0ab")


def test_a_small_file_of_very_many_pixels_is_refused_by_its_header(demo: ServedModel) -> None:
    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, "PNG")
    assert len(file.getvalue()) < 1 << 20
    with pytest.raises(RequestError, match=r"9,000 x 9,000 pixels, expected at most 67,108,864; send it smaller"):
        answer(demo, asked(of_pictures(file.getvalue())))


def test_a_model_that_gives_nan_is_an_error_of_the_model(demo: ServedModel) -> None:
    with pytest.raises(ModelError, match="the model gives NaN or infinity"):
        demo.outputs_of(asked(of_input()), np.full((1, 10), np.nan, np.float32))


def test_files_of_other_models_or_of_one_size_twice_are_not_served_together(compiled: list[Path]) -> None:
    first = ModelChoice(compiled[0], instances=1)
    other = ModelChoice(compiled[1], engine="null", instances=1)  # the same input, and other answers
    for second, words in ((other, "_bs4.xml: is another model than"), (first, "is for a batch of 1, as another")):
        with pytest.raises(ArgumentError, match=words):
            ServedModel("", [first, second], 8)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": "0.0.0.0"}, "others could ask there; name a --token-file, or say --no-auth"),  # noqa: S104
        ({"host": "::"}, "others could ask there"),
        ({"host": "0"}, "others could ask there"),
        ({"host": ""}, "--host '' is no address"),
        ({"host": "no.such.host.invalid"}, "is no address of this machine"),
        ({"name": "a/b"}, "--name 'a/b', expected letters"),
        ({"token_file": "t", "no_auth": True}, "contradict each other"),
        ({"http_port": 9000, "grpc_port": 9000}, "are both 9000"),
        ({"models": []}, "no model files"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_listens(changes: dict[str, Any], words: str) -> None:
    service = Service(**{"models": [ModelChoice("m.xml")], **changes})
    with pytest.raises(ArgumentError, match=words):
        service.check()


def test_beyond_loopback_it_takes_a_token_or_the_word_that_none_is_asked_for(tmp_path: Path) -> None:
    assert Service([ModelChoice("m")], host="localhost").address() in ("127.0.0.1", "::1")
    assert Service([ModelChoice("m")], host="0.0.0.0", no_auth=True).address() == "0.0.0.0"  # noqa: S104
    (tmp_path / "token").write_text("0123456789abcdef\n")
    with_token = Service([ModelChoice("m")], host="0.0.0.0", token_file=tmp_path / "token")  # noqa: S104
    assert (with_token.address(), with_token.token()) == ("0.0.0.0", "0123456789abcdef")  # noqa: S104


@pytest.mark.parametrize(
    "text", ["", "\n", "short", "two words of a token", "0123456789abcdef\nsecond line 0123", "é" * 20]
)
def test_a_token_file_holds_a_token(text: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(PipelineError, match="token: holds no token; expected one line of 16 or more"):
        Service([ModelChoice("m")], token_file=tmp_path / "token").check()


def test_the_token_counts_behind_the_scheme_bearer_alone() -> None:
    pytest.importorskip("prometheus_client", reason="no requirements/serve.txt")
    from ResNeSt.serve.answering import Answering

    nothing: Any = None
    answering = Answering(nothing, nothing, 1, "secret")
    assert [answering.knows(each) for each in ("Bearer secret", b"bearer secret")] == [True, True]
    assert not any(map(answering.knows, (None, "secret", "Basic secret", " secret", "Bearer secre", "Bearer é")))


def test_the_command_refuses_before_it_looks_for_the_packages_and_names_the_file_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["serve", "--model=m.xml", "--host=0.0.0.0"])
    with pytest.raises(ArgumentError, match="name a --token-file"):
        command.main()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["serve", "--model=m.xml"])
    with pytest.raises(MissingRuntimeError, match=r"pip install -r requirements/serve\.txt"):
        command.main()


def test_its_help_says_how_many_instances_it_runs_unless_told() -> None:
    parser = command.make_parser()
    assert parser.parse_args(["--model=m.xml"]).instances == 1
    assert "how many of the model run side by side [1]" in " ".join(parser.format_help().split())


def test_sizes_and_ports_are_read_as_people_write_them() -> None:
    assert [size(text) for text in ("1", "32MB", "32mb", "32 MB", "32MiB", "32M", "1GB", "4K")] == [
        *(1, 32 << 20, 32 << 20, 32 << 20, 32 << 20, 32 << 20, 1 << 30, 4096)
    ]
    for text in ("0", "-1", "MB", "2GB", "1.5MB", "32TB", "", "9" * 30):
        with pytest.raises(Exception, match="is no size from 1B to 1GB"):
            size(text)
    assert (port("0"), port("65535")) == (0, 65535)
    for text in ("65536", "-1", "http", ""):
        with pytest.raises(Exception, match="is no port"):
            port(text)


def test_a_network_that_does_not_say_how_pictures_are_prepared_takes_tensors(demo: ServedModel) -> None:
    assert [str(takes) for takes in served._takes(demo.input, None)] == ["FP32 [N, 3, 96, 96]"]


@pytest.mark.parametrize("values", [[True, 0.5], [[0.5, False]], [[[1, 2], [True, 3]]]])
def test_true_and_false_are_no_numbers(values: list[object]) -> None:
    shape = np.asarray(values).shape
    with pytest.raises(RequestError, match="other things than numbers"):
        protocol.of_values("x", "FP32", shape, values)


def test_an_output_says_itself_whether_it_is_binary_and_else_the_request_does() -> None:
    outputs = [{"name": "output1", "parameters": {"binary_data": False}}, {"name": "probabilities"}]
    request = protocol.request_of({**of_input(outputs), "parameters": {"binary_data_output": True}}, memoryview(b""))
    assert [output.binary for output in request.outputs] == [False, True]


@pytest.mark.parametrize("field", ["id", "inputs", "outputs", "parameters"])
def test_a_field_of_another_kind_is_refused_though_python_takes_it_for_nothing(field: str) -> None:
    with pytest.raises(RequestError, match=f"{field} is 0, expected"):
        protocol.request_of({"inputs": of_input()["inputs"], field: 0}, memoryview(b""))


def test_a_name_from_a_file_fits_into_a_url() -> None:
    assert [plain_name(name) for name in ("a/b (1)", "../x", "resnest50.v1")] == ["a_b__1_", "x", "resnest50.v1"]


def test_weights_that_are_written_over_do_not_change_a_model_that_runs(compiled: list[Path], tmp_path: Path) -> None:
    for file in (compiled[0], compiled[0].with_suffix(".bin")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    engine = open_engine(tmp_path / compiled[0].name, batch=1)
    image = np.ones(engine.input.shape, np.float32)
    before = engine.run(image)
    weights = tmp_path / compiled[0].with_suffix(".bin").name
    with weights.open("r+b") as opened:
        opened.write(bytes(weights.stat().st_size))
    assert np.array_equal(engine.run(image), before)
