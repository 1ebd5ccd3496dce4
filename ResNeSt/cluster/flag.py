"""--ray: the work is done by the processes of a Ray cluster."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util

from ResNeSt.common.arguments import Parser
from ResNeSt.common.errors import ArgumentError, MissingRuntimeError
from ResNeSt.common.flags import take
from ResNeSt.common.machines import CHUNK, Machines


def add_ray_flag(parser: Parser) -> None:
    """The flag that `machines_of` reads."""
    take(parser, "ray")
    take(parser, "chunk", note=str(CHUNK))


def machines_of(options: argparse.Namespace) -> contextlib.AbstractContextManager[Machines | None]:
    """What --ray names, connected while the context lasts; None without it.

    Raises ArgumentError for --chunk alone, MissingRuntimeError where Ray is not installed, PipelineError where nothing
    answers at the address.
    """
    if options.ray is None and options.chunk is not None:
        raise ArgumentError(f"--chunk {options.chunk}: is for --ray; leave it out")
    if options.ray is None:
        return contextlib.nullcontext()
    if importlib.util.find_spec("ray") is None:
        raise MissingRuntimeError("ray is not installed here; --ray takes it: pip install -r requirements/ray.txt")
    from ResNeSt.cluster.ray_tasks import Ray

    return Ray(options.ray, options.workers, options.chunk or CHUNK)
