"""The benchmark's own yardsticks."""

from __future__ import annotations

import asyncio
import csv
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import end_to_end, inference, instances, sample, scoring, serving
from benchmarks.__main__ import main
from benchmarks.decoders import switched
from benchmarks.processes import spend
from benchmarks.rounds import interleave
from ResNeSt.common.errors import PipelineError
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.images.listing import find_images
from ResNeSt.images.native import SWITCH
from ResNeSt.models.cards import names
from ResNeSt.score.score import score_summary
from tests.conftest import PROJECT


def published(name: str) -> Iterator[list[str]]:
    """Rows of the CSV files of that name in benchmarks/results."""
    for path in (PROJECT / "benchmarks/results").glob(f"{name}-AMD*.csv"):
        with open(path, newline="") as file:
            yield from list(csv.reader(file))[1:]


def test_every_stage_of_all_eleven_models_was_measured_to_stay_below_8_gb() -> None:
    peaks = {row[0]: [int(megabytes) for megabytes in row[2:]] for row in published("models-memory")}
    assert set(peaks) == set(names()) - {"resnest_demo"}
    assert max(map(max, peaks.values())) < 8000


@pytest.mark.parametrize("page", ["docs/models.md", "docs/zh-CN/models.md"])
def test_the_page_of_models_has_the_speeds_of_all_eleven_models_as_they_were_measured(page: str) -> None:
    lines = (PROJECT / page).read_text().splitlines()
    rows = list(published("models"))
    assert len(rows) == 11
    for name, _, *speeds in rows:
        (line,) = (line for line in lines if line.startswith(f"| `{name}` |"))
        assert line.endswith(f"| {' | '.join(speeds)} |")


@pytest.mark.parametrize("network", ["resnest50", "resnest50_fast_1s1x64d"])
def test_the_speeds_told_of_a_gpu_are_those_measured(network: str) -> None:
    (path,) = (PROJECT / "benchmarks/results").glob(f"gpu-{network}-NVIDIA*.csv")
    page = (PROJECT / "docs/cuda.md").read_text()
    (table,) = (part for part in page.split("\n\n") if f"images/s, {network} " in part)
    told = [line.split()[-4:] for line in table.splitlines()[2:]]
    with open(path, newline="") as file:
        _, *rows = list(csv.reader(file))
    assert sorted(row[1:] for row in rows) == sorted(
        figures if figures[0].isdigit() else [*figures[1:], ""] for figures in told
    )


def test_multiply_adds_of_resnest50_are_those_published() -> None:
    assert inference.multiply_adds() / 1e9 == pytest.approx(5.37, abs=0.005)


def test_clients_count_every_answer_and_every_error() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in itertools.count():
            try:
                await reader.readexactly(4)
            except asyncio.IncompleteReadError:
                break
            await asyncio.sleep(0.05)
            status = "503 Full" if number % 2 else "200 OK"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        writer.close()

    async def load() -> serving.Load:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            return await serving.clients_ask(server.sockets[0].getsockname()[1], b"ask\n", clients=3, seconds=1)

    found = asyncio.run(load())
    assert 1 <= len(found.latencies) <= 30  # a second of three clients that wait 50 ms each, half of them in vain
    assert abs(found.errors - len(found.latencies)) <= 3
    assert min(found.latencies) >= 0.05


def test_contenders_take_turns_and_the_first_round_is_not_counted() -> None:
    figures = {"a": iter([100, 1, 2, 9]), "b": iter([200, 5, 6, 7])}
    order: list[str] = []

    def contender(name: str) -> Callable[[], float]:
        def measure() -> float:
            order.append(name)
            return next(figures[name])

        return measure

    assert interleave({name: contender(name) for name in figures}, 3) == {"a": 2, "b": 6}
    assert order == ["a", "b"] * 4


def test_memory_of_a_process_is_its_own_and_not_that_of_the_one_that_measures_it() -> None:
    ballast = np.ones(400_000_000, np.uint8)
    small, large = (spend("-c", f"b = b'1' * {size}").megabytes for size in (1, 300_000_000))
    assert small < 50
    assert 300 < large < 350
    assert ballast.all()


