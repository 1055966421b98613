"""What one model answered, and how it fared on each slice of the test set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from domainfusion.distillation.results.estimate import Estimate
from domainfusion.types import FinishReason

Role = Literal["student", "base", "expert", "merge", "oracle", "baseline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one model said to one example, and its grade.

    Attributes:
        example_id: The example.
        text: The answer.
        score: Mean grade of its parts, 0 to 1; None where it could not be graded.
        correct: Whether every part is right; None where it could not be graded.
        finish_reason: `length` where the answer was cut.
        reason: Why there is no grade.
        extracted: False where the answer has no grade because the metric found nothing in it to grade.
        repetitive: Whether the answer says one sequence of words over and over.
    """

    example_id: str
    text: str
    score: float | None
    correct: bool | None
    finish_reason: FinishReason = "stop"
    reason: str = ""
    extracted: bool = True
    repetitive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceScore:
    """One model on one slice of the test set.

    Attributes:
        items: Examples in the slice; 0 where the score was given and nobody said how many.
        strict: Share of the graded answers in which every part is right.
        partial: Mean share of right parts.
        unscored: Answers that could not be graded; they are in neither mean.
        truncated: Answers that were cut at the token limit.
        extraction_failures: Those of the unscored answers in which the metric found nothing to grade, such as no number.
        repetitive: Answers that say one sequence of words over and over.
        chance: Mean score of an answer drawn blindly; None where that is not known of every graded example.
    """

    items: int
    strict: Estimate
    partial: Estimate
    unscored: int = 0
    truncated: int = 0
    extraction_failures: int = 0
    repetitive: int = 0
    chance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResult:
    """One model on the whole test set.

    Attributes:
        name: `student`, `base`, `merge`, `oracle`, the domain of an expert, or the name of a baseline.
        role: What it is to the run.
        slices: Its score by slice: each domain, `cross-domain`, and whatever other slices the examples name.
        pairs: Its score by combination of domains, over the slice `cross-domain`; keys are like `aviation + chemistry`.
        adversarial: Its score by what an adversarial query looks like and needs; keys are like `aviation → chemistry`.
        answers: Its answers, in the order of the examples; empty for the oracle and for a baseline of given scores.
        given: Whether its scores were given, and not measured here.
    """

    name: str
    role: Role
    slices: Mapping[str, SliceScore]
    pairs: Mapping[str, SliceScore] = field(default_factory=dict)
    adversarial: Mapping[str, SliceScore] = field(default_factory=dict)
    answers: tuple[Answer, ...] = ()
    given: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeCase:
    """An adversarial query that the student does not get right: one at the border of two domains.

    Attributes:
        example_id: The example.
        apparent: The domain that it looks like.
        needed: The domain that it needs; several are joined, as in `aviation + chemistry`.
        experts_know: Whether the experts of the needed domains get it right between them; None where that could not be graded.
    """

    example_id: str
    apparent: str
    needed: str
    experts_know: bool | None
