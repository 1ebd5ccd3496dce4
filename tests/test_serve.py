"""The service with real clients: tritonclient over HTTP and gRPC, curl, Prometheus's own parser."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.timed_process import with_this_project
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.evaluate import evaluate
from ResNeSt.predict import predict
from ResNeSt.serve.errors import UnauthenticatedError, UnknownError
from ResNeSt.serve.start import PACKAGES
from tests.conftest import PROJECT

for package in PACKAGES:
    pytest.importorskip(package, reason="requirements/serve.txt is not installed")
rpc = importlib.import_module("ResNeSt.serve.rpc")  # which imports them
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

PICTURES = sorted((PROJECT / "demo/val").iterdir())
SIDE = 96
INFER = "/v2/models/resnest_demo/infer"


class Running(NamedTuple):
    """A service, the ports it listens on, and what it has printed."""

    process: subprocess.Popen[bytes]
    http: int
    grpc: int
    printed: Path


@contextlib.contextmanager
def running(folder: Path, models: Sequence[Path], *flags: str) -> Iterator[Running]:
    printed = folder / "printed.txt"
    command = [sys.executable, "-m", "ResNeSt.serve", f"--model={','.join(map(str, models))}"]
    with printed.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--http-port=0", "--grpc-port=0", *flags], env=with_this_project(), stdout=file, stderr=file
        )
    try:
        until(lambda: "REST" in printed.read_text() or process.poll() is not None, 60)
        ports = re.search(r"REST http://\S+:(\d+), gRPC \S+:(\d+)", printed.read_text())
        assert ports, printed.read_text()
        yield Running(process, int(ports[1]), int(ports[2]), printed)
    finally:
        process.kill()
        process.wait()


def until(holds: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def compiled(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("compiled")
    return [model.path for model in convert(Conversion(demo_onnx, [1, 8], "cpu", folder))]


@pytest.fixture(scope="module")
def service(compiled: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    names = folder / "names.txt"
    names.write_text("".join(f"digit {number}\n" for number in range(10)))
    with running(folder, compiled, "--max-body=4MB", "--log-requests", f"--names={names}") as started:
        yield started


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, service: Running) -> Any:
    """Triton's own client, and its module."""
    module = pytest.importorskip(f"tritonclient.{request.param}")
    port = service.http if request.param == "http" else service.grpc
    with module.InferenceServerClient(f"127.0.0.1:{port}") as opened:
        yield module, opened


def given(module: Any, values: np.ndarray, datatype: str, name: str = "actual_input_1") -> list[Any]:
    tensor = module.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return [tensor]


def pictures(count: int) -> np.ndarray:
    return np.array([picture.read_bytes() for picture in PICTURES[:count]], object)


def get(service: Running, path: str, **headers: str) -> tuple[int, bytes]:
    return ask(service, "GET", path, None, headers)


