"""Results/s of the score of 50,000 TXT files in whole processes, beside the sample's script."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.processes import spend
from benchmarks.rounds import interleave, report

RESULTS, CLASSES = 50_000, 1000
DISTINCT = 500  # making text of numbers takes longer than all that is measured


def measure(rounds: int, output: Path) -> None:
    """Prints and writes the table."""
    with tempfile.TemporaryDirectory() as folder:
        summary, labels = write_results(Path(folder))
        contenders = {
            "the sample's script": lambda: spend("-m", "benchmarks.sample", "score", summary, labels).seconds,
            "this project": lambda: (
                spend("ResNeSt_postprocess.py", f"--result_path={summary}", f"--gt_path={labels}").seconds
            ),
        }
        seconds = interleave(contenders, min(rounds, 3))
    first = next(iter(seconds.values()))
    rows = [[who, f"{spent:.1f}", f"{first / spent:.2f}"] for who, spent in seconds.items()]
    report(output, "scoring-50000", ["50,000 TXT results", "seconds", "ratio"], rows)


def write_results(folder: Path) -> tuple[Path, Path]:
    """A summary and labels for 50,000 TXT files of 1,000 values, as ais_bench writes them; some say the same."""
    outputs = folder / "result"
    outputs.mkdir()
    random = np.random.default_rng(0)
    texts = [("%f " * CLASSES) % tuple(random.normal(0, 8, CLASSES).tolist()) + "\n" for _ in range(DISTINCT)]
    entries, labels = {}, []
    for number in range(RESULTS):
        name = f"ILSVRC2012_val_{number + 1:08}"
        target = outputs / f"{name}_0.txt"
        target.write_text(texts[number % DISTINCT])
        entries[str(number)] = {"infiles": [f"{name}.bin"], "outfiles": [str(target)]}
        labels.append(f"{name}.JPEG {number % CLASSES}\n")
    summary = folder / "result_summary.json"
    summary.write_text(json.dumps({"filesinfo": entries}))
    truth = folder / "val_label.txt"
    truth.write_text("".join(labels))
    return summary, truth
