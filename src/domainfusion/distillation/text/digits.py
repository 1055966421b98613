"""Numbers in a text: how digits, separators, powers, fractions and words are read as one number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import inf, isfinite
from typing import Literal, NamedTuple

from domainfusion.distillation.text.units import UNSPACED

_SMALL = (
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS = ("one", *_SMALL[:8])
_VALUES = {
    "one": 1,
    **{word: number for number, word in enumerate(_SMALL, start=2)},
    **{word: 10 * number for number, word in enumerate(_TENS, start=2)},
}
_BIG = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_PORTIONS = {
    "half": 2,
    "halves": 2,
    "third": 3,
    "thirds": 3,
    "quarter": 4,
    "quarters": 4,
    "fifths": 5,
    "sixths": 6,
    "tenths": 10,
}

SCALES = {
    **_BIG,
    "hundred": 1e2,
    "dozen": 12.0,
    "thousands": 1e3, "millions": 1e6, "billions": 1e9, "mn": 1e6, "bn": 1e9, "mio.": 1e6, "mio": 1e6, "mrd.": 1e9, "mrd": 1e9,
    "mln": 1e6, "hundert": 1e2, "tausend": 1e3, "millionen": 1e6, "milliarde": 1e9, "milliarden": 1e9, "billionen": 1e12,
    "mille": 1e3, "mil": 1e3, "mil millones": 1e9, "millón": 1e6, "millones": 1e6, "milliard": 1e9, "milliards": 1e9,
    "milione": 1e6, "milioni": 1e6, "miliardi": 1e9, "milhões": 1e6, "miljoen": 1e6, "miljard": 1e9, "тысяча": 1e3,
    "тысячи": 1e3, "тысяч": 1e3, "тыс.": 1e3, "миллион": 1e6, "миллиона": 1e6, "миллионов": 1e6, "млн": 1e6, "миллиард": 1e9,
    "миллиарда": 1e9, "миллиардов": 1e9, "млрд": 1e9, "万": 1e4, "萬": 1e4, "만": 1e4, "亿": 1e8, "億": 1e8, "억": 1e8,
    "百万": 1e6, "千万": 1e7, "लाख": 1e5, "करोड़": 1e7, "lakh": 1e5, "crore": 1e7, "مليون": 1e6, "ألف": 1e3, "مليار": 1e9,
}  # fmt: skip
"""Words after a number that multiply it."""

_FOREIGN_NUMERALS = """
    1 ein eine einer einem einen un une una uno um uma een один одна одно
    2 zwei deux dos due dois duas twee
    3 drei trois tres tre três drie
    4 vier quatre cuatro quattro quatro
    5 fünf cinq cinco cinque vijf
    6 sechs seis sei zes
    7 sieben sept siete sette sete zeven
    8 acht huit ocho otto oito
    9 neun neuf nueve nove negen
    10 zehn dix diez dieci dez tien
    11 elf onze once undici
    12 zwölf douze doce dodici doze twaalf
    15 fünfzehn quinze quince quindici vijftien
    20 zwanzig vingt veinte venti vinte twintig
    30 dreißig dreissig trente treinta trenta trinta dertig
    40 vierzig quarante cuarenta quaranta quarenta veertig
    50 fünfzig cinquante cincuenta cinquanta cinquenta vijftig
    60 sechzig soixante sesenta sessanta sessenta zestig
    100 hundert cent cien cento honderd
"""
_FOREIGN_VALUES = {
    word: float(number)
    for number, *words in (line.split() for line in _FOREIGN_NUMERALS.strip().splitlines())
    for word in words
}

_RUSSIAN_NUMERALS = """
    1 один одна одно одного одной
    2 два две двух
    3 три трёх трех
    4 четыре четырёх четырех
    5 пять пяти
    6 шесть шести
    7 семь семи
    8 восемь восьми
    9 девять девяти
    10 десять десяти
    11 одиннадцать одиннадцати
    12 двенадцать двенадцати
    13 тринадцать тринадцати
    14 четырнадцать четырнадцати
    15 пятнадцать пятнадцати
    16 шестнадцать шестнадцати
    17 семнадцать семнадцати
    18 восемнадцать восемнадцати
    19 девятнадцать девятнадцати
    20 двадцать двадцати
    30 тридцать тридцати
    40 сорок сорока
    50 пятьдесят пятидесяти
    60 шестьдесят шестидесяти
    70 семьдесят семидесяти
    80 восемьдесят восьмидесяти
    90 девяносто девяноста
    100 сто ста
    200 двести двухсот
    300 триста трёхсот трехсот
    400 четыреста четырёхсот четырехсот
    500 пятьсот пятисот
    600 шестьсот шестисот
    700 семьсот семисот
    800 восемьсот восьмисот
    900 девятьсот девятисот
    1000 тысяча тысячи тысяч
    1000000 миллион миллиона миллионов
    1000000000 миллиард миллиарда миллиардов
