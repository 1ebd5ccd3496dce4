"""`python -m ResNeSt.serve export`: what Triton is told of a model, and that nothing of the user's is lost."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.serve.export import export
from tests.conftest import Completed, assert_refused, call

NAMES = ["zero", "one", "two", 'three "3"', "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("names") / "names.txt"
    path.write_text("".join(f"{name}\n" for name in NAMES))
    return path


def compiled(onnx: Path, folder: Path, batch: int) -> Path:
    """The network in OpenVINO's IR, for that batch size or, with -1, any."""
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(onnx)
    model.reshape([batch, 3, 96, 96])
    path = folder / f"digits_bs{batch}.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def listed(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def dims(config: str) -> list[list[int]]:
    """Of input and output."""
    return [json.loads(found) for found in re.findall(r"dims: (\[.*\])", config)]


def test_an_onnx_file_gets_a_free_batch_axis_and_dynamic_batching(demo_onnx: Path, names: Path, tmp_path: Path) -> None:
    done = export(demo_onnx, tmp_path / "repo", "digits", names, max_batch=32)
    folder = tmp_path / "repo/digits"
    assert (done.folder, done.name, done.batch) == (folder, "digits", 32)
    files = ["1/model.onnx", "config.pbtxt", "inferenceservice.yaml", "labels.txt", "resnest.json"]
    assert listed(folder) == files
    assert listed(tmp_path / "repo") == [f"digits/{file}" for file in files]  # nothing else is left in the repository
    assert (folder / "1/model.onnx").read_bytes() == demo_onnx.read_bytes()
    assert (folder / "labels.txt").read_text().splitlines() == NAMES
    config = (folder / "config.pbtxt").read_text()
    assert dims(config) == [[3, 96, 96], [10]]
    for line in (
        'backend: "onnxruntime"',
        "max_batch_size: 32",
        "dynamic_batching { }",
        'label_filename: "labels.txt"',
    ):
        assert line in config
    assert "recipe ecentercrop-bicubic, mean [0.485, 0.456, 0.406]" in config


