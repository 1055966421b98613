"""What the tests of taught objectives share: records with their integrators, ways to die, and
distributions computed here and now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distillation.builders import record
from domainfusion.models import LlamaModel
from domainfusion.models.base import LanguageModel, TrainableModel
from domainfusion.progress import Advance
from domainfusion.training.batching import encode_record
from domainfusion.training.objectives import Objective, Setting
from domainfusion.types import Conversation, Integration, TrainingRecord, user

QUICK: dict[str, Any] = {
    "learning_rate": 3e-3,
    "epochs": 2,
    "batch_size": 2,
    "checkpoint_steps": 2,
    "adaptation": "lora",
}
SHOWN = user("The experts say: Japan. Au. What is the answer?")
"""What the integrator was asked."""


def cross_domain(model: LanguageModel, messages: Conversation = SHOWN) -> TrainingRecord:
    """Returns a record of two domains that `model` integrated."""
    own = record("Where is NRT, and the symbol of gold?", "Japan. Au.", ("aviation", "chemistry"))
    integration = Integration(
        text=own.target, method="model", messages=messages, model=model.fingerprint
    )
    return replace(own, integration=integration)


def some_records(integrator: LanguageModel) -> list[TrainingRecord]:
    """Returns one record of aviation, two of chemistry, and one of both."""
    return [
        record("Where is NRT?", "Japan, near Tokyo."),
        record("The symbol of gold?", "Au.", ("chemistry",)),
        record("The symbol of iron?", "The symbol Fe stands for iron.", ("chemistry",)),
        cross_domain(integrator),
    ]


def begun(
    objective: Objective,
    base: LlamaModel,
    teachers: Any,
    records: Sequence[TrainingRecord],
    directory: Path,
    **more: Any,
) -> dict[str, Any]:
    """Makes an objective ready, and returns what it logs."""
    rows = {encode_record(own, base): own for own in records}
    return dict(
        objective.begin(
            Setting(student=base, records=rows, directory=directory, teachers=teachers, **more)
        )
    )


def log_distributions(
    model: Any, conversation: Conversation, answer: Sequence[int], temperature: float = 1.0
) -> torch.Tensor:
    """Returns what a model finds probable at an answer, computed here and now, of shape (answer
    tokens, vocabulary).
    """
    prompt = model.encode(conversation)
    (hidden,) = model.hidden_states([[*prompt, *answer]])
    found: torch.Tensor = (model.project(hidden[len(prompt) - 1 : -1]) / temperature).log_softmax(
        -1
    )
    return found


def same(first: TrainableModel, second: TrainableModel) -> bool:
    """Whether two students have the same weights, to the bit."""
    one, other = first.trained_state(), second.trained_state()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Killed(BaseException):
    """What stops a process at any instant."""


def dying_after(count: int, label: str = "") -> Callable[..., Any]:
    """A display of progress that kills whatever it shows under `label` after `count` pieces."""
    left = count

    @contextmanager
    def progress(shown: str, total: int, done: int = 0) -> Iterator[Advance]:
        def advance(number: int) -> None:
            nonlocal left
            left -= number if shown.startswith(label) else 0
            if left < 0:
                raise Killed

        yield advance

    return progress
