"""What `refinement_rounds` is worth: the same number of training questions and the same number of
rows trained, with and without rounds that go where validation is weak.

Three domains of made-up facts, entity to value, which scripted experts know completely. The student
is a small Llama from random weights that has seen none of them, so a fact is known once a question
about it was trained on. In the world `unequal` the domains have 40, 120 and 400 facts, so the
same number of questions covers the first and not the last. In `one weak` they have 30, 30 and 400,
so two domains need far fewer questions than an even split gives them. Every fact has eight
phrasings; one is kept for validation, one for the test, and no question of these is trained on.

- plain: all questions at once, as many of each domain.
- refined: half of the questions, as many of each domain; then rounds of a quarter, placed by what
  validation misses. A round sees as many earlier records again as it has new ones, so its rows are
  twice its questions. A round that does not help is undone, and its questions are spent all the same.

    python benchmarks/refinement.py --write

writes `refinement.json` and `refinement.md` beside this file; without `--write` it prints.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from domainfusion.distillation import (
    DataSettings,
    Distiller,
    ExecutionSettings,
    MultiTaskTrainer,
    RunSettings,
)
from domainfusion.distillation.data_generation import DataGenerator, Focus
from domainfusion.distillation.dataset import Hygiene
from domainfusion.distillation.run import StageFiles, read_refinement
from domainfusion.models import LlamaModel, ScriptedModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.records import read_records, write_text
from domainfusion.types import Example, Part, Sampling, TrainingRecord, user
from tiny_llama import byte_tokenizer, write_llama

HERE = Path(__file__).parent
COMMAND = "python benchmarks/refinement.py --write"
WORLDS = {
    "one weak": {"north": 30, "middle": 30, "south": 400},
    "unequal": {"north": 40, "middle": 120, "south": 400},
}
SEEDS = (0, 1, 2)
QUESTIONS = 480
"""Training questions in all, of both conditions."""
ROUNDS = 2
EPOCHS = 24
"""Passes over the first half of the questions, and over each round's rows."""
MEASURED_FACTS = 100
"""Facts of a domain that validation and test ask about, at most."""
PHRASINGS = (
    "what is {}",
    "tell me {}",
    "{} is what",
    "value of {}",
    "name {}",
    "look up {}",
    "give {}",
    "say {}",
)
VALUES = 32
SHORT = Sampling(max_new_tokens=4)
NO_HYGIENE = Hygiene(duplicate_threshold=1.0, ngram_words=0)
"""Questions differ by one word, the entity: only equal ones are duplicates."""


class World:
    """Facts of the domains, and the questions about them.

    Args:
        sizes: Facts by domain.
        seed: Seed of the facts and of all draws.
    """

    def __init__(self, sizes: Mapping[str, int], seed: int) -> None:
        self.sizes = sizes
        self._random = random.Random(f"{seed}/world")
        self.facts: dict[str, dict[str, str]] = {}
        for domain, size in sizes.items():
            entities = [f"{domain}-{number}" for number in range(size)]
            self.facts[domain] = {
                entity: f"v{self._random.randrange(VALUES)}" for entity in entities
            }
        self.pools = {domain: self._pool(domain) for domain in sizes}
        self.validation = self._measured(1)
        self.test = self._measured(0)

    def question(self, domain: str, entity: str, phrasing: int) -> Example:
        """Returns the question about a fact in one of its phrasings."""
        return Example(
            query=PHRASINGS[phrasing].format(entity),
            domains=(domain,),
            parts=(Part(domain=domain, answers=(self.facts[domain][entity],)),),
        )

    def _kept_phrasing(self, entity: str, place: int) -> int:
        """Returns the phrasing in which test (0) or validation (1) asks about an entity; over all
        entities, every phrasing is trained on.
        """
        return (int(entity.rpartition("-")[2]) + place) % len(PHRASINGS)

    def _pool(self, domain: str) -> list[Example]:
        """Returns all questions of a domain that may be trained on, in the order in which a
        generator comes upon them.
        """
        found = []
        for entity in self.facts[domain]:
            kept = {self._kept_phrasing(entity, place) for place in (0, 1)}
            for phrasing in range(len(PHRASINGS)):
                if phrasing not in kept:
                    found.append(self.question(domain, entity, phrasing))
        self._random.shuffle(found)
        return found

    def _measured(self, place: int) -> list[Example]:
        found = []
        for domain, known in self.facts.items():
            entities = self._random.sample(sorted(known), min(MEASURED_FACTS, len(known)))
            for entity in entities:
                found.append(self.question(domain, entity, self._kept_phrasing(entity, place)))
        return found

    def experts(self) -> dict[str, ScriptedModel]:
        """Returns the experts: each knows every fact of its domain, and nothing else."""
        return {domain: _expert(domain, known) for domain, known in self.facts.items()}


