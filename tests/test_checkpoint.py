"""Checkpoints: fetched whole, read without running anything, loaded completely or not at all, said which."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import hashlib
import http.server
import importlib
import io
import pickle
import re
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ResNeSt import pipeline
from ResNeSt.commands import train
from ResNeSt.common.errors import ArgumentError, PipelineError, run
from ResNeSt.common.files import temporary_of
from ResNeSt.compare.activations import TorchActivations
from ResNeSt.compare.pairs import compare
from ResNeSt.engines.image_batches import ModelChoice, open_for_images
from ResNeSt.engines.opening import open_engine
from ResNeSt.export.to_onnx import export
from ResNeSt.infer.inference import Inference, infer
from ResNeSt.models import onnx_file
from ResNeSt.models.cards import Card, card, read_card, write_card
from ResNeSt.models.checkpoint import card_for, load, read, read_state
from ResNeSt.models.download import fetch
from ResNeSt.models.resnest import create_model
from ResNeSt.training.build import build

CONTENT = bytes(range(256)) * 8192


class Server(http.server.BaseHTTPRequestHandler):
    """Sends CONTENT, from where the client asks; breaks off after `breaks_after` bytes while that is set."""

    breaks_after: int | None = None
    ranges: list[str | None] = []  # noqa: RUF012 (shared on purpose)
    status = 200
    knows_ranges = True

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.ranges.append(asked)
        asked = asked if self.knows_ranges else None
        if self.status != 200:
            self.send_error(self.status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop = len(CONTENT) if self.breaks_after is None else start + self.breaks_after
        self.wfile.write(CONTENT[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    Server.breaks_after, Server.ranges, Server.status, Server.knows_ranges = None, [], 200, True
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def published(server: http.server.ThreadingHTTPServer) -> Card:
    """A card whose weight file lies on the local server."""
    url = f"http://127.0.0.1:{server.server_port}/resnest50-x.pth"
    digest = hashlib.sha256(CONTENT).hexdigest()[:8]
    return dataclasses.replace(card("resnest50"), url=url, sha256=digest)


def test_the_official_file_is_fetched_whole(published: Card, tmp_path: Path) -> None:
    assert fetch(published, tmp_path).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["resnest50-x.pth"]


def test_a_file_that_is_there_is_not_fetched_again(published: Card, tmp_path: Path) -> None:
    fetch(published, tmp_path)
    fetch(published, tmp_path)
    assert len(Server.ranges) == 1


def test_a_broken_download_says_so_and_goes_on_where_it_stopped(published: Card, tmp_path: Path) -> None:
    Server.breaks_after = 500_000
    with pytest.raises(PipelineError, match=r"download stopped .*run the command again"):
        fetch(published, tmp_path)
    assert not (tmp_path / "resnest50-x.pth").exists()
    Server.breaks_after = None
    assert fetch(published, tmp_path).read_bytes() == CONTENT
    assert Server.ranges == [None, "bytes=500000-"]


def test_a_download_that_is_not_the_published_file_is_refused_and_removed(published: Card, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"SHA-256 starts with [0-9a-f]{8}, the published file's with 00000000"):
        fetch(dataclasses.replace(published, sha256="00000000"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_of_the_official_name_is_refused_and_left_alone(published: Card, tmp_path: Path) -> None:
    (tmp_path / "resnest50-x.pth").write_bytes(b"mine")
    with pytest.raises(PipelineError, match="move it away"):
        fetch(published, tmp_path)
    assert (tmp_path / "resnest50-x.pth").read_bytes() == b"mine"


def test_a_server_s_refusal_is_passed_on(published: Card, tmp_path: Path) -> None:
    for Server.status in (404, 416):
        with pytest.raises(PipelineError, match=f"answers {Server.status}"):
            fetch(published, tmp_path)


def test_a_server_that_ignores_where_to_go_on_gives_the_whole_file_anew(published: Card, tmp_path: Path) -> None:
    Server.knows_ranges = False
    temporary_of(tmp_path / "resnest50-x.pth").write_bytes(b"x" * (len(CONTENT) + 1))
    assert fetch(published, tmp_path).read_bytes() == CONTENT
    assert Server.ranges == [f"bytes={len(CONTENT) + 1}-"]


def test_a_part_that_is_the_whole_file_already_is_taken(published: Card, tmp_path: Path) -> None:
    Server.status = 416
    temporary_of(tmp_path / "resnest50-x.pth").write_bytes(CONTENT)
    assert fetch(published, tmp_path).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_refused_and_does_not_come_back(published: Card, tmp_path: Path) -> None:
    Server.status = 416
    temporary_of(tmp_path / "resnest50-x.pth").write_bytes(CONTENT + b"x")
    with pytest.raises(PipelineError, match=r"SHA-256 starts with .* removed, run the command again"):
        fetch(published, tmp_path)
    Server.status = 200
    assert fetch(published, tmp_path).read_bytes() == CONTENT
    assert Server.ranges[-1] is None


def test_an_unreachable_server_is_one_error_with_the_address(published: Card, tmp_path: Path) -> None:
    unreachable = dataclasses.replace(published, url="http://127.0.0.1:9/resnest50-x.pth")
    with pytest.raises(PipelineError, match=r"127\.0\.0\.1:9/resnest50-x\.pth: download stopped .* with --weights$"):
        fetch(unreachable, tmp_path)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return create_model("resnest_demo").state_dict()


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def as_mappings(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """`fc.weight` -> {"fc": {"weight": ...}}."""
    nested: dict[str, Any] = {}
    for name, value in state.items():
        *path, leaf = name.split(".")
        mapping = nested
        for part in path:
            mapping = mapping.setdefault(part, {})
        mapping[leaf] = value
    return nested


def as_lightning_does(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {
        "epoch": 3,
        "state_dict": {
            **under("model.", state),
            "criterion.weight": torch.ones(10),
            "metric.total": torch.ones(1),
        },
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": []}],
        "hyper_parameters": {"lr": 0.1},
    }


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}}},
        lambda state: {**state, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}}},
        lambda state: {"state_dict": under("module.", state)},
        lambda state: under("module.module.", state),
        lambda state: under("_orig_mod.module.", state),
        lambda state: {"net": under("_orig_mod.", state), "acc": 93.1},
        lambda state: {"model_state_dict": under("backbone.", state)},
        lambda state: {"a": {"b": {"c": under("d.e.", state)}}},
        lambda state: {"n_averaged": torch.tensor(4), **under("module.", state)},
        as_mappings,
        as_lightning_does,
        lambda state: {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")},
        lambda state: {name: torch.nn.Parameter(value, value.is_floating_point()) for name, value in state.items()},
    ],
)
def test_every_usual_wrapping_of_a_checkpoint_is_read(
    wrap: Callable[[dict[str, torch.Tensor]], dict[str, Any]], state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(wrap(state), tmp_path / "c.ckpt")
    found = read_state(tmp_path / "c.ckpt")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (
            lambda state: {**state, "module.fc.weight": state["fc.weight"]},
            r"holds both fc\.weight and module\.fc\.weight",
        ),
        (lambda state: {**under("module.", state), "fc.bias": state["fc.bias"]}, r"both module\.fc\.bias and fc\.bias"),
        (lambda state: {"student": state, "teacher": state}, "holds 2 networks, student and teacher"),
        (lambda state: {**state, "model": state}, "holds 2 networks, those at its top and model"),
        (lambda state: {"a": {"fc.bias": state["fc.bias"]}, "a.fc.bias": state["fc.bias"]}, r"holds a\.fc\.bias twice"),
        (lambda state: {"model_ema": state, "ema": state, "model": state}, "holds 2 networks, model_ema and ema"),
    ],
)
def test_a_file_that_does_not_say_which_weights_are_meant_is_refused(
    wrap: Callable[[dict[str, torch.Tensor]], dict[str, Any]],
    words: str,
    state: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    torch.save(wrap(state), tmp_path / "c.pth")
    with pytest.raises(PipelineError, match=words):
        read_state(tmp_path / "c.pth")


def test_of_a_file_without_a_resnest_a_few_of_the_names_are_told(tmp_path: Path) -> None:
    torch.save({"net": {f"features.{i}.weight": torch.ones(1) for i in range(300)}}, tmp_path / "c.pth")
    with pytest.raises(
        PipelineError, match=r"none of its 300 names .* it has net\.features\.0\.weight, .*, …"
    ) as error:
        read_state(tmp_path / "c.pth")
    assert len(str(error.value)) < 500


# A trainer's weights and their moving average.


@pytest.fixture(scope="module")
def averaged(state: dict[str, torch.Tensor], demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as timm's trainer writes it: fresh weights, and the demo's for their moving average."""
    path = tmp_path_factory.mktemp("averaged") / "resnest_demo-x.pth"
    held = {
        "arch": "resnest_demo",
        "state_dict": state,
        "state_dict_ema": under("module.", read_state(demo_checkpoint)),
    }
    torch.save({**held, "args": argparse.Namespace(lr=0.1)}, path)
    return path