def ask(service: Running, method: str, path: str, body: Any, headers: Any = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", service.http, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {}, encode_chunked=not isinstance(body, (bytes, type(None))))
        response = connection.getresponse()
        return response.status, response.read()


def curl(service: Running, path: str, *flags: object) -> tuple[str, str]:
    """The body of the answer, and its status."""
    command = ["curl", "-sS", "-m", "30", "-w", "\n%{http_code}", *map(str, flags)]
    result = subprocess.run([*command, f"http://127.0.0.1:{service.http}{path}"], capture_output=True, text=True)
    body, _, status = result.stdout.rpartition("\n")
    return body, status


def picture_request(count: int = 1) -> bytes:
    import base64

    data = [base64.b64encode(picture.read_bytes()).decode() for picture in PICTURES[:count]]
    given = {"name": "actual_input_1", "datatype": "BYTES", "shape": [count], "data": data}
    return json.dumps({"inputs": [given]}).encode()


def test_health_and_metadata_as_a_client_asks_for_them(client: Any) -> None:
    _, opened = client
    assert opened.is_server_live()
    assert opened.is_server_ready()
    assert opened.is_model_ready("resnest_demo")
    assert opened.is_model_ready("resnest_demo", "1")
    told = opened.get_model_metadata("resnest_demo")
    if not isinstance(told, dict):
        from google.protobuf import json_format

        told = json_format.MessageToDict(told)
        assert opened.get_server_metadata(as_json=True)["name"] == "resnest"
    shapes = [[int(side) for side in told["inputs"][0]["shape"]], [int(side) for side in told["outputs"][0]["shape"]]]
    assert (told["name"], told["versions"], told["platform"]) == ("resnest_demo", ["1"], "openvino_xml")
    assert shapes == [[-1, 3, SIDE, SIDE], [-1, 10]]


def test_pictures_are_answered_as_evaluate_answers_their_files(
    client: Any, service: Running, compiled: list[Path], tmp_path: Path
) -> None:
    module, opened = client
    for picture in PICTURES[:16]:
        (tmp_path / "few").mkdir(exist_ok=True)
        shutil.copy(picture, tmp_path / "few")
    found = opened.infer("resnest_demo", given(module, pictures(16), "BYTES")).as_numpy("output1")
    again = opened.infer("resnest_demo", given(module, pictures(16)[:, None], "BYTES")).as_numpy("output1")
    assert np.array_equal(found, again)
    labels = PROJECT / "demo/val_label.txt"
    lines = [line for line in labels.read_text().splitlines() if line.split()[0] in {p.name for p in PICTURES[:16]}]
    (tmp_path / "labels.txt").write_text("\n".join(lines) + "\n")
    record = tmp_path / "predictions.jsonl"
    evaluate(ModelChoice(compiled[1], instances=1), tmp_path / "few", tmp_path / "labels.txt", record)
    first = {each["image"]: each["classes"][0] for each in map(json.loads, record.read_text().splitlines()[1:])}
    assert [first[picture.name] for picture in PICTURES[:16]] == found.argmax(axis=1).tolist()
    answers = predict(ModelChoice(compiled[1], instances=1), PICTURES[:16], 10)
    probabilities = opened.infer("resnest_demo", given(module, pictures(16), "BYTES")).as_numpy("probabilities")
    for answer, row in zip(answers, probabilities):
        assert np.array_equal(
            [row[guess.label] for guess in answer.guesses],
            np.array([each.probability for each in answer.guesses], np.float32),
        )


def test_classes_have_their_names_and_the_id_comes_back(client: Any) -> None:
    module, opened = client
    wanted = [module.InferRequestedOutput("probabilities", class_count=2)]
    found = opened.infer("resnest_demo", given(module, pictures(1), "BYTES"), outputs=wanted, request_id="seven")
    (first, second), *_ = found.as_numpy("probabilities")
    assert re.fullmatch(rb"0\.\d{6}:0:digit 0", first)
    assert float(first.split(b":")[0]) > float(second.split(b":")[0])
    response = found.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "seven"


def test_tensors_in_both_datatypes_and_both_forms_are_answered_alike(client: Any) -> None:
    module, opened = client
    black = np.zeros((3, SIDE, SIDE, 3), np.uint8)
    expected = opened.infer("resnest_demo", given(module, black, "UINT8")).as_numpy("output1")
    assert expected.shape == (3, 10)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    level = np.broadcast_to(((0 - mean) / std).astype(np.float32)[None, :, None, None], (3, 3, SIDE, SIDE))
    found = opened.infer("resnest_demo", given(module, np.ascontiguousarray(level), "FP32")).as_numpy("output1")
    assert np.allclose(found, expected, atol=1e-4)
    if module.__name__.endswith("http"):
        tensor = module.InferInput("actual_input_1", [3, SIDE, SIDE, 3], "UINT8")
        tensor.set_data_from_numpy(black, binary_data=False)
        wanted = [module.InferRequestedOutput("output1", binary_data=False)]
        assert np.array_equal(opened.infer("resnest_demo", [tensor], outputs=wanted).as_numpy("output1"), expected)


def test_a_bad_request_is_told_why_and_the_next_one_on_the_same_connection_is_answered(client: Any) -> None:
    module, opened = client
    black = np.zeros((1, 3, SIDE, SIDE), np.float32)
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (given(module, black, "FP32", "image"), {}, "no input 'image', expected 'actual_input_1'"),
        (given(module, black.astype(np.float64), "FP64"), {}, "datatype 'FP64', expected one of FP32"),
        (given(module, black[:, :, :, 1:].copy(), "FP32"), {}, "[1, 3, 96, 95], expected FP32 [N, 3, 96, 96]"),
        (given(module, black[:0], "FP32"), {}, "shape [0, 3, 96, 96]"),
        (given(module, np.full_like(black, np.nan), "FP32"), {}, "image 1 of 1 has NaN"),
        (given(module, np.array([b"no picture"], object), "BYTES"), {}, "picture 1 of 1: not an image"),
        (given(module, pictures(3)[[0, 1]], "BYTES") * 2, {}, "2 inputs, expected one"),
        (given(module, np.repeat(pictures(1), 300), "BYTES"), {}, "300 images in a request, expected at most 256"),
        (given(module, black, "FP32"), {"model_version": "7"}, "no version '7'"),
        (given(module, black, "FP32"), {"outputs": [module.InferRequestedOutput("logits")]}, "no output 'logits'"),
    ]
    from tritonclient.utils import InferenceServerException

    for inputs, more, words in wrong:
        with pytest.raises(InferenceServerException) as caught:
            opened.infer("resnest_demo", inputs, **more)
        assert words in caught.value.message()
        assert caught.value.status() in ("400", "404", "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND")
        assert opened.infer("resnest_demo", given(module, black, "FP32")).as_numpy("output1").shape == (1, 10)
    with pytest.raises(InferenceServerException) as caught:
        opened.infer("other", given(module, black, "FP32"))
    assert "no model 'other', expected 'resnest_demo'" in caught.value.message()


