"""The merge: the experts' own words in one answer, what is repeated said once, and what lost a
conflict left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from domainfusion.distillation.integration.planning import Plan, Point
from domainfusion.distillation.integration.reading import (
    Claim,
    ResponseUnit,
    claims_in,
    groups_of,
    primary_first,
    units_of,
)
from domainfusion.distillation.text.sentences import Block
from domainfusion.types import Contribution

DISAGREE = "The experts disagree."
"""The answer's words for an unsettled conflict, before each expert's statement."""

_ITEM = re.compile(r"\s*(?:[-*+•–]|\(?\d{1,3}[.)])\s+")
"""The mark of a list's item."""
# A line that opens or closes a block of code in Markdown.
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_LONGEST_SPACE = 100
"""White space between two sentences that is kept as it is; more than that is cut."""
_NO_SPACE_AFTER = ("。", "！", "？", "｡")
_PARAGRAPHS = "\n\n"
_SEPARATED = "\n\n---\n\n"
"""A line between two experts, where Markdown would otherwise take the second one's words for a part
of the first one's section or list.
"""


class MergedAnswer(NamedTuple):
    """A merged answer.

    Attributes:
        text: The answer.
        contributions: Where the experts' words stand in it.
    """

    text: str
    contributions: tuple[Contribution, ...]


def render(plan: Plan) -> MergedAnswer:
    """Returns the answer that states, word for word, the claims that a plan states.

    Blocks that are not paragraphs are taken whole, and the white space of the responses with them.
    Where experts disagree and nothing settles it, or what lost stands in a list and stays there,
    the answer says so and gives both sides.
    """
    return _Merge(plan).result()


@dataclass(frozen=True, eq=False)
class _Group:
    """A sentence with those that lean on it, or a block, of one expert.

    Attributes:
        domain: The expert's domain.
        units: What it consists of.
        points: The points of conflict that it has a claim of, and that the answer tells.
    """

    domain: str
    units: tuple[ResponseUnit, ...]
    points: tuple[Point, ...]

    @property
    def is_fixed(self) -> bool:
        """Whether it stays where it is, since it is a block or introduces one."""
        return any(unit.is_fixed for unit in self.units)


