"""Words: a text as it is seen (without markup and invisible characters), one folding of letters, one
tokenizer, one list of English function words, and what makes two questions one.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

_INVISIBLE = (
    "\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff"
)
"""Soft hyphen, zero-width characters, direction marks and variation selectors."""

_SAME = {
    **dict.fromkeys(
        "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000",
        " ",
    ),
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2032\u00b4\uff07", "'"),
    **dict.fromkeys(
        "\u201c\u201d\u201e\u201f\u00ab\u00bb\u300c\u300d\u300e\u300f\u300a\u300b", '"'
    ),
    **dict.fromkeys("\u2010\u2011\u2212\ufe63\uff0d", "-"),
    "\u2012": "\u2013",
    "\u2015": "\u2014",
    "\u00b5": "\u03bc",
    "\u2215": "/",
    "\u2044": "/",
    "\u22c5": "\u00b7",
    "\u2219": "\u00b7",
    "\u2033": '"',
    "\u066b": ".",
    "\u066c": "'",
    "\u066a": "%",
    "\uff5e": "~",
    "\u301c": "~",
    "\u2103": "°C",
    "\u2109": "°F",
}
"""Characters that look like another one, and which one that is."""

_FRACTIONS = {
    character: unicodedata.normalize("NFKD", character).replace("\u2044", "/")
    for character in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
}
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-", strict=True))
_LIGATURES = {character: unicodedata.normalize("NFKC", character) for character in "ﬀﬁﬂﬃﬄﬅﬆ"}

_COMMANDS = {
    "times": "×", "cdot": "·", "pm": "±", "degree": "°", "circ": "°", "percent": "%",
    "approx": "≈", "sim": "~", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "lt": "<", "gt": ">",
    "to": "→", "rightarrow": "→", "neq": "≠", "ne": "≠", "neg": "¬", "lnot": "¬", "infty": "∞",
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η",
    "theta": "θ", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "pi": "π", "rho": "ρ",
    "sigma": "σ", "tau": "τ", "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω", "Delta": "Δ",
    "Omega": "Ω", "Sigma": "Σ", "Phi": "Φ", "quad": " ", "qquad": " ",
}  # fmt: skip
"""LaTeX commands that stand for a character."""
_SHOWN_INSIDE = (
    "text|textbf|textit|textrm|texttt|mathrm|mathbf|mathit|mathsf|mathbb|operatorname|boxed|fbox"
    "|emph|underline|ce|mbox|displaystyle|left|right|bigl?|bigr?|tfrac|dfrac|frac"
)

_MATH = re.compile(
    r"\$\$|\\[()\[\]]"  # $$, \( and \[ begin and end a formula
    # a dollar that opens a formula: something follows at once, and one closes it on the same line
    r"|\$(?=(?:\\|[A-Za-z{(+-]|\d[^$\n]{0,80}[\\^_{=])[^$\n]{0,300}\$(?!\d)|[\d.,+-]{1,40}\$(?!\d))"
    r"|(?<=[A-Za-z\d})'%.,])(?<!US)(?<!\bA)(?<!\bC)\$(?=\s|[.,;:!?)]|\Z)"  # one that closes it
)
_MARKUP = re.compile(
    # What is struck through was taken back.
    r"(?P<struck>~~(?=\S)[^~\n]{1,300}~~|<(?P<strike>s|del)>[^<\n]{1,300}</(?P=strike)>)"
    r"|(?P<entity>&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});)"
    rf"|(?P<invisible>[{_INVISIBLE}]+)"
    r"|(?P<raise><sup>)|(?P<tag></?(?:a|b|i|u|s|em|strong|sub|sup|code|span|mark|kbd|small|font|p|div)(?:\s[^<>]{0,200})?/?>)"
    r"|(?P<break><br\s*/?>)"
    r"|(?P<fraction>\\[dt]?frac\s*(?:\{(?P<top>[^{}]{1,80})\}\s*\{(?P<under>[^{}]{1,80})\}|(?P<top1>\d)(?P<under1>\d)))"
    rf"|(?P<shown>\\(?:{_SHOWN_INSIDE})(?![A-Za-z])\s?\{{?)"
    r"|(?P<degree>\^\{?\\circ\}?)"
    rf"|(?P<command>\\(?:{'|'.join(sorted(_COMMANDS, key=len, reverse=True))})(?![A-Za-z])\s?)"
    r"|(?P<space>\\[,;:! ]|(?<=\d)~(?=[A-Za-z\\]))"
    r"|(?P<escaped>\\(?=[%$#&_{}*`~\[\]|<>-]))"
    r"|(?P<power>(?<=\d)\*\*(?=-?\d))"  # 10**6
    r"|(?P<braced>\^\{(?=[^{}]{1,40}\}))"
    r"|(?P<lower>_(?=\{|\d))"
    r"|(?P<brace>[{}])"
    r"|(?P<link>\]\([^()\s]{1,500}\))"
    r"|(?P<heading>^[ \t]{0,3}(?:\#{1,6}|>)[ \t]+)"
    # a star, underline, tilde or backtick that opens or closes emphasis; ones in a word or in a
    # formula stay
    r"|(?P<strong>\*\*|~~|`+)"
    r"|(?P<emphasis>(?<![\w*])\*(?=\w)|(?<=[\w.!?)])\*(?![\w*])|(?<![\w])_{1,2}(?=\w)|(?<=\w)_{1,2}(?!\w))"
    rf"|(?P<raised>[{''.join(_RAISED)}]+)"
    rf"|(?P<lowered>[{''.join(_LOWERED)}]+)"
    rf"|(?P<vulgar>[{''.join(_FRACTIONS)}])"
    rf"|(?P<ligature>[{''.join(_LIGATURES)}℃℉])",
    re.MULTILINE,
)
# Any invisible character.
_UNSEEN = re.compile(f"[{_INVISIBLE}]")
_PLAIN = re.compile(r"[A-Za-z0-9\s.,;:!?'\"()/%+=-]*", re.ASCII)
"""Text in which there is nothing to resolve."""


class Rendered(NamedTuple):
    """A text as a reader sees it.

    Attributes:
        text: What is seen.
        places: Where each character of it stands in the original, and after the last one its end.
    """

    text: str
    places: Sequence[int]


def render(text: str) -> Rendered:
    r"""Returns a text as a reader sees it, with the place of each of its characters in the
    original.

    Entities, tags, Markdown's emphasis, LaTeX's commands and invisible characters go; digits of
    every script become 0 to 9, raised ones `^2`, and characters that look alike one. Case, accents
    and line breaks stay.

    Example:
        >>> render(r"**3**&nbsp;× 10⁸ m/s, H₂O, $\frac{1}{2}$, ４２").text
        '3 × 10^8 m/s, H2O, 1/2, 42'
        >>> [render("**42** km").places[place] for place in (0, 1, 2)]
        [2, 3, 6]
    """
    plain = Rendered(text, range(len(text) + 1))
    if _PLAIN.fullmatch(text):
        return plain
    seen = plain if unicodedata.is_normalized("NFC", text) else _composed(text)
    if "$" in seen.text or "\\" in seen.text:
        seen = _substituted(seen, _MATH, lambda match: "")
    seen = _substituted(seen, _MARKUP, _shown)
    return Rendered(_translated(seen.text), seen.places)


def looks_like(text: str) -> str:
    """Returns a text without invisible characters, and with one form of each space, quote, dash and
    digit; markup stays.
    """
    return _translated(_UNSEEN.sub("", text))


def _translated(text: str) -> str:
    table = {
        ord(character): same
        for character in set(text)
        if (same := _look_alike(character)) is not None
    }
    return text.translate(table) if table else text


def _look_alike(character: str) -> str | None:
    """Returns the character that a reader takes a character for, where that is another one."""
    if character.isascii():
        return None
    if character in _SAME:
        return _SAME[character]
    if "\uff01" <= character <= "\uff5e":  # full-width forms of ASCII
        return chr(ord(character) - 0xFEE0)
    digit = unicodedata.decimal(character, None)
    return None if digit is None else str(digit)


def _shown(match: re.Match[str]) -> str:
    """Returns the visible text of a piece of markup."""
    kind, found = match.lastgroup, match.group()
    if match["fraction"]:
        top, under = match["top"] or match["top1"], match["under"] or match["under1"]
        return f"{top}/{under}"
    match kind:
        case "struck":
            return ""
        case "entity":
            shown = html.unescape(found)
            return shown if len(shown) == 1 else found
        case "raise" | "power" | "braced":
            return "^"
        case "break":
            return "\n"
        case "degree":
            return "°"
        case "command":
            return _COMMANDS[found[1:].strip()]
        case "space":
            return " "
        case "raised":
            return _raised(match)
        case "lowered":
            return "".join(_LOWERED[character] for character in found)
        case "vulgar":
            follows_digit = match.start() > 0 and match.string[match.start() - 1].isdecimal()
            return (" " if follows_digit else "") + _FRACTIONS[found]
        case "ligature":
            return _LIGATURES.get(found) or _SAME[found]
        case _:
            return ""


def _raised(match: re.Match[str]) -> str:
    return "^" + "".join(_RAISED[character] for character in match.group())


def _substituted(
    seen: Rendered, pattern: re.Pattern[str], shown: Callable[[re.Match[str]], str]
) -> Rendered:
    """Replaces what a pattern finds; each new character stands where the replaced text began."""
    pieces: list[str] = []
    places: list[int] = []
    last = 0
    for match in pattern.finditer(seen.text):
        replacement = shown(match)
        pieces += (seen.text[last : match.start()], replacement)
        places += seen.places[last : match.start()]
        places += [seen.places[match.start()]] * len(replacement)
        last = match.end()
    if not last:
        return seen
    pieces.append(seen.text[last:])
    places += seen.places[last:]
    return Rendered("".join(pieces), places)


def _composed(text: str) -> Rendered:
    """Returns a text in Unicode's composed form (NFC): a letter and its accent are one
    character.
    """
    pieces: list[str] = []
    places: list[int] = []
    start = 0
    for end in range(1, len(text) + 1):
        if end < len(text) and _joins(text[end]):
            continue
        piece = unicodedata.normalize("NFC", text[start:end])
        pieces.append(piece)
        places += [start] * len(piece)
        start = end
    places.append(len(text))
    return Rendered("".join(pieces), places)


def _joins(character: str) -> bool:
    """Whether a character may be joined with the one before it: a mark, or the vowel or end of a
    Korean syllable.
    """
    return (
        unicodedata.combining(character) != 0
        or "\u1161" <= character <= "\u11ff"
        or unicodedata.category(character) == "Mc"
    )


def word_set(text: str) -> frozenset[str]:
    """Returns the words of a list that is written with spaces."""
    return frozenset(text.split())


MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
)  # fmt: skip
"""The months in English; the first three letters tell them apart."""

ARTICLES = frozenset(("a", "an", "the"))
FUNCTION_WORDS = frozenset((
    "a", "about", "an", "and", "are", "as", "at", "be", "been", "by", "can", "could", "did", "do", "does", "for", "from",
    "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "its", "me", "my", "of", "on", "one", "or", "our",
    "should", "so", "tell", "that", "the", "their", "there", "these", "they", "this", "those", "to", "was", "we", "were",
    "what", "when", "where", "which", "who", "whom", "whose", "why", "will", "with", "would", "you", "your",
))  # fmt: skip
"""English words that say nothing about what a text is about; negations and comparisons are not
among them.
"""
COMMON_WORDS = (FUNCTION_WORDS - {"tell", "whom", "whose"}) | frozenset((
    "after", "again", "against", "all", "also", "always", "any", "because", "before", "both", "but", "each", "even",
    "every", "few", "first", "he", "her", "here", "his", "just", "less", "like", "made", "make", "makes", "many", "may",
    "more", "most", "much", "must", "never", "no", "nor", "not", "often", "only", "other", "out", "over", "own", "same",
    "she", "some", "still", "such", "than", "them", "then", "through", "too", "under", "until", "up", "us", "very",
    "while", "without",
))  # fmt: skip
"""Words that any two sentences may share: without words of questions, with negations and
comparisons.
"""


def _ranges_of_marks() -> str:
    """Returns the character class of the marks that are written on or beside a letter, and belong
    to its word.
    """
    ranges: list[str] = []
    start = previous = -2
    for point in range(0x300, 0x10000):
        if unicodedata.category(chr(point))[0] != "M":
            continue
        if point != previous + 1:
            ranges.append(chr(start) + "-" + chr(previous) if start >= 0 else "")
            start = point
        previous = point
    return "".join(ranges) + chr(start) + "-" + chr(previous)


MARKS = _ranges_of_marks()
_IDEOGRAPHS = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Scripts without spaces, in which each character with its marks is taken as a word."""
_LETTER = rf"[^\W_{_IDEOGRAPHS}]"
_WORD = re.compile(
    rf"[{_IDEOGRAPHS}][{MARKS}]*"
    # letters and digits with their marks; an apostrophe or a hyphen may stand inside: isn't, X-ray
    rf"|{_LETTER}[{MARKS}]*(?:(?:{_LETTER}|[{MARKS}])|['-](?={_LETTER}))*"
)

