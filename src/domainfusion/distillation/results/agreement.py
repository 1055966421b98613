"""How far the student agrees with an expert where nobody says what is right."""

from __future__ import annotations

from dataclasses import dataclass

from domainfusion.distillation.results.estimate import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement with the domain's expert on examples that have no reference. It says nothing about who is right.

    Attributes:
        slice: The slice of the test set; over `cross-domain` examples, the mean over their experts.
        measure: What was measured: the name of the similarity, `claim coverage` or `judge`.
        items: Examples measured.
        student: Mean agreement of the student's answers with the expert's.
        expert: Mean agreement of a second answer of the expert's, drawn at a temperature, with its first: the most that can be asked.
        base: Mean agreement of the student before training; None where it was not measured.
        relative: student / expert, a ratio of means over the same items.
        unscored: Examples on which the measure found nothing to compare; they are in no mean.
    """

    slice: str
    measure: str
    items: int
    student: Estimate
    expert: Estimate
    base: Estimate | None
    relative: Estimate
    unscored: int = 0