def test_a_body_over_the_limit_is_refused_before_it_is_read(service: Running, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(256 << 20)
    memory = high_water(service)
    for flags in (
        (),
        ("-H", "Expect:"),
        ("-H", "Transfer-Encoding: chunked"),
        ("-H", "Expect:", "-H", "Transfer-Encoding: chunked"),
    ):
        body, status = curl(service, INFER, *flags, "--data-binary", f"@{large}")
        assert status == "413", flags
        assert "expected at most 4,194,304 (--max-body)" in body
        assert ("268435456 bytes" in body) == (
            "Transfer-Encoding: chunked" not in flags
        )  # by its length, where it says it
    found, told = ask(service, "POST", INFER, bytes(5 << 20))  # this client reads nothing before it has sent it all
    assert (found, b"expected at most 4,194,304" in told) == (413, True)
    assert high_water(service) - memory < 64 << 20
    assert ask(service, "POST", INFER, picture_request())[0] == 200
    module = pytest.importorskip("tritonclient.grpc")
    with module.InferenceServerClient(f"127.0.0.1:{service.grpc}") as opened:
        from tritonclient.utils import InferenceServerException

        with pytest.raises(InferenceServerException, match=r"larger than max \(\d+ vs\. 4194304\)"):
            opened.infer("resnest_demo", given(module, np.zeros((100, 3, SIDE, SIDE), np.float32), "FP32"))
        opened.infer("resnest_demo", given(module, pictures(1), "BYTES"))


def high_water(service: Running) -> int:
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{service.process.pid}/status").read_text())
    return int(line) << 10


def test_curl_has_an_answer_to_a_picture_as_it_is_and_in_json(service: Running) -> None:
    raw = ("-H", "Inference-Header-Content-Length: 0", "--data-binary", f"@{PICTURES[0]}")
    body, status = curl(service, INFER, *raw)
    assert (status, json.loads(body)["outputs"][0]["shape"]) == ("200", [1, 10])
    in_json, status = curl(service, INFER, "-d", picture_request().decode())
    assert (status, json.loads(in_json)) == ("200", json.loads(body))


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"", {}, 400, b"the body is no JSON"),
        (b"{", {}, 400, b"the body is no JSON"),
        (b"[" * 100_000, {}, 400, b"the body is no JSON"),
        (b'{"inputs":[{"name":"actual_input_1","datatype":"FP32","shape":[1],"data":[NaN]}]}', {}, 400, b"no JSON"),
        (b"{}", {"Inference-Header-Content-Length": "-1"}, 400, b"Inference-Header-Content-Length is '-1'"),
        (b"{}", {"Inference-Header-Content-Length": "3"}, 400, b"how many of the 2 bytes are JSON"),
        (b"{}", {"Content-Encoding": "gzip"}, 415, b"Content-Encoding; send it as it is"),
        (b"picture", {"Inference-Header-Content-Length": "0"}, 400, b"picture 1 of 1: not an image"),
    ],
)
def test_a_body_that_is_no_request_is_refused(
    body: bytes, headers: dict[str, str], status: int, words: bytes, service: Running
) -> None:
    found, told = ask(service, "POST", INFER, body, headers)
    assert (found, words in told, set(json.loads(told))) == (status, True, {"error"})


