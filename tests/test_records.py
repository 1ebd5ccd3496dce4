"""Whether a file is what it was: records beside models, metadata in ONNX files."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.progress import silent
from ResNeSt.convert.compile import Compilation, _is_current, _made_of
from ResNeSt.convert.conversion import Conversion, resolved
from ResNeSt.convert.gate import Gate
from ResNeSt.engines.opening import open_engine
from ResNeSt.infer.client import check_om_tensors
from ResNeSt.models import onnx_file, sidecar
from ResNeSt.models.files import check_record, digests
from ResNeSt.models.onnx_file import Network
from ResNeSt.tensors.folder import TensorFile
from tests.conftest import call

MADE_OF = {"source": "abc", "batch": 4}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.om"
    path.write_bytes(b"model")
    sidecar.write(path, {**MADE_OF, "info": {"model": "resnest50"}})
    return path


def test_a_record_lies_beside_its_model_and_says_what_was_written(model: Path) -> None:
    assert sidecar.path_of(model) == model.with_name("m.om.json")
    assert sidecar.read(model)["batch"] == 4
    assert sidecar.info_of(model) == {"model": "resnest50"}
    assert sidecar.holds(model, MADE_OF)


@pytest.mark.parametrize("other", [{"source": "abd", "batch": 4}, {"source": "abc", "batch": 5}, {"dtype": "uint8"}])
def test_a_record_of_something_else_does_not_hold(other: dict[str, object], model: Path) -> None:
    assert not sidecar.holds(model, other)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', "{}"])
def test_a_damaged_record_holds_nothing(content: str, model: Path) -> None:
    sidecar.path_of(model).write_text(content)
    assert not sidecar.holds(model, MADE_OF)


def test_a_model_that_is_gone_or_lost_its_record_holds_nothing(model: Path) -> None:
    sidecar.remove(model)
    assert (sidecar.read(model), sidecar.info_of(model)) == ({}, {})
    assert not sidecar.holds(model, MADE_OF)
    sidecar.write(model, MADE_OF)
    model.unlink()
    assert not sidecar.holds(model, MADE_OF)


def test_an_onnx_file_holds_what_its_metadata_say_and_not_what_they_must_not(demo_onnx: Path, tmp_path: Path) -> None:
    says = {"resnest.model": "resnest_demo", "resnest.size": "96"}
    assert onnx_file.holds(demo_onnx, says)
    assert onnx_file.holds(demo_onnx, {**says, "resnest.class_names": None})
    assert not onnx_file.holds(demo_onnx, {**says, "resnest.size": "64"})
    assert not onnx_file.holds(demo_onnx, {**says, "resnest.model": None})
    assert not onnx_file.holds(tmp_path / "none.onnx", {})
    (tmp_path / "cut.onnx").write_bytes(demo_onnx.read_bytes()[:1000])
    with pytest.raises(PipelineError, match=r"cut\.onnx: not a whole ONNX file"):
        onnx_file.holds(tmp_path / "cut.onnx", says)


def test_a_conversion_is_asked_for_as_a_user_types_it() -> None:
    conversion = resolved(Conversion(Path("m.onnx"), [8, 1, 8], "Ascend310p3"))
    assert (conversion.chip, conversion.batches, conversion.precision) == ("310P3", [8, 1], "fp16")
    for batches, chip, precision in (([], "cpu", None), ([0], "cpu", None), ([1], "x", None), ([1], "cpu", "fp16")):
        with pytest.raises(ArgumentError):
            resolved(Conversion(Path("m.onnx"), batches, chip, precision=precision))


def test_every_command_line_says_its_own_name(tmp_path: Path) -> None:
    for script in ("resnest_preprocess.py", "resnest_pth2onnx.py", "ResNeSt_postprocess.py", "resnest_train.py"):
        assert call(script, "--help", cwd=tmp_path).stdout.startswith(f"usage: {script} ")


def test_a_compiled_model_is_current_until_anything_that_it_depends_on_changes(tmp_path: Path) -> None:
    network = Network(Path("m.onnx"), "x", 8, 8, None, None, None, False, {"model": "resnest50"})
    compilation = Compilation(network, "m", tmp_path, "310P3", "float32", "fp16", None, silent)

    def compiled(of: Compilation, batch: int, **told: object) -> Path:
        target = of.target(batch)
        target.write_bytes(b"model")
        files = {target.name: hashlib.sha256(b"model").hexdigest()}
        sidecar.write(target, {**_made_of(of, 4, "abc"), "files": files, **told})
        return target

    target = compiled(compilation, 4)
    assert _is_current(compilation, 4, "abc")
    assert not _is_current(compilation, 4, "abd")
    changes: list[dict[str, Any]] = [
        {"chip": "910B3"},
        {"dtype": "uint8"},
        {"precision": "mixed"},
        {"network": dataclasses.replace(network, info={"model": "resnest101"})},
    ]
    for change in changes:
        assert not _is_current(dataclasses.replace(compilation, **change), 4, "abc"), change
    compiled(compilation, 8)  # a record of batch 4
    assert not _is_current(compilation, 8, "abc")
    target.write_bytes(b"ledom")
    assert not _is_current(compilation, 4, "abc")


def test_a_judged_model_is_current_as_long_as_the_same_tensors_and_bar_take_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.bin").write_bytes(name.encode())
    network = Network(Path("m.onnx"), "x", 8, 8, None, None, None, False, {})

    def judged_by(name: str, minimum: float) -> Compilation:
        gate = Gate(network, [TensorFile(str(tmp_path / f"{name}.bin"))], minimum)
        return Compilation(network, "m", tmp_path, "310P3", "float32", "int8", None, silent, gate)

    target = judged_by("a", 0.9).target(1)
    target.write_bytes(b"model")
    files = {target.name: hashlib.sha256(b"model").hexdigest()}
    judged = {"agreement": 0.9, "distance": 0.1}
    sidecar.write(target, {**_made_of(judged_by("a", 0.9), 1, "abc"), "files": files, **judged})
    assert _is_current(judged_by("a", 0.9), 1, "abc")
    assert _is_current(judged_by("a", 0.5), 1, "abc")
    assert not _is_current(judged_by("a", 0.91), 1, "abc")
    assert not _is_current(judged_by("b", 0.9), 1, "abc")


@pytest.mark.parametrize(("model", "weights"), [("m.xml", "m.bin"), ("m.om", None)])
def test_a_model_that_is_not_the_one_its_record_is_of_is_not_run(
    model: str, weights: str | None, tmp_path: Path
) -> None:
    """Such as weights of another training of the same network, copied without the rest: every runtime takes them."""
    path = tmp_path / model
    swapped = tmp_path / (weights or model)
    path.write_bytes(b"graph")
    swapped.write_bytes(b"weights")
    sidecar.write(path, {"files": digests(path)})
    check_record(path)
    swapped.write_bytes(b"of another")
    runs: Callable[[], object] = (lambda: open_engine(path)) if weights else (lambda: check_om_tensors(path, tmp_path))
    with pytest.raises(PipelineError, match=rf"{model}: it .*is not as convert.sh left it; copy .* with {model}.json"):
        runs()
    sidecar.remove(path)
    check_record(path)
