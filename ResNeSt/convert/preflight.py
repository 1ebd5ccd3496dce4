"""What will fail on an Ascend host, found before ATC has run for ten minutes: `bash convert.sh BATCHES CHIP --check`.

Releases and operators are those of contract ATC; paths and modes those
that ais_bench refuses (contract ais_bench, path rules).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ResNeSt.common import cann
from ResNeSt.common.ais_bench_paths import WRITABLE_BY_OTHERS, check_path
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.convert import amct, chips, failure, host
from ResNeSt.convert.finding import FAILS, NOTE, OK, Finding
from ResNeSt.formats import onnx_header
from ResNeSt.models.onnx_file import Network

# Operator sets by the first number of the release.
OPSETS = {5: range(9, 14), 6: range(9, 14), 7: range(9, 19)}
LATEST_OPSETS = range(11, 19)  # from CANN 8 on
# CANN 8.1's tables for the 310P, by the names that ONNX has for them; the last line computes nothing.
OPERATORS = {
    *("Conv", "Relu", "Sigmoid", "Add", "Sub", "Mul", "ReduceMean", "Gemm", "MatMul", "AveragePool", "MaxPool"),
    *("Split", "Concat", "Transpose", "Softmax"),
    *("Constant", "Flatten", "Identity", "Reshape"),
}
QUANTIZED = {"QuantizeLinear", "DequantizeLinear"}
PROCESS_MEMORY = 2 << 30  # bytes for each of ATC's processes: an assumption of ours, on the safe side


def report(all_findings: Sequence[Finding]) -> None:
    """Prints the findings; raises PipelineError where one of them will fail."""
    print("\n".join(map(str, all_findings)), flush=True)
    failing = [finding.subject for finding in all_findings if finding.verdict == FAILS]
    if failing:
        raise PipelineError(f"{len(failing)} of {len(all_findings)} checks fail: {', '.join(failing)}; see above")


def findings(network: Network, chip: str, precision: str, targets: Sequence[Path]) -> list[Finding]:
    """All that speaks for or against compiling `network` to `targets`; raises ArgumentError where it is no NPU."""
    if not chips.is_ascend(chip):
        raise ArgumentError(f"--check is for Ascend chips; what fails on {chip} fails within seconds")
    toolkit = cann.find_toolkit()
    rest = [
        *_graph(network, chip, precision),
        *_machine(network, targets),
        *_paths(targets),
        *_chip(chip),
        _card(chip),
    ]
    if toolkit is None:
        return [Finding(FAILS, "atc", "not on this machine; run this on a host with CANN"), *rest]
    release = toolkit.release
    text = f"CANN {release}, {toolkit.atc}" if release else f"{toolkit.atc}, of a release that its path does not tell"
    quantizer = [_amct(network, toolkit)] if precision == "int8" else []
    found = Finding(OK if release else NOTE, "atc", text)
    return [found, *_opset(network, release), *quantizer, *host.findings(toolkit, chip), *rest]


def _opset(network: Network, release: cann.Release | None) -> Iterator[Finding]:
    opset = onnx_header.read(network.path).opset
    if release is None:
        fits = opset == 11
        yield Finding(OK if fits else NOTE, "opset", f"{opset}; 11 fits every release")
        return
    takes = OPSETS.get(release.numbers[0], LATEST_OPSETS)
    text = f"{opset}, CANN {release} takes {takes[0]} to {takes[-1]}"
    yield Finding(OK, "opset", text) if opset in takes else Finding(FAILS, "opset", f"{text}; export with --opset 11")


def _graph(network: Network, chip: str, precision: str) -> Iterator[Finding]:
    header = onnx_header.read(network.path)
    operators = {node.operator for node in header.nodes}
    quantized, unknown = operators & QUANTIZED, operators - OPERATORS - QUANTIZED
    on_record = "on record for the 310P" + ("" if chips.is_310p(chip) else f"; there is no table of {chip} here")
    if len(header.domains) > 1:
        domains = ", ".join(domain or "ai.onnx" for domain in header.domains)
        yield Finding(FAILS, "graph", f"operator sets of {domains}; ATC takes one (E16005), export it again")
    if quantized:
        names = ", ".join(sorted(quantized))
        yield Finding(FAILS, "operators", f"{names}: no operator of the chip; give the ONNX file before quantization")
    if unknown:
        yield Finding(NOTE, "operators", f"{', '.join(sorted(unknown))}: not among those {on_record}")
    if not quantized and not unknown:
        yield Finding(OK, "operators", f"all {len(operators)} are {on_record}")
    if precision == "fp32" and chips.is_310p(chip):
        yield Finding(NOTE, "precision", "AvgPool and MaxPool take no float32 here; --precision mixed stays on AI core")


def _amct(network: Network, toolkit: cann.Toolkit) -> Finding:
    program = shutil.which(amct.PROGRAM, path=toolkit.environment.get("PATH", ""))
    try:
        amct.check_opset(onnx_header.read(network.path).opset, network.path)
    except PipelineError as error:
        return Finding(FAILS, "amct", str(error))
    if program is None:
        return Finding(FAILS, "amct", f"{amct.PROGRAM} is not here; int8 takes it (Ascend-cann-amct, a part of CANN)")
    return Finding(OK, "amct", program)


def _machine(network: Network, targets: Sequence[Path]) -> Iterator[Finding]:
    folder = _existing(targets[0].parent)
    # A model holds each weight once, at most as wide as the ONNX file does; ATC's scratch folder as much again.
    needed, free = (
        sum(file.stat().st_size for file in network.files) * (len(targets) + 1),
        shutil.disk_usage(folder).free,
    )
    text = f"{free / 1e9:.1f} GB free in {folder}, about {needed / 1e9:.1f} GB needed"
    yield Finding(OK, "disk", text) if free >= needed else Finding(FAILS, "disk", f"{text}; make room")
    processes = failure.processes()
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


def _chip(chip: str) -> Iterator[Finding]:
    doubt = chips.doubt(chip)
    if doubt is not None:
        yield Finding(NOTE, "chip", doubt)


def _card(chip: str) -> Finding:
    if shutil.which("npu-smi") is None:
        return Finding(NOTE, "card", "no npu-smi here; ATC needs no card, but the model runs on one only")
    try:
        detected = chips.card()
    except chips.NoCardError as error:
        return Finding(NOTE, "card", f"{error}; ATC needs none, but the model runs on one only")
    except PipelineError as error:
        return Finding(NOTE, "card", f"{error}; ATC needs none")
    if detected != chip:
        return Finding(NOTE, "card", f"{detected}, a model for {chip} will not run on it; compile for {detected}")
    return Finding(OK, "card", detected)
