"""What `python -m ais_bench` does: files into batches, inference, output files, summary (contract ais_bench)."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, NamedTuple

import numpy as np
from tqdm import tqdm

from ais_bench import options, paths, version
from ais_bench.infer.interface import InferSession, log

_NO_FILE = "pure_infer_data"


@dataclasses.dataclass
class Batch:
    """Files of one run; those from `kept` on repeat the first one, to fill the batch."""

    files: list[str]
    kept: int


class Ran(NamedTuple):
    """Images/s of one device, and when its run began and ended, in seconds since the epoch."""

    throughput: float
    start: float
    end: float


def main(arguments: list[str]) -> int:
    """One run for each device, all over the whole input unless it is to be divided; several run at the same time.

    They begin together, those but the first later by as many seconds as $STANDIN_LATE says: the real ones look once a
    second whether all are ready.
    """
    args = options.parse(arguments)
    target = _output_folder(args)
    if len(args.device) == 1:
        _run(args, args.device[0], args.input and paths.tensors(args.input), target, lambda: None)
        return 0
    return _run_on_several(args, target)


def _run_on_several(args: argparse.Namespace, target: str | None) -> int:
    """As the real one's pool of processes: one that fails leaves a line and no summary, and the others go on."""
    count, files = len(args.device), args.input and paths.tensors(args.input)
    log(f"multidevice:{args.device} run begin")
    together = threading.Barrier(count)

    def one(index: int) -> Ran:
        log(f"subprocess_{index} main run")
        share = files
        if files is not None and args.divide_input:
            size = math.ceil(len(files) / count)
            share = files[index * size : (index + 1) * size]
        own = None if target is None else f"{target}/device{args.device[index]}_{index}"
        try:
            return _run(args, args.device[index], share, own, lambda: _meet(together, index))
        except BaseException as error:
            together.abort()  # nobody waits for it
            print(f"[ERROR] subprocess run failed error_callback:{error}", flush=True)
            raise

    with ThreadPoolExecutor(count) as pool:
        runs = [pool.submit(one, index) for index in range(count)]
    ended = {index: run.result() for index, run in enumerate(runs) if run.exception() is None}
    failed = len(ended) < count
    log(f"multidevice run end qsize:{count + len(ended)} result:{int(failed)}")
    for index, ran in ended.items():
        span = f"start_time:{ran.start} end_time:{ran.end}"
        log(f"i:{index} device_{args.device[index]} throughput:{ran.throughput} {span}")
    log(f"summary throughput:{sum(ran.throughput for ran in ended.values())}")
    return int(failed)


def _meet(together: threading.Barrier, index: int) -> None:
    with contextlib.suppress(threading.BrokenBarrierError):
        together.wait(10)
    time.sleep(float(os.environ.get("STANDIN_LATE", "0")) * index)


def _output_folder(args: argparse.Namespace) -> str | None:
    if args.output is None:
        return None
    return os.path.join(args.output, args.output_dirname or time.strftime("%Y_%m_%d-%H_%M_%S"))


def _run(
    args: argparse.Namespace, device: int, files: list[str] | None, target: str | None, ready: Callable[[], None]
) -> Ran:
    session = InferSession(device, args.model)
    _set_batch(session, args)
    if target is not None:
        os.makedirs(target, 0o750, exist_ok=True)
        log(f"output path:{target}")
    batches = _batches(session, files, args.pipeline)
    _warm_up(session, batches[0], args)
    written: dict[str, Any] = {}
    ready()
    start = time.time()
    for batch in tqdm(batches, desc=f"Inference {args.run_mode} Processing", file=sys.stderr):
        outputs = session.run([_read(session, batch, args.pure_data_type)])
        if target is not None:
            _write(outputs, batch, target, args, written)
    end = time.time()
    summary = _summary(session, args, {} if args.pipeline else written)
    _report(summary, args, session)
    if target is not None:
        _save(summary, f"{target}_summary.json")
    session.free_resource()
    log("end to finalize acl")
    return Ran(summary["throughput"], start, end)


def _set_batch(session: InferSession, args: argparse.Namespace) -> None:
    if args.dymBatch is not None:
        session.set_dynamic_batchsize(args.dymBatch)
    elif _batch_size(session, args) < 0:
        raise RuntimeError("dynamic batch om model detected, but dymbatch, dymdims or dymshape not set!")
    else:
        session.set_staticbatch()


def _batches(session: InferSession, files: list[str] | None, pipeline: bool) -> list[Batch]:
    if files is None:
        return [Batch([_NO_FILE], 1)]
    per_batch = 1 if pipeline else _files_per_batch(session, files)
    batches = []
    for start in range(0, len(files), per_batch):
        chunk = files[start : start + per_batch]
        batches.append(Batch(chunk + [chunk[0]] * (per_batch - len(chunk)), len(chunk)))
    return batches


def _files_per_batch(session: InferSession, files: list[str]) -> int:
    file_size, tensor_size = _bytes_of(files[0]).nbytes, session.get_inputs()[0].realsize
    if file_size == 0 or tensor_size % file_size:
        print(f"[ERROR] arg0 tensorsize: {tensor_size} filesize: {file_size} not match", flush=True)
        raise RuntimeError("input files do not fill the input tensor")
    count: int = tensor_size // file_size
    sizes = f"files0 size:{file_size} tensor0size:{tensor_size}"
    log(f"get filesperbatch {sizes} filesperbatch:{count} runcount:{math.ceil(len(files) / count)}")
    return count


