"""Stage 4 on this machine: runs a tensor folder through an engine, as `python -m ais_bench` does on an Ascend host.

Flags, files, names, padding, summary and printed lines follow ais_bench (contract: ais_bench). A `.om` is handed to
ais_bench itself.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence

import numpy as np
from tqdm import tqdm

from ResNeSt.arguments import positive
from ResNeSt.engines import NAMES, Engine, TensorSpec, open_engine
from ResNeSt.errors import ArgumentError, MissingRuntimeError, PipelineError, run
from ResNeSt.files import sole_writer, stem, whole, write_json
from ResNeSt.parallel import in_parallel
from ResNeSt.tensors import TensorFile, check_tensors, read_bytes, refuse_packed, tensor_files

READERS = 2
PURE_NAME = "pure_infer_data"


class Batch(NamedTuple):
    """One inference: the inputs whose results are wanted (padding left out) and the tensor that goes in."""

    inputs: Sequence[str]
    tensor: np.ndarray


class Batches(NamedTuple):
    """All inferences of a run, made as they are asked for."""

    total: int
    each: Iterable[Batch]


def parser() -> argparse.ArgumentParser:
    """ais_bench's flags as far as one static classifier needs them, and two of our own at the end."""
    made = argparse.ArgumentParser(prog="python -m ResNeSt.infer", description=__doc__, allow_abbrev=False)
    made.add_argument(
        "--model",
        "-m",
        required=True,
        help="compiled model (.xml, .onnx, or .om for ais_bench) or checkpoint (.pth, .safetensors, .ckpt, .pdparams)",
    )
    made.add_argument("--input", "-i", help="folder of tensors, or one tensor file [none: a pure speed run]")
    made.add_argument("--output", "-o", help="folder for the results [none written]")
    made.add_argument("--output_dirname", help="folder below --output [date and time]")
    made.add_argument("--outfmt", default="BIN", choices=["BIN", "NPY", "TXT"], help="format of the results [BIN]")
    made.add_argument("--loop", type=positive, default=1, help="runs of every batch [1]")
    made.add_argument("--warmup_count", type=int, default=1, help="uncounted runs first [1]")
    made.add_argument("--batchsize", type=positive, help="changes the throughput printed, nothing else [the model's]")
    made.add_argument("--dymBatch", type=positive, default=1, help="batch size of a model that leaves it free [1]")
    made.add_argument("--device", type=int, default=0, help="there is one cpu: 0 [0]")
    made.add_argument("--pure_data_type", default="zero", choices=["zero", "random"], help="data of a pure run [zero]")
    made.add_argument("--display_all_summary", type=_flag, default=False, help="prints the copy times too [False]")
    made.add_argument("--engine", choices=NAMES, help="[by the model's suffix]")
    made.add_argument("--arch", help="the network of a checkpoint whose file name does not tell it")
    return made


def _flag(text: str) -> bool:
    known = {"true": True, "1": True, "t": True, "y": True, "yes": True}
    known.update({"false": False, "0": False, "f": False, "n": False, "no": False})
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return known[text.lower()]


def main() -> int:
    """Runs the command line."""
    _hand_over_om()
    options = parser().parse_args()
    if options.device != 0:
        raise ArgumentError(f"--device {options.device}: on cpu there is device 0 only")
    engine = open_engine(options.model, options.engine, options.dymBatch, options.arch)
    for line in (f"{engine.title} init", "open device 0", f"load model {options.model}", "create model description"):
        _say(f"{line} success")
    infer(engine, options)
    _say(f"end to finalize {engine.title}")
    return 0


def _hand_over_om() -> None:
    """Becomes ais_bench, with every argument as it is, where the model is a `.om`."""
    model = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    model.add_argument("--model", "-m", default="")
    model.add_argument("--input", "-i")
    options = model.parse_known_args()[0]
    path = options.model
    if not path.endswith(".om"):
        return
    if options.input:
        refuse_packed(options.input)
    if importlib.util.find_spec("ais_bench") is None:
        raise MissingRuntimeError(
            f"{path}: ais_bench is not installed here; run this on an Ascend host (requirements-npu.txt says how to "
            "install it), or compile for cpu: bash convert.sh <batch> cpu"
        )
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "ais_bench", *sys.argv[1:]])  # noqa: S606 (no shell is meant)


def infer(engine: Engine, options: argparse.Namespace) -> None:
    """Runs every batch, writes a result per input and the summary, prints the performance summary."""
    folder = _output_folder(options)
    with sole_writer(folder) if folder else contextlib.nullcontext():
        _run(engine, options, folder)


def _run(engine: Engine, options: argparse.Namespace, folder: Optional[str]) -> None:
    pure = options.input is None
    batches = _pure_batch(engine.input, options.pure_data_type) if pure else _file_batches(engine, options.input)
    for _ in range(options.warmup_count):
        engine.run(np.zeros(engine.input.shape, engine.input.dtype))
    _say(f"warm up {options.warmup_count} done")

    times: List[float] = []
    filesinfo: Dict[str, Dict[str, List[str]]] = {}
    for batch in tqdm(batches.each, total=batches.total, desc="Inference array Processing", disable=None):
        logits = _timed(engine, batch.tensor, options.loop, times)
        results = [logits] if pure else logits
        for name, result in zip(batch.inputs, results):
            outfiles = [_write(folder, name, result, options.outfmt)] if folder else []
            filesinfo[str(len(filesinfo))] = {"infiles": [name], "outfiles": outfiles}

    batchsize = options.batchsize or engine.input.shape[0]
    summary = summarise(times, batches.total, batchsize)
    _print_summary(summary, batchsize, options.display_all_summary)
    if folder:
        write_json(f"{folder}_summary.json", {"filesinfo": filesinfo, "args": sys.argv, **summary, "pid": os.getpid()})


