"""Values in a sentence: quantities with their units, dates and names, and whether two of them can
both be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from domainfusion.distillation.text.quantities import Quantity as Quantity
from domainfusion.distillation.text.quantities import read_quantities
from domainfusion.distillation.text.words import fold as fold


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


EMPTY = _words("""
    a about above actually all also am an and any are around as at be because been being both but by can certainly could definitely did do
    does doing done down each else ever every exactly fact for from get gets had has have having he her here hers him his how however i if
    in indeed into is it its itself just know known let like may me might more most much must my no nor not of off on once one only or
    other our out over own per please quite rather really roughly same she should simply so some still such sure than that the their them
    then there these they this those through to too truly under until up upon us very was we well were what when where whether which while
    who whom whose why will with within would yes yet you your
    answer believe correct correctly far guess maybe perhaps probably recall remember right short suppose think understand
""")
"""Words that say nothing about what a sentence is about."""

EMPTY_ELSEWHERE = _words("""
    der die das ein eine einen einem einer eines ist sind war wird werden wurde und oder in im am an auf fur mit von vom zu zum zur den
    dem des muss mussen sollte sollten soll kann konnen darf durfen es sie er nach vor bei pro als auch so man sich ihre ihr
    el la los las un una unos unas es son de del en y o a al con por para se su sus que debe deben puede pueden mas cada lo
    le les une est sont du des et ou au aux avec par pour ce cette ces il elle on doit doivent peut peuvent etre faut dans sur plus l d qu
""")
"""The same in German, Spanish and French, without accents."""
IRREGULAR = {
    "given": "give", "gave": "give", "taken": "take", "took": "take", "held": "hold", "kept": "keep", "paid": "pay", "made": "make",
    "built": "build", "sold": "sell", "bought": "buy", "lost": "lose", "left": "leave", "written": "write", "wrote": "write",
    "shown": "show", "known": "know", "fed": "feed", "led": "lead", "ran": "run", "came": "come", "went": "go", "found": "find",
    "children": "child", "women": "woman", "men": "man", "daily": "day", "nightly": "night", "yearly": "year", "worn": "wear",
    "stored": "store", "storing": "store",
}  # fmt: skip
"""Forms whose ending does not tell what they are forms of."""

NEGATIONS = _words("not never no cannot neither nor none nobody nothing nowhere hardly")
MYTHS = _words("myth misconception")
DENIED = {
    "forbidden": "allow",
    "prohibited": "allow",
    "banned": "allow",
    "false": "true",
    "unable": "able",
}
"""What denies another word by itself, and the stem of that word."""

POINTING = _words("it he she they this that these those its their his her")
"""Words that stand for what was asked about."""

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
MEASURES = _words("""
    age altitude amount area boiling code capacity count cost degree density depth diameter distance duration elevation freezing
    frequency height length lifespan mass melting number percentage period population power pressure price radius rate share size speed
    temperature thickness time value velocity voltage volume weight width wavelength
""")
"""What a question that wants a number asks for."""

JOINING = _words("of de da do di du van von der den la le el al bin y")
"""Words without a capital inside of a name."""
GENERIC = _words("""
    city island islands river mount mountain lake sea ocean state states republic kingdom federation union democratic people's saint st sir
    dr mr mrs ms king queen president
""")
"""Words in a name that don't tell whose it is."""
OPPOSED = _words(
    "north south east west northern southern eastern western new old upper lower inner outer"
)
"""Words that tell two names apart that end alike."""


Verdict = Literal["same", "different", "unrelated"]
"""How two values, or two claims, stand to each other."""

