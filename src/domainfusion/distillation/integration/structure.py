"""The structure of a response: what it is taken apart into, and what of it belongs together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby, zip_longest

from domainfusion.distillation.integration.reading import Claim, Task
from domainfusion.distillation.text.sentences import (
    Block,
    Span,
    blocks_of,
    leans_on_previous,
    sentence_spans,
)
from domainfusion.types import Dropped, Response

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
    r"""Returns what a response consists of, in order.

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
    bound = [
        unit for group in groups_of(units) for unit in group if unit.is_fixed or len(group) > 1
    ]
    return {claim.id for unit in bound for claim in inside[unit]}


def _has_lost(claims: Sequence[Claim], lost: Collection[str]) -> bool:
    return any(claim.id in lost for claim in claims)


def _may_go(unit: ResponseUnit, claims: Sequence[Claim], left_out: Mapping[str, str]) -> bool:
    return not unit.is_fixed and bool(claims) and all(claim.id in left_out for claim in claims)


def _sections(units: Sequence[ResponseUnit]) -> Iterator[list[ResponseUnit]]:
    """Yields what stands under each heading, up to the next one."""
    is_headed = False
    for is_heading, run in groupby(units, key=lambda unit: unit.block.kind == "heading"):
        if not is_heading and is_headed:
            yield list(run)
        is_headed = is_headed or is_heading


CUT = "cut at the token limit"
_ENDS = (".", "!", "?", "…", "。", "！", "？", "؟", "।", '"', "”", "’", ")", "`")
"""What a finished sentence ends with."""


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
