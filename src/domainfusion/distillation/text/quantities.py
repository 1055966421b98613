"""The one reader of quantities: numbers in digits and words, ranges, bounds and units, and the
interval each stands for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf, isfinite
from typing import NamedTuple

from domainfusion.distillation.text.digits import (
    LETTER,
    SCALES,
    Kind,
    Number,
    as_listed,
    numbers_in,
)
from domainfusion.distillation.text.units import (
    HOUR,
    NO_UNIT,
    UNSPACED,
    BaseUnits,
    Unit,
    base_units_of,
    currency_before,
    unit_at,
)
from domainfusion.distillation.text.words import render


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit, as the interval that it stands for.

    Attributes:
        low: The least value that it allows, in base units.
        high: The most.
        middle: The value itself, in base units; of a range, its middle.
        dimension: What is measured, such as `[length]`; empty for a number of things or a code.
    """

    low: float
    high: float
    middle: float
    dimension: str


@dataclass(frozen=True, slots=True)
class Stated:
    """A quantity where it stands in a text.

    Attributes:
        start: Where it begins, words such as "about" and a currency's sign included.
        end: Where it ends, its unit included.
        first: The number in its unit; of a range, the one that is written first.
        last: The other end of a range; else the number again.
        unit: The unit as pint names it; empty where there is none.
        quantity: The interval that it stands for.
        kind: How it is given.
        in_words: Whether the number is written in words.
    """

    start: int
    end: int
    first: float
    last: float
    unit: str
    quantity: Quantity
    kind: Kind = "number"
    in_words: bool = False


_ROUGHNESS = 0.02
_LARGE_COUNT = 10_000
"""From here on a number of things is taken as rounded where it ends in zeros."""

_DECADE = re.compile(
    r"\b\d\d\d0s\b|\b(?:his|her|their|the|mid|early|late)[ -]\d0s\b", re.IGNORECASE
)
"""The 1990s and somebody's thirties are not seconds."""

# A word that scales the number before it, the longest first: "million"; or "k".
_SCALE = re.compile(
    rf"(?P<word>[\s-]?(?:{'|'.join(sorted(map(re.escape, SCALES), key=len, reverse=True))}))(?!{LETTER})"
    r"|(?P<kilo>k)(?![\w/])",
    re.IGNORECASE,
)
# A letter that scales an amount of money: $3bn, €5k.
_MONEY_SCALE = re.compile(r"\s?(bn|[kmb])(?!\w)", re.IGNORECASE)
_MONEY_SCALES = {"k": 1e3, "m": 1e6, "b": 1e9, "bn": 1e9}

_TO = r"\s?(?:to|bis|à|a|до|tot|til|till|through)\s|\s?[–—~-]\s?|\s?(?:至|到|から|에서|ถึง)\s?"
_AND = r"\s(?:and|und|et|y|e|en|и|och|og)\s|\s?(?:和|と|与)\s?"
# Before a range joined by "and": "between 5 and 7".
_BETWEEN = re.compile(
    r"(?:\b(?:between|zwischen|entre|tra|fra|tussen|mellem|mellan|между)|之间|介于)\s?$",
    re.IGNORECASE,
)
# Between the ends of a range: "to", a dash.
_JOINED_BY_TO = re.compile(_TO)
# Between the ends of a range that "between" begins.
_JOINED_BY_AND = re.compile(_AND)
# Between a value and its tolerance.
_PLUS_MINUS = re.compile(r"\s?(?:±|\+/-|\+-)\s?")
_AND_A_HALF = re.compile(r" and a half\b", re.IGNORECASE)
"""After a unit: an hour and a half."""
# Between the parts of one quantity: "5 feet and 3 inches".
_COMPOUND = re.compile(r"(?:,? (?:and|und|et|y|e) |,? )?")

