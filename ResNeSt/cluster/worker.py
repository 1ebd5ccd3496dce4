"""What a task does on a node that has this release: a job on a chunk, once the node's files are those of the driver."""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ResNeSt.common.cores import keep_to, tell_of_quota
from ResNeSt.common.errors import PipelineError, told
from ResNeSt.common.files import sha256
from ResNeSt.common.machines import Job
from ResNeSt.common.made_of import state_of


class Order(NamedTuple):
    """A job on a chunk, with as many cores as the task was given."""

    job: Job[Any, Any]
    chunk: Sequence[Any]
    cores: int


class Done(NamedTuple):
    """What was made of a chunk, and the bytes of the pictures that are in doubt as this node sees them."""

    made: list[Any]
    sizes: Mapping[str, int | None]


def run(node: str, payload: bytes) -> tuple[str, str, bytes]:
    """("done" or "refused", the node, a pickled Done or why); "failed" has a message and an exit code, pickled."""
    order: Order = pickle.loads(payload)  # noqa: S301 (of the driver, which may run what it likes here)
    keep_to(order.cores)
    tell_of_quota()
    try:
        for path, digest in order.job.files.items():
            check_same(path, digest)
    except PipelineError as error:
        return "refused", node, str(error).encode()
    try:
        made = order.job(order.chunk)
    except (PipelineError, OSError, MemoryError) as error:
        return "failed", node, pickle.dumps(told(error))
    sizes = {path: size_of(path) for path in order.job.doubtful(order.chunk, made)}
    return "done", node, pickle.dumps(Done(made, sizes))


@functools.cache
def check_same(path: str, digest: str) -> None:
    """Raises PipelineError where this machine has another file at `path`; who opens it tells where there is none."""
    if os.path.exists(path) and (found := sha256(path)) != digest:
        raise PipelineError(
            f"has another {path} (SHA-256 {found[:12]}, the driver's is {digest[:12]}); copy the driver's there, or "
            "keep it on storage that all nodes share"
        )


def size_of(path: str) -> int | None:
    """Bytes, of a picture in an archive those of the archive; None where there is no such file."""
    try:
        return state_of(path).size
    except OSError:
        return None
