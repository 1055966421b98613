"""The check of a model's answer, claim by claim: what the experts said is in it, and nothing that no expert said.

Compared are quantities, dates, names and negations, and how many of a sentence's words are known; the words' meaning is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from domainfusion.distillation.integration.claims import Claim, claims_of
from domainfusion.distillation.integration.values import Found, Name, Quantity, compare
from domainfusion.distillation.integration.words import opposes, tokens
from domainfusion.types import Contribution

LEAST_SHARED = 0.5
"""Share of a claim's words that a sentence has to have in order to be about the same."""
LEAST_ALIKE = 0.8
"""Share of the words of the shorter one of two sentences that both have, from which on one can't deny what the other says."""
LEAST_KNOWN = 1 / 3
"""Share of a sentence's words that query or experts have to have used, so that it does not come from nowhere."""
LEAST_WORDS = 3
"""Words that a sentence has at least, to be held against `LEAST_KNOWN`."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a check found.

    Attributes:
        missing: Claims of experts that the answer does not state.
        unfounded: Sentences of the answer that state what no expert said, or deny what one said, each with what is wrong with it.
    """

    missing: tuple[Claim, ...]
    unfounded: tuple[tuple[str, str], ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is missing and nothing unfounded."""
        return not self.missing and not self.unfounded


def check_answer(text: str, query: str, said: Sequence[Claim], kept: Sequence[Claim], lost: Sequence[Claim]) -> Check:
    """Checks an answer claim by claim.

    - A claim that the merge kept is covered where the answer has every quantity, date and name of it that the query does not have, and
      where a sentence about the same denies something if the claim does.
    - An expert whose kept sentences state no such thing is covered where the answer has a word that he alone brought in.
    - A sentence of the answer is founded where query or experts have its quantities, dates and names and a third of its words, and where
      the sentence of an expert that is most like it denies something if it does; what lost a conflict does not count.

    Args:
        text: The answer.
        query: What was asked, with the turns before it.
        said: Every claim of every expert.
        kept: The claims that it is to state.
        lost: The claims that lost a conflict.
    """
    answer = claims_of("", text)
    asked = claims_of("", query)
    gone = {(claim.domain, claim.bare) for claim in lost}
    standing = [claim for claim in said if (claim.domain, claim.bare) not in gone]
    sources = _Sources([*standing, *asked])
    return Check(
        missing=tuple(_missing(answer, kept, _Sources(asked))),
        unfounded=tuple((sentence.text, problem) for sentence in answer if (problem := _problem(sentence, sources, standing))),
    )


class _Sources:
    """Claims that an answer may rest on."""

    def __init__(self, claims: Sequence[Claim] = ()) -> None:
        self.words = frozenset().union(*(claim.all_words for claim in claims))
        self._tokens = {frozenset(tokens(claim.bare)) for claim in claims}
        self._values = dict.fromkeys(found.value for claim in claims for found in claim.values)

    def have(self, found: Found, claim: Claim) -> bool:
        """Whether one of them has a value of a claim, in whatever words."""
        return self.spell(found, claim) or any(compare(found.value, value) == "same" for value in self._values)

    def spell(self, found: Found, claim: Claim) -> bool:
        """Whether one of them has the very words of a claim's value."""
        words = frozenset(tokens(claim.bare[found.start : found.end]))
        return any(words <= known for known in self._tokens)


def find_contributions(text: str, kept: Iterable[Claim]) -> tuple[Contribution, ...]:
    """Finds the sentences of an answer in which a model took over an expert's claim, word for word or in its own."""
    found = []
    answer = _placed(text)
    for claim in kept:
        start = text.find(claim.bare)
        if start >= 0:
            found.append(Contribution(domain=claim.domain, text=claim.bare, start=start, end=start + len(claim.bare)))
            continue
        alike = [(sentence, start) for sentence, start in answer if _takes_over(sentence, claim)]
        if alike:
            sentence, start = max(alike, key=lambda item: len(item[0].all_words & claim.all_words))
            found.append(Contribution(domain=claim.domain, text=claim.bare, start=start, end=start + len(sentence.text)))
    return tuple(found)


def _takes_over(sentence: Claim, claim: Claim) -> bool:
    """Whether a sentence has the values of a claim, or, where these are none, all of its words."""
    if claim.is_checkable:
        return _states(claim, [sentence], _Sources())
    return bool(claim.all_words) and claim.all_words <= sentence.all_words


def _placed(text: str) -> list[tuple[Claim, int]]:
    placed, position = [], 0
    for claim in claims_of("", text):
        start = text.find(claim.text, position)
        if start >= 0:
            placed.append((claim, start))
            position = start + len(claim.text)
    return placed


def _missing(answer: Sequence[Claim], kept: Sequence[Claim], query: _Sources) -> list[Claim]:
    missing = [claim for claim in kept if claim.is_checkable and not _states(claim, answer, query)]
    words = frozenset().union(*(sentence.all_words for sentence in answer))
    for domain in dict.fromkeys(claim.domain for claim in kept):
        others = frozenset().union(query.words, *(claim.all_words for claim in kept if claim.domain != domain))
        own = [claim for claim in kept if claim.domain == domain and claim.all_words - others]
        if own and not any(claim.is_checkable or (claim.all_words - others) & words for claim in own):
            missing.append(own[0])
    return missing


def _states(claim: Claim, answer: Sequence[Claim], query: _Sources) -> bool:
    new = [found.value for found in _values(claim) if not query.spell(found, claim)]
    if not all(any(compare(value, other.value) == "same" for sentence in answer for other in sentence.values) for value in new):
        return False
    if not claim.denies:
        return True
    about = [sentence for sentence in answer if len(sentence.all_words & claim.all_words) >= LEAST_SHARED * len(claim.all_words)]
    return any(sentence.denies or opposes(sentence.all_words, claim.all_words) for sentence in about)


def _values(claim: Claim) -> list[Found]:
    return [found for found in claim.values if not (isinstance(found.value, Name) and found.value.is_initial)]


def _problem(sentence: Claim, sources: _Sources, said: Sequence[Claim]) -> str:
    """Says what is wrong with a sentence of an answer; empty where nothing is."""
    for found in _values(sentence):
        if not _is_small_talk(found, sentence) and not sources.have(found, sentence):
            return f"no expert says {sentence.bare[found.start : found.end]!r}"
    alike = max(said, key=lambda claim: len(claim.all_words & sentence.all_words), default=None)
    if alike is not None and _is_about_the_same(alike, sentence):
        as_it_is_said = {claim.denies for claim in said if _is_about_the_same(claim, sentence)}
        if sentence.denies not in as_it_is_said:
            return f"{alike.domain} says the opposite"
    if len(sentence.all_words) >= LEAST_WORDS and len(sentence.all_words & sources.words) < LEAST_KNOWN * len(sentence.all_words):
        return "no expert says anything like it"
    return ""


def _is_small_talk(found: Found, sentence: Claim) -> bool:
    """Whether a value is a number in words, as in "there are two reasons"."""
    return isinstance(found.value, Quantity) and not found.value.dimension and sentence.bare[found.start : found.end].isalpha()


def _is_about_the_same(one: Claim, other: Claim) -> bool:
    fewer = min(len(one.all_words), len(other.all_words))
    return fewer >= 2 and len(one.all_words & other.all_words) >= LEAST_ALIKE * fewer