def _expert(domain: str, known: Mapping[str, str]) -> ScriptedModel:
    def answer(question: str) -> str:
        said = [known[word] for word in question.split() if word in known]
        return said[0] if said else "unknown"

    return ScriptedModel(answer, name=domain)


class Pool(DataGenerator):
    """Gives so many questions of each domain at first, and of each round so many as a share says,
    placed by its focus.

    Args:
        pools: The questions by domain, in the order in which they are given.
        first: How many of each domain are given at first.
        each_round: How many are given in a round.
    """

    has_more = True

    def __init__(
        self, pools: Mapping[str, Sequence[Example]], first: Mapping[str, int], each_round: int
    ) -> None:
        self._pools = pools
        self.first = dict(first)
        self.each_round = each_round

    def generate(self, ask: Ask = ask_directly, *, focus: Focus | None = None) -> list[Example]:
        """Returns the next questions of each domain."""
        wanted = self.first
        given = set()
        if focus is not None:
            apportioned = focus.apportion(self.each_round, list(self._pools), most=1)
            wanted = {domains[0]: count for domains, count in apportioned.items()}
            given = {example.id for example in focus.earlier}
        found = []
        for domain, count in wanted.items():
            fresh = [example for example in self._pools[domain] if example.id not in given]
            found += fresh[:count]
        return found


def write_student(folder: Path, entities: Sequence[str], seed: int) -> None:
    """Writes a Llama of random weights whose tokens are the bytes, the entities and the values."""
    values = [f"v{n}" for n in range(VALUES)]
    write_llama(folder, byte_tokenizer([*entities, *values]), 64, seed)


def trial(
    world: World, base: Path, directory: Path, seed: int, *, refined: bool, first: Mapping[str, int]
) -> dict[str, Any]:
    """Returns what a student knows in the end, and what it took.

    Args:
        world: Facts and questions.
        base: The untrained student.
        directory: Where the run is kept.
        seed: Seed of the run.
        refined: Whether rounds come after the first questions.
        first: First questions by domain.
    """
    rounds = ROUNDS if refined else 0
    each_round = QUESTIONS // 2 // ROUNDS
    # A round trains as many earlier records as new ones, so refinement trains
    # (1/2 + 2 · 1/2) · QUESTIONS · EPOCHS rows: one and a half times QUESTIONS · EPOCHS.
    epochs = EPOCHS if refined else EPOCHS * 3 // 2
    trainer = MultiTaskTrainer(
        learning_rate=3e-3,
        epochs=epochs,
        batch_size=16,
        adaptation="full",
        initialization="base",
        evaluation_steps=10_000,
        execution=ExecutionSettings(checkpoint_steps=10_000),
    )
    distiller = Distiller(
        LlamaModel(base, dtype="float32"),
        world.experts(),
        [Pool(world.pools, first, each_round)],
        trainer,
        seed=seed,
        output_dir=directory,
        data=DataSettings(validation_examples=world.validation, hygiene=NO_HYGIENE),
        settings=RunSettings(response_sampling=SHORT, refinement_rounds=rounds),
    )
    began = time.process_time()
    student = distiller.distill()
    seconds = time.process_time() - began
    files = StageFiles(directory)
    refinement = read_refinement(files)
    made = [files, *(files.round(entry.number) for entry in refinement.rounds)]
    records = [record for each in made for record in read_records(each.records, TrainingRecord)]
    return {
        "accuracy": accuracy(student, world.test),
        "questions": dict(Counter(record.example.primary_domain for record in records)),
        "rows": len(records) * epochs + sum(entry.replayed * epochs for entry in refinement.rounds),
        "rounds": len(refinement.rounds),
        "kept": len(refinement.kept),
        "cpu_seconds": seconds,
    }


