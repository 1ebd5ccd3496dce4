"""Recorded facts about ATC and ais_bench, checked on a real host: `bash tests/on_ascend.sh --onnx resnest_demo.onnx`.

Every fact is a line, `ok` or `DIFFERS` with what was found. Python 3.9, no torch, no onnx.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ResNeSt.bench import msprof, overlap
from ResNeSt.common import cann, cann_libraries
from ResNeSt.common.arguments import Parser
from ResNeSt.common.errors import MissingRuntimeError, PipelineError, run
from ResNeSt.common.files import read_json
from ResNeSt.common.flags import take
from ResNeSt.convert import aoe, atc, chips
from ResNeSt.convert.finding import FAILS
from ResNeSt.convert.host import findings as host_findings
from ResNeSt.formats import om_header
from ResNeSt.infer import ais_bench, ais_bench_log
from ResNeSt.models import onnx_file

PROJECT = Path(__file__).resolve().parent.parent
IMAGES, LABELS = PROJECT / "demo/val", PROJECT / "demo/val_label.txt"
BATCH = 4
MATRIX = "confusion.json"
LONGEST = 1200  # seconds that one command may take: ATC has been seen to take ten minutes
TUNING = 4 * 3600  # seconds for AOE
LOST_POINTS = 1.0  # of top-1 in percent, that fp16 may cost
SUMMARY_KEYS = {
    *("filesinfo", "args", "NPU_compute_time", "H2D_latency", "D2H_latency"),
    *("npu_compute_time_list", "throughput", "pid"),
}
TIME_KEYS = {"min", "max", "mean", "median"}
PERCENTILE = {False: "percentile(99%)", True: "P99"}  # by whether the client's options have dashes
PROGRAM = PROJECT / "native/build/resnest_infer"  # where `bash native/build.sh` has made it
NO_DEVICE = 63  # no host has so many


class Fact(NamedTuple):
    """What is recorded, whether it holds here, and what was found."""

    recorded: str
    holds: bool
    found: str

    def __str__(self) -> str:
        return f"ok       {self.recorded}" if self.holds else f"DIFFERS  {self.recorded}; found: {self.found}"


class Host(NamedTuple):
    """What is asked of this host: a folder of its own, the chip, its CANN."""

    folder: Path
    chip: str
    toolkit: cann.Toolkit
    tune: str | None


def main() -> int:
    """Prints every fact, and what to do with those that do not hold; 1 where there are any."""
    options = make_parser().parse_args()
    chip = chips.resolve(options.chip)
    toolkit = cann.find_toolkit()
    if toolkit is None or importlib.util.find_spec("ais_bench") is None or not chips.is_ascend(chip):
        raise MissingRuntimeError(
            f"atc, ais_bench and an NPU are needed here; chip {chip}, atc {toolkit and toolkit.atc}"
        )
    os.umask(0o022)  # ais_bench refuses files that a group may write
    # Where the caller stands: /tmp may be full of links, or too small.
    host = Host(Path(tempfile.mkdtemp(prefix="on_ascend.", dir=Path.cwd())), chip, toolkit, options.tune)
    for name in ("demo.onnx", "demo_sim.onnx"):  # the second in place of onnxsim, which a host need not have
        shutil.copy(options.onnx, host.folder / name)
    facts = []
    for fact in _facts(host):
        print(fact, flush=True)
        facts.append(fact)
    differing = sum(not fact.holds for fact in facts)
    programs = f"{os.path.realpath(toolkit.atc)}, ais_bench {_version('ais_bench')}"
    print(f"{len(facts)} facts, {differing} differ; chip {chip}, {programs}, Python {platform.python_version()}")
    if not differing:
        shutil.rmtree(host.folder)
        return 0
    print("What differs is recorded wrongly, or of this release: docs/ascend.md says what rests on it. Please open an")
    print(f"issue with all these lines; the files behind them stay in {host.folder}.")
    return 1


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="tests/on_ascend.sh", description=__doc__)
    take(parser, "onnx", type=Path, required=True, note="the demo model")
    take(parser, "chip", default="auto", note="auto: what npu-smi shows")
    take(parser, "tune", nargs="?", const=aoe.OPERATORS, choices=list(aoe.JOBS))
    return parser


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of a version that is not recorded"


def _facts(host: Host) -> Iterator[Fact]:
    """Those of all parts; one that cannot go on is a fact that differs, and the next one's turn."""
    for name, part in _parts(host).items():
        try:
            yield from part
        except (ArithmeticError, LookupError, OSError, PipelineError, TypeError, ValueError) as error:
            yield Fact(f"{name}: everything could be looked at", False, f"{type(error).__name__}: {error}")


