"""A chat server on loopback that fails on command: what each question meets is scripted, and
everything that happens is written down.

Run as a program it serves slow, right answers and prints its address: `python faulty_server.py
--seconds 0.2 --slots 64`.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behavior = Callable[["Exchange"], None]


def answer_to(question: str) -> str:
    """The right answer, which differs from question to question."""
    return f"The answer to {question} is {sum(map(ord, question))}."


@dataclass
class Exchange:
    """One request, and the connection on which it is answered."""

    handler: BaseHTTPRequestHandler
    server: FaultyServer
    body: dict[str, Any]
    started: float
    answered: bool = False

    @property
    def question(self) -> str:
        return str(self.body["messages"][-1]["content"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.handler.headers.items()}

    def send(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        promised: int | None = None,
    ) -> None:
        self.handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.handler.send_header(name, value)
        self.handler.send_header("Content-Length", str(promised or len(body)))
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def send_json(
        self, payload: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send(status, json.dumps(payload).encode(), headers)


# What a question may meet


def completion(
    message: Mapping[str, Any], finish_reason: str | None = "stop", usage: object = None
) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {
        "object": "chat.completion",
        "choices": [choice],
        "usage": usage or {"prompt_tokens": 10, "completion_tokens": 5},
    }


def right(exchange: Exchange) -> None:
    exchange.send_json(completion({"role": "assistant", "content": answer_to(exchange.question)}))
    exchange.answered = True


def says(payload: object) -> Behavior:
    """Answers with a payload of its own."""
    return lambda exchange: exchange.send_json(payload)


def message(finish_reason: str | None = "stop", **fields: Any) -> Behavior:
    return says(completion({"role": "assistant", **fields}, finish_reason))


def status(code: int, *, text: str = "no", error_code: str = "", **headers: str) -> Behavior:
    payload = {"error": {"message": text, "type": "some_error", "code": error_code or None}}
    return lambda exchange: exchange.send_json(
        payload, code, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def hang(exchange: Exchange) -> None:
    exchange.server.closing.wait(30)


def hang_up(exchange: Exchange) -> None:
    exchange.handler.close_connection = True


def cut_off(exchange: Exchange) -> None:
    exchange.send(200, b'{"choices": [{"message"', promised=4000)
    exchange.handler.close_connection = True


def drip(exchange: Exchange) -> None:
    """Sends a byte now and then, so that no single read takes long."""
    exchange.send(200, b" ", promised=10_000)
    with suppress(OSError):
        while not exchange.server.closing.wait(0.05):
            exchange.handler.wfile.write(b" ")


def raw(body: bytes, **headers: str) -> Behavior:
    return lambda exchange: exchange.send(
        200, body, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def huge(exchange: Exchange) -> None:
    with suppress(OSError):
        exchange.send_json(completion({"role": "assistant", "content": "x" * 11_000_000}))


def echo_headers(code: int) -> Behavior:
    return lambda exchange: exchange.send_json(
        {"error": {"message": f"wrong key in {exchange.headers}"}}, code
    )


@dataclass
class FaultyServer:
    """Serves until the end of its `with` block.

    Args:
        script: What each attempt at a question meets, in order; after that, `default`.
        default: What all else meets.
        seconds: How long an answer takes.
        slots: How many are answered at a time.
    """

    script: Mapping[str, Sequence[Behavior]] = field(default_factory=dict)
    default: Behavior = right
    seconds: float = 0.0
    slots: int = 1_000

    def __post_init__(self) -> None:
        self.closing = threading.Event()
        self.exchanges: list[Exchange] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._attempts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._free = threading.Semaphore(self.slots)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def asked(self) -> Counter[str]:
        """How often each question arrived."""
        return Counter(exchange.question for exchange in list(self.exchanges))

    @property
    def answered(self) -> Counter[str]:
        """How often each question was answered to the last byte."""
        return Counter(exchange.question for exchange in list(self.exchanges) if exchange.answered)

    @property
    def times(self) -> dict[str, list[float]]:
        """When each question arrived."""
        found = defaultdict(list)
        for exchange in list(self.exchanges):
            found[exchange.question].append(exchange.started)
        return found

    def __enter__(self) -> FaultyServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                outer._serve(self)

            def do_GET(self) -> None:
                self.send_error(405)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that hangs up is no error of the server

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        exchange = Exchange(handler, self, body, time.monotonic())
        with self._lock:
            self.exchanges.append(exchange)
            attempt = self._attempts[exchange.question]
            self._attempts[exchange.question] += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            planned = self.script.get(exchange.question, ())
            behavior = planned[attempt] if attempt < len(planned) else self.default
            with self._free:
                if self.seconds and behavior is right:
                    self.closing.wait(self.seconds)
                behavior(exchange)
        finally:
            with self._lock:
                self.in_flight -= 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Serves slow, right answers on loopback.")
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--slots", type=int, default=64)
    options = parser.parse_args()
    with FaultyServer(seconds=options.seconds, slots=options.slots) as server:
        print(server.url, flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