_ROUGH = (
    r"about|around|roughly|approximately|approx\.?|nearly|almost|some|circa|ca\.?|c\.|close to|just"
    r" (?:over|under)|~|≈|"
    r"etwa|ungefähr|rund|fast|knapp|environ|presque|près de|alrededor"
    r" de|aproximadamente|unos|unas|casi|cerca de|около|примерно|"
    r"почти|大约|大約|大概|约|約|およそ|약|ประมาณ|حوالي|तकरीबन|लगभग"
)
_LOWER = (
    r"at least|more than|over|above|exceeding|exceeds|no (?:less|fewer) than|not (?:less|fewer)"
    r" than|minimum of|≥|>=|>|"
    r"mindestens|über|mehr als|au moins|plus de|al menos|más de|por lo menos|almeno|più di|не"
    r" менее|более|больше|至少|超过|超過|最少|"
    r"적어도|최소|少なくとも"
)
_UPPER = (
    r"at most|up to|less than|fewer than|under|below|no more than|not more than|maximum"
    r" of|≤|<=|<|höchstens|unter|weniger als|"
    r"maximal|au plus|moins de|jusqu'à|a lo sumo|como máximo|menos de|hasta|al massimo|meno di|не"
    r" более|менее|меньше|最多|不到|"
    r"少于|최대|せいぜい"
)
# What stands directly before a number and makes it rough or a bound, an article in between.
_BEFORE = re.compile(
    rf"(?:(?<!\w)|(?<=[{UNSPACED}]))(?:(?P<rough>{_ROUGH})|(?P<lower>{_LOWER})|(?P<upper>{_UPPER}))\s*(?:the"
    r" |a )?$",
    re.IGNORECASE,
)
# What stands directly after a quantity and makes it rough or a bound.
_AFTER = re.compile(
    r"(?P<lower>\s?(?:or|oder|ou|o)\s(?:more|greater|higher|above|over|longer|older|mehr|plus|más)\b|\s?and"
    r" (?:above|over|up)\b|以上|이상)"
    r"|(?P<upper>\s?(?:or|oder|ou|o)\s(?:less|fewer|lower|under|below|younger|weniger|moins|menos)\b|以下|以内|이하)"
    r"|(?P<rough>\s?or so\b|\s?(?:左右|上下|前後|程度|정도))",
    re.IGNORECASE,
)
_REACH = 26
"""Characters before a number in which words such as "approximately" are looked for."""


def read_quantities(text: str) -> list[Stated]:
    """Returns the quantities of a text in order, each with its place and the interval that it
    stands for.

    Read are numbers in digits of any script, with thousands and decimals as English or the rest of
    Europe writes them, powers of ten, fractions, number words, ranges, and units in symbols and in
    words of many languages. A number that no float holds, one that is a part of a word, and one
    that names a place in a molecule are none. Whatever the text, nothing is raised.

    Example:
        >>> [(stated.first, stated.unit) for stated in read_quantities("Gold (element 79) melts at 1.064 × 10³ °C, or 1'337 K.")]
        [(79.0, ''), (1064.0, 'degree_Celsius'), (1337.0, 'kelvin')]
        >>> [(stated.first, stated.last, stated.unit) for stated in read_quantities("1,6 bis 2,2 g, between 5 and 7 km, twenty-one days")]
        [(1.6, 2.2, 'gram'), (5.0, 7.0, 'kilometer'), (21.0, 21.0, 'day')]
        >>> [stated.quantity for stated in read_quantities("at least 100 km")]
        [Quantity(low=95000.0, high=inf, middle=100000.0, dimension='[length]')]
    """
    return list(_kept(text) if len(text) <= _LONGEST_KEPT else _read(text))


_MOST_KEPT, _LONGEST_KEPT = 2_048, 500
"""How many texts are kept with their quantities at most, and of how many characters: a sentence is
read for what it claims, for its conflicts and for each accepted answer.
"""


@lru_cache(maxsize=_MOST_KEPT)
def _kept(text: str) -> tuple[Stated, ...]:
    return tuple(_read(text))


