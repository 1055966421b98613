"""The merge: the experts' own sentences in one answer, what is repeated said once, and what lost a conflict left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from domainfusion.distillation.integration.planning import Plan
from domainfusion.distillation.integration.reading import Claim
from domainfusion.distillation.integration.settling import Point
from domainfusion.types import Contribution

_ITEM = re.compile(r"(?:[-*•–]|\d{1,2}[.)])\s")
"""The mark of a list's item."""


class Rendered(NamedTuple):
    """A merged answer.

    Attributes:
        text: The answer.
        contributions: Where the experts' words stand in it.
    """

    text: str
    contributions: tuple[Contribution, ...]


def render(plan: Plan) -> Rendered:
    """Returns the answer that states, word for word, the claims that a plan states; where experts disagree, it says so."""
    point_of = {claim.id: each.point for each in plan.open_points for claim in each.point.claims}
    text = ""
    contributions: list[Contribution] = []
    told: list[Point] = []
    previous: Claim | None = None

    def add(claim: Claim, beginning: str) -> None:
        nonlocal text, previous
        between = "" if previous is None else "\n" if _is_item(claim) or _is_item(previous) else " "
        text += between + beginning
        contributions.append(Contribution(domain=claim.domain, text=claim.quote, start=len(text), end=len(text) + len(claim.quote)))
        text += claim.quote
        previous = claim

    for claim in plan.stated:
        point = point_of.get(claim.id)
        if point is None:
            add(claim, "")
        elif point not in told:
            told.append(point)
            for number, side in enumerate(point.sides):
                add(side[0], f"{'' if number else 'The experts disagree. '}{_speakers(side)}: ")
    return Rendered(text, tuple(contributions))


def _is_item(claim: Claim) -> bool:
    return _ITEM.match(claim.quote) is not None


def _speakers(side: Sequence[Claim]) -> str:
    names = list(dict.fromkeys(claim.domain for claim in side))
    return f"According to {' and '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)}"