# Marks that people leave out: the accents of Latin and Greek letters, vowel points of Hebrew and
# Arabic, and the stress of
# Cyrillic. A mark that makes another letter or word stays: ñ, й, the voicing of か, tones of Thai,
# vowels of Hindi.
_OPTIONAL = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u0652\u0670]"
)


def fold(text: str) -> str:
    """Returns a text without case, and without the accents that are left out as often as written.

    Example:
        >>> fold("Élan in São Paulo"), fold("мой") == fold("мои"), fold("が") == fold("か"), fold("año") == fold("ano")
        ('elan in sao paulo', False, False, False)
    """
    return (
        text.casefold()
        if text.isascii()
        else "".join(map(fold_character, unicodedata.normalize("NFC", text)))
    )


def fold_character(character: str) -> str:
    """Returns what one character of a composed text is folded to: nothing, one or several
    characters.
    """
    if character.isascii():
        return character.lower()
    return _FOLDED.get(character) or _fold_afresh(character)


_FOLDED: dict[str, str] = {}
_MOST_FOLDED = 20_000


def _fold_afresh(character: str) -> str:
    if _OPTIONAL.match(character):
        return ""
    is_wide = "\uff00" <= character <= "\uffef"
    letter, *marks = list(unicodedata.normalize("NFKD" if is_wide else "NFD", character))
    is_greek = "\u0370" <= letter <= "\u03ff"
    is_stressed = "\u0400" <= letter <= "\u04ff" and marks in (["\u0301"], ["\u0308"])
    is_latin = (
        letter.isascii() and letter.isalpha() and not (letter in "nN" and marks == ["\u0303"])
    )
    drops = (is_latin or is_greek or is_stressed) and all(
        unicodedata.combining(mark) for mark in marks
    )
    folded = (letter if drops else character).casefold()
    if len(_FOLDED) < _MOST_FOLDED:
        _FOLDED[character] = folded
    return folded


