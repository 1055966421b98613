"""A text as a reader sees it: entities, markup, LaTeX and look-alike characters resolved, with the
place of each character.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
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
    r"(?P<entity>&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});)"
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
    """Returns what is seen of a piece of markup."""
    kind, found = match.lastgroup, match.group()
    if match["fraction"]:
        top, under = match["top"] or match["top1"], match["under"] or match["under1"]
        return f"{top}/{under}"
    match kind:
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
