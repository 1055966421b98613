"""Answers a second on the demo's questions, by this code and by that of another commit.

Both answer the same questions in turn, each in a process of its own that is started once, so that
they share the machine's fortune. Besides seconds, the CPU time of the process is measured, which
other processes on the machine change less.

    python benchmarks/generation.py --old 6b8f0e7 --questions 256 --rounds 2 --json generation.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SEED = 0
WEIGHTS_USED = 134_515_008
"""Weights that a token is multiplied with: those of SmolLM2-135M, whose head is its embedding."""

CASES: dict[str, dict[str, Any]] = {
    "expert, greedy, bfloat16": {"dtype": "bfloat16"},
    "expert, greedy, float32": {"dtype": "float32"},
    "expert, sampled, bfloat16": {"dtype": "bfloat16", "temperature": 1.0, "top_p": 0.95},
    "base, greedy, bfloat16": {"dtype": "bfloat16", "base": True},
}


def work() -> None:
    """Answers what stdin asks, one JSON object a line."""
    from domainfusion.models import LlamaModel
    from domainfusion.types import Sampling, user

    models: dict[Any, LlamaModel] = {}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        key = asked["dtype"], asked["expert"]
        if key not in models:
            models[key] = LlamaModel(
                asked["expert"] or asked["base"],
                base_model=asked["base"] if asked["expert"] else None,
                dtype=asked["dtype"],
            )
            models[key].ask("Which country is JNB airport in?")
        sampling = Sampling(
            max_new_tokens=32, temperature=asked["temperature"], top_p=asked["top_p"], seed=SEED
        )
        wall, cpu = time.perf_counter(), time.process_time()
        answers = models[key].generate([user(query) for query in asked["queries"]], sampling)
        print(
            json.dumps(
                {
                    "seconds": time.perf_counter() - wall,
                    "cpu_seconds": time.process_time() - cpu,
                    "prompt_tokens": sum(answer.prompt_tokens for answer in answers),
                    "completion_tokens": sum(answer.completion_tokens for answer in answers),
                    "texts": [answer.text for answer in answers],
                }
            ),
            flush=True,
        )


class Worker:
    """A process that answers with the code in one folder."""

    def __init__(self, source: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            env={**os.environ, "PYTHONPATH": str(source)},
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

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Returns what was measured."""
        assert self.process.stdin is not None
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        found: dict[str, Any] = self._read()
        return found

    def stop(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def questions(count: int) -> dict[str, Any]:
    """Returns test questions of the demo, and the folders of an expert and of its base."""
    from domainfusion.demo.questions import build_questions
    from domainfusion.demo.world import base_folder, load_world, world_folder

    world = load_world(world_folder())
    queries = [example.query for example in build_questions(world).test]
    chosen = random.Random(SEED).sample(queries, min(count, len(queries)))
    expert = world.adapter(next(iter(world.domains)))
    return {"expert": str(expert), "base": str(base_folder()), "queries": chosen}


def unpack(commit: str, folder: Path) -> Path:
    """Returns the folder with the package as it was in a commit."""
    archive = subprocess.run(
        ["git", "archive", commit, "src"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder / "src"


def compare(workers: dict[str, Worker], asked: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Lets the workers answer in turn, the first of each round last in the next one."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for worker in workers.values():
        worker.answer({**asked, "queries": asked["queries"][:2]})  # loads the model
    for number in range(rounds):
        for name in list(workers)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(workers[name].answer(asked))
    count = len(asked["queries"])
    result: dict[str, Any] = {"questions": count}
    for name, runs in found.items():
        tokens = runs[0]["prompt_tokens"] + runs[0]["completion_tokens"]
        cpu = statistics.median(run["cpu_seconds"] for run in runs)
        wall = statistics.median(run["seconds"] for run in runs)
        result[name] = {
            "answers_per_second": round(count / wall, 2),
            "answers_per_cpu_second": round(count / cpu, 2),
            "gflops_per_cpu_second": round(2 * WEIGHTS_USED * tokens / cpu / 1e9, 1),
            "cpu_seconds": [round(run["cpu_seconds"], 2) for run in runs],
            "seconds": [round(run["seconds"], 2) for run in runs],
            "prompt_tokens": runs[0]["prompt_tokens"],
            "completion_tokens": runs[0]["completion_tokens"],
        }
    old, new = (result[name] for name in workers)
    result["times_faster"] = round(
        old["answers_per_second"] and new["answers_per_second"] / old["answers_per_second"], 2
    )
    result["times_less_cpu"] = round(
        new["answers_per_cpu_second"] / old["answers_per_cpu_second"], 2
    )
    same = zip(*(runs[0]["texts"] for runs in found.values()), strict=True)
    result["same_text"] = sum(one == other for one, other in same)
    return result


def main() -> None:
    """Measures, prints, and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--old", default="6b8f0e7", help="the commit to compare with")
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    if arguments.worker:
        work()
        return
    import torch

    chosen = questions(arguments.questions)
    report: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "old": arguments.old,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "seed": SEED,
        "rounds": arguments.rounds,
        "cases": {},
    }
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = {
            "old": Worker(unpack(arguments.old, Path(folder))),
            "new": Worker(ROOT / "src"),
        }
        for worker in workers.values():
            stack.callback(worker.stop)
        for case in arguments.cases:
            settings = {"temperature": 0.0, "top_p": 1.0, **CASES[case]}
            expert = None if settings.pop("base", False) else chosen["expert"]
            asked = {**chosen, **settings, "expert": expert}
            report["cases"][case] = compare(workers, asked, arguments.rounds)
            print(case, json.dumps(report["cases"][case], indent=1), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
