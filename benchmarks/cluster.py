"""--ray: images/s of 1 to 16 workers on this machine, and what an image costs the driver.

The work is simulated, since this machine has fewer cores than workers: a task waits as long as its pictures take to
decode (here 5 ms each, 200 images/s a worker) and returns an answer each, as a null engine's are. What is left is what
Ray and the driver cost, which is what bounds a cluster.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.rounds import report
from ResNeSt.answers.outcomes import Outcome
from ResNeSt.cluster.ray_tasks import Ray
from ResNeSt.common.journal import Journal
from ResNeSt.common.machines import CHUNK
from ResNeSt.evaluate import Tally
from ResNeSt.score.score import TOP_K

WORKERS = (1, 2, 4, 8, 16)
DECODE_S = 0.005
EACH = 6  # chunks of every worker
CHUNKS = (256, 1024, 4096)
COUNTED = 100_000  # images whose cost for the driver is measured
CLASSES = [3, 1, 4, 15, 9]


@dataclasses.dataclass(frozen=True)
class Wait:
    """Pictures that take as long as `seconds` each, and are of some class."""

    seconds: float
    accelerator: ClassVar[str] = ""
    files: ClassVar[Mapping[str, str]] = {}

    def __call__(self, items: Sequence[str]) -> list[Outcome]:
        """An answer each."""
        time.sleep(self.seconds * len(items))
        return [Outcome(item, CLASSES) for item in items]

    def crashed(self, item: str, why: str) -> Outcome:
        """Never."""
        return Outcome(item, (), "broken", why)

    def doubtful(self, items: Sequence[str], made: Sequence[Outcome]) -> list[str]:
        """None of them is there."""
        return []


def measure(rounds: int, output: Path) -> None:
    """Measures once, whatever `rounds` says: the tasks wait most of the time. Prints and writes the tables."""
    rows = []
    for workers in WORKERS:
        images = names(workers * EACH * CHUNK)
        wall, _ = timed(workers, Wait(DECODE_S), images, CHUNK)
        ideal = workers / DECODE_S
        rows.append([str(workers), f"{ideal:,.0f}", f"{len(images) / wall:,.0f}", f"{len(images) / wall / ideal:.0%}"])
    report(output, "cluster-workers", ["workers", "ideal, images/s", "reached", "of it"], rows)
    rows = []
    for chunk in CHUNKS:
        wall, cpu = timed(2, Wait(0), names(COUNTED), chunk)
        rows.append([f"take chunks of {chunk:,} from Ray", f"{1e6 * cpu / COUNTED:.1f}", f"{COUNTED / wall:,.0f}"])
    cpu = scoring(names(COUNTED))
    rows.append(["score and write the journal", f"{1e6 * cpu / COUNTED:.1f}", f"{COUNTED / cpu:,.0f}"])
    report(output, "cluster-driver", ["the driver's work", "CPU us an image", "images/s"], rows)


def names(count: int) -> list[str]:
    """Paths as long as ImageNet's."""
    return [f"/data/imagenet/val/ILSVRC2012_val_{number:08}.JPEG" for number in range(count)]


def timed(workers: int, job: Wait, images: Sequence[str], chunk: int) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process, that the images take a cluster of so many cores that works already."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": workers, "object_store_memory": 100_000_000})
    try:
        with Ray(cluster.address, 1) as machines:
            list(machines.each(Wait(1.0), names(2 * workers), 1))  # every process is up
            wall, cpu = time.perf_counter(), time.process_time()
            count = sum(map(len, machines.each(job, images, chunk)))
            assert count == len(images)  # noqa: S101 (a benchmark of anything else would be none)
            return time.perf_counter() - wall, time.process_time() - cpu
    finally:
        cluster.shutdown()


def scoring(images: Sequence[str]) -> float:
    """CPU seconds of what evaluate does with the answers, 256 at a time."""
    truth = dict.fromkeys(images, CLASSES[0])
    outcomes = [Outcome(image, CLASSES) for image in images]
    tally = Tally(truth, TOP_K, {})
    with tempfile.TemporaryDirectory() as scratch, Journal(Path(scratch, "journal"), {}) as journal:
        started = time.process_time()
        for start in range(0, len(outcomes), CHUNK):
            some = outcomes[start : start + CHUNK]
            tally.add(some)
            journal.write([outcome._asdict() for outcome in some])
        return time.process_time() - started
