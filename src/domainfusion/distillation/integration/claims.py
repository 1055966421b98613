"""Claims: the sentences of an answer, each with the values that it states, what it is about, and whether
it denies it; and what a query asks, about what, and which sort of value answers it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Literal, TypeVar

from domainfusion.distillation.integration.values import (
    EMPTY,
    MEASURES,
    POINTING,
    Date,
    Found,
    Name,
    Quantity,
    Value,
    find_values,
    fold,
)
from domainfusion.distillation.integration.words import (
    NO_STANCE,
    Stance,
    content,
    denies,
    stance_of,
    stem,
    tokens,
    topic,
)
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


Kind = Literal["quantity", "date", "name", "yes or no", "any", "open"]
"""What answers a question; `open` is what no single value answers."""

LONGEST_QUESTION = 500
MOST_QUESTIONS = 20
"""Questions that are told apart in one query; there are seldom more than three."""

_AUXILIARY = "is|are|was|were|do|does|did|can|could|may|might|must|should|will|would|has|have|had"
_WH = "what|which|who|whose|whom|when|where|why|how"
_BORDER = re.compile(
    rf"\?|;|\n|(?:,\s*|\s)(?:and|also|or)[,:]?\s+(?=(?:(?:in|at|on|to|from|by|of|for)\s+)?(?:{_WH})\b)|"
    r",?\s+and\s+(?=(?:does|do|did|is|are)\s)"
)
_BEGINNING = re.compile(
    r"^(?:\W|\b(?:and|also|then|next|finally|second|secondly|first)\b)+", re.IGNORECASE
)
_DATED = re.compile(r"\bwhen\b|\b(?:what|which) (?:day|date|year|month|century)\b")
_COUNTED = re.compile(rf"\bhow (?!(?:{_AUXILIARY}|to|come|about)\b)\w+")
_MEASURED = re.compile(
    rf"\b(?:what|which)\b(?:\W+\w+){{0,6}}?\W+(?:{'|'.join(sorted(MEASURES))})s?\b"
)
_MEASURES = frozenset(map(stem, MEASURES))
_NAMED = re.compile(r"\b(?:who|whom|whose|where)\b")
_ASKING = re.compile(rf"\b(?:{_WH})\b")
_SEVERAL = re.compile(
    r"\b(?:what|which) (?:\w+ )?(?!is\b|was\b|does\b|has\b)\w{3,}s"
    r" (?:are|were|do|can|have|did)\b|\bwhat can\b|"
    r"\b(?:name|list) (?:some|two|three|all|the main)\b|\bwhat are\b|\bexamples?\b"
)
_OVER = re.compile(
    r"(.*?)\b(?:of|in|for|from|to|with|call) (?:the|a|an) "
    r"(?:\w+ (?:(?:in"
    r" )?which|where|that|whose)|(?:country|city|state|continent|company|author|inventor|founder)"
    r" of)\b"
)
_ABOUT_OF = re.compile(
    r"\bof"
    rf" (?:(?:an?|the)\s)?(?P<about>[\w\s'-]+?)(?=$|\s(?:in|on|at|for|during|when|if|and|or|from|with|under|{_AUXILIARY})\b|[,?.])"
)
_ABOUT_VERB = re.compile(
    rf"\b(?:{_AUXILIARY})\s(?:(?:an?|the|all|any|most)\s)?(?P<about>[\w'-]+(?:\s[\w'-]+)?)"
)


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that a query asks.

    Attributes:
        text: The part of the query that asks it.
        kind: What answers it.
        words: Stems of its words, without the sort of thing that is asked for.
        all_words: The same with it.
        about: The names in it or, where there are none, the words that stand for its subject, as
            far as one can be seen.
        hop: Where the question goes over a second thing, as "the capital of the country where NRT
            is" does, the words before that.
        asks_several: Whether more than one name is a right answer, as of "which languages".
        is_compound: Whether it joins several things with "and" or "or".
    """

    text: str
    kind: Kind
    words: frozenset[str]
    all_words: frozenset[str]
    about: tuple[Name, ...] | frozenset[str]
    hop: frozenset[str]
    asks_several: bool
    is_compound: bool

    def is_named_in(self, claim: Sentence) -> bool:
        """Whether a claim names what the question is about."""
        if isinstance(self.about, frozenset):
            return bool(self.about & claim.all_words)
        return any(stem(name.words[-1]) in claim.all_words for name in self.about if name.words)

    @property
    def relation(self) -> frozenset[str]:
        """What it asks of its subject: its words without those that name that."""
        subject = (
            self.about
            if isinstance(self.about, frozenset)
            else {stem(word) for name in self.about for word in name.words}
        )
        return self.all_words - subject

    def is_pointed_at_by(self, claim: Sentence) -> bool:
        """Whether a claim needs the question to be understood: "It is …", "The length is …", or the
        question's words and a value.
        """
        return not claim.is_unsure and (claim.points or claim.words <= self.all_words | _MEASURES)


def questions_of(query: str) -> list[Question]:
    """Returns what a query asks, in order; what is longer than `LONGEST_QUESTION` characters without a
    question mark is not a question.

    Example:
        >>> [(question.text, question.kind) for question in questions_of("How high is K2? And in which country is the airport NRT?")]
        [('How high is K2', 'quantity'), ('in which country is the airport NRT', 'any')]
    """
    pieces = (
        _BEGINNING.sub("", piece).strip(" .,:!")
        for piece in _BORDER.split(query)
        if piece and len(piece) <= LONGEST_QUESTION
    )
    return [_questions_read(piece) for piece in dict.fromkeys(pieces) if piece][:MOST_QUESTIONS]


def _questions_read(text: str) -> Question:
    low = " ".join(text.casefold().split())
    names = [found.value for found in find_values(text) if isinstance(found.value, Name)]
    names = [
        name for name in names if not name.is_initial and name.words and name.words[0] not in EMPTY
    ]
    asked_for = re.search(rf"\b(?:what|which|how)\b(.*?)\b(?:{_AUXILIARY})\b", low)
    words = content(text) - (content(asked_for[1]) if asked_for else frozenset())
    plain = re.sub(r"[A-Z][\w'-]* (?:and|or) (?=(?:the )?[A-Z])", "", text)
    return Question(
        text=text,
        kind=_kind(low),
        words=words,
        all_words=content(text),
        about=tuple(names) or _about(low),
        hop=content(over[1]) if (over := _OVER.match(low)) else frozenset(),
        asks_several=_SEVERAL.search(low) is not None,
        is_compound=re.search(r"\b(?:and|or|as well as)\b|,", plain) is not None,
    )


def _kind(low: str) -> Kind:
    if re.match(rf"(?:{_AUXILIARY})\b", low):
        return "yes or no"
    if _DATED.search(low):
        return "date"
    if _COUNTED.search(low) or _MEASURED.search(low):
        return "quantity"
    if re.search(r"\b(?:why|how)\b", low):
        return "open"
    return "name" if _NAMED.search(low) else "any"


def _about(low: str) -> frozenset[str]:
    for pattern in (_ABOUT_OF, _ABOUT_VERB):
        matches = list(pattern.finditer(low))
        if matches:
            found = [stem(word) for word in tokens(matches[-1]["about"]) if word not in EMPTY]
            if found:
                return frozenset(found[:1] if pattern is _ABOUT_VERB else found)
    return frozenset()