def test_every_function_that_reads_a_checkpoint_takes_the_moving_average_or_the_weights(
    averaged: Path, state: dict[str, torch.Tensor], demo_checkpoint: Path, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).standard_normal((1, 3, 96, 96)).astype(np.float32)
    images.tofile(tmp_path / "a.bin")
    torch.save(state, tmp_path / "resnest_demo-raw.pth")
    for ema, alone in ((None, demo_checkpoint), (True, demo_checkpoint), (False, tmp_path / "resnest_demo-raw.pth")):
        expected = open_for_images(ModelChoice(alone, 1)).run(images)
        engine = open_for_images(ModelChoice(averaged, 1, ema=ema))
        assert np.array_equal(engine.run(images), expected)
        assert engine.title.endswith(", state_dict" if ema is False else ", EMA, state_dict_ema.module")
        inferred = infer(Inference(averaged, tmp_path / "a.bin", tmp_path, str(ema), ema=ema))
        assert inferred.folder is not None
        assert np.array_equal(np.fromfile(inferred.folder / "a_0.bin", np.float32), expected[0])
        (logits,) = TorchActivations(averaged, None, ema).run(["fc"], images)
        assert logits == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert compare(alone, averaged, tmp_path / "a.bin", ema=False if ema is False else None).largest_difference == 0
        network, origin = build(card("resnest_demo"), averaged, 0, ema)
        assert torch.equal(network.fc.weight, read_state(alone)["fc.weight"])
        assert "(state_dict)" in origin if ema is False else "(EMA, state_dict_ema.module)" in origin