def test_a_process_that_fails_has_no_figure() -> None:
    with pytest.raises(PipelineError, match="ended with 7"):
        spend("-c", "raise SystemExit(7)")


def test_the_samples_scripts_as_timed_give_the_same_score_on_complete_results(
    images: Path, tmp_path: Path, demo_onnx: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = sorted(path.stem for path in images.iterdir())
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{name}.JPEG {number % 10}\n" for number, name in enumerate(names)))
    monkeypatch.setattr(sample, "SIZE", 96)
    monkeypatch.setattr(sample, "RESIZED", 110)
    sample.preprocess(str(images), str(tmp_path / "tensors"))
    sample.infer(str(demo_onnx), str(tmp_path / "tensors"), str(tmp_path / "results"))
    summary = tmp_path / "results" / "summary.json"
    sample.score(str(summary), str(labels))
    ours = score_summary(summary, labels).score
    assert f"top1_acc\t{ours.top1_acc:.4f}\ntop5_acc\t{ours.top5_acc:.4f}\n" in capsys.readouterr().out


def test_results_go_where_output_says_and_scoring_takes_no_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = PROJECT / "benchmarks/results"
    before = {path: path.stat().st_mtime_ns for path in published.iterdir()}
    monkeypatch.setattr(scoring, "RESULTS", 1)
    monkeypatch.setattr(scoring, "interleave", lambda contenders, rounds: dict.fromkeys(contenders, 2.0))
    monkeypatch.chdir(tmp_path)
    for flags, folder in (([], "work/benchmarks"), (["--output=mine"], "mine")):
        monkeypatch.setattr(sys, "argv", ["benchmarks", "scoring", "--rounds=1", *flags])
        main()
        (table,) = (tmp_path / folder).iterdir()
        assert table.name.startswith("scoring-50000-")
        assert table.read_text().splitlines()[1] == "the sample's script,2.0,1.00"
    assert {path: path.stat().st_mtime_ns for path in published.iterdir()} == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["speed"], "'speed' is not a part; they are preprocessing"),
        (["scoring", "resources"], "resources takes --images DIR"),
        ([], "preprocessing takes --images DIR"),
        (["resources", "--images=nowhere"], "nowhere: no such folder"),
    ],
)
def test_parts_and_images_are_looked_at_before_anything_is_measured(
    flags: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *flags])
    with pytest.raises(PipelineError, match=words):
        main()
    assert not (tmp_path / "work").exists()


def test_what_the_cores_allow_is_decoding_and_inference_after_one_another() -> None:
    assert end_to_end._bound("Pillow", 100.0, 25.0, 18.0) == ["Pillow", "100.0", "25.0", "20.0", "18.0", "0.90"]


def test_native_is_on_or_off_for_a_contender_and_what_it_starts_and_as_before_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    started = [sys.executable, "-c", f"import os; print(os.environ['{SWITCH}'])"]
    for switch in "01":
        work = switched(switch, lambda: subprocess.run(started, capture_output=True, text=True).stdout.strip())
        assert work() == switch
    assert SWITCH not in os.environ


def test_the_instances_part_has_a_row_for_each_number_beside_benchmark_app_with_as_many_streams(
    demo_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"BATCHES": (8,), "INSTANCES": (2,), "SECONDS": 1}.items():
        monkeypatch.setattr(instances, name, value)
    monkeypatch.setattr(instances, "interleave", lambda contenders, _: {name: w() for name, w in contenders.items()})
    (compiled,) = convert(Conversion(demo_onnx, [8], "cpu", tmp_path))
    few = find_images(PROJECT / "demo/val")[:8]
    ((row, *figures),) = instances.compare({"fp32": {8: compiled.path}}, few, tmp_path, 1)
    assert row == "fp32, batch 8, instances 2"
    ours, peer, ratio, evaluate = map(float, figures)
    assert ratio == pytest.approx(ours / peer, abs=0.01)
    assert 0.1 < ratio < 10
    assert evaluate > 0
    with pytest.raises(PipelineError, match="benchmark_app ended with"):
        instances._benchmark_app(tmp_path / "none.xml", "fp32", None)()
