"""How many cores a command takes: affinity, the quota of a container, `--threads`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ResNeSt.common import cores
from ResNeSt.common.arguments import Parser
from ResNeSt.common.errors import ArgumentError
from tests.conftest import PROJECT, assert_refused, call

GROUPS = Path("/sys/fs/cgroup/cpu")


def group(root: Path, path: str, **files: str) -> None:
    """A control group at `path`, with its files; _ stands for a dot in their names."""
    (root / path).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / path / name.replace("_", ".", 1)).write_text(f"{content}\n")


def quota(root: Path, membership: str) -> float | None:
    (root / "membership").write_text(membership)
    return cores.cpu_quota(root, root / "membership")


def test_a_quota_of_version_2_is_a_share_of_its_period(tmp_path: Path) -> None:
    group(tmp_path, "box", cpu_max="150000 100000")
    assert quota(tmp_path, "0::/box\n") == 1.5


@pytest.mark.parametrize("content", ["max 100000", "max", "", "100000 0", "what else comes"])
def test_what_names_no_quota_is_none(content: str, tmp_path: Path) -> None:
    group(tmp_path, "box", cpu_max=content)
    assert quota(tmp_path, "0::/box\n") is None


def test_a_quota_of_version_1_is_a_share_of_its_period_and_minus_1_is_none(tmp_path: Path) -> None:
    group(tmp_path / "cpu,cpuacct", "box", cpu_cfs_quota_us="300000", cpu_cfs_period_us="100000")
    assert quota(tmp_path, "4:memory:/\n3:cpu,cpuacct:/box\n") == 3
    group(tmp_path / "cpu,cpuacct", "box", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    assert quota(tmp_path, "4:memory:/\n3:cpu,cpuacct:/box\n") is None


def test_the_tightest_of_a_group_and_those_above_it_counts(tmp_path: Path) -> None:
    group(tmp_path, "", cpu_max="900000 100000")
    group(tmp_path, "outer", cpu_max="200000 100000")
    group(tmp_path, "outer/inner", cpu_max="max 100000")
    group(tmp_path, "outer/inner/most", cpu_max="400000 100000")
    assert quota(tmp_path, "0::/outer/inner/most\n") == 2


def test_in_a_container_whose_path_is_the_host_s_the_root_is_its_own_group(tmp_path: Path) -> None:
    group(tmp_path, "", cpu_max="200000 100000")
    assert quota(tmp_path, "0::/docker/0123456789ab\n") == 2
    (tmp_path / "cpu.max").unlink()
    group(tmp_path / "cpu", "", cpu_cfs_quota_us="50000", cpu_cfs_period_us="100000")
    assert quota(tmp_path, "1:cpu:/docker/0123456789ab\n0::/\n") == 0.5


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cores.cpu_quota(tmp_path, tmp_path / "absent") is None


@pytest.mark.parametrize(("bound", "expected"), [(None, 4), (0.5, 1), (1.5, 2), (4.0, 4), (64.0, 4)])
def test_the_cores_are_the_affinity_s_and_no_more_than_the_quota(
    bound: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8, 9})
    monkeypatch.setattr(cores, "cpu_quota", lambda: bound)
    assert cores.cores() == expected


@pytest.mark.parametrize(("machine", "limit"), [(2, None), (64, 2)])
def test_a_runtime_is_told_where_it_would_count_too_many_cores(
    machine: int, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(cores, "cpu_quota", lambda: None)
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    assert cores.thread_limit() == limit


@pytest.mark.parametrize(
    ("bound", "users", "told"), [(1.5, None, "2"), (1.5, "7", "7"), (4.0, None, None), (None, None, None)]
)
def test_a_command_tells_libraries_of_a_quota_that_they_do_not_see(
    bound: float | None, users: str | None, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8, 9})
    monkeypatch.setattr(cores, "cpu_quota", lambda: bound)
    monkeypatch.setenv("OMP_NUM_THREADS", users or "")
    if users is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    Parser().parse_args([])
    assert os.environ.get("OMP_NUM_THREADS") == told


def test_the_least_busy_cores_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([{1: 100, 2: 100, 3: 100, 7: 100}, {1: 110, 2: 100, 3: 105, 7: 101}])
    monkeypatch.setattr(cores, "_worked", lambda: next(looks))
    taken: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 2, 3, 7})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, some: taken.append(set(some)))
    cores.use_cores(2)
    assert taken == [{2, 7}]


def test_more_cores_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"--threads 100000: this process may use \d+ cores"):
        cores.use_cores(100_000)
    result = call("-m", "ResNeSt.convert", "1", "cpu", "--threads=100000", cwd=tmp_path)
    assert_refused(result, "--threads 100000", code=2)


WORK = """
import os, sys, threading
from ResNeSt.common.arguments import Parser
from ResNeSt.common.flags import take
parser = Parser()
take(parser, "threads")
parser.parse_args()
from ResNeSt.common.cores import cores
import torch
print(len(os.sched_getaffinity(0)), cores(), torch.get_num_threads())
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this machine has one core")
def test_threads_bounds_the_process_and_the_libraries_that_it_imports() -> None:
    pytest.importorskip("torch")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", WORK, "--threads=1"]
    told = subprocess.run(command, env={**environment, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True)
    assert told.stdout.split() == ["1", "1", "1"], told.stderr


@pytest.fixture
def quota_of_one() -> Iterator[Path]:
    """A control group that may use one core's time."""
    made = GROUPS / f"resnest-test-{os.getpid()}"
    try:
        made.mkdir()
        (made / "cpu.cfs_quota_us").write_text("100000")
    except OSError as error:
        pytest.skip(f"no CPU quota can be set here ({error})")
    yield made
    made.rmdir()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="this machine has one core")
def test_a_real_quota_is_seen_and_kept_by_the_runtime(quota_of_one: Path, demo_onnx: Path) -> None:
    program = (
        f"open('{quota_of_one}/cgroup.procs', 'w').write('0')\n"
        "from pathlib import Path\nfrom ResNeSt.common.cores import cores\nfrom ResNeSt.engines import openvino\n"
        "from ResNeSt.engines.engine import Opening\n"
        f"engine = openvino.open_model(Path('{demo_onnx}'), Opening())\n"
        "model = engine._request.get_compiled_model()\n"
        "print(cores(), model.get_property('INFERENCE_NUM_THREADS'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert told.stdout.split() == ["1", "1"], told.stderr
