"""The weight of the experts in the merge that a student starts from, chosen by what the merge alone reaches on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from domainfusion.distillation.trainer.choices import Choices
from domainfusion.errors import TrainingError
from domainfusion.models.base import Adaptation, TrainableModel
from domainfusion.training.loop import Validate

MERGE_WEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""The weights λ that `merge_weight="auto"` tries."""

CHOICE = "merge_weight"


def choose_merge_weight(
    student: TrainableModel, start: Adaptation, weights: Sequence[float], validate: Validate, choices: Choices
) -> float:
    """Returns the weight λ whose merge θ + λ·Σ(θₖ − θ) has the best mean score; of equals, the smallest.

    Args:
        student: The base θ.
        start: The experts θₖ, and what is trained.
        weights: What is tried.
        validate: Scores a model on held-out examples.
        choices: Keeps the scores of every merge, and the choice.

    Raises:
        TrainingError: The validation gives no score.
    """
    if (made := choices.made(CHOICE)) is not None:
        return float(made)

    def reached(weight: str) -> dict[str, float]:
        scores = dict(validate(student.trainable_copy(replace(start, merge_weight=float(weight)))))
        if not scores:
            raise TrainingError("merge_weight is chosen by validation, which gives no score", fix="give validation examples with answers")
        return scores

    return float(choices.make(CHOICE, [f"{weight:g}" for weight in sorted(set(weights))], reached, _best))


def _best(measured: Mapping[str, Any]) -> float:
    return float(max(measured, key=lambda weight: sum(measured[weight].values()) / len(measured[weight])))