_MOST_NORMALIZED, _LONGEST_NORMALIZED = 4_096, 1_000
"""How many normalized texts are kept at most, and of how many characters: a grader compares the
same few answers with many others.
"""


def normalize(text: str) -> str:
    """Returns a text as it is seen without case, optional accents, articles and repeated white
    space; articles alone stay.

    Example:
        >>> normalize("The  **Élan**"), normalize("A"), normalize("AT&amp;T’s CO₂")
        ('elan', 'a', "at&t's co2")
    """
    return _normalized(text) if len(text) <= _LONGEST_NORMALIZED else _normalized.__wrapped__(text)


@lru_cache(maxsize=_MOST_NORMALIZED)
def _normalized(text: str) -> str:
    words = folded(render(text)).text.split()
    return " ".join([word for word in words if word not in ARTICLES] or words)


def words_of(text: str) -> list[str]:
    """Returns the words of a text in order, folded; of scripts without spaces, the characters.

    Example:
        >>> words_of("Bats aren't *blind*: Élan, K2, X-ray."), words_of("它在东京。")
        (['bats', "aren't", 'blind', 'elan', 'k2', 'x-ray'], ['它', '在', '东', '京'])
    """
    return split_words(fold(render(text).text))


def split_words(text: str) -> list[str]:
    """Returns the words of a text in order, as they are written.

    Example:
        >>> split_words("K2 isn't in Élan.")
        ['K2', "isn't", 'in', 'Élan']
    """
    return _WORD.findall(text)


