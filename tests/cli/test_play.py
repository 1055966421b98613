"""The page on which models are asked side by side: over a real socket, and in a real browser."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from domainfusion.cli.ask import Panel
from domainfusion.cli.play import MOST_BYTES, Playroom, PlayServer, serve
from domainfusion.distillation import ResponseIntegrator
from domainfusion.distillation.data_generation.curated import read_review
from domainfusion.models import ScriptedModel
from domainfusion.types import Sampling

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = '<img src="http://e.org/x.png" onerror="document.title=\'owned\'"></script>'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PlayServer]:
    """Experts that contradict each other, and a student that answers in markup."""
    panel = Panel(
        models={
            "student": ScriptedModel(HOSTILE, name="student"),
            "base": ScriptedModel("I do not know.", name="base"),
            "sleep": ScriptedModel("Adults sleep 8 hours.", name="sleep"),
            "food": ScriptedModel("Adults sleep 5 hours. They eat 80 g of protein.", name="food"),
        },
        experts=("sleep", "food"),
        integrator=ResponseIntegrator(),
    )
    room = Playroom(panel=panel, sampling=Sampling(), review=tmp_path / "review.csv")
    with serve(room) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def request(
    server: PlayServer, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, Any]:
    """Returns the status and what was answered."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, None if body is None else text, sent)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    is_json = reply.headers["Content-Type"].startswith("application/json")
    return reply.status, json.loads(content) if is_json else content.decode()


def post(server: PlayServer, path: str, body: object) -> tuple[int, Any]:
    return request(server, "POST", path, body, X_Token=server.token)


def test_everybody_answers_and_the_ledger_says_how_the_experts_were_integrated(
    server: PlayServer,
) -> None:
    status, found = post(server, "/ask", {"question": "How long do adults sleep?"})
    assert status == 200
    texts = {answer["name"]: answer["text"] for answer in found["answers"]}
    assert list(texts) == ["student", "base", "sleep", "food", "ensemble"]
    assert texts["student"] == HOSTILE
    conflicts = [line for line in found["ledger"] if line.startswith("conflict, not settled ")]
    assert len(conflicts) == 1
    assert "8 hours" in conflicts[0] and "5 hours" in conflicts[0]


def test_a_question_is_added_to_the_review_file_which_keeps_what_was_decided(
    server: PlayServer,
) -> None:
    status, found = post(server, "/review", {"question": "=1+1?", "domains": ["sleep"]})
    assert status == 200 and str(server.room.review) in found["done"]
    file = server.room.review
    file.write_text(file.read_text("utf-8").replace('\n"",', '\n"accept",'), "utf-8")
    assert post(server, "/review", {"question": "Two?"})[0] == 200
    status, found = post(server, "/review", {"question": "Two?"})
    assert status == 200 and found["done"] == f"It is in {file} already"
    reviewed = read_review(file)
    assert [(example.query, example.domains) for example in reviewed.examples] == [
        ("=1+1?", ("sleep",))
    ]
    assert reviewed.left_out == {"not reviewed": 1}


def test_who_does_not_come_from_the_page_is_turned_away(server: PlayServer) -> None:
    question = {"question": "One?"}
    assert request(server, "POST", "/ask", question)[0] == 403
    assert request(server, "POST", "/ask", question, X_Token="guess")[0] == 403
    assert request(server, "POST", "/ask", question, X_Token=server.token, Host="e.org")[0] == 403
    status, page = request(server, "GET", "/", Host=f"e.org:{server.server_port}")
    assert status == 403 and server.token not in str(page)
    assert not server.room.review.exists()


def test_a_page_that_is_closed_before_its_answer_is_passed_over(
    server: PlayServer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, gone = threading.Event(), threading.Event()

    def wait(question: str) -> str:
        asked.set()
        gone.wait(20)
        return "x" * 1_000_000

    server.room.panel.models["base"] = ScriptedModel(wait, name="base")  # type: ignore[index]
    body = json.dumps({"question": "Why?"})
    head = (
        f"POST /ask HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\nX-Token: {server.token}\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.server_port)) as page:
        page.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        assert asked.wait(20)
        # Closed at once, without waiting for what was sent.
        page.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.set()
    status, answered = post(server, "/ask", {"question": "And now?"})
    assert status == 200 and answered["answers"]
    assert capsys.readouterr().err == ""


def test_the_server_listens_on_this_machine_alone(server: PlayServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/ask", {}, 400),
        ("/ask", {"question": "  "}, 400),
        ("/ask", {"question": 7}, 400),
        ("/ask", ["One?"], 400),
        ("/ask", b"{", 400),
        ("/ask", b"[" * 50_000, 400),
        ("/ask", {"question": "x" * MOST_BYTES}, 400),
        ("/review", {"question": "One?", "domains": ["law"]}, 400),
        ("/elsewhere", {"question": "One?"}, 404),
    ],
)
def test_a_request_that_makes_no_sense_is_answered_with_why(
    server: PlayServer, path: str, body: object, status: int
) -> None:
    found, answer = post(server, path, body)
    assert found == status and answer["error"]
    assert request(server, "GET", "/")[0] == 200


def watch(page: Page, requests: list[str], complaints: list[str]) -> None:
    """Notes what a page asks for, and what goes wrong in it."""
    page.on("request", lambda sent: requests.append(sent.url))
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda said: complaints.append(str(said)))


@pytest.mark.browser
def test_the_page_asks_shows_and_keeps_and_takes_no_text_for_markup(server: PlayServer) -> None:
    path = next(
        (found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), ""
    )
    if not path:
        missing = "Chromium is not installed: apt-get install chromium"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        for width, kept in ((390, "Kept in"), (1400, "already")):  # a question is kept once
            page = browser.new_page(viewport={"width": width, "height": 800})
            requests: list[str] = []
            complaints: list[str] = []
            watch(page, requests, complaints)
            page.goto(server.url)
            page.fill("#question", f"How long do adults sleep? {HOSTILE}")
            page.click("#send")
            page.wait_for_selector("#review:not([hidden])")
            assert HOSTILE in page.locator("#answers").inner_text()
            assert page.locator("#answers img").count() == 0
            assert "conflict" in page.locator("#ledger").inner_text()
            page.check("#domains input >> nth=0")
            page.click("#review button")
            page.get_by_text(kept).wait_for()
            assert page.title() == "Ask them side by side"
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert all(url.startswith((server.url, "data:")) for url in requests)
            assert [said for said in complaints if "favicon" not in said] == []
            if shots := os.environ.get("PLAY_SHOTS"):
                page.screenshot(path=f"{shots}/play-{width}.png", full_page=True)
            page.close()
        browser.close()
