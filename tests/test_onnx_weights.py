"""Weights that lie beside an ONNX file: read wherever such a file is taken, refused by name where they do not fit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import sha256
from ResNeSt.formats import onnx_header
from ResNeSt.formats.onnx_weights import sha256_of_onnx, write_one_file
from ResNeSt.models import onnx_file
from ResNeSt.models.files import model_files
from tests.conftest import PROJECT, assert_refused, call

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

DEMO = PROJECT / "demo"
LABELS = f"--labels={DEMO / 'val_label.txt'}"


def beside(source: Path, target: Path, location: str | None = None, attributes: bool = False) -> Path:
    """Saves an ONNX file with all its weights in `<target>.data`, or what `location` names."""
    model = onnx.load(source)
    place = {"location": location or f"{target.name}.data", "size_threshold": 0, "convert_attribute": attributes}
    onnx.save(model, target, save_as_external_data=True, **place)
    return target


@pytest.fixture
def pair(demo_onnx: Path, tmp_path: Path) -> Path:
    """m.onnx, with its weights in m.onnx.data."""
    return beside(demo_onnx, tmp_path / "m.onnx")


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tensors of thirty of the demo's pictures."""
    folder = tmp_path_factory.mktemp("tensors")
    (folder / "pictures").mkdir()
    for picture in sorted((DEMO / "val").iterdir())[:30]:
        shutil.copy(picture, folder / "pictures")
    done = call("resnest_preprocess.py", folder / "pictures", folder / "prep", "--arch=resnest_demo")
    assert done.returncode == 0, done.stderr
    return folder / "prep"


def logits(path: Path) -> np.ndarray:
    images = np.random.default_rng(0).standard_normal((2, 3, 96, 96)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"actual_input_1": images})[0]
    return found


def test_the_header_is_that_of_the_same_model_write_one_file_and_names_the_data_file(
    demo_onnx: Path, pair: Path
) -> None:
    found, alone = onnx_header.read(pair), onnx_header.read(demo_onnx)
    assert (found.data_files, alone.data_files) == (("m.onnx.data",), ())
    assert (found.inputs, found.outputs, found.nodes, found.metadata) == (
        alone.inputs,
        alone.outputs,
        alone.nodes,
        alone.metadata,
    )
    assert model_files(pair) == [pair, pair.with_name("m.onnx.data")]


@pytest.mark.parametrize("attributes", [False, True])
def test_one_file_made_of_several_is_the_model_that_the_onnx_package_reads(
    attributes: bool, demo_onnx: Path, tmp_path: Path
) -> None:
    source = beside(demo_onnx, tmp_path / "m.onnx", attributes=attributes)
    write_one_file(source, tmp_path / "one.onnx")
    assert onnx.load(tmp_path / "one.onnx", load_external_data=False) == onnx.load(demo_onnx)
    assert np.array_equal(logits(tmp_path / "one.onnx"), logits(demo_onnx))


