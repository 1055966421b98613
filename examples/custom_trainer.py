"""Extension point 2: a trainer of your own, here a curriculum from short answers to long ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from domainfusion.distillation import Phase, Trainer
from domainfusion.models import LlamaModel
from domainfusion.types import Example, Integration, Sampling, TrainingRecord, user
from tiny_model import make_tiny_llama

ANSWERS = {
    "What is the symbol of gold?": "Au.",
    "What is the symbol of iron?": "Fe.",
    "How do planes fly?": "Wings turn air down.",
    "Why is the sky blue?": "Air scatters blue.",
}


class CurriculumTrainer(Trainer):
    """Two phases: first the shorter half of the targets, then all of them."""

    def __init__(self, *, first_share: float = 0.5, **settings: Any) -> None:
        super().__init__(**settings)
        self.first_share = first_share

    def phases(self, records: Sequence[TrainingRecord]) -> list[Phase]:
        """Returns the phases; the loop, checkpoints and resuming are the trainer's."""
        by_length = sorted(records, key=lambda record: len(record.target))
        first = by_length[: max(1, round(self.first_share * len(records)))]
        return [
            Phase(name="short", records=tuple(first)),
            Phase(name="all", records=tuple(by_length)),
        ]


def main() -> None:
    records = [
        TrainingRecord(
            example=Example(query=query, domains=("facts",)),
            responses=(),
            integration=Integration(text=answer, method="given"),
        )
        for query, answer in ANSWERS.items()
    ]
    with TemporaryDirectory() as folder:
        base = LlamaModel(sys.argv[1] if len(sys.argv) > 1 else make_tiny_llama(Path(folder)))
        trainer = CurriculumTrainer(learning_rate=5e-3, epochs=100, batch_size=4, adaptation="full")
        for phase in trainer.phases(records):
            print(f"phase {phase.name!r}: {len(phase.records)} records")
        student = trainer.train(base, records)
        answers = student.generate([user(query) for query in ANSWERS], Sampling(max_new_tokens=40))
        for query, answer in zip(ANSWERS, answers, strict=True):
            print(f"{query}  {answer.text}")


if __name__ == "__main__":
    main()