def _parts(host: Host) -> dict[str, Iterator[Fact]]:
    """The parts in their order, later ones on what earlier ones left; none has begun."""
    folder = host.folder
    return {
        "CANN": _cann(host),
        "ATC": _atc(folder, host.chip, host.toolkit),
        "pipeline": _pipeline(folder, host.chip),
        "the client": _language(folder),
        "ais_bench": _client(folder),
        "paths": _path_rules(folder),
        "tensors": _tensor_rules(folder),
        "devices": _devices(folder, host.chip),
        "dynamic batch": _dynamic_batch(folder, host.chip),
        "AscendCL": _native(folder),
        "bench of one model": _bench_of_one_model(folder, host.chip),
        "processes": _processes(folder, host.chip),
        "msprof": _profile(folder, host.chip),
        "NV12": _nv12(folder, host.chip),
        "service": _service(folder, host.chip),
        "JSON": _json(folder),
        "Ray": _ray(folder),
        "AOE": _tune(host),
    }


def _cann(host: Host) -> Iterator[Fact]:
    """Where things lie in CANN's folder, and what npu-smi calls the card."""
    root, toolkit = host.toolkit.root, host.toolkit
    yield Fact("npu-smi tells the chip's name", chips.card() == host.chip, chips.card())
    if root is None:
        return
    recorded = cann.record(root, cann.TOOLKIT_RECORD)
    yield Fact(f"the installer records its version in {cann.TOOLKIT_RECORD}", "version" in recorded, str(recorded))
    named = cann.parse_release(root.name)
    yield Fact("the folder is called as the release is", named in (None, toolkit.release), f"{root}: {toolkit.release}")
    yield Fact("the toolkit brings a stub of the driver's library", toolkit.devlib is not None, str(root))
    yield Fact(f"{cann.DRIVER_LIBRARY} is where drivers put it", toolkit.driver() is not None, str(cann.DRIVER_FOLDERS))
    said = [str(finding) for finding in host_findings(toolkit, host.chip) if finding.verdict == FAILS]
    yield Fact("convert.sh --check finds no fault with a host that compiles", not said, "; ".join(said))


def _atc(folder: Path, chip: str, toolkit: cann.Toolkit) -> Iterator[Fact]:
    """ATC's messages, exit codes, the name of what it writes, and the header of that."""
    found = onnx_file.read(folder / "demo.onnx")
    (folder / "atc").mkdir()

    def compile_for(name: str) -> subprocess.CompletedProcess[str]:
        arguments = atc.command(found, BATCH, name, "fp16", "model", None, None)
        command = [toolkit.atc, *arguments[1:]]
        return _bounded(command, folder / "atc", toolkit.environment, LONGEST)

    done = compile_for(chip)
    text = done.stdout + done.stderr
    yield Fact("ATC ends with 0 on success", done.returncode == 0, f"{done.returncode}: {text[-300:]}")
    for line in ("ATC start working now, please wait for a moment.", "ATC run success, welcome to the next use."):
        yield Fact(f"ATC prints {line!r}", line in text, text[:200])
    models = [path.name for path in (folder / "atc").glob("*.om")]
    named = len(models) == 1 and re.fullmatch(r"model(_\w+_\w+)?\.om", models[0]) is not None
    yield Fact("ATC writes <output>.om or <output>_<os>_<arch>.om", named, str(models))
    if named:
        yield _header(folder / "atc" / models[0])
    refused = compile_for("310X9")
    text = refused.stdout + refused.stderr
    yield Fact("ATC ends with another code than 0 for an unknown chip", refused.returncode != 0, "0")
    yield Fact("ATC names E10001 for an unknown chip", "E10001" in text, text[-300:])
    (folder / "a b").mkdir()
    shutil.copy(folder / "demo.onnx", folder / "a b")
    arguments = atc.command(onnx_file.read(folder / "a b/demo.onnx"), BATCH, chip, "fp16", "model", None, None)
    refused = _bounded([toolkit.atc, *arguments[1:]], folder / "atc", toolkit.environment, LONGEST)
    text = refused.stdout + refused.stderr
    yield Fact("ATC names E10001 for a path with a blank", "E10001" in text, text[-300:])


