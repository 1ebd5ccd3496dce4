"""MLPerf's LoadGen as a function: one run of a scenario, in a process of its own, its logs kept whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ResNeSt.common.errors import FailedCommandError, MissingRuntimeError, PipelineError
from ResNeSt.common.files import PathLike, read_json, scratch_folder, write_json
from ResNeSt.common.paths import refuse_clashes
from ResNeSt.common.progress import Say, silent
from ResNeSt.common.timed_process import with_this_project
from ResNeSt.loadgen.settings import LoadTest, read_config, to_json
from ResNeSt.loadgen.system import Outcome

ACCURACY_LOG = "mlperf_log_accuracy.json"
DETAIL_LOG = "mlperf_log_detail.txt"
RECORD = "loadgen.json"
PERCENTILES = ("50.00", "90.00", "99.00", "99.90")
_MARK = ":::MLLOG "
# What each scenario is judged by: a rate, or a latency in nanoseconds that LoadGen estimates with confidence.
RATES = {
    "Offline": "result_samples_per_second",
    "Server": "result_completed_samples_per_sec",
    "SingleStream": "result_qps_with_loadgen_overhead",
}
ESTIMATES = {"SingleStream": "early_stopping_latency_ss", "MultiStream": "early_stopping_latency_ms"}


@dataclasses.dataclass(frozen=True)
class LoadTested:
    """What LoadGen said of a run, and where its logs lie.

    `valid` and the `reasons` against it are LoadGen's verdict, by the settings it ran with; None for mode `accuracy`,
    whose `accuracy_log` ResNeSt.score.score.score_summaries scores. `rate` is samples/s (None of MultiStream),
    `latency_ms` are milliseconds of a query by percentile, and under `estimate` the one that MLPerf reports of
    SingleStream (p90) and MultiStream (p99), where there were enough queries for it. `notes` say where the run asked
    for less than MLPerf's own settings do.
    """

    folder: Path
    engine: str
    batch: int
    samples: int
    sha256: dict[str, str]
    valid: bool | None
    reasons: Sequence[str]
    rate: float | None
    latency_ms: dict[str, float]
    notes: Sequence[str]

    @property
    def accuracy_log(self) -> Path:
        """A class for every sample, of mode `accuracy`."""
        return self.folder / ACCURACY_LOG


def load_test(asked: LoadTest, say: Say = silent) -> LoadTested:
    """Lets LoadGen drive the model; `say` hears what is run.

    Raises ArgumentError for what cannot be asked, MissingRuntimeError where LoadGen is not installed, PipelineError
    where the folder for the logs is there already, and what opening model and samples raises.
    """
    asked.check()
    named = (asked.model.file, asked.tensors, asked.images, asked.labels, asked.config)
    refuse_clashes([path for path in named if path is not None], fills=[asked.output])
    if asked.config is not None:
        read_config(asked.config, asked.scenario)
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise MissingRuntimeError("LoadGen is not installed here: pip install -r requirements/loadgen.txt")
    _refuse_earlier(asked.folder)
    asked.folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(asked.output, "loadgen") as scratch:
        logs = scratch / "logs"
        logs.mkdir(mode=0o755)
        outcome = _run_apart(asked, logs, scratch / "outcome.json", say)
        tested = _tested(asked, outcome, logs)
        record = {**json.loads(to_json(asked)), **dataclasses.asdict(tested)}
        write_json(logs / RECORD, {key: value for key, value in record.items() if key not in ("output", "folder")})
        _refuse_earlier(asked.folder)
        os.rename(logs, asked.folder)
    return tested


def _refuse_earlier(folder: Path) -> None:
    if os.path.lexists(folder):
        raise PipelineError(f"{folder}: is there already, from an earlier run; name another --output, or remove it")


def _run_apart(asked: LoadTest, logs: Path, outcome: Path, say: Say) -> Outcome:
    """The run in a process of its own, which ends with this one; raises what it ended with."""
    command = [sys.executable, "-m", "ResNeSt.loadgen.system", str(logs), str(outcome)]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(command, env=with_this_project(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(process.kill)  # before it is waited for
        with contextlib.suppress(BrokenPipeError):
            print(to_json(asked), file=process.stdin, flush=True)
        for line in process.stdout or ():
            say(line.rstrip("\n"))
        code = process.wait()
    if not outcome.is_file():
        raise PipelineError(
            f"{asked.model.file}: the process that LoadGen ran in ended with exit code {code} and no word but "
            "what stands above; without LoadGen: python -m ResNeSt.infer"
        )
    came = Outcome(**read_json(outcome))
    if came.error:
        raise FailedCommandError(came.error, came.exit_code)
    return came


def _tested(asked: LoadTest, outcome: Outcome, logs: Path) -> LoadTested:
    said = read_detail(logs / DETAIL_LOG)
    performance = asked.mode == "performance"
    if performance and "result_validity" not in said:
        raise PipelineError(f"{asked.model.file}: LoadGen ended without a verdict; run the same command again")
    latency = {percentile: f"result_{percentile}_percentile_latency_ns" for percentile in PERCENTILES}
    if estimate := ESTIMATES.get(asked.scenario):
        latency["estimate"] = estimate
    return LoadTested(
        folder=asked.folder,
        engine=outcome.engine,
        batch=outcome.batch,
        samples=outcome.samples,
        sha256=outcome.sha256,
        valid=said["result_validity"] == "VALID" if performance else None,
        reasons=_reasons(said) if performance else (),
        rate=said.get(RATES.get(asked.scenario, "")),
        latency_ms={name: said[key] / 1e6 for name, key in latency.items() if said.get(key)},
        notes=outcome.notes,
    )


def _reasons(said: dict[str, Any]) -> list[str]:
    """Why LoadGen calls a run invalid; of a valid one there is none."""
    if said["result_validity"] == "VALID":
        return []
    reasons = [" ".join(str(said.get(key, "")).split()) for key in ("result_invalid_reason", "error_runtime")]
    if not said.get("early_stopping_met", True):
        reasons.append(" ".join(str(said.get("early_stopping_result", "")).replace(" * ", " ").split()))
    return list(filter(None, reasons))


def read_detail(path: PathLike) -> dict[str, Any]:
    """What LoadGen's detail log says, by key: JSON behind a mark on each line."""
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    entries = [json.loads(line[len(_MARK) :]) for line in lines if line.startswith(_MARK)]
    return {entry["key"]: entry["value"] for entry in entries}
