"""The service, asked by programs of others: Triton's clients over REST and gRPC, curl, a browser."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.predict import Answer, predict
from tests.chromium import browser
from tests.conftest import PROJECT

pytestmark = pytest.mark.heavy
TOKEN = "0123456789abcdef"  # noqa: S105
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


class Asked(NamedTuple):
    """Where the service listens, and what it was started with."""

    rest: str
    grpc: str
    names: Path


@pytest.fixture(scope="module")
def service(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """The command itself on the demo network, with a token."""
    for package in ("starlette", "uvicorn", "grpc", "prometheus_client"):
        pytest.importorskip(package, reason="no requirements/serve.txt")
    folder = tmp_path_factory.mktemp("service")
    names, token = folder / "names.txt", folder / "token"
    names.write_text("".join(f"{name}\n" for name in NAMES))
    token.write_text(TOKEN)
    flags = ["--model", demo_onnx, "--names", names, "--token-file", token, "--http-port", "0", "--grpc-port", "0"]
    command = [sys.executable, "-m", "ResNeSt.serve", *map(str, flags)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"REST http://(\S+), gRPC (\S+)", process.stdout.readline())
        assert found, "the service has not said where it listens"
        yield Asked(found[1], found[2], names)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.fixture(scope="module")
def photographs() -> list[Path]:
    return sorted((PROJECT / "demo/val").iterdir())[:3]


@pytest.fixture(scope="module")
def expected(service: Asked, demo_onnx: Path, photographs: list[Path]) -> list[Answer]:
    """What `python -m ResNeSt.predict` says of them."""
    return list(predict(ModelChoice(demo_onnx), photographs, top=3, names=service.names))


def client(kind: str, service: Asked) -> tuple[Any, Any, dict[str, Any]]:
    """Triton's module for a protocol, a client, and what goes with every request."""
    module = pytest.importorskip(f"tritonclient.{kind}", reason=f"no tritonclient[{kind}]")
    made = module.InferenceServerClient(service.rest if kind == "http" else service.grpc)
    name = "Authorization" if kind == "http" else "authorization"
    return module, made, {"headers": {name: f"Bearer {TOKEN}"}}


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritons_clients_send_photographs_and_get_the_classes_of_predict(
    kind: str, service: Asked, photographs: list[Path], expected: list[Answer]
) -> None:
    module, asking, headers = client(kind, service)
    assert asking.is_server_live(**headers)
    assert asking.is_model_ready("resnest_demo", **headers)
    photos = np.array([path.read_bytes() for path in photographs], dtype=object)
    given = module.InferInput("actual_input_1", [len(photos)], "BYTES")
    given.set_data_from_numpy(photos)
    wanted = [module.InferRequestedOutput("probabilities", class_count=3)]
    answered = asking.infer("resnest_demo", [given], outputs=wanted, request_id="7", **headers)
    rows = [[text.decode().split(":") for text in row] for row in answered.as_numpy("probabilities")]
    for row, answer in zip(rows, expected):
        assert [(int(number), name) for _, number, name in row] == [
            (guess.label, guess.name) for guess in answer.guesses
        ]
        found = [float(value) for value, _, _ in row]
        assert found == pytest.approx([guess.probability for guess in answer.guesses], abs=1e-4)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritons_clients_send_tensors_as_binary_data_and_get_the_logits_of_onnx_runtime(
    kind: str, service: Asked, demo_onnx: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    module, asking, headers = client(kind, service)
    images = np.random.default_rng(0).standard_normal((20, 3, 96, 96)).astype(np.float32)  # more than a batch
    given = module.InferInput("actual_input_1", list(images.shape), "FP32")
    given.set_data_from_numpy(images)
    answered = asking.infer("resnest_demo", [given], **headers).as_numpy("output1")
    (logits,) = onnxruntime.InferenceSession(demo_onnx).run(None, {"actual_input_1": images})
    np.testing.assert_allclose(answered, logits, atol=1e-4 * np.abs(logits).max())


def test_curl_sends_a_photograph_as_it_is(service: Asked, photographs: list[Path], expected: list[Answer]) -> None:
    curl = shutil.which("curl") or pytest.skip("no curl")
    url = f"http://{service.rest}/v2/models/resnest_demo/infer"
    flags = ["-s", "-H", "Inference-Header-Content-Length: 0", "-H", f"Authorization: Bearer {TOKEN}"]
    done = subprocess.run(
        [curl, *flags, "--data-binary", f"@{photographs[0]}", url], capture_output=True, check=True, timeout=20
    )
    outputs = {output["name"]: output["data"] for output in json.loads(done.stdout)["outputs"]}
    assert int(np.argmax(outputs["output1"])) == expected[0].guesses[0].label
    assert max(outputs["probabilities"]) == pytest.approx(expected[0].guesses[0].probability, abs=1e-4)


def test_a_person_gives_the_token_and_a_photograph_to_the_page(
    service: Asked, photographs: list[Path], expected: list[Answer], tmp_path: Path
) -> None:
    with browser(tmp_path / "profile") as tab:
        tab.look(1280, "light")
        tab.open(f"http://{service.rest}/")
        tab.drop("#drop", photographs[0])
        tab.until("document.activeElement.id === 'token'")
        tab("Input.insertText", text=TOKEN)
        tab.press("Enter", 13)
        tab.until("document.querySelectorAll('li').length === 5")
        best = tab.evaluate("document.querySelector('.line').innerText.split('\\n')")
        assert best == [expected[0].guesses[0].name, f"{100 * expected[0].guesses[0].probability:.1f} %"]
        tab.drop("#drop", PROJECT / "README.md")
        tab.until("!document.querySelector('#problem').hidden")
        assert "not an image" in tab.evaluate("document.querySelector('#problem').innerText")
        assert tab.complaints() == []