def _header(path: Path) -> Fact:
    try:
        return Fact("the .om has the recorded header", True, str(om_header.read(path)))
    except PipelineError as error:
        return Fact("the .om has the recorded header", False, str(error))


def _pipeline(folder: Path, chip: str) -> Iterator[Fact]:
    """The project's own commands, as a user would type them."""
    stages = {
        "preprocess": ["resnest_preprocess.py", str(IMAGES), "prep", "--arch=resnest_demo"],
        "convert": ["convert.sh", str(BATCH), chip, "--onnx=demo.onnx"],
        "bench": [
            *("bench.sh", str(BATCH), chip, "--prefix=demo", "--tensors=prep", f"--labels={LABELS}"),
            *("--loop=20", "--no-report"),
        ],
        "evaluate": [
            "-m",
            "ResNeSt.evaluate",
            f"--model=demo_bs{BATCH}.om",
            f"--images={IMAGES}",
            f"--labels={LABELS}",
            f"--confusion={MATRIX}",
        ],
        "infer in this project's own words": [
            *("-m", "ResNeSt.infer", f"--model=demo_bs{BATCH}.om", "--tensors=prep", "--warmup=2"),
            *("--output=bench", "--output_dirname=named", "--outfmt=TXT"),
        ],
    }
    for name, command in stages.items():
        done = _run(folder, command)
        yield Fact(f"{name} ends with 0", done.returncode == 0, done.stderr[-500:])
    yield _accuracy("top-1", folder / "bench/bench.json")
    yield Fact("infer leaves its summary", (folder / "bench/named_summary.json").is_file(), "bench/ holds none")
    yield _matrix(folder)


def _matrix(folder: Path) -> Fact:
    """Whether the client's files and its Python interface take the same pictures for the same classes."""
    results = ["--result_path", f"bench/result_bs{BATCH}_summary.json", "--gt_path", str(LABELS)]
    done = _run(folder, ["ResNeSt_postprocess.py", *results, "--confusion", f"results_{MATRIX}"])
    same = done.returncode == 0 and read_json(folder / MATRIX) == read_json(folder / f"results_{MATRIX}")
    return Fact("evaluate's confusion matrix is that of bench.sh's results", same, done.stderr[-500:])


def _accuracy(what: str, report: Path) -> Fact:
    """Whether the first row of a bench.json has the accuracy that training measured."""
    expected = 100 * read_json(PROJECT / "demo/expected.json")["top1"]
    top1 = read_json(report)["rows"][0]["top1"] if report.is_file() else float("nan")
    text = f"{what} is within {LOST_POINTS} points of the {expected:.2f} that training measured"
    return Fact(text, abs(top1 - expected) <= LOST_POINTS, f"{top1:.2f}")


