"""Starts a service; what only a service needs is imported when one is started."""

from __future__ import annotations

import importlib.util

from ResNeSt.common.errors import MissingRuntimeError
from ResNeSt.common.progress import Say, silent
from ResNeSt.serve.settings import Service

PACKAGES = ("grpc", "orjson", "prometheus_client", "starlette", "tritonclient", "uvicorn", "uvloop", "httptools")


def serve(service: Service, say: Say = silent) -> None:
    """Serves until SIGTERM or SIGINT: then nothing new is taken, what was accepted is answered, and it returns.

    `say` hears where it listens and, with `log_requests`, a line a request. Call it from the main thread.
    Raises ArgumentError for what cannot be served, MissingRuntimeError where requirements/serve.txt is not installed,
    PipelineError for a port that is taken or a token file without a token, and what opening a model raises.
    """
    service.check()
    if lacking := [package for package in PACKAGES if importlib.util.find_spec(package) is None]:
        raise MissingRuntimeError(
            f"{lacking[0]} is not installed here: pip install -r requirements/serve.txt, in an environment of its own"
        )
    from ResNeSt.serve.server import run

    run(service, say)
