"""What a metric is: a function of a text or, where that is not enough, something that asks models
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from typing_extensions import Protocol, runtime_checkable

from domainfusion.models.base import LanguageModel
from domainfusion.models.store import Ask
from domainfusion.types import Example, Generation, Sampling, Score

AccuracyMetric = Callable[[Example, str], Score]
"""Grades an answer to an example. A metric of your own is any function of this shape."""

CoherenceMetric = Callable[[str], Score]
"""Grades how well a text holds together. A metric of your own is any function of this shape."""


class Graded(NamedTuple):
    """An answer and its grade."""

    generation: Generation
    score: Score

    @property
    def correct(self) -> bool | None:
        """Whether every part is right; None where there is no grade."""
        if self.score.value is None:
            return None
        return all(part >= 1 for part in self.score.parts or (self.score.value,))


@runtime_checkable
class BatchMetric(Protocol):
    """Grades many answers together: a metric that runs or asks a model of its own, such as a
    judge.
    """

    def grade_all(
        self, examples: Sequence[Example], texts: Sequence[str], *, ask: Ask
    ) -> list[Score]:
        """Returns the grade of each example's text, in order; a model is asked through `ask`."""
        ...


@runtime_checkable
class BatchCoherence(Protocol):
    """Grades the coherence of many texts together."""

    def grade_all(self, texts: Sequence[str], *, ask: Ask) -> list[Score]:
        """Returns the grade of each text, in order; a model is asked through `ask`."""
        ...


@runtime_checkable
class ModelMetric(Protocol):
    """Needs the model that is measured, and not only what it wrote: multiple choice by likelihood
    asks for probabilities.
    """

    def ask_and_grade(
        self,
        model: LanguageModel,
        examples: Sequence[Example],
        *,
        sampling: Sampling,
        ask: Ask,
        label: str = "",
    ) -> list[Graded]:
        """Puts each example to the model in the metric's own way, and returns what counts as its
        answer with the grade, in order.
        """
        ...


Metric = AccuracyMetric | BatchMetric | ModelMetric

MetricChoice = Metric | str | Mapping[str, Metric | str]
"""A metric, the name of one, or one for each domain; `grade` says how they go together."""