def test_weights_in_several_files_and_in_attributes_of_inner_graphs_are_found(tmp_path: Path) -> None:
    """A branch of an If holds a Constant in a file of its own."""

    def external(name: str, values: np.ndarray) -> Any:
        tensor = onnx.numpy_helper.from_array(values, name)
        (tmp_path / name).write_bytes(tensor.raw_data)
        onnx.external_data_helper.set_external_data(tensor, location=name, length=len(tensor.raw_data))
        tensor.ClearField("raw_data")
        return tensor

    inner = onnx.helper.make_node("Constant", [], ["c"], value=external("inner.bin", np.array([1, 2], np.float32)))
    out = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [2])
    branch = onnx.helper.make_graph([inner], "branch", [], [out])
    node = onnx.helper.make_node("If", ["flag.bin"], ["y"], then_branch=branch, else_branch=branch)
    flag = external("flag.bin", np.array(True))
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
    graph = onnx.helper.make_graph([node], "graph", [], [result], initializer=[flag])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 11)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    assert sorted(onnx_header.read(tmp_path / "m.onnx").data_files) == ["flag.bin", "inner.bin"]
    write_one_file(tmp_path / "m.onnx", tmp_path / "one.onnx")
    (tmp_path / "inner.bin").unlink()
    session = onnxruntime.InferenceSession(tmp_path / "one.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {})[0].tolist() == [1, 2]
    with pytest.raises(PipelineError, match=r"inner\.bin: no such file; it holds weights of .*m\.onnx"):
        onnx_header.read(tmp_path / "m.onnx")


def elsewhere(data: Path) -> None:
    data.rename(data.with_name("real.data"))
    data.symlink_to("real.data")


def dead_link(data: Path) -> None:
    elsewhere(data)
    data.with_name("real.data").unlink()


def folder_in_its_place(data: Path) -> None:
    data.unlink()
    data.mkdir()


def pipe_in_its_place(data: Path) -> None:
    data.unlink()
    os.mkfifo(data)


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "no such file"),
    "empty": (lambda data: data.write_bytes(b""), "cut short or of another model"),
    "one byte short": (lambda data: os.truncate(data, data.stat().st_size - 1), "cut short or of another model"),
    "one byte long": (lambda data: data.write_bytes(data.read_bytes() + b"x"), "of another model"),
    "longer": (lambda data: data.write_bytes(data.read_bytes() + bytes(70_000)), "of another model"),
    "link": (elsewhere, "is a link"),
    "dead link": (dead_link, "is a link"),
    "folder": (folder_in_its_place, "is not a file"),
    "pipe": (pipe_in_its_place, "is not a file"),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_data_file_that_is_not_the_model_s_is_refused_by_name(spoil: str, pair: Path) -> None:
    change, reason = SPOILED[spoil]
    change(pair.with_name("m.onnx.data"))
    with pytest.raises(PipelineError, match=rf"m\.onnx\.data: .*{reason}"):
        onnx_header.read(pair)


ELSEWHERE = [
    "../m.data",
    "/m.data",
    "sub/m.data",
    "..",
    "..m.data",
    ".m.data",
    "m.onnx.data/",
    "m.onnx.data/.",
    "",
    "/",
]