def _read(text: str) -> list[Stated]:
    seen = render(text)
    found: list[Stated] = []
    for stated in _statements(seen.text):
        start, end = seen.places[stated.start], seen.places[stated.end]
        start = max(start, found[-1].end) if found else start
        is_in_place = (start, end) == (stated.start, stated.end)
        found.append(stated if is_in_place else replace(stated, start=start, end=end))
    return [stated for stated in found if stated.start < stated.end]


def in_unit(stated: Stated, unit: str) -> Stated:
    """Returns a quantity without a unit as one in a unit; `unit` is a name that `parse_unit`
    gives.
    """
    base = base_units_of(unit) or NO_UNIT
    low, high, middle = (
        number * base.factor + base.offset
        for number in (stated.quantity.low, stated.quantity.high, stated.quantity.middle)
    )
    return replace(stated, unit=unit, quantity=Quantity(low, high, middle, base.dimension))


class _Amount(NamedTuple):
    """A number or a range with its scale and its unit, in a rendered text.

    Attributes:
        start: Where its first number begins.
        end: Where it ends.
        low: The number that is written first.
        high: The other end of a range; else the same.
        middle: The value itself.
        slack: How far rounding may have moved each end.
        unit: Its unit; empty where there is none.
        kind: How it is given.
        in_words: Whether it is written in words.
        used: How many of the numbers it is made of.
    """

    start: int
    end: int
    low: float
    high: float
    middle: float
    slack: float
    unit: str
    kind: Kind
    in_words: bool
    used: int


def _statements(text: str) -> Iterator[Stated]:
    numbers = list(numbers_in(text))
    place = 0
    free_from = 0  # nothing before this place is read again
    while place < len(numbers):
        is_read = numbers[place].start < free_from  # as a part of the unit before
        amount = None if is_read else _amount_at(text, numbers, place, free_from)
        if amount is None:
            place += 1
            continue
        place += amount.used
        stated = _interval(text, amount, free_from)
        if stated is not None:
            free_from = stated.end
            yield stated


def _amount_at(text: str, numbers: list[Number], place: int, free_from: int) -> _Amount | None:
    """Returns the amount that begins with a number; None where it is none."""
    number = numbers[place]
    currency = currency_before(text, number.start)
    if currency is not None and currency[1] < free_from:
        currency = None
    first = _scaled(text, number, is_money=currency is not None)
    unit = _unit_after(text, first, currency is not None)
    if first.needs_unit and unit is None:
        return None
    second = _other_end(text, numbers, place, first, unit, free_from)
    if second is not None:
        last = _scaled(text, second, is_money=currency is not None)
        return _range(text, first, last, unit, currency[0] if currency else "", number)
    deviation = _deviation(text, numbers, place, first, unit)
    start = first.start if currency is None else currency[1]
    name, end = (unit.name, unit.end) if unit else (currency[0] if currency else "", first.end)
    if not name and _is_part_of_word(text, first):
        return None
    kind: Kind = first.kind
    if deviation is not None:
        tolerance = _scaled(text, deviation, is_money=False)
        unit = unit or _unit_after(text, tolerance, False)
        name, end = (unit.name, max(unit.end, tolerance.end)) if unit else (name, tolerance.end)
        low, high = first.value - tolerance.value, first.value + tolerance.value
        return _Amount(start, end, low, high, first.value, 0.0, name, "range", False, 2)
    used, value = 1, first.value
    if unit is not None and (half := _AND_A_HALF.match(text, end)):
        value, end = first.value + 0.5, half.end()
    elif unit is not None and first.kind == "number" and currency is None:
        value, end, used = _compound(text, numbers, place, first, unit)
    if used > 1:
        return _Amount(start, end, value, value, value, 0.0, name, "number", first.in_words, used)
    slack = (
        first.step / 2 if name or not first.is_whole or abs(first.value) >= _LARGE_COUNT else 0.0
    )
    if kind == "clock":
        slack = 0.0
    return _Amount(start, end, value, value, value, slack, name, kind, first.in_words, 1)


