"""Questions: what a query asks, about what, and which sort of value answers it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from domainfusion.distillation.integration.claims import Sentence
from domainfusion.distillation.integration.values import EMPTY, MEASURES, Name, find_values
from domainfusion.distillation.integration.words import content, stem, tokens

Kind = Literal["quantity", "date", "name", "yes or no", "any", "open"]
"""What answers a question; `open` is what no single value answers."""

LONGEST = 500
MOST = 20
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
    """Returns what a query asks, in order; what is longer than `LONGEST` characters without a
    question mark is not a question.

    Example:
        >>> [(question.text, question.kind) for question in questions_of("How high is K2? And in which country is the airport NRT?")]
        [('How high is K2', 'quantity'), ('in which country is the airport NRT', 'any')]
    """
    pieces = (
        _BEGINNING.sub("", piece).strip(" .,:!")
        for piece in _BORDER.split(query)
        if piece and len(piece) <= LONGEST
    )
    return [_read(piece) for piece in dict.fromkeys(pieces) if piece][:MOST]


def _read(text: str) -> Question:
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
