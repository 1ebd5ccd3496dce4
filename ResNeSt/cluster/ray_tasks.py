"""A Ray cluster, or this machine's cores as one: a task a chunk, as many at a time as the nodes have room for."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import pickle
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

from ResNeSt.cluster import address as addresses
from ResNeSt.cluster import node
from ResNeSt.cluster.chunks import CrashError, in_order
from ResNeSt.cluster.worker import Done, Order, size_of
from ResNeSt.common.cores import cores
from ResNeSt.common.errors import FailedCommandError, PipelineError
from ResNeSt.common.machines import CHUNK, Job

Item = TypeVar("Item")
Made = TypeVar("Made")

RETRIES = 2  # of a task whose process or node ends
NODES_LOST = 10  # under one chunk, until it is taken for the cause
ALONE_S = 60  # that a run goes on waiting once no node is left that could take a task
LOOK_S = 5
OBJECTS = 100_000_000  # bytes of shared memory for what tasks give back, of which there is little; Ray takes 30 % else
SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of a change to come
    "RAY_task_oom_retries": str(RETRIES),  # else without end
}


class Ray:
    """Connected while a `with` lasts; `text` is the address of a cluster's head, or `local` for this machine alone.

    `chunk` is how many images a task takes, `workers` how many cores, each for a thread that decodes (None: 1, or a
    card's share of its host's). To be entered before anything imports Ray, which reads its settings then. Entering
    raises ArgumentError for what is no address, PipelineError where no cluster answers there.
    """

    def __init__(self, text: str, workers: int | None = None, chunk: int = CHUNK) -> None:
        self.chunk = chunk
        self._text = text
        self._workers = workers
        self._undone = contextlib.ExitStack()
        self._most = 0
        self._ended_by = 0

    def __enter__(self) -> Ray:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        main = threading.current_thread() is threading.main_thread()
        if main:
            self._undone.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, self._end))
        try:
            if self._text == addresses.LOCAL:
                self._start()
            else:
                self._join()
            _ray().cloudpickle.register_pickle_by_value(node)
            if main:
                signal.signal(signal.SIGTERM, self._end)  # in place of that of Ray's C++ part, which prints
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        if "ray" in sys.modules:
            _ray().shutdown()  # and the cluster ends what it still runs for us; cancelling tasks brings Ray down
        self._undone.close()
        if self._ended_by:
            sys.exit(128 + self._ended_by)  # as of a Unix program; on its way through Ray the code may be another

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ended_by = number
        sys.exit(128 + number)

    def _start(self) -> None:
        """A cluster of this machine alone, which nobody else reaches, and which ends with this process."""
        os.environ[addresses.LOOPBACK_ONLY] = "0"
        if "ray" not in sys.modules:  # which reads these once
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        folder = tempfile.mkdtemp(prefix="ray-", dir=_short_folder())
        self._undone.callback(_remove, folder)
        atexit.register(_remove, folder)  # after Ray's own, which ends what an interrupted start has begun
        self._init(
            "local",
            num_cpus=max(cores(), self._workers or 1),
            include_dashboard=False,
            object_store_memory=OBJECTS,
            _temp_dir=folder,
        )

    def _join(self) -> None:
        self._init(addresses.check(self._text))

    def _init(self, address: str, **settings: Any) -> None:
        ray = _ray()
        # What its nodes say of tasks that failed, which we report ourselves, and its exit code 15 on SIGTERM; there is
        # no setting for either.
        ray._private.worker.print_to_stdstream = lambda *_, **__: None
        ray._private.utils.set_sigterm_handler = lambda *_: None
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **settings)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise PipelineError(f"--ray {self._text}: Ray cannot start here ({error}); {addresses.HELP}") from None

    @property
    def used(self) -> str:
        """`by Ray, up to 16 tasks side by side on 2 nodes`."""
        nodes = len(_alive())
        return f"by Ray, up to {self._most} tasks side by side on {nodes} node{'s' * (nodes > 1)}"

    def each(self, job: Job[Item, Made], items: Sequence[Item], size: int) -> Iterator[list[Made]]:
        """What `job` makes of `items`, in their order, a list for every `size` of them.

        Raises PipelineError where no node has what the job needs, where a node has another release, model or labels, or
        does not see the pictures, and what the job raises.
        """
        pool = _Tasks(job, self._workers)
        for made in in_order(pool, items, size, job.crashed):
            self._most = max(self._most, pool.slots())
            yield made


class _Tasks:
    """Chunks as Ray's tasks."""

    def __init__(self, job: Job[Any, Any], workers: int | None) -> None:
        self._job = job
        self._looked = 0.0
        self._slots = 0
        self._card = job.accelerator
        self._cores = workers or _share(self._card)
        self._digest = node.project_digest()
        if not self.slots():
            raise PipelineError(f"no node of the cluster has {self._needs()}; {_offered()}; {addresses.HELP}")
        options: dict[str, Any] = {"num_cpus": self._cores, "scheduling_strategy": "SPREAD", "name": "resnest"}
        if self._card == "GPU":
            options["num_gpus"] = 1
        elif self._card:
            options["resources"] = {self._card: 1}
        self._task = _ray().remote(**options)(node.work)

    def _needs(self) -> str:
        card = f" and 1 {self._card}" if self._card else ""
        return f"{self._cores} core{'s' * (self._cores > 1)}{card} for a task"

    def slots(self) -> int:
        """How many tasks the nodes take at a time; nodes come and go."""
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            self._slots = sum(self._room(each["Resources"]) for each in _alive())
        return self._slots

    def _room(self, resources: dict[str, float]) -> int:
        rooms = [resources.get("CPU", 0) // self._cores]
        if self._card:
            rooms.append(resources.get(self._card, 0))
        return int(min(rooms))

    def window(self) -> int:
        """Two for each slot: none waits for its next one, and a slow one holds the others up late."""
        return 2 * self.slots() + 2

    def submit(self, chunk: Sequence[Any], retry: bool) -> tuple[Sequence[Any], bool, list[Any]]:
        return chunk, retry, [self._begin(chunk, retry)]

    def _begin(self, chunk: Sequence[Any], retry: bool) -> Any:
        payload = pickle.dumps(Order(self._job, chunk, self._cores))
        return self._task.options(max_retries=RETRIES if retry else 0).remote(self._digest, os.getcwd(), payload)

    def take(self, ticket: tuple[Sequence[Any], bool, list[Any]]) -> list[Any]:
        chunk, retry, begun = ticket
        errors = _ray().exceptions
        for _ in range(NODES_LOST):
            try:
                return self._made(*self._waited(begun[0]))
            except errors.WorkerCrashedError:
                raise CrashError("ended without a word, as a crash or a lack of memory ends one") from None
            except errors.OutOfMemoryError:
                raise PipelineError(
                    "a node of the cluster ran out of memory, and Ray ended the task; give each task more cores with "
                    "--workers, so that there are fewer of them, or take a smaller --batch"
                ) from None
            except (errors.NodeDiedError, errors.ObjectLostError):
                begun[0] = self._begin(chunk, retry)
        raise PipelineError(f"{NODES_LOST} nodes ended while they worked on {_name(chunk[0])} and those behind it")

    def _waited(self, ref: Any) -> tuple[str, str, bytes]:
        ray = _ray()
        alone_since = None
        while not ray.wait([ref], timeout=LOOK_S)[0]:
            if self.slots():
                alone_since = None
                continue
            alone_since = alone_since or time.monotonic()
            if time.monotonic() - alone_since > ALONE_S:
                raise PipelineError(f"no node of the cluster that has {self._needs()} is left; {_offered()}")
        result: tuple[str, str, bytes] = ray.get(ref)
        return result

    def _made(self, how: str, where: str, what: bytes) -> list[Any]:
        if how == "refused":
            raise PipelineError(f"node {where} {what.decode()}")
        if how == "failed":
            message, code = pickle.loads(what)  # noqa: S301 (of a node with this very release)
            raise FailedCommandError(f"{message} (on node {where})", code)
        done: Done = pickle.loads(what)  # noqa: S301
        for path, size in done.sizes.items():
            if (here := size_of(path)) != size:
                there = "no such file" if size is None else f"one of {size:,} bytes"
                raise PipelineError(
                    f"node {where} sees {there} at {path}, here it has {here or 0:,} bytes; pictures have to lie on "
                    "storage that all nodes share, or be copied to each"
                )
        return done.made


def _name(item: Any) -> str:
    return str(item[0]) if isinstance(item, tuple) else str(item)


def _share(accelerator: str) -> int:
    """Cores of a task: those of a host, dealt out to its cards; where the tasks need none, one."""
    hosts = [each["Resources"] for each in _alive() if each["Resources"].get(accelerator)]
    return max(1, min((int(host.get("CPU", 0) // host[accelerator]) for host in hosts), default=1))


def _alive() -> list[dict[str, Any]]:
    return [each for each in _ray().nodes() if each["Alive"]]


def _offered() -> str:
    def told(each: dict[str, Any]) -> str:
        resources = each["Resources"]
        counts = ", ".join(f"{resources.get(kind, 0):g} {kind}" for kind in ("CPU", "NPU", "GPU"))
        return f"{each['NodeManagerHostname']} ({each['NodeManagerAddress']}) has {counts}"

    return "; ".join(map(told, _alive()[:4])) or "it has no nodes"


def _short_folder() -> str | None:
    """Ray makes sockets below it, whose paths end at 107 characters."""
    return None if len(tempfile.gettempdir()) <= 20 or not Path("/tmp").is_dir() else "/tmp"  # noqa: S108


def _remove(folder: str) -> None:
    """Also from under processes that are about to end, and still write there."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.1)


def _ray() -> Any:
    """Imported once its settings are in the environment."""
    import ray

    return ray
