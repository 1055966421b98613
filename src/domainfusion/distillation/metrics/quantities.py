"""Numbers in a text, with their units."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import pint

_NUMBER = re.compile(
    r"(?<![\w.,/])(?P<sign>[-+−]?)(?P<digits>\d{1,3}(?:[,\u00a0\u202f']\d{3})+(?!\d)|\d+)(?P<fraction>\.\d+)?"
    r"(?:\s?[x×·*]\s?10(?:\^|\*\*)?(?P<power>[-+−]?\d+|[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)|[eE](?P<exponent>[-+]?\d+)\b)?"
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺−", "0123456789-+-")
_SCALES = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_SCALE = re.compile(rf"[\s-]?({'|'.join(_SCALES)})\b", re.IGNORECASE)
_UNIT = re.compile(r"[\s-]?((?:[^\W\d_]|[°%µ′″$€£/²³⁻¹·^*]|(?<=[^\W\d_^])-?\d)+(?: (?:[^\W\d_]|[°%µ/²³])+){0,3})")
_NO_UNITS = frozenset(("a", "an", "and", "are", "as", "at", "by", "in", "is", "of", "or", "per", "pH", "the", "to", "st", "nd", "rd", "th"))
"""Words that pint would take for units: in the morning is no inch, the 3rd no rod."""

_POWERS = ((re.compile(r"\b(?:square|sq\.?) (\w+)", re.IGNORECASE), r"\1**2"), (re.compile(r"\bcubic (\w+)", re.IGNORECASE), r"\1**3"))


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and its unit.

    Attributes:
        magnitude: The number.
        unit: The unit as `parse_unit` names it; empty where there is none.
    """

    magnitude: float
    unit: str = ""

    def to(self, unit: str) -> float | None:
        """Returns the magnitude in another unit; None where the two measure different things."""
        if unit == self.unit:
            return self.magnitude
        if not (unit and self.unit):
            return None
        try:
            return float(_registry().Quantity(self.magnitude, self.unit).to(unit).magnitude)
        except pint.PintError:
            return None


def quantities(text: str) -> list[Quantity]:
    """Returns the numbers of a text in digits, in order, each with the unit that follows it.

    Thousands are set apart by commas, apostrophes or narrow spaces, decimals by a full stop. Numbers in words are not read.

    Example:
        >>> quantities("Gold (element 79) melts at 1,064 °C, far above 2.1 × 10² K.")
        [Quantity(magnitude=79.0, unit=''), Quantity(magnitude=1064.0, unit='degree_Celsius'), Quantity(magnitude=210.0, unit='kelvin')]
    """
    return list(_read(text))


def _read(text: str) -> Iterator[Quantity]:
    for match in _NUMBER.finditer(text):
        plain = re.sub(r"\D", "", match["digits"]) + (match["fraction"] or "")
        power = (match["power"] or match["exponent"] or "0").translate(_SUPERSCRIPTS)
        if abs(int(power)) > 300:
            continue  # no float holds it
        magnitude = float(f"{plain}e{power}") * (-1 if match["sign"] in ("-", "−") else 1)
        end = match.end()
        if scale := _SCALE.match(text, end):
            magnitude, end = magnitude * _SCALES[scale[1].lower()], scale.end()
        yield Quantity(magnitude, _unit_at(text, end))


def _unit_at(text: str, start: int) -> str:
    """Returns the unit that begins there: the longest run of words that names one."""
    found = _UNIT.match(text, start)
    words = found[1].split(" ") if found else []
    while words:
        if words[0] not in _NO_UNITS and (unit := parse_unit(" ".join(words).rstrip("-/*^·"))):
            return unit
        words.pop()
    return ""


@lru_cache(maxsize=4096)
def parse_unit(words: str) -> str:
    """Returns the full name of a unit; empty where the words name none.

    Example:
        >>> parse_unit("km/h"), parse_unit("square metres"), parse_unit("people")
        ('kilometer / hour', 'meter ** 2', '')
    """
    for pattern, replacement in _POWERS:
        words = pattern.sub(replacement, words)
    if not words or (words.count(" ") and not re.search(r"\bper\b|[/*]", words)):
        return ""  # pint would read two words as a product
    try:
        return str(_registry().parse_units(words))
    except Exception:  # pint raises whatever its tokenizer stumbles over
        return ""


@dataclass(frozen=True, slots=True)
class BaseUnits:
    """How a unit is turned into the base units of what it measures: `factor * magnitude + offset`.

    Attributes:
        dimension: What it measures, such as `[length]`.
        factor: How many base units it is.
        offset: The base units at its zero, as of °C.
    """

    dimension: str
    factor: float
    offset: float


@cache
def base_units_of(unit: str) -> BaseUnits:
    """Returns how a unit that `parse_unit` found is turned into base units.

    Example:
        >>> base_units_of("kilometer")
        BaseUnits(dimension='[length]', factor=1000.0, offset=0.0)
    """
    zero, one = (_registry().Quantity(number, unit).to_base_units() for number in (0.0, 1.0))
    return BaseUnits(str(one.dimensionality), float(one.magnitude - zero.magnitude), float(zero.magnitude))


@cache
def _registry() -> Any:
    return pint.UnitRegistry()
