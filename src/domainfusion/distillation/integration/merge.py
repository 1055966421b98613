"""The merge: every expert's sentences in one answer, what is repeated said once, and conflicts settled by stated rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from domainfusion.distillation.integration.claims import LONGEST, MOST, Claim, claims_of
from domainfusion.distillation.integration.conflicts import Point, find_points
from domainfusion.distillation.integration.copies import copies_among
from domainfusion.distillation.integration.values import Date, Name, Quantity, compare, says_no_more
from domainfusion.distillation.integration.words import content
from domainfusion.distillation.metrics import normalize, states
from domainfusion.types import Agreement, Conflict, Contribution, Dropped, Example, Integration, Ledger, Response, Revision

OnDisagreement = Literal["report", "abstain", "first"]
"""What to do with a conflict that no rule settles: say in the answer that the experts disagree, give no answer, or take the first."""

BY_REFERENCE = "the reference supports it"
BY_OWNER = "the expert of the domain in question"
BY_PRIMARY = "the expert of the primary domain"
BY_MAJORITY = "the majority of the experts, copies counted once"
BY_ORDER = "the expert named first"
UNSETTLED = "no rule settles it"
SAID_BEFORE = "said before"
UNSURE = "the expert does not know"
EMPTY_RESPONSE = "empty response"


@dataclass(frozen=True, slots=True)
class Merged:
    """A merge, with what the check of a model's answer needs to know of it.

    Attributes:
        integration: The merged answer and its ledger.
        kept: The claims in it.
        lost: The claims that lost a conflict.
        points: What several experts state of the same thing.
    """

    integration: Integration
    kept: tuple[Claim, ...]
    lost: tuple[Claim, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class _Settled:
    point: Point
    winner: tuple[Claim, ...] | None
    rule: str


def merge(example: Example, responses: Mapping[str, Response], on_disagreement: OnDisagreement = "report") -> Integration:
    """Merges responses sentence by sentence, in their order; see `ResponseIntegrator`."""
    return merge_claims(example, responses, on_disagreement).integration


def merge_claims(example: Example, responses: Mapping[str, Response], on_disagreement: OnDisagreement = "report") -> Merged:
    """Merges responses and returns what they were taken apart into, too."""
    claims = {domain: claims_of(domain, response.text) for domain, response in responses.items()}
    copies = copies_among({domain: response.text for domain, response in responses.items()})
    points = [point for point in find_points(example, responses, claims) if not _are_all_right(example, point)]
    settled = [_settle(example, point, copies, on_disagreement) for point in points if point.is_disputed]
    dropped = [Dropped(domain=domain, text="", reason=EMPTY_RESPONSE) for domain, said in claims.items() if not said]
    lost = _lost(settled, claims)
    out = lost | _unsure(claims)
    open_points = [each for each in settled if each.winner is None]
    kept, repeated, agreements = _without_repeats(claims, points, out, open_points)
    dropped += [Dropped(domain=claim.domain, text=claim.text, reason=reason) for claim, reason in (*out.items(), *repeated.items())]
    text, contributions = _lay_out(kept, open_points)
    if on_disagreement == "abstain" and open_points:
        text, contributions = "", ()
        dropped += [Dropped(domain=claim.domain, text=claim.text, reason="the experts disagree, so there is no answer") for claim in kept]
    ledger = Ledger(
        contributions=contributions,
        agreements=tuple(agreements),
        conflicts=tuple(_conflict(each) for each in settled),
        dropped=tuple(sorted(dropped, key=lambda item: list(responses).index(item.domain))),
        copies=copies,
        revisions=tuple(_revisions(responses)),
        notes=tuple(_limits(claims)),
    )
    cut = any(response.finish_reason == "length" for response in responses.values())
    method = "single" if len(responses) == 1 else "merge"
    integration = Integration(text=text, method=method, ledger=ledger, finish_reason="length" if cut else "stop")
    return Merged(integration, tuple(kept), tuple(lost), tuple(points))


# Settling


def _settle(example: Example, point: Point, copies: Sequence[Sequence[str]], on_disagreement: OnDisagreement) -> _Settled:
    supported = [side for side in point.sides if any(_is_supported(example, claim) for claim in side)]
    if len(supported) == 1:
        return _Settled(point, supported[0], BY_REFERENCE)
    experts = point.owners or {example.primary_domain}
    heard = [side for side in point.sides if any(claim.domain in experts for claim in side)]
    if len(heard) == 1:
        return _Settled(point, heard[0], BY_OWNER if point.owners else BY_PRIMARY)
    votes = [_witnesses(side, copies) for side in point.sides]
    if votes.count(max(votes)) == 1:
        return _Settled(point, point.sides[votes.index(max(votes))], BY_MAJORITY)
    return _Settled(point, point.sides[0], BY_ORDER) if on_disagreement == "first" else _Settled(point, None, UNSETTLED)


def _witnesses(side: Sequence[Claim], copies: Sequence[Sequence[str]]) -> int:
    """Returns how many experts make a claim, those that copy each other counted once."""
    domains = {claim.domain for claim in side}
    return len(domains) - sum(max(0, len(domains & set(group)) - 1) for group in copies)


def _accepted(example: Example) -> list[str]:
    answers = [answer for part in example.parts for answer in part.answers]
    return answers or ([example.reference] if example.reference else [])


def _is_supported(example: Example, claim: Claim) -> bool:
    return any(states(claim.text, answer) or states(answer, claim.text) or _restates(claim, answer) for answer in _accepted(example))


def _restates(claim: Claim, reference: str) -> bool:
    """Whether a claim states a value of the reference in other words: in another unit or format, or by another name."""
    for known in claims_of("reference", reference):
        is_alike = not known.words or known.words & claim.words or any(_is_stated(name, claim) for name in known.of_kind(Name))
        if is_alike and any(_is_stated(value, claim) for value in _telling(known)):
            return True
        if known.all_words and known.all_words == claim.all_words and known.denies == claim.denies:
            return True
    return False


def _telling(claim: Claim) -> list[Quantity | Date | Name]:
    """Returns the values that say most in a claim: quantities and dates, else names."""
    return [*claim.of_kind(Quantity), *claim.of_kind(Date)] or list(claim.names)


def _is_stated(value: Quantity | Date | Name, claim: Claim) -> bool:
    return any(compare(value, found.value) == "same" for found in claim.values)


def _are_all_right(example: Example, point: Point) -> bool:
    """Whether every side is what its own part of the reference wants, so that there is nothing to settle."""
    if not point.is_disputed:
        return False
    return all(any(_is_right_of_its_own(example, claim) for claim in side) for side in point.sides)


def _is_right_of_its_own(example: Example, claim: Claim) -> bool:
    return any(states(claim.text, answer) for part in example.parts if part.domain == claim.domain for answer in part.answers)


def _conflict(settled: _Settled) -> Conflict:
    claims = {claim.domain: claim.text for claim in settled.point.claims}
    sides = tuple(tuple(claim.domain for claim in side) for side in settled.point.sides)
    kept = settled.winner[0].domain if settled.winner else None
    return Conflict(claims=claims, kept=kept, rule=settled.rule, question=settled.point.question, sides=sides)


# Leaving out


def _lost(settled: Iterable[_Settled], claims: Mapping[str, Sequence[Claim]]) -> dict[Claim, str]:
    """Returns the claims that lost a conflict, and the sentences in which their experts say the same once more."""
    out: dict[Claim, str] = {}
    for each in settled:
        if each.winner is None:
            continue
        reason = f"contradicts {each.winner[0].domain}: {each.rule}"
        for loser in (claim for side in each.point.sides if side is not each.winner for claim in side):
            again = (claim for claim in claims[loser.domain] if _says_again(claim, loser, each.winner[0]))
            out.update(dict.fromkeys([loser, *again], reason))
    return out


def _says_again(claim: Claim, loser: Claim, winner: Claim) -> bool:
    values = _telling(claim)
    if claim is loser or not values or not all(_is_stated(value, loser) for value in values):
        return False
    return not any(_is_stated(value, winner) for value in values)


def _unsure(claims: Mapping[str, Sequence[Claim]]) -> dict[Claim, str]:
    """Returns the sentences in which an expert says that he does not know, where another one has something to say."""
    unsure = [claim for said in claims.values() for claim in said if claim.is_unsure]
    return dict.fromkeys(unsure, UNSURE) if any(not claim.is_unsure for said in claims.values() for claim in said) else {}


def _without_repeats(
    claims: Mapping[str, Sequence[Claim]], points: Sequence[Point], out: Mapping[Claim, str], open_points: Sequence[_Settled]
) -> tuple[list[Claim], dict[Claim, str], list[Agreement]]:
    """Returns the claims that stay, the repeated ones with the reason, and what several experts agree on."""
    reported = {claim for each in open_points for claim in each.point.claims}
    agreed: dict[str, dict[str, str]] = {}
    repeated: dict[Claim, str] = {}
    for point in points:
        for number, side in enumerate(point.sides):
            stay = [claim for claim in side if claim not in out]
            if len(stay) > 1:
                agreed[f"{point.question} {number} {stay[0].text}"] = {claim.domain: claim.text for claim in stay}
            for claim in stay[1:]:
                if claim in reported or _adds_nothing(claim, stay[0], point):
                    repeated[claim] = f"says the same as {stay[0].domain}"
    kept: list[Claim] = []
    first: dict[str, Claim] = {}
    answers = {claim for point in points for claim in point.claims}
    for claim in (claim for said in claims.values() for claim in said):
        if claim in out or claim in repeated:
            continue
        wording = normalize(claim.bare).rstrip(".!")
        earlier = first.setdefault(wording, claim)
        if earlier is claim or claim in reported:
            kept.append(claim)
            continue
        repeated[claim] = SAID_BEFORE
        if earlier.domain != claim.domain and claim not in answers:
            agreed.setdefault(wording, {earlier.domain: earlier.text})[claim.domain] = claim.text
    return kept, repeated, [Agreement(claims=said) for said in agreed.values()]


def _adds_nothing(claim: Claim, earlier: Claim, point: Point) -> bool:
    """Whether a claim says in other words what an earlier one says, and nothing beyond it."""
    if normalize(claim.bare) == normalize(earlier.bare):
        return False  # it is a repetition, and recorded as one
    known = earlier.words | content(point.question)
    values = [found.value for found in claim.values if not (isinstance(found.value, Name) and found.value.is_initial)]
    return claim.words <= known and all(any(says_no_more(value, found.value) for found in earlier.values) for value in values)


# Laying out


def _lay_out(kept: Sequence[Claim], open_points: Sequence[_Settled]) -> tuple[str, tuple[Contribution, ...]]:
    point_of = {claim: each.point for each in open_points for claim in each.point.claims}
    text = ""
    contributions: list[Contribution] = []
    told: list[Point] = []
    previous: Claim | None = None

    def add(claim: Claim, beginning: str) -> None:
        nonlocal text, previous
        between = "" if previous is None else "\n" if _is_item(claim) or _is_item(previous) else " "
        text += between + beginning
        contributions.append(Contribution(domain=claim.domain, text=claim.text, start=len(text), end=len(text) + len(claim.text)))
        text += claim.text
        previous = claim

    for claim in kept:
        point = point_of.get(claim)
        if point is None:
            add(claim, "")
        elif point not in told:
            told.append(point)
            for number, side in enumerate(point.sides):
                add(side[0], f"{'' if number else 'The experts disagree. '}{_speakers(side)}: ")
    return text, tuple(contributions)


def _is_item(claim: Claim) -> bool:
    return claim.bare != claim.text


def _speakers(side: Sequence[Claim]) -> str:
    names = [claim.domain for claim in side]
    return f"According to {' and '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)}"


def _revisions(responses: Mapping[str, Response]) -> Iterable[Revision]:
    for domain, response in responses.items():
        for before, after in pairwise((*response.earlier, response.text)):
            if normalize(before) != normalize(after):
                yield Revision(domain=domain, before=before, after=after)


def _limits(claims: Mapping[str, Sequence[Claim]]) -> Iterable[str]:
    for domain, said in claims.items():
        if len(said) > MOST:
            yield f"of the {len(said)} sentences of {domain}, the first {MOST} were compared with those of the others"
        if any(len(claim.text) > LONGEST for claim in said):
            yield f"{domain} has sentences of more than {LONGEST} characters, which were not compared with those of the others"
