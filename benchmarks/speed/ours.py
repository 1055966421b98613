"""Our side of the speed benchmark: trainers of domainfusion as anyone would call them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from setting import (
    GOAL,
    SEED,
    TEACHER,
    Race,
    RaceOver,
    Referee,
    Stopwatch,
    Turns,
    Unending,
    base_model,
    experts,
    step_examples,
)

from domainfusion.demo.run import ANSWER
from domainfusion.distillation.data_generation import CuratedDataGenerator
from domainfusion.distillation.distiller import Distiller
from domainfusion.distillation.trainer import IntegrationTrainer, MultiTaskTrainer, Trainer
from domainfusion.models import HuggingFaceModel, LlamaModel
from domainfusion.models.base import Adaptation, TrainableModel
from domainfusion.training import distributed, loop
from domainfusion.training.batching import Row
from domainfusion.training.objectives import Answers, Losses
from domainfusion.training.on_policy import OnPolicyObjective
from domainfusion.types import Example, Integration, TrainingRecord


class WatchedObjective(OnPolicyObjective):
    """`on_policy` as it is, which notes what was written, and what it cost."""

    def __init__(self, written: list[dict[str, Any]], **settings: Any) -> None:
        super().__init__(**settings)
        self._written, self._is_step = written, False

    def rows(self, rows: Sequence[Row], step: int, student: TrainableModel) -> Sequence[Row]:
        """Notes the step's rows."""
        found = super().rows(rows, step, student)
        self._is_step = step >= 0  # before the first step a pilot looks at the student
        if self._is_step:
            self._written.append({"rows": [[row.prompt, row.answer] for row in found], "loss": 0.0})
        return found

    def losses(self, answers: Answers) -> Losses:
        """Adds to the step's loss."""
        found = super().losses(answers)
        if self._is_step:
            self._written[-1]["loss"] += float(found.total)  # a step may take several passes
        return found


def records_of(examples: Sequence[Example]) -> list[TrainingRecord]:
    """Returns records whose targets are never read: on-policy learning makes its own."""
    return [
        TrainingRecord(
            example=example, responses=(), integration=Integration(text="-", method="single")
        )
        for example in examples
    ]


def on_policy(
    *,
    adaptation: str,
    teacher: str,
    dtype: str,
    tokens: int,
    batch: int,
    steps: int,
    directory: Path,
    written: list[dict[str, Any]],
    **more: Any,
) -> None:
    """Trains `steps` steps toward the one expert, from the experts' merge (LoRA) or from the base
    (full).
    """
    teachers = experts(dtype)
    if teacher == "merged":  # whole weights of its own: more memory, fewer products
        folder = directory.parent / "teacher"
        if not (folder / "config.json").is_file():
            teachers[TEACHER].save(folder)
        teachers[TEACHER] = LlamaModel(folder, name="merged expert", dtype=dtype)
    settings: dict[str, Any] = {"initialization": "base"}
    if adaptation == "lora":
        settings = {"initialization": "merge"}
    trainer = MultiTaskTrainer(
        learning_rate=more.pop("learning_rate"),
        epochs=more.pop("epochs"),
        batch_size=batch,
        evaluation_steps=1_000_000,
        checkpoint_steps=1_000_000,
        adaptation=adaptation,
        objective=WatchedObjective(written, max_new_tokens=tokens, max_initial_kl=None),
        **settings,
    )
    examples = step_examples()[: more.pop("examples", None)]
    trainer.train(
        base_model(dtype, Unending),
        records_of(examples),
        teachers=teachers,
        directory=directory,
        seed=SEED,
        **more,
    )


def save_start(folder: Path) -> None:
    """Writes the adapter that a LoRA student starts from, the experts' merge, for the other side to
    start from as well.
    """
    start = Adaptation(start_from=tuple(experts("float32").values()))
    base_model("float32").trainable_copy(start).save(folder, merge=False)


def losses(
    *,
    adaptation: str,
    teacher: str,
    tokens: int,
    batch: int,
    steps: int,
    directory: Path,
    into: Path,
) -> None:
    """Trains a few steps in float32, and keeps what was written, and its losses."""
    distributed.computes_in_bfloat16 = lambda device: False
    written: list[dict[str, Any]] = []
    on_policy(
        adaptation=adaptation,
        teacher=teacher,
        dtype="float32",
        tokens=tokens,
        batch=batch,
        steps=steps,
        directory=directory,
        written=written,
        learning_rate=1e-4,
        epochs=1,
        examples=batch * steps,
    )
    into.write_text(json.dumps(written), encoding="utf-8")


def turns(
    *,
    adaptation: str,
    teacher: str,
    dtype: str,
    tokens: int,
    batch: int,
    steps: int,
    rounds: int,
    warmup: int,
    directory: Path,
    pipe: TextIO,
) -> None:
    """Trains by turns, and tells after each how long it took and where the time went."""
    watch = Stopwatch()
    watch.wrap_common()
    watch.wrap(HuggingFaceModel, "continuations", "sampling")
    watch.wrap(OnPolicyObjective, "_let_read", "teacher")
    watch.wrap(loop, "answer_hidden_states", "student forward")
    watch.wrap(OnPolicyObjective, "losses", "heads and divergence")
    turn = Turns(steps, warmup, watch, pipe)
    written: list[dict[str, Any]] = []

    @contextmanager
    def progress(label: str, total: int, done: int = 0) -> Iterator[Any]:
        def advance(_: int) -> None:
            turn.rows += [
                {"prompt": len(prompt), "answer": len(answer)}
                for prompt, answer in written[-1]["rows"]
            ]
            turn.step_over()

        yield advance if label.startswith("training") else lambda _: None

    every = warmup + steps * rounds
    on_policy(
        adaptation=adaptation,
        teacher=teacher,
        dtype=dtype,
        tokens=tokens,
        batch=batch,
        steps=every,
        directory=directory,
        written=written,
        learning_rate=1e-4,
        epochs=math.ceil(every * batch / len(step_examples())),
        progress=progress,
    )


def race(
    *,
    questions: Race,
    of_experts: Mapping[str, float],
    dtype: str,
    rate: float,
    limit: float,
    every: int,
    epochs: int,
    on_policy: bool,
    directory: Path,
) -> dict[str, Any]:
    """Trains from the experts' merge: on their answers word for word, as the demo does, or on what
    the student writes itself.
    """
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
    settings |= {"adaptation": "lora", "initialization": "merge", "merge_weight": 1.0}
    trainer: Trainer
    if on_policy:  # nobody's answers are needed
        trainer = MultiTaskTrainer(
            objective=OnPolicyObjective(max_new_tokens=32, max_initial_kl=None), **settings
        )
        records = records_of(questions.train)
    else:
        trainer = IntegrationTrainer(**settings)
        generators = [CuratedDataGenerator(questions.train)]
        run = Distiller(
            base,
            teachers,
            generators,
            trainer,
            holdout=0.0,
            response_sampling=ANSWER,
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
            seed=SEED,
            progress=progress,  # type: ignore[arg-type]
        )
    except RaceOver:
        ended = "stopped"
    return {**referee.outcome(), "minutes_collecting": collected, "ended": ended, "goal": GOAL}
