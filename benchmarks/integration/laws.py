"""What holds for every case, whatever it says: its labels follow from its responses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

from writing import Case

from domainfusion.distillation.metrics import states

COPIES_SHARE = 0.65
OTHERS_SHARE = 0.55
"""Copies share at least so many of their words, experts who agree independently at most so many."""


def broken_laws(case: Case) -> list[str]:
    """Returns what is wrong with a case; nothing if it is sound."""
    return [
        *_of_covered(case),
        *_of_copies(case),
        *(problem for conflict in case.conflicts for problem in _of_conflict(case, conflict)),
    ]


def _of_covered(case: Case) -> Iterator[str]:
    if case.primary_domain not in case.responses:
        yield "the primary domain has no response"
    if case.order and case.order["text"] not in case.responses[case.order["domain"]]:
        yield "the order stands in no response"
    for item in case.covered:
        if not _any(case.responses[item["domain"]], item["spellings"]):
            yield f"{item} is not in its response"
        if not _any(case.right_answer, item["spellings"]):
            yield f"{item} is not in the right answer"


def _of_copies(case: Case) -> Iterator[str]:
    copied = {pair for group in case.copies for pair in combinations(sorted(group), 2)}
    sides = [sorted(side) for conflict in case.conflicts for side in conflict["sides"]]
    agreeing = {pair for side in sides for pair in combinations(side, 2)} - copied
    for one, other in copied:
        if likeness(case.responses[one], case.responses[other]) < COPIES_SHARE:
            yield f"{one} and {other} are too different for copies"
    for one, other in agreeing:
        if likeness(case.responses[one], case.responses[other]) > OTHERS_SHARE:
            yield f"{one} and {other} are too alike for independent experts"


def _of_conflict(case: Case, conflict: dict[str, Any]) -> Iterator[str]:
    winners, losers = conflict["sides"]
    if not winners or not losers or set(winners) & set(losers):
        yield "the sides are not two groups of experts"
    for domain, sentence in [*winners.items(), *losers.items()]:
        if sentence not in case.responses[domain]:
            yield f"{domain} does not say {sentence!r}"
    if conflict["kept"] != deciding_domain(case, conflict):
        yield f"the rules keep {deciding_domain(case, conflict)}, the case {conflict['kept']}"
    if conflict["kept"] is None:
        return
    if not all(_any(sentence, conflict["winning"]) for sentence in winners.values()):
        yield "a winner does not state the winning value"
    if not all(_any(sentence, conflict["losing"]) for sentence in losers.values()):
        yield "a loser does not state the losing value"
    rest = {
        domain: text.replace(losers.get(domain, "\0"), "")
        for domain, text in case.responses.items()
    }
    if any(
        _any(text, conflict["losing"]) for text in (*rest.values(), case.right_answer, case.query)
    ):
        yield "the losing value stands in what has to stay"
    if any(_any(text, conflict["winning"]) for text in (*losers.values(), case.query)):
        yield "the winning value stands in what has to go"


def deciding_domain(case: Case, conflict: dict[str, Any]) -> str | None:
    """Applies the rules to the structure of a case: returns a domain of the side that stands, the
    first, or None.
    """
    accepted = [
        case.reference or "",
        *(answer for answers in case.parts.values() for answer in answers),
    ]
    spellings = (conflict["winning"], conflict["losing"])
    supported = [
        side
        for side, spelled in enumerate(spellings)
        if any(_any(text, spelled) for text in accepted)
    ]
    experts = [side for side, claims in enumerate(conflict["sides"]) if case.asks in claims]
    votes = [_voices(case, claims) for claims in conflict["sides"]]
    majority = [side for side, number in enumerate(votes) if number > votes[1 - side]]
    side = next((group[0] for group in (supported, experts, majority) if len(group) == 1), None)
    return None if side is None else next(iter(conflict["sides"][side]))


def _voices(case: Case, domains: Iterable[str]) -> int:
    """How many experts speak, each group of copies counted once."""
    named = set(domains)
    copied = [named & set(group) for group in case.copies if named & set(group)]
    return len(named - set().union(*copied)) + len(copied)


def likeness(first: str, second: str) -> float:
    """The share of the words of two texts that is common to both (Jaccard)."""
    words = [set(re.findall(r"\w+", text.casefold())) for text in (first, second)]
    return len(words[0] & words[1]) / len(words[0] | words[1])


def _any(text: str, spellings: list[str]) -> bool:
    return any(states(text, spelling) for spelling in spellings)