def test_what_there_is_not_is_a_404_or_a_405_in_json(service: Running) -> None:
    for method, path, status in (
        ("GET", "/v2/other", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/resnest_demo/versions/2", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", INFER, 405),
        ("DELETE", "/v2", 405),
    ):
        found, body = ask(service, method, path, b"{}" if method == "POST" else None)
        assert (found, "error" in json.loads(body)) == (status, True), path


def test_prometheus_reads_what_was_done_and_the_log_has_a_line_a_request(service: Running) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    def figures() -> dict[tuple[str, ...], float]:
        families = text_string_to_metric_families(get(service, "/metrics")[1].decode())
        return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}

    before, lines = figures(), len(service.printed.read_text().splitlines())
    assert ask(service, "POST", INFER, picture_request(9))[0] == 200
    assert ask(service, "POST", INFER, b"{}")[0] == 400
    after = figures()
    for key, more in (
        (("resnest_requests_total", "http", "200"), 1),
        (("resnest_requests_total", "http", "400"), 1),
        (("resnest_images_total",), 9),
        (("resnest_batch_images_sum",), 9),
        (("resnest_batches_total", "8"), 1),
        (("resnest_batches_total", "1"), 1),
        (("resnest_queue_seconds_count",), 1),
        (("resnest_compute_seconds_count",), 2),
        (("resnest_request_seconds_count",), 1),
    ):
        assert after[key] - before.get(key, 0) == more, key
    assert after[("resnest_images_inside",)] == 0
    good, bad = map(json.loads, service.printed.read_text().splitlines()[lines:])
    assert (good["status"], good["images"], good["protocol"]) == ("200", 9, "http")
    assert good["total_ms"] >= good["compute_ms"] > 0
    assert (bad["status"], bad["reason"]) == ("400", "0 inputs, expected one")


def test_many_clients_at_once_each_have_their_own_answer(service: Running) -> None:
    module = pytest.importorskip("tritonclient.grpc")
    with module.InferenceServerClient(f"127.0.0.1:{service.grpc}") as opened:
        alone = [
            opened.infer("resnest_demo", given(module, pictures(n + 1)[n:], "BYTES")).as_numpy("output1")
            for n in range(16)
        ]

        def work(place: int) -> bool:
            found = opened.infer("resnest_demo", given(module, pictures(place % 16 + 1)[place % 16 :], "BYTES"))
            return np.allclose(found.as_numpy("output1"), alone[place % 16], atol=1e-4)

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(work, range(160)))


def test_it_listens_on_loopback_alone(service: Running) -> None:
    tables = [Path("/proc/net") / name for name in ("tcp", "tcp6")]
    entries = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    listening = {(entry[1][:-5], int(entry[1][-4:], 16)) for entry in entries if entry[3] == "0A"}
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, as IPv6 has it, too
    for port in (service.http, service.grpc):
        found = {address for address, other in listening if other == port}
        assert found
        assert found <= loopback