def test_an_onnx_file_of_a_set_batch_keeps_it(demo_onnx: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(demo_onnx)
    for end in (model.graph.input[0], model.graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, tmp_path / "two.onnx")
    config = (export(tmp_path / "two.onnx", tmp_path / "repo").folder / "config.pbtxt").read_text()
    assert dims(config) == [[2, 3, 96, 96], [2, 10]]
    assert "max_batch_size: 0" in config
    assert "dynamic_batching" not in config


@pytest.mark.parametrize("batch", [1, 4, -1])
def test_a_compiled_model_keeps_its_own_batch(batch: int, demo_onnx: Path, names: Path, tmp_path: Path) -> None:
    model = compiled(demo_onnx, tmp_path, batch)
    folder = export(model, tmp_path / "repo", names=names).folder
    assert folder.name == f"digits_bs{batch}"
    config = (folder / "config.pbtxt").read_text()
    assert dims(config) == [[batch, 3, 96, 96], [batch, 10]]
    assert 'backend: "openvino"' in config
    assert "max_batch_size: 0" in config
    assert "dynamic_batching" not in config
    assert (folder / "1/model.bin").read_bytes() == model.with_suffix(".bin").read_bytes()
    # Without a batch axis of its own Triton ranks all ten or forty values together: labels would be of another class.
    assert ("label_filename" in config) == (folder / "labels.txt").exists() == (batch == 1)


def test_weights_beside_an_onnx_file_go_into_it(demo_onnx: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    beside = tmp_path / "beside.onnx"
    onnx.save(onnx.load(demo_onnx), beside, save_as_external_data=True, location="weights", size_threshold=0)
    folder = export(beside, tmp_path / "repo").folder
    assert listed(folder / "1") == ["model.onnx"]
    ours, theirs = (onnx.load(path).graph.initializer for path in (folder / "1/model.onnx", demo_onnx))
    for one, other in zip(ours, theirs):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(other))


def test_kserve_gets_a_name_that_it_takes(demo_onnx: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    text = (export(demo_onnx, repository, "2_Digits.v1").folder / "inferenceservice.yaml").read_text()
    assert 'name: "model-2-digits-v1"' in text


def test_an_export_is_replaced_by_the_next_and_by_nothing_else(demo_onnx: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    folder = export(demo_onnx, repository, "digits").folder
    assert export(demo_onnx, repository, "digits", max_batch=4).batch == 4
    assert "max_batch_size: 4" in (folder / "config.pbtxt").read_text()
    mine = {
        "config.pbtxt": "was changed since",
        "2/model.onnx": "was not written by this command",
        "notes": "was not written by this command",
    }
    for name, words in mine.items():
        path = folder / name
        before = path.read_bytes() if path.exists() else None
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
        with pytest.raises(PipelineError, match=f"{name}: {words}"):
            export(demo_onnx, repository, "digits")
        assert path.read_text() == "mine"
        path.unlink()
        if before is not None:
            path.write_bytes(before)
        elif path.parent != folder:
            path.parent.rmdir()
    assert export(demo_onnx, repository, "digits").batch == 16


def test_the_command_tells_its_errors_in_one_line(demo_onnx: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> Completed:
        return call("-m", "ResNeSt.serve", "export", "--model", *arguments)

    (tmp_path / "file").touch()
    (tmp_path / "cut.onnx").write_bytes(demo_onnx.read_bytes()[:1000])
    done = run(demo_onnx, "--target", tmp_path / "repo", "--name", "digits")
    assert done.stdout.startswith(f"{tmp_path}/repo/digits: digits for Triton"), done.stderr
    assert_refused(run(demo_onnx, "--target", tmp_path / "file"), "file: is no folder")
    assert_refused(run(tmp_path / "cut.onnx", "--target", tmp_path / "repo"), "cut.onnx: not a whole ONNX file")
    assert_refused(run(tmp_path / "m.om", "--target", tmp_path / "repo"), "no backend for it", code=2)
    assert [path.name for path in (tmp_path / "repo").iterdir()] == ["digits"]


@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_what_no_export_wrote_stays(kind: str, demo_onnx: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    taken = repository / "digits"
    repository.mkdir()
    if kind == "folder":
        taken.mkdir()
    elif kind == "file":
        taken.write_text("mine")
    else:
        taken.symlink_to(export(demo_onnx, tmp_path / "elsewhere", "digits").folder)
    with pytest.raises(PipelineError, match=r"digits: no resnest.json in it says that this command made it; move"):
        export(demo_onnx, repository, "digits")
    assert [path.name for path in repository.iterdir()] == ["digits"]


def test_what_triton_cannot_run_is_refused_with_what_to_do(
    demo_onnx: Path, demo_checkpoint: Path, tmp_path: Path
) -> None:
    om = tmp_path / "m.om"
    om.touch()
    with pytest.raises(ArgumentError, match=r"m.om: .*no backend for it; serve it with python -m ResNeSt.serve"):
        export(om, tmp_path / "repo")
    with pytest.raises(ArgumentError, match=r"resnest_pth2onnx.py first"):
        export(demo_checkpoint, tmp_path / "repo")
    with pytest.raises(ArgumentError, match=r"--name '../x', expected letters"):
        export(demo_onnx, tmp_path / "repo", "../x")
    with pytest.raises(ArgumentError, match=r"--max-batch is for an .onnx file with a free batch axis"):
        export(compiled(demo_onnx, tmp_path, 1), tmp_path / "repo", max_batch=8)
    assert not (tmp_path / "repo").exists()


def test_tritons_own_definition_takes_the_configuration(demo_onnx: Path, names: Path, tmp_path: Path) -> None:
    model_config_pb2: Any = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="no tritonclient")
    text_format: Any = pytest.importorskip("google.protobuf.text_format")
    folder = export(demo_onnx, tmp_path / "repo", names=names).folder
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.HasField("dynamic_batching")
    assert [(end.name, list(end.dims)) for end in (*config.input, *config.output)] == [
        ("actual_input_1", [3, 96, 96]),
        ("output1", [10]),
    ]


@pytest.mark.heavy
def test_a_real_tritonserver_takes_all_but_the_backends_that_it_lacks(demo_onnx: Path, tmp_path: Path) -> None:
    """NVIDIA's binary without a backend for ONNX or OpenVINO, as nvidia-pytriton brings it."""
    found = importlib.util.find_spec("pytriton")
    if found is None or found.origin is None:
        pytest.skip("no nvidia-pytriton")
    package, port = Path(found.origin).parent, 18463
    repository = tmp_path / "repo"
    for model in (demo_onnx, compiled(demo_onnx, tmp_path, 1), compiled(demo_onnx, tmp_path, -1)):
        export(model, repository)
    flags = [f"--model-repository={repository}", f"--backend-directory={package / 'tritonserver/backends'}"]
    flags += ["--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false"]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(package.parent / "nvidia_pytriton.libs")}
    with subprocess.Popen(
        [package / "tritonserver/bin/tritonserver", *flags, "--exit-on-error=false"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            index = json.loads(asked(f"http://127.0.0.1:{port}/v2/repository/index"))
        finally:
            server.terminate()
    missing = "unable to find backend library for backend"
    assert sorted(entry["name"] for entry in index) == ["digits_bs-1", "digits_bs1", "resnest_demo"]
    assert all(missing in entry["reason"] for entry in index), index


def asked(url: str, seconds: float = 20) -> bytes:
    """What a server answers as soon as it does."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data=b""), timeout=5) as answer:  # noqa: S310
                return bytes(answer.read())
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