def _range(
    text: str, first: Number, last: Number, between: Unit | None, currency: str, written: Number
) -> _Amount | None:
    """Returns a range; the scale and the unit of its end hold for its beginning too where that has
    none.
    """
    unit = _unit_after(text, last, bool(currency)) or between
    if last.needs_unit and unit is None:
        return None
    low, high = first.value, last.value
    if (
        first.end == written.end
        and abs(low) <= abs(high)
        and last.step >= 1000 > first.step
        and first.kind != "clock"
    ):
        scale = _scale_between(text, last)
        low, first = low * scale, first._replace(step=first.step * scale)
    name = unit.name if unit else currency
    if between is not None and unit is not None and between.name != unit.name:
        one, other = base_units_of(between.name), base_units_of(unit.name)
        if one is None or other is None or one.dimension != other.dimension:
            return None
        low = (low * one.factor + one.offset - other.offset) / other.factor
    end = max(last.end, unit.end if unit and unit is not between else last.end)
    is_rounded = bool(name) or not first.is_whole or abs(low) >= _LARGE_COUNT
    slack = min(first.step, last.step) / 2 if is_rounded else 0.0
    return _Amount(
        first.start, end, low, high, (low + high) / 2, slack, name, "range", first.in_words, 2
    )


def _scale_between(text: str, last: Number) -> float:
    """Returns the scale that the words of a number end with: 1.6 to 2.2 million."""
    found = list(_SCALE.finditer(text, last.start, last.end))
    return _scale_of(found[-1]) if found else 1.0


def _interval(text: str, amount: _Amount, free_from: int) -> Stated | None:
    """Returns an amount as the interval that it stands for, the words around it included."""
    base = _clock_units(amount) or base_units_of(amount.unit) or NO_UNIT
    start, end, slack = amount.start, amount.end, amount.slack
    bounds = {"lower": False, "upper": False}
    before = text[max(free_from, start - _REACH) : start]
    word = _BEFORE.search(before)
    after = _AFTER.match(text, end)
    is_rough = False
    for match in (word, after):
        if match is None or amount.kind in ("clock", "ordinal"):
            continue
        is_rough = is_rough or match["rough"] is not None
        for name in bounds:
            bounds[name] = bounds[name] or match[name] is not None
        if match is word:
            start -= len(before) - match.start()
        else:
            end = match.end()
    if (
        text[end : end + 1] == "+"
        and not text[end + 1 : end + 2].isdigit()
        and amount.kind == "number"
    ):
        bounds["lower"], end = True, end + 1
        if not amount.unit and (unit := unit_at(text, end)) is not None:
            amount = amount._replace(unit=unit.name)
            base, end = base_units_of(unit.name) or NO_UNIT, unit.end
    if is_rough:
        slack = max(slack, _ROUGHNESS * abs(amount.low))
    bottom = -inf if bounds["upper"] else min(amount.low, amount.high) - slack
    top = inf if bounds["lower"] else max(amount.low, amount.high) + slack
    low, high, middle = (
        number * base.factor + base.offset for number in (bottom, top, amount.middle)
    )
    if not isfinite(middle):
        return None
    quantity = Quantity(low, high, middle, base.dimension)
    return Stated(
        start, end, amount.low, amount.high, amount.unit, quantity, amount.kind, amount.in_words
    )


def _clock_units(amount: _Amount) -> BaseUnits | None:
    return BaseUnits("clock", 1.0, 0.0) if amount.kind == "clock" else None


def _scaled(text: str, number: Number, *, is_money: bool) -> Number:
    """Returns a number with the scale that follows it, such as million."""
    if number.kind != "number":
        return number
    money = _MONEY_SCALE.match(text, number.end) if is_money else None
    found = _SCALE.match(text, number.end)
    if money is not None:
        scale, end = _MONEY_SCALES[as_listed(money[1])], money.end()
    elif found is not None and not (number.in_words and found["kilo"]):
        scale, end = _scale_of(found), found.end()
    else:
        return number
    return number._replace(
        end=end, value=number.value * scale, step=number.step * scale, is_whole=False
    )


