"""What will fail on an Ascend host, found before ATC has run for ten minutes: `bash convert.sh BATCHES CHIP --check`.

Releases, operators and the Python that CANN's operator builder takes are those of contract ATC; paths and modes those
that ais_bench refuses (contract ais_bench, path rules).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ResNeSt.common import cann
from ResNeSt.common.ais_bench_names import WRITABLE_BY_OTHERS, check_path
from ResNeSt.common.arguments import variable
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.convert import chips
from ResNeSt.formats import onnx_header
from ResNeSt.models.onnx_file import Network

OK, NOTE, FAILS = "ok", "note", "FAILS"

# Operator sets by the first number of the release.
OPSETS = {"5": range(9, 14), "6": range(9, 14), "7": range(9, 19)}
LATEST_OPSETS = range(11, 19)  # from CANN 8 on
# CANN 8.1's tables for the 310P, by the names that ONNX has for them; the last line computes nothing.
OPERATORS = {
    *("Conv", "Relu", "Sigmoid", "Add", "Sub", "Mul", "ReduceMean", "Gemm", "MatMul", "AveragePool", "MaxPool"),
    *("Split", "Concat", "Transpose", "Softmax"),
    *("Constant", "Flatten", "Identity", "Reshape"),
}
QUANTIZED = {"QuantizeLinear", "DequantizeLinear"}
PROCESS_MEMORY = 2 << 30  # bytes for each of ATC's processes: an assumption of ours, on the safe side


class Finding(NamedTuple):
    """A line of the report: OK, NOTE or FAILS, what was looked at, what was found and, if it matters, what to do."""

    verdict: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.verdict:5}  {self.subject:9}  {self.text}"


def report(all_findings: Sequence[Finding]) -> None:
    """Prints the findings; raises PipelineError where one of them will fail."""
    print("\n".join(map(str, all_findings)), flush=True)
    failing = [finding.subject for finding in all_findings if finding.verdict == FAILS]
    if failing:
        raise PipelineError(f"{len(failing)} of {len(all_findings)} checks fail: {', '.join(failing)}; see above")


def findings(network: Network, chip: str, precision: str, targets: Sequence[Path]) -> list[Finding]:
    """All that speaks for or against compiling `network` to `targets`; raises ArgumentError for the chip `cpu`."""
    if chip == chips.CPU:
        raise ArgumentError("--check is for Ascend chips; what fails on cpu fails within seconds")
    toolkit = cann.find_toolkit()
    rest = [*_graph(network, chip, precision), *_machine(network, targets), *_paths(targets), _card(chip)]
    if toolkit is None:
        return [Finding(FAILS, "atc", "not on this machine; run this on a host with CANN"), *rest]
    release = release_of(toolkit)
    text = f"CANN {release}, {toolkit.atc}" if release else f"{toolkit.atc}, of a release that its path does not tell"
    return [
        Finding(OK if release else NOTE, "atc", text),
        *_opset(network, release),
        *_python(toolkit),
        *rest,
    ]


def release_of(toolkit: cann.Toolkit) -> str | None:
    """The CANN release, like 8.0.RC1, from the folder of that name in which each installs itself."""
    releases: list[str] = re.findall(r"/(\d+\.\d+(?:\.\w+)*)(?=/)", os.path.realpath(toolkit.atc))
    return releases[-1] if releases else None


def _opset(network: Network, release: str | None) -> Iterator[Finding]:
    opset = onnx_header.read(network.path).opset
    if release is None:
        fits = opset == 11
        yield Finding(OK if fits else NOTE, "opset", f"{opset}; 11 fits every release")
        return
    takes = OPSETS.get(release.split(".")[0], LATEST_OPSETS)
    text = f"{opset}, CANN {release} takes {takes[0]} to {takes[-1]}"
    yield Finding(OK, "opset", text) if opset in takes else Finding(FAILS, "opset", f"{text}; export with --opset 11")


def _graph(network: Network, chip: str, precision: str) -> Iterator[Finding]:
    header = onnx_header.read(network.path)
    operators = {node.operator for node in header.nodes}
    quantized, unknown = operators & QUANTIZED, operators - OPERATORS - QUANTIZED
    if len(header.domains) > 1:
        domains = ", ".join(domain or "ai.onnx" for domain in header.domains)
        yield Finding(FAILS, "graph", f"operator sets of {domains}; ATC takes one (E16005), export it again")
    if quantized:
        names = ", ".join(sorted(quantized))
        yield Finding(FAILS, "operators", f"{names}: no operator of the chip; give the ONNX file before quantization")
    if unknown:
        yield Finding(NOTE, "operators", f"{', '.join(sorted(unknown))}: not among those on record for the 310P")
    if not quantized and not unknown:
        yield Finding(OK, "operators", f"all {len(operators)} are on record for the 310P")
    if precision == "fp32" and chip.startswith("310P"):
        yield Finding(NOTE, "precision", "AvgPool and MaxPool take no float32 here; --precision mixed stays on AI core")


def _python(toolkit: cann.Toolkit) -> Iterator[Finding]:
    """Of the python3 that ATC's operator builder starts."""
    program = "import sys, numpy; print('%d.%d' % sys.version_info[:2], numpy.__version__)"
    command = ["python3", "-c", program]
    result = subprocess.run(command, env=toolkit.environment, capture_output=True, text=True, check=False)
    if result.returncode:
        yield Finding(
            FAILS, "python3", "cannot import numpy, which ATC's operator builder needs; pip install 'numpy<2'"
        )
        return
    python, numpy = result.stdout.split()
    if tuple(map(int, python.split("."))) < (3, 11):
        yield Finding(OK, "python3", python)
    else:
        text = f"{python}: ATC's operator builder breaks from 3.11 on; put 3.8 to 3.10 first on PATH"
        yield Finding(FAILS, "python3", text)
    if int(numpy.split(".")[0]) < 2:
        yield Finding(OK, "numpy", numpy)
    else:
        yield Finding(FAILS, "numpy", f"{numpy}: ATC's operator builder breaks on NumPy 2; pip install 'numpy<2'")


