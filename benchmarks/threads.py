"""What the threads of PyTorch should do while they wait for each other: spin, or sleep.

The demo's base model answers and is trained a few steps under each way of waiting, in turn, each in
a process of its own that is started once: first with nothing beside it, then beside one process
that is always busy.

    python benchmarks/threads.py --write
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

SEED = 0
STEPS = 4
"""Steps of training a measurement; the first two are not counted."""

QUESTIONS = 48
BATCH = 8
RANK = 64
RESULTS = Path(__file__).with_suffix(".json")

WAYS: dict[str, dict[str, str]] = {
    "PyTorch's default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "passive, 1,000 spins": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"},
    "passive, 10,000 spins": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"},
}
"""Ways of waiting by the environment that asks for them."""


def work() -> None:
    """Answers, or trains, as stdin asks, one word a line; tells the seconds of all answers, or of
    a step.
    """
    from domainfusion.demo.questions import build_questions
    from domainfusion.demo.run import ANSWER
    from domainfusion.demo.world import base_folder, load_world, world_folder
    from domainfusion.models import LlamaModel
    from domainfusion.models.base import Adaptation
    from domainfusion.training.batching import encode_record
    from domainfusion.training.loop import LoopSettings, train_phase
    from domainfusion.types import Integration, TrainingRecord, user

    model = LlamaModel(base_folder(), name="base")
    pairs = [
        one for one in build_questions(load_world(world_folder())).train if one.is_cross_domain
    ]
    student = model.trainable_copy(Adaptation(rank=RANK, alpha=RANK))
    rows = []
    for pair in pairs[: STEPS * BATCH]:
        target = Integration(text=pair.reference or "", method="reference")
        record = TrainingRecord(example=pair, responses=(), integration=target)
        rows.append(encode_record(record, student))
    settings = LoopSettings(learning_rate=1e-5, batch_size=BATCH, checkpoint_steps=1_000)

    def answer() -> float:
        began = time.perf_counter()
        model.generate([user(pair.query) for pair in pairs[:QUESTIONS]], ANSWER)
        return time.perf_counter() - began

    def train() -> float:
        ends: list[float] = []

        def log(line: Mapping[str, Any]) -> None:
            if "loss" in line:
                ends.append(time.perf_counter())

        with tempfile.TemporaryDirectory() as folder:
            train_phase(
                student,
                rows,
                range(len(rows)),
                name="threads",
                settings=settings,
                directory=Path(folder),
                log=log,
            )
        return (ends[-1] - ends[1]) / (len(ends) - 2)

    tasks = {"answer": answer, "train": train}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(tasks[line.strip()]()), flush=True)


class Worker:
    """A process that measures as it is asked, with an environment of its own, such as of how its
    threads wait.
    """

    def __init__(
        self, environment: Mapping[str, str], script: str = __file__, *arguments: str
    ) -> None:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
        }
        self.process = subprocess.Popen(
            [sys.executable, script, *(arguments or ["--worker"])],
            env={**inherited, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._read()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("A worker died; run it with --worker to see why")
        return json.loads(line)

    def measure(self, task: str) -> Any:
        """Returns what the process tells of a task."""
        assert self.process.stdin is not None
        print(task, file=self.process.stdin, flush=True)
        return self._read()

    def stop(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keeps some other processes busy meanwhile."""
    started = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def measure(rounds: int) -> list[dict[str, Any]]:
    """Returns the seconds of each task, way and load."""
    found = []
    with ExitStack() as stack:
        workers = {way: Worker(environment) for way, environment in WAYS.items()}
        for worker in workers.values():
            stack.callback(worker.stop)
            for task in ("answer", "train"):
                worker.measure(task)  # what is made at the first call
        for others in (0, 1):
            for task in ("answer", "train"):
                seconds: dict[str, list[float]] = {way: [] for way in WAYS}
                with busy(others):
                    for number in range(rounds):
                        for way in list(WAYS)[:: 1 if number % 2 == 0 else -1]:
                            seconds[way].append(workers[way].measure(task))
                            print(f"{task}, {others} busy, {way}: {seconds[way][-1]:.2f} s")
                found += [
                    {"task": task, "busy": others, "way": way, "seconds": each}
                    for way, each in seconds.items()
                ]
    return found


def to_markdown(report: Mapping[str, Any]) -> str:
    """Returns the page of the results."""
    cells = {(row["task"], row["busy"], row["way"]): row["seconds"] for row in report["rows"]}

    def cell(task: str, others: int, way: str) -> str:
        values = [
            QUESTIONS / each if task == "answer" else each for each in cells[task, others, way]
        ]
        return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"

    lines = [
        "# How threads wait for each other",
        "",
        f"SmolLM2-135M-Instruct answers {QUESTIONS} of the demo's questions that span domains, and"
        f" takes steps of {BATCH} rows with a LoRA",
        f"adapter of rank {RANK}; ways of waiting in turn, {report['rounds']} rounds: median, lowest"
        " and highest. *Busy*: beside one process that computes",
        f"all the time. {report['date']}, seed {SEED}, {report['machine']}; made by",
        "`python benchmarks/threads.py --write`.",
        "",
        "| threads | answers a second | answers, busy | seconds a step | a step, busy |",
        "|---|---:|---:|---:|---:|",
    ]
    for way in WAYS:
        columns = [cell(task, others, way) for task in ("answer", "train") for others in (0, 1)]
        lines.append(f"| {way} | {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints, and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="replace the committed results")
    arguments = parser.parse_args()
    if arguments.worker:
        work()
        return
    import torch

    report = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores ({torch.backends.cpu.get_cpu_capability()}, bfloat16"
        f" {'built in' if torch.cpu._is_avx512_bf16_supported() else 'emulated'}),"
        f" torch {torch.__version__}",
        "rounds": arguments.rounds,
        "rows": measure(arguments.rounds),
    }
    page = to_markdown(report)
    print(page)
    if arguments.write:
        RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        RESULTS.with_suffix(".md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