def content_words(text: str) -> frozenset[str]:
    """Returns the words that say what a text is about: all but the function words of English."""
    return frozenset(words_of(text)) - FUNCTION_WORDS


_SHORT = 3


def identity(text: str) -> str:
    r"""Returns what two texts share that are one to a careful reader, who knows Co from CO, schon
    from schön and x² from x2.

    White space, invisible characters, the form of quotes and dashes, and the case of longer words
    make no difference.

    Example:
        >>> identity("Where is  To\u200bkyo?") == identity("where is Tokyo?"), identity("What is Mg?") == identity("What is mg?")
        (True, False)
    """
    composed = looks_like(unicodedata.normalize("NFC", text))
    if composed.isupper() or not composed.strip():
        return " ".join(composed.casefold().split())
    words = composed.split()
    begins = (
        words[:1]
        if any(character.isupper() for character in words[0][1:])
        else [words[0].casefold()]
    )
    return " ".join([*map(_same_case, begins), *map(_same_case, words[1:])])


def _same_case(word: str) -> str:
    """Returns a word folded, unless it is so short that its case may tell it from another: Co, CO,
    mg, vitamin A.
    """
    letters = "".join(character for character in word if character.isalpha())
    is_symbol = len(letters) <= _SHORT and letters.casefold() not in FUNCTION_WORDS - {"a"}
    return word if is_symbol else word.casefold()


