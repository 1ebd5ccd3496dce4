"""The commands that use the best setting of a table, and that measure it again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ResNeSt.bench.benchmark import Benchmark
from ResNeSt.bench.models import PREFIX
from ResNeSt.bench.rows import BenchRow
from ResNeSt.convert import chips


def commands(row: BenchRow, benchmark: Benchmark) -> list[str]:
    """Results for a folder of tensors, where the client can make them so, and the row alone; the chip is resolved."""
    chip = benchmark.chip
    again = ["bash", "bench.sh", str(row.batch), chip, *_model(benchmark), *_copies(row), *_devices(benchmark.devices)]
    if row.processes > 1 and not chips.is_ascend(chip):  # there they run the pure loop alone
        return [shlex.join(again)]
    use = ["python", "-m", "ResNeSt.infer", f"--model={row.model}", f"--input={benchmark.tensors or 'prep_dataset'}"]
    use += ["--output=results", *([f"--dymBatch={row.batch}"] if benchmark.dynamic_batch else [])]
    devices = [device for device in benchmark.devices for _ in range(row.processes)]
    divided = ["--divide_input=1"] if len(devices) > 1 else []
    return [shlex.join([*use, *_devices(devices), *divided, *_instances(row)]), shlex.join(again)]


def _model(benchmark: Benchmark) -> list[str]:
    dynamic = ["--dynamic-batch"] if benchmark.dynamic_batch else []
    return [*([] if benchmark.prefix == PREFIX else [f"--prefix={benchmark.prefix}"]), *dynamic]


def _copies(row: BenchRow) -> list[str]:
    return [f"--processes={row.processes}"] if row.processes > 1 else _instances(row)


def _instances(row: BenchRow) -> list[str]:
    return [f"--instances={row.instances}"] if row.instances > 1 else []


def _devices(devices: Sequence[int]) -> list[str]:
    return [] if list(devices) == [0] else [f"--device={','.join(map(str, devices))}"]
