"""`domainfusion play`: a page on this machine on which a question goes to the student, the base, the
experts and their ensemble side by side.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import secrets
import sys
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainfusion.cli.ask import Panel, add_sampling_options, open_panel, sampling_of
from domainfusion.errors import ConfigurationError, DataError, DomainFusionError, printable

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal
    from domainfusion.types import Sampling

_DESCRIPTION = """Open a page on which a question goes to the student, the base, the experts and their ensemble side by side, with how the
experts' answers were integrated. The page is for this machine alone."""

HIGHEST_PORT = 65_535

MOST_BYTES = 100_000
"""The largest body of a request."""


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "play",
        parents=[shared],
        help="ask student, base and experts side by side, on a local page",
        description=_DESCRIPTION,
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="the directory of a run")
    parser.add_argument(
        "--port", type=_port, default=0, metavar="N", help="the port (default: one that is free)"
    )
    parser.add_argument(
        "--review",
        type=Path,
        metavar="CSV",
        help="where questions are kept for a review (default: review.csv in the run)",
    )
    add_sampling_options(parser)
    parser.set_defaults(run=run)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= HIGHEST_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a number from 0 to 65535")
    return int(text)


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Serves the page until it is stopped."""
    from domainfusion.cli.runs import check_run

    directory = check_run(arguments.directory)
    if arguments.review is not None and arguments.review.is_dir():
        raise ConfigurationError(
            "The review is a CSV file, and this is a folder",
            received=str(arguments.review),
            fix=f"give --review {arguments.review / 'review.csv'}",
        )
    sampling = sampling_of(arguments)
    panel = open_panel(str(directory), system=arguments.system, progress=terminal.progress)
    review = arguments.review or directory / "review.csv"
    room = Playroom(panel=panel, sampling=sampling, review=review)
    with serve(room, port=arguments.port) as server:
        terminal.print(f"Open {server.url} in a browser on this machine. Ctrl-C ends it.")
        server.serve_forever()


@dataclass(kw_only=True)
class Playroom:
    """Who can be asked, how they answer, and where questions are kept.

    Attributes:
        panel: Who can be asked.
        sampling: How answers are written.
        review: The review file.
    """

    panel: Panel
    sampling: Sampling
    review: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, question: str) -> dict[str, Any]:
        """Asks everybody and integrates the experts' answers.

        Args:
            question: The question.

        Returns:
            `answers`, each with `name`, `text` and `note`; and `ledger`, the lines that say how the
            experts' answers were integrated.
        """
        from domainfusion.types import user

        answers: list[dict[str, str]] = []
        said: dict[str, str] = {}
        with self._lock:  # models answer one question at a time
            for name, model in self.panel.models.items():
                try:
                    (found,) = model.generate([user(question)], self.sampling)
                except DomainFusionError as error:
                    answers.append({"name": name, "text": "", "note": printable(str(error))})
                    continue
                cut = "cut at the token limit" if found.finish_reason == "length" else ""
                answers.append({"name": name, "text": printable(found.text), "note": cut})
                if name in self.panel.experts and found.text.strip():
                    said[name] = found.text
            ledger = self._integrate(question, said, answers)
        return {"answers": answers, "ledger": ledger}

    def _integrate(
        self, question: str, said: dict[str, str], answers: list[dict[str, str]]
    ) -> list[str]:
        """Adds the ensemble's answer, and returns the lines of its ledger."""
        if self.panel.integrator is None or not said:
            return []
        try:
            found = self.panel.integrator.integrate(question, said)
        except DomainFusionError as error:
            answers.append({"name": "ensemble", "text": "", "note": printable(str(error))})
            return []
        note = f"integrated by {found.method}"
        answers.append({"name": "ensemble", "text": printable(found.text), "note": note})
        lines = [f"{part.domain} contributes: {part.text}" for part in found.ledger.contributions]
        for conflict in found.ledger.conflicts:
            claims = " ".join(f"{domain}: {claim}" for domain, claim in conflict.claims.items())
            outcome = f"{conflict.kept} is kept" if conflict.kept else "not settled"
            lines.append(f"conflict, {outcome} ({conflict.rule}): {claims}")
        for left in found.ledger.dropped:
            lines.append(f"{left.domain} left out: {left.text} ({left.reason})")
        return [printable(line) for line in lines]

    def keep(self, question: str, domains: list[str]) -> str:
        """Adds a question to the review file.

        Args:
            question: The question.
            domains: Its domains; those of the experts where there are none.

        Returns:
            What was done.

        Raises:
            DataError: The question or its domains are not fit for an example, or the file can't be
                written.
        """
        from domainfusion.distillation.data_generation.curated import add_to_review
        from domainfusion.types import Example

        unknown = [name for name in domains if name not in self.panel.experts]
        if unknown or not (domains or self.panel.experts):
            raise DataError(
                "The question needs domains of this run",
                received=", ".join(unknown),
                allowed=", ".join(self.panel.experts),
                fix="choose its domains",
            )
        example = Example(query=question, domains=tuple(domains or self.panel.experts))
        with self._lock:
            is_new = add_to_review(example, self.review)
        return f"Kept in {self.review}" if is_new else f"It is in {self.review} already"


