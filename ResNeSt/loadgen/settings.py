"""What is asked of a LoadGen run, and LoadGen's settings for it.

They are MLPerf's own for image classification (built into LoadGen), then this project's for what has to fit the machine
(duration, queries, expected speed), then those of a settings file, then flags.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.engines.image_batches import FREE_BATCH, ModelChoice

SCENARIOS = ("Offline", "SingleStream", "MultiStream", "Server")
MODES = {"performance": "PerformanceOnly", "accuracy": "AccuracyOnly"}
BENCHMARK = "resnet50"  # MLPerf's name for image classification on ImageNet, in its settings
SECONDS = 60.0
MARGIN = 1.2  # of the measured speed: LoadGen calls a run too short that was faster than expected
MOST_IMAGES = 5_000_000  # LoadGen makes all queries before it begins; more would take gigabytes
LONGEST = 86_400.0
# LoadGen ignores a key that it does not know, and so what was meant by it.
KEYS = (
    *("min_duration", "max_duration", "min_query_count", "max_query_count", "target_qps", "target_latency"),
    *("target_latency_percentile", "target_duration", "samples_per_query", "max_async_queries", "coalesce_queries"),
    *("performance_sample_count_override", "accuracy_sample_count_override", "sample_concatenate_permutation"),
    *("qsl_rng_seed", "sample_index_rng_seed", "schedule_rng_seed", "accuracy_log_rng_seed"),
    *("accuracy_log_probability", "accuracy_log_sampling_target", "print_timestamps", "performance_issue_unique"),
    *("performance_issue_same", "performance_issue_same_index", "test05", "test05_qsl_rng_seed"),
    *("test05_sample_index_rng_seed", "test05_schedule_rng_seed", "use_token_latencies", "infer_token_latencies"),
    *("token_latency_scaling_factor", "ttft_latency", "tpot_latency"),
)
FRACTIONS = ("target_qps", "target_latency_percentile", "accuracy_log_probability", "token_latency_scaling_factor")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")  # of 1e3 LoadGen takes the 1, of -1 the largest number there is


@dataclasses.dataclass(frozen=True)
class LoadTest:
    """What is asked of a run of LoadGen.

    Samples are `tensors` of stage 1 or `images`, in the order of the file `labels`, which mode `accuracy` needs; else
    in that of the folder. `config` is a settings file like MLPerf's user.conf. `duration` is the least seconds [60],
    `min_queries` the least queries [1], of Offline the least images. `target_qps` are the images/s that Offline expects
    [what the model was measured to do] and that Server sends [half of it], `target_latency` the milliseconds that
    Server allows [15] and that a query of the others is expected to take [measured]. Logs go to
    `<output>/<scenario>/<mode>`.
    """

    model: ModelChoice
    scenario: str
    mode: str = "performance"
    tensors: PathLike | None = None
    images: PathLike | None = None
    labels: PathLike | None = None
    output: PathLike = "loadgen"
    config: PathLike | None = None
    duration: float | None = None
    min_queries: int | None = None
    target_qps: float | None = None
    target_latency: float | None = None

    @property
    def folder(self) -> Path:
        """Where the logs go."""
        return Path(self.output, self.scenario, self.mode)

    @property
    def source(self) -> PathLike:
        """The folder that holds the samples."""
        return self.tensors or self.images or ""

    @property
    def free_batch(self) -> int:
        """The batch size of a model that leaves it free."""
        return {"SingleStream": 1, "MultiStream": 8}.get(self.scenario, FREE_BATCH)

    def check(self) -> None:
        """Raises ArgumentError where it cannot be carried out."""
        for name, known in {"scenario": SCENARIOS, "mode": tuple(MODES)}.items():
            if getattr(self, name) not in known:
                raise ArgumentError(f"{name} {getattr(self, name)!r}, expected one of {', '.join(known)}")
        if (self.tensors is None) == (self.images is None):
            raise ArgumentError("name the samples, by --tensors or by --images, not both")
        if self.mode == "accuracy" and self.labels is None:
            raise ArgumentError(
                "--mode accuracy needs --labels: sample 0 is its first line, as MLPerf's scorer takes it"
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        if self.target_qps is not None and self.scenario not in ("Offline", "Server"):
            raise ArgumentError(f"--target-qps: {self.scenario} sends when the last query is answered; leave it out")
        if self.target_latency is not None and self.scenario == "Offline":
            raise ArgumentError("--target-latency: Offline knows none; leave it out")
        if self.min_queries is not None and self.min_queries < 1:
            raise ArgumentError(f"--min-queries {self.min_queries}, expected a whole number from 1")
        for name in ("duration", "target_qps", "target_latency"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ArgumentError(f"--{name.replace('_', '-')} {value:g}, expected a number above 0")
        if self.duration is not None and not 0.001 <= self.duration <= LONGEST:
            raise ArgumentError(f"--duration {self.duration:g}, expected seconds from 0.001 to {LONGEST:,.0f}")


def to_json(asked: LoadTest) -> str:
    """One line that `from_json` reads."""
    return json.dumps(dataclasses.asdict(asked), default=os.fspath)


def from_json(text: str) -> LoadTest:
    """What `to_json` wrote."""
    fields = json.loads(text)
    return LoadTest(model=ModelChoice(**fields.pop("model")), **fields)


def read_config(path: PathLike, scenario: str) -> set[str]:
    """The keys that a settings file sets for `scenario`.

    A line is `MODEL.SCENARIO.KEY = NUMBER`, MODEL `resnet50` or `*`, SCENARIO one of SCENARIOS or `*`; lines of other
    models do not count. Raises PipelineError for a line that LoadGen would pass over in silence.
    """
    found = set()
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{path}: not UTF-8 text ({error}); expected lines of 'MODEL.SCENARIO.KEY = NUMBER'"
        ) from None
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if words and words[0] != "#":
            model, of, key = _key(words, f"{path}: line {number}: found {line.strip()[:80]!r}")
            if model in ("*", BENCHMARK) and of in ("*", scenario):
                found.add(key)
    return found


def _key(words: list[str], where: str) -> tuple[str, str, str]:
    names = words[0].split(".")
    if len(words) != 3 or words[1] != "=" or len(names) != 3 or not _NUMBER.fullmatch(words[2]):
        raise PipelineError(f"{where}, expected 'MODEL.SCENARIO.KEY = NUMBER', or a line that begins with '# '")
    model, scenario, key = names
    if scenario not in ("*", *SCENARIOS):
        raise PipelineError(f"{where}, expected a scenario of {', '.join(SCENARIOS)} or *")
    if key == "mode":
        raise PipelineError(f"{where}, which --mode says; remove the line")
    if key not in KEYS:
        raise PipelineError(f"{where}: LoadGen knows no {key}; expected one of {', '.join(KEYS)}")
    streams = key == "target_latency" and scenario in ("SingleStream", "MultiStream")
    if "." in words[2] and not (streams or key in FRACTIONS):
        raise PipelineError(f"{where}: LoadGen takes a whole number here, and drops what stands behind the point")
    return model, scenario, key


class Speed(NamedTuple):
    """What a model was measured to do: seconds of a run of `batch` images."""

    seconds: float
    batch: int


def make(loadgen: Any, asked: LoadTest, speed: Speed) -> Any:
    """LoadGen's TestSettings for a run; `loadgen` is its module.

    Raises ArgumentError where the run would be of more than MOST_IMAGES, PipelineError where LoadGen cannot read the
    settings file.
    """
    given = read_config(asked.config, asked.scenario) if asked.config is not None else set()
    settings = loadgen.TestSettings()
    settings.FromConfig("", BENCHMARK, asked.scenario, 0)  # MLPerf's own, which LoadGen loads besides but once
    if asked.config is not None and settings.FromConfig(os.fspath(asked.config), BENCHMARK, asked.scenario, 1):
        raise PipelineError(f"{asked.config}: LoadGen cannot read it; expected lines of 'MODEL.SCENARIO.KEY = NUMBER'")
    settings.scenario = getattr(loadgen.TestScenario, asked.scenario)
    settings.mode = getattr(loadgen.TestMode, MODES[asked.mode])
    if asked.duration is not None or "min_duration" not in given:
        settings.min_duration_ms = round(1000 * (asked.duration or SECONDS))
    if asked.min_queries is not None or "min_query_count" not in given:
        settings.min_query_count = asked.min_queries or 1
    _expect(settings, asked, given, speed)
    images = _images(settings, asked.scenario)
    if asked.mode == "performance" and images > MOST_IMAGES:
        raise ArgumentError(
            f"{asked.scenario} would make queries of {images:,.0f} images before it begins, {MOST_IMAGES:,} are the "
            "most; lower the duration, the queries or the target (--duration, --min-queries, --target-qps)"
        )
    return settings


def _expect(settings: Any, asked: LoadTest, given: Collection[str], speed: Speed) -> None:
    """The speed that LoadGen is to expect, and what Server allows."""
    rate = min(speed.batch / speed.seconds, MOST_IMAGES / (3 * settings.min_duration_ms / 1000))
    per_query = settings.multi_stream_samples_per_query if asked.scenario == "MultiStream" else 1
    if asked.target_qps is not None or "target_qps" not in given:
        settings.offline_expected_qps = asked.target_qps or MARGIN * rate
        settings.server_target_qps = asked.target_qps or rate / 2
    if asked.target_latency is not None or "target_latency" not in given:
        runs = math.ceil(per_query / speed.batch)
        expected = max(runs * speed.seconds, per_query / rate)
        latency = round(1e6 * asked.target_latency) if asked.target_latency else round(1e9 * expected)
        settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = max(latency, 1)
        if asked.target_latency:
            settings.server_target_latency_ns = max(latency, 1)
    if "max_async_queries" not in given:
        # A server that is far too slow would work off its queue for hours; LoadGen stops sending instead.
        settings.server_max_async_queries = int(max(100, rate * settings.min_duration_ms / 1000))


def _images(settings: Any, scenario: str) -> float:
    """Images of the queries that LoadGen makes before a performance run, as its documentation describes them."""
    seconds, least = settings.min_duration_ms / 1000, settings.min_query_count
    if scenario == "Offline":
        return float(max(least, 1.1 * seconds * settings.offline_expected_qps))
    if scenario == "Server":
        return float(max(least, seconds * settings.server_target_qps))
    if scenario == "SingleStream":
        return float(max(least, 2 * seconds / (settings.single_stream_expected_latency_ns / 1e9)))
    queries = max(least, 2 * seconds / (settings.multi_stream_expected_latency_ns / 1e9))
    return float(queries * settings.multi_stream_samples_per_query)


# What MLPerf's rules fix besides the scenario, as LoadGen names it, and how a person reads it.
_RULED = {
    "min_duration_ms": ("at least {:g} s", 1e-3),
    "min_query_count": ("at least {:g} queries", 1),
    "performance_sample_count_override": ("{:g} samples", 1),
    "multi_stream_samples_per_query": ("{:g} samples a query", 1),
    "server_target_latency_ns": ("{:g} ms", 1e-6),
}


def short_of_the_rules(loadgen: Any, asked: LoadTest, settings: Any, samples: int) -> str:
    """Where a performance run asks for less than MLPerf's own settings do; empty where it does not."""
    rules = loadgen.TestSettings()
    rules.FromConfig("", BENCHMARK, asked.scenario, 0)
    short = []
    for name, (words, scale) in _RULED.items():
        own, here = getattr(rules, name), getattr(settings, name)
        if name == "performance_sample_count_override":
            here = min(here or samples, samples)
        less = here > own if name == "server_target_latency_ns" else here < own
        if less and (name != "multi_stream_samples_per_query" or asked.scenario == "MultiStream"):
            unit = words.replace("queries", "images") if asked.scenario == "Offline" else words
            short.append(f"{unit.format(own * scale)} (here {here * scale:g})")
    return f"MLPerf's own settings ask for {', '.join(short)}" if short and asked.mode == "performance" else ""
