"""Work in chunks for other processes: in order, bounded, the same answers; and nobody but the culprit is blamed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ResNeSt.answers.jobs import Describe, described, setting_of
from ResNeSt.cluster import address, flag, worker
from ResNeSt.cluster.chunks import CrashError, in_order
from ResNeSt.common.cores import cores, keep_to
from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.common.machines import Job
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.evaluate import evaluate
from ResNeSt.images.preprocess import preprocess
from ResNeSt.models.cards import card
from ResNeSt.models.model_info import format_of
from ResNeSt.predict import predict
from tests.conftest import PROJECT


class Tickets:
    """Chunks that are worked on when they are taken; a number in `deadly` ends its process."""

    def __init__(self, window: int, deadly: Sequence[int] = ()) -> None:
        self.size, self.deadly = window, deadly
        self.begun: list[tuple[list[int], bool]] = []
        self.pending = self.most = 0

    def window(self) -> int:
        return self.size

    def submit(self, chunk: Sequence[int], retry: bool) -> list[int]:
        self.begun.append((list(chunk), retry))
        self.pending += 1
        self.most = max(self.most, self.pending)
        return list(chunk)

    def take(self, ticket: list[int]) -> list[str]:
        self.pending -= 1
        if set(ticket) & set(self.deadly):
            raise CrashError("ended")
        return [str(number) for number in ticket]


def blame(number: int, why: str) -> str:
    return f"{number} {why}"


def test_results_come_in_order_and_no_more_are_begun_than_the_window_holds() -> None:
    pool = Tickets(window=3)
    results = in_order(pool, range(10), 2, blame)
    assert next(results) == ["0", "1"]
    assert [chunk for chunk, _ in pool.begun] == [[0, 1], [2, 3], [4, 5]]
    assert [*results] == [["2", "3"], ["4", "5"], ["6", "7"], ["8", "9"]]
    assert pool.most == 3


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 100])
@pytest.mark.parametrize("deadly", [[], [0], [15], [5, 6], [0, 1, 2, 15], list(range(16))])
def test_only_the_items_that_end_their_process_are_blamed(size: int, deadly: list[int]) -> None:
    pool = Tickets(3, deadly)
    made = [one for some in in_order(pool, range(16), size, blame) for one in some]
    assert made == [f"{number} ended" if number in deadly else str(number) for number in range(16)]
    assert all(retry for chunk, retry in pool.begun if len(chunk) == 1)  # nobody is blamed for one end alone
    assert pool.most <= 3 + 2 * 7


class Here:
    """Machines of which there is one, this process: work travels pickled, as it does to others."""

    used = "by this process"
    chunk = 5

    def __init__(self, deadly: str = "no such name") -> None:
        self.deadly = deadly

    def each(self, job: Job[Any, Any], items: Sequence[Any], size: int) -> Iterator[list[Any]]:
        self.job = job
        yield from in_order(self, items, size, job.crashed)

    def window(self) -> int:
        return 2

    def submit(self, chunk: Sequence[Any], retry: bool) -> bytes:
        return pickle.dumps(worker.Order(self.job, chunk, 2))

    def take(self, ticket: bytes) -> list[Any]:
        order = pickle.loads(ticket)
        if not isinstance(self.job, Describe) and self.deadly in str(order.chunk) and not self._is_told(order):
            raise CrashError("ended without a word")
        how, _, what = worker.run("here", ticket)
        assert how == "done", what
        made: list[Any] = pickle.loads(what).made
        return made

    def _is_told(self, order: worker.Order) -> bool:
        """Whether the culprits are known, so that nobody reads them."""
        return any(self.deadly in str(getattr(item, "known", "")) for item in order.chunk)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve of the demo's, one of them damaged, with labels."""
    (tmp_path / "pictures").mkdir()
    chosen = sorted((PROJECT / "demo/val").iterdir())[:12]
    for picture in chosen:
        shutil.copy(picture, tmp_path / "pictures")
    broken = tmp_path / "pictures" / chosen[3].name
    broken.write_bytes(broken.read_bytes()[:200])
    lines = (PROJECT / "demo/val_label.txt").read_text().splitlines()
    names = {picture.name for picture in chosen}
    (tmp_path / "labels.txt").write_text("".join(f"{line}\n" for line in lines if line.split()[0] in names))
    return tmp_path / "pictures"


@pytest.fixture(autouse=True)
def every_core() -> Iterator[None]:
    yield
    keep_to(os.cpu_count() or 1)


def test_evaluate_and_predict_give_the_answers_of_this_process_image_by_image(demo_onnx: Path, pictures: Path) -> None:
    def told(machines: Any, name: str) -> tuple[Any, ...]:
        model, labels = ModelChoice(demo_onnx, batch=4), pictures.parent / "labels.txt"
        found = evaluate(model, pictures, labels, pictures.parent / name, machines=machines)
        answers = [
            (answer.image, answer.reason, [guess.label for guess in answer.guesses])
            for answer in predict(model, sorted(pictures.iterdir()), machines=machines)
        ]
        return (pictures.parent / name).read_text(), found.score, found.problems, found.sha256, answers

    assert told(Here(), "there.jsonl") == (plain := told(None, "here.jsonl"))
    assert len(plain[2]["broken"]) == 1


def test_a_picture_that_ends_its_process_is_broken_and_all_others_have_their_answers(
    demo_onnx: Path, pictures: Path
) -> None:
    deadly = sorted(pictures.iterdir())[7].name
    found = evaluate(ModelChoice(demo_onnx), pictures, pictures.parent / "labels.txt", machines=Here(deadly))
    assert found.score.total == 10
    assert [deadly in line for line in found.problems["broken"]] == [False, True]
    assert "the process that worked on it ended without a word" in found.problems["broken"][1]