"""
"""In the nominative and the genitive. Unlike numerals that are also articles or other words, these
are numbers by themselves, but for one.
"""
_RUSSIAN_VALUES = {
    word: float(number)
    for number, *words in (line.split() for line in _RUSSIAN_NUMERALS.strip().splitlines())
    for word in words
}
_RUSSIAN_WORD = "|".join(sorted(_RUSSIAN_VALUES, key=len, reverse=True))
# The words of one numeral; after digits, тысяч is their scale: 5 тысяч.
_RUSSIAN = rf"(?<!\d )(?P<russian>(?:{_RUSSIAN_WORD})(?: (?:{_RUSSIAN_WORD})(?!\w))*)"

_HAN_DIGITS = {
    "零": 0,
    "〇": 0,
    "一": 1,
    "二": 2,
    "两": 2,
    "兩": 2,
    "三": 3,
    "四": 4,
    "五": 5,
    "六": 6,
    "七": 7,
    "八": 8,
    "九": 9,
}
_HAN_TENS = {"十": 10, "百": 100, "千": 1000}
_HAN_BIG = {"万": 10_000, "萬": 10_000, "亿": 100_000_000, "億": 100_000_000}

_BELOW_100 = (
    rf"(?:(?:{'|'.join(_TENS)})(?:[- ](?:{'|'.join(_UNITS)})(?!\w))?|{'|'.join(_SMALL[::-1])}|one)"
)
_BELOW_1000 = (
    rf"(?:(?:(?:{'|'.join(_UNITS)}|a)[- ]hundred(?:(?: and|,)? {_BELOW_100}(?!\w))?)|{_BELOW_100})"
)
_WHOLE = (
    rf"(?:{_BELOW_1000}|a(?= (?:{'|'.join(_BIG)}|dozen)\b))(?:[- ](?:{'|'.join(_BIG)})\b(?:,?(?:"
    rf" and)? {_BELOW_1000}(?!\w))?)*"
)
_AFTER_WORDS = (
    rf"(?:(?P<and_half> and a half)|[- ](?P<portion>{'|'.join(_PORTIONS)})"
    rf"|(?P<point> point(?: (?:zero|{'|'.join(_UNITS)}))+))?"
)
NUMBER_WORDS = re.compile(
    r"(?<![\w-])(?:(?P<dozen>a dozen)|(?P<half>half an?(?="
    rf" [^\W\d_]))|(?P<english>{_WHOLE}){_AFTER_WORDS}"
    r"|(?P<single>an?(?= [^\W\d_]+ and a half\b))"
    rf"|{_RUSSIAN}"
    rf"|(?P<foreign>{'|'.join(sorted(_FOREIGN_VALUES, key=len, reverse=True))}))(?!\w)"
    rf"|(?P<han>[{''.join((*_HAN_DIGITS, *_HAN_TENS, *_HAN_BIG))}]+)",
    re.IGNORECASE,
)
"""A number in words."""
_HAN_NUMERAL = re.compile(f"[{''.join((*_HAN_DIGITS, *_HAN_TENS, *_HAN_BIG))}]")
_RUN = re.compile(r"\w+")


def matches_in_words(text: str) -> Iterator[re.Match[str]]:
    """Yields what `NUMBER_WORDS` finds in a text, in order.

    Trying the pattern at each letter is slow, so it is only tried at words that it may begin with.
    No such word goes on in letters or digits, so looking up whole runs of them misses none; but
    Chinese numerals stand anywhere.
    """
    if _HAN_NUMERAL.search(text):
        yield from NUMBER_WORDS.finditer(text)
        return
    end = 0
    for run in _RUN.finditer(text):
        if run.start() < end or as_listed(run[0]) not in _FIRST_WORDS:
            continue
        match = NUMBER_WORDS.match(text, run.start())
        if match is not None:
            yield match
            end = match.end()


def as_listed(word: str) -> str:
    """Returns a word that a pattern found whatever its case, as the tables here list it.

    To Python's patterns the two further letters i of Turkish are that letter, too, and stay other
    ones when case is folded.

    Example:
        >>> [as_listed(word) for word in ("MİLLION", "mıllion", "Hundert", "ſeis")]
        ['million', 'million', 'hundert', 'seis']
    """
    return word.casefold().replace("i\u0307", "i").replace("ı", "i")


_FIRST_WORDS = frozenset(
    map(as_listed, ("a", "an", "half", *_VALUES, *_FOREIGN_VALUES, *_RUSSIAN_VALUES))
)
"""The words that a number in words begins with."""


class NumberInWords(NamedTuple):
    """A number that is written in words.

    Attributes:
        value: The number.
        is_exact: Whether it is a whole number below 10,000 that is not "a thousand" or "a dozen".
        needs_unit: Whether the words are a number only before a unit.
    """

    value: float
    is_exact: bool
    needs_unit: bool


def number_in_words(match: re.Match[str]) -> NumberInWords | None:
    """Returns the number that a match of `NUMBER_WORDS` is; None where it is none after all.

    Example:
        >>> number_in_words(NUMBER_WORDS.search("It has two hundred and six bones.")).value
        206.0
        >>> number_in_words(NUMBER_WORDS.search("四十二")).value, number_in_words(NUMBER_WORDS.search("three quarters")).value
        (42.0, 0.75)
    """
    if match["han"]:
        value = _han(match["han"])
        return None if value is None else NumberInWords(value, True, needs_unit=True)
    if match["single"]:
        return NumberInWords(1.0, True, needs_unit=True)
    if match["russian"]:
        words = as_listed(match["russian"]).split()
        value = _russian(words)
        return NumberInWords(value, value < 10_000, needs_unit=value == 1)
    if match["foreign"]:
        return NumberInWords(_FOREIGN_VALUES[as_listed(match["foreign"])], True, needs_unit=True)
    if match["dozen"]:
        return NumberInWords(12.0, False, needs_unit=False)
    if match["half"]:
        return NumberInWords(0.5, True, needs_unit=True)
    words = re.findall(r"[a-z]+", as_listed(match["english"]))
    value = _english(words)
    if match["and_half"]:
        return NumberInWords(value + 0.5, False, needs_unit=False)
    if match["portion"]:
        return NumberInWords(
            value / _PORTIONS[as_listed(match["portion"])], False, needs_unit=False
        )
    if match["point"]:
        digits = "".join(
            "0" if word == "zero" else str(_VALUES[word])
            for word in as_listed(match["point"]).split()[1:]
        )
        return NumberInWords(float(f"{value:.0f}.{digits}"), False, needs_unit=False)
    return NumberInWords(value, words[0] != "a" and value < 10_000, needs_unit=words == ["one"])


def _english(words: list[str]) -> float:
    total, current = 0.0, 0.0
    for word in words:
        if word == "a":
            current = 1
        elif word in _VALUES:
            current += _VALUES[word]
        elif word == "hundred":
            current *= 100
        elif word in _BIG:
            total, current = total + current * _BIG[word], 0.0
    return total + current


def _russian(words: list[str]) -> float:
    total, current = 0.0, 0.0
    for word in words:
        value = _RUSSIAN_VALUES[word]
        if value >= 1000:
            total, current = total + (current or 1.0) * value, 0.0
        else:
            current += value
    return total + current


def _han(text: str) -> float | None:
    """Returns a number in Chinese numerals; None where they are not a number."""
    if all(character in _HAN_DIGITS for character in text):
        return float("".join(str(_HAN_DIGITS[character]) for character in text[:20]))
    total, section, digit = 0, 0, 0
    for character in text[:40]:
        if character in _HAN_DIGITS:
            digit = _HAN_DIGITS[character]
        elif character in _HAN_TENS:
            section, digit = section + (digit or 1) * _HAN_TENS[character], 0
        else:
            total, section, digit = total + (section + digit or 1) * _HAN_BIG[character], 0, 0
    return float(total + section + digit)


Kind = Literal["number", "range", "ordinal", "clock"]
"""How a quantity is given: as a number, as a range of them, as a place in a row, or as a time of
day.
"""


class Number(NamedTuple):
    """A number in a rendered text.

    Attributes:
        start: Where it begins, its sign included.
        end: Where it ends.
        value: The number.
        step: What its last digit that counts is worth.
        is_whole: Whether it has neither decimals nor a power of ten.
        in_words: Whether it is written in words.
        kind: A number, an ordinal or a time of day.
        needs_unit: Whether it is a quantity only where a unit follows, as "one" and numbers in
            other languages are.
        is_signed: Whether it has a sign of its own.
    """

    start: int
    end: int
    value: float
    step: float
    is_whole: bool
    in_words: bool = False
    kind: Kind = "number"
    needs_unit: bool = False
    is_signed: bool = False


_LEAST_DIGITS = 2
"""Significant digits that a rounded number keeps at least: 100 stands for 95 to 105, not for 50 to
150.
"""

LETTER = rf"[^\W\d_{UNSPACED}]"
"""A letter of a script that sets words apart: a number that touches one is a part of a word, such
as K2.
"""
_NOT_IN_WORD = rf"(?<!{LETTER})(?<![\d_])"
_SIGN = r"(?P<sign>(?<![\w)\]%°'\"])[-+–](?=[\d.]))?"
# A number in digits with its sign: in groups of three with spaces, or in one piece, each with
# any points, commas and apostrophes between digits; or decimals alone, ".5".
_DIGITS = re.compile(
    rf"{_NOT_IN_WORD}(?<![.,/:^]){_SIGN}{_NOT_IN_WORD}"
    r"(?P<digits>(?:[1-9]\d{0,2}(?: \d{3}(?!\d)){1,8}|\d+)(?:[.,']\d+)*|(?<![\d.])\.\d+)"
)
# After a number: "× 10^3", "e-5".
_POWER_OF_TEN = re.compile(r"\s?[x×·*]\s?10\s?\^\s?([-+–]?\d{1,6})|[eE]([-+]?\d{1,6})(?!\w)")
# After a number: "^3".
_POWER = re.compile(r"\^\s?([-+]?\d{1,6})(?!\w)")
# After a whole number: "/4", not a date or a decimal.
_FRACTION = re.compile(r" ?/ ?(\d{1,6})(?![\d/]|[.,]\d)")
# After a whole number: " 1/2", as in 3 1/2.
_MIXED = re.compile(r" (\d{1,3})/(\d{1,3})(?![\d/]|[.,]\d)")
# After an hour: ":30", ":30:15", with "am" or "pm".
_CLOCK = re.compile(r":([0-5]\d)(?::([0-5]\d))?(?![\d:])(?:\s?([ap])\.?m\b\.?)?", re.IGNORECASE)
# After an hour without minutes: " pm".
_HALF_DAY = re.compile(r"\s?([ap])\.?m\b\.?", re.IGNORECASE)
# The ending of an ordinal: 1st, 2º, 3ème.
_ORDINAL = re.compile(r"(?:st|nd|rd|th|\.º|º|ª|er|ème|th)(?!\w)")
_LOCANT = re.compile(
    r"(?:,\d+)*-(?=[A-Za-z(])[a-z]*(?:meth|eth|prop|but(?:an|en|yl|yr)|pent|hex|hept|oct|benz|phen|tolu|chlor|brom|fluor"
    r"|iod|nitro|hydroxy|amino|oxo|cyclo)[a-z]*"
)
"""A place in a molecule: 1,2-dichloroethane has no number."""

# A word that makes the number after it negative.
_MINUS = re.compile(
    r"(?:(?<!\w)(?:minus|negative|moins|menos|meno|минус)\s|零下|负|負|マイナス|영하\s?)$",
    re.IGNORECASE,
)


def numbers_in(text: str) -> Iterator[Number]:
    """Yields the numbers of a rendered text in order."""
    has_decimal_comma = _writes_decimal_commas(text)
    found = [*_in_digits(text, has_decimal_comma), *_in_words(text)]
    end = 0
    for number in sorted(found, key=lambda number: (number.start, -number.end)):
        if number.start >= end:
            yield number
            end = number.end


# A number whose comma can only set its decimals apart: 0,5; 3,14; 1.064,5.
_CERTAIN_COMMA = re.compile(
    r"(?<![\d.,])(?:0,\d|\d+,(?:\d{1,2}|\d{4,})(?![\d,])|\d{1,3}(?:\.\d{3})+,\d)"
)
# A number whose point can only set its decimals apart: 0.5; 3.14; 1,064.5.
_CERTAIN_POINT = re.compile(
    r"(?<![\d.,])(?:0\.\d|\d+\.(?:\d{1,2}|\d{4,})(?![\d.])|\d{1,3}(?:,\d{3})+\.\d)"
)
# Function words of languages that write decimals after a comma.
_FOREIGN = re.compile(
    r"\b(?:ist|sind|beträgt|liegt|und|bis|etwa|ungefähr|zwischen|eine?[nmrs]?|est|sont|entre|jusqu|environ|une|des|tiene|hasta|"
    r"aproximadamente|según|los|las|sono|della|het|een|tussen|são|uma|от|до|составляет|около|в|на)\b",
    re.IGNORECASE,
)
# Function words of English, which writes them after a point.
_ENGLISH = re.compile(r"\b(?:is|are|the|of|about|and|it|its|at|with|has|was)\b", re.IGNORECASE)
# The look behind comes after the first digit, which it therefore takes in: so the engine can skip to
# digits.
_AMBIGUOUS = re.compile(r"[1-9](?<![\d.,].)\d{0,2}[.,]\d{3}(?![\d.,]\d|\d)")
"""1.064 or 1,064: which of the two has decimals is for the rest of the text to say."""


def _writes_decimal_commas(text: str) -> bool:
    """Whether a text sets decimals apart with a comma: by its other numbers, else by its
    language.
    """
    if not _AMBIGUOUS.search(text):
        return False
    if _CERTAIN_POINT.search(text):
        return False
    if _CERTAIN_COMMA.search(text):
        return True
    return len(_FOREIGN.findall(text)) > len(_ENGLISH.findall(text))


# What a number in digits begins with. A search for it is fast; one for the whole pattern tries each
# character.
_FIRST_OF_DIGITS = re.compile(r"[-+–.\d]")


def _runs_of_digits(text: str) -> Iterator[re.Match[str]]:
    """Yields what `_DIGITS` finds in a text, in order."""
    first = _FIRST_OF_DIGITS.search(text)
    while first is not None:
        match = _DIGITS.match(text, first.start())
        if match is not None:
            yield match
        first = _FIRST_OF_DIGITS.search(text, match.end() if match else first.end())


def _in_digits(text: str, has_decimal_comma: bool) -> Iterator[Number]:
    skip_to = 0
    for match in _runs_of_digits(text):
        if match.start() < skip_to:
            continue
        if locant := _LOCANT.match(text, match.end("digits")):
            skip_to = locant.end()
            continue
        for number in _read_run(text, match, has_decimal_comma):
            skip_to = number.end
            if isfinite(number.value):
                yield number


def _read_run(text: str, match: re.Match[str], has_decimal_comma: bool) -> Iterator[Number]:
    """Yields the number that a run of digits and separators is; where it is a list, the numbers in
    it.
    """
    plain = _plain(match["digits"], has_decimal_comma)
    if plain is None:
        if "." in match["digits"] or "'" in match["digits"]:
            return  # a version, an address, a date
        for digits in re.finditer(r"\d+", text[match.start("digits") : match.end("digits")]):
            start = match.start("digits") + digits.start()
            yield Number(start, start + len(digits[0]), *_value_of(digits[0]))
        return
    yield _completed(text, match, plain)


def _plain(run: str, has_decimal_comma: bool) -> str | None:
    """Returns a run of digits and separators with a decimal point alone; None where it is not one
    number.
    """
    whole = run.replace(" ", "")
    if "'" in whole:
        # Swiss thousands: 1'064.5; group 2 is what follows the point.
        groups = re.fullmatch(r"(\d{1,3}(?:'\d{3})+)((?:[.,]\d+)?)", whole)
        return groups[1].replace("'", "") + groups[2].replace(",", ".") if groups else None
    points, commas = whole.count("."), whole.count(",")
    if not points and not commas:
        return whole
    if points and commas:
        decimal, thousands = (".", ",") if whole.rindex(".") > whole.rindex(",") else (",", ".")
        # Thousands by one separator, decimals by the other: 1,064.5 or 1.064,5.
        if whole.count(decimal) > 1 or not re.match(
            rf"\d{{1,3}}(?:[{thousands}]\d{{3}})+[{decimal}]\d+\Z", whole
        ):
            return None
        return whole.replace(thousands, "").replace(decimal, ".")
    separator = "." if points else ","
    # Thousands by one separator alone: 1.064, 12,500,000; a leading 0 never begins a group.
    is_grouped = (
        re.fullmatch(rf"[1-9]\d{{0,2}}(?:[{separator}]\d{{3}})+", whole) is not None
        and " " not in run
    )
    if whole.count(separator) > 1:
        return whole.replace(separator, "") if is_grouped else None
    marks_thousands = is_grouped and (separator == ",") != has_decimal_comma
    return whole.replace(separator, "") if marks_thousands else whole.replace(separator, ".")


class _Value(NamedTuple):
    """What digits say: the number, the step that it is rounded to as far as they tell, and whether
    it is a whole number.
    """

    value: float
    step: float
    is_whole: bool


def _value_of(plain: str, power: str = "0") -> _Value:
    """Returns what digits with a power of ten say."""
    value = float(f"{plain}e{power}")
    ten = float(f"1e{power}")
    whole, _, decimals = plain.partition(".")
    if decimals:
        return _Value(value, float(f"1e-{len(decimals)}") * ten, is_whole=False)
    zeros = len(whole) - len(whole.rstrip("0"))
    counted = max(0, min(zeros, len(whole) - _LEAST_DIGITS))
    return _Value(value, float(f"1e{counted}") * ten, is_whole=power == "0")


def _completed(text: str, match: re.Match[str], plain: str) -> Number:
    """Returns a number with the power, fraction, time of day or ordinal ending that follows its
    digits.
    """
    start, end, sign = match.start(), match.end("digits"), match["sign"]
    value, step, is_whole = _value_of(plain)
    kind: Kind = "number"
    is_integer = plain.isdigit() and len(plain) <= 6
    if power := _POWER_OF_TEN.match(text, end):
        value, step, is_whole = _value_of(plain, (power[1] or power[2]).replace("–", "-"))
        end = power.end()
        if value == 0 and plain.strip("0."):
            value = inf  # no float holds it
    elif power := _POWER.match(text, end):
        value, is_whole, end = _raised(value, power[1]), False, power.end()
        step = 0.0
    elif (
        is_integer
        and (fraction := _FRACTION.match(text, end))
        and _is_fraction(int(plain), int(fraction[1]))
    ):
        value, step, is_whole, end = int(plain) / int(fraction[1]), 0.0, False, fraction.end()
    elif is_integer and (mixed := _MIXED.match(text, end)) and 0 < int(mixed[1]) < int(mixed[2]):
        value, step, is_whole, end = (
            int(plain) + int(mixed[1]) / int(mixed[2]),
            0.0,
            False,
            mixed.end(),
        )
    elif (
        is_integer
        and int(plain) < 25
        and not sign
        and (clock := _CLOCK.match(text, end) or _HALF_DAY.match(text, end))
    ):
        kind, value, step, end = "clock", _hours(int(plain), clock), 0.0, clock.end()
    elif is_integer and (ordinal := _ORDINAL.match(text, end)):
        kind, end = "ordinal", ordinal.end()
    is_negative = sign in ("-", "–")
    if not sign and (minus := _MINUS.search(text, max(0, start - 10), start)):
        start, is_negative = minus.start(), True
    return Number(
        start,
        end,
        -value if is_negative else value,
        step,
        is_whole,
        kind=kind,
        is_signed=bool(sign),
    )


def _is_fraction(top: int, under: int) -> bool:
    """Whether two numbers with a stroke between them are a fraction, and not a blood pressure of
    120/80.
    """
    return under > 0 and not (top > under and top >= 60)


def _raised(value: float, power: str) -> float:
    try:
        return float(value ** int(power))
    except (OverflowError, ZeroDivisionError):
        return inf


def _hours(hour: int, clock: re.Match[str]) -> float:
    parts = clock.groups()
    half = (parts[-1] or "").casefold()
    if half and hour <= 12:
        hour = hour % 12 + (12 if half == "p" else 0)
    minutes, seconds = (int(parts[0]), int(parts[1] or 0)) if len(parts) == 3 else (0, 0)
    return hour + minutes / 60 + seconds / 3600


def _in_words(text: str) -> Iterator[Number]:
    for match in matches_in_words(text):
        read = number_in_words(match)
        if read is None:
            continue
        step = _value_of(f"{read.value:.0f}").step if read.value.is_integer() else 0.0
        start, value = match.start(), read.value
        if minus := _MINUS.search(text, max(0, start - 10), start):
            start, value = minus.start(), -value
        yield Number(
            start, match.end(), value, step, read.is_exact, True, needs_unit=read.needs_unit
        )
