"""What the tests of taught objectives share: records with their integrators, ways to die, and
distributions computed here and now.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distillation.builders import record
from domainfusion.distillation.trainer import ExecutionSettings
from domainfusion.models import LlamaModel
from domainfusion.models.base import LanguageModel, TrainableModel
from domainfusion.models.projection import head_of
from domainfusion.progress import Advance
from domainfusion.training.batching import collate, encode_record
from domainfusion.training.losses import answer_hidden_states
from domainfusion.training.objectives import Answers, Losses, Objective, Setting
from domainfusion.types import Conversation, Integration, TrainingRecord, user

QUICK: dict[str, Any] = {
    "learning_rate": 3e-3,
    "epochs": 2,
    "batch_size": 2,
    "execution": ExecutionSettings(checkpoint_steps=2),
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


def losses_of(objective: Objective, base: LlamaModel, records: Sequence[TrainingRecord]) -> Losses:
    """Returns the losses of the untrained student on these records, every token weighing 1."""
    module = base.trainable_copy(None).trainable_module()
    rows = tuple(encode_record(own, base) for own in records)
    hidden, targets = answer_hidden_states(module, collate(rows, 0))
    return objective.losses(
        Answers(hidden, head_of(module), targets, torch.ones(len(targets)), rows)
    )


def tails_of(
    expert: LlamaModel, base: LlamaModel, records: Sequence[TrainingRecord], count: int
) -> torch.Tensor:
    """Returns the divergence at each answer token that is left out where only the `count` most
    probable tokens are told apart: by the chain rule of KL, the share of the tail times the
    divergence inside it.
    """
    tails = []
    for own in records:
        row = encode_record(own, base)
        log_p, log_q = (
            log_distributions(model, own.example.conversation, row.answer)
            for model in (expert, base)
        )
        answer = torch.tensor(row.answer)[:, None]
        if count == base.vocabulary_size:
            tails.append(torch.zeros(len(answer)))
            continue
        # The answer's own token comes first, then the most probable others.
        others = log_p.scatter(-1, answer, -math.inf).topk(count - 1).indices
        kept = torch.cat([answer, others], -1)
        p_rest, q_rest = (each.scatter(-1, kept, -math.inf) for each in (log_p, log_q))
        share = p_rest.logsumexp(-1)
        p_given, q_given = p_rest.log_softmax(-1), q_rest.log_softmax(-1)
        inside = torch.where(
            p_given.isneginf(), torch.zeros_like(p_given), p_given.exp() * (p_given - q_given)
        )
        tails.append(share.exp() * inside.nansum(-1))
    return torch.cat(tails)


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
