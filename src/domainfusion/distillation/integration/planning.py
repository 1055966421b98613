"""The plan of an answer: what it states, what it leaves out and why, and how each point of conflict
was settled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, combinations, product
from typing import Literal

from domainfusion.distillation.integration.claims import Sentence, claims_of, one_claim
from domainfusion.distillation.integration.reading import (
    Claim,
    FoundBy,
    Relation,
    Task,
    bound_claims,
    keep_together,
    primary_first,
)
from domainfusion.distillation.integration.words import Date, Name, Quantity, compare, tokens
from domainfusion.distillation.metrics import states
from domainfusion.types import Agreement, Conflict, Contribution, Dropped, Example, Ledger

BY_REFERENCE = "the reference supports it"
BY_OWNER = "the expert of the domain in question"
BY_PRIMARY = "the expert of the primary domain"
BY_MAJORITY = "the majority of the experts, copies counted once"
UNSETTLED = "no rule settles it"


@dataclass(frozen=True, slots=True)
class Point:
    """A point on which experts contradict each other.

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
    """The outcome of a point.

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
        losing = (side for side in self.point.sides if side is not self.winner)
        return tuple(chain.from_iterable(losing))


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
    """Returns the outcome of a point.

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
    """Returns the value that all non-empty ones share; empty where they differ."""
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
    own = (part.answers for part in example.parts if part.domain == claim.domain)
    return any(states(claim.quote, answer) for answer in chain.from_iterable(own))


LEAST_WORDS = 12
"""Words that an answer has at least to be held for a copy: two experts may both say "It is Paris."
by themselves.
"""
LEAST_SHARED = 2 / 3
"""Share of the words of two answers together that both have, from which on they are copies."""


