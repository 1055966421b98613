"""The weight of the experts in the merge that a student starts from, chosen by what the merge alone
reaches on validation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from domainfusion.distillation.trainer.choices import Choices
from domainfusion.errors import TrainingError
from domainfusion.models.base import TrainableModel
from domainfusion.training.loop import Validate
from domainfusion.types import Conversation, Message, TrainingRecord

MERGE_WEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""The weights λ that `merge_weight="auto"` tries."""

CHOICE = "merge_weight"


READ_FOR_MERGE = 64
"""Answers of each expert that it reads for a RegMean merge."""


def answered_by(
    experts: Collection[str], records: Sequence[TrainingRecord]
) -> dict[str, list[Conversation]]:
    """Returns some dialogues of each expert: what it was asked, and what it answered.

    Args:
        experts: The domains.
        records: All that is trained on; the first whole answers of each expert are taken, evenly
            spread over them.
    """
    found: dict[str, list[Conversation]] = {domain: [] for domain in experts}
    for record in records:
        for response in record.responses:
            if (
                response.domain in found
                and response.text.strip()
                and response.finish_reason == "stop"
            ):
                answer = Message("assistant", response.text)
                found[response.domain].append(
                    (*record.example.conversation_for(response.domain), answer)
                )
    return {
        domain: own[:: max(1, len(own) // READ_FOR_MERGE)][:READ_FOR_MERGE]
        for domain, own in found.items()
    }


def choose_merge_weight(
    merged: Callable[[float], TrainableModel],
    weights: Sequence[float],
    validate: Validate,
    choices: Choices,
) -> float:
    """Returns the weight λ whose merge θ + λ·Σ(θₖ − θ) has the best mean score; of equals, the
    smallest.

    Args:
        merged: Returns the merge of a weight.
        weights: What is tried.
        validate: Scores a model on held-out examples.
        choices: Keeps the scores of every merge, and the choice.

    Raises:
        TrainingError: The validation gives no score.
    """
    if (made := choices.made(CHOICE)) is not None:
        return float(made)

    def reached(weight: str) -> dict[str, float]:
        scores = dict(validate(merged(float(weight))))
        if not scores:
            raise TrainingError(
                "merge_weight is chosen by validation, which gives no score",
                fix="give validation examples with answers",
            )
        return scores

    return float(
        choices.make(CHOICE, [f"{weight:g}" for weight in sorted(set(weights))], reached, _best)
    )


def _best(measured: Mapping[str, Any]) -> float:
    return float(
        max(measured, key=lambda weight: sum(measured[weight].values()) / len(measured[weight]))
    )
