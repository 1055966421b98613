"""Whether the student lost general ability against its base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from domainfusion.distillation.results import Answer, Estimate, ModelResult, Regression
from domainfusion.distillation.statistics import FEW, Bootstrap, most_probable_share

Verdict = Literal["no measurable loss", "loss", "not enough data"]


def regression(
    slice_name: str,
    places: Sequence[int],
    student: ModelResult,
    base: ModelResult | None,
    tolerance: float,
    bootstrap: Callable[[Sequence[int]], Bootstrap],
) -> Regression:
    """Compares the student with its base on the items that both were graded on.

    Args:
        slice_name: The benchmark's slice.
        places: Where its items are among the answers.
        student: The student.
        base: The base; None where it was not measured.
        tolerance: The loss up to which none is spoken of.
        bootstrap: Resamples the items at the given places.
    """

    def unknown(reason: str) -> Regression:
        return Regression(
            slice=slice_name,
            items=0,
            student=None,
            base=None,
            difference=Estimate(value=None, reason=reason),
            tolerance=tolerance,
            verdict="not enough data",
        )

    if base is None:
        return unknown("the base was not measured")
    graded = [place for place in places if student.answers[place].score is not None and base.answers[place].score is not None]
    if not graded:
        return unknown("no answer could be graded")
    mine, before = ([_score(model.answers[place]) for place in graded] for model in (student, base))
    difference = bootstrap(graded).mean([after - earlier for after, earlier in zip(mine, before, strict=True)])
    return Regression(
        slice=slice_name,
        items=len(graded),
        student=sum(mine) / len(mine),
        base=sum(before) / len(before),
        difference=difference,
        tolerance=tolerance,
        verdict=_verdict(difference, mine, before, tolerance),
    )


def _verdict(difference: Estimate, mine: Sequence[float], before: Sequence[float], tolerance: float) -> Verdict:
    if difference.value is None or difference.low is None or difference.high is None:
        return "not enough data"
    items = len(mine)
    lost = sum(after < earlier for after, earlier in zip(mine, before, strict=True))
    gained = sum(after > earlier for after, earlier in zip(mine, before, strict=True))
    low, high = difference.low, difference.high
    if lost < FEW:
        low = min(low, difference.value - (most_probable_share(lost, items) - lost / items))
    if gained < FEW:
        high = max(high, difference.value + (most_probable_share(gained, items) - gained / items))
    if high < 0:
        return "loss"
    return "no measurable loss" if low >= -tolerance else "not enough data"


def _score(answer: Answer) -> float:
    return answer.score or 0.0