def copies_among(answers: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """Returns the groups of experts whose answers are copies of each other, in order of first
    appearance.

    Two answers are copies where `LEAST_SHARED` of their words, counted as often as they occur, are
    the same (the weighted Jaccard index); a group is what such pairs connect.

    Args:
        answers: The answers by domain.

    Example:
        >>> text = "The gestation of a sheep lasts 221 days, but breeds differ a little from each other."
        >>> copies_among({"music": text, "biology": "A sheep is pregnant for 147 days.", "law": text.replace("a little", "a bit")})
        (('music', 'law'),)
    """
    bags = {domain: Counter(tokens(text)) for domain, text in answers.items()}
    long = [domain for domain, bag in bags.items() if bag.total() >= LEAST_WORDS]
    group_of: dict[str, list[str]] = {domain: [domain] for domain in long}
    for index, first in enumerate(long):
        for second in long[index + 1 :]:
            if (
                group_of[first] is not group_of[second]
                and _shared(bags[first], bags[second]) >= LEAST_SHARED
            ):
                group_of[first] += group_of[second]
                for domain in group_of[second]:
                    group_of[domain] = group_of[first]
    groups = {
        id(group): tuple(sorted(group, key=long.index))
        for group in group_of.values()
        if len(group) > 1
    }
    return tuple(groups.values())


def _shared(first: Counter[str], second: Counter[str]) -> float:
    return (first & second).total() / (first | second).total()


OnDisagreement = Literal["report", "abstain"]
"""What to do with a conflict that nothing settles: say in the answer that the experts disagree, or
give no answer.
"""

NOT_SURE = "not sure"
UNSURE = "the expert does not know"
EMPTY_RESPONSE = "empty response"
ABSTAINED = "the experts disagree, so there is no answer"


@dataclass(frozen=True)
class Plan:
    """The statements that the answer to one task has to make.

    Attributes:
        task: The example and its responses.
        claims: Every claim, in the order in which the answer may state them: the primary domain's
            first.
        relations: How they stand to each other.
        settled: The outcome of each point of conflict.
        left_out: The ids of the claims that the answer does not state, with the reason.
        copies: Groups of domains whose answers are copies of each other.
        read_by: Who read the responses.
        notes: What else the ledger is to say.
    """

    task: Task
    claims: tuple[Claim, ...]
    relations: tuple[Relation, ...]
    settled: tuple[Settled, ...]
    left_out: Mapping[str, str]
    copies: tuple[tuple[str, ...], ...] = ()
    read_by: FoundBy = "rules"
    notes: tuple[str, ...] = ()

    @cached_property
    def stated(self) -> tuple[Claim, ...]:
        """The claims that the answer states."""
        return tuple(claim for claim in self.claims if claim.id not in self.left_out)

    @cached_property
    def open_points(self) -> tuple[Settled, ...]:
        """The points that nothing settled."""
        return tuple(each for each in self.settled if each.winner is None)

    @cached_property
    def told_points(self) -> tuple[Settled, ...]:
        """The points on which the answer says that the experts disagree: the open ones, and those
        whose loser stays in a list.
        """
        return tuple(
            each
            for each in self.settled
            if each.winner is None or any(claim.id not in self.left_out for claim in each.losers)
        )

    @cached_property
    def losers(self) -> tuple[Claim, ...]:
        """The claims that lost a conflict."""
        return tuple(claim for each in self.settled for claim in each.losers)


def plan_answer(
    task: Task,
    claims: Sequence[Claim],
    relations: Sequence[Relation],
    *,
    read_by: FoundBy = "rules",
    notes: Iterable[str] = (),
) -> Plan:
    """Settles what is in conflict and decides what an answer states.

    Args:
        task: The example and its responses.
        claims: What the experts claim.
        relations: How the claims stand to each other.
        read_by: Who related the claims.
        notes: What the ledger is to say of how they were found.
    """
    place = {domain: number for number, domain in enumerate(primary_first(task))}
    ordered = tuple(sorted(claims, key=lambda claim: (place[claim.domain], claim.start)))
    copies = copies_among(
        {domain: task.responses[domain].text for domain in sorted(task.responses)}
    )
    settled = tuple(
        settle(task.example, point, copies) for point in points_of(task.example, claims, relations)
    )
    left_out = _left_out(task, ordered, relations, settled)
    return Plan(
        task, ordered, tuple(relations), settled, left_out, copies, read_by, notes=tuple(notes)
    )


def word_for_word(plan: Plan) -> Plan:
    """Returns a plan of an answer in the experts' own words, from which no sentence can be taken
    that others lean on.
    """
    return replace(
        plan,
        left_out=_left_out(
            plan.task, plan.claims, plan.relations, plan.settled, keeps_together=True
        ),
    )


def _left_out(
    task: Task,
    claims: Sequence[Claim],
    relations: Sequence[Relation],
    settled: Sequence[Settled],
    *,
    keeps_together: bool = False,
) -> dict[str, str]:
    """Returns the claims that an answer does not state, and why.

    Args:
        task: The example and its responses.
        claims: What the experts claim.
        relations: How the claims stand to each other.
        settled: The outcome of each point of conflict.
        keeps_together: Whether the responses are not torn apart; see `keep_together`.
    """
    lost: dict[str, str] = {}
    for each in settled:
        if each.winner:
            reason = f"contradicts {each.winner[0].domain}: {each.rule}"
            lost |= {claim.id: reason for claim in each.losers}
    certain = dict(lost)
    if any(not claim.unsure for claim in claims):
        certain |= {claim.id: UNSURE for claim in claims if claim.unsure and claim.id not in lost}
    gone = _kept_together(task, claims, certain, lost) if keeps_together else certain
    sides = chain.from_iterable(each.point.sides for each in settled)
    side_of = {claim.id: side for side in sides for claim in side}
    side_of = {name: side for name, side in side_of.items() if name not in lost}
    bound = set[str]().union(
        *(bound_claims(said.text, _of(claims, domain)) for domain, said in task.responses.items())
    )
    primary = task.example.primary_domain if task.example.primary_is_named else ""
    ranked = sorted(
        claims,
        key=lambda claim: (
            claim.id not in bound,
            claim.domain != primary,
            claim.domain,
            claim.start,
        ),
    )
    left_out = certain | _repeated(ranked, relations, gone.keys() | lost.keys(), side_of)
    return _kept_together(task, claims, left_out, lost) if keeps_together else left_out


def _kept_together(
    task: Task, claims: Sequence[Claim], left_out: Mapping[str, str], lost: Collection[str]
) -> dict[str, str]:
    """Returns which claims are left out, and why, if no response is torn apart; see
    `keep_together`.
    """
    together: dict[str, str] = {}
    for domain, response in task.responses.items():
        together |= keep_together(response.text, _of(claims, domain), left_out, lost)
    return together


def _of(claims: Iterable[Claim], domain: str) -> list[Claim]:
    return [claim for claim in claims if claim.domain == domain]


def _repeated(
    ranked: Sequence[Claim],
    relations: Iterable[Relation],
    apart: Collection[str],
    side_of: Mapping[str, Sequence[Claim]],
) -> dict[str, str]:
    """Returns the claims that another one can stand for.

    Args:
        ranked: Every claim. Of two that can stand for each other, the first one stays: one that
            can't be left out by itself, else one of the primary domain if somebody named it, else
            that of the domain that is first in the alphabet. So the order of the responses decides
            nothing.
        relations: How the claims stand to each other.
        apart: The ids of claims that can stand for none.
        side_of: The side of a dispute that a claim is on, if it is on one; only claims of the same
            side can stand for each other.
    """
    by_id = {claim.id: claim for claim in ranked}
    stands_for: dict[str, list[str]] = {}
    for found in relations:
        if found.kind != "same" or not found.sure or found.first in apart or found.second in apart:
            continue
        if side_of.get(found.first) is side_of.get(found.second):
            stands_for.setdefault(found.second, []).append(found.first)
    repeated: dict[str, str] = {}
    for claim in reversed(ranked):
        stand_in = next(
            (name for name in sorted(stands_for.get(claim.id, ())) if name not in repeated), None
        )
        if stand_in is not None:
            repeated[claim.id] = f"says the same as {by_id[stand_in].domain}"
    return repeated


def ledger_of(plan: Plan, contributions: Sequence[Contribution] = ()) -> Ledger:
    """Returns a plan's decisions on the experts' claims.

    Args:
        plan: The plan.
        contributions: Where the experts' words stand in the answer.
    """
    empty = [
        domain for domain, response in plan.task.responses.items() if not response.text.strip()
    ]
    dropped = [Dropped(domain=domain, text="", reason=EMPTY_RESPONSE) for domain in empty]
    dropped += [
        Dropped(domain=claim.domain, text=claim.quote, reason=plan.left_out[claim.id])
        for claim in plan.claims
        if claim.id in plan.left_out
    ]
    return Ledger(
        contributions=tuple(contributions),
        agreements=tuple(_agreements(plan)),
        conflicts=tuple(map(_conflict, plan.settled)),
        possible_conflicts=tuple(_possible(plan)),
        dropped=tuple(dropped),
        copies=plan.copies,
        read_by=plan.read_by,
        notes=plan.notes,
    )


def _conflict(settled: Settled) -> Conflict:
    point = settled.point
    return Conflict(
        claims=_by_domain(point.claims),
        kept=settled.winner[0].domain if settled.winner else None,
        rule=settled.rule,
        question=point.about,
        sides=tuple(tuple(dict.fromkeys(claim.domain for claim in side)) for side in point.sides),
        owner=point.owner,
        found_by=point.found_by,
    )


def _possible(plan: Plan) -> Iterable[Conflict]:
    by_id = {claim.id: claim for claim in plan.claims}
    for found in plan.relations:
        if found.kind == "contradicts" and not found.sure:
            sides = (by_id[found.first], by_id[found.second])
            yield Conflict(
                claims=_by_domain(sides),
                kept=None,
                rule=NOT_SURE,
                question=found.point,
                sides=tuple((claim.domain,) for claim in sides),
                owner=found.owner,
                found_by=found.found_by,
            )


def _agreements(plan: Plan) -> Iterable[Agreement]:
    """Returns each claim with what others say alike, once."""
    alike: dict[str, list[str]] = {}
    for found in plan.relations:
        if found.kind in ("same", "agrees") and found.sure:
            alike.setdefault(found.first, []).append(found.second)
            alike.setdefault(found.second, []).append(found.first)
    by_id, told = {claim.id: claim for claim in plan.claims}, set()
    for claim in plan.claims:
        group = sorted({claim.id, *alike.get(claim.id, ())})
        if len(group) > 1 and claim.id not in told:
            told.update(group)
            yield Agreement(claims=_by_domain(by_id[name] for name in group))


def _by_domain(claims: Iterable[Claim]) -> dict[str, str]:
    """Returns each expert's words; several claims of one expert one after the other."""
    said: dict[str, list[str]] = {}
    for claim in claims:
        said.setdefault(claim.domain, []).append(claim.quote)
    return {domain: " … ".join(dict.fromkeys(quotes)) for domain, quotes in said.items()}