# White space that is more than a space between words, and marks of powers.
_NOT_FOLDED = re.compile(r"\A\s+|\s{2,}|[^\S ]|\^+")


def _without_space_and_caret(match: re.Match[str]) -> str:
    if match[0][0] != "^":
        return " " if match.start() else ""
    before = match.string[match.start() - 1 : match.start()]
    # x^2 and x2, Ca^2+ and Ca2+
    return "" if before.isalpha() or before == ")" else match[0]


def folded(seen: Rendered) -> Rendered:
    """Returns a rendered text folded, with single spaces and without the marks of powers, and the
    place of each character.
    """
    text = seen.text
    if text.isascii():
        alike = Rendered(text.lower(), seen.places)
        return _substituted(alike, _NOT_FOLDED, _without_space_and_caret)
    table = {character: fold_character(character) for character in set(text)}
    if all(len(folds) == 1 for folds in table.values()):
        alike = Rendered(
            text.translate({ord(each): folds for each, folds in table.items()}), seen.places
        )
    else:
        alike = _folded_one_by_one(seen, table)
    return _substituted(alike, _NOT_FOLDED, _without_space_and_caret)


def _folded_one_by_one(seen: Rendered, table: Mapping[str, str]) -> Rendered:
    """Folds a text in which a character is folded to none or to several."""
    pieces = [table[character] for character in seen.text]
    places: list[int] = []
    for piece, place in zip(pieces, seen.places, strict=False):
        places += [place] * len(piece)
    places.append(seen.places[len(seen.text)])
    return Rendered("".join(pieces), places)
