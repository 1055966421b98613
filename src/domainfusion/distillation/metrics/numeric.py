"""Grading numbers, with a tolerance and in any unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from domainfusion.distillation.metrics.metric import not_extracted
from domainfusion.distillation.metrics.references import NO_REFERENCE, accepted_answers
from domainfusion.distillation.text.quantities import Stated, in_unit, read_quantities
from domainfusion.distillation.text.units import (
    NO_UNIT,
    PERCENT,
    BaseUnits,
    base_units_of,
    parse_unit,
)
from domainfusion.errors import ConfigurationError
from domainfusion.types import Example, Score


@dataclass(frozen=True)
class Numeric:
    """Right is an answer that gives the accepted number, within a tolerance and in any unit of the same kind.

    The first number of an accepted answer is the one that counts. A number without a unit is taken to be in the wanted unit,
    unless the answer gives another in a unit of that kind: in "Gold, element 79, melts at 1948 °F" only the temperature counts.
    An answer without any number is unscored, as an extraction failure.

    Args:
        relative_tolerance: How far off a number may be, as a share of the accepted one.
        absolute_tolerance: How far off it may be in any case, in the accepted answer's unit. The larger of the two holds.
        unit: The unit of accepted answers that name none, such as `km/h`; empty leaves them without.
        which: Which of the answer's numbers is held against the accepted one: `any` of them, the `first`, or the `last`, which is
            what a model that reasons aloud ends with. With `any`, an answer that guesses several numbers passes.

    Raises:
        ConfigurationError: A tolerance is negative, the unit is not known, or `which` is none of the three.

    Example:
        >>> example = Example(query="At how many °C does gold melt?", domains=("chemistry",), reference="1064 °C")
        >>> Numeric()(example, "At 1,064.2 °C.").value, Numeric()(example, "At 1948 °F.").value, Numeric()(example, "At 961 °C.").value
        (1.0, 1.0, 0.0)
        >>> Numeric()(example, "I don't know.").reason
        'extraction: the answer has no number'
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
        stated = read_quantities(text)
        if not stated:
            return not_extracted("the answer has no number")
        grades = tuple(
            float(any(self._gives(gold, stated) for gold in numbers)) for numbers in golds
        )
        return Score(sum(grades) / len(grades), parts=grades)

    def _wanted(self, answer: str) -> Stated | None:
        """Returns what an accepted answer gives: its first quantity, in the unit of the metric where it names none."""
        found = read_quantities(answer)
        if not found:
            return None
        unit = parse_unit(self.unit)
        return found[0] if found[0].unit or not unit else in_unit(found[0], unit)

    def _gives(self, gold: Stated, stated: Sequence[Stated]) -> bool:
        """Whether an answer gives the accepted quantity: each end of it, where it is a range."""
        base = base_units_of(gold.unit) or NO_UNIT
        chosen = [(number.first, number.last) for number in stated]
        if gold.unit:
            measured = [_converted(number, base) for number in stated if _measures(number, gold)]
            chosen = measured or [
                (number.first, number.last) for number in stated if not number.unit
            ]
        elif any(number.unit == PERCENT for number in stated):
            chosen += [
                (number.first / 100, number.last / 100)
                for number in stated
                if number.unit == PERCENT
            ]
        chosen = {"any": chosen, "first": chosen[:1], "last": chosen[-1:]}[self.which]
        return any(
            self._is_near(first, gold.first) and self._is_near(last, gold.last)
            for first, last in chosen
        )

    def _is_near(self, value: float, wanted: float) -> bool:
        allowed = max(self.absolute_tolerance, self.relative_tolerance * abs(wanted))
        return value == wanted or abs(value - wanted) <= allowed


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
