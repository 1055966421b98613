"""Records, settings and comparisons that the tests of trainers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch

from distillation.builders import record
from domainfusion.distillation.trainer import (
    ExecutionSettings,
    IntegrationTrainer,
    MultiTaskTrainer,
    SequentialTrainer,
    Trainer,
)
from domainfusion.models import LlamaModel
from domainfusion.models.base import TrainableModel
from domainfusion.progress import Advance

FACTS = {
    "Where is NRT?": ("Japan.", ("aviation",)),
    "Where is CDG?": ("France.", ("aviation",)),
    "The symbol of gold?": ("Au.", ("chemistry",)),
    "The symbol of iron?": ("Fe.", ("chemistry",)),
    "Where is NRT, and the symbol of gold?": ("Japan. Au.", ("aviation", "chemistry")),
}
RECORDS = [record(query, target, domains) for query, (target, domains) in FACTS.items()]
QUICK: dict[str, Any] = {
    "learning_rate": 3e-3,
    "epochs": 2,
    "batch_size": 2,
    "execution": ExecutionSettings(checkpoint_steps=2),
}


@pytest.fixture(autouse=True)
def without_the_students_of_other_tests(base: LlamaModel) -> Iterator[None]:
    """Takes what a test trained off the base that all share: PEFT looks through every adapter at
    every turn.
    """
    yield
    shared = base._load()
    for name in [
        name
        for name in (shared.peft.peft_config if shared.peft else {})
        if name.startswith("student_")
    ]:
        shared.remove_adapter(name)


def same(first: TrainableModel, second: TrainableModel) -> bool:
    one, other = first.trained_state(), second.trained_state()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Going on


class Killed(BaseException):
    """What stops a process at any instant."""


def dying_after(steps: int) -> Callable[..., Any]:
    """A display of progress that kills the training after `steps` steps, over all phases."""
    left = steps

    @contextmanager
    def progress(label: str, total: int, done: int = 0) -> Iterator[Advance]:
        def advance(count: int) -> None:
            nonlocal left
            left -= count
            if left < 0:
                raise Killed

        yield advance

    return progress


CURRICULA: dict[str, Callable[..., Trainer]] = {
    "integration": IntegrationTrainer,
    "multi-task": partial(MultiTaskTrainer, shares={"aviation": 2, "chemistry": 1}),
    "sequential": partial(SequentialTrainer, replay=0.5),
}
