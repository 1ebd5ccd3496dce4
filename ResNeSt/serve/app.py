"""REST: the Open Inference Protocol as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Callable

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from ResNeSt import __version__
from ResNeSt.serve import protocol
from ResNeSt.serve.answering import BODIES_HELD, BODY_SECONDS, Answer, Answering
from ResNeSt.serve.errors import (
    EncodingError,
    EndingError,
    GoneError,
    OverloadedError,
    RequestError,
    SlowError,
    TooLargeError,
)
from ResNeSt.serve.metrics import Record

HEADER_LENGTH = "Inference-Header-Content-Length"  # of the JSON before binary data
EXTENSIONS = ["binary_tensor_data", "classification"]
OPEN = ("/", "/v2/health/live", "/v2/health/ready")  # to those without the token: whoever watches it has none
LINGER_SECONDS = 2.0  # for a client that sends before it reads to hear that its body is too large


def as_json(value: Any) -> bytes:
    """Any value, arrays of NumPy among them."""
    return bytes(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))


def in_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(as_json(value), status, headers, "application/json")


class Rest:
    """The endpoints."""

    def __init__(self, answering: Answering, max_body: int) -> None:
        self._answering = answering
        self._max_body = max_body
        self._held = 0

    async def server(self, request: Request) -> Response:
        """Who answers."""
        return in_json({"name": "resnest", "version": __version__, "extensions": EXTENSIONS})

    async def live(self, request: Request) -> Response:
        """Whether it runs."""
        return in_json({"live": True})

    async def ready(self, request: Request) -> Response:
        """Whether it takes requests."""
        ready = self._answering.ready
        return in_json({"ready": ready}, 200 if ready else 503)

    async def metadata(self, request: Request) -> Response:
        """What the model takes and gives."""
        self._check_model(request)
        return in_json(self._answering.model.metadata())

    async def model_ready(self, request: Request) -> Response:
        """Whether the model takes requests."""
        self._check_model(request)
        ready = self._answering.ready
        return in_json({"name": self._answering.model.name, "ready": ready}, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Figures for Prometheus."""
        return Response(self._answering.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def infer(self, request: Request) -> Response:
        """An inference."""
        record = Record("http")
        with self._answering.recorded(record):
            self._check_model(request)
            if request.headers.get("content-encoding", "identity").lower() != "identity":
                raise EncodingError("the body has a Content-Encoding; send it as it is")
            body = bytearray()
            try:
                await self._read(request, body)
                answer = await self._answering.infer(lambda: self._parsed(request, body), len(body), record)
            finally:
                self._held -= len(body)
            return await self._answering.done(lambda: self._told(answer), answer.nbytes)

    def _check_model(self, request: Request) -> None:
        self._answering.check_model(request.path_params["name"], request.path_params.get("version", ""))

    async def _read(self, request: Request, body: bytearray) -> None:
        if not self._answering.ready:
            raise EndingError("the service is ending; ask another, or this one when it is back")
        announced = request.headers.get("content-length", "0")
        if not announced.isdigit() or int(announced) > self._max_body:
            raise TooLargeError(self._too_large(announced))
        try:
            await asyncio.wait_for(self._fill(request, body), BODY_SECONDS)
        except asyncio.TimeoutError:
            raise SlowError(f"the body has not come within {BODY_SECONDS} seconds") from None
        except ClientDisconnect:
            raise GoneError("the client has gone before its body was read") from None
        except asyncio.CancelledError:
            if self._answering.ready:
                raise
            raise EndingError("the service has ended before the body had come") from None

    async def _fill(self, request: Request, body: bytearray) -> None:
        async for chunk in request.stream():
            body += chunk
            self._held += len(chunk)
            if len(body) > self._max_body:
                raise TooLargeError(self._too_large("more"))
            if self._held > BODIES_HELD * self._max_body:
                raise OverloadedError("too many large requests at once; ask again later")

    def _too_large(self, found: str) -> str:
        return f"the body has {found} bytes, expected at most {self._max_body:,} (--max-body); send several requests"

    def _parsed(self, request: Request, body: bytearray) -> protocol.Request:
        length = request.headers.get(HEADER_LENGTH)
        if length is not None and not (re.fullmatch(r"[0-9]{1,10}", length) and int(length) <= len(body)):
            raise RequestError(
                f"{HEADER_LENGTH} is {length!r:.40}, expected how many of the {len(body)} bytes are JSON"
            )
        split = len(body) if length is None else int(length)
        whole = memoryview(bytes(body))
        if length is not None and split == 0:
            return self._raw(whole)
        try:
            head = orjson.loads(whole[:split])
        except orjson.JSONDecodeError as error:
            hint = "" if length is not None else f"; binary data needs the header {HEADER_LENGTH}"
            raise RequestError(f"the body is no JSON ({error}){hint}") from None
        return protocol.request_of(head, whole[split:])

    def _raw(self, content: memoryview) -> protocol.Request:
        """A body without JSON is one picture (Triton's "raw binary request")."""
        tensor = protocol.Tensor(self._answering.model.input.name, protocol.BYTES, (1,), [bytes(content)])
        return protocol.Request("", tensor, [])

    def _told(self, answer: Answer) -> Response:
        request = answer.request
        binary = [one.binary for one in request.outputs] or [request.binary] * len(answer.outputs)
        head, tail = protocol.answer_of(self._answering.model.name, request.id, answer.outputs, binary)
        if not any(binary):
            return in_json(head)
        text = as_json(head)
        return Response(text + tail, media_type="application/octet-stream", headers={HEADER_LENGTH: str(len(text))})


class Guard:
    """Before all endpoints: the token; behind them: a client that has not yet sent all of a refused body."""

    def __init__(self, app: Callable[..., Any], answering: Answering) -> None:
        self._app = app
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            return
        held: list[Message] = []
        read_all = False

        async def received() -> Message:
            nonlocal read_all
            message = await receive()
            read_all = read_all or message["type"] == "http.disconnect" or not message.get("more_body", False)
            return message

        async def sent(message: Message) -> None:
            if (
                message["type"] == "http.response.start"
                and message["status"] >= 400
                and not read_all
                and _has_body(scope)
            ):
                message["headers"] = [*message["headers"], (b"connection", b"close")]
                held.append(message)
            elif held and not message.get("more_body", False):
                await send({**message, "more_body": True})  # it has all of it by its length; the connection stays open
                await _linger(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            if scope["path"] not in OPEN:
                self._answering.check_token(dict(scope["headers"]).get(b"authorization"), "http")
            app = self._app
        except RequestError as error:
            app = _refusal(error)
        await app(scope, received, sent)


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in scope["headers"])


async def _linger(receive: Receive) -> None:
    """Reads and forgets: a connection that is closed with bytes unread resets, and the client never sees the answer."""

    async def forget() -> None:
        while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
            pass

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(forget(), LINGER_SECONDS)


def application(answering: Answering, max_body: int, routes: Sequence[Route] = ()) -> Guard:
    """The ASGI application; `routes` are more of it, such as a page at /."""
    rest = Rest(answering, max_body)
    model = "/v2/models/{name}"
    version = model + "/versions/{version}"
    # No redirect from a path with a slash too many: it would go to the host that the client names.
    app = Starlette(
        routes=[
            *(Route(path, rest.server) for path in ("/v2", "/v2/")),
            Route("/v2/health/live", rest.live),
            Route("/v2/health/ready", rest.ready),
            *(Route(path, rest.metadata) for path in (model, version)),
            *(Route(f"{path}/ready", rest.model_ready) for path in (model, version)),
            *(Route(f"{path}/infer", rest.infer, methods=["POST"]) for path in (model, version)),
            Route("/metrics", rest.metrics),
            *routes,
        ],
        exception_handlers={RequestError: _refused, HTTPException: _no_such, Exception: _failed},
    )
    app.router.redirect_slashes = False
    return Guard(app, answering)


def _refusal(error: RequestError) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if error.http == 401 else {"Retry-After": "1"} if error.http == 503 else {}
    return in_json({"error": str(error)}, error.http, headers)


async def _refused(request: Request, error: RequestError) -> Response:
    return _refusal(error)


async def _no_such(request: Request, error: HTTPException) -> Response:
    told = f"{request.method} {request.url.path}: {error.detail}; GET /v2 says who answers here"
    return in_json({"error": told}, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return in_json({"error": f"internal error ({type(error).__name__})"}, 500)