def _language(folder: Path) -> Iterator[Fact]:
    """Which command line ais_bench has: its version says so, its help, and what it refuses."""
    model = f"demo_bs{BATCH}.om"
    client = ais_bench.find(model)
    told = _bounded([*ais_bench.PROGRAM, "--help"], folder, {**client.environment, "COLUMNS": "200"}, LONGEST).stdout
    flag, other = ("--output-dirname", "--output_dirname")[:: 1 if client.dashes else -1]
    yield Fact(f"a client of this version has {flag}", f" {flag}" in told, told[:300])
    arguments = [f"--model={model}", "--output=language", f"{other}=a"]
    done = _bounded([*ais_bench.PROGRAM, *arguments], folder, client.environment, LONGEST)
    reason = ais_bench_log.reason(done.stdout + done.stderr)
    yield Fact(f"it refuses {other} with exit code 2", done.returncode == 2, str(done.returncode))
    yield Fact(f"its reason is the line that names {other}", other in reason, reason)
    bare = {**os.environ, "LD_LIBRARY_PATH": ""}
    done = _bounded([sys.executable, "-c", "import ais_bench.infer.interface"], folder, bare, LONGEST)
    missing = done.returncode == 0 or cann_libraries.not_imported(done.stderr) is not None
    yield Fact("without LD_LIBRARY_PATH it names the library, or needs none", missing, done.stderr[-300:])


