"""The service's page: what a person sees of an answer, of an error and of a token, in a real browser."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ResNeSt.serve.page import headers, page
from tests.chromium import Browser, browser
from tests.conftest import picture

LINES = ["0.912345:3:golden retriever", "0.0412:8:a: b, c", "0.0077:5", "0.0021:1:" + "long " * 30, "0.0004:2:last"]
TOKEN = "0123456789abcdef"  # noqa: S105
ANSWERED = "document.querySelectorAll('li').length === 5 && !document.querySelector('.waiting')"
PROBLEM = "!document.querySelector('#problem').hidden && document.querySelector('#problem').innerText"


class Service(ThreadingHTTPServer):
    """Answers as the protocol has it: `answer` to an inference, and 401 to all but the page where `token` is set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.token = ""
        self.answer = (200, json.dumps({"outputs": [{"name": "probabilities", "data": LINES}]}))
        self.asked: list[tuple[str, Any, bytes]] = []  # path, JSON and binary data of inferences
        self.connections: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def go(self) -> None:
        """Answers nothing more, on connections that the browser has opened ahead either; the port stays this one's."""
        self.shutdown()
        self.socket.shutdown(socket.SHUT_RDWR)
        for connection in self.connections:
            with contextlib.suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    server: Service

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, code: int, body: str, more: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body.encode())), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def _answer(self, code: int, body: str) -> None:
        refused = self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}"
        code, body = (401, json.dumps({"error": "no"})) if refused else (code, body)
        self._send(code, body, {"Content-Type": "application/json"})

    def do_GET(self) -> None:
        if self.path == "/":
            self._send(200, page("Dogs", "dogs"), {"Content-Type": "text/html; charset=utf-8", **headers()})
        else:
            self._answer(200, json.dumps({"inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 8, 8]}]}))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        split = int(self.headers["Inference-Header-Content-Length"])
        self.server.asked.append((self.path, json.loads(body[:split]), body[split:]))
        self._answer(*self.server.answer)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def tab(chromium: Browser, service: Service) -> Browser:
    chromium.events.clear()
    chromium.look(1280, "light")
    chromium.open(service.url)
    return chromium


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "dog.jpg"
    picture(300, 200).save(path, quality=90)
    return path


def test_a_dropped_photograph_is_sent_as_it_is_and_five_classes_come_back(
    tab: Browser, service: Service, photograph: Path
) -> None:
    tab.drop("#drop", photograph)
    tab.until(ANSWERED)
    ((path, head, data),) = service.asked
    assert path == "/v2/models/dogs/infer"
    content = photograph.read_bytes()
    assert data == len(content).to_bytes(4, "little") + content
    size = {"binary_data_size": len(data)}
    assert head["inputs"] == [{"name": "images", "datatype": "BYTES", "shape": [1], "parameters": size}]
    assert head["outputs"] == [{"name": "probabilities", "parameters": {"classification": 5}}]
    lines = tab.evaluate("[...document.querySelectorAll('.line')].map((line) => line.innerText.split('\\n'))")
    names = ["golden retriever", "a: b, c", "class 5", ("long " * 30).strip(), "last"]
    assert lines == [list(pair) for pair in zip(names, ["91.2 %", "4.1 %", "0.8 %", "0.2 %", "under 0.1 %"])]
    widths = tab.evaluate(
        "[...document.querySelectorAll('.bar')].map((bar) => bar.offsetWidth / bar.parentElement.offsetWidth)"
    )
    assert widths[0] == pytest.approx(0.912, abs=0.01)
    assert widths == sorted(widths, reverse=True)
    assert re.search(r"Answered in [\d.]+ ms", tab.evaluate("document.querySelector('#told').innerText"))
    assert all(url.startswith((service.url, f"blob:{service.url}", "data:")) for url in tab.requests())
    assert tab.complaints() == []


def test_the_page_lets_no_request_go_to_another_host(tab: Browser, service: Service) -> None:
    elsewhere = service.url.replace("127.0.0.1", "localhost")
    outcome = f"fetch('{elsewhere}', {{mode: 'no-cors'}}).then(() => 'sent', () => 'refused')"
    assert tab.evaluate(outcome) == "refused"
    assert "Content Security Policy" in " ".join(tab.complaints())


def test_a_chosen_and_a_pasted_photograph_go_the_same_way(tab: Browser, service: Service, photograph: Path) -> None:
    (node,) = [tab("DOM.querySelector", nodeId=tab("DOM.getDocument")["root"]["nodeId"], selector="#choose")["nodeId"]]
    tab("DOM.setFileInputFiles", nodeId=node, files=[str(photograph)])
    tab.until(ANSWERED)
    tab.evaluate(
        "(() => { const clipboardData = new DataTransfer(); clipboardData.items.add(new File(['pasted'], 'p.png'));"
        " document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData, bubbles: true, cancelable: true}));"
        "})()"
    )
    tab.until("document.querySelector('#file').innerText.startsWith('p.png')")
    tab.until(ANSWERED)
    assert [data[4:] for _, _, data in service.asked] == [photograph.read_bytes(), b"pasted"]


def test_the_token_is_asked_for_and_taken_by_keyboard_alone(tab: Browser, service: Service, photograph: Path) -> None:
    service.token = TOKEN
    tab.drop("#drop", photograph)
    tab.until("document.activeElement.id === 'token'")
    assert tab.evaluate("document.querySelector('#problem').hidden")
    for wrong in ("wrong", "fälsch €"):
        tab("Input.insertText", text=wrong)
        tab.press("Enter", 13)
        tab.until(PROBLEM)
        assert tab.evaluate("document.querySelector('#problem').innerText") == "This is not the token of the service."
    tab("Input.insertText", text=TOKEN)
    tab.press("Enter", 13)
    tab.until(ANSWERED)
    assert tab.evaluate("document.querySelector('#access').hidden")
    assert TOKEN not in " ".join(tab.requests())


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((400, json.dumps({"error": "picture 1 of 1: <b>broken</b>"})), "picture 1 of 1: <b>broken</b>"),
        ((503, "no JSON"), "The server answers 503 Service Unavailable."),
    ],
)
def test_what_the_service_refuses_is_told_in_words(
    answer: tuple[int, str], told: str, tab: Browser, service: Service, photograph: Path
) -> None:
    tab.drop("#drop", photograph)
    tab.until(ANSWERED)
    usual, service.answer = service.answer, answer
    tab.drop("#drop", photograph)
    tab.until(PROBLEM)
    assert tab.evaluate("document.querySelector('#problem').innerText") == told
    assert tab.evaluate("document.querySelectorAll('li').length") == 0  # nothing of the last photograph is left
    service.answer = usual
    tab.drop("#drop", photograph)
    tab.until(ANSWERED)


def test_a_service_that_has_gone_and_a_folder_are_told_in_words(
    tab: Browser, service: Service, photograph: Path
) -> None:
    tab.drop("#drop", photograph.parent)
    tab.until(PROBLEM + ".includes('cannot be read')")
    service.go()
    tab.drop("#drop", photograph)
    tab.until(PROBLEM + ".includes('does not answer')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_can_be_read_on_a_phone_and_a_desk_in_light_and_dark(
    width: int, scheme: str, tab: Browser, photograph: Path, tmp_path: Path
) -> None:
    tab.look(width, scheme)
    tab.drop("#drop", photograph)
    tab.until(ANSWERED)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    page_colour, card = (tab.evaluate(f"getComputedStyle({of}).backgroundColor") for of in ("document.body", "answer"))
    assert (luminance(page_colour) > 0.5) == (scheme == "light")
    for selector, behind in (("h1", page_colour), ("header p", page_colour), (".line", card), ("#told", card)):
        ink = tab.evaluate(f"getComputedStyle(document.querySelector('{selector}')).color")
        bright, dim = sorted((luminance(ink), luminance(behind)), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, selector  # WCAG 2.2, 1.4.3
    assert tab.screenshot(tmp_path / "page.png").stat().st_size > 5000


def luminance(colour: str) -> float:
    """WCAG's relative luminance of `rgb(…)`."""
    shares = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear))


def test_a_screen_reader_hears_every_part_by_name(tab: Browser, photograph: Path) -> None:
    tab.press("Tab", 9)
    assert tab.evaluate("document.activeElement.id") == "choose"
    tab.drop("#drop", photograph)
    tab.until(ANSWERED)
    heard = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree(tab)}
    assert {
        ("heading", "Dogs"),
        ("region", "Classes"),
        ("list", "Classes"),
        ("image", "The photograph: dog.jpg"),
    } <= heard
    assert ("button", "Choose a photograph; it can be dropped or pasted, too") in heard
    live = {node["role"]["value"] for node in tree(tab) if any(one["name"] == "live" for one in node["properties"])}
    assert "status" in live


def tree(tab: Browser) -> list[dict[str, Any]]:
    return [node for node in tab("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]


def test_names_stand_in_the_page_as_text() -> None:
    found: dict[str, str] = {}

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found[tag] = dict(attrs).get("data-model") or ""

    text = page("<script>alert(1)</script>{{model}}", 'a"><b>')
    Reader().feed(text)
    assert found["body"] == 'a"><b>'
    assert "<script>alert" not in text
    assert "<h1>&lt;script&gt;alert(1)&lt;/script&gt;{{model}}</h1>" in text