def _output_folder(options: argparse.Namespace) -> Optional[str]:
    if options.output is None:
        return None
    dirname = options.output_dirname or time.strftime("%Y_%m_%d-%H_%M_%S")
    if os.path.isabs(dirname):
        raise ArgumentError(f"--output_dirname {dirname}: is a name below --output, not an absolute path")
    folder = os.path.join(options.output, dirname)
    os.makedirs(folder, mode=0o750, exist_ok=True)
    # The summary is written last; an old one would make an interrupted run look finished.
    Path(f"{folder}_summary.json").unlink(missing_ok=True)
    _say(f"output path:{folder}")
    return folder


def _pure_batch(spec: TensorSpec, kind: str) -> Batches:
    tensor = np.zeros(spec.shape, spec.dtype)
    if kind == "random":
        scale = 255 if spec.dtype == "uint8" else 1
        tensor = (np.random.default_rng(0).random(spec.shape) * scale).astype(spec.dtype)
    return Batches(1, [Batch([PURE_NAME], tensor)])


def _file_batches(engine: Engine, source: str) -> Batches:
    files, spec = tensor_files(source), engine.input
    check_tensors(source, spec.shape, spec.dtype, engine.info)
    first = len(read_bytes(files[0]))
    if first == 0 or spec.nbytes % first:
        raise PipelineError(f"[ERROR] arg0 tensorsize: {spec.nbytes} filesize: {first} not match ({files[0].path})")
    size = spec.nbytes // first
    groups = [files[start : start + size] for start in range(0, len(files), size)]
    _say(f"get filesperbatch files0 size:{first} tensor0size:{spec.nbytes} filesperbatch:{size} runcount:{len(groups)}")

    def load(group: Sequence[TensorFile]) -> np.ndarray:
        parts = [_read_sized(tensor, first) for tensor in group]
        parts += parts[:1] * (size - len(group))  # ais_bench pads with the batch's first file
        return np.frombuffer(bytearray().join(parts), spec.dtype).reshape(spec.shape)

    loaded = in_parallel(load, groups, READERS)
    return Batches(len(groups), (Batch([file.path for file in group], tensor) for group, tensor in loaded))


def _read_sized(tensor: TensorFile, nbytes: int) -> bytes:
    content = read_bytes(tensor)
    if len(content) != nbytes:
        raise PipelineError(f"{tensor.path}: {len(content)} bytes, the first file has {nbytes}; make the tensor again")
    return content


def _timed(engine: Engine, tensor: np.ndarray, loop: int, times: List[float]) -> np.ndarray:
    """Runs `tensor` `loop` times, appends each run's milliseconds to `times`, returns the logits."""
    for _ in range(loop):
        started = time.perf_counter()
        logits = engine.run(tensor)
        times.append((time.perf_counter() - started) * 1000)
    return logits


def _write(folder: str, name: str, result: np.ndarray, outfmt: str) -> str:
    path = os.path.join(folder, f"{stem(name)}_0.{outfmt.lower()}")
    with whole(path) as temporary, open(temporary, "wb") as file:
        if outfmt == "NPY":
            np.save(file, result)
        elif outfmt == "BIN":
            file.write(result.tobytes())
        else:
            file.write(_as_text(result).encode())
    return path


def _as_text(result: np.ndarray) -> str:
    rows = result.reshape(-1, result.shape[-1]).tolist()
    return "".join(("%f " * len(row)) % tuple(row) + "\n" for row in rows)


def statistics(times: Sequence[float]) -> Dict[str, float]:
    """ais_bench's figures of a list of milliseconds."""
    return {
        "min": float(np.min(times)),
        "max": float(np.max(times)),
        "mean": float(np.mean(times)),
        "median": float(np.median(times)),
        "percentile(99%)": float(np.percentile(times, 99)),
        "count": len(times),
    }


def summarise(times: List[float], copies: int, batchsize: int) -> Dict[str, Any]:
    """The summary's figures, under ais_bench's names; a cpu has no device memory to copy to, so copies take 0 ms."""
    compute = statistics(times)
    nothing = statistics([0.0] * copies)
    return {
        "NPU_compute_time": compute,
        "H2D_latency": nothing,
        "D2H_latency": nothing,
        "npu_compute_time_list": times,
        "throughput": 1000 * batchsize / compute["mean"],
    }


def _print_summary(summary: Dict[str, Any], batchsize: int, everything: bool) -> None:
    compute = summary["NPU_compute_time"]
    _say("-----------------Performance Summary------------------")
    if everything:
        _print_times("H2D_latency", summary["H2D_latency"])
    _print_times("NPU_compute_time", compute)
    if everything:
        _print_times("D2H_latency", summary["D2H_latency"])
    mean, throughput = compute["mean"], summary["throughput"]
    _say(f"throughput 1000*batchsize.mean({batchsize})/NPU_compute_time.mean({mean}): {throughput}")
    _say("------------------------------------------------------")


def _print_times(name: str, figures: Dict[str, float]) -> None:
    shown = ", ".join(f"{key} = {value}" for key, value in figures.items() if key != "count")
    _say(f"{name} (ms): {shown}")


def _say(line: str) -> None:
    print(f"[INFO] {line}", flush=True)


if __name__ == "__main__":
    run(main)
