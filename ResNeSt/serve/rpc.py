"""gRPC: the Open Inference Protocol by the published service definition, as Triton's client package carries it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable
from typing import Any, Callable

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as service

from ResNeSt import __version__
from ResNeSt.serve import protocol
from ResNeSt.serve.answering import BODIES_HELD, BODY_SECONDS, Answering
from ResNeSt.serve.errors import EndingError, RequestError
from ResNeSt.serve.metrics import Record

EXTENSIONS = ["classification"]
_OPEN = ("ServerLive", "ServerReady")  # to those without the token, as of REST
# Where the values of a datatype are in a message that does not have them as bytes.
_CONTENTS = {"FP32": "fp32_contents", "UINT8": "uint_contents", "BYTES": "bytes_contents"}

Call = Callable[["Rpc", Any, Any], Awaitable[Any]]


def _refusing(call: Call) -> Call:
    """`call`, whose RequestError becomes a status; first it asks for the token."""

    @functools.wraps(call)
    async def answered(self: Rpc, request: Any, context: Any) -> Any:
        try:
            if call.__name__ not in _OPEN:
                self.check_token(context)
            return await call(self, request, context)
        except RequestError as error:
            status, told = grpc.StatusCode[error.grpc], str(error)
        del request  # gRPC keeps the abort, and so what this frame holds, until garbage is collected
        await context.abort(status, told)

    return answered


class Rpc(service.GRPCInferenceServiceServicer):
    """The protocol's calls; of Triton's further ones gRPC says that they are not implemented."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    def check_token(self, context: Any) -> None:
        """Raises UnauthenticatedError for a call without it."""
        self._answering.check_token(dict(context.invocation_metadata()).get("authorization"), "grpc")

    @_refusing
    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether it runs."""
        return pb.ServerLiveResponse(live=True)

    @_refusing
    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether it takes requests."""
        return pb.ServerReadyResponse(ready=self._answering.ready)

    @_refusing
    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether the model takes requests."""
        self._answering.check_model(request.name, request.version)
        return pb.ModelReadyResponse(ready=self._answering.ready)

    @_refusing
    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Who answers."""
        return pb.ServerMetadataResponse(name="resnest", version=__version__, extensions=EXTENSIONS)

    @_refusing
    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What the model takes and gives."""
        self._answering.check_model(request.name, request.version)
        return pb.ModelMetadataResponse(**self._answering.model.metadata())

    @_refusing
    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """An inference."""
        record = Record("grpc")
        with self._answering.recorded(record):
            self._answering.check_model(request.model_name, request.model_version)
            if not self._answering.ready:
                raise EndingError("the service is ending; ask another, or this one when it is back")
            answer = await self._answering.infer(lambda: _request(request), request.ByteSize(), record)
            respond = functools.partial(self._response, answer.request.id, answer.outputs)
            return await self._answering.done(respond, answer.nbytes)

    def _response(self, asked: str, outputs: Any) -> Any:
        response = pb.ModelInferResponse(
            model_name=self._answering.model.name, model_version=protocol.VERSION, id=asked
        )
        for output in outputs:
            response.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
            response.raw_output_contents.append(protocol.packed(output))
        return response


def _request(message: Any) -> protocol.Request:
    if len(message.inputs) != 1:
        raise RequestError(f"{len(message.inputs)} inputs, expected one")
    (given,) = message.inputs
    name, datatype, shape = protocol.checked(given.name, given.datatype, list(given.shape))
    if any(key.startswith("shared_memory") for holder in (given, *message.outputs) for key in holder.parameters):
        raise RequestError("shared memory is not offered here; send the data")
    if len(message.raw_input_contents) > 1 or (message.raw_input_contents and given.HasField("contents")):
        raise RequestError(f"input {name!r:.99}: expected its data once, in contents or raw_input_contents")
    if message.raw_input_contents:
        data = protocol.of_bytes(name, datatype, shape, message.raw_input_contents[0])
    else:
        data = _contents(name, datatype, shape, given.contents)
    outputs = [protocol.Wanted(output.name, _top(output)) for output in message.outputs]
    return protocol.Request(message.id, protocol.Tensor(name, datatype, shape, data), outputs)


def _contents(name: str, datatype: str, shape: tuple[int, ...], contents: Any) -> protocol.Data:
    if other := [field.name for field, _ in contents.ListFields() if field.name != _CONTENTS[datatype]]:
        raise RequestError(f"input {name!r:.99}: its data is in {other[0]}, expected {_CONTENTS[datatype]}")
    values = getattr(contents, _CONTENTS[datatype])
    if datatype == protocol.BYTES:
        return protocol.of_elements(name, shape, list(values))
    return protocol.of_array(name, datatype, shape, np.array(values, np.float64 if datatype == "FP32" else np.int64))


def _top(output: Any) -> int | None:
    if "classification" not in output.parameters:
        return None
    parameter = output.parameters["classification"]
    if parameter.WhichOneof("parameter_choice") != "int64_param":
        raise RequestError("parameter classification: expected a whole number")
    return protocol.checked_top(parameter.int64_param)


class _Arrivals(grpc.aio.ServerInterceptor):
    """Has messages come while there is room for what has come, and for all that is on its way at its largest.

    Of the others gRPC holds no more than the window of a stream. Inferences have a room of their own: health is told
    while they fill it.
    """

    def __init__(self, max_body: int, inferences: bool) -> None:
        self._max_body = max_body
        self._inferences = inferences
        self._left = BODIES_HELD * max_body
        self._freed = asyncio.Event()

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """The handler of a call, once there is room for its message."""
        handler = await continuation(details)
        inference = _name(details) == "ModelInfer"
        if handler is None or handler.unary_unary is None or inference != self._inferences:
            return handler
        while self._left < self._max_body:
            self._freed.clear()
            await self._freed.wait()
        self._left -= self._max_body
        held = self._max_body
        call: Any = asyncio.current_task()
        late = asyncio.get_running_loop().call_later(BODY_SECONDS, call.cancel)

        def hold(nbytes: int) -> None:
            nonlocal held
            late.cancel()
            self._left += held - nbytes
            held = nbytes
            self._freed.set()

        def read(message: bytes) -> Any:
            hold(len(message))
            return handler.request_deserializer(message)

        call.add_done_callback(lambda _: hold(0))
        return grpc.unary_unary_rpc_method_handler(handler.unary_unary, read, handler.response_serializer)


class _Unread(grpc.aio.ServerInterceptor):
    """Answers health, and refuses who lacks the token, without the message: who sends none takes nobody's room."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """The handler of a call; as of a stream where its message makes no difference."""
        handler = await continuation(details)
        known = self._answering.knows(dict(details.invocation_metadata).get("authorization"))
        if handler is None or handler.unary_unary is None or (known and _name(details) not in _OPEN):
            return handler

        async def answered(_messages: Any, context: Any) -> Any:
            return await handler.unary_unary(None, context)

        return grpc.stream_unary_rpc_method_handler(answered, None, handler.response_serializer)


def _name(details: Any) -> str:
    return str(details.method.rpartition("/")[2])


def server(answering: Answering, address: str, port: int, max_body: int, most_calls: int) -> tuple[Any, int]:
    """A gRPC server that is not yet started, and its port; raises RuntimeError where that is taken."""
    options = [
        ("grpc.max_receive_message_length", max_body),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # else two services share a port in silence
    ]
    interceptors = [
        *(_Arrivals(max_body, inferences) for inferences in (True, False)),
        _Unread(answering),
    ]  # last: first
    made = grpc.aio.server(options=options, interceptors=interceptors, maximum_concurrent_rpcs=most_calls)
    service.add_GRPCInferenceServiceServicer_to_server(Rpc(answering), made)
    return made, made.add_insecure_port(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