class _Merge:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.responses = primary_first(plan.task)
        self.units = {
            domain: units_of(response.text) for domain, response in self.responses.items()
        }
        self.claims = {
            domain: claims_in(units, [claim for claim in plan.claims if claim.domain == domain])
            for domain, units in self.units.items()
        }
        self.lost = {claim.id for claim in plan.losers}
        self.point_of = {
            claim.id: each.point for each in plan.told_points for claim in each.point.claims
        }
        # By domain too: experts that give the same answer share its units.
        self.group_of: dict[tuple[str, ResponseUnit], _Group] = {}
        self.group_with: dict[str, _Group] = {}
        for domain, units in self.units.items():
            for members in groups_of(units):
                self._add_group(domain, members)
        self.told: list[Point] = []
        self.moved: set[_Group] = set()
        self.pieces: list[str] = []
        self.length = 0
        self.contributions: list[Contribution] = []
        self.last: tuple[str, ResponseUnit] | None = None
        self.rank = 0  # the highest heading of the part that is being written; 0 where it has none

    def _add_group(self, domain: str, units: Sequence[ResponseUnit]) -> None:
        stated = [claim.id for unit in units for claim in self.claims[domain][unit]]
        told = [name for name in stated if name in self.point_of]
        group = _Group(
            domain, tuple(units), tuple(dict.fromkeys(self.point_of[name] for name in told))
        )
        self.group_of |= {(domain, unit): group for unit in units}
        self.group_with |= dict.fromkeys(told, group)

    def result(self) -> MergedAnswer:
        for domain, units in self.units.items():
            self._add_response(domain, units)
        return MergedAnswer("".join(self.pieces), tuple(self.contributions))

    def _add(self, text: str) -> None:
        self.pieces.append(text)
        self.length += len(text)

    def _add_response(self, domain: str, units: Sequence[ResponseUnit]) -> None:
        later: list[
            Point
        ] = []  # points that are told after the block in which one of their sides stands
        is_new = True
        kept = [unit for unit in units if not self._is_left_out(domain, unit)]
        for unit in self._without_empty_sections(units, kept):
            group = self.group_of[domain, unit]
            if group in self.moved:
                continue
            new = [point for point in group.points if point not in self.told]
            if new and not group.is_fixed:
                self._separate(domain, unit, is_new)
                for point in new:
                    self._tell(point)
            else:
                if later and self.last is not None and unit.block is not self.last[1].block:
                    self._tell_after(later)
                self._separate(domain, unit, is_new)
                self._write(domain, unit)
                later += [point for point in new if point not in later]
            is_new = False
            self.last = (domain, unit)
        self._tell_after(later)
        levels = [unit.block.level for unit in units if unit.block.level]
        self.rank = min(levels, default=0)

    def _is_left_out(self, domain: str, unit: ResponseUnit) -> bool:
        claims = self.claims[domain][unit]
        if unit.is_fixed or not claims:
            return False
        out = [claim.id in self.plan.left_out for claim in claims]
        return all(out) or any(
            claim.id in self.lost and gone for claim, gone in zip(claims, out, strict=True)
        )

    def _without_empty_sections(
        self, units: Sequence[ResponseUnit], kept: Sequence[ResponseUnit]
    ) -> list[ResponseUnit]:
        """Returns the kept pieces without the headings whose whole section is left out."""
        stays = set(kept)
        shown: list[ResponseUnit] = []
        for place, unit in enumerate(units):
            if unit not in stays:
                continue
            if unit.block.kind == "heading":
                section = []
                for following in units[place + 1 :]:
                    if following.block.kind == "heading":
                        break
                    section.append(following)
                if section and stays.isdisjoint(section):
                    continue
            shown.append(unit)
        return shown

    def _separate(self, domain: str, unit: ResponseUnit, is_new: bool) -> None:
        """Adds what stands between the last unit and this one."""
        if not self.pieces:
            return
        if self.last is None or (is_new and self.last[0] != domain):
            self._add(self._between_experts(unit))
            return
        response = self.responses[domain].text
        previous = self.last[1]
        if previous.block is unit.block:
            self._add(_space_before(response, unit.start))
        elif self._follows(domain, previous, unit):
            self._add(response[previous.block.end : unit.start])
        else:
            self._add(_SEPARATED if _would_join(previous.block, unit.block) else _PARAGRAPHS)

    def _follows(self, domain: str, previous: ResponseUnit, unit: ResponseUnit) -> bool:
        """Whether nothing stands between the blocks of two units in the response."""
        return (
            self.last == (domain, previous)
            and not self.responses[domain].text[previous.block.end : unit.start].strip()
        )

    def _between_experts(self, unit: ResponseUnit) -> str:
        if self._is_plain():
            return "" if self.pieces[-1].endswith(_NO_SPACE_AFTER) else " "
        previous = self.last[1].block if self.last else None
        closing = (
            _unclosed(previous.text) if previous is not None and previous.kind == "code" else ""
        )
        is_swallowed = self.rank > 0 and not 0 < unit.block.level <= self.rank
        if is_swallowed or (previous is not None and _would_join(previous, unit.block)):
            return closing + _SEPARATED
        return closing + _PARAGRAPHS

    def _is_plain(self) -> bool:
        """Whether every response is one paragraph of one line, so that they make one paragraph
        together.
        """
        return all(
            len({id(unit.block) for unit in units}) <= 1
            and all(unit.block.is_prose and "\n" not in unit.block.text for unit in units)
            for units in self.units.values()
        )

    def _write(self, domain: str, unit: ResponseUnit) -> None:
        words = self.responses[domain].text[unit.start : unit.end]
        self.contributions.append(
            Contribution(domain=domain, text=words, start=self.length, end=self.length + len(words))
        )
        self._add(words)

    def _tell_after(self, points: list[Point]) -> None:
        for point in points:
            if point not in self.told:
                self._add(_PARAGRAPHS)
                self._tell(point)
        points.clear()

    def _tell(self, point: Point) -> None:
        """Says that the experts disagree on a point, and what each side says, with the sentences
        that lean on that.
        """
        self.told.append(point)
        self._add(DISAGREE)
        for side in point.sides:
            shown = [claim for claim in side if claim.id not in self.plan.left_out]
            for place, claim in enumerate(shown or side[:1]):
                group = self.group_with.get(claim.id)
                if group in self.moved:
                    continue
                self._add(" " if place else f" {_speakers(side)}: ")
                if group is None or group.is_fixed:
                    self._add(_ITEM.sub("", claim.quote, count=1))
                else:
                    self._move(group)

    def _move(self, group: _Group) -> None:
        response = self.responses[group.domain].text
        for place, unit in enumerate(group.units):
            if place and self._is_left_out(group.domain, unit):
                continue
            if place:
                self._add(_space_before(response, unit.start))
            self._write(group.domain, unit)
        self.moved.add(group)


def _space_before(text: str, start: int) -> str:
    """Returns the white space before a place in a text."""
    before = text[max(0, start - _LONGEST_SPACE) : start]
    return before[len(before.rstrip()) :]


def _unclosed(code: str) -> str:
    """Returns the line that ends a fence which its author left open; empty where there is nothing
    to end.
    """
    lines = code.splitlines()
    opening = _FENCE.match(lines[0])
    if opening is None or (
        len(lines) > 1
        and lines[-1].strip().startswith(opening[1])
        and not lines[-1].strip().strip(opening[1][0])
    ):
        return ""
    return f"\n{opening[1]}"


def _would_join(previous: Block, block: Block) -> bool:
    """Whether Markdown takes two blocks for one: two lists, or a list and what is indented after
    it.
    """
    return previous.kind == "list" and (block.kind == "list" or block.text[:1].isspace())


def _speakers(side: Sequence[Claim]) -> str:
    names = list(dict.fromkeys(claim.domain for claim in side))
    return (
        "According to"
        f" {' and '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)}"
    )
