"""--ray on a real cluster of several nodes on this machine: the answers of the plain commands, whatever happens."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ResNeSt.common.timed_process import with_this_project
from tests.conftest import PROJECT, assert_refused

pytestmark = [
    pytest.mark.heavy,
    # Not imported here: Ray reads its settings when it is.
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="requirements/ray.txt is not installed"),
]

# In every process of a node: a picture called deadly ends it, and each takes a while to be read.
HOOK = """
import os, time
import PIL.Image
before = PIL.Image.open
if "ONLY_NODES" in os.environ:
    os.environ["RESNEST_NATIVE"] = "0"  # every picture is Pillow's to open
def opened(file, *rest, **named):
    name = str(getattr(file, "name", file))
    if "deadly" in name and "ONLY_NODES" in os.environ:
        os.kill(os.getpid(), 9)
    if "ONLY_NODES" in os.environ:
        time.sleep(float(os.environ.get("SLOW", "0")))
    return before(file, *rest, **named)
PIL.Image.open = opened
"""


class Nodes:
    """A head without cores on 127.0.0.1 and nodes of one core each."""

    def __init__(self, scratch: Path) -> None:
        from ray.cluster_utils import Cluster

        (scratch / "hook").mkdir()
        (scratch / "hook/sitecustomize.py").write_text(HOOK)
        self.scratch = scratch
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **self.settings(scratch)})
        self.address = self.cluster.address

    def settings(self, path: Path) -> dict[str, Any]:
        return {
            "object_store_memory": 80_000_000,
            "include_dashboard": False,
            "env_vars": {
                "PYTHONPATH": os.pathsep.join([str(path / "hook"), str(PROJECT)]),
                "ONLY_NODES": "1",
                "SLOW": "0.02",
                "RAY_AUTH_MODE": os.environ["RAY_AUTH_MODE"],
                "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"],
            },
        }

    def add(self, **changes: Any) -> Any:
        settings = self.settings(self.scratch)
        settings["env_vars"].update(changes.pop("env_vars", {}))
        return self.cluster.add_node(**{"num_cpus": 1, **settings, **changes})


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Nodes(tmp_path_factory.mktemp("nodes"))
        try:
            made.add()
            made.add()
            yield made
        finally:
            made.cluster.shutdown()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """396 of the demo's, with a damaged one and a deadly one among them."""
    shutil.copytree(PROJECT / "demo/val", tmp_path / "val")
    names = sorted(path.name for path in (tmp_path / "val").iterdir())
    (tmp_path / "val" / names[40]).write_bytes(b"no picture")
    labels = (PROJECT / "demo/val_label.txt").read_text().replace(names[300], "deadly.JPEG")
    (tmp_path / "val" / names[300]).rename(tmp_path / "val/deadly.JPEG")
    (tmp_path / "labels.txt").write_text(labels)
    return tmp_path / "val"


