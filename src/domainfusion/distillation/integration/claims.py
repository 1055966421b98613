"""Claims: the sentences of an answer, each with the values that it states, what it is about, and
whether it denies it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TypeVar

from domainfusion.distillation.integration.oppositions import NO_STANCE, Stance, stance_of
from domainfusion.distillation.integration.values import (
    EMPTY,
    POINTING,
    Date,
    Found,
    Name,
    Quantity,
    Value,
    find_values,
    fold,
)
from domainfusion.distillation.integration.words import content, denies, tokens, topic
from domainfusion.distillation.text.sentences import sentences

LONGEST = 1000
"""Characters from which on a sentence is not a claim that is compared with others: it is a text
without full stops.
"""
MOST = 1000
"""Sentences of an expert that are compared with the others'; those after them are only compared for
repetition.
"""

_MARKER = re.compile(r"^\s*(?:[-*•–]|\d{1,2}[.)])\s+")
_UNSURE = re.compile(
    r"\b(?:I|we)(?:'m| am| are|'re)? (?:really |simply |just )?(?:(?:do|can|could|would|have)(?:"
    r" ?not|n't)|cannot|not|un)(?: be)? ?"
    r"(?:know|sure|certain|say|tell|answer|help|familiar|confident|able|an expert|no idea)|"
    r"\b(?:beyond|outside) (?:what I|my)\b|\bno (?:idea|information|knowledge)\b|\bnot (?:really"
    r" )?my (?:field|area|domain|subject)\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"^(?:at|in|on|under|above|below|during|after|before|for|near|within|by|since|until|with|without|inside|outside|between|"
    r"among|across|throughout|while|bei|im|in"
    r" der|während|en|durante|pour|chez|dans)\b[^,]{2,60},\s",
    re.IGNORECASE,
)

V = TypeVar("V", bound=Value)


@dataclass(frozen=True, slots=True, eq=False)
class Sentence:
    """A sentence of an expert, taken apart.

    Attributes:
        domain: The expert's domain.
        text: The sentence as it stands in the answer.
        bare: The same without the mark of a list's item.
        place: Its place in the answer, from 0.
        values: The dates, quantities and names in it, in order.
        words: Stems of the words that carry meaning, values left out.
        all_words: The same with the values.
        denies: Whether it denies something.
        condition: What it says to hold for, where that stands first: "At sea level, …".
        points: Whether it begins with a word that stands for what was asked about, as in "It is …".
        is_unsure: Whether the expert says that it does not know.
        topic: What it is about in any of the languages that are known, values left out; see
            `topic`.
        stance: What it says for or against that.
        frame: The sentence with a mark for each value; equal for sentences that differ in values
            alone.
    """

    domain: str
    text: str
    bare: str
    place: int
    values: tuple[Found, ...] = ()
    words: frozenset[str] = frozenset()
    all_words: frozenset[str] = frozenset()
    denies: bool = False
    condition: frozenset[str] = frozenset()
    points: bool = False
    is_unsure: bool = False
    topic: frozenset[str] = frozenset()
    stance: Stance = NO_STANCE
    frame: str = field(default="", repr=False)

    def of_kind(self, kind: type[V]) -> tuple[V, ...]:
        """Returns its values of one kind."""
        return tuple(found.value for found in self.values if isinstance(found.value, kind))

    @property
    def names(self) -> tuple[Name, ...]:
        """Its names, without a first word whose capital says nothing."""
        return tuple(name for name in self.of_kind(Name) if not name.is_initial)

    @property
    def is_checkable(self) -> bool:
        """Whether it states a quantity, a date, a name or a negation."""
        return (
            bool(self.of_kind(Quantity) or self.of_kind(Date) or self.names or self.denies)
            and not self.is_unsure
        )


def claims_of(domain: str, answer: str) -> list[Sentence]:
    """Returns the sentences of an answer as claims, in order.

    What is compared is bounded: sentences of more than `LONGEST` characters, and those after the
    first `MOST`, have no values.

    Example:
        >>> claim, = claims_of("chemistry", "- Gold melts at 1064 °C.")
        >>> sorted(claim.words), claim.frame
        (['gold', 'melt'], '<name> melts at <quantity>.')
    """
    claims = [_read(domain, text, place) for place, text in enumerate(sentences(answer))]
    return [_as_one_word(claims[0])] if len(claims) == 1 else claims


def one_claim(domain: str, text: str, place: int, *, is_alone: bool) -> Sentence:
    """Returns a text of an expert as one claim, whether or not it is a sentence; `is_alone` where
    it is all that the expert says.
    """
    claim = _read(domain, text, place)
    return _as_one_word(claim) if is_alone else claim


def _as_one_word(claim: Sentence) -> Sentence:
    """Takes the capital of an answer of one word for a name's."""
    if (
        len(tokens(claim.bare)) != 1
        or not claim.values
        or not isinstance(name := claim.values[0].value, Name)
    ):
        return claim
    return replace(
        claim,
        values=(replace(claim.values[0], value=replace(name, is_initial=False)),),
        words=frozenset(),
    )


def _read(domain: str, text: str, place: int) -> Sentence:
    if len(text) > LONGEST or place >= MOST:
        return Sentence(domain, text, text, place)
    marker = _MARKER.match(text)
    bare = text[marker.end() :] if marker else text
    values = tuple(found for found in find_values(bare) if not _is_word(found.value))
    beginning = takewhile(lambda word: word in EMPTY, tokens(bare))
    tells = [found for found in values if not _is_initial(found.value)]
    rest = _mask(bare, tells, " ")
    condition = _CONDITION.match(bare)
    return Sentence(
        domain=domain,
        text=text,
        bare=bare,
        place=place,
        values=values,
        words=content(rest),
        all_words=content(bare),
        denies=denies(bare),
        condition=content(condition.group()) if condition else frozenset(),
        points=any(word in POINTING for word in beginning),
        is_unsure=not tells and _UNSURE.search(bare.replace("’", "'")) is not None,
        topic=topic(
            _mask(bare, [found for found in values if not isinstance(found.value, Name)], " ")
        ),
        stance=stance_of(bare),
        frame=" ".join(fold(_mask(bare, values)).split()),
    )


def _is_word(value: Value) -> bool:
    return (
        _is_initial(value)
        and isinstance(value, Name)
        and (value.words[0] if value.words else "") in EMPTY
    )


def _is_initial(value: Value) -> bool:
    return isinstance(value, Name) and value.is_initial


def _mask(text: str, values: list[Found] | tuple[Found, ...], mark: str = "") -> str:
    pieces, position = [], 0
    for found in values:
        pieces += [
            text[position : found.start],
            mark or f"<{type(found.value).__name__.casefold()}>",
        ]
        position = found.end
    return "".join([*pieces, text[position:]])
