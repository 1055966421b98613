"""How a model does on the validation examples: what checkpoints are chosen by, and where more data
is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domainfusion.distillation.examples import slice_of
from domainfusion.distillation.metrics import AccuracyMetric
from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask, ask_directly
from domainfusion.types import Example, Sampling


@dataclass(frozen=True)
class Validation:
    """The validation examples of a run. Called with a student, it returns the student's accuracy by
    slice.

    Attributes:
        examples: The examples.
        metric: Grades an answer.
        sampling: How models answer.
    """

    examples: Sequence[Example]
    metric: AccuracyMetric
    sampling: Sampling

    def __call__(self, student: LanguageModel) -> dict[str, float]:
        """Returns the mean grade of every slice that has one."""
        return self.by_slice(self.grades(student, self.examples))

    def grades(
        self,
        model: LanguageModel,
        examples: Sequence[Example],
        *,
        ask: Ask = ask_directly,
        label: str = "",
    ) -> list[float | None]:
        """Asks a model and grades its answers; None where it did not answer, or the metric could
        not grade.
        """
        answers = ask(
            model, [example.conversation for example in examples], self.sampling, label=label
        )
        return [
            None if answer.finish_reason == "failed" else self.metric(example, answer.text).value
            for example, answer in zip(examples, answers, strict=True)
        ]

    def by_slice(self, grades: Sequence[float | None]) -> dict[str, float]:
        """Returns the mean by slice of what was graded, of grades in the order of the examples."""
        found: dict[str, list[float]] = {}
        for example, grade in zip(self.examples, grades, strict=True):
            if grade is not None:
                found.setdefault(slice_of(example), []).append(grade)
        return {name: mean_of(values) for name, values in found.items()}


def mean_of(values: Sequence[float]) -> float:
    """Returns the mean; 0 of nothing."""
    return sum(values) / max(len(values), 1)
