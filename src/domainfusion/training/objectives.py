"""Objectives: the losses with which a student is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from domainfusion.models.base import LanguageModel, TrainableModel
from domainfusion.models.projection import Head
from domainfusion.progress import Progress, silent
from domainfusion.training.batching import Row
from domainfusion.training.losses import token_losses
from domainfusion.types import TrainingRecord


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The models and data that an objective may look at before the first step.

    Attributes:
        student: The student as it was given; what is trained is a copy.
        records: All that is trained on, by the row that it becomes.
        teachers: The expert of each domain.
        integrator: The model that wrote the targets of cross-domain records; None where none did.
        directory: Where the objective may keep files; they are there when the training is resumed.
        seed: Seed of all that is random.
        progress: Shows how far long work is.
    """

    student: TrainableModel
    records: Mapping[Row, TrainingRecord]
    directory: Path
    teachers: Mapping[str, LanguageModel] = field(default_factory=dict)
    integrator: LanguageModel | None = None
    seed: int = 0
    progress: Progress = silent


@dataclass(frozen=True, eq=False)
class Answers:
    """What the student computed where a batch's answers are predicted.

    Attributes:
        hidden: Final hidden states, of shape (answer tokens, hidden), with a gradient.
        head: What turns them into logits: `head.logits(hidden)`.
        targets: The tokens that the answers have there, of shape (answer tokens,).
        weights: What each token counts in the loss, of shape (answer tokens,).
        rows: The batch's rows; their answer tokens follow each other in this order.
    """

    hidden: torch.Tensor
    head: Head
    targets: torch.Tensor
    weights: torch.Tensor
    rows: tuple[Row, ...]

    def weighted(self, **terms: torch.Tensor) -> Losses:
        """Returns the losses whose terms, each of shape (answer tokens,), are summed with the
        tokens' weights.
        """
        total = sum((self.weights * term).sum() for term in terms.values())
        return Losses(torch.as_tensor(total), {name: term.detach() for name, term in terms.items()})


@dataclass(frozen=True, eq=False)
class Losses:
    """The losses of a batch.

    Attributes:
        total: What is minimized, a scalar with a gradient.
        terms: For the log, what it is made of: one figure per answer token, without gradient or
            weight, of shape (answer tokens,); NaN where a token has no such term.
    """

    total: torch.Tensor
    terms: Mapping[str, torch.Tensor]


class Objective(ABC):
    """The loss with which a student is trained. An objective of your own implements `losses`;
    public attributes are its settings.

    A trainer calls `begin` once, and in each optimizer step `losses`, once for each of its passes.

    Attributes:
        allows_threads: Whether `losses` may be called by several threads at once. A class says so
            of itself; it is not inherited.

    Example:
        ```python
        class Smoothed(Objective):
            def losses(self, answers):
                log_q = answers.head.logits(answers.hidden).log_softmax(-1)
                likelihood = log_q.gather(-1, answers.targets[:, None])[:, 0]
                return answers.weighted(cross_entropy=-0.9 * likelihood, smoothing=-0.1 * log_q.mean(-1))


        trainer = IntegrationTrainer(objective=Smoothed())
        ```
    """

    allows_threads: ClassVar[bool] = False

    def begin(self, setting: Setting) -> Mapping[str, Any]:
        """Makes ready what is needed before the first step; what it returns goes into the
        training's log.
        """
        return {}

    @abstractmethod
    def losses(self, answers: Answers) -> Losses:
        """Returns the loss that is minimized on a batch."""


class SequenceObjective(Objective):
    """Cross-entropy on the targets (sequence-level distillation, Kim and Rush, 2016, arXiv
    1606.07947).
    """

    allows_threads = True

    def losses(self, answers: Answers) -> Losses:
        """Returns the cross-entropy of the batch's answer tokens."""
        found = token_losses(answers.hidden, answers.head, answers.targets, answers.weights)
        return Losses(found.total, {"cross_entropy": found.cross_entropy})


class Tally:
    """Adds up the loss terms of answer tokens until they are taken."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, tuple[float, int]]] = {}
        self._tokens: dict[str, int] = {}

    @classmethod
    def over(cls, tallies: Sequence[Tally]) -> Tally:
        """Returns the sum of several tallies."""
        whole = cls()
        for tally in tallies:
            for domain, sums in tally._sums.items():
                whole._tokens[domain] = whole._tokens.get(domain, 0) + tally._tokens[domain]
                for name, (total, count) in sums.items():
                    before = whole._sums.setdefault(domain, {}).get(name, (0.0, 0))
                    whole._sums[domain][name] = before[0] + total, before[1] + count
        return whole

    def add(self, rows: Sequence[Row], terms: Mapping[str, torch.Tensor]) -> None:
        """Adds the terms of a batch.

        Args:
            rows: The batch's rows, whose answer tokens follow each other.
            terms: One figure per answer token, of shape (answer tokens,); NaN where a token has no
                such term.
        """
        lengths = [len(row.answer) for row in rows]
        figures = {
            name: torch.split(term.detach().double().cpu(), lengths) for name, term in terms.items()
        }
        for place, row in enumerate(rows):
            self._tokens[row.domain] = self._tokens.get(row.domain, 0) + lengths[place]
            sums = self._sums.setdefault(row.domain, {})
            for name, parts in figures.items():
                total, count = sums.get(name, (0.0, 0))
                sums[name] = (
                    total + float(parts[place].nansum()),
                    count + int((~parts[place].isnan()).sum()),
                )

    def take(self) -> dict[str, Any]:
        """Returns the means per token since it was last taken: `terms` over all, `domains` by
        domain with their answer tokens.

        A term that no token has is left out: it is not zero.
        """
        totals: dict[str, tuple[float, int]] = {}
        for sums in self._sums.values():
            for name, (total, count) in sums.items():
                before = totals.get(name, (0.0, 0))
                totals[name] = before[0] + total, before[1] + count
        domains = {
            domain: {"tokens": self._tokens[domain], **_means(sums)}
            for domain, sums in sorted(self._sums.items())
        }
        self._sums, self._tokens = {}, {}
        return {"terms": _means(totals), "domains": domains}


def _means(sums: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    return {name: total / count for name, (total, count) in sums.items() if count}
