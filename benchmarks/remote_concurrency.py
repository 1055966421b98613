"""How close asking a slow server comes to the server's own limit, with up to 64 requests in flight,
every answer stored.

The server runs in a process of its own, takes `--seconds` for an answer and writes up to `--slots`
at a time. Its own limit for n questions, c of them in flight, is ceil(n / min(c, slots)) rounds of
that long.

    python benchmarks/remote_concurrency.py --write

writes `remote_concurrency.json` and `remote_concurrency.md` beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from domainfusion.models import APIModel, Limits, ResponseStore
from domainfusion.types import user

HERE = Path(__file__).parent
SERVER = HERE.parent / "tests" / "models" / "faulty_server.py"
IN_FLIGHT = (1, 4, 16, 64)
ROUNDS = 4


@dataclass(frozen=True)
class Row:
    """What was measured with one number of requests in flight.

    Attributes:
        in_flight: Requests in flight.
        questions: Questions asked.
        limit_seconds: What the server alone takes for them.
        seconds: What asking and storing took, the median of all repeats.
        slowest_seconds: The slowest repeat.
    """

    in_flight: int
    questions: int
    limit_seconds: float
    seconds: float
    slowest_seconds: float

    @property
    def ratio(self) -> float:
        """How many times the server's own limit it took."""
        return self.seconds / self.limit_seconds


@contextmanager
def slow_server(seconds: float, slots: int) -> Iterator[str]:
    """Serves in a process of its own, and gives the address."""
    command = [sys.executable, str(SERVER), "--seconds", str(seconds), "--slots", str(slots)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def measure(url: str, in_flight: int, seconds: float, slots: int, repeats: int) -> Row:
    questions = [user(f"question {number}") for number in range(ROUNDS * in_flight)]
    took = []
    for _ in range(repeats):
        with (
            tempfile.TemporaryDirectory() as folder,
            ResponseStore(Path(folder) / "responses.sqlite") as store,
        ):
            model = APIModel("slow", base_url=url, limits=Limits(max_concurrency=in_flight))
            started = time.perf_counter()
            answers = store.ask(model, questions)
            took.append(time.perf_counter() - started)
            assert len({answer.text for answer in answers}) == len(store) == len(questions)
    limit = math.ceil(len(questions) / min(in_flight, slots)) * seconds
    return Row(in_flight, len(questions), limit, round(median(took), 3), round(max(took), 3))


def as_markdown(rows: list[Row], seconds: float, slots: int, repeats: int) -> str:
    machine = f"{os.cpu_count()} cores ({platform.system()} {platform.machine()})"
    lines = [
        "# Asking a slow server",
        "",
        (
            f"Every answer takes the server {seconds:g} s; it writes {slots} at a time. The store"
            " of answers asks, and keeps each answer as it"
        ),
        f"arrives. Medians of {repeats} repeats; server and client share {machine}.",
        (
            f"Python {platform.python_version()}, openai {version('openai')}; made by `python"
            " benchmarks/remote_concurrency.py --write`."
        ),
        "",
        (
            "| in flight | questions | the server's own limit | took | slowest repeat | times the"
            " limit |"
        ),
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        times = f"{row.limit_seconds:.2f} s | {row.seconds:.2f} s | {row.slowest_seconds:.2f} s"
        lines.append(f"| {row.in_flight} | {row.questions} | {times} | {row.ratio:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="How close asking a slow server comes to the server's own limit."
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="how long the server takes for an answer"
    )
    parser.add_argument(
        "--slots", type=int, default=64, help="how many answers the server writes at a time"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write the results beside this file")
    options = parser.parse_args()
    with slow_server(options.seconds, options.slots) as url:
        rows = [
            measure(url, in_flight, options.seconds, options.slots, options.repeats)
            for in_flight in IN_FLIGHT
        ]
    text = as_markdown(rows, options.seconds, options.slots, options.repeats)
    print(text)
    if options.write:
        (HERE / "remote_concurrency.md").write_text(text, encoding="utf-8")
        results = {
            "seconds": options.seconds,
            "slots": options.slots,
            "repeats": options.repeats,
            "rows": [asdict(row) for row in rows],
        }
        (HERE / "remote_concurrency.json").write_text(
            json.dumps(results, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