@pytest.mark.parametrize("location", [*ELSEWHERE, "*/_ORT_MEM_ADDR_/*"])
def test_weights_outside_the_model_s_own_folder_are_refused(location: str, pair: Path, tmp_path: Path) -> None:
    (tmp_path.parent / "m.data").write_bytes((tmp_path / "m.onnx.data").read_bytes())
    (tmp_path / "sub").mkdir()
    shutil.copy(tmp_path / "m.onnx.data", tmp_path / "sub/m.data")
    model = onnx.load(pair, load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    onnx.save(model, pair)
    with pytest.raises(PipelineError, match=r"m\.onnx: .*only a file in its own folder is read"):
        onnx_header.read(pair)


@pytest.mark.parametrize(
    ("key", "value"),
    [("length", "12"), ("length", "-1"), ("offset", "-4"), ("offset", "1e3"), ("offset", "9" * 30), ("location", "b")],
)
def test_a_place_that_makes_no_sense_is_refused(key: str, value: str, pair: Path) -> None:
    """The second location of one weight: runtimes do not agree on which of two counts."""
    model = onnx.load(pair, load_external_data=False)
    tensor = model.graph.initializer[0]
    if key != "location":
        kept = [entry for entry in tensor.external_data if entry.key != key]
        del tensor.external_data[:]
        tensor.external_data.extend(kept)
    tensor.external_data.add(key=key, value=value)
    onnx.save(model, pair)
    with pytest.raises(PipelineError, match=r"m\.onnx: not a whole ONNX file"):
        onnx_header.read(pair)


def varint(value: int) -> bytes:
    return bytes([*([value & 0x7F | 0x80] if value > 0x7F else []), value >> 7 if value > 0x7F else value])


def nested(*fields: tuple[int, bytes]) -> bytes:
    """A message of fields that hold bytes."""
    return b"".join(varint(number << 3 | 2) + varint(len(content)) + content for number, content in fields)


PLACE = nested((13, nested((1, b"location"), (2, b"../secret"))))
DISGUISED = {
    "a location beyond its range": PLACE + varint(14 << 3) + b"\x81\x80\x80\x80\x10",  # 2**32 + 1 is 1 to protobuf
    "a location of another wire type": PLACE + nested((14, b"\x01")),
    "a location said twice": PLACE + varint(14 << 3) + b"\x00" + varint(14 << 3) + b"\x01",
}


@pytest.mark.parametrize("tensor", DISGUISED.values(), ids=DISGUISED)
def test_what_other_parsers_take_for_a_location_elsewhere_is_refused(tensor: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(nested((7, nested((5, tensor))), (8, b"\x10\x0b")))
    with pytest.raises(PipelineError, match=r"m\.onnx: not a whole ONNX file \(a weight does not say in one way"):
        onnx_header.read(path)


def test_a_second_tensor_where_an_attribute_has_one_is_refused(tmp_path: Path) -> None:
    """protobuf merges the two: the first could say where, the second that it lies elsewhere."""
    attribute = nested((5, PLACE), (5, b"\x70\x01"))
    path = tmp_path / "m.onnx"
    path.write_bytes(nested((7, nested((1, nested((5, attribute))))), (8, b"\x10\x0b")))
    with pytest.raises(PipelineError, match=r"a second tensor where attribute has one"):
        onnx_header.read(path)


def test_an_empty_weight_in_an_empty_file_of_its_own_is_put_into_one_file(tmp_path: Path) -> None:
    empty = onnx.numpy_helper.from_array(np.empty(0, np.float32), "none")
    graph = onnx.helper.make_graph([], "graph", [], [], initializer=[empty])
    model = onnx.helper.make_model(graph)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location="none.bin", length=0)
    (tmp_path / "none.bin").touch()
    onnx.save(model, tmp_path / "m.onnx")
    write_one_file(tmp_path / "m.onnx", tmp_path / "one.onnx")
    (weight,) = onnx.load(tmp_path / "one.onnx").graph.initializer
    assert onnx.numpy_helper.to_array(weight).shape == (0,)


def test_a_checksum_that_the_file_gives_is_held_to(pair: Path) -> None:
    model = onnx.load(pair, load_external_data=False)
    data = pair.with_name("m.onnx.data").read_bytes()
    for tensor in model.graph.initializer:
        place = onnx.external_data_helper.ExternalDataInfo(tensor)
        part = data[place.offset or 0 :][: place.length]
        tensor.external_data.add(key="checksum", value=hashlib.sha1(part, usedforsecurity=False).hexdigest())
    onnx.save(model, pair)
    assert onnx_header.read(pair).data_files == ("m.onnx.data",)
    pair.with_name("m.onnx.data").write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(PipelineError, match=r"m\.onnx\.data: weight .* has another checksum"):
        onnx_header.read(pair)


def test_zeros_that_only_fill_up_the_last_block_are_taken(pair: Path) -> None:
    data = pair.with_name("m.onnx.data")
    data.write_bytes(data.read_bytes() + bytes(4096))
    assert onnx_header.read(pair).data_files == ("m.onnx.data",)


def test_a_model_is_another_one_when_its_data_file_is(pair: Path, demo_onnx: Path) -> None:
    before = sha256_of_onnx(pair)
    assert before != sha256(pair)
    assert sha256_of_onnx(demo_onnx) == sha256(demo_onnx)
    data = pair.with_name("m.onnx.data")
    content = data.read_bytes()
    data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert sha256_of_onnx(pair) != before


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_pair_is_read_or_refused_in_one_way(
    demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    path = beside(demo_onnx, folder / "m.onnx")
    content = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        onnx_header.read(path)
        write_one_file(path, folder / "one.onnx")
    except PipelineError as error:
        refused = str(error)
    else:
        refused = ""
    assert ("m.onnx" in refused) != (folder / "one.onnx").exists()


TAKERS = {
    "infer": ["-m", "ResNeSt.infer", "--model=m.onnx", "--input={tensors}", "--output=out", "--dymBatch=8"],
    "infer by OpenVINO": ["-m", "ResNeSt.infer", "--model=m.onnx", "--engine=openvino", "--input={tensors}"],
    "infer by nothing": ["-m", "ResNeSt.infer", "--model=m.onnx", "--engine=null", "--input={tensors}"],
    "evaluate": ["-m", "ResNeSt.evaluate", "--model=m.onnx", "--images={pictures}", LABELS, "--allow-missing"],
    "predict": ["-m", "ResNeSt.predict", "--model=m.onnx", "{pictures}"],
    "compare": ["-m", "ResNeSt.compare", "one.onnx", "m.onnx", "--tensors={tensors}", "--max-difference=1e-6"],
    "compare --layers": ["-m", "ResNeSt.compare", "--layers", "one.onnx", "m.onnx", "--tensors={tensors}"],
    "onnxsim by convert": ["convert.sh", "1", "cpu", "--onnx=m.onnx"],
    "int8": ["convert.sh", "1", "cpu", "--onnx=m.onnx", "--precision=int8", "--calibration={tensors}"],
    "convert": ["convert.sh", "1", "cpu", "--onnx=x.onnx"],
    "atc": ["convert.sh", "1", "310P3", "--onnx=x.onnx"],
    "amct": ["convert.sh", "1", "310P3", "--onnx=x.onnx", "--precision=int8", "--calibration={tensors}"],
}


@pytest.mark.heavy
@pytest.mark.parametrize("taker", TAKERS)
def test_whatever_takes_an_onnx_file_reads_its_weights_and_refuses_it_without_them(
    taker: str, demo_onnx: Path, tensors: Path, tmp_path: Path, standins: dict[str, str]
) -> None:
    shutil.copy(demo_onnx, tmp_path / "one.onnx")
    names = {"m.onnx", "x_sim.onnx"}
    for name in names:
        beside(demo_onnx, tmp_path / name)
    command = [part.format(tensors=tensors, pictures=tensors.parent / "pictures") for part in TAKERS[taker]]
    done = call(*command, cwd=tmp_path, env=standins)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in names:
        (tmp_path / f"{name}.data").unlink()
    assert_refused(call(*command, cwd=tmp_path, env=standins), ".onnx.data: no such file; it holds weights of")


@pytest.mark.heavy
def test_outputs_are_those_of_the_same_model_write_one_file(
    demo_onnx: Path, pair: Path, tensors: Path, tmp_path: Path
) -> None:
    for engine in ("onnxruntime", "openvino"):
        for model in (demo_onnx, pair):
            flags = [f"--model={model}", f"--input={tensors}", f"--output={tmp_path}", f"--engine={engine}"]
            done = call("-m", "ResNeSt.infer", *flags, f"--output_dirname={engine}_{model.stem}")
            assert done.returncode == 0, done.stderr
        ours, theirs = (sorted((tmp_path / f"{engine}_{stem}").iterdir()) for stem in ("m", demo_onnx.stem))
        assert len(ours) == 30
        assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]


@pytest.mark.heavy
def test_what_was_made_of_other_weights_is_made_anew(demo_onnx: Path, tensors: Path, tmp_path: Path) -> None:
    """The .onnx itself stays the same to the byte."""
    (tmp_path / "x_sim.onnx").touch()
    beside(demo_onnx, tmp_path / "x_sim.onnx")
    convert = ["convert.sh", "1", "cpu", "--onnx=x.onnx", "--precision=int8", f"--calibration={tensors}"]
    journal = ["-m", "ResNeSt.evaluate", "--model=x_sim.onnx", f"--images={tensors.parent / 'pictures'}", LABELS]
    journal += ["--allow-missing", "--predictions=p.jsonl"]
    for command in (convert, journal):
        done = call(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "x_bs1.xml: up to date" in call(*convert, cwd=tmp_path).stdout
    head = json.loads((tmp_path / "p.jsonl").read_text().splitlines()[0])
    data = tmp_path / "x_sim.onnx.data"
    assert head["model"] == {path.name: sha256(path) for path in (tmp_path / "x_sim.onnx", data)}
    content = data.read_bytes()
    data.write_bytes(content[:-4] + np.float32(0.25).tobytes())
    again = call(*convert, cwd=tmp_path).stdout
    assert "x_int8.onnx: quantized from x_sim.onnx" in again
    assert "up to date" not in again


def test_a_name_in_capitals_hides_no_weights(demo_onnx: Path, tmp_path: Path) -> None:
    beside(demo_onnx, tmp_path / "m.onnx")
    (tmp_path / "m.onnx").rename(tmp_path / "m.ONNX")
    before = sha256_of_onnx(tmp_path / "m.ONNX")
    data = tmp_path / "m.onnx.data"
    data.write_bytes(data.read_bytes()[:-4] + np.float32(0.25).tobytes())
    assert sha256_of_onnx(tmp_path / "m.ONNX") != before


def test_weights_with_a_second_name_elsewhere_are_read(demo_onnx: Path, tmp_path: Path) -> None:
    """As a backup by hard links leaves them; the onnx package refuses them."""
    beside(demo_onnx, tmp_path / "m.onnx")
    os.link(tmp_path / "m.onnx.data", tmp_path / "backup")
    found = onnx_file.load(tmp_path / "m.onnx")
    assert found == onnx.load(demo_onnx)


@pytest.mark.parametrize("taken", ["m_bs1.bin", "m_bs1.xml.json", "m_int8.onnx"])
def test_weights_that_lie_where_a_model_would_go_are_not_written_over(
    taken: str, demo_onnx: Path, tmp_path: Path
) -> None:
    beside(demo_onnx, tmp_path / "m_sim.onnx", location=taken)
    content = (tmp_path / taken).read_bytes()
    result = call("convert.sh", "1", "cpu", "--onnx=m.onnx", cwd=tmp_path)
    assert_refused(result, f"{taken}: is a part of m_sim.onnx, and would be written over")
    assert (tmp_path / taken).read_bytes() == content


@pytest.mark.parametrize("flags", [["cpu"], ["cpu", "--dry-run"], ["310P3", "--dry-run"]])
def test_weights_of_equal_size_from_another_network_are_found_out_by_their_answers(
    flags: list[str], demo_onnx: Path, tmp_path: Path
) -> None:
    shutil.copy(demo_onnx, tmp_path / "m.onnx")
    simplified = onnx.load(demo_onnx)
    onnx.helper.set_model_props(simplified, {"simplified_from": sha256(tmp_path / "m.onnx")})
    onnx.save(simplified, tmp_path / "made.onnx")
    beside(tmp_path / "made.onnx", tmp_path / "m_sim.onnx")
    data = tmp_path / "m_sim.onnx.data"
    values = np.fromfile(data, np.float32)
    values[100:][::-1].tofile(data.with_suffix(".tail"))
    data.write_bytes(values[:100].tobytes() + data.with_suffix(".tail").read_bytes())
    result = call("convert.sh", "1", *flags, "--onnx=m.onnx", cwd=tmp_path)
    assert_refused(result, "m_sim.onnx: gives other answers than m.onnx; delete m_sim.onnx and m_sim.onnx.data")


def test_the_one_file_that_a_compiler_wants_is_not_left_among_the_user_s(
    demo_onnx: Path, tmp_path: Path, standins: dict[str, str]
) -> None:
    beside(demo_onnx, tmp_path / "m_sim.onnx")
    before = {path.name for path in tmp_path.iterdir()}
    result = call("convert.sh", "1", "310P3", "--onnx=m.onnx", cwd=tmp_path, env=standins)
    assert result.returncode == 0, result.stderr
    assert {path.name for path in tmp_path.iterdir()} - before == {"m_bs1.om", "m_bs1.om.json"}
