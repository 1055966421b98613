"""What `objective: likelihood` is worth beside `sequence`, with a teacher of another tokenizer.

A world of made-up people: where each lives and what each makes, by names of syllables. The teacher
and the student are small Llamas from random weights whose tokenizers were learned apart, with
vocabularies of 600 and 320 tokens. The teacher is trained on right answers in three wordings, in
four phrasings of each question; it then answers the questions of two phrasings, and each student
learns from these answers and no others. All students of a seed start from the same weights and see
the same rows as often. Tested are two phrasings that nobody was trained on.

One learning rate for both objectives: a better one for either was not looked for.

    python benchmarks/likelihood.py --write

writes `likelihood.json` and `likelihood.md` beside this file; without `--write` it prints. Each
seed is a process of its own.
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
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch

from domainfusion.distillation import (
    ExecutionSettings,
    LikelihoodObjective,
    MultiTaskTrainer,
    Objective,
)
from domainfusion.models import LlamaModel
from domainfusion.records import write_text
from domainfusion.types import Example, Integration, Message, Sampling, TrainingRecord, user
from tiny_llama import learned_tokenizer, write_llama

HERE = Path(__file__).parent
COMMAND = "python benchmarks/likelihood.py --write"
SEEDS = (0, 1, 2)
PEOPLE = 32
PLACES, CRAFTS = 16, 16
QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "home": (
        "Where does {} live?",
        "What is the home of {}?",
        "In which town is {} at home?",
        "Name the town of {}.",
        "Say where {} lives.",
        "The home of {} is where?",
    ),
    "craft": (
        "What does {} make?",
        "What is the craft of {}?",
        "Which goods are made by {}?",
        "Name the goods of {}.",
        "Say what {} makes.",
        "The goods of {} are what?",
    ),
}
ANSWERS: Mapping[str, tuple[str, ...]] = {
    "home": ("{who} lives in {what}.", "It is {what}.", "The home of {who} is {what}."),
    "craft": ("{who} makes {what}.", "It is {what}.", "The goods of {who} are {what}."),
}
TAUGHT, LEARNED, TESTED = (0, 1, 2, 3), (0, 1), (4, 5)
"""Phrasings that the teacher is trained on, that the student is, and of the test."""
TEACHER_TOKENS, STUDENT_TOKENS = 600, 320
TEACHER_EPOCHS, STUDENT_EPOCHS = 24, 40
RATE = 3e-3
CONDITIONS: Mapping[str, float | None] = {
    "sequence": None,
    "likelihood": 0.5,
}
"""The share of the divergence in the loss; None is `sequence`."""
SHORT = Sampling(max_new_tokens=32)


class Fact(NamedTuple):
    """Who, what is asked of them, and what is right."""

    who: str
    asked: str
    value: str


class World:
    """Facts, questions and right answers.

    Args:
        seed: Seed of names and facts.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"{seed}/world")
        self._taken: set[str] = set()
        people = [self._name(3) for _ in range(PEOPLE)]
        values = {
            "home": [self._name(2) for _ in range(PLACES)],
            "craft": [self._name(2).lower() for _ in range(CRAFTS)],
        }
        self.facts = [
            Fact(who, asked, self._random.choice(values[asked]))
            for who in people
            for asked in QUESTIONS
        ]

    def _name(self, syllables: int) -> str:
        while True:
            parts = [self._random.choice("bdfgklmnprstvz") for _ in range(syllables)]
            vowels = [self._random.choice("aeiou") for _ in range(syllables)]
            name = "".join(map("".join, zip(parts, vowels, strict=True))).capitalize()
            if name not in self._taken:
                self._taken.add(name)
                return name

    def right_answer(self, fact: Fact) -> str:
        """Returns a right answer in one of the wordings."""
        wording = self._random.choice(ANSWERS[fact.asked])
        return wording.format(who=fact.who, what=fact.value)

    def questions(self, phrasings: Sequence[int]) -> list[tuple[Fact, str]]:
        """Returns the questions about all facts in these phrasings."""
        found = []
        for fact in self.facts:
            for phrasing in phrasings:
                found.append((fact, QUESTIONS[fact.asked][phrasing].format(fact.who)))
        return found

    def corpus(self) -> list[str]:
        """Returns texts to learn a tokenizer from: all questions that are trained on, answered."""
        return [f"{asked} {self.right_answer(fact)}" for fact, asked in self.questions(TAUGHT)]


def record(query: str, target: str) -> TrainingRecord:
    """Returns a record that has a student learn this answer."""
    return TrainingRecord(
        example=Example(query=query, domains=("people",)),
        responses=(),
        integration=Integration(text=target, method="given"),
    )


def trained(
    start: LlamaModel,
    records: Sequence[TrainingRecord],
    *,
    epochs: int,
    seed: int,
    objective: str | Objective = "sequence",
    teacher: LlamaModel | None = None,
) -> LlamaModel:
    """Trains a copy of a model on records."""
    trainer = MultiTaskTrainer(
        learning_rate=RATE,
        epochs=epochs,
        batch_size=16,
        adaptation="full",
        initialization="base",
        objective=objective,
        execution=ExecutionSettings(checkpoint_steps=10_000),
    )
    teachers = {} if teacher is None else {"people": teacher}
    found = trainer.train(start, records, teachers=teachers, seed=seed)
    assert isinstance(found, LlamaModel)
    return found


