"""Checkpoints: fetched whole, read without running anything, loaded completely or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ResNeSt.common.errors import PipelineError
from ResNeSt.models.cards import Card, card
from ResNeSt.models.checkpoint import load, read_state
from ResNeSt.models.download import fetch
from ResNeSt.models.resnest import create_model

CONTENT = bytes(range(256)) * 8192


class Server(http.server.BaseHTTPRequestHandler):
    """Sends CONTENT, from where the client asks; breaks off after `breaks_after` bytes while that is set."""

    breaks_after: int | None = None
    ranges: list[str | None] = []  # noqa: RUF012 (shared on purpose)
    status = 200

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.ranges.append(asked)
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
    Server.breaks_after, Server.ranges, Server.status = None, [], 200
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
    Server.status = 404
    with pytest.raises(PipelineError, match="answers 404"):
        fetch(published, tmp_path)


def test_an_unreachable_server_is_one_error_with_the_address(published: Card, tmp_path: Path) -> None:
    unreachable = dataclasses.replace(published, url="http://127.0.0.1:9/resnest50-x.pth")
    with pytest.raises(PipelineError, match=r"127\.0\.0\.1:9/resnest50-x\.pth: download stopped"):
        fetch(unreachable, tmp_path)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return create_model("resnest_demo").state_dict()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    ],
    ids=["plain", "state_dict", "model", "module."],
)
def test_every_usual_wrapping_of_a_checkpoint_is_read(
    wrap: Callable[[dict[str, torch.Tensor]], dict[str, Any]], state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(wrap(state), tmp_path / "c.pth")
    found = read_state(tmp_path / "c.pth")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


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


class Hostile:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        import os

        return os.system, ("touch hacked",)


def test_a_checkpoint_that_carries_code_is_refused_and_does_not_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Hostile()}, "c.pth")
    with pytest.raises(PipelineError, match="not a readable checkpoint of weights alone"):
        read_state("c.pth")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(PipelineError, match=r"c\.pth"):
        read_state(tmp_path / "c.pth")


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2, 3], tmp_path / "c.pth")
    with pytest.raises(PipelineError, match="holds no state dict"):
        read_state(tmp_path / "c.pth")
