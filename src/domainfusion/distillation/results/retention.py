"""How much of each expert the student kept, and whether that settles that it keeps enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from domainfusion.distillation.results.estimate import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class NonInferiority:
    """Whether the student keeps at least a given share of its expert.

    Attributes:
        margin: The share that it has to keep.
        verdict: `yes` where the lower end of the interval of DER reaches the margin, `no` where the upper end stays below it,
            `not enough data` where the margin lies inside, `undefined` where DER is.
        low: The lower end that was held against the margin; None where DER is undefined.
        high: The upper end.
        more_items: About how many more test items, like those at hand, would settle it with a probability of 80 % if the share is as
            it was measured; None where it is settled, or no number of items would.
        method: How the verdict and the number of items came about.
    """

    margin: float
    verdict: Literal["yes", "no", "not enough data", "undefined"]
    low: float | None = None
    high: float | None = None
    more_items: int | None = None
    method: str = ""

    def __str__(self) -> str:
        if self.verdict != "not enough data":
            return self.verdict
        return f"not enough data, about {self.more_items:,} more items needed" if self.more_items else "not enough data"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRetention:
    """How much of one expert the student kept, on the test examples of that expert's domain alone.

    Attributes:
        domain: The domain.
        items: Examples that both were graded on.
        student: Accuracy of the student.
        expert: Accuracy of the domain's expert.
        base: Accuracy of the student before training; None where it was not measured.
        retention: DER, student / expert, a ratio of means over the same items; undefined where the expert knows nothing.
        headroom: Share of what there was to learn, (student − base) / (expert − base); undefined where the interval of
            expert − base includes 0.
        chance: Mean score of an answer drawn blindly; None where that is not known of every item.
        chance_corrected: (student − chance) / (expert − chance); undefined where the interval of expert − chance includes 0, None
            where chance is not known.
        non_inferiority: Whether the student keeps enough of its expert; None in reports of earlier versions.
    """

    domain: str
    items: int
    student: float | None
    expert: float | None
    base: float | None
    retention: Estimate
    headroom: Estimate
    chance: float | None = None
    chance_corrected: Estimate | None = None
    non_inferiority: NonInferiority | None = None