def accuracy(student: Any, examples: Sequence[Example]) -> dict[str, float]:
    """Returns the share of right answers by domain; an answer is right if it is the value alone."""
    answers = student.generate([user(example.query) for example in examples], SHORT)
    grades: dict[str, list[float]] = {}
    for example, answer in zip(examples, answers, strict=True):
        is_right = answer.text.strip() == example.parts[0].answers[0]
        grades.setdefault(example.primary_domain, []).append(float(is_right))
    return {domain: mean(values) for domain, values in grades.items()}


def measure() -> list[dict[str, Any]]:
    """Returns all trials."""
    found = []
    for name, sizes in WORLDS.items():
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                found += _of_seed(name, World(sizes, seed), Path(folder), seed)
    return found


def _of_seed(name: str, world: World, folder: Path, seed: int) -> list[dict[str, Any]]:
    entities = [entity for known in world.facts.values() for entity in known]
    base = folder / "base"
    write_student(base, entities, seed)
    evenly = {domain: QUESTIONS // len(world.sizes) for domain in world.sizes}
    half = {domain: count // 2 for domain, count in evenly.items()}
    found = []
    for condition, first in {"plain": evenly, "refined": half}.items():
        refined = condition == "refined"
        outcome = trial(world, base, folder / condition, seed, refined=refined, first=first)
        found.append({"world": name, "seed": seed, "condition": condition, **outcome})
        print(json.dumps(found[-1]), flush=True)
    return found


def as_markdown(results: Mapping[str, Any]) -> str:
    """Shows the trials as a table: means over the seeds, with the lowest and the highest."""
    lines = ["# What refinement is worth", "", *_about(results), ""]
    for world, sizes in WORLDS.items():
        facts = ", ".join(f"{domain} {size}" for domain, size in sizes.items())
        lines += [f"## World `{world}`: facts {facts}", ""]
        names = [*sizes, "mean of domains", "questions by domain", "rows", "kept", "CPU seconds"]
        lines += [f"| condition | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
        own = [one for one in results["trials"] if one["world"] == world]
        for condition in dict.fromkeys(one["condition"] for one in own):
            trials = [one for one in own if one["condition"] == condition]
            lines.append(f"| {condition} | {' | '.join(_cells(trials, list(sizes)))} |")
        lines.append("")
    return "\n".join(lines)


def _cells(trials: Sequence[Mapping[str, Any]], domains: Sequence[str]) -> list[str]:
    cells = [_range([one["accuracy"][domain] for one in trials]) for domain in domains]
    cells.append(_range([mean(one["accuracy"].values()) for one in trials]))
    counts = [
        f"{mean(one['questions'].get(domain, 0) for one in trials):.0f}" for domain in domains
    ]
    rounds = sum(one["rounds"] for one in trials)
    return [
        *cells,
        " + ".join(counts),
        f"{mean(one['rows'] for one in trials):,.0f}",
        f"{sum(one['kept'] for one in trials)} of {rounds}" if rounds else "–",
        f"{mean(one['cpu_seconds'] for one in trials):.0f}",
    ]


def _range(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def _about(results: Mapping[str, Any]) -> list[str]:
    about = results["about"]
    return [
        "`refinement.py` says what the conditions are. Accuracy on test questions; means over the"
        " seeds, with the lowest and the highest.",
        f"`{COMMAND}`, seeds {', '.join(map(str, SEEDS))}, {about['date']}, {about['machine']}, one"
        f" thread, torch {about['torch']}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="replace the results beside this file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    machine = f"{os.cpu_count()} cores ({platform.system()} {platform.machine()})"
    about = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine,
        "torch": version("torch"),
    }
    results = {"about": about, "trials": measure()}
    print(as_markdown(results))
    if given.write:
        write_text(HERE / "refinement.json", json.dumps(results, indent=1) + "\n")
        write_text(HERE / "refinement.md", as_markdown(results))


if __name__ == "__main__":
    main()
