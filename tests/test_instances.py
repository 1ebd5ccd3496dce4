"""Several instances of a model side by side: the same answers, in order, each on its share of the cores."""

from __future__ import annotations

import argparse
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ResNeSt.common import arguments
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.engines import image_batches
from ResNeSt.engines.engine import Engine, TensorSpec
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.engines.instances import Instances
from ResNeSt.engines.opening import open_engine
from ResNeSt.evaluate import evaluate
from ResNeSt.infer import inference
from ResNeSt.predict import predict
from tests.conftest import PROJECT


class Noting:
    """An engine that notes which thread opened and ran which instance; odd batches take longer than even ones."""

    title, info, probabilities, sizes = "noting", dict[str, str](), False, (1,)
    input = TensorSpec("x", (1, 2), "float32")

    def __init__(self, instances: int, fails: bool = False) -> None:
        self.instances = instances
        self.fails = fails
        self.opened_in: list[int] = []
        self.ran: list[tuple[int, int]] = []
        self.mine = threading.get_ident()

    def another(self) -> Noting:
        self.opened_in.append(threading.get_ident())
        if self.fails and len(self.opened_in) > 1:
            raise PipelineError("no memory for another")
        instance = Noting(self.instances)
        instance.ran = self.ran
        return instance

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.ran.append((self.mine, threading.get_ident()))
        number = int(batch[0, 0])
        time.sleep(0.002 * (number % 2))
        if number == 7:
            raise PipelineError("seven")
        return batch


def tensors(count: int) -> Iterator[np.ndarray]:
    return (np.full((1, 2), number, np.float32) for number in range(count) if number != 7)