def _scale_of(match: re.Match[str]) -> float:
    return 1e3 if match["kilo"] else SCALES[as_listed(match["word"].lstrip("-").strip())]


def _unit_after(text: str, number: Number, is_money: bool) -> Unit | None:
    if number.kind == "clock":
        return Unit(HOUR, number.end)
    if number.kind == "ordinal" or is_money or text.startswith("\n", number.end):
        return None
    if _DECADE.search(text, max(0, number.start - 8), number.end + 2):
        return None
    return unit_at(text, number.end)


def _is_part_of_word(text: str, number: Number) -> bool:
    """Whether letters follow a number at once that are not a unit, as in 3D, 4x4 and 5xyz."""
    if _DECADE.search(text, max(0, number.start - 8), number.end + 2):
        return False
    return (
        number.kind == "number" and re.match(LETTER, text[number.end : number.end + 1]) is not None
    )


def _other_end(
    text: str, numbers: list[Number], place: int, first: Number, unit: Unit | None, free_from: int
) -> Number | None:
    """Returns the number at the other end of a range that begins with a number; None where there is
    no range.
    """
    if place + 1 >= len(numbers) or first.kind == "ordinal":
        return None
    following = numbers[place + 1]
    start = unit.end if unit is not None else first.end
    if not 0 <= following.start - start <= 12 or following.kind != first.kind:
        return None
    between = text[start : following.start].rstrip("$€£¥₹₽₩฿")
    before = text[max(free_from, first.start - _REACH) : first.start]
    if _BETWEEN.search(_BEFORE.sub("", before)) and _JOINED_BY_AND.fullmatch(between):
        return following
    if following.is_signed and between == "" and text[following.start] in "-–":
        return following._replace(value=-following.value, is_signed=False)  # 5 -7 is 5 to 7
    if not _JOINED_BY_TO.fullmatch(between):
        return None
    is_dash = between.strip() in ("-", "–", "—", "~")
    continues = re.match(r"\s?[-–—]\s?\d", text[following.end : following.end + 4]) is not None
    descends = following.value <= first.value and not (first.value < 0 and following.value < 0)
    if is_dash and (continues or descends):
        return None  # 3-2 is a score, 555-1234-99 a code
    return following


def _deviation(
    text: str, numbers: list[Number], place: int, first: Number, unit: Unit | None
) -> Number | None:
    """Returns the number after ±."""
    if place + 1 >= len(numbers) or first.kind != "number":
        return None
    between = text[unit.end if unit is not None else first.end : numbers[place + 1].start]
    return numbers[place + 1] if _PLUS_MINUS.fullmatch(between) else None


class _Compound(NamedTuple):
    """A quantity in several units: its value in the first of them, where it ends, and how many
    numbers it is made of.
    """

    value: float
    end: int
    used: int


def _compound(text: str, numbers: list[Number], place: int, first: Number, unit: Unit) -> _Compound:
    """Adds what follows in smaller units of the same kind, as in 2 hours and 30 minutes."""
    base = base_units_of(unit.name)
    value, end, used, smallest = first.value, unit.end, 1, base.factor if base else 0.0
    while (
        base is not None
        and base.dimension in ("[time]", "[length]", "[mass]", "angle")
        and place + used < len(numbers)
    ):
        following = numbers[place + used]
        between = text[end : following.start]
        if (
            len(between) > 6
            or not _COMPOUND.fullmatch(between)
            or following.kind != "number"
            or following.value < 0
        ):
            break
        smaller = unit_at(text, following.end)
        own = base_units_of(smaller.name) if smaller is not None else None
        if (
            smaller is None
            or own is None
            or own.dimension != base.dimension
            or own.factor >= smallest
            or own.offset
            or base.offset
        ):
            break
        if following.value * own.factor >= smallest * 1.0000001:
            break  # 2 km, 3000 m is two lengths
        value += following.value * own.factor / base.factor
        end, used, smallest = smaller.end, used + 1, own.factor
    return _Compound(value, end, used)
