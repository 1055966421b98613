"""What a pool of Ray actors costs an answer, and what further actors gain.

    python benchmarks/ray_pool.py

A scripted model that answers at once shows the overhead of the pool: the time of a question from
the process of the run to an actor and back. One that takes a fixed time an answer, as a model on a
GPU of its own would, shows how one, two and four actors share the questions. It sleeps, so that
four of them are not held up by the cores of one machine. Writes `ray_pool.json` and `ray_pool.md`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domainfusion.models import RayPool
from domainfusion.models.base import AnswersForModels, OnResult
from domainfusion.types import Conversation, Generation, Sampling, user

HERE = Path(__file__).parent
REPLICAS = (1, 2, 4)


class Sleeper:
    """Answers every question after a time.

    Args:
        seconds: The time.
    """

    def __init__(self, seconds: float) -> None:
        self.name = self.fingerprint = f"sleeper {seconds}"
        self.seconds = seconds
        self.pool: AnswersForModels | None = None

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling = Sampling(),
        on_result: OnResult | None = None,
    ) -> list[Generation]:
        """Answers each conversation, or has the pool do it."""
        if self.pool is not None:
            return self.pool.answer(self, conversations, sampling, on_result)
        found = []
        for conversation in conversations:
            time.sleep(self.seconds)
            found.append(Generation(text=conversation[-1].content))
        return found

    def answered_by(self, pool: AnswersForModels) -> Sleeper:
        """Returns this model as one for which a pool answers."""
        spread = copy(self)
        spread.pool = pool
        pool.add(spread)
        return spread

    def unloaded(self) -> Sleeper:
        """Returns what an actor gets."""
        sent = copy(self)
        sent.pool = None
        return sent

    def on_this_machine(self) -> Sleeper:
        """Returns itself: it needs no GPU."""
        return self


def timed(model: Sleeper, count: int) -> float:
    """Returns the seconds of so many questions, and checks the answers."""
    asked = [user(f"question {number}") for number in range(count)]
    began = time.perf_counter()
    found = model.generate(asked)
    seconds = time.perf_counter() - began
    assert [one.text for one in found] == [one[-1].content for one in asked]
    return seconds


def measure(count: int, slow: int, seconds: float) -> dict[str, Any]:
    """Returns all figures."""
    ray: Any = importlib.import_module("ray")

    # An actor knows the class of this script from what it is sent.
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])
    busy = os.getloadavg()[0]
    pool = RayPool(replicas=(1, 1), cpus=1)
    quick = pool.spread(Sleeper(0.0))
    began = time.perf_counter()
    timed(quick, 1)
    start = time.perf_counter() - began
    overhead = min(timed(quick, count) for _ in range(3)) / count
    pool.stop()
    spread = []
    for replicas in REPLICAS:
        pool = RayPool(replicas=(replicas, replicas), cpus=1, batch_size=4)
        model = pool.spread(Sleeper(seconds))
        timed(model, 4 * replicas)  # until every actor is there
        spread.append({"replicas": replicas, "seconds": round(timed(model, slow), 2)})
        pool.stop()
    ray.shutdown()
    return {
        "ray": ray.__version__,
        "first_answer_seconds": round(start, 2),
        "questions": count,
        "milliseconds_an_answer": round(1000 * overhead, 2),
        "slow_questions": slow,
        "slow_seconds_an_answer": seconds,
        "spread": spread,
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "cores": os.cpu_count(),
        "load": [round(busy, 1), round(os.getloadavg()[0], 1)],
        "date": datetime.now(UTC).date().isoformat(),
    }


def page(found: dict[str, Any]) -> str:
    """Returns the figures as a page."""
    alone = found["slow_questions"] * found["slow_seconds_an_answer"]
    lines = [
        "# Answers from Ray actors",
        "",
        f"Written by `python benchmarks/ray_pool.py` on {found['date']}, Ray {found['ray']},"
        f" {found['machine']}, {found['cores']} cores, with a load of {found['load'][0]:g} before and"
        f" {found['load'][1]:g} after.",
        "",
        f"- The first answer, Ray's start and that of an actor included, took"
        f" {found['first_answer_seconds']:g} s.",
        f"- From then on, a question to a scripted model that answers at once took"
        f" {found['milliseconds_an_answer']:g} ms on its way through the pool (the best of three"
        f" times {found['questions']:,} questions, 16 in a batch).",
        "",
        f"{found['slow_questions']} questions to a scripted model that sleeps"
        f" {found['slow_seconds_an_answer']:g} s an answer, one after the other, 4 in a batch, which"
        f" take {alone:g} s without a pool:",
        "",
        "| actors | seconds | times as fast |",
        "|---:|---:|---:|",
    ]
    for one in found["spread"]:
        lines.append(f"| {one['replicas']} | {one['seconds']:g} | {alone / one['seconds']:.2f} |")
    lines += [
        "",
        "They sleep, so the table shows what sharing costs, not what a machine's cores can do. With"
        " models the gain is that of the GPUs they run on, which was not measured here.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=2_000)
    parser.add_argument("--slow-questions", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.1)
    options = parser.parse_args()
    found = measure(options.questions, options.slow_questions, options.seconds)
    (HERE / "ray_pool.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (HERE / "ray_pool.md").write_text(page(found), encoding="utf-8")
    print(page(found))


if __name__ == "__main__":
    main()
