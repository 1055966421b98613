"""What integration is about: the claims that experts make, how two of them stand to each other, and where
an expert's answer has the words that a model quotes.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import groupby, zip_longest
from typing import Any, Literal

from domainfusion.distillation.text.refusals import Screening
from domainfusion.distillation.text.sentences import (
    Block,
    Span,
    blocks_of,
    leans_on_previous,
    sentence_spans,
)
from domainfusion.errors import DataError
from domainfusion.types import Dropped, Example, Response

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


_SPACE = re.compile(r"\s+")
_AROUND = " \t\n\"'“”„«»‘’`…"
# A letter or a digit: a text with none says nothing.
_LETTER = re.compile(r"[^\W_]")
# Punctuation that a part of a sentence is left with where the words before or after it were taken
# out.
_LEAD = re.compile(r"[\s,;:.!?…、。，；)\]]*")
# The same after it.
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


GOES_WITH_IT = "goes with the sentence before it"
_INTRODUCES = (":", "：")
READ_IN = ("paragraph", "list", "quote")
"""The blocks in which claims are looked for; code, tables, formulas and headings are only kept."""


@dataclass(frozen=True, slots=True, eq=False)
class ResponseUnit:
    """A part of a response that stays or goes as a whole: a sentence of a paragraph, or a block
    that is not a paragraph.

    Attributes:
        block: The block that it is, or is in.
        start: Where it begins in the response, in characters.
        end: Where it ends, exclusive.
        leans: Whether it begins with a pronoun that stands for something in the sentence before it.
        is_fixed: Whether it stays whatever becomes of its claims: a block that is not a paragraph,
            and a sentence that introduces one.
    """

    block: Block
    start: int
    end: int
    leans: bool = False
    is_fixed: bool = False


@lru_cache(maxsize=64)
def units_of(text: str) -> tuple[ResponseUnit, ...]:
    r"""Returns the pieces of a response, in order.

    Example:
        >>> [(unit.start, unit.end, unit.is_fixed) for unit in units_of("Eat. It helps. Steps:\n- a")]
        [(0, 4, False), (5, 14, False), (15, 21, True), (22, 25, True)]
    """
    blocks = blocks_of(text)
    units: list[ResponseUnit] = []
    for block, following in zip_longest(blocks, blocks[1:]):
        if not block.is_prose:
            units.append(ResponseUnit(block, block.start, block.end, is_fixed=True))
            continue
        spans = sentence_spans(block.text)
        for place, span in enumerate(spans):
            sentence = block.text[span.start : span.end]
            introduces = (
                place == len(spans) - 1 and following is not None and sentence.endswith(_INTRODUCES)
            )
            leans = place > 0 and leans_on_previous(sentence)
            units.append(
                ResponseUnit(
                    block, block.start + span.start, block.start + span.end, leans, introduces
                )
            )
    return tuple(units)


@lru_cache(maxsize=64)
def claim_spans(text: str) -> tuple[Span, ...]:
    """Returns where the sentences stand that a response makes claims in: those of its paragraphs,
    lists and quotations.
    """
    found: list[Span] = []
    for block in blocks_of(text):
        if block.kind in READ_IN:
            found += [
                Span(block.start + span.start, block.start + span.end)
                for span in sentence_spans(block.text)
            ]
    return tuple(found)


def groups_of(units: Sequence[ResponseUnit]) -> Iterator[list[ResponseUnit]]:
    """Yields each sentence with those that lean on it."""
    group: list[ResponseUnit] = []
    for unit in units:
        if group and not unit.leans:
            yield group
            group = []
        group.append(unit)
    if group:
        yield group


def claims_in(
    units: Sequence[ResponseUnit], claims: Sequence[Claim]
) -> dict[ResponseUnit, list[Claim]]:
    """Returns the claims that overlap each unit of one response; both are in the order of the
    response.
    """
    found: dict[ResponseUnit, list[Claim]] = {unit: [] for unit in units}
    ordered = sorted(claims, key=lambda claim: claim.start)
    first = 0
    for unit in units:
        while first < len(ordered) and ordered[first].end <= unit.start:
            first += 1
        place = first
        while place < len(ordered) and ordered[place].start < unit.end:
            if ordered[place].end > unit.start:
                found[unit].append(ordered[place])
            place += 1
    return found


def keep_together(
    text: str, claims: Sequence[Claim], left_out: Mapping[str, str], lost: Collection[str]
) -> dict[str, str]:
    """Returns which claims of one response are left out, and why, if nothing is torn apart.

    What is in a block that is not a paragraph stays. Sentences that lean on one that lost a
    conflict go with it. What others say too stays where something leans on it, where it leans on
    something that stays, and where a heading would be left without its section.

    Args:
        text: The response.
        claims: Its claims.
        left_out: The ids of the claims that the answer need not state, with the reason.
        lost: The ids of those that may not stay.
    """
    units = units_of(text)
    inside = claims_in(units, claims)
    out: dict[str, str] = {}
    for group in groups_of(units):
        head = group[0]
        if _has_lost(inside[head], lost) and not any(unit.is_fixed for unit in group):
            for unit in group:
                out |= {claim.id: left_out.get(claim.id, GOES_WITH_IT) for claim in inside[unit]}
        elif all(_may_go(unit, inside[unit], left_out) for unit in group):
            out |= {claim.id: left_out[claim.id] for unit in group for claim in inside[unit]}
        else:
            for unit in group[1:]:
                if not unit.is_fixed and _has_lost(inside[unit], lost):
                    out |= {
                        claim.id: left_out.get(claim.id, GOES_WITH_IT) for claim in inside[unit]
                    }
    for section in _sections(units):
        members = [claim.id for unit in section for claim in inside[unit]]
        if (
            members
            and all(name in out for name in members)
            and not any(unit.is_fixed for unit in section)
        ):
            for name in members:
                if name not in lost and out[name] != GOES_WITH_IT:
                    del out[name]
    return out


def bound_claims(text: str, claims: Sequence[Claim]) -> set[str]:
    """Returns the ids of the claims that can't be left out by themselves: those in a block, or in a
    sentence that leans or is leant on.
    """
    units = units_of(text)
    inside = claims_in(units, claims)
    bound: list[ResponseUnit] = []
    for group in groups_of(units):
        bound += [unit for unit in group if unit.is_fixed or len(group) > 1]
    return {claim.id for unit in bound for claim in inside[unit]}


def _has_lost(claims: Sequence[Claim], lost: Collection[str]) -> bool:
    return any(claim.id in lost for claim in claims)


def _may_go(unit: ResponseUnit, claims: Sequence[Claim], left_out: Mapping[str, str]) -> bool:
    return not unit.is_fixed and bool(claims) and all(claim.id in left_out for claim in claims)


def _sections(units: Sequence[ResponseUnit]) -> Iterator[list[ResponseUnit]]:
    """Yields the pieces under each heading, up to the next one."""
    is_headed = False
    for is_heading, run in groupby(units, key=lambda unit: unit.block.kind == "heading"):
        if not is_heading and is_headed:
            yield list(run)
        is_headed = is_headed or is_heading


CUT = "cut at the token limit"
REFUSED = "the expert refused"
CHATTER = "chatter around the answer"
_ENDS = (".", "!", "?", "…", "。", "！", "？", "؟", "।", '"', "”", "’", ")", "`")
"""The ends of a finished sentence."""


def screened(task: Task, screening: Screening) -> tuple[Task, tuple[Dropped, ...]]:
    """Leaves out chatter, and the refusals of experts where another one answers.

    Where no expert answers, the refusals stay as they are: there is nothing in their place.

    Returns:
        The task with what is left, and what was left out.
    """
    kept: dict[str, Response] = {}
    dropped: list[Dropped] = []
    for domain, response in task.responses.items():
        query = response.question or task.example.query
        has_refused = response.finish_reason in ("refused", "filtered")
        if has_refused or screening.is_refused(query, response.text):
            dropped.append(Dropped(domain=domain, text=response.text, reason=REFUSED))
            continue
        trimmed = screening.trimmed(query, response.text)
        dropped += [Dropped(domain=domain, text=text, reason=CHATTER) for text in trimmed.removed]
        kept[domain] = replace(response, text=trimmed.text) if trimmed.removed else response
    if not any(response.text.strip() for response in kept.values()):
        return task, ()
    return Task(task.example, kept), tuple(dropped)


def without_cut(task: Task) -> tuple[Task, tuple[Dropped, ...]]:
    """Leaves out what the token limit broke off, where several experts have something to say.

    Where an expert's answer is whole, those that were cut are left out. Where all of them were cut,
    each is taken up to its last whole sentence or block. One answer by itself stays as it is.

    Args:
        task: An example and its responses.

    Returns:
        The task with what is left, and what was left out.
    """
    said = {
        domain: response for domain, response in task.responses.items() if response.text.strip()
    }
    cut = {
        domain: response for domain, response in said.items() if response.finish_reason == "length"
    }
    if not cut or len(said) < 2:
        return task, ()
    if len(cut) < len(said):
        rest = {
            domain: response for domain, response in task.responses.items() if domain not in cut
        }
        return Task(task.example, rest), tuple(
            Dropped(domain=domain, text=said.text, reason=CUT) for domain, said in cut.items()
        )
    whole = {domain: _whole_part(response) for domain, response in cut.items()}
    if not any(whole.values()):
        return task, ()
    rest = {
        domain: replace(response, text=whole[domain])
        for domain, response in cut.items()
        if whole[domain]
    }
    ends = {domain: response.text[len(whole[domain]) :].strip() for domain, response in cut.items()}
    return Task(task.example, rest), tuple(
        Dropped(domain=domain, text=end, reason=CUT) for domain, end in ends.items() if end
    )


def _whole_part(response: Response) -> str:
    """Returns a cut response up to its last whole sentence or block."""
    units = units_of(response.text)
    last = response.text[units[-1].start : units[-1].end]
    if units[-1].block.is_prose and last.endswith(_ENDS):
        return response.text
    return response.text[: units[-2].end] if len(units) > 1 else ""