@pytest.mark.parametrize("packed", [False, True])
def test_tensors_written_by_other_processes_are_the_same_files_and_are_kept_by_a_later_run(
    packed: bool, pictures: Path, tmp_path: Path
) -> None:
    made = format_of(card("resnest_demo"), "uint8")
    preprocess(pictures, tmp_path / "here", made, packed=packed)
    done = preprocess(pictures, tmp_path / "there", made, packed=packed, machines=Here())
    names = sorted(file.name for file in (tmp_path / "here").iterdir())
    assert sorted(file.name for file in (tmp_path / "there").iterdir()) == names
    for name in set(names) - {"sources.jsonl"}:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    assert (done.written, len(done.broken)) == (11, 1)
    if not packed:  # of a shard with broken images all are made again
        assert preprocess(pictures, tmp_path / "there", made).kept == 11


@pytest.mark.parametrize("packed", [False, True])
def test_tensors_of_all_but_the_picture_that_ends_its_process_are_written(
    packed: bool, pictures: Path, tmp_path: Path
) -> None:
    deadly = sorted(pictures.iterdir())[7].name
    made = format_of(card("resnest_demo"), "uint8")
    done = preprocess(pictures, tmp_path / "out", made, packed=packed, machines=Here(deadly))
    assert done.written == 10
    assert deadly in done.broken
    index = json.loads((tmp_path / "out/tensors.json").read_text())
    assert (index["count"], index["complete"], deadly in index["broken"]) == (10, True, True)
    if packed:
        assert np.load(tmp_path / "out/shard_00000.npy").shape[0] == 10


def test_a_machine_with_another_model_or_other_labels_is_refused(demo_onnx: Path, tmp_path: Path) -> None:
    model, labels = tmp_path / "m.onnx", tmp_path / "labels.txt"
    shutil.copy(demo_onnx, model)
    labels.write_text("a.png 0\n")
    job = Describe(setting_of(ModelChoice(model), 4, labels))
    order = pickle.dumps(worker.Order(job, [""], 1))
    assert worker.run("n1", order)[0] == "done"
    for file in (model, labels):
        before = file.read_bytes()
        file.write_bytes(before + b"\n")
        worker.check_same.cache_clear()
        how, where, what = worker.run("n1", order)
        assert (how, where) == ("refused", "n1")
        assert f"has another {file} (SHA-256 " in what.decode()
        file.write_bytes(before)


def test_a_task_counts_the_cores_that_it_was_given(demo_onnx: Path) -> None:
    job = Describe(setting_of(ModelChoice(demo_onnx), 4))
    worker.run("n1", pickle.dumps(worker.Order(job, [""], 1)))
    assert cores() == 1


def test_engines_of_a_gpu_take_one(demo_onnx: Path) -> None:
    asked = {None: "", "null": "", "cuda": "GPU", "tensorrt": "GPU", "torch-cuda": "GPU", "onnxruntime": ""}
    for engine, card_of_it in asked.items():
        assert setting_of(ModelChoice(demo_onnx, engine=engine), 4).accelerator == card_of_it


def test_a_compiled_model_for_ascend_takes_one_card_of_a_node_and_device_0_there(tmp_path: Path) -> None:
    (tmp_path / "m.om").write_bytes(b"om")
    setting = setting_of(ModelChoice(tmp_path / "m.om"), 8)
    assert setting.accelerator == "NPU"
    assert setting.model.device == 0
    for asked in (ModelChoice(tmp_path / "m.om", device=1), ModelChoice(tmp_path / "m.om", instances=2)):
        with pytest.raises(ArgumentError, match="with --ray a task runs one instance on the card that Ray gives it"):
            described(Here(), setting_of(asked, 8))


@pytest.mark.parametrize(
    "text", ["", "head", "head:", ":6379", "ray://head:10001", "head:0", "head:65536", "auto", "::1:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"expected HOST:PORT of a cluster's head, such as .*, or local"):
        address.parse(text)


def test_an_address_is_told_apart_from_its_port() -> None:
    assert address.parse("head-1.lan:6379") == ("head-1.lan", 6379)
    assert str(address.parse("[::1]:6379")) == "[::1]:6379"


def test_where_nothing_answers_one_line_says_so_within_seconds() -> None:
    started = time.monotonic()
    with pytest.raises(PipelineError, match=r"--ray 127\.0\.0\.1:1: no cluster answers there"):
        address.check("127.0.0.1:1")
    assert time.monotonic() - started < address.CONNECT_S + 1


def test_why_a_cluster_refuses_is_told_with_all_lines_of_its_last_error() -> None:
    printed = "Traceback:\nValueError: first\n\nRuntimeError: Version mismatch:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    assert address._why(printed).endswith("(Version mismatch: Ray: 2.60.0 Python: 3.11.7)")
    assert "another token" in address._why("ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken")


def test_a_chunk_without_machines_is_refused() -> None:
    options: Any = type("Options", (), {"ray": None, "workers": None, "chunk": 64})
    with pytest.raises(ArgumentError, match="--chunk 64: is for --ray"):
        flag.machines_of(options)


def test_without_ray_the_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    options: Any = type("Options", (), {"ray": "local", "workers": None, "chunk": None})
    with pytest.raises(MissingRuntimeError, match=r"pip install -r requirements/ray\.txt"):
        flag.machines_of(options)