def test_with_a_token_only_health_and_the_page_are_open(compiled: list[Path], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    bearer = {"Authorization": "Bearer 0123456789abcdef"}
    from tritonclient import grpc
    from tritonclient.utils import InferenceServerException

    with running(tmp_path, compiled[:1], f"--token-file={tmp_path / 'token'}", "--max-body=1MB") as started:
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert get(started, path)[0] == 200
        for path in ("/v2", "/v2/models/resnest_demo", "/metrics", "/v2/other"):
            assert get(started, path)[0] == 401
            assert get(started, path, **bearer)[0] in (200, 404)
        for wrong in ("0123456789abcdef", "Bearer", "Bearer 0123456789abcdeF", "Bearer 0123456789abcdef0", "bearer é"):
            status, told = ask(started, "POST", INFER, picture_request(), {"Authorization": wrong.encode()})
            assert (status, b"Authorization: Bearer TOKEN" in told) == (401, True)
        assert ask(started, "POST", INFER, bytes(2 << 20))[0] == 401
        assert ask(started, "POST", INFER, picture_request(), bearer)[0] == 200
        with grpc.InferenceServerClient(f"127.0.0.1:{started.grpc}") as opened:
            assert opened.is_server_ready()
            inputs = given(grpc, pictures(1), "BYTES")
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                opened.infer("resnest_demo", inputs)
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                opened.get_model_metadata("resnest_demo")
            headers = {"authorization": "Bearer 0123456789abcdef"}
            assert opened.infer("resnest_demo", inputs, headers=headers).as_numpy("output1").shape == (1, 10)
        figures = get(started, "/metrics", **bearer)[1].decode()
        counted = re.findall(r'(?m)^resnest_requests_total{protocol="(\w+)",status="401"} (\S+)', figures)
        assert dict(counted) == {"http": "10.0", "grpc": "2.0"}
        assert "0123456789abcdef" not in started.printed.read_text()


def test_more_than_can_wait_is_refused_at_once_and_what_was_accepted_is_answered(
    compiled: list[Path], tmp_path: Path
) -> None:
    with running(tmp_path, compiled[1:], "--queue=32") as started, ThreadPoolExecutor(24) as pool:
        body = picture_request(8)
        found = list(pool.map(lambda _: ask(started, "POST", INFER, body), range(96)))
        assert {status for status, _ in found} == {200, 503}
        assert all(b"over the limit of 32 (--queue)" in told for status, told in found if status == 503)
        assert ask(started, "POST", INFER, body)[0] == 200


def inside(service: Running) -> float:
    (found,) = re.findall(rb"(?m)^resnest_images_inside (\S+)", get(service, "/metrics")[1])
    return float(found)


def ready(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/v2/health/ready")
    return connection.getresponse().read()


def test_on_sigterm_what_was_accepted_is_answered_and_nothing_is_left_running(
    compiled: list[Path], tmp_path: Path
) -> None:
    with running(tmp_path, compiled[:1], "--queue=4096", "--max-body=64MB") as started:
        waiting = http.client.HTTPConnection("127.0.0.1", started.http)
        assert ready(waiting) == b'{"ready":true}'
        data = picture_request(200)
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(ask, started, "POST", INFER, data) for _ in range(8)]
            until(lambda: inside(started) >= 600, 60)
            started.process.send_signal(signal.SIGTERM)
            until(lambda: ready(waiting) == b'{"ready":false}')
            waiting.request("POST", INFER, picture_request())
            refused = waiting.getresponse()
            assert (refused.status, b"the service is ending" in refused.read()) == (503, True)
            found = [answer.result()[0] for answer in answers]
        assert found.count(200) >= 3
        assert set(found) <= {200, 503}  # 503 are those that were still being sent
        assert started.process.wait(60) == 0
        assert "Traceback" not in started.printed.read_text()


def test_a_client_that_goes_away_or_never_sends_all_of_its_body_keeps_nobody_from_an_answer(
    service: Running,
) -> None:
    slow = []
    for _ in range(40):
        connection = socket.create_connection(("127.0.0.1", service.http))
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{{".encode())
        slow.append(connection)
    assert ask(service, "POST", INFER, picture_request())[0] == 200
    for connection in slow:
        connection.close()
    gone = socket.create_connection(("127.0.0.1", service.http))
    body = picture_request(64)
    gone.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    gone.close()
    assert ask(service, "POST", INFER, picture_request())[0] == 200
    until(lambda: inside(service) == 0, 60)
    assert "Traceback" not in service.printed.read_text()


def test_a_port_that_is_taken_is_one_line(compiled: list[Path], service: Running) -> None:
    for flag, taken in (("http", service.http), ("grpc", service.grpc)):
        other = "grpc" if flag == "http" else "http"
        command = [
            sys.executable,
            "-m",
            "ResNeSt.serve",
            f"--model={compiled[0]}",
            f"--{flag}-port={taken}",
            f"--{other}-port=0",
        ]
        result = subprocess.run(command, env=with_this_project(), capture_output=True, text=True, timeout=60)
        assert (result.returncode, result.stdout) == (1, "")
        assert f"127.0.0.1:{taken}: cannot be listened on (Address already in use)" in result.stderr
        assert f"name another --{flag}-port" in result.stderr.splitlines()[-1]


def test_an_address_of_another_machine_is_told_from_a_port_that_is_taken() -> None:
    from ResNeSt.serve.server import _listener

    for flag in ("--http-port", "--grpc-port"):
        with pytest.raises(PipelineError, match=r"192\.0\.2\.1:0: .*\(Cannot assign .*\); name another --host"):
            _listener("192.0.2.1", 0, flag)


def test_a_terminal_that_is_closed_ends_it_as_sigterm_does_unless_nohup_has_that_ignored() -> None:
    import uvicorn

    from ResNeSt.serve.server import _Server

    heard: list[int] = []
    server = _Server(uvicorn.Config("none"), lambda: heard.append(1))
    before = signal.getsignal(signal.SIGHUP)
    try:
        for left, expected in ((signal.SIG_DFL, 1), (signal.SIG_IGN, 0)):
            signal.signal(signal.SIGHUP, left)
            with server.capture_signals():
                os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is left
            assert heard == [1] * expected
            heard.clear()
    finally:
        signal.signal(signal.SIGHUP, before)


class Slow:
    """In the place of what answers requests: lets none go before the gate is open; `most` were inside at once."""

    ready = True

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.gate = asyncio.Event()

    def knows(self, given: object) -> bool:
        return given != "a wrong token"

    def check_token(self, given: object, *_: object) -> None:
        if not self.knows(given):
            raise UnauthenticatedError("expected the token")

    def check_model(self, *_: object) -> None:
        pass

    @contextlib.contextmanager
    def recorded(self, record: object) -> Iterator[None]:
        yield

    async def infer(self, *_: object) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self.gate.wait()
        self.inside -= 1
        raise UnknownError("let go")


BODY = 1 << 20
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"


@contextlib.asynccontextmanager
async def grpc_of(slow: Slow) -> AsyncIterator[tuple[int, Any]]:
    """A gRPC server's port, and a call of a client that sends most of a body and gives the status."""
    import grpc
    from tritonclient.grpc import service_pb2 as pb

    server, port = rpc.server(slow, "127.0.0.1", 0, BODY, 64)
    await server.start()
    body = pb.ModelInferRequest(raw_input_contents=[bytes(BODY * 9 // 10)]).SerializeToString()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

            async def call() -> str:
                try:
                    await channel.unary_unary(MODEL_INFER)(body)
                except grpc.aio.AioRpcError as error:
                    return str(error.code().name)
                return "OK"

            yield port, call
    finally:
        await server.stop(0)


def test_grpc_holds_no_more_bytes_of_requests_than_rest_and_tells_of_its_health_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tritonclient.grpc import aio as grpc

    monkeypatch.setattr(rpc, "BODIES_HELD", 4)

    async def ask_at_once() -> None:
        slow = Slow()
        async with grpc_of(slow) as (port, call):
            calls = [asyncio.create_task(call()) for _ in range(12)]
            while slow.inside < 4:
                await asyncio.sleep(0.01)
            async with grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
                assert await client.is_server_live()
            await asyncio.sleep(0.3)
            slow.gate.set()
            assert await asyncio.gather(*calls) == ["NOT_FOUND"] * 12
        assert slow.most == 4

    asyncio.run(asyncio.wait_for(ask_at_once(), 60))


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """Of HTTP/2 (RFC 9113, 4.1)."""
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def test_bodies_that_do_not_come_keep_nobody_from_an_answer_over_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "BODIES_HELD", 2)
    monkeypatch.setattr(rpc, "BODY_SECONDS", 0.5)
    fields = {":method": "POST", ":scheme": "http", ":path": MODEL_INFER, ":authority": "x"}
    fields |= {"content-type": "application/grpc", "te": "trailers"}
    pairs = [(name.encode(), value.encode()) for name, value in fields.items()]
    headers = b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in pairs)
    opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")

    async def ask_behind_them() -> None:
        slow = Slow()
        slow.gate.set()
        async with grpc_of(slow) as (port, call):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(opening)
            for stream in (1, 3, 5):  # each the beginning of a message of 1,000 bytes
                writer.write(frame(1, 4, stream, headers) + frame(0, 0, stream, b"\0\0\0\x03\xe8abc"))
            await writer.drain()
            await asyncio.sleep(0.2)
            assert await call() == "NOT_FOUND"  # as soon as there is room again
            for gone in [asyncio.create_task(call()) for _ in range(8)]:  # a client that ends in the middle
                await asyncio.sleep(0)
                gone.cancel()
            assert await call() == "NOT_FOUND"
            writer.close()

    asyncio.run(asyncio.wait_for(ask_behind_them(), 60))


def test_a_message_that_came_in_time_may_wait_for_its_answer_as_long_as_that_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import grpc

    monkeypatch.setattr(rpc, "BODY_SECONDS", 0.05)

    async def handler_of(_: object) -> Any:
        return grpc.unary_unary_rpc_method_handler(print, bytes, bytes)

    async def call() -> None:
        arrivals = rpc._Arrivals(BODY, inferences=True)
        handler = await arrivals.intercept_service(handler_of, argparse.Namespace(method=MODEL_INFER))
        assert handler.request_deserializer(b"here") == b"here"
        await asyncio.sleep(0.2)  # would be cancelled

    asyncio.run(call())


@pytest.mark.parametrize(("call", "status"), [("ModelInfer", "UNAUTHENTICATED"), ("ServerLive", "OK")])
def test_grpc_waits_for_no_message_of_a_stranger(call: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some that never come would else take the room of those who have the token, and of whoever asks for health."""
    import grpc

    monkeypatch.setattr(rpc, "BODIES_HELD", 1)

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    async def ask() -> None:
        async with grpc_of(Slow()) as (port, _), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            strange = channel.stream_unary(MODEL_INFER.replace("ModelInfer", call))
            calls = [strange(nothing(), metadata=[("authorization", "a wrong token")]) for _ in range(3)]
            assert [(await each.code()).name for each in calls] == [status] * 3

    asyncio.run(asyncio.wait_for(ask(), 10))


def test_threads_come_to_rest_after_a_storm(service: Running) -> None:
    def count() -> int:
        return len(list(Path(f"/proc/{service.process.pid}/task").iterdir()))

    ask(service, "POST", INFER, picture_request(8))
    before = count()
    with ThreadPoolExecutor(32) as pool:
        assert {
            status for status, _ in pool.map(lambda _: ask(service, "POST", INFER, picture_request()), range(64))
        } == {200}
    assert count() - before < 8
    assert threading.active_count() < 40


def test_headers_without_end_are_cut_off_and_the_next_request_works(service: Running) -> None:
    with socket.create_connection(("127.0.0.1", service.http), 30) as client:
        client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n")
        with contextlib.suppress(ConnectionError):  # it may close while more is sent
            for number in range(100):
                client.sendall(b"X-%d: %s\r\n" % (number, b"a" * 1000))
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = client.recv(1000)
    assert answer[:12] in {b"", b"HTTP/1.1 400"}
    assert ask(service, "GET", "/v2/health/live", None)[0] == 200


def test_a_connection_that_asks_nothing_is_closed(service: Running) -> None:
    with socket.create_connection(("127.0.0.1", service.http), 30) as client:
        assert client.recv(1) == b""  # 10 s; the socket itself would wait for 30