def _client(folder: Path) -> Iterator[Fact]:
    """What ais_bench wrote for bench.sh."""
    path = folder / f"bench/result_bs{BATCH}_summary.json"
    summary: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    yield Fact("the summary lies beside the results' folder", path.is_file(), str(list((folder / "bench").glob("*"))))
    yield Fact("the summary has the recorded keys", set(summary) >= SUMMARY_KEYS, str(sorted(summary)))
    times = summary.get("NPU_compute_time", {})
    keys = {*TIME_KEYS, PERCENTILE[ais_bench.find(f"demo_bs{BATCH}.om").dashes]}
    yield Fact("its times have the recorded keys", set(times) >= keys, str(sorted(times)))
    names = sorted(path.name.split(".")[0] for path in (folder / "prep").glob("*.bin"))
    results = folder / f"bench/result_bs{BATCH}"
    found = sorted(path.name for path in results.glob("*")) if results.is_dir() else []
    yield Fact("results are <name>_0.txt, one an image", found == [f"{name}_0.txt" for name in names], str(found[:3]))
    text = (results / found[0]).read_text() if found else ""
    yield Fact(
        "TXT is %f and a blank each, in one line", re.fullmatch(r"(-?\d+\.\d{6} )+\n", text) is not None, text[:80]
    )
    runs = len(summary.get("npu_compute_time_list", []))
    yield Fact("a time is kept for every batch", runs == -(-len(names) // BATCH), str(runs))
    log = folder / f"bench/pure_bs{BATCH}.log"
    printed = log.read_text(errors="replace") if log.is_file() else ""
    both = re.search(r"NPU_compute_time \(ms\).*\[INFO\] [Tt]hroughput 1000\*batchsize", printed, re.DOTALL) is not None
    yield Fact("it prints NPU_compute_time and throughput", both, printed[-300:])


def _processes(folder: Path, chip: str) -> Iterator[Fact]:
    """Two processes on one card, as bench.sh adds them up."""
    flags = ["--prefix=demo", "--duration=1", "--warmup=5", "--output=two", "--processes=2", "--no-report"]
    done = _run(folder, ["bench.sh", str(BATCH), chip, *flags])
    yield Fact("bench.sh --processes 2 --duration 1 --warmup 5 ends with 0", done.returncode == 0, done.stderr[-500:])
    log = folder / f"two/pure_bs{BATCH}_x2.log"
    loops = overlap.spans(log, 2) if log.is_file() else None
    yield Fact("ais_bench prints when each process began and ended", loops is not None, str(log))
    apart = abs(loops[0].start - loops[1].start) if loops else float("nan")
    yield Fact("two processes begin at most 1.5 s apart", apart <= 1.5, f"{apart:.1f} s")


def _profile(folder: Path, chip: str) -> Iterator[Fact]:
    """What msprof leaves of a pure loop, as bench.sh --profile reads it."""
    flags = ["--prefix=demo", "--loop=20", "--output=profiled", "--profile", "--no-report"]
    done = _run(folder, ["bench.sh", str(BATCH), chip, *flags])
    yield Fact("bench.sh --profile ends with 0", done.returncode == 0, done.stderr[-500:])
    runs = list((folder / f"profiled/profile_bs{BATCH}").glob("PROF_*"))
    yield Fact("msprof leaves one PROF_* below --output", len(runs) == 1, str(runs))
    calls = msprof.read(runs)
    units = {call.runs_on for call in calls}
    yield Fact("operators run on the AI core", any("AI_CORE" in unit or "MIX" in unit for unit in units), str(units))
    yield Fact("op_summary has each operator by name", any(call.name != call.type for call in calls), str(calls[:2]))


def _bench_of_one_model(folder: Path, chip: str) -> Iterator[Fact]:
    """The model of several batch sizes, as bench.sh runs it."""
    flags = ["--prefix=dyn/demo", "--tensors=prep", f"--labels={LABELS}", "--loop=20", "--output=sizes", "--no-report"]
    done = _run(folder, ["bench.sh", f"1,{BATCH}", chip, "--dynamic-batch", *flags])
    yield Fact("bench.sh --dynamic-batch ends with 0", done.returncode == 0, done.stderr[-500:])
    rows, static = (read_json(folder / name / "bench.json")["rows"] for name in ("sizes", "bench"))
    yield Fact(
        "a model of several batch sizes is as right as one of one",
        abs(rows[-1]["top1"] - static[0]["top1"]) <= LOST_POINTS,
        f"{rows[-1]['top1']:.2f} beside {static[0]['top1']:.2f}",
    )


def _path_rules(folder: Path) -> Iterator[Fact]:
    """What ais_bench refuses since September 2023 and December 2025, and what it takes."""
    model = f"--model=demo_bs{BATCH}.om"
    (folder / "linked").symlink_to(folder / "prep", target_is_directory=True)
    (folder / "there").symlink_to(folder, target_is_directory=True)
    (folder / "open").mkdir(mode=0o755)
    (folder / "closed").mkdir(mode=0o750)
    (folder / "b lank").mkdir()
    shutil.copy(folder / f"demo_bs{BATCH}.om", folder / "b lank")
    refusals = {
        "a symbolic link as input": [model, "--input=linked", "--output=closed", "--output_dirname=a"],
        "a blank in a path": [model, "--input=prep", "--output=clo sed", "--output_dirname=b"],
        "an output folder of mode 0755": [model, "--input=prep", "--output=open", "--output_dirname=c"],
        "an absolute --output_dirname": [model, "--input=prep", "--output=closed", "--output_dirname=/d"],
        "more than 100,000 loops": [model, "--loop=100001"],
    }
    for what, flags in refusals.items():
        done = _ais_bench(folder, flags)
        yield Fact(f"ais_bench refuses {what}", done.returncode != 0, "exit code 0")
    done = _ais_bench(folder / "b lank", [model])
    yield Fact("ais_bench refuses a relative path in a folder with a blank", done.returncode != 0, "exit code 0")
    done = _ais_bench(folder, [f"--model=there/demo_bs{BATCH}.om"])
    yield Fact("ais_bench takes a path behind a linked folder", done.returncode == 0, done.stdout[-300:])


def _tensor_rules(folder: Path) -> Iterator[Fact]:
    """What ais_bench refuses of the entries of a folder, and that it does not say which."""
    tensor = next((folder / "prep").glob("*.bin"))
    for name in ("img (1).bin", "notes (1).txt", "link.bin"):
        held = folder / f"held_{name.split('.')[0].split(' ')[0]}"
        held.mkdir(mode=0o755)
        shutil.copy(tensor, held / "a.bin")
        (held / name).symlink_to(tensor) if name == "link.bin" else shutil.copy(tensor, held / name)
        done = _ais_bench(folder, [f"--model=demo_bs{BATCH}.om", f"--input={held.name}"])
        yield Fact(f"ais_bench refuses a folder with {name!r}", done.returncode != 0, "exit code 0")
    within = folder / "within"
    within.mkdir(mode=0o755)
    shutil.copy(tensor, within)
    (within / "x.bin").mkdir(mode=0o755)
    done = _ais_bench(folder, [f"--model=demo_bs{BATCH}.om", "--input=within"])
    yield Fact("ais_bench passes over a folder called x.bin", done.returncode == 0, done.stdout[-300:])


def _devices(folder: Path, chip: str) -> Iterator[Fact]:
    """One device of two is not there; the reason that bench.sh tells has to be that one's."""
    flags = ["--prefix=demo", "--loop=2", "--output=devices", f"--device=0,{NO_DEVICE}", "--no-report"]
    done = _run(folder, ["bench.sh", str(BATCH), chip, *flags])
    told = f": device {NO_DEVICE}: " in done.stderr
    yield Fact("the reason of two devices is that of the one that failed", told, done.stderr[-500:])


def _ais_bench(folder: Path, flags: list[str]) -> subprocess.CompletedProcess[str]:
    client = ais_bench.find(f"demo_bs{BATCH}.om")
    return _bounded(client.command(flags), folder, client.environment, LONGEST)


# What the client says of a model of several batch sizes, as one line of JSON; runs it at every size that it is given.
_SESSION = """
import json, sys
import numpy as np
from ais_bench.infer.interface import InferSession
session = InferSession(0, sys.argv[1])
(port,) = session.get_inputs()
found = {"shape": list(port.shape), "size": port.size, "largest": session.get_max_dym_batchsize(), "rows": {}}
for size in map(int, sys.argv[2:]):
    try:
        (logits,) = session.infer([np.zeros((size, *port.shape[1:]), np.float32)], mode="dymbatch")
        found["rows"][size] = list(logits.shape)
    except Exception as error:
        found["rows"][size] = type(error).__name__
print()
print(json.dumps(found))
session.free_resource()
"""


def _dynamic_batch(folder: Path, chip: str) -> Iterator[Fact]:
    """One model of several batch sizes: read in the sources of ATC and ais_bench, and recorded by no run."""
    sizes, model = [1, BATCH, 2 * BATCH], "dyn/demo_dyn.om"
    pictures = [str(path) for path in sorted(IMAGES.iterdir())[: 2 * BATCH + 3]]
    for what, dtype in (("with AIPP", "uint8"), ("of float32", "float32")):
        flags = ["--onnx=demo.onnx", "--output=dyn", "--dynamic-batch", f"--dtype={dtype}", "--force"]
        done = _run(folder, ["convert.sh", ",".join(map(str, sizes)), chip, *flags])
        yield Fact(f"ATC takes --dynamic_batch_size {what}", done.returncode == 0, (done.stdout + done.stderr)[-500:])
        done = _run(folder, ["-m", "ResNeSt.predict", f"--model={model}", *pictures])
        text = f"predict runs a model {what} at {2 * BATCH} images, and the last ones at {BATCH}"
        yield Fact(text, done.returncode == 0, (done.stdout + done.stderr)[-500:])
    yield from _session(folder, model, sizes)
    for flags, code in ((["--dymBatch=1"], "0"), (["--dymBatch=3"], "another than 0"), ([], "another than 0")):
        done = _run(folder, ["-m", "ais_bench", f"--model={model}", "--loop=2", *flags])
        text = f"for a model of {sizes} ais_bench with {flags} ends with {code}"
        yield Fact(text, (done.returncode == 0) == (code == "0"), (done.stdout + done.stderr)[-300:])


def _session(folder: Path, model: str, sizes: list[int]) -> Iterator[Fact]:
    done = _run(folder, ["-c", _SESSION, model, *map(str, sizes), "3"])
    yield Fact("the client's Python API opens it", done.returncode == 0, done.stderr[-500:])
    found = json.loads(done.stdout.splitlines()[-1])
    shape, rows = found["shape"], found["rows"]
    yield Fact("its input is [-1, 3, H, W]", shape[:2] == [-1, 3], str(shape))
    nbytes = 4 * max(sizes) * 3 * shape[2] * shape[3]
    yield Fact("the input's size is that of the largest batch", found["size"] == nbytes, f"{found['size']}, {nbytes}")
    yield Fact("get_max_dym_batchsize() is the largest", found["largest"] == max(sizes), str(found["largest"]))
    each = all(rows[str(size)][0] == size for size in sizes)
    yield Fact('infer(mode="dymbatch") gives as many rows as it is given images', each, str(rows))
    yield Fact("a size that the model was not compiled for is an exception", isinstance(rows["3"], str), str(rows["3"]))


def _native(folder: Path) -> Iterator[Fact]:
    """AscendCL as native/infer/acl.h declares it, where the program is built that calls it."""
    if not PROGRAM.is_file():
        return
    data = ["--input=prep", "--output=native", "--output_dirname=r", "--outfmt=TXT"]
    models = {
        "a .om": [f"--model=demo_bs{BATCH}.om", *data],
        "of several sizes": ["--model=dyn/demo_dyn.om", "--dymBatch=1"],
    }
    for what, flags in models.items():
        done = _bounded([str(PROGRAM), *flags], folder, cann_libraries.environment(), LONGEST)
        yield Fact(f"resnest_infer runs a model: {what}", done.returncode == 0, (done.stdout + done.stderr)[-500:])
    ours, theirs = (
        {path.name: path.read_text() for path in (folder / results).glob("*.txt")}
        for results in ("native/r", f"bench/result_bs{BATCH}")
    )
    equal = sum(ours.get(name) == text for name, text in theirs.items())
    yield Fact("its files are those of ais_bench", 0 < len(theirs) == equal, f"{equal} of {len(theirs)} equal")


def _nv12(folder: Path, chip: str) -> Iterator[Fact]:
    """AIPP's YUV420SP_U8 with its matrix, as `--dtype yuv420sp` writes it."""
    nv12, data = "--dtype=yuv420sp", [f"--images={IMAGES}", f"--labels={LABELS}"]
    stages = {
        "preprocess makes NV12": ["resnest_preprocess.py", str(IMAGES), "nv12", "--arch=resnest_demo", nv12],
        "ATC takes YUV420SP_U8": ["convert.sh", str(BATCH), chip, "--onnx=demo.onnx", "--output=yuv", nv12],
        "bench gives ais_bench 1.5 bytes a pixel": [
            *("bench.sh", str(BATCH), chip, "--prefix=yuv/demo", "--tensors=nv12", "--output=nv12_bench"),
            *(f"--labels={LABELS}", "--loop=20", "--no-report"),
        ],
        "evaluate opens the model of NV12": ["-m", "ResNeSt.evaluate", f"--model=yuv/demo_bs{BATCH}.om", *data],
    }
    for fact, command in stages.items():
        done = _run(folder, command)
        yield Fact(fact, done.returncode == 0, (done.stdout + done.stderr)[-500:])
    yield _accuracy("with NV12 top-1", folder / "nv12_bench/bench.json")


# A picture through the service's model, without its network part: alone and with others, by two instances.
_SERVED = """
import json, sys
import numpy as np
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.serve.model import ServedModel
*files, picture = sys.argv[1:]
model = ServedModel("demo", [ModelChoice(file, instances=2) for file in files], 64)
rows = model.empty(9)
for row in rows:
    model.decode(open(picture, "rb").read(), picture, row)
answers = [model.batcher.submit(rows[:count]).result() for count in (1, 2, 9)]
logits = np.concatenate([answer.logits for answer in answers])
model.batcher.close(10)
print()
print(json.dumps({"sizes": model.batcher.sizes, "apart": float(np.ptp(logits, axis=0).max() / np.abs(logits).max())}))
"""


def _service(folder: Path, chip: str) -> Iterator[Fact]:
    """Several models open in one thread, which is not the process's main one, and in another thread once more."""
    done = _run(folder, ["convert.sh", f"1,{BATCH}", chip, "--onnx=demo.onnx", "--output=served"])
    yield Fact("convert.sh for the service ends with 0", done.returncode == 0, done.stderr[-500:])
    files = [f"served/demo_bs{batch}.om" for batch in (1, BATCH)]
    done = _run(folder, ["-c", _SERVED, *files, str(next(iter(sorted(IMAGES.iterdir()))))])
    yield Fact("two models are open in a thread, twice", done.returncode == 0, (done.stdout + done.stderr)[-500:])
    found = json.loads(done.stdout.splitlines()[-1])
    yield Fact("each runs its batch size", found["sizes"] == [1, BATCH], str(found["sizes"]))
    yield Fact("their answers agree within 1 %", found["apart"] < 0.01, f"{found['apart']:.2g} of the largest logit")


def _json(folder: Path) -> Iterator[Fact]:
    """What CANN's libraries print by themselves stays out of the JSON on stdout."""
    image = str(next(iter(sorted(IMAGES.iterdir()))))
    done = _run(folder, ["-m", "ResNeSt.predict", f"--model=demo_bs{BATCH}.om", "--json=-", image])
    yield Fact("with --json - stdout is JSON alone", done.stdout[:1] + done.stdout[-2:] == "{}\n", done.stdout[:300])


def _ray(folder: Path) -> Iterator[Fact]:
    """Ray counts the cards of this host, and a task opens the one it is given as device 0; where Ray is installed."""
    if importlib.util.find_spec("ray") is None:
        return
    model = f"--model=served/demo_bs{BATCH}.om"
    command = ["-m", "ResNeSt.evaluate", model, f"--images={IMAGES}", f"--labels={LABELS}"]
    plain, spread = _run(folder, command), _run(folder, [*command, "--ray=local"])
    yield Fact("evaluate --ray local ends with 0", spread.returncode == 0, (spread.stdout + spread.stderr)[-500:])
    scores = [done.stdout.splitlines()[-5:] for done in (plain, spread)]
    yield Fact("its scores are those without Ray", scores[0] == scores[1], "; ".join(scores[1]))


def _tune(host: Host) -> Iterator[Fact]:
    """AOE's options, its last line, and the bank that ATC reads."""
    if not host.tune:
        return
    done = _run(host.folder, ["convert.sh", "1", host.chip, "--onnx=demo.onnx", f"--tune={host.tune}"], TUNING)
    yield Fact("convert --tune ends with 0", done.returncode == 0, done.stderr[-500:])
    bank = host.folder / "demo_bs1_aoe_bank"
    log = bank.with_name(f"{bank.name}.log")
    printed = log.read_text(errors="replace") if log.is_file() else ""
    yield Fact(f"AOE says {aoe.FINISHED!r} at its end", aoe.FINISHED in printed[-2000:], printed[-300:])
    found = [str(path.relative_to(bank)) for path in bank.rglob("*.json")]
    in_place = all(name.startswith(f"Ascend{host.chip}/") for name in found)
    yield Fact("its bank is empty, or holds JSON files in a folder of the chip's name", in_place, str(found))


def _run(folder: Path, command: list[str], seconds: float = LONGEST) -> subprocess.CompletedProcess[str]:
    """A command of the project's, as a user types it."""
    name, *rest = command
    program = ["bash", str(PROJECT / name)] if name.endswith(".sh") else [sys.executable, str(PROJECT / name)]
    if name in ("-m", "-c"):
        program = [sys.executable, name]
    return _bounded([*program, *rest], folder, {**os.environ, "PYTHON": sys.executable}, seconds)


def _bounded(
    command: list[str], folder: Path, environment: dict[str, str], seconds: float
) -> subprocess.CompletedProcess[str]:
    """What the command gives; the exit code of `timeout`, 124, where it takes longer, and then it is ended."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=seconds)
            return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return subprocess.CompletedProcess(command, 124, "", f"ran for more than {seconds:.0f} s and was ended")


if __name__ == "__main__":
    run(main)
