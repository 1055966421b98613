"""How good a student each way of training makes: objectives and curricula beside base, experts, merge, routed oracle and gold.

The experts, the base and the facts are the demo's; the test set has 300 single facts a domain, 300 pairs of domains and 60 two-hop
questions (`data.py`). Every trial is a process of its own; its outcome is kept in `--work` the moment it is there. A trial that is
kept there, or whose outcome is committed in `quality.json`, is not run again: delete that file to measure everything anew. Models
compute in what is fast on the machine, bfloat16 or float32; trials of the other data type are not counted among one's own.

    python benchmarks/quality/measure_quality.py prepare  # lets the experts answer what is trained on
    python benchmarks/quality/measure_quality.py answers  # lets experts, base and merge answer the test set
    python benchmarks/quality/measure_quality.py rates    # four learning rates for each objective, seed 0, scored on validation
    python benchmarks/quality/measure_quality.py seeds    # three seeds for each condition at its best rate, scored on the test set
    python benchmarks/quality/measure_quality.py report --write   # replaces quality.json and quality.md beside this file
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from data import WORLD, Questions, build, gold_target

from domainfusion.demo.run import ANSWER
from domainfusion.demo.world import base_folder
from domainfusion.distillation.data_generation import CuratedDataGenerator
from domainfusion.distillation.distiller import Distiller
from domainfusion.distillation.evaluation_report import EvaluationReport
from domainfusion.distillation.evaluator import DomainRetentionEvaluator
from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.metrics import stated_parts
from domainfusion.distillation.settings import DataSettings, RunSettings
from domainfusion.distillation.trainer import (
    IntegrationTrainer,
    MultiTaskTrainer,
    SequentialTrainer,
    Trainer,
)
from domainfusion.errors import TrainingError
from domainfusion.models import LlamaModel, ResponseStore
from domainfusion.models.base import Adaptation, TrainableModel
from domainfusion.records import read_records
from domainfusion.types import Example, TrainingRecord, fingerprint, user

SEEDS = (0, 1, 2)
RATES = (2e-4, 5e-4, 1e-3, 2e-3)
FINE_RATES = (5e-5, 1e-4, 2e-4, 5e-4)
"""Of trainings that go on from a trained student."""

IDENTITY = ("condition", "rate", "seed", "on", "dtype")
"""What makes two trials the same."""

ORDER = ("geography", "chemistry", "aviation")
"""Of the sequential curriculum: what the base knows best comes first."""

LATER_PROMPTS = 320
"""Records of the trainings that go on from a trained student, drawn once for all of them."""


@dataclass(frozen=True)
class Condition:
    """One way to make a student.

    Attributes:
        trainer: The curriculum.
        options: Its arguments.
        targets: `experts`, `gold` (the facts' own sentences), or `shuffled` (each domain answered
            by another domain's expert).
        rates: Learning rates to choose from on validation; none takes the rate that was chosen for
            `rate_of`.
        rate_of: Another condition, which shares its rate.
        after: The condition whose student, of the same seed, is trained on, on `LATER_PROMPTS`
            records.
    """

    trainer: Callable[..., Trainer]
    options: Mapping[str, Any] = field(default_factory=dict)
    targets: str = "experts"
    rates: tuple[float, ...] = ()
    rate_of: str = "sequence, integration"
    after: str = ""


WITH_REPLAY = {"replay": 0.25}
GO_ON: Mapping[str, Any] = {**WITH_REPLAY, "initialization": "base"}
SEQUENCE = "sequence, integration"

CONDITIONS = {
    SEQUENCE: Condition(IntegrationTrainer, WITH_REPLAY, rates=RATES),
    "distribution, integration": Condition(
        IntegrationTrainer, {**WITH_REPLAY, "objective": "distribution"}, rates=RATES
    ),
    "sequence, multi-task": Condition(MultiTaskTrainer),
    "sequence, sequential, unprotected": Condition(
        SequentialTrainer, {"order": ORDER, "replay": 0.0}
    ),
    "sequence, sequential, replay": Condition(SequentialTrainer, {"order": ORDER, "replay": 0.25}),
    "gold answers (SFT), integration": Condition(IntegrationTrainer, WITH_REPLAY, targets="gold"),
    "shuffled domain labels, integration": Condition(
        IntegrationTrainer, WITH_REPLAY, targets="shuffled"
    ),
    "sequence, after sequence": Condition(
        IntegrationTrainer, GO_ON, rates=FINE_RATES, after=SEQUENCE
    ),
}


def models() -> tuple[LlamaModel, dict[str, LlamaModel]]:
    base = LlamaModel(base_folder(), name="SmolLM2-135M-Instruct")
    return base, {
        domain: LlamaModel(WORLD.adapter(domain), base_model=base_folder(), name=f"{domain} expert")
        for domain in WORLD.domains
    }


def computed_in() -> str:
    """Returns the data type that the models compute in on this machine."""
    return str(models()[0]._key.dtype).removeprefix("torch.")


def records_for(targets: str, questions: Questions, work: Path) -> list[TrainingRecord]:
    """Returns the records to train on; the experts are asked once and for all trials."""
    directory = work / f"records-{'experts' if targets == 'gold' else targets}"
    if (directory / "records.jsonl").is_file():
        return targets_of(read_records(directory / "records.jsonl", TrainingRecord), targets)
    base, teachers = models()
    examples = questions.train
    if targets == "shuffled":
        names = list(teachers)
        teachers = dict(
            zip(names, [teachers[name] for name in (*names[1:], names[0])], strict=True)
        )
        examples = tuple(
            replace(example, parts=()) for example in examples
        )  # nothing that could turn a wrong answer down
    run = Distiller(
        base,
        teachers,
        [CuratedDataGenerator(examples)],
        IntegrationTrainer(learning_rate=1e-3),
        data=DataSettings(holdout=0.0),
        settings=RunSettings(response_sampling=ANSWER),
        output_dir=directory,
    )
    return targets_of(run.integrate(run.collect(run.generate())), targets)


def targets_of(records: list[TrainingRecord], targets: str) -> list[TrainingRecord]:
    """Returns the records with the targets that are asked for."""
    if targets != "gold":
        return records
    return [
        replace(record, integration=replace(record.integration, text=gold_target(record.example)))
        for record in records
    ]


def run_trial(name: str, rate: float, seed: int, on: str, work: Path) -> dict[str, Any]:
    """Trains one student and scores it on `on`: `validation`, or `test` beside everything else."""
    questions = build()
    base, teachers = models()
    identity = {
        "condition": name,
        "rate": rate,
        "seed": seed,
        "on": on,
        "dtype": computed_in(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    try:
        student, trained = train(name, rate, seed, questions, work)
    except TrainingError as error:  # that a training is refused is an outcome too
        return identity | {"refused": str(error)}
    with ResponseStore(work / "responses.sqlite") as store:
        if on == "validation":
            found: dict[str, Any] = {"validation": score(student, questions.validation, store)}
        else:
            merge = student_of_merge(base, teachers)
            report = DomainRetentionEvaluator(sampling=ANSWER).evaluate(
                student,
                teachers,
                questions.test,
                baselines={"base": base, "merge": merge},
                ask=store.ask,
            )
            found = {"test_set": report.test_set, "figures": figures(report)}
    return identity | trained | found


def train(
    name: str, rate: float, seed: int, questions: Questions, work: Path
) -> tuple[TrainableModel, dict[str, Any]]:
    """Returns the student of a condition, and what it took; the same training is not done twice."""
    condition = CONDITIONS[name]
    records = records_for(condition.targets, questions, work)
    base, teachers = models()
    if condition.after:
        base = student_to_go_on_from(condition.after, seed, questions, work)
        records = random.Random(0).sample(records, LATER_PROMPTS)
    if condition.targets == "gold" and records == records_for("experts", questions, work):
        name = (
            condition.rate_of
        )  # the experts answered in the facts' own sentences: it is the same training
    directory = work / "training" / fingerprint([name, rate, seed])
    options = {
        "epochs": 1,
        "batch_size": 16,
        "evaluation_steps": 10_000,
        "adaptation": "lora",
        "learning_rate": rate,
        **condition.options,
    }
    started, cpu = time.perf_counter(), time.process_time()
    student = condition.trainer(**options).train(
        base, records, teachers=teachers, directory=directory, seed=seed
    )
    took = directory / "took.json"
    if not took.is_file():
        trained = {
            "minutes": (time.perf_counter() - started) / 60,
            "cpu_minutes": (time.process_time() - cpu) / 60,
            "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
            "records": len(records),
            "used": sum(record.verification != "rejected" for record in records),
            "logged": logged(directory / "log.jsonl"),
        }
        took.write_text(json.dumps(trained), encoding="utf-8")
    return student, json.loads(took.read_text(encoding="utf-8"))


def student_to_go_on_from(name: str, seed: int, questions: Questions, work: Path) -> LlamaModel:
    """Returns the saved student of a condition at its best rate, as the base of further
    training.
    """
    folder = work / "students" / fingerprint([name, seed])
    if not (folder / "config.json").is_file():
        student, _ = train(name, best_rate(work, name), seed, questions, work)
        staged = folder.with_name(f"{folder.name}.{os.getpid()}")
        student.save(staged)
        try:
            staged.rename(folder)
        except OSError:  # another trial was faster
            shutil.rmtree(staged)
    return LlamaModel(folder, name=f"{name}, seed {seed}")


def logged(path: Path) -> list[dict[str, Any]]:
    """Returns what the training's log tells beside its steps: what the objective found, the pilot,
    the end of each phase.
    """
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "step" not in line]


def student_of_merge(base: LlamaModel, teachers: Mapping[str, LlamaModel]) -> Any:
    return base.trainable_copy(Adaptation(start_from=tuple(teachers.values())))


def score(student: Any, examples: Sequence[Example], store: ResponseStore) -> dict[str, float]:
    """Returns the share of right parts by slice."""
    answers = store.ask(student, [user(example.query) for example in examples], ANSWER)
    grades: dict[str, list[float]] = {}
    for example, answer in zip(examples, answers, strict=True):
        grades.setdefault(slice_of(example), []).append(
            stated_parts(example, answer.text).value or 0.0
        )
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
    return (
        work
        / "trials"
        / f"{name} {rate:g} {seed} {on}.json".replace(" ", "_")
        .replace(",", "")
        .replace("(", "")
        .replace(")", "")
    )


def ensure(work: Path, name: str, rate: float, seed: int, on: str) -> dict[str, Any]:
    """Returns the outcome of a trial, run in a process of its own where it is neither kept nor
    committed yet.
    """
    path = trial_path(work, name, rate, seed, on)
    wanted = {"condition": name, "rate": rate, "seed": seed, "on": on, "dtype": computed_in()}
    if not path.is_file() and (
        known := [trial for trial in committed() if wanted.items() <= trial.items()]
    ):
        return known[0]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"{datetime.now(UTC):%H:%M} {name}, rate {rate:g}, seed {seed}, on {on}", flush=True)
        command = [
            sys.executable,
            __file__,
            "trial",
            "--work",
            str(work),
            "--condition",
            name,
            "--rate",
            str(rate),
            "--seed",
            str(seed),
        ]
        subprocess.run([*command, "--on", on, "--into", str(path)], check=True)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def committed() -> list[dict[str, Any]]:
    """Returns the trials whose outcomes are committed beside this file."""
    path = HERE / "quality.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["trials"]) if path.is_file() else []


def best_rate(work: Path, name: str) -> float:
    """Returns the rate with the highest mean validation score over slices, ties to the lower
    rate.
    """
    condition = CONDITIONS[name]
    if not condition.rates:
        return best_rate(work, condition.rate_of)
    trials = [ensure(work, name, rate, SEEDS[0], "validation") for rate in condition.rates]
    scored = [trial for trial in trials if "validation" in trial]
    if not scored:
        return condition.rates[0]  # refused at every rate
    return float(
        max(scored, key=lambda trial: (mean(trial["validation"].values()), -trial["rate"]))["rate"]
    )


def prepare(work: Path) -> None:
    """Lets the experts answer what is trained on, for all trials."""
    for targets in dict.fromkeys(condition.targets for condition in CONDITIONS.values()):
        records_for(targets, build(), work)


def answer_test(work: Path) -> None:
    """Lets the experts, the base and the merge answer the test set, for all trials."""
    questions, (base, teachers) = build(), models()
    with ResponseStore(work / "responses.sqlite") as store:
        for model in (base, *teachers.values(), student_of_merge(base, teachers)):
            store.ask(model, [example.conversation for example in questions.test], ANSWER)


def at_once(jobs: int, trials: Iterable[Callable[[], object]]) -> None:
    """Runs trials, a few at a time, in their order."""
    with ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(trial) for trial in trials]:
            done.result()


def report_of(work: Path, names: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Returns all results as data and as Markdown."""
    found = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((work / "trials").glob("*.json"))
    ]
    known = {tuple(trial[key] for key in IDENTITY): trial for trial in (*committed(), *found)}
    kept = [
        known[identity] for identity in sorted(known) if known[identity]["dtype"] == computed_in()
    ]
    tests = [trial for trial in kept if trial["on"] == "test" and trial["condition"] in names]
    results = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": (
            f"{os.cpu_count()} cores ({platform.system()} {platform.machine()}), one thread a trial"
        ),
        "dtype": computed_in(),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
        "trials": kept,
    }
    return results, as_markdown(results, tests)


