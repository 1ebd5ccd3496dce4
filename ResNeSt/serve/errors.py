"""What a request can end in, with the status that REST and gRPC have for it."""

from __future__ import annotations

from ResNeSt.common.errors import PipelineError


class RequestError(PipelineError):
    """A request that cannot be answered, through its own fault unless a subclass says otherwise."""

    http = 400
    grpc = "INVALID_ARGUMENT"


class UnknownError(RequestError):
    """A model or a version that is not served here."""

    http, grpc = 404, "NOT_FOUND"


class TooLargeError(RequestError):
    """A body over the limit."""

    http, grpc = 413, "RESOURCE_EXHAUSTED"


class SlowError(RequestError):
    """A body that does not come."""

    http, grpc = 408, "DEADLINE_EXCEEDED"


class GoneError(RequestError):
    """Who asked has gone: its answer is for logs and metrics alone."""

    http, grpc = 499, "CANCELLED"


class EncodingError(RequestError):
    """A body in an encoding that is not taken."""

    http, grpc = 415, "INVALID_ARGUMENT"


class UnauthenticatedError(RequestError):
    """A request without the token."""

    http, grpc = 401, "UNAUTHENTICATED"


class OverloadedError(RequestError):
    """More is asked than can wait here."""

    http, grpc = 503, "UNAVAILABLE"


class EndingError(RequestError):
    """The service is on its way down."""

    http, grpc = 503, "UNAVAILABLE"


class ModelError(RequestError):
    """The model fails on an input that is as it should be."""

    http, grpc = 500, "INTERNAL"
