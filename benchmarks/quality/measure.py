"""How good a student each way of training makes: objectives and curricula beside base, experts, merge, routed oracle and gold.

The experts, the base and the facts are the demo's; the test set has 300 single facts a domain, 300 pairs of domains and 60 two-hop
questions (`data.py`). Every trial is a process of its own; its outcome is kept in `--work` the moment it is there, and a trial that is
kept is not run again.

    python benchmarks/quality/measure.py rates    # four learning rates for each condition, seed 0, scored on validation
    python benchmarks/quality/measure.py seeds    # three seeds for each condition at its best rate, scored on the test set
    python benchmarks/quality/measure.py report --write   # replaces quality.json and quality.md beside this file
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from data import Questions, build, gold_target  # noqa: E402

from domainfusion.demo.base import base_folder  # noqa: E402
from domainfusion.demo.questions import DOMAINS  # noqa: E402
from domainfusion.demo.run import ADAPTERS, ANSWER  # noqa: E402
from domainfusion.distillation.data_generation import CuratedDataGenerator  # noqa: E402
from domainfusion.distillation.distiller import Distiller  # noqa: E402
from domainfusion.distillation.evaluator import DomainRetentionEvaluator  # noqa: E402
from domainfusion.distillation.examples import slice_of  # noqa: E402
from domainfusion.distillation.metrics import stated_parts  # noqa: E402
from domainfusion.distillation.results import EvaluationReport  # noqa: E402
from domainfusion.distillation.trainer import IntegrationTrainer, MultiTaskTrainer, SequentialTrainer, Trainer  # noqa: E402
from domainfusion.models import LlamaModel, ResponseStore  # noqa: E402
from domainfusion.types import Example, TrainingRecord, fingerprint, user  # noqa: E402

SEEDS = (0, 1, 2)
RATES = (2e-4, 5e-4, 1e-3, 2e-3)
ORDER = ("geography", "chemistry", "aviation")
"""Of the sequential curriculum: what the base knows best comes first."""


@dataclass(frozen=True)
class Condition:
    """One way to make a student.

    Attributes:
        trainer: The curriculum.
        options: Its arguments.
        targets: `experts`, `gold` (the facts' own sentences), or `shuffled` (each domain answered by another domain's expert).
    """

    trainer: Callable[..., Trainer]
    options: Mapping[str, Any] = field(default_factory=dict)
    targets: str = "experts"


CONDITIONS = {
    "sequence, integration": Condition(IntegrationTrainer, {"replay": 0.5}),
    "sequence, multi-task": Condition(MultiTaskTrainer),
    "sequence, sequential, unprotected": Condition(SequentialTrainer, {"order": ORDER, "replay": 0.0}),
    "sequence, sequential, replay": Condition(SequentialTrainer, {"order": ORDER, "replay": 0.25}),
    "sequence, integration, from the base": Condition(IntegrationTrainer, {"replay": 0.5, "initialization": "base"}),
    "gold answers (SFT), integration": Condition(IntegrationTrainer, {"replay": 0.5}, targets="gold"),
    "shuffled domain labels, integration": Condition(IntegrationTrainer, {"replay": 0.5}, targets="shuffled"),
}


def models() -> tuple[LlamaModel, dict[str, LlamaModel]]:
    base = LlamaModel(base_folder(), name="SmolLM2-135M-Instruct")
    return base, {domain: LlamaModel(ADAPTERS / domain, base_model=base_folder(), name=f"{domain} expert") for domain in DOMAINS}


def records_for(targets: str, questions: Questions, work: Path) -> list[TrainingRecord]:
    """Returns the records to train on; the experts are asked once and for all trials."""
    base, teachers = models()
    examples = questions.train
    if targets == "shuffled":
        names = list(teachers)
        teachers = dict(zip(names, [teachers[name] for name in (*names[1:], names[0])], strict=True))
        examples = tuple(replace(example, parts=()) for example in examples)  # nothing that could turn a wrong answer down
    run = Distiller(
        base,
        teachers,
        [CuratedDataGenerator(examples)],
        IntegrationTrainer(learning_rate=1e-3),
        holdout=0.0,
        response_sampling=ANSWER,
        output_dir=work / f"records-{'experts' if targets == 'gold' else targets}",
    )
    records = run.integrate(run.collect(run.generate()))
    if targets != "gold":
        return records
    return [replace(record, integration=replace(record.integration, text=gold_target(record.example))) for record in records]


def run_trial(name: str, rate: float, seed: int, on: str, work: Path) -> dict[str, Any]:
    """Trains one student and scores it on `on`: `validation`, or `test` beside everything else."""
    condition = CONDITIONS[name]
    questions = build()
    records = records_for(condition.targets, questions, work)
    base, teachers = models()
    options = {"epochs": 1, "batch_size": 16, "evaluation_steps": 10_000, "adaptation": "lora", "learning_rate": rate, **condition.options}
    started, cpu = time.perf_counter(), time.process_time()
    student = condition.trainer(**options).train(
        base, records, teachers=teachers, directory=work / "training" / fingerprint([name, rate, seed]), seed=seed
    )
    trained = {
        "minutes": (time.perf_counter() - started) / 60,
        "cpu_minutes": (time.process_time() - cpu) / 60,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "records": len(records),
        "used": sum(record.verification != "rejected" for record in records),
    }
    with ResponseStore(work / "responses.sqlite") as store:
        if on == "validation":
            found: dict[str, Any] = {"validation": score(student, questions.validation, store)}
        else:
            merge = student_of_merge(base, teachers)
            report = DomainRetentionEvaluator(sampling=ANSWER).evaluate(
                student, teachers, questions.test, baselines={"base": base, "merge": merge}, ask=store.ask
            )
            found = {"test_set": report.test_set, "figures": figures(report)}
    return {"condition": name, "rate": rate, "seed": seed, "on": on, **trained, **found}


def student_of_merge(base: LlamaModel, teachers: Mapping[str, LlamaModel]) -> Any:
    from domainfusion.models.base import Adaptation

    return base.trainable_copy(Adaptation(start_from=tuple(teachers.values())))


def score(student: Any, examples: Sequence[Example], store: ResponseStore) -> dict[str, float]:
    """Returns the share of right parts by slice."""
    answers = store.ask(student, [user(example.query) for example in examples], ANSWER)
    grades: dict[str, list[float]] = {}
    for example, answer in zip(examples, answers, strict=True):
        grades.setdefault(slice_of(example), []).append(stated_parts(example, answer.text).value or 0.0)
    return {name: mean(values) for name, values in grades.items()}


def figures(report: EvaluationReport) -> dict[str, Any]:
    """Returns what the table shows of one evaluation, with intervals."""

    def plain(estimate: Any) -> list[float | None]:
        return [estimate.value, estimate.low, estimate.high]

    return {
        "retention": {row.domain: plain(row.retention) for row in report.retention},
        "headroom": {row.domain: plain(row.headroom) for row in report.retention},
        "accuracy": {
            model.name if model.role != "expert" else f"expert: {model.name}": {
                name: plain(part.strict) for name, part in model.slices.items()
            }
            for model in report.models
        },
        "cda": plain(report.cross_domain_accuracy),
    }


# Trials as processes


def trial_path(work: Path, name: str, rate: float, seed: int, on: str) -> Path:
    return work / "trials" / f"{name} {rate:g} {seed} {on}.json".replace(" ", "_").replace(",", "").replace("(", "").replace(")", "")


def ensure(work: Path, name: str, rate: float, seed: int, on: str) -> dict[str, Any]:
    """Returns the outcome of a trial, run in a process of its own where it is not kept yet."""
    path = trial_path(work, name, rate, seed, on)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"{datetime.now(UTC):%H:%M} {name}, rate {rate:g}, seed {seed}, on {on}", flush=True)
        command = [sys.executable, __file__, "trial", "--work", str(work), "--condition", name, "--rate", str(rate), "--seed", str(seed)]
        subprocess.run([*command, "--on", on, "--into", str(path)], check=True)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def best_rate(work: Path, name: str) -> float:
    """Returns the rate with the highest mean validation score over slices, ties to the lower rate."""
    trials = [ensure(work, name, rate, SEEDS[0], "validation") for rate in RATES]
    return float(max(trials, key=lambda trial: (mean(trial["validation"].values()), -trial["rate"]))["rate"])


def report_of(work: Path, names: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Returns all results as data and as Markdown."""
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((work / "trials").glob("*.json"))]
    tests = [trial for trial in kept if trial["on"] == "test" and trial["condition"] in names]
    results = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores ({platform.system()} {platform.machine()})",
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
        "trials": kept,
    }
    return results, as_markdown(results, tests)