def _bytes_of(path: str) -> np.ndarray:
    if path.lower().endswith(".npy"):
        return np.frombuffer(np.load(path, allow_pickle=False).tobytes(), np.uint8)
    return np.fromfile(path, np.uint8)


def _read(session: InferSession, batch: Batch, pure_data_type: str) -> np.ndarray:
    if batch.files != [_NO_FILE]:
        return np.concatenate([_bytes_of(path) for path in batch.files])
    size = session.get_inputs()[0].realsize
    if pure_data_type == "zero":
        return np.zeros(size, np.uint8)
    noise: np.ndarray = np.random.default_rng().integers(0, 256, size, np.uint8)
    return noise


def _warm_up(session: InferSession, batch: Batch, args: argparse.Namespace) -> None:
    data = _read(session, batch, args.pure_data_type)
    for _ in range(args.warmup_count):
        session.run([data])
    session.reset_summaryinfo()
    session.set_loop_count(args.loop)
    log(f"warm up {args.warmup_count} done")


def _write(
    outputs: list[np.ndarray], batch: Batch, target: str, args: argparse.Namespace, written: dict[str, Any]
) -> None:
    """Writes the batch's outputs, a file for each sample that is no filling, and lists them in `written`."""
    pieces = [_split(output, len(batch.files), args.output_batchsize_axis) for output in outputs]
    for sample, source in enumerate(batch.files[: batch.kept]):
        stem = os.path.basename(source).split(".")[0]
        names = [f"{target}/{stem}_{index}.{args.outfmt.lower()}" for index in range(len(outputs))]
        for name, piece in zip(names, pieces):
            _write_array(name, piece[sample], args.outfmt)
        written[str(len(written))] = {"infiles": [source], "outfiles": names}


def _split(output: np.ndarray, parts: int, axis: int) -> list[np.ndarray]:
    if output.shape[axis] % parts:
        print(f"[ERROR] output shape {output.shape} does not split into {parts} along axis {axis}", flush=True)
        raise RuntimeError("an output does not split into samples")
    return np.array_split(output, parts, axis)


def _write_array(path: str, array: np.ndarray, outfmt: str) -> None:
    if outfmt == "BIN":
        array.tofile(path)
    elif outfmt == "NPY":
        np.save(path, array)
    else:
        np.savetxt(path, array.reshape(-1, array.shape[-1]), fmt="%f", delimiter=" ", newline=" \n")


def _summary(session: InferSession, args: argparse.Namespace, written: dict[str, Any]) -> dict[str, Any]:
    """The summary in the real file's order of keys; times in milliseconds, throughput in samples/s."""
    times = session.summary().exec_time_list
    compute = _statistics(times)
    return {
        "filesinfo": written,
        "args": sys.argv,
        "NPU_compute_time": compute,
        "H2D_latency": _statistics(session.h2d),
        "D2H_latency": _statistics(session.d2h),
        "npu_compute_time_list": times,
        "throughput": 1000 * _batch_size(session, args) / compute["mean"],
        "pid": os.getpid(),
    }


def _batch_size(session: InferSession, args: argparse.Namespace) -> int:
    count: int = args.batchsize or args.dymBatch or session.get_inputs()[0].shape[0]
    return count


def _statistics(times: list[float]) -> dict[str, float]:
    return {
        "min": min(times),
        "max": max(times),
        "mean": float(np.mean(times)),
        "median": float(np.median(times)),
        _percentile(): float(np.percentile(times, 99)),
        "count": len(times),
    }


def _percentile() -> str:
    return "P99" if version.dashes() else "percentile(99%)"


def _report(summary: dict[str, Any], args: argparse.Namespace, session: InferSession) -> None:
    log("-----------------Performance Summary------------------")
    shown = ["H2D_latency", "NPU_compute_time", "D2H_latency"] if args.display_all_summary else ["NPU_compute_time"]
    if version.dashes():
        print(_table([(f"{name} (ms)", *list(summary[name].values())[:-1]) for name in shown]), flush=True)
    for name in () if version.dashes() else shown:
        values = ", ".join(f"{key} = {value}" for key, value in summary[name].items() if key != "count")
        log(f"{name} (ms): {values}")
    formula = f"1000*batchsize.mean({_batch_size(session, args)})/NPU_compute_time.mean"
    throughput = "Throughput" if version.dashes() else "throughput"
    log(f"{throughput} {formula}({summary['NPU_compute_time']['mean']}): {summary['throughput']}")
    log("------------------------------------------------------")


def _table(rows: list[tuple[Any, ...]]) -> str:
    """As tabulate draws it, tablefmt fancy_grid."""
    cells = [("Metric", "min", "max", "mean", "median", "P99"), *[(row[0], *map(str, row[1:])) for row in rows]]
    widths = [max(map(len, column)) + 2 for column in zip(*cells)]
    lines = ["│".join(f" {cell}".ljust(width) for cell, width in zip(row, widths)) for row in cells]
    # Above all, below the head, between rows, below all; each by its left end, its dash, its joint and its right end.
    drawn = [
        "╒═╤╕",
        "╞═╪╡",
        "├─┼┤",
        "╘═╧╛",
    ]
    edges = [f"{kind[0]}{kind[2].join(kind[1] * width for width in widths)}{kind[3]}" for kind in drawn]
    head, *body = [f"│{line}│" for line in lines]
    return "\n".join([edges[0], head, edges[1], f"\n{edges[2]}\n".join(body), edges[3]])


def _save(summary: dict[str, Any], path: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(summary, file)
