"""What the demo's way of training reaches over three seeds, and what two of its choices are worth:
to skip what the start knows (`known_share=0`), and to leave the lowest layers as they are
(`frozen_share=1/6`).

The records are the demo's, and so is the merge that every trial starts from; it is made once, and
its seconds are no trial's. A seed decides the order of the rows and the random half of the new
adapter. Each student answers the demo's test set. A trial is a process of its own, and the ways take
turns; its outcome is kept in `--work`, and what is there is not measured again.

    python benchmarks/demo_training.py --write

writes `demo_training.json` and `demo_training.md` beside this file; without `--write` it prints.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from domainfusion.demo.run import ANSWER, DEMO, build_demo
from domainfusion.distillation.distiller import Distiller
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.metrics import stated_parts
from domainfusion.distillation.trainer import IntegrationTrainer
from domainfusion.models import ResponseStore
from domainfusion.models.base import LanguageModel
from domainfusion.records import read_records, write_text
from domainfusion.types import Example, TrainingRecord, user

RESULTS = Path(__file__).with_suffix(".json")
COMMAND = "python benchmarks/demo_training.py --write"
SEEDS = (0, 1, 2)
WAYS: Mapping[str, Mapping[str, Any]] = {
    "as the demo": {},
    "no layer frozen": {"frozen_share": 0.0},
    "a third frozen": {"frozen_share": 1 / 3},
    "a third frozen, nothing skipped": {"frozen_share": 1 / 3, "known_share": 1.0},
}
"""What differs from the demo's trainer."""

MERGE = "merge.safetensors"


def records_of(demo: Distiller) -> list[TrainingRecord]:
    """Returns what the demo trains on; the experts are asked once for all trials."""
    with demo.hold():
        return demo.integrate(demo.collect(demo.generate()))


def train(way: str, seed: int, work: Path) -> dict[str, Any]:
    """Trains a student and lets it answer the test set."""
    demo = build_demo(work / "demo")
    records = records_of(demo)
    test = read_records(work / "demo" / "test_examples.jsonl", Example)
    trainer = IntegrationTrainer(**{**DEMO, **WAYS[way]})
    folder = work / "training" / f"{way} {seed}".replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(work / MERGE, folder)
    began, cpu = time.perf_counter(), time.process_time()
    student = trainer.train(
        demo.student_model, records, teachers=demo.teacher_models, directory=folder, seed=seed
    )
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    log = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    with ResponseStore(work / "answers.sqlite") as store:
        of_experts = {
            domain: accuracy(expert, [one for one in test if slice_of(one) == domain], store)
            for domain, expert in demo.teacher_models.items()
        }
        right = accuracy(student, test, store)
    return {
        "way": way,
        "seed": seed,
        "steps": sum('"step"' in line and '"loss"' in line for line in log),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_gigabytes": peak,
        "right": right,
        "der": {domain: right[domain] / own[domain] for domain, own in of_experts.items()},
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def make_merge(work: Path) -> None:
    """Makes the merge that every trial starts from."""
    demo = build_demo(work / "demo")
    records = records_of(demo)
    usable = [record for record in records if record.is_usable]
    demo.trainer.adapt(demo.student_model, demo.teacher_models, usable, work)


def accuracy(
    model: LanguageModel, examples: Sequence[Example], store: ResponseStore
) -> dict[str, float]:
    """Returns the share of answers with every part right, by slice."""
    answers = store.ask(model, [user(example.query) for example in examples], ANSWER)
    right: dict[str, list[bool]] = {}
    for example, answer in zip(examples, answers, strict=True):
        is_right = stated_parts(example, answer.text).value == 1
        right.setdefault(slice_of(example), []).append(is_right)
    return {name: mean(found) for name, found in right.items()}


def measure(work: Path) -> list[dict[str, Any]]:
    """Returns the outcome of every trial."""
    outcomes = []
    if not (work / MERGE).is_file():
        make_merge(work)
    for seed in SEEDS:
        for way in WAYS:
            path = work / f"{way} {seed}.json".replace(" ", "-")
            if not path.is_file():
                path.write_text(run_trial(way, seed, work), encoding="utf-8")
            outcomes.append(json.loads(path.read_text(encoding="utf-8")))
            print(path.read_text(encoding="utf-8"), file=sys.stderr, flush=True)
    return outcomes


def run_trial(way: str, seed: int, work: Path) -> str:
    """Returns the outcome of a trial in a process of its own, as JSON."""
    command = [sys.executable, __file__, "--work", str(work), "--trial", way, str(seed)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def to_markdown(report: Mapping[str, Any]) -> str:
    """Returns the page of the results."""
    domains = list(report["trials"][0]["der"])
    others = [name for name in report["trials"][0]["right"] if name not in domains]
    columns = [*(f"DER {domain}" for domain in domains), *others, "steps", "seconds", "GB"]
    lines = [
        "# Three seeds of the demo's training",
        "",
        "The demo's records and its test set, from its merge: means of three seeds, with the lowest"
        " and the highest. *DER*: the student's share of",
        "right answers over its expert's; the other slices are the share of answers with every part"
        " right. *Seconds* are those of training, beside other work, from the",
        f"merge on, with what the start is asked. {report['date']}, {report['machine']}; made by"
        f" `{COMMAND}`.",
        "",
        f"| way | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for way in WAYS:
        own = [trial for trial in report["trials"] if trial["way"] == way]
        cells = [
            *(_spread([trial["der"][name] for trial in own]) for name in domains),
            *(_spread([trial["right"][name] for trial in own]) for name in others),
            f"{mean(trial['steps'] for trial in own):.0f}",
            _spread([trial["seconds"] for trial in own], 0),
            f"{max(trial['peak_gigabytes'] for trial in own):.1f}",
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], digits: int = 3) -> str:
    return f"{mean(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def main() -> None:
    """Measures, prints, and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--work", type=Path, default=Path("build/demo_training"))
    parser.add_argument("--trial", nargs=2, metavar=("WAY", "SEED"), help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="replace the committed results")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if given.trial:
        print(json.dumps(train(given.trial[0], int(given.trial[1]), given.work)))
        return
    report = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores ({platform.system()} {platform.machine()},"
        f" {torch.backends.cpu.get_cpu_capability()}, bfloat16"
        f" {'built in' if torch.cpu._is_avx512_bf16_supported() else 'emulated'}),"
        f" torch {version('torch')}",
        "trials": measure(given.work),
    }
    page = to_markdown(report)
    print(page)
    if given.write:
        write_text(RESULTS, json.dumps(report, indent=1) + "\n")
        write_text(RESULTS.with_suffix(".md"), page)


if __name__ == "__main__":
    main()