class PlayServer(ThreadingHTTPServer):
    """Serves the page on the loopback interface.

    Args:
        room: Who answers.
        port: The port; 0 takes one that is free.

    Attributes:
        room: Who answers.
        token: What a post from the page carries; other pages can't know it.
        page: The page.
        policy: Its content security policy.
    """

    daemon_threads = True

    def __init__(self, room: Playroom, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.room = room
        self.token = secrets.token_urlsafe(24)
        self.page, self.policy = _page(room.panel, self.token)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Passes over a page that was closed before its answer came."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/"

    @property
    def hosts(self) -> tuple[str, str]:
        """What a request may name as its host: another name that leads here is not this page's."""
        return (f"127.0.0.1:{self.server_port}", f"localhost:{self.server_port}")


def serve(room: Playroom, *, port: int = 0) -> PlayServer:
    """Returns the server, which listens.

    Raises:
        DataError: The port is taken, or not allowed.
    """
    try:
        return PlayServer(room, port)
    except (OSError, OverflowError) as error:
        raise DataError(
            f"The port can't be used ({error})", received=port, fix="give another --port, or none"
        ) from error


def _page(panel: Panel, token: str) -> tuple[bytes, str]:
    """Returns the page and its policy, which allows its own style and script and no other."""
    files = package_files("domainfusion.cli")
    style = package_files("domainfusion.reports").joinpath("report.css").read_text("utf-8")
    script = files.joinpath("play.js").read_text("utf-8")
    data = json.dumps({"token": token, "experts": panel.experts, "models": list(panel.models)})
    page = files.joinpath("play.html").read_text("utf-8")
    for name, text in (
        ("STYLE", style),
        ("DATA", data.replace("<", "\\u003c")),
        ("SCRIPT", script),
    ):
        page = page.replace(f"@{name}@", text)
    policy = (
        f"default-src 'none'; connect-src 'self'; style-src '{_digest(style)}';"
        f" script-src '{_digest(script)}'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )
    return page.encode("utf-8"), policy


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


class _Handler(BaseHTTPRequestHandler):
    server: PlayServer
    timeout = 60

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.server.hosts:
            self._answer(HTTPStatus.FORBIDDEN, {"error": "The page is for this machine alone."})
        elif self.path != "/":
            self._answer(HTTPStatus.NOT_FOUND, {"error": "There is one page: /"})
        else:
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)

    def do_POST(self) -> None:
        token = self.headers.get("X-Token", "").encode()
        if self.headers.get("Host") not in self.server.hosts or not hmac.compare_digest(
            token, self.server.token.encode()
        ):
            self._answer(HTTPStatus.FORBIDDEN, {"error": "Reload the page."})
            return
        try:
            wanted = self._body()
            if self.path == "/ask":
                self._answer(HTTPStatus.OK, self.server.room.ask(_question(wanted)))
            elif self.path == "/review":
                domains = wanted.get("domains", [])
                names = [str(name) for name in domains] if isinstance(domains, list) else []
                done = self.server.room.keep(_question(wanted), names)
                self._answer(HTTPStatus.OK, {"done": done})
            else:
                self._answer(HTTPStatus.NOT_FOUND, {"error": "Post to /ask or /review."})
        except DomainFusionError as error:
            self._answer(HTTPStatus.BAD_REQUEST, {"error": printable(str(error))})

    def _body(self) -> dict[str, Any]:
        from domainfusion.records import from_json

        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            self.close_connection = True
            raise DataError(
                "The request is too long, or does not say how long it is",
                received=length,
                allowed=f"up to {MOST_BYTES:,} bytes",
            )
        try:
            found = from_json(self.rfile.read(int(length)))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise DataError("The request is not a JSON object", received=type(found).__name__)
        return found

    def _answer(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        text = json.dumps(content, ensure_ascii=False)
        self._send(status, "application/json; charset=utf-8", text.encode("utf-8", "replace"))

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", self.server.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Logs nothing: the page shows the outcome of a request."""


def _question(wanted: dict[str, Any]) -> str:
    question = wanted.get("question")
    if not isinstance(question, str) or not question.strip():
        raise DataError("There is no question", received=question, fix="write one")
    return question.strip()