def as_markdown(results: Mapping[str, Any], tests: Sequence[Mapping[str, Any]]) -> str:
    """Returns the tables: a row a condition with means over seeds, the models beside them, the
    rates, and what was refused.
    """
    done = [trial for trial in tests if "figures" in trial]
    lines = [
        "# Quality of each way to train",
        "",
        (
            "The demo's three experts (LoRA on SmolLM2-135M-Instruct) and their facts. Training:"
            " 540 questions, one phrasing a fact, a"
        ),
        (
            "third of what the demo trains on. Validation: 260 questions. Test: 1,260 (300 a"
            " domain, 300 pairs, 60 two-hop). One epoch in"
        ),
        (
            f"batches of 16; what goes on `after sequence` sees {LATER_PROMPTS} of the records"
            " again, by `IntegrationTrainer`. Rates are"
        ),
        (
            "chosen on validation with seed 0; curricula take the rate of `sequence, integration`."
            " Figures are means over seeds, with the"
        ),
        (
            "lowest and the highest seed; the JSON has every trial with bootstrap intervals. Where"
            " the experts' answers are the gold word"
        ),
        "for word, as they are here, `gold` is the same training as `sequence`.",
        (
            f"{results['date']}, {results['machine']}, {results['dtype']}, torch"
            f" {results['versions']['torch']};"
        ),
        "made by `python benchmarks/quality/measure_quality.py`.",
        "",
        *_table_of_students(done),
    ]
    if done:
        lines += [
            "",
            "## Beside them",
            "",
            "Accuracy, all parts right.",
            "",
            *_table_of_others(done[0]["figures"]["accuracy"]),
        ]
    lines += [
        "",
        "## Learning rates",
        "",
        "Mean validation score over slices, seed 0.",
        "",
        *_table_of_rates(results["trials"]),
    ]
    refused = {
        (trial["condition"], trial["refused"]) for trial in results["trials"] if "refused" in trial
    }
    lines += ["", *(f"- {name}: {why}" for name, why in sorted(refused))] if refused else []
    return "\n".join(lines) + "\n"


