"""Our side of the speed benchmark: trainers of domainfusion as anyone would call them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from setting import (
    GOAL,
    Race,
    RaceOver,
    Referee,
    base_model,
    experts,
)

from domainfusion import merging
from domainfusion.demo.run import ANSWER
from domainfusion.distillation.data_generation import CuratedDataGenerator
from domainfusion.distillation.distiller import Distiller
from domainfusion.distillation.settings import DataSettings, RunSettings
from domainfusion.distillation.trainer import IntegrationTrainer, MergeSettings
from domainfusion.models.base import Adaptation
from domainfusion.models.placement import DataType
from domainfusion.types import Message, user

PROMPTS = 60
"""Questions of each domain that are answered for the merge."""


def save_start(folder: Path) -> None:
    """Writes the adapter that a LoRA student starts from, the experts' merge, for the other side to
    start from as well.
    """
    start = Adaptation(start_from=tuple(experts("float32").values()))
    base_model("float32").trainable_copy(start).save(folder, merge=False)


def race(
    *,
    questions: Race,
    of_experts: Mapping[str, float],
    dtype: DataType,
    rate: float,
    limit: float,
    every: int,
    epochs: int,
    seed: int,
    directory: Path,
) -> dict[str, Any]:
    """Trains from the sum of the experts on their answers word for word, as the demo does."""
    base, teachers = base_model(dtype), experts(dtype)
    base._load()  # loading a model is on neither side's clock
    for teacher in teachers.values():
        teacher._load()
    referee = Referee(questions, of_experts, limit)
    settings: dict[str, Any] = {
        "learning_rate": rate,
        "epochs": epochs,
        "batch_size": 16,
        "evaluation_steps": every,
    }
    settings |= {
        "adaptation": "lora",
        "initialization": "merge",
        "merge": MergeSettings("sum", weight=1.0),
    }
    trainer = IntegrationTrainer(**settings)
    run = Distiller(
        base,
        teachers,
        [CuratedDataGenerator(questions.train)],
        trainer,
        data=DataSettings(holdout=0.0),
        settings=RunSettings(response_sampling=ANSWER),
        output_dir=directory / "run",
    )
    records = run.integrate(run.collect(run.generate()))
    collected = referee.seconds / 60
    done = 0

    @contextmanager
    def progress(label: str, total: int, already: int = 0) -> Iterator[Any]:
        def advance(steps: int) -> None:
            nonlocal done
            done += steps if label.startswith("training") else 0

        yield advance

    def validate(student: Any) -> dict[str, float]:
        return referee.score(student, done)

    ended = "trained to its end"
    try:
        trainer.train(
            base,
            records,
            teachers=teachers,
            validate=validate,
            directory=directory / "training",
            seed=seed,
            progress=progress,  # type: ignore[arg-type]
        )
    except RaceOver:
        ended = "stopped"
    return {**referee.outcome(), "minutes_collecting": collected, "ended": ended, "goal": GOAL}


def race_of_merge(
    *,
    questions: Race,
    of_experts: Mapping[str, float],
    dtype: DataType,
    limit: float,
    seed: int,
    directory: Path,
) -> dict[str, Any]:
    """Asks the experts some of their questions, merges them as `merge` does by default, and trains
    nothing.
    """
    base, teachers = base_model(dtype), experts(dtype)
    base._load()
    for teacher in teachers.values():
        teacher._load()
    referee = Referee(questions, of_experts, limit)
    rng = random.Random(seed)
    read = {}
    for domain, teacher in teachers.items():
        own = [one.query for one in questions.train if one.primary_domain == domain]
        asked = rng.sample(own, PROMPTS)
        answers = teacher.generate([user(query) for query in asked], ANSWER)
        read[domain] = [
            (*user(query), Message("assistant", answer.text))
            for query, answer in zip(asked, answers, strict=True)
        ]
    merged = merging.merge(base, teachers, conversations=read)
    with suppress(RaceOver):
        referee.score(merged, 0)
    return {**referee.outcome(), "ended": "merged", "goal": GOAL}
