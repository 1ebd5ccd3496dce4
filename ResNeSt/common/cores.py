"""How many cores this process may use: by its affinity, by the CPU quota of its container, by `--threads`.

Runtimes count the machine's cores, or those of the affinity: in a container with 2 of 64 CPUs by quota (cgroup v1
cpu.cfs_quota_us, v2 cpu.max; `docker run --cpus=2`) they start 64 threads, which wait for each other while the kernel
holds them back.
"""

from __future__ import annotations

import math
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

from ResNeSt.common.errors import ArgumentError

MOUNTED = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
LOOKED_S = 0.1  # long enough for a core that works to be told from one that does not


_share: int | None = None  # of a scheduler that counts cores and binds nobody to any, such as Ray


def cores() -> int:
    """How many cores this process may use, at least 1; a quota of 1.5 CPUs is two that are not always there."""
    quota = cpu_quota()
    bounds = [len(os.sched_getaffinity(0)), _share, None if quota is None else math.ceil(quota)]
    return max(1, min(bound for bound in bounds if bound is not None))


def keep_to(count: int) -> None:
    """Makes `cores` say `count` at most: this process's share of a machine, on whichever cores it runs."""
    global _share
    _share = count


def thread_limit() -> int | None:
    """How many threads a runtime is to start, where its own count of the machine's cores would be too many."""
    allowed = cores()
    return allowed if allowed < (os.cpu_count() or allowed) else None


def use_cores(count: int) -> None:
    """Keeps this process and those it starts to `count` cores, the least busy ones of those it has.

    A bound for all threads, whichever library starts them; libraries that are imported later count these cores alone.
    Raises ArgumentError where there are fewer.
    """
    allowed = os.sched_getaffinity(0)
    if not 1 <= count <= len(allowed):
        raise ArgumentError(f"--threads {count}: this process may use {len(allowed)} cores; name at most as many")
    if count < len(allowed):
        os.sched_setaffinity(0, _least_busy(allowed, count))


def tell_of_quota() -> None:
    """Tells the libraries that are imported later, where a quota is below what they would count, unless the user has.

    PyTorch and NumPy's linear algebra go by the affinity and this variable of OpenMP's.
    """
    if cores() < len(os.sched_getaffinity(0)):
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def cpu_quota(mounted: Path = MOUNTED, membership: Path = MEMBERSHIP) -> float | None:
    """CPUs that the control groups of this process let it take, the least of them all; None without a bound.

    A group holds back those below it, too. In a container the paths may be the host's, which are not there: the
    container's own group is the root then.
    """
    return min((quota for quota in _quotas(mounted, membership) if quota is not None), default=None)


def _quotas(mounted: Path, membership: Path) -> Iterator[float | None]:
    for line in membership.read_text().splitlines() if membership.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots, read = (mounted, mounted / "unified"), _quota_v2
        elif "cpu" in controllers.split(","):
            roots, read = (mounted / controllers, mounted / "cpu"), _quota_v1
        else:
            continue
        for root in roots:
            group = root / path.lstrip("/")
            yield from (read(each) for each in (group, *group.parents) if each.is_relative_to(root))


def _quota_v2(group: Path) -> float | None:
    """`max 100000` or `200000 100000`: microseconds of a period."""
    quota, _, period = _content(group / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _quota_v1(group: Path) -> float | None:
    """A quota of -1 is none."""
    quota, period = (_content(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return _ratio(quota, period)


def _ratio(quota: str, period: str) -> float | None:
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _content(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _least_busy(allowed: set[int], count: int) -> list[int]:
    """By the time they work while we look; among equals any, since a neighbour may be choosing, too."""
    before = _worked()
    time.sleep(LOOKED_S)
    after = _worked()
    busy = {core: after.get(core, 0) - before.get(core, 0) for core in allowed}
    shuffled = random.SystemRandom().sample(sorted(allowed), len(allowed))
    return sorted(shuffled, key=lambda core: busy[core])[:count]


def _worked() -> dict[int, int]:
    """Clock ticks that each core was not idle, of /proc/stat: user, nice, system, then idle and iowait, then others."""
    lines = re.findall(r"^cpu(\d+) (.*)$", _content(Path("/proc/stat")), re.MULTILINE)
    ticks = {int(core): list(map(int, numbers.split())) for core, numbers in lines}
    return {core: sum(numbers) - sum(numbers[3:5]) for core, numbers in ticks.items()}


def shares(count: int) -> list[list[int]]:
    """The cores that this process may use, dealt out to `count` processes side by side, neighbours together.

    Raises ArgumentError where there are fewer cores than processes: they would wait for each other.
    """
    available = cores()
    if not 1 <= count <= available:
        raise ArgumentError(f"{count} processes: this process may use {available} cores; ask for at most as many")
    allowed = os.sched_getaffinity(0)
    chosen = sorted(_least_busy(allowed, available) if available < len(allowed) else allowed)
    edges = [number * available // count for number in range(count + 1)]
    return [chosen[start:end] for start, end in zip(edges, edges[1:])]