_MONTH = (
    r"(?P<month>(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)\b\.?|" + "|".join(MONTHS) + ")"
)
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_ERA = r"(?P<era>\s?(?:BCE?|AD|CE)\b)?"
_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<![\w-])(?P<year>\d{4})-(?P<number>\d{2})-(?P<day>\d{2})(?![\w-])",
        rf"(?<!\w){_DAY}(?:\s+of)?\s+{_MONTH}(?:,?\s+(?P<year>\d{{3,4}})\b{_ERA})?",
        rf"\b{_MONTH}\s+(?:the\s+)?{_DAY}\b(?:,?\s+(?P<year>\d{{3,4}})\b{_ERA})?",
        rf"\b{_MONTH}(?:\s+of)?,?\s+(?P<year>\d{{3,4}})\b{_ERA}",
        r"(?<![\w.])(?P<day>\d{1,2})\.\s?(?P<number>\d{1,2})\.\s?(?P<year>\d{4})(?!\w)",
        r"(?<![\w/])(?P<day>\d{1,2})/(?P<number>\d{1,2})/(?P<year>\d{4})(?!\w)",
        r"(?i:(?<=\bin )|(?<=\bsince )|(?<=\buntil )|(?<=\bduring )|(?<=\byear )|(?<=\bearly"
        r" )|(?<=\blate )|(?<=\())"
        r"(?P<year>[12]\d{3})(?![\d,.%°]*[\w%°])(?!\s?-?\s?\d)",
        r"(?<![\w.,])(?P<year>\d{1,4})(?P<era>\s?(?:BCE?|AD|CE)\b)",
        r"\A\W*(?P<year>1\d{3}|20\d{2})\W*\Z",
    )
)

_LEAST_STEM = 5
_WORD = re.compile(r"[^\W_]+(?:[.'’-][^\W_]+)*")
_INITIALS = re.compile(r"[A-Z]{2,5}")


@dataclass(frozen=True, slots=True)
class Date:
    """A date, as precisely as it is said.

    Attributes:
        year: Negative before Christ; None where it is not said.
        month: From 1; None where it is not said.
        day: From 1; None where it is not said.
    """

    year: int | None
    month: int | None
    day: int | None


@dataclass(frozen=True, slots=True)
class Name:
    """Capitalised words in a row.

    Attributes:
        text: As it is written.
        words: Its words without case, accents and prepositions.
        is_initial: Whether it is the first word of its sentence by itself, so that its capital says
            nothing.
    """

    text: str
    words: tuple[str, ...]
    is_initial: bool = False


Value = Quantity | Date | Name


@dataclass(frozen=True, slots=True)
class Found:
    """A value and where it stands."""

    value: Value
    start: int
    end: int


def find_values(sentence: str) -> list[Found]:
    """Returns the dates, quantities and names of a sentence, in order; what is part of one is not
    part of another.

    Example:
        >>> [type(found.value).__name__ for found in find_values("Apollo 11 flew 384,400 km on 20 July 1969.")]
        ['Name', 'Quantity', 'Quantity', 'Date']
    """
    found: list[Found] = []
    rest = sentence
    for finder in (_find_dates, _find_quantities, _find_names):
        new = list(finder(rest))
        found += new
        for item in new:
            rest = rest[: item.start] + "\0" * (item.end - item.start) + rest[item.end :]
    return sorted(found, key=lambda item: item.start)


def compare(first: Value, second: Value) -> Verdict:
    """Says whether two values can both be right of one thing; values of two kinds have nothing to
    do with each other.

    Two quantities are the same where one, as it was written and rounded, allows the other, in
    whatever unit. Two dates are the same where all that both say is. Two names are the same where
    one is a part, the initials or the short form of the other.

    Example:
        >>> mph, kmh, slow = (find_values(text)[0].value for text in ("44.74 mph", "72 km/h", "50.4 km/h"))
        >>> compare(mph, kmh), compare(slow, kmh)
        ('same', 'different')
    """
    if isinstance(first, Quantity) and isinstance(second, Quantity):
        if first.dimension != second.dimension:
            return "unrelated"
        return "same" if _allows(first, second) or _allows(second, first) else "different"
    if isinstance(first, Date) and isinstance(second, Date):
        pairs = ((first.year, second.year), (first.month, second.month), (first.day, second.day))
        both = [one == other for one, other in pairs if one is not None and other is not None]
        return "unrelated" if not both else "same" if all(both) else "different"
    if isinstance(first, Name) and isinstance(second, Name):
        return "same" if _is_same_name(first, second) else "different"
    return "unrelated"


def says_no_more(value: Value, other: Value) -> bool:
    """Whether a value says nothing that another one does not say as precisely, as June 1944 beside
    6 June 1944.
    """
    if isinstance(value, Quantity) and isinstance(other, Quantity):
        return (
            value.dimension == other.dimension and _allows(value, other) and _allows(other, value)
        )
    if isinstance(value, Date) and isinstance(other, Date):
        pairs = ((value.year, other.year), (value.month, other.month), (value.day, other.day))
        return all(one is None or one == another for one, another in pairs)
    return compare(value, other) == "same"


