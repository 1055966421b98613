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
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from domainfusion.models import RayPool, ScriptedModel
from domainfusion.types import user
from machine import machine

HERE = Path(__file__).parent
REPLICAS = (1, 2, 4)


def sleeper(seconds: float) -> ScriptedModel:
    """Returns a model that answers every question with itself, after a time."""
    return ScriptedModel(partial(_answer_after, seconds), name=f"sleeper {seconds}")


def _answer_after(seconds: float, question: str) -> str:
    time.sleep(seconds)
    return question


def timed(pool: RayPool, model: ScriptedModel, count: int) -> float:
    """Returns the seconds that so many questions take, and checks the answers."""
    asked = [user(f"question {number}") for number in range(count)]
    began = time.perf_counter()
    found = pool.answer(model, asked)
    seconds = time.perf_counter() - began
    assert [one.text for one in found] == [one[-1].content for one in asked]
    return seconds


def measure(count: int, slow: int, seconds: float) -> dict[str, Any]:
    """Returns all figures."""
    ray: Any = importlib.import_module("ray")

    ray.init(
        "local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    busy = os.getloadavg()[0]
    pool = RayPool(replicas=(1, 1), cpus=1)
    quick = sleeper(0.0)
    began = time.perf_counter()
    timed(pool, quick, 1)
    start = time.perf_counter() - began
    overhead = min(timed(pool, quick, count) for _ in range(3)) / count
    pool.stop()
    spread = []
    for replicas in REPLICAS:
        pool = RayPool(replicas=(replicas, replicas), cpus=1, batch_size=4)
        model = sleeper(seconds)
        timed(pool, model, 4 * replicas)  # until every actor is there
        spread.append({"replicas": replicas, "seconds": round(timed(pool, model, slow), 2)})
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
        "machine": f"{machine()}, Python {platform.python_version()}",
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
        f" {found['machine']}, with a load of {found['load'][0]:g} before and"
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