def numbers(engine: Engine, items: Iterator[np.ndarray]) -> list[int]:
    with Instances(engine) as side_by_side:
        return [int(logits[0, 0]) for _, logits in side_by_side.each(lambda one, batch: one.run(batch), items)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_the_order_of_what_was_asked(count: int) -> None:
    assert numbers(Noting(count), tensors(40)) == [number for number in range(40) if number != 7]


def test_each_instance_is_opened_and_run_in_a_thread_of_its_own() -> None:
    engine = Noting(3)
    numbers(engine, tensors(30))
    assert len(set(engine.opened_in)) == len(engine.opened_in) == 3
    assert threading.get_ident() not in engine.opened_in
    assert {own for own, _ in engine.ran} == set(engine.opened_in)
    assert all(own == running for own, running in engine.ran)


def test_one_alone_is_the_engine_itself_in_the_thread_of_the_caller() -> None:
    engine = Noting(1)
    numbers(engine, tensors(3))
    assert engine.opened_in == []
    assert set(engine.ran) == {(threading.get_ident(), threading.get_ident())}


def test_each_is_warm_before_anything_is_asked() -> None:
    engine = Noting(3)
    with Instances(engine, warmup=2):
        assert sorted(own for own, _ in engine.ran) == sorted(2 * engine.opened_in)


def test_what_opening_one_raises_is_raised_and_nothing_waits_for_it() -> None:
    with pytest.raises(PipelineError, match="no memory for another"):
        Instances(Noting(3, fails=True))


@pytest.mark.parametrize("count", [1, 3])
def test_what_a_run_raises_is_raised_at_its_turn(count: int) -> None:
    items = (np.full((1, 2), number, np.float32) for number in range(20))
    with Instances(Noting(count)) as side_by_side:
        results = side_by_side.each(lambda one, batch: one.run(batch), items)
        assert [int(next(results)[1][0, 0]) for _ in range(7)] == list(range(7))
        with pytest.raises(PipelineError, match="seven"):
            next(results)


def test_only_a_few_are_begun_before_they_are_asked_for() -> None:
    taken: list[int] = []

    def watched() -> Iterator[np.ndarray]:
        for number in range(100):
            taken.append(number)
            yield np.zeros((1, 2), np.float32)

    with Instances(Noting(2)) as side_by_side:
        results = side_by_side.each(lambda one, batch: one.run(batch), watched())
        next(results)
        assert len(taken) <= 6
        results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_two_instances_give_the_logits_of_one_alone(runtime: str, demo_onnx: Path) -> None:
    pytest.importorskip(runtime)
    alone = open_engine(demo_onnx, runtime, batch=2)
    images = np.random.default_rng(0).normal(size=(6, *alone.input.shape)).astype(np.float32)
    expected = [alone.run(batch) for batch in images]
    engine = open_engine(demo_onnx, runtime, batch=2, instances=2)
    assert engine.instances == 2
    with Instances(engine) as side_by_side:
        actual = [logits for _, logits in side_by_side.each(lambda one, batch: one.run(batch), images)]
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def test_where_it_is_left_open_the_runtime_says_how_many(demo_onnx: Path) -> None:
    engine = open_engine(demo_onnx, "openvino", instances=None)
    assert engine.instances >= 1
    assert open_engine(demo_onnx, "openvino").instances == 1


@pytest.mark.parametrize(("images", "expected"), [(1, 1), (8, 1), (9, 2), (24, 3), (1000, 4), (None, 4)])
def test_where_it_is_left_open_none_is_without_a_batch_and_keeps_its_cores_from_the_others(
    images: int | None, expected: int, demo_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    from ResNeSt.engines import onnxruntime as runtime

    monkeypatch.setattr(runtime, "cores", lambda: 16)
    engine = open_engine(demo_onnx, "onnxruntime", batch=8, instances=None, images=images)
    assert engine.instances == expected


@pytest.mark.parametrize(("images", "batches"), [(1, 1), (8, 1), (9, 2), (17, 3)])
def test_openvino_gets_no_more_streams_than_there_are_batches(images: int, batches: int, demo_onnx: Path) -> None:
    pytest.importorskip("openvino")
    best = open_engine(demo_onnx, "openvino", batch=8, instances=None).instances
    engine = open_engine(demo_onnx, "openvino", batch=8, instances=None, images=images)
    compiled = engine._request.get_compiled_model()  # type: ignore[attr-defined]
    assert engine.instances == compiled.get_property("NUM_STREAMS") == min(batches, best)


def test_commands_that_know_their_images_tell_how_many(demo_onnx: Path, tmp_path: Path) -> None:
    """One batch each, on a machine of 16 cores."""
    pytest.importorskip("onnxruntime")
    picture = next(iter(sorted((PROJECT / "demo/val").iterdir())))
    (tmp_path / "pictures").mkdir()
    shutil.copy(picture, tmp_path / "pictures")
    (tmp_path / "labels.txt").write_text(f"{picture.stem} 0\n")
    (tmp_path / "tensors").mkdir()
    np.zeros((3, 96, 96), np.float32).tofile(tmp_path / "tensors/one.bin")
    asked: list[int | None] = []

    def noting(*given: object, images: int | None = None, **named: object) -> None:
        asked.append(images if images is not None else given[7])  # type: ignore[arg-type]
        raise PipelineError("no more")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_batches, "open_engine", noting)
        patch.setattr(inference, "open_engine", noting)
        for run in (
            lambda: evaluate(ModelChoice(demo_onnx), tmp_path / "pictures", tmp_path / "labels.txt"),
            lambda: list(predict(ModelChoice(demo_onnx), [picture])),
            lambda: inference.infer(inference.Inference(demo_onnx, tmp_path / "tensors", instances=None)),
        ):
            with pytest.raises(PipelineError, match="no more"):
                run()
    assert asked == [1, 1, 1]


def test_a_word_that_is_no_count_is_refused_with_the_one_that_is() -> None:
    assert arguments.instances("auto") is None
    with pytest.raises(argparse.ArgumentTypeError, match="automatic is not a whole number from 1 to 256, or auto"):
        arguments.instances("automatic")


@pytest.mark.parametrize("count", [0, -1, 257])
def test_a_count_that_is_none_is_refused(count: int, demo_onnx: Path) -> None:
    with pytest.raises(ArgumentError, match=f"instances {count}, expected a whole number from 1 to 256"):
        open_engine(demo_onnx, "openvino", instances=count)


def test_pytorch_runs_one_and_says_so(demo_checkpoint: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(ArgumentError, match="PyTorch runs one instance"):
        open_engine(demo_checkpoint, instances=2)
    assert open_engine(demo_checkpoint, instances=None).instances == 1
