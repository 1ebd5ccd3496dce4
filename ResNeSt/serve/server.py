"""Starts a service and ends it: both protocols on one event loop, the model in threads of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import uvicorn
import uvloop
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from ResNeSt.common.cores import cores
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.progress import Say
from ResNeSt.serve.answering import Answering
from ResNeSt.serve.app import application
from ResNeSt.serve.connection import Connection
from ResNeSt.serve.metrics import Metrics
from ResNeSt.serve.model import ServedModel
from ResNeSt.serve.page import headers, page
from ResNeSt.serve.rpc import server as grpc_server
from ResNeSt.serve.settings import Service

DRAIN_SECONDS = 30.0  # for accepted requests to be answered, once the end has begun


class _Server(uvicorn.Server):
    """uvicorn, which ends when told by `should_exit`; signals are ours."""

    def __init__(self, config: uvicorn.Config, on_signal: Any) -> None:
        super().__init__(config)
        self._on_signal = on_signal

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._on_signal()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGHUP, too: a terminal that is closed ends the service as SIGTERM does, unless nohup has it ignored."""
        ends = signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        with super().capture_signals():
            if ends:
                signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                if ends:
                    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def run(service: Service, say: Say) -> None:
    """What `start.serve` does, once the service is checked."""
    address, token = service.address(), service.token()
    with _listener(address, service.http_port, "--http-port") as http:
        model = ServedModel(service.name, service.models, service.queue, service.names)
        metrics = Metrics(model.batcher, say if service.log_requests else None)
        answering = Answering(model, metrics, service.models[0].workers or cores(), token)
        try:
            uvloop.run(_Run(service, answering, http, say).serve(address))
        finally:
            model.batcher.close(1)
            answering.close()


def _listener(address: str, port: int, flag: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
    except OSError as error:
        made.close()
        raise _refused(address, port, flag, error) from None
    return made


def _refused(address: str, port: int, flag: str, error: Exception) -> PipelineError:
    """Says why there cannot be listened there, and what to name in its place."""
    number, reason = (error.errno, error.strerror) if isinstance(error, OSError) else (None, None)
    other = "--host" if number == errno.EADDRNOTAVAIL else flag
    return PipelineError(f"{address}:{port}: cannot be listened on ({reason or error}); name another {other}")


class _Run:
    """One run of the service on the event loop."""

    def __init__(self, service: Service, answering: Answering, http: socket.socket, say: Say) -> None:
        self._service, self._answering, self._http, self._say = service, answering, http, say
        self._ending = asyncio.Event()

    async def serve(self, address: str) -> None:
        service = self._service
        try:
            rpc, port = grpc_server(self._answering, address, service.grpc_port, service.max_body, service.queue)
        except RuntimeError as error:
            _listener(address, service.grpc_port, "--grpc-port").close()  # which says why; gRPC does not
            raise _refused(address, service.grpc_port, "--grpc-port", error) from None
        await rpc.start()
        try:
            await self._until_told(rpc, address, port)
        except BaseException:
            await rpc.stop(None)
            raise

    async def _until_told(self, rpc: Any, address: str, port: int) -> None:
        service, model = self._service, self._answering.model
        loop = asyncio.get_running_loop()
        config = uvicorn.Config(
            application(self._answering, service.max_body, routes(model)),
            http=Connection,
            ws="none",
            lifespan="off",
            log_level="error",  # a stranger must not fill the log with what is no HTTP
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=5,
        )
        web = _Server(config, lambda: loop.call_soon_threadsafe(self._ending.set))
        try:
            self._http.listen(config.backlog)  # whoever reads the line below may connect at once
        except OSError as error:  # another was bound to it at the same time, and listened first
            raise _refused(address, service.http_port, "--http-port", error) from None
        running = asyncio.create_task(web.serve([self._http]))
        await asyncio.sleep(0)  # from here on a signal is the beginning of the end, not the end
        shown = f"[{address}]" if ":" in address else address
        sizes = model.batcher.sizes
        self._say(
            f"{model.name}: {model.title}, batch {', '.join(map(str, _few(sizes)))}; REST http://{shown}:"
            f"{self._http.getsockname()[1]}, gRPC {shown}:{port}"
        )
        await asyncio.wait([running, asyncio.create_task(self._ending.wait())], return_when=asyncio.FIRST_COMPLETED)
        self._answering.ready = False
        model.batcher.end()
        await loop.run_in_executor(None, model.batcher.close, DRAIN_SECONDS)
        await rpc.stop(5)
        web.should_exit = True
        await running


def _few(sizes: Sequence[int]) -> Sequence[Any]:
    return sizes if len(sizes) <= 6 else [f"{sizes[0]} to {sizes[-1]}"]


def routes(model: ServedModel) -> list[Route]:
    """What REST has beside the protocol: the page."""
    text = page(model.name, model.name)

    async def at_root(request: Request) -> Response:
        return HTMLResponse(text, headers=headers())

    return [Route("/", at_root)]
