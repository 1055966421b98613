"""Grading numbers, with a tolerance and in any unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from domainfusion.distillation.metrics.accuracy import NO_REFERENCE, accepted_answers
from domainfusion.distillation.text.quantities import Stated, in_unit, read_quantities
from domainfusion.distillation.text.sentences import Span
from domainfusion.distillation.text.statements import is_denied, is_one_of_guesses
from domainfusion.distillation.text.units import (
    NO_UNIT,
    PERCENT,
    BaseUnits,
    base_units_of,
    parse_unit,
)
from domainfusion.distillation.text.words import render
from domainfusion.errors import ConfigurationError
from domainfusion.types import Example, Score

_MOST_NUMBERS = 200
"""Numbers that are looked at for what is said of them."""


@dataclass(frozen=True)
class Numeric:
    """Right is an answer that gives the accepted number, within a tolerance and in any unit of the
    same kind.

    The first number of an accepted answer is the one that counts. A number without a unit is taken
    to be in the wanted unit, unless the answer gives another in a unit of that kind: in "Gold,
    element 79, melts at 1948 °F" only the temperature counts. A number that the answer denies, or
    guesses beside others ("40, 42 or 44"), does not count; an answer without any number is wrong,
    and not readable.

    Args:
        relative_tolerance: How far off a number may be, as a share of the accepted one.
        absolute_tolerance: How far off it may be in any case, in the accepted answer's unit. The
            larger of the two holds.
        unit: The unit of accepted answers that name none, such as `km/h`; empty leaves them
            without.
        which: Which of the answer's numbers is compared with the accepted one: `any` of them, the
            `first`, or the `last`, which is what a model that reasons aloud ends with. With `any`,
            an answer passes that has the number among others in its course.

    Raises:
        ConfigurationError: A tolerance is negative, the unit is not known, or `which` is none of
            the three.

    Example:
        >>> example = Example(query="At how many °C does gold melt?", domains=("chemistry",), reference="1064 °C")
        >>> Numeric()(example, "At 1,064.2 °C.").value, Numeric()(example, "At 1948 °F.").value, Numeric()(example, "At 961 °C.").value
        (1.0, 1.0, 0.0)
        >>> Numeric()(example, "Not 1064 °C.").value, Numeric()(example, "I don't know.")
        (0.0, Score(value=0.0, reason='the answer has no number', parts=(0.0,), readable=False))
    """

    relative_tolerance: float = 0.01
    absolute_tolerance: float = 0.0
    unit: str = ""
    which: Literal["any", "first", "last"] = "any"

    def __post_init__(self) -> None:
        for name in ("relative_tolerance", "absolute_tolerance"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigurationError(
                    f"{name} is out of range", received=value, allowed="a number from 0"
                )
        if self.unit and not parse_unit(self.unit):
            raise ConfigurationError(
                "The unit is not known",
                received=self.unit,
                allowed="a unit that pint knows, such as °C, km/h or kJ",
            )
        if self.which not in ("any", "first", "last"):
            raise ConfigurationError(
                "There is no such choice of numbers",
                received=self.which,
                allowed="any, first, last",
            )

    def __call__(self, example: Example, text: str) -> Score:
        """Grades an answer."""
        accepted = [
            [self._wanted(answer) for answer in answers] for answers in accepted_answers(example)
        ]
        if not accepted:
            return Score.unscored(NO_REFERENCE)
        golds = [[number for number in numbers if number is not None] for numbers in accepted]
        if not all(golds):
            return Score.unscored("the reference has no number")
        seen = render(text).text
        stated = read_quantities(seen)
        if not stated:
            return Score.not_readable("the answer has no number", parts=len(golds))
        committed = [
            number
            for number in stated[:_MOST_NUMBERS]
            if not is_denied(seen, _span(number), query=example.query)
        ]
        known = [answer for answers in accepted_answers(example) for answer in answers]

        def is_given(gold: Stated) -> bool:
            found = self._found(gold, committed + stated[_MOST_NUMBERS:])
            return any(
                not is_one_of_guesses(seen, _span(number), known, example.query)
                for number in found[:_MOST_NUMBERS]
            )

        grades = tuple(float(any(is_given(gold) for gold in numbers)) for numbers in golds)
        return Score(sum(grades) / len(grades), parts=grades)

    def _wanted(self, answer: str) -> Stated | None:
        """Returns what an accepted answer gives: its first quantity, in the unit of the metric
        where it names none.
        """
        found = read_quantities(answer)
        if not found:
            return None
        unit = parse_unit(self.unit)
        return found[0] if found[0].unit or not unit else in_unit(found[0], unit)

    def _found(self, gold: Stated, stated: Sequence[Stated]) -> list[Stated]:
        """Returns the quantities of an answer that are the accepted one: both ends of it, where it
        is a range.
        """
        base = base_units_of(gold.unit) or NO_UNIT
        if gold.unit:
            measured = [number for number in stated if _measures(number, gold)]
            chosen = measured or [number for number in stated if not number.unit]
        else:
            chosen = list(stated)
        chosen = {"any": chosen, "first": chosen[:1], "last": chosen[-1:]}[self.which]
        return [number for number in chosen if self._is(number, gold, base)]

    def _is(self, number: Stated, gold: Stated, base: BaseUnits) -> bool:
        ends = (
            _converted(number, base) if gold.unit and number.unit else (number.first, number.last)
        )
        if self._is_near(ends[0], gold.first) and self._is_near(ends[1], gold.last):
            return True
        is_share = number.unit == PERCENT and not gold.unit  # 50 % of a whole is 0.5 of it
        return (
            is_share
            and self._is_near(ends[0] / 100, gold.first)
            and self._is_near(ends[1] / 100, gold.last)
        )

    def _is_near(self, value: float, wanted: float) -> bool:
        allowed = max(self.absolute_tolerance, self.relative_tolerance * abs(wanted))
        return value == wanted or abs(value - wanted) <= allowed


def _span(number: Stated) -> Span:
    return Span(number.start, number.end)


def _measures(number: Stated, gold: Stated) -> bool:
    """Whether a quantity is of the kind that is wanted."""
    own, wanted = base_units_of(number.unit), base_units_of(gold.unit)
    return (
        bool(number.unit)
        and own is not None
        and wanted is not None
        and own.dimension == wanted.dimension
    )


def _converted(number: Stated, wanted: BaseUnits) -> tuple[float, float]:
    """Returns both ends of a quantity in the wanted unit."""
    own = base_units_of(number.unit) or NO_UNIT
    first, last = (
        (value * own.factor + own.offset - wanted.offset) / wanted.factor
        for value in (number.first, number.last)
    )
    return first, last