def _machine(network: Network, targets: Sequence[Path]) -> Iterator[Finding]:
    folder = _existing(targets[0].parent)
    # A model holds each weight once, at most as wide as the ONNX file does; ATC's scratch folder as much again.
    needed, free = (
        sum(file.stat().st_size for file in network.files) * (len(targets) + 1),
        shutil.disk_usage(folder).free,
    )
    text = f"{free / 1e9:.1f} GB free in {folder}, about {needed / 1e9:.1f} GB needed"
    yield Finding(OK, "disk", text) if free >= needed else Finding(FAILS, "disk", f"{text}; make room")
    processes = variable("TE_PARALLEL_COMPILER", os.cpu_count() or 1, least=1)
    available = _available_memory()
    text = f"{available / 1e9:.1f} GB available to {processes} compiling processes"
    fewer = max(1, available // PROCESS_MEMORY)
    scarce = fewer < processes
    advice = f"; if ATC runs out of it: export TE_PARALLEL_COMPILER={fewer}"
    yield Finding(NOTE if scarce else OK, "memory", text + (advice if scarce else ""))


def _available_memory() -> int:
    """Bytes that processes may take without swapping."""
    (kilobytes,) = re.findall(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024


def _existing(folder: Path) -> Path:
    return next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())


def _paths(targets: Sequence[Path]) -> Iterator[Finding]:
    try:
        for target in targets:
            check_path(target)
        yield Finding(OK, "paths", "as ais_bench takes them")
    except PipelineError as error:
        yield Finding(FAILS, "paths", str(error))
    umask = os.umask(0)
    os.umask(umask)
    if WRITABLE_BY_OTHERS & ~umask:
        text = f"{umask:03o}: ais_bench refuses files that a group may write; run: umask 022"
        yield Finding(FAILS, "umask", text)
    else:
        yield Finding(OK, "umask", f"{umask:03o}")


def _card(chip: str) -> Finding:
    detected = chips.detect()
    if detected == chips.CPU:
        return Finding(NOTE, "card", "none that npu-smi shows; ATC needs none, but the model runs on one only")
    if detected != chip:
        return Finding(NOTE, "card", f"{detected}, a model for {chip} will not run on it; compile for {detected}")
    return Finding(OK, "card", detected)