def _table_of_students(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = [
        *(f"DER {name}" for name in WORLD.domains),
        "lowest DER",
        *(f"headroom {name}" for name in WORLD.domains),
    ]
    columns += ["CDA strict", "two-hop", "CPU minutes", "peak GB"]
    lines = [
        f"| condition | rate | seeds | {' | '.join(columns)} |",
        "|---|---:|---:|" + "---:|" * len(columns),
    ]
    for name in (
        name for name in CONDITIONS if any(trial["condition"] == name for trial in trials)
    ):
        own = [trial for trial in trials if trial["condition"] == name]
        found = [trial["figures"] for trial in own]
        cells = [
            spread([figure["retention"][domain][0] for figure in found]) for domain in WORLD.domains
        ]
        cells.append(
            spread(
                [
                    min(figure["retention"][domain][0] for domain in WORLD.domains)
                    for figure in found
                ]
            )
        )
        cells += [
            spread([figure["headroom"][domain][0] for figure in found]) for domain in WORLD.domains
        ]
        cells.append(spread([figure["cda"][0] for figure in found]))
        cells.append(spread([figure["accuracy"]["student"]["two-hop"][0] for figure in found]))
        cells += [
            f"{mean(trial['cpu_minutes'] for trial in own):.1f}",
            f"{max(trial['peak_gigabytes'] for trial in own):.1f}",
        ]
        lines.append(f"| {name} | {own[0]['rate']:g} | {len(own)} | " + " | ".join(cells) + " |")
    return lines


def _table_of_others(accuracy: Mapping[str, Mapping[str, Sequence[float | None]]]) -> list[str]:
    slices = list(accuracy["student"])
    lines = [f"| model | {' | '.join(slices)} |", "|---|" + "---:|" * len(slices)]
    for model in (name for name in accuracy if name != "student"):
        lines.append(
            f"| {model} | "
            + " | ".join(shown(accuracy[model].get(name, [None])[0]) for name in slices)
            + " |"
        )
    return lines


def _table_of_rates(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| condition | rate | score | slices |", "|---|---:|---:|---|"]
    scored = [trial for trial in trials if "validation" in trial]
    for trial in sorted(
        scored, key=lambda trial: (list(CONDITIONS).index(trial["condition"]), trial["rate"])
    ):
        slices = ", ".join(f"{name} {value:.3f}" for name, value in trial["validation"].items())
        lines.append(
            f"| {trial['condition']} | {trial['rate']:g} | {mean(trial['validation'].values()):.3f}"
            f" | {slices} |"
        )
    return lines


def spread(values: Sequence[float | None]) -> str:
    found = [value for value in values if value is not None]
    if not found:
        return "undefined"
    return (
        f"{mean(found):.3f}"
        if len(found) == 1
        else f"{mean(found):.3f} ({min(found):.3f}–{max(found):.3f})"
    )


def shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="How good a student each way of training makes.")
    parser.add_argument("step", choices=("prepare", "answers", "rates", "seeds", "report", "trial"))
    parser.add_argument("--work", type=Path, default=Path("runs/quality"))
    parser.add_argument("--condition", action="append", help="by default all")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time")
    parser.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--on", default="test", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="write the results beside this file")
    options = parser.parse_args()
    if options.step != "trial":
        options.work /= computed_in()  # nothing of one data type is taken for the other's
    names = options.condition or list(CONDITIONS)
    if options.step == "trial":
        found = run_trial(names[0], options.rate, options.seed, options.on, options.work)
        options.into.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    work = options.work
    if options.step == "prepare":
        prepare(work)
        return
    if options.step == "answers":
        answer_test(work)
        return
    if options.step == "rates":
        rates = [(name, rate) for name in names for rate in CONDITIONS[name].rates]
        at_once(
            options.jobs,
            [partial(ensure, work, name, rate, SEEDS[0], "validation") for name, rate in rates],
        )
        for name in names:
            print(name, best_rate(work, name))
    elif options.step == "seeds":
        wanted = [(name, best_rate(work, name), seed) for seed in options.seeds for name in names]
        at_once(
            options.jobs,
            [partial(ensure, work, name, rate, seed, "test") for name, rate, seed in wanted],
        )
    results, text = report_of(options.work, names)
    print(text)
    if options.write:
        (HERE / "quality.md").write_text(text, encoding="utf-8")
        (HERE / "quality.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
