"""Requests that wait are joined into batches: in order, at once, in bounds, and none suffers for another."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from ResNeSt.common.errors import PipelineError
from ResNeSt.engines.engine import ANY_SIZE, TensorSpec, fitting
from ResNeSt.serve.batching import Answered, Batcher, Ran, Sizes, first_runs
from ResNeSt.serve.errors import EndingError, OverloadedError


class Echo:
    """An engine of one batch size, or of several, whose logits are its input; it waits at `gate` and notes its runs."""

    title, info, probabilities = "echo", dict[str, str](), False

    def __init__(
        self, size: int, sizes: Sequence[int] = (), instances: int = 1, cost: Mapping[int, float] | None = None
    ) -> None:
        self.input = TensorSpec("x", (size, 2), "float32")
        self.sizes = sizes or (size,)
        self.instances = instances
        self.cost = cost  # seconds that a size takes to warm up
        self.warmed: list[int] = []
        self.runs: list[list[float]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Semaphore(0)
        self.threads: set[int] = set()

    def run(self, batch: np.ndarray) -> np.ndarray:
        assert len(batch) in self.sizes
        if not batch.any():
            self.warmed.append(len(batch))
            time.sleep(self.cost[len(batch)] if self.cost else 0)
        else:
            self.runs.append(batch[:, 0].tolist())
            self.threads.add(threading.get_ident())
            self.running.release()
            assert self.gate.wait(10)
        if (batch == -1).any():
            raise ValueError("negative")
        return batch.copy()

    def another(self) -> Echo:
        return self


class Told(Sizes):
    """Sizes whose seconds are told: those of a card, which hardly waits longer for a batch, unless given."""

    def __init__(self, engines: Sequence[Echo], seconds: Mapping[int, float] | None = None) -> None:
        super().__init__(engines)
        self._first = first_runs(seconds or {size: 1 + size / 10 for size in self.sizes}, 100)


def rows(*values: float) -> np.ndarray:
    return np.repeat(np.array(values, np.float32)[:, None], 2, axis=1)


def first(future: Future[Answered]) -> list[float]:
    values: list[float] = future.result(10).logits[:, 0].tolist()
    return values


@pytest.fixture
def opened() -> Iterator[Any]:
    batchers: list[Batcher] = []

    def make(*engines: Echo, most: int = 100, seconds: Mapping[int, float] | None = None) -> Batcher:
        batchers.append(Batcher(lambda: Told(engines, seconds), most))
        return batchers[-1]

    yield make
    for batcher in batchers:
        batcher.close(5)


def while_busy(engine: Echo, batcher: Batcher, *requests: np.ndarray) -> list[Future[Answered]]:
    """Futures of requests that all wait behind a run of another one, which has ended when this returns."""
    engine.gate.clear()
    busy = batcher.submit(rows(99))
    assert engine.running.acquire(timeout=10)
    futures = [batcher.submit(request) for request in requests]
    engine.gate.set()
    busy.result(10)
    return futures


def test_what_waits_is_joined_in_its_order_and_each_has_its_own_answer(opened: Any) -> None:
    engine = Echo(4)
    batcher = opened(engine)
    futures = while_busy(engine, batcher, rows(1), rows(2, 3), rows(4, 5, 6))
    assert [first(future) for future in futures] == [[1], [2, 3], [4, 5, 6]]
    assert engine.runs == [[99] * 4, [1, 2, 3, 4], [5, 6, 6, 6]]  # the third request is in two runs


def test_a_lone_request_runs_at_once_and_on_a_card_in_the_smallest_size_that_holds_it(opened: Any) -> None:
    one, four, eight = Echo(1), Echo(4), Echo(8)
    batcher = opened(eight, one, four)
    seen: list[Ran] = []
    batcher.ran = seen.append
    assert batcher.sizes == [1, 4, 8]
    for count in (1, 2, 4, 5, 8, 9):
        began = time.perf_counter()
        assert len(first(batcher.submit(rows(*range(1, count + 1))))) == count
        assert time.perf_counter() - began < 1
    assert [(ran.images, ran.batch) for ran in seen] == [(1, 1), (2, 4), (4, 4), (5, 8), (8, 8), (8, 8), (1, 1)]


def test_a_free_batch_axis_runs_just_what_is_there_up_to_the_size_it_was_opened_for(opened: Any) -> None:
    engine = Echo(16, ANY_SIZE)
    batcher = opened(engine)
    assert batcher.sizes == list(range(1, 17))
    assert first(batcher.submit(rows(*range(1, 20)))) == list(range(1, 20))
    assert [len(run) for run in engine.runs] == [16, 3]


# What sizes 1, 4 and 16 of a network take: on a CPU, on a card, and at random, where a larger one may take less.
TIMES = [{1: 0.055, 4: 0.22, 16: 0.9}, {1: 0.055, 4: 0.21, 16: 0.82}, {1: 1.0, 4: 1.3, 16: 2.5}]
TIMES += [
    {size: chance.randint(1, 20) / 4 for size in chance.sample(range(1, 13), 4)}
    for chance in map(random.Random, range(8))
]


def least(seconds: Mapping[int, float], waiting: int) -> float:
    """Of all ways to run so many, by trying each."""
    counts = [range(-(-waiting // size) + 1) for size in seconds]
    return min(
        sum(count * each for count, each in zip(chosen, seconds.values()))
        for chosen in itertools.product(*counts)
        if sum(count * size for count, size in zip(chosen, seconds)) >= waiting
    )


def spent(seconds: Mapping[int, float], waiting: int, first: Sequence[int]) -> float:
    """By what `first` says, run after run."""
    total = 0.0
    while waiting > 0:
        total += seconds[first[waiting]]
        waiting -= first[waiting]
    return total


@pytest.mark.parametrize("seconds", TIMES)
def test_no_way_to_run_what_waits_takes_less_time_and_the_smallest_size_that_fits_none_either(
    seconds: dict[int, float],
) -> None:
    first, sizes = first_runs(seconds, 60), sorted(seconds)
    before = {0: 0.0}
    for waiting in range(1, 61):
        size = fitting(sizes, waiting)
        before[waiting] = seconds[size] + before[max(0, waiting - size)]
        assert spent(seconds, waiting, first) <= before[waiting] + 1e-9
        if waiting <= 12:
            assert spent(seconds, waiting, first) == pytest.approx(least(seconds, waiting))


def test_three_on_a_cpu_run_alone_and_on_a_card_together() -> None:
    cpu, card = first_runs(TIMES[1], 60), first_runs(TIMES[2], 60)
    assert [cpu[waiting] for waiting in (1, 2, 3, 4, 5, 15, 16)] == [1, 1, 1, 4, 4, 4, 16]
    assert [card[waiting] for waiting in (1, 2, 3, 4, 5, 6, 16)] == [1, 4, 4, 4, 4, 16, 16]


def test_of_two_orders_that_take_as_long_the_one_that_answers_more_at_once_is_run() -> None:
    assert first_runs({1: 1, 4: 2}, 5)[5] == 4  # and then 1: the other way round four would wait for one
    assert first_runs({1: 1, 4: 4}, 4)[4] == 4
    assert first_runs({2: 1, 8: 1}, 1)[1] == 2  # nothing is filled up for nothing


@pytest.mark.parametrize("seconds", TIMES[:3])
def test_whatever_is_run_each_request_has_the_answers_to_its_own_images(seconds: dict[int, float], opened: Any) -> None:
    engines = [Echo(size) for size in seconds]
    batcher = opened(*engines, seconds=seconds)
    for count in range(1, 12):
        requests = [rows(*range(100 * place + 1, 100 * place + 2 + (place + count) % 4)) for place in range(count)]
        futures = while_busy(engines[0], batcher, *requests)
        assert [first(future) for future in futures] == [request[:, 0].tolist() for request in requests]


def test_what_each_size_takes_is_measured_before_the_first_request(opened: Any) -> None:
    cpu = [Echo(size, cost={size: size / 100}) for size in (1, 4)]
    card = [Echo(size, cost={size: 0.04}) for size in (1, 4)]
    for engines, expected in ((cpu, [1, 1, 1]), (card, [4])):
        batcher = Batcher(lambda engines=engines: Sizes(engines), 100)  # type: ignore[misc]
        seen: list[Ran] = []
        batcher.ran = seen.append
        assert first(batcher.submit(rows(1, 2, 3))) == [1, 2, 3]
        batcher.close(5)
        assert [ran.batch for ran in seen] == expected


def test_of_a_free_batch_axis_the_ends_are_measured_and_another_instance_measures_nothing() -> None:
    engine = Echo(16, ANY_SIZE, instances=2)
    batcher = Batcher(lambda: Sizes([engine]), 100)
    batcher.close(5)
    assert sorted(engine.warmed) == [1] * 22 + [16] * 22  # each instance one to warm up, the first twenty to measure


def test_a_request_that_makes_the_model_fail_fails_alone(opened: Any) -> None:
    engine = Echo(4)
    batcher = opened(engine)
    good, bad, also_good = while_busy(engine, batcher, rows(1), rows(-1), rows(2))
    assert (first(good), first(also_good)) == ([1], [2])
    with pytest.raises(PipelineError, match="ValueError: negative"):
        bad.result(10)
    assert first(batcher.submit(rows(7))) == [7]


def test_requests_that_failed_together_run_again_each_at_the_size_that_fits_it(opened: Any) -> None:
    one, four = Echo(1), Echo(4)
    futures = while_busy(one, opened(one, four), rows(1), rows(-1), rows(2))
    assert (first(futures[0]), first(futures[2])) == ([1], [2])
    assert four.runs == [[1, -1, 2, 2]]
    assert one.runs == [[99], [1], [-1], [2]]


def test_all_images_of_what_waits_count_when_a_size_is_chosen(opened: Any) -> None:
    one, four = Echo(1), Echo(4)
    futures = while_busy(one, opened(one, four), rows(1, 2), rows(3, 4))
    assert [first(future) for future in futures] == [[1, 2], [3, 4]]
    assert (one.runs, four.runs) == ([[99]], [[1, 2, 3, 4]])


def test_a_long_request_that_fails_in_one_part_does_not_run_the_others(opened: Any) -> None:
    engine = Echo(2)
    batcher = opened(engine)
    with pytest.raises(PipelineError, match="negative"):
        batcher.submit(rows(-1, *range(20, 40))).result(10)
    assert first(batcher.submit(rows(1))) == [1]
    assert len(engine.runs) == 2


def test_a_request_that_nobody_waits_for_any_more_is_left_out(opened: Any) -> None:
    engine = Echo(4)
    batcher = opened(engine)
    engine.gate.clear()
    busy = batcher.submit(rows(99))
    assert engine.running.acquire(timeout=10)
    gone, stays = batcher.submit(rows(1)), batcher.submit(rows(2))
    assert gone.cancel()
    engine.gate.set()
    busy.result(10)
    assert first(stays) == [2]
    assert engine.runs[1:] == [[2] * 4]


def test_beyond_its_bound_a_request_is_refused_at_once_and_there_is_room_again_after_an_answer(opened: Any) -> None:
    batcher = opened(Echo(4), most=5)
    with batcher.room(3), batcher.room(2):
        began = time.perf_counter()
        with pytest.raises(OverloadedError, match=r"5 images wait.*1 more are over the limit of 5"), batcher.room(1):
            pass
        assert time.perf_counter() - began < 1
    with batcher.room(5):
        assert first(batcher.submit(rows(1))) == [1]


def test_at_the_end_what_is_inside_is_answered_and_nothing_is_left_running(opened: Any) -> None:
    engine = Echo(2)
    batcher = opened(engine)
    engine.gate.clear()
    with batcher.room(4):
        futures = [batcher.submit(rows(1)), batcher.submit(rows(2, 3))]
        assert engine.running.acquire(timeout=10)
        batcher.end()
        with pytest.raises(EndingError, match="is ending"), batcher.room(1):
            pass
        futures.append(batcher.submit(rows(4)))  # it was let in before the end
        engine.gate.set()
        assert [first(future) for future in futures] == [[1], [2, 3], [4]]
    batcher.close(5)
    assert not [thread for thread in threading.enumerate() if thread.name == "model"]
    with pytest.raises(EndingError):
        batcher.submit(rows(1))


def test_what_cannot_be_answered_before_the_end_hears_so(opened: Any) -> None:
    engine = Echo(1)
    batcher = opened(engine)
    engine.gate.clear()
    with batcher.room(2):
        running, waiting = batcher.submit(rows(1)), batcher.submit(rows(2))
        assert engine.running.acquire(timeout=10)
        batcher.close(0.1)
        with pytest.raises(EndingError, match="before this was answered"):
            waiting.result(10)
    engine.gate.set()
    assert first(running) == [1]


def test_several_instances_work_at_the_same_time_on_parts_of_one_request_too(opened: Any) -> None:
    engine = Echo(1, instances=2)
    batcher = opened(engine)
    engine.gate.clear()
    future = batcher.submit(rows(1, 2))
    assert engine.running.acquire(timeout=10)
    assert engine.running.acquire(timeout=10)
    engine.gate.set()
    assert first(future) == [1, 2]
    assert len(engine.threads) == 2


def test_the_times_of_an_answer_are_of_waiting_and_of_running(opened: Any) -> None:
    engine = Echo(1)
    batcher = opened(engine)
    engine.gate.clear()
    running, waiting = batcher.submit(rows(1)), batcher.submit(rows(2))
    assert engine.running.acquire(timeout=10)
    time.sleep(0.2)
    engine.gate.set()
    ran, waited = running.result(10), waiting.result(10)
    assert ran.compute > 0.19 > ran.queue
    assert waited.queue > 0.19 > waited.compute


def test_a_model_that_cannot_be_opened_says_so_to_who_starts_it_and_leaves_no_thread() -> None:
    def fails() -> Sizes:
        raise PipelineError("m.xml: damaged")

    with pytest.raises(PipelineError, match=r"m\.xml: damaged"):
        Batcher(fails, 8)
    assert not [thread for thread in threading.enumerate() if thread.name == "model"]
