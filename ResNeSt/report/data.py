"""Everything that a page shows, as plain data: report.json, which bench.sh and run.sh write where they ran.

The page is drawn from it alone (and from the images, where they are there), on whatever machine has matplotlib.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, read_json, write_json
from ResNeSt.models.cards import Published

NAME = "report.json"
Z95 = 1.959963984540054  # of a standard normal distribution, 95 % lie within this


def wilson(right: int, total: int) -> tuple[float, float]:
    """95 % interval of a share, from `right` of `total`, which lies in it (Wilson 1927, score interval)."""
    share, spread = right / total, Z95**2 / total
    centre = (share + spread / 2) / (1 + spread)
    half = Z95 * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    # The share itself is the bound at either end; rounding must not put it outside.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


@dataclasses.dataclass(frozen=True)
class StageScore:
    """What one stage answered: images right at first guess, within five, and scored.

    Against the reference stage: images with the same top-1, and of the others those that only the reference (`lost`)
    or only this stage (`gained`) got right. `difference` of logits is the largest, relative to the largest one, where
    it was measured; `images_per_second` is the network's alone.
    """

    name: str
    batch: int
    top1: int
    top5: int
    total: int
    same_top1: int
    lost: int
    gained: int
    images_per_second: float
    difference: float | None = None

    @property
    def title(self) -> str:
        """The stage and its batch size."""
        return f"{self.name}, batch {self.batch}"

    @property
    def flipped(self) -> int:
        """Images with another top-1 than the reference."""
        return self.total - self.same_top1


def several(processes: int, instances: int) -> str:
    """What goes behind a name where several processes, or instances of the model, ran side by side."""
    counts = {"processes": processes, "instances": instances}
    return "".join(f", {count} {name}" for name, count in counts.items() if count > 1)


@dataclasses.dataclass(frozen=True)
class Speed:
    """One batch size of the pure loop; `percentiles_ms` are the latencies of a batch, 101 of them from 0 to 100 %.

    Images/s are those of all `processes` of each device or `instances` in one, a latency is that of one.
    """

    batch: int
    images_per_second: float
    mean_ms: float
    percentiles_ms: list[float]
    processes: int = 1
    instances: int = 1

    @property
    def side_by_side(self) -> str:
        """How many ran at the same time, where there were several."""
        return several(self.processes, self.instances)

    @property
    def title(self) -> str:
        """The batch size, and how many ran at the same time."""
        return f"batch {self.batch}{self.side_by_side}"


@dataclasses.dataclass(frozen=True)
class Step:
    """One process of the run: seconds of wall-clock time, bytes of the largest resident set of it or a child of it."""

    name: str
    seconds: float
    peak_bytes: int


class Guessed(NamedTuple):
    """A class, and the softmax of the logits at it."""

    number: int
    probability: float


@dataclasses.dataclass(frozen=True)
class FlippedImage:
    """An image whose top-1 changed, alike in all of `stages`, which are places in the report's list."""

    image: str
    label: int
    stages: list[int]
    expected: Guessed
    found: Guessed


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """Images of one class, and how many of them were right at first guess."""

    label: int
    images: int
    right: int


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How many of the `images` of class `label` were taken for class `found`."""

    label: int
    found: int
    count: int
    images: int


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of stage `of`: how many have images, the fewest and most of one, the worst, the most confused."""

    of: str
    count: int
    fewest: int
    most: int
    worst: list[ClassScore]
    confused: list[Confusion]


@dataclasses.dataclass(frozen=True)
class Report:
    """One run. `same_top1[i][j]` counts the images to which stages i and j give the same class.

    The first of `stages` is the reference of the others. `published` is of the network with its recipe. `images` is the
    folder of the pictures, where one is known; `flips` are as many as a page shows of `flip_count`.
    """

    model: str
    size: int | None
    about: dict[str, str]
    loop: int | None = None
    images: str | None = None
    class_names: list[str] | None = None
    published: Published | None = None
    stages: list[StageScore] = dataclasses.field(default_factory=list)
    same_top1: list[list[int]] = dataclasses.field(default_factory=list)
    flip_count: int = 0
    flips: list[FlippedImage] = dataclasses.field(default_factory=list)
    classes: Classes | None = None
    speeds: list[Speed] = dataclasses.field(default_factory=list)
    steps: list[Step] = dataclasses.field(default_factory=list)


def write(folder: PathLike, report: Report) -> None:
    """Writes report.json into `folder`."""
    write_json(Path(folder) / NAME, dataclasses.asdict(report))


def read(folder: PathLike) -> Report:
    """What report.json of `folder` holds; raises PipelineError where it is not there or is no report."""
    path = Path(folder) / NAME
    if not path.is_file():
        raise PipelineError(f"{path}: no such file; name a folder that bench.sh or run.sh wrote")
    fields = read_json(path)
    try:
        return _report(fields)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise PipelineError(f"{path}: not a report ({error}); let bench.sh or run.sh make it again") from None


def _report(fields: dict[str, Any]) -> Report:
    classes, published = fields["classes"], fields["published"]
    converted = {
        "published": Published(**published) if published else None,
        "stages": [StageScore(**record) for record in fields["stages"]],
        "flips": [_flip(record) for record in fields["flips"]],
        "classes": _classes(classes) if classes else None,
        "speeds": [Speed(**record) for record in fields["speeds"]],
        "steps": [Step(**record) for record in fields["steps"]],
    }
    return Report(**{**fields, **converted})


def _flip(fields: dict[str, Any]) -> FlippedImage:
    return FlippedImage(**{**fields, "expected": Guessed(*fields["expected"]), "found": Guessed(*fields["found"])})


def _classes(fields: dict[str, Any]) -> Classes:
    converted = {
        "worst": [ClassScore(**record) for record in fields["worst"]],
        "confused": [Confusion(**record) for record in fields["confused"]],
    }
    return Classes(**{**fields, **converted})
