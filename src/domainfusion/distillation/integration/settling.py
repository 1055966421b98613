"""Settling: which of two claims that can't both be right stands, and why. No order of experts or
domains decides anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from domainfusion.distillation.integration.claims import Sentence, claims_of, one_claim
from domainfusion.distillation.integration.reading import Claim, FoundBy, Relation
from domainfusion.distillation.integration.values import Date, Name, Quantity, compare
from domainfusion.distillation.metrics import states
from domainfusion.types import Example

BY_REFERENCE = "the reference supports it"
BY_OWNER = "the expert of the domain in question"
BY_PRIMARY = "the expert of the primary domain"
BY_MAJORITY = "the majority of the experts, copies counted once"
UNSETTLED = "no rule settles it"


@dataclass(frozen=True, slots=True)
class Point:
    """What experts contradict each other on.

    Attributes:
        about: What it is, in a few words; empty where that is not known.
        owner: The domain that it belongs to; empty where that is not known.
        sides: The claims, those that agree with each other together.
        found_by: Who found it.
    """

    about: str
    owner: str
    sides: tuple[tuple[Claim, ...], ...]
    found_by: FoundBy

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Every claim of it."""
        return tuple(claim for side in self.sides for claim in side)


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a point.

    Attributes:
        point: The point.
        winner: The side that stands; None where nothing settles it.
        rule: The rule that settled it, or that none did.
    """

    point: Point
    winner: tuple[Claim, ...] | None
    rule: str

    @property
    def losers(self) -> tuple[Claim, ...]:
        """The claims that lost; empty where nothing settles the point."""
        if self.winner is None:
            return ()
        return tuple(
            claim for side in self.point.sides if side is not self.winner for claim in side
        )


def points_of(
    example: Example, claims: Sequence[Claim], relations: Sequence[Relation]
) -> list[Point]:
    """Joins relations into points: what contradicts each other, directly or through others, is one
    point.

    Only sure relations count. A side of a point is what its members say alike, and all that one
    expert says on it. Where a claim is said both to agree with another one and to contradict it,
    the contradiction counts. A contradiction in which every side states what its own part of the
    reference wants is none.
    """
    sure = [found for found in relations if found.sure]
    disputes = [found for found in sure if found.kind == "contradicts"]
    against = {frozenset((found.first, found.second)) for found in disputes}
    alike = sorted(
        (found.first, found.second) for found in sure if found.kind in ("same", "agrees")
    )
    points = []
    for members in _connected(sorted(map(sorted, against))):
        said = [claim for claim in claims if claim.id in members]
        of_one_expert = [
            (one.id, other.id) for one, other in combinations(said, 2) if one.domain == other.domain
        ]
        found = [each for each in disputes if each.first in members]
        sides = tuple(
            tuple(claim for claim in said if claim.id in side)
            for side in _sides(members, [*of_one_expert, *alike], against)
        )
        points.append(
            Point(
                _only(each.point for each in found),
                _only(each.owner for each in found),
                sides,
                found[0].found_by,
            )
        )
    return [
        point for point in points if len(point.sides) > 1 and not _are_all_right(example, point)
    ]


def settle(example: Example, point: Point, copies: Sequence[Collection[str]]) -> Settled:
    """Returns what becomes of a point.

    In this order: the reference, where it supports one side alone; the expert of the domain that
    the point belongs to, or of the primary domain, if somebody named one; the majority, copies
    counted once.

    Args:
        example: What was asked, with its reference if there is one.
        point: The point.
        copies: Groups of domains whose answers are copies of each other.
    """
    supported = [
        side for side in point.sides if any(supports(example, claim.quote) for claim in side)
    ]
    if len(supported) == 1:
        return Settled(point, supported[0], BY_REFERENCE)
    owner, rule = (point.owner, BY_OWNER) if point.owner else (_named_primary(example), BY_PRIMARY)
    heard = [side for side in point.sides if any(claim.domain == owner for claim in side)]
    if len(heard) == 1:
        return Settled(point, heard[0], rule)
    votes = [_witnesses(side, copies) for side in point.sides]
    if votes.count(max(votes)) == 1:
        return Settled(point, point.sides[votes.index(max(votes))], BY_MAJORITY)
    return Settled(point, None, UNSETTLED)


def _connected(pairs: Iterable[Sequence[str]]) -> list[set[str]]:
    """Returns the groups that pairs connect."""
    groups: list[set[str]] = []
    for pair in pairs:
        touched = [group for group in groups if not group.isdisjoint(pair)]
        groups = [group for group in groups if group not in touched] + [set(pair).union(*touched)]
    return groups


def _sides(
    members: Collection[str], alike: Iterable[Sequence[str]], against: Collection[frozenset[str]]
) -> list[set[str]]:
    """Joins members that are alike into sides, but never two that contradict each other."""
    side_of = {member: {member} for member in sorted(members)}
    for one, other in alike:
        if one not in side_of or other not in side_of or side_of[one] is side_of[other]:
            continue
        if any(frozenset(pair) in against for pair in product(side_of[one], side_of[other])):
            continue
        side_of[one] |= side_of[other]
        for member in side_of[one]:
            side_of[member] = side_of[one]
    return list({id(side): side for side in side_of.values()}.values())


def _only(texts: Iterable[str]) -> str:
    """Returns what all say who say something; empty where they differ."""
    said = {text for text in texts if text}
    return said.pop() if len(said) == 1 else ""


def _named_primary(example: Example) -> str:
    return example.primary_domain if example.primary_is_named else ""


def _witnesses(side: Sequence[Claim], copies: Sequence[Collection[str]]) -> int:
    """Returns how many experts make a claim, those that copy each other counted once."""
    domains = {claim.domain for claim in side}
    return len(domains) - sum(max(0, len(domains & set(group)) - 1) for group in copies)


# What a reference supports


def supports(example: Example, text: str) -> bool:
    """Whether the reference of an example states what a text states, in whatever unit, format or
    name.
    """
    claim = one_claim("", text, 0, is_alone=True)
    return any(
        states(text, answer) or states(answer, text) or _restates(claim, answer)
        for answer in _accepted(example)
    )


def _accepted(example: Example) -> list[str]:
    answers = [answer for part in example.parts for answer in part.answers]
    return answers or ([example.reference] if example.reference else [])


def _restates(claim: Sentence, reference: str) -> bool:
    for known in claims_of("reference", reference):
        is_alike = (
            not known.words
            or known.words & claim.words
            or any(is_stated(name, claim) for name in known.of_kind(Name))
        )
        if is_alike and any(is_stated(value, claim) for value in telling(known)):
            return True
        if known.all_words and known.all_words == claim.all_words and known.denies == claim.denies:
            return True
    return False


def telling(claim: Sentence) -> list[Quantity | Date | Name]:
    """Returns the values that say most in a sentence: quantities and dates, else names."""
    return [*claim.of_kind(Quantity), *claim.of_kind(Date)] or list(claim.names)


def is_stated(value: Quantity | Date | Name, claim: Sentence) -> bool:
    """Whether a sentence states a value, in whatever unit, format or name."""
    return any(compare(value, found.value) == "same" for found in claim.values)


def _are_all_right(example: Example, point: Point) -> bool:
    """Whether every side is what its own part of the reference wants, so that there is nothing to
    settle.
    """
    return all(any(_is_right_of_its_own(example, claim) for claim in side) for side in point.sides)


def _is_right_of_its_own(example: Example, claim: Claim) -> bool:
    own = [
        answer for part in example.parts if part.domain == claim.domain for answer in part.answers
    ]
    return any(states(claim.quote, answer) for answer in own)
