"""What integration is about: the claims that experts make, how two of them stand to each other, and where
an expert's answer has the words that a model quotes.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

from domainfusion.distillation.text.sentences import Span
from domainfusion.errors import DataError
from domainfusion.models.store import Ask
from domainfusion.types import Example, Response

ResponseLike = str | Response | Mapping[str, Any]

_FIELDS = {item.name for item in fields(Response)}


@dataclass(frozen=True)
class Task:
    """One example's responses, to be integrated.

    Attributes:
        example: The example.
        responses: The experts' responses by domain.
    """

    example: Example
    responses: Mapping[str, Response]


def primary_first(task: Task) -> dict[str, Response]:
    """Returns the responses in the order in which they count: that of the primary domain, then the
    others as they are.
    """
    primary = task.example.primary_domain
    return dict(sorted(task.responses.items(), key=lambda item: item[0] != primary))


def as_response(domain: str, given: ResponseLike) -> Response:
    """Returns a `Response` for a text, a dict with a `text`, or a response."""
    if isinstance(given, Response):
        return given
    if isinstance(given, str):
        return Response(domain=domain, text=given)
    if (
        isinstance(given, Mapping)
        and isinstance(given.get("text"), str)
        and given.keys() <= _FIELDS
    ):
        return Response(**{"domain": domain, **given})
    raise DataError(
        f"The response of {domain!r} can't be read",
        received=given,
        allowed='a text, a Response, or {"text": "..."}',
    )


Kind = Literal["same", "agrees", "contradicts", "other scope"]
"""How two claims stand to each other: one can stand for both (`same`); they are about the same
point, agree, and each adds something (`agrees`); both can't be right (`contradicts`); or they
differ because they hold for different things (`other scope`).
"""

FoundBy = Literal["", "rules", "model"]
"""Who read the responses: the rules, which compare values and negations alone, or a model."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that an expert says.

    Attributes:
        id: Unique in a task, such as `2.3`: the third claim of the second expert, by the alphabet.
            It ranks nothing.
        domain: The expert's domain.
        quote: The expert's own words: the response from `start` to `end`.
        start: Where the quote begins in the response, in characters.
        end: Where it ends, exclusive.
        scope: What it holds for, where the expert limits it, such as "in children"; empty for a
            general claim.
        hedged: Whether the expert says that it may be so. A hedged claim contradicts nothing.
        unsure: Whether the expert says that it does not know.
    """

    id: str
    domain: str
    quote: str
    start: int
    end: int
    scope: str = ""
    hedged: bool = False
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class Relation:
    """How two claims of different experts stand to each other.

    Attributes:
        first: The id of a claim.
        second: The id of another expert's claim.
        kind: How they stand to each other.
        sure: Whether that is certain enough to change the answer. A possible conflict is recorded
            and changes nothing.
        point: What both are about, in a few words.
        owner: The domain that the point belongs to; empty where that is not known.
        found_by: Who found it.
    """

    first: str
    second: str
    kind: Kind
    sure: bool = True
    point: str = ""
    owner: str = ""
    found_by: FoundBy = "rules"


class Reader(Protocol):
    """Takes responses apart into claims."""

    def read(self, tasks: Sequence[Task], *, ask: Ask) -> Sequence[tuple[Claim, ...] | None]:
        """Returns the claims of each task, expert by expert in alphabetical order, each expert's in
        the order of its response.

        None stands for a task that this reader can't read.
        """
        ...


class Relater(Protocol):
    """Finds out how the claims of different experts stand to each other."""

    def relate(
        self, tasks: Sequence[Task], claims: Sequence[Sequence[Claim]], *, ask: Ask
    ) -> Sequence[tuple[Relation, ...] | None]:
        """Returns the relations among the claims of each task; two claims without one have nothing
        to do with each other.

        None stands for a task whose claims this relater can't relate.
        """
        ...


_SPACE = re.compile(r"\s+")
_AROUND = " \t\n\"'“”„«»‘’`…"
_LETTER = re.compile(r"[^\W_]")
# Punctuation that a part of a sentence is left with where the words before or after it were taken
# out.
_LEAD = re.compile(r"[\s,;:.!?…、。，；)\]]*")
_TAIL = re.compile(r"[\s,;:(\[]*\Z")
LEAST_WORDS = 3
"""Words of a part of a sentence that says something by itself; an "and" between two quotes does
not.
"""
_UNSPACED = re.compile(r"[\u2e80-\uffef]")
"""Writing without spaces between words, such as Chinese and Japanese."""


class Quotable:
    r"""A text in which quotes are looked for; white space counts as one space, however much there
    is.

    Example:
        >>> text = Quotable("It is\n red. It is hot.")
        >>> text.find("“It is red.”"), text.find("It is", after=5), text.find("It is blue.")
        (Span(start=0, end=11), Span(start=12, end=17), None)
    """

    def __init__(self, text: str) -> None:
        pieces: list[str] = []
        # Where each run without white space begins, in the folded text and in the whole one.
        self._folded_starts: list[int] = []
        self._starts: list[int] = []
        length = 0
        for word in re.finditer(r"\S+", text):
            self._folded_starts.append(length)
            self._starts.append(word.start())
            pieces.append(word.group())
            length += len(word.group()) + 1
        self._folded = " ".join(pieces)

    def find(self, quote: str, *, after: int = 0) -> Span | None:
        """Returns where a quote stands: the first place from `after` on, else the first of all;
        None where it stands nowhere.
        """
        wanted = _SPACE.sub(" ", quote).strip(_AROUND)
        if not _LETTER.search(wanted):
            return None
        place = self._folded.find(wanted, self._folded_at(after))
        if place < 0:
            place = self._folded.find(wanted)
        if place < 0:
            return None
        return Span(self._place_of(place), self._place_of(place + len(wanted) - 1) + 1)

    def _folded_at(self, place: int) -> int:
        """Returns the place in the folded text of the first run that begins at or after a place of
        the whole one.
        """
        index = bisect_right(self._starts, place - 1)
        return self._folded_starts[index] if index < len(self._folded_starts) else len(self._folded)

    def _place_of(self, folded: int) -> int:
        """Returns the place in the whole text of a character of the folded one that is not white
        space.
        """
        index = bisect_right(self._folded_starts, folded) - 1
        return self._starts[index] + folded - self._folded_starts[index]


def uncovered(text: str, sentence: Span, covered: Iterable[Span]) -> list[Span]:
    """Returns the parts of a sentence that no span covers and that say something, without the
    punctuation at their edges.

    Args:
        text: The whole text.
        sentence: The sentence in it.
        covered: The spans, in any order.

    Example:
        >>> text = "It cools, and it also hardens at night."
        >>> [text[part.start : part.end] for part in uncovered(text, Span(0, 39), [Span(0, 8)])]
        ['and it also hardens at night.']
    """
    parts, position = [], sentence.start
    for span in sorted(covered):
        if span.end <= position or span.start >= sentence.end:
            continue
        if span.start > position:
            parts.append(_trimmed(text, Span(position, span.start)))
        position = span.end
    if position < sentence.end:
        parts.append(_trimmed(text, Span(position, sentence.end)))
    return [part for part in parts if part == sentence or _is_telling(text[part.start : part.end])]


def _trimmed(text: str, part: Span) -> Span:
    words = text[part.start : part.end]
    tail = _TAIL.search(words)
    lead = _LEAD.match(words)
    if tail is None or lead is None:  # neither can be: both match an empty text
        return part
    return Span(part.start + lead.end(), max(part.start + lead.end(), part.start + tail.start()))


def _is_telling(words: str) -> bool:
    return _LETTER.search(words) is not None and (
        len(words.split()) >= LEAST_WORDS or _UNSPACED.search(words) is not None
    )


def overlaps(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two spans, each (start, end), have a character in common.

    Example:
        >>> overlaps((0, 3), (2, 5)), overlaps((0, 3), (3, 5))
        (True, False)
    """
    return one[0] < other[1] and other[0] < one[1]