def test_the_export_says_which_weights_it_took_and_a_run_with_others_exports_again(
    averaged: Path, tmp_path: Path
) -> None:
    exported = export(card("resnest_demo"), averaged, tmp_path / "resnest_demo.onnx", ema=False)
    assert exported.entries == "state_dict"
    flags = ["--weights", str(averaged), "--output", str(tmp_path)]
    for flag, same in (("--no-ema", True), ("--ema", False), (None, False)):
        given = pipeline.make_parser().parse_args([*flags, *([flag] if flag else [])])
        assert pipeline._is_exported(pipeline._plan(given)) is same
    assert onnx_file.load(tmp_path / "resnest_demo.onnx").graph.node


@pytest.mark.parametrize(
    "name", ["commands.export", "commands.train", "infer", "evaluate", "predict", "compare", "run"]
)
def test_every_command_that_reads_a_checkpoint_has_the_choice(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = {"run": "pipeline", "export": "commands.export", "train": "commands.train"}.get(name, name)
    module += ".__main__" if name in ("infer", "compare") else ""
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(f"ResNeSt.{module}").main()
    assert "--ema, --no-ema" in capsys.readouterr().out


def test_a_moving_average_that_is_not_whole_is_not_passed_over(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": state, "state_dict_ema": {"fc.bias": state["fc.bias"]}}, tmp_path / "c.pth")
    with pytest.raises(PipelineError, match=r"entries missing \(conv1\.0\.weight"):
        load(create_model("resnest_demo"), tmp_path / "c.pth")
    assert load(create_model("resnest_demo"), tmp_path / "c.pth", ema=False).place == "state_dict."


def test_which_weights_were_read_is_said_once_on_stderr(
    averaged: Path, state: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read(averaged)
    read(averaged, ema=False)
    torch.save({"model_ema": state}, tmp_path / "c.pth")
    read(tmp_path / "c.pth")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"note: {averaged}: the EMA weights are read, state_dict_ema.module; --no-ema reads state_dict",
        f"note: {averaged}: not the EMA weights but those are read, state_dict; --ema reads state_dict_ema.module",
        f"note: {tmp_path / 'c.pth'}: the EMA weights are read, model_ema",
    ]


@pytest.mark.parametrize(
    ("key", "ema", "words"),
    [("model", True, "has no EMA weights, model; leave --ema out"), ("ema", False, "has no weights but EMA's, ema")],
)
def test_weights_that_are_not_there_are_refused(
    key: str, ema: bool, words: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save({key: state}, tmp_path / "c.pth")
    with pytest.raises(PipelineError, match=words):
        read(tmp_path / "c.pth", ema)


# Which network it is.


def as_large_as(name: str, folder: Path, classes: int = 1000) -> Path:
    """A small file with the shapes of a published network: each entry is one number, repeated."""
    with torch.device("meta"):
        shapes = {entry: value.shape for entry, value in create_model(name, classes).state_dict().items()}
    torch.save({entry: torch.zeros(()).expand(shape) for entry, shape in shapes.items()}, folder / "model_best.pth.tar")
    return folder / "model_best.pth.tar"


def test_a_name_that_says_nothing_with_the_shapes_of_several_networks_asks_for_the_model(tmp_path: Path) -> None:
    path = as_large_as("resnest50", tmp_path, 7)
    asked = r"shapes are those of resnest50 and resnest50_fast_2s1x64d; name it with --arch, .* \(model_best\.json\)"
    with pytest.raises(PipelineError, match=asked):
        card_for(path, None)
    with pytest.raises(PipelineError, match=asked):
        train._base(str(path), None)
    with pytest.raises(PipelineError, match=asked):
        pipeline._arch(str(path), None, "resnest50")
    assert train._base(str(path), "resnest50_fast_2s1x64d") == card("resnest50_fast_2s1x64d")


def test_a_name_that_says_nothing_with_the_shapes_of_one_network_is_that_one_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert card_for(as_large_as("resnest50_fast_1s4x24d", tmp_path), None).name == "resnest50_fast_1s4x24d"
    assert "by its shapes it is resnest50_fast_1s4x24d; --arch says otherwise" in capsys.readouterr().err


def test_shapes_of_no_published_network_ask_for_a_card(tmp_path: Path) -> None:
    torch.save({"conv1.0.weight": torch.zeros(3)}, tmp_path / "best.pth")
    with pytest.raises(PipelineError, match=r"its shapes of no published network; name it with --arch, or put a card"):
        card_for(tmp_path / "best.pth", None)


@pytest.mark.parametrize("start", [card_for, train._base])
def test_weights_whose_name_speaks_of_another_network_are_refused(
    start: Callable[[str, str], Card], tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match="resnest50_fast_2s1x64d, --arch says resnest50"):
        start(str(tmp_path / "resnest50_fast_2s1x64d-x.pth"), "resnest50")


def test_another_number_of_classes_gives_the_card_to_write(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    own = dataclasses.replace(card("resnest_demo"), name="own", recipe="resize-bilinear", size=64, mean=(0.5, 0.5, 0.5))
    torch.manual_seed(0)
    torch.save(create_model("resnest_demo", 3).state_dict(), tmp_path / "best.pth.tar")
    for made_of in (card("resnest_demo"), own):
        with pytest.raises(
            PipelineError, match=r"is of 3 classes, \w+ of 10; .* in a card beside it, best\.json"
        ) as error:
            load(create_model(made_of), tmp_path / "best.pth.tar", model_card=made_of)
        (tmp_path / "best.json").write_text(str(error.value).partition("differ: ")[2])
        written = read_card(tmp_path / "best.json")
        kept = [(each.architecture, each.recipe, each.size, each.mean, each.std) for each in (written, made_of)]
        assert kept[0] == kept[1]
        assert written.classes == 3
        load(create_model(written), tmp_path / "best.pth.tar", model_card=written)


def test_run_finds_the_card_beside_the_weights_as_the_export_does(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "best.pth")
    write_card(dataclasses.replace(card("resnest_demo"), size=64), tmp_path / "best.json")
    plan = pipeline._plan(pipeline.make_parser().parse_args(["--weights", str(tmp_path / "best.pth")]))
    assert (plan.arch, plan.card) == (str(tmp_path / "best.json"), card_for(tmp_path / "best.pth", None))
    assert plan.card.size == 64


def test_training_starts_from_the_card_beside_the_weights(tmp_path: Path) -> None:
    write_card(dataclasses.replace(card("resnest101"), size=64), tmp_path / "best.json")
    assert train._base(str(tmp_path / "best.pth"), None).size == 64
    assert train._base(None, None) == card("resnest50")
    assert train._base("auto", "resnest101") == card("resnest101")


# What is in it.


def test_missing_extra_and_wrongly_shaped_entries_are_all_named(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    broken = dict(state)
    del broken["fc.bias"]
    broken["extra"] = torch.zeros(1)
    broken["bn1.weight"] = torch.zeros(3)
    torch.save(broken, tmp_path / "c.pth")
    with pytest.raises(PipelineError) as error:
        load(create_model("resnest_demo"), tmp_path / "c.pth")
    message = str(error.value)
    assert "1 entries missing (fc.bias)" in message
    assert "1 entries not of this model (extra)" in message
    assert "1 entries wrongly shaped (bn1.weight [3] instead of [16])" in message


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda value: value.to_sparse(), r"fc\.weight sparse"),
        (lambda value: value.to(torch.complex64), r"fc\.weight of torch\.complex64"),
        (lambda value: torch.empty_like(value, device="meta"), r"fc\.weight without values"),
        (lambda value: value.to(torch.int8), r"fc\.weight of torch\.int8"),
        (lambda value: value.to(torch.float8_e4m3fn), r"fc\.weight of torch\.float8_e4m3fn"),
        (lambda value: value * float("nan"), r"fc\.weight with NaN or infinity"),
        (lambda value: value.double() + 1e300, r"fc\.weight with NaN or infinity"),
        (lambda value: value.tolist(), r"1 entries missing \(fc\.weight\)"),
    ],
)
def test_an_entry_that_is_no_weight_is_named(
    make: Callable[[torch.Tensor], Any], words: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save({**state, "fc.weight": make(state["fc.weight"])}, tmp_path / "c.pth")
    with pytest.raises(PipelineError, match=words):
        load(create_model("resnest_demo"), tmp_path / "c.pth")


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's: it will be without them one day
def test_a_quantized_entry_is_named(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    quantized = torch.quantize_per_tensor(state["fc.weight"], 0.1, 0, torch.qint8)
    torch.save({**state, "fc.weight": quantized}, tmp_path / "c.pth")
    with pytest.raises(PipelineError, match=r"fc\.weight quantized"):
        load(create_model("resnest_demo"), tmp_path / "c.pth")


def test_a_key_that_is_a_number_is_named(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    held: dict[Any, torch.Tensor] = {**state, 7: torch.zeros(1)}
    torch.save(held, tmp_path / "c.pth")
    with pytest.raises(PipelineError, match=r"1 entries not of this model \(7\)"):
        load(create_model("resnest_demo"), tmp_path / "c.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_read_as_their_values(
    dtype: torch.dtype, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save({name: value.to(dtype) for name, value in state.items()}, tmp_path / "c.pth")
    model = create_model("resnest_demo")
    load(model, tmp_path / "c.pth")
    assert torch.equal(model.fc.weight, state["fc.weight"].to(dtype).float())


class Hostile:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        import os

        return os.system, ("touch hacked",)


def test_a_checkpoint_that_carries_code_is_refused_and_does_not_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Hostile()}, "c.pth")
    with pytest.raises(PipelineError, match=r"not a readable checkpoint of weights alone: it holds posix\.system"):
        read_state("c.pth")
    assert not (tmp_path / "hacked").exists()


def encrypted() -> bytes:
    """An archive whose members say that they are encrypted."""
    content = bytearray(zipped(data=b"weights"))
    content[content.index(b"PK\x03\x04") + 6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def zipped(**members: bytes) -> bytes:
    import zipfile

    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}.pkl", content)
    return made.getvalue()


def tar_archive() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return made.getvalue()


def array_file() -> bytes:
    made = io.BytesIO()
    np.save(made, np.zeros(3))
    return made.getvalue()


@pytest.mark.parametrize("name", ["c.pth", "c.safetensors", "c.ckpt", "c.pdparams"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html>\n<html><title>Sign in", "is an HTML page, expected a checkpoint; download it again"),
        ("\n <html>\u767b\u5f55".encode("gbk"), "is an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "is an XML page"),
        (b'{"message": "Not Found"}', "is JSON text that begins with"),
        ("Entr\u00e9e non trouv\u00e9e".encode() * 300, "is text that begins with 'Entr"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 110\n", "Git LFS .* git lfs pull"),
        (b"", "is empty"),
        (b"\x1f\x8b\x08" + bytes(20), "is a gzip archive, .* unpack it"),
        (tar_archive(), "is a tar archive"),
        (array_file(), "is a single NumPy array"),
        (zipped(data=b"", constants=b""), "is a TorchScript archive"),
        (zipped(other=b""), r"is a zip archive that holds 'archive/other\.pkl'"),
        (zipped(data=b"")[:40], "is a zip archive, as PyTorch writes them, cut short or damaged; copy it again"),
        (encrypted(), "is a zip archive, .*cut short or damaged|encrypted"),
        (b"\x08\x06\x12\x07pytorch:\x00", "is an ONNX file"),
        (pickle.dumps(np.float64(3)), r"a pickle that holds numpy\.\S*scalar"),
        (pickle.dumps(torch.nn.Linear(1, 1)), r"a pickle that holds \S+, which no array needs"),
        (pickle.dumps({"conv1.0.weight": np.zeros(3)}), "a pickle that has none of PaddleClas's names"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # contents hold times and weights of their own
)
def test_what_a_file_is_that_is_no_checkpoint_is_said_whatever_its_suffix(
    content: bytes, words: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PipelineError, match=f"{re.escape(name)}: .*{words}") as error:
        read_state(tmp_path / name)
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("checksums", [True, False])
def test_weights_damaged_at_equal_size_are_refused(
    checksums: bool, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.serialization.set_crc32_options(checksums)
    torch.save(state, tmp_path / "c.pth")
    torch.serialization.set_crc32_options(True)
    assert read_state(tmp_path / "c.pth").keys() == state.keys()
    content = (tmp_path / "c.pth").read_bytes()
    middle = content.index(state["layer4.0.conv3.weight"].numpy().tobytes())
    (tmp_path / "c.pth").write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    if checksums:
        with pytest.raises(PipelineError, match="cut short or damaged; copy it again"):
            read_state(tmp_path / "c.pth")


def test_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="is a folder, expected a file"):
        read_state(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("beside", "words"),
    [
        (torch.nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear, an object"),
        (np.float64(3), r"numpy\.\S+\.scalar, a NumPy value"),
        (np.zeros(3), r"numpy\.\S+\._reconstruct, a NumPy value"),
        (Path("runs"), r"pathlib\.\w+, an object"),
        (collections.defaultdict(int), r"collections\.defaultdict, an object"),
    ],
)
def test_what_stands_beside_the_weights_is_said_without_the_advice_to_run_it(
    beside: object, words: str, zipped: bool, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save({"state_dict": state, "x": beside}, tmp_path / "c.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(PipelineError, match=rf"it holds {words}.*torch\.save\(model\.state_dict\(\), ") as error:
        read_state(tmp_path / "c.pth")
    assert not re.search(r"weights_only|trust|\x1b|\n", str(error.value))


def test_an_error_has_no_colours_and_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise PipelineError("c.pth: \x1b[1;31mred\x1b[0m\x07\r and\nso \x1b]0;on\x1b\\")

    with pytest.raises(SystemExit):
        run(fail)
    assert capsys.readouterr().err == "error: c.pth: red and so ]0;on\\\n"


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".pdparams", ".bin"])
def test_a_file_of_safetensors_is_read_whatever_its_suffix(
    suffix: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    save_file(state, tmp_path / f"c{suffix}")
    assert torch.equal(read_state(tmp_path / f"c{suffix}")["fc.weight"], state["fc.weight"])


def test_a_file_of_pytorch_is_read_under_the_suffix_of_safetensors(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "c.safetensors")
    assert torch.equal(read_state(tmp_path / "c.safetensors")["fc.weight"], state["fc.weight"])


def test_ema_is_no_choice_in_what_is_no_checkpoint(demo_onnx: Path) -> None:
    with pytest.raises(ArgumentError, match="--ema and --no-ema choose among a checkpoint's weights"):
        open_engine(demo_onnx, ema=False)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(PipelineError, match=r"c\.pth"):
        read_state(tmp_path / "c.pth")


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2, 3], tmp_path / "c.pth")
    with pytest.raises(PipelineError, match="holds no state dict"):
        read_state(tmp_path / "c.pth")
