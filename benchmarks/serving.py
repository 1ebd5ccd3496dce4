"""Requests/s of the service by number of clients, beside the bare engine on the same cores: demo and ResNeSt-50.

A client sends a float32 image as binary data over a REST connection that it keeps, waits for the logits, and sends the
next. Clients run on the same machine and take their share of it. OpenVINO in fp32, compiled for batches of 1, 4 and 16.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.inference import rate
from benchmarks.models import MODEL, make_onnx
from benchmarks.rounds import report
from ResNeSt.common.errors import PipelineError
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.engines.engine import fitting
from ResNeSt.engines.opening import open_engine
from ResNeSt.export.to_onnx import export
from ResNeSt.models.cards import card

PROJECT = Path(__file__).resolve().parent.parent
CLIENTS = (1, 4, 16, 64)
BATCHES = (1, 4, 16)
WARM_UP = 1.0  # seconds before those that count
HEAD = ["network", "clients", "requests/s", "engine images/s", "of the engine", "p50 ms", "p99 ms", "errors"]
HEAD += ["MB before", "MB after"]


class Load(NamedTuple):
    """What clients saw: answers and errors in so many seconds, and the seconds of each answer."""

    seconds: float
    errors: int
    latencies: list[float]


def measure(seconds: float, output: Path) -> None:
    """Prints and writes the table, where the service's packages are installed; `seconds` for each number of clients."""
    if importlib.util.find_spec("uvicorn") is None:
        print("the service's packages are missing: pip install -r requirements/serve.txt")
        return
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        demo = scratch / "demo.onnx"
        export(card("resnest_demo"), next((PROJECT / "demo").glob("*.pth")), demo)
        rows = [*_rows("demo", demo, seconds), *_rows(MODEL.name, make_onnx(scratch / "deploy", "deploy"), seconds)]
    report(output, "serving", HEAD, rows)


def _rows(network: str, onnx: Path, seconds: float) -> Iterator[list[str]]:
    models = {each.batch: each.path for each in convert(Conversion(onnx, BATCHES, "cpu", onnx.parent / network), print)}
    bare = _bare(models)
    shape = open_engine(models[1]).input.shape
    with service(list(models.values())) as (process, port, name):
        request = _request(name, shape)
        for clients in CLIENTS:
            before = _megabytes(process.pid)
            load = asyncio.run(clients_ask(port, request, clients, seconds))
            figures = np.percentile(load.latencies or [np.nan], [50, 99]) * 1000
            engine, answered = bare[fitting(BATCHES, clients)], len(load.latencies) / load.seconds
            yield [
                *(network, str(clients), f"{answered:.1f}", f"{engine:.1f}", f"{100 * answered / engine:.0f} %"),
                *(f"{figure:.1f}" for figure in figures),
                *(str(load.errors), f"{before:.0f}", f"{_megabytes(process.pid):.0f}"),
            ]


def _bare(models: Mapping[int, Path]) -> dict[int, float]:
    """Images/s of the engine alone by batch size, an instance on all cores as the service has it."""
    found = {}
    for batch, path in models.items():
        one_second = rate(open_engine(path))
        one_second()  # warm
        found[batch] = float(np.median([one_second() for _ in range(3)]))
    return found


@contextlib.contextmanager
def service(models: list[Path]) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """The service's process, its REST port and what it calls the model; it has ended on SIGTERM at the end."""
    flags = ["--model", ",".join(map(str, models)), "--http-port", "0", "--grpc-port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "ResNeSt.serve", *flags], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as process:
        told = process.stdout.readline() if process.stdout else ""
        found = re.match(r"(\S+): .*REST http://[^:]+:(\d+)", told)
        if found is None:
            raise PipelineError(f"the service has not said where it listens, but {told[:200]!r}")
        try:
            yield process, int(found[2]), found[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _request(name: str, shape: tuple[int, ...]) -> bytes:
    """A whole HTTP request for one image."""
    data = np.random.default_rng(0).standard_normal((1, *shape[1:])).astype("<f4").tobytes()
    tensor = {"name": "actual_input_1", "datatype": "FP32", "shape": [1, *shape[1:]]}
    asked = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}],
        "outputs": [{"name": "output1", "parameters": {"binary_data": True}}],
    }
    body = json.dumps(asked).encode()
    head = f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: service\r\nContent-Length: {len(body) + len(data)}\r\n"
    return f"{head}Inference-Header-Content-Length: {len(body)}\r\n\r\n".encode() + body + data


async def clients_ask(port: int, request: bytes, clients: int, seconds: float) -> Load:
    """What so many clients see that send `request` again and again, after a warm-up."""
    begin = time.perf_counter() + WARM_UP
    end = begin + seconds
    latencies: list[float] = []
    errors = 0

    async def client() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (sent := time.perf_counter()) < end:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.findall(rb"(?i)\r\ncontent-length: (\d+)", head)[0]))
            now = time.perf_counter()
            if begin <= now <= end:
                if head.startswith(b"HTTP/1.1 200 "):
                    latencies.append(now - sent)
                else:
                    errors += 1
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return Load(seconds, errors, latencies)


def _megabytes(process: int) -> float:
    """What it has resident."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1000
