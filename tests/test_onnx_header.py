"""What an ONNX file says of itself, read without the onnx package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ResNeSt.common.errors import PipelineError
from ResNeSt.formats import onnx_header
from ResNeSt.models.cards import card

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo network, exported, with one metadata entry of its own."""
    from ResNeSt.export.to_onnx import export

    path = tmp_path_factory.mktemp("header") / "demo.onnx"
    export(card("resnest_demo"), None, path, 96)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"note": "größer"})
    onnx.save(model, path)
    return path


def as_onnx_reads_it(path: Path) -> onnx_header.Header:
    model = onnx.load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    return onnx_header.Header(
        inputs=tuple(as_tensor(value) for value in model.graph.input if value.name not in weights),
        outputs=tuple(as_tensor(value) for value in model.graph.output),
        opset=next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        nodes=tuple(
            onnx_header.Node(node.name, node.op_type, node.domain, tuple(node.input), tuple(node.output), False)
            for node in model.graph.node
        ),
        domains=tuple(entry.domain for entry in model.opset_import),
        data_files=(),
    )


def as_tensor(value: Any) -> onnx_header.Tensor:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    shape = [d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param for d in tensor.shape.dim]
    return onnx_header.Tensor(value.name, dtype, tuple(shape))


def header_or_message(path: Path) -> onnx_header.Header | str:
    """The header, or the refusal; any other exception fails the test."""
    try:
        return onnx_header.read(path)
    except PipelineError as error:
        return str(error)


def test_an_exported_model_reads_as_with_the_onnx_package(exported: Path) -> None:
    found = onnx_header.read(exported)
    assert found == as_onnx_reads_it(exported)
    assert found.inputs == (onnx_header.Tensor("actual_input_1", "float32", ("N", 3, 96, 96)),)
    assert found.outputs == (onnx_header.Tensor("output1", "float32", ("N", 10)),)
    assert found.opset == 11
    assert found.metadata["note"] == "größer"


def test_weights_that_are_listed_as_inputs_are_left_out(exported: Path, tmp_path: Path) -> None:
    """ONNX files of IR version 3 list every weight among the inputs."""
    model = onnx.load(exported)
    weights = [onnx.helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in model.graph.initializer]
    model.graph.input.extend(weights)
    onnx.save(model, tmp_path / "old.onnx")
    assert [tensor.name for tensor in onnx_header.read(tmp_path / "old.onnx").inputs] == ["actual_input_1"]


shapes = st.lists(st.one_of(st.none(), st.integers(-1, 2**40), st.text("abN_", min_size=1, max_size=3)), max_size=5)
dtypes = st.sampled_from(["FLOAT", "UINT8", "INT8", "INT32", "INT64", "FLOAT16", "DOUBLE"])
tensors = st.lists(st.tuples(st.text(max_size=8), dtypes, shapes), max_size=3)


@given(inputs=tensors, outputs=tensors, opset=st.integers(1, 30), metadata=st.dictionaries(st.text(), st.text()))
@example(inputs=[("old", "FLOAT", [-1, 3, None, "W"])], outputs=[], opset=11, metadata={})
@settings(max_examples=60, deadline=None)
def test_any_header_reads_as_with_the_onnx_package(
    tmp_path_factory: pytest.TempPathFactory,
    inputs: list[Any],
    outputs: list[Any],
    opset: int,
    metadata: dict[str, str],
) -> None:
    make = [
        [
            onnx.helper.make_tensor_value_info(name, getattr(onnx.TensorProto, dtype), shape)
            for name, dtype, shape in side
        ]
        for side in (inputs, outputs)
    ]
    graph = onnx.helper.make_graph([], "graph", *make)
    domains = [onnx.helper.make_opsetid("com.other", 1), onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=domains)
    onnx.helper.set_model_props(model, metadata)
    path = tmp_path_factory.mktemp("any") / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert onnx_header.read(path) == as_onnx_reads_it(path)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_file_cut_short_is_refused_or_lacks_metadata_only(
    exported: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """The metadata stand last, an entry after the other: a cut between two entries leaves a valid file."""
    content = exported.read_bytes()
    size = data.draw(st.one_of(st.integers(0, len(content) - 1), st.integers(len(content) - 150, len(content) - 1)))
    path = tmp_path_factory.mktemp("cut") / "cut.onnx"
    path.write_bytes(content[:size])
    found = header_or_message(path)
    if isinstance(found, str):
        assert "cut.onnx: not a whole ONNX file" in found
    else:
        whole = onnx_header.read(exported)
        assert (found.inputs, found.outputs, found.opset) == (whole.inputs, whole.outputs, whole.opset)
        assert found.metadata.items() < whole.metadata.items()


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("random") / "noise.onnx"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=r"noise\.onnx"):
        onnx_header.read(path)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_never_ends_in_another_error(
    exported: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(exported.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "damaged.onnx"
    path.write_bytes(content)
    found = header_or_message(path)
    assert isinstance(found, onnx_header.Header) or "damaged.onnx: not a whole ONNX file" in found