def measured(model: LlamaModel, world: World) -> dict[str, float]:
    """Returns what a model knows of the test questions.

    The accuracy is the share of answers that name the right value, and no other of its kind;
    `nats` are those of right answers in the three wordings together, a question: the negative
    logarithm of the probability of any of them.
    """
    asked = world.questions(TESTED)
    answers = model.generate([user(question) for _, question in asked], SHORT)
    values = {fact.value for fact in world.facts}
    right = 0
    for (fact, _), answer in zip(asked, answers, strict=True):
        words = {word.strip(".,") for word in answer.text.split()}
        right += words & values == {fact.value}
    conversations = []
    for fact, question in asked:
        for wording in ANSWERS[fact.asked]:
            text = wording.format(who=fact.who, what=fact.value)
            conversations.append((*user(question), Message("assistant", text)))
    totals = torch.tensor([one.total for one in model.score(conversations)])
    known = totals.view(len(asked), -1).logsumexp(-1)
    return {"accuracy": right / len(asked), "nats": float(-known.mean())}


def of_seed(seed: int) -> list[dict[str, Any]]:
    """Returns the outcomes of one seed: the teacher first, then every student."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        return _outcomes(seed, Path(folder))


def _outcomes(seed: int, folder: Path) -> list[dict[str, Any]]:
    world = World(seed)
    corpus = world.corpus()
    write_llama(folder / "teacher", learned_tokenizer(corpus, TEACHER_TOKENS), 128, seed)
    # Other merges: from other texts, and fewer.
    turned = [text[::-1] for text in corpus]
    write_llama(folder / "student", learned_tokenizer(turned, STUDENT_TOKENS), 128, seed)
    began = time.process_time()
    gold = [record(asked, world.right_answer(fact)) for fact, asked in world.questions(TAUGHT)]
    blank = LlamaModel(folder / "teacher", dtype="float32")
    teacher = trained(blank, gold, epochs=TEACHER_EPOCHS, seed=seed)
    found = [_outcome(seed, "teacher", measured(teacher, world), began)]
    asked = [question for _, question in world.questions(LEARNED)]
    answers = teacher.generate([user(question) for question in asked], SHORT)
    records = [
        record(question, answer.text)
        for question, answer in zip(asked, answers, strict=True)
        if answer.text
    ]
    start = LlamaModel(folder / "student", dtype="float32")
    for condition, alpha in CONDITIONS.items():
        began = time.process_time()
        student = trained(
            start,
            records,
            epochs=STUDENT_EPOCHS,
            seed=seed,
            objective="sequence" if alpha is None else LikelihoodObjective(alpha=alpha),
            teacher=teacher,
        )
        found.append(_outcome(seed, condition, measured(student, world), began))
    return found


def _outcome(
    seed: int, condition: str, figures: Mapping[str, float], began: float
) -> dict[str, Any]:
    outcome = {
        "seed": seed,
        "condition": condition,
        **figures,
        "cpu_seconds": round(time.process_time() - began, 1),
    }
    print(json.dumps(outcome), flush=True)
    return outcome


def as_markdown(results: Mapping[str, Any]) -> str:
    """Shows each objective at its best learning rate."""
    about, trials = results["about"], results["trials"]
    lines = [
        "# What `likelihood` is worth with a teacher of other tokens",
        "",
        "`likelihood.py` says what is compared. Means over the seeds, with the lowest and the highest.",
        f"`{COMMAND}`, seeds {', '.join(map(str, SEEDS))}, {about['date']}, {about['machine']}, one"
        f" thread, torch {about['torch']}.",
        "",
        "| | accuracy | nats of a right answer | CPU seconds |",
        "|---|---:|---:|---:|",
    ]
    for condition in ("teacher", *CONDITIONS):
        own = [one for one in trials if one["condition"] == condition]
        lines.append(
            f"| {condition} | {_range(own, 'accuracy')} | {_range(own, 'nats')} |"
            f" {mean(one['cpu_seconds'] for one in own):.0f} |"
        )
    differences = [
        _of(trials, seed, "likelihood") - _of(trials, seed, "sequence") for seed in SEEDS
    ]
    shown = ", ".join(f"{each:+.3f}" for each in differences)
    lines += ["", f"Accuracy of `likelihood` beyond that of `sequence`, by seed: {shown}.", ""]
    return "\n".join(lines)


def _of(trials: Sequence[Mapping[str, Any]], seed: int, condition: str) -> float:
    own = (one for one in trials if (one["seed"], one["condition"]) == (seed, condition))
    return float(next(own)["accuracy"])


def _range(trials: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [one[name] for one in trials]
    return f"{mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="replace the results beside this file")
    given = parser.parse_args()
    trials = []
    with ProcessPoolExecutor(len(SEEDS), mp_context=get_context("spawn")) as processes:
        for found in processes.map(of_seed, SEEDS):
            trials += found
    about = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores ({platform.system()} {platform.machine()})",
        "torch": version("torch"),
    }
    results = {"about": about, "trials": trials}
    print(as_markdown(results))
    if given.write:
        write_text(HERE / "likelihood.json", json.dumps(results, indent=1) + "\n")
        write_text(HERE / "likelihood.md", as_markdown(results))


if __name__ == "__main__":
    main()