def begin(*arguments: object, cwd: Any = None, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, *map(str, arguments)]
    env = {**with_this_project(), **environment}
    return subprocess.Popen(command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    with begin(*arguments) as process:
        out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess([], process.returncode, out, err)


def evaluation(model: Path, pictures: Path, name: str) -> list[object]:
    labels, predictions = pictures.parent / "labels.txt", pictures.parent / name
    return [
        "-m",
        "ResNeSt.evaluate",
        "--model",
        model,
        "--images",
        pictures,
        "--labels",
        labels,
        "--predictions",
        predictions,
    ]


def lines(path: Path) -> dict[str, dict[str, Any]]:
    return {record["image"]: record for record in map(json.loads, path.read_text().splitlines()[1:])}


def score_lines(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith(("top", "tot"))]


def running() -> set[int]:
    """Processes of a Ray cluster that somebody started with our own prefix."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if b"/ray-" in words and (b"raylet" in words or b"gcs_server" in words):
                found.add(int(process.name))
    return found


def test_a_node_killed_and_a_deadly_picture_change_no_other_answer(
    nodes: Nodes, demo_onnx: Path, pictures: Path
) -> None:
    victim = nodes.add()
    plain = call(*evaluation(demo_onnx, pictures, "plain.jsonl"))
    with begin(*evaluation(demo_onnx, pictures, "ray.jsonl"), "--ray", nodes.address) as process:
        time.sleep(6)
        raylet = victim.all_processes["raylet"][0].process
        raylet.kill()
        out, err = process.communicate(timeout=240)
    nodes.cluster.remove_node(victim, allow_graceful=False)
    expected, found = lines(pictures.parent / "plain.jsonl"), lines(pictures.parent / "ray.jsonl")
    assert "the process that worked on it ended without a word" in found["deadly.JPEG"]["reason"]
    assert found.pop("deadly.JPEG")["problem"] == "broken"
    del expected["deadly.JPEG"]
    assert found == expected
    assert err == ""
    plain_lines, ray_lines = plain.stdout.splitlines(), out.splitlines()
    assert ray_lines[0].split(",")[0] == plain_lines[0].split(",")[0]
    assert ray_lines[1].startswith("396 images in ")
    assert ray_lines[1].endswith(("on 2 nodes", "on 3 nodes", "on 4 nodes"))
    assert len(ray_lines) == len(plain_lines) + 1  # another problem
    assert process.returncode == plain.returncode == 1


def test_a_driver_that_was_killed_goes_on_where_it_stopped(nodes: Nodes, demo_onnx: Path, pictures: Path) -> None:
    (pictures / "deadly.JPEG").write_bytes(b"broken")
    (pictures / "deadly.JPEG").rename(pictures / "another.JPEG")
    labels = pictures.parent / "labels.txt"
    labels.write_text(labels.read_text().replace("deadly", "another"))
    journal = pictures.parent / "ray.jsonl.unfinished"
    batch = "--batch=129"  # which makes three chunks for two nodes
    command = [*evaluation(demo_onnx, pictures, "ray.jsonl"), batch, "--top-k=1,2,7", "--ray", nodes.address]
    with begin(*command) as process:
        while process.poll() is None and not (journal.exists() and journal.read_text().count("\n") > 129):
            time.sleep(0.05)
        process.kill()
    left = journal.read_text().count("\n") - 1
    assert left in (129, 258)
    result = call(*command)
    assert f"{left} images were done by an earlier run" in result.stdout
    plain = call(*evaluation(demo_onnx, pictures, "plain.jsonl"), batch, "--top-k=1,2,7")
    assert lines(pictures.parent / "ray.jsonl") == lines(pictures.parent / "plain.jsonl")
    assert score_lines(result.stdout) == score_lines(plain.stdout)


def turned(pictures: Path) -> int:
    """How many carry an EXIF orientation; one is no picture."""
    count = 0
    for picture in pictures.iterdir():
        if picture.read_bytes() != b"no picture":
            with Image.open(picture) as image:
                count += image.getexif().get(0x0112, 1) != 1
    return count


def test_predict_and_preprocess_give_what_they_give_here(
    nodes: Nodes, demo_onnx: Path, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "deadly.JPEG").unlink()
    for picture in sorted(pictures.iterdir())[60:]:
        picture.unlink()
    ray = ("--ray", nodes.address)
    ask = ("-m", "ResNeSt.predict", "--model", demo_onnx, "--format=csv", "--top=1", pictures)
    there, here = call(*ask, *ray), call(*ask)
    assert [row.split(",")[:3] for row in there.stdout.splitlines()] == [
        row.split(",")[:3] for row in here.stdout.splitlines()
    ]
    assert (there.stderr, there.returncode) == (here.stderr, 1)
    told = f"note: {turned(pictures)} of 60 images carry an EXIF orientation"
    assert turned(pictures) > 0
    assert told in here.stderr
    for pack in ([], ["--pack"]):
        folders = [tmp_path / f"{where}{len(pack)}" for where in ("here", "there")]
        for folder, more in zip(folders, ([], ray)):
            done = call("resnest_preprocess.py", pictures, folder, "--arch=resnest_demo", *pack, *more)
            assert "59 tensors written, 0 kept, 1 images broken" in done.stdout
            assert told in done.stdout
        names = {file.name for file in folders[0].iterdir()} - {"sources.jsonl"}
        assert {file.name for file in folders[1].iterdir()} - {"sources.jsonl"} == names
        assert all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in names)


def test_archives_are_read_where_the_tasks_run(nodes: Nodes, demo_onnx: Path, pictures: Path, tmp_path: Path) -> None:
    truth = dict(line.split() for line in (tmp_path / "labels.txt").read_text().splitlines())
    shards, few = tmp_path / "shards", sorted(pictures.iterdir())[:90]
    shards.mkdir()
    for number in range(2):  # a WebDataset, in which the damaged picture is one, too
        with tarfile.open(shards / f"{number}.tar", "w") as tar:
            for picture in few[number::2]:
                (tmp_path / "class").write_text(truth[picture.name])
                tar.add(picture, picture.name)
                tar.add(tmp_path / "class", f"{picture.stem}.cls")
    command = ["-m", "ResNeSt.evaluate", "--model", demo_onnx, "--images", shards, "--batch=16"]
    here = call(*command, "--predictions", tmp_path / "here.jsonl")
    there = call(*command, "--predictions", tmp_path / "there.jsonl", "--ray", "local", "--chunk=16")
    assert (there.returncode, there.stderr) == (here.returncode, here.stderr) == (1, "")
    assert lines(tmp_path / "there.jsonl") == lines(tmp_path / "here.jsonl")
    assert len(lines(tmp_path / "here.jsonl")) == 90
    assert score_lines(there.stdout) == score_lines(here.stdout)
    folders = [tmp_path / "prep_here", tmp_path / "prep_there"]
    for folder, more in zip(folders, ([], ["--ray", nodes.address, "--chunk=16"])):
        done = call("resnest_preprocess.py", shards / "1.tar", folder, "--arch=resnest_demo", "--pack", *more)
        assert "44 tensors written, 0 kept, 1 images broken" in done.stdout
    first, second = (
        {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "sources.jsonl"}
        for folder in folders
    )
    assert first == second


def test_a_card_of_a_node_runs_a_compiled_model(
    nodes: Nodes, demo_onnx: Path, pictures: Path, standins: dict[str, str], tmp_path: Path
) -> None:
    """By the stand-in for the runtime: what is Ray's and what is ours between a card and its tasks."""
    (pictures / "deadly.JPEG").unlink()
    for picture in sorted(pictures.iterdir())[90:]:
        picture.unlink()
    standins["PYTHONPATH"] = os.pathsep.join([str(PROJECT), standins["PYTHONPATH"]])
    convert = ("-m", "ResNeSt.convert", "4", "310P3", "--onnx", demo_onnx, "--output", tmp_path)
    with begin(*convert, **standins) as process:
        assert process.wait(120) == 0
    ask = ["-m", "ResNeSt.predict", "--model", tmp_path / "resnest_demo_bs4.om", "--format=csv", "--top=1", pictures]
    with begin(*ask, **standins) as process:
        here, told = process.communicate(timeout=120)
    hook = os.pathsep.join([str(nodes.scratch / "hook"), standins["PYTHONPATH"]])
    node = nodes.add(env_vars={**standins, "PYTHONPATH": hook}, resources={"NPU": 1})
    with begin(*ask, "--ray", nodes.address, "--chunk=32", **standins) as process:
        there, err = process.communicate(timeout=120)
    nodes.cluster.remove_node(node)
    answers = [line for line in here.splitlines() if not line.startswith("[")]  # which are the client's own
    assert (there.splitlines(), err) == (answers, told)
    assert len(answers) == 90  # a head, and 89 of them: one is damaged


def test_a_node_with_another_release_is_refused_by_name(
    nodes: Nodes, demo_onnx: Path, pictures: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(PROJECT / "ResNeSt", other / "ResNeSt", ignore=shutil.ignore_patterns("__pycache__"))
    (other / "ResNeSt/__init__.py").write_text((other / "ResNeSt/__init__.py").read_text() + "\n# another\n")
    node = nodes.add(env_vars={"PYTHONPATH": str(other)}, resources={"NPU": 1})
    (tmp_path / "m.om").write_bytes(b"om")  # takes that node, which alone has a card
    command = ["-m", "ResNeSt.predict", "--model", tmp_path / "m.om", pictures, "--ray", nodes.address]
    with begin(*command, cwd=tmp_path, PYTHONPATH=str(PROJECT)) as process:  # Ray's workers look there, too
        out, err = process.communicate(timeout=100)
    nodes.cluster.remove_node(node)
    assert out == ""
    assert err.count("\n") == 1, err
    assert "has another release of this project" in err
    assert err.startswith(f"error: node {socket.gethostname()} (")
    without = call(*command)
    assert_refused(without, "no node of the cluster has 1 core and 1 NPU for a task", "0 NPU")


def test_another_token_ends_in_one_line(nodes: Nodes, demo_onnx: Path, pictures: Path) -> None:
    command = ["-m", "ResNeSt.predict", "--model", demo_onnx, pictures, "--ray", nodes.address]
    with begin(*command, RAY_AUTH_TOKEN=secrets.token_hex(16)) as process:
        _, err = process.communicate(timeout=60)
    assert (err.count("\n"), process.returncode) == (1, 1)
    assert "docs/cluster.md" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_an_ended_local_run_leaves_nothing_running(
    number: signal.Signals, code: int, demo_onnx: Path, pictures: Path
) -> None:
    before = running()
    command = [*evaluation(demo_onnx, pictures, "ray.jsonl"), "--ray", "local"]
    hook = pictures.parent / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join([str(hook), str(PROJECT)])
    with begin(*command, PYTHONPATH=path, ONLY_NODES="1", SLOW="0.2") as process:
        assert process.stdout is not None
        assert "396 images" in process.stdout.readline()
        time.sleep(1)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.count("\n") <= 1
    deadline = time.monotonic() + 60  # of a driver that was killed, Ray finds out by asking
    while running() - before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert running() - before == set()