def as_markdown(results: Mapping[str, Any], tests: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table: a row a condition, means over seeds with the lowest and the highest seed."""
    domains = list(DOMAINS)
    lines = [
        "# Quality of each way to train",
        "",
        "The demo's three experts (LoRA on SmolLM2-135M-Instruct) and their facts: 1,468 training questions, 260 validation and 1,260",
        "test items (300 a domain, 300 pairs, 60 two-hop). Learning rates are chosen on validation with seed 0. Figures are means over",
        f"seeds, with the lowest and the highest seed. {results['date']}, {results['machine']}, torch {results['versions']['torch']};",
        "made by `python benchmarks/quality/measure.py`.",
        "",
        f"| condition | rate | seeds | {' | '.join(f'DER {name}' for name in domains)} | CDA strict | two-hop | CPU minutes | peak GB |",
        "|---|---:|---:|" + "---:|" * (len(domains) + 4),
    ]
    for name in dict.fromkeys(trial["condition"] for trial in tests):
        own = [trial for trial in tests if trial["condition"] == name]
        cells = [spread([trial["figures"]["retention"][domain][0] for trial in own]) for domain in domains]
        cells.append(spread([trial["figures"]["cda"][0] for trial in own]))
        cells.append(spread([trial["figures"]["accuracy"]["student"]["two-hop"][0] for trial in own]))
        cells += [f"{mean(trial['cpu_minutes'] for trial in own):.1f}", f"{max(trial['peak_gigabytes'] for trial in own):.1f}"]
        lines.append(f"| {name} | {own[0]['rate']:g} | {len(own)} | " + " | ".join(cells) + " |")
    if tests:
        accuracy = tests[0]["figures"]["accuracy"]
        slices = list(accuracy["student"])
        lines += ["", "Beside them (accuracy, all parts right):", ""]
        lines += [f"| model | {' | '.join(slices)} |", "|---|" + "---:|" * len(slices)]
        for model in (name for name in accuracy if name != "student"):
            lines.append(f"| {model} | " + " | ".join(shown(accuracy[model].get(name, [None])[0]) for name in slices) + " |")
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float | None]) -> str:
    found = [value for value in values if value is not None]
    if not found:
        return "undefined"
    return f"{mean(found):.3f}" if len(found) == 1 else f"{mean(found):.3f} ({min(found):.3f}–{max(found):.3f})"


def shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="How good a student each way of training makes.")
    parser.add_argument("step", choices=("rates", "seeds", "report", "trial"))
    parser.add_argument("--work", type=Path, default=Path("runs/quality"))
    parser.add_argument("--condition", action="append", help="by default all")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    parser.add_argument("--rate", type=float, help="use this rate instead of choosing one")
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--on", default="test", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="write the results beside this file")
    options = parser.parse_args()
    names = options.condition or list(CONDITIONS)
    if options.step == "trial":
        found = run_trial(names[0], options.rate, options.seed, options.on, options.work)
        options.into.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    if options.step == "rates":
        for name in names:
            print(name, best_rate(options.work, name))
    elif options.step == "seeds":
        for seed in options.seeds:
            for name in names:
                ensure(options.work, name, options.rate or best_rate(options.work, name), seed, "test")
    results, text = report_of(options.work, names)
    print(text)
    if options.write:
        (HERE / "quality.md").write_text(text, encoding="utf-8")
        (HERE / "quality.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
