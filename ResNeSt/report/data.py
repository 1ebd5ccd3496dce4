"""Everything that a page shows, as plain data: report.json, which bench.sh and run.sh write where they ran.

The page is drawn from it alone (and from the images, where they are there), on whatever machine has matplotlib.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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
    it was measured; `images_per_second` is the network's alone. The intervals are shares, `wilson`'s.
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
    top1_interval: tuple[float, float]
    top5_interval: tuple[float, float]
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
    """Images of one class, and how many of them were right at first guess; the interval is a share, `wilson`'s."""

    label: int
    images: int
    right: int
    interval: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How many of the `images` of class `label` were taken for class `found`."""

    label: int
    found: int
    count: int
    images: int


@dataclasses.dataclass(frozen=True)
class Matrix:
    """`counts[i][j]` images of class `labels[i]` were taken for class `labels[j]`."""

    labels: list[int]
    counts: list[list[int]]


@dataclasses.dataclass(frozen=True)
class Bin:
    """Images whose first class has a probability in (`low`, `high`]: how many, its mean, and how many are right."""

    low: float
    high: float
    images: int
    confidence: float
    right: int


@dataclasses.dataclass(frozen=True)
class Kept:
    """Images whose first class has at least this probability, and how many of them are right."""

    confidence: float
    images: int
    right: int


@dataclasses.dataclass(frozen=True)
class Confidence:
    """How far the probabilities of stage `of` can be believed, over `images`.

    `error` is the expected calibration error, a share, over `bins` of equal width that hold images (Guo et al. 2017,
    "On Calibration of Modern Neural Networks", equation 3). `kept` is what a threshold leaves, lowest first.
    """

    of: str
    images: int
    error: float
    bins: list[Bin]
    kept: list[Kept]


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of stage `of`: how many have images, the fewest and most of one, the worst, the most confused.

    `matrix` is left out where there are too many classes to look at.
    """

    of: str
    count: int
    fewest: int
    most: int
    worst: list[ClassScore]
    confused: list[Confusion]
    matrix: Matrix | None


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """How far a layer's output is off fp32's: Euclidean distance, relative to the length of fp32's.

    `alone` is by its own rounding to int8, which is what that would cost where it is not `quantized`, but was kept in
    floating point; `together` is in the int8 network. None is no number.
    """

    name: str
    operator: str
    quantized: bool
    alone: float | None
    together: float | None


@dataclasses.dataclass(frozen=True)
class LayerCosts:
    """What int8 costs the layers of a network, in its order, measured on so many images that judged it."""

    images: int
    layers: list[LayerCost]


@dataclasses.dataclass(frozen=True)
class PublishedSpeed:
    """What others measured of the same network at the same input size: images/s by batch size, both as text of JSON."""

    device: str
    source: str
    images_per_second: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Report:
    """One run. `same_top1[i][j]` counts the images to which stages i and j give the same class.

    The first of `stages` is the reference of the others. `published` is of the network with its recipe. `images` is the
    folder of the pictures, where one is known; `flips` are as many as a page shows of `flip_count`. `classes` and
    `confidence` are of the last stage. `layer_costs` are those of an int8 network, where they were measured.
    `complaints` say why the run failed, where it did.
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
    confidence: Confidence | None = None
    layer_costs: LayerCosts | None = None
    complaints: list[str] = dataclasses.field(default_factory=list)
    speeds: list[Speed] = dataclasses.field(default_factory=list)
    published_speeds: list[PublishedSpeed] = dataclasses.field(default_factory=list)
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
    converted = {
        "published": _maybe(Published, fields["published"]),
        "stages": [_stage(record) for record in fields["stages"]],
        "flips": [_flip(record) for record in fields["flips"]],
        "classes": _classes(fields["classes"]),
        "confidence": _confidence(fields["confidence"]),
        "layer_costs": layer_costs(fields.get("layer_costs")),  # earlier releases measured none
        "speeds": _all(Speed, fields["speeds"]),
        "published_speeds": _all(PublishedSpeed, fields["published_speeds"]),
        "steps": _all(Step, fields["steps"]),
    }
    return _made(Report, {**fields, **converted})


def _stage(fields: dict[str, Any]) -> StageScore:
    stage = _made(StageScore, fields)
    for right, (low, high) in ((stage.top1, stage.top1_interval), (stage.top5, stage.top5_interval)):
        if not low <= right / stage.total <= high:
            raise ValueError(f"{stage.title}: {right} of {stage.total} lies outside its interval, {low} to {high}")
    return stage


def _flip(fields: dict[str, Any]) -> FlippedImage:
    guessed = {key: Guessed(int(fields[key][0]), float(fields[key][1])) for key in ("expected", "found")}
    return _made(FlippedImage, {**fields, **guessed})


def _classes(fields: dict[str, Any] | None) -> Classes | None:
    if fields is None:
        return None
    converted = {
        "worst": _all(ClassScore, fields["worst"]),
        "confused": _all(Confusion, fields["confused"]),
        "matrix": _maybe(Matrix, fields["matrix"]),
    }
    return _made(Classes, {**fields, **converted})


def _confidence(fields: dict[str, Any] | None) -> Confidence | None:
    if fields is None:
        return None
    return _made(Confidence, {**fields, "bins": _all(Bin, fields["bins"]), "kept": _all(Kept, fields["kept"])})


def layer_costs(fields: dict[str, Any] | None) -> LayerCosts | None:
    """From what the record of a model, or report.json, has of them; raises as `_made` where that is something else."""
    if fields is None:
        return None
    return _made(LayerCosts, {**fields, "layers": _all(LayerCost, fields["layers"])})


T = TypeVar("T")
_SIMPLE = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def _all(kind: type[T], records: list[dict[str, Any]]) -> list[T]:
    return [_made(kind, record) for record in records]


def _maybe(kind: type[T], record: dict[str, Any] | None) -> T | None:
    return None if record is None else _made(kind, record)


def _made(kind: type[T], fields: dict[str, Any]) -> T:
    """Raises TypeError where a value is not what its field says; objects in it are made before."""
    made = kind(**fields)
    for name, of in kind.__annotations__.items():
        if not _fits(getattr(made, name), of):
            raise TypeError(f"{name} is {getattr(made, name)!r}, not {of}")
    return made


def _fits(value: Any, of: str) -> bool:
    """Whether a value of JSON is one of the annotation `of`, as it is written here."""
    if of.endswith(" | None"):
        return value is None or _fits(value, of[: -len(" | None")])
    if of.startswith("dict["):
        inner = of[:-1].split(", ", 1)[1]
        return isinstance(value, dict) and all(_fits(each, inner) for each in value.values())
    if of.startswith(("list[", "tuple[")):
        inner = of[:-1].split("[", 1)[1].split(", ")[0]
        return isinstance(value, (list, tuple)) and all(_fits(each, inner) for each in value)
    return of not in _SIMPLE or type(value) in _SIMPLE[of]
