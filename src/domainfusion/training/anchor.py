"""An anchor to the start: what the student found probable before it was trained holds it back from going far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from domainfusion.errors import ConfigurationError
from domainfusion.models.base import TokenScorer, TrainableModel
from domainfusion.models.generation import in_evaluation
from domainfusion.progress import Progress
from domainfusion.training.batching import Batch, Row, collate
from domainfusion.training.distributions import HiddenTargets
from domainfusion.training.losses import Taught, answer_hidden_states, token_losses
from domainfusion.training.objectives import Answers, Losses, Objective
from domainfusion.training.precision import mixed_precision
from domainfusion.training.teacher_signals import SignalStore
from domainfusion.types import fingerprint


class Anchor:
    """The start of a student: its distributions at the answers of some rows, as final hidden states in a folder and one head.

    Args:
        directory: The folder; what is in it is not computed again.
    """

    def __init__(self, directory: Path) -> None:
        self._store = SignalStore(directory)

    def drop(self, student: TrainableModel, rows: Sequence[Row], *, batch_size: int, progress: Progress) -> None:
        """Keeps what the student, as it is now, finds probable at the answers of the rows, where that is not kept already.

        Args:
            student: The student before its first step.
            rows: What it will be trained on.
            batch_size: Rows that go through the model at once.
            progress: Shows the rows.
        """
        missing = sorted({row for row in rows if _key(row) not in self._store}, key=lambda row: len(row.tokens))
        if not missing:
            return
        assert isinstance(student, TokenScorer)
        head = self._store.keep_head(student.head())
        module = student.trainable_module()
        with progress("reading the start", len(missing)) as advance, torch.no_grad(), in_evaluation(module), mixed_precision(module.device):
            for at in range(0, len(missing), batch_size):
                part = missing[at : at + batch_size]
                padded = collate(part, 0)
                batch: Batch = {"input_ids": padded["input_ids"].to(module.device), "labels": padded["labels"].to(module.device)}
                hidden, _ = answer_hidden_states(module, batch)
                for row, states in zip(part, torch.split(hidden.cpu(), [len(row.answer) for row in part]), strict=True):
                    self._store.keep(_key(row), head, {"hidden": states})
                if self._store.is_full:
                    self._store.flush()
                advance(len(part))
        self._store.flush()

    def distributions(self, rows: Sequence[Row], device: torch.device) -> HiddenTargets:
        """Returns what the start finds probable at the answer tokens of the rows."""
        hidden = torch.cat([self._store.read(_key(row))["hidden"] for row in rows]).to(device)
        return HiddenTargets([(hidden, self._store.head(_key(rows[0]), device), 1.0)])


def _key(row: Row) -> str:
    return fingerprint([row.tokens, row.prompt_length])


class AnchoredObjective(Objective):
    """Another objective, plus β·KL(start‖student) at every answer token.

    Args:
        objective: The other one.
        anchor: The start.
        weight: β.

    Raises:
        ConfigurationError: The objective trains on other rows than those it is given, which the start has not read.
    """

    def __init__(self, objective: Objective, anchor: Anchor, weight: float) -> None:
        if type(objective).rows is not Objective.rows:
            raise ConfigurationError(
                "An anchor holds at the targets, and this objective trains on what the student writes",
                received=type(objective).__name__,
                fix="leave the anchor out, or take objective='sequence' or 'distribution'",
            )
        self.begin, self.begin_phase = objective.begin, objective.begin_phase  # type: ignore[method-assign]
        self._objective, self._anchor, self._weight = objective, anchor, weight

    def losses(self, answers: Answers) -> Losses:
        """Returns the other objective's losses and the divergence from the start."""
        found = self._objective.losses(answers)
        start = self._anchor.distributions(answers.rows, answers.hidden.device)
        places = torch.arange(len(answers.targets), device=answers.hidden.device)
        taught = Taught(places, start, answers.head.vocabulary_size)
        held = token_losses(answers.hidden, answers.head, answers.targets, answers.weights, taught=[taught])
        return Losses(found.total + self._weight * held.total, {**found.terms, "anchor": held.divergence})