def _allows(wide: Quantity, narrow: Quantity) -> bool:
    slack = 1e-9 * max(abs(wide.middle), abs(narrow.middle), 1e-30)
    return wide.low - slack <= narrow.middle <= wide.high + slack


def _find_dates(sentence: str) -> Iterator[Found]:
    taken: list[tuple[int, int]] = []
    for pattern in _DATES:
        for match in pattern.finditer(sentence):
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            said = match.groupdict()
            year = int(said["year"]) if said.get("year") else None
            if year is not None and (said.get("era") or "").strip().startswith("BC"):
                year = -year
            month = _month_of(said)
            day = int(said["day"]) if said.get("day") else None
            if "/" in match.group() and day is not None and month is not None and day <= 12:
                day, month = (
                    (month, day) if month > 12 else (None, None)
                )  # of 3/4/2020, no one knows which is which
            if (month is not None and not 1 <= month <= 12) or (
                day is not None and not 1 <= day <= 31
            ):
                continue
            taken.append((match.start(), match.end()))
            yield Found(Date(year, month, day), match.start(), match.end())


def _month_of(said: dict[str, str | None]) -> int | None:
    if said.get("number"):
        return int(said["number"] or 0)
    if not said.get("month"):
        return None
    beginning = (said["month"] or "")[:3].casefold()
    return next(
        number
        for number, name in enumerate(MONTHS, start=1)
        if name.casefold().startswith(beginning)
    )


def _find_quantities(sentence: str) -> Iterator[Found]:
    for stated in read_quantities(sentence):
        if stated.kind != "ordinal":
            yield Found(stated.quantity, stated.start, stated.end)


def _find_names(sentence: str) -> Iterator[Found]:
    words = list(_WORD.finditer(sentence))
    index = 0
    while index < len(words):
        if not _is_capital(words[index].group()):
            index += 1
            continue
        last = index
        following = index + 1
        while following < len(words) and _adjoins(sentence, words[following - 1], words[following]):
            word = words[following].group()
            if _is_capital(word):
                last = following
            elif word not in JOINING:
                break
            following += 1
        text = sentence[words[index].start() : words[last].end()]
        is_initial = (
            index == 0 == last
            and text[1:] == text[1:].lower()
            and not any(character.isdigit() for character in text)
        )
        if text != "I":
            yield Found(_name(text, is_initial), words[index].start(), words[last].end())
        index = last + 1


def _is_capital(word: str) -> bool:
    return word[0].isupper()


def _adjoins(sentence: str, left: re.Match[str], right: re.Match[str]) -> bool:
    between = sentence[left.end() : right.start()]
    return between == " " or (between == ". " and len(left.group()) <= 2)


def _name(text: str, is_initial: bool) -> Name:
    words = tuple(fold(word).replace(".", "") for word in _WORD.findall(text))
    words = tuple(word.removesuffix("'s") for word in words)
    return Name(text, tuple(word for word in words if word not in JOINING), is_initial)


def _is_same_name(first: Name, second: Name) -> bool:
    if _is_initials(first, second) or _is_initials(second, first):
        return True
    one, other = (_without_generic(name.words) for name in (first, second))
    if not one or not other:
        return first.words == second.words
    if set(one) <= set(other) or set(other) <= set(one):
        return not _are_opposed(one, other) or one == other
    if one[-1] == other[-1]:
        return not _are_opposed(one, other)
    is_long = len(one) < len(first.words) or len(other) < len(second.words)
    short, long = sorted((one[-1], other[-1]), key=len)
    return (
        is_long
        and len(one) == len(other) == 1
        and len(short) >= _LEAST_STEM
        and long.startswith(short)
    )


def _without_generic(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in GENERIC)


def _are_opposed(one: Sequence[str], other: Sequence[str]) -> bool:
    sides = (set(one) & OPPOSED, set(other) & OPPOSED)
    return sides[0] != sides[1] and all(sides)


def _is_initials(short: Name, long: Name) -> bool:
    plain = short.text.replace(".", "")
    if not _INITIALS.fullmatch(plain) or len(long.words) < 2:
        return False
    initials = "".join(word[0] for word in long.words).upper()
    return len(initials) > 1 and (plain.startswith(initials) or initials.startswith(plain))
